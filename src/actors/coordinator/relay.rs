//! A use of a symmetric key of which this node holds no part, or not yet: it hands the client's request to a holder, which
//! serves it as if the client had come there. The holder computes anyway, so it learns nothing more than it would have.

use serde_json::Value;

use super::{Caller, Work, busy};
use crate::actors::decide::Weighed;
use crate::actors::symmetric;
use crate::actors::wire::{Answer, Call};
use crate::operation::judge::Intent;
use crate::problem::Problem;
use crate::reply::Reply;

/// Who serves in this node's place: the other holders of a symmetric key of which this node holds no part.
///
/// # Errors
/// What this node would serve for another one is no such use.
pub(super) async fn holders_elsewhere(work: &Work, weighed: &Weighed) -> Result<Option<Vec<u64>>, Problem> {
    let parts = &work.parts;
    let unfit = || Problem::malformed("This node serves for another one only what that one cannot.");
    let used = match &weighed.judgement.intent {
        Intent::Use {
            keystore,
            key,
            record,
            ..
        } => record
            .material
            .sharing()
            .map(|sharing| (keystore, key, record, sharing)),
        _ => None,
    };
    let Some((keystore, key, record, sharing)) = used else {
        return match work.caller {
            Caller::Node(_) => Err(unfit()),
            _ => Ok(None),
        };
    };
    let was_there = |node| sharing.number(node).is_some() && !parts.was_away(record, node);
    let late = sharing.number(parts.node).is_some() && !was_there(parts.node);
    let here = was_there(parts.node) || late && symmetric::has_part(parts, (keystore, key), record).await;
    match work.caller {
        Caller::Node(node) if !here || was_there(node) => Err(unfit()),
        _ if here => Ok(None),
        _ => {
            let others = sharing.holders.iter().filter(|node| **node != parts.node);
            Ok(Some(others.copied().collect()))
        }
    }
}

/// Asks holders in turn. What one may have begun no other one is asked for when the result is secret: it is the first
/// one's by its claim.
pub(super) async fn serve(work: &Work, weighed: &Weighed, mut holders: Vec<u64>) -> Result<Reply, Problem> {
    let parts = &work.parts;
    holders.retain(|node| parts.network.connected(*node));
    let turns = usize::try_from(work.turn()).unwrap_or(0) % holders.len().max(1);
    holders.rotate_left(turns);
    let call = work.question(Call::Serve(work.forwarded(1, weighed.group, Vec::new())));
    for node in holders {
        let asked = parts.ask(node, &call, work.left()).await;
        match asked.map(|answer| parts.alone(node, answer)) {
            Ok(Answer::Served(body)) => return Ok(Reply::ok(read(&body)?)),
            Ok(Answer::Refused(problem)) => return Err(*problem),
            Ok(Answer::Abstained(reason)) => tracing::debug!(node, %reason, "a holder cannot serve now"),
            Ok(_) => tracing::warn!(node, "a holder did not understand"),
            Err(error) => {
                tracing::debug!(node, %error, "a holder does not answer");
                if work.request.has_secret_result() {
                    break;
                }
            }
        }
    }
    Err(Problem::unavailable(
        "This node has no part of this key, and no holder of it could serve now; try again, or another node.",
    ))
}

fn read(body: &[u8]) -> Result<Value, Problem> {
    serde_json::from_slice(body).map_err(|_| busy())
}
