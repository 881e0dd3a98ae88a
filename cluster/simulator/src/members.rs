//! Worlds whose members change: nodes that begin with empty disks, whether a change has come to its end, and what must hold of
//! every step of it.

use crate::faults::RECOVERY_MICROS;
use crate::process::Cluster;
use crate::setup::Mode;
use crate::world::{Event, World};
use conclave_consensus::{Configuration, NodeId, StoreError};
use rand::Rng;

/// How long one change of members may take while everybody whom it needs is healthy.
const CHANGE_MICROS: u64 = 10_000_000;

impl<C: Cluster> World<C> {
    /// Whether the node begins with an empty disk and waits to be ordered.
    pub(crate) fn joins(&self, node: NodeId) -> bool {
        node > self.setup.nodes
    }

    /// Whether the node has not been started yet.
    pub(crate) fn is_yet_to_come(&self, node: NodeId) -> bool {
        let machine = self.machines.get(&node);
        machine.is_some_and(|machine| machine.life == 0 && machine.running.is_none())
    }

    /// When a node is started for the first time: new ones are, some time before or after they are ordered.
    pub(crate) fn first_start(&mut self, node: NodeId) -> u64 {
        match self.joins(node) {
            true => self.rng.gen_range(0..self.setup.faulty_micros),
            false => 0,
        }
    }

    /// Those whom the end of the run asks about: everybody, or who is left as a member after the last change.
    pub(crate) fn survivors(&self) -> Vec<NodeId> {
        match self.setup.moves.is_empty() {
            true => self.nodes.clone(),
            false => self.setup.last_members(),
        }
    }

    /// Whether the last change of members is over, on every member.
    pub(crate) fn has_changed(&self) -> bool {
        let last = Configuration::stable(&self.setup.last_members());
        let is_there = |node: &NodeId| {
            let machine = self.machines.get(node);
            let status = machine.map(|machine| &machine.status[..]).unwrap_or_default();
            !status.is_empty() && status.iter().all(|status| status.configuration == last)
        };
        self.survivors().iter().all(is_there)
    }

    /// Whether nothing that has to be carried out is left: only a core with all new members can, and with a quorum of the old
    /// ones that stay, or all of them. Who leaves may never be told that it has left a group, and group 0 waits for a quorum of
    /// those who have seen all others come to their end.
    pub(crate) fn change_is_over(&self) -> bool {
        let Mode::Liveness { core, .. } = &self.setup.mode else {
            return true;
        };
        let last = self.setup.last_members();
        let old: Vec<NodeId> = (1..=self.setup.nodes).collect();
        let stay = old.iter().filter(|node| last.contains(node)).count();
        let is_of_core = |node: &NodeId| core.contains(node);
        let can = last.iter().all(is_of_core) && (stay > old.len() / 2 || old.iter().all(is_of_core));
        self.setup.moves.is_empty() || !can || self.has_changed()
    }

    /// How long what operators have ordered may take from now on.
    pub(crate) fn patience_for_changes(&self) -> u64 {
        CHANGE_MICROS * self.setup.moves.len() as u64
    }

    /// Healed, and the members are those of the last order: from here on everything has ten seconds to work.
    pub(crate) fn probe_when_changed(&mut self) -> Result<(), StoreError> {
        if self.healed_at.is_none() || !self.probes.is_empty() || !self.has_changed() {
            return Ok(());
        }
        self.check_at = self.clock.micros() + RECOVERY_MICROS;
        self.schedule(RECOVERY_MICROS, Event::Check);
        self.probe()
    }

    /// After a node's turn: when two lists begin to decide together, every newcomer has caught up with the log at least to the
    /// entry that made it a learner.
    pub(crate) fn check_newcomers(&mut self, node: NodeId) {
        let Some(machine) = self.machines.get(&node) else {
            return;
        };
        let mut ledger = self.ledger.lock();
        for status in machine
            .status
            .iter()
            .filter(|status| status.configuration.is_joint())
        {
            let before = ledger.configuration_before(status.group, status.configuration_index);
            let Some((index, before)) = before else { continue };
            let lacks = |learner: &&NodeId| {
                let other = self.machines.get(learner).map(|machine| &machine.status);
                let found = other.and_then(|all| all.iter().find(|other| other.group == status.group));
                found.is_none_or(|found| found.last_index < index)
            };
            let late = before.learners.iter().find(lacks).copied();
            if let Some(late) = late {
                ledger.violate(format!(
                    "node {late} votes in {} before it has the entry {index} that made it a learner",
                    status.group
                ));
            }
        }
    }
}
