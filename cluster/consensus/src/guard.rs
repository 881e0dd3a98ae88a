//! The guard before `step`: one hostile message must neither stop a node nor bend its log.
//!
//! raft 0.7 believes its peers: a heartbeat with a commit above the log panics, an append that conflicts below
//! the commit panics, term u64::MAX ends all elections, term 0 passes as a local message. Every message from
//! the network passes [`check`] first; what fails is dropped, counted and names the peer (consensus.md 3).

use crate::ids::NodeId;
use crate::settings::{MAX_FIRST_TERM, MAX_TERM_JUMP};
use protobuf::Message as _;
use raft::StateRole;
use raft::eraftpb::{Message, MessageType, Snapshot};
use std::fmt;

/// Why a frame was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Violation {
    /// Longer than any frame may be.
    TooLong,
    /// Not a frame, or with fields that this build does not know.
    Malformed,
    /// A frame of another cluster.
    Cluster,
    /// A group that this node does not have.
    Group,
    /// The sender is no member of the group.
    NotMember,
    /// The message names another sender than the link does.
    Sender,
    /// The message is for another node.
    Receiver,
    /// A kind of message that no peer may send.
    Kind,
    /// A term of 0, or far above ours.
    Term,
    /// A second leader in one term.
    SecondLeader,
    /// MsgTimeoutNow from somebody who does not lead.
    TimeoutNow,
    /// A heartbeat whose commit is above our log: somebody lost something, or lies.
    HeartbeatCommit,
    /// An append whose entries are not contiguous, or whose terms fall.
    AppendShape,
    /// An append that contradicts what is committed here.
    AppendConflict,
    /// A snapshot with a configuration that no operator's statement allows.
    SnapshotConfiguration,
    /// A snapshot whose data are not here, or are not what it says.
    SnapshotData,
    /// A snapshot of a state that no other member has.
    SnapshotUnvouched,
    /// A response about entries that we never had.
    Response,
    /// A call under another node's name, or out of turn.
    Call,
    /// An attestation that its node has not signed, or about another cluster.
    Attestation,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Violation::TooLong => "too long",
            Violation::Malformed => "malformed",
            Violation::Cluster => "of another cluster",
            Violation::Group => "of an unknown group",
            Violation::NotMember => "from no member of the group",
            Violation::Sender => "under another sender's name",
            Violation::Receiver => "for another node",
            Violation::Kind => "of a kind that no peer may send",
            Violation::Term => "term is 0 or far above ours",
            Violation::SecondLeader => "second leader in one term",
            Violation::TimeoutNow => "timeout-now from somebody who does not lead",
            Violation::HeartbeatCommit => "heartbeat commits above our log",
            Violation::AppendShape => "append is not contiguous or its terms fall",
            Violation::AppendConflict => "append contradicts what is committed",
            Violation::SnapshotConfiguration => "snapshot brings a configuration of its own",
            Violation::SnapshotData => "snapshot without its data",
            Violation::SnapshotUnvouched => "snapshot that no other member vouches for",
            Violation::Response => "response about entries that we never had",
            Violation::Call => "call under another name or out of turn",
            Violation::Attestation => "attestation that its node has not signed",
        })
    }
}

/// What the guard knows of a group.
pub(crate) struct Sight<'a> {
    pub(crate) node: NodeId,
    /// Whether a node is in the group, or in the move that it is making.
    pub(crate) is_member: &'a dyn Fn(NodeId) -> bool,
    /// Whether a node may be one that leads the group.
    pub(crate) may_lead: &'a dyn Fn(NodeId) -> bool,
    /// This node has nothing of the group yet.
    pub(crate) joining: bool,
    pub(crate) term: u64,
    pub(crate) role: StateRole,
    /// 0 when unknown, as in raft.
    pub(crate) leader: NodeId,
    pub(crate) last_index: u64,
    pub(crate) committed: u64,
    /// The term of an entry, `None` outside the log.
    pub(crate) term_at: &'a dyn Fn(u64) -> Option<u64>,
    /// Whether the data of this snapshot are on our disk, whole, with a configuration that is allowed, and others have vouched
    /// for them.
    pub(crate) staged: &'a dyn Fn(&Snapshot) -> bool,
}

/// Checks a message that came over the link of `from`, and takes from it what we do not believe any peer:
/// commit hints of votes, and priorities.
pub(crate) fn check(from: NodeId, message: &mut Message, sight: &Sight<'_>) -> Result<(), Violation> {
    use MessageType::*;
    let kind = message.get_msg_type();
    if message.from != from {
        return Err(Violation::Sender);
    }
    if message.to != sight.node {
        return Err(Violation::Receiver);
    }
    let known = match kind {
        MsgAppend | MsgHeartbeat | MsgSnapshot | MsgTimeoutNow => (sight.may_lead)(from),
        // Only a newcomer may have the longest log when members that have not heard of it are needed for its election.
        MsgRequestVote | MsgRequestPreVote if !sight.joining => (sight.may_lead)(from),
        _ => (sight.is_member)(from),
    };
    if from == sight.node || !known {
        return Err(Violation::NotMember);
    }
    closed(message)?;
    // Term 0 means "local" to raft; a term far ahead would use up the terms. Who joins does not know the terms yet.
    let highest = match sight.joining {
        true => MAX_FIRST_TERM,
        false => sight.term.saturating_add(MAX_TERM_JUMP),
    };
    if message.term == 0 || message.term > highest {
        return Err(Violation::Term);
    }
    match kind {
        MsgAppend | MsgHeartbeat | MsgSnapshot => {
            one_leader(from, message, sight)?;
            // Raft only answers a message of an older term; it reads nothing else of it.
            if message.term >= sight.term {
                match kind {
                    MsgAppend => append(message, sight),
                    MsgHeartbeat => heartbeat(message, sight),
                    _ => snapshot(message, sight),
                }?;
            }
        }
        MsgAppendResponse | MsgHeartbeatResponse => response(message, sight)?,
        MsgRequestVote | MsgRequestPreVote | MsgRequestVoteResponse | MsgRequestPreVoteResponse => {
            // A vote may hint at a commit, and raft would take the word of one peer for it.
            message.commit = 0;
            message.commit_term = 0;
            message.priority = 0;
            message.deprecated_priority = 0;
            if !message.context.is_empty() && message.context.as_ref() != raft::CAMPAIGN_TRANSFER {
                return Err(Violation::Malformed);
            }
        }
        MsgTimeoutNow => {
            if from != sight.leader || message.term != sight.term || sight.role != StateRole::Follower {
                return Err(Violation::TimeoutNow);
            }
        }
        _ => return Err(Violation::Kind),
    }
    Ok(())
}

/// Only the fields that the kind has, and none that this build does not know.
fn closed(message: &Message) -> Result<(), Violation> {
    let unknown = message.get_unknown_fields().fields.is_some()
        || message
            .entries
            .iter()
            .any(|entry| entry.get_unknown_fields().fields.is_some());
    let kind = message.get_msg_type();
    let entries = !message.entries.is_empty() && kind != MessageType::MsgAppend;
    let snapshot = message.has_snapshot() && kind != MessageType::MsgSnapshot;
    if unknown || entries || snapshot || message.context.len() > 64 {
        return Err(Violation::Malformed);
    }
    Ok(())
}

fn one_leader(from: NodeId, message: &Message, sight: &Sight<'_>) -> Result<(), Violation> {
    let other = sight.leader != raft::INVALID_ID && sight.leader != from;
    if message.term == sight.term && (other || sight.role == StateRole::Leader) {
        return Err(Violation::SecondLeader);
    }
    Ok(())
}

fn heartbeat(message: &Message, sight: &Sight<'_>) -> Result<(), Violation> {
    if message.commit > sight.last_index {
        return Err(Violation::HeartbeatCommit);
    }
    Ok(())
}

fn append(message: &Message, sight: &Sight<'_>) -> Result<(), Violation> {
    // Every group starts at index 1, term 1, so nothing precedes that.
    if message.index == 0 || message.log_term == 0 || message.log_term > message.term {
        return Err(Violation::AppendShape);
    }
    let mut before = (message.index, message.log_term);
    for entry in &message.entries {
        let next = before.0.checked_add(1) == Some(entry.index);
        if !next || entry.term < before.1 || entry.term > message.term {
            return Err(Violation::AppendShape);
        }
        before = (entry.index, entry.term);
    }
    let conflicts = |index: u64, term: u64| {
        index <= sight.committed && (sight.term_at)(index).is_some_and(|ours| ours != term)
    };
    if conflicts(message.index, message.log_term)
        || message
            .entries
            .iter()
            .any(|entry| conflicts(entry.index, entry.term))
    {
        return Err(Violation::AppendConflict);
    }
    // Whoever may lead has our committed entries, so terms behind them cannot be lower. (Raft would search
    // the whole log for such a term.)
    let committed_term = (sight.term_at)(sight.committed).unwrap_or(0);
    if message.index >= sight.committed && message.log_term < committed_term {
        return Err(Violation::AppendConflict);
    }
    Ok(())
}

fn snapshot(message: &Message, sight: &Sight<'_>) -> Result<(), Violation> {
    let metadata = message.get_snapshot().get_metadata();
    if metadata.index == 0 || metadata.term == 0 || metadata.term > message.term {
        return Err(Violation::SnapshotData);
    }
    // One that we are past is only answered by raft. At our commit it would install one of another term.
    if metadata.index < sight.committed
        || metadata.index == sight.committed && (sight.term_at)(metadata.index) == Some(metadata.term)
    {
        return Ok(());
    }
    if metadata.index == sight.committed || !(sight.staged)(message.get_snapshot()) {
        return Err(Violation::SnapshotData);
    }
    Ok(())
}

fn response(message: &Message, sight: &Sight<'_>) -> Result<(), Violation> {
    if message.request_snapshot != 0 {
        return Err(Violation::Response);
    }
    let ours = message.term == sight.term && sight.role == StateRole::Leader;
    let furthest = message.index.max(message.commit).max(message.reject_hint);
    if ours && furthest > sight.last_index {
        return Err(Violation::Response);
    }
    Ok(())
}
