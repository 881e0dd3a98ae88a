//! Clients that send a part of a request and then nothing (F33): they cost what they hold, a connection, and nobody else's place.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::server::Server;
use crate::common::cluster::Cluster;
use crate::common::{https, namespace};

#[test]
fn a_body_that_does_not_come_takes_no_place_and_is_given_up() {
    namespace::block_on(async {
        let cluster = Cluster::start(3, &[]).await;
        let server = Server::of(&cluster);
        let (to, ca) = (cluster.nodes()[0].https, cluster.ca());
        let host = cluster.public_url.strip_prefix("https://").unwrap().to_owned();
        let head = format!(
            "POST /kms/keystores HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: 100\r\n\r\n{{"
        );
        let before = server.metrics(0).await["conclave_https_connections"];
        let stalled: Vec<_> = (0..20)
            .map(|_| {
                let (head, ca) = (head.clone(), ca.clone());
                tokio::spawn(async move { https::send(to, "localhost", &ca, head.as_bytes()).await })
            })
            .collect();
        let until = Instant::now() + Duration::from_secs(5);
        while server.metrics(0).await["conclave_https_connections"] < before + 20.0 {
            assert!(Instant::now() < until, "they are not connected");
            sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(server.metrics(0).await["conclave_requests_in_flight"], 0.0);
        for one in stalled {
            let answer = one.await.unwrap().unwrap();
            assert_eq!(answer.status, 408, "{answer:?}");
        }
        cluster.stop().await;
    });
}
