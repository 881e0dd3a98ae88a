//! Snapshots: the data first, over the bulk lane and pulled by the receiver; raft's MsgSnapshot only when the
//! receiver has them whole on its disk.
//!
//! Sender: raft asks for a snapshot and is told to ask again; one snapshot of the store is taken, offered,
//! read chunk by chunk beside the loop. Receiver: writes the chunks into a new generation of state keys. Its
//! *staged* lets raft send the message, and installing is then one synced batch that switches the generation
//! (consensus.md 4). Silence ends either side; raft is always told how it went.

use crate::configuration::Configuration;
use crate::digest::StateDigest;
use crate::frame::Call;
use crate::group::{Context, Group};
use crate::guard::Violation;
use crate::ids::{Millis, NodeId};
use crate::keys;
use crate::records::{self, AppliedRecord, GroupRecord};
use crate::snapshot_read::{ChunkRead, SnapshotRead};
use crate::store::{Batch, Pair, Reading, Store, StoreError};
use raft::eraftpb::{Message, MessageType, Snapshot};
use raft::{ProgressState, SnapshotStatus};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Silence after which an offer or a pull is sent again.
const ASK_AGAIN_MS: Millis = 500;
/// A receiver that wants something asks every [`ASK_AGAIN_MS`]. One that has begun and is silent for so long knows nothing of
/// the transfer any more: it has been started again, and its staging went with its process.
const FORGOTTEN_MS: Millis = 6 * ASK_AGAIN_MS;
/// Silence after which a transfer is given up.
const GIVE_UP_MS: Millis = 10_000;
/// How long raft's message may take to be answered.
const MESSAGE_MS: Millis = 3_000;

/// What MsgSnapshot carries beside raft's metadata.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotName {
    pub(crate) id: u64,
    /// Over all pairs.
    pub(crate) hash: [u8; 32],
    pub(crate) applied: AppliedRecord,
    /// Index of the entry that made the configuration.
    pub(crate) configuration_index: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Offered or streaming.
    Data,
    /// The receiver has everything; raft may send its message.
    Staged,
    /// raft sent its message at this time.
    Sent(Millis),
}

struct Sending {
    id: u64,
    applied: AppliedRecord,
    configuration: Configuration,
    configuration_index: u64,
    reading: Arc<dyn Reading>,
    prefix: Vec<u8>,
    /// The chunk that comes next, and the last key before it.
    sequence: u64,
    after: Option<Vec<u8>>,
    hasher: Sha256,
    hash: Option<[u8; 32]>,
    /// The chunk before, to be sent again.
    last: Option<Call>,
    reading_now: bool,
    stage: Stage,
    active: Millis,
    offered: Millis,
}

struct Staging {
    from: NodeId,
    id: u64,
    index: u64,
    term: u64,
    generation: u64,
    sequence: u64,
    hasher: Sha256,
    hash: Option<[u8; 32]>,
    digest: StateDigest,
    /// The last key, after which the next one comes.
    last: Option<Vec<u8>>,
    /// Whether all of it is written, so that it can be read.
    written: bool,
    active: Millis,
    pulled: Millis,
}

#[derive(Default)]
pub(crate) struct Snapshots {
    sending: BTreeMap<NodeId, Sending>,
    staging: Option<Staging>,
    /// Generations are never used twice in one life of the process.
    last_generation: u64,
}

impl Snapshots {
    pub(crate) fn stop_sending(&mut self) {
        self.sending.clear();
    }

    /// Whether the data of this snapshot are here, whole and hashed.
    pub(crate) fn has_staged(&self, snapshot: &Snapshot) -> bool {
        self.staged_generation(snapshot).is_some()
    }

    /// Everything that arrived before is written.
    pub(crate) fn written(&mut self) {
        if let Some(staging) = &mut self.staging {
            staging.written = staging.hash.is_some();
        }
    }

    /// The generation that holds this snapshot's data, and what goes with them.
    pub(crate) fn staged_generation(&self, snapshot: &Snapshot) -> Option<(u64, SnapshotName)> {
        let name: SnapshotName = records::decode(&snapshot.data).ok()?;
        let staging = self.staging.as_ref()?;
        let metadata = snapshot.get_metadata();
        let same = staging.id == name.id
            && staging.hash == Some(name.hash)
            && staging.written
            && name.configuration_index <= metadata.index
            && (staging.index, staging.term) == (metadata.index, metadata.term)
            && (name.applied.index, name.applied.term) == (metadata.index, metadata.term);
        same.then_some((staging.generation, name))
    }

    /// The staged state is the group's; who sent it, and its digest.
    pub(crate) fn installed(&mut self) -> Option<(NodeId, StateDigest)> {
        self.staging.take().map(|staging| (staging.from, staging.digest))
    }

    /// The lowest index that a receiver will go on from: the log must not be truncated beyond it.
    pub(crate) fn lowest_sending(&self) -> Option<u64> {
        self.sending.values().map(|sending| sending.applied.index).min()
    }
}

pub(crate) fn hash_pairs(hasher: &mut Sha256, pairs: &[Pair]) {
    for (key, value) in pairs {
        hasher.update((key.len() as u64).to_be_bytes());
        hasher.update(key);
        hasher.update((value.len() as u64).to_be_bytes());
        hasher.update(value);
    }
}

// The sender.
impl<S: Store> Group<S> {
    /// raft sent the message to this peer.
    pub(crate) fn snapshot_message_sent(&mut self, now: Millis, peer: NodeId) {
        if let Some(sending) = self.snapshots.sending.get_mut(&peer) {
            sending.stage = Stage::Sent(now);
        }
        self.log_mut().staged_at.remove(&peer);
    }

    /// Starts what raft wants, repeats what is silent, gives up what is dead.
    pub(crate) fn drive_snapshots(
        &mut self,
        context: &mut Context<'_>,
        store: &S,
        extra: &mut Batch,
    ) -> Result<(), StoreError> {
        for peer in self.log_mut().take_wanted() {
            if self.leads() && !self.snapshots.sending.contains_key(&peer) {
                self.start_sending(context, store, peer)?;
            }
        }
        self.drive_sending(context);
        self.drive_staging(context, extra);
        Ok(())
    }

    fn start_sending(
        &mut self,
        context: &mut Context<'_>,
        store: &S,
        peer: NodeId,
    ) -> Result<(), StoreError> {
        let reading = store.snapshot();
        let missing = || StoreError::message("a group without its records");
        let record = GroupRecord::read(&*reading, self.id)?.ok_or_else(missing)?;
        let applied: AppliedRecord =
            records::read(&*reading, &keys::applied(self.id))?.ok_or_else(missing)?;
        let id = rand::Rng::r#gen(context.rng);
        context.call(
            self.id,
            peer,
            &Call::SnapshotOffer {
                id,
                index: applied.index,
                term: applied.term,
            },
        );
        let sending = Sending {
            id,
            applied,
            prefix: keys::state(self.id, record.generation),
            configuration: record.configuration,
            configuration_index: record.configuration_index,
            reading,
            sequence: 0,
            after: None,
            hasher: Sha256::new(),
            hash: None,
            last: None,
            reading_now: false,
            stage: Stage::Data,
            active: context.now,
            offered: context.now,
        };
        self.snapshots.sending.insert(peer, sending);
        Ok(())
    }

    fn drive_sending(&mut self, context: &mut Context<'_>) {
        let now = context.now;
        let mut over = Vec::new();
        for (peer, sending) in &mut self.snapshots.sending {
            match sending.stage {
                Stage::Sent(at) => {
                    let progress = self.raw.raft.prs().get(*peer);
                    let taken = progress.is_none_or(|progress| progress.state != ProgressState::Snapshot);
                    if taken {
                        over.push((*peer, SnapshotStatus::Finish));
                    } else if now >= at + MESSAGE_MS {
                        over.push((*peer, SnapshotStatus::Failure));
                    }
                }
                _ if now >= sending.active + GIVE_UP_MS => over.push((*peer, SnapshotStatus::Failure)),
                Stage::Data if sending.sequence > 0 && now >= sending.active + FORGOTTEN_MS => {
                    over.push((*peer, SnapshotStatus::Failure));
                }
                // It has told that it is this far without it.
                Stage::Data
                    if (self.raw.raft.prs().get(*peer))
                        .is_some_and(|progress| progress.matched >= sending.applied.index) =>
                {
                    over.push((*peer, SnapshotStatus::Failure));
                }
                Stage::Data if sending.sequence == 0 && now >= sending.offered + ASK_AGAIN_MS => {
                    sending.offered = now;
                    let (index, term) = (sending.applied.index, sending.applied.term);
                    context.call(
                        self.id,
                        *peer,
                        &Call::SnapshotOffer {
                            id: sending.id,
                            index,
                            term,
                        },
                    );
                }
                Stage::Data | Stage::Staged => {}
            }
        }
        for (peer, status) in over {
            self.snapshots.sending.remove(&peer);
            self.log_mut().staged_at.remove(&peer);
            if status == SnapshotStatus::Finish {
                context.counters.snapshots_sent.add(1);
            }
            self.raw.report_snapshot(peer, status);
        }
    }

    /// The receiver wants a chunk.
    pub(crate) fn snapshot_pulled(
        &mut self,
        context: &mut Context<'_>,
        peer: NodeId,
        id: u64,
        sequence: u64,
    ) {
        let Some(sending) = self
            .snapshots
            .sending
            .get_mut(&peer)
            .filter(|sending| sending.id == id)
        else {
            return;
        };
        sending.active = context.now;
        if sequence + 1 == sending.sequence {
            if let Some(last) = &sending.last {
                context.out.call(&context.settings.cluster, self.id, peer, last);
            }
        } else if sequence == sending.sequence && !sending.reading_now && sending.hash.is_none() {
            sending.reading_now = true;
            context.out.reads.push(SnapshotRead {
                group: self.id,
                peer,
                id,
                reading: sending.reading.clone(),
                prefix: sending.prefix.clone(),
                after: sending.after.clone(),
                budget: context.settings.chunk_bytes,
            });
        }
    }

    /// A chunk was read.
    pub(crate) fn chunk_read(
        &mut self,
        context: &mut Context<'_>,
        read: ChunkRead,
    ) -> Result<(), StoreError> {
        let Some(sending) = self
            .snapshots
            .sending
            .get_mut(&read.peer)
            .filter(|sending| sending.id == read.id)
        else {
            return Ok(());
        };
        let (pairs, whole) = read.result?;
        sending.reading_now = false;
        hash_pairs(&mut sending.hasher, &pairs);
        if let Some((key, _)) = pairs.last() {
            sending.after = Some(key.clone());
        }
        sending.hash = whole.then(|| sending.hasher.clone().finalize().into());
        let call = Call::SnapshotChunk {
            id: read.id,
            sequence: sending.sequence,
            pairs,
            hash: sending.hash,
        };
        sending.sequence += 1;
        context
            .out
            .call(&context.settings.cluster, self.id, read.peer, &call);
        sending.last = Some(call);
        Ok(())
    }

    /// The receiver has it all: raft may send its message.
    pub(crate) fn snapshot_staged(&mut self, context: &mut Context<'_>, peer: NodeId, id: u64) {
        let Some(sending) = self
            .snapshots
            .sending
            .get_mut(&peer)
            .filter(|sending| sending.id == id)
        else {
            return;
        };
        let Some(hash) = sending.hash.filter(|_| sending.stage == Stage::Data) else {
            return;
        };
        sending.stage = Stage::Staged;
        sending.active = context.now;
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        metadata.index = sending.applied.index;
        metadata.term = sending.applied.term;
        metadata.set_conf_state(sending.configuration.conf_state());
        let name = SnapshotName {
            id,
            hash,
            applied: sending.applied.clone(),
            configuration_index: sending.configuration_index,
        };
        match records::encode(&name) {
            Ok(data) => snapshot.data = data.into(),
            Err(error) => return tracing::error!(%error, "a snapshot's name could not be encoded"),
        }
        self.log_mut().staged_at.insert(peer, snapshot);
    }
}

// The receiver.
impl<S: Store> Group<S> {
    /// The leader offers a snapshot.
    pub(crate) fn snapshot_offered(
        &mut self,
        context: &mut Context<'_>,
        from: NodeId,
        (id, index, term): (u64, u64, u64),
        extra: &mut Batch,
    ) -> Result<(), Violation> {
        if self.leader() != Some(from) || self.installs() {
            return Err(Violation::Call);
        }
        if index <= self.raw.raft.raft_log.committed {
            // The leader does not know how far this node is, since its answers were lost: told, it sends entries.
            return self.tell_committed(context, from).map_err(|_| Violation::Call);
        }
        if self
            .snapshots
            .staging
            .as_ref()
            .is_some_and(|staging| staging.id == id)
        {
            return Ok(());
        }
        self.drop_staging(extra);
        let generation = self.snapshots.last_generation.max(self.log().record.generation) + 1;
        self.snapshots.last_generation = generation;
        self.snapshots.staging = Some(Staging {
            from,
            id,
            index,
            term,
            generation,
            sequence: 0,
            hasher: Sha256::new(),
            hash: None,
            digest: StateDigest::default(),
            last: None,
            written: false,
            active: context.now,
            pulled: context.now,
        });
        context.call(self.id, from, &Call::SnapshotPull { id, sequence: 0 });
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
        let Some(staging) = &mut self.snapshots.staging else {
            return Err(Violation::Call);
        };
        if staging.from != from || staging.id != id || staging.sequence != sequence || staging.hash.is_some()
        {
            return Err(Violation::Call);
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
        match hash {
            None => {
                let sequence = staging.sequence;
                context.call(group, from, &Call::SnapshotPull { id, sequence });
            }
            Some(hash) if hash == <[u8; 32]>::from(staging.hasher.clone().finalize()) => {
                staging.hash = Some(hash);
                context.call(group, from, &Call::SnapshotStaged { id });
            }
            Some(_) => {
                self.drop_staging(extra);
                return Err(Violation::SnapshotData);
            }
        }
        Ok(())
    }

    fn drive_staging(&mut self, context: &mut Context<'_>, extra: &mut Batch) {
        let (now, installs) = (context.now, self.installs());
        let Some(staging) = &mut self.snapshots.staging else {
            return;
        };
        if now >= staging.active + 3 * GIVE_UP_MS / 2 && !installs {
            return self.drop_staging(extra);
        }
        if now >= staging.pulled + ASK_AGAIN_MS {
            staging.pulled = now;
            let (id, sequence) = (staging.id, staging.sequence);
            let call = match staging.hash {
                None => Call::SnapshotPull { id, sequence },
                Some(_) => Call::SnapshotStaged { id },
            };
            let from = staging.from;
            context.call(self.id, from, &call);
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
