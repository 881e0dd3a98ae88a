//! The names of things: nodes, groups, and the part of a group's state that an entry restricts.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A node's Raft id. Never 0, never used again once its disk is lost (consensus.md 4).
pub type NodeId = u64;

/// Milliseconds of a monotonic clock since some moment of this process; never wall time.
pub type Millis = u64;

/// One Raft group. Group 0 holds what concerns the whole cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupId(pub u32);

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group {}", self.0)
    }
}

/// The part of a group's state that an entry restricts: for Conclave, a keystore's 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Scope(pub [u8; 16]);

/// What an entry can turn from an allowed use into a refused one (consensus.md 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Restricts {
    /// Nobody has to wait for this entry (generating a key, an empty entry).
    Nothing,
    /// Decisions about this scope wait for it.
    Scope(Scope),
    /// Every decision of the group waits for it (configuration; entries that cannot be read).
    Everything,
}

impl Restricts {
    /// Whether a decision about `scope` has to wait for an entry that restricts this.
    pub fn binds(self, scope: Scope) -> bool {
        match self {
            Restricts::Nothing => false,
            Restricts::Scope(own) => own == scope,
            Restricts::Everything => true,
        }
    }
}
