//! The names of things in the store.

/// Names one share of this node and says what it is for. A key has one share per session of its making; which session
/// is live is in the replicated state, not here.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShareId {
    /// The keystore's id.
    pub keystore: [u8; 16],
    /// The key's id.
    pub key: [u8; 16],
    /// The ceremony that made the share.
    pub session: [u8; 32],
    /// The key's WebKMS type or any other name of it; at most 255 bytes.
    pub key_type: String,
    /// The key's epoch.
    pub epoch: u64,
}

/// An envelope that this node keeps for a member until the member confirms its share. It is encrypted to the member:
/// this store neither reads nor seals it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptEnvelope {
    /// The member's index.
    pub member: u16,
    /// The envelope as its dealer sent it.
    pub bytes: Vec<u8>,
}

/// An envelope that waits for its member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenEnvelope {
    /// The share that it belongs to, by this node's name of it.
    pub id: ShareId,
    /// The envelope as its dealer sent it; several dealers' envelopes for one member are the caller's to join.
    pub bytes: Vec<u8>,
}

/// A share that is in the store, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Session {
    /// Its name.
    pub id: ShareId,
    /// The ceremony's start, in milliseconds of Unix time, by the coordinator's clock.
    pub started_ms: u64,
}

/// The node that a store belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) cluster: [u8; 32],
    pub(crate) node: u64,
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "node {} of cluster ", self.node)?;
        self.cluster
            .iter()
            .take(8)
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
