//! Bytes to the cluster over verified TLS, and questions to a node's admin listener over plain HTTP.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The status line and the headers, as they came.
    pub(crate) head: String,
    /// Everything after the head, chunk marks and all.
    pub(crate) body: String,
}

/// A client that trusts this authority and nobody else.
pub(crate) fn client(ca: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// Sends a whole request, which must say `connection: close`, as it is.
pub(crate) async fn send(to: SocketAddr, host: &str, ca: &Path, request: &[u8]) -> std::io::Result<Answer> {
    Ok(send_as(&client(ca), to, host, request).await?.1)
}

/// The same, and how the TLS session came about.
pub(crate) async fn send_as(
    client: &Arc<ClientConfig>,
    to: SocketAddr,
    host: &str,
    request: &[u8],
) -> std::io::Result<(Option<HandshakeKind>, Answer)> {
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let stream = TcpStream::connect(to).await?;
    let stream = TlsConnector::from(Arc::clone(client))
        .connect(name, stream)
        .await?;
    let kind = stream.get_ref().1.handshake_kind();
    Ok((kind, exchange(stream, request).await?))
}

/// GETs a path of a node's admin listener.
pub(crate) async fn admin(address: SocketAddr, path: &str) -> std::io::Result<Answer> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    exchange(TcpStream::connect(address).await?, request.as_bytes()).await
}

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &[u8],
) -> std::io::Result<Answer> {
    stream.write_all(request).await?;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    match tokio::time::timeout(Duration::from_secs(15), read).await {
        Ok(Ok(_)) => {}
        // A peer that closes without saying so has said everything if the head is there.
        Ok(Err(error)) if answer.is_empty() => return Err(error),
        Ok(Err(_)) => {}
        Err(_) => return Err(std::io::ErrorKind::TimedOut.into()),
    }
    let answer = String::from_utf8_lossy(&answer);
    let answer = answer
        .strip_prefix("HTTP/1.1 100 Continue\r\n\r\n")
        .unwrap_or(&answer);
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| std::io::Error::from(std::io::ErrorKind::UnexpectedEof))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok(Answer {
        status: status.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::InvalidData))?,
        head: head.to_owned(),
        body: body.to_owned(),
    })
}
