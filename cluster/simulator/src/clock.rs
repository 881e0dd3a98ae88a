//! Virtual time, one for the whole world.

use conclave_consensus::{Clock, Millis};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A clock that the world turns.
#[derive(Clone, Debug, Default)]
pub(crate) struct VirtualClock(Arc<AtomicU64>);

impl VirtualClock {
    pub(crate) fn micros(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, micros: u64) {
        self.0.store(micros, Ordering::Relaxed);
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Millis {
        self.micros() / 1_000
    }
}
