//! A group of three nodes that has elected a leader and applied a few entries, as one of its members has lived through
//! it: what that member was given, to be given again to a fresh driver.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use conclave_consensus::{
    Application, Clock, Driver, GroupId, GroupStatus, Halt, Millis, NodeId, Restricts, Role, Scope, Settings,
    StateTransaction, Store as _,
};
use conclave_simulator::{Name, SimulatedDisk};
use parking_lot::Mutex;

/// The only group.
pub(crate) const GROUP: GroupId = GroupId(0);
/// The cluster.
pub(crate) const CLUSTER: [u8; 32] = [7; 32];
/// Milliseconds of a tick.
const TICK: Millis = 25;

/// Something that a driver is given.
#[derive(Clone)]
pub(crate) enum Event {
    /// So much later, a tick.
    Tick,
    /// A frame of a peer.
    Frame(NodeId, Vec<u8>),
    /// A local proposal.
    Propose(Vec<u8>),
    /// A local read.
    Read,
}

/// Keeps what it applies; a second entry under one index is a broken promise.
#[derive(Default)]
struct Record(Mutex<BTreeMap<u64, Vec<u8>>>);

impl Application for Record {
    fn restricts(&self, _group: GroupId, entry: &[u8]) -> Restricts {
        match entry.first() {
            None => Restricts::Everything,
            Some(b'+') => Restricts::Nothing,
            Some(first) => Restricts::Scope(Scope([*first; 16])),
        }
    }

    fn apply(
        &self,
        _group: GroupId,
        index: u64,
        entry: &[u8],
        state: &mut StateTransaction<'_>,
    ) -> Result<Vec<u8>, Halt> {
        let mut applied = self.0.lock();
        assert!(
            applied.last_key_value().is_none_or(|(last, _)| *last < index),
            "an index is applied once and in order"
        );
        applied.insert(index, entry.to_vec());
        state.put(b"last".to_vec(), entry.to_vec());
        Ok(entry.to_vec())
    }
}

#[derive(Default)]
struct HandClock(AtomicU64);

impl Clock for HandClock {
    fn now(&self) -> Millis {
        self.0.load(Ordering::Relaxed)
    }
}

/// A node.
pub(crate) struct Node {
    driver: Driver<SimulatedDisk>,
    disk: Arc<SimulatedDisk>,
    clock: Arc<HandClock>,
    ticket: u64,
}

impl Node {
    /// A new one on a new disk; the same for the same number.
    pub(crate) fn new(number: NodeId) -> Self {
        let mut settings = Settings::new(CLUSTER, number, vec![1, 2, 3]);
        settings.groups = 1;
        let (disk, clock) = (Arc::new(SimulatedDisk::default()), Arc::new(HandClock::default()));
        Driver::bootstrap(&*disk, &settings).expect("an empty disk");
        let seed = [number as u8; 32];
        let app = Arc::new(Record::default());
        let name = Arc::new(Name(number));
        let driver = Driver::open(settings, disk.clone(), app, name, clock.clone(), seed);
        let driver = driver.expect("a sound disk");
        Self {
            driver,
            disk,
            clock,
            ticket: 0,
        }
    }

    /// Gives it something and lets it work; the frames that it sends.
    pub(crate) fn take(&mut self, event: &Event) -> Vec<(NodeId, Vec<u8>)> {
        if let Event::Tick = event {
            self.clock.0.fetch_add(TICK, Ordering::Relaxed);
        }
        let now = self.clock.now();
        self.ticket += 1;
        match event {
            Event::Tick => self.driver.tick(now).expect("a disk in memory"),
            Event::Frame(from, frame) => self.driver.receive(now, *from, frame),
            Event::Propose(entry) => self
                .driver
                .propose(now, self.ticket, GROUP, entry.clone(), now + 8_000),
            Event::Read => self.driver.read_index(now, self.ticket, GROUP, now + 8_000),
        }
        let mut sent = Vec::new();
        loop {
            let turn = self.driver.collect(now).expect("a disk in memory");
            sent.extend(self.outgoing(now));
            let Some(turn) = turn else {
                return sent;
            };
            self.disk.write(&turn.batch, turn.sync).expect("a disk in memory");
            self.driver.finish(now, turn).expect("a disk in memory");
            sent.extend(self.outgoing(now));
        }
    }

    fn outgoing(&mut self, now: Millis) -> Vec<(NodeId, Vec<u8>)> {
        let output = self.driver.take_output();
        let mut sent: Vec<_> = output.messages.into_iter().chain(output.bulk).collect();
        let is_reading = !output.reads.is_empty();
        for read in output.reads {
            self.driver.chunk_read(now, read.run()).expect("a disk in memory");
        }
        if is_reading {
            sent.extend(self.outgoing(now));
        }
        sent
    }

    /// The group as it sees it.
    pub(crate) fn status(&self) -> GroupStatus {
        self.driver.status().remove(0)
    }
}

/// What a leader and a follower were given until now.
pub(crate) struct Lives {
    /// The leader's number and events.
    pub(crate) leader: (NodeId, Vec<Event>),
    /// A follower's.
    pub(crate) follower: (NodeId, Vec<Event>),
    /// Frames of every kind that went between the three, with their senders.
    pub(crate) frames: Vec<(NodeId, Vec<u8>)>,
}

/// Three honest nodes that elect, propose and read.
pub(crate) fn lives() -> Lives {
    let mut nodes: BTreeMap<NodeId, (Node, Vec<Event>)> = (1..=3)
        .map(|number| (number, (Node::new(number), Vec::new())))
        .collect();
    let mut frames = Vec::new();
    let mut give = |to: NodeId, event: Event| {
        let mut waiting = VecDeque::from([(to, event)]);
        while let Some((to, event)) = waiting.pop_front() {
            let (node, events) = nodes.get_mut(&to).expect("one of three");
            for (next, frame) in node.take(&event) {
                frames.push((to, frame.clone()));
                waiting.push_back((next, Event::Frame(to, frame)));
            }
            events.push(event);
        }
        let (node, _) = &nodes[&to];
        (node.status().role, node.status().leader)
    };
    let mut leader = None;
    for _ in 0..400 {
        for number in 1..=3 {
            let (role, _) = give(number, Event::Tick);
            leader = leader.or((role == Role::Leader).then_some(number));
        }
        if leader.is_some() {
            break;
        }
    }
    let leader = leader.expect("a leader within ten seconds");
    let follower = leader % 3 + 1;
    for entry in [b"a=1".as_slice(), b"+b", b"a=2"] {
        give(leader, Event::Propose(entry.to_vec()));
        give(follower, Event::Propose(entry.to_vec()));
    }
    give(follower, Event::Read);
    for number in (1..=3).cycle().take(30) {
        give(number, Event::Tick);
    }
    let mut life = |number| {
        (
            number,
            nodes
                .remove(&number)
                .map(|(_, events)| events)
                .unwrap_or_default(),
        )
    };
    Lives {
        leader: life(leader),
        follower: life(follower),
        frames,
    }
}
