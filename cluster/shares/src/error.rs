//! What can go wrong with the store.

use std::path::PathBuf;

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database's own error: no space, no permission, locked by another process.
    #[error("share database: {0}")]
    Database(#[source] rocksdb::Error),
    /// Another process has the store open.
    #[error("share database is locked by another process: {0}")]
    Locked(#[source] rocksdb::Error),
    /// The database's folder cannot be made.
    #[error("folder {path}: {source}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The epoch file cannot be read or written.
    #[error("epoch file {path}: {source}")]
    EpochFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The store has records but its epoch file is gone: its shares cannot be opened, and a new file would hide that.
    #[error("epoch file {0} is missing though the share database is not empty")]
    EpochFileMissing(PathBuf),
    /// The node key is not the one that sealed this store.
    #[error("the node key does not open this share store")]
    WrongNodeKey,
    /// Another version of the program wrote it. Nothing was changed.
    #[error(
        "{what} has format {found}, and this version knows format {known}: start the version that wrote it"
    )]
    Format {
        /// The database or the epoch file.
        what: &'static str,
        /// Its format.
        found: u16,
        /// That of this version.
        known: u16,
    },
    /// The store belongs to another cluster or node.
    #[error("the share store is of {found}, this node is {expected}")]
    Foreign {
        /// What the first record names.
        found: String,
        /// What the caller gave.
        expected: String,
    },
    /// Something on the disk is not what was written. Nothing of it was used; the node must stop contributing.
    #[error("share store quarantined: {0}")]
    Quarantine(String),
    /// There is a share of this key and session, of another type or epoch than was asked for.
    #[error("the stored share has type {key_type} and epoch {epoch}")]
    Other {
        /// Its type.
        key_type: String,
        /// Its epoch.
        epoch: u64,
    },
    /// There is a share of this key and session already; it was not changed.
    #[error("a share of this key and session exists")]
    Exists,
    /// The caller's input is above a bound.
    #[error("{0} is out of bounds")]
    Bound(&'static str),
    /// The cipher refused to seal; cannot happen within the bounds.
    #[error("sealing failed")]
    Seal,
}
