//! What this node keeps for each peer, and what all tasks of the transport share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::runtime;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::calls::Calls;
use crate::counters::{Counters, Refusal};
use crate::formats::{Format, Formats};
use crate::frame::Verdict;
use crate::network::{Handler, Lane, NodeId};
use crate::queue::QueueSender;
use crate::settings::{Boot, Bounds, Peer};
use crate::table::PeerTable;
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
    /// The newest that both sides speak.
    pub(crate) format: Format,
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
    pub(crate) order: Arc<tokio::sync::Mutex<()>>,
}

/// One peer, with one public key, for as long as it is on the list.
pub(crate) struct PeerState {
    pub(crate) node: NodeId,
    address: Mutex<String>,
    pub(crate) public_key: [u8; 32],
    pub(crate) lanes: [LaneState; 3],
    /// Room for calls to the peer.
    pub(crate) calls_out: Arc<Semaphore>,
    /// Room for calls from the peer, over all its connections.
    pub(crate) calls_in: Arc<Semaphore>,
    pub(crate) up: AtomicBool,
    announced: Mutex<bool>,
    /// What the peer stated last, on either side's connection.
    formats: Mutex<Option<Formats>>,
    /// Becomes true once: the node is no peer any more, or has another key.
    ended: watch::Sender<bool>,
}

impl PeerState {
    /// A peer that is not reached yet. `former` is what was kept for this node before, if a task still works with it:
    /// its last message is handled before the first one of this.
    pub(crate) fn new(peer: Peer, bounds: &Bounds, former: Option<&PeerState>) -> Self {
        let lanes = Lane::ALL.map(|lane| LaneState {
            current: watch::Sender::new(None),
            poke: Notify::new(),
            reader: Mutex::new(None),
            order: former.map_or_else(Arc::default, |former| Arc::clone(&former.lane(lane).order)),
        });
        Self {
            node: peer.node,
            address: Mutex::new(peer.address),
            public_key: peer.public_key,
            lanes,
            calls_out: Arc::new(Semaphore::new(bounds.calls)),
            calls_in: Arc::new(Semaphore::new(bounds.calls)),
            up: AtomicBool::new(false),
            announced: Mutex::new(false),
            formats: Mutex::new(None),
            ended: watch::Sender::new(false),
        }
    }

    /// Where to dial it now.
    pub(crate) fn address(&self) -> String {
        self.address.lock().clone()
    }

    /// From the next attempt on it is dialled there; connections that are up stay.
    pub(crate) fn move_to(&self, address: String) {
        let mut now = self.address.lock();
        if *now != address {
            tracing::info!(peer = self.node, %address, "address changed");
            *now = address;
            self.poke();
        }
    }

    /// What the peer stated last.
    pub(crate) fn formats(&self) -> Option<Formats> {
        *self.formats.lock()
    }

    /// The peer has stated this; the newest that it has in common with `own`.
    pub(crate) fn states(&self, theirs: Formats, own: Formats) -> Result<Format, Refusal> {
        *self.formats.lock() = Some(theirs);
        own.common(theirs).ok_or(Refusal::Format)
    }

    /// Ends the waits before dialling again.
    pub(crate) fn poke(&self) {
        for lane in &self.lanes {
            lane.poke.notify_waiters();
        }
    }

    pub(crate) fn is_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// Ends when this is to end.
    pub(crate) async fn until_ended(&self) {
        // The sender is in `self`, so this cannot fail.
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }

    /// Ends calls under way, says that the link is down if it was up, and lets every task of this peer end. No link is
    /// announced after this returns.
    pub(crate) fn end(&self, handler: &dyn Handler) {
        self.ended.send_replace(true);
        for lane in &self.lanes {
            if let Some(connection) = lane.current.send_replace(None) {
                connection.calls.close();
            }
        }
        self.refresh_link(handler);
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
            // What a task publishes after the end is taken back by that task.
            (Some(raft), Some(ceremony)) => raft.boot == ceremony.boot && !self.is_ended(),
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
    pub(crate) formats: Formats,
    pub(crate) bounds: Bounds,
    pub(crate) tls: Tls,
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) counters: Counters,
    /// Also in the hands of the TLS verifier.
    pub(crate) peers: Arc<PeerTable>,
    /// Those that left the list and whose tasks may not all have ended. Held while the list changes, and by the one
    /// that sets `stop`: no task begins after it.
    pub(crate) former: Mutex<Vec<Weak<PeerState>>>,
    /// Where tasks run; the list may change on a thread that has no runtime.
    pub(crate) runtime: runtime::Handle,
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

    /// Ends when the transport is to end, or this peer.
    pub(crate) async fn until_over(&self, peer: &PeerState) {
        tokio::select! {
            () = self.until_stopped() => (),
            () = peer.until_ended() => (),
        }
    }

    /// Spawns a task that a shutdown waits for, even if it has not begun by then.
    pub(crate) fn run(self: &Arc<Self>, work: impl Future<Output = ()> + Send + 'static) {
        let task = self.task();
        self.runtime.spawn(async move {
            let _task = task;
            work.await;
        });
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::network::{BoxFuture, Refused};
    use crate::queue::queue;

    /// Keeps what is said of links.
    #[derive(Default)]
    struct Links(Mutex<Vec<bool>>);

    impl Handler for Links {
        fn message(&self, _: NodeId, _: Lane, _: Bytes) {}
        fn call(&self, _: NodeId, call: Bytes, _: Duration) -> BoxFuture<'static, Result<Bytes, Refused>> {
            Box::pin(async move { Ok(call) })
        }
        fn link(&self, _: NodeId, up: bool) {
            self.0.lock().push(up);
        }
        fn gone(&self, _: NodeId) {}
    }

    fn publish(peer: &PeerState, lane: Lane) -> Arc<Calls> {
        let calls = Arc::new(Calls::default());
        let connection = Connection {
            queue: queue(1, 1).0,
            calls: Arc::clone(&calls),
            boot: [1; 16],
            format: 1,
        };
        peer.lane(lane).current.send_replace(Some(Arc::new(connection)));
        calls
    }

    #[test]
    fn connections_that_are_made_while_a_peer_ends_bring_no_link() {
        let peer = Peer {
            node: 2,
            address: String::new(),
            public_key: [2; 32],
        };
        let (peer, links) = (PeerState::new(peer, &Bounds::default(), None), Links::default());
        publish(&peer, Lane::Raft);
        let calls = publish(&peer, Lane::Ceremony);
        peer.refresh_link(&links);
        peer.end(&links);
        assert!(calls.open().is_none());
        publish(&peer, Lane::Raft);
        publish(&peer, Lane::Ceremony);
        peer.refresh_link(&links);
        assert_eq!(*links.0.lock(), [true, false]);
        assert!(!peer.up.load(Ordering::Acquire));
    }
}
