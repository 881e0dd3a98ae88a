//! For tests: a tiny HTTPS server on loopback with a certificate of its own authority. It knows enough HTTP/1.1 for
//! one client and hands every request to a closure as the server side of the house would see it.

use crate::authorization::RawRequest;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// What a handler answers.
pub(crate) enum Answer {
    /// Status and body, with a length.
    Json(u16, String),
    /// Bytes as they are, then the end of the connection.
    Raw(Vec<u8>),
    /// The connection ends without a byte.
    Hangup,
    /// Nothing, for ever.
    Silence,
}

/// A running server; dropping it ends it.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    /// Connections that were accepted.
    pub(crate) connections: Arc<AtomicUsize>,
    /// Requests that were read.
    pub(crate) requests: Arc<AtomicUsize>,
    dir: TempDir,
    task: JoinHandle<()>,
}

impl Server {
    /// Starts one whose certificate names `host`.
    pub(crate) async fn start(
        host: &str,
        handler: impl Fn(RawRequest) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_key = KeyPair::generate().unwrap();
        let authority_certificate = authority.self_signed(&authority_key).unwrap();
        let issuer = Issuer::new(authority, authority_key);
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![host.to_owned()])
            .unwrap()
            .signed_by(&key, &issuer)
            .unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), authority_certificate.pem()).unwrap();

        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let handler = Arc::new(handler);
        let (accepted, read) = (Arc::clone(&connections), Arc::clone(&requests));
        let task = tokio::spawn(async move {
            let mut tasks = tokio::task::JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::SeqCst);
                let (acceptor, handler, read) = (acceptor.clone(), Arc::clone(&handler), Arc::clone(&read));
                tasks.spawn(async move { serve(socket, acceptor, handler.as_ref(), &read).await });
            }
        });
        Self {
            address,
            connections,
            requests,
            dir,
            task,
        }
    }

    /// `HOST:PORT` of it.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// The certificate of its authority.
    pub(crate) fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Takes no more connections; those that are open end.
    pub(crate) async fn stop(&mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    socket: TcpStream,
    acceptor: TlsAcceptor,
    handler: &(impl Fn(RawRequest) -> Answer + Send + Sync),
    read: &AtomicUsize,
) {
    // Or the first reply of a connection waits 40 ms for the acknowledgement of the session tickets before it.
    let _ = socket.set_nodelay(true);
    let Ok(mut stream) = acceptor.accept(socket).await else {
        return;
    };
    let mut input = Vec::new();
    loop {
        let Some(request) = read_request(&mut stream, &mut input).await else {
            return;
        };
        read.fetch_add(1, Ordering::SeqCst);
        match handler(request) {
            Answer::Json(status, body) => {
                let reply = format!(
                    "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                if stream.write_all(reply.as_bytes()).await.is_err() {
                    return;
                }
                let _ = stream.flush().await;
            }
            Answer::Raw(bytes) => {
                let _ = stream.write_all(&bytes).await;
                let _ = stream.shutdown().await;
                return;
            }
            Answer::Hangup => return,
            Answer::Silence => std::future::pending().await,
        }
    }
}

async fn read_request(
    stream: &mut (impl tokio::io::AsyncRead + Unpin),
    input: &mut Vec<u8>,
) -> Option<RawRequest> {
    loop {
        if let Some(end) = input.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(input[..end].to_vec()).ok()?;
            let mut lines = head.split("\r\n");
            let mut first = lines.next()?.split(' ');
            let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
            let headers: Vec<(String, Vec<u8>)> = lines
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_ascii_lowercase(), value.as_bytes().to_vec()))
                .collect();
            let length = headers
                .iter()
                .find(|(name, _)| name == "content-length")
                .and_then(|(_, value)| std::str::from_utf8(value).ok()?.parse::<usize>().ok())
                .unwrap_or(0);
            if input.len() >= end + 4 + length {
                let body = input[end + 4..end + 4 + length].to_vec();
                input.drain(..end + 4 + length);
                return Some(RawRequest {
                    method,
                    target,
                    headers,
                    body,
                });
            }
        }
        if stream.read_buf(input).await.ok()? == 0 {
            return None;
        }
    }
}
