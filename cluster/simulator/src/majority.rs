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

/// Scopes in each group.
const SCOPES: u8 = 3;
const USE_DEADLINE_MS: Millis = 1_500;

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

struct Use {
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
}

/// Client, coordinator and holder on one node.
pub struct Clerk {
    history: Rc<RefCell<History>>,
    groups: u32,
    next: u64,
    uses: BTreeMap<u64, Use>,
    waits: Vec<Wait>,
    tickets: BTreeMap<u64, Ticket>,
}

impl Clerk {
    fn decide(&mut self, node: &mut Node<'_, Message>, wait: Wait) {
        let freshness = node.freshness().clone();
        match wait.settling.poll(&freshness) {
            Ok(Ok(view)) => {
                // The fence is asked after the wait too.
                let version = view.get(&version_key(wait.scope));
                match version {
                    Ok(version) if freshness.may_contribute(wait.group).is_ok() => {
                        let version = version_of(version);
                        node.send(wait.coordinator, Message::Contributed { id: wait.id, version });
                    }
                    Ok(_) => {}
                    Err(error) => node.violation(error.to_string()),
                }
            }
            Ok(Err(_)) => {}
            // A wait that ends without the entry never ends in a contribution.
            Err(_) if node.now() >= wait.deadline => {}
            Err(settling) => {
                self.history.borrow_mut().waits += 1;
                self.waits.push(Wait { settling, ..wait });
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
                group,
                scope: number,
                floor,
                quorum,
                versions,
            },
        );
        for holder in holders.into_iter().take(quorum) {
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
        if newest < used.floor {
            node.violation(format!(
                "a use of scope {} in {} that began after version {} was acknowledged was decided by {:?}",
                used.scope, used.group, used.floor, used.versions
            ));
        }
        self.uses.remove(&id);
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
                let deadline = node.now() + USE_DEADLINE_MS;
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
        let after = node.rng().gen_range(5_000..60_000);
        node.timer(after, 0);
    }

    fn on_reply(&mut self, node: &mut Node<'_, Message>, reply: Reply) {
        match reply {
            Reply::Proposed {
                ticket,
                result: Ok(applied),
            } => {
                if let Some(Ticket::Write(group, number)) = self.tickets.remove(&ticket) {
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
                if let Some(Ticket::Read(group, number, floor)) = self.tickets.remove(&ticket) {
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
}

impl Clerks {
    /// For so many groups.
    pub fn new(groups: u32) -> Self {
        Clerks {
            history: Rc::default(),
            groups,
        }
    }
}

impl Cluster for Clerks {
    type Process = Clerk;

    fn application(&mut self, _node: NodeId) -> Arc<dyn Application> {
        Arc::new(Register)
    }

    fn process(&mut self, _node: NodeId, life: u64) -> Clerk {
        Clerk {
            history: self.history.clone(),
            groups: self.groups,
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
