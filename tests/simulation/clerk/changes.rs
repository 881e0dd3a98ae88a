//! A coordinator's changes: endorsements of members whose clocks agree, the proposal, what its client is told.

use conclave::authorization::RawRequest;
use conclave::identifier::{LocalId, OperationId};
use conclave::keystore::{Command, Endorsement, Entry, Outcome, Rejection, Reply as Applied, Statement};
use conclave_consensus::{GroupId, NodeId};
use conclave_simulator::Node;
use rand::Rng;
use rand::seq::SliceRandom;

use super::{Change, Clerk, Message, Ticket, seconds, system};
use crate::clients;
use crate::history::Delegated;
use crate::register::{Answer, Call, Renewed};

/// Endorsements of one entry lie within this of each other, ms.
const TIME_SPREAD: u64 = 5_000;

/// A quorum of endorsements whose clocks are as close as an entry's must be, or all of the ceremony's participants.
fn at_one_time(endorsements: &[Endorsement], quorum: usize, everybody: &[u64]) -> Option<Vec<Endorsement>> {
    let windows = endorsements.iter().map(|earliest| earliest.time);
    windows
        .map(|earliest| {
            let within = |endorsement: &&Endorsement| {
                endorsement.time >= earliest && endorsement.time - earliest <= TIME_SPREAD
            };
            endorsements.iter().filter(within).cloned().collect::<Vec<_>>()
        })
        .find(|within| {
            let has = |node: &u64| within.iter().any(|endorsement| endorsement.node == *node);
            within.len() >= quorum && everybody.iter().all(has)
        })
}

/// What a command asks of its keystore.
fn call_of(command: &Command, version: u64) -> Option<(LocalId, Call)> {
    match command {
        Command::CreateKeystore { id, .. } => Some((*id, Call::Create)),
        Command::UpdateKeystore { id, .. } => Some((*id, Call::Update { version })),
        Command::GenerateKey(generated) => {
            let (key, session) = (generated.key, generated.session);
            let call = Call::Generate {
                version,
                key,
                session,
            };
            Some((generated.keystore, call))
        }
        Command::Revoke {
            keystore, capability, ..
        } => {
            let capability = capability.clone();
            Some((*keystore, Call::Revoke { version, capability }))
        }
        Command::RenewShares(renewed) => {
            let new = renewed.keys.iter().map(|new| Renewed {
                key: new.key,
                replaces: new.replaces,
                session: new.session,
            });
            let keys = new.collect();
            Some((renewed.keystore, Call::Renew { version, keys }))
        }
        Command::CreateMeter { .. } | Command::Time | Command::Order(_) | Command::CompleteMove(_) => None,
    }
}

/// What an outcome says of the keystore: nothing, if it changed nothing for another reason.
fn answer_of(outcome: &Outcome) -> Option<Answer> {
    match outcome {
        Outcome::Applied(_) => Some(Answer::Done),
        Outcome::Refused(Rejection::VersionPassed) => Some(Answer::Passed),
        Outcome::Refused(Rejection::AlreadyRevoked) => Some(Answer::AlreadyRevoked),
        Outcome::Refused(Rejection::EpochPassed) => Some(Answer::OtherShares),
        Outcome::Refused(_) => None,
    }
}

impl Clerk {
    pub(super) fn start_change(
        &mut self,
        node: &mut Node<'_, Message>,
        request: RawRequest,
        errand: Option<u64>,
    ) {
        let operation = self.operation(node);
        let mut participants = node.nodes().to_vec();
        if node.rng().gen_bool(0.5) {
            participants.shuffle(node.rng());
            participants.truncate(self.shared.membership.quorum());
            participants.sort_unstable();
        }
        let start = system(node);
        for member in node.nodes().to_vec() {
            let (request, participants) = (request.clone(), participants.clone());
            let question = Message::Endorse {
                operation,
                request,
                participants,
                start,
            };
            node.send(member, question);
        }
        self.await_endorsements(operation, request.encode(), errand);
    }

    pub(super) fn await_endorsements(
        &mut self,
        operation: OperationId,
        request: Vec<u8>,
        errand: Option<u64>,
    ) {
        let invoked = self.shared.history.borrow_mut().moment();
        let change = Change {
            request,
            statements: Vec::new(),
            proposed: None,
            invoked,
            call: None,
            errand,
        };
        self.changes.insert(operation, change);
    }

    pub(super) fn delegate(
        &mut self,
        node: &mut Node<'_, Message>,
        keystore: LocalId,
        sequence: u64,
    ) -> Delegated {
        let id = format!("urn:uuid:{}-{}", node.id(), self.number());
        // Some are long over: a clock that is put back must not revive them.
        let expired = node.rng().gen_bool(0.2);
        let created = seconds(node) - if expired { clients::DELEGATION + 400 } else { 0 };
        let delegated = Delegated {
            capability: clients::delegate(&keystore, sequence, &id, created),
            id,
            by: sequence,
            expired,
        };
        let mut history = self.shared.history.borrow_mut();
        if let Some(tenant) = history.keystores.get_mut(&keystore) {
            tenant.delegated.push(delegated.clone());
        }
        delegated
    }

    /// Revokes one of the keystore's delegations.
    pub(super) fn revoke_any(&mut self, node: &mut Node<'_, Message>, keystore: LocalId, sequence: u64) {
        let chosen = {
            let history = self.shared.history.borrow();
            let tenant = history.keystores.get(&keystore);
            tenant.and_then(|tenant| tenant.delegated.choose(node.rng()).cloned())
        };
        if let Some(delegated) = chosen {
            self.revoke(node, (keystore, sequence), &delegated, None);
        }
    }

    pub(super) fn revoke(
        &mut self,
        node: &mut Node<'_, Message>,
        (keystore, sequence): (LocalId, u64),
        delegated: &Delegated,
        errand: Option<u64>,
    ) {
        let request = clients::revoke(&keystore, sequence, &delegated.capability, seconds(node));
        self.start_change(node, request, errand);
    }

    pub(super) fn endorsed(
        &mut self,
        node: &mut Node<'_, Message>,
        from: NodeId,
        operation: OperationId,
        statement: Statement,
        endorsement: Endorsement,
    ) {
        let ticket = self.number();
        let quorum = self.shared.membership.quorum();
        let Some(change) = self
            .changes
            .get_mut(&operation)
            .filter(|change| change.proposed.is_none())
        else {
            return;
        };
        if endorsement.node != from {
            return;
        }
        let known = |(known, _): &(Statement, _)| *known == statement;
        let place = match change.statements.iter().position(known) {
            Some(place) => place,
            None => {
                change.statements.push((statement, Vec::new()));
                change.statements.len() - 1
            }
        };
        let (statement, endorsements) = &mut change.statements[place];
        if endorsements.iter().all(|known| known.node != from) {
            endorsements.push(endorsement);
        }
        let everybody = statement.command.participants().unwrap_or_default();
        let Some(endorsements) = at_one_time(endorsements, quorum, everybody) else {
            return;
        };
        change.proposed = Some(statement.command.clone());
        let entry = Entry {
            statement: statement.clone(),
            request: change.request.clone(),
            endorsements,
        };
        let mut history = self.shared.history.borrow_mut();
        if let Some((keystore, call)) = call_of(&entry.statement.command, entry.statement.state_version) {
            // Nobody knows of a keystore before its creation is acknowledged.
            let tenants = match call {
                Call::Create => &mut history.unborn,
                _ => &mut history.keystores,
            };
            let tenant = tenants.entry(keystore).or_default();
            match &call {
                Call::Generate { key, .. } => drop(tenant.proposed.insert(*key)),
                Call::Renew { keys, .. } => tenant.replacing.extend(keys.iter().map(|new| new.replaces)),
                _ => {}
            }
            let place = tenant.called(call, change.invoked);
            change.call = Some((keystore, place));
        }
        let group = GroupId(entry.statement.group);
        let entry = entry.encode();
        self.tickets.insert(ticket, Ticket::Change(operation));
        history.proposed.push((operation, group, entry.clone()));
        drop(history);
        node.propose(ticket, group, entry, node.now() + 3_000);
    }

    /// The client hears what became of its change.
    pub(super) fn applied(&mut self, node: &mut Node<'_, Message>, operation: OperationId, result: &[u8]) {
        let Some(change) = self.changes.remove(&operation) else {
            return;
        };
        let Ok(outcome) = postcard::from_bytes::<Outcome>(result) else {
            return;
        };
        let command = change.proposed;
        let mut history = self.shared.history.borrow_mut();
        if let (Outcome::Applied(Applied::Keystore(id)), Some(Command::CreateKeystore { .. })) =
            (&outcome, &command)
            && let Some(born) = history.unborn.remove(id)
        {
            history.keystores.insert(*id, born);
        }
        let at = history.moment();
        let answer = answer_of(&outcome);
        if let Some((keystore, place)) = change.call
            && let Some(tenant) = history.keystores.get_mut(&keystore)
        {
            tenant.answered(place, at, answer);
        }
        let Outcome::Applied(applied) = outcome else {
            return;
        };
        history.counts.changes += 1;
        drop(history);
        let keystore = self.acknowledged(node, applied, command);
        if let Some(number) = change.errand {
            node.achieved(number);
        }
        // At once, while some holders do not know yet that it is committed.
        if let Some(keystore) = keystore {
            for _ in 0..3 {
                self.start_use(node, keystore, None);
            }
        }
    }

    /// What holds from now on; in which keystore.
    fn acknowledged(
        &mut self,
        node: &mut Node<'_, Message>,
        applied: Applied,
        command: Option<Command>,
    ) -> Option<LocalId> {
        let mut history = self.shared.history.borrow_mut();
        if let Applied::Meter(id) = applied {
            history.meter.get_or_insert(id);
        }
        let command = command?;
        let keystore = command.keystore()?;
        if let Applied::Renewed(_) = applied {
            history.counts.renewed += 1;
        }
        let tenant = history.keystores.get_mut(&keystore)?;
        match command {
            Command::GenerateKey(generated) => drop(tenant.keys.insert(generated.key)),
            Command::Revoke { capability, .. } => drop(tenant.revoked.insert(capability)),
            Command::UpdateKeystore { config, .. } => {
                let sequence = config.sequence;
                if !tenant.acknowledged.insert(sequence) {
                    node.violation(format!("sequence {sequence} was acknowledged twice"));
                }
                tenant.sequence = tenant.sequence.max(sequence);
            }
            Command::RenewShares(renewed) => {
                let disks = self.shared.disks.borrow();
                for new in &renewed.keys {
                    let key = new.key;
                    if tenant.replaced.insert(new.replaces, new.session).is_some() {
                        node.violation(format!("shares of {key} were replaced twice"));
                    }
                    let without = node.nodes().iter().find(|node| !disks.has(**node, &new.session));
                    if let Some(without) = without.copied() {
                        let epoch = new.epoch;
                        node.violation(format!("node {without} has no share of epoch {epoch} of {key}"));
                    }
                }
            }
            _ => {}
        }
        Some(keystore)
    }
}
