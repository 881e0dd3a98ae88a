//! What a group shows to readers: applied index, pending entries, signs of a leader. The store thread writes
//! it; decisions and health checks read it.

use crate::configuration::Standing;
use crate::ids::{GroupId, Millis, NodeId, Restricts, Scope};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use tokio::sync::watch;

/// Names an entry that a decision waits for.
pub(crate) type EntryName = (u64, u64);

/// Restricting entries of the log above the applied index, stable or not, committed or not.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    entries: BTreeMap<u64, (u64, Restricts)>,
    /// Index of a received snapshot that is not installed.
    snapshot: Option<u64>,
}

/// A peer's word that it applied a restricting entry which we have not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ahead {
    pub(crate) index: u64,
    pub(crate) since: Millis,
}

/// One group as readers see it.
#[derive(Debug)]
pub(crate) struct Board {
    pub(crate) group: GroupId,
    pending: Mutex<Pending>,
    /// Grows whenever something pending was removed or applied; waiters watch it.
    changes: watch::Sender<u64>,
    applied: AtomicU64,
    pub(crate) configuration_index: AtomicU64,
    /// What this node is in the group.
    pub(crate) standing: Mutex<Standing>,
    /// Last direct sign of a leader.
    pub(crate) heard: AtomicU64,
    /// The ReadIndex after the start was answered and applied.
    pub(crate) confirmed: AtomicBool,
    pub(crate) halted: Mutex<Option<String>>,
    /// A majority does not have the state that we have.
    pub(crate) diverged: AtomicBool,
    /// The state came from one node, and not enough others have said that it is theirs.
    pub(crate) unvouched: AtomicBool,
    pub(crate) ahead: Mutex<BTreeMap<NodeId, Ahead>>,
    pub(crate) waiters: AtomicUsize,
}

impl Board {
    pub(crate) fn new(group: GroupId, applied: u64, configuration_index: u64, standing: Standing) -> Self {
        Board {
            group,
            pending: Mutex::default(),
            changes: watch::Sender::new(0),
            applied: AtomicU64::new(applied),
            configuration_index: AtomicU64::new(configuration_index),
            standing: Mutex::new(standing),
            heard: AtomicU64::new(0),
            confirmed: AtomicBool::new(false),
            halted: Mutex::new(None),
            diverged: AtomicBool::new(false),
            unvouched: AtomicBool::new(false),
            ahead: Mutex::default(),
            waiters: AtomicUsize::new(0),
        }
    }

    /// Entries enter the log from `first` on: what was there from that index is cut, what restricts is
    /// pending. Before any message about them leaves.
    pub(crate) fn publish(&self, first: u64, entries: impl IntoIterator<Item = (u64, u64, Restricts)>) {
        let mut pending = self.pending.lock();
        pending.entries.split_off(&first);
        for (index, term, restricts) in entries {
            if restricts != Restricts::Nothing {
                pending.entries.insert(index, (term, restricts));
            }
        }
        drop(pending);
        self.changed();
    }

    /// A snapshot is being installed: until then it may restrict anything.
    pub(crate) fn publish_snapshot(&self, index: u64) {
        self.pending.lock().snapshot = Some(index);
    }

    /// The snapshot at `index` is installed and visible; the log before it is gone. It ends at `last`: what came after the
    /// snapshot in the same turn is pending, whatever was there before is not.
    pub(crate) fn installed(&self, index: u64, last: u64) {
        self.applied.store(index, Ordering::Release);
        let mut pending = self.pending.lock();
        pending.snapshot = None;
        pending.entries.retain(|at, _| (index + 1..=last).contains(at));
        drop(pending);
        self.changed();
    }

    /// Everything up to `index` is applied and visible to readers.
    pub(crate) fn applied_to(&self, index: u64) {
        self.applied.store(index, Ordering::Release);
        let mut pending = self.pending.lock();
        pending.entries = pending.entries.split_off(&(index + 1));
        drop(pending);
        self.changed();
    }

    pub(crate) fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(crate) fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    /// What a decision about `scope` waits for now.
    pub(crate) fn pending_for(&self, scope: Scope) -> (Vec<EntryName>, Option<u64>) {
        let pending = self.pending.lock();
        let binds = pending
            .entries
            .iter()
            .filter(|(_, (_, restricts))| restricts.binds(scope));
        (
            binds.map(|(index, (term, _))| (*index, *term)).collect(),
            pending.snapshot,
        )
    }

    /// Drops from `names` what is applied or cut away.
    pub(crate) fn retain_pending(&self, names: &mut Vec<EntryName>, snapshot: &mut Option<u64>) {
        let pending = self.pending.lock();
        names.retain(|(index, term)| pending.entries.get(index).is_some_and(|(ours, _)| ours == term));
        if pending.snapshot.is_none() {
            *snapshot = None;
        }
    }
}
