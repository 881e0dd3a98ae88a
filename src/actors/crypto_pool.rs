//! The one pool for work that computes: signatures, chains, ceremonies. Bounded in threads, in queue and in waiting.
//!
//! A handler that computed on its arbiter would stall every keystore there. Who is next, and who is refused, is decided
//! by [`Lines`]; this is its threads.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::overload::{Class, Lines, Overloaded, Shed, Turn};

/// Longest wait in the queue: then its client has a better chance at another node.
const PATIENCE: Duration = Duration::from_secs(1);

/// Told whether it is to run: whoever waits for it hears why not.
type Job = Box<dyn FnOnce(Result<(), Overloaded>) + Send>;

struct Queue {
    lines: Lines<Job>,
    closed: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    shed: Arc<Shed>,
}

/// A handle; the threads end when the last handle is gone.
#[derive(Clone)]
pub struct CryptoPool {
    shared: Arc<Shared>,
    _closer: Arc<Closer>,
}

struct Closer(Arc<Shared>);

impl Drop for Closer {
    fn drop(&mut self) {
        self.0.queue.lock().closed = true;
        self.0.wake.notify_all();
    }
}

impl CryptoPool {
    /// A pool of `threads` threads whose queue holds `capacity` jobs; what it refuses is counted in `shed`.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn start(threads: usize, capacity: usize, shed: Arc<Shed>) -> std::io::Result<Self> {
        let queue = Mutex::new(Queue {
            lines: Lines::new(capacity, PATIENCE),
            closed: false,
        });
        let shared = Arc::new(Shared {
            queue,
            wake: Condvar::new(),
            shed,
        });
        for number in 0..threads.max(1) {
            let shared = shared.clone();
            thread::Builder::new()
                .name(format!("crypto-{number}"))
                .spawn(move || work(&shared))?;
        }
        Ok(Self {
            _closer: Arc::new(Closer(shared.clone())),
            shared,
        })
    }

    /// Runs `job` on a thread of the pool, in the turn of the present task.
    ///
    /// # Errors
    /// [`Overloaded`] when it was not begun, or when it panicked.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Overloaded> {
        self.run_in(Turn::current(), job).await
    }

    /// The same in another turn.
    ///
    /// # Errors
    /// As [`CryptoPool::run`].
    pub async fn run_in<T: Send + 'static>(
        &self,
        turn: Turn,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Overloaded> {
        let (sender, receiver) = oneshot::channel();
        let job: Job = Box::new(move |begin| {
            // The caller may have gone; then nobody wants the result, and nothing is begun for it.
            match begin {
                Ok(()) if sender.is_closed() => {}
                Ok(()) => drop(sender.send(Ok(job()))),
                Err(why) => drop(sender.send(Err(why))),
            }
        });
        let put = self.shared.queue.lock().lines.put(&turn, job, Instant::now());
        if let Err((_, why)) = put {
            self.shared.shed.count_pool(why, turn.class);
            return Err(why);
        }
        self.shared.wake.notify_one();
        receiver.await.unwrap_or(Err(Overloaded::Panicked))
    }

    /// Whether one more of the present task's turn would be taken: asked before anything is done for a request.
    ///
    /// # Errors
    /// [`Overloaded`], which is counted.
    pub fn admit(&self, turn: &Turn) -> Result<(), Overloaded> {
        let admitted = self.shared.queue.lock().lines.has_room(turn);
        admitted.inspect_err(|why| self.shared.shed.count_pool(*why, turn.class))
    }

    /// Jobs that wait.
    pub fn waiting(&self) -> usize {
        self.shared.queue.lock().lines.waiting()
    }

    /// The same of one class.
    pub fn waiting_of(&self, class: Class) -> usize {
        self.shared.queue.lock().lines.waiting_of(class)
    }

    /// Whether the node has, or has just had, more to do than it can: background work waits meanwhile.
    pub fn is_loaded(&self) -> bool {
        self.shared.queue.lock().lines.is_loaded(Instant::now())
    }
}

fn work(shared: &Shared) {
    let mut took = None;
    loop {
        let taken = {
            let mut queue = shared.queue.lock();
            if let Some((ticket, time)) = took.take() {
                queue.lines.took(ticket, time);
            }
            loop {
                let taken = queue.lines.take(Instant::now());
                if taken.next.is_some() || !taken.late.is_empty() {
                    break taken;
                }
                if queue.closed {
                    return;
                }
                shared.wake.wait(&mut queue);
            }
        };
        for (job, class, why) in taken.late {
            shared.shed.count_pool(why, class);
            job(Err(why));
        }
        let Some(next) = taken.next else { continue };
        let (ticket, began) = (next.ticket(), Instant::now());
        // A panic costs this job alone: its sender is dropped and the caller hears of it.
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (next.job)(Ok(())))).is_err() {
            tracing::error!("a job of the crypto pool panicked");
        }
        took = Some((ticket, began.elapsed()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overload::At;

    struct Held {
        pool: CryptoPool,
        shed: Arc<Shed>,
        release: std::sync::mpsc::Sender<()>,
        blocked: tokio::task::JoinHandle<Result<(), Overloaded>>,
    }

    /// A pool of one thread that is held up.
    async fn held(capacity: usize) -> Held {
        let shed = Arc::new(Shed::default());
        let pool = CryptoPool::start(1, capacity, shed.clone()).unwrap();
        let (release, held) = std::sync::mpsc::channel::<()>();
        let (started, is_started) = oneshot::channel();
        let holding = pool.clone();
        let hold = move || {
            let _ = started.send(());
            let _ = held.recv();
        };
        let blocked = tokio::spawn(async move { holding.run(hold).await });
        is_started.await.unwrap();
        Held {
            pool,
            shed,
            release,
            blocked,
        }
    }

    #[tokio::test]
    async fn a_full_queue_refuses_and_a_panic_costs_only_its_job() {
        let held = held(4).await;
        let turn = Turn::default().of_class(Class::Changes);
        let spawn = |fails: bool| {
            let pool = held.pool.clone();
            let job = move || assert!(!fails, "on purpose");
            tokio::spawn(async move { pool.run_in(turn, job).await })
        };
        let panics = spawn(true);
        let waits = spawn(false);
        while held.pool.waiting() < 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!(held.pool.run_in(turn, || ()).await, Err(Overloaded::Share));
        let bulk = turn.of_class(Class::Bulk);
        assert_eq!(held.pool.run_in(bulk, || ()).await, Err(Overloaded::Full));
        assert_eq!(held.pool.admit(&bulk), Err(Overloaded::Full));
        held.release.send(()).unwrap();
        assert_eq!(held.blocked.await.unwrap(), Ok(()));
        assert_eq!(panics.await.unwrap(), Err(Overloaded::Panicked));
        assert_eq!(waits.await.unwrap(), Ok(()));
        assert_eq!(held.shed.counted(At::Queue, Class::Changes), 1);
        assert_eq!(held.shed.counted(At::Queue, Class::Bulk), 2);
        assert_eq!(held.pool.waiting(), 0);
    }

    #[tokio::test]
    async fn nothing_is_begun_for_who_has_gone() {
        let held = held(16).await;
        let (began, begun) = std::sync::mpsc::channel();
        let now = Instant::now();
        // One's time is over, the other does not wait any more.
        let late = {
            let (pool, began) = (held.pool.clone(), began.clone());
            let turn = Turn::default().until(now);
            tokio::spawn(async move { pool.run_in(turn, move || began.send(())).await })
        };
        let leaves = {
            let (pool, began) = (held.pool.clone(), began.clone());
            tokio::spawn(async move { pool.run(move || began.send(())).await })
        };
        while held.pool.waiting() < 2 {
            tokio::task::yield_now().await;
        }
        leaves.abort();
        assert!(leaves.await.unwrap_err().is_cancelled());
        held.release.send(()).unwrap();
        assert_eq!(late.await.unwrap().err(), Some(Overloaded::Gone));
        assert_eq!(held.pool.run(|| 1).await, Ok(1), "the next one is served");
        drop(began);
        assert!(begun.recv().is_err(), "something was computed for nobody");
        assert_eq!(held.shed.counted(At::Gone, Class::Bulk), 1);
    }
}
