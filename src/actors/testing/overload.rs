//! More than a node can do: who is served all the same, who is refused and how, and that nothing is left of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, join_all};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::client::{Client, ED25519, Key, Keystore, furnished, sign_well, status};
use super::cluster::{Cluster, Node, POOL, SOON, run, until};
use super::malicious_coordinator::{encoded, forwarded};
use super::symmetric::{Desk, HMAC};
use crate::actors::coordinator::renewal::Renewer;
use crate::actors::doors::OF_ONE_PEER;
use crate::actors::metrics::OfNode;
use crate::actors::registry::Registry;
use crate::actors::wire::{Abstention, Answer, Call};
use crate::audit::Kind;
use crate::authorization::RawRequest;
use crate::identifier::LocalId;
use crate::overload::{At, Class, Overloaded, Turn};
use crate::problem::Problem;
use crate::reply::Reply;

/// What a client is told is of some use to it.
fn is_told_well(problem: &Problem) {
    assert!([429, 503].contains(&problem.status), "{problem:?}");
    assert!(
        problem.retry_after.is_some_and(|seconds| seconds > 0),
        "{problem:?}"
    );
    assert!(problem.message.contains("try again"), "{problem:?}");
}

fn refused(served: Result<Reply, Problem>) -> u16 {
    let problem = served.expect_err("there was room");
    is_told_well(&problem);
    problem.status
}

/// A node whose one thread of the crypto pool is held up.
struct Held<'a> {
    node: &'a Node,
    release: mpsc::Sender<()>,
    held: JoinHandle<Result<(), Overloaded>>,
    filling: Vec<BoxFuture<'a, Result<(), Overloaded>>>,
}

impl<'a> Held<'a> {
    async fn new(node: &'a Node) -> Self {
        let (release, released) = mpsc::channel();
        let (begin, begun) = oneshot::channel();
        let pool = node.parts.pool.clone();
        let hold = move || {
            let _ = begin.send(());
            let _ = released.recv();
        };
        let turn = Turn::default().of_class(Class::Changes);
        let held = tokio::spawn(async move { pool.run_in(turn, hold).await });
        begun.await.unwrap();
        Self {
            node,
            release,
            held,
            filling: Vec::new(),
        }
    }

    /// Fills the queue with work of a class, until there is no more room for it.
    async fn fill(&mut self, class: Class) {
        let full = class.part_of(POOL);
        for number in 0_u64.. {
            // Each of another keystore, so that no share stops it.
            let mut keystore = [0xff; 16];
            keystore[..8].copy_from_slice(&number.to_be_bytes());
            let turn = Turn::default().of_class(class).of_keystore(LocalId(keystore));
            let mut job: BoxFuture<'a, _> = Box::pin(self.node.parts.pool.run_in(turn, || ()));
            if futures::poll!(&mut job).is_ready() {
                break;
            }
            self.filling.push(job);
        }
        assert_eq!(self.node.parts.pool.waiting(), full);
    }

    /// Lets it go on.
    async fn release(self) {
        let _ = self.release.send(());
        self.held.await.unwrap().unwrap();
        for filled in join_all(self.filling).await {
            assert!(matches!(filled, Ok(()) | Err(Overloaded::Waited)));
        }
    }
}

/// A node has nothing of it left.
async fn is_empty(node: &Node) {
    let parts = &node.parts;
    until("nothing is left", || {
        let waiting = parts.pool.waiting() + parts.symmetric.streams.evaluations.waiting();
        waiting + node.registry.under_way() + node.questions() == 0
    })
    .await;
}

fn spawn(registry: &Arc<Registry>, request: RawRequest) -> JoinHandle<Result<Reply, Problem>> {
    let registry = registry.clone();
    tokio::spawn(async move {
        registry
            .serve(registry.next_operation(), request, Vec::new())
            .await
    })
}

/// Waits until a request has come to the pool: one that only has to be put together is raised by a class.
async fn is_under_way(node: &Node, class: Class, before: usize) {
    until("it waits for the pool", || {
        node.parts.pool.waiting_of(class) > before
    })
    .await;
}

#[test]
fn a_keystore_that_floods_does_not_stop_another() {
    run(async {
        let (cluster, client, keystore, key, _) = furnished(3).await;
        let other = client.keystore(cluster.node(2)).await;
        let other_key = client.key(cluster.node(2), &other, ED25519).await;
        cluster.catch_up(&other.id).await;
        let flood: Vec<_> = (0..900_u32)
            .map(|n| {
                let request = client.sign(&keystore, &key, &n.to_be_bytes());
                spawn(&cluster.node(1).registry, request)
            })
            .collect();
        let mut served = 0;
        while flood.iter().any(|one| !one.is_finished()) && served < 40 {
            let node = cluster.node(1 + served % 3);
            let message = format!("among the flood {served}");
            sign_well(node, &client, &other, &other_key, message.as_bytes()).await;
            served += 1;
        }
        assert!(served > 0, "there was a flood");
        for one in flood {
            if let Err(problem) = one.await.unwrap() {
                is_told_well(&problem);
            }
        }
        for node in cluster.nodes() {
            is_empty(node).await;
            sign_well(node, &client, &keystore, &key, b"after the flood").await;
        }
        cluster.stop().await;
    });
}

#[test]
fn a_keystore_with_five_hundred_jobs_before_it_delays_another_by_its_turn() {
    run(async {
        let (cluster, client, keystore, key, _) = furnished(3).await;
        let node = cluster.node(1);
        sign_well(node, &client, &keystore, &key, b"open").await;
        let mut held = Held::new(node).await;
        let done = Arc::new(AtomicUsize::new(0));
        // In the class of what only has to be put together.
        let turn = Turn::default().of_class(Class::Signatures).raised();
        for _ in 0..500 {
            let done = done.clone();
            let job = move || {
                std::hint::black_box(Sha256::digest(vec![0; 20_000]));
                done.fetch_add(1, Ordering::Relaxed);
            };
            let mut job: BoxFuture<'_, _> = Box::pin(node.parts.pool.run_in(turn, job));
            assert!(futures::poll!(&mut job).is_pending());
            held.filling.push(job);
        }
        let waits = spawn(&node.registry, client.sign(&keystore, &key, b"one"));
        is_under_way(node, Class::Changes, 500).await;
        held.release.send(()).unwrap();
        assert_eq!(status(&waits.await.unwrap()), 200);
        let before = done.load(Ordering::Relaxed);
        held.release().await;
        assert!(before < 400, "{before} jobs of another keystore went first");
        cluster.stop().await;
    });
}

struct World {
    cluster: Cluster,
    client: Client,
    keystore: Keystore,
    signing: Key,
    hmac: Key,
    sequence: u64,
}

impl World {
    async fn new() -> Self {
        let (cluster, client, keystore, signing, _) = furnished(3).await;
        let desk = Desk::new(&cluster, &client, &keystore);
        let hmac = desk.key(1, HMAC).await;
        // Both are open on this node from now on.
        desk.tag(1, &hmac, b"open").await;
        sign_well(cluster.node(1), &client, &keystore, &signing, b"open").await;
        Self {
            cluster,
            client,
            keystore,
            signing,
            hmac,
            sequence: 0,
        }
    }

    fn signature(&self, message: &str) -> RawRequest {
        self.client
            .sign(&self.keystore, &self.signing, message.as_bytes())
    }

    fn tag(&self, message: &str) -> RawRequest {
        self.client.sign(&self.keystore, &self.hmac, message.as_bytes())
    }

    fn change(&mut self) -> RawRequest {
        self.sequence += 1;
        self.client
            .update(&self.keystore, self.sequence, &json!([self.client.did]))
    }

    /// Whoever leads renews what is due; how much is left.
    async fn renew(&self) -> u64 {
        let mut left = 0;
        for node in self.cluster.nodes() {
            node.parts.renewals.lock().policy.period = 1;
            left += Renewer::new(node.parts.clone()).pass().await;
        }
        left
    }

    async fn serve(&self, request: RawRequest) -> Result<Reply, Problem> {
        self.cluster.node(1).serve(request).await
    }
}

#[test]
fn what_matters_less_is_refused_first_and_changes_go_through() {
    run(async {
        let mut world = World::new().await;
        let changes: Vec<_> = (0..4).map(|_| world.change()).collect();
        let [with_bulk, with_symmetric, with_signatures, with_all] = changes.try_into().ok().unwrap();
        let node = world.cluster.node(1);
        let shed = |class| node.parts.metrics.shed.counted(At::Queue, class);

        // No renewal any more; uses begin and changes are made.
        let mut held = Held::new(node).await;
        held.fill(Class::Bulk).await;
        let refusals = shed(Class::Bulk);
        assert!(world.renew().await > 0, "shares were renewed");
        assert!(shed(Class::Bulk) > refusals);
        let tag = spawn(&node.registry, world.tag("beside renewals"));
        is_under_way(node, Class::Symmetric, 0).await;
        let signature = spawn(&node.registry, world.signature("beside renewals"));
        is_under_way(node, Class::Changes, 0).await;
        assert_eq!(status(&world.serve(with_bulk).await), 200);
        held.release().await;
        assert_eq!(status(&tag.await.unwrap()), 200);
        assert_eq!(status(&signature.await.unwrap()), 200);

        // No use of a symmetric key any more.
        let mut held = Held::new(node).await;
        held.fill(Class::Symmetric).await;
        let refusals = shed(Class::Symmetric);
        assert_eq!(refused(world.serve(world.tag("too much")).await), 503);
        assert!(shed(Class::Symmetric) > refusals);
        let signature = spawn(&node.registry, world.signature("beside tags"));
        is_under_way(node, Class::Changes, 0).await;
        assert_eq!(status(&world.serve(with_symmetric).await), 200);
        held.release().await;
        assert_eq!(status(&signature.await.unwrap()), 200);

        // No signature any more.
        let mut held = Held::new(node).await;
        held.fill(Class::Signatures).await;
        assert_eq!(refused(world.serve(world.signature("too much")).await), 503);
        assert!(shed(Class::Signatures) > 1);
        assert_eq!(status(&world.serve(with_signatures).await), 200);
        held.release().await;

        // No change any more; Raft goes on.
        let mut held = Held::new(node).await;
        held.fill(Class::Changes).await;
        assert_eq!(refused(world.serve(with_all.clone()).await), 503);
        for group in 0..3 {
            let read = node
                .parts
                .consensus
                .read_index(conclave_consensus::GroupId(group), Instant::now() + SOON);
            read.await.unwrap();
        }
        let applied = |node: &Node| node.keystore_record(&world.keystore.id).unwrap().config.sequence;
        let other = world.cluster.node(2);
        assert_eq!(status(&other.serve(with_all).await), 200);
        until("the change is applied here", || applied(node) == applied(other)).await;
        held.release().await;

        is_empty(node).await;
        assert_eq!(status(&world.serve(world.tag("after it")).await), 200);
        sign_well(node, &world.client, &world.keystore, &world.signing, b"after it").await;
        until("the node is calm", || !node.parts.pool.is_loaded()).await;
        for _ in 0..10 {
            if world.renew().await == 0 {
                break;
            }
            world.cluster.catch_up(&world.keystore.id).await;
        }
        let record = node.key_record(&world.keystore.id, &world.signing.id).unwrap();
        assert!(record.epoch > 0, "renewals are made up for");
        world.cluster.stop().await;
    });
}

#[test]
fn background_work_waits_for_a_quieter_moment() {
    run(async {
        let (cluster, _, keystore, signing, _) = furnished(3).await;
        let group = cluster.node(1).parts.group_of(&keystore.id);
        let leader = cluster.node(cluster.leader(group, 1).unwrap());
        for node in cluster.nodes() {
            node.parts.renewals.lock().policy.period = 1;
        }
        let mut held = Held::new(leader).await;
        held.fill(Class::Signatures).await;
        assert!(leader.parts.pool.is_loaded(), "something was refused");
        let quiet = || leader.parts.metrics.shed.counted(At::Quiet, Class::Bulk);
        let before = quiet();
        let mut renewer = Renewer::new(leader.parts.clone());
        let mut pass = Box::pin(renewer.pass());
        until("it waits", || {
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(std::future::Future::poll(pass.as_mut(), &mut context).is_pending());
            quiet() > before
        })
        .await;
        assert_eq!(leader.key_record(&keystore.id, &signing.id).unwrap().epoch, 0);
        held.release().await;
        pass.await;
        assert_eq!(leader.key_record(&keystore.id, &signing.id).unwrap().epoch, 1);
        cluster.stop().await;
    });
}

#[test]
fn a_keystore_has_its_share_of_a_nodes_requests_and_others_find_room() {
    run(async {
        let (cluster, client, keystore, key, _) = furnished(3).await;
        let node = cluster.node(1);
        let other = client.keystore(node).await;
        let other_key = client.key(node, &other, ED25519).await;
        cluster.catch_up(&other.id).await;
        // As a node that is told to take eight requests at once.
        let arbiters = vec![node.arbiter.clone()];
        let small = Arc::new(Registry::new(node.parts.clone(), arbiters, 8));
        let sign = |n: u8| spawn(&small, client.sign(&keystore, &key, &[n]));
        let held = Held::new(node).await;
        let mut under_way = Vec::new();
        for n in 0..3 {
            under_way.push(sign(n));
            until("it has a place", || small.under_way() == under_way.len()).await;
        }
        assert_eq!(refused(sign(3).await.unwrap()), 429);
        assert_eq!(
            node.parts.metrics.shed.counted(At::Keystore, Class::Signatures),
            1
        );
        under_way.push(spawn(&small, client.sign(&other, &other_key, b"other")));
        until("it has a place", || small.under_way() == under_way.len()).await;
        // Whose share is used up may still change its keystore.
        let change = client.update(&keystore, 1, &json!([client.did]));
        let changed = small.serve(small.next_operation(), change, Vec::new()).await;
        assert_eq!(status(&changed), 200);
        held.release().await;
        for one in under_way {
            assert_eq!(status(&one.await.unwrap()), 200);
        }
        assert_eq!(small.under_way(), 0);
        cluster.stop().await;
    });
}

#[test]
fn nothing_is_computed_for_a_question_whose_time_is_over() {
    run(async {
        let (cluster, client, keystore, _, key) = furnished(3).await;
        let (asking, asked) = (cluster.node(1), cluster.node(2));
        let held = Held::new(asked).await;
        let peer = x25519_dalek::PublicKey::from([9; 32]);
        let request = client.derive(&keystore, &key, &peer);
        let call = Call::Derive(forwarded(asking.parts.next_operation(), &encoded(&request)));
        let short = Duration::from_millis(50);
        let network = &asking.parts.network;
        let answer = network.call(2, call.encode().into(), short).await;
        let gave_up = match &answer {
            // Whichever of the two ends first.
            Ok(bytes) => matches!(Answer::decode(bytes), Some(Answer::Abstained(Abstention::Busy))),
            Err(error) => *error == conclave_transport::CallError::TimedOut,
        };
        assert!(gave_up);
        assert_eq!(asked.parts.pool.waiting(), 1);
        held.release().await;
        is_empty(asked).await;
        assert_eq!(asked.parts.metrics.shed.counted(At::Gone, Class::Signatures), 1);
        assert_eq!(asked.recorded(Kind::Contributed).await, 0, "it judged for nobody");

        // And what a node asks in its turn has no more time than was left for it.
        let over = Turn::default().until(Instant::now());
        let again = over.scope(asking.parts.ask(2, &call, SOON)).await;
        assert_eq!(again.err(), Some(conclave_transport::CallError::TimedOut));
        cluster.stop().await;
    });
}

#[test]
fn a_client_that_has_gone_is_not_served() {
    run(async {
        let (cluster, client, keystore, key, _) = furnished(3).await;
        let node = cluster.node(1);
        sign_well(node, &client, &keystore, &key, b"the actor lives").await;
        let before = node.recorded(Kind::Contributed).await;
        let (release, held) = mpsc::channel::<()>();
        let (blocked, is_blocked) = oneshot::channel();
        node.arbiter.spawn_fn(move || {
            let _ = blocked.send(());
            let _ = held.recv();
        });
        is_blocked.await.unwrap();
        let leaves = spawn(&node.registry, client.sign(&keystore, &key, b"for nobody"));
        until("it is in the mailbox", || node.registry.under_way() == 1).await;
        leaves.abort();
        assert!(leaves.await.unwrap_err().is_cancelled());
        release.send(()).unwrap();
        is_empty(node).await;
        sign_well(node, &client, &keystore, &key, b"for somebody").await;
        assert_eq!(node.recorded(Kind::Contributed).await, before + 1);
        cluster.stop().await;
    });
}

#[test]
fn a_peer_that_asks_without_end_is_told_busy_and_named() {
    run(async {
        let (cluster, client, keystore, key, _) = furnished(3).await;
        let (asking, asked) = (cluster.node(3), cluster.node(2));
        let held = Held::new(asked).await;
        let request = encoded(&client.sign(&keystore, &key, b"again and again"));
        let flood = || async {
            let call = Call::Commit(forwarded(asking.parts.next_operation(), &request)).encode();
            // Its patience is over at once: what it asked for is under way all the same.
            let left = Duration::from_millis(1);
            let _ = asking.parts.network.call(2, call.into(), left).await;
        };
        let named = || asked.parts.metrics.busy.get_or_create(&OfNode { node: 3 }).get();
        // Background work, which finds less room, is told so first.
        let shed = || asked.parts.metrics.shed.counted(At::Peer, Class::Signatures);
        for _ in 0..100 {
            join_all((0..200).map(|_| flood())).await;
            // Its part for signatures, and what others ask in the background.
            assert!(asked.questions() < OF_ONE_PEER);
            if shed() > 0 {
                break;
            }
        }
        assert!(shed() > 0 && named() >= shed(), "a peer has no bound");
        // Another one is answered.
        let change = client.update(&keystore, 1, &json!([client.did]));
        assert_eq!(status(&cluster.node(1).serve(change).await), 200);
        held.release().await;
        is_empty(asked).await;
        sign_well(asked, &client, &keystore, &key, b"after it").await;
        cluster.stop().await;
    });
}

#[test]
fn holders_that_have_too_much_to_do_are_asked_three_times_and_no_more() {
    run(async {
        let (cluster, client, keystore, key, _) = furnished(3).await;
        let asked = Arc::new(AtomicUsize::new(0));
        for number in [2, 3] {
            let asked = asked.clone();
            cluster.node(number).tamper(move |call, answer| match call {
                Call::Cosign(..) => {
                    asked.fetch_add(1, Ordering::Relaxed);
                    Answer::Abstained(Abstention::Busy).encode()
                }
                _ => answer.encode(),
            });
        }
        let served = cluster
            .node(1)
            .serve(client.sign(&keystore, &key, b"too much"))
            .await;
        assert_eq!(refused(served), 503);
        assert_eq!(asked.load(Ordering::Relaxed), 3);
        cluster.stop().await;
    });
}
