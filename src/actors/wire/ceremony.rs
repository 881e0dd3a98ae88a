//! What ceremonies of several nodes are told: births, renewals and moves of keys, uses of symmetric ones.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[cfg(doc)]
use super::Answer;
use crate::identifier::{LocalId, OperationId};
use crate::keystore::record::Sharing;

/// What the coordinator of a renewal proposes; participants look for themselves whether the shares are due.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewal {
    /// Drawn by the coordinator.
    pub operation: OperationId,
    /// The keystore.
    pub keystore: LocalId,
    /// The keys, ascending.
    pub keys: Vec<ToRenew>,
    /// Who takes part, and when it began.
    pub beginning: Beginning,
    /// What the coordinator had applied of the keystore's group.
    pub applied: u64,
}

/// A key whose shares are to be renewed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToRenew {
    /// The key.
    pub key: LocalId,
    /// The ceremony whose shares are to be replaced.
    pub replaces: [u8; 32],
    /// The members that have a share of it, as far as is known, ascending: they deal, those of a symmetric key only if it moves.
    /// Of a key pair the others get one.
    pub dealers: Vec<u64>,
}

/// A node's half of what it shares with another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Half {
    /// The life that it belongs to.
    pub boot: [u8; 16],
    /// An X25519 public key.
    pub public: [u8; 32],
}

/// A garbling, numbered by its evaluator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roles {
    /// Never the same twice in one life of the evaluator.
    pub number: u64,
    /// First garbler, second garbler, evaluator.
    pub nodes: [u64; 3],
    /// What the evaluator takes it to be: the id of its program, gate by gate. Builds may have others for one operation.
    pub circuit: [u8; 32],
}

impl Roles {
    /// All three, ascending: how they go on record.
    pub fn participants(&self) -> [u64; 3] {
        let mut nodes = self.nodes;
        nodes.sort_unstable();
        nodes
    }
}

/// What is computed at the birth of a symmetric key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Computed {
    /// An HMAC key's states.
    States,
    /// The value that the key is checked by.
    Check,
}

/// A step of a birth after the first. Messages go by the number of their sender among the holders, from 1.
#[derive(Clone, Serialize, Deserialize)]
pub enum BirthStep {
    /// Everybody's commitments; the answer is a sealed opening for each other holder.
    Open(BTreeMap<u8, Vec<u8>>),
    /// What everybody has opened to the asked one; the answer is its commitments to pieces.
    Combine(BTreeMap<u8, Vec<u8>>),
    /// Everybody's commitments to pieces.
    Agree(BTreeMap<u8, Vec<u8>>),
    /// Garble for the coordinator.
    Garble(Computed, Roles),
    /// The active labels of what was computed; the answer is what they mean.
    Decode(Computed, Vec<u8>),
    /// The outcome, with an HMAC key's inner state; the answer is [`Answer::Generated`].
    Sign(Sharing, Option<[u8; 32]>),
}

/// A step of what the new holders of a symmetric key compute in a renewal.
#[derive(Clone, Serialize, Deserialize)]
pub enum RenewCompute {
    /// Everybody's messages of the round before the last, by share index: commitments to pieces.
    Agree(BTreeMap<u16, Vec<u8>>),
    /// Garble the key's check value for the coordinator.
    Garble(Roles),
    /// The active labels of what was computed; the answer is what they mean.
    Decode(Vec<u8>),
}

/// What the coordinator of a generation proposes; participants check every part that they can.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beginning {
    /// The coordinator's clock, ms; within 5 s of the participant's.
    pub start: u64,
    /// (node, boot nonce) of every participant, ascending.
    pub participants: Vec<(u64, [u8; 16])>,
    /// Index of the configuration that the members are taken from.
    pub configuration: u64,
}

impl Beginning {
    /// The participants, ascending.
    pub fn nodes(&self) -> Vec<u64> {
        self.participants.iter().map(|(node, _)| *node).collect()
    }
}

/// Most aborts that a proposal brings.
pub const MAX_ABORTS: usize = 16;

/// Rounds of a generation, each called after what a participant says in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Round {
    /// The hash of its package.
    Hash,
    /// The package.
    Package,
    /// Echo and envelopes.
    Deal,
    /// The outcome, signed.
    Outcome,
}

impl Round {
    /// The number of its messages in the threshold crate; the outcome is no message.
    pub fn number(self) -> Option<u8> {
        match self {
            Self::Hash => Some(0),
            Self::Package => Some(1),
            Self::Deal => Some(2),
            Self::Outcome => None,
        }
    }

    /// The round whose messages are handed out in this one.
    pub fn before(self) -> Option<Self> {
        match self {
            Self::Hash => None,
            Self::Package => Some(Self::Hash),
            Self::Deal => Some(Self::Package),
            Self::Outcome => Some(Self::Deal),
        }
    }
}

/// Names one share of one key in envelopes and confirmations.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ShareName {
    /// The keystore.
    pub keystore: LocalId,
    /// The key.
    pub key: LocalId,
    /// The ceremony.
    pub session: [u8; 32],
}
