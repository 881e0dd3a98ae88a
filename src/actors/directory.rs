//! Everybody whom some group counts, or will count, among its members: whom this node links to, and whose signatures it
//! knows. Kept from the groups' states, and written anew when one of them changes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conclave_consensus::{GroupId, View};
use conclave_transport::Peer;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use super::coordinator::outside;
use super::parts::Parts;
use super::wire::Abstention;
use crate::identifier::LocalId;
use crate::keystore::{KeyRecord, Roster, StateError};
use crate::membership::{Member, Membership};

/// How often the groups' states are looked at when nobody says that one has changed.
const LOOK: Duration = Duration::from_secs(1);
/// Who is a member no longer is linked to for this long, to hear so.
const FAREWELL: Duration = Duration::from_secs(600);

/// Members by number, shared with whoever has to know a signature.
#[derive(Clone, Default)]
pub struct Directory {
    members: Arc<RwLock<BTreeMap<u64, Member>>>,
    /// Those that are no members any more, since when.
    gone: Arc<Mutex<BTreeMap<u64, Instant>>>,
    /// What leaders offered this node and nobody has vouched for yet names these, by the operators' signatures: they are
    /// linked to so that they can be asked.
    offered: Arc<Mutex<BTreeMap<GroupId, Arc<Roster>>>>,
    changed: Arc<Notify>,
}

impl Directory {
    /// With those that are known before any state is read.
    pub fn new<'a>(members: impl IntoIterator<Item = &'a Member>) -> Self {
        let members = members.into_iter().map(|member| (member.node, member.clone()));
        Self {
            members: Arc::new(RwLock::new(members.collect())),
            gone: Arc::default(),
            offered: Arc::default(),
            changed: Arc::default(),
        }
    }

    /// The member with this number.
    pub fn member(&self, node: u64) -> Option<Member> {
        self.members.read().get(&node).cloned()
    }

    /// The member with this share index.
    pub fn by_index(&self, index: u16) -> Option<Member> {
        let members = self.members.read();
        members.values().find(|member| member.index == index).cloned()
    }

    /// All, by rising number.
    pub fn all(&self) -> Vec<Member> {
        self.members.read().values().cloned().collect()
    }

    /// A group's state may have changed.
    pub fn look(&self) {
        self.changed.notify_one();
    }

    /// A leader offers a state with these members, which the operators have ordered.
    pub fn offered(&self, group: GroupId, roster: Arc<Roster>) {
        self.offered.lock().insert(group, roster);
        self.look();
    }

    /// Those of the offered members of a group that its own state does not know of.
    fn offered_beyond(&self, group: GroupId, own: Option<&Roster>) -> Option<Arc<Roster>> {
        let mut offered = self.offered.lock();
        let behind = offered.get(&group)?.last_index() <= own.map_or(0, Roster::last_index);
        match behind {
            true => offered.remove(&group).and(None),
            false => offered.get(&group).cloned(),
        }
    }

    /// Takes everybody's list in place of the one before, and keeps who went for a little while; whether it is another one.
    fn replace(&self, mut members: BTreeMap<u64, Member>, now: Instant) -> bool {
        let mut known = self.members.write();
        let mut gone = self.gone.lock();
        gone.retain(|node, _| known.contains_key(node) && !members.contains_key(node));
        for (node, member) in known.iter() {
            if !members.contains_key(node) {
                let since = *gone.entry(*node).or_insert(now);
                if now.saturating_duration_since(since) < FAREWELL {
                    members.insert(*node, member.clone());
                }
            }
        }
        let other = *known != members;
        *known = members;
        other
    }
}

/// Keeps the directory, and with it the links.
pub async fn keep(parts: Arc<Parts>) {
    loop {
        refresh(&parts);
        outside::look(&parts).await;
        let _ = tokio::time::timeout(LOOK, parts.directory.changed.notified()).await;
    }
}

/// Reads every group's members once.
pub(crate) fn refresh(parts: &Parts) {
    let mut members = BTreeMap::new();
    let mut whole = true;
    for group in (0..parts.rules.groups).map(GroupId) {
        // Of a group that is on other nodes nothing is here, or what was when this node left it; group 0 has everybody.
        if parts.is_outside(group) {
            continue;
        }
        // Nothing of a group is here before its first snapshot.
        let own = parts.roster(group).ok();
        whole &= own.is_some();
        let offered = parts.directory.offered_beyond(group, own.as_deref());
        for member in own.iter().chain(&offered).flat_map(|roster| roster.everybody()) {
            members.entry(member.node).or_insert_with(|| member.clone());
        }
    }
    if !whole || !members.contains_key(&parts.node) {
        // Whoever joins knows from its orders whom to link to before it has any state.
        for member in &parts.introduced {
            members.entry(member.node).or_insert_with(|| member.clone());
        }
    }
    if !parts.directory.replace(members, Instant::now()) {
        return;
    }
    let everybody = parts.directory.all();
    tracing::info!(members = ?everybody.iter().map(|member| member.node).collect::<Vec<_>>(), "the members of the cluster");
    let others = everybody.into_iter().filter(|member| member.node != parts.node);
    let others: Vec<Peer> = others.map(|member| peer_of(&member, &parts.addresses)).collect();
    parts
        .consensus
        .set_peers(others.iter().map(|peer| peer.node).collect());
    if let Err(error) = parts.network.set_peers(others) {
        tracing::error!(%error, "the links to the members cannot be made");
    }
}

/// How a member is linked to; `addresses` are this node's own.
pub fn peer_of(member: &Member, addresses: &BTreeMap<u64, String>) -> Peer {
    Peer {
        node: member.node,
        address: addresses.get(&member.node).unwrap_or(&member.address).clone(),
        public_key: member.verifying_key.to_bytes(),
    }
}

impl Parts {
    /// The cluster's id.
    pub fn cluster(&self) -> &[u8; 32] {
        &self.rosters.genesis().cluster
    }

    /// A node that is a member somewhere, or will be.
    pub fn member(&self, node: u64) -> Option<Member> {
        self.directory.member(node)
    }

    /// Who the members of a group are, as far as this node has applied.
    ///
    /// # Errors
    /// [`Abstention::Behind`] where the state cannot be read.
    pub fn roster(&self, group: GroupId) -> Result<Arc<Roster>, Abstention> {
        let view = self.consensus.view(group).map_err(|_| Abstention::Behind)?;
        self.roster_in(&view).map_err(|_| Abstention::Behind)
    }

    /// Who the members of a group are in this state of it.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn roster_in(&self, view: &View) -> Result<Arc<Roster>, StateError> {
        self.rosters.of_group(view.group().0).of(view)
    }

    /// Its members by the list of this number, also one that was replaced.
    ///
    /// # Errors
    /// When the state cannot be read, or never had one of this number.
    pub fn numbered_in(&self, view: &View, number: u64) -> Result<Arc<Membership>, StateError> {
        self.rosters.of_group(view.group().0).numbered(view, number)
    }

    /// Who the members of a keystore's group are.
    ///
    /// # Errors
    /// As [`Parts::roster`].
    pub fn roster_of(&self, keystore: &LocalId) -> Result<Arc<Roster>, Abstention> {
        self.roster(self.group_of(keystore))
    }

    /// Who hold the shares of a key.
    ///
    /// # Errors
    /// As [`Parts::roster`].
    pub fn committee(&self, keystore: &LocalId, record: &KeyRecord) -> Result<Arc<Membership>, Abstention> {
        self.numbered(self.group_of(keystore), record.committee)
    }

    /// The list of members of this number in a group.
    ///
    /// # Errors
    /// As [`Parts::roster`].
    pub fn numbered(&self, group: GroupId, number: u64) -> Result<Arc<Membership>, Abstention> {
        let view = self.consensus.view(group).map_err(|_| Abstention::Behind)?;
        self.numbered_in(&view, number).map_err(|_| Abstention::Behind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roster(index: u64) -> Arc<Roster> {
        let members = Membership {
            index,
            ..Membership::default()
        };
        Arc::new(Roster::stable(Arc::new(members)))
    }

    #[test]
    fn members_that_were_offered_are_kept_until_the_groups_own_state_has_them() {
        let directory = Directory::default();
        let (group, other) = (GroupId(3), GroupId(4));
        let beyond = |own: Option<u64>| {
            let own = own.map(roster);
            let offered = directory.offered_beyond(group, own.as_deref());
            offered.map(|roster| roster.last_index())
        };
        assert_eq!(beyond(Some(1)), None);
        directory.offered(group, roster(3));
        assert!(directory.offered_beyond(other, None).is_none());
        assert_eq!(beyond(None), Some(3));
        assert_eq!(beyond(Some(1)), Some(3));
        assert_eq!(beyond(Some(2)), Some(3));
        assert_eq!(beyond(Some(3)), None);
        assert_eq!(beyond(Some(1)), None, "and not again");
    }
}
