//! Who a group's members are, and who they are to become: read from the group's own state, so that every replica knows the
//! same at the same index.
//!
//! A move goes through four stages. *Announced*: the operators' order is in the group's log, the new members are learners,
//! everything is decided by the old ones. *Begun*: a quorum of these has said that all new ones are there; the order is taken back
//! no more. *Joint*: what changes the state needs a quorum of the old members **and** one of the
//! new; keys are born with the new ones and move to them, key by key. *Complete*: every key has; the next configuration of Raft
//! has the new members only, and with it the move is over.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use super::{ReadState, StateError, layout};
use crate::membership::{FIRST, Member, Membership, NewMembers, Pinned};
use crate::operator::{Change, SignedOrder};

/// How far a move has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Ordered; the old members decide alone.
    Announced,
    /// Both decide; keys move.
    Joint,
    /// Every key has moved.
    Complete,
    /// After the first: the old members still decide alone, and there is no way back. Places in the encoding are kept.
    Begun,
}

/// What a group's state says of its members; without it they are those of the genesis statement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembersRecord {
    /// The order that made the members; none: the genesis statement.
    pub current: Option<SignedOrder>,
    /// The order that is being carried out, and how far.
    pub next: Option<(SignedOrder, Stage)>,
    /// The highest number that a node of the cluster ever had, if an order was carried out.
    pub highest: u64,
}

/// Who a group's members are, and who they are to become.
#[derive(Clone, Debug)]
pub struct Roster {
    /// The members.
    pub current: Arc<Membership>,
    /// Those that take their place, and how far that has come.
    pub next: Option<(Arc<Membership>, Stage)>,
    /// The highest number that a node of this group ever had.
    pub highest: u64,
}

impl Roster {
    /// Members that are not to change.
    pub fn stable(current: Arc<Membership>) -> Self {
        let highest = current.members.last().map_or(0, |member| member.node);
        Self {
            current,
            next: None,
            highest,
        }
    }

    /// What it turns into while its change of members is carried out.
    pub fn becomes(&self) -> impl Iterator<Item = Roster> + '_ {
        self.next.iter().flat_map(|(next, _)| {
            let joint = Roster {
                next: Some((next.clone(), Stage::Joint)),
                ..self.clone()
            };
            [joint, Roster::stable(next.clone())]
        })
    }

    /// The list of this number, if it is one of the two.
    pub fn numbered(&self, number: u64) -> Option<&Arc<Membership>> {
        let next = self.next.iter().map(|(next, _)| next);
        std::iter::once(&self.current)
            .chain(next)
            .find(|members| members.index == number)
    }

    /// The number of the last list.
    pub fn last_index(&self) -> u64 {
        self.next
            .as_ref()
            .map_or(self.current.index, |(next, _)| next.index)
    }

    /// The last list that the group has begun to move to, or has come to: there is no way back from it.
    pub fn begun(&self) -> &Arc<Membership> {
        match &self.next {
            Some((next, stage)) if *stage != Stage::Announced => next,
            _ => &self.current,
        }
    }

    /// The members that keys are born with, and move to.
    pub fn births(&self) -> &Arc<Membership> {
        match &self.next {
            Some((next, Stage::Joint | Stage::Complete)) => next,
            _ => &self.current,
        }
    }

    /// The lists of which each must have a quorum for a change of the state.
    pub fn halves(&self) -> impl Iterator<Item = &Arc<Membership>> {
        let joint = match &self.next {
            Some((next, Stage::Joint | Stage::Complete)) => Some(next),
            _ => None,
        };
        std::iter::once(&self.current).chain(joint)
    }

    /// Whether these nodes together decide: a quorum of each half.
    pub fn is_quorum(&self, nodes: &[u64]) -> bool {
        self.halves().all(|half| {
            let agree = half.members.iter().filter(|member| nodes.contains(&member.node));
            agree.count() >= half.quorum()
        })
    }

    /// Whether so many have said no that no quorum is left without them.
    pub fn is_blocked(&self, by: &[u64]) -> bool {
        self.halves().any(|half| {
            let refuse = half.members.iter().filter(|member| by.contains(&member.node));
            refuse.count() > half.members.len() - half.quorum()
        })
    }

    /// Who is asked when the state is to change: the numbers of all members that decide, ascending.
    pub fn deciders(&self) -> Vec<u64> {
        let mut nodes: Vec<u64> = self.halves().flat_map(|half| half.nodes()).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    /// A member that decides.
    pub fn decider(&self, node: u64) -> Option<&Member> {
        self.halves().find_map(|half| half.member(node))
    }

    /// Every member of both lists, whatever the stage.
    pub fn everybody(&self) -> impl Iterator<Item = &Member> {
        let next = self.next.iter().flat_map(|(next, _)| &next.members);
        next.chain(&self.current.members)
    }
}

/// A list, by its digest, and a group.
type OfGroup = ([u8; 32], u32);

/// Every list of members that this node has read: the genesis statement's, and those of orders. What was read once is kept, since
/// the list of an order never changes.
pub struct Lists {
    genesis: Arc<Membership>,
    /// Lists by the order that made them.
    made: RwLock<HashMap<[u8; 32], Arc<Membership>>>,
    /// Of lists in which groups are placed: the part of a group, by the list's digest.
    committees: RwLock<HashMap<OfGroup, Arc<Membership>>>,
    /// The roster of a group whose members have never changed.
    stable: RwLock<HashMap<u32, Arc<Roster>>>,
}

impl Lists {
    /// With the members that the genesis statement names.
    pub fn new(genesis: Arc<Membership>) -> Self {
        Self {
            genesis,
            made: RwLock::default(),
            committees: RwLock::default(),
            stable: RwLock::default(),
        }
    }

    /// The cluster, its operators and all its first members.
    pub fn genesis(&self) -> &Arc<Membership> {
        &self.genesis
    }

    /// What reads a group's state.
    pub fn of_group(self: &Arc<Self>, group: u32) -> Rosters {
        Rosters {
            lists: self.clone(),
            group,
        }
    }

    /// A group's part of a list.
    fn committee(&self, list: &Arc<Membership>, group: u32) -> Arc<Membership> {
        if group == 0 || list.placement.is_none() {
            return list.clone();
        }
        let key = (list.digest(), group);
        if let Some(known) = self.committees.read().get(&key) {
            return known.clone();
        }
        let committee = Arc::new(list.of_group(group));
        self.committees.write().insert(key, committee.clone());
        committee
    }

    fn stable(&self, group: u32) -> Arc<Roster> {
        if let Some(known) = self.stable.read().get(&group) {
            return known.clone();
        }
        let highest = self.genesis.members.last().map_or(0, |member| member.node);
        let roster = Arc::new(Roster {
            highest,
            ..Roster::stable(self.committee(&self.genesis, group))
        });
        self.stable.write().insert(group, roster.clone());
        roster
    }

    /// The members that an order makes; it was verified when it was applied.
    fn made_by(&self, order: &SignedOrder) -> Result<Arc<Membership>, StateError> {
        let Change::Members(new) = &order.order.change else {
            return Err(StateError("an order that makes no members".into()));
        };
        let digest = digest(new);
        if let Some(made) = self.made.read().get(&digest) {
            return Ok(made.clone());
        }
        let members = new.members.iter().map(Member::of).collect::<Option<Vec<_>>>();
        let made = Arc::new(Membership {
            index: new.number,
            members: members.ok_or_else(|| StateError("a member whose key cannot be".into()))?,
            placement: new.placement.clone().map(Arc::new),
            ..(*self.genesis).clone()
        });
        self.made.write().insert(digest, made.clone());
        Ok(made)
    }
}

/// Reads a group's rosters from its states.
#[derive(Clone)]
pub struct Rosters {
    lists: Arc<Lists>,
    group: u32,
}

impl Rosters {
    /// Of group 0, with the members that the genesis statement names.
    pub fn new(genesis: Arc<Membership>) -> Self {
        Arc::new(Lists::new(genesis)).of_group(0)
    }

    /// The cluster, its operators and all its first members.
    pub fn genesis(&self) -> &Arc<Membership> {
        &self.lists.genesis
    }

    /// The group's part of a list of members.
    pub fn place(&self, list: &Arc<Membership>) -> Arc<Membership> {
        self.lists.committee(list, self.group)
    }

    /// The roster of the group whose state this is.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn of(&self, state: &impl ReadState) -> Result<Arc<Roster>, StateError> {
        let stable = || self.lists.stable(self.group);
        let Some(record) = state.record::<MembersRecord>(layout::MEMBERS)? else {
            return Ok(stable());
        };
        let made_by = |order| Ok::<_, StateError>(self.place(&self.lists.made_by(order)?));
        let current = match &record.current {
            Some(order) => made_by(order)?,
            None => stable().current.clone(),
        };
        let next = match &record.next {
            Some((order, stage)) => Some((made_by(order)?, *stage)),
            None => None,
        };
        let highest = record.highest.max(stable().highest);
        Ok(Arc::new(Roster {
            current,
            next,
            highest,
        }))
    }

    /// The group's members by the list of this number, also one that was replaced.
    ///
    /// # Errors
    /// When the state cannot be read, or never had one of this number.
    pub fn numbered(&self, state: &impl ReadState, number: u64) -> Result<Arc<Membership>, StateError> {
        Ok(self.place(&self.list(state, number)?))
    }

    /// The whole list of this number, as operators have signed it.
    ///
    /// # Errors
    /// As [`Rosters::numbered`].
    pub fn list(&self, state: &impl ReadState, number: u64) -> Result<Arc<Membership>, StateError> {
        if number == FIRST {
            return Ok(self.genesis().clone());
        }
        let order: Option<SignedOrder> = state.record(&layout::members(number))?;
        let order = order.ok_or_else(|| StateError(format!("no list of members has number {number}")))?;
        self.lists.made_by(&order)
    }
}

fn digest(new: &NewMembers) -> [u8; 32] {
    use sha2::Digest as _;
    let mut hash = sha2::Sha256::new_with_prefix(b"conclave list of members 1");
    hash.update(new.number.to_be_bytes());
    hash.update(new.replaces.0);
    let members = new.members.iter().map(Pinned::signed_bytes);
    members.for_each(|member| hash.update(member));
    let hash: [u8; 32] = hash.finalize().into();
    let Some(placement) = &new.placement else {
        return hash;
    };
    let placed = sha2::Sha256::new_with_prefix(b"conclave placed list of members 1");
    let placed = placed.chain_update(hash).chain_update(placement.bytes());
    placed.finalize().into()
}
