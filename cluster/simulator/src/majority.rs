//! The majority rule under test: revocations are numbered writes to a scope, a use asks a quorum of holders.
//!
//! A use that began after a write was acknowledged must not be decided by the state before that write by
//! *every* holder of its quorum: one of them has the entry in its log and waits for it (consensus.md 1). In worlds whose members
//! change each scope has a key that moves (`moving.rs`): a use asks those who hold it.

mod moving;
mod register;
mod shares;

pub use moving::{Changes, Deal};
pub use register::Register;

use crate::disorder::Disorderly;
use crate::process::{Cluster, Node, Process};
use crate::setup::Setup;
use conclave_consensus::{Application, GroupId, Millis, NodeId, Reply, Settling, View};
use moving::Carried;
use rand::Rng;
use rand::seq::SliceRandom;
use register::{Key, PLAIN, RESTRICTS, SCOPES, entry, scope, version_key, version_of};
use shares::Shares;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// How long a holder waits for pending entries: as in production, or less. The rule holds for any patience.
const PATIENCES: [Millis; 4] = [1_500, 1_500, 300, 100];
/// After so long an operation of a core that is left alone is tried again.
const RETRY_MS: Millis = 700;
/// Tags of timers: what clients do, and what carries out changes of members.
const CLIENTS: u64 = 0;
const MOVES: u64 = 1;

/// What processes say to each other.
#[derive(Clone, Debug)]
pub enum Message {
    /// Please contribute.
    Use {
        /// The coordinator's.
        id: u64,
        /// Where.
        group: GroupId,
        /// What.
        scope: u8,
        /// The ceremony that made the shares that the coordinator's state names, where keys move.
        session: Option<u64>,
    },
    /// Contributed, having decided by this version.
    Contributed {
        /// The coordinator's.
        id: u64,
        /// What the holder saw.
        by: Decision,
    },
    /// Please take part in a key's move.
    Deal {
        /// Where.
        group: GroupId,
        /// What.
        deal: Deal,
    },
    /// Took part.
    Dealt {
        /// The ceremony.
        operation: u64,
        /// From its share of the key.
        deals: bool,
        /// With a new share on its disk.
        stores: bool,
    },
    /// Has every key moved?
    Agree {
        /// The coordinator's.
        operation: u64,
        /// Where.
        group: GroupId,
        /// To the list of this number.
        number: u64,
    },
    /// It has.
    Agreed {
        /// The coordinator's.
        operation: u64,
    },
}

/// What a contribution rests on.
#[derive(Clone, Copy, Debug)]
pub struct Decision {
    /// The version of the scope.
    version: u64,
    /// The ceremony that made the holder's share, where keys move.
    session: Option<u64>,
    /// The index of the last entry that it had applied.
    applied: u64,
}

/// What an observer outside the cluster knows.
#[derive(Default)]
pub struct History {
    /// The highest acknowledged version of each scope.
    floors: BTreeMap<(GroupId, u8), u64>,
    /// Uses that got their quorum.
    pub uses: u64,
    /// Uses that a wait was needed for.
    pub waits: u64,
    /// ReadIndex reads that were answered.
    pub reads: u64,
    /// Of members.
    pub changes: Changes,
    operations: u64,
}

/// A rule of holders or of apply, broken on purpose, so that it can be seen found. Nothing that serves clients has this
/// crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A wait that times out ends in a contribution.
    ContributesAfterTimeout,
    /// One replica now and then applies two entries in the other order.
    AppliesOutOfOrder,
    /// Members say that every key has moved without a look.
    LeavesEarly,
    /// Old shares are destroyed when a key has moved, while the old members still vote.
    DestroysEarly,
    /// A holder contributes with the shares that the coordinator names, once it has them on disk.
    UsesEarly,
}

/// What a node of a core tries until it succeeds.
struct Errand {
    number: u64,
    group: GroupId,
    operation: u64,
    tried: Millis,
}

struct Use {
    /// Of this errand.
    errand: Option<u64>,
    group: GroupId,
    scope: u8,
    floor: u64,
    quorum: usize,
    /// The key, where keys move.
    key: Option<Key>,
    decisions: BTreeMap<NodeId, Decision>,
}

/// What a holder is asked.
enum Question {
    Use {
        id: u64,
        scope: u8,
        session: Option<u64>,
    },
    Deal(Deal),
}

struct Wait {
    coordinator: NodeId,
    group: GroupId,
    question: Question,
    deadline: Millis,
    settling: Settling,
}

enum Ticket {
    Write(GroupId, u8),
    Read(GroupId, u8, u64),
    Errand(u64),
    /// New shares of a key, of this ceremony.
    Move(GroupId, u8, u64),
}

/// Client, coordinator and holder on one node.
pub struct Clerk {
    history: Rc<RefCell<History>>,
    groups: u32,
    bug: Option<Bug>,
    patience: Millis,
    errand: Option<Errand>,
    next: u64,
    uses: BTreeMap<u64, Use>,
    waits: Vec<Wait>,
    tickets: BTreeMap<u64, Ticket>,
    register: Rc<Register>,
    shares: Rc<RefCell<Shares>>,
    /// The lists of members that operators order, and how soon.
    orders: Rc<Vec<Vec<NodeId>>>,
    pace: f64,
    carried: Carried,
}

impl Clerk {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    fn new_operation(&self) -> u64 {
        let mut history = self.history.borrow_mut();
        history.operations += 1;
        history.operations
    }

    fn keys_move(&self) -> bool {
        !self.orders.is_empty()
    }

    fn decide(&mut self, node: &mut Node<'_, Message>, wait: Wait) {
        let freshness = node.freshness().clone();
        let Wait {
            coordinator,
            group,
            question,
            deadline,
            settling,
        } = wait;
        let view = match settling.poll(&freshness) {
            Ok(Ok(view)) => view,
            Ok(Err(_)) => return,
            Err(_) if node.now() >= deadline => match (self.bug, freshness.view(group)) {
                (Some(Bug::ContributesAfterTimeout), Ok(view)) => view,
                // A wait that ends without the entry never ends in a contribution.
                _ => return,
            },
            Err(settling) => {
                self.history.borrow_mut().waits += 1;
                return self.waits.push(Wait {
                    coordinator,
                    group,
                    question,
                    deadline,
                    settling,
                });
            }
        };
        // The fence is asked after the wait too.
        if freshness.may_contribute(group).is_err() {
            return;
        }
        match question {
            Question::Use { id, scope, session } => {
                self.contribute(node, coordinator, (id, scope, session), &view)
            }
            Question::Deal(deal) => self.take_part(node, coordinator, &view, deal),
        }
    }

    /// Contributes, where keys move with the shares that its own state names, if the coordinator's names the same.
    fn contribute(
        &self,
        node: &mut Node<'_, Message>,
        coordinator: NodeId,
        (id, scope, session): (u64, u8, Option<u64>),
        view: &View,
    ) {
        let version = match view.get(&version_key(scope)) {
            Ok(version) => version_of(version),
            Err(error) => return node.violation(error.to_string()),
        };
        if let Some(session) = session {
            let live = self.register.key(view, scope).map(|key| key.session).ok();
            if live != Some(session) {
                self.history.borrow_mut().changes.epochs += 1;
            }
            let named = live == Some(session) || self.bug == Some(Bug::UsesEarly);
            let of = (view.group(), scope, session);
            if !named || !self.shares.borrow().has(node.id(), of, self.register.first()) {
                return;
            }
        }
        let by = Decision {
            version,
            session,
            applied: view.applied_index(),
        };
        node.send(coordinator, Message::Contributed { id, by });
    }

    /// Tries the operation that a core has to achieve next, again if it is time to: a write, a use, a read.
    fn pursue(&mut self, node: &mut Node<'_, Message>, number: u64) {
        let now = node.now();
        let (group, operation) = match &self.errand {
            Some(errand) if errand.number == number && now < errand.tried + RETRY_MS => return,
            Some(errand) if errand.number == number => (errand.group, errand.operation),
            _ => {
                let mut history = self.history.borrow_mut();
                history.operations += 1;
                let group = GroupId((number / 3) as u32 % self.groups);
                (group, history.operations)
            }
        };
        self.errand = Some(Errand {
            number,
            group,
            operation,
            tried: now,
        });
        let id = self.next;
        self.next += 1;
        match number % 3 {
            // The same operation again is applied once.
            0 => {
                self.tickets.insert(id, Ticket::Errand(number));
                node.propose(id, group, entry(RESTRICTS, 0, operation), now + 3_000);
            }
            1 => self.ask_for_use(node, (group, 0), Some(number)),
            _ => {
                self.tickets.insert(id, Ticket::Errand(number));
                node.read_index(id, group, now + 2_000);
            }
        }
    }

    fn act(&mut self, node: &mut Node<'_, Message>) {
        let group = GroupId(node.rng().gen_range(0..self.groups));
        let number = node.rng().gen_range(0..SCOPES);
        let id = self.next;
        self.next += 1;
        match node.rng().gen_range(0..10) {
            0..=2 => {
                let kind = if node.rng().gen_bool(0.7) {
                    RESTRICTS
                } else {
                    PLAIN
                };
                let operation = {
                    let mut history = self.history.borrow_mut();
                    history.operations += 1;
                    history.operations
                };
                if kind == RESTRICTS {
                    self.tickets.insert(id, Ticket::Write(group, number));
                }
                node.propose(id, group, entry(kind, number, operation), node.now() + 3_000);
            }
            3 => {
                let floor = self.floor(group, number);
                self.tickets.insert(id, Ticket::Read(group, number, floor));
                node.read_index(id, group, node.now() + 2_000);
            }
            _ => self.start_use(node, group, number),
        }
    }

    fn start_use(&mut self, node: &mut Node<'_, Message>, group: GroupId, number: u8) {
        self.ask_for_use(node, (group, number), None);
    }

    /// Asks a quorum; with an errand everybody, since some may never answer.
    fn ask_for_use(
        &mut self,
        node: &mut Node<'_, Message>,
        (group, number): (GroupId, u8),
        errand: Option<u64>,
    ) {
        let id = self.next;
        self.next += 1;
        let (key, mut holders) = match self.keys_move() {
            false => (None, node.nodes().to_vec()),
            true => match self.holders(node, group, number) {
                Some((key, holders)) => (Some(key), holders),
                None => return,
            },
        };
        let quorum = holders.len() / 2 + 1;
        holders.shuffle(node.rng());
        let floor = self.floor(group, number);
        let decisions = BTreeMap::new();
        self.uses.insert(
            id,
            Use {
                errand,
                group,
                scope: number,
                floor,
                quorum,
                key,
                decisions,
            },
        );
        let asked = if errand.is_some() { holders.len() } else { quorum };
        for holder in holders.into_iter().take(asked) {
            node.send(
                holder,
                Message::Use {
                    id,
                    group,
                    scope: number,
                    session: key.map(|key| key.session),
                },
            );
        }
    }

    /// Who hold a scope's key, as far as this node has applied.
    fn holders(&self, node: &Node<'_, Message>, group: GroupId, scope: u8) -> Option<(Key, Vec<NodeId>)> {
        let view = node.freshness().view(group).ok()?;
        let key = self.register.key(&view, scope).ok()?;
        Some((key, self.register.list(&view, key.committee).ok()?))
    }

    /// Begins to answer: fence, then wait for what is pending.
    fn asked(
        &mut self,
        node: &mut Node<'_, Message>,
        coordinator: NodeId,
        (group, number): (GroupId, u8),
        question: Question,
    ) {
        if node.freshness().may_contribute(group).is_err() {
            return;
        }
        let deadline = node.now() + self.patience;
        if let Ok(settling) = node.freshness().settle(group, scope(number)) {
            let wait = Wait {
                coordinator,
                group,
                question,
                deadline,
                settling,
            };
            self.decide(node, wait);
        }
    }

    fn floor(&self, group: GroupId, scope: u8) -> u64 {
        self.history
            .borrow()
            .floors
            .get(&(group, scope))
            .copied()
            .unwrap_or(0)
    }

    fn contributed(&mut self, node: &mut Node<'_, Message>, from: NodeId, id: u64, by: Decision) {
        let Some(used) = self.uses.get_mut(&id) else {
            return;
        };
        used.decisions.insert(from, by);
        if used.decisions.len() < used.quorum {
            return;
        }
        self.history.borrow_mut().uses += 1;
        let newest = used.decisions.values().map(|by| by.version).max().unwrap_or(0);
        let errand = used.errand;
        if newest < used.floor {
            node.violation(format!(
                "a use of scope {} in {} that began after version {} was acknowledged was decided by {:?}",
                used.scope, used.group, used.floor, used.decisions
            ));
        }
        if let Some(key) = used.key {
            let other = |by: &&Decision| by.session != Some(key.session);
            if used.decisions.values().any(|by| other(&by)) {
                node.violation(format!(
                    "partial results of two epochs were added up: {:?}",
                    used.decisions
                ));
            }
            let early = used.decisions.iter().find(|(_, by)| by.applied < key.index);
            if let Some((holder, by)) = early {
                node.violation(format!(
                    "node {holder}, at {}, used the shares of {key:?} before it had applied their entry",
                    by.applied
                ));
            }
        }
        self.uses.remove(&id);
        if let Some(number) = errand {
            node.achieved(number);
        }
    }
}

impl Process for Clerk {
    type Message = Message;

    fn on_start(&mut self, node: &mut Node<'_, Message>) {
        let after = node.rng().gen_range(1_000..30_000);
        node.timer(after, CLIENTS);
        if self.keys_move() {
            node.timer(after, MOVES);
        }
    }

    fn on_message(&mut self, node: &mut Node<'_, Message>, from: NodeId, message: Message) {
        match message {
            Message::Use {
                id,
                group,
                scope: number,
                session,
            } => {
                let question = Question::Use {
                    id,
                    scope: number,
                    session,
                };
                self.asked(node, from, (group, number), question);
            }
            Message::Contributed { id, by } => self.contributed(node, from, id, by),
            Message::Deal { group, deal } => {
                self.asked(node, from, (group, deal.scope), Question::Deal(deal));
            }
            Message::Dealt {
                operation,
                deals,
                stores,
            } => self.dealt(node, from, operation, (deals, stores)),
            Message::Agree {
                operation,
                group,
                number,
            } => self.asked_to_agree(node, from, operation, (group, number)),
            Message::Agreed { operation } => self.agreed(node, from, operation),
        }
    }

    fn on_timer(&mut self, node: &mut Node<'_, Message>, tag: u64) {
        if tag == MOVES {
            self.conduct(node);
            let after = node.rng().gen_range(20_000..150_000);
            return node.timer(after, MOVES);
        }
        self.act(node);
        if let Some(number) = node.errand() {
            self.pursue(node, number);
        }
        let after = node.rng().gen_range(5_000..60_000);
        node.timer(after, CLIENTS);
    }

    fn on_reply(&mut self, node: &mut Node<'_, Message>, reply: Reply) {
        match reply {
            Reply::Proposed {
                ticket,
                result: Ok(applied),
            } => {
                let known = self.tickets.remove(&ticket);
                if let Some(Ticket::Errand(number)) = known {
                    node.achieved(number);
                } else if let Some(Ticket::Move(group, scope, session)) = known {
                    let taken = version_of(Some(applied.result)) == 1;
                    self.key_moved(node, (group, scope, session), taken);
                } else if let Some(Ticket::Write(group, number)) = known {
                    let version = version_of(Some(applied.result));
                    let mut history = self.history.borrow_mut();
                    let floor = history.floors.entry((group, number)).or_default();
                    *floor = (*floor).max(version);
                    drop(history);
                    // At once, while some holders do not know yet that it is committed.
                    for _ in 0..3 {
                        self.start_use(node, group, number);
                    }
                }
            }
            Reply::Read {
                ticket,
                result: Ok(_),
            } => {
                let known = self.tickets.remove(&ticket);
                if let Some(Ticket::Errand(number)) = known {
                    node.achieved(number);
                } else if let Some(Ticket::Read(group, number, floor)) = known {
                    self.history.borrow_mut().reads += 1;
                    let view = node
                        .freshness()
                        .view(group)
                        .and_then(|view| view.get(&version_key(number)));
                    match view {
                        Ok(version) if version_of(version.clone()) < floor => {
                            node.violation(format!("a confirmed read saw {version:?}, below {floor}"));
                        }
                        Ok(_) => {}
                        Err(error) => node.violation(error.to_string()),
                    }
                }
            }
            Reply::Proposed { ticket, .. } | Reply::Read { ticket, .. } => {
                self.tickets.remove(&ticket);
            }
        }
    }

    fn on_progress(&mut self, node: &mut Node<'_, Message>) {
        if self.keys_move() {
            self.observe(node);
        }
        for wait in std::mem::take(&mut self.waits) {
            self.decide(node, wait);
        }
    }
}

/// Makes clerks that share a history.
#[derive(Default)]
pub struct Clerks {
    /// What happened, seen from outside.
    pub history: Rc<RefCell<History>>,
    groups: u32,
    patience: Millis,
    bug: Option<Bug>,
    first: Vec<NodeId>,
    shares: Rc<RefCell<Shares>>,
    orders: Rc<Vec<Vec<NodeId>>>,
    pace: f64,
}

impl Clerks {
    /// For a world that is set up like this; the seed says how long holders wait.
    pub fn new(seed: u64, setup: &Setup) -> Self {
        Clerks {
            groups: setup.settings.groups,
            patience: PATIENCES[(seed / 4) as usize % PATIENCES.len()],
            first: (1..=setup.nodes).collect(),
            orders: Rc::new(setup.moves.clone()),
            pace: Clerk::pace_of(seed),
            ..Clerks::default()
        }
    }

    /// The same with a bug put in on purpose.
    pub fn with(self, bug: Option<Bug>) -> Self {
        Clerks { bug, ..self }
    }
}

impl Cluster for Clerks {
    type Process = Clerk;

    fn application(&mut self, node: NodeId) -> Arc<dyn Application> {
        match self.bug {
            Some(Bug::AppliesOutOfOrder) if node == 1 => {
                Arc::new(Disorderly::new(Register::new(self.first.clone())))
            }
            _ => Arc::new(Register::new(self.first.clone())),
        }
    }

    fn process(&mut self, _node: NodeId, life: u64) -> Clerk {
        Clerk {
            history: self.history.clone(),
            groups: self.groups,
            bug: self.bug,
            patience: self.patience,
            errand: None,
            // Answers to an earlier life must not be taken for answers to this one.
            next: life << 24,
            uses: BTreeMap::new(),
            waits: Vec::new(),
            tickets: BTreeMap::new(),
            register: Rc::new(Register::new(self.first.clone())),
            shares: self.shares.clone(),
            orders: self.orders.clone(),
            pace: self.pace,
            carried: Carried::default(),
        }
    }

    fn probe(&mut self, _group: GroupId, number: u64) -> Vec<u8> {
        entry(RESTRICTS, 0, 1 << 50 | number)
    }
}
