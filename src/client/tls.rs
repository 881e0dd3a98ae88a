//! Whom a client trusts: the authority of `--ca`, or else the system's roots. There is no way to trust anybody.

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;

/// Longest file of authorities that is read, in bytes.
const MAX_FILE: usize = 1024 * 1024;

/// Why there is nobody to trust.
#[derive(Debug, Error)]
pub enum TrustError {
    /// The file of authorities cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It holds no certificate, or one that cannot be used.
    #[error("{path} holds no usable PEM certificate")]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The system has no roots; the text is what its loader said.
    #[error("the system has no root certificates ({0}); name an authority with --ca")]
    NoRoots(String),
    /// The TLS library refused the settings.
    #[error("cannot set up TLS")]
    Setup(#[from] rustls::Error),
}

/// TLS 1.2 and 1.3 that trusts the authorities in `ca` (PEM), or the system's roots when there is none.
///
/// # Errors
/// [`TrustError`].
pub fn config(ca: Option<&Path>) -> Result<Arc<ClientConfig>, TrustError> {
    let roots = match ca {
        Some(path) => authorities(path)?,
        None => system_roots()?,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn authorities(path: &Path) -> Result<RootCertStore, TrustError> {
    let read = |source| TrustError::Read {
        path: path.to_owned(),
        source,
    };
    let unusable = || TrustError::NoCertificate {
        path: path.to_owned(),
    };
    let mut text = Vec::new();
    File::open(path)
        .map_err(read)?
        .take(MAX_FILE as u64 + 1)
        .read_to_end(&mut text)
        .map_err(read)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        roots
            .add(certificate.map_err(|_| unusable())?)
            .map_err(|_| unusable())?;
    }
    if roots.is_empty() || text.len() > MAX_FILE {
        Err(unusable())
    } else {
        Ok(roots)
    }
}

fn system_roots() -> Result<RootCertStore, TrustError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let reason = found
            .errors
            .first()
            .map_or_else(|| "none found".to_owned(), ToString::to_string);
        return Err(TrustError::NoRoots(reason));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::{TrustError, config};

    #[test]
    fn needs_a_certificate() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        assert!(matches!(config(Some(&path)), Err(TrustError::Read { .. })));
        std::fs::write(&path, "no certificate").unwrap();
        assert!(matches!(
            config(Some(&path)),
            Err(TrustError::NoCertificate { .. })
        ));
        std::fs::write(
            &path,
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        )
        .unwrap();
        assert!(matches!(
            config(Some(&path)),
            Err(TrustError::NoCertificate { .. })
        ));
    }
}
