//! The majority rule under test: revocations are numbered writes to a scope, a use asks a quorum of holders.
//!
//! A use that began after a write was acknowledged must not be decided by the state before that write by
//! *every* holder of its quorum: one of them has the entry in its log and waits for it (consensus.md 1).

use crate::process::{Cluster, Node, Process};
use conclave_consensus::{
    Application, GroupId, Halt, Millis, NodeId, Reply, Restricts, Scope, Settling, StateTransaction,
};
use rand::Rng;
use rand::seq::SliceRandom;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use crate::disorder::Disorderly;

/// Scopes in each group.
const SCOPES: u8 = 3;
/// How long a holder waits for pending entries: as in production, or less. The rule holds for any patience.
const PATIENCES: [Millis; 4] = [1_500, 1_500, 300, 100];
/// After so long an operation of a core that is left alone is tried again.
const RETRY_MS: Millis = 700;

/// A counter for each scope. An entry: kind, scope, operation id.
pub struct Register;

const RESTRICTS: u8 = 1;
const PLAIN: u8 = 2;

fn entry(kind: u8, scope: u8, operation: u64) -> Vec<u8> {
    [&[kind, scope], &operation.to_be_bytes()[..]].concat()
}

fn scope(number: u8) -> Scope {
    Scope([number; 16])
}

fn version_key(number: u8) -> Vec<u8> {
    vec![b'v', number]
}

fn version_of(bytes: Option<Vec<u8>>) -> u64 {
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u64::from_be_bytes)
}

impl Application for Register {
    fn restricts(&self, _group: GroupId, entry: &[u8]) -> Restricts {
        match entry {
            [RESTRICTS, number, ..] => Restricts::Scope(scope(*number)),
            [PLAIN, ..] => Restricts::Nothing,
            _ => Restricts::Everything,
        }
    }

    fn apply(
        &self,
        _group: GroupId,
        _index: u64,
        entry: &[u8],
        state: &mut StateTransaction<'_>,
    ) -> Result<Vec<u8>, Halt> {
        let (kind, number, operation) = match entry {
            [kind, number, operation @ ..] if operation.len() == 8 => (*kind, *number, operation),
            _ => return Err(Halt::new("an entry of an unknown version")),
        };
        // An operation is applied once, however often its entry was committed.
        let done = [b"o", operation].concat();
        if let Some(answer) = state.get(&done)? {
            return Ok(answer);
        }
        let key = if kind == RESTRICTS {
            version_key(number)
        } else {
            vec![b'p', number]
        };
        let next = (version_of(state.get(&key)?) + 1).to_be_bytes().to_vec();
        state.put(key, next.clone());
        state.put(done, next.clone());
        Ok(next)
    }
}

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
    },
    /// Contributed, having decided by this version.
    Contributed {
        /// The coordinator's.
        id: u64,
        /// The version that the holder saw.
        version: u64,
    },
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
    versions: BTreeMap<NodeId, u64>,
}

struct Wait {
    coordinator: NodeId,
    id: u64,
    group: GroupId,
    scope: u8,
    deadline: Millis,
    settling: Settling,
}

enum Ticket {
    Write(GroupId, u8),
    Read(GroupId, u8, u64),
    Errand(u64),
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
}

impl Clerk {
    fn decide(&mut self, node: &mut Node<'_, Message>, wait: Wait) {
        let freshness = node.freshness().clone();
        let Wait {
            coordinator,
            id,
            group,
            scope,
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
                    id,
                    group,
                    scope,
                    deadline,
                    settling,
                });
            }
        };
        // The fence is asked after the wait too.
        match view.get(&version_key(scope)) {
            Ok(version) if freshness.may_contribute(group).is_ok() => {
                let version = version_of(version);
                node.send(coordinator, Message::Contributed { id, version });
            }
            Ok(_) => {}
            Err(error) => node.violation(error.to_string()),
        }
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
        let quorum = node.nodes().len() / 2 + 1;
        let mut holders = node.nodes().to_vec();
        holders.shuffle(node.rng());
        let floor = self.floor(group, number);
        let versions = BTreeMap::new();
        self.uses.insert(
            id,
            Use {
                errand,
                group,
                scope: number,
                floor,
                quorum,
                versions,
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
                },
            );
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

    fn contributed(&mut self, node: &mut Node<'_, Message>, from: NodeId, id: u64, version: u64) {
        let Some(used) = self.uses.get_mut(&id) else {
            return;
        };
        used.versions.insert(from, version);
        if used.versions.len() < used.quorum {
            return;
        }
        self.history.borrow_mut().uses += 1;
        let newest = used.versions.values().max().copied().unwrap_or(0);
        let errand = used.errand;
        if newest < used.floor {
            node.violation(format!(
                "a use of scope {} in {} that began after version {} was acknowledged was decided by {:?}",
                used.scope, used.group, used.floor, used.versions
            ));
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
        node.timer(after, 0);
    }

    fn on_message(&mut self, node: &mut Node<'_, Message>, from: NodeId, message: Message) {
        match message {
            Message::Use {
                id,
                group,
                scope: number,
            } => {
                if node.freshness().may_contribute(group).is_err() {
                    return;
                }
                let deadline = node.now() + self.patience;
                if let Ok(settling) = node.freshness().settle(group, scope(number)) {
                    let wait = Wait {
                        coordinator: from,
                        id,
                        group,
                        scope: number,
                        deadline,
                        settling,
                    };
                    self.decide(node, wait);
                }
            }
            Message::Contributed { id, version } => self.contributed(node, from, id, version),
        }
    }

    fn on_timer(&mut self, node: &mut Node<'_, Message>, _tag: u64) {
        self.act(node);
        if let Some(number) = node.errand() {
            self.pursue(node, number);
        }
        let after = node.rng().gen_range(5_000..60_000);
        node.timer(after, 0);
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
}

impl Clerks {
    /// For so many groups; the seed says how long holders wait.
    pub fn new(seed: u64, groups: u32) -> Self {
        Clerks {
            history: Rc::default(),
            groups,
            patience: PATIENCES[(seed / 4) as usize % PATIENCES.len()],
            bug: None,
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
            Some(Bug::AppliesOutOfOrder) if node == 1 => Arc::new(Disorderly::new(Register)),
            _ => Arc::new(Register),
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
        }
    }

    fn probe(&mut self, _group: GroupId, number: u64) -> Vec<u8> {
        entry(RESTRICTS, 0, 1 << 50 | number)
    }
}
