//! An operator's signature, as it stands in orders, in the genesis statement and in admissions.

use ed25519_dalek::{Signature, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::config::Hex32;
use crate::config::fields::{decode_hex, encode_hex};

/// One operator's signature, as it stands in statements.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorSignature {
    /// Whose it says that it is.
    pub operator: Hex32,
    signature: String,
}

impl OperatorSignature {
    /// By the holder of this public key.
    pub fn new(operator: [u8; 32], signature: &[u8; 64]) -> Self {
        Self {
            operator: Hex32(operator),
            signature: encode_hex(signature),
        }
    }

    /// Whether it is that operator's over `message`; who counts as an operator is the caller's question.
    pub fn is_right(&self, message: &[u8]) -> bool {
        let signature = decode_hex(&self.signature).and_then(|bytes| Signature::from_slice(&bytes).ok());
        let key = VerifyingKey::from_bytes(&self.operator.0);
        key.is_ok_and(|key| signature.is_some_and(|signature| key.verify_strict(message, &signature).is_ok()))
    }
}
