//! A gate that so many may be behind at a time. Those that wait before it go through in the order of [`Lines`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{Class, Lines, Overloaded, Turn};

/// The gate.
pub struct Gate {
    state: Arc<Mutex<State>>,
    patience: Duration,
}

struct State {
    free: usize,
    lines: Lines<oneshot::Sender<Pass>>,
}

/// Being behind the gate; ends when dropped.
pub struct Pass {
    state: Arc<Mutex<State>>,
    ticket: (Class, bool),
    since: Instant,
    /// Whether it was given to somebody: one that was not has passed nobody.
    given: bool,
}

impl Gate {
    /// Lets `most` in at a time; at most `capacity` wait before it, each for `patience`.
    pub fn new(most: usize, capacity: usize, patience: Duration) -> Self {
        let state = State {
            free: most,
            lines: Lines::new(capacity, patience),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            patience,
        }
    }

    /// Waits until it is the turn of the present task.
    ///
    /// # Errors
    /// [`Overloaded`].
    pub async fn enter(&self) -> Result<Pass, Overloaded> {
        let turn = Turn::current();
        let passed = {
            let mut state = self.state.lock();
            if state.free > 0 {
                state.free -= 1;
                return Ok(Pass::new(&self.state, (turn.class, false)));
            }
            let (pass, passed) = oneshot::channel();
            let put = state.lines.put(&turn, pass, Instant::now());
            put.map_err(|(_, why)| why)?;
            passed
        };
        let waited = tokio::time::timeout(turn.left(self.patience), passed).await;
        waited
            .map_err(|_| Overloaded::Waited)?
            .map_err(|_| Overloaded::Waited)
    }

    /// Those that wait.
    pub fn waiting(&self) -> usize {
        self.state.lock().lines.waiting()
    }
}

impl Pass {
    fn new(state: &Arc<Mutex<State>>, ticket: (Class, bool)) -> Self {
        Self {
            state: state.clone(),
            ticket,
            since: Instant::now(),
            given: true,
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if !self.given {
            return;
        }
        let now = Instant::now();
        self.state
            .lock()
            .lines
            .took(self.ticket, now.duration_since(self.since));
        loop {
            // What waits is told outside of the lock.
            let taken = {
                let mut state = self.state.lock();
                let taken = state.lines.take(now);
                if taken.next.is_none() {
                    state.free += 1;
                }
                taken
            };
            let Some(next) = taken.next else { return };
            let ticket = next.ticket();
            match next.job.send(Pass::new(&self.state, ticket)) {
                Ok(()) => return,
                // It does not wait any more.
                Err(mut pass) => pass.given = false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identifier::LocalId;

    #[tokio::test]
    async fn a_flood_of_one_keystore_lets_another_through_in_its_turn() {
        let gate = Arc::new(Gate::new(1, 1_000, Duration::from_secs(5)));
        let turn = |keystore| {
            let turn = Turn::default().of_class(Class::Symmetric);
            turn.of_keystore(LocalId([keystore; 16]))
        };
        let first = turn(1).scope(gate.enter()).await.unwrap();
        let (order, mut ordered) = tokio::sync::mpsc::unbounded_channel();
        let enter = |keystore| {
            let (gate, order) = (gate.clone(), order.clone());
            tokio::spawn(turn(keystore).scope(async move {
                let _pass = gate.enter().await.unwrap();
                order.send(keystore).unwrap();
            }))
        };
        let mut under_way: Vec<_> = (0..100).map(|_| enter(1)).collect();
        while gate.waiting() < 100 {
            tokio::task::yield_now().await;
        }
        let leaves = enter(3);
        under_way.push(enter(2));
        while gate.waiting() < 102 {
            tokio::task::yield_now().await;
        }
        leaves.abort();
        assert!(leaves.await.unwrap_err().is_cancelled());
        drop(first);
        for one in under_way {
            one.await.unwrap();
        }
        assert_eq!([ordered.recv().await, ordered.recv().await], [Some(1), Some(2)]);
        assert_eq!((gate.waiting(), gate.state.lock().free), (0, 1));
    }

    #[tokio::test]
    async fn nobody_waits_beyond_the_patience_and_the_queue_is_bounded() {
        let gate = Gate::new(1, 1, Duration::from_millis(20));
        let _first = gate.enter().await.unwrap();
        let (waits, full) = tokio::join!(gate.enter(), gate.enter());
        assert_eq!(waits.err(), Some(Overloaded::Waited));
        assert_eq!(full.err(), Some(Overloaded::Full));
    }
}
