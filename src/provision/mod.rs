//! A cluster's first material: authority, certificates, identities, operator key, genesis statement, configurations.
//!
//! [`cluster::create`] makes all of it in one step for `init` and `dev`; [`start::Started::open`] is what a node
//! reads back, verified, once it has its node key.

pub mod candidate;
pub mod certificates;
pub mod cluster;
pub mod cluster_file;
pub mod genesis;
pub mod identity;
pub mod introduction;
pub mod lock;
pub mod node_files;
pub mod operator;
pub mod start;
pub mod waiting_room;

pub use cluster::{NewCluster, NewNode, NodeMaterial};
pub use cluster_file::{ClusterFile, ClusterNode};
pub use genesis::Genesis;
pub use identity::Identity;
pub use operator::OperatorKey;
pub use start::Started;

use std::path::PathBuf;

use crate::{
    config::ConfigError,
    seal::{passphrase::PassphraseError, sealed::SealedError, secret_file::SecretFileError},
};

/// Why material could not be made or read back.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// A file.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// A file that holds something else than it should.
    #[error("{path} is not {expected}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What should be there.
        expected: &'static str,
    },
    /// The sealed identity.
    #[error("{path}: {source}")]
    Identity {
        /// The file.
        path: PathBuf,
        /// Why it was not opened.
        source: SealedError,
    },
    /// The genesis statement.
    #[error(transparent)]
    Genesis(#[from] genesis::GenesisError),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A certificate could not be made.
    #[error("cannot make a certificate")]
    Certificate(#[from] rcgen::Error),
    /// A certificate that does not belong to its key, its host or its member.
    #[error("{path}: {reason}")]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// What does not fit what.
        reason: String,
    },
    /// Sealing the node key under the passphrase.
    #[error(transparent)]
    Passphrase(#[from] PassphraseError),
    /// The plan for a new cluster cannot be carried out.
    #[error("{0}")]
    Plan(String),
    /// A folder could not be moved to its place.
    #[error("cannot make {path}")]
    Place {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The caller's own first record.
    #[error("cannot write the bootstrap record of node {node}")]
    Bootstrap {
        /// The node.
        node: u64,
        /// What the caller's hook said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

#[cfg(test)]
mod tests;
