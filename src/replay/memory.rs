//! Old names as 8-byte keyed fingerprints, in sets by the minute until which they must be known. A set is dropped
//! whole when its minute is over; nothing is ever evicted.

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use sha2::{Digest, Sha256};

/// A fingerprint is evenly spread already: it is its own hash.
#[derive(Default)]
struct Itself(u64);

impl Hasher for Itself {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

/// Fingerprints of names, by minute.
pub(super) struct Memory {
    key: [u8; 32],
    minutes: BTreeMap<u64, HashSet<u64, BuildHasherDefault<Itself>>>,
    count: usize,
}

impl Memory {
    /// `key` is random and secret: without it nobody can make two names collide.
    pub(super) fn new(key: [u8; 32]) -> Memory {
        Memory {
            key,
            minutes: BTreeMap::new(),
            count: 0,
        }
    }

    fn fingerprint(&self, name: &[u8; 32]) -> u64 {
        // SHA-256 over 64 bytes of fixed length: no extension, so a key in front makes it a keyed hash.
        let digest = Sha256::new().chain_update(self.key).chain_update(name).finalize();
        let mut eight = [0; 8];
        eight.copy_from_slice(&digest[..8]);
        u64::from_le_bytes(eight)
    }

    /// Knows the name until second `until`.
    pub(super) fn insert(&mut self, name: &[u8; 32], until: u64) {
        let fingerprint = self.fingerprint(name);
        if self.minutes.entry(until / 60).or_default().insert(fingerprint) {
            self.count += 1;
        }
    }

    /// Whether the name, which must be known until second `until`, is known.
    pub(super) fn contains(&self, name: &[u8; 32], until: u64) -> bool {
        self.minutes
            .get(&(until / 60))
            .is_some_and(|set| set.contains(&self.fingerprint(name)))
    }

    /// Drops the sets whose minute is over at second `now`.
    pub(super) fn advance(&mut self, now: u64) {
        while let Some(minute) = self.minutes.first_entry()
            && (minute.key() + 1) * 60 <= now
        {
            self.count -= minute.remove().len();
        }
    }

    /// How many names are known.
    pub(super) fn len(&self) -> usize {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::Memory;

    #[test]
    fn minutes_are_dropped_whole() {
        let mut memory = Memory::new([7; 32]);
        memory.insert(&[1; 32], 120);
        memory.insert(&[1; 32], 120);
        memory.insert(&[2; 32], 179);
        memory.insert(&[3; 32], 180);
        assert_eq!(memory.len(), 3);
        memory.advance(179);
        assert!(memory.contains(&[1; 32], 120) && memory.contains(&[2; 32], 179));
        memory.advance(180);
        assert!(!memory.contains(&[1; 32], 120) && !memory.contains(&[2; 32], 179));
        assert!(memory.contains(&[3; 32], 180));
        assert_eq!(memory.len(), 1);
    }
}
