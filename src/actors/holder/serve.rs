//! Serving what a client asked another node for, which holds no part of the symmetric key.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::{examine, refused};
use crate::actors::coordinator::{Caller, Work};
use crate::actors::examined::Examined;
use crate::actors::parts::Parts;
use crate::actors::wire::{Answer, Forwarded};
use crate::operation::route::Route;

/// Serves it under a name of this node's, as if the client had come here. Boxed, since to serve is to ask, this node too.
pub(super) fn answer(parts: &Arc<Parts>, from: u64, forwarded: Forwarded) -> BoxFuture<'_, Answer> {
    Box::pin(async move {
        match examine(parts, from, &forwarded).await {
            Ok(request) => to_examined(parts, from, &request, None).await,
            Err(answer) => answer,
        }
    })
}

/// The same for a request that was authenticated here: alone, or the item at a place of a batch, which travels as it came.
pub(super) fn to_examined<'a>(
    parts: &'a Arc<Parts>,
    from: u64,
    request: &'a Arc<Examined>,
    batch: Option<(Forwarded, u8)>,
) -> BoxFuture<'a, Answer> {
    Box::pin(async move {
        let served = serve(parts, from, request, batch).await;
        served.unwrap_or_else(|answer| answer)
    })
}

async fn serve(
    parts: &Arc<Parts>,
    from: u64,
    request: &Arc<Examined>,
    batch: Option<(Forwarded, u8)>,
) -> Result<Answer, Answer> {
    if !matches!(request.route, Route::UseKey(..)) {
        return Err(Answer::Misfit(
            "only uses of keys are served for another node".into(),
        ));
    }
    let operation = parts.next_operation();
    tracing::debug!(from, served_as = %operation.request_id(), "serving for another node");
    let mut work = Work::new(parts, operation, request.clone(), Caller::Node(from));
    if let Some((forwarded, index)) = batch {
        work = work.into_item(forwarded, index);
    }
    match work.serve().await.map(|reply| reply.body) {
        Ok(Some(body)) => Ok(Answer::Served(body.to_string().into_bytes())),
        Ok(None) => Err(Answer::Misfit("what was served has no body".into())),
        Err(problem) => Err(refused(problem)),
    }
}
