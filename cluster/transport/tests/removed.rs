//! What becomes of nodes that were taken off the list, or whose key or address changed, over TLS: who goes on dialling
//! is a stranger.

// clippy.toml allows it in test functions; this file's other functions are tests' too.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::{Identity, Members, PATIENCE, Seen, by_hand, patient, quick};
use conclave_transport::{
    Boot, Bounds, BoxFuture, CallError, Handler, Lane, Network, NodeId, Refusal, Refused, SettingsError,
    Transport,
};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;

async fn start(members: &Members, node: NodeId, seen: &Arc<Seen>) -> Transport {
    let handler: Arc<dyn Handler> = Arc::<Seen>::clone(seen);
    Transport::start(members.settings(node, [node as u8; 16], quick()), handler)
        .await
        .unwrap()
}

async fn echoes(from: &Transport, to: NodeId) {
    let text = Bytes::from_static(b"echo");
    assert_eq!(
        patient(from.call(to, text.clone(), PATIENCE)).await.unwrap(),
        text
    );
}

/// Until it holds.
async fn becomes(condition: impl Fn() -> bool) {
    patient(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

fn refused(transport: &Transport, reason: Refusal) -> u64 {
    transport.counters().refused(reason)
}

async fn shake_hands(members: &Members, own: &Identity, to: &Transport) -> TlsStream<TcpStream> {
    let config = Arc::new(by_hand::client(&members.authority, own));
    by_hand::tls(config, to.local_address()).await.unwrap()
}

/// A lane that is up, spoken by hand.
async fn connect(members: &Members, from: NodeId, to: &Transport, lane: Lane) -> TlsStream<TcpStream> {
    let mut stream = shake_hands(members, &members.identities[from as usize - 1], to).await;
    by_hand::greet(&mut stream, from, to.node(), lane).await;
    stream
}

/// What the other side of a TLS connection ends it with.
async fn end_of(mut stream: TlsStream<TcpStream>) -> Option<rustls::Error> {
    let mut rest = Vec::new();
    let error = patient(stream.read_to_end(&mut rest)).await.err()?;
    error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        .cloned()
}

#[tokio::test]
async fn a_removed_peer_that_goes_on_dialling_is_refused_and_counted() {
    let members = Members::new(3);
    let seen = [Seen::new(), Seen::new(), Seen::new()];
    let one = start(&members, 1, &seen[0]).await;
    one.set_peers(vec![members.peer(2)]).unwrap();
    let two = start(&members, 2, &seen[1]).await;
    assert_eq!(seen[0].link().await, (2, true));
    // It speaks by hand too, on a connection of its own that is up.
    let mut open = connect(&members, 2, &one, Lane::Bulk).await;
    open.write_all(&[0, 0, 0, 2, 1, b'a']).await.unwrap();
    assert_eq!(seen[0].message().await, (2, Lane::Bulk, Bytes::from_static(b"a")));
    assert_eq!(refused(&one, Refusal::PublicKey), 0);

    one.set_peers(vec![members.peer(3)]).unwrap();
    assert_eq!(seen[0].link().await, (2, false));
    // What it sends on the connection it had is not handled.
    let _ = open.write_all(&[0, 0, 0, 2, 1, b'b']).await;
    end_of(open).await;
    let failed = || two.counters().peer(1).unwrap().connect_failed[0].get();
    let before = (failed(), refused(&one, Refusal::PublicKey));
    becomes(|| failed() >= before.0 + 5 && refused(&one, Refusal::PublicKey) >= before.1 + 5).await;
    assert!(!two.connected(1));
    // It is told no in the handshake already, before a hello: as anybody with a key that nobody pinned.
    let stranger = Identity::new(&members.authority);
    for identity in [&members.identities[1], &stranger] {
        let stream = shake_hands(&members, identity, &one).await;
        assert_eq!(
            end_of(stream).await,
            Some(rustls::Error::AlertReceived(
                rustls::AlertDescription::AccessDenied
            ))
        );
    }
    assert!(one.counters().peer(2).is_none());
    assert!(seen[0].messages.lock().await.try_recv().is_err());
    assert!(seen[0].links.lock().await.try_recv().is_err());
    // And it is in nobody's way.
    let three = start(&members, 3, &seen[2]).await;
    assert_eq!(seen[0].link().await, (3, true));
    echoes(&three, 1).await;
    echoes(&one, 3).await;
}

#[tokio::test]
async fn who_is_removed_between_handshake_and_hello_is_refused() {
    let members = Members::new(2);
    let seen = Seen::new();
    let one = start(&members, 1, &seen).await;
    let mut begun = shake_hands(&members, &members.identities[1], &one).await;
    // Nothing tells the client that its certificate was taken; an answer to who came later says that it most likely was.
    let other = connect(&members, 2, &one, Lane::Bulk).await;
    one.set_peers(Vec::new()).unwrap();
    end_of(other).await;
    let _ = begun.write_all(&by_hand::hello(2, 1, 0)).await;
    let mut answer = Vec::new();
    let _ = patient(begun.read_to_end(&mut answer)).await;
    assert!(answer.is_empty(), "no hello for a stranger");
    becomes(|| refused(&one, Refusal::PublicKey) == 1).await;
}

#[tokio::test]
async fn another_key_ends_the_connections_and_only_the_new_one_is_taken() {
    let members = Members::new(2);
    let seen = [Seen::new(), Seen::new()];
    let one = start(&members, 1, &seen[0]).await;
    let two = start(&members, 2, &seen[1]).await;
    assert_eq!(seen[0].link().await, (2, true));
    seen[1].link().await;
    let pending = tokio::spawn({
        let one = one.clone();
        async move { one.call(2, Bytes::from_static(b"hang"), PATIENCE).await }
    });
    seen[1].call_begins().await;
    let waiting = tokio::spawn({
        let one = one.clone();
        async move {
            // Waits for the peer over the change of its key.
            while one.connected(2) {
                tokio::task::yield_now().await;
            }
            one.send_when_free(2, Lane::Bulk, Bytes::from_static(b"chunk"), PATIENCE)
                .await
        }
    });
    let new = Identity::new(&members.authority);
    let mut pinned = members.peer(2);
    pinned.public_key = new.public_key();
    one.set_peers(vec![pinned.clone()]).unwrap();
    assert_eq!(seen[0].link().await, (2, false));
    assert_eq!(patient(pending).await.unwrap(), Err(CallError::Closed));
    assert!(!one.connected(2));
    // The old key is refused on both sides of a connection.
    let before = refused(&one, Refusal::PublicKey);
    let failed = || one.counters().peer(2).unwrap().connect_failed[0].get();
    let failures = failed();
    becomes(|| refused(&one, Refusal::PublicKey) >= before + 10 && failed() >= failures + 2).await;
    assert!(seen[0].links.lock().await.try_recv().is_err());

    patient(two.shutdown()).await;
    let mut settings = members.settings(2, [3; 16], quick());
    settings.certificate_chain = vec![new.certificate.clone()];
    settings.private_key = new.private_key();
    let seen_two = Seen::new();
    let handler: Arc<dyn Handler> = Arc::<Seen>::clone(&seen_two);
    let two = Transport::start(settings, handler).await.unwrap();
    assert_eq!(seen[0].link().await, (2, true));
    assert_eq!(seen_two.link().await, (1, true));
    echoes(&one, 2).await;
    echoes(&two, 1).await;
    assert_eq!(patient(waiting).await.unwrap(), Ok(()));
    assert_eq!(seen_two.message().await.2, Bytes::from_static(b"chunk"));
}

#[tokio::test]
async fn a_key_may_go_from_one_node_to_another_but_is_never_two_nodes() {
    let members = Members::new(3);
    let seen = Seen::new();
    let one = start(&members, 1, &seen).await;
    let (two, mut three) = (members.peer(2), members.peer(3));
    three.public_key = two.public_key;
    let both = one.set_peers(vec![two.clone(), three.clone()]);
    assert_eq!(both, Err(SettingsError::DuplicateKey(3)));
    let mut own = two.clone();
    own.public_key = members.identities[0].public_key();
    assert_eq!(one.set_peers(vec![own]), Err(SettingsError::DuplicateKey(2)));

    one.set_peers(vec![three]).unwrap();
    // Its holder is node 3 now: a hello as node 2 does not fit it.
    let mut stream = shake_hands(&members, &members.identities[1], &one).await;
    stream.write_all(&by_hand::hello(2, 1, 0)).await.unwrap();
    end_of(stream).await;
    becomes(|| refused(&one, Refusal::Node) == 1).await;
    one.set_peers(vec![members.peer(3), two]).unwrap();
    connect(&members, 2, &one, Lane::Raft).await;
    connect(&members, 3, &one, Lane::Raft).await;
}

#[tokio::test]
async fn a_changed_address_is_dialled_and_leaves_the_connections_that_are_up() {
    let members = Members::new(2);
    let seen = [Seen::new(), Seen::new()];
    let one = start(&members, 1, &seen[0]).await;
    let two = start(&members, 2, &seen[1]).await;
    assert_eq!(seen[0].link().await, (2, true));
    assert_eq!(seen[1].link().await, (1, true));
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = elsewhere.local_addr().unwrap();
    drop(elsewhere);
    let mut moved = members.peer(2);
    moved.address = address.to_string();
    one.set_peers(vec![moved]).unwrap();
    echoes(&one, 2).await;
    assert!(seen[0].links.lock().await.try_recv().is_err());

    patient(two.shutdown()).await;
    assert_eq!(seen[0].link().await, (2, false));
    // Nobody listens at the new address yet, which says nothing of the process that was at the old one.
    let failed = || one.counters().peer(2).unwrap().connect_failed[0].get();
    becomes(|| failed() >= 2).await;
    assert!(seen[0].gone.lock().await.try_recv().is_err());
    let mut settings = members.settings(2, [3; 16], quick());
    settings.listen = address;
    let _two = Transport::start(settings, Seen::new()).await.unwrap();
    assert_eq!(seen[0].link().await, (2, true));
    echoes(&one, 2).await;
}

#[tokio::test]
async fn removed_peers_that_only_connect_do_not_keep_a_member_out() {
    let members = Members::new(3);
    let bounds = Bounds {
        half_open: 8,
        ..quick()
    };
    let seen = Seen::new();
    let handler: Arc<dyn Handler> = Arc::<Seen>::clone(&seen);
    let one = Transport::start(members.settings(1, [1; 16], bounds), handler)
        .await
        .unwrap();
    // Taken through the handshake while it is a peer, and silent from there on.
    let mut idle = Vec::new();
    for _ in 0..20 {
        idle.push(shake_hands(&members, &members.identities[1], &one).await);
    }
    one.set_peers(vec![members.peer(3)]).unwrap();
    for _ in 0..20 {
        idle.push(shake_hands(&members, &members.identities[1], &one).await);
    }
    becomes(|| refused(&one, Refusal::TooManyHandshakes) + refused(&one, Refusal::PublicKey) >= 32).await;
    let three = start(&members, 3, &Seen::new()).await;
    assert_eq!(seen.link().await, (3, true));
    echoes(&one, 3).await;
    echoes(&three, 1).await;
    drop(idle);
}

/// Says when a message is begun, and stands at a gate before its end.
struct OneAtATime {
    begun: tokio::sync::mpsc::UnboundedSender<Bytes>,
    gate: Mutex<()>,
}

impl Handler for OneAtATime {
    fn message(&self, _: NodeId, _: Lane, payload: Bytes) {
        let _ = self.begun.send(payload);
        tokio::task::block_in_place(|| drop(self.gate.lock()));
    }
    fn call(&self, _: NodeId, payload: Bytes, _: Duration) -> BoxFuture<'static, Result<Bytes, Refused>> {
        Box::pin(async move { Ok(payload) })
    }
    fn link(&self, _: NodeId, _: bool) {}
    fn gone(&self, _: NodeId) {}
}

// The guard is the gate before which the reader stands, in a thread that may block.
#[allow(clippy::await_holding_lock)]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_message_of_before_is_handled_to_its_end_before_one_of_after() {
    let members = Members::new(2);
    let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
    let handler = Arc::new(OneAtATime {
        begun,
        gate: Mutex::new(()),
    });
    let boot: Boot = [1; 16];
    let own: Arc<dyn Handler> = Arc::<OneAtATime>::clone(&handler);
    let one = Transport::start(members.settings(1, boot, quick()), own)
        .await
        .unwrap();
    let gate = handler.gate.lock();
    let mut old = connect(&members, 2, &one, Lane::Raft).await;
    old.write_all(&[0, 0, 0, 2, 1, b'a']).await.unwrap();
    assert_eq!(patient(begins.recv()).await.unwrap(), "a");
    old.write_all(&[0, 0, 0, 2, 1, b'b']).await.unwrap();
    for _ in 0..3 {
        one.set_peers(Vec::new()).unwrap();
        one.set_peers(vec![members.peer(2)]).unwrap();
    }
    let mut new = connect(&members, 2, &one, Lane::Raft).await;
    new.write_all(&[0, 0, 0, 2, 1, b'c']).await.unwrap();
    // A call of the same peer goes through: the node has seen what the new connection sent by then.
    let mut bulk = connect(&members, 2, &one, Lane::Ceremony).await;
    bulk.write_all(&[0, 0, 0, 14, 2, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 9])
        .await
        .unwrap();
    patient(bulk.read_exact(&mut [0; 15])).await.unwrap();
    assert!(begins.try_recv().is_err(), "two at a time");
    drop(gate);
    // What the old connection had yet to hand over went with it.
    assert_eq!(patient(begins.recv()).await.unwrap(), "c");
}
