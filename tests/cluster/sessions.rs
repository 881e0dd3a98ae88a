//! Clients that come back do not pay for a TLS handshake again.

use rustls::HandshakeKind;

use crate::common::cluster::Cluster;
use crate::common::https;

#[tokio::test]
async fn a_client_that_comes_back_resumes_its_tls_session() {
    let cluster = Cluster::start(3, &[]).await;
    let client = https::client(&cluster.ca());
    let node = cluster.nodes()[0].https;
    let request = format!(
        "GET /kms/keystores/z1 HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
        cluster.public_url.strip_prefix("https://").unwrap()
    );
    let mut kinds = Vec::new();
    for _ in 0..3 {
        let (kind, answer) = https::send_as(&client, node, "localhost", request.as_bytes())
            .await
            .unwrap();
        assert!(answer.status > 0);
        kinds.push(kind.unwrap());
    }
    assert_eq!(
        kinds,
        [
            HandshakeKind::Full,
            HandshakeKind::Resumed,
            HandshakeKind::Resumed
        ]
    );
    cluster.stop().await;
}
