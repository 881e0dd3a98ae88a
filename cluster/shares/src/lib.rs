//! The node-local sealed store of key shares.
//!
//! One RocksDB database per node, apart from all others. A share is sealed by the tree
//! node key -> epoch key -> wrapping key -> share (AES-256-GCM), bound to cluster, node, keystore, key, key type, epoch
//! and format. What was tampered with or moved gives [`Error::Quarantine`], never other data.
//!
//! A wrapping key belongs to one share (key and session), not to all shares of a key: the share of an old epoch must
//! become unreadable while the key lives on. Opened shares are not cached.
//!
//! Calls block on the disk: make them from a blocking thread. [`ShareStore`] is shared by reference between threads;
//! concurrent writers share one sync of the log.

mod backup;
mod envelopes;
mod epoch_file;
pub mod error;
pub mod identity;
mod record;
mod rotation;
mod seal;
pub mod secret;
pub mod store;

pub use error::Error;
pub use identity::{KeptEnvelope, OpenEnvelope, Session, ShareId};
pub use secret::{NodeKey, SecretBytes};
pub use store::ShareStore;
