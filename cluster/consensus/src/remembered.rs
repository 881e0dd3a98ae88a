//! What this node remembers of its peers' disks, and learns from them about its own.
//!
//! Once a second a node states how far its disk is ([`Attestation`]), and every peer keeps the highest of it. A node
//! that starts asks each peer what it remembers, and takes no message of raft from a peer before that peer has
//! answered: so nobody helps an amnesiac to a vote or an entry who knows better. One valid attestation of an earlier
//! life that the disk falls short of is enough, whoever shows it, since only this node can have signed it.

use crate::attestation::{Attestation, Attestor, Lack, Opened, Position, RolledBack, Signed};
use crate::driver::Driver;
use crate::frame::Call;
use crate::group::Group;
use crate::guard::Violation;
use crate::ids::{GroupId, Millis, NodeId};
use crate::keys;
use crate::records;
use crate::settings::Settings;
use crate::store::{Batch, Store, StoreError};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

/// Calls are of a group on the wire; these are of all and travel under this one.
pub(crate) const OF_ALL: GroupId = GroupId(0);
/// Nodes whose word is read from the disk.
const MAX_KEPT: usize = 4_096;
/// Signatures of one peer that are looked at in a second: an honest one has one or two.
const LOOKS: u32 = 16;

/// See the module.
pub(crate) struct Remembered {
    pub(crate) attestor: Arc<dyn Attestor>,
    /// The highest that each peer stated; of this node itself: what it was shown and falls short of.
    kept: BTreeMap<NodeId, (Signed, Attestation)>,
    /// Kept in memory only, and since when.
    unwritten: BTreeSet<NodeId>,
    unwritten_since: Option<Millis>,
    /// What the disk had when this life began, by group.
    opened: Vec<Opened>,
    /// Peers that have said in this life what they remember.
    answered: BTreeSet<NodeId>,
    asked: BTreeMap<NodeId, Millis>,
    /// What this node stated last.
    stated: Option<(Signed, Attestation)>,
    next_look: Millis,
    next_repeat: Millis,
    /// When a peer's signatures were begun to count, and how many were looked at since.
    looks: BTreeMap<NodeId, (Millis, u32)>,
    pub(crate) rolled_back: Arc<OnceLock<RolledBack>>,
}

impl Remembered {
    /// Reads what the disk has. If that shows the disk itself to be an old copy, the node starts as rolled back.
    pub(crate) fn open<S: Store>(
        store: &S,
        settings: &Settings,
        groups: &BTreeMap<GroupId, Group<S>>,
        attestor: Arc<dyn Attestor>,
    ) -> Result<Self, StoreError> {
        let opened = groups.values().map(|group| Opened {
            term: group.log().hard.term,
            vote: group.log().hard.vote,
            last: group.log().last(),
        });
        let mut remembered = Remembered {
            opened: opened.collect(),
            attestor,
            kept: BTreeMap::new(),
            unwritten: BTreeSet::new(),
            unwritten_since: None,
            answered: BTreeSet::new(),
            asked: BTreeMap::new(),
            stated: None,
            next_look: 0,
            next_repeat: 0,
            looks: BTreeMap::new(),
            rolled_back: Arc::default(),
        };
        let all = keys::all_remembered();
        for (key, value) in store.scan(&all, &keys::after_prefix(&all), MAX_KEPT)? {
            let Some(node) = keys::remembered_node(&key) else {
                continue;
            };
            let signed: Signed = records::decode(&value)?;
            match remembered.read(settings, node, &signed) {
                Ok(attestation) => drop(remembered.kept.insert(node, (signed, attestation))),
                Err(_) => tracing::warn!(node, "what was remembered of a node is not its word any more"),
            }
        }
        if let Some((_, attestation)) = remembered.kept.get(&settings.node)
            && let Some(found) = remembered.shortfall(groups, attestation, settings.node)
        {
            Self::tell(&found);
            let _ = remembered.rolled_back.set(found);
        }
        Ok(remembered)
    }

    fn read(&self, settings: &Settings, node: NodeId, signed: &Signed) -> Result<Attestation, Violation> {
        signed.read(&settings.cluster, node, settings.groups, &*self.attestor)
    }

    /// Whether a peer has said what it remembers, so that its messages of raft may be taken.
    pub(crate) fn has_answered(&self, peer: NodeId) -> bool {
        self.answered.contains(&peer)
    }

    /// What the disk of this start falls short of, shown by a peer.
    fn shortfall<S: Store>(
        &self,
        groups: &BTreeMap<GroupId, Group<S>>,
        attestation: &Attestation,
        shown_by: NodeId,
    ) -> Option<RolledBack> {
        let positions = attestation.positions.iter().zip(&self.opened);
        let mut lacks = groups
            .iter()
            .zip(positions)
            .filter_map(|((id, group), (stated, opened))| {
                let term_at = |index| raft::Storage::term(group.log(), index).ok();
                opened.lacks(*id, stated, term_at)
            });
        let lack = lacks.next().or_else(|| {
            let of_mark = self.attestor.lacks(&attestation.mark);
            of_mark.map(Lack::Mark)
        });
        lack.map(|lack| RolledBack { shown_by, lack })
    }

    fn tell(found: &RolledBack) {
        tracing::error!(reason = %found, advice = RolledBack::ADVICE, "this node takes no part in anything");
    }

    fn keep(&mut self, now: Millis, node: NodeId, signed: Signed, attestation: Attestation) {
        self.kept.insert(node, (signed, attestation));
        self.unwritten.insert(node);
        self.unwritten_since.get_or_insert(now);
    }

    /// Whether one more signature of this peer is looked at now.
    fn may_look(&mut self, now: Millis, peer: NodeId) -> bool {
        let (since, looks) = self.looks.entry(peer).or_insert((now, 0));
        if now >= *since + 1_000 {
            (*since, *looks) = (now, 0);
        }
        *looks += 1;
        *looks <= LOOKS
    }

    /// Adds what is not on the disk yet to a batch that is synced anyway, or has it synced when it has waited for
    /// half of the time between two attestations.
    pub(crate) fn write(
        &mut self,
        now: Millis,
        settings: &Settings,
        batch: &mut Batch,
        sync: &mut bool,
    ) -> Result<(), StoreError> {
        let waited = self.unwritten_since.map(|since| now.saturating_sub(since));
        if waited.is_none_or(|waited| !*sync && waited < settings.attestation_ms / 2) {
            return Ok(());
        }
        for node in std::mem::take(&mut self.unwritten) {
            if let Some((signed, _)) = self.kept.get(&node) {
                batch.put(keys::remembered(node), records::encode(signed)?);
            }
        }
        self.unwritten_since = None;
        *sync = true;
        Ok(())
    }
}

impl<S: Store> Driver<S> {
    /// Why this node takes no part in anything, if its disk was found to be an older copy.
    pub fn rolled_back(&self) -> Option<&RolledBack> {
        self.remembered.rolled_back.get()
    }

    /// Between turns everything that a group has in its log and hard state is written, and entries, terms and votes
    /// are synced. The commit may not be, but what it covers is.
    fn positions(&self) -> Vec<Position> {
        let position = |group: &Group<S>| {
            let log = group.log();
            let committed = log.hard.commit.min(log.last());
            Position {
                term: log.hard.term,
                vote: log.hard.vote,
                committed,
                committed_term: raft::Storage::term(log, committed).unwrap_or(0),
            }
        };
        self.groups.values().map(position).collect()
    }

    /// States how far this node is, to one peer or to all that may hear it.
    fn attest(&mut self, now: Millis, only_to: Option<NodeId>) {
        if self.rolled_back().is_some() {
            return;
        }
        let attestation = Attestation {
            cluster: self.settings.cluster,
            node: self.settings.node,
            boot: self.boot,
            positions: self.positions(),
            mark: self.remembered.attestor.mark(),
        };
        let changed = self
            .remembered
            .stated
            .as_ref()
            .is_none_or(|(_, stated)| *stated != attestation);
        if !changed && only_to.is_none() && now < self.remembered.next_repeat {
            return;
        }
        if changed {
            match Signed::new(&attestation, &*self.remembered.attestor) {
                Ok(signed) => self.remembered.stated = Some((signed, attestation)),
                // Only an allocation could fail here.
                Err(error) => return tracing::error!(%error, "an attestation could not be encoded"),
            }
        }
        if only_to.is_none() {
            self.remembered.next_repeat = now + self.settings.statement_ms;
        }
        let Some((signed, _)) = &self.remembered.stated else {
            return;
        };
        let call = Call::Attest(signed.clone());
        // Not before a peer has answered: what it remembers of an earlier life must not be replaced unseen.
        for peer in self
            .remembered
            .answered
            .iter()
            .filter(|peer| only_to.is_none_or(|to| to == **peer))
        {
            self.out.call(&self.settings.cluster, OF_ALL, *peer, &call);
        }
    }

    /// States how far this node is before it stops.
    pub(crate) fn take_leave(&mut self, now: Millis) {
        self.attest(now, None);
    }

    fn ask(&mut self, now: Millis, peer: NodeId) {
        self.remembered.asked.insert(peer, now);
        let call = Call::Recall { boot: self.boot };
        self.out.call(&self.settings.cluster, OF_ALL, peer, &call);
    }

    /// On a tick: asks who has not answered, and states what has changed.
    pub(crate) fn drive_memory(&mut self, now: Millis) {
        let again = self.settings.read_retry_ms;
        let silent: Vec<NodeId> = self
            .peers()
            .into_iter()
            .filter(|peer| !self.remembered.has_answered(*peer))
            .filter(|peer| {
                let asked = self.remembered.asked.get(peer);
                asked.is_none_or(|at| now >= at + again)
            })
            .collect();
        for peer in silent {
            self.ask(now, peer);
        }
        if now >= self.remembered.next_look {
            self.remembered.next_look = now + self.settings.attestation_ms;
            self.attest(now, None);
        }
    }

    /// A link came up.
    pub(crate) fn compare_memories(&mut self, now: Millis, peer: NodeId) {
        self.ask(now, peer);
        self.attest(now, Some(peer));
    }

    /// A leader believes that this node has more than it has: either it lies, or this node lost something. The frame
    /// is dropped; whether this node lost something its members know best.
    pub(crate) fn doubt(&mut self, now: Millis) {
        let idle = |at: &Millis| now >= at + 1_000;
        let peers: Vec<NodeId> = self
            .peers()
            .into_iter()
            .filter(|peer| self.remembered.asked.get(peer).is_none_or(idle))
            .collect();
        for peer in peers {
            self.ask(now, peer);
        }
    }

    /// Everybody whom this node may talk to: its peers, and all that its groups know.
    pub(crate) fn peers(&self) -> BTreeSet<NodeId> {
        let of_groups = self.groups.values().flat_map(Group::acquaintances);
        let mut peers: BTreeSet<NodeId> = self.settings.peers.iter().copied().chain(of_groups).collect();
        peers.remove(&self.settings.node);
        peers
    }

    /// A peer states how far it is.
    pub(crate) fn peer_attests(
        &mut self,
        now: Millis,
        from: NodeId,
        signed: Signed,
    ) -> Result<(), Violation> {
        let known = self.remembered.kept.get(&from);
        if known.is_some_and(|(known, _)| *known == signed) || !self.remembered.may_look(now, from) {
            return Ok(());
        }
        let attestation = self.remembered.read(&self.settings, from, &signed)?;
        let known = self.remembered.kept.get(&from);
        if known.is_none_or(|(_, known)| attestation.covers(known)) {
            self.remembered.keep(now, from, signed, attestation);
        } else {
            // It has stated more than that. If it lost it, it is told before it does harm; if it merely does not
            // know yet how far it was committed, it is not hurt.
            self.recall(from, attestation.boot);
        }
        Ok(())
    }

    /// A peer asks what this node remembers of it.
    pub(crate) fn recall(&mut self, peer: NodeId, boot: u64) {
        let kept = self.remembered.kept.get(&peer);
        let attestation = kept.map(|(signed, _)| signed.clone());
        let call = Call::Recalled { boot, attestation };
        self.out.call(&self.settings.cluster, OF_ALL, peer, &call);
    }

    /// A peer shows what it remembers of this node, or says that it remembers nothing.
    pub(crate) fn peer_recalls(
        &mut self,
        now: Millis,
        from: NodeId,
        boot: u64,
        signed: Option<Signed>,
    ) -> Result<(), Violation> {
        if let Some(signed) = signed {
            if !self.remembered.may_look(now, from) {
                return Ok(());
            }
            let node = self.settings.node;
            let attestation = self.remembered.read(&self.settings, node, &signed)?;
            // This life cannot be behind itself.
            if attestation.boot != self.boot
                && self.rolled_back().is_none()
                && let Some(found) = self.remembered.shortfall(&self.groups, &attestation, from)
            {
                self.roll_back(now, found, signed, attestation);
            }
        }
        // What was answered to an earlier life may have been answered before that life's last word arrived.
        if boot == self.boot && self.remembered.answered.insert(from) {
            self.attest(now, Some(from));
        }
        Ok(())
    }

    /// From now on this node neither votes nor appends nor leads nor contributes. It goes on remembering its peers,
    /// and keeps the proof, so that it knows at its next start what it is even if nobody tells it.
    fn roll_back(&mut self, now: Millis, found: RolledBack, signed: Signed, attestation: Attestation) {
        Remembered::tell(&found);
        let _ = self.remembered.rolled_back.set(found);
        let node = self.settings.node;
        self.remembered.keep(now, node, signed, attestation);
        self.leave_groups(now);
    }
}
