//! What this node cannot serve itself: a use of a symmetric key of which it holds no part, or not yet, and a change that it
//! is none to decide about. It hands the client's request to a node that can, which serves it as if the client had come
//! there; that one takes part anyway, so it learns nothing more than it would have.

use serde_json::Value;

use conclave_consensus::GroupId;

use super::using::cannot_contribute;
use super::{Caller, Work, busy};
use crate::actors::decide::{Weighed, group_of};
use crate::actors::holder::decides;
use crate::actors::symmetric;
use crate::actors::wire::{Abstention, Answer, Call, Forwarded};
use crate::operation::judge::Intent;
use crate::operation::route::Route;
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

/// Who serves a change in this node's place, if it is none of those that decide.
///
/// # Errors
/// 503 where the state cannot be read.
pub(super) fn deciders_elsewhere(work: &Work) -> Result<Option<(GroupId, Vec<u64>)>, Problem> {
    let parts = &work.parts;
    let own = decides(parts, &work.request, &work.operation, parts.node).map_err(cannot_contribute)?;
    if own || !matches!(work.caller, Caller::Client(_)) {
        return Ok(None);
    }
    let group = group_of(parts, &work.request, &work.operation);
    let roster = parts.roster(group).map_err(cannot_contribute)?;
    Ok(Some((group, roster.births().nodes())))
}

/// Has one of the key's holders serve a use of it; none if some of them know the key in another epoch, in which this node may
/// be a holder itself.
pub(super) async fn use_elsewhere(
    work: &Work,
    weighed: &Weighed,
    holders: Vec<u64>,
) -> Result<Option<Reply>, Problem> {
    let epoch = match &weighed.judgement.intent {
        Intent::Use { record, .. } => Some(record.epoch),
        _ => None,
    };
    ask(work, weighed.group, epoch, holders).await
}

/// Has one of those that decide serve a change.
pub(super) async fn change_elsewhere(work: &Work, group: GroupId, nodes: Vec<u64>) -> Result<Reply, Problem> {
    ask(work, group, None, nodes).await?.ok_or_else(busy)
}

/// Asks them in turn. What one may have begun no other one is asked for when the result is secret: it is the first one's by its
/// claim. Who knows the key in another epoch has not looked at the request.
async fn ask(
    work: &Work,
    group: GroupId,
    epoch: Option<u64>,
    mut holders: Vec<u64>,
) -> Result<Option<Reply>, Problem> {
    let parts = &work.parts;
    holders.retain(|node| parts.network.connected(*node));
    let turns = usize::try_from(work.turn()).unwrap_or(0) % holders.len().max(1);
    holders.rotate_left(turns);
    let forwarded = Forwarded {
        epoch,
        ..work.forwarded(1, group, Vec::new())
    };
    let call = work.question(Call::Serve(forwarded));
    let mut ahead = false;
    for node in holders {
        let asked = parts.ask(node, &call, work.left()).await;
        match asked.map(|answer| parts.alone(node, answer)) {
            Ok(Answer::Served {
                status,
                location,
                body,
            }) => {
                return Ok(Some(Reply {
                    status,
                    location,
                    body: body.map(|body| read(&body)).transpose()?,
                    notice: None,
                    receipt: None,
                }));
            }
            Ok(Answer::Refused(problem)) => return Err(*problem),
            Ok(Answer::Abstained(Abstention::Epoch)) => ahead = true,
            Ok(Answer::Abstained(reason)) => tracing::debug!(node, %reason, "a holder cannot serve now"),
            Ok(_) => tracing::warn!(node, "a holder did not understand"),
            Err(error) => {
                tracing::debug!(node, %error, "a holder does not answer");
                // A change may have been made: whoever asks again must look first.
                if work.request.has_secret_result() || !matches!(work.request.route, Route::UseKey(..)) {
                    break;
                }
            }
        }
    }
    if ahead {
        return Ok(None);
    }
    Err(Problem::unavailable(
        "This node has no part in this, and none that has could serve now; try again, or another node.",
    ))
}

fn read(body: &[u8]) -> Result<Value, Problem> {
    serde_json::from_slice(body).map_err(|_| busy())
}
