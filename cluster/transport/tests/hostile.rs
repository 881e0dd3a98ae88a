//! What strangers, and peers that misbehave, can do to a node: be refused, counted, and nothing else.

// clippy.toml allows it in test functions; this file's other functions are tests' too.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::{Authority, Identity, Members, PATIENCE, Seen, by_hand, patient, quick};
use conclave_transport::{Bounds, Lane, Network, Refusal, Settings, StartError, Transport};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// Node 1 of a cluster of `count`, which the test attacks.
async fn victim(count: usize, bounds: Bounds) -> (Members, Transport, Arc<Seen>) {
    let members = Members::new(count);
    let seen = Seen::new();
    let one = Transport::start(members.settings(1, [1; 16], bounds), seen.clone())
        .await
        .unwrap();
    (members, one, seen)
}

/// Waits until something was refused for this reason.
async fn refused(transport: &Transport, reason: Refusal) {
    patient(async {
        while transport.counters().refused(reason) == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// The node takes the link of an honest member 2, whatever went before.
async fn still_serves(members: &Members, one: &Transport, seen: &Seen) {
    let two_seen = Seen::new();
    let two = Transport::start(members.settings(2, [2; 16], quick()), two_seen.clone())
        .await
        .unwrap();
    assert_eq!(seen.link().await, (2, true));
    assert_eq!(two_seen.link().await, (1, true));
    for (from, to) in [(&two, 1), (one, 2)] {
        let answer = patient(from.call(to, Bytes::from_static(b"echo"), PATIENCE))
            .await
            .unwrap();
        assert_eq!(answer, Bytes::from_static(b"echo"));
    }
}

/// Starts node 2 with settings that are wrong in some way; nothing may come of it but this refusal at node 1.
async fn is_refused(spoil: impl FnOnce(&Members, &mut Settings), reason: Refusal) -> (Transport, Transport) {
    let (members, one, one_seen) = victim(2, quick()).await;
    let mut settings = members.settings(2, [2; 16], quick());
    spoil(&members, &mut settings);
    let two_seen = Seen::new();
    let two = Transport::start(settings, two_seen.clone()).await.unwrap();
    refused(&one, reason).await;
    patient(async {
        while two.counters().peer(1).unwrap().connect_failed[0].get() < 2 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    for (transport, seen, peer) in [(&one, &one_seen, 2), (&two, &two_seen, 1)] {
        assert!(!transport.connected(peer));
        assert!(seen.links.lock().await.try_recv().is_err());
    }
    (one, two)
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let (_one, _two) = is_refused(
        |members, settings| {
            let stranger = Authority::new();
            settings.certificate_chain = vec![stranger.certify(&members.identities[1].key)];
        },
        Refusal::Certificate,
    )
    .await;
}

#[tokio::test]
async fn a_key_that_is_not_pinned_is_refused_though_the_authority_signed_it() {
    let (one, two) = is_refused(
        |members, settings| {
            let other = Identity::new(&members.authority);
            settings.certificate_chain = vec![other.certificate.clone()];
            settings.private_key = other.private_key();
        },
        Refusal::PublicKey,
    )
    .await;
    assert_eq!(one.counters().refused(Refusal::Certificate), 0);
    assert_eq!(two.counters().refused(Refusal::PublicKey), 0);
}

#[tokio::test]
async fn a_member_that_answers_at_another_members_address_is_refused() {
    // Node 1 dials node 2's address, where node 3 answers: in the cluster, but not the one that was dialled.
    let (members, one, _seen) = victim(3, quick()).await;
    let mut settings = members.settings(3, [3; 16], quick());
    settings.listen = members.settings(2, [2; 16], quick()).listen;
    let _three = Transport::start(settings, Seen::new()).await.unwrap();
    refused(&one, Refusal::PublicKey).await;
    assert!(!one.connected(2));
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let (one, _two) = is_refused(
        |members, settings| {
            let key = &members.identities[1].key;
            settings.certificate_chain = vec![members.authority.certify_until(key, 2010)];
        },
        Refusal::Expired,
    )
    .await;
    assert_eq!(one.counters().refused(Refusal::Certificate), 0);
}

#[tokio::test]
async fn another_cluster_is_refused() {
    let (_one, two) = is_refused(|_, settings| settings.cluster = [8; 32], Refusal::Cluster).await;
    // Its own log says why, too.
    assert!(two.counters().refused(Refusal::Cluster) > 0);
}

#[tokio::test]
async fn another_node_id_than_the_tls_identity_is_refused() {
    is_refused(|_, settings| settings.node = 3, Refusal::Node).await;
}

#[tokio::test]
async fn settings_that_cannot_work_do_not_start() {
    let members = Members::new(2);
    let mut twice = members.settings(1, [1; 16], quick());
    twice.peers.push(twice.peers[0].clone());
    let mut own_key = members.settings(1, [1; 16], quick());
    own_key.peers[0].public_key = members.identities[0].public_key();
    let mut foreign_key = members.settings(1, [1; 16], quick());
    foreign_key.private_key = members.identities[1].private_key();
    let mut bounds = members.settings(1, [1; 16], quick());
    bounds.bounds.queue_bytes[0] = 1;
    for (settings, is_tls) in [
        (twice, false),
        (own_key, false),
        (foreign_key, true),
        (bounds, false),
    ] {
        let Err(error) = Transport::start(settings, Seen::new()).await else {
            panic!("started")
        };
        assert_eq!(matches!(error, StartError::Tls(_)), is_tls, "{error}");
    }
    let (_members, one, _seen) = victim(1, quick()).await;
    let taken = Settings {
        listen: one.local_address(),
        ..Members::new(1).settings(1, [1; 16], quick())
    };
    assert!(matches!(
        Transport::start(taken, Seen::new()).await,
        Err(StartError::Listen { .. })
    ));
}

#[tokio::test]
async fn garbage_before_tls_is_refused() {
    let (members, one, seen) = victim(2, quick()).await;
    let garbage: [&[u8]; 4] = [
        &[0xff; 4096],
        b"GET / HTTP/1.1\r\n\r\n",
        &[0x16, 3, 1, 0xff, 0xff, 1],
        b"",
    ];
    for bytes in garbage {
        let mut stream = TcpStream::connect(one.local_address()).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        let _ = patient(stream.read_to_end(&mut rest)).await;
    }
    patient(async {
        while one.counters().refused(Refusal::Handshake) < 4 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    still_serves(&members, &one, &seen).await;
}

#[tokio::test]
async fn a_slow_handshake_is_ended() {
    let (members, one, seen) = victim(
        2,
        Bounds {
            handshake: Duration::from_millis(300),
            ..quick()
        },
    )
    .await;
    let mut stream = TcpStream::connect(one.local_address()).await.unwrap();
    stream.write_all(&[0x16]).await.unwrap();
    refused(&one, Refusal::SlowHandshake).await;
    assert_eq!(patient(stream.read(&mut [0; 1])).await.unwrap_or(0), 0);
    still_serves(&members, &one, &seen).await;
}

#[tokio::test]
async fn idle_strangers_do_not_keep_a_member_out() {
    let (members, one, seen) = victim(
        2,
        Bounds {
            half_open: 8,
            ..quick()
        },
    )
    .await;
    let mut strangers = Vec::new();
    for _ in 0..100 {
        strangers.push(TcpStream::connect(one.local_address()).await.unwrap());
    }
    patient(async {
        while one.counters().refused(Refusal::TooManyHandshakes) < 92 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    still_serves(&members, &one, &seen).await;
    drop(strangers);
}

// From here on the attacker is member 2 itself: it has the key, and speaks by hand.

fn client(members: &Members, node: usize) -> ClientConfig {
    by_hand::client(&members.authority, &members.identities[node - 1])
}

async fn tls(config: Arc<ClientConfig>, one: &Transport) -> std::io::Result<TlsStream<TcpStream>> {
    by_hand::tls(config, one.local_address()).await
}

fn hello(lane: u8) -> Vec<u8> {
    by_hand::hello(2, 1, lane)
}

async fn member(members: &Members, one: &Transport, lane: u8) -> TlsStream<TcpStream> {
    let mut stream = tls(Arc::new(client(members, 2)), one).await.unwrap();
    by_hand::greet(&mut stream, 2, 1, Lane::from_index(lane).unwrap()).await;
    stream
}

async fn ends(stream: &mut TlsStream<TcpStream>) {
    let mut rest = Vec::new();
    let _ = patient(stream.read_to_end(&mut rest)).await;
}

#[tokio::test]
async fn a_length_of_100_megabytes_is_refused_before_it_is_read() {
    let (members, one, seen) = victim(2, quick()).await;
    for lane in 0..3 {
        let mut stream = member(&members, &one, lane).await;
        stream.write_all(&100_000_000_u32.to_be_bytes()).await.unwrap();
        ends(&mut stream).await;
    }
    assert_eq!(one.counters().refused(Refusal::FrameLength), 3);
    still_serves(&members, &one, &seen).await;
}

#[tokio::test]
async fn frames_out_of_place_end_the_connection() {
    let (members, one, seen) = victim(2, quick()).await;
    let wrong: [(u8, &[u8]); 8] = [
        (1, &[0, 0, 0, 2, 1, 9]), // a message on the ceremony lane
        (0, &[0, 0, 0, 14, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 9]), // a call on the raft lane
        (1, &[0, 0, 0, 10, 3, 0, 0, 0, 0, 0, 0, 0, 0, 1]), // an answer, where nothing was asked
        (0, &[0, 0, 0, 1, 5]),    // a pong likewise
        (0, &[0, 0, 0, 0]),       // no kind
        (2, &[0, 0, 0, 1, 77]),   // an unknown kind
        (1, &[0, 0, 0, 3, 2, 0, 0]), // a call that is cut off
        (1, &[0, 0, 0, 2, 4, 0]), // a ping with a body
    ];
    for (lane, frame) in wrong {
        let mut stream = member(&members, &one, lane).await;
        stream.write_all(frame).await.unwrap();
        ends(&mut stream).await;
    }
    assert_eq!(one.counters().refused(Refusal::Frame), 8);
    still_serves(&members, &one, &seen).await;
    assert!(seen.messages.lock().await.try_recv().is_err());
}

#[tokio::test]
async fn malformed_hellos_are_refused() {
    let (members, one, seen) = victim(2, quick()).await;
    let spoiled = [(0, b'C'), (8, 0), (74, 3), (75, 2)];
    for (at, value) in spoiled {
        let mut stream = tls(Arc::new(client(&members, 2)), &one).await.unwrap();
        let mut hello = hello(0);
        hello[at] = value;
        stream.write_all(&hello).await.unwrap();
        ends(&mut stream).await;
    }
    assert_eq!(one.counters().refused(Refusal::Hello), 4);
    still_serves(&members, &one, &seen).await;
}

#[tokio::test]
async fn no_certificate_and_other_protocols_are_refused() {
    let (members, one, seen) = victim(2, quick()).await;
    let mut roots = RootCertStore::empty();
    roots.add(members.authority.certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut anonymous = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots.clone())
        .with_no_client_auth();
    anonymous.alpn_protocols = vec![b"conclave/1".to_vec()];
    // The client of TLS 1.3 learns of the refusal only when it reads.
    if let Ok(mut stream) = tls(Arc::new(anonymous), &one).await {
        let _ = stream.write_all(&hello(0)).await;
        ends(&mut stream).await;
    }
    refused(&one, Refusal::Certificate).await;

    let own = &members.identities[1];
    let mut old = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![own.certificate.clone()], own.private_key())
        .unwrap();
    old.alpn_protocols = vec![b"conclave/1".to_vec()];
    assert!(tls(Arc::new(old), &one).await.is_err());

    for protocols in [vec![], vec![b"h2".to_vec()]] {
        let mut other = client(&members, 2);
        other.alpn_protocols = protocols;
        if let Ok(mut stream) = tls(Arc::new(other), &one).await {
            let _ = stream.write_all(&hello(0)).await;
            let mut rest = Vec::new();
            let _ = patient(stream.read_to_end(&mut rest)).await;
            assert!(rest.is_empty());
        }
    }
    still_serves(&members, &one, &seen).await;
}

#[tokio::test]
async fn sessions_are_not_resumed() {
    let (members, one, _seen) = victim(2, quick()).await;
    let mut config = client(&members, 2);
    config.enable_early_data = true;
    let config = Arc::new(config);
    for _ in 0..2 {
        let mut stream = tls(Arc::clone(&config), &one).await.unwrap();
        stream.write_all(&hello(0)).await.unwrap();
        patient(stream.read_exact(&mut [0; 76])).await.unwrap();
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
        assert!(!stream.get_ref().1.is_early_data_accepted());
    }
}

#[tokio::test]
async fn a_newer_connection_replaces_the_older_one_of_its_lane() {
    let (members, one, seen) = victim(2, quick()).await;
    let mut first = member(&members, &one, 0).await;
    let mut bulk = member(&members, &one, 2).await;
    first.write_all(&[0, 0, 0, 2, 1, b'a']).await.unwrap();
    assert_eq!(seen.message().await.2, "a");
    let mut second = member(&members, &one, 0).await;
    ends(&mut first).await;
    second.write_all(&[0, 0, 0, 2, 1, b'b']).await.unwrap();
    assert_eq!(seen.message().await, (2, Lane::Raft, Bytes::from_static(b"b")));
    bulk.write_all(&[0, 0, 0, 2, 1, b'c']).await.unwrap();
    assert_eq!(seen.message().await, (2, Lane::Bulk, Bytes::from_static(b"c")));
    let counters = one.counters().peer(2).unwrap();
    assert_eq!(counters.replaced.each_ref().map(|count| count.get()), [1, 0, 0]);
}

#[tokio::test]
async fn a_silent_member_is_let_go_and_one_that_pings_is_kept() {
    let bounds = Bounds {
        probe: Duration::from_millis(100),
        silence: Duration::from_millis(400),
        ..quick()
    };
    let (members, one, seen) = victim(2, bounds).await;
    let mut silent = member(&members, &one, 0).await;
    let mut lively = member(&members, &one, 2).await;
    let pinging = tokio::spawn(async move {
        let mut answer = [0; 5];
        for _ in 0..12 {
            lively.write_all(&[0, 0, 0, 1, 4]).await.unwrap();
            lively.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer, [0, 0, 0, 1, 5]);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        lively.write_all(&[0, 0, 0, 2, 1, b'a']).await.unwrap();
        lively
    });
    ends(&mut silent).await;
    let _lively = patient(pinging).await.unwrap();
    assert_eq!(seen.message().await.2, "a");
}

#[tokio::test]
async fn a_member_that_calls_too_much_is_told_busy() {
    let (members, one, seen) = victim(2, Bounds { calls: 2, ..quick() }).await;
    let mut stream = member(&members, &one, 1).await;
    for id in 0..5_u8 {
        let mut call = vec![0, 0, 0, 17, 2, 0, 0, 0, 0, 0, 0, 0, id, 1, 0, 0, 0];
        call.extend(b"wait");
        stream.write_all(&call).await.unwrap();
    }
    let mut answer = [0; 14];
    for id in 2..5_u8 {
        patient(stream.read_exact(&mut answer)).await.unwrap();
        assert_eq!(answer, [0, 0, 0, 10, 3, 0, 0, 0, 0, 0, 0, 0, id, 1]);
    }
    assert_eq!(one.counters().peer(2).unwrap().busy_answered.get(), 3);
    // A second connection does not double what the member may have under way.
    let mut again = member(&members, &one, 1).await;
    ends(&mut stream).await;
    seen.gate.add_permits(2);
    for id in 0..2_u8 {
        let mut call = vec![0, 0, 0, 17, 2, 0, 0, 0, 0, 0, 0, 0, id, 1, 0, 0, 0];
        call.extend(b"echo");
        again.write_all(&call).await.unwrap();
        patient(again.read_exact(&mut [0; 18])).await.unwrap();
    }
}
