//! What waits for the store thread: bounded, never blocking those who put something in.

use crate::ids::{GroupId, Millis, NodeId};
use crate::output::{Applied, NoLeader, ProposeError};
use crate::snapshot_read::ChunkRead;
use parking_lot::{Condvar, Mutex};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

pub(crate) type ProposeAnswer = oneshot::Sender<Result<Applied, ProposeError>>;
pub(crate) type ReadAnswer = oneshot::Sender<Result<u64, NoLeader>>;

/// One thing to do for the store thread.
pub(crate) enum Item {
    Frame(NodeId, Vec<u8>),
    Link(NodeId, bool),
    Refused(NodeId),
    Peers(Vec<NodeId>),
    Propose {
        group: GroupId,
        entry: Vec<u8>,
        deadline: Millis,
        answer: ProposeAnswer,
    },
    ReadIndex {
        group: GroupId,
        deadline: Millis,
        answer: ReadAnswer,
    },
    Chunk(ChunkRead),
    /// Hand over leaderships; stop when none is left or at the deadline.
    Shutdown {
        deadline: Millis,
        answer: oneshot::Sender<()>,
    },
    #[cfg(test)]
    Panic,
}

impl Item {
    fn peer(&self) -> Option<NodeId> {
        match self {
            Item::Frame(from, _) => Some(*from),
            _ => None,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Item::Frame(_, frame) => frame.len(),
            Item::Propose { entry, .. } => entry.len(),
            _ => 0,
        }
    }

    /// A local caller's, who is told to come again.
    fn is_call(&self) -> bool {
        matches!(self, Item::Propose { .. } | Item::ReadIndex { .. })
    }

    /// Few, and lost for good if they are dropped: always taken.
    fn is_control(&self) -> bool {
        !matches!(
            self,
            Item::Frame(..) | Item::Propose { .. } | Item::ReadIndex { .. }
        )
    }
}

#[derive(Default)]
struct Waiting {
    items: VecDeque<Item>,
    bytes: usize,
    /// Frames and their bytes of each peer.
    peers: BTreeMap<NodeId, (usize, usize)>,
    closed: bool,
}

/// The queue.
pub(crate) struct Inbox {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
    max_items: usize,
    max_bytes: usize,
}

impl Inbox {
    pub(crate) fn new(max_items: usize, max_bytes: usize) -> Self {
        Inbox {
            waiting: Mutex::default(),
            arrived: Condvar::new(),
            max_items,
            max_bytes,
        }
    }

    /// Puts it in, or gives it back when there is no room.
    pub(crate) fn put(&self, item: Item) -> Result<(), Item> {
        let bytes = item.bytes();
        let mut waiting = self.waiting.lock();
        let full = waiting.items.len() >= self.max_items || waiting.bytes + bytes > self.max_bytes;
        // This node's own callers find half of it: what they ask for is of no use while no frame gets in.
        let calls = item.is_call()
            && (waiting.items.len() >= self.max_items.div_ceil(2)
                || waiting.bytes + bytes > self.max_bytes / 2);
        // One peer never takes more than half, so that it cannot keep the others out.
        let (frames, size) = item
            .peer()
            .and_then(|peer| waiting.peers.get(&peer).copied())
            .unwrap_or_default();
        let greedy =
            item.peer().is_some() && (frames >= self.max_items.div_ceil(2) || size > self.max_bytes / 2);
        if waiting.closed || ((full || greedy || calls) && !item.is_control()) {
            return Err(item);
        }
        waiting.bytes += bytes;
        if let Some(peer) = item.peer() {
            let share = waiting.peers.entry(peer).or_default();
            *share = (share.0 + 1, share.1 + bytes);
        }
        waiting.items.push_back(item);
        drop(waiting);
        self.arrived.notify_one();
        Ok(())
    }

    /// Everything that waits; waits itself until something does or `until`.
    pub(crate) fn take(&self, until: Instant) -> VecDeque<Item> {
        let mut waiting = self.waiting.lock();
        while waiting.items.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                break;
            }
            self.arrived.wait_for(&mut waiting, left);
        }
        waiting.bytes = 0;
        waiting.peers.clear();
        std::mem::take(&mut waiting.items)
    }

    /// Takes nothing more; what waits is dropped, so those who wait for answers see it.
    pub(crate) fn close(&self) {
        let mut waiting = self.waiting.lock();
        waiting.closed = true;
        waiting.items.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_inbox_gives_frames_back_and_keeps_control() {
        let inbox = Inbox::new(2, 10);
        assert!(inbox.put(Item::Frame(1, vec![0; 8])).is_ok());
        assert!(
            inbox.put(Item::Frame(2, vec![0; 8])).is_err(),
            "bytes are bounded"
        );
        assert!(inbox.put(Item::Frame(2, vec![0; 1])).is_ok());
        assert!(inbox.put(Item::Frame(3, vec![])).is_err(), "items are bounded");
        assert!(inbox.put(Item::Link(1, true)).is_ok());
        assert_eq!(inbox.take(Instant::now()).len(), 3);
        assert!(inbox.put(Item::Frame(1, vec![0; 8])).is_ok());
        inbox.close();
        assert!(inbox.put(Item::Link(1, true)).is_err());
    }

    #[test]
    fn callers_leave_room_for_frames() {
        let inbox = Inbox::new(10, 1_000);
        let propose = |bytes| {
            let (answer, _) = oneshot::channel();
            let (group, deadline) = (GroupId(1), 0);
            let entry = vec![0; bytes];
            inbox.put(Item::Propose {
                group,
                entry,
                deadline,
                answer,
            })
        };
        assert!(propose(501).is_err(), "bytes");
        assert_eq!((0..20).filter(|_| propose(1).is_ok()).count(), 5);
        let (answer, _) = oneshot::channel();
        let read = Item::ReadIndex {
            group: GroupId(1),
            deadline: 0,
            answer,
        };
        assert!(inbox.put(read).is_err());
        assert!(inbox.put(Item::Frame(1, vec![0; 100])).is_ok());
    }

    #[test]
    fn one_peer_does_not_keep_the_others_out() {
        let inbox = Inbox::new(10, 1_000);
        let taken = (0..20)
            .filter(|_| inbox.put(Item::Frame(1, vec![0])).is_ok())
            .count();
        assert_eq!(taken, 5);
        assert!(inbox.put(Item::Frame(2, vec![0])).is_ok());
        inbox.take(Instant::now());
        assert!(inbox.put(Item::Frame(1, vec![0])).is_ok());
    }
}
