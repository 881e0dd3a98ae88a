//! What a driver wants done: frames to send, callers to answer, snapshot data to read beside the loop.

use crate::frame::{self, Call};
use crate::ids::{GroupId, NodeId};
use crate::snapshot_read::SnapshotRead;
use crate::store::StoreError;
use raft::eraftpb::Message;

/// An applied proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Index at which this node applied it.
    pub index: u64,
    /// What [`crate::Application::apply`] answered here.
    pub result: Vec<u8>,
}

/// Why a proposal has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// A bound was reached; the entry was not proposed.
    #[error("too many proposals are on their way in {0}")]
    Busy(GroupId),
    /// No leader was known until the deadline; the entry was not proposed.
    #[error("{0} had no leader until the deadline")]
    NoLeader(GroupId),
    /// The entry may have been applied, or may still be.
    #[error("the outcome of a proposal in {0} is unknown")]
    OutcomeUnknown(GroupId),
    /// Longer than an entry may be; it was not proposed.
    #[error("the entry is longer than an entry may be")]
    TooLong,
    /// No such group here.
    #[error("{0} is not on this node")]
    NoGroup(GroupId),
    /// The node stops; as far as it knows the outcome is open.
    #[error("the node is stopping")]
    Stopping,
}

/// No leader answered a ReadIndex until the deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no leader of {0} confirmed the read until the deadline")]
pub struct NoLeader(pub GroupId);

/// An answer to a local caller, by the ticket that it gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Of a proposal.
    Proposed {
        /// The caller's.
        ticket: u64,
        /// Applied on this node, or not.
        result: Result<Applied, ProposeError>,
    },
    /// Of a ReadIndex; the index is applied on this node.
    Read {
        /// The caller's.
        ticket: u64,
        /// The confirmed index.
        result: Result<u64, NoLeader>,
    },
}

/// Everything that a driver queued since it was last asked.
#[derive(Default)]
pub struct Output {
    /// Frames for the raft lane: in order, may be dropped.
    pub messages: Vec<(NodeId, Vec<u8>)>,
    /// Frames for the bulk lane: large, may be dropped.
    pub bulk: Vec<(NodeId, Vec<u8>)>,
    /// Answers.
    pub replies: Vec<Reply>,
    /// Snapshot data to read, beside the loop; each comes back by [`crate::Driver::chunk_read`].
    pub reads: Vec<SnapshotRead>,
}

impl Output {
    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.bulk.is_empty() && self.replies.is_empty() && self.reads.is_empty()
    }

    pub(crate) fn raft(
        &mut self,
        cluster: &[u8; 32],
        group: GroupId,
        message: &Message,
    ) -> Result<(), StoreError> {
        self.messages
            .push((message.to, frame::raft(cluster, group, message)?));
        Ok(())
    }

    pub(crate) fn call(&mut self, cluster: &[u8; 32], group: GroupId, to: NodeId, call: &Call) {
        match frame::call(cluster, group, call) {
            Ok(frame) if matches!(call, Call::SnapshotChunk { .. }) => self.bulk.push((to, frame)),
            Ok(frame) => self.messages.push((to, frame)),
            // Only an allocation could fail here; the call is as good as lost on the way.
            Err(error) => tracing::error!(%group, to, %error, "a call could not be encoded"),
        }
    }
}
