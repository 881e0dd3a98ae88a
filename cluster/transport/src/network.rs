//! The seam: what a node can do with its peers, whatever carries it.
//!
//! Implement [`Handler`] to receive; hold an `Arc<dyn Network>` to send. Handlers must not block: a reader waits.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::counters::Counters;
use crate::formats::{Format, Formats};
use crate::settings::{Boot, Peer, SettingsError};

/// A node's number in the membership; never used again for another node.
pub type NodeId = u64;

/// A future that can be kept in a collection; the same type as `futures::future::BoxFuture`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Which queue and connection carries a message. Lanes do not delay each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// One-way, in order. When its queue is full the sender is told so and drops: Raft sends again.
    Raft,
    /// Calls and their answers, in no order among each other. Nothing is dropped in silence.
    Ceremony,
    /// One-way, in order, large chunks (snapshots, circuits); use [`Network::send_when_free`].
    Bulk,
}

impl Lane {
    /// Every lane, in the order of [`Lane::index`].
    pub const ALL: [Lane; 3] = [Lane::Raft, Lane::Ceremony, Lane::Bulk];

    /// 0, 1 or 2: the lane's number on the wire and in tables.
    pub const fn index(self) -> usize {
        match self {
            Lane::Raft => 0,
            Lane::Ceremony => 1,
            Lane::Bulk => 2,
        }
    }

    /// The lane with this number on the wire.
    pub fn from_index(index: u8) -> Option<Lane> {
        Lane::ALL.get(usize::from(index)).copied()
    }
}

/// What a node does with what arrives. Called from network tasks: return quickly, hand long work to somebody else.
///
/// `from` is the TLS identity of the sender, whose public key the membership pins; what a payload says about its
/// sender is for the implementer to compare with it.
pub trait Handler: Send + Sync + 'static {
    /// A one-way message on [`Lane::Raft`] or [`Lane::Bulk`]. Each lane of each peer comes in its order, one at a time.
    fn message(&self, from: NodeId, lane: Lane, payload: Bytes);

    /// A call on [`Lane::Ceremony`]; `left` is the caller's remaining time when the frame left it. The future is
    /// dropped when `left` is over or the connection ends: what must be finished is to be spawned.
    fn call(
        &self,
        from: NodeId,
        payload: Bytes,
        left: Duration,
    ) -> BoxFuture<'static, Result<Bytes, Refused>>;

    /// A link came up (`true`: raft messages and calls to the peer are taken) or went down (`false`: one of the two is
    /// not, the other may be for a moment). For one peer the values alternate, beginning with `true`.
    fn link(&self, peer: NodeId, up: bool);

    /// After a connection was lost, the peer's address refused the next one: nobody listens there, its process is
    /// gone. Once for each loss; a peer that is only cut off is never said to be gone.
    fn gone(&self, peer: NodeId);
}

/// Why a handler gave no answer; the code and its meaning are the application's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No room now, another peer may have some; reaches the caller as [`CallError::Busy`].
    #[error("busy")]
    Busy,
    /// A reason of the application's own.
    #[error("refused with code {code}: {detail}")]
    Because {
        /// What a program tells cases apart by.
        code: u16,
        /// For a human; longer than 512 bytes is cut at a character.
        detail: String,
    },
}

/// Why a one-way message was not taken. None of it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// No such peer now, or this node itself.
    #[error("unknown peer")]
    UnknownPeer,
    /// The lane has no connection now.
    #[error("not connected")]
    NotConnected,
    /// The lane's queue is full (counted for the peer).
    #[error("queue full")]
    Full,
    /// The payload is above the lane's bound.
    #[error("message too large")]
    TooLarge,
    /// [`Lane::Ceremony`] takes only calls: a one-way message there would be lost in silence with its connection.
    #[error("the ceremony lane takes only calls")]
    CallsOnly,
    /// [`Network::send_when_free`] found no room in time.
    #[error("no room in time")]
    TimedOut,
    /// The network was shut down.
    #[error("shut down")]
    ShutDown,
}

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No such peer, or no connection now; nothing was sent.
    #[error("not connected")]
    NotConnected,
    /// Too many calls under way, here (nothing was sent) or at the peer (it did not look at the call).
    #[error("busy")]
    Busy,
    /// The payload is above the lane's bound; nothing was sent.
    #[error("call too large")]
    TooLarge,
    /// No answer in time; the outcome is unknown.
    #[error("timed out")]
    TimedOut,
    /// The connection ended, or the peer's handler did, with the call under way; the outcome is unknown.
    #[error("connection closed")]
    Closed,
    /// The peer's handler said no.
    #[error(transparent)]
    Refused(Refused),
}

/// A node's peers, reachable or not. Implemented by [`crate::Transport`] and by the in-memory double.
#[async_trait]
pub trait Network: Send + Sync + 'static {
    /// This node.
    fn node(&self) -> NodeId;

    /// Makes these the peers, all of them; the same list again changes nothing. Returns at once, on any thread.
    ///
    /// A new peer is dialled and accepted from now on. One that is gone loses its connections and what is queued for
    /// it: calls under way end with `Closed`, later sends say `UnknownPeer`, [`Handler::link`] is told `false` if the
    /// link was up, before this returns, and it is not said to be [`Handler::gone`]. (A message that a task was about
    /// to hand over may still come.) A peer with another public key is let go and taken on again with the new one. A
    /// peer with another address keeps its connections; it is dialled there at the next attempt.
    ///
    /// Refuses, and changes nothing, where [`crate::Settings::check`] would. Not to be called from within a
    /// [`Handler`]'s own method.
    fn set_peers(&self, peers: Vec<Peer>) -> Result<(), SettingsError>;

    /// Queues a one-way message on [`Lane::Raft`] or [`Lane::Bulk`] and returns at once.
    fn send(&self, to: NodeId, lane: Lane, payload: Bytes) -> Result<(), SendError>;

    /// As [`Network::send`], but waits for a connection and for room in the queue, `timeout` at most.
    async fn send_when_free(
        &self,
        to: NodeId,
        lane: Lane,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<(), SendError>;

    /// Calls the peer's handler on [`Lane::Ceremony`]. The time left travels with the call.
    async fn call(&self, to: NodeId, payload: Bytes, timeout: Duration) -> Result<Bytes, CallError>;

    /// Whether messages and calls to this peer are taken now (both its raft and its ceremony lane are up).
    fn connected(&self, peer: NodeId) -> bool;

    /// The boot nonce that the peer stated on the connection that is up now; `None` without one. Two values for one
    /// node id mean that its process was restarted in between.
    fn boot_of(&self, peer: NodeId) -> Option<Boot>;

    /// What this node states.
    fn formats(&self) -> Formats;

    /// What the peer stated last, also while no connection is up; `None` for one that has stated nothing in this life of
    /// this node, or is no peer.
    fn formats_of(&self, peer: NodeId) -> Option<Formats>;

    /// The newest format that both sides of the connection for calls speak; `None` without one.
    fn format_with(&self, peer: NodeId) -> Option<Format>;

    /// What happened so far.
    fn counters(&self) -> &Counters;

    /// Ends every connection, waits for the tasks, frees the port. Calls under way end with `Closed`; later ones too.
    async fn shutdown(&self);
}
