//! The client's side of a connection, spoken by hand: what a member, or anybody with a key, might do.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use conclave_transport::{Lane, NodeId};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Authority, CLUSTER, Identity, patient};

/// A client with this identity that takes every server of the authority.
pub fn client(authority: &Authority, own: &Identity) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![own.certificate.clone()], own.private_key())
        .unwrap();
    config.alpn_protocols = vec![b"conclave/1".to_vec()];
    config
}

/// The client's half of the handshake: it learns of a refusal only when it reads.
pub async fn tls(config: Arc<ClientConfig>, to: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(to).await.unwrap();
    TlsConnector::from(config)
        .connect(ServerName::try_from("node.test").unwrap(), tcp)
        .await
}

pub fn hello(from: NodeId, to: NodeId, lane: u8) -> Vec<u8> {
    let mut hello = b"conclave".to_vec();
    // The lowest and the highest format.
    hello.extend([1, 1]);
    hello.extend(CLUSTER);
    hello.extend(from.to_be_bytes());
    hello.extend(to.to_be_bytes());
    hello.extend([2; 16]);
    hello.extend([lane, 1]);
    hello
}

/// Says hello and reads the other side's, which must take the connection.
pub async fn greet(stream: &mut TlsStream<TcpStream>, from: NodeId, to: NodeId, lane: Lane) {
    let lane = lane.index() as u8;
    stream.write_all(&hello(from, to, lane)).await.unwrap();
    let mut answer = [0; 76];
    patient(stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(
        (&answer[..8], answer[49], answer[57], answer[74], answer[75]),
        (&b"conclave"[..], to as u8, from as u8, lane, 1)
    );
}
