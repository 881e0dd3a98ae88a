//! A coordinator's changes: endorsements of members whose clocks agree, the proposal, what its client is told.

use std::collections::BTreeSet;
use std::sync::Arc;

use conclave::authorization::RawRequest;
use conclave::identifier::{LocalId, OperationId};
use conclave::keystore::{
    Command, Endorsement, Entry, Outcome, Rejection, Reply as Applied, Roster, Statement,
};
use conclave::operation::route::Route;
use conclave_consensus::{GroupId, NodeId};
use conclave_simulator::Node;
use rand::Rng;
use rand::seq::SliceRandom;

use super::{Change, Clerk, KEYSTORES, METERS, Message, Ticket, seconds, system};
use crate::clients;
use crate::history::Delegated;
use crate::office::Bug;
use crate::register::{Answer, Call, Renewed};

/// Endorsements of one entry lie within this of each other, ms.
const TIME_SPREAD: u64 = 5_000;

/// Enough endorsements whose clocks are as close as an entry's must be.
fn at_one_time(endorsements: &[Endorsement], enough: impl Fn(&[u64]) -> bool) -> Option<Vec<Endorsement>> {
    let windows = endorsements.iter().map(|earliest| earliest.time);
    windows
        .map(|earliest| {
            let within = |endorsement: &&Endorsement| {
                endorsement.time >= earliest && endorsement.time - earliest <= TIME_SPREAD
            };
            endorsements.iter().filter(within).cloned().collect::<Vec<_>>()
        })
        .find(|within| {
            let nodes: Vec<u64> = within.iter().map(|endorsement| endorsement.node).collect();
            enough(&nodes)
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
        Command::CreateMeter { .. }
        | Command::Time
        | Command::Order(_)
        | Command::CompleteMove(_)
        | Command::BeginMove(_) => None,
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
        let group = match Route::parse(&request.method, &request.target) {
            Some(Route::CreateMeter) => METERS,
            _ => KEYSTORES,
        };
        let Some(roster) = self.roster(node, group) else {
            return;
        };
        let operation = self.operation(node);
        let mut participants = roster.births().nodes();
        if node.rng().gen_bool(0.5) {
            participants.shuffle(node.rng());
            participants.truncate(roster.births().quorum());
            participants.sort_unstable();
        }
        let start = system(node);
        for member in roster.deciders() {
            let (request, participants) = (request.clone(), participants.clone());
            let question = Message::Endorse {
                operation,
                request,
                participants,
                start,
            };
            node.send(member, question);
        }
        self.await_endorsements(operation, request.encode(), roster, errand);
    }

    pub(super) fn await_endorsements(
        &mut self,
        operation: OperationId,
        request: Vec<u8>,
        roster: Arc<Roster>,
        errand: Option<u64>,
    ) {
        let invoked = self.shared.history.borrow_mut().moment();
        let change = Change {
            request,
            statements: Vec::new(),
            proposed: None,
            roster,
            dealing: None,
            endorsers: BTreeSet::new(),
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
        let Some(change) = self.changes.get_mut(&operation) else {
            return;
        };
        if endorsement.node != from || change.proposed.is_some() {
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
        let (_, endorsements) = &mut change.statements[place];
        if endorsements.iter().all(|known| known.node != from) {
            endorsements.push(endorsement);
        }
        self.propose_what_is_agreed(node, operation);
    }

    /// Proposes a statement that enough have endorsed, if there is one.
    pub(super) fn propose_what_is_agreed(&mut self, node: &mut Node<'_, Message>, operation: OperationId) {
        let ticket = self.number();
        let one_list = self.has(Bug::CountsOneList);
        let Some(change) = self.changes.get_mut(&operation) else {
            return;
        };
        let waits = change
            .dealing
            .as_ref()
            .is_some_and(|dealing| !dealing.is_enough());
        if change.proposed.is_some() || waits {
            return;
        }
        let roster = change.roster.clone();
        let agreed = change.statements.iter().find_map(|(statement, endorsements)| {
            let enough = |nodes: &[u64]| match statement.command.participants() {
                Some(participants) => participants.iter().all(|node| nodes.contains(node)),
                None if one_list => roster.halves().any(|half| {
                    let agree = half.members.iter().filter(|member| nodes.contains(&member.node));
                    agree.count() >= half.quorum()
                }),
                None => roster.is_quorum(nodes),
            };
            Some((statement, at_one_time(endorsements, enough)?))
        });
        let Some((statement, endorsements)) = agreed else {
            return;
        };
        change.proposed = Some(statement.command.clone());
        if statement.command.participants().is_none() {
            change.endorsers = endorsements.iter().map(|endorsement| endorsement.node).collect();
        }
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
    pub(super) fn applied(
        &mut self,
        node: &mut Node<'_, Message>,
        operation: OperationId,
        index: u64,
        result: &[u8],
    ) {
        let Some(change) = self.changes.remove(&operation) else {
            return;
        };
        let Ok(outcome) = postcard::from_bytes::<Outcome>(result) else {
            return;
        };
        // Others decide now than those that endorsed it; they may again, so that this says nothing.
        if let Outcome::Refused(Rejection::NotEndorsed(_)) = outcome {
            return;
        }
        let group = change
            .statements
            .first()
            .map(|(statement, _)| GroupId(statement.group));
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
        if let Some(group) = group.filter(|_| !change.endorsers.is_empty() && !self.shared.orders.is_empty())
        {
            self.check_endorsers(node, (group, index), &change.endorsers);
        }
        let keystore = self.acknowledged(node, applied, command, change.dealing.is_some());
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
        moves: bool,
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
        if let (Command::RenewShares(renewed), true) = (&command, moves) {
            history.counts.moved += renewed.keys.len() as u64;
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
                    // What is to replace them already may have taken their place.
                    let last = !tenant.replacing.contains(&new.session);
                    let holders = renewed.participants.iter();
                    let without = holders
                        .copied()
                        .find(|node| last && !disks.has(*node, &new.session));
                    if let Some(without) = without {
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
