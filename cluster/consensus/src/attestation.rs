//! A node's signed word of how far its disk is. Peers keep it and show it to the node when it starts again: a
//! disk that has less than its own node once signed is an older copy (consensus.md 4).
//!
//! What is stated is synced first and can never be taken back on the same disk, whatever peers do: term and vote
//! of the hard state, and the last committed entry. The log's end beyond it is not stated: a new leader may cut it
//! by right, a corrupt one without.
//!
//! The signature is the node's own, so a peer that shows it proves it, and one that lies has nothing to show.

use crate::guard::Violation;
use crate::ids::{GroupId, NodeId};
use crate::records;
use crate::store::StoreError;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Before the encoded attestation in what is signed.
const PREFIX: &[u8] = b"conclave attestation 1\0";

/// Something else on a node's disk that only grows, such as a chain of records: how far, and a hash of it there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Never falls.
    pub number: u64,
    /// Of everything up to there.
    pub hash: [u8; 32],
}

/// The nodes' signatures, and what else of this node's disk its peers are to remember.
pub trait Attestor: Send + Sync + 'static {
    /// This node's signature over these bytes, which no other message of it begins with. 64 bytes, as two halves.
    fn sign(&self, message: &[u8]) -> [[u8; 32]; 2];

    /// Whether this member has signed these bytes.
    fn is_signed(&self, by: NodeId, message: &[u8], signature: &[[u8; 32]; 2]) -> bool;

    /// A mark that is on this node's disk for good. Called about once a second.
    fn mark(&self) -> Mark;

    /// What this node's disk lacked when the node started of a mark that it stated in an earlier life, if
    /// anything: for the operator.
    fn lacks(&self, stated: &Mark) -> Option<String>;
}

/// How far one group is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    pub(crate) term: u64,
    /// Whom the node voted for in that term; 0 for nobody.
    pub(crate) vote: NodeId,
    /// Index and term of the last entry that is in the log and known to be committed.
    pub(crate) committed: u64,
    pub(crate) committed_term: u64,
}

/// All groups of a node, by their numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attestation {
    pub(crate) cluster: [u8; 32],
    pub(crate) node: NodeId,
    /// The life of the node in which it was made.
    pub(crate) boot: u64,
    pub(crate) positions: Vec<Position>,
    pub(crate) mark: Mark,
}

impl Attestation {
    /// Whether this one says at least as much as `other` of the same node, so that it may stand in its place.
    pub(crate) fn covers(&self, other: &Attestation) -> bool {
        let covers = |ours: &Position, theirs: &Position| {
            let vote = theirs.vote == 0 || theirs.vote == ours.vote;
            let term = ours.term > theirs.term || (ours.term == theirs.term && vote);
            term && ours.committed >= theirs.committed
        };
        self.mark.number >= other.mark.number
            && self.positions.len() == other.positions.len()
            && self
                .positions
                .iter()
                .zip(&other.positions)
                .all(|(ours, theirs)| covers(ours, theirs))
    }
}

/// An attestation with its signature, as it travels and is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Signed {
    body: Vec<u8>,
    signature: [[u8; 32]; 2],
}

fn message(body: &[u8]) -> Vec<u8> {
    [PREFIX, body].concat()
}

impl Signed {
    pub(crate) fn new(attestation: &Attestation, attestor: &dyn Attestor) -> Result<Self, StoreError> {
        let body = records::encode(attestation)?;
        let signature = attestor.sign(&message(&body));
        Ok(Signed { body, signature })
    }

    /// What `node` says in it, if it is that node's word about this cluster and so many groups.
    pub(crate) fn read(
        &self,
        cluster: &[u8; 32],
        node: NodeId,
        groups: u32,
        attestor: &dyn Attestor,
    ) -> Result<Attestation, Violation> {
        if !attestor.is_signed(node, &message(&self.body), &self.signature) {
            return Err(Violation::Attestation);
        }
        let attestation: Attestation = records::decode(&self.body).map_err(|_| Violation::Attestation)?;
        let fits = attestation.cluster == *cluster
            && attestation.node == node
            && u32::try_from(attestation.positions.len()) == Ok(groups);
        if fits {
            Ok(attestation)
        } else {
            Err(Violation::Attestation)
        }
    }
}

/// What the disk had of a group when the node started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opened {
    pub(crate) term: u64,
    pub(crate) vote: NodeId,
    pub(crate) last: u64,
}

impl Opened {
    /// What is missing of a position that this node stated in an earlier life. `term_at`: of an entry of the
    /// log, `None` where it was truncated because it is applied.
    pub(crate) fn lacks(
        &self,
        group: GroupId,
        stated: &Position,
        term_at: impl Fn(u64) -> Option<u64>,
    ) -> Option<Lack> {
        if self.term < stated.term {
            return Some(Lack::Term {
                group,
                stated: stated.term,
                found: self.term,
            });
        }
        if self.term == stated.term && stated.vote != 0 && self.vote != stated.vote {
            return Some(Lack::Vote {
                group,
                term: stated.term,
            });
        }
        // An entry is synced before it is known as committed, the knowledge later: so it is the log that counts.
        if self.last < stated.committed {
            return Some(Lack::Entries {
                group,
                stated: stated.committed,
                found: self.last,
            });
        }
        let other = term_at(stated.committed).is_some_and(|term| term != stated.committed_term);
        other.then_some(Lack::Entry {
            group,
            index: stated.committed,
        })
    }
}

/// What a disk lacks that its node has signed for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    /// The term of a group is lower.
    Term {
        /// The group.
        group: GroupId,
        /// What the node stated.
        stated: u64,
        /// What its disk had at the start.
        found: u64,
    },
    /// A vote is gone.
    Vote {
        /// The group.
        group: GroupId,
        /// The term in which it was cast.
        term: u64,
    },
    /// The log of a group ends before entries that the node knew as committed.
    Entries {
        /// The group.
        group: GroupId,
        /// Index of the last that the node stated.
        stated: u64,
        /// Where its log ended at the start.
        found: u64,
    },
    /// The log has another entry in the place of a committed one.
    Entry {
        /// The group.
        group: GroupId,
        /// The index.
        index: u64,
    },
    /// What [`Attestor::lacks`] says.
    Mark(String),
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lack::Term { group, stated, found } => {
                write!(f, "{group} was in term {stated} and is in term {found}")
            }
            Lack::Vote { group, term } => write!(f, "the vote of {group} in term {term} is gone"),
            Lack::Entries { group, stated, found } => {
                write!(f, "the log of {group} had entry {stated} and ends at {found}")
            }
            Lack::Entry { group, index } => {
                write!(f, "the log of {group} has another entry at {index}")
            }
            Lack::Mark(what) => f.write_str(what),
        }
    }
}

/// This node runs on an older copy of its disk: it takes no part in anything until it is given the newest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolledBack {
    /// The member that showed this node's own signature; the node itself if it was shown in an earlier life.
    pub shown_by: NodeId,
    /// What is missing.
    pub lack: Lack,
}

impl RolledBack {
    /// What the operator has to do.
    pub const ADVICE: &'static str = "stop this node and start it with its newest data directory; if that is lost, leave it \
         stopped: it may return only under a new node id, never from a copy";
}

impl fmt::Display for RolledBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "rolled back: this node's disk is older than what it has signed for: {} (shown by node {})",
            self.lack, self.shown_by
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const G: GroupId = GroupId(3);

    fn position(term: u64, vote: NodeId, committed: u64, committed_term: u64) -> Position {
        Position {
            term,
            vote,
            committed,
            committed_term,
        }
    }

    fn lack(term: u64, vote: NodeId, last: u64, stated: &Position) -> Option<Lack> {
        // Entries up to 5 are truncated; those from 10 on are of term 6.
        let term_at = |index| match index {
            0..=5 => None,
            6..=9 => Some(4),
            _ => Some(6),
        };
        Opened { term, vote, last }.lacks(G, stated, term_at)
    }

    #[test]
    fn less_of_anything_is_less() {
        let stated = position(7, 2, 10, 6);
        assert_eq!(lack(7, 2, 10, &stated), None);
        let lower = Lack::Term {
            group: G,
            stated: 7,
            found: 6,
        };
        assert_eq!(lack(6, 2, 99, &stated), Some(lower));
        let vote = Some(Lack::Vote { group: G, term: 7 });
        assert_eq!(lack(7, 0, 10, &stated), vote);
        assert_eq!(lack(7, 3, 10, &stated), vote);
        let entries = |found| Lack::Entries {
            group: G,
            stated: 10,
            found,
        };
        assert_eq!(lack(7, 2, 9, &stated), Some(entries(9)));
        assert_eq!(lack(8, 0, 9, &stated), Some(entries(9)), "in a later term too");
        let other = Some(Lack::Entry { group: G, index: 10 });
        assert_eq!(lack(7, 2, 12, &position(7, 2, 10, 5)), other);
    }

    #[test]
    fn what_a_disk_of_its_own_may_come_to_is_not_less() {
        // A later term with another vote or none; a longer log; a truncated one.
        let stated = position(7, 2, 10, 6);
        assert_eq!(lack(8, 3, 10, &stated), None);
        assert_eq!(lack(8, 0, 40, &stated), None);
        assert_eq!(
            lack(7, 1, 10, &position(7, 0, 10, 6)),
            None,
            "it voted after it stated"
        );
        assert_eq!(lack(7, 2, 10, &position(7, 2, 5, 1)), None);
    }

    #[test]
    fn one_stands_in_the_place_of_another_only_if_it_says_as_much() {
        let attestation = |positions: &[Position], number| Attestation {
            cluster: [7; 32],
            node: 1,
            boot: 1,
            positions: positions.to_vec(),
            mark: Mark {
                number,
                hash: [0; 32],
            },
        };
        let first = attestation(&[position(7, 2, 10, 6), position(3, 0, 4, 3)], 5);
        let covers = |one: Position, two: Position, number| attestation(&[one, two], number).covers(&first);
        assert!(covers(position(7, 2, 10, 6), position(3, 0, 4, 3), 5));
        assert!(covers(position(8, 0, 10, 6), position(3, 1, 4, 3), 6));
        assert!(!covers(position(8, 0, 9, 6), position(3, 0, 4, 3), 5));
        assert!(!covers(position(7, 0, 10, 6), position(3, 0, 4, 3), 5));
        assert!(!covers(position(9, 0, 99, 9), position(2, 0, 4, 3), 5));
        assert!(!covers(position(9, 0, 99, 9), position(9, 0, 99, 9), 4));
        assert!(!attestation(&[position(9, 0, 99, 9)], 9).covers(&first));
    }
}
