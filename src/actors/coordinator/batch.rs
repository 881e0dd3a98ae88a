//! A batch: its items run side by side, each as the use that it would be alone; their answers come in their order.

use std::sync::Arc;

use futures::future::join_all;
use serde_json::{Value, json};

use super::exchange::Exchange;
use super::{Shared, Work, busy, claim, relay};
use crate::actors::decide::{Purpose, Weighed};
use crate::actors::wire::Forwarded;
use crate::operation::judge::Intent;
use crate::problem::Problem;
use crate::reply::Reply;

/// An item and this node's own judgement of it.
type Judged = (Work, Result<Weighed, Problem>);

/// Serves all items. Whoever is asked about one sees them all: so all are judged and those with a secret result claimed
/// before anybody is asked about any.
pub(super) async fn serve(work: &Work) -> Result<Reply, Problem> {
    let parts = &work.parts;
    let items = work.request.items(&parts.rules)?;
    let weighed = join_all(items.into_iter().map(|item| async {
        let item = Work {
            request: Arc::new(item?),
            operation: parts.next_operation(),
            ..work.clone()
        };
        let weighed = item.weigh(Purpose::Contribute).await;
        Ok((item, weighed))
    }));
    let weighed: Vec<Result<Judged, Problem>> = weighed.await;
    // What this node could not decide now, others may.
    let undecided =
        |weighed: &Result<Weighed, Problem>| weighed.as_ref().err().is_none_or(|no| no.status == 503);
    let secret = weighed.iter().flatten().filter_map(|(item, weighed)| {
        let claimed = item.request.has_secret_result() && undecided(weighed);
        claimed.then_some(&*item.request)
    });
    claim::claim(work, secret).await;

    let asks_together = |judged: &&Judged| matches!(&judged.1, Ok(weighed) if !is_symmetric(weighed));
    let under_way = weighed.iter().flatten().filter(asks_together).count();
    let exchange = Arc::new(Exchange::new(parts, forwarded(work), under_way));
    let answers = (0_u8..).zip(weighed).map(|(index, item)| {
        let exchange = exchange.clone();
        async move {
            let (item, weighed) = match item {
                Ok((item, Ok(weighed))) => (item, weighed),
                Ok((_, Err(problem))) | Err(problem) => return answer(Err(problem)),
            };
            let shared = Some(Shared {
                exchange: exchange.clone(),
                index,
                // All ask the same holders first.
                turn: work.operation.counter,
            });
            let item = Work { shared, ..item };
            if is_symmetric(&weighed) {
                return answer(symmetric(&item, weighed).await);
            }
            let used = item.use_weighed(weighed).await;
            exchange.done().await;
            answer(used)
        }
    });
    Ok(Reply::ok(Value::Array(join_all(answers).await)))
}

fn is_symmetric(weighed: &Weighed) -> bool {
    matches!(&weighed.judgement.intent, Intent::Use { record, .. } if record.material.sharing().is_some())
}

/// A use of a symmetric key, here or by a holder. A secret result has been claimed for this node, and is nobody else's.
async fn symmetric(item: &Work, weighed: Weighed) -> Result<Reply, Problem> {
    match relay::holders_elsewhere(item, &weighed).await? {
        None => item.use_weighed(weighed).await,
        Some(_) if item.request.has_secret_result() => Err(Problem::unavailable(
            "This node has no part of this key: send this operation alone, or the batch to another node.",
        )),
        Some(holders) => {
            let served = relay::use_elsewhere(item, &weighed, holders).await?;
            served.ok_or_else(busy)
        }
    }
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
