//! What applying an entry answers, the same on every replica. Kept by operation id, so that a retry finds it.

use serde::{Deserialize, Serialize};

use crate::identifier::LocalId;

/// The result of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The state changed.
    Applied(Reply),
    /// Nothing changed.
    Refused(Rejection),
}

/// What was made or changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// A meter.
    Meter(LocalId),
    /// A keystore, created or updated.
    Keystore(LocalId),
    /// A key: keystore, key.
    Key(LocalId, LocalId),
    /// A revocation stands.
    Revoked,
    /// Time passed.
    Time,
    /// Keys of this keystore have new shares.
    Renewed(LocalId),
    /// The operators' order with this number is in force.
    Ordered(u64),
    /// The group's keys are all with the members of this number.
    Moved(u64),
    /// The group has begun to move to the members of this number.
    Begun(u64),
}

/// Why an entry changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Rejection {
    /// Not signed as it must be: the reason is for the log, no client caused it.
    #[error("not endorsed: {0}")]
    NotEndorsed(String),
    /// The endorsements are too old for the group's time: collect again.
    #[error("the endorsements are older than the group's time allows")]
    Stale,
    /// The state has changed since it was endorsed: look again.
    #[error("the keystore changed since this was endorsed")]
    VersionPassed,
    /// A link of the chain has been revoked since it was endorsed.
    #[error("a capability of the chain has been revoked")]
    ChainRevoked,
    /// The signed request was applied before.
    #[error("the request was already applied")]
    Replayed,
    /// The identifier is taken.
    #[error("the identifier is taken")]
    Exists,
    /// There is no such keystore.
    #[error("there is no such keystore")]
    Missing,
    /// The configuration's sequence or module does not follow the stored one.
    #[error("sequence or module do not match")]
    Sequence,
    /// The link is revoked already.
    #[error("the capability is revoked already")]
    AlreadyRevoked,
    /// A revoker who is no controller has too many live revocations.
    #[error("too many live revocations of one revoker")]
    TooManyRevocations,
    /// The committee that generated the key is no longer the group's.
    #[error("the configuration changed since the ceremony began")]
    ConfigurationChanged,
    /// A key's shares are not, or no longer, those that were to be replaced.
    #[error("the shares that these replace are not the key's")]
    EpochPassed,
    /// The members cannot be replaced by these, or not now.
    #[error("the members cannot be changed so: {0}")]
    Members(String),
}

impl Rejection {
    /// Whether collecting fresh endorsements may succeed.
    pub fn is_stale(&self) -> bool {
        matches!(
            self,
            Self::Stale | Self::VersionPassed | Self::ConfigurationChanged
        )
    }
}
