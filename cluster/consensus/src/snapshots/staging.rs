//! The receiver's side of a snapshot: what a leader offers takes the place of nothing before others have said that it is theirs.
//!
//! Nobody proves to have been elected, and an installed snapshot takes the place of log and state. So a voter asks the other
//! voters at once, while they still know it, what they had at the index of the offer, and lets raft have the message only
//! when enough of them have what was sent that one of them is honest. Who has no vote and no state that anybody vouched
//! for loses nothing: it installs first, and [`crate::states`] believes it later.

use super::{ASK_AGAIN_MS, GIVE_UP_MS, Offer, SnapshotName, Snapshots, hash_pairs};
use crate::application::{Overlay, StateTransaction};
use crate::configuration::Configuration;
use crate::digest::StateDigest;
use crate::frame::Call;
use crate::group::{Context, Group};
use crate::guard::Violation;
use crate::ids::{GroupId, Millis, NodeId};
use crate::keys;
use crate::records;
use crate::settings::Settings;
use crate::store::{Batch, Pair, Store, StoreError};
use raft::eraftpb::{Message, MessageType, Snapshot};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// How long a state that is here whole waits for the others' word. They may have to come back first, and the leader keeps
/// its log meanwhile.
const VOUCHED_MS: Millis = 30_000;

/// A snapshot that is being received.
pub(super) struct Staging {
    /// This node, which has nothing to say of it.
    own: NodeId,
    from: NodeId,
    offer: Offer,
    generation: u64,
    sequence: u64,
    hasher: Sha256,
    hash: Option<[u8; 32]>,
    digest: StateDigest,
    /// The last key, after which the next one comes.
    last: Option<Vec<u8>>,
    /// Whether all of it is written, so that it can be read.
    written: bool,
    /// Whether its configuration is one that operators have ordered, once that is known.
    allowed: Option<bool>,
    /// What the other voters say that they had at this index; none: they do not know it any more.
    answers: BTreeMap<NodeId, Option<[u8; 32]>>,
    active: Millis,
    pulled: Millis,
}

/// What the others say of a state that is here whole.
enum Word {
    /// Enough of them had the same.
    Vouched,
    /// Some have not answered.
    Open,
    /// So many had another one, or do not know it any more, that the rest are not enough.
    Refused,
}

impl Staging {
    /// What a node says of its state that has what was sent.
    fn stated(&self, group: GroupId) -> [u8; 32] {
        let Offer {
            index, term, chain, ..
        } = &self.offer;
        self.digest.stated(group, (*index, *term), chain)
    }

    fn word(&self, group: GroupId) -> Word {
        let stated = self.stated(group);
        // Whoever sent it has said so by that.
        let says = |node, otherwise| match self.answers.get(&node) {
            _ if node == self.own => false,
            _ if node == self.from => true,
            Some(answer) => *answer == Some(stated),
            None => otherwise,
        };
        let configuration = &self.offer.configuration;
        match (
            configuration.has_honest(|node| says(node, false)),
            configuration.has_honest(|node| says(node, true)),
        ) {
            (true, _) => Word::Vouched,
            (false, true) => Word::Open,
            (false, false) => Word::Refused,
        }
    }

    /// Whether raft may have it: of a node that has something to lose only by others' word.
    fn is_ready(&self, group: GroupId, needs_word: bool) -> bool {
        let has_word = || matches!(self.word(group), Word::Vouched);
        self.written && self.allowed == Some(true) && (!needs_word || has_word())
    }

    /// Those whose word is missing.
    fn silent(&self) -> Vec<NodeId> {
        let mut nodes = self.offer.configuration.nodes();
        nodes.retain(|node| *node != self.own && *node != self.from && !self.answers.contains_key(node));
        nodes
    }

    /// Whether somebody has had another state, and has not only forgotten which.
    fn is_contradicted(&self, group: GroupId) -> bool {
        let stated = self.stated(group);
        self.answers.values().flatten().any(|answer| *answer != stated)
    }
}

impl Snapshots {
    /// Who sent what is here whole and waits for others' word.
    pub(crate) fn waiting_for_word(&self) -> Option<NodeId> {
        let staging = self.staging.as_ref()?;
        staging.written.then_some(staging.from)
    }

    /// The generation that holds this snapshot's data, and what goes with them; none before they are whole, allowed and, where
    /// that is needed, vouched for.
    pub(crate) fn staged_generation(
        &self,
        (group, needs_word): (GroupId, bool),
        snapshot: &Snapshot,
    ) -> Option<(u64, SnapshotName)> {
        let name: SnapshotName = records::decode(&snapshot.data).ok()?;
        let staging = self.staging.as_ref()?;
        let (metadata, offer) = (snapshot.get_metadata(), &staging.offer);
        let brought = Configuration::from_conf_state(metadata.get_conf_state())?;
        let same = offer.id == name.id
            && staging.hash == Some(name.hash)
            && staging.is_ready(group, needs_word)
            && name.configuration_index <= metadata.index
            && (offer.index, offer.term) == (metadata.index, metadata.term)
            && (name.applied.index, name.applied.term) == (metadata.index, metadata.term)
            && (name.applied.chain, &brought) == (offer.chain, &offer.configuration);
        same.then_some((staging.generation, name))
    }

    /// The staged state is the group's.
    pub(crate) fn installed(&mut self, group: GroupId) -> Option<Installed> {
        let staging = self.staging.take()?;
        Some(Installed {
            from: staging.from,
            vouched: matches!(staging.word(group), Word::Vouched),
            digest: staging.digest,
        })
    }
}

/// A state that was installed.
pub(crate) struct Installed {
    /// Who sent it.
    pub(crate) from: NodeId,
    pub(crate) digest: StateDigest,
    /// Whether others have said that it is theirs.
    pub(crate) vouched: bool,
}

impl<S: Store> Group<S> {
    /// The leader offers a snapshot.
    pub(crate) fn snapshot_offered(
        &mut self,
        context: &mut Context<'_>,
        from: NodeId,
        offer: Offer,
        extra: &mut Batch,
    ) -> Result<(), Violation> {
        if self.leader() != Some(from) || self.installs() {
            return Err(Violation::Call);
        }
        if offer.index <= self.raw.raft.raft_log.committed {
            // The leader does not know how far this node is, since its answers were lost: told, it sends entries.
            return self.tell_committed(context, from).map_err(|_| Violation::Call);
        }
        let staging = self.snapshots.staging.as_ref();
        if staging.is_some_and(|staging| staging.offer.id == offer.id) {
            return Ok(());
        }
        self.drop_staging(extra);
        let generation = self.snapshots.last_generation.max(self.log().record.generation) + 1;
        self.snapshots.last_generation = generation;
        let id = offer.id;
        self.snapshots.staging = Some(Staging {
            own: context.settings.node,
            from,
            offer,
            generation,
            sequence: 0,
            hasher: Sha256::new(),
            hash: None,
            digest: StateDigest::default(),
            last: None,
            written: false,
            allowed: None,
            answers: BTreeMap::new(),
            active: context.now,
            pulled: context.now,
        });
        context.call(self.id, from, &Call::SnapshotPull { id, sequence: 0 });
        self.ask_what_others_had(context);
        Ok(())
    }

    /// Whether a false state in the place of this node's would be a loss: it votes, so that what it has acknowledged counts, or
    /// others have vouched for what it has. Asked at every step, since a transfer may outlast the time when there was nothing.
    pub(crate) fn has_something_to_lose(&self, settings: &Settings) -> bool {
        let configuration = self.configuration();
        let vouched = !configuration.is_empty() && self.states.unvouched().is_none();
        !settings.believe_leaders && (vouched || configuration.votes(settings.node))
    }

    /// Asks those who have not answered, if this node has to know.
    fn ask_what_others_had(&self, context: &mut Context<'_>) {
        let staging = self.snapshots.staging.as_ref();
        let Some(staging) = staging.filter(|_| self.has_something_to_lose(context.settings)) else {
            return;
        };
        let call = Call::AskState {
            index: staging.offer.index,
        };
        for node in staging.silent() {
            if self.may_lead(context.settings, node) {
                context.call(self.id, node, &call);
            }
        }
    }

    /// A peer wants to know what this node had at an index: told, unless it has not come to it yet or has nobody's word for its own.
    pub(crate) fn tell_state(&self, context: &mut Context<'_>, peer: NodeId, index: u64) {
        if self.states.unvouched().is_none() && index <= self.applied.index {
            let stated = self.states.at(index).copied();
            context.call(self.id, peer, &Call::StateAt { index, stated });
        }
    }

    /// A peer says what it had at an index.
    pub(crate) fn state_told(
        &mut self,
        context: &mut Context<'_>,
        from: NodeId,
        (index, stated): (u64, Option<[u8; 32]>),
        extra: &mut Batch,
    ) -> Result<(), Violation> {
        let Some(staging) = &mut self.snapshots.staging else {
            return Ok(());
        };
        // Another one's may be about an offer that is over.
        if staging.offer.index == index && staging.offer.configuration.contains(from) {
            // The first answer stands: nobody has two states at one index.
            staging.answers.entry(from).or_insert(stated);
            self.look_at_staging(context, extra);
        }
        Ok(())
    }

    /// What raft itself answers to a snapshot that it does not need: how far this log agrees with the leader's.
    fn tell_committed(&self, context: &mut Context<'_>, leader: NodeId) -> Result<(), StoreError> {
        let committed = self.raw.raft.raft_log.committed;
        let mut answer = Message::default();
        answer.set_msg_type(MessageType::MsgAppendResponse);
        (answer.to, answer.from) = (leader, self.raw.raft.id);
        answer.term = self.raw.raft.term;
        (answer.index, answer.commit) = (committed, committed);
        context.out.raft(&context.settings.cluster, self.id, &answer)
    }

    /// A chunk: into the next batch, and ask for the one after it.
    pub(crate) fn snapshot_chunk(
        &mut self,
        context: &mut Context<'_>,
        from: NodeId,
        (id, sequence): (u64, u64),
        (pairs, hash): (Vec<Pair>, Option<[u8; 32]>),
        extra: &mut Batch,
    ) -> Result<(), Violation> {
        let group = self.id;
        if self.leader() != Some(from) {
            // It led when it began.
            return Ok(());
        }
        let Some(staging) = &mut self.snapshots.staging else {
            return Err(Violation::Call);
        };
        let next = (staging.from, staging.offer.id, staging.sequence) == (from, id, sequence);
        if !next || staging.hash.is_some() {
            return Err(Violation::Call);
        }
        if pairs.is_empty() && hash.is_none() {
            // It would only keep the transfer alive.
            self.drop_staging(extra);
            return Err(Violation::SnapshotData);
        }
        hash_pairs(&mut staging.hasher, &pairs);
        let prefix = keys::state(group, staging.generation);
        for (key, value) in pairs {
            // In order, so that none comes twice, which the digest must not count.
            if staging.last.as_ref().is_some_and(|last| *last >= key) {
                self.drop_staging(extra);
                return Err(Violation::SnapshotData);
            }
            staging.digest.add(&key, &value);
            staging.last = Some(key.clone());
            extra.put([&prefix[..], &key].concat(), value);
        }
        staging.sequence += 1;
        staging.active = context.now;
        staging.pulled = context.now;
        let pull = Call::SnapshotPull {
            id,
            sequence: staging.sequence,
        };
        match hash {
            None => context.call(group, from, &pull),
            Some(hash) if hash == <[u8; 32]>::from(staging.hasher.clone().finalize()) => {
                staging.hash = Some(hash);
            }
            Some(_) => {
                self.drop_staging(extra);
                return Err(Violation::SnapshotData);
            }
        }
        Ok(())
    }

    /// Everything that arrived before is written.
    pub(crate) fn chunks_written(&mut self, context: &mut Context<'_>, extra: &mut Batch) {
        let Some(staging) = &mut self.snapshots.staging else {
            return;
        };
        if staging.hash.is_some() && !staging.written {
            staging.written = true;
            self.look_at_staging(context, extra);
        }
    }

    /// Lets raft have what is here whole, or drops it, if that can be said.
    fn look_at_staging(&mut self, context: &mut Context<'_>, extra: &mut Batch) {
        let group = self.id;
        let staging = self.snapshots.staging.as_ref();
        let Some(staging) = staging.filter(|staging| staging.written && !self.installs()) else {
            return;
        };
        let (id, from, index) = (staging.offer.id, staging.from, staging.offer.index);
        if staging.allowed.is_none() {
            let allowed = self.allows(context, staging);
            if let Some(staging) = &mut self.snapshots.staging {
                staging.allowed = Some(allowed);
            }
        }
        let Some(staging) = &self.snapshots.staging else {
            return;
        };
        if staging.allowed != Some(true) {
            let counters = context.counters;
            counters.drop_frame(from, Violation::SnapshotConfiguration);
            return self.drop_staging(extra);
        }
        if staging.is_ready(group, self.has_something_to_lose(context.settings)) {
            return context.call(group, from, &Call::SnapshotStaged { id });
        }
        if matches!(staging.word(group), Word::Refused) {
            if staging.is_contradicted(group) {
                tracing::error!(%group, from, index, "no other member vouches for the state that this one sent: it is not taken");
                context.counters.drop_frame(from, Violation::SnapshotUnvouched);
            }
            self.drop_staging(extra);
        }
    }

    /// Whether the application allows the configuration that a snapshot brings, by the snapshot's own state, this node is in it, and
    /// it may follow what this node has.
    fn allows(&self, context: &Context<'_>, staging: &Staging) -> bool {
        let brought = &staging.offer.configuration;
        let (prefix, earlier) = (keys::state(self.id, staging.generation), Overlay::new());
        let state = StateTransaction::new(self.log().store(), prefix, &earlier);
        let initial = Configuration::stable(context.settings.voters_of(self.id));
        let allowed = brought.contains(context.settings.node)
            && (context.app).configuration_allowed(self.id, brought, &initial, &state)
            && self.may_follow(context.app, &state);
        if allowed {
            context.app.offered(self.id, &state);
        }
        allowed
    }

    /// Repeats what is silent, gives up what is dead.
    pub(super) fn drive_staging(&mut self, context: &mut Context<'_>, extra: &mut Batch) {
        let (now, group, installs) = (context.now, self.id, self.installs());
        let needs_word = self.has_something_to_lose(context.settings);
        let Some(staging) = &mut self.snapshots.staging else {
            return;
        };
        let patience = match staging.hash {
            Some(_) if needs_word => VOUCHED_MS,
            _ => 3 * GIVE_UP_MS / 2,
        };
        if now >= staging.active + patience && !installs {
            return self.drop_staging(extra);
        }
        if now >= staging.pulled + ASK_AGAIN_MS {
            staging.pulled = now;
            let (id, sequence) = (staging.offer.id, staging.sequence);
            let call = match staging.is_ready(group, needs_word) {
                true => Call::SnapshotStaged { id },
                // Of what is here whole there is no next chunk: it only tells the leader that this node still waits.
                false => Call::SnapshotPull { id, sequence },
            };
            let from = staging.from;
            context.call(group, from, &call);
            self.ask_what_others_had(context);
        }
    }

    /// Whether raft has taken a snapshot and its data are to be installed in the next turn.
    fn installs(&self) -> bool {
        self.raw.raft.raft_log.unstable.snapshot.is_some()
    }

    fn drop_staging(&mut self, extra: &mut Batch) {
        if let Some(staging) = self.snapshots.staging.take() {
            let prefix = keys::state(self.id, staging.generation);
            let end = keys::after_prefix(&prefix);
            extra.delete_range(prefix, end);
        }
    }
}
