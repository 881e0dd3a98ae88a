//! The hashes of the chain and the message that a head signs. Each has its own prefix, so that no signature or
//! hash made for one purpose serves another.

use sha2::{Digest, Sha256};

/// What the first record of a node names as the record before it.
pub(super) fn start(cluster: &[u8; 32], node: u64) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"conclave audit start\0");
    hash.update(cluster);
    hash.update(node.to_be_bytes());
    hash.finalize().into()
}

/// The hash of a record: of its payload as it stands in the file.
pub(super) fn record(payload: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"conclave audit record\0");
    hash.update(payload);
    hash.finalize().into()
}

/// The bytes that a node signs to vouch for its chain up to record `sequence` with that `hash`:
/// `"conclave audit head\0" || cluster || node || sequence || hash`, numbers as 8 bytes, big endian.
pub fn head_message(cluster: &[u8; 32], node: u64, sequence: u64, hash: &[u8; 32]) -> Vec<u8> {
    let mut message = Vec::with_capacity(20 + 32 + 8 + 8 + 32);
    message.extend_from_slice(b"conclave audit head\0");
    message.extend_from_slice(cluster);
    message.extend_from_slice(&node.to_be_bytes());
    message.extend_from_slice(&sequence.to_be_bytes());
    message.extend_from_slice(hash);
    message
}
