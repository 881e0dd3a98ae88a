//! Faults happening to a world, their healing, and whether it works again.

use crate::plan::Fault;
use crate::process::Cluster;
use crate::world::{Event, Input, PROBE, World};
use conclave_consensus::{GroupId, GroupStatus, NodeId, Role, StoreError};
use rand::Rng;

/// How long a healed cluster may take to work again (I14).
pub(crate) const RECOVERY_MICROS: u64 = 10_000_000;

impl<C: Cluster> World<C> {
    /// Peers see a link come up, or break because the process is gone.
    pub(crate) fn announce(&mut self, node: NodeId, up: bool) {
        for peer in self.nodes.clone() {
            let Some(life) = self.machines.get(&peer).map(|machine| machine.life) else {
                continue;
            };
            if peer != node && !self.network.is_cut(node, peer) && self.alive(peer, life) {
                let after = self.rng.gen_range(100..20_000);
                self.schedule(
                    after,
                    Event::Link {
                        node: peer,
                        life,
                        peer: node,
                        up,
                    },
                );
            }
        }
    }

    pub(crate) fn crash(&mut self, node: NodeId, restart_after: u64) {
        let Some(machine) = self.machines.get_mut(&node) else {
            return;
        };
        let Some(running) = machine.running.take() else {
            return;
        };
        machine.life += 1;
        machine.doomed = None;
        machine.disk.fail(false);
        // A batch that is being written may have reached the disk.
        let torn = running.writing.map(|turn| turn.batch);
        machine.disk.crash(torn.as_ref(), &mut self.rng);
        self.announce(node, false);
        self.schedule(restart_after, Event::Start { node });
    }

    /// Lets one fault happen, as far as it does not happen to a core that is left alone.
    pub(crate) fn fault(&mut self, fault: Fault) {
        let all = self.nodes.clone();
        if fault
            .node()
            .is_some_and(|node| self.is_spared(node) || self.is_yet_to_come(node))
        {
            return;
        }
        match fault {
            Fault::Crash(node, restart) => self.crash(node, restart),
            Fault::CrashWriting(node, restart) | Fault::FailDisk(node, restart) => {
                if let Some(machine) = self.machines.get_mut(&node) {
                    machine.disk.fail(matches!(fault, Fault::FailDisk(..)));
                    machine.doomed = Some(restart);
                }
            }
            Fault::PowerCut(restart) => {
                let spared = self.core.nodes.clone();
                for node in all.into_iter().filter(|node| !spared.contains(node)) {
                    let apart = self.rng.gen_range(0..300_000);
                    self.crash(node, restart + apart);
                }
            }
            Fault::Partition(side) => {
                for (one, other) in pairs(&all) {
                    if side.contains(&one) != side.contains(&other) {
                        self.network.cut(one, other);
                    }
                }
            }
            Fault::Deaf(node) => all.iter().for_each(|peer| self.network.cut(*peer, node)),
            Fault::Mute(node) => all.iter().for_each(|peer| self.network.cut(node, *peer)),
            Fault::CutOne(from, to) => self.network.cut(from, to),
            Fault::Weather(delay, loss, duplication) => {
                self.network.delay = delay;
                self.network.loss = loss;
                self.network.duplication = duplication;
            }
            Fault::SlowDisk(node, micros) => {
                if let Some(machine) = self.machines.get_mut(&node) {
                    machine.slow_micros = micros;
                }
            }
            Fault::Clock(node, millis) => {
                for (id, machine) in &mut self.machines {
                    machine.wrong_millis = if *id == node { millis } else { 0 };
                }
            }
            Fault::Copy(node) => {
                if let Some(machine) = self.machines.get_mut(&node) {
                    machine.disk.copy();
                }
            }
            Fault::PutBack(node, restart) => {
                self.crash(node, restart);
                if let Some(machine) = self.machines.get_mut(&node)
                    && machine.running.is_none()
                    && machine.disk.put_back()
                {
                    machine.put_back = true;
                }
            }
            Fault::Mend => self.network.mend(),
            Fault::Clear => {
                self.network.heal();
                self.machines
                    .values_mut()
                    .for_each(|machine| machine.slow_micros = 0);
            }
        }
    }

    pub(crate) fn heal(&mut self) -> Result<(), StoreError> {
        self.fault(Fault::Clear);
        self.machines
            .values_mut()
            .for_each(|machine| machine.wrong_millis = 0);
        self.healed_at = Some(self.clock.micros());
        for node in self.nodes.clone() {
            if let Some(machine) = self.machines.get_mut(&node) {
                machine.doomed = None;
                machine.disk.fail(false);
            }
            self.start(node)?;
            self.announce(node, true);
        }
        let patience = match self.setup.moves.is_empty() {
            true => RECOVERY_MICROS,
            false => self.patience_for_changes(),
        };
        self.check_at = self.clock.micros() + patience;
        self.schedule(patience, Event::Check);
        match self.setup.moves.is_empty() {
            true => self.probe(),
            false => Ok(()),
        }
    }

    /// Proposes something to every group through every node.
    pub(crate) fn probe(&mut self) -> Result<(), StoreError> {
        let deadline = (self.clock.micros() + RECOVERY_MICROS) / 1_000;
        for node in self.survivors() {
            if self.machines.get(&node).is_some_and(|machine| machine.put_back) {
                continue;
            }
            for group in (0..self.setup.settings.groups).map(GroupId) {
                self.probes.insert((node, group), false);
                let ticket = PROBE + u64::from(group.0);
                let entry = self.cluster.probe(group, node * 1_000 + u64::from(group.0));
                self.input(
                    node,
                    Input::Propose {
                        ticket,
                        group,
                        entry,
                        deadline,
                    },
                )?;
            }
        }
        Ok(())
    }

    pub(crate) fn check_recovery(&mut self) {
        if self.clock.micros() < self.check_at {
            return;
        }
        let late: Vec<_> = self
            .probes
            .iter()
            .filter(|(_, done)| !**done)
            .map(|(at, _)| *at)
            .collect();
        let what = match late.is_empty() {
            _ if !self.change_is_over() || self.probes.is_empty() => {
                let shown = self.machines.iter().flat_map(|(node, machine)| {
                    let shown = machine.status.iter();
                    shown.map(move |status| format!("{node} {}: {:?}", status.group, status.configuration))
                });
                let shown: Vec<String> = shown.collect();
                format!(
                    "healthy, and the change of members has not come to its end: {}",
                    shown.join("; ")
                )
            }
            false => format!("healed for 10 s, and these proposals have no answer: {late:?}"),
            true => "healed for 10 s, and the nodes have not come to the same state".to_owned(),
        };
        self.ledger.lock().violate(what);
    }

    /// Healed, every probe answered, every node applied everything acknowledged or knows that its disk is a copy, all alike, and a little
    /// longer for the processes' own work.
    pub(crate) fn is_well(&self) -> bool {
        let Some(healed) = self.healed_at else {
            return false;
        };
        if self.clock.micros() < healed + self.setup.calm_micros || self.probes.values().any(|done| !done) {
            return false;
        }
        if self.probes.is_empty() {
            return false;
        }
        let ledger = self.ledger.lock();
        let survivors = self.survivors();
        let those = || {
            let machines = self.machines.iter();
            machines
                .filter(|(node, _)| survivors.contains(node))
                .map(|(_, machine)| machine)
        };
        those().all(|machine| {
            let enough = |status: &GroupStatus| status.applied >= ledger.highest_acknowledged(status.group);
            machine
                .running
                .as_ref()
                .is_some_and(|running| match machine.put_back {
                    true => running.driver.rolled_back().is_some(),
                    false => machine.status.iter().all(enough),
                })
        }) && (0..self.setup.settings.groups).map(GroupId).all(|group| {
            let live = those().filter(|machine| !machine.put_back);
            let statuses = live.flat_map(|machine| &machine.status);
            statuses
                .filter(|status| status.group == group && status.role == Role::Leader)
                .count()
                == 1
        })
    }
}

fn pairs(nodes: &[NodeId]) -> impl Iterator<Item = (NodeId, NodeId)> + '_ {
    nodes
        .iter()
        .flat_map(|one| nodes.iter().map(move |other| (*one, *other)))
}
