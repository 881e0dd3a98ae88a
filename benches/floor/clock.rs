//! CPU time of a thread.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// CPU time, kernel's share included, that the calling thread has used.
pub(crate) fn thread() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

/// CPU time of the calling thread in `work`.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let began = thread();
    let done = work();
    (thread() - began, done)
}
