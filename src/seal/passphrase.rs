//! A node key sealed under a passphrase: argon2id (RFC 9106) makes the key that seals it.
//!
//! The node key itself is random, so a passphrase can be changed without sealing everything anew.

use std::path::Path;

use argon2::{Algorithm, Argon2, Params, Version};
use rand::{CryptoRng, RngCore};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{
    NodeKey,
    sealed::{self, Kind, SealedError},
    secret_file::{self, SecretFileError},
};
use crate::config::fields::{decode_hex, encode_hex};

/// A passphrase has at most this many bytes.
pub const MAX_PASSPHRASE: usize = 1024;
/// `init` accepts no shorter one.
pub const MIN_PASSPHRASE: usize = 12;
const MAX_FILE: usize = 8192;

/// Why a passphrase does not open the node key.
#[derive(Debug, thiserror::Error)]
pub enum PassphraseError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// Not what `init` wrote.
    #[error("not a passphrase file: {0}")]
    Malformed(String),
    /// Another passphrase.
    #[error("the passphrase is wrong")]
    Wrong,
    /// Salt, parameters or the sealed key were changed since they were written.
    #[error("the sealed node key is damaged; restore the file from a copy")]
    Damaged,
    /// Too short to protect anything, or too long.
    #[error("a passphrase needs {MIN_PASSPHRASE} to {MAX_PASSPHRASE} bytes")]
    Length,
}

/// The passphrase file: parameters, salt, and the node key sealed under what they give.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SealedNodeKey {
    format: u8,
    kdf: Kdf,
    salt: String,
    memory_kib: u32,
    iterations: u32,
    parallelism: u32,
    sealed: String,
    /// SHA-256 of the other fields: tells damage from a wrong passphrase.
    checksum: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Kdf {
    Argon2id,
}

/// The cost of one guess.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Memory, KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub iterations: u32,
    /// Lanes.
    pub parallelism: u32,
}

impl Default for Cost {
    /// The second recommended option of RFC 9106, section 4.
    fn default() -> Self {
        Self {
            memory_kib: 64 * 1024,
            iterations: 3,
            parallelism: 4,
        }
    }
}

impl Cost {
    /// Above this a damaged file would stall the node; nobody chooses it.
    fn is_bounded(self) -> bool {
        (8..=2 * 1024 * 1024).contains(&self.memory_kib)
            && (1..=64).contains(&self.iterations)
            && (1..=16).contains(&self.parallelism)
    }
}

impl SealedNodeKey {
    /// Seals `key` for one node of one cluster.
    pub fn seal(
        key: &NodeKey,
        passphrase: &[u8],
        cost: Cost,
        cluster: &[u8; 32],
        node: u64,
        rng: &mut (impl CryptoRng + RngCore),
    ) -> Result<Self, PassphraseError> {
        if !(MIN_PASSPHRASE..=MAX_PASSPHRASE).contains(&passphrase.len()) {
            return Err(PassphraseError::Length);
        }
        let mut salt = [0; 16];
        rng.fill_bytes(&mut salt);
        let stretched = stretch(passphrase, &salt, cost)?;
        let sealed = sealed::seal(
            Kind::NodeKey,
            &stretched,
            &context(cluster, node),
            key.expose(),
            rng,
        )
        .map_err(|_| PassphraseError::Damaged)?;
        let mut file = Self {
            format: 1,
            kdf: Kdf::Argon2id,
            salt: encode_hex(&salt),
            memory_kib: cost.memory_kib,
            iterations: cost.iterations,
            parallelism: cost.parallelism,
            sealed: encode_hex(&sealed),
            checksum: String::new(),
        };
        file.checksum = file.computed_checksum();
        Ok(file)
    }

    /// Reads and checks the file; nothing secret is needed for that.
    pub fn read(path: &Path) -> Result<Self, PassphraseError> {
        let bytes = secret_file::read_public(path, MAX_FILE)?;
        let file: Self =
            serde_json::from_slice(&bytes).map_err(|error| PassphraseError::Malformed(error.to_string()))?;
        if file.format != 1 {
            return Err(PassphraseError::Malformed(format!(
                "format {} is not known",
                file.format
            )));
        }
        if file.checksum != file.computed_checksum() || !file.cost().is_bounded() {
            return Err(PassphraseError::Damaged);
        }
        Ok(file)
    }

    /// As it stands on disk.
    pub fn to_json(&self) -> Vec<u8> {
        // Strings and integers only: cannot fail.
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }

    /// Opens the node key; costs what [`Cost`] says, so call it off the event loop.
    pub fn open(&self, passphrase: &[u8], cluster: &[u8; 32], node: u64) -> Result<NodeKey, PassphraseError> {
        if passphrase.is_empty() || passphrase.len() > MAX_PASSPHRASE {
            return Err(PassphraseError::Wrong);
        }
        let salt = decode_hex(&self.salt).ok_or(PassphraseError::Damaged)?;
        let bytes = decode_hex(&self.sealed).ok_or(PassphraseError::Damaged)?;
        let stretched = stretch(passphrase, &salt, self.cost())?;
        let key =
            sealed::open(Kind::NodeKey, &stretched, &context(cluster, node), &bytes).map_err(|error| {
                match error {
                    SealedError::WrongKey => PassphraseError::Wrong,
                    _ => PassphraseError::Damaged,
                }
            })?;
        <&[u8; 32]>::try_from(key.as_slice())
            .map(NodeKey::new)
            .map_err(|_| PassphraseError::Damaged)
    }

    fn cost(&self) -> Cost {
        Cost {
            memory_kib: self.memory_kib,
            iterations: self.iterations,
            parallelism: self.parallelism,
        }
    }

    fn computed_checksum(&self) -> String {
        use sha2::{Digest as _, Sha256};
        let Self {
            format,
            kdf: Kdf::Argon2id,
            salt,
            memory_kib,
            iterations,
            parallelism,
            sealed,
            checksum: _,
        } = self;
        let text = format!("{format} argon2id {salt} {memory_kib} {iterations} {parallelism} {sealed}");
        encode_hex(&Sha256::digest(text))
    }
}

fn context(cluster: &[u8; 32], node: u64) -> Vec<u8> {
    [cluster.as_slice(), &node.to_be_bytes()].concat()
}

fn stretch(passphrase: &[u8], salt: &[u8], cost: Cost) -> Result<Zeroizing<[u8; 32]>, PassphraseError> {
    let params = Params::new(cost.memory_kib, cost.iterations, cost.parallelism, Some(32))
        .map_err(|_| PassphraseError::Damaged)?;
    let mut output = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase, salt, &mut output[..])
        .map_err(|_| PassphraseError::Damaged)?;
    Ok(output)
}

/// Takes one line end off: what a terminal or `echo` appends is not part of a passphrase.
pub fn without_line_end(text: &[u8]) -> &[u8] {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    text.strip_suffix(b"\r").unwrap_or(text)
}
