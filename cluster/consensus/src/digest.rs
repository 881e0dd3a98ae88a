//! A digest of a group's whole state that follows every change of it, and that who gets a snapshot computes from the
//! pairs alone.
//!
//! LtHash (Bellare and Micciancio, "A New Paradigm for Collision-Free Hashing", 1997, in the form of Lewi et al.,
//! "Securing Update Propagation with Homomorphic Hashing", 2019): each pair of key and value is hashed to 1,024 numbers of
//! 16 bits, and the digest is their sum. So a pair is added and taken out in about a microsecond, in any order, and two
//! different states with one digest are as hard to find as short vectors of a lattice, 200 bits and more. A pair that
//! is added 65,536 times vanishes: whoever computes the digest of what a stranger sent takes no key twice.

use crate::ids::GroupId;

/// Numbers in a digest.
const SUMS: usize = 1024;
/// Bytes of a digest.
pub(crate) const DIGEST_BYTES: usize = 2 * SUMS;

const OF_PAIR: &str = "conclave 2026-11-28 one pair of a group's state";
const OF_STATE: &str = "conclave 2026-11-28 a group's state at an index";

/// The digest of a set of pairs.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct StateDigest(Box<[u16; SUMS]>);

impl Default for StateDigest {
    fn default() -> Self {
        StateDigest(Box::new([0; SUMS]))
    }
}

impl StateDigest {
    /// A pair is in the state from now on.
    pub(crate) fn add(&mut self, key: &[u8], value: &[u8]) {
        self.sum(key, value, u16::wrapping_add);
    }

    /// A pair that was in the state is not any more.
    pub(crate) fn remove(&mut self, key: &[u8], value: &[u8]) {
        self.sum(key, value, u16::wrapping_sub);
    }

    fn sum(&mut self, key: &[u8], value: &[u8], with: impl Fn(u16, u16) -> u16) {
        let mut bytes = [0; DIGEST_BYTES];
        blake3::Hasher::new_derive_key(OF_PAIR)
            .update(&(key.len() as u64).to_be_bytes())
            .update(key)
            .update(value)
            .finalize_xof()
            .fill(&mut bytes);
        for (sum, part) in self.0.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *sum = with(*sum, u16::from_le_bytes(*part));
        }
    }

    /// What a node says of a group's state at an index: a hash over this digest and the chain of all that was applied.
    pub(crate) fn stated(&self, group: GroupId, (index, term): (u64, u64), chain: &[u8; 32]) -> [u8; 32] {
        blake3::Hasher::new_derive_key(OF_STATE)
            .update(&group.0.to_be_bytes())
            .update(&index.to_be_bytes())
            .update(&term.to_be_bytes())
            .update(chain)
            .update(&self.to_bytes())
            .finalize()
            .into()
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|sum| sum.to_le_bytes()).collect()
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (parts, []) = bytes.as_chunks::<2>() else {
            return None;
        };
        let sums: Vec<u16> = parts.iter().map(|part| u16::from_le_bytes(*part)).collect();
        Some(StateDigest(sums.into_boxed_slice().try_into().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn of<'a>(pairs: impl IntoIterator<Item = (&'a Vec<u8>, &'a Vec<u8>)>) -> StateDigest {
        let mut digest = StateDigest::default();
        for (key, value) in pairs {
            digest.add(key, value);
        }
        digest
    }

    #[test]
    fn where_a_key_ends_and_its_value_begins_counts() {
        let mut one = StateDigest::default();
        one.add(b"ab", b"c");
        let mut other = StateDigest::default();
        other.add(b"a", b"bc");
        assert!(one != other);
        assert!(one != StateDigest::default());
    }

    #[test]
    fn what_is_stated_is_of_one_group_index_and_history() {
        let digest = StateDigest::default();
        let stated = digest.stated(GroupId(1), (7, 3), &[1; 32]);
        assert_ne!(stated, digest.stated(GroupId(2), (7, 3), &[1; 32]));
        assert_ne!(stated, digest.stated(GroupId(1), (8, 3), &[1; 32]));
        assert_ne!(stated, digest.stated(GroupId(1), (7, 4), &[1; 32]));
        assert_ne!(stated, digest.stated(GroupId(1), (7, 3), &[2; 32]));
        let mut other = digest.clone();
        other.add(b"k", b"v");
        assert_ne!(stated, other.stated(GroupId(1), (7, 3), &[1; 32]));
    }

    #[test]
    fn only_a_whole_digest_is_read_back() {
        let mut digest = StateDigest::default();
        digest.add(b"k", b"v");
        let bytes = digest.to_bytes();
        assert!(StateDigest::from_bytes(&bytes) == Some(digest));
        assert!(StateDigest::from_bytes(&bytes[1..]).is_none());
        assert!(StateDigest::from_bytes(&[&bytes[..], &[0, 0]].concat()).is_none());
    }

    proptest! {
        #[test]
        fn it_follows_the_state_and_forgets_how_it_came_about(
            changes in proptest::collection::vec((0u8..12, proptest::option::of(0u8..4)), 0..60)
        ) {
            let mut state: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
            let mut digest = StateDigest::default();
            for (key, value) in changes {
                let (key, value) = (vec![key], value.map(|value| vec![value; 3]));
                if let Some(before) = state.remove(&key) {
                    digest.remove(&key, &before);
                }
                if let Some(value) = value {
                    digest.add(&key, &value);
                    state.insert(key, value);
                }
            }
            prop_assert!(digest == of(&state));
            let mut wrong = state.clone();
            if let Some(value) = wrong.values_mut().next() {
                value.push(0);
                prop_assert!(digest != of(&wrong));
            }
        }
    }
}
