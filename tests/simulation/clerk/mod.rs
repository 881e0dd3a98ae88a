//! Client, coordinator, endorser and holder on one simulated node, by the real rules.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use conclave::actors::denials;
use conclave::authorization::RawRequest;
use conclave::identifier::{LocalId, OperationId};
use conclave::keystore::record::{Hold, KeyRecord, KeystoreRecord, Meter};
use conclave::keystore::{Command, Endorsement, Roster, Rosters, StateError, Statement, query};
use conclave::operation::judge::{Facts, Rules};
use conclave::operator::SignedOrder;
use conclave_consensus::{GroupId, Millis, NodeId, Reply, Settling, View};
use conclave_simulator::{Node, Process};
use rand::Rng;
use rand::seq::IteratorRandom;

use crate::beginnings::Beginnings;
use crate::clients::{self, BEGINNING};
use crate::disks::Disks;
use crate::history::History;
use crate::office::Bug;
use crate::register::{Call, Session};

mod changes;
mod errand;
mod holder;
mod leader;
mod moves;
mod reads;
mod renewals;
mod uses;

use moves::Carried;
use renewals::Dealing;

/// No worker finishes here what a coordinator left: nothing is kept for that.
type Denials = denials::Denials<()>;

const METERS: GroupId = GroupId(0);
const KEYSTORES: GroupId = GroupId(1);
/// Keystores that clients create.
const TENANTS: usize = 2;
/// Tags of timers: what clients do, and what carries out changes of members.
const CLIENTS: u64 = 0;
const MOVES: u64 = 1;

/// What nodes say to each other.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    Endorse {
        operation: OperationId,
        request: RawRequest,
        /// Of a generation: who takes part, and when it began by the coordinator's clock.
        participants: Vec<u64>,
        start: u64,
    },
    Endorsed {
        operation: OperationId,
        statement: Box<Statement>,
        endorsement: Endorsement,
    },
    Use {
        operation: OperationId,
        request: RawRequest,
        /// The shares that the coordinator's state names.
        session: Session,
    },
    Contributed {
        operation: OperationId,
        /// The shares that it was made with.
        session: Session,
    },
    Renew {
        operation: OperationId,
        keystore: LocalId,
        keys: Vec<(LocalId, Session)>,
        start: u64,
    },
    /// Of a key that moves: this member has dealt its share.
    Dealt { operation: OperationId },
    EndorseOrder {
        operation: OperationId,
        group: GroupId,
        order: Box<SignedOrder>,
    },
    EndorseMove {
        operation: OperationId,
        group: GroupId,
        /// Of the list that every key is with.
        number: u64,
    },
    EndorseBeginning {
        operation: OperationId,
        group: GroupId,
        /// Of the list that the group is to move to.
        number: u64,
    },
}

/// A question to a holder.
enum Question {
    Change {
        request: RawRequest,
        participants: Vec<u64>,
        start: u64,
    },
    Use {
        request: RawRequest,
        session: Session,
    },
    Renew {
        keystore: LocalId,
        keys: Vec<(LocalId, Session)>,
        start: u64,
    },
}

/// A question that waits for entries.
struct Waiting {
    from: NodeId,
    operation: OperationId,
    question: Question,
    settling: Settling,
    deadline: Millis,
}

/// A change that endorsements are gathered for.
struct Change {
    /// The client's, encoded; nothing where no client asks.
    request: Vec<u8>,
    statements: Vec<(Statement, Vec<Endorsement>)>,
    proposed: Option<Command>,
    /// Who decides, as its coordinator knew when it began.
    roster: Arc<Roster>,
    /// Of keys that move: who has dealt.
    dealing: Option<Dealing>,
    /// Who endorsed what was proposed, if that is for a quorum to decide.
    endorsers: BTreeSet<u64>,
    /// When its client asked.
    invoked: u64,
    /// Where its call stands in the keystore's history.
    call: Option<(LocalId, usize)>,
    errand: Option<u64>,
}

struct Use {
    quorum: usize,
    /// The network may deliver twice: who, not how often.
    contributed: BTreeMap<NodeId, Session>,
    /// Why granting it would break a rule, as known when it began.
    forbidden: Option<String>,
    keystore: LocalId,
    call: Call,
    invoked: u64,
    errand: Option<u64>,
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
    keys: BTreeSet<LocalId>,
    revoked: BTreeSet<String>,
    sequence: u64,
    invoked: u64,
    errand: Option<u64>,
}

/// What all clerks of a world share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) history: Rc<RefCell<History>>,
    pub(crate) disks: Rc<RefCell<Disks>>,
    pub(crate) rules: Rc<Rules>,
    pub(crate) rosters: Arc<Rosters>,
    pub(crate) beginnings: Beginnings,
    /// The lists of members that operators order, and how soon.
    pub(crate) orders: Rc<Vec<Vec<u64>>>,
    pub(crate) pace: f64,
    pub(crate) bug: Option<Bug>,
    /// How long a holder waits for pending entries.
    pub(crate) patience: Millis,
}

pub(crate) struct Clerk {
    shared: Shared,
    life: u64,
    next: u64,
    denials: Denials,
    waiting: Vec<Waiting>,
    changes: BTreeMap<OperationId, Change>,
    uses: BTreeMap<OperationId, Use>,
    tickets: BTreeMap<u64, Ticket>,
    /// The errand that was tried last, and when.
    tried: Option<(u64, Millis)>,
    carried: Carried,
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

/// The clients' time, seconds: their clocks are right.
fn seconds(node: &Node<'_, Message>) -> u64 {
    BEGINNING + node.now() / 1_000
}

/// What the clock of the node's system shows, ms.
fn system(node: &Node<'_, Message>) -> u64 {
    (BEGINNING * 1_000 + node.now()).saturating_add_signed(node.skew_millis())
}

impl Clerk {
    pub(crate) fn new(shared: Shared, life: u64) -> Self {
        Self {
            shared,
            life,
            next: life << 20,
            denials: Denials::default(),
            waiting: Vec::new(),
            changes: BTreeMap::new(),
            uses: BTreeMap::new(),
            tickets: BTreeMap::new(),
            tried: None,
            carried: Carried::default(),
        }
    }

    fn has(&self, bug: Bug) -> bool {
        self.shared.bug == Some(bug)
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

    /// The holder's time, ms; none while it contributes nothing because its clock is wrong.
    fn time(&self, node: &Node<'_, Message>) -> Option<u64> {
        let time = self.shared.disks.borrow().time(node.id(), system(node));
        if time.is_none() {
            self.shared.history.borrow_mut().counts.clocks += 1;
        }
        time
    }

    /// The sequence of a keystore as a client of this node knows it: acknowledged, or read here.
    fn sequence(&self, node: &Node<'_, Message>, keystore: &LocalId) -> u64 {
        let view = node.freshness().view(KEYSTORES).ok();
        let stored = view.and_then(|view| query::keystore(&view, keystore).ok().flatten());
        let read = stored.map_or(0, |stored| stored.config.sequence);
        let history = self.shared.history.borrow();
        let acknowledged = history
            .keystores
            .get(keystore)
            .map_or(0, |tenant| tenant.sequence);
        read.max(acknowledged)
    }

    /// What a client does next.
    fn act(&mut self, node: &mut Node<'_, Message>) {
        let now = seconds(node);
        let history = self.shared.history.clone();
        let (meter, count) = {
            let history = history.borrow();
            (history.meter, history.keystores.len())
        };
        let Some(meter) = meter else {
            return self.start_change(node, clients::create_meter(now), None);
        };
        let create = count == 0 || (count < TENANTS && node.rng().gen_bool(0.1));
        if create {
            return self.start_change(node, clients::create_keystore(&meter, now), None);
        }
        let (keystore, keys) = {
            let history = history.borrow();
            let Some((id, tenant)) = history.keystores.iter().choose(node.rng()) else {
                return;
            };
            (*id, tenant.keys.len())
        };
        let sequence = self.sequence(node, &keystore);
        if keys == 0 {
            return self.start_change(node, clients::generate(&keystore, sequence, now), None);
        }
        match node.rng().gen_range(0..15) {
            0 => self.start_change(node, clients::generate(&keystore, sequence, now), None),
            1 => self.start_change(node, clients::hand_on(&keystore, sequence + 1, now), None),
            2 => drop(self.delegate(node, keystore, sequence)),
            3 | 4 => self.revoke_any(node, keystore, sequence),
            5 => self.forge(node, &keystore, sequence),
            6 => self.read(node, keystore, None),
            7 => self.again(node),
            8 | 9 => self.renew(node, keystore),
            _ => self.start_use(node, keystore, None),
        }
    }
}

impl Process for Clerk {
    type Message = Message;

    fn on_start(&mut self, node: &mut Node<'_, Message>) {
        let after = node.rng().gen_range(1_000..30_000);
        node.timer(after, CLIENTS);
        if !self.shared.orders.is_empty() {
            node.timer(after, MOVES);
        }
    }

    fn on_message(&mut self, node: &mut Node<'_, Message>, from: NodeId, message: Message) {
        match message {
            Message::Endorse {
                operation,
                request,
                participants,
                start,
            } => {
                let question = Question::Change {
                    request,
                    participants,
                    start,
                };
                self.asked(node, from, operation, question);
            }
            Message::Use {
                operation,
                request,
                session,
            } => self.asked(node, from, operation, Question::Use { request, session }),
            Message::Renew {
                operation,
                keystore,
                keys,
                start,
            } => {
                let question = Question::Renew {
                    keystore,
                    keys,
                    start,
                };
                self.asked(node, from, operation, question);
            }
            Message::Endorsed {
                operation,
                statement,
                endorsement,
            } => {
                self.endorsed(node, from, operation, *statement, endorsement);
            }
            Message::Contributed { operation, session } => self.contributed(node, from, operation, session),
            Message::Dealt { operation } => self.dealt(node, from, operation),
            Message::EndorseOrder {
                operation,
                group,
                order,
            } => self.endorse_order(node, from, operation, (group, order)),
            Message::EndorseMove {
                operation,
                group,
                number,
            } => self.endorse_move(node, from, operation, (group, number)),
            Message::EndorseBeginning {
                operation,
                group,
                number,
            } => self.endorse_beginning(node, from, operation, (group, number)),
        }
    }

    fn on_timer(&mut self, node: &mut Node<'_, Message>, tag: u64) {
        if tag == MOVES {
            self.conduct(node);
            let after = node.rng().gen_range(30_000..200_000);
            return node.timer(after, MOVES);
        }
        self.act(node);
        self.destroy_old_shares(node);
        if let Some(number) = node.errand() {
            self.pursue(node, number);
        }
        let after = node.rng().gen_range(20_000..120_000);
        node.timer(after, CLIENTS);
    }

    fn on_reply(&mut self, node: &mut Node<'_, Message>, reply: Reply) {
        match reply {
            Reply::Proposed {
                ticket,
                result: Ok(applied),
            } => match self.tickets.remove(&ticket) {
                Some(Ticket::Change(operation)) => {
                    self.came_to(node, operation, &applied.result);
                    self.applied(node, operation, applied.index, &applied.result);
                }
                Some(Ticket::Again(operation)) => self.came_to(node, operation, &applied.result),
                Some(Ticket::Forged) => self.forged(node, &applied.result),
                _ => {}
            },
            Reply::Read {
                ticket,
                result: Ok(_),
            } => {
                if let Some(Ticket::Read(floor)) = self.tickets.remove(&ticket) {
                    self.confirmed(node, &floor);
                }
            }
            Reply::Proposed { ticket, .. } | Reply::Read { ticket, .. } => {
                self.tickets.remove(&ticket);
            }
        }
    }

    fn on_progress(&mut self, node: &mut Node<'_, Message>) {
        if !self.shared.orders.is_empty() {
            self.observe(node);
            if let Some(what) = self.shared.beginnings.violation() {
                node.violation(what);
            }
        }
        for waiting in std::mem::take(&mut self.waiting) {
            self.decide(node, waiting);
        }
    }
}
