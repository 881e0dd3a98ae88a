//! The in-memory double: the same contract as [`crate::Transport`] without sockets, for tests of many nodes in one
//! process. It can cut links, and shows every payload in the clear to a recorder. Two nodes are linked while each is on
//! the other's list of peers; addresses and public keys in it are only checked, never used.
//!
//! Nodes join inside a tokio runtime. For seeded simulation, where the order of events must replay, drive the sans-IO
//! cores instead.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::runtime;
use tokio::sync::{Semaphore, watch};

use crate::counters::{Counters, Refusal};
use crate::formats::Formats;
use crate::network::{Handler, Lane, NodeId};
use crate::queue::{QueueReceiver, QueueSender, queue};
use crate::settings::{Boot, Bounds, SettingsError};

mod network;

pub use network::MemoryNetwork;

/// What a payload was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A one-way message.
    Message,
    /// A call.
    Call,
    /// A call's answer.
    Answer,
}

/// A payload in the clear, as it is delivered.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Its sender.
    pub from: NodeId,
    /// Its receiver.
    pub to: NodeId,
    /// Its lane.
    pub lane: Lane,
    /// What it was.
    pub kind: Kind,
    /// Its bytes.
    pub payload: Bytes,
}

/// Sees every payload before its receiver does.
pub type Recorder = Arc<dyn Fn(&Recorded) + Send + Sync>;

/// The place where the nodes of one test meet.
#[derive(Clone)]
pub struct Hub {
    inner: Arc<Inner>,
}

struct Inner {
    /// Each node's peers when it joins.
    nodes: BTreeSet<NodeId>,
    bounds: Bounds,
    recorder: Option<Recorder>,
    /// Held while links change and are announced, so that announcements keep their order.
    control: Mutex<()>,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    seats: BTreeMap<NodeId, Arc<Seat>>,
    cut: BTreeSet<(NodeId, NodeId)>,
    pipes: BTreeMap<(NodeId, NodeId), Arc<Pipe>>,
}

/// A node that has joined.
struct Seat {
    node: NodeId,
    boot: Boot,
    formats: Formats,
    /// What others have stated to it.
    stated: Mutex<BTreeMap<NodeId, Formats>>,
    handler: Arc<dyn Handler>,
    counters: Counters,
    /// Its peers now; changed under the hub's `control`.
    peers: RwLock<BTreeSet<NodeId>>,
    /// Bumped when a pipe from here comes, the peers change, or (then `true`) the seat is given up.
    changed: watch::Sender<bool>,
    runtime: runtime::Handle,
}

impl Seat {
    fn lists(&self, peer: NodeId) -> bool {
        self.peers.read().contains(&peer)
    }
}

/// What one node sends to another while both are there, each is the other's peer, and nothing is cut.
struct Pipe {
    from: Arc<Seat>,
    to: Arc<Seat>,
    /// Raft and bulk, by lane index; the ceremony lane has calls instead.
    queues: [QueueSender<Bytes>; 3],
    room: Semaphore,
    closed: watch::Sender<bool>,
}

impl Hub {
    /// A hub for these nodes, none of which has joined; each begins with all others as its peers.
    pub fn new(
        nodes: impl IntoIterator<Item = NodeId>,
        bounds: Bounds,
        recorder: Option<Recorder>,
    ) -> Result<Hub, SettingsError> {
        bounds.check()?;
        let inner = Inner {
            nodes: nodes.into_iter().collect(),
            bounds,
            recorder,
            control: Mutex::new(()),
            state: RwLock::default(),
        };
        Ok(Hub {
            inner: Arc::new(inner),
        })
    }

    /// Makes a node present; one that was present under this number is gone first. Its links come up before this
    /// returns.
    pub fn join(&self, node: NodeId, boot: Boot, handler: Arc<dyn Handler>) -> MemoryNetwork {
        self.join_speaking(Formats::only(1), node, boot, handler)
    }

    /// The same, of a build that speaks these formats; there is no link between nodes that have none in common.
    pub fn join_speaking(
        &self,
        formats: Formats,
        node: NodeId,
        boot: Boot,
        handler: Arc<dyn Handler>,
    ) -> MemoryNetwork {
        let mut peers = self.inner.nodes.clone();
        peers.remove(&node);
        let seat = Arc::new(Seat {
            node,
            boot,
            formats,
            stated: Mutex::default(),
            handler,
            counters: Counters::new(peers.iter().copied()),
            peers: RwLock::new(peers),
            changed: watch::Sender::new(false),
            runtime: runtime::Handle::current(),
        });
        let _control = self.inner.control.lock();
        let older = self.inner.state.write().seats.remove(&node);
        if let Some(older) = older {
            older.changed.send_replace(true);
            self.inner.settle();
        }
        self.inner.state.write().seats.insert(node, Arc::clone(&seat));
        self.inner.settle();
        MemoryNetwork {
            inner: Arc::clone(&self.inner),
            seat,
        }
    }

    /// Cuts both directions between two nodes: what is queued is lost, calls under way end with `Closed`.
    pub fn cut(&self, a: NodeId, b: NodeId) {
        let _control = self.inner.control.lock();
        self.inner.state.write().cut.extend([(a, b), (b, a)]);
        self.inner.settle();
    }

    /// Takes back a cut.
    pub fn heal(&self, a: NodeId, b: NodeId) {
        let _control = self.inner.control.lock();
        self.inner
            .state
            .write()
            .cut
            .retain(|pair| *pair != (a, b) && *pair != (b, a));
        self.inner.settle();
    }
}

impl Inner {
    /// Makes the pipes what seats, their lists and cuts want, then announces what changed.
    fn settle(&self) {
        let mut gone = Vec::new();
        let mut come = Vec::new();
        {
            let mut state = self.state.write();
            let State { seats, cut, pipes } = &mut *state;
            pipes.retain(|pair, pipe| {
                let present =
                    |seat: &Arc<Seat>| seats.get(&seat.node).is_some_and(|now| Arc::ptr_eq(now, seat));
                let (from, to) = (&pipe.from, &pipe.to);
                let peers = from.lists(to.node) && to.lists(from.node);
                let keep = !cut.contains(pair) && peers && present(from) && present(to);
                if !keep {
                    let process_gone = present(from) && !present(to) && from.lists(to.node);
                    gone.push((Arc::clone(pipe), process_gone));
                }
                keep
            });
            for from in seats.values() {
                for to in seats.values() {
                    let pair = (from.node, to.node);
                    let peers = from.lists(to.node) && to.lists(from.node);
                    if peers && !cut.contains(&pair) && !pipes.contains_key(&pair) {
                        from.stated.lock().insert(to.node, to.formats);
                        if from.formats.common(to.formats).is_none() {
                            from.counters.refuse(Refusal::Format);
                            continue;
                        }
                        let pipe = self.pipe(from, to);
                        come.push(Arc::clone(&pipe));
                        pipes.insert(pair, pipe);
                    }
                }
            }
        }
        for (pipe, process_gone) in gone {
            pipe.closed.send_replace(true);
            pipe.from.handler.link(pipe.to.node, false);
            if process_gone {
                pipe.from.handler.gone(pipe.to.node);
            }
        }
        for pipe in come {
            pipe.from.changed.send_modify(|_| ());
            pipe.from.handler.link(pipe.to.node, true);
        }
    }

    fn pipe(&self, from: &Arc<Seat>, to: &Arc<Seat>) -> Arc<Pipe> {
        let closed = watch::Sender::new(false);
        let queues = Lane::ALL.map(|lane| {
            let i = lane.index();
            let (sender, receiver) = queue(self.bounds.queue_frames[i], self.bounds.queue_bytes[i]);
            let delivery = Delivery {
                from: Arc::clone(from),
                to: Arc::clone(to),
                lane,
                recorder: self.recorder.clone(),
            };
            from.runtime.spawn(delivery.run(receiver, closed.subscribe()));
            sender
        });
        Arc::new(Pipe {
            from: Arc::clone(from),
            to: Arc::clone(to),
            queues,
            room: Semaphore::new(self.bounds.calls),
            closed,
        })
    }

    fn find(&self, seat: &Arc<Seat>, to: NodeId) -> Option<Arc<Pipe>> {
        let state = self.state.read();
        state
            .pipes
            .get(&(seat.node, to))
            .filter(|pipe| Arc::ptr_eq(&pipe.from, seat))
            .cloned()
    }

    fn record(&self, from: NodeId, to: NodeId, lane: Lane, kind: Kind, payload: &Bytes) {
        if let Some(recorder) = &self.recorder {
            recorder(&Recorded {
                from,
                to,
                lane,
                kind,
                payload: payload.clone(),
            });
        }
    }
}

/// Carries one lane of a pipe.
struct Delivery {
    from: Arc<Seat>,
    to: Arc<Seat>,
    lane: Lane,
    recorder: Option<Recorder>,
}

impl Delivery {
    async fn run(self, mut receiver: QueueReceiver<Bytes>, mut closed: watch::Receiver<bool>) {
        let (from, to, lane) = (self.from.node, self.to.node, self.lane);
        loop {
            let payload = tokio::select! {
                biased;
                _ = closed.wait_for(|closed| *closed) => break,
                payload = receiver.next() => match payload {
                    Some(payload) => payload,
                    None => break,
                },
            };
            if let Some(recorder) = &self.recorder {
                recorder(&Recorded {
                    from,
                    to,
                    lane,
                    kind: Kind::Message,
                    payload: payload.clone(),
                });
            }
            self.from.counters.sent(to, lane, payload.len());
            self.to.counters.received(from, lane, payload.len());
            self.to.handler.message(from, lane, payload);
        }
        let lost = receiver.close().len() as u64;
        self.from.counters.with(to, |c| c.lost[lane.index()].add(lost));
    }
}
