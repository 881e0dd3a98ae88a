//! Load on any WebKMS server, spoken as any client speaks it: what `conclave bench` does.
//!
//! [`run`] makes its own identity, meter, keystore and keys, keeps a number of requests in flight for a time and
//! checks every answer. Requests are signed before they are timed, no two alike; answers are checked after.

mod answer;
mod fill;
mod material;
mod pace;
mod prepare;
mod queue;
mod report;

pub use report::Report;

use crate::client::error::ClientError;
use crate::client::webkms::Client;
use answer::Answer;
use material::Material;
use pace::Pace;
use parking_lot::Mutex;
use prepare::Prepared;
use queue::Queue;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// Requests that are signed in advance, at most.
const WINDOW: usize = 4096;

/// Seconds that a request waits in the queue at most, at the rate that was asked for.
const FRESH: usize = 30;

/// Signatures of a batch.
const BATCH: usize = 16;

/// Answers that are kept for checking after the run; beyond that they are checked while it goes on.
const KEPT: usize = 200_000;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// Sign as the keystore's controller
    SignRoot,
    /// Sign by a delegated capability
    SignDelegated,
    /// Sign 16 messages a request, as the keystore's controller; an extension of this cluster's. The rate counts
    /// signatures
    SignBatch,
    /// Derive X25519 secrets as the keystore's controller
    Derive,
    /// Read the public descriptions of keys
    GetKey,
    /// Generate Ed25519 keys
    Generate,
    /// Tags of HMAC keys
    Hmac,
    /// Tags of HMAC keys compared, right ones and wrong ones
    HmacVerify,
    /// Wrap 32 bytes under key wrapping keys
    Wrap,
    /// Unwrap them again
    Unwrap,
    /// Update keystores and revoke delegations, in turn
    Change,
    /// Of a hundred requests 60 sign-root, 20 derive, 15 sign-delegated, 4 generate, 1 change
    Mixed,
    /// Make keystores, each with a key: an operation is both
    Fill,
}

impl Scenario {
    /// Operations that a request asks for.
    #[must_use]
    pub fn operations(self) -> u64 {
        match self {
            Self::SignBatch => BATCH as u64,
            _ => 1,
        }
    }

    /// What it is made of, with the share of each in a hundred requests.
    fn parts(self) -> Vec<(Self, u32)> {
        match self {
            Self::Mixed => vec![
                (Self::SignRoot, 60),
                (Self::Derive, 20),
                (Self::SignDelegated, 15),
                (Self::Generate, 4),
                (Self::Change, 1),
            ],
            one => vec![(one, 100)],
        }
    }

    /// The name on the command line and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SignRoot => "sign-root",
            Self::SignDelegated => "sign-delegated",
            Self::SignBatch => "sign-batch",
            Self::Derive => "derive",
            Self::GetKey => "get-key",
            Self::Generate => "generate",
            Self::Hmac => "hmac",
            Self::HmacVerify => "hmac-verify",
            Self::Wrap => "wrap",
            Self::Unwrap => "unwrap",
            Self::Change => "change",
            Self::Mixed => "mixed",
            Self::Fill => "fill",
        }
    }
}

/// A run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// What is asked for.
    pub scenario: Scenario,
    /// Requests in flight, at least 1.
    pub in_flight: usize,
    /// How long requests are sent; those under way at the end are awaited.
    pub duration: Duration,
    /// Keys that are used in turn, at least 1.
    pub keys: usize,
    /// Requests a second at most; `None` for as many as are answered.
    pub rate: Option<u32>,
}

/// What one sender saw.
#[derive(Default)]
struct Tally {
    latencies: Vec<u32>,
    errors: BTreeMap<String, u64>,
    wrong: u64,
    finished: Option<Instant>,
}

/// Carries out `plan`.
///
/// # Errors
/// [`ClientError`] when identity, meter, keystore or keys cannot be made, or the first requests cannot be signed;
/// what fails under load is counted in the report.
pub async fn run(client: Arc<Client>, plan: Plan) -> Result<Report, ClientError> {
    if plan.scenario == Scenario::Fill {
        return fill::run(client, plan).await;
    }
    let mut parts = Vec::new();
    for (scenario, _) in plan.scenario.parts() {
        parts.push(Material::make(&client, scenario, plan.keys.max(1)).await?);
    }
    let parts: Arc<[Material]> = parts.into();
    let in_flight = plan.in_flight.max(1);
    // At a slow rate a long queue would grow old.
    let window = plan.rate.map_or(WINDOW, |rate| WINDOW.min(rate as usize * FRESH));
    let queue = Arc::new(Queue::new(window.max(in_flight * 4)));
    let signer = prepare::start(
        plan.scenario,
        Arc::clone(&parts),
        client.connection().origin().clone(),
        Arc::clone(&queue),
    );
    let seen = Arc::default();
    queue.full().await;

    // Connections are opened and caches are warmed by requests that are not counted.
    let warm = (0..in_flight).map(|_| tokio::spawn(warm_up(Arc::clone(&client), Arc::clone(&queue))));
    futures::future::join_all(warm).await;
    queue.full().await;

    let start = Instant::now();
    let pace = Arc::new(Pace::new(start, plan.rate));
    let senders = (0..in_flight).map(|_| {
        tokio::spawn(
            Sender {
                client: Arc::clone(&client),
                queue: Arc::clone(&queue),
                pace: Arc::clone(&pace),
                parts: Arc::clone(&parts),
                seen: Arc::clone(&seen),
                keep: KEPT / in_flight,
            }
            .send_until(start + plan.duration),
        )
    });
    let mut total = Tally::default();
    for tally in futures::future::join_all(senders).await {
        let tally = tally.map_err(|error| ClientError::Unexpected(format!("a sender ended: {error}")))?;
        total.latencies.extend(tally.latencies);
        total.finished = total.finished.max(tally.finished);
        total.wrong += tally.wrong;
        for (kind, count) in tally.errors {
            *total.errors.entry(kind).or_default() += count;
        }
    }
    let elapsed = total.finished.map_or(plan.duration, |finished| finished - start);
    queue.close();
    signer
        .await
        .map_err(|error| ClientError::Unexpected(format!("the signing thread ended: {error}")))??;
    Ok(Report::new(
        plan.scenario,
        in_flight,
        elapsed,
        total.latencies,
        total.errors,
        total.wrong,
    ))
}

async fn warm_up(client: Arc<Client>, queue: Arc<Queue<Prepared>>) {
    if let Some(prepared) = queue.take().await {
        // Whatever goes wrong here goes wrong again where it is counted.
        let _ = client.connection().send(&prepared.request).await;
    }
}

struct Sender {
    client: Arc<Client>,
    queue: Arc<Queue<Prepared>>,
    pace: Arc<Pace>,
    parts: Arc<[Material]>,
    seen: Arc<Mutex<HashSet<String>>>,
    keep: usize,
}

impl Sender {
    async fn send_until(self, end: Instant) -> Tally {
        let mut tally = Tally::default();
        let mut answers = Vec::new();
        let mut judging = Vec::new();
        loop {
            self.pace.turn().await;
            // A turn may come after the end.
            if Instant::now() >= end {
                break;
            }
            let Some(prepared) = self.queue.take().await else {
                break;
            };
            let sent = Instant::now();
            let outcome = self.client.connection().send(&prepared.request).await;
            let finished = Instant::now();
            tally.finished = Some(finished);
            let micros = u32::try_from((finished - sent).as_micros()).unwrap_or(u32::MAX);
            match outcome {
                Ok(reply) if reply.is_success() => {
                    tally.latencies.push(micros);
                    answers.push(Answer {
                        part: prepared.part,
                        expected: prepared.expected,
                        reply,
                    });
                }
                Ok(reply) => *tally.errors.entry(reply.refusal().kind()).or_default() += 1,
                Err(error) => *tally.errors.entry(error.kind()).or_default() += 1,
            }
            if answers.len() > self.keep {
                judging.push(self.judge(std::mem::take(&mut answers)));
            }
        }
        judging.push(self.judge(answers));
        for judged in futures::future::join_all(judging).await {
            tally.wrong += judged.unwrap_or(1);
        }
        tally
    }

    /// Checks answers beside the runtime; gives the number of wrong ones.
    fn judge(&self, answers: Vec<Answer>) -> JoinHandle<u64> {
        let (parts, seen) = (Arc::clone(&self.parts), Arc::clone(&self.seen));
        tokio::task::spawn_blocking(move || answer::judge(&parts, &seen, answers))
    }
}

#[cfg(test)]
mod tests {
    use super::{Plan, Scenario, run};
    use crate::client::double::Kms;
    use crate::client::testing::Server;
    use crate::client::{Client, Connection, Limits, Origin, tls};
    use std::sync::Arc;
    use std::time::Duration;

    async fn report(scenario: Scenario, lie: usize) -> serde_json::Value {
        let kms = Kms::new("kms.test:8443", lie);
        let server = Server::start("kms.test", move |request| kms.answer(&request)).await;
        let origin = Origin::parse("https://kms.test:8443").unwrap();
        let trusted = tls::config(Some(&server.ca())).unwrap();
        let connection = Connection::new(origin, &[server.address()], trusted, Limits::default()).unwrap();
        let plan = Plan {
            scenario,
            in_flight: 4,
            duration: Duration::from_millis(300),
            keys: 3,
            rate: None,
        };
        run(Arc::new(Client::new(connection)), plan)
            .await
            .unwrap()
            .to_json()
    }

    /// The server refuses whatever comes twice, so this also shows that no two requests are alike.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_scenario_runs_clean_against_a_plain_server() {
        for scenario in [
            Scenario::SignRoot,
            Scenario::SignDelegated,
            Scenario::Derive,
            Scenario::GetKey,
            Scenario::Generate,
            Scenario::Change,
            Scenario::Mixed,
        ] {
            let report = report(scenario, 0).await;
            assert_eq!(report["errors"], serde_json::json!({}), "{report}");
            assert!(report["requests"].as_u64().unwrap() > 0, "{report}");
            assert_eq!(report["scenario"], scenario.name());
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn wrong_signatures_are_found() {
        let report = report(Scenario::SignRoot, 5).await;
        let (wrong, all) = (&report["errors"]["wrong_answer"], &report["requests"]);
        assert!(
            wrong.as_u64().unwrap() > 0 && wrong.as_u64() < all.as_u64(),
            "{report}"
        );
    }
}
