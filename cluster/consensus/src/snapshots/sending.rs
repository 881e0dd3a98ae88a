//! The leader's side of a snapshot.

use super::{ASK_AGAIN_MS, GIVE_UP_MS, Offer, SnapshotName, hash_pairs};
use crate::configuration::Configuration;
use crate::frame::Call;
use crate::group::{Context, Group};
use crate::ids::{Millis, NodeId};
use crate::keys;
use crate::records::{self, AppliedRecord, GroupRecord};
use crate::snapshot_read::{ChunkRead, SnapshotRead};
use crate::store::{Batch, Reading, Store, StoreError};
use raft::eraftpb::Snapshot;
use raft::{ProgressState, SnapshotStatus};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// A receiver that wants something asks every [`ASK_AGAIN_MS`]. One that has begun and is silent for so long knows nothing of
/// the transfer any more: it has been started again, and its staging went with its process.
const FORGOTTEN_MS: Millis = 6 * ASK_AGAIN_MS;
/// How long raft's message may take to be answered.
const MESSAGE_MS: Millis = 3_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Offered or streaming.
    Data,
    /// The receiver has everything; raft may send its message.
    Staged,
    /// raft sent its message at this time.
    Sent(Millis),
}

/// A snapshot on its way to one receiver.
pub(super) struct Sending {
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

impl Sending {
    /// The index that the receiver goes on from.
    pub(super) fn index(&self) -> u64 {
        self.applied.index
    }

    fn offer(&self) -> Call {
        Call::SnapshotOffer(Offer {
            id: self.id,
            index: self.applied.index,
            term: self.applied.term,
            chain: self.applied.chain,
            configuration: self.configuration.clone(),
        })
    }
}

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
        context.call(self.id, peer, &sending.offer());
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
                    context.call(self.id, *peer, &sending.offer());
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
