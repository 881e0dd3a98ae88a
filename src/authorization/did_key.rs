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

    /// Strict Ed25519 verification: no malleable S, no key or R of small order, no second spelling of R.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        let r: &[u8; 32] = signature.first_chunk().unwrap_or(&[0xff; 32]);
        is_canonical(r)
            && self
                .key
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
