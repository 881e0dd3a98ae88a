//! The members of a group, with the public keys that their operators pinned, and how one list of them follows another.

pub mod lineage;
pub mod pinned;
pub mod placement;

use std::collections::BTreeSet;
use std::sync::Arc;

use ed25519_dalek::VerifyingKey;
use sha2::{Digest, Sha256};

use crate::config::Hex32;

pub use lineage::Lineage;
pub use pinned::{NewMembers, Pinned};
pub use placement::Placement;

/// A committee has at least so many members ...
pub const FEWEST: usize = 3;
/// ... and at most so many.
pub const MOST: usize = 5;
/// A cluster whose groups are placed has at most so many nodes: all of them vote in group 0.
pub const MOST_NODES: usize = 16;

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

/// What operators have signed: all members, and where groups are placed. And the part of one group in it, its committee, by
/// [`Membership::of_group`]: the members of a group, and of each of its keys in some epoch.
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
    /// Number of Raft groups.
    pub groups: u32,
    /// Who has which group; none: everybody has all. None in a committee of a group other than 0.
    pub placement: Option<Arc<Placement>>,
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
        let mut hash = match &self.placement {
            None => Sha256::new_with_prefix(b"conclave members 1"),
            Some(placement) => {
                let placed = Sha256::new_with_prefix(b"conclave placed members 1");
                placed.chain_update(Sha256::digest(placement.bytes()))
            }
        };
        hash.update(self.cluster);
        hash.update(self.index.to_be_bytes());
        for member in &self.members {
            hash.update(member.pinned().signed_bytes());
        }
        hash.finalize().into()
    }

    /// The members of a group. Group 0 is on all, and knows where the others are.
    pub fn of_group(&self, group: u32) -> Self {
        let nodes = self.placement.as_ref().and_then(|placement| placement.of(group));
        let Some(nodes) = nodes else {
            return self.clone();
        };
        let of_group = self.members.iter().filter(|member| nodes.contains(&member.node));
        Self {
            members: of_group.cloned().collect(),
            placement: None,
            ..self.clone()
        }
    }

    /// The numbers of a group's members, ascending.
    pub fn nodes_of(&self, group: u32) -> Vec<u64> {
        let nodes = self.placement.as_ref().and_then(|placement| placement.of(group));
        nodes.map_or_else(|| self.nodes(), <[u64]>::to_vec)
    }

    /// The members that take these members' place. `known` are those that keep number and keys; `highest` is the highest number
    /// that a node of the cluster ever had.
    ///
    /// # Errors
    /// What is wrong with them.
    fn followed_by<'a>(
        &self,
        new: &NewMembers,
        known: impl Fn(u64) -> Option<&'a Member>,
        highest: u64,
    ) -> Result<Self, &'static str> {
        let members = &new.members;
        match &new.placement {
            None if !(FEWEST..=MOST).contains(&members.len()) => return Err("a group has 3 to 5 members"),
            Some(_) if !(FEWEST..=MOST_NODES).contains(&members.len()) => {
                return Err("a cluster whose groups are placed has 3 to 16 nodes");
            }
            _ => {}
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
        if let Some(placement) = &new.placement {
            placement.check(self.groups, |node| next.iter().any(|member| member.node == node))?;
        }
        Ok(Self {
            index: self.index + 1,
            members: next,
            placement: new.placement.clone().map(Arc::new),
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
            identity: Hex32(self.verifying_key.to_bytes()),
            envelope: Hex32(self.envelope_key),
        }
    }
}
