//! A controller's identity: an Ed25519 key pair named by its did:key, kept in a file of mode 0600.
//!
//! The file is the Multikey that the npm libraries export, so an identity can move between them and this client.
//! The type has neither Debug nor Serialize, and its seed is wiped when it is dropped.

use crate::client::multikey::{self, ED25519_PUBLIC, ED25519_SECRET, MultikeyError};
use ed25519_dalek::SigningKey;
use rand::{CryptoRng, RngCore};
use serde::Deserialize;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use thiserror::Error;
use zeroize::Zeroizing;

/// Longest identity file that is read, in bytes; one that this module writes has about 450.
const MAX_FILE: usize = 4096;

/// Why an identity cannot be read or written.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// The file cannot be created: it may exist, and is never overwritten.
    #[error("cannot create {path}")]
    Create {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others than its owner may read the file.
    #[error("{path} can be read by others than its owner: run chmod 600 on it")]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// Not JSON with a `secretKeyMultibase` that this module knows.
    #[error("{path} is not an identity file")]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// The secret key of the file is not one.
    #[error("the secret key in {path} is not an Ed25519 key")]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: MultikeyError,
    },
    /// The public key beside the secret key is of another pair.
    #[error("the public key in {path} does not belong to its secret key")]
    Mismatch {
        /// The file.
        path: PathBuf,
    },
}

/// A did:key with its secret key.
pub struct Identity {
    key: SigningKey,
    did: String,
    key_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored<'a> {
    #[serde(borrow)]
    public_key_multibase: Option<&'a str>,
    #[serde(borrow)]
    secret_key_multibase: &'a str,
}

impl Identity {
    /// A new identity. `rng` is the system's randomness everywhere but in tests.
    pub fn generate(rng: &mut (impl CryptoRng + RngCore)) -> Self {
        Self::from_key(SigningKey::generate(rng))
    }

    /// The identity of a 32-byte seed (RFC 8032).
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self::from_key(SigningKey::from_bytes(seed))
    }

    fn from_key(key: SigningKey) -> Self {
        let public = multikey::encode(ED25519_PUBLIC, key.verifying_key().as_bytes());
        Self {
            key,
            did: format!("did:key:{public}"),
            key_id: format!("did:key:{public}#{public}"),
        }
    }

    /// Reads an identity file. A file that others may read is refused.
    ///
    /// # Errors
    /// [`IdentityError`], which never quotes the file.
    pub fn load(path: &Path) -> Result<Self, IdentityError> {
        let at = || path.to_owned();
        let read = |source| IdentityError::Read { path: at(), source };
        let file = File::open(path).map_err(read)?;
        if file.metadata().map_err(read)?.mode() & 0o077 != 0 {
            return Err(IdentityError::Exposed { path: at() });
        }
        // The whole capacity is taken first: a growing buffer would leave copies of the secret behind.
        let mut text = Zeroizing::new(Vec::with_capacity(MAX_FILE + 1));
        file.take(MAX_FILE as u64 + 1)
            .read_to_end(&mut text)
            .map_err(read)?;
        if text.len() > MAX_FILE {
            return Err(IdentityError::Malformed { path: at() });
        }
        let stored: Stored<'_> =
            serde_json::from_slice(&text).map_err(|_| IdentityError::Malformed { path: at() })?;
        let seed = multikey::decode_secret(ED25519_SECRET, stored.secret_key_multibase)
            .map_err(|source| IdentityError::Key { path: at(), source })?;
        let identity = Self::from_seed(&seed);
        match stored.public_key_multibase {
            Some(public) if public != identity.public_key() => Err(IdentityError::Mismatch { path: at() }),
            _ => Ok(identity),
        }
    }

    /// Writes the identity to a new file of mode 0600 and makes it durable; a file that exists is left alone.
    ///
    /// # Errors
    /// [`IdentityError::Create`].
    pub fn save(&self, path: &Path) -> Result<(), IdentityError> {
        let create = |source| IdentityError::Create {
            path: path.to_owned(),
            source,
        };
        let secret = multikey::encode_secret(ED25519_SECRET, self.key.as_bytes());
        // Room for all of it at once: a growing string would leave copies of the secret behind.
        let mut text = Zeroizing::new(String::with_capacity(MAX_FILE));
        for (name, value) in [
            ("{\n  \"@context", "https://w3id.org/security/multikey/v1"),
            (",\n  \"id", self.key_id.as_str()),
            (",\n  \"type", "Multikey"),
            (",\n  \"controller", self.did.as_str()),
            (",\n  \"publicKeyMultibase", self.public_key()),
            (",\n  \"secretKeyMultibase", secret.as_str()),
        ] {
            for part in [name, "\": \"", value, "\""] {
                text.push_str(part);
            }
        }
        text.push_str("\n}\n");
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(create)?;
        file.write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(create)
    }

    /// `did:key:z6Mk…`.
    #[must_use]
    pub fn did(&self) -> &str {
        &self.did
    }

    /// The verification method, `did:key:z6Mk…#z6Mk…`.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The public key, `z6Mk…`.
    #[must_use]
    pub fn public_key(&self) -> &str {
        self.did.trim_start_matches("did:key:")
    }

    /// The key that signs. Only [`crate::client::signer`] and delegation need it.
    pub(crate) fn signing_key(&self) -> &SigningKey {
        &self.key
    }
}

#[cfg(test)]
mod tests {
    use super::{Identity, IdentityError};
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_saved_identity_is_the_same_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("alice.json");
        let identity = Identity::generate(&mut rand::rngs::OsRng);
        identity.save(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Identity::load(&path).unwrap().key_id(), identity.key_id());
        assert!(matches!(identity.save(&path), Err(IdentityError::Create { .. })));
        assert_eq!(Identity::load(&path).unwrap().did(), identity.did());
    }

    #[test]
    fn refuses_files_that_others_may_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("alice.json");
        Identity::generate(&mut rand::rngs::OsRng).save(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            Identity::load(&path),
            Err(IdentityError::Exposed { .. })
        ));
    }

    #[test]
    fn refuses_other_files_without_quoting_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bad.json");
        let write = |text: &str| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            Identity::load(&path).err().unwrap()
        };
        assert!(matches!(write("not json"), IdentityError::Malformed { .. }));
        assert!(matches!(
            write("{\"secretKeyMultibase\":\"zQm\"}"),
            IdentityError::Key { .. }
        ));
        assert!(matches!(
            write(&" ".repeat(5000)),
            IdentityError::Malformed { .. }
        ));
        // The npm key of the vectors with the public key of another.
        let error = write(concat!(
            "{\"publicKeyMultibase\":\"z6MkoTLhnWd6iy66NAga83apkUCfzeW29MU8LcTGkyeEj9Hh\",\"secretKeyMultibase\":",
            "\"zrv5SgtK1tgX1Yo489oV4ocZ75SDoymBzR8Y5F4nB4Pn6Ucp8P2NXc2cxfFwwtqQEiRotWR7qY17SdxYHrLwE4Q8RN8\"}"
        ));
        assert!(matches!(error, IdentityError::Mismatch { .. }));
        assert!(!error.to_string().contains("zrv5"));
    }
}
