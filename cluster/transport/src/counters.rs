//! What the network counted since its start. Values only grow (gauges are named so); read them for metrics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

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
    /// The hello is malformed, of another protocol version, or names a lane that does not exist.
    Hello,
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
    pub const ALL: [Refusal; 11] = [
        Refusal::Handshake,
        Refusal::SlowHandshake,
        Refusal::TooManyHandshakes,
        Refusal::Certificate,
        Refusal::Expired,
        Refusal::PublicKey,
        Refusal::Hello,
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
    peers: BTreeMap<NodeId, PeerCounters>,
}

impl Counters {
    /// Zero for everything, with these peers.
    pub fn new(peers: impl IntoIterator<Item = NodeId>) -> Self {
        Self {
            peers: peers
                .into_iter()
                .map(|peer| (peer, PeerCounters::default()))
                .collect(),
            ..Self::default()
        }
    }

    /// How often connections were refused for this reason, either side of the handshake.
    pub fn refused(&self, reason: Refusal) -> u64 {
        self.refusals[reason as usize].get()
    }

    /// What was counted with this peer; `None` for a node that is not one.
    pub fn peer(&self, peer: NodeId) -> Option<&PeerCounters> {
        self.peers.get(&peer)
    }

    /// The peers.
    pub fn peers(&self) -> impl Iterator<Item = (NodeId, &PeerCounters)> {
        self.peers.iter().map(|(node, counters)| (*node, counters))
    }

    pub(crate) fn refuse(&self, reason: Refusal) {
        self.refusals[reason as usize].one();
    }

    pub(crate) fn with(&self, peer: NodeId, count: impl FnOnce(&PeerCounters)) {
        if let Some(counters) = self.peers.get(&peer) {
            count(counters);
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
