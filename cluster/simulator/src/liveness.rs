//! Liveness mode: a healthy majority is left alone, the faults of everybody else go on, and it has to make progress.

use crate::process::Cluster;
use crate::setup::Mode;
use crate::world::{Event, World};
use conclave_consensus::{NodeId, StoreError};
use rand::Rng;
use std::collections::{BTreeMap, BTreeSet};

/// How long an operation may take that is tried again and again (I14).
const PATIENCE_MICROS: u64 = 10_000_000;
/// Operations of each node of the core after which the run is over.
const ENOUGH: u64 = 3;

/// What a core has achieved.
#[derive(Default)]
pub(crate) struct Core {
    /// Its nodes; none before the moment.
    pub(crate) nodes: BTreeSet<NodeId>,
    /// Operations that have succeeded, by node.
    achieved: BTreeMap<NodeId, u64>,
}

impl Core {
    /// All operations of all nodes.
    pub(crate) fn total(&self) -> u64 {
        self.achieved.values().sum()
    }

    pub(crate) fn is_done(&self) -> bool {
        let enough = |node| self.achieved.get(node).is_some_and(|count| *count >= ENOUGH);
        !self.nodes.is_empty() && self.nodes.iter().all(enough)
    }
}

impl<C: Cluster> World<C> {
    /// From now on nothing happens to the core.
    pub(crate) fn spare(&mut self) -> Result<(), StoreError> {
        let Mode::Liveness { core, steady } = self.setup.mode.clone() else {
            return Ok(());
        };
        self.network.spare(&core);
        if steady {
            for (from, to) in self.pairs_beside(&core) {
                if self.rng.gen_bool(0.5) {
                    self.network.cut(from, to);
                }
            }
        }
        self.core.nodes = core.clone();
        for node in core {
            if let Some(machine) = self.machines.get_mut(&node) {
                machine.doomed = None;
                machine.slow_micros = 0;
                machine.disk.fail(false);
                machine.wrong_millis = 0;
            }
            self.start(node)?;
            self.announce(node, true);
            self.await_progress(node, 0);
        }
        Ok(())
    }

    /// Ordered pairs of nodes that are not both of the core.
    fn pairs_beside(&self, core: &BTreeSet<NodeId>) -> Vec<(NodeId, NodeId)> {
        let others = |from: &NodeId| self.nodes.iter().map(|to| (*from, *to)).collect::<Vec<_>>();
        let pairs = self.nodes.iter().flat_map(others);
        pairs
            .filter(|(from, to)| from != to && !(core.contains(from) && core.contains(to)))
            .collect()
    }

    fn await_progress(&mut self, node: NodeId, achieved: u64) {
        self.schedule(PATIENCE_MICROS, Event::Progress { node, achieved });
    }

    pub(crate) fn achieved(&mut self, node: NodeId) {
        let count = self.core.achieved.entry(node).or_default();
        *count += 1;
        let count = *count;
        self.await_progress(node, count);
    }

    /// Ten seconds after a node of the core had achieved so much.
    pub(crate) fn check_progress(&mut self, node: NodeId, achieved: u64) {
        let now = self.core.achieved.get(&node).copied().unwrap_or(0);
        if now == achieved {
            let core = &self.core.nodes;
            let what = format!(
                "the healthy core {core:?} has been left alone for 10 s, and an operation of node {node} has not succeeded (after {now} others)"
            );
            self.ledger.lock().violate(what);
        }
    }
}
