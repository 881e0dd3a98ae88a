//! One exchange with each holder for all items of a batch. Items run side by side, each as a use of its own; what they
//! ask a node at the same time goes to it in one question.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use conclave_transport::CallError;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::actors::parts::Parts;
use crate::actors::wire::{Answer, Call, Forwarded, Item, ItemAsk};
use crate::overload::Turn;

/// An item that is not ready to ask holds the others up for this long, no longer.
const GATHER: Duration = Duration::from_millis(20);

type Answered = Result<Answer, CallError>;

/// Collects what items ask.
pub(super) struct Exchange {
    parts: Arc<Parts>,
    /// The batch as it travels.
    forwarded: Forwarded,
    state: Mutex<State>,
}

struct State {
    /// Items under way.
    active: usize,
    waiting: Vec<Waiting>,
}

impl State {
    /// Whether every item that is under way waits for an answer.
    fn all_wait(&self) -> bool {
        let items: BTreeSet<u8> = self.waiting.iter().map(|one| one.item.index).collect();
        !items.is_empty() && items.len() >= self.active
    }
}

struct Waiting {
    node: u64,
    item: Item,
    timeout: Duration,
    answer: oneshot::Sender<Answered>,
}

impl Exchange {
    /// For so many items that ask together.
    pub(super) fn new(parts: &Arc<Parts>, forwarded: Forwarded, items: usize) -> Self {
        Self {
            parts: parts.clone(),
            forwarded,
            state: Mutex::new(State {
                active: items,
                waiting: Vec::new(),
            }),
        }
    }

    /// Asks a node about item `index`: in one frame with what the others ask it now.
    pub(super) async fn ask(&self, index: u8, node: u64, call: &Call, timeout: Duration) -> Answered {
        let Some(item) = item(index, call) else {
            return Ok(Answer::Misfit("a question that no item of a batch has".into()));
        };
        let (answer, mut answered) = oneshot::channel();
        let all = {
            let mut state = self.state.lock();
            state.waiting.push(Waiting {
                node,
                item,
                timeout,
                answer,
            });
            state.all_wait()
        };
        if all {
            // An item may ask several nodes at once: the rest of its questions come before this goes on.
            tokio::task::yield_now().await;
            self.send().await;
        } else if let Ok(answered) = tokio::time::timeout(GATHER, &mut answered).await {
            return answered.unwrap_or(Err(CallError::Closed));
        } else {
            self.send().await;
        }
        answered.await.unwrap_or(Err(CallError::Closed))
    }

    /// A question about item `index` that waits for no other one: those of symmetric keys take much longer than a frame.
    pub(super) fn alone(&self, index: u8, call: &Call) -> Option<Call> {
        Some(Call::Batch(self.forwarded.clone(), vec![item(index, call)?]))
    }

    /// An item is done: nobody waits for what it may ask.
    pub(super) async fn done(&self) {
        let all = {
            let mut state = self.state.lock();
            state.active -= 1;
            state.all_wait()
        };
        if all {
            self.send().await;
        }
    }

    /// Sends what waits, a frame for each node.
    async fn send(&self) {
        let waiting = std::mem::take(&mut self.state.lock().waiting);
        let mut by_node: BTreeMap<u64, Vec<Waiting>> = BTreeMap::new();
        for one in waiting {
            by_node.entry(one.node).or_default().push(one);
        }
        for (node, waiting) in by_node {
            let (parts, forwarded) = (self.parts.clone(), self.forwarded.clone());
            let asked = async move { exchange(&parts, forwarded, node, waiting).await };
            tokio::spawn(Turn::inherited(asked));
        }
    }
}

async fn exchange(parts: &Arc<Parts>, forwarded: Forwarded, node: u64, waiting: Vec<Waiting>) {
    let timeout = waiting.iter().map(|one| one.timeout).max().unwrap_or_default();
    let (items, answers): (Vec<_>, Vec<_>) = waiting.into_iter().map(|one| (one.item, one.answer)).unzip();
    let answered = parts.ask(node, &Call::Batch(forwarded, items), timeout).await;
    // Whoever has gone needs no answer.
    match answered {
        Ok(Answer::Batch(each)) if each.len() == answers.len() => {
            for (answer, one) in answers.into_iter().zip(each) {
                let _ = answer.send(Ok(parts.read_answer(node, &one)));
            }
        }
        // The same for all: a refusal of the batch, an abstention, an error. An answer of another kind stays one.
        other => {
            for answer in answers {
                let _ = answer.send(other.clone());
            }
        }
    }
}

fn item(index: u8, call: &Call) -> Option<Item> {
    let of = |forwarded: &Forwarded, ask| Item {
        index,
        operation: forwarded.operation,
        attempt: forwarded.attempt,
        needs: forwarded.needs.clone(),
        participants: forwarded.participants.clone(),
        epoch: forwarded.epoch,
        ask,
    };
    match call {
        Call::Cosign(forwarded, theirs) => Some(of(forwarded, ItemAsk::Cosign(theirs.clone()))),
        Call::Commit(forwarded) => Some(of(forwarded, ItemAsk::Commit)),
        Call::Derive(forwarded) => Some(of(forwarded, ItemAsk::Derive)),
        Call::Garble(forwarded, roles) => Some(of(forwarded, ItemAsk::Garble(roles.clone()))),
        Call::Serve(forwarded) => Some(of(forwarded, ItemAsk::Serve)),
        Call::SignShare(operation, attempt, list) => Some(Item {
            index,
            operation: *operation,
            attempt: *attempt,
            needs: Vec::new(),
            participants: Vec::new(),
            epoch: None,
            ask: ItemAsk::SignShare(list.clone()),
        }),
        _ => None,
    }
}
