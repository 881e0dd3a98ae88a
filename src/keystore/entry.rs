//! A log entry: a client's signed request, the command that its endorsers derived from it, their signatures.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::command::Command;
use crate::format::{self, FIRST, Format, NEWEST, OLDEST};
use crate::identifier::OperationId;

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

/// One member's signature over a statement, its own time and the formats that it reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endorsement {
    /// The member.
    pub node: u64,
    /// Its clock, ms.
    pub time: u64,
    /// The newest format that its build knows: it endorses no entry of a later one. Or whoever has an entry that all have endorsed
    /// could call it one of a format that nobody knows, and halt a group for ever.
    pub format: Format,
    /// Ed25519, 64 bytes.
    pub signature: Vec<u8>,
}

/// What goes into the log: the format; then what was signed as so many bytes, the request, and the signatures. This outside
/// is the same in every format, so that a build sees who has signed what it does not know (`unknown.rs`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What the endorsers signed.
    pub statement: Statement,
    /// The client's raw request, encoded; empty where no client asked.
    pub request: Vec<u8>,
    /// Their signatures.
    pub endorsements: Vec<Endorsement>,
}

/// Statement, request, signatures.
pub(super) type Outside<'a> = (&'a [u8], &'a [u8], Vec<Endorsement>);

/// Bytes that are no entry of a format of this build.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// Written by a later version of this program: the group halts rather than skip it.
    #[error(
        "an entry of format {0}, and this build knows formats {FIRST} to {NEWEST}: install the version that the other nodes have"
    )]
    UnknownFormat(Format),
    /// Not an entry.
    #[error("the entry cannot be decoded")]
    Malformed,
}

/// What an endorser signs of an encoded statement.
fn signed_bytes(statement: &[u8], time: u64, format: Format) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(ENDORSEMENT_PREFIX);
    hash.update(time.to_be_bytes());
    hash.update([format]);
    hash.update(statement);
    hash.finalize().into()
}

impl Endorsement {
    /// Whether it is `key`'s signature over an encoded statement.
    pub(super) fn signs(&self, statement: &[u8], key: &VerifyingKey) -> bool {
        Signature::from_slice(&self.signature).is_ok_and(|signature| {
            key.verify_strict(&signed_bytes(statement, self.time, self.format), &signature)
                .is_ok()
        })
    }
}

impl Statement {
    fn encoded(&self) -> Vec<u8> {
        // A statement is a closed type of plain data: encoding it into memory cannot fail.
        postcard::to_stdvec(self).unwrap_or_default()
    }

    /// Endorses it at `time` (ms).
    pub fn endorse(&self, node: u64, key: &SigningKey, time: u64) -> Endorsement {
        self.endorse_as(NEWEST, node, key, time)
    }

    /// As a build endorses it whose newest format this is.
    pub(crate) fn endorse_as(&self, format: Format, node: u64, key: &SigningKey, time: u64) -> Endorsement {
        let signed = signed_bytes(&self.encoded(), time, format);
        let signature = key.sign(&signed).to_bytes().to_vec();
        Endorsement {
            node,
            time,
            format,
            signature,
        }
    }

    /// Whether `endorsement` is `key`'s signature over this statement.
    pub fn is_endorsed(&self, endorsement: &Endorsement, key: &VerifyingKey) -> bool {
        endorsement.signs(&self.encoded(), key)
    }
}

impl Entry {
    /// Encodes in the oldest format that this build may write it in: its neighbours read it.
    pub fn encode(&self) -> Vec<u8> {
        let oldest = OLDEST.max(self.statement.command.since());
        self.encode_in(oldest).unwrap_or_default()
    }

    /// The format, then the encoding; `None` in a format that does not have its command.
    pub fn encode_in(&self, format: Format) -> Option<Vec<u8>> {
        if !format::is_read(format) || self.statement.command.since() > format {
            return None;
        }
        let outside = (
            &self.statement.encoded()[..],
            &self.request[..],
            &self.endorsements[..],
        );
        let encoded = postcard::to_extend(&outside, vec![format]).ok()?;
        Some(format::close(encoded))
    }

    /// Decodes; [`EntryError::UnknownFormat`] must halt the group, [`EntryError::Malformed`] changes nothing.
    pub fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        let format = Self::format(bytes)?;
        let malformed = || EntryError::Malformed;
        let bounded = (bytes.len() <= MAX_ENTRY).then_some(bytes);
        let encoded = bounded.and_then(format::open).ok_or_else(malformed)?;
        let (outside, []) =
            postcard::take_from_bytes::<Outside<'_>>(encoded).map_err(|_| EntryError::Malformed)?
        else {
            return Err(EntryError::Malformed);
        };
        let (statement, request, mut endorsements) = outside;
        // Who does not know the format has not endorsed this; what an earlier build makes of it is the same (`unknown.rs`).
        endorsements.retain(|endorsement| endorsement.format >= format);
        match postcard::take_from_bytes::<Statement>(statement) {
            // A build of an earlier format would read something else, or nothing.
            Ok((statement, [])) if statement.command.since() <= format => Ok(Self {
                statement,
                request: request.to_vec(),
                endorsements,
            }),
            _ => Err(EntryError::Malformed),
        }
    }

    /// The format of an encoded entry.
    ///
    /// # Errors
    /// [`EntryError::UnknownFormat`]; [`EntryError::Malformed`] of nothing.
    pub fn format(bytes: &[u8]) -> Result<Format, EntryError> {
        match bytes.first() {
            Some(format) if format::is_read(*format) => Ok(*format),
            Some(format) => Err(EntryError::UnknownFormat(*format)),
            None => Err(EntryError::Malformed),
        }
    }
}
