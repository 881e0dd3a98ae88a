//! A batch: its items run side by side, each as the use that it would be alone; their answers come in their order.

use std::sync::Arc;

use futures::future::join_all;
use serde_json::{Value, json};

use super::exchange::Exchange;
use super::{Shared, Work};
use crate::actors::wire::Forwarded;
use crate::problem::Problem;
use crate::reply::Reply;

/// Serves all items.
pub(super) async fn serve(work: &Work) -> Result<Reply, Problem> {
    let parts = &work.parts;
    let items = work.request.items(&parts.rules)?;
    let under_way = items.iter().filter(|item| item.is_ok()).count();
    let exchange = Arc::new(Exchange::new(parts, forwarded(work), under_way));
    let answers = (0_u8..).zip(items).map(|(index, item)| {
        let exchange = exchange.clone();
        async move {
            let work = match item {
                Err(problem) => return answer(Err(problem)),
                Ok(examined) => Work {
                    request: Arc::new(examined),
                    operation: parts.next_operation(),
                    shared: Some(Shared {
                        exchange: exchange.clone(),
                        index,
                        // All ask the same holders first.
                        turn: work.operation.counter,
                    }),
                    ..work.clone()
                },
            };
            let used = work.use_key().await;
            exchange.done().await;
            answer(used)
        }
    });
    Ok(Reply::ok(Value::Array(join_all(answers).await)))
}

/// How the batch itself travels.
fn forwarded(work: &Work) -> Forwarded {
    let group = super::group_of(&work.parts, &work.request, &work.operation);
    work.forwarded(1, group, Vec::new())
}

/// An item's answer as it would be alone.
fn answer(used: Result<Reply, Problem>) -> Value {
    match used {
        Ok(reply) => json!({ "status": reply.status, "body": reply.body }),
        Err(problem) => json!({ "status": problem.status, "body": problem.body() }),
    }
}
