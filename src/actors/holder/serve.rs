//! Serving what a client asked another node for, which holds no part of the symmetric key.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::{examine, refused};
use crate::actors::coordinator::{Caller, Work};
use crate::actors::parts::Parts;
use crate::actors::wire::{Answer, Forwarded};
use crate::operation::route::Route;

/// Serves it under a name of this node's, as if the client had come here. Boxed, since to serve is to ask, this node too.
pub(super) fn answer(parts: &Arc<Parts>, from: u64, forwarded: Forwarded) -> BoxFuture<'_, Answer> {
    Box::pin(async move {
        let served = serve(parts, from, forwarded).await;
        served.unwrap_or_else(|answer| answer)
    })
}

async fn serve(parts: &Arc<Parts>, from: u64, forwarded: Forwarded) -> Result<Answer, Answer> {
    let request = examine(parts, from, &forwarded).await?;
    if !matches!(request.route, Route::UseKey(..)) {
        return Err(Answer::Misfit(
            "only uses of keys are served for another node".into(),
        ));
    }
    let operation = parts.next_operation();
    tracing::debug!(from, served_as = %operation.request_id(), "serving for another node");
    let work = Work::new(parts, operation, request, Caller::Node(from));
    match work.serve().await.map(|reply| reply.body) {
        Ok(Some(body)) => Ok(Answer::Served(body.to_string().into_bytes())),
        Ok(None) => Err(Answer::Misfit("what was served has no body".into())),
        Err(problem) => Err(refused(problem)),
    }
}
