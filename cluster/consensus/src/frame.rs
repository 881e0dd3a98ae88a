//! Frames between nodes: format, cluster, group, then either a message of raft or a call of our own.
//!
//! Proposals and ReadIndex travel as calls, never as raft's own MsgPropose and MsgReadIndex, which any peer
//! could fill with a configuration change or somebody else's context.

use crate::attestation::Signed;
use crate::guard::Violation;
use crate::ids::{GroupId, NodeId};
use crate::settings::MAX_FRAME;
use crate::snapshots::Offer;
use crate::states::Stated;
use crate::store::{Pair, StoreError};
use protobuf::Message as _;
use raft::eraftpb::Message;
use serde::{Deserialize, Serialize};

const FORMAT: u8 = 1;
const RAFT: u8 = 0;
const CALL: u8 = 1;
const HEADER: usize = 1 + 32 + 4 + 1;

/// Names one call of one process of one node, for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct CallId {
    pub(crate) node: NodeId,
    /// Drawn at each start of the node, so that contexts of two lives never collide.
    pub(crate) boot: u64,
    pub(crate) counter: u64,
}

impl CallId {
    /// The bytes that raft carries as an entry's or a read's context.
    pub(crate) fn to_context(self) -> Vec<u8> {
        let numbers = [self.node, self.boot, self.counter];
        numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
    }

    pub(crate) fn from_context(context: &[u8]) -> Option<Self> {
        let bytes: &[u8; 24] = context.try_into().ok()?;
        let mut numbers = bytes
            .as_chunks::<8>()
            .0
            .iter()
            .map(|number| u64::from_be_bytes(*number));
        Some(CallId {
            node: numbers.next()?,
            boot: numbers.next()?,
            counter: numbers.next()?,
        })
    }
}

/// Why a leader does not take a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Refusal {
    NotLeader,
    Busy,
}

/// A call between nodes. The variants' order is the wire format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Call {
    Propose {
        id: CallId,
        entry: Vec<u8>,
    },
    ProposeRefused {
        id: CallId,
        refusal: Refusal,
    },
    ReadIndex {
        id: CallId,
    },
    ReadIndexed {
        id: CallId,
        index: u64,
    },
    /// The last restricting entry that the sender applied, and its state at the last mark and now, if it may speak of it.
    Statement {
        restricting: u64,
        states: Option<[Stated; 2]>,
    },
    Show {
        index: u64,
    },
    /// The entry, or a later restricting one if that was truncated; `None` if the peer has neither.
    Shown {
        asked: u64,
        entry: Option<(u64, Vec<u8>)>,
    },
    SnapshotOffer(Offer),
    SnapshotPull {
        id: u64,
        sequence: u64,
    },
    /// `hash` with the last chunk: over all pairs of all chunks.
    SnapshotChunk {
        id: u64,
        sequence: u64,
        pairs: Vec<Pair>,
        hash: Option<[u8; 32]>,
    },
    SnapshotStaged {
        id: u64,
    },
    /// Make a statement now: the sender has a state that nobody but its leader has vouched for.
    AskStatement,
    /// What did you have at this index? The sender has been offered a state of it.
    AskState {
        index: u64,
    },
    /// What the sender had at that index; `None` if it does not know any more.
    StateAt {
        index: u64,
        stated: Option<[u8; 32]>,
    },
    /// How far the sender's disk is, in all groups.
    Attest(Signed),
    /// What do you remember of the sender? It asks in this life.
    Recall {
        boot: u64,
    },
    /// The highest attestation of the asking node, and the life that it asked in.
    Recalled {
        boot: u64,
        attestation: Option<Signed>,
    },
}

/// What a frame carries.
#[derive(Debug)]
pub(crate) enum Body {
    Raft(Message),
    Call(Call),
}

fn header(cluster: &[u8; 32], group: GroupId, kind: u8) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER + 128);
    frame.push(FORMAT);
    frame.extend_from_slice(cluster);
    frame.extend_from_slice(&group.0.to_be_bytes());
    frame.push(kind);
    frame
}

pub(crate) fn raft(cluster: &[u8; 32], group: GroupId, message: &Message) -> Result<Vec<u8>, StoreError> {
    let mut frame = header(cluster, group, RAFT);
    message
        .write_to_vec(&mut frame)
        .map_err(|error| StoreError(error.into()))?;
    Ok(frame)
}

pub(crate) fn call(cluster: &[u8; 32], group: GroupId, call: &Call) -> Result<Vec<u8>, StoreError> {
    let frame = header(cluster, group, CALL);
    postcard::to_extend(call, frame).map_err(|error| StoreError(error.into()))
}

/// Reads a frame of this cluster, whole, with nothing in it that this build does not know.
pub(crate) fn parse(cluster: &[u8; 32], frame: &[u8]) -> Result<(GroupId, Body), Violation> {
    if frame.len() > MAX_FRAME {
        return Err(Violation::TooLong);
    }
    let (head, body) = frame.split_at_checked(HEADER).ok_or(Violation::Malformed)?;
    if head[0] != FORMAT {
        return Err(Violation::Malformed);
    }
    if head[1..33] != cluster[..] {
        return Err(Violation::Cluster);
    }
    let group = u32::from_be_bytes(head[33..37].try_into().map_err(|_| Violation::Malformed)?);
    let body = match head[37] {
        RAFT => Body::Raft(Message::parse_from_bytes(body).map_err(|_| Violation::Malformed)?),
        CALL => match postcard::take_from_bytes(body) {
            Ok((call, [])) => Body::Call(call),
            _ => return Err(Violation::Malformed),
        },
        _ => return Err(Violation::Malformed),
    };
    Ok((GroupId(group), body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_frame_survives_the_way_and_another_clusters_does_not() {
        let sent = Call::ReadIndex {
            id: CallId {
                node: 1,
                boot: 2,
                counter: 3,
            },
        };
        let frame = call(&[7; 32], GroupId(9), &sent).unwrap();
        match parse(&[7; 32], &frame).unwrap() {
            (GroupId(9), Body::Call(got)) => assert_eq!(got, sent),
            other => panic!("{other:?}"),
        }
        assert_eq!(parse(&[8; 32], &frame).unwrap_err(), Violation::Cluster);
        let mut longer = frame.clone();
        longer.push(0);
        assert_eq!(parse(&[7; 32], &longer).unwrap_err(), Violation::Malformed);
    }

    #[test]
    fn a_context_is_read_back_and_nothing_else_is() {
        let id = CallId {
            node: 1,
            boot: u64::MAX,
            counter: 3,
        };
        assert_eq!(CallId::from_context(&id.to_context()), Some(id));
        assert_eq!(CallId::from_context(&[0; 23]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(kind in 0u8..3, body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut frame = header(&[7; 32], GroupId(0), kind);
            frame.extend_from_slice(&body);
            let _ = parse(&[7; 32], &frame);
            let _ = parse(&[7; 32], &body);
        }
    }
}
