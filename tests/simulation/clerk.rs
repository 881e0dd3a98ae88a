//! Client, coordinator, endorser and holder on one simulated node, by the real rules.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use conclave::actors::denials::{self, Life};
use conclave::authorization::{Authenticated, RawRequest, authenticate};
use conclave::identifier::{LocalId, OperationId};
use conclave::keystore::command::GeneratedKey;
use conclave::keystore::record::{Hold, KeyRecord, KeystoreRecord, Material, Meter};
use conclave::keystore::{
    Command, Endorsement, Entry, Outcome, Reply as Applied, StateError, Statement, query,
};
use conclave::membership::Membership;
use conclave::operation::judge::{Case, Facts, Intent, Judgement, Rules};
use conclave::operation::route::Route;
use conclave_consensus::{GroupId, Millis, NodeId, Reply, Scope, Settling, View};
use conclave_simulator::{Node, Process};
use rand::Rng;
use rand::seq::SliceRandom;

use crate::clients::{self, BEGINNING, DELEGATE};
use crate::history::History;
use crate::office::member_key;

mod leader;

/// No worker finishes here what a coordinator left: nothing is kept for that.
type Denials = denials::Denials<()>;

const METERS: GroupId = GroupId(0);
const KEYSTORES: GroupId = GroupId(1);
const PATIENCE: Millis = 1_500;

/// What nodes say to each other.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    Endorse {
        operation: OperationId,
        request: RawRequest,
        participants: Vec<u64>,
    },
    Endorsed {
        operation: OperationId,
        statement: Box<Statement>,
        endorsement: Endorsement,
    },
    Use {
        operation: OperationId,
        request: RawRequest,
    },
    Contributed {
        operation: OperationId,
    },
}

/// A question that waits for entries.
struct Waiting {
    from: NodeId,
    operation: OperationId,
    request: RawRequest,
    /// Participants of a change; none for a use.
    change: Option<Vec<u64>>,
    settling: Settling,
    deadline: Millis,
}

struct Change {
    request: RawRequest,
    statements: Vec<(Statement, Vec<Endorsement>)>,
    proposed: bool,
    revokes: Option<String>,
}

struct Use {
    quorum: usize,
    /// The network may deliver twice: who, not how often.
    contributed: BTreeSet<NodeId>,
    /// Why granting it would break a rule, as known when it began.
    forbidden: Option<String>,
}

enum Ticket {
    Change(OperationId),
    Read(Floor),
    /// An entry that was proposed before.
    Again(OperationId),
    Forged,
}

/// What a read must at least see.
struct Floor {
    keystore: LocalId,
    keys: Vec<LocalId>,
    revoked: Vec<String>,
    sequence: u64,
}

pub(crate) struct Clerk {
    history: Rc<RefCell<History>>,
    rules: Rc<Rules>,
    membership: Arc<Membership>,
    forgets: bool,
    life: u64,
    next: u64,
    denials: Denials,
    waiting: Vec<Waiting>,
    changes: BTreeMap<OperationId, Change>,
    uses: BTreeMap<OperationId, Use>,
    tickets: BTreeMap<u64, Ticket>,
}

struct Views<'a> {
    zero: View,
    own: View,
    denials: Option<(&'a Denials, u64)>,
    forgets: bool,
}

impl Facts for Views<'_> {
    fn keystore(&self, id: &LocalId) -> Result<Option<KeystoreRecord>, StateError> {
        let mut record = query::keystore(&self.own, id)?;
        if let (Some(record), Some((denials, now))) = (&mut record, self.denials) {
            denials.restrict(id, record, now);
        }
        Ok(record)
    }

    fn meter(&self, id: &LocalId) -> Result<Option<Meter>, StateError> {
        query::meter(&self.zero, id)
    }

    fn key(&self, keystore: &LocalId, id: &LocalId) -> Result<Option<KeyRecord>, StateError> {
        query::key(&self.own, keystore, id)
    }

    fn hold(&self, keystore: &LocalId) -> Result<Option<Hold>, StateError> {
        query::hold(&self.own, keystore)
    }

    fn revoked(&self, keystore: &LocalId, capability: &str, delegator: &str) -> Result<bool, StateError> {
        let denied = self
            .denials
            .is_some_and(|(denials, now)| denials.denies_link(keystore, capability, delegator, now));
        Ok(!self.forgets && (denied || query::revoked(&self.own, keystore, capability, delegator)?))
    }
}

fn wall(now: Millis) -> u64 {
    BEGINNING * 1_000 + now
}

impl Clerk {
    pub(crate) fn new(
        history: Rc<RefCell<History>>,
        rules: Rc<Rules>,
        membership: Arc<Membership>,
        forgets: bool,
        life: u64,
    ) -> Self {
        Self {
            history,
            rules,
            membership,
            forgets,
            life,
            next: life << 20,
            denials: Denials::default(),
            waiting: Vec::new(),
            changes: BTreeMap::new(),
            uses: BTreeMap::new(),
            tickets: BTreeMap::new(),
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn operation(&mut self, node: &Node<'_, Message>) -> OperationId {
        let counter = self.number();
        OperationId {
            node: node.id(),
            boot: self.life,
            counter,
        }
    }

    fn authenticated(&self, request: &RawRequest, now: u64) -> Option<(Authenticated, Route)> {
        let route = Route::parse(&request.method, &request.target)?;
        Some((
            authenticate(request, &self.rules.policy, &self.rules.chains, now).ok()?,
            route,
        ))
    }

    /// The member's own judgement of a request on a settled view of the keystore's group.
    fn judge(
        &self,
        node: &Node<'_, Message>,
        request: &RawRequest,
        operation: OperationId,
        own: View,
        denies: bool,
    ) -> Option<(Judgement, Authenticated)> {
        let now = wall(node.now());
        let (authenticated, route) = self.authenticated(request, now)?;
        let zero = node.freshness().view(METERS).ok()?;
        let denials = denies.then_some((&self.denials, now));
        let facts = Views {
            zero,
            own,
            denials,
            forgets: self.forgets,
        };
        let rules = &self.rules;
        let case = Case {
            rules,
            facts: &facts,
            request: &authenticated,
            route: &route,
            operation,
            now,
        };
        let judgement = case.judge().ok()?;
        Some((judgement, authenticated))
    }

    fn group(route: &Route) -> GroupId {
        if matches!(route, Route::CreateMeter) {
            METERS
        } else {
            KEYSTORES
        }
    }

    /// Begins to answer: fence, then wait for what is pending.
    fn asked(
        &mut self,
        node: &mut Node<'_, Message>,
        from: NodeId,
        operation: OperationId,
        request: RawRequest,
        change: Option<Vec<u64>>,
    ) {
        let Some(route) = Route::parse(&request.method, &request.target) else {
            return;
        };
        let group = Self::group(&route);
        if operation.node != from || node.freshness().may_contribute(group).is_err() {
            return;
        }
        let scope = route
            .keystore()
            .and_then(|named| named.id)
            .map_or(Scope([0; 16]), |id| Scope(id.0));
        if let Ok(settling) = node.freshness().settle(group, scope) {
            let deadline = node.now() + PATIENCE;
            self.decide(
                node,
                Waiting {
                    from,
                    operation,
                    request,
                    change,
                    settling,
                    deadline,
                },
            );
        }
    }

    fn decide(&mut self, node: &mut Node<'_, Message>, waiting: Waiting) {
        let freshness = node.freshness().clone();
        match waiting.settling.poll(&freshness) {
            Ok(Ok(view)) => {
                if freshness.may_contribute(view.group()).is_ok() {
                    let Waiting {
                        from,
                        operation,
                        request,
                        change,
                        ..
                    } = waiting;
                    match change {
                        Some(participants) => {
                            self.endorse(node, from, operation, &request, participants, view)
                        }
                        None => self.contribute(node, from, operation, &request, view),
                    }
                }
            }
            Ok(Err(_)) => {}
            // A wait that ends without the entry never ends in a contribution.
            Err(_) if node.now() >= waiting.deadline => {}
            Err(settling) => self.waiting.push(Waiting { settling, ..waiting }),
        }
    }

    fn endorse(
        &mut self,
        node: &mut Node<'_, Message>,
        from: NodeId,
        operation: OperationId,
        request: &RawRequest,
        participants: Vec<u64>,
        view: View,
    ) {
        let group = view.group();
        let Some((judgement, authenticated)) = self.judge(node, request, operation, view, false) else {
            return;
        };
        let command = match judgement.intent {
            Intent::Change(command) => command,
            Intent::Generate(terms) => Command::GenerateKey(Box::new(GeneratedKey {
                keystore: terms.keystore,
                key: terms.key,
                key_type: terms.key_type,
                alias: terms.alias,
                max_chain_length: terms.max_chain_length,
                epoch: 0,
                session: [operation.counter as u8; 32],
                start: wall(node.now()) / 10_000 * 10_000,
                configuration: 1,
                participants,
                away: Vec::new(),
                transcript: [0; 32],
                material: Material::Pair {
                    commitment: Vec::new(),
                    public_key: terms.key.0.repeat(2).try_into().unwrap(),
                },
            })),
            _ => return,
        };
        let statement = Statement {
            cluster: [0; 32],
            group: group.0,
            operation,
            request: request.hash(),
            name: authenticated.name,
            expires: authenticated.expires * 1_000,
            command,
            state_version: judgement.state_version,
            chain: judgement.chain,
        };
        let life = Life {
            since: wall(node.now()),
            until: (authenticated.expires + 300) * 1_000,
        };
        self.denials
            .endorsed(operation, &statement.command, judgement.state_version, (), life);
        let endorsement = statement.endorse(node.id(), &member_key(node.id()), wall(node.now()));
        node.send(
            from,
            Message::Endorsed {
                operation,
                statement: Box::new(statement),
                endorsement,
            },
        );
    }

    fn contribute(
        &mut self,
        node: &mut Node<'_, Message>,
        from: NodeId,
        operation: OperationId,
        request: &RawRequest,
        view: View,
    ) {
        match self.judge(node, request, operation, view, true) {
            Some((judgement, _)) if matches!(judgement.intent, Intent::Use { .. }) => {
                node.send(from, Message::Contributed { operation });
            }
            _ => self.history.borrow_mut().counts.refused += 1,
        }
    }

    fn start_change(&mut self, node: &mut Node<'_, Message>, request: RawRequest, revokes: Option<String>) {
        let operation = self.operation(node);
        let mut participants = node.nodes().to_vec();
        if node.rng().gen_bool(0.5) {
            participants.shuffle(node.rng());
            participants.truncate(self.membership.quorum());
            participants.sort_unstable();
        }
        for member in node.nodes().to_vec() {
            let (request, participants) = (request.clone(), participants.clone());
            node.send(
                member,
                Message::Endorse {
                    operation,
                    request,
                    participants,
                },
            );
        }
        self.changes.insert(
            operation,
            Change {
                request,
                statements: Vec::new(),
                proposed: false,
                revokes,
            },
        );
    }

    fn endorsed(
        &mut self,
        node: &mut Node<'_, Message>,
        from: NodeId,
        operation: OperationId,
        statement: Statement,
        endorsement: Endorsement,
    ) {
        let ticket = self.number();
        let quorum = self.membership.quorum();
        let Some(change) = self.changes.get_mut(&operation).filter(|change| !change.proposed) else {
            return;
        };
        if endorsement.node != from {
            return;
        }
        let place = match change
            .statements
            .iter()
            .position(|(known, _)| *known == statement)
        {
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
        let everybody = match &statement.command {
            Command::GenerateKey(generated) => generated
                .participants
                .iter()
                .all(|node| endorsements.iter().any(|endorsement| endorsement.node == *node)),
            _ => true,
        };
        if endorsements.len() < quorum || !everybody {
            return;
        }
        change.proposed = true;
        let entry = Entry {
            statement: statement.clone(),
            request: change.request.encode(),
            endorsements: endorsements.clone(),
        };
        let group = GroupId(entry.statement.group);
        let entry = entry.encode();
        self.tickets.insert(ticket, Ticket::Change(operation));
        let mut history = self.history.borrow_mut();
        history.proposed.push((operation, group, entry.clone()));
        drop(history);
        node.propose(ticket, group, entry, node.now() + 3_000);
    }

    fn start_use(&mut self, node: &mut Node<'_, Message>) {
        let history = self.history.clone();
        let history = history.borrow();
        let (Some(keystore), Some(key)) = (history.keystore, history.keys.iter().next().copied()) else {
            return;
        };
        let seconds = wall(node.now()) / 1_000;
        let nonce = self.number() << 8 | node.id();
        let (client, delegated, forbidden) = match history.delegated.choose(node.rng()) {
            Some((id, capability, by)) if node.rng().gen_bool(0.6) => {
                let forbidden = if history.revoked.contains(id) {
                    Some(format!("{id} was acknowledged as revoked"))
                } else if *by < history.sequence {
                    Some(format!("its delegator {by} had handed the keystore on"))
                } else {
                    None
                };
                (DELEGATE, Some(capability.clone()), forbidden)
            }
            _ => {
                let client = history.sequence.saturating_sub(node.rng().gen_range(0..2));
                let forbidden = (client < history.sequence)
                    .then(|| format!("client {client} had handed the keystore on"));
                (client, None, forbidden)
            }
        };
        drop(history);
        let request = clients::sign(&keystore, &key, client, delegated.as_ref(), nonce, seconds);
        let operation = self.operation(node);
        let quorum = self.membership.quorum();
        let mut holders = node.nodes().to_vec();
        holders.shuffle(node.rng());
        self.uses.insert(
            operation,
            Use {
                quorum,
                contributed: BTreeSet::new(),
                forbidden,
            },
        );
        for holder in holders.into_iter().take(quorum) {
            node.send(
                holder,
                Message::Use {
                    operation,
                    request: request.clone(),
                },
            );
        }
    }

    fn contributed(&mut self, node: &mut Node<'_, Message>, from: NodeId, operation: OperationId) {
        let Some(used) = self.uses.get_mut(&operation) else {
            return;
        };
        used.contributed.insert(from);
        if used.contributed.len() < used.quorum {
            return;
        }
        self.history.borrow_mut().counts.granted += 1;
        if let Some(reason) = used.forbidden.take() {
            node.violation(format!("a use was granted although {reason}"));
        }
        self.uses.remove(&operation);
    }

    fn act(&mut self, node: &mut Node<'_, Message>) {
        let seconds = wall(node.now()) / 1_000;
        let history = self.history.clone();
        let (meter, keystore, sequence, keys) = {
            let history = history.borrow();
            (
                history.meter,
                history.keystore,
                history.sequence,
                history.keys.len(),
            )
        };
        let Some(meter) = meter else {
            return self.start_change(node, clients::create_meter(seconds), None);
        };
        let Some(keystore) = keystore else {
            return self.start_change(node, clients::create_keystore(&meter, seconds), None);
        };
        if keys == 0 {
            return self.start_change(node, clients::generate(&keystore, sequence, seconds), None);
        }
        match node.rng().gen_range(0..13) {
            0 => self.start_change(node, clients::generate(&keystore, sequence, seconds), None),
            1 => self.start_change(node, clients::hand_on(&keystore, sequence + 1, seconds), None),
            2 => {
                let id = format!("urn:uuid:{}-{}", node.id(), self.number());
                let capability = clients::delegate(&keystore, sequence, &id, seconds);
                history.borrow_mut().delegated.push((id, capability, sequence));
            }
            3 | 4 => {
                let chosen = history.borrow().delegated.choose(node.rng()).cloned();
                let Some((id, capability, _)) = chosen else { return };
                self.start_change(
                    node,
                    clients::revoke(&keystore, sequence, &capability, seconds),
                    Some(id),
                );
            }
            5 => self.forge(node, &keystore, sequence, seconds),
            6 => self.read(node, keystore),
            7 => self.again(node),
            _ => self.start_use(node),
        }
    }

    fn read(&mut self, node: &mut Node<'_, Message>, keystore: LocalId) {
        let ticket = self.number();
        let floor = {
            let history = self.history.borrow();
            let (keys, revoked) = (
                history.keys.iter().copied().collect(),
                history.revoked.iter().cloned().collect(),
            );
            Floor {
                keystore,
                keys,
                revoked,
                sequence: history.sequence,
            }
        };
        self.tickets.insert(ticket, Ticket::Read(floor));
        node.read_index(ticket, KEYSTORES, node.now() + 2_000);
    }

    /// What was acknowledged before a confirmed read began is there, and nothing that nobody endorsed is.
    fn check(&self, node: &mut Node<'_, Message>, floor: &Floor) -> Result<(), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let view = node.freshness().view(KEYSTORES).map_err(|error| text(&error))?;
        let stored = query::keystore(&view, &floor.keystore).map_err(|error| text(&error))?;
        let stored = stored.ok_or("an acknowledged keystore is lost")?;
        if stored.config.sequence < floor.sequence {
            return Err(format!(
                "sequence {} was acknowledged, {} is there",
                floor.sequence, stored.config.sequence
            ));
        }
        if stored
            .config
            .controllers
            .iter()
            .any(|controller| controller == "did:key:mallory")
        {
            return Err("a controller is there whom nobody endorsed".into());
        }
        let mut history = self.history.borrow_mut();
        for key in &floor.keys {
            let record = query::key(&view, &floor.keystore, key).map_err(|error| text(&error))?;
            let record = record.ok_or(format!("the acknowledged key {key} is lost"))?;
            let Some((_, public_key)) = record.material.pair() else {
                continue;
            };
            if history.public_keys.entry(*key).or_insert(*public_key) != public_key {
                return Err(format!("the public key of {key} has changed"));
            }
        }
        for id in &floor.revoked {
            let delegators = history
                .delegated
                .iter()
                .filter(|(known, ..)| known == id)
                .map(|(_, _, by)| *by);
            for by in delegators {
                if !query::revoked(&view, &floor.keystore, id, &clients::did(by))
                    .map_err(|error| text(&error))?
                {
                    return Err(format!("the acknowledged revocation of {id} is lost"));
                }
            }
        }
        Ok(())
    }

    fn applied(&mut self, node: &mut Node<'_, Message>, operation: OperationId, result: &[u8]) {
        let Some(change) = self.changes.remove(&operation) else {
            return;
        };
        let Ok(Outcome::Applied(applied)) = postcard::from_bytes(result) else {
            return;
        };
        let mut history = self.history.borrow_mut();
        history.counts.changes += 1;
        match applied {
            Applied::Meter(id) => drop(history.meter.get_or_insert(id)),
            Applied::Key(_, key) => drop(history.keys.insert(key)),
            Applied::Revoked => drop(change.revokes.map(|id| history.revoked.insert(id))),
            Applied::Keystore(id) => {
                let created = matches!(change.statements.first(), Some((statement, _)) if matches!(statement.command, Command::CreateKeystore { .. }));
                if created {
                    history.keystore.get_or_insert(id);
                    return;
                }
                let sequence = change
                    .statements
                    .iter()
                    .find_map(|(statement, _)| match &statement.command {
                        Command::UpdateKeystore { config, .. } => Some(config.sequence),
                        _ => None,
                    });
                let Some(sequence) = sequence else { return };
                if !history.acknowledged.insert(sequence) {
                    node.violation(format!("sequence {sequence} was acknowledged twice"));
                }
                history.sequence = history.sequence.max(sequence);
            }
            Applied::Time | Applied::Renewed(_) | Applied::Ordered(_) | Applied::Moved(_) => {}
        }
        drop(history);
        // At once, while some holders do not know yet that it is committed.
        for _ in 0..3 {
            self.start_use(node);
        }
    }
}

impl Process for Clerk {
    type Message = Message;

    fn on_start(&mut self, node: &mut Node<'_, Message>) {
        let after = node.rng().gen_range(1_000..30_000);
        node.timer(after, 0);
    }

    fn on_message(&mut self, node: &mut Node<'_, Message>, from: NodeId, message: Message) {
        match message {
            Message::Endorse {
                operation,
                request,
                participants,
            } => {
                self.asked(node, from, operation, request, Some(participants));
            }
            Message::Use { operation, request } => self.asked(node, from, operation, request, None),
            Message::Endorsed {
                operation,
                statement,
                endorsement,
            } => {
                self.endorsed(node, from, operation, *statement, endorsement);
            }
            Message::Contributed { operation } => self.contributed(node, from, operation),
        }
    }

    fn on_timer(&mut self, node: &mut Node<'_, Message>, _tag: u64) {
        self.act(node);
        let after = node.rng().gen_range(20_000..120_000);
        node.timer(after, 0);
    }

    fn on_reply(&mut self, node: &mut Node<'_, Message>, reply: Reply) {
        match reply {
            Reply::Proposed {
                ticket,
                result: Ok(applied),
            } => match self.tickets.remove(&ticket) {
                Some(Ticket::Change(operation)) => {
                    self.came_to(node, operation, &applied.result);
                    self.applied(node, operation, &applied.result);
                }
                Some(Ticket::Again(operation)) => self.came_to(node, operation, &applied.result),
                Some(Ticket::Forged) => {
                    if let Ok(Outcome::Applied(_)) = postcard::from_bytes(&applied.result) {
                        node.violation("an entry was applied that nobody endorsed");
                    }
                }
                _ => {}
            },
            Reply::Read {
                ticket,
                result: Ok(_),
            } => {
                if let Some(Ticket::Read(floor)) = self.tickets.remove(&ticket) {
                    self.history.borrow_mut().counts.reads += 1;
                    if let Err(what) = self.check(node, &floor) {
                        node.violation(what);
                    }
                }
            }
            Reply::Proposed { ticket, .. } | Reply::Read { ticket, .. } => {
                self.tickets.remove(&ticket);
            }
        }
    }

    fn on_progress(&mut self, node: &mut Node<'_, Message>) {
        for waiting in std::mem::take(&mut self.waiting) {
            self.decide(node, waiting);
        }
    }
}
