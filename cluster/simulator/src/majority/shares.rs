//! Which shares of which keys are on the nodes' disks, beside their logs: they outlive the processes.

use conclave_consensus::{GroupId, NodeId};
use std::collections::{BTreeMap, BTreeSet};

/// The shares of one ceremony: a group's scope, and the ceremony.
type Of = (GroupId, u8, u64);

/// All nodes' shares.
#[derive(Default)]
pub(super) struct Shares {
    stored: BTreeMap<NodeId, BTreeSet<Of>>,
    /// Those of a key's birth that were destroyed; the members that there were at first have them from the beginning.
    gone: BTreeSet<(NodeId, Of)>,
}

impl Shares {
    pub(super) fn store(&mut self, node: NodeId, of: Of) {
        self.stored.entry(node).or_default().insert(of);
    }

    /// Whether a node has its share; `first` are the members that there were at first.
    pub(super) fn has(&self, node: NodeId, of: Of, first: &[NodeId]) -> bool {
        match of.2 {
            0 => first.contains(&node) && !self.gone.contains(&(node, of)),
            _ => self.stored.get(&node).is_some_and(|stored| stored.contains(&of)),
        }
    }

    /// Destroys what a node has of a scope's key, but for one ceremony's; whether there was something.
    pub(super) fn destroy_others(
        &mut self,
        node: NodeId,
        (group, scope): (GroupId, u8),
        but: u64,
        first: &[NodeId],
    ) -> bool {
        let born = (group, scope, 0);
        let had = but != 0 && first.contains(&node) && self.gone.insert((node, born));
        let Some(stored) = self.stored.get_mut(&node) else {
            return had;
        };
        let count = stored.len();
        stored.retain(|of| (of.0, of.1) != (group, scope) || of.2 == but);
        had || stored.len() < count
    }
}
