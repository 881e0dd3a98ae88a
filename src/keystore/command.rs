//! What an entry changes. Every member derives the same command from the same signed request.

use serde::{Deserialize, Serialize};

use super::config::KeystoreConfig;
use super::record::{Alias, KeyType, Material};
use crate::format::{FIRST, Format};
use crate::identifier::LocalId;
use crate::operator::{Change, SignedOrder};

/// A change of one group's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// A new meter (group 0).
    CreateMeter {
        /// Derived from the operation id.
        id: LocalId,
        /// The DID that may create keystores on it.
        controller: String,
        /// The product id, as given.
        product: String,
    },
    /// A new keystore.
    CreateKeystore {
        /// Derived from the operation id.
        id: LocalId,
        /// Its first configuration, sequence 0.
        config: KeystoreConfig,
    },
    /// The next configuration of a keystore; `config.sequence` is the stored one + 1.
    UpdateKeystore {
        /// Which.
        id: LocalId,
        /// The whole new configuration.
        config: KeystoreConfig,
    },
    /// A key whose shares all participants have on disk.
    GenerateKey(Box<GeneratedKey>),
    /// One link of capability chains is refused from now on.
    Revoke {
        /// The keystore whose capabilities these are.
        keystore: LocalId,
        /// The capability's id.
        capability: String,
        /// The DID that signed its delegation.
        delegator: String,
        /// When the revocation may be forgotten, ms.
        expires: u64,
        /// Who revokes, if that is not a controller of the keystore.
        revoker: Option<String>,
    },
    /// Only time passes: an idle group gets one a minute, so that old endorsements die.
    Time,
    /// New shares of keys of one keystore, on every member's disk: the keys' next epoch.
    RenewShares(Box<RenewedShares>),
    /// What operators order (group 0, and each group whose members it names): verified again when it is applied.
    Order(Box<SignedOrder>),
    /// Every key of the group is with the members of this number, who have the shares on disk: the old ones may go.
    CompleteMove(u64),
    /// The move to the members of this number begins: each of them is there, and group 0 has begun. There is no way back.
    BeginMove(u64),
}

/// Most keys whose shares are renewed in one ceremony.
pub const MAX_RENEWED: usize = 16;

/// The outcome of a renewal, as every member signs it. No client asked for it: it changes no public key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewedShares {
    /// The keystore.
    pub keystore: LocalId,
    /// When the coordinator began, ms of its clock.
    pub start: u64,
    /// The number of the list of members that hold the new shares.
    pub configuration: u64,
    /// All of them, ascending: each must sign.
    pub participants: Vec<u64>,
    /// The keys, [`MAX_RENEWED`] at most.
    pub keys: Vec<RenewedKey>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewedKey {
    /// The key.
    pub key: LocalId,
    /// The ceremony whose shares these replace.
    pub replaces: [u8; 32],
    /// The epoch of the new shares: the next one.
    pub epoch: u64,
    /// The ceremony that made them.
    pub session: [u8; 32],
    /// Its digest.
    pub transcript: [u8; 32],
    /// The same key, shared anew.
    pub material: Material,
}

/// The outcome of a generation ceremony, as every participant signs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GeneratedKey {
    /// The keystore.
    pub keystore: LocalId,
    /// Derived from the operation id.
    pub key: LocalId,
    /// Its type.
    pub key_type: KeyType,
    /// In place of the URL in descriptions.
    pub alias: Option<Alias>,
    /// Longest capability chain that may use it.
    pub max_chain_length: Option<u32>,
    /// The epoch of the shares.
    pub epoch: u64,
    /// The ceremony id.
    pub session: [u8; 32],
    /// When the coordinator began, ms of its clock.
    pub start: u64,
    /// The number of the list of members that hold the shares.
    pub configuration: u64,
    /// The nodes that took part, ascending: each of them must sign.
    pub participants: Vec<u64>,
    /// Share indexes of the members that were away.
    pub away: Vec<u16>,
    /// Digest of the whole ceremony: session, packages and kept envelopes.
    pub transcript: [u8; 32],
    /// What everybody may know of the key.
    pub material: Material,
}

impl Command {
    /// The keystore that this concerns, if it concerns one.
    pub fn keystore(&self) -> Option<LocalId> {
        match self {
            Self::CreateKeystore { id, .. } | Self::UpdateKeystore { id, .. } => Some(*id),
            Self::GenerateKey(generated) => Some(generated.keystore),
            Self::RenewShares(renewed) => Some(renewed.keystore),
            Self::Revoke { keystore, .. } => Some(*keystore),
            Self::CreateMeter { .. }
            | Self::Time
            | Self::Order(_)
            | Self::CompleteMove(_)
            | Self::BeginMove(_) => None,
        }
    }

    /// Whether it can turn an allowed use into a refused one, or into one of another epoch: a holder waits for such entries
    /// before it decides.
    pub fn restricts(&self) -> bool {
        match self {
            Self::UpdateKeystore { .. }
            | Self::Revoke { .. }
            | Self::RenewShares(_)
            | Self::CompleteMove(_)
            | Self::BeginMove(_) => true,
            Self::Order(order) => matches!(order.order.change, Change::Members(_)),
            Self::CreateMeter { .. } | Self::CreateKeystore { .. } | Self::GenerateKey(_) | Self::Time => {
                false
            }
        }
    }

    /// The nodes that took part in its ceremony, if it is the outcome of one.
    pub fn participants(&self) -> Option<&[u64]> {
        match self {
            Self::GenerateKey(generated) => Some(&generated.participants),
            Self::RenewShares(renewed) => Some(&renewed.participants),
            _ => None,
        }
    }

    /// The first format of entries that has it.
    pub fn since(&self) -> Format {
        match self {
            Self::CreateMeter { .. }
            | Self::CreateKeystore { .. }
            | Self::UpdateKeystore { .. }
            | Self::GenerateKey(_)
            | Self::Revoke { .. }
            | Self::Time
            | Self::RenewShares(_)
            | Self::Order(_)
            | Self::CompleteMove(_)
            | Self::BeginMove(_) => FIRST,
        }
    }
}
