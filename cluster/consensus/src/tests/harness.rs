//! Nodes in one thread: drivers on memory stores, wires that a test may look at, hold and cut.

use crate::attestation::Signed;
use crate::store::{Batch, Change, Pair, Reading, Store, StoreError};
use crate::*;
use parking_lot::Mutex;
use protobuf::Message as _;
use raft::eraftpb::{Message, MessageType};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// A store that remembers every batch, so that a test can go back to any moment.
#[derive(Default)]
pub(super) struct Memory {
    map: Mutex<Map>,
    pub(super) batches: Mutex<Vec<(Batch, bool)>>,
}

impl Memory {
    /// The disk as a crash would leave it after so many batches.
    pub(super) fn after(&self, batches: usize) -> Arc<Memory> {
        let memory = Memory::default();
        for (batch, sync) in &self.batches.lock()[..batches] {
            memory.write(batch, *sync).unwrap();
        }
        Arc::new(memory)
    }
}

fn pairs(map: &Map, from: &[u8], to: &[u8], limit: usize) -> Vec<Pair> {
    let range = map.range(from.to_vec()..to.max(from).to_vec());
    range
        .take(limit)
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

impl Reading for Memory {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.map.lock().get(key).cloned())
    }
    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError> {
        Ok(pairs(&self.map.lock(), from, to, limit))
    }
}

struct Frozen(Map);

impl Reading for Frozen {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.get(key).cloned())
    }
    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError> {
        Ok(pairs(&self.0, from, to, limit))
    }
}

impl Store for Memory {
    fn write(&self, batch: &Batch, sync: bool) -> Result<(), StoreError> {
        let mut map = self.map.lock();
        for change in &batch.changes {
            match change {
                Change::Put(key, value) => drop(map.insert(key.clone(), value.clone())),
                Change::Delete(key) => drop(map.remove(key)),
                Change::DeleteRange(from, to) => map.retain(|key, _| key < from || key >= to),
            }
        }
        self.batches.lock().push((batch.clone(), sync));
        Ok(())
    }
    fn snapshot(&self) -> Arc<dyn Reading> {
        Arc::new(Frozen(self.map.lock().clone()))
    }
}

/// Entries are `key=value` (restricts the scope named by the key's first byte), `+value` (appended to the
/// answer, restricts nothing) or `?` (of an unknown version, unless `knows` says otherwise). `!move=1,2>2,3` calls for a
/// move, `!move=` withdraws it, `!complete=yes` completes it.
#[derive(Default)]
pub(super) struct Words {
    pub(super) knows: bool,
    /// Makes this replica differ from the others.
    pub(super) salt: u8,
}

impl Application for Words {
    fn restricts(&self, _group: GroupId, entry: &[u8]) -> Restricts {
        match entry {
            [b'+', ..] => Restricts::Nothing,
            [b'?' | b'!', ..] => Restricts::Everything,
            [first, ..] => Restricts::Scope(scope(*first)),
            [] => Restricts::Everything,
        }
    }

    fn apply(
        &self,
        _group: GroupId,
        index: u64,
        entry: &[u8],
        state: &mut StateTransaction<'_>,
    ) -> Result<Vec<u8>, Halt> {
        match entry {
            [b'?', ..] if !self.knows => return Err(Halt::new("unknown version")),
            b"big" => state.put(b"big".to_vec(), vec![0; MAX_PAIR]),
            [b'+', ..] | [b'?', ..] => state.put(b"last".to_vec(), [&[self.salt], entry].concat()),
            _ => {
                let text = String::from_utf8_lossy(entry).into_owned();
                let (key, value) = text.split_once('=').unwrap_or((&text, ""));
                state.put(key.as_bytes(), value.as_bytes());
            }
        }
        Ok(format!("{index}").into_bytes())
    }

    fn genuine(&self, _group: GroupId, entry: &[u8]) -> bool {
        !entry.starts_with(b"lie")
    }

    fn wanted(&self, _group: GroupId, state: &dyn StateRead) -> Result<Option<Move>, Halt> {
        let moving = state.get(b"!move")?.unwrap_or_default();
        let moving = String::from_utf8_lossy(&moving).into_owned();
        let nodes = |list: &str| list.split(',').map(|node| node.parse().unwrap()).collect();
        let begun = state.get(b"!waits")?.as_deref() != Some(b"yes");
        let complete = state.get(b"!complete")?.is_some();
        Ok(moving.split_once('>').map(|(from, to)| Move {
            from: nodes(from),
            to: nodes(to),
            begun,
            complete,
        }))
    }

    fn configured(
        &self,
        group: GroupId,
        _index: u64,
        configuration: &Configuration,
        state: &mut StateTransaction<'_>,
    ) -> Result<(), Halt> {
        let arrived = |wanted: Move| *configuration == Configuration::stable(&wanted.to);
        if self.wanted(group, state)?.is_some_and(arrived) {
            state.delete(b"!move".to_vec());
            state.delete(b"!complete".to_vec());
        }
        state.put(b"configuration".to_vec(), format!("{configuration:?}"));
        Ok(())
    }

    fn configuration_allowed(
        &self,
        _group: GroupId,
        configuration: &Configuration,
        initial: &Configuration,
        state: &dyn StateRead,
    ) -> bool {
        match state.get(b"configuration").unwrap() {
            Some(known) => known == format!("{configuration:?}").into_bytes(),
            None => configuration == initial,
        }
    }

    fn follows(&self, _group: GroupId, own: &dyn StateRead, state: &dyn StateRead) -> bool {
        let lists = |state: &dyn StateRead| state.get(b"!lists").unwrap();
        lists(own) <= lists(state)
    }
}

pub(super) fn scope(first: u8) -> Scope {
    Scope([first; 16])
}

#[derive(Clone, Default)]
pub(super) struct HandClock(Arc<AtomicU64>);

impl Clock for HandClock {
    fn now(&self) -> Millis {
        self.0.load(Ordering::Relaxed)
    }
}

/// Signs by hashing. What else is on the disk of each node is a number that a test sets.
#[derive(Default)]
pub(super) struct Hand {
    pub(super) node: NodeId,
    pub(super) number: AtomicU64,
    /// The number when the node started.
    pub(super) opened: u64,
}

impl Hand {
    pub(super) fn of(node: NodeId) -> Arc<Self> {
        Arc::new(Hand {
            node,
            ..Hand::default()
        })
    }

    fn hash(node: NodeId, message: &[u8]) -> [u8; 32] {
        Sha256::new()
            .chain_update(node.to_be_bytes())
            .chain_update(message)
            .finalize()
            .into()
    }
}

impl Attestor for Hand {
    fn sign(&self, message: &[u8]) -> [[u8; 32]; 2] {
        [Self::hash(self.node, message); 2]
    }
    fn is_signed(&self, by: NodeId, message: &[u8], signature: &[[u8; 32]; 2]) -> bool {
        *signature == [Self::hash(by, message); 2]
    }
    fn mark(&self) -> Mark {
        Mark {
            number: self.number.load(Ordering::Relaxed),
            hash: [0; 32],
        }
    }
    fn lacks(&self, stated: &Mark) -> Option<String> {
        let lacks = stated.number > self.opened;
        lacks.then(|| format!("had {} and has {}", stated.number, self.opened))
    }
}

pub(super) const G: GroupId = GroupId(0);
pub(super) const CLUSTER: [u8; 32] = [7; 32];

pub(super) fn settings(node: NodeId) -> Settings {
    let mut settings = Settings::new(CLUSTER, node, vec![1, 2, 3]);
    settings.groups = 1;
    settings
}

/// One frame on its way.
#[derive(Clone, Debug)]
pub(super) struct Wire {
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) frame: Vec<u8>,
}

impl Wire {
    /// raft's message, if it is one.
    pub(super) fn raft(&self) -> Option<Message> {
        (self.frame[37] == 0).then(|| Message::parse_from_bytes(&self.frame[38..]).unwrap())
    }

    pub(super) fn is(&self, kind: MessageType) -> bool {
        self.raft().is_some_and(|message| message.get_msg_type() == kind)
    }

    pub(super) fn call(&self) -> Option<crate::frame::Call> {
        (self.frame[37] == 1).then(|| postcard::from_bytes(&self.frame[38..]).unwrap())
    }
}

pub(super) struct Machine {
    pub(super) driver: Driver<Memory>,
    pub(super) disk: Arc<Memory>,
    pub(super) replies: Vec<Reply>,
}

/// Three nodes with one group.
pub(super) struct Nodes {
    pub(super) clock: HandClock,
    pub(super) machines: BTreeMap<NodeId, Machine>,
    pub(super) wires: VecDeque<Wire>,
    pub(super) cut: BTreeSet<NodeId>,
    /// What nodes have beside their logs.
    pub(super) numbers: BTreeMap<NodeId, u64>,
    lives: u8,
    /// Every frame that was ever sent.
    pub(super) sent: Vec<Wire>,
    /// Every attestation that was ever sent: by whom, and how many batches its disk had then.
    attestations: Vec<(NodeId, usize, Signed)>,
}

impl Nodes {
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }

    /// Before any of them is started.
    pub(super) fn none() -> Self {
        Nodes {
            clock: HandClock::default(),
            machines: BTreeMap::new(),
            wires: VecDeque::new(),
            cut: BTreeSet::new(),
            numbers: BTreeMap::new(),
            lives: 0,
            sent: Vec::new(),
            attestations: Vec::new(),
        }
    }

    pub(super) fn with(adjust: impl Fn(&mut Settings)) -> Self {
        let mut nodes = Self::none();
        for node in 1..=3 {
            let disk = Arc::new(Memory::default());
            let mut settings = settings(node);
            adjust(&mut settings);
            Driver::bootstrap(&*disk, &settings).unwrap();
            nodes.start(settings, disk, Words::default());
        }
        nodes
    }

    fn attestor(&self, node: NodeId) -> Arc<Hand> {
        let number = self.numbers.get(&node).copied().unwrap_or(0);
        Arc::new(Hand {
            node,
            number: AtomicU64::new(number),
            opened: number,
        })
    }

    pub(super) fn start(&mut self, settings: Settings, disk: Arc<Memory>, app: Words) {
        let node = settings.node;
        let clock = Arc::new(self.clock.clone());
        // Every life has a number of its own, as in production.
        let mut seed = [u8::try_from(node).unwrap(); 32];
        seed[31] = seed[31].wrapping_add(self.lives);
        self.lives = self.lives.wrapping_add(1);
        let attestor = self.attestor(node);
        let driver = Driver::open(settings, disk.clone(), Arc::new(app), attestor, clock, seed).unwrap();
        self.machines.insert(
            node,
            Machine {
                driver,
                disk,
                replies: Vec::new(),
            },
        );
    }

    pub(super) fn now(&self) -> Millis {
        self.clock.now()
    }

    pub(super) fn driver(&mut self, node: NodeId) -> &mut Driver<Memory> {
        &mut self.machines.get_mut(&node).unwrap().driver
    }

    pub(super) fn freshness(&self, node: NodeId) -> Arc<Freshness> {
        self.machines[&node].driver.freshness().clone()
    }

    pub(super) fn status(&self, node: NodeId) -> GroupStatus {
        self.machines[&node].driver.status().remove(0)
    }

    /// Takes what the driver queued: frames onto the wires, replies aside.
    pub(super) fn gather(&mut self, node: NodeId) {
        let now = self.now();
        let machine = self.machines.get_mut(&node).unwrap();
        let output = machine.driver.take_output();
        machine.replies.extend(output.replies);
        for (to, frame) in output.messages.into_iter().chain(output.bulk) {
            self.sent.push(Wire {
                from: node,
                to,
                frame: frame.clone(),
            });
            let wire = Wire {
                from: node,
                to,
                frame,
            };
            if let Some(crate::frame::Call::Attest(signed)) = wire.call() {
                let batches = machine.disk.batches.lock().len();
                self.attestations.push((node, batches, signed));
            }
            self.wires.push_back(wire);
        }
        let reads: Vec<_> = output.reads.into_iter().map(SnapshotRead::run).collect();
        let more = !reads.is_empty();
        for read in reads {
            machine.driver.chunk_read(now, read).unwrap();
        }
        if more {
            self.gather(node);
        }
    }

    /// All turns of a node.
    pub(super) fn turn(&mut self, node: NodeId) {
        let now = self.now();
        loop {
            let turn = self.driver(node).collect(now).unwrap();
            self.gather(node);
            let Some(turn) = turn else { return };
            let machine = self.machines.get_mut(&node).unwrap();
            machine.disk.write(&turn.batch, turn.sync).unwrap();
            machine.driver.finish(now, turn).unwrap();
            self.gather(node);
        }
    }

    /// Delivers until the wires are empty.
    pub(super) fn deliver(&mut self) {
        for node in self.machines.keys().copied().collect::<Vec<_>>() {
            self.turn(node);
        }
        while let Some(wire) = self.wires.pop_front() {
            let cut = self.cut.contains(&wire.from) || self.cut.contains(&wire.to);
            if cut || !self.machines.contains_key(&wire.to) {
                continue;
            }
            self.receive(wire.to, wire.from, &wire.frame);
            self.turn(wire.to);
        }
    }

    pub(super) fn receive(&mut self, to: NodeId, from: NodeId, frame: &[u8]) {
        let now = self.now();
        if self.machines.contains_key(&to) {
            self.driver(to).receive(now, from, frame);
        }
    }

    pub(super) fn tick(&mut self, millis: Millis) {
        self.clock.0.fetch_add(millis, Ordering::Relaxed);
        let now = self.now();
        for machine in self.machines.values_mut() {
            machine.driver.tick(now).unwrap();
        }
    }

    /// So many milliseconds of ticks and deliveries.
    pub(super) fn run(&mut self, millis: Millis) {
        for _ in 0..millis / 25 {
            self.tick(25);
            self.deliver();
        }
    }

    /// Runs until one node leads that all others that are not cut follow.
    pub(super) fn elect(&mut self) -> NodeId {
        for _ in 0..400 {
            self.run(25);
            let live: Vec<NodeId> = self
                .machines
                .keys()
                .copied()
                .filter(|node| !self.cut.contains(node))
                .collect();
            let leader = live
                .iter()
                .copied()
                .find(|node| self.status(*node).role == Role::Leader);
            if let Some(leader) = leader
                && live.iter().all(|node| self.status(*node).leader == Some(leader))
            {
                self.run(200);
                return leader;
            }
        }
        panic!("no leader in ten seconds");
    }

    pub(super) fn propose(&mut self, node: NodeId, ticket: u64, entry: &str) {
        let now = self.now();
        self.driver(node)
            .propose(now, ticket, G, entry.as_bytes().to_vec(), now + 8_000);
    }

    /// Proposes and runs until it is answered.
    pub(super) fn apply(&mut self, node: NodeId, entry: &str) -> Applied {
        self.propose(node, 77, entry);
        for _ in 0..400 {
            self.deliver();
            if let Some(result) = self.proposed(node, 77) {
                return result.unwrap();
            }
            self.run(25);
        }
        panic!("no answer in ten seconds");
    }

    /// Takes the answer to a proposal.
    pub(super) fn proposed(&mut self, node: NodeId, ticket: u64) -> Option<Result<Applied, ProposeError>> {
        let replies = &mut self.machines.get_mut(&node).unwrap().replies;
        let is = |reply: &Reply| matches!(reply, Reply::Proposed { ticket: of, .. } if *of == ticket);
        let at = replies.iter().position(is)?;
        match replies.remove(at) {
            Reply::Proposed { result, .. } => Some(result),
            Reply::Read { .. } => None,
        }
    }

    /// Takes the answer to a read.
    pub(super) fn read(&mut self, node: NodeId, ticket: u64) -> Option<Result<u64, NoLeader>> {
        let replies = &mut self.machines.get_mut(&node).unwrap().replies;
        let is = |reply: &Reply| matches!(reply, Reply::Read { ticket: of, .. } if *of == ticket);
        let at = replies.iter().position(is)?;
        match replies.remove(at) {
            Reply::Read { result, .. } => Some(result),
            Reply::Proposed { .. } => None,
        }
    }

    pub(super) fn value(&self, node: NodeId, key: &str) -> Option<String> {
        let view = self.freshness(node).view(G).unwrap();
        view.get(key.as_bytes())
            .unwrap()
            .map(|value| String::from_utf8(value).unwrap())
    }

    /// What a node has attested, and how many batches its disk had then.
    pub(super) fn attested(&self, node: NodeId) -> Vec<(usize, Signed)> {
        let own = self.attestations.iter().filter(|(by, ..)| *by == node);
        own.map(|(_, batches, signed)| (*batches, signed.clone()))
            .collect()
    }

    pub(super) fn dropped(&self, node: NodeId, why: Violation) -> u64 {
        let dropped = self.machines[&node].driver.counters().dropped();
        dropped
            .iter()
            .filter(|(_, violation, _)| *violation == why)
            .map(|(_, _, count)| count)
            .sum()
    }
}

/// A frame with a raft message.
pub(super) fn raft_frame(message: &Message) -> Vec<u8> {
    crate::frame::raft(&CLUSTER, G, message).unwrap()
}

/// A frame with a call.
pub(super) fn call_frame(call: &crate::frame::Call) -> Vec<u8> {
    crate::frame::call(&CLUSTER, G, call).unwrap()
}

/// Another node than those.
pub(super) fn other(than: &[NodeId]) -> NodeId {
    (1..=3).find(|node| !than.contains(node)).unwrap()
}
