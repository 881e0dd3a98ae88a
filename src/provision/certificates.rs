//! X.509: one authority for a cluster, certificates for the public host and for the links between nodes.
//!
//! Clients trust the authority; nodes use it only for the handshake and go by the key that membership pins. So a
//! peer's certificate lives as long as its authority, and the public one as long as clients accept (825 days).

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;

use super::ProvisionError;
use crate::config::{PublicUrl, fields::encode_hex};

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

/// A certificate and its private key, both PEM.
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// PKCS#8.
    pub key: Zeroizing<String>,
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

    /// A certificate for the public host, localhost, 127.0.0.1 and ::1, with a new P-256 key.
    pub fn issue_public(&self, url: &PublicUrl, now: OffsetDateTime) -> Result<Issued, ProvisionError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
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
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Issued {
            certificate: certificate.pem(),
            key: Zeroizing::new(key.serialize_pem()),
        })
    }

    /// A certificate for node `node`'s Ed25519 key, given as PKCS#8, for links in both directions.
    pub fn issue_peer(
        &self,
        node: u64,
        cluster: &[u8; 32],
        key: &PrivatePkcs8KeyDer<'_>,
        now: OffsetDateTime,
    ) -> Result<String, ProvisionError> {
        let key = KeyPair::try_from(&PrivateKeyDer::Pkcs8(key.clone_key()))?;
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
        Ok(params.signed_by(&key, &self.issuer)?.pem())
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
