//! The members of a group, with the public keys that their operators pinned, and how one list of them follows another.

pub mod beginning;
pub mod lineage;
pub mod roster;

use std::collections::BTreeSet;

use ed25519_dalek::VerifyingKey;
use sha2::{Digest, Sha256};

use crate::provision::genesis::Member as Pinned;

pub use lineage::Lineage;
pub use roster::{Roster, Rosters, Stage};

/// A committee has at least so many members ...
pub const FEWEST: usize = 3;
/// ... and at most so many.
pub const MOST: usize = 5;

/// One node, as pinned by an operators' statement.
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// The number of the members that the genesis statement names.
pub const FIRST: u64 = 1;

/// A committee: the members of a group, and of each of its keys in some epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// The cluster.
    pub cluster: [u8; 32],
    /// Counts the lists of members of a group: [`FIRST`] is that of the genesis statement.
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

    /// Their numbers, ascending.
    pub fn nodes(&self) -> Vec<u64> {
        self.members.iter().map(|member| member.node).collect()
    }

    /// The member with this node id.
    pub fn member(&self, node: u64) -> Option<&Member> {
        self.members.iter().find(|member| member.node == node)
    }

    /// The member with this share index.
    pub fn by_index(&self, index: u16) -> Option<&Member> {
        self.members.iter().find(|member| member.index == index)
    }

    /// A hash over all of it that an order to replace these members names.
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new_with_prefix(b"conclave members 1");
        hash.update(self.cluster);
        hash.update(self.index.to_be_bytes());
        for member in &self.members {
            hash.update(pinned_bytes(&member.pinned()));
        }
        hash.finalize().into()
    }

    /// The members that take these members' place. `known` are those that keep number and keys; `highest` is the highest number
    /// that a node of the group ever had.
    ///
    /// # Errors
    /// What is wrong with them.
    fn followed_by<'a>(
        &self,
        members: &[Pinned],
        known: impl Fn(u64) -> Option<&'a Member>,
        highest: u64,
    ) -> Result<Self, &'static str> {
        if !(FEWEST..=MOST).contains(&members.len()) {
            return Err("a group has 3 to 5 members");
        }
        if !members.is_sorted_by(|one, next| one.node < next.node) {
            return Err("members are listed once, by rising number");
        }
        let mut keys = BTreeSet::new();
        let mut next = Vec::with_capacity(members.len());
        for pinned in members {
            let member = Member::of(pinned).ok_or("a member whose number or key cannot be")?;
            let before = known(member.node);
            let keys_of = |member: &Member| (member.verifying_key, member.envelope_key);
            match before.map(keys_of) {
                Some(same) if same != keys_of(&member) => {
                    return Err("a member that stays keeps its keys: a new machine is a new node");
                }
                None if member.node <= highest => {
                    return Err("a new node takes a number that no node had before");
                }
                _ => {}
            }
            if !keys.insert(member.verifying_key.to_bytes()) || !keys.insert(member.envelope_key) {
                return Err("no key may appear twice");
            }
            next.push(member);
        }
        Ok(Self {
            index: self.index + 1,
            members: next,
            ..self.clone()
        })
    }
}

impl Member {
    /// As an operators' statement has it; none if its number or its key cannot be.
    pub fn of(pinned: &Pinned) -> Option<Self> {
        let verifying_key = VerifyingKey::from_bytes(&pinned.identity.0).ok()?;
        let index = u16::try_from(pinned.node).ok().filter(|index| *index > 0)?;
        (!verifying_key.is_weak()).then(|| Self {
            node: pinned.node,
            index,
            address: pinned.peer.clone(),
            verifying_key,
            envelope_key: pinned.envelope.0,
        })
    }

    /// As an operators' statement has it.
    pub fn pinned(&self) -> Pinned {
        Pinned {
            node: self.node,
            peer: self.address.clone(),
            identity: crate::config::Hex32(self.verifying_key.to_bytes()),
            envelope: crate::config::Hex32(self.envelope_key),
        }
    }
}

/// One member as operators sign it: its number, its address with the length before it, its keys.
pub(crate) fn pinned_bytes(member: &Pinned) -> Vec<u8> {
    let mut bytes = member.node.to_be_bytes().to_vec();
    bytes.extend_from_slice(&(member.peer.len() as u64).to_be_bytes());
    bytes.extend_from_slice(member.peer.as_bytes());
    bytes.extend_from_slice(&member.identity.0);
    bytes.extend_from_slice(&member.envelope.0);
    bytes
}
