//! The world: one clock, one queue of events, every choice drawn from one seed.
//!
//! A run has a time of faults, then everything is healed, and then the cluster has ten virtual seconds to work
//! again. Invariants are checked after every event. The same seed gives the same events; the hash of what happened to
//! nodes is part of the report ([`Report::trace`]).

use crate::clock::VirtualClock;
use crate::disk::SimulatedDisk;
use crate::ledger::{self, Ledger, Witness};
use crate::liveness::Core;
use crate::name::Name;
use crate::network::Network;
use crate::plan::{self, Fault};
use crate::process::{Action, Cluster, Node, Process};
use crate::setup::{Failure, Mode, Report, Setup};
use crate::wrapped::Wrapped;
use conclave_consensus::{
    Driver, GroupId, GroupStatus, Millis, NodeId, Output, Reply, Settings, Store, StoreError, Turn,
};
use parking_lot::Mutex;
use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

pub(crate) enum Event<M> {
    Frame {
        to: NodeId,
        from: NodeId,
        frame: Vec<u8>,
    },
    Message {
        to: NodeId,
        from: NodeId,
        message: M,
    },
    Tick {
        node: NodeId,
        life: u64,
    },
    Written {
        node: NodeId,
        life: u64,
    },
    Timer {
        node: NodeId,
        life: u64,
        tag: u64,
    },
    Link {
        node: NodeId,
        life: u64,
        peer: NodeId,
        up: bool,
    },
    Start {
        node: NodeId,
    },
    Die {
        node: NodeId,
        life: u64,
        restart: u64,
    },
    Fault(Fault),
    Heal,
    Check,
    /// The core is left alone from now on.
    Spare,
    /// Ten seconds after the core had achieved so much.
    Progress {
        achieved: u64,
    },
}

/// What waits while the driver's turn is being written.
pub(crate) enum Input {
    Frame(NodeId, Vec<u8>),
    Tick,
    Link(NodeId, bool),
    Propose {
        ticket: u64,
        group: GroupId,
        entry: Vec<u8>,
        deadline: Millis,
    },
    ReadIndex {
        ticket: u64,
        group: GroupId,
        deadline: Millis,
    },
}

pub(crate) struct Running<P> {
    pub(crate) driver: Driver<SimulatedDisk>,
    pub(crate) process: P,
    pub(crate) writing: Option<Turn>,
    pub(crate) inputs: VecDeque<Input>,
    /// Index that a ReadIndex must reach at least, by ticket.
    pub(crate) floors: BTreeMap<u64, (GroupId, u64)>,
    pub(crate) proposed: BTreeMap<u64, GroupId>,
}

pub(crate) struct Machine<P> {
    pub(crate) disk: Arc<SimulatedDisk>,
    pub(crate) life: u64,
    pub(crate) running: Option<Running<P>>,
    pub(crate) slow_micros: u64,
    /// Die during the next synced write, and start again after so many microseconds.
    pub(crate) doomed: Option<u64>,
    pub(crate) status: Vec<GroupStatus>,
    /// Its disk is an older copy.
    pub(crate) put_back: bool,
    /// Milliseconds by which its wall clock always differs from the world's, and by which a fault put it wrong.
    pub(crate) skew_millis: i64,
    pub(crate) wrong_millis: i64,
}

/// Tickets of the world's own proposals.
pub(crate) const PROBE: u64 = 1 << 40;

/// See the module.
pub struct World<C: Cluster> {
    pub(crate) seed: u64,
    pub(crate) setup: Setup,
    pub(crate) cluster: C,
    pub(crate) rng: ChaCha8Rng,
    pub(crate) clock: VirtualClock,
    pub(crate) queue: BinaryHeap<Reverse<(u64, u64)>>,
    pub(crate) events: BTreeMap<u64, Event<Message<C>>>,
    pub(crate) next_event: u64,
    pub(crate) nodes: Vec<NodeId>,
    pub(crate) machines: BTreeMap<NodeId, Machine<C::Process>>,
    pub(crate) network: Network,
    pub(crate) ledger: Arc<Mutex<Ledger>>,
    pub(crate) trace: DefaultHasher,
    pub(crate) healed_at: Option<u64>,
    pub(crate) probes: BTreeMap<(NodeId, GroupId), bool>,
    /// When everything has to be well: what is looked at before was put off.
    pub(crate) check_at: u64,
    pub(crate) core: Core,
}

type Message<C> = <<C as Cluster>::Process as Process>::Message;

impl<C: Cluster> World<C> {
    /// A world in which nothing has happened yet.
    pub fn new(seed: u64, mut setup: Setup, cluster: C) -> Self {
        let nodes = setup.everybody();
        setup.settings.voters = (1..=setup.nodes).collect();
        setup.settings.cluster = [0xc1; 32];
        World {
            seed,
            cluster,
            rng: ChaCha8Rng::seed_from_u64(seed),
            clock: VirtualClock::default(),
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            next_event: 0,
            machines: BTreeMap::new(),
            nodes,
            network: Network::default(),
            ledger: Arc::default(),
            trace: DefaultHasher::new(),
            healed_at: None,
            probes: BTreeMap::new(),
            check_at: 0,
            core: Core::default(),
            setup,
        }
    }

    /// Runs the whole seed.
    pub fn run(mut self) -> Result<Report, Failure> {
        match self.run_events() {
            Ok(()) => {}
            Err(error) => self.ledger.lock().violate(error.to_string()),
        }
        let violation = self.ledger.lock().violation().cloned();
        let micros = self.clock.micros();
        if let Some(what) = violation {
            return Err(Failure {
                seed: self.seed,
                micros,
                what,
            });
        }
        let running = self
            .machines
            .values()
            .filter_map(|machine| machine.running.as_ref());
        Ok(Report {
            trace: self.trace.finish(),
            events: self.next_event,
            micros,
            acknowledgements: self.ledger.lock().acknowledgements,
            snapshots: running
                .map(|running| running.driver.counters().snapshots_installed.get())
                .sum(),
            achieved: self.core.achieved,
        })
    }

    fn run_events(&mut self) -> Result<(), StoreError> {
        for node in self.nodes.clone() {
            let disk = Arc::new(SimulatedDisk::default());
            let settings = self.settings_of(node);
            let prepared = match self.joins(node) {
                true => Driver::prepare_joining(&*disk, &settings),
                false => Driver::bootstrap(&*disk, &settings),
            };
            prepared.map_err(|error| StoreError(error.into()))?;
            let skew = self.setup.skew_millis;
            let machine = Machine {
                disk,
                life: 0,
                running: None,
                slow_micros: 0,
                doomed: None,
                status: Vec::new(),
                put_back: false,
                skew_millis: self.rng.gen_range(-skew..=skew),
                wrong_millis: 0,
            };
            self.machines.insert(node, machine);
            let first = self.first_start(node);
            self.schedule(first, Event::Start { node });
        }
        let faults = match &self.setup.faults {
            Some(faults) => faults.clone(),
            None => plan::faults(&self.setup, &mut self.rng),
        };
        for (at, fault) in faults {
            self.schedule(at, Event::Fault(fault));
        }
        let end = match self.setup.mode {
            Mode::Safety => Event::Heal,
            Mode::Liveness { .. } => Event::Spare,
        };
        self.schedule(self.setup.faulty_micros, end);
        while let Some(Reverse((at, number))) = self.queue.pop() {
            self.clock.set(at);
            let Some(event) = self.events.remove(&number) else {
                continue;
            };
            self.handle(event)?;
            self.probe_when_changed()?;
            let is_done = self.core.is_done() && self.change_is_over();
            if self.ledger.lock().violation().is_some() || self.is_well() || is_done {
                return Ok(());
            }
        }
        Ok(())
    }

    fn settings_of(&self, node: NodeId) -> Settings {
        Settings {
            node,
            ..self.setup.settings.clone()
        }
    }

    pub(crate) fn schedule(&mut self, after: u64, event: Event<Message<C>>) {
        let at = self.clock.micros() + after;
        self.queue.push(Reverse((at, self.next_event)));
        self.events.insert(self.next_event, event);
        self.next_event += 1;
    }

    pub(crate) fn mark(&mut self, kind: u8, node: NodeId, detail: impl Hash) {
        (self.clock.micros(), kind, node, detail).hash(&mut self.trace);
    }

    fn handle(&mut self, event: Event<Message<C>>) -> Result<(), StoreError> {
        match event {
            Event::Frame { to, from, frame } => {
                // A cut also takes what is on its way.
                if self.network.is_cut(from, to) {
                    return Ok(());
                }
                self.mark(1, to, ledger::hash(&frame));
                self.input(to, Input::Frame(from, frame))
            }
            Event::Message { to, from, message } => {
                if self.network.is_cut(from, to) {
                    return Ok(());
                }
                let said = ledger::hash_of(&message);
                self.mark(2, to, (from, said));
                self.process(to, |process, node| process.on_message(node, from, message))
            }
            Event::Tick { node, life } if self.alive(node, life) => {
                self.mark(9, node, life);
                self.schedule(self.setup.settings.tick_ms * 1_000, Event::Tick { node, life });
                self.input(node, Input::Tick)
            }
            Event::Written { node, life } if self.alive(node, life) => {
                self.mark(3, node, life);
                self.written(node)
            }
            Event::Timer { node, life, tag } if self.alive(node, life) => {
                self.mark(4, node, tag);
                self.process(node, |process, node| process.on_timer(node, tag))
            }
            Event::Link { node, life, peer, up } if self.alive(node, life) => {
                self.mark(5, node, peer * 2 + u64::from(up));
                self.input(node, Input::Link(peer, up))
            }
            Event::Tick { .. } | Event::Written { .. } | Event::Timer { .. } | Event::Link { .. } => Ok(()),
            Event::Start { node } => self.start(node),
            Event::Die { node, life, restart } => {
                // Not after the healing: the world's probes would die with it.
                if self.alive(node, life) && self.healed_at.is_none() && !self.is_spared(node) {
                    self.mark(8, node, life);
                    self.crash(node, restart);
                }
                Ok(())
            }
            Event::Fault(fault) => {
                self.mark(6, 0, ledger::hash(format!("{fault:?}").as_bytes()));
                self.fault(fault);
                Ok(())
            }
            Event::Spare => self.spare(),
            Event::Progress { achieved } => {
                self.check_progress(achieved);
                Ok(())
            }
            Event::Heal => self.heal(),
            Event::Check => {
                self.check_recovery();
                Ok(())
            }
        }
    }

    /// Whether the node is of a core that nothing happens to any more.
    pub(crate) fn is_spared(&self, node: NodeId) -> bool {
        self.core.nodes.contains(&node)
    }

    pub(crate) fn alive(&self, node: NodeId, life: u64) -> bool {
        self.machines
            .get(&node)
            .is_some_and(|machine| machine.life == life && machine.running.is_some())
    }

    pub(crate) fn start(&mut self, node: NodeId) -> Result<(), StoreError> {
        let settings = self.settings_of(node);
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        let Some(machine) = self.machines.get_mut(&node) else {
            return Ok(());
        };
        if machine.running.is_some() {
            return Ok(());
        }
        let life = machine.life;
        let inner = self.cluster.application(node);
        let witness = Arc::new(Wrapped(Witness {
            node,
            inner,
            ledger: self.ledger.clone(),
        }));
        let clock = Arc::new(self.clock.clone());
        let attestor = Arc::new(Name(node));
        let driver = Driver::open(settings, machine.disk.clone(), witness, attestor, clock, seed)
            .map_err(|error| StoreError::message(format!("node {node} does not start: {error:?}")))?;
        machine.running = Some(Running {
            driver,
            process: self.cluster.process(node, life),
            writing: None,
            inputs: VecDeque::new(),
            floors: BTreeMap::new(),
            proposed: BTreeMap::new(),
        });
        self.mark(7, node, life);
        let phase = self.rng.gen_range(0..self.setup.settings.tick_ms * 1_000);
        self.schedule(phase, Event::Tick { node, life });
        self.announce(node, true);
        self.process(node, |process, node| process.on_start(node))
    }

    /// Something for the driver, at once or when the write is done.
    pub(crate) fn input(&mut self, node: NodeId, input: Input) -> Result<(), StoreError> {
        let Some(running) = self
            .machines
            .get_mut(&node)
            .and_then(|machine| machine.running.as_mut())
        else {
            return Ok(());
        };
        if let Input::Tick = input
            && running
                .inputs
                .iter()
                .any(|waiting| matches!(waiting, Input::Tick))
        {
            // Ticks missed by a stall are skipped.
            return Ok(());
        }
        running.inputs.push_back(input);
        if running.writing.is_none() {
            self.turn(node)
        } else {
            Ok(())
        }
    }

    /// Drain, then collect; writes that need a sync take time.
    fn turn(&mut self, node: NodeId) -> Result<(), StoreError> {
        let now = self.clock.micros() / 1_000;
        let Some(machine) = self.machines.get_mut(&node) else {
            return Ok(());
        };
        let Some(running) = machine.running.as_mut() else {
            return Ok(());
        };
        let (mut ticks, inputs): (Vec<_>, Vec<_>) = std::mem::take(&mut running.inputs)
            .into_iter()
            .partition(|input| matches!(input, Input::Tick));
        for input in inputs.into_iter().chain(ticks.pop()) {
            match input {
                Input::Frame(from, frame) => running.driver.receive(now, from, &frame),
                Input::Tick => running.driver.tick(now)?,
                Input::Link(peer, up) => {
                    running.driver.link(now, peer, up);
                    if !up {
                        running.driver.refused(now, peer);
                    }
                }
                Input::Propose {
                    ticket,
                    group,
                    entry,
                    deadline,
                } => {
                    running.proposed.insert(ticket, group);
                    running.driver.propose(now, ticket, group, entry, deadline);
                }
                Input::ReadIndex {
                    ticket,
                    group,
                    deadline,
                } => {
                    running.driver.read_index(now, ticket, group, deadline);
                }
            }
        }
        while let Some(turn) = self.collect(node, now)? {
            if turn.sync {
                let slow = self.machines.get(&node).map_or(0, |machine| machine.slow_micros);
                let after = self.rng.gen_range(100..1_500) + slow;
                let Some(machine) = self.machines.get_mut(&node) else {
                    return Ok(());
                };
                let life = machine.life;
                if let Some(running) = machine.running.as_mut() {
                    running.writing = Some(turn);
                }
                let doomed = machine.doomed.filter(|_| !machine.disk.is_failing());
                self.schedule(after, Event::Written { node, life });
                if let Some(restart) = doomed {
                    let at = self.rng.gen_range(0..after);
                    self.schedule(at, Event::Die { node, life, restart });
                }
                return Ok(());
            }
            self.finish(node, turn)?;
        }
        self.dispatch(node)
    }

    fn collect(&mut self, node: NodeId, now: Millis) -> Result<Option<Turn>, StoreError> {
        let running = self
            .machines
            .get_mut(&node)
            .and_then(|machine| machine.running.as_mut());
        let turn = running.map_or(Ok(None), |running| running.driver.collect(now))?;
        self.dispatch(node)?;
        Ok(turn)
    }

    fn finish(&mut self, node: NodeId, turn: Turn) -> Result<(), StoreError> {
        let now = self.clock.micros() / 1_000;
        let Some(machine) = self.machines.get_mut(&node) else {
            return Ok(());
        };
        let Some(running) = machine.running.as_mut() else {
            return Ok(());
        };
        if machine.disk.write(&turn.batch, turn.sync).is_err() {
            // What a failed write left behind is unknown: the process ends before it sends another word.
            let restart = machine.doomed.unwrap_or(500_000);
            self.crash(node, restart);
            return Ok(());
        }
        if running.driver.finish(now, turn).is_err() {
            self.crash(node, 500_000);
            return Ok(());
        }
        machine.status = running.driver.status();
        let mut ledger = self.ledger.lock();
        if let Some(found) = running.driver.rolled_back()
            && !machine.put_back
        {
            ledger.violate(format!("node {node} on its own disk: {found}"));
        }
        machine
            .status
            .iter()
            .for_each(|status| ledger.check(node, status));
        drop(ledger);
        self.check_newcomers(node);
        self.dispatch(node)?;
        self.process(node, |process, node| process.on_progress(node))
    }

    fn written(&mut self, node: NodeId) -> Result<(), StoreError> {
        let running = self
            .machines
            .get_mut(&node)
            .and_then(|machine| machine.running.as_mut());
        match running.and_then(|running| running.writing.take()) {
            Some(turn) => {
                self.finish(node, turn)?;
                self.turn(node)
            }
            None => Ok(()),
        }
    }

    /// Does what the driver queued.
    fn dispatch(&mut self, node: NodeId) -> Result<(), StoreError> {
        let Some(running) = self
            .machines
            .get_mut(&node)
            .and_then(|machine| machine.running.as_mut())
        else {
            return Ok(());
        };
        let Output {
            messages,
            bulk,
            replies,
            reads,
        } = running.driver.take_output();
        let now = self.clock.micros() / 1_000;
        for read in reads {
            running.driver.chunk_read(now, read.run())?;
        }
        for (to, frame) in messages.into_iter().chain(bulk) {
            for after in self.network.deliveries(node, to, &mut self.rng) {
                self.schedule(
                    after,
                    Event::Frame {
                        to,
                        from: node,
                        frame: frame.clone(),
                    },
                );
            }
        }
        for reply in replies {
            self.reply(node, reply)?;
        }
        Ok(())
    }

    fn reply(&mut self, node: NodeId, reply: Reply) -> Result<(), StoreError> {
        let Some(running) = self
            .machines
            .get_mut(&node)
            .and_then(|machine| machine.running.as_mut())
        else {
            return Ok(());
        };
        let told = ledger::hash_of(&reply);
        (self.clock.micros(), 10_u8, node, told).hash(&mut self.trace);
        let mut ledger = self.ledger.lock();
        match &reply {
            Reply::Proposed { ticket, result } => {
                if let (Some(group), Ok(applied)) = (running.proposed.remove(ticket), result) {
                    ledger.acknowledged(node, group, applied.index);
                    if *ticket >= PROBE {
                        self.probes.insert((node, group), true);
                    }
                }
            }
            Reply::Read { ticket, result } => {
                if let (Some((group, floor)), Ok(index)) = (running.floors.remove(ticket), result)
                    && *index < floor
                {
                    ledger.violate(format!(
                        "node {node} read {group} at {index}, below the acknowledged {floor}"
                    ));
                }
            }
        }
        drop(ledger);
        self.process(node, |process, node| process.on_reply(node, reply))
    }

    /// Runs a piece of the process and does what it wants.
    fn process(
        &mut self,
        node: NodeId,
        piece: impl FnOnce(&mut C::Process, &mut Node<'_, Message<C>>),
    ) -> Result<(), StoreError> {
        let Some(machine) = self.machines.get_mut(&node) else {
            return Ok(());
        };
        let life = machine.life;
        let Some(running) = machine.running.as_mut() else {
            return Ok(());
        };
        let mut seen = Node {
            id: node,
            micros: self.clock.micros(),
            life,
            healed: self.healed_at.is_some(),
            errand: self.core.errand(node),
            skew_millis: machine.skew_millis + machine.wrong_millis,
            rng: &mut self.rng,
            freshness: running.driver.freshness(),
            nodes: &self.nodes,
            status: &machine.status,
            actions: Vec::new(),
        };
        piece(&mut running.process, &mut seen);
        for action in seen.actions {
            match action {
                Action::Send(to, message) => {
                    for after in self.network.deliveries(node, to, &mut self.rng) {
                        self.schedule(
                            after,
                            Event::Message {
                                to,
                                from: node,
                                message: message.clone(),
                            },
                        );
                    }
                }
                Action::Timer(after, tag) => self.schedule(after, Event::Timer { node, life, tag }),
                Action::Propose {
                    ticket,
                    group,
                    entry,
                    deadline,
                } => {
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
                Action::ReadIndex {
                    ticket,
                    group,
                    deadline,
                } => {
                    let floor = self.ledger.lock().highest_acknowledged(group);
                    if let Some(running) = self
                        .machines
                        .get_mut(&node)
                        .and_then(|machine| machine.running.as_mut())
                    {
                        running.floors.insert(ticket, (group, floor));
                    }
                    self.input(
                        node,
                        Input::ReadIndex {
                            ticket,
                            group,
                            deadline,
                        },
                    )?;
                }
                Action::Achieved(number) => self.achieved(node, number),
                Action::Violation(what) => self.ledger.lock().violate(format!("node {node}: {what}")),
            }
        }
        Ok(())
    }
}
