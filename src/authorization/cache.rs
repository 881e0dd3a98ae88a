//! Chains whose proofs have been verified, by the hash of their text. Only signatures are remembered: time,
//! revocation, root, action and target are judged afresh every time. Bounded; the older half is forgotten when full.

use std::collections::HashMap;
use std::mem;

use parking_lot::Mutex;

/// Remembers, for the hash of a chain's text, how many proofs were verified in it.
pub struct ChainCache {
    half: usize,
    generations: Mutex<Generations>,
}

#[derive(Default)]
struct Generations {
    young: HashMap<[u8; 32], usize>,
    old: HashMap<[u8; 32], usize>,
}

impl ChainCache {
    /// A cache of at most `entries` chains (some 60 bytes each); 0 remembers none.
    pub fn new(entries: usize) -> Self {
        Self {
            half: entries / 2,
            generations: Mutex::default(),
        }
    }

    /// The number of proofs that were verified in this chain.
    pub(crate) fn proofs(&self, hash: &[u8; 32]) -> Option<usize> {
        let mut generations = self.generations.lock();
        if let Some(proofs) = generations.young.get(hash) {
            return Some(*proofs);
        }
        let proofs = generations.old.remove(hash)?;
        self.put(&mut generations, *hash, proofs);
        Some(proofs)
    }

    /// Remembers a chain whose proofs have all been verified.
    pub(crate) fn remember(&self, hash: [u8; 32], proofs: usize) {
        self.put(&mut self.generations.lock(), hash, proofs);
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

    fn put(&self, generations: &mut Generations, hash: [u8; 32], proofs: usize) {
        if self.half == 0 {
            return;
        }
        if generations.young.len() >= self.half {
            generations.old = mem::take(&mut generations.young);
        }
        generations.young.insert(hash, proofs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_bounded_and_keeps_what_is_used() {
        let cache = ChainCache::new(8);
        let hash = |n: u32| {
            let mut hash = [0; 32];
            hash[..4].copy_from_slice(&n.to_le_bytes());
            hash
        };
        for n in 1..1_000 {
            cache.remember(hash(n), 1);
            cache.remember(hash(0), 2);
            assert_eq!(cache.proofs(&hash(0)), Some(2));
            assert!(cache.len() <= 8);
        }
        assert_eq!(cache.proofs(&hash(1)), None);
        let none = ChainCache::new(0);
        none.remember(hash(1), 1);
        assert!(none.is_empty());
    }
}
