//! What this node and its peers say of a group's state at an index, and whether a state that a leader sent is believed.
//!
//! A leader that sends a snapshot could send another state than the one that a majority has agreed on, with the true
//! history's name on it. So who installed one computes the [digest](crate::digest) of what it got, asks the other voters
//! what they have at an index that it knows too, and neither decides, contributes nor says anything about its state before so
//! many have said the same that one of them is honest. From then on, as ever, two different statements about one index stop
//! contributions, unless a majority has what this node has: one node's lie stops nobody.

use crate::application::Overlay;
use crate::digest::{DIGEST_BYTES, StateDigest};
use crate::group::{Context, Group};
use crate::ids::{GroupId, NodeId};
use crate::keys;
use crate::records::{AppliedRecord, FIRST_INDEX};
use crate::snapshots::Installed;
use crate::store::{Batch, Reading, Store, StoreError};
use crate::turn::MARK_EVERY;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::Ordering;

/// An index, and what a node says of its state there.
pub(crate) type Stated = (u64, [u8; 32]);

/// Statements at multiples of [`MARK_EVERY`] that are kept, and at all indexes.
const KEPT: usize = 256;
/// Pairs that are read at a time.
const PAGE: usize = 1024;

/// A state that one node gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) by: NodeId,
    /// What it contained.
    pub(crate) index: u64,
}

/// The digest of a group's state, and what is said about it.
#[derive(Default)]
pub(crate) struct States {
    digest: StateDigest,
    given: Option<Given>,
    /// What this node has at the last multiples of [`MARK_EVERY`].
    marks: VecDeque<Stated>,
    /// What this node has at the last indexes.
    recent: VecDeque<Stated>,
    /// What a peer has at an index that this node has not come to.
    expected: BTreeMap<NodeId, Stated>,
    /// Whether the last comparable statement of a peer was what this node has.
    agrees: BTreeMap<NodeId, bool>,
    /// Peers whose first state was put there from a backup, as this node's was not.
    restored: BTreeSet<NodeId>,
    /// Peers that speak of their state: others have vouched for it.
    speaking: BTreeSet<NodeId>,
}

impl States {
    /// What the disk has of them; computed from the state if that is nothing.
    pub(crate) fn open(
        from: &dyn Reading,
        group: GroupId,
        generation: u64,
        applied: &AppliedRecord,
    ) -> Result<Self, StoreError> {
        let mut states = match from.get(&keys::digest(group))? {
            Some(bytes) => {
                States::decode(&bytes).ok_or_else(|| StoreError::message(format!("{group} has no digest")))?
            }
            None => States {
                digest: digest_of(from, group, generation)?,
                ..States::default()
            },
        };
        states.marks.push_back(applied.mark);
        states
            .recent
            .push_back((applied.index, states.now(group, applied)));
        Ok(states)
    }

    /// The record: the digest, then who gave the state and up to which index, if that is all that speaks for it.
    fn encode(&self) -> Vec<u8> {
        let mut bytes = self.digest.to_bytes();
        if let Some(given) = self.given {
            bytes.extend_from_slice(&given.by.to_be_bytes());
            bytes.extend_from_slice(&given.index.to_be_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (digest, rest) = bytes.split_at_checked(DIGEST_BYTES)?;
        let given = match rest {
            [] => None,
            _ => {
                let (by, index) = rest.split_first_chunk()?;
                Some(Given {
                    by: u64::from_be_bytes(*by),
                    index: u64::from_be_bytes(index.try_into().ok()?),
                })
            }
        };
        Some(States {
            digest: StateDigest::from_bytes(digest)?,
            given,
            ..States::default()
        })
    }

    fn now(&self, group: GroupId, applied: &AppliedRecord) -> [u8; 32] {
        self.digest
            .stated(group, (applied.index, applied.term), &applied.chain)
    }

    /// What this node had at an index.
    pub(crate) fn at(&self, index: u64) -> Option<&[u8; 32]> {
        let marks = self.marks.iter().filter(|(at, _)| *at > FIRST_INDEX);
        let mut all = self.recent.iter().rev().chain(marks);
        all.find(|(at, _)| *at == index).map(|(_, stated)| stated)
    }

    /// A group's first state, which only one that was restored has a mark of.
    fn first(&self) -> Option<&Stated> {
        self.marks.front().filter(|(at, _)| *at <= FIRST_INDEX)
    }

    /// Brings the digest up to date with an entry's writes; `before` reads the state as the entry found it.
    pub(crate) fn follow(
        &mut self,
        writes: &Overlay,
        before: impl Fn(&[u8]) -> Result<Option<Vec<u8>>, StoreError>,
    ) -> Result<(), StoreError> {
        for (key, value) in writes {
            let old = before(key)?;
            if old == *value {
                continue;
            }
            if let Some(old) = old {
                self.digest.remove(key, &old);
            }
            if let Some(value) = value {
                self.digest.add(key, value);
            }
        }
        Ok(())
    }

    /// Who gave this state, if nobody else has vouched for it.
    pub(crate) fn unvouched(&self) -> Option<Given> {
        self.given
    }

    /// Whether others have vouched for the state of a peer, by its own word.
    pub(crate) fn speaks(&self, peer: NodeId) -> bool {
        self.speaking.contains(&peer)
    }

    /// Peers whose last comparable state was not ours.
    pub(crate) fn differing(&self) -> Vec<NodeId> {
        let differing = self.agrees.iter().filter(|(_, agrees)| !**agrees);
        differing.map(|(peer, _)| *peer).collect()
    }

    /// Forgets all nodes but those.
    pub(crate) fn retain(&mut self, those: impl Fn(NodeId) -> bool) {
        self.expected.retain(|node, _| those(*node));
        self.agrees.retain(|node, _| those(*node));
        self.restored.retain(|node| those(*node));
        self.speaking.retain(|node| those(*node));
    }

    fn remember(&mut self, stated: Stated) {
        let keep = |list: &mut VecDeque<Stated>| {
            list.push_back(stated);
            if list.len() > KEPT {
                list.pop_front();
            }
        };
        keep(&mut self.recent);
        if stated.0.is_multiple_of(MARK_EVERY) {
            keep(&mut self.marks);
        }
    }

    /// Whether a peer's mark at the beginning is what this node's is, while both have none that is later.
    fn compare_first(&mut self, from: NodeId, mark: Stated) -> Option<bool> {
        let ours = *self.first()?;
        match (ours.0, mark.0) {
            (0, 0) => None,
            (0, FIRST_INDEX) => {
                self.restored.insert(from);
                Some(false)
            }
            (FIRST_INDEX, 0 | FIRST_INDEX) => Some(ours == mark),
            _ => None,
        }
    }

    /// Whether a peer's statement is what this node has; none if that cannot be told (yet).
    fn compare(&mut self, from: NodeId, (index, stated): Stated, applied: u64) -> Option<bool> {
        match self.at(index) {
            _ if index < FIRST_INDEX => None,
            Some(ours) => Some(*ours == stated),
            None => {
                // The first of them, or who is behind for longer than a peer's pause never comes to one.
                if index > applied {
                    let first = self.expected.entry(from).or_insert((index, stated));
                    if first.0 <= applied {
                        *first = (index, stated);
                    }
                }
                None
            }
        }
    }
}

fn digest_of(from: &dyn Reading, group: GroupId, generation: u64) -> Result<StateDigest, StoreError> {
    let prefix = keys::state(group, generation);
    let end = keys::after_prefix(&prefix);
    let (mut digest, mut next) = (StateDigest::default(), prefix.clone());
    loop {
        let page = from.scan(&next, &end, PAGE)?;
        for (key, value) in &page {
            digest.add(&key[prefix.len()..], value);
        }
        match page.last() {
            Some((last, _)) if page.len() == PAGE => next = keys::after(last),
            _ => return Ok(digest),
        }
    }
}

impl<S: Store> Group<S> {
    /// Puts into the batch what has to go with the applied record.
    pub(crate) fn put_digest(&self, batch: &mut Batch) {
        batch.put(keys::digest(self.id), self.states.encode());
    }

    /// The state is the one of an installed snapshot.
    pub(crate) fn state_given(&mut self, context: &Context<'_>, installed: Installed) {
        let index = self.applied.index;
        let by = installed.from;
        self.states = States {
            digest: installed.digest,
            given: Some(Given { by, index })
                .filter(|_| !installed.vouched && !context.settings.believe_leaders),
            ..States::default()
        };
        let now = self.states.now(self.id, &self.applied);
        // The marks of others are not comparable with a history that this node has not seen.
        self.applied.mark = (index, now);
        self.states.marks.push_back(self.applied.mark);
        self.states.recent.push_back((index, now));
        self.show_states();
    }

    /// Asks the other members to speak of their states, if one is needed.
    pub(crate) fn ask_for_statements(&self, context: &mut Context<'_>) {
        if self.states.given.is_none() {
            return;
        }
        for peer in self.configuration().nodes() {
            if peer != context.settings.node {
                context.call(self.id, peer, &crate::frame::Call::AskStatement);
            }
        }
    }

    /// What this node says to peers of its state: nothing before others have vouched for it.
    pub(crate) fn stated(&self) -> Option<[Stated; 2]> {
        let now = self.states.recent.back().copied()?;
        self.states.given.is_none().then_some([self.applied.mark, now])
    }

    /// An entry was applied.
    pub(crate) fn note_state(&mut self, context: &mut Context<'_>, batch: &mut Batch) {
        let applied = &mut self.applied;
        let now = (applied.index, self.states.now(self.id, applied));
        if applied.index.is_multiple_of(MARK_EVERY) {
            applied.mark = now;
        }
        self.states.remember(now);
        if self.states.expected.is_empty() {
            return;
        }
        let due = std::mem::take(&mut self.states.expected);
        for (peer, stated) in due {
            if stated.0 >= now.0 {
                self.compare_states(context, peer, stated, batch);
            }
        }
    }

    /// A peer says what it has, or that it does not know whether it has the right state.
    pub(crate) fn peer_states_its_state(
        &mut self,
        context: &mut Context<'_>,
        from: NodeId,
        states: Option<[Stated; 2]>,
        batch: &mut Batch,
    ) {
        let Some(states) = states else {
            self.states.speaking.remove(&from);
            return;
        };
        self.states.speaking.insert(from);
        let [mark, now] = states;
        match self.states.compare_first(from, mark) {
            Some(agrees) => self.judge_statement(context, (from, mark.0), agrees, batch),
            None if mark.0 > FIRST_INDEX => self.compare_states(context, from, mark, batch),
            None => {}
        }
        self.compare_states(context, from, now, batch);
    }

    fn compare_states(&mut self, context: &mut Context<'_>, from: NodeId, stated: Stated, batch: &mut Batch) {
        if let Some(agrees) = self.states.compare(from, stated, self.applied.index) {
            self.judge_statement(context, (from, stated.0), agrees, batch);
        }
    }

    fn judge_statement(
        &mut self,
        context: &mut Context<'_>,
        (from, index): (NodeId, u64),
        agrees: bool,
        batch: &mut Batch,
    ) {
        if !agrees {
            let given = self.states.given.map(|given| given.by);
            tracing::error!(group = %self.id, peer = from, index, sent_by = given, "a peer has another state at the same index");
        }
        self.states.agrees.insert(from, agrees);
        self.judge_divergence();
        // Whoever gave it has said so by that; it says nothing new by saying it again.
        let given = self.states.given;
        let agreeing = |node| {
            let agrees = self.states.agrees.get(&node).copied().unwrap_or(false);
            agrees || given.is_some_and(|given| given.by == node)
        };
        if given.is_some() && agrees && self.configuration().has_honest(agreeing) {
            tracing::info!(group = %self.id, index = self.applied.index, "others vouch for the state that the leader sent");
            self.states.given = None;
            self.put_digest(batch);
            self.show_states();
            for peer in self.configuration().nodes() {
                self.state_to(context, peer);
            }
        }
    }

    /// Whether peers have another state, and no majority has ours: in a joint configuration, of both sets of voters. Where
    /// somebody began with a restored state, nothing goes on without it, whatever a majority began with.
    pub(crate) fn judge_divergence(&self) {
        let agrees = &self.states.agrees;
        let own = self.raw.raft.id;
        let with_us = |node| node == own || agrees.get(&node).copied().unwrap_or(false);
        let forgotten = !self.states.restored.is_empty() && self.applied.mark.0 == 0;
        let differs = agrees.values().any(|agrees| !agrees);
        self.board.diverged.store(
            differs && !self.configuration().is_majority(with_us) || forgotten,
            Ordering::Release,
        );
    }

    /// Shows readers whether the state is more than one node's word.
    pub(crate) fn show_states(&self) {
        let unvouched = self.states.given.is_some();
        self.board.unvouched.store(unvouched, Ordering::Release);
    }
}
