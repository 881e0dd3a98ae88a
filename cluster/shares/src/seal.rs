//! AES-256-GCM, and the associated data of each level of the tree. Whatever distinguishes two sealed things is in their
//! associated data, so none opens in another's place.
//!
//! ring's key schedule is not wiped when dropped; the raw keys and opened shares of this crate are.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::error::Error;
use crate::identity::{Owner, ShareId};
use crate::secret::SecretBytes;

pub(crate) const NONCE: usize = 12;
pub(crate) const TAG: usize = 16;

/// A raw key: wiped when dropped.
pub(crate) type RawKey = Zeroizing<[u8; 32]>;

/// A key that seals.
pub(crate) struct Key(LessSafeKey);

impl Key {
    pub(crate) fn new(bytes: &[u8; 32]) -> Result<Key, Error> {
        let unbound = UnboundKey::new(&AES_256_GCM, bytes).map_err(|_| Error::Seal)?;
        Ok(Key(LessSafeKey::new(unbound)))
    }

    /// Ciphertext and tag. The nonce must be new for this key.
    pub(crate) fn seal(&self, nonce: [u8; NONCE], data: &[u8], plain: &[u8]) -> Result<Vec<u8>, Error> {
        // With room for the tag from the start: growing would leave a copy of the plaintext behind.
        let mut sealed = Zeroizing::new(Vec::with_capacity(plain.len() + TAG));
        sealed.extend_from_slice(plain);
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.0
            .seal_in_place_append_tag(nonce, Aad::from(data), &mut *sealed)
            .map_err(|_| Error::Seal)?;
        Ok(std::mem::take(&mut *sealed))
    }

    /// The plaintext; `None` if anything is not as it was when it was sealed.
    pub(crate) fn open(&self, nonce: [u8; NONCE], data: &[u8], sealed: &[u8]) -> Option<SecretBytes> {
        let mut opened = Zeroizing::new(sealed.to_vec());
        let nonce = Nonce::assume_unique_for_key(nonce);
        let length = self
            .0
            .open_in_place(nonce, Aad::from(data), &mut opened)
            .ok()?
            .len();
        opened.truncate(length);
        Some(SecretBytes::new(std::mem::take(&mut *opened)))
    }

    /// As [`Key::open`], for what is a key itself.
    pub(crate) fn open_key(&self, nonce: [u8; NONCE], data: &[u8], sealed: &[u8]) -> Option<RawKey> {
        let opened = self.open(nonce, data, sealed)?;
        let mut key = RawKey::default();
        if opened.expose().len() != key.len() {
            return None;
        }
        key.copy_from_slice(opened.expose());
        Some(key)
    }
}

fn begin(purpose: &[u8], owner: &Owner) -> Vec<u8> {
    let mut data = Vec::with_capacity(256);
    data.extend_from_slice(purpose);
    data.push(0);
    data.extend_from_slice(&owner.cluster);
    data.extend_from_slice(&owner.node.to_be_bytes());
    data
}

/// Of the epoch keys, sealed under the node key.
pub(crate) fn epoch_file_data(owner: &Owner) -> Vec<u8> {
    begin(b"conclave epoch keys 1", owner)
}

/// Of a wrapping key, sealed under the epoch key of this generation.
pub(crate) fn wrapping_data(owner: &Owner, id: &ShareId, generation: u64) -> Vec<u8> {
    let mut data = begin(b"conclave wrapping key 1", owner);
    data.extend_from_slice(&id.keystore);
    data.extend_from_slice(&id.key);
    data.extend_from_slice(&id.session);
    data.extend_from_slice(&generation.to_be_bytes());
    data
}

/// Of a share, sealed under its wrapping key.
pub(crate) fn share_data(owner: &Owner, id: &ShareId, started_ms: u64, members: &[u16]) -> Vec<u8> {
    let mut data = begin(b"conclave share 1", owner);
    data.extend_from_slice(&id.keystore);
    data.extend_from_slice(&id.key);
    data.extend_from_slice(&id.session);
    data.extend_from_slice(&id.epoch.to_be_bytes());
    data.extend_from_slice(&started_ms.to_be_bytes());
    data.extend_from_slice(&(id.key_type.len() as u64).to_be_bytes());
    data.extend_from_slice(id.key_type.as_bytes());
    for member in members {
        data.extend_from_slice(&member.to_be_bytes());
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nist_vector() {
        // McGrew and Viega, "The Galois/Counter Mode of Operation", test case 14.
        let key = Key::new(&[0; 32]).unwrap();
        let sealed = key.seal([0; 12], &[], &[0; 16]).unwrap();
        let expected = [
            0xce, 0xa7, 0x40, 0x3d, 0x4d, 0x60, 0x6b, 0x6e, 0x07, 0x4e, 0xc5, 0xd3, 0xba, 0xf3, 0x9d, 0x18,
            0xd0, 0xd1, 0xc8, 0xa7, 0x99, 0x99, 0x6b, 0xf0, 0x26, 0x5b, 0x98, 0xb5, 0xd4, 0x8a, 0xb9, 0x19,
        ];
        assert_eq!(sealed, expected);
    }

    #[test]
    fn every_field_is_in_the_associated_data() {
        let owner = Owner {
            cluster: [1; 32],
            node: 2,
        };
        let id = ShareId {
            keystore: [3; 16],
            key: [4; 16],
            session: [5; 32],
            key_type: "a".into(),
            epoch: 6,
        };
        let base = share_data(&owner, &id, 7, &[8]);
        let other = |change: &dyn Fn(&mut Owner, &mut ShareId)| {
            let (mut owner, mut id) = (Owner { ..owner }, id.clone());
            change(&mut owner, &mut id);
            share_data(&owner, &id, 7, &[8])
        };
        assert_ne!(base, other(&|owner, _| owner.cluster[31] ^= 1));
        assert_ne!(base, other(&|owner, _| owner.node ^= 1));
        assert_ne!(base, other(&|_, id| id.keystore[0] ^= 1));
        assert_ne!(base, other(&|_, id| id.key[0] ^= 1));
        assert_ne!(base, other(&|_, id| id.session[0] ^= 1));
        assert_ne!(base, other(&|_, id| id.key_type = "b".into()));
        assert_ne!(base, other(&|_, id| id.epoch ^= 1));
        assert_ne!(base, share_data(&owner, &id, 8, &[8]));
        assert_ne!(base, share_data(&owner, &id, 7, &[]));
        assert_ne!(wrapping_data(&owner, &id, 1), wrapping_data(&owner, &id, 2));
    }
}
