//! Snapshots: the data first, over the bulk lane and pulled by the receiver; raft's MsgSnapshot only when the
//! receiver has them whole on its disk, and knows from others that they are the group's.
//!
//! Sender ([`sending`]): raft asks for a snapshot and is told to ask again; one snapshot of the store is taken, offered,
//! read chunk by chunk beside the loop. Receiver ([`staging`]): writes the chunks into a new generation of state keys and
//! asks the other voters what they had at that index. Its *staged* lets raft send the message, and installing is then one
//! synced batch that switches the generation (consensus.md 4). Silence ends either side; raft is always told how it went.

mod sending;
mod staging;

use crate::configuration::Configuration;
use crate::ids::{Millis, NodeId};
use crate::records::AppliedRecord;
use crate::store::Pair;
use sending::Sending;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use staging::Staging;
use std::collections::BTreeMap;

pub(crate) use staging::Installed;

/// Silence after which an offer, a pull or a question is sent again.
const ASK_AGAIN_MS: Millis = 500;
/// Silence after which a transfer is given up.
const GIVE_UP_MS: Millis = 10_000;

/// What a leader offers: the state that it has applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Offer {
    pub(crate) id: u64,
    pub(crate) index: u64,
    pub(crate) term: u64,
    /// Over everything that was applied.
    pub(crate) chain: [u8; 32],
    pub(crate) configuration: Configuration,
}

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

/// The transfers of one group.
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

    /// The lowest index that a receiver will go on from: the log must not be truncated beyond it.
    pub(crate) fn lowest_sending(&self) -> Option<u64> {
        self.sending.values().map(Sending::index).min()
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
