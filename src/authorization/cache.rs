//! Chains whose proofs have been verified, by the hash of their text. Only signatures are remembered, and what was
//! read: time, revocation, root, action and target are judged afresh every time. Bounded; the older half is forgotten
//! when full.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;

use parking_lot::Mutex;

use super::capability::Delegated;

/// Bytes that chains which are kept as read may take in each half.
const READ_BYTES: usize = 8 << 20;

/// What is known of a chain.
#[derive(Clone)]
struct Known {
    /// Proofs that were verified in it.
    proofs: usize,
    /// As it was read, while there is room.
    chain: Option<Arc<Delegated>>,
}

/// Remembers, for the hash of a chain's text, how many proofs were verified in it, and of the latest ones what the text
/// said, so that it need not be inflated and read again.
pub struct ChainCache {
    half: usize,
    generations: Mutex<Generations>,
}

#[derive(Default)]
struct Generations {
    young: HashMap<[u8; 32], Known>,
    old: HashMap<[u8; 32], Known>,
    /// Of the chains in `young` that are kept as read.
    bytes: usize,
}

impl ChainCache {
    /// A cache of at most `entries` chains: some 100 bytes each, and 16 MiB for those that are kept as read; 0
    /// remembers none.
    pub fn new(entries: usize) -> Self {
        Self {
            half: entries / 2,
            generations: Mutex::default(),
        }
    }

    /// The number of proofs that were verified in this chain.
    pub(crate) fn proofs(&self, hash: &[u8; 32]) -> Option<usize> {
        self.known(hash).map(|known| known.proofs)
    }

    /// The verified chain that was read from the text with this hash.
    pub(crate) fn chain(&self, hash: &[u8; 32]) -> Option<Arc<Delegated>> {
        self.known(hash)?.chain
    }

    /// Whether the proofs of this chain were verified.
    pub fn knows(&self, chain: &Delegated) -> bool {
        self.known(chain.hash()).is_some()
    }

    /// Remembers a chain whose proofs have all been verified.
    pub(crate) fn remember(&self, chain: &Arc<Delegated>, proofs: usize) {
        let known = Known {
            proofs,
            chain: Some(chain.clone()),
        };
        self.put(&mut self.generations.lock(), *chain.hash(), known);
    }

    /// How many chains are remembered.
    pub fn len(&self) -> usize {
        let generations = self.generations.lock();
        generations.young.len() + generations.old.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn known(&self, hash: &[u8; 32]) -> Option<Known> {
        let mut generations = self.generations.lock();
        if let Some(known) = generations.young.get(hash) {
            return Some(known.clone());
        }
        let known = generations.old.remove(hash)?;
        self.put(&mut generations, *hash, known.clone());
        Some(known)
    }

    fn put(&self, generations: &mut Generations, hash: [u8; 32], mut known: Known) {
        if self.half == 0 {
            return;
        }
        if generations.young.len() >= self.half {
            generations.old = mem::take(&mut generations.young);
            generations.bytes = 0;
        }
        let size = known.chain.as_ref().map_or(0, |chain| chain.size());
        if generations.bytes + size > READ_BYTES {
            known.chain = None;
        } else {
            generations.bytes += size;
        }
        generations.young.insert(hash, known);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::authorization::issue::{Capability, Delegation};
    use crate::authorization::{DidKey, Suite};

    /// A chain of one delegation, named `n`, whose controller list is as long as allowed when it is `large`.
    fn chain(n: u32, large: bool) -> Arc<Delegated> {
        let key = ed25519_dalek::SigningKey::from_bytes(&[1; 32]);
        let did = DidKey::of(&key.verifying_key()).did;
        let target = format!("https://a/{}", "x".repeat(if large { 2_000 } else { 1 }));
        let delegation = Delegation {
            key: &key,
            parent: Capability::Root("https://a"),
            id: &format!("urn:{n}"),
            controllers: &[&did],
            target: &target,
            actions: None,
            created: 1,
            expires: 2,
            suite: Suite::Ed25519Signature2020,
        };
        let mut hash = [0; 32];
        hash[..4].copy_from_slice(&n.to_le_bytes());
        let text = delegation.sign().unwrap_or(json!(null));
        Arc::new(Delegated::from_json(&text, hash, 10).unwrap())
    }

    #[test]
    fn is_bounded_and_keeps_what_is_used() {
        let cache = ChainCache::new(8);
        let kept = chain(0, false);
        for n in 1..100 {
            cache.remember(&chain(n, false), 1);
            cache.remember(&kept, 2);
            assert_eq!(cache.proofs(kept.hash()), Some(2));
            assert!(cache.len() <= 8);
        }
        assert_eq!(cache.proofs(chain(1, false).hash()), None);
        let none = ChainCache::new(0);
        none.remember(&kept, 1);
        assert!(none.is_empty());
    }

    #[test]
    fn keeps_the_hash_alone_when_what_was_read_has_no_room() {
        let cache = ChainCache::new(1 << 20);
        let fit = u32::try_from(READ_BYTES / chain(0, true).size()).unwrap();
        let all: Vec<_> = (0..fit + 100).map(|n| chain(n, true)).collect();
        all.iter().for_each(|chain| cache.remember(chain, 1));
        assert!(cache.chain(all[0].hash()).is_some());
        let last = all[all.len() - 1].hash();
        assert!(cache.chain(last).is_none());
        assert_eq!(cache.proofs(last), Some(1));
    }
}
