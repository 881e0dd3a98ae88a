//! Keystores in bulk, each with a key: what a cluster looks like after years.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use rand::rngs::OsRng;

use super::{Plan, Report};
use crate::client::call::KeyParameters;
use crate::client::error::ClientError;
use crate::client::identity::Identity;
use crate::client::webkms::Client;

/// Keystores of one controller on one meter; then come new ones.
const OF_A_CONTROLLER: usize = 100;

/// What one worker made.
#[derive(Default)]
struct Made {
    latencies: Vec<u32>,
    errors: BTreeMap<String, u64>,
}

/// Makes keystores with a key each until the time is over; each pair counts as one operation.
pub(super) async fn run(client: Arc<Client>, plan: Plan) -> Result<Report, ClientError> {
    let in_flight = plan.in_flight.max(1);
    let start = Instant::now();
    let end = start + plan.duration;
    let workers = (0..in_flight).map(|_| tokio::spawn(fill(Arc::clone(&client), end)));
    let mut all = Made::default();
    for made in futures::future::join_all(workers).await {
        let made = made.map_err(|error| ClientError::Unexpected(format!("a worker ended: {error}")))??;
        all.latencies.extend(made.latencies);
        for (kind, count) in made.errors {
            *all.errors.entry(kind).or_default() += count;
        }
    }
    let elapsed = start.elapsed();
    Ok(Report::new(
        plan.scenario,
        in_flight,
        elapsed,
        all.latencies,
        all.errors,
        0,
    ))
}

async fn fill(client: Arc<Client>, end: Instant) -> Result<Made, ClientError> {
    let mut made = Made::default();
    while Instant::now() < end {
        let controller = Identity::generate(&mut OsRng);
        let (meter, _) = client
            .create_meter(&controller, controller.did(), "urn:uuid:conclave-bench")
            .await?;
        for _ in 0..OF_A_CONTROLLER {
            let began = Instant::now();
            if began >= end {
                break;
            }
            match pair(&client, &controller, &meter).await {
                Ok(()) => {
                    let micros = u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX);
                    made.latencies.push(micros);
                }
                Err(error) => *made.errors.entry(error.kind()).or_default() += 1,
            }
        }
    }
    Ok(made)
}

async fn pair(client: &Client, controller: &Identity, meter: &str) -> Result<(), ClientError> {
    let controllers = [controller.did().to_owned()];
    let config = client
        .create_keystore(controller, meter, &controllers, "ssm-v1", &[])
        .await?;
    let keystore = config.get("id").and_then(serde_json::Value::as_str);
    let keystore = keystore.ok_or_else(|| ClientError::Unexpected("a keystore without an id".to_owned()))?;
    let parameters = KeyParameters {
        key_type: "Ed25519VerificationKey2020".to_owned(),
        ..KeyParameters::default()
    };
    client
        .generate_key(controller, keystore, &parameters, None)
        .await?;
    Ok(())
}
