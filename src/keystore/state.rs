//! The seam between this state machine and what keeps its bytes: an ordered map of one group's keys.
//!
//! In production a transaction or a snapshot of the consensus store; in tests and in the simulator a `BTreeMap`.

use std::collections::BTreeMap;

use serde::{Serialize, de::DeserializeOwned};

/// The store could not be read, or holds bytes that this program did not write.
#[derive(Debug, Clone, thiserror::Error)]
#[error("replicated state: {0}")]
pub struct StateError(pub String);

/// Key and value, as scanned.
pub type Pair = (Vec<u8>, Vec<u8>);

/// Reads of one consistent state.
pub trait ReadState {
    /// The value under `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError>;

    /// Up to `limit` pairs whose key starts with `prefix`, in key order.
    fn scan(&self, prefix: &[u8], limit: usize) -> Result<Vec<Pair>, StateError>;

    /// The decoded value under `key`.
    fn record<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, StateError>
    where
        Self: Sized,
    {
        self.get(key)?.map(|bytes| decode(&bytes)).transpose()
    }
}

/// Reads that see earlier writes of the same transaction, and writes.
pub trait WriteState: ReadState {
    /// Sets `key`.
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateError>;

    /// Removes `key`.
    fn delete(&mut self, key: &[u8]) -> Result<(), StateError>;

    /// Encodes and sets `key`.
    fn put_record<T: Serialize>(&mut self, key: &[u8], value: &T) -> Result<(), StateError>
    where
        Self: Sized,
    {
        let bytes = postcard::to_stdvec(value).map_err(|error| StateError(error.to_string()))?;
        self.put(key, &bytes)
    }
}

/// Decodes a stored record.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StateError> {
    postcard::from_bytes(bytes).map_err(|error| StateError(format!("a record cannot be decoded: {error}")))
}

impl ReadState for BTreeMap<Vec<u8>, Vec<u8>> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        Ok(BTreeMap::get(self, key).cloned())
    }

    fn scan(&self, prefix: &[u8], limit: usize) -> Result<Vec<Pair>, StateError> {
        let pairs = self
            .range(prefix.to_vec()..)
            .take_while(|(key, _)| key.starts_with(prefix));
        Ok(pairs
            .take(limit)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect())
    }
}

impl WriteState for BTreeMap<Vec<u8>, Vec<u8>> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateError> {
        self.insert(key.to_vec(), value.to_vec());
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), StateError> {
        self.remove(key);
        Ok(())
    }
}
