//! Liveness mode: a healthy majority is left alone, the faults of everybody else go on, and it has to make progress.

use crate::process::Cluster;
use crate::setup::Mode;
use crate::world::{Event, World};
use conclave_consensus::{NodeId, StoreError};
use rand::Rng;
use std::collections::BTreeSet;

/// How long an operation may take that is tried again and again, at any node of the core (I14).
const PATIENCE_MICROS: u64 = 10_000_000;
/// Operations after which the run is over.
const ENOUGH: u64 = 9;

/// What a core has achieved.
#[derive(Default)]
pub(crate) struct Core {
    /// Its nodes; none before the moment.
    pub(crate) nodes: BTreeSet<NodeId>,
    /// Operations that have succeeded.
    pub(crate) achieved: u64,
}

impl Core {
    /// The number of the operation that `node` has to try, if it is of the core.
    pub(crate) fn errand(&self, node: NodeId) -> Option<u64> {
        self.nodes.contains(&node).then_some(self.achieved)
    }

    pub(crate) fn is_done(&self) -> bool {
        self.achieved >= ENOUGH
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
        }
        self.await_progress();
        if !self.change_is_over() {
            let patience = PATIENCE_MICROS + self.patience_for_changes();
            self.check_at = self.clock.micros() + patience;
            self.schedule(patience, Event::Check);
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

    fn await_progress(&mut self) {
        let achieved = self.core.achieved;
        self.schedule(PATIENCE_MICROS, Event::Progress { achieved });
    }

    /// A node of the core says that the operation of this number has succeeded.
    pub(crate) fn achieved(&mut self, node: NodeId, number: u64) {
        if self.core.errand(node) == Some(number) {
            self.core.achieved += 1;
            self.await_progress();
        }
    }

    /// Ten seconds after the core had achieved so much.
    pub(crate) fn check_progress(&mut self, achieved: u64) {
        if self.core.achieved == achieved {
            let core = &self.core.nodes;
            let what = format!(
                "the healthy core {core:?} has been left alone for 10 s, and an operation has not succeeded (after {achieved} others)"
            );
            self.ledger.lock().violate(what);
        }
    }
}
