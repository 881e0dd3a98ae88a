//! Serving what a client asked a node for that has no part of the group in question: as if the client had come here, its address
//! by that node's word. It is not handed on from here.

use std::sync::Arc;

use conclave_consensus::GroupId;
use futures::future::BoxFuture;

use super::{examine, refused, serve};
use crate::actors::coordinator::{Caller, Work, describe_key, outside, receipt};
use crate::actors::decide::{group_of, judge};
use crate::actors::examined::Examined;
use crate::actors::parts::Parts;
use crate::actors::views::{GROUP_ZERO, Views};
use crate::actors::wire::{Abstention, Answer, Forwarded, MAX_ADDRESSES, Relay, Relayed, Served};
use crate::authorization::RawRequest;
use crate::keystore::query;
use crate::operation::judge::Intent;
use crate::operation::route::Route;
use crate::problem::Problem;
use crate::reply::Reply;

/// Serves it under a name of this node's. Boxed, since to serve is to ask, this node too.
pub(super) fn answer(parts: &Arc<Parts>, from: u64, relay: Relay) -> BoxFuture<'_, Answer> {
    Box::pin(async move {
        let served = relayed(parts, from, relay).await;
        served.unwrap_or_else(|answer| answer)
    })
}

async fn relayed(parts: &Arc<Parts>, from: u64, relay: Relay) -> Result<Answer, Answer> {
    let Relay {
        forwarded,
        addresses,
        receipt: wanted,
    } = relay;
    if addresses.len() > MAX_ADDRESSES {
        return Err(Answer::Misfit("a client with too many addresses".into()));
    }
    let raw = RawRequest::decode(&forwarded.request);
    let route = raw.ok().and_then(|raw| Route::parse(&raw.method, &raw.target));
    if let Some(Route::GetKey(keystore, key)) = route {
        let group = keystore.id.map(|keystore| parts.group_of(&keystore));
        takes(parts, from, group.unwrap_or(GROUP_ZERO))?;
        let mut served = describe_key(parts, &keystore, &key, &addresses).await;
        if wanted {
            served = receipt::with_description(parts, (&keystore, &key), served).await;
        }
        return Ok(told(served));
    }
    let request = examine(parts, from, &forwarded).await?;
    serve::knows_the_same(parts, &request, &forwarded).await?;
    let operation = parts.next_operation();
    match request.route {
        Route::CreateMeter | Route::GetMeter(_) | Route::ListKeystores(_) => {
            return Err(refused(Problem::malformed(
                "This node serves for another one only what that one cannot.",
            )));
        }
        _ => takes(parts, from, group_of(parts, &request, &operation))?,
    }
    tracing::debug!(from, served_as = %operation.request_id(), "serving for a node that has no part of the group");
    let caller = Caller::Client(addresses.into());
    let work = Work::new(parts, operation, request.clone(), caller);
    let mut served = work.serve().await;
    if wanted {
        served = receipt::with_change(parts, &request, served).await;
    }
    Ok(told(served))
}

/// Whether this node serves for that one: it has a part of the group, and the other one has none, or it would serve itself. A
/// holder that was shown a request could learn so what is its client's alone.
fn takes(parts: &Parts, from: u64, group: GroupId) -> Result<(), Abstention> {
    let roster = parts.roster(group)?;
    match parts.is_in(group) && roster.decider(from).is_none() {
        true => Ok(()),
        false => Err(Abstention::Behind),
    }
}

fn told(served: Result<Reply, Problem>) -> Answer {
    let relayed = match served {
        Ok(reply) => Relayed {
            receipt: reply.receipt,
            served: Ok(Served {
                status: reply.status,
                location: reply.location,
                body: reply.body.map(|body| body.to_string().into_bytes()),
            }),
        },
        Err(problem) => Relayed {
            receipt: problem.receipt.clone(),
            served: Err(problem),
        },
    };
    Answer::Relayed(Box::new(relayed))
}

/// The keystores of a controller in one group, by the client's own request.
pub(super) async fn list(parts: &Arc<Parts>, from: u64, forwarded: &Forwarded, group: u32) -> Answer {
    let listed = async {
        let request = examine(parts, from, forwarded).await?;
        let group = GroupId(group);
        if group == GROUP_ZERO || group.0 >= parts.rules.groups {
            return Err(Answer::Misfit("a list of no group".into()));
        }
        takes(parts, from, group)?;
        serve::knows_the_same(parts, &request, forwarded).await?;
        let controller = controller(parts, &request).await?;
        let confirmed = outside::confirm(parts, group).await;
        confirmed.map_err(refused)?;
        let view = parts.consensus.view(group).map_err(|_| Abstention::Behind)?;
        let found = query::controlled_by(&view, &controller, outside::MAX_LIST);
        Ok(Answer::Listed(found.map_err(|_| Abstention::Behind)?))
    };
    listed.await.unwrap_or_else(|answer: Answer| answer)
}

/// Whose keystores the client may see, by this node's own judgement.
async fn controller(parts: &Arc<Parts>, request: &Arc<Examined>) -> Result<String, Answer> {
    let now = parts.now().map_err(|_| Abstention::Clock)?;
    let zero = || parts.consensus.view(GROUP_ZERO).map_err(|_| Abstention::Behind);
    let views = Views {
        zero: zero()?,
        own: zero()?,
        denials: None,
    };
    let judged = judge(parts, request, views, parts.next_operation(), now).await?;
    match judged.map_err(refused)?.intent {
        Intent::ListKeystores(controller) => Ok(controller),
        _ => Err(Answer::Misfit("a request that lists nothing".into())),
    }
}
