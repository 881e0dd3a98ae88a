//! The node key: the root of everything that a node keeps sealed. No Debug, no Serialize, wiped on drop.

use rand::{CryptoRng, RngCore};
use ring::hkdf;
use zeroize::Zeroizing;

/// 32 secret bytes. Boxed, so that moving it leaves no copies behind on the stack.
pub struct NodeKey(Box<Zeroizing<[u8; 32]>>);

impl NodeKey {
    /// Takes `bytes` over; the caller's own copy is the caller's to wipe.
    pub fn new(bytes: &[u8; 32]) -> Self {
        let mut key = Box::new(Zeroizing::new([0; 32]));
        key.copy_from_slice(bytes);
        Self(key)
    }

    /// A new random key.
    pub fn generate(rng: &mut (impl CryptoRng + RngCore)) -> Self {
        let mut key = Box::new(Zeroizing::new([0; 32]));
        rng.fill_bytes(&mut key[..]);
        Self(key)
    }

    /// The bytes, for a store that derives its own keys from them.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The length of what [`derive`] gives.
struct Bytes(usize);

impl hkdf::KeyType for Bytes {
    fn len(&self) -> usize {
        self.0
    }
}

/// HKDF-SHA256 (RFC 5869): `label` is the salt, `context` the info, 32 bytes the output.
pub(crate) fn derive(key: &[u8; 32], label: &[u8], context: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut output = Zeroizing::new([0; 32]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, label)
        .extract(key)
        .expand(context, Bytes(32))
        .and_then(|material| material.fill(&mut output[..]))
        // The only error is an output above 255 times 32 bytes.
        .expect("32 bytes are within the bound of RFC 5869");
    output
}

#[cfg(test)]
mod tests {
    use hmac_vectors::*;

    use super::*;

    /// RFC 5869, A.1 has a key of 22 bytes, so the vector here is computed by its two HMAC steps with ring.
    mod hmac_vectors {
        pub(super) fn by_hand(key: &[u8], salt: &[u8], info: &[u8]) -> Vec<u8> {
            let hmac = |key: &[u8], data: &[u8]| {
                ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key), data)
                    .as_ref()
                    .to_vec()
            };
            let extracted = hmac(salt, key);
            hmac(&extracted, &[info, &[1]].concat())
        }
    }

    #[test]
    fn derives_as_rfc_5869_says() {
        let key = [7; 32];
        assert_eq!(
            derive(&key, b"salt", &[b"in", b"fo"]).to_vec(),
            by_hand(&key, b"salt", b"info")
        );
        assert_ne!(
            derive(&key, b"salt", &[b"other"]),
            derive(&key, b"salt", &[b"info"])
        );
    }
}
