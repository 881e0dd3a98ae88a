//! F23: a node dies at a sync of its share store while keys move to a new member. Whatever it leaves there, the change is carried out
//! once it is back, and every key is whole: also with the shares of the node that died.

use super::members::{change_in, client_of};
use crate::common::strace::{self, SYNCS, Tracer};
use crate::common::world::{self, ED25519, HMAC, World, X25519, served};

/// `victim` is killed at the sync of this number of one thread of its share store.
async fn dies_while_keys_move(victim: usize, at: usize) {
    let mut world = World::start(3).await;
    // From here on it is this process's child.
    world.cluster.terminate(victim).await;
    world.cluster.restart(victim).await;
    let (signing, agreeing) = (world.key(0, ED25519).await, world.key(1, X25519).await);
    let tagging = world.key(2, HMAC).await;
    let tag = async |node: usize| {
        let client = &world.clients[node];
        let tag = client.sign(&world.alice, &tagging.id, b"a message", None).await;
        tag.unwrap()
    };
    let before = tag(0).await;

    let node = &world.cluster.nodes()[victim];
    let files = strace::files(&node.data_dir.join("shares"), ".log");
    let what = format!("signal=KILL:when={at}");
    let tracer = Tracer::attach(node.pid, SYNCS, &what, &files);
    let other = (victim + 1) % 3;
    let (path, admin) = (world.cluster.path(), world.cluster.nodes()[other].admin);
    let moving = tokio::spawn(async move { change_in(&path, admin, "add", &[], (4, 1)).await });
    world.cluster.ended(victim).await;
    drop(tracer);
    served(async || world.sign(other, &signing).await).await;
    world.cluster.restart(victim).await;
    let four = moving.await.unwrap().remove(0);

    for node in 0..3 {
        served(async || world.sign(node, &signing).await).await;
        world.derive(node, &agreeing).await.unwrap();
    }
    let client = &world.clients[victim];
    let again = client.sign(&world.alice, &tagging.id, b"a message", None).await;
    assert_eq!(again.unwrap(), before);
    // Three of four: the shares of the one that died are needed.
    world.cluster.kill(other).await;
    served(async || world.sign(victim, &signing).await).await;
    world::derive(&client_of(&world, &four), &world.alice, &agreeing)
        .await
        .unwrap();
    world.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dies_while_keys_move_leaves_every_key_whole() {
    if let Some(needs) = strace::missing() {
        return println!("skipped: needs {needs}");
    }
    dies_while_keys_move(0, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: run by make test-long"]
async fn a_node_that_dies_anywhere_while_keys_move_leaves_every_key_whole() {
    if let Some(needs) = strace::missing() {
        return println!("skipped: needs {needs}");
    }
    for victim in 0..3 {
        // The keys move in few batches: a thread of the store syncs no more often.
        for at in 1..=3 {
            dies_while_keys_move(victim, at).await;
        }
    }
}
