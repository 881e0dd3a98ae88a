//! The members of the cluster, with the public keys that their operator pinned.

use ed25519_dalek::VerifyingKey;

/// One node, as pinned by the operator's statement.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its Raft id.
    pub node: u64,
    /// Its share index, from 1.
    pub index: u16,
    /// Host and port of its peer listener.
    pub address: String,
    /// Certificate, endorsements, ceremony messages.
    pub verifying_key: VerifyingKey,
    /// Envelopes (X25519).
    pub envelope_key: [u8; 32],
}

/// The committee: every group has the same members until membership changes are offered.
#[derive(Clone, Debug)]
pub struct Membership {
    /// The cluster.
    pub cluster: [u8; 32],
    /// Index of the configuration entry that this is.
    pub index: u64,
    /// Members by ascending node id.
    pub members: Vec<Member>,
    /// Who may order changes of the cluster.
    pub operators: Vec<VerifyingKey>,
    /// How many of them must sign an order.
    pub operator_threshold: usize,
}

/// What who makes a cluster or a keystore should know of symmetric keys in a committee of so many: each has up to four holders,
/// and a use needs three of them.
pub fn symmetric_notice(members: usize) -> Option<&'static str> {
    (members <= SYMMETRIC_NEEDED).then_some(
        "HMAC and wrapping keys stop while one of the three nodes is down; signing and key agreement go on. With a fourth \
         node they go on too.",
    )
}

/// Holders that a use of a symmetric key needs.
pub const SYMMETRIC_NEEDED: usize = 3;

/// The majority of so many members.
pub fn quorum_of(members: usize) -> usize {
    members / 2 + 1
}

impl Membership {
    /// The majority: 2 of 3, 3 of 4, 3 of 5.
    pub fn quorum(&self) -> usize {
        quorum_of(self.members.len())
    }

    /// The member with this node id.
    pub fn member(&self, node: u64) -> Option<&Member> {
        self.members.iter().find(|member| member.node == node)
    }

    /// The member with this share index.
    pub fn by_index(&self, index: u16) -> Option<&Member> {
        self.members.iter().find(|member| member.index == index)
    }
}
