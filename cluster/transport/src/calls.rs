//! The calls that wait for an answer on one connection.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::frame::Verdict;

/// A table of waiting calls; closing it ends them all.
#[derive(Default)]
pub(crate) struct Calls {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    next: u64,
    closed: bool,
    waiting: HashMap<u64, oneshot::Sender<Verdict>>,
}

/// A waiting call; dropping it takes it off the table.
pub(crate) struct Waiting {
    calls: Arc<Calls>,
    pub(crate) id: u64,
    /// Ends with an error when the connection does.
    pub(crate) verdict: oneshot::Receiver<Verdict>,
}

impl Calls {
    /// Enters a call; `None` if the connection has ended.
    pub(crate) fn open(self: &Arc<Self>) -> Option<Waiting> {
        let mut table = self.table.lock();
        if table.closed {
            return None;
        }
        let id = table.next;
        table.next += 1;
        let (sender, verdict) = oneshot::channel();
        table.waiting.insert(id, sender);
        Some(Waiting {
            calls: Arc::clone(self),
            id,
            verdict,
        })
    }

    /// Gives a call its answer; `false` if nobody waits for it (any more).
    pub(crate) fn answer(&self, id: u64, verdict: Verdict) -> bool {
        let sender = self.table.lock().waiting.remove(&id);
        sender.is_some_and(|sender| sender.send(verdict).is_ok())
    }

    /// Ends all calls, and later ones at once.
    pub(crate) fn close(&self) {
        let mut table = self.table.lock();
        table.closed = true;
        table.waiting.clear();
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.calls.table.lock().waiting.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_find_their_call_once() {
        let calls = Arc::new(Calls::default());
        let mut first = calls.open().unwrap();
        let mut second = calls.open().unwrap();
        assert!(calls.answer(second.id, Verdict::Busy));
        assert!(!calls.answer(second.id, Verdict::Failed));
        assert!(first.verdict.try_recv().is_err());
        assert_eq!(second.verdict.try_recv().unwrap(), Verdict::Busy);
        let gone = first.id;
        drop(first);
        assert!(!calls.answer(gone, Verdict::Busy));
    }

    #[test]
    fn closing_ends_what_waits_and_refuses_more() {
        let calls = Arc::new(Calls::default());
        let mut waiting = calls.open().unwrap();
        calls.close();
        assert_eq!(
            waiting.verdict.try_recv(),
            Err(oneshot::error::TryRecvError::Closed)
        );
        assert!(calls.open().is_none());
    }
}
