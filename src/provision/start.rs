//! What a node reads of its material when it starts: everything verified against what its configuration pins.

use std::path::Path;

use rustls::{
    client::verify_server_name, crypto::ring::default_provider, server::ParsedCertificate, sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};

use super::{
    Genesis, Identity, ProvisionError,
    genesis::MAX_GENESIS,
    introduction::{self, Introduction},
};
use crate::{
    config::Config,
    membership::Membership,
    seal::{NodeKey, secret_file},
};

/// A PEM file larger than this is refused unread.
const MAX_PEM: usize = 256 * 1024;
/// SubjectPublicKeyInfo of an Ed25519 key up to the key's bytes (RFC 8410, section 4).
const ED25519_SPKI_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// The opened material of one node.
pub struct Started {
    /// The node's own secret keys.
    pub identity: Identity,
    /// The verified genesis statement.
    pub genesis: Genesis,
    /// The members as this node's files name them last, this node included, and those before them.
    pub introduction: Introduction,
    /// This node's peer certificate, its own first.
    pub peer_chain: Vec<CertificateDer<'static>>,
    /// The authority of all peer certificates.
    pub peer_roots: Vec<CertificateDer<'static>>,
}

impl Started {
    /// Opens the identity with `key` and verifies that genesis, certificate and identity belong together.
    pub fn open(config: &Config, key: &NodeKey) -> Result<Self, ProvisionError> {
        let genesis = read_genesis(config)?;
        let introduction = introduction::read(config, &genesis)?;
        let members = &introduction.members;
        let (peer_chain, peer_roots) = read_peer_certificates(config, members)?;
        let path = &config.peer.identity;
        let identity = Identity::open(path, &config.cluster.0, config.node, key)?;
        let pinned = members
            .member(config.node)
            .map(|member| (member.verifying_key.to_bytes(), member.envelope_key));
        if pinned != Some((identity.public(), identity.envelope_public())) {
            let reason = "the keys are not those that the operators pin for this node".to_owned();
            return Err(ProvisionError::Mismatch {
                path: path.clone(),
                reason,
            });
        }
        Ok(Self {
            identity,
            introduction,
            genesis,
            peer_chain,
            peer_roots,
        })
    }
}

/// Reads the genesis statement and verifies it against what the configuration pins.
pub fn read_genesis(config: &Config) -> Result<Genesis, ProvisionError> {
    let genesis = Genesis::parse(&secret_file::read_public(&config.genesis, MAX_GENESIS)?)?;
    genesis.expect(config.cluster, config.groups, &config.operators)?;
    Ok(genesis)
}

/// A PEM chain: the certificate itself first.
pub type Chain = Vec<CertificateDer<'static>>;

/// The peer certificate (its key must be the one that the operators pin) and the authority's.
pub fn read_peer_certificates(
    config: &Config,
    members: &Membership,
) -> Result<(Chain, Chain), ProvisionError> {
    let path = &config.peer.certificate;
    let chain = read_chain(path)?;
    let pinned = members
        .member(config.node)
        .map(|member| member.verifying_key.to_bytes());
    if ed25519_key(&chain[0]) != pinned {
        let reason = "its key is not the one that the operators pin for this node".to_owned();
        return Err(ProvisionError::Mismatch {
            path: path.clone(),
            reason,
        });
    }
    Ok((chain, read_chain(&config.peer.ca)?))
}

/// Certificate and key of the public listener; they must belong together and cover the public host.
pub fn read_https(config: &Config) -> Result<(Chain, PrivateKeyDer<'static>), ProvisionError> {
    let chain = read_chain(&config.https.certificate)?;
    let mismatch = |path: &Path, reason: String| ProvisionError::Mismatch {
        path: path.to_owned(),
        reason,
    };
    let key_path = &config.https.key;
    let pem = secret_file::read(key_path, MAX_PEM)?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| ProvisionError::Malformed {
        path: key_path.clone(),
        expected: "a private key in PEM",
    })?;
    // Also says when the key is of a kind that cannot be used.
    CertifiedKey::from_der(chain.clone(), key.clone_key(), &default_provider()).map_err(|error| {
        mismatch(
            key_path,
            format!("the key does not belong to the certificate: {error}"),
        )
    })?;
    let host = config.public_url.host_name();
    if !covers(&chain[0], host) {
        return Err(mismatch(
            &config.https.certificate,
            format!("the certificate does not name {host}"),
        ));
    }
    Ok((chain, key))
}

/// Whether `certificate` may be shown for `host`.
pub fn covers(certificate: &CertificateDer<'_>, host: &str) -> bool {
    let Ok(name) = ServerName::try_from(host) else {
        return false;
    };
    ParsedCertificate::try_from(certificate).is_ok_and(|parsed| verify_server_name(&parsed, &name).is_ok())
}

/// The Ed25519 public key in `certificate`, if it has one.
pub fn ed25519_key(certificate: &CertificateDer<'_>) -> Option<[u8; 32]> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    let info = parsed.subject_public_key_info();
    info.strip_prefix(&ED25519_SPKI_PREFIX)?.try_into().ok()
}

/// Reads a PEM file with at least one certificate.
pub fn read_chain(path: &Path) -> Result<Chain, ProvisionError> {
    let bytes = secret_file::read_public(path, MAX_PEM)?;
    let malformed = || ProvisionError::Malformed {
        path: path.to_owned(),
        expected: "one or more certificates in PEM",
    };
    let chain = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<Chain, _>>()
        .map_err(|_| malformed())?;
    if chain.is_empty() {
        Err(malformed())
    } else {
        Ok(chain)
    }
}
