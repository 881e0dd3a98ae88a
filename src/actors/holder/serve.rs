//! Serving what a client asked another node for, which holds no part of the symmetric key, or is none of those that decide.

use std::sync::Arc;
use std::time::{Duration, Instant};

use conclave_consensus::GroupId;
use futures::future::BoxFuture;

use super::{examine, refused};
use crate::actors::coordinator::{Caller, Work};
use crate::actors::decide::group_of;
use crate::actors::examined::Examined;
use crate::actors::parts::Parts;
use crate::actors::wire::{Abstention, Answer, Forwarded};
use crate::identifier::OperationId;
use crate::keystore::query;
use crate::operation::route::Route;

/// Longest wait for entries that the sender had applied, and most groups of which it names some.
const PATIENCE: Duration = Duration::from_millis(1_500);
const MOST_NEEDED: usize = 4;

/// Serves it under a name of this node's, as if the client had come here. Boxed, since to serve is to ask, this node too.
pub(super) fn answer(parts: &Arc<Parts>, from: u64, forwarded: Forwarded) -> BoxFuture<'_, Answer> {
    Box::pin(async move {
        match examine(parts, from, &forwarded).await {
            Ok(request) => to_examined(parts, from, &request, &forwarded, None).await,
            Err(answer) => answer,
        }
    })
}

/// The same for a request that was authenticated here: alone, or the item at a place of a batch, which travels as it came.
pub(super) fn to_examined<'a>(
    parts: &'a Arc<Parts>,
    from: u64,
    request: &'a Arc<Examined>,
    forwarded: &'a Forwarded,
    batch: Option<(Forwarded, u8)>,
) -> BoxFuture<'a, Answer> {
    Box::pin(async move {
        let served = match knows_the_same(parts, request, forwarded).await {
            Ok(()) => serve(parts, from, request, batch).await,
            Err(abstention) => Err(abstention.into()),
        };
        served.unwrap_or_else(|answer| answer)
    })
}

/// Whether a node is one of those that decide what this request asks for.
pub(crate) fn decides(
    parts: &Parts,
    request: &Examined,
    operation: &OperationId,
    node: u64,
) -> Result<bool, Abstention> {
    let roster = parts.roster(group_of(parts, request, operation))?;
    Ok(match request.route {
        Route::GenerateKey(_) => roster.births().member(node).is_some(),
        _ => roster.decider(node).is_some(),
    })
}

/// Waits for what the sender had applied, and looks whether the key is in the epoch in which the sender knows it: in another one
/// the sender may be a holder itself, which this node then has not seen the request of.
pub(super) async fn knows_the_same(
    parts: &Parts,
    request: &Examined,
    forwarded: &Forwarded,
) -> Result<(), Abstention> {
    let deadline = Instant::now() + PATIENCE;
    for (group, index) in forwarded.needs.iter().take(MOST_NEEDED) {
        if *group >= parts.rules.groups {
            return Err(Abstention::Behind);
        }
        let waited = parts.consensus.wait_applied(GroupId(*group), *index, deadline);
        waited.await.map_err(|_| Abstention::Behind)?;
    }
    let Route::UseKey(keystore, key) = &request.route else {
        return Ok(());
    };
    let (Some(epoch), Some(keystore), Some(key)) = (forwarded.epoch, keystore.id, key.id) else {
        return Ok(());
    };
    let view = parts.consensus.view(parts.group_of(&keystore));
    let record = view
        .ok()
        .and_then(|view| query::key(&view, &keystore, &key).ok())
        .flatten();
    match record.is_some_and(|record| record.epoch != epoch) {
        true => Err(Abstention::Epoch),
        false => Ok(()),
    }
}

async fn serve(
    parts: &Arc<Parts>,
    from: u64,
    request: &Arc<Examined>,
    batch: Option<(Forwarded, u8)>,
) -> Result<Answer, Answer> {
    let operation = parts.next_operation();
    let decides = |node: u64| decides(parts, request, &operation, node);
    // The members may be changing, and one of the two knows it already.
    if !matches!(request.route, Route::UseKey(..)) && (decides(from)? || !decides(parts.node)?) {
        return Err(Abstention::Behind.into());
    }
    tracing::debug!(from, served_as = %operation.request_id(), "serving for another node");
    let mut work = Work::new(parts, operation, request.clone(), Caller::Node(from));
    if let Some((forwarded, index)) = batch {
        work = work.into_item(forwarded, index);
    }
    let reply = work.serve().await.map_err(refused)?;
    Ok(Answer::Served {
        status: reply.status,
        location: reply.location,
        body: reply.body.map(|body| body.to_string().into_bytes()),
    })
}
