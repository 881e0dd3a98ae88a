//! Public keys and secret keys as multibase text (base58btc, prefix `z`), with their two-byte multicodec header:
//! <https://www.w3.org/TR/controller-document/#multikey>. Only the kinds that a client handles itself.

use thiserror::Error;
use zeroize::Zeroizing;

/// Ed25519 public key, `z6Mk…`.
pub const ED25519_PUBLIC: [u8; 2] = [0xed, 0x01];
/// X25519 public key, `z6LS…`.
pub const X25519_PUBLIC: [u8; 2] = [0xec, 0x01];
/// Ed25519 seed.
pub const ED25519_SECRET: [u8; 2] = [0x80, 0x26];

/// Longest text that is decoded; the longest valid one has 91 characters.
const MAX_TEXT: usize = 128;

/// Why a text is not the key that it should be.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum MultikeyError {
    /// Not `z` and base58btc.
    #[error("the key is not multibase text that starts with \"z\"")]
    NotMultibase,
    /// Another kind of key, or another length.
    #[error("the key is of another kind or length than expected")]
    WrongKind,
}

/// `z` + base58btc(header || key).
#[must_use]
pub fn encode(header: [u8; 2], key: &[u8; 32]) -> String {
    encode_secret(header, key).as_str().to_owned()
}

/// The same text for a secret key, wiped when it is dropped; no copy of it is left behind.
#[must_use]
pub fn encode_secret(header: [u8; 2], key: &[u8; 32]) -> Zeroizing<String> {
    let mut bytes = Zeroizing::new([0u8; 34]);
    bytes[..2].copy_from_slice(&header);
    bytes[2..].copy_from_slice(key);
    let mut digits = Zeroizing::new([0u8; MAX_TEXT]);
    // 34 bytes have at most 47 digits, so the buffer is never short.
    let length = bs58::encode(bytes.as_slice())
        .onto(digits.as_mut_slice())
        .unwrap_or(0);
    let mut text = Zeroizing::new(String::with_capacity(MAX_TEXT));
    text.push('z');
    text.extend(digits[..length].iter().map(|digit| char::from(*digit)));
    text
}

/// Reads a 32-byte public key of the kind that `header` names.
///
/// # Errors
/// [`MultikeyError`] for other text, kinds and lengths.
pub fn decode(header: [u8; 2], text: &str) -> Result<[u8; 32], MultikeyError> {
    Ok(*decode_secret(header, text)?)
}

/// Reads a 32-byte secret key; a 64-byte one (seed and public key, as older libraries export it) is cut to its
/// seed. Nothing is left in memory but what is returned.
///
/// # Errors
/// [`MultikeyError`] for other text, kinds and lengths.
pub fn decode_secret(header: [u8; 2], text: &str) -> Result<Zeroizing<[u8; 32]>, MultikeyError> {
    let digits = text
        .strip_prefix('z')
        .filter(|_| text.len() <= MAX_TEXT)
        .ok_or(MultikeyError::NotMultibase)?;
    let mut bytes = Zeroizing::new([0u8; 128]);
    let length = bs58::decode(digits)
        .onto(bytes.as_mut_slice())
        .map_err(|_| MultikeyError::NotMultibase)?;
    let long = header == ED25519_SECRET && length == 66;
    if bytes[..2] != header || !(length == 34 || long) {
        return Err(MultikeyError::WrongKind);
    }
    let mut key = Zeroizing::new([0u8; 32]);
    key.copy_from_slice(&bytes[2..34]);
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::{
        ED25519_PUBLIC, ED25519_SECRET, MultikeyError, X25519_PUBLIC, decode, decode_secret, encode,
    };

    #[test]
    fn reads_a_key_of_the_npm_libraries() {
        let text = "z6MkjjNwuG31q5cJtJ2kUCzrZaWaHY6Gcpi6vLvuKzawkQf2";
        let key = decode(ED25519_PUBLIC, text).unwrap();
        assert_eq!(encode(ED25519_PUBLIC, &key), text);
        assert_eq!(decode(X25519_PUBLIC, text), Err(MultikeyError::WrongKind));
        assert!(decode(X25519_PUBLIC, "z6LSqLf2aVPRHpmmECHipyuUKRhMuKDtYfuuyjPppi9NLmbw").is_ok());
    }

    #[test]
    fn the_npm_secret_key_gives_its_public_key() {
        let text =
            "zrv5SgtK1tgX1Yo489oV4ocZ75SDoymBzR8Y5F4nB4Pn6Ucp8P2NXc2cxfFwwtqQEiRotWR7qY17SdxYHrLwE4Q8RN8";
        let seed = decode_secret(ED25519_SECRET, text).unwrap();
        let public = ed25519_dalek::SigningKey::from_bytes(&seed)
            .verifying_key()
            .to_bytes();
        assert_eq!(
            encode(ED25519_PUBLIC, &public),
            "z6MkjjNwuG31q5cJtJ2kUCzrZaWaHY6Gcpi6vLvuKzawkQf2"
        );
    }

    #[test]
    fn refuses_other_text() {
        for text in [
            "",
            "z",
            "u6Mk",
            "z0OIl",
            &"z6".repeat(100),
            "6MkjjNwuG31q5cJtJ2kUCzrZaWaHY6Gcpi6vLvuKzawkQf2",
        ] {
            assert!(decode(ED25519_PUBLIC, text).is_err(), "{text}");
        }
    }
}
