//! What this node keeps for each peer, and what all tasks of the transport share.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::calls::Calls;
use crate::counters::Counters;
use crate::frame::Verdict;
use crate::network::{Handler, Lane, NodeId};
use crate::queue::QueueSender;
use crate::settings::{Boot, Bounds};
use crate::tls::Tls;

/// What waits to be written.
pub(crate) enum Outbound {
    Message(Bytes),
    /// Its time left is known only when it is written.
    Call {
        id: u64,
        deadline: Instant,
        payload: Bytes,
    },
    Answer {
        id: u64,
        verdict: Verdict,
    },
    Pong,
}

/// An outgoing connection that is up.
pub(crate) struct Connection {
    pub(crate) queue: QueueSender<Outbound>,
    pub(crate) calls: Arc<Calls>,
    pub(crate) boot: Boot,
}

/// One lane to and from one peer.
pub(crate) struct LaneState {
    /// The outgoing connection, if there is one.
    pub(crate) current: watch::Sender<Option<Arc<Connection>>>,
    /// Ends the wait before dialling again.
    pub(crate) poke: Notify,
    /// The task that reads what the peer sends: a newer connection ends it.
    pub(crate) reader: Mutex<Option<AbortHandle>>,
    /// Held by that task, so that the messages of two connections are not handled at one time.
    pub(crate) order: tokio::sync::Mutex<()>,
}

/// One peer.
pub(crate) struct PeerState {
    pub(crate) node: NodeId,
    pub(crate) address: String,
    pub(crate) public_key: [u8; 32],
    pub(crate) lanes: [LaneState; 3],
    /// Room for calls to the peer.
    pub(crate) calls_out: Arc<Semaphore>,
    /// Room for calls from the peer, over all its connections.
    pub(crate) calls_in: Arc<Semaphore>,
    pub(crate) up: AtomicBool,
    announced: Mutex<bool>,
}

impl PeerState {
    pub(crate) fn new(node: NodeId, address: String, public_key: [u8; 32], bounds: &Bounds) -> Self {
        let lane = || LaneState {
            current: watch::Sender::new(None),
            poke: Notify::new(),
            reader: Mutex::new(None),
            order: tokio::sync::Mutex::new(()),
        };
        Self {
            node,
            address,
            public_key,
            lanes: [lane(), lane(), lane()],
            calls_out: Arc::new(Semaphore::new(bounds.calls)),
            calls_in: Arc::new(Semaphore::new(bounds.calls)),
            up: AtomicBool::new(false),
            announced: Mutex::new(false),
        }
    }

    pub(crate) fn lane(&self, lane: Lane) -> &LaneState {
        &self.lanes[lane.index()]
    }

    /// The connection that is up on a lane.
    pub(crate) fn current(&self, lane: Lane) -> Option<Arc<Connection>> {
        self.lane(lane).current.borrow().clone()
    }

    /// Looks whether the link's state has changed and says so. Raft and ceremony lane make the link, if they reach one
    /// and the same process; the bulk lane may lag.
    pub(crate) fn refresh_link(&self, handler: &dyn Handler) {
        let mut announced = self.announced.lock();
        let up = match (self.current(Lane::Raft), self.current(Lane::Ceremony)) {
            (Some(raft), Some(ceremony)) => raft.boot == ceremony.boot,
            _ => false,
        };
        if up != *announced {
            *announced = up;
            self.up.store(up, Ordering::Release);
            tracing::info!(peer = self.node, up, "link");
            handler.link(self.node, up);
        }
    }
}

/// What all tasks share.
pub(crate) struct Shared {
    pub(crate) cluster: [u8; 32],
    pub(crate) node: NodeId,
    pub(crate) boot: Boot,
    pub(crate) bounds: Bounds,
    pub(crate) tls: Tls,
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) counters: Counters,
    pub(crate) peers: BTreeMap<NodeId, Arc<PeerState>>,
    pub(crate) by_key: HashMap<[u8; 32], NodeId>,
    /// Becomes true once: everything ends.
    pub(crate) stop: watch::Sender<bool>,
    /// How many tasks run.
    pub(crate) tasks: watch::Sender<usize>,
}

impl Shared {
    pub(crate) fn stopped(&self) -> bool {
        *self.stop.borrow()
    }

    /// Ends when the transport is to end.
    pub(crate) async fn until_stopped(&self) {
        // The sender is in `self`, so this cannot fail.
        let _ = self.stop.subscribe().wait_for(|stop| *stop).await;
    }

    /// Counts a task until the guard is dropped.
    pub(crate) fn task(self: &Arc<Self>) -> TaskGuard {
        self.tasks.send_modify(|tasks| *tasks += 1);
        TaskGuard(Arc::clone(self))
    }
}

/// A running task.
pub(crate) struct TaskGuard(Arc<Shared>);

impl Drop for TaskGuard {
    fn drop(&mut self) {
        self.0.tasks.send_modify(|tasks| *tasks -= 1);
    }
}
