//! Chains whose proofs have been verified, by the hash of their text, and what lately used ones say. Only signatures are
//! remembered, and what was read: time, revocation, root, action and target are judged afresh every time. Bounded; the
//! older half is forgotten when full.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;

use parking_lot::Mutex;

use super::capability::Delegated;

/// Bytes that chains which are kept as read may take in each half.
const READ_BYTES: usize = 8 << 20;

/// Remembers, for the hash of a chain's text, how many proofs were verified in it; and for the hash of what a client
/// sent, packed, the chain that was read from it, so that it need not be inflated and read again.
pub struct ChainCache {
    proofs: Mutex<Halves<usize>>,
    read: Mutex<Halves<Arc<Delegated>>>,
}

/// Values with their sizes in two halves: what is used moves to the young one, the old one goes when that is full.
struct Halves<V> {
    young: HashMap<[u8; 32], (V, usize)>,
    old: HashMap<[u8; 32], (V, usize)>,
    /// The size that each half may have.
    room: usize,
    /// The young one's.
    used: usize,
}

impl ChainCache {
    /// A cache of at most `entries` chains, some 100 bytes each, and 16 MiB for those that are kept as read; 0 remembers
    /// none.
    pub fn new(entries: usize) -> Self {
        let read = if entries == 0 { 0 } else { READ_BYTES };
        Self {
            proofs: Mutex::new(Halves::new(entries / 2)),
            read: Mutex::new(Halves::new(read)),
        }
    }

    /// The number of proofs that were verified in the chain with this text.
    pub(crate) fn proofs(&self, hash: &[u8; 32]) -> Option<usize> {
        self.proofs.lock().get(hash)
    }

    /// Whether the proofs of this chain were verified.
    pub fn knows(&self, chain: &Delegated) -> bool {
        self.proofs(chain.hash()).is_some()
    }

    /// Remembers a chain whose proofs have all been verified.
    pub(crate) fn remember(&self, chain: &Delegated, proofs: usize) {
        self.proofs.lock().put(*chain.hash(), proofs, 1);
    }

    /// The chain that was read from what has this hash.
    pub(crate) fn read(&self, packed: &[u8; 32]) -> Option<Arc<Delegated>> {
        self.read.lock().get(packed)
    }

    /// Keeps what was read, if its proofs have been verified: a stranger's chains take no room.
    pub(crate) fn keep(&self, packed: [u8; 32], chain: &Arc<Delegated>) {
        if self.knows(chain) {
            self.read.lock().put(packed, chain.clone(), chain.size());
        }
    }

    /// How many chains are remembered.
    pub fn len(&self) -> usize {
        let proofs = self.proofs.lock();
        proofs.young.len() + proofs.old.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<V: Clone> Halves<V> {
    fn new(room: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            room,
            used: 0,
        }
    }

    fn get(&mut self, hash: &[u8; 32]) -> Option<V> {
        if let Some((value, _)) = self.young.get(hash) {
            return Some(value.clone());
        }
        let (value, size) = self.old.remove(hash)?;
        self.put(*hash, value.clone(), size);
        Some(value)
    }

    fn put(&mut self, hash: [u8; 32], value: V, size: usize) {
        if size > self.room {
            return;
        }
        if let Some((_, replaced)) = self.young.remove(&hash) {
            self.used -= replaced;
        }
        if self.used + size > self.room {
            self.old = mem::take(&mut self.young);
            self.used = 0;
        }
        self.used += size;
        self.young.insert(hash, (value, size));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::authorization::issue::{Capability, Delegation};
    use crate::authorization::{DidKey, Suite};

    fn numbered(n: usize) -> [u8; 32] {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&n.to_le_bytes());
        hash
    }

    /// A chain of one delegation, with a long target.
    fn text() -> Value {
        let key = ed25519_dalek::SigningKey::from_bytes(&[1; 32]);
        let did = DidKey::of(&key.verifying_key()).did;
        let delegation = Delegation {
            key: &key,
            parent: Capability::Root("https://a"),
            id: "urn:one",
            controllers: &[&did],
            target: &format!("https://a/{}", "x".repeat(2_000)),
            actions: None,
            created: 1,
            expires: 2,
            suite: Suite::Ed25519Signature2020,
        };
        delegation.sign().unwrap_or_default()
    }

    /// The same chain under the hash of number `n`.
    fn chain(text: &Value, n: usize) -> Arc<Delegated> {
        Arc::new(Delegated::from_json(text, numbered(n), 10).unwrap())
    }

    #[test]
    fn is_bounded_and_keeps_what_is_used() {
        let cache = ChainCache::new(8);
        let text = text();
        let kept = chain(&text, 0);
        for n in 1..100 {
            cache.remember(&chain(&text, n), 1);
            cache.remember(&kept, 2);
            assert_eq!(cache.proofs(kept.hash()), Some(2));
            assert!(cache.len() <= 8);
        }
        assert_eq!(cache.proofs(&numbered(1)), None);
        let none = ChainCache::new(0);
        none.remember(&kept, 1);
        none.keep([1; 32], &kept);
        assert!(none.is_empty() && none.read(&[1; 32]).is_none());
    }

    #[test]
    fn what_was_read_is_kept_once_verified_within_its_room() {
        let cache = ChainCache::new(1 << 20);
        let text = text();
        let fit = READ_BYTES / chain(&text, 0).size();
        cache.keep(numbered(0), &chain(&text, 0));
        assert!(cache.read(&numbered(0)).is_none(), "its proofs were not verified");
        for n in 0..4 * fit {
            let chain = chain(&text, n);
            cache.remember(&chain, 1);
            // Twice, as two threads would: it counts once.
            cache.keep(numbered(n), &chain);
            cache.keep(numbered(n), &chain);
            assert!(cache.read(&numbered(0)).is_some(), "what is used is kept");
            assert!(cache.read(&numbered(n)).is_some());
        }
        let read = cache.read.lock();
        assert!((fit..=2 * fit).contains(&(read.young.len() + read.old.len())));
        assert_eq!(
            read.used,
            read.young.values().map(|(_, size)| size).sum::<usize>()
        );
        assert_eq!(cache.len(), 4 * fit, "the proofs of all are remembered");
    }
}
