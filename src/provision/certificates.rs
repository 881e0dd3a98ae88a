//! X.509: one authority for a cluster, certificates for the public host and for the links between nodes.
//!
//! Clients trust the authority; nodes use it only for the handshake and go by the key that membership pins. So a
//! peer's certificate lives as long as its authority, and the public one as long as clients accept (825 days).

use std::fmt;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData, SanType, SerialNumber,
    SignatureAlgorithm,
};
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;

use super::ProvisionError;
use super::candidate::Candidate;
use crate::config::PublicUrl;
use crate::config::fields::{decode_hex, encode_hex};

const AUTHORITY_DAYS: i64 = 3650;
/// What clients of several vendors accept at most.
const PUBLIC_DAYS: i64 = 825;
/// Clocks of machines that are being set up may run behind by as much.
const BACKDATED: Duration = Duration::hours(24);

/// A certificate authority with its private key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    expires: OffsetDateTime,
}

/// A node's certificates, PEM.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Certificates {
    /// For clients.
    pub https: String,
    /// For the other nodes.
    pub peer: String,
}

/// A public key on P-256: the point, uncompressed (SEC 1, 2.3.3), written as hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct P256Point(pub [u8; 65]);

impl TryFrom<String> for P256Point {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let point = decode_hex(&text).and_then(|bytes| bytes.try_into().ok());
        point
            .filter(|point: &[u8; 65]| point[0] == 4)
            .map(Self)
            .ok_or("a P-256 point is 65 bytes in hexadecimal, the first of them 04")
    }
}

impl From<P256Point> for String {
    fn from(point: P256Point) -> Self {
        encode_hex(&point.0)
    }
}

impl fmt::Debug for P256Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&encode_hex(&self.0))
    }
}

/// The key of a node's public listener, P-256.
pub struct HttpsKey(KeyPair);

impl HttpsKey {
    /// A new random key.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn generate() -> Result<Self, ProvisionError> {
        Ok(Self(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?))
    }

    /// PKCS#8 PEM.
    pub fn to_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.serialize_pem())
    }

    /// The public key.
    ///
    /// # Errors
    /// If the library's is no uncompressed point.
    pub fn public(&self) -> Result<P256Point, ProvisionError> {
        let point = self.0.public_key_raw().try_into();
        point
            .map(P256Point)
            .map_err(|_| ProvisionError::Plan("the key of the public listener is no point of P-256".into()))
    }
}

/// Of whom there is only the public key.
struct Subject<'a> {
    key: &'a [u8],
    algorithm: &'static SignatureAlgorithm,
}

impl PublicKeyData for Subject<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.key
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

impl Authority {
    /// A new authority whose name carries `label` (the beginning of the cluster's id), so that two are told apart.
    pub fn generate(label: &str, now: OffsetDateTime) -> Result<Self, ProvisionError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let expires = now + Duration::days(AUTHORITY_DAYS);
        let mut params = authority(label);
        params.not_before = now - BACKDATED;
        params.not_after = expires;
        let pem = params.self_signed(&key)?.pem();
        Ok(Self {
            issuer: Issuer::new(params, key),
            pem,
            expires,
        })
    }

    /// The authority of a cluster that there is, from its certificate and its private key (PEM), to issue further ones. What
    /// it issues ends with it, whatever their dates say.
    pub fn open(label: &str, pem: String, key: &str, now: OffsetDateTime) -> Result<Self, ProvisionError> {
        let key = KeyPair::from_pem(key)?;
        Ok(Self {
            issuer: Issuer::new(authority(label), key),
            pem,
            expires: now + Duration::days(AUTHORITY_DAYS),
        })
    }

    /// The authority's certificate.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The authority's private key, PKCS#8 PEM: kept by the operator, on no node.
    pub fn key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.issuer.key().serialize_pem())
    }

    /// The certificates of a node: one for the public host, localhost, 127.0.0.1 and ::1, and one for links in both directions.
    ///
    /// # Errors
    /// What the library says of the names and keys.
    pub fn certify(
        &self,
        node: &Candidate,
        cluster: &[u8; 32],
        url: &PublicUrl,
        now: OffsetDateTime,
    ) -> Result<Certificates, ProvisionError> {
        Ok(Certificates {
            https: self.certify_https(&node.https, url, now)?,
            peer: self.certify_peer((node.member.node, &node.member.identity.0), cluster, now)?,
        })
    }

    fn certify_https(
        &self,
        key: &P256Point,
        url: &PublicUrl,
        now: OffsetDateTime,
    ) -> Result<String, ProvisionError> {
        let mut params = named(url.host_name());
        let mut names = vec![url.host_name().to_owned()];
        for name in ["localhost", "127.0.0.1", "::1"] {
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        params.subject_alt_names = names
            .into_iter()
            .map(alternative_name)
            .collect::<Result<_, _>>()?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.not_before = now - BACKDATED;
        params.not_after = now + Duration::days(PUBLIC_DAYS);
        params.use_authority_key_identifier_extension = true;
        let subject = Subject {
            key: &key.0,
            algorithm: &PKCS_ECDSA_P256_SHA256,
        };
        Ok(params.signed_by(&subject, &self.issuer)?.pem())
    }

    /// For a node's Ed25519 key.
    fn certify_peer(
        &self,
        (node, key): (u64, &[u8; 32]),
        cluster: &[u8; 32],
        now: OffsetDateTime,
    ) -> Result<String, ProvisionError> {
        let mut params = named(&format!("Conclave node {node}"));
        params.subject_alt_names = vec![alternative_name(peer_name(node, cluster))?];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.not_before = now - BACKDATED;
        params.not_after = self.expires;
        params.use_authority_key_identifier_extension = true;
        let subject = Subject {
            key,
            algorithm: &PKCS_ED25519,
        };
        Ok(params.signed_by(&subject, &self.issuer)?.pem())
    }
}

/// What an authority of this label is, but for its dates.
fn authority(label: &str) -> CertificateParams {
    let mut params = named(&format!("Conclave cluster {label}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// The DNS name in a peer's certificate: never looked up, only compared.
pub fn peer_name(node: u64, cluster: &[u8; 32]) -> String {
    format!("node-{node}.{}.conclave.internal", encode_hex(&cluster[..8]))
}

fn named(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // An attribute of X.520 holds 64 characters; the name that counts is the alternative one.
    params.distinguished_name.push(
        DnType::CommonName,
        common_name.chars().take(64).collect::<String>(),
    );
    params.serial_number = Some(SerialNumber::from(rand::random::<u64>() >> 1));
    params
}

fn alternative_name(name: String) -> Result<SanType, ProvisionError> {
    Ok(match name.parse() {
        Ok(address) => SanType::IpAddress(address),
        Err(_) => SanType::DnsName(name.try_into()?),
    })
}
