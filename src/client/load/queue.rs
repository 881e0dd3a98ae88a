//! A bounded queue from the thread that signs to the tasks that send. What waited too long is thrown away.

use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::Notify;

/// What a queue can hold.
pub(super) trait Ages {
    /// Whether it must not be sent any more at this Unix time, in seconds.
    fn is_stale(&self, now: u64) -> bool;
}

struct State<T> {
    items: VecDeque<T>,
    closed: bool,
}

/// The queue.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    room: Condvar,
    filled: Notify,
    capacity: usize,
}

impl<T: Ages> Queue<T> {
    pub(super) fn new(capacity: usize) -> Self {
        let state = State {
            items: VecDeque::with_capacity(capacity),
            closed: false,
        };
        Self {
            state: Mutex::new(state),
            room: Condvar::new(),
            filled: Notify::new(),
            capacity,
        }
    }

    /// Puts an item at the end, waiting for room. `false` when the queue is closed: blocks its thread, not a task.
    pub(super) fn put(&self, item: T) -> bool {
        let mut state = self.state.lock();
        while state.items.len() >= self.capacity && !state.closed {
            self.room.wait(&mut state);
        }
        if !state.closed {
            state.items.push_back(item);
        }
        let open = !state.closed;
        drop(state);
        self.filled.notify_waiters();
        open
    }

    /// Lets the thread that puts wait; ends early when the queue is closed.
    pub(super) fn pause(&self, time: Duration) -> bool {
        let mut state = self.state.lock();
        if !state.closed {
            self.room.wait_for(&mut state, time);
        }
        !state.closed
    }

    /// The oldest item that is not stale; `None` when the queue is closed.
    pub(super) async fn take(&self) -> Option<T> {
        loop {
            let filled = self.filled.notified();
            {
                let mut state = self.state.lock();
                let now = crate::client::signer::unix_seconds();
                while state.items.front().is_some_and(|item| item.is_stale(now)) {
                    state.items.pop_front();
                }
                let item = state.items.pop_front();
                self.room.notify_one();
                if item.is_some() || state.closed {
                    return item;
                }
            }
            filled.await;
        }
    }

    /// Waits until the queue is full, or closed.
    pub(super) async fn full(&self) {
        loop {
            let filled = self.filled.notified();
            {
                let state = self.state.lock();
                if state.closed || state.items.len() >= self.capacity {
                    return;
                }
            }
            filled.await;
        }
    }

    /// Ends it: nothing more goes in; what is in it is dropped.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.items.clear();
        drop(state);
        self.room.notify_all();
        self.filled.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::{Ages, Queue};
    use std::sync::Arc;

    struct Item(u32, bool);

    impl Ages for Item {
        fn is_stale(&self, _now: u64) -> bool {
            self.1
        }
    }

    #[tokio::test]
    async fn is_bounded_in_order_and_drops_what_is_stale() {
        let queue = Arc::new(Queue::new(2));
        let putting = Arc::clone(&queue);
        let thread = std::thread::spawn(move || {
            (0..6).all(|n| putting.put(Item(n, n == 1))) && !putting.put(Item(6, false))
        });
        queue.full().await;
        for expected in [0, 2, 3] {
            assert_eq!(queue.take().await.unwrap().0, expected);
        }
        queue.full().await;
        queue.close();
        assert!(thread.join().unwrap());
        assert!(queue.take().await.is_none());
    }
}
