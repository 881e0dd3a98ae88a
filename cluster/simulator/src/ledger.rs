//! What the world remembers outside all nodes, and checks after every event (threats.md, invariants).

use crate::wrapped::Wrapper;
use conclave_consensus::{
    Application, Configuration, GroupId, GroupStatus, Halt, NodeId, Role, StateTransaction,
};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt::{self, Debug, Write};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// The world's memory.
#[derive(Default)]
pub(crate) struct Ledger {
    /// Hash of the entry applied at an index, by whoever applied it first.
    applied: BTreeMap<(GroupId, u64), u64>,
    chains: BTreeMap<(GroupId, u64), [u8; 32]>,
    leaders: BTreeMap<(GroupId, u64), NodeId>,
    /// Which configuration the entry of an index made, by whoever applied it first.
    configurations: BTreeMap<(GroupId, u64), Configuration>,
    /// The highest acknowledged index of a group.
    acknowledged: BTreeMap<GroupId, u64>,
    pub(crate) acknowledgements: u64,
    violation: Option<String>,
}

pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// Of what something shows of itself.
pub(crate) fn hash_of(shown: &impl Debug) -> u64 {
    struct Hashed(DefaultHasher);
    impl Write for Hashed {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.write(text.as_bytes());
            Ok(())
        }
    }
    let mut hashed = Hashed(DefaultHasher::new());
    // Writing into a hash does not fail.
    let _ = write!(hashed, "{shown:?}");
    hashed.0.finish()
}

impl Ledger {
    pub(crate) fn violate(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    pub(crate) fn violation(&self) -> Option<&String> {
        self.violation.as_ref()
    }

    fn entry_applied(&mut self, node: NodeId, group: GroupId, index: u64, entry: &[u8]) {
        let ours = hash(entry);
        let first = *self.applied.entry((group, index)).or_insert(ours);
        if first != ours {
            self.violate(format!(
                "node {node} applied another entry at {group} index {index}"
            ));
        }
    }

    /// An acknowledged entry is applied where it was acknowledged.
    pub(crate) fn acknowledged(&mut self, node: NodeId, group: GroupId, index: u64) {
        self.acknowledgements += 1;
        if !self.applied.contains_key(&(group, index)) {
            self.violate(format!(
                "node {node} acknowledged {group} index {index}, which nobody applied"
            ));
        }
        let highest = self.acknowledged.entry(group).or_default();
        *highest = (*highest).max(index);
    }

    pub(crate) fn highest_acknowledged(&self, group: GroupId) -> u64 {
        self.acknowledged.get(&group).copied().unwrap_or(0)
    }

    /// An entry of configuration counted at this index. Whoever applies it comes to the same, and one follows the other as
    /// operators' orders are carried out: learners, then two lists together, then the new one.
    fn configured(&mut self, node: NodeId, group: GroupId, index: u64, configuration: &Configuration) {
        let known = self.configurations.entry((group, index));
        if known.or_insert_with(|| configuration.clone()) != configuration {
            self.violate(format!(
                "node {node} has another configuration of {group} at index {index}: {configuration:?}"
            ));
        }
        let before = self.configuration_before(group, index);
        if let Some((_, before)) = before.filter(|(_, before)| !follows(before, configuration)) {
            self.violate(format!("{group} came from {before:?} to {configuration:?}"));
        }
    }

    /// The last configuration before the one that the entry of this index made, and the index of its own.
    pub(crate) fn configuration_before(&self, group: GroupId, index: u64) -> Option<(u64, &Configuration)> {
        let mut before = self.configurations.range((group, 0)..(group, index));
        before.next_back().map(|((_, at), before)| (*at, before))
    }

    /// After every turn of a node: one leader a term, equal state at equal index.
    pub(crate) fn check(&mut self, node: NodeId, status: &GroupStatus) {
        let group = status.group;
        if status.role == Role::Leader {
            let leader = *self.leaders.entry((group, status.term)).or_insert(node);
            if leader != node {
                self.violate(format!(
                    "nodes {leader} and {node} lead {group} in term {}",
                    status.term
                ));
            }
        }
        let chain = *self.chains.entry((group, status.applied)).or_insert(status.chain);
        if chain != status.chain {
            self.violate(format!(
                "node {node} has another state of {group} at index {}",
                status.applied
            ));
        }
        let known = self.configurations.get(&(group, status.configuration_index));
        if known.is_some_and(|known| *known != status.configuration) {
            self.violate(format!(
                "node {node} has {:?} of {group}, and not {known:?}",
                status.configuration
            ));
        }
        if !status.differing_peers.is_empty() {
            self.violate(format!(
                "node {node} says that {:?} differ in {group}",
                status.differing_peers
            ));
        }
        if status.applied > status.committed {
            self.violate(format!("node {node} applied {group} beyond its commit"));
        }
    }
}

/// Whether a group may come from one configuration to the other.
fn follows(before: &Configuration, after: &Configuration) -> bool {
    match (before.is_joint(), after.is_joint()) {
        (true, true) => false,
        (true, false) => *after == Configuration::stable(&before.voters),
        (false, true) => {
            let old = |node: &NodeId| before.voters.contains(node) || before.learners.contains(node);
            after.outgoing == before.voters && after.voters.iter().all(old) && after.learners.is_empty()
        }
        (false, false) => after.voters == before.voters && after.learners != before.learners,
    }
}

/// An application whose every apply the ledger sees.
pub(crate) struct Witness {
    pub(crate) node: NodeId,
    pub(crate) inner: Arc<dyn Application>,
    pub(crate) ledger: Arc<Mutex<Ledger>>,
}

impl Wrapper for Witness {
    fn inner(&self) -> &dyn Application {
        &*self.inner
    }

    fn apply(
        &self,
        group: GroupId,
        index: u64,
        entry: &[u8],
        state: &mut StateTransaction<'_>,
    ) -> Result<Vec<u8>, Halt> {
        self.ledger.lock().entry_applied(self.node, group, index, entry);
        self.inner.apply(group, index, entry, state)
    }

    fn configured(
        &self,
        group: GroupId,
        index: u64,
        configuration: &Configuration,
        state: &mut StateTransaction<'_>,
    ) -> Result<(), Halt> {
        let mut ledger = self.ledger.lock();
        ledger.configured(self.node, group, index, configuration);
        drop(ledger);
        self.inner.configured(group, index, configuration, state)
    }
}
