//! What each node has on its disk beside its log: shares by the ceremony that made them, and the time of its last record.
//! It outlives the node's process, and is written before the node says a word.

use std::collections::{BTreeMap, BTreeSet};

use conclave::identifier::LocalId;
use conclave::replay::HolderClock;
use conclave_consensus::NodeId;

use crate::register::Session;

/// Shares of one ceremony: they are of one key, in one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Shares {
    pub(crate) keystore: LocalId,
    pub(crate) key: LocalId,
    pub(crate) epoch: u64,
    pub(crate) session: Session,
}

/// All nodes' disks.
#[derive(Default)]
pub(crate) struct Disks {
    shares: BTreeMap<NodeId, BTreeSet<Shares>>,
    /// Who took part in a key's birth: the others have envelopes with each of these.
    participants: BTreeMap<Session, Vec<NodeId>>,
    clocks: BTreeMap<NodeId, u64>,
}

impl Disks {
    /// New shares, beside those that are there.
    pub(crate) fn store(&mut self, node: NodeId, shares: Shares) {
        self.shares.entry(node).or_default().insert(shares);
    }

    /// The same at a key's birth, with envelopes for whoever is away.
    pub(crate) fn store_born(&mut self, node: NodeId, shares: Shares, participants: &[NodeId]) {
        self.participants.insert(shares.session, participants.to_vec());
        self.store(node, shares);
    }

    /// Whether a node has its share of a ceremony, or can open the envelopes that others keep for it.
    pub(crate) fn has(&self, node: NodeId, session: &Session) -> bool {
        let stored = |node: &NodeId| {
            let shares = self.shares.get(node);
            shares.is_some_and(|shares| shares.iter().any(|shares| shares.session == *session))
        };
        let participants = self.participants.get(session);
        let kept = participants.is_some_and(|kept| !kept.contains(&node) && kept.iter().any(stored));
        stored(&node) || kept
    }

    /// What `is_old` says of a node's shares is destroyed; which those were.
    pub(crate) fn destroy(&mut self, node: NodeId, is_old: impl Fn(&Shares) -> bool) -> Vec<Shares> {
        let Some(shares) = self.shares.get_mut(&node) else {
            return Vec::new();
        };
        let old: Vec<Shares> = shares.iter().copied().filter(is_old).collect();
        shares.retain(|shares| !old.contains(shares));
        old
    }

    /// The node's time, ms, by what its system's clock shows; none while that is far behind its last record.
    pub(crate) fn time(&self, node: NodeId, system: u64) -> Option<u64> {
        let recorded = self.clocks.get(&node).copied().unwrap_or(0);
        HolderClock::new(recorded).now(system).ok()
    }

    /// A record of this time is on the node's disk.
    pub(crate) fn recorded(&mut self, node: NodeId, time: u64) {
        let last = self.clocks.entry(node).or_default();
        *last = time.max(*last);
    }
}
