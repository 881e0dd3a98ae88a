//! Uses of symmetric keys: this node evaluates what two other holders garble. A use needs three live holders; one that
//! restarts is waited for.

mod trios;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use conclave_garbled::held::Held;
use conclave_garbled::operations;
use conclave_garbled::session::{Outputs, Task};
use serde_json::{Value, json};

use super::using::{Target, cannot_contribute};
use super::{Caller, RENEWALS, Work, busy, relay};
use crate::actors::decide::Weighed;
use crate::actors::holder::key_name;
use crate::actors::symmetric;
use crate::actors::symmetric::evaluate::{Computation, Fallen, evaluate};
use crate::actors::symmetric::tasks::{About, digest, trio};
use crate::actors::wire::{Call, Roles};
use crate::keystore::record::Sharing;
use crate::operation::judge::Using;
use crate::problem::Problem;
use crate::reply::Reply;

/// Attempts, with other garblers or after a pause; for as long as this node's decision is good, since a holder that has
/// just started is linked before it can compute.
const ATTEMPTS: u8 = 16;
/// How long holders that are not there are waited for: a node that restarts is not an outage.
pub(crate) const RESTART: Duration = Duration::from_secs(5);
/// Between two looks at who is there.
pub(super) const LOOK: Duration = Duration::from_millis(25);
/// After a garbler that could not, times the square of the attempt, up to [`LONGEST_PAUSE`].
const PAUSE: Duration = Duration::from_millis(150);
const LONGEST_PAUSE: Duration = Duration::from_millis(450);

/// Times that a garbler has too much to do, before the client is told so.
const MOST_BUSY: u8 = 3;

/// How a use ends.
enum Answered {
    With(Value),
    /// A holder knows another epoch of the key; and the attempt that came to this.
    Ahead(u64, u8),
}

/// Uses a symmetric key; a request whose result is secret has been claimed.
pub(super) async fn use_key(
    work: &Work,
    mut weighed: Weighed,
    mut target: Target,
    using: &Using,
) -> Result<Reply, Problem> {
    let mut before = 0;
    for renewal in 0..=RENEWALS {
        let use_ = Use {
            work,
            weighed: &weighed,
            target: &target,
            using,
            sharing: target.record.material.sharing().ok_or_else(busy)?,
        };
        match use_.answer(before).await? {
            Answered::With(answer) => return Ok(Reply::ok(answer)),
            Answered::Ahead(node, attempt) => {
                if renewal == RENEWALS {
                    break;
                }
                let (again, renewed) = work.look_again(renewal).await?;
                if renewed.record.epoch == target.record.epoch {
                    work.parts.symmetric.failed(node);
                }
                (weighed, target, before) = (again, renewed, attempt);
                let sharing = target.record.material.sharing().ok_or_else(busy)?;
                if sharing.number(work.parts.node).is_none() {
                    return Box::pin(moved(work, &weighed)).await;
                }
            }
        }
    }
    Err(busy())
}

/// The key has moved to others when this node was about to use it. Only what nobody has claimed can be theirs to serve.
async fn moved(work: &Work, weighed: &Weighed) -> Result<Reply, Problem> {
    if work.request.has_secret_result() || !matches!(work.caller, Caller::Client(_)) {
        return Err(busy());
    }
    let holders = relay::holders_elsewhere(work, weighed).await?.ok_or_else(busy)?;
    let served = relay::use_elsewhere(work, weighed, holders).await?;
    served.ok_or_else(busy)
}

struct Use<'a> {
    work: &'a Work,
    weighed: &'a Weighed,
    target: &'a Target,
    using: &'a Using,
    sharing: &'a Sharing,
}

impl Use<'_> {
    /// Attempts are counted on from `before`.
    async fn answer(&self, before: u8) -> Result<Answered, Problem> {
        let parts = &self.work.parts;
        let Target {
            keystore,
            key,
            record,
        } = self.target;
        let prepared = symmetric::prepare(parts, (keystore, key), record, self.using);
        let (held, task) = prepared.await?.map_err(|error| {
            tracing::error!(%error, %key, "a symmetric key cannot be opened");
            busy()
        })?;
        if let Some(known) = self.without_computing() {
            // What is answered is on record, whoever answers.
            let alone = vec![parts.node];
            self.weighed
                .append(1, alone.clone())
                .await
                .map_err(cannot_contribute)?;
            self.weighed.conclude(1, alone, &known.clone().map(Reply::ok));
            return known.map(Answered::With);
        }
        let task = task.ok_or_else(busy)?;
        let mut failures: BTreeMap<u64, u32> = BTreeMap::new();
        let mut refusals: BTreeMap<u64, Problem> = BTreeMap::new();
        let mut ahead: BTreeSet<u64> = BTreeSet::new();
        let mut overloaded = 0;
        let mut participants = vec![parts.node];
        for attempt in before + 1..=ATTEMPTS {
            let garblers = self.garblers(attempt, &failures).await?;
            if !self.weighed.is_fresh() {
                break;
            }
            let fallen;
            (fallen, participants) = match self.attempt(attempt, garblers, &held, &task).await? {
                (Ok(outputs), participants) => {
                    self.succeeded(garblers);
                    let answer = self.read(&outputs);
                    let reply = answer.clone().map(Reply::ok);
                    self.weighed.conclude(attempt, participants, &reply);
                    return answer.map(Answered::With);
                }
                (Err(fallen), participants) => (fallen, participants),
            };
            let mut blame = |node: u64| {
                *failures.entry(node).or_default() += 1;
                parts.symmetric.failed(node);
            };
            tracing::debug!(
                attempt,
                ?participants,
                ?fallen,
                "an attempt to use a symmetric key failed"
            );
            match fallen {
                Fallen::Refused(refused) => {
                    for (node, problem) in refused {
                        blame(node);
                        refusals.insert(node, *problem);
                    }
                    // Two have refused, of whom one is honest.
                    if refusals.len() > 1
                        && let Some((_, problem)) = refusals.pop_first()
                    {
                        let answer = Err(problem);
                        self.weighed.conclude(attempt, participants, &answer);
                        return answer.map(|_: Reply| Answered::With(Value::Null));
                    }
                }
                Fallen::Silent(node) => blame(node),
                // Others may have less to do; whoever asks on and on only adds to it.
                Fallen::Busy(node) => {
                    blame(node);
                    overloaded += 1;
                    if overloaded == MOST_BUSY {
                        break;
                    }
                }
                Fallen::Ahead(node) => {
                    blame(node);
                    ahead.insert(node);
                    // Of four holders the others may know the epoch that this node knows.
                    if ahead.len() > 1 || self.sharing.holders.len() <= Sharing::TRIO {
                        return Ok(Answered::Ahead(node, attempt));
                    }
                }
                Fallen::Aborted => {
                    garblers.into_iter().for_each(blame);
                    self.aborted(garblers);
                }
                Fallen::Own(abstention) => return Err(cannot_contribute(abstention)),
            }
            let pause = (PAUSE * u32::from(attempt).pow(2)).min(LONGEST_PAUSE);
            if self.work.left() < pause + PAUSE {
                break;
            }
            tokio::time::sleep(pause).await;
        }
        let problem =
            Problem::unavailable("Too few holders of this key could compute now; try again in a moment.");
        self.weighed
            .conclude(ATTEMPTS, participants, &Err(problem.clone()));
        Err(problem)
    }

    /// What needs no garbling: the answer follows from the lengths.
    fn without_computing(&self) -> Option<Result<Value, Problem>> {
        let unfit =
            |error: operations::Length| Err(Problem::not_authorized("DataError", format!("{error}.")));
        match self.using {
            Using::Verify(_, None) => Some(Ok(json!({ "verified": false }))),
            Using::Wrap(payload) => operations::check_length(payload.0.len()).err().map(unfit),
            Using::Unwrap(wrapped)
                if operations::check_length(wrapped.0.len().saturating_sub(8)).is_err() =>
            {
                Some(Ok(json!({ "unwrappedKey": null })))
            }
            _ => None,
        }
    }

    fn key_name(&self) -> Vec<u8> {
        key_name(&self.target.keystore, &self.target.key)
    }

    async fn attempt(
        &self,
        attempt: u8,
        [first, second]: [u64; 2],
        held: &Held,
        task: &Task,
    ) -> Result<(Result<Outputs, Fallen>, Vec<u64>), Problem> {
        let parts = &self.work.parts;
        let roles = Roles {
            number: parts.symmetric.next_number(),
            nodes: [first, second, parts.node],
            circuit: task.id,
        };
        let participants = roles.participants().to_vec();
        let about = About {
            cluster: *parts.cluster(),
            roles: roles.nodes,
            holders: &self.sharing.holders,
            boot: parts.boot,
            number: roles.number,
            operation: self.work.operation,
            attempt,
        };
        let target = self.target;
        let context = about.context(
            self.key_name(),
            target.record.key_type,
            digest(self.sharing),
            self.work.request.hash,
        );
        let trio = trio(&self.sharing.holders, roles.nodes).ok_or_else(busy)?;
        let computation = Computation {
            context,
            task: task.clone(),
            secret: held.share.as_evaluator(trio).map_err(|_| busy())?,
        };
        let forwarded = target.forwarded(self.work, attempt, participants.clone());
        let call = self.work.question(Call::Garble(forwarded, roles));
        let (evaluated, recorded) = futures::join!(
            evaluate(parts, computation, &call, self.work.left()),
            self.weighed.append(attempt, participants.clone())
        );
        recorded.map_err(cannot_contribute)?;
        Ok((evaluated, participants))
    }

    fn read(&self, outputs: &Outputs) -> Result<Value, Problem> {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        Ok(match self.using {
            Using::Authenticate(_) => json!({ "signatureValue": encode(&outputs.opened) }),
            Using::Verify(..) => json!({ "verified": operations::verified(&outputs.opened) }),
            Using::Wrap(_) => json!({ "wrappedKey": encode(&outputs.opened) }),
            Using::Unwrap(_) => {
                let payload = operations::unwrapped(&outputs.opened);
                json!({ "unwrappedKey": payload.map(|payload| encode(&payload)) })
            }
            Using::Sign(_) | Using::DeriveSecret(_) => return Err(busy()),
        })
    }
}

/// Nodes by number, for a human.
pub(super) fn list(nodes: &[u64]) -> String {
    let numbers: Vec<String> = nodes.iter().map(u64::to_string).collect();
    match nodes.len() {
        1 => format!("node {}", numbers.join("")),
        _ => format!("nodes {}", numbers.join(", ")),
    }
}
