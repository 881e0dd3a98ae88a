//! Questions about the items of a batch: the batch is authenticated once, and each item is judged, recorded and answered
//! as a request of its own.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::join_all;

use super::{contribute, examine, garble, refused, serve};
use crate::actors::examined::Examined;
use crate::actors::parts::Parts;
use crate::actors::wire::{Answer, Call, Forwarded, Item, ItemAsk, MAX_ITEMS};
use crate::problem::Problem;

/// Answers all questions side by side: their records share a sync.
pub(super) async fn answer(parts: &Arc<Parts>, from: u64, forwarded: Forwarded, items: Vec<Item>) -> Answer {
    let asked: BTreeSet<u8> = items.iter().map(|item| item.index).collect();
    if items.len() > MAX_ITEMS || asked.len() != items.len() {
        return Answer::Misfit("too many questions about a batch, or two about one item".into());
    }
    let request = match examine(parts, from, &forwarded).await {
        Ok(request) => request,
        Err(answer) => return answer,
    };
    let all = match request.items(&parts.rules) {
        Ok(all) => all,
        Err(problem) => return refused(problem),
    };
    let all: Vec<Result<Arc<Examined>, Problem>> = all.into_iter().map(|item| item.map(Arc::new)).collect();
    let answers = items.into_iter().map(|item| {
        let examined = all.get(usize::from(item.index)).cloned();
        let forwarded = &forwarded;
        async move {
            match examined {
                Some(Ok(examined)) => one(parts, from, forwarded, item, &examined).await,
                Some(Err(problem)) => refused(problem),
                None => Answer::Misfit("a question about an item that is not there".into()),
            }
        }
    });
    let answers = join_all(answers).await;
    let format = parts.speaks(from);
    Answer::Batch(answers.iter().map(|answer| answer.encode_in(format)).collect())
}

async fn one(
    parts: &Arc<Parts>,
    from: u64,
    batch: &Forwarded,
    item: Item,
    examined: &Arc<Examined>,
) -> Answer {
    let Item {
        index,
        operation,
        attempt,
        needs,
        participants,
        epoch,
        ask,
    } = item;
    let alone = Forwarded {
        operation,
        attempt,
        request: examined.encoded.clone(),
        needs,
        participants,
        epoch,
    };
    let call = match ask {
        ItemAsk::SignShare(list) => {
            return contribute::second_round(parts, from, (operation, attempt), list).await;
        }
        ItemAsk::Cosign(theirs) => Call::Cosign(alone, theirs),
        ItemAsk::Commit => Call::Commit(alone),
        ItemAsk::Derive => Call::Derive(alone),
        ItemAsk::Garble(roles) => return garble::to_examined(parts, from, alone, &roles, examined).await,
        ItemAsk::Serve => {
            return serve::to_examined(parts, from, examined, &alone, Some((batch.clone(), index))).await;
        }
    };
    contribute::to_examined(parts, from, call, examined).await
}
