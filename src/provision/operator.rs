//! An operator's key: Ed25519, in a file of its own that belongs on no node.

use std::path::Path;

use ed25519_dalek::{Signer as _, SigningKey};
use rand::{CryptoRng, RngCore};
use serde::Deserialize;
use zeroize::{Zeroize as _, Zeroizing};

use super::ProvisionError;
use crate::config::fields::{decode_hex, encode_hex};
use crate::operator::OperatorSignature;
use crate::seal::secret_file;

const MAX_FILE: usize = 1024;
const KIND: &str = "conclave operator key";

/// An operator's secret key. No Debug, no Serialize; wiped on drop.
pub struct OperatorKey(SigningKey);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OperatorFile {
    r#type: String,
    public: String,
    secret: String,
}

impl Drop for OperatorFile {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl OperatorKey {
    /// A new random key.
    pub fn generate(rng: &mut (impl CryptoRng + RngCore)) -> Self {
        Self(SigningKey::generate(rng))
    }

    /// Reads a key file (mode 0600).
    pub fn read(path: &Path) -> Result<Self, ProvisionError> {
        let bytes = secret_file::read(path, MAX_FILE)?;
        let malformed = || ProvisionError::Malformed {
            path: path.to_owned(),
            expected: "an operator's key file",
        };
        let file: OperatorFile = serde_json::from_slice(&bytes).map_err(|_| malformed())?;
        let secret = Zeroizing::new(decode_hex(&file.secret).ok_or_else(malformed)?);
        let secret = <&[u8; 32]>::try_from(secret.as_slice()).map_err(|_| malformed())?;
        let key = Self(SigningKey::from_bytes(secret));
        if file.r#type != KIND || file.public != encode_hex(&key.public()) {
            return Err(malformed());
        }
        Ok(key)
    }

    /// Writes a new key file, mode 0600.
    pub fn create(&self, path: &Path) -> Result<(), ProvisionError> {
        let secret = Zeroizing::new(encode_hex(self.0.as_bytes()));
        let public = encode_hex(&self.public());
        let text = Zeroizing::new(format!(
            "{{\n  \"type\": \"{KIND}\",\n  \"public\": \"{public}\",\n  \"secret\": \"{}\"\n}}\n",
            *secret
        ));
        Ok(secret_file::create(path, text.as_bytes())?)
    }

    /// The public key, as configurations pin it.
    pub fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// Signs `message`; each kind of statement has its own prefix.
    pub fn sign(&self, message: &[u8]) -> OperatorSignature {
        OperatorSignature::new(self.public(), &self.0.sign(message).to_bytes())
    }
}
