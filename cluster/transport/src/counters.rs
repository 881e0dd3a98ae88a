//! What the network counted since its start. Values only grow (gauges are named so); read them for metrics.

use std::iter;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::network::{Lane, NodeId};

/// Why a connection, or a frame with its connection, was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Refusal {
    /// Not TLS, a broken handshake, or a peer that went away in it.
    Handshake,
    /// The handshake took too long.
    SlowHandshake,
    /// Ended as the oldest of too many handshakes under way.
    TooManyHandshakes,
    /// The certificate is not signed by the cluster's authority, or not usable.
    Certificate,
    /// The certificate has expired or is not yet valid.
    Expired,
    /// The certificate is in order, but its key is not the one that membership pins.
    PublicKey,
    /// The hello is malformed, or names a lane that does not exist.
    Hello,
    /// Both sides speak formats that the other does not: their builds are no neighbours.
    Format,
    /// The hello names another cluster.
    Cluster,
    /// The hello names a node other than the TLS identity, or is meant for another node than this.
    Node,
    /// A length prefix above the lane's bound.
    FrameLength,
    /// A frame of unknown kind, too short, or out of place.
    Frame,
}

impl Refusal {
    /// Every reason, in order.
    pub const ALL: [Refusal; 12] = [
        Refusal::Handshake,
        Refusal::SlowHandshake,
        Refusal::TooManyHandshakes,
        Refusal::Certificate,
        Refusal::Expired,
        Refusal::PublicKey,
        Refusal::Hello,
        Refusal::Format,
        Refusal::Cluster,
        Refusal::Node,
        Refusal::FrameLength,
        Refusal::Frame,
    ];

    /// A label for metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Refusal::Handshake => "handshake",
            Refusal::SlowHandshake => "slow_handshake",
            Refusal::TooManyHandshakes => "too_many_handshakes",
            Refusal::Certificate => "certificate",
            Refusal::Expired => "expired",
            Refusal::PublicKey => "public_key",
            Refusal::Hello => "hello",
            Refusal::Format => "format",
            Refusal::Cluster => "cluster",
            Refusal::Node => "node",
            Refusal::FrameLength => "frame_length",
            Refusal::Frame => "frame",
        }
    }
}

/// A number that many threads add to.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    pub(crate) fn one(&self) {
        self.add(1);
    }
}

/// What was counted with one peer.
#[derive(Debug, Default)]
pub struct PeerCounters {
    /// Payload bytes sent, by [`Lane::index`].
    pub sent_bytes: [Count; 3],
    /// Frames sent.
    pub sent_frames: [Count; 3],
    /// Payload bytes received.
    pub received_bytes: [Count; 3],
    /// Frames received.
    pub received_frames: [Count; 3],
    /// Messages that were refused to the sender because the lane's queue was full.
    pub queue_full: [Count; 3],
    /// Messages that were accepted and then lost with their connection.
    pub lost: [Count; 3],
    /// Outgoing connections that were established.
    pub connected: [Count; 3],
    /// Attempts to connect that failed.
    pub connect_failed: [Count; 3],
    /// Incoming connections that were closed because the peer made a newer one.
    pub replaced: [Count; 3],
    /// Calls that this node refused to make: too many under way to this peer.
    pub busy_here: Count,
    /// Calls that this peer answered with *busy*.
    pub busy_there: Count,
    /// Calls from this peer that this node answered with *busy*.
    pub busy_answered: Count,
    /// Calls that ended without an answer in time.
    pub timed_out: Count,
    /// Answers that came after their call had ended.
    pub late: Count,
}

/// What was counted in all.
#[derive(Debug, Default)]
pub struct Counters {
    refusals: [Count; Refusal::ALL.len()],
    /// Incoming TCP connections.
    pub accepted: Count,
    /// Times that accepting failed (no file descriptors, say) and waited.
    pub accept_failed: Count,
    first: OnceLock<Box<Entry>>,
}

/// A node that is or was a peer. Entries are only added, so that a reader needs no lock; there are as many as operators
/// ever put on the list. A node that returns goes on where it was: a number for one node means one node.
#[derive(Debug)]
struct Entry {
    node: NodeId,
    /// Whether it is a peer now.
    listed: AtomicBool,
    counters: PeerCounters,
    next: OnceLock<Box<Entry>>,
}

impl Counters {
    /// Zero for everything, with these peers.
    pub fn new(peers: impl IntoIterator<Item = NodeId>) -> Self {
        let counters = Self::default();
        counters.follow(peers);
        counters
    }

    /// From now on these are the peers.
    pub(crate) fn follow(&self, peers: impl IntoIterator<Item = NodeId>) {
        let peers: Vec<NodeId> = peers.into_iter().collect();
        for entry in self.entries() {
            entry.listed.store(peers.contains(&entry.node), Relaxed);
        }
        for peer in peers {
            self.add(peer);
        }
    }

    /// Adds a peer that was none before.
    fn add(&self, peer: NodeId) {
        let mut slot = &self.first;
        loop {
            let entry = slot.get_or_init(|| {
                Box::new(Entry {
                    node: peer,
                    listed: AtomicBool::new(true),
                    counters: PeerCounters::default(),
                    next: OnceLock::new(),
                })
            });
            if entry.node == peer {
                return;
            }
            slot = &entry.next;
        }
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        iter::successors(self.first.get(), |entry| entry.next.get()).map(Box::as_ref)
    }

    fn listed(&self) -> impl Iterator<Item = &Entry> {
        self.entries().filter(|entry| entry.listed.load(Relaxed))
    }

    /// How often connections were refused for this reason, either side of the handshake.
    pub fn refused(&self, reason: Refusal) -> u64 {
        self.refusals[reason as usize].get()
    }

    /// What was counted with this peer; `None` for a node that is not one now.
    pub fn peer(&self, peer: NodeId) -> Option<&PeerCounters> {
        let entry = self.listed().find(|entry| entry.node == peer)?;
        Some(&entry.counters)
    }

    /// The peers of now, by number.
    pub fn peers(&self) -> impl Iterator<Item = (NodeId, &PeerCounters)> {
        let mut listed: Vec<_> = self.listed().map(|entry| (entry.node, &entry.counters)).collect();
        listed.sort_unstable_by_key(|(node, _)| *node);
        listed.into_iter()
    }

    pub(crate) fn refuse(&self, reason: Refusal) {
        self.refusals[reason as usize].one();
    }

    /// Also of a node that was a peer: its last frames are lost, and counted, after it was taken off the list.
    pub(crate) fn with(&self, peer: NodeId, count: impl FnOnce(&PeerCounters)) {
        if let Some(entry) = self.entries().find(|entry| entry.node == peer) {
            count(&entry.counters);
        }
    }

    pub(crate) fn sent(&self, peer: NodeId, lane: Lane, bytes: usize) {
        self.with(peer, |c| {
            c.sent_frames[lane.index()].one();
            c.sent_bytes[lane.index()].add(bytes as u64);
        });
    }

    pub(crate) fn received(&self, peer: NodeId, lane: Lane, bytes: usize) {
        self.with(peer, |c| {
            c.received_frames[lane.index()].one();
            c.received_bytes[lane.index()].add(bytes as u64);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_returns_goes_on_where_it_was() {
        let counters = Counters::new([3, 2]);
        let listed = |counters: &Counters| counters.peers().map(|(node, _)| node).collect::<Vec<_>>();
        assert_eq!(listed(&counters), [2, 3]);
        counters.sent(2, Lane::Raft, 10);
        counters.follow([3, 5]);
        assert_eq!(listed(&counters), [3, 5]);
        assert!(counters.peer(2).is_none());
        counters.with(2, |c| c.lost[0].one());
        counters.follow([2, 3]);
        assert_eq!(listed(&counters), [2, 3]);
        let two = counters.peer(2).unwrap();
        assert_eq!((two.sent_bytes[0].get(), two.lost[0].get()), (10, 1));
    }
}
