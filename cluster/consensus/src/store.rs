//! The seam to the disk: ordered bytes, atomic batches, snapshots. RocksDB in production (`rocks.rs`);
//! in the simulator a disk that loses what was not synced.
//!
//! An implementation promises: a batch is atomic; batches survive a crash in order (a prefix of what was
//! written); everything written before a synced batch, and the batch itself, survives.

use std::sync::Arc;

/// One pair of key and value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// A failure of the disk. The node stops: what a failed write left behind is unknown (fsyncgate).
#[derive(Debug, thiserror::Error)]
#[error("the store failed: {0}")]
pub struct StoreError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

impl StoreError {
    /// A failure that has no error of its own below it.
    pub fn message(text: impl Into<String>) -> Self {
        StoreError(text.into().into())
    }
}

/// Reads, of the latest state or of a snapshot.
pub trait Reading: Send + Sync {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
    /// Up to `limit` pairs with `from <= key < to`, in order of their keys.
    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError>;
}

/// One change inside a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Set a value.
    Put(Vec<u8>, Vec<u8>),
    /// Remove a key.
    Delete(Vec<u8>),
    /// Remove every key with `from <= key < to`.
    DeleteRange(Vec<u8>, Vec<u8>),
}

/// Changes that become visible and durable together, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The changes, applied in order.
    pub changes: Vec<Change>,
}

impl Batch {
    /// Adds a value.
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.changes.push(Change::Put(key, value));
    }

    /// Removes a key.
    pub fn delete(&mut self, key: Vec<u8>) {
        self.changes.push(Change::Delete(key));
    }

    /// Removes `from <= key < to`.
    pub fn delete_range(&mut self, from: Vec<u8>, to: Vec<u8>) {
        self.changes.push(Change::DeleteRange(from, to));
    }

    /// Whether nothing would change.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Bytes of keys and values.
    pub fn bytes(&self) -> u64 {
        self.changes
            .iter()
            .map(|change| match change {
                Change::Put(key, value) => key.len() + value.len(),
                Change::Delete(key) => key.len(),
                Change::DeleteRange(from, to) => from.len() + to.len(),
            })
            .sum::<usize>() as u64
    }
}

/// A disk. Reads through the store itself see the latest state.
pub trait Store: Reading + 'static {
    /// Writes a batch; with `sync` it and all before it are durable when this returns.
    fn write(&self, batch: &Batch, sync: bool) -> Result<(), StoreError>;
    /// The state as it is now, unchanged by later writes.
    fn snapshot(&self) -> Arc<dyn Reading>;
}
