//! The one pool for work that computes: signatures, chains, ceremonies. Bounded in threads, in queue and in waiting.
//!
//! A handler that computed on its arbiter would stall every keystore there. Jobs that have waited for a second are
//! not begun: their client has a better chance at another node.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

/// Longest wait in the queue before a job is dropped.
const PATIENCE: Duration = Duration::from_secs(1);

type Job = Box<dyn FnOnce() + Send>;

/// The pool could not take or begin the job in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the crypto pool is overloaded")]
pub struct Overloaded;

struct Queue {
    jobs: VecDeque<(Instant, Job)>,
    closed: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    capacity: usize,
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
    /// A pool of `threads` threads whose queue holds `capacity` jobs.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn start(threads: usize, capacity: usize) -> std::io::Result<Self> {
        let queue = Mutex::new(Queue {
            jobs: VecDeque::new(),
            closed: false,
        });
        let shared = Arc::new(Shared {
            queue,
            wake: Condvar::new(),
            capacity,
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

    /// Runs `job` on a thread of the pool.
    ///
    /// # Errors
    /// [`Overloaded`] when the queue is full, when the job waited for a second, or when it panicked.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Overloaded> {
        let (sender, receiver) = oneshot::channel();
        let job: Job = Box::new(move || {
            // The caller may have gone; then nobody wants the result.
            let _ = sender.send(job());
        });
        {
            let mut queue = self.shared.queue.lock();
            if queue.jobs.len() >= self.shared.capacity {
                return Err(Overloaded);
            }
            queue.jobs.push_back((Instant::now(), job));
        }
        self.shared.wake.notify_one();
        receiver.await.map_err(|_| Overloaded)
    }

    /// Jobs that wait.
    pub fn waiting(&self) -> usize {
        self.shared.queue.lock().jobs.len()
    }
}

fn work(shared: &Shared) {
    loop {
        let (queued, job) = {
            let mut queue = shared.queue.lock();
            loop {
                if let Some(job) = queue.jobs.pop_front() {
                    break job;
                }
                if queue.closed {
                    return;
                }
                shared.wake.wait(&mut queue);
            }
        };
        if queued.elapsed() > PATIENCE {
            continue;
        }
        // A panic costs this job alone: its sender is dropped and the caller hears of it.
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)).is_err() {
            tracing::error!("a job of the crypto pool panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_queue_refuses_and_a_panic_costs_only_its_job() {
        let pool = CryptoPool::start(1, 2).unwrap();
        let (release, held) = std::sync::mpsc::channel::<()>();
        let (started, is_started) = oneshot::channel();
        let blocked = tokio::spawn({
            let pool = pool.clone();
            async move {
                pool.run(move || {
                    let _ = started.send(());
                    let _ = held.recv();
                })
                .await
            }
        });
        is_started.await.unwrap();
        let spawn = |pool: &CryptoPool, fails: bool| {
            let pool = pool.clone();
            tokio::spawn(async move { pool.run(move || assert!(!fails, "on purpose")).await })
        };
        let panics = spawn(&pool, true);
        let waits = spawn(&pool, false);
        while pool.waiting() < 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!(pool.run(|| ()).await, Err(Overloaded));
        release.send(()).unwrap();
        assert_eq!(blocked.await.unwrap(), Ok(()));
        assert_eq!(panics.await.unwrap(), Err(Overloaded));
        assert_eq!(waits.await.unwrap(), Ok(()));
    }
}
