//! A node's own secret keys: Ed25519 (certificate, endorsements, ceremony messages) and X25519 (envelopes).
//!
//! On disk they are sealed under the node key, the private key of the peer certificate with them: a sealed node can
//! show nothing to its peers. No Debug, no Serialize; both keys wipe themselves on drop.

use std::path::Path;

use ed25519_dalek::{Signer as _, SigningKey};
use rand::{CryptoRng, RngCore};
use rustls_pki_types::PrivatePkcs8KeyDer;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::ProvisionError;
use crate::seal::{
    NodeKey,
    sealed::{self, Kind, MAX_SEALED},
    secret_file,
};

/// PKCS#8 of an Ed25519 key without its public part (RFC 8410, section 7), up to the seed.
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// A node's secret keys.
pub struct Identity {
    signing: SigningKey,
    envelope: StaticSecret,
}

impl Identity {
    /// New random keys.
    pub fn generate(rng: &mut (impl CryptoRng + RngCore)) -> Self {
        Self {
            signing: SigningKey::generate(rng),
            envelope: StaticSecret::random_from_rng(rng),
        }
    }

    /// Opens `path` with the node key. Wrong key, other cluster or node, damage: each is told.
    pub fn open(path: &Path, cluster: &[u8; 32], node: u64, key: &NodeKey) -> Result<Self, ProvisionError> {
        let bytes = secret_file::read(path, MAX_SEALED)?;
        let fail = |source| ProvisionError::Identity {
            path: path.to_owned(),
            source,
        };
        let secret =
            sealed::open(Kind::Identity, key.expose(), &context(cluster, node), &bytes).map_err(fail)?;
        let malformed = || ProvisionError::Malformed {
            path: path.to_owned(),
            expected: "a node's sealed identity",
        };
        let (signing, envelope) = secret.split_at_checked(32).ok_or_else(malformed)?;
        let half = |half: &[u8]| {
            <[u8; 32]>::try_from(half)
                .map(Zeroizing::new)
                .map_err(|_| malformed())
        };
        let (signing, envelope) = (half(signing)?, half(envelope)?);
        Ok(Self {
            signing: SigningKey::from_bytes(&signing),
            envelope: StaticSecret::from(*envelope),
        })
    }

    /// Writes the keys, sealed, to the new file `path`.
    pub fn create(
        &self,
        path: &Path,
        cluster: &[u8; 32],
        node: u64,
        key: &NodeKey,
        rng: &mut (impl CryptoRng + RngCore),
    ) -> Result<(), ProvisionError> {
        let mut secret = Zeroizing::new([0; 64]);
        secret[..32].copy_from_slice(self.signing.as_bytes());
        secret[32..].copy_from_slice(self.envelope.as_bytes());
        let bytes = sealed::seal(
            Kind::Identity,
            key.expose(),
            &context(cluster, node),
            &secret[..],
            rng,
        )
        .map_err(|source| ProvisionError::Identity {
            path: path.to_owned(),
            source,
        })?;
        Ok(secret_file::create(path, &bytes)?)
    }

    /// Signs `message` (RFC 8032). Each use brings its own prefix in `message`.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.signing.sign(message).to_bytes()
    }

    /// The Ed25519 key.
    pub fn signing_key(&self) -> &SigningKey {
        &self.signing
    }

    /// The X25519 secret.
    pub fn envelope_secret(&self) -> &StaticSecret {
        &self.envelope
    }

    /// The Ed25519 public key.
    pub fn public(&self) -> [u8; 32] {
        self.signing.verifying_key().to_bytes()
    }

    /// The X25519 public key.
    pub fn envelope_public(&self) -> [u8; 32] {
        PublicKey::from(&self.envelope).to_bytes()
    }

    /// The private key of the peer certificate: the Ed25519 key as PKCS#8.
    ///
    /// The type of the TLS library does not wipe itself; hand it over at once and keep no copy.
    pub fn peer_private_key(&self) -> PrivatePkcs8KeyDer<'static> {
        let mut der = Vec::with_capacity(PKCS8_PREFIX.len() + 32);
        der.extend_from_slice(&PKCS8_PREFIX);
        der.extend_from_slice(self.signing.as_bytes());
        PrivatePkcs8KeyDer::from(der)
    }
}

fn context(cluster: &[u8; 32], node: u64) -> Vec<u8> {
    [cluster.as_slice(), &node.to_be_bytes()].concat()
}
