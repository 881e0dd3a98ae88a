//! What an entry changes. Every member derives the same command from the same signed request.

use serde::{Deserialize, Serialize};

use super::config::KeystoreConfig;
use super::record::{Alias, KeyType, Material};
use crate::identifier::LocalId;

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
    /// Index of the configuration that the committee was taken from.
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
            Self::Revoke { keystore, .. } => Some(*keystore),
            Self::CreateMeter { .. } | Self::Time => None,
        }
    }

    /// Whether it can turn an allowed use into a refused one: a holder waits for such entries before it decides.
    pub fn restricts(&self) -> bool {
        matches!(self, Self::UpdateKeystore { .. } | Self::Revoke { .. })
    }
}
