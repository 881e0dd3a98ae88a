//! A RocksDB snapshot that keeps its database alive, without unsafe code.
//!
//! The crate's snapshot borrows the database, and a reader needs one that it may keep and send. An async block
//! may own a value and borrow from it across an await, and the compiler knows how to store that: so the block
//! below owns the database and the snapshot, and answers one question each time it is polled.

use crate::rocks::{bounded, collect_pairs};
use crate::store::{Pair, Reading, StoreError};
use parking_lot::Mutex;
use rocksdb::{DB, Direction, IteratorMode};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

enum Question {
    Get(Vec<u8>),
    Scan(Vec<u8>, Vec<u8>, usize),
}

enum Answer {
    Value(Option<Vec<u8>>),
    Pairs(Vec<Pair>),
}

#[derive(Default)]
struct Slot {
    question: Option<Question>,
    answer: Option<Result<Answer, StoreError>>,
}

/// See the module.
pub(crate) struct OwnedSnapshot {
    slot: Arc<Mutex<Slot>>,
    owner: Mutex<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl OwnedSnapshot {
    pub(crate) fn new(db: Arc<DB>) -> Self {
        let slot = Arc::new(Mutex::new(Slot::default()));
        let shared = slot.clone();
        let owner = async move {
            let snapshot = db.snapshot();
            loop {
                let question = shared.lock().question.take();
                let answer = match question {
                    None => None,
                    Some(Question::Get(key)) => {
                        Some(snapshot.get(key).map(Answer::Value).map_err(StoreError::from))
                    }
                    Some(Question::Scan(from, to, limit)) => {
                        let mode = IteratorMode::From(&from, Direction::Forward);
                        let iterator = snapshot.iterator_opt(mode, bounded(&to));
                        Some(collect_pairs(iterator, &to, limit).map(Answer::Pairs))
                    }
                };
                shared.lock().answer = answer;
                pause().await;
            }
        };
        let owned = OwnedSnapshot {
            slot,
            owner: Mutex::new(Box::pin(owner)),
        };
        // The snapshot is taken by the first poll, so now.
        owned.poll(&mut owned.owner.lock());
        owned
    }

    fn poll(&self, owner: &mut Pin<Box<dyn Future<Output = ()> + Send>>) {
        let _ = owner.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    }

    fn ask(&self, question: Question) -> Result<Answer, StoreError> {
        // One question at a time: the lock is held until its answer is taken.
        let mut owner = self.owner.lock();
        self.slot.lock().question = Some(question);
        self.poll(&mut owner);
        let answer = self.slot.lock().answer.take();
        answer.unwrap_or_else(|| Err(StoreError::message("the snapshot did not answer")))
    }
}

impl Reading for OwnedSnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.ask(Question::Get(key.to_vec()))? {
            Answer::Value(value) => Ok(value),
            Answer::Pairs(_) => Err(StoreError::message("the snapshot answered another question")),
        }
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError> {
        match self.ask(Question::Scan(from.to_vec(), to.to_vec(), limit))? {
            Answer::Pairs(pairs) => Ok(pairs),
            Answer::Value(_) => Err(StoreError::message("the snapshot answered another question")),
        }
    }
}

/// Pending once, then ready.
async fn pause() {
    let mut paused = false;
    std::future::poll_fn(|_| match std::mem::replace(&mut paused, true) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await;
}
