//! A log entry: a client's signed request, the command that its endorsers derived from it, their signatures.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::command::Command;
use crate::identifier::OperationId;

/// The first byte of an encoded entry is the first version that has its command, so that a build of the version before
/// reads all that it knows. A replica that meets a later one than this halts the group rather than skip it.
pub const VERSION: u8 = 3;

/// Largest encoded entry: a request of 100 kB, its headers, and the endorsements.
pub const MAX_ENTRY: usize = 256 * 1024;

const ENDORSEMENT_PREFIX: &[u8] = b"conclave endorsement 1";

/// What endorsers sign: everything that apply relies on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// The cluster.
    pub cluster: [u8; 32],
    /// The Raft group.
    pub group: u32,
    /// Drawn by the node that the client reached.
    pub operation: OperationId,
    /// SHA-256 of the client's raw request; zeros with [`Command::Time`], and of nothing where no client asked.
    pub request: [u8; 32],
    /// What replays are judged by: SHA-256(keyId, 0, signing string).
    pub name: [u8; 32],
    /// The request's `expires`, ms.
    pub expires: u64,
    /// What is to change.
    pub command: Command,
    /// The keystore's state version that the endorser saw; 0 for what must not exist yet.
    pub state_version: u64,
    /// (capability id, delegator) of every delegation in the request's chain.
    pub chain: Vec<(String, String)>,
}

/// One member's signature over a statement and its own time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endorsement {
    /// The member.
    pub node: u64,
    /// Its clock, ms.
    pub time: u64,
    /// Ed25519, 64 bytes.
    pub signature: Vec<u8>,
}

/// What goes into the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What the endorsers signed.
    pub statement: Statement,
    /// The client's raw request, encoded; empty where no client asked.
    pub request: Vec<u8>,
    /// Their signatures.
    pub endorsements: Vec<Endorsement>,
}

/// Bytes that are no entry of this version.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// Written by another version of this program.
    #[error("entry version {0} is not known to this build")]
    UnknownVersion(u8),
    /// Not an entry.
    #[error("the entry cannot be decoded")]
    Malformed,
}

impl Statement {
    fn signed_bytes(&self, time: u64) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(ENDORSEMENT_PREFIX);
        hash.update(time.to_be_bytes());
        // A statement is a closed type of plain data: encoding it into memory cannot fail.
        hash.update(postcard::to_stdvec(self).unwrap_or_default());
        hash.finalize().into()
    }

    /// Endorses it at `time` (ms).
    pub fn endorse(&self, node: u64, key: &SigningKey, time: u64) -> Endorsement {
        let signature = key.sign(&self.signed_bytes(time)).to_bytes().to_vec();
        Endorsement {
            node,
            time,
            signature,
        }
    }

    /// Whether `endorsement` is `key`'s signature over this statement.
    pub fn is_endorsed(&self, endorsement: &Endorsement, key: &VerifyingKey) -> bool {
        Signature::from_slice(&endorsement.signature).is_ok_and(|signature| {
            key.verify_strict(&self.signed_bytes(endorsement.time), &signature)
                .is_ok()
        })
    }
}

impl Entry {
    /// Version byte, then the encoding.
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_extend(self, vec![self.statement.command.since()]).unwrap_or_default()
    }

    /// Decodes; [`EntryError::UnknownVersion`] must halt the group, [`EntryError::Malformed`] changes nothing.
    pub fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        match bytes.split_first() {
            Some((&version @ 1..=VERSION, rest)) if bytes.len() <= MAX_ENTRY => {
                let (entry, rest) =
                    postcard::take_from_bytes::<Self>(rest).map_err(|_| EntryError::Malformed)?;
                // Under an earlier version a build of that version would read something else, or nothing.
                if rest.is_empty() && entry.statement.command.since() == version {
                    Ok(entry)
                } else {
                    Err(EntryError::Malformed)
                }
            }
            Some((&version, _)) if !(1..=VERSION).contains(&version) => {
                Err(EntryError::UnknownVersion(version))
            }
            _ => Err(EntryError::Malformed),
        }
    }
}
