//! TLS 1.3, mutual, with pinned keys: the authority's signature *and* the Ed25519 key that membership pins for the node.
//!
//! Names in certificates are not looked at: the key is the identity. No tickets, no resumption, no early data, so every
//! connection checks the certificate anew.

use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::counters::Refusal;
use crate::settings::Settings;
use crate::table::PeerTable;

/// The protocol name in ALPN; its number is raised with the hello's version.
const ALPN: &[u8] = b"conclave/1";
/// An Ed25519 SubjectPublicKeyInfo up to the key (RFC 8410).
const ED25519_SPKI: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate or key does not fit.
    #[error("tls configuration: {0}")]
    Rustls(#[from] rustls::Error),
    /// An authority's certificate does not fit.
    #[error("certificate authority: {0}")]
    Authority(#[from] rustls::server::VerifierBuilderError),
    /// This node's certificate is absent or its key is not Ed25519.
    #[error("this node's certificate must have an Ed25519 key")]
    NotEd25519,
}

/// The Ed25519 key in a certificate; `None` for another kind of key or something that is no certificate.
pub fn public_key_of(certificate: &CertificateDer<'_>) -> Option<[u8; 32]> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    let info = parsed.subject_public_key_info();
    info.as_ref().strip_prefix(&ED25519_SPKI)?.try_into().ok()
}

/// Everything that connections need of TLS.
pub(crate) struct Tls {
    /// This node's own key.
    pub(crate) public_key: [u8; 32],
    pub(crate) server: Arc<ServerConfig>,
    /// Takes nobody but this node itself: each peer's is this one with that peer's key.
    client: ClientConfig,
    verifier: PinnedServer,
}

impl Tls {
    /// `peers` says, at every handshake, whose clients are taken.
    pub(crate) fn new(settings: &Settings, peers: Arc<PeerTable>) -> Result<Tls, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        for root in &settings.roots {
            roots.add(root.clone())?;
        }
        let roots = Arc::new(roots);
        let public_key = settings
            .certificate_chain
            .first()
            .and_then(public_key_of)
            .ok_or(TlsError::NotEd25519)?;
        let clients = PinnedClients {
            inner: WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
                .build()?,
            peers,
        };
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::new(clients))
            .with_single_cert(
                settings.certificate_chain.clone(),
                settings.private_key.clone_key(),
            )?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let verifier = PinnedServer {
            provider: Arc::clone(&provider),
            roots,
            key: public_key,
        };
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier.clone()))
            .with_client_auth_cert(
                settings.certificate_chain.clone(),
                settings.private_key.clone_key(),
            )?;
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.resumption = Resumption::disabled();
        client.enable_sni = false;
        Ok(Tls {
            public_key,
            server: Arc::new(server),
            client,
            verifier,
        })
    }

    /// A configuration that speaks to the holder of this key and nobody else.
    pub(crate) fn client(&self, public_key: [u8; 32]) -> Arc<ClientConfig> {
        let mut client = self.client.clone();
        client
            .dangerous()
            .set_certificate_verifier(Arc::new(PinnedServer {
                key: public_key,
                ..self.verifier.clone()
            }));
        Arc::new(client)
    }
}

/// Whether the other side agreed on our protocol; without this check one that offers none would pass.
pub(crate) fn speaks_our_protocol(connection: &rustls::CommonState) -> bool {
    connection.alpn_protocol() == Some(ALPN)
}

/// Which refusal of ours a failed handshake is.
pub(crate) fn refusal_of(error: &io::Error) -> Refusal {
    let rustls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match rustls {
        Some(rustls::Error::InvalidCertificate(why)) => match why {
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Refusal::Expired,
            CertificateError::ApplicationVerificationFailure => Refusal::PublicKey,
            _ => Refusal::Certificate,
        },
        Some(rustls::Error::NoCertificatesPresented) => Refusal::Certificate,
        _ => Refusal::Handshake,
    }
}

fn not_pinned() -> rustls::Error {
    rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)
}

/// TLS 1.2 is not offered; should rustls ever ask, the answer is no.
fn no_tls12() -> rustls::Error {
    rustls::Error::General("tls 1.2 is not offered".into())
}

/// Of clients: signed by the authority, and with a key that is pinned for some peer now. Which one, the acceptor looks up.
#[derive(Debug)]
struct PinnedClients {
    inner: Arc<dyn ClientCertVerifier>,
    peers: Arc<PeerTable>,
}

impl ClientCertVerifier for PinnedClients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Tells a stranger nothing about the authority.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        match public_key_of(end_entity) {
            Some(key) if self.peers.by_key(&key).is_some() => Ok(verified),
            _ => Err(not_pinned()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

/// Of the server that was dialled: signed by the authority, and with exactly this key.
#[derive(Clone, Debug)]
struct PinnedServer {
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    key: [u8; 32],
}

impl ServerCertVerifier for PinnedServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)?;
        match public_key_of(end_entity) {
            Some(key) if key == self.key => Ok(ServerCertVerified::assertion()),
            _ => Err(not_pinned()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
