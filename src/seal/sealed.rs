//! A small secret at rest: AES-256-GCM under a key derived from another, with a check value.
//!
//! Layout: magic 16, format 1, kind 1, check value 16, nonce 12, ciphertext with tag, SHA-256 of all before it.
//! The checksum tells a damaged file from a wrong key, the check value a wrong key from a tampered file.

use rand::{CryptoRng, RngCore};
use ring::aead;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::node_key::derive;

const MAGIC: &[u8; 16] = b"conclave sealed\0";
const FORMAT: u8 = 1;
const LABEL: &[u8] = b"conclave sealed v1";
const CHECK: usize = 16;
const NONCE: usize = 12;
const HEADER: usize = MAGIC.len() + 2 + CHECK + NONCE;
const TAG: usize = 16;
const CHECKSUM: usize = 32;
/// No secret sealed this way is larger.
const MAX_PLAINTEXT: usize = 4096;

/// The largest sealed file, in bytes.
pub const MAX_SEALED: usize = HEADER + MAX_PLAINTEXT + TAG + CHECKSUM;

/// What is sealed; a file of one kind cannot stand for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A node's Ed25519 and X25519 secret keys, under its node key.
    Identity = 1,
    /// A node key, under a key derived from a passphrase.
    NodeKey = 2,
}

/// Why sealed bytes were not opened.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SealedError {
    /// Another kind of file, or a later format.
    #[error("not a sealed file of this kind and format")]
    NotSealed,
    /// The checksum is wrong.
    #[error("the file is damaged: its checksum does not fit")]
    Damaged,
    /// The check value is not that of this key, cluster and node.
    #[error("sealed under another key, or for another cluster or node")]
    WrongKey,
    /// The key is right and the content is not what was sealed.
    #[error("the content was tampered with")]
    Tampered,
    /// More than [`MAX_SEALED`] allows.
    #[error("a secret of more than {MAX_PLAINTEXT} bytes cannot be sealed")]
    TooLarge,
}

/// Seals `plaintext` under `key`; `context` (cluster and node) must be given again to open.
pub fn seal(
    kind: Kind,
    key: &[u8; 32],
    context: &[u8],
    plaintext: &[u8],
    rng: &mut (impl CryptoRng + RngCore),
) -> Result<Vec<u8>, SealedError> {
    if plaintext.len() > MAX_PLAINTEXT {
        return Err(SealedError::TooLarge);
    }
    let mut nonce = [0; NONCE];
    rng.fill_bytes(&mut nonce);
    let mut bytes = Vec::with_capacity(HEADER + plaintext.len() + TAG + CHECKSUM);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&[FORMAT, kind as u8]);
    bytes.extend_from_slice(&check_value(kind, key, context));
    bytes.extend_from_slice(&nonce);
    let mut content = Zeroizing::new(plaintext.to_vec());
    let tag = cipher(kind, key, context)
        .seal_in_place_separate_tag(
            aead::Nonce::assume_unique_for_key(nonce),
            aead::Aad::from(&bytes),
            &mut content,
        )
        .map_err(|_| SealedError::TooLarge)?;
    bytes.extend_from_slice(&content);
    bytes.extend_from_slice(tag.as_ref());
    let checksum = Sha256::digest(&bytes);
    bytes.extend_from_slice(&checksum);
    Ok(bytes)
}

/// Opens what [`seal`] made with the same kind, key and context.
pub fn open(
    kind: Kind,
    key: &[u8; 32],
    context: &[u8],
    bytes: &[u8],
) -> Result<Zeroizing<Vec<u8>>, SealedError> {
    let prefix = [MAGIC.as_slice(), &[FORMAT, kind as u8]].concat();
    if !bytes.starts_with(&prefix) {
        return Err(SealedError::NotSealed);
    }
    if !(HEADER + TAG + CHECKSUM..=MAX_SEALED).contains(&bytes.len()) {
        return Err(SealedError::Damaged);
    }
    let (body, checksum) = bytes.split_at(bytes.len() - CHECKSUM);
    if Sha256::digest(body).as_slice() != checksum {
        return Err(SealedError::Damaged);
    }
    let (header, content) = body.split_at(HEADER);
    let (before_nonce, nonce) = header.split_at(HEADER - NONCE);
    if !bool::from(before_nonce[prefix.len()..].ct_eq(&check_value(kind, key, context))) {
        return Err(SealedError::WrongKey);
    }
    let nonce = aead::Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealedError::Damaged)?;
    let mut content = Zeroizing::new(content.to_vec());
    let length = cipher(kind, key, context)
        .open_in_place(nonce, aead::Aad::from(header), &mut content)
        .map_err(|_| SealedError::Tampered)?
        .len();
    content.truncate(length);
    Ok(content)
}

fn check_value(kind: Kind, key: &[u8; 32], context: &[u8]) -> [u8; CHECK] {
    let derived = derive(key, LABEL, &[b"check", &[kind as u8], context]);
    let mut value = [0; CHECK];
    value.copy_from_slice(&derived[..CHECK]);
    value
}

fn cipher(kind: Kind, key: &[u8; 32], context: &[u8]) -> aead::LessSafeKey {
    let derived = derive(key, LABEL, &[b"content", &[kind as u8], context]);
    let key = aead::UnboundKey::new(&aead::AES_256_GCM, &derived[..]).expect("an AES-256 key has 32 bytes");
    aead::LessSafeKey::new(key)
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;

    fn sealed() -> Vec<u8> {
        let mut rng = StdRng::seed_from_u64(1);
        seal(
            Kind::Identity,
            &[1; 32],
            b"cluster, node 1",
            b"a secret of some length",
            &mut rng,
        )
        .unwrap()
    }

    #[test]
    fn opens_with_the_same_key_kind_and_context_only() {
        let bytes = sealed();
        let open = |kind, key: u8, context: &[u8]| open(kind, &[key; 32], context, &bytes);
        assert_eq!(
            *open(Kind::Identity, 1, b"cluster, node 1").unwrap(),
            b"a secret of some length"
        );
        assert_eq!(
            open(Kind::Identity, 2, b"cluster, node 1").unwrap_err(),
            SealedError::WrongKey
        );
        assert_eq!(
            open(Kind::Identity, 1, b"cluster, node 2").unwrap_err(),
            SealedError::WrongKey
        );
        assert_eq!(
            open(Kind::NodeKey, 1, b"cluster, node 1").unwrap_err(),
            SealedError::NotSealed
        );
    }

    #[test]
    fn any_changed_byte_is_damage_and_never_another_secret() {
        for position in 0..sealed().len() {
            let mut bytes = sealed();
            bytes[position] ^= 1;
            let error = open(Kind::Identity, &[1; 32], b"cluster, node 1", &bytes).unwrap_err();
            let expected = if position < 18 {
                SealedError::NotSealed
            } else {
                SealedError::Damaged
            };
            assert_eq!(error, expected, "byte {position}");
        }
    }

    #[test]
    fn a_changed_byte_under_a_new_checksum_is_tampering() {
        for position in HEADER - NONCE..sealed().len() - CHECKSUM {
            let mut bytes = sealed();
            bytes[position] ^= 0x80;
            let body = bytes.len() - CHECKSUM;
            let checksum = Sha256::digest(&bytes[..body]);
            bytes[body..].copy_from_slice(&checksum);
            let error = open(Kind::Identity, &[1; 32], b"cluster, node 1", &bytes).unwrap_err();
            assert_eq!(error, SealedError::Tampered, "byte {position}");
        }
    }

    #[test]
    fn every_truncation_is_refused() {
        let bytes = sealed();
        for length in 0..bytes.len() {
            assert!(open(Kind::Identity, &[1; 32], b"cluster, node 1", &bytes[..length]).is_err());
        }
    }
}
