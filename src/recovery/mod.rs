//! Backups, and bringing a lost cluster back from them.
//!
//! A running node writes its own backup ([`write`](mod@write), [`keeper`]): the groups' state, its audit chain, and its shares, opened in the
//! stream and sealed anew. Two fresh keys, for state and for shares, are sealed to the recovery officers ([`officers`]).
//! Node keys, epoch keys and envelopes never go in: an envelope is sealed to a key that dies with its node.
//!
//! A restore goes into a new cluster that `init` made and nobody has started: the same node numbers, new keys, an id of its own.
//! Each machine asks the officers ([`request`]) for the shares of its own node's backup and for the state of all, so that no
//! place ever has the shares of two nodes ([`restore`]).

pub mod files;
pub mod header;
pub mod keeper;
pub mod officers;
pub mod records;
pub mod request;
pub mod restore;
pub mod sections;
pub mod survey;
pub mod write;

use std::path::PathBuf;

pub use files::{Officer, Recovery};
pub use header::VerifiedHeader;
pub use keeper::Keeper;

use crate::provision::genesis::GenesisError;
use crate::seal::secret_file::SecretFileError;

/// Why a backup was not made, or not restored.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// A file.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// Reading or writing.
    #[error("input or output")]
    Io(#[from] std::io::Error),
    /// A file at a path.
    #[error("{path}")]
    At {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<RecoveryError>,
    },
    /// A file that holds something else than it should.
    #[error("{path} is not {expected}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What should be there.
        expected: &'static str,
    },
    /// The header of a backup.
    #[error("the header is not to be believed: {0}")]
    Header(&'static str),
    /// What is sealed in a backup.
    #[error("the content is not to be believed: {0}")]
    Content(&'static str),
    /// The genesis statement in a header or a request.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    /// Officers, their shares or their answers.
    #[error(transparent)]
    Officers(#[from] officers::OfficerError),
    /// A request or an answer that does not fit what it is held against.
    #[error("{0}")]
    Unfit(String),
    /// The replicated state.
    #[error(transparent)]
    State(#[from] crate::keystore::StateError),
    /// The database of the Raft groups.
    #[error(transparent)]
    Consensus(#[from] conclave_consensus::OpenError),
    /// The share store.
    #[error(transparent)]
    Shares(#[from] conclave_shares::Error),
}

impl RecoveryError {
    /// The same, about a file.
    pub fn at(self, path: impl Into<PathBuf>) -> Self {
        Self::At {
            path: path.into(),
            source: Box::new(self),
        }
    }
}

/// A time of a header, for people.
pub fn time_text(ms: u64) -> String {
    let time = i64::try_from(ms / 1_000)
        .ok()
        .and_then(|seconds| time::OffsetDateTime::from_unix_timestamp(seconds).ok());
    time.and_then(|time| time.format(&time::format_description::well_known::Rfc3339).ok())
        .unwrap_or_else(|| format!("{ms} ms"))
}

#[cfg(test)]
mod tests;
