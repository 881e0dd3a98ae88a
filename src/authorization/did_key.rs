//! did:key with Ed25519, strictly: one spelling for each key, canonical and not of small order. No other DID method
//! is resolved and nothing is ever fetched.

use ed25519_dalek::{Signature, VerifyingKey};

use super::error::Refusal;

const PREFIX: &str = "did:key:";
/// Multicodec `ed25519-pub` as a varint.
const ED25519_PUB: [u8; 2] = [0xed, 0x01];
/// No did:key of an Ed25519 key is longer (they have 56 characters).
const MAX_DID: usize = 64;

/// An Ed25519 key with its did:key names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DidKey {
    /// `did:key:z6Mk…`
    pub did: String,
    /// The only verification method of that DID: `did:key:z6Mk…#z6Mk…`
    pub method: String,
    /// The key itself.
    pub key: VerifyingKey,
}

impl DidKey {
    /// The names of a key. The caller answers for the key not being weak.
    pub fn of(key: &VerifyingKey) -> Self {
        let mut bytes = Vec::with_capacity(34);
        bytes.extend_from_slice(&ED25519_PUB);
        bytes.extend_from_slice(key.as_bytes());
        let multibase = format!("z{}", bs58::encode(bytes).into_string());
        Self {
            did: format!("{PREFIX}{multibase}"),
            method: format!("{PREFIX}{multibase}#{multibase}"),
            key: *key,
        }
    }

    /// Reads `did:key:z6Mk…`.
    pub fn from_did(did: &str) -> Result<Self, Refusal> {
        let multibase = did.strip_prefix(PREFIX).ok_or(Refusal::UnsupportedKey)?;
        let key = decode(did, multibase)?;
        Ok(Self {
            did: did.to_owned(),
            method: format!("{did}#{multibase}"),
            key,
        })
    }

    /// Reads `did:key:z6Mk…#z6Mk…`.
    pub fn from_method(method: &str) -> Result<Self, Refusal> {
        let (did, fragment) = method.split_once('#').ok_or(Refusal::UnsupportedKey)?;
        let multibase = did.strip_prefix(PREFIX).ok_or(Refusal::UnsupportedKey)?;
        if fragment != multibase {
            return Err(Refusal::UnsupportedKey);
        }
        let key = decode(did, multibase)?;
        Ok(Self {
            did: did.to_owned(),
            method: method.to_owned(),
            key,
        })
    }

    /// Whether a list of controllers names this key, by its DID or by its verification method.
    pub fn is_among(&self, controllers: &[String]) -> bool {
        controllers
            .iter()
            .any(|controller| *controller == self.did || *controller == self.method)
    }

    /// Strict Ed25519 verification: no malleable S, no key or R of small order. (An R with a second spelling would be
    /// of small order, or one whose discrete logarithm nobody can find.)
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        self.key
            .verify_strict(message, &Signature::from_bytes(signature))
            .is_ok()
    }
}

/// Whether a controller is a DID or a verification method that this verifier could ever match.
pub fn is_controller(text: &str) -> bool {
    if text.contains('#') {
        DidKey::from_method(text).is_ok()
    } else {
        DidKey::from_did(text).is_ok()
    }
}

fn decode(did: &str, multibase: &str) -> Result<VerifyingKey, Refusal> {
    if did.len() > MAX_DID {
        return Err(Refusal::UnsupportedKey);
    }
    let digits = multibase.strip_prefix('z').ok_or(Refusal::UnsupportedKey)?;
    let mut bytes = [0u8; 34];
    let length = bs58::decode(digits)
        .onto(&mut bytes)
        .map_err(|_| Refusal::UnsupportedKey)?;
    let key: &[u8; 32] = match bytes.strip_prefix(&ED25519_PUB) {
        Some(key) if length == bytes.len() => key.try_into().map_err(|_| Refusal::UnsupportedKey)?,
        _ => return Err(Refusal::UnsupportedKey),
    };
    if !is_canonical(key) {
        return Err(Refusal::UnsupportedKey);
    }
    let key = VerifyingKey::from_bytes(key).map_err(|_| Refusal::UnsupportedKey)?;
    if key.is_weak() {
        Err(Refusal::UnsupportedKey)
    } else {
        Ok(key)
    }
}

/// Whether the y coordinate is below 2^255 - 19, so that the point has this one encoding (RFC 8032, 5.1.3).
fn is_canonical(point: &[u8; 32]) -> bool {
    let high = point[31] & 0x7f == 0x7f && point[1..31].iter().all(|byte| *byte == 0xff);
    !(high && point[0] >= 0xed)
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::hazmat::ExpandedSecretKey;
    use ed25519_dalek::{Signer as _, SigningKey, Verifier as _};
    use sha2::{Digest, Sha512};

    use super::*;

    /// A signer that takes the identity for R and S = k a makes a signature that plain RFC 8032 verification accepts.
    #[test]
    fn small_order_r_is_refused() {
        let secret = [7; 32];
        let key = DidKey::of(&SigningKey::from_bytes(&secret).verifying_key());
        let mut r = [0; 32];
        r[0] = 1;
        let message = b"message";
        let challenge = Sha512::new()
            .chain_update(r)
            .chain_update(key.key.as_bytes())
            .chain_update(message)
            .finalize();
        let a = ExpandedSecretKey::from(&secret).scalar;
        // k a, by doubling: the challenge is a little-endian number of 512 bits.
        let mut s = a - a;
        for byte in challenge.iter().rev() {
            for bit in (0..8).rev() {
                s += s;
                if byte >> bit & 1 == 1 {
                    s += a;
                }
            }
        }
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&r);
        signature[32..].copy_from_slice(&s.to_bytes());
        assert!(
            key.key
                .verify(message, &Signature::from_bytes(&signature))
                .is_ok()
        );
        assert!(!key.verifies(message, &signature));
        let good = SigningKey::from_bytes(&secret).sign(message).to_bytes();
        assert!(key.verifies(message, &good));
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        let key = DidKey::of(&SigningKey::from_bytes(&[9; 32]).verifying_key());
        assert_eq!(DidKey::from_did(&key.did).as_ref(), Ok(&key));
        assert_eq!(DidKey::from_method(&key.method).as_ref(), Ok(&key));
        assert!(DidKey::from_did(&key.method).is_err() && DidKey::from_method(&key.did).is_err());
        assert!(
            key.is_among(std::slice::from_ref(&key.did)) && key.is_among(std::slice::from_ref(&key.method))
        );
        assert!(!key.is_among(&[]) && !key.is_among(&["did:key:z".to_owned()]));
    }
}
