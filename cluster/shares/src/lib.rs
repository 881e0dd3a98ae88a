//! The node-local sealed store of key shares.
//!
//! One RocksDB database per node, apart from all others. A share is sealed by the tree
//! node key -> epoch key -> wrapping key -> share (AES-256-GCM), bound to cluster, node, keystore, key, key type, epoch
//! and format. What was tampered with or moved gives [`Error::Quarantine`], never other data.
//!
//! Calls block on the disk: make them from a blocking thread. [`ShareStore`] is shared by reference between threads;
//! concurrent writers share one sync of the log.

pub mod error;
pub mod identity;
pub mod secret;

pub use error::Error;
pub use identity::{KeptEnvelope, OpenEnvelope, Session, ShareId};
pub use secret::{NodeKey, SecretBytes};
