//! Plain counters of one node, for metrics. Reading them costs nothing and orders nothing.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::guard::Violation;
use crate::ids::NodeId;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }
}

/// What one node counts.
#[derive(Debug, Default)]
pub struct Counters {
    /// Campaigns that this node started.
    pub elections: Counter,
    /// Times that this node became leader of a group.
    pub leaderships: Counter,
    /// Proposals accepted from local callers.
    pub proposals: Counter,
    /// Proposals refused because a bound was reached.
    pub proposals_busy: Counter,
    /// Entries applied.
    pub applied: Counter,
    /// Synced writes.
    pub syncs: Counter,
    /// Turns of the store loop that had something to write.
    pub turns: Counter,
    /// Bytes handed to the store.
    pub bytes_written: Counter,
    /// Frames received.
    pub frames_in: Counter,
    /// Frames sent.
    pub frames_out: Counter,
    /// Frames dropped because the inbox was full.
    pub inbox_full: Counter,
    /// ReadIndex rounds asked.
    pub read_indexes: Counter,
    /// Snapshots installed.
    pub snapshots_installed: Counter,
    /// Snapshots sent whole.
    pub snapshots_sent: Counter,
    /// Decisions that were answered *behind*.
    pub behind: Counter,
    /// Configuration entries that were applied.
    pub configurations_applied: Counter,
    /// Configuration entries that the state did not call for and that therefore changed nothing.
    pub configurations_refused: Counter,
    /// Statements of peers that could not show the entry behind them.
    pub lies: Counter,
    /// Frames about a group from known nodes that are not in it at the moment, such as one that was removed and does not
    /// know yet: dropped without alarm.
    pub outsiders: Counter,
    /// Messages of raft from peers that had not said yet what they remember of this node.
    pub early: Counter,
    dropped: Mutex<BTreeMap<(NodeId, Violation), u64>>,
}

impl Counters {
    /// Frames dropped by the guard, by the peer that sent them and the reason.
    pub fn dropped(&self) -> Vec<(NodeId, Violation, u64)> {
        self.dropped
            .lock()
            .iter()
            .map(|((node, why), count)| (*node, *why, *count))
            .collect()
    }

    /// All frames dropped by the guard.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.lock().values().sum()
    }

    pub(crate) fn drop_frame(&self, from: NodeId, why: Violation) {
        let mut dropped = self.dropped.lock();
        // A peer is a member before it gets here, but a bound costs nothing.
        if dropped.len() < 4_096 || dropped.contains_key(&(from, why)) {
            *dropped.entry((from, why)).or_default() += 1;
        }
        drop(dropped);
        tracing::debug!(from, reason = %why, "dropped a frame");
    }
}
