//! What a node is told about its cluster and its bounds. The defaults are those of consensus.md 3 and 5.

use crate::ids::{GroupId, NodeId};
use crate::sabotage::Sabotage;
use std::collections::BTreeMap;

/// An entry may be this long; more is refused before it is proposed.
pub const MAX_ENTRY: usize = 512 * 1024;
/// A key and its value in a group's state may be this long together, so that a snapshot's chunk fits a frame; an
/// entry that writes more stops its group.
pub const MAX_PAIR: usize = 1024 * 1024;
/// A frame between nodes may be this long; more is dropped before it is parsed.
pub const MAX_FRAME: usize = 2 * 1024 * 1024;
/// How far above ours the term of a message may be.
pub(crate) const MAX_TERM_JUMP: u64 = 1_000;
/// The highest term that a node believes that joins and knows none: far from the last one, and from what elections reach.
pub(crate) const MAX_FIRST_TERM: u64 = 1 << 32;

/// Settings of one node. Equal on all nodes except for `node`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The cluster's identity; frames and disks of another cluster are refused.
    pub cluster: [u8; 32],
    /// This node.
    pub node: NodeId,
    /// The voters that every group began with, but those in `placed`.
    pub voters: Vec<NodeId>,
    /// The groups that began on some of them only, each with its voters. A node that is none of them has an empty group in its
    /// place, as one that joins: it campaigns in it for nothing and speaks about it to nobody.
    pub placed: BTreeMap<GroupId, Vec<NodeId>>,
    /// Everybody whom this node may talk to beside the members of its groups: the nodes that an operator's statement
    /// names. A group takes a leader's messages from them, since a node that was away does not know who has joined
    /// meanwhile. Changed at run time by [`crate::Consensus::set_peers`].
    pub peers: Vec<NodeId>,
    /// Number of groups, 0 to groups-1.
    pub groups: u32,
    /// Length of a tick, milliseconds.
    pub tick_ms: u64,
    /// Ticks between heartbeats.
    pub heartbeat_ticks: usize,
    /// Ticks without a leader before an election; randomized up to twice this.
    pub election_ticks: usize,
    /// Proposals of this node on their way, per group.
    pub max_proposals: usize,
    /// Bytes of proposals of this node on their way, per group.
    pub max_proposal_bytes: usize,
    /// Decisions waiting for pending entries, per group; above it they get `behind`.
    pub max_waiters: usize,
    /// A log longer than this many applied entries is truncated...
    pub truncate_above: u64,
    /// ... to this many, so that a peer that was away a moment needs no snapshot.
    pub keep_entries: u64,
    /// Bytes of keys and values in one snapshot chunk, before its last pair.
    pub chunk_bytes: usize,
    /// Frames and local calls waiting for the store thread; above it frames are dropped, calls get busy.
    pub inbox: usize,
    /// Bytes of the frames waiting for the store thread.
    pub inbox_bytes: usize,
    /// Silence after which a proposal is sent again, milliseconds.
    pub retry_ms: u64,
    /// Silence after which a ReadIndex is asked again, milliseconds.
    pub read_retry_ms: u64,
    /// How long a holder may go without a direct sign of a leader, milliseconds.
    pub fence_ms: u64,
    /// Time between statements to peers, milliseconds.
    pub statement_ms: u64,
    /// How long a holder may be behind a peer's statement, milliseconds.
    pub statement_grace_ms: u64,
    /// Time between attestations to peers of how far the disk is, milliseconds.
    pub attestation_ms: u64,
    /// Believe a state that a leader sends without the word of others: for a cluster whose other members are lost.
    pub believe_leaders: bool,
    /// A bug put in on purpose; `None` outside the simulator's own tests.
    pub sabotage: Option<Sabotage>,
}

impl Settings {
    /// The voters that a group began with.
    pub fn voters_of(&self, group: GroupId) -> &[NodeId] {
        self.placed.get(&group).unwrap_or(&self.voters)
    }

    /// The defaults for this cluster: 16 groups, 25 ms ticks, elections after 0.5 to 1 s.
    pub fn new(cluster: [u8; 32], node: NodeId, voters: Vec<NodeId>) -> Self {
        Settings {
            cluster,
            node,
            peers: voters.clone(),
            placed: BTreeMap::new(),
            voters,
            groups: 16,
            tick_ms: 25,
            heartbeat_ticks: 4,
            election_ticks: 20,
            max_proposals: 256,
            max_proposal_bytes: 16 * 1024 * 1024,
            max_waiters: 1_024,
            truncate_above: 8_192,
            keep_entries: 2_048,
            chunk_bytes: 256 * 1024,
            inbox: 16_384,
            inbox_bytes: 64 * 1024 * 1024,
            retry_ms: 300,
            read_retry_ms: 100,
            fence_ms: 10_000,
            statement_ms: 5_000,
            statement_grace_ms: 2_000,
            attestation_ms: 1_000,
            believe_leaders: false,
            sabotage: None,
        }
    }
}
