//! The in-memory double: the same contract as [`crate::Transport`] without sockets, for tests of many nodes in one
//! process. It can cut links, and shows every payload in the clear to a recorder.
//!
//! Needs a tokio runtime. For seeded simulation, where the order of events must replay, drive the sans-IO cores instead.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};

use crate::counters::Counters;
use crate::frame::Verdict;
use crate::network::{CallError, Handler, Lane, Network, NodeId, Refused, SendError};
use crate::queue::{PushError, QueueReceiver, QueueSender, queue};
use crate::settings::{Boot, Bounds, SettingsError};

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
    handler: Arc<dyn Handler>,
    counters: Counters,
    /// Bumped when a pipe from here comes or goes, or the seat is given up.
    changed: watch::Sender<bool>,
}

/// What one node sends to another while both are there and nothing is cut.
struct Pipe {
    from: Arc<Seat>,
    to: Arc<Seat>,
    /// Raft and bulk, by lane index; the ceremony lane has calls instead.
    queues: [QueueSender<Bytes>; 3],
    room: Semaphore,
    closed: watch::Sender<bool>,
}

impl Hub {
    /// A hub for these nodes, none of which has joined.
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
        let others = self.inner.nodes.iter().copied().filter(|other| *other != node);
        let seat = Arc::new(Seat {
            node,
            boot,
            handler,
            counters: Counters::new(others),
            changed: watch::Sender::new(false),
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
    /// Makes the pipes what seats and cuts want, then announces what changed.
    fn settle(&self) {
        let mut gone = Vec::new();
        let mut come = Vec::new();
        {
            let mut state = self.state.write();
            let State { seats, cut, pipes } = &mut *state;
            pipes.retain(|pair, pipe| {
                let present =
                    |seat: &Arc<Seat>| seats.get(&seat.node).is_some_and(|now| Arc::ptr_eq(now, seat));
                let keep = !cut.contains(pair) && present(&pipe.from) && present(&pipe.to);
                if !keep {
                    gone.push((Arc::clone(pipe), present(&pipe.from) && !present(&pipe.to)));
                }
                keep
            });
            for from in seats.values() {
                for to in seats.values() {
                    let pair = (from.node, to.node);
                    if from.node != to.node && !cut.contains(&pair) && !pipes.contains_key(&pair) {
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
            tokio::spawn(delivery.run(receiver, closed.subscribe()));
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

/// One node's view of a [`Hub`].
#[derive(Clone)]
pub struct MemoryNetwork {
    inner: Arc<Inner>,
    seat: Arc<Seat>,
}

impl MemoryNetwork {
    fn stopped(&self) -> bool {
        *self.seat.changed.borrow()
    }

    fn sendable(&self, to: NodeId, lane: Lane, payload: &Bytes) -> Result<(), SendError> {
        if self.stopped() {
            return Err(SendError::ShutDown);
        }
        if lane == Lane::Ceremony {
            return Err(SendError::CallsOnly);
        }
        if payload.len() > self.inner.bounds.payload_of(lane) {
            return Err(SendError::TooLarge);
        }
        if to == self.seat.node || !self.inner.nodes.contains(&to) {
            return Err(SendError::UnknownPeer);
        }
        Ok(())
    }
}

#[async_trait]
impl Network for MemoryNetwork {
    fn node(&self) -> NodeId {
        self.seat.node
    }

    fn send(&self, to: NodeId, lane: Lane, payload: Bytes) -> Result<(), SendError> {
        self.sendable(to, lane, &payload)?;
        let pipe = self.inner.find(&self.seat, to).ok_or(SendError::NotConnected)?;
        let size = payload.len();
        pipe.queues[lane.index()]
            .try_push(payload, size)
            .map_err(|error| match error {
                PushError::Full => {
                    self.seat.counters.with(to, |c| c.queue_full[lane.index()].one());
                    SendError::Full
                }
                PushError::Closed => SendError::NotConnected,
            })
    }

    async fn send_when_free(
        &self,
        to: NodeId,
        lane: Lane,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<(), SendError> {
        self.sendable(to, lane, &payload)?;
        let mut changed = self.seat.changed.subscribe();
        let sending = async {
            loop {
                if *changed.borrow_and_update() {
                    return Err(SendError::ShutDown);
                }
                let Some(pipe) = self.inner.find(&self.seat, to) else {
                    if changed.changed().await.is_err() {
                        return Err(SendError::ShutDown);
                    }
                    continue;
                };
                if pipe.queues[lane.index()]
                    .push(payload.clone(), payload.len())
                    .await
                    .is_ok()
                {
                    return Ok(());
                }
                tokio::task::yield_now().await;
            }
        };
        timeout_at(Instant::now() + timeout, sending)
            .await
            .unwrap_or(Err(SendError::TimedOut))
    }

    async fn call(&self, to: NodeId, payload: Bytes, timeout: Duration) -> Result<Bytes, CallError> {
        let deadline = Instant::now() + timeout.min(self.inner.bounds.call_time);
        if self.stopped() {
            return Err(CallError::Closed);
        }
        if payload.len() > self.inner.bounds.payload_of(Lane::Ceremony) {
            return Err(CallError::TooLarge);
        }
        let pipe = self.inner.find(&self.seat, to).ok_or(CallError::NotConnected)?;
        let count = |count: fn(&crate::counters::PeerCounters)| self.seat.counters.with(to, count);
        let Ok(_room) = pipe.room.try_acquire() else {
            count(|c| c.busy_here.one());
            return Err(CallError::Busy);
        };
        let (sender, receiver) = oneshot::channel();
        self.seat.counters.sent(to, Lane::Ceremony, payload.len());
        tokio::spawn(callee(
            Arc::clone(&self.inner),
            Arc::clone(&pipe),
            payload,
            deadline,
            sender,
        ));
        match timeout_at(deadline, receiver).await {
            Err(_) => {
                count(|c| c.timed_out.one());
                Err(CallError::TimedOut)
            }
            Ok(Err(_)) | Ok(Ok(Verdict::Failed)) => Err(CallError::Closed),
            Ok(Ok(Verdict::Done(bytes))) => Ok(bytes),
            Ok(Ok(Verdict::Busy)) => {
                count(|c| c.busy_there.one());
                Err(CallError::Busy)
            }
            Ok(Ok(Verdict::Refused { code, detail })) => {
                Err(CallError::Refused(Refused::Because { code, detail }))
            }
        }
    }

    fn connected(&self, peer: NodeId) -> bool {
        self.inner.find(&self.seat, peer).is_some()
    }

    fn boot_of(&self, peer: NodeId) -> Option<Boot> {
        self.inner.find(&self.seat, peer).map(|pipe| pipe.to.boot)
    }

    fn counters(&self) -> &Counters {
        &self.seat.counters
    }

    async fn shutdown(&self) {
        let _control = self.inner.control.lock();
        {
            let mut state = self.inner.state.write();
            if state
                .seats
                .get(&self.seat.node)
                .is_some_and(|seat| Arc::ptr_eq(seat, &self.seat))
            {
                state.seats.remove(&self.seat.node);
            }
        }
        self.seat.changed.send_replace(true);
        self.inner.settle();
    }
}

/// What happens to a call at the other node. Dropping `answer` tells the caller that the connection ended.
async fn callee(
    inner: Arc<Inner>,
    pipe: Arc<Pipe>,
    payload: Bytes,
    deadline: Instant,
    answer: oneshot::Sender<Verdict>,
) {
    let (from, to, lane) = (pipe.from.node, pipe.to.node, Lane::Ceremony);
    inner.record(from, to, lane, Kind::Call, &payload);
    pipe.to.counters.received(from, lane, payload.len());
    let mut closed = pipe.closed.subscribe();
    let left = deadline.saturating_duration_since(Instant::now());
    let result = tokio::select! {
        _ = closed.wait_for(|closed| *closed) => return,
        result = timeout(left, async { pipe.to.handler.call(from, payload, left).await }) => result,
    };
    let verdict = match result {
        // The caller's own clock is about to tell it; dropping the channel before would say `Closed`.
        Err(_) => {
            let mut answer = answer;
            return answer.closed().await;
        }
        Ok(Ok(bytes)) if bytes.len() > inner.bounds.payload_of(lane) => Verdict::Failed,
        Ok(result) => Verdict::from(result),
    };
    if let Verdict::Done(bytes) = &verdict {
        inner.record(to, from, lane, Kind::Answer, bytes);
        pipe.to.counters.sent(from, lane, bytes.len());
        pipe.from.counters.received(to, lane, bytes.len());
    }
    let _ = answer.send(verdict);
}
