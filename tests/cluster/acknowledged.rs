//! Acknowledged through one node means refused through every other, at once.

use crate::common::world::{self, ED25519, Key, World};

/// The node that is told and another one: all six pairs.
fn pair(round: usize) -> (usize, usize) {
    (round % 3, (round + 1 + round / 3 % 2) % 3)
}

async fn revocation(world: &World, key: &Key, (one, other): (usize, usize)) {
    let capability = world.delegate(key);
    world::sign(&world.clients[other], &world.bob, key, Some(&capability))
        .await
        .unwrap();
    world.clients[one]
        .revoke(&world.alice, &capability)
        .await
        .unwrap();
    world.must_be_revoked(other, key, &capability).await;
}

/// Revokes through one node and uses at once through another; changes the controller through one and acts as the old
/// one through another. Never accepted.
async fn acknowledged_means_everywhere(rounds: usize) {
    let world = World::start(3).await;
    let key = world.key(0, ED25519).await;
    for round in 0..rounds {
        revocation(&world, &key, pair(round)).await;
    }
    let mut controllers = [&world.alice, &world.bob];
    for round in 0..rounds {
        let (one, other) = pair(round);
        let [old, new] = controllers;
        let mut config = world.clients[other]
            .get_keystore(old, &world.keystore, None)
            .await
            .unwrap();
        config["sequence"] = (config["sequence"].as_u64().unwrap() + 1).into();
        config["controller"] = new.did().into();
        world.clients[one]
            .update_keystore(old, &world.keystore, &config, None)
            .await
            .unwrap();
        let used = world.clients[other].sign(old, &key.id, b"no", None).await;
        assert_eq!(world::status(&used.unwrap_err()), Some(403), "round {round}");
        world::sign(&world.clients[other], new, &key, None).await.unwrap();
        controllers.reverse();
    }
    world.cluster.stop().await;
}

/// The same with a third node that is stopped in each turn's `rounds` and sees nothing; asked the moment it goes on,
/// it accepts nothing either, though it may not have heard of any of it.
async fn a_stopped_node_accepts_nothing_old(turns: usize, rounds: usize) {
    let world = World::start(3).await;
    let key = world.key(0, ED25519).await;
    for turn in 0..turns {
        let stopped = turn % 3;
        let known = world.delegate(&key);
        world::sign(&world.clients[stopped], &world.bob, &key, Some(&known))
            .await
            .unwrap();
        world.cluster.pause(stopped);
        let (one, other) = ((stopped + 1) % 3, (stopped + 2) % 3);
        for round in 0..rounds {
            let live = if round % 2 == 0 {
                (one, other)
            } else {
                (other, one)
            };
            revocation(&world, &key, live).await;
        }
        world.clients[one].revoke(&world.alice, &known).await.unwrap();
        world.must_be_revoked(other, &key, &known).await;
        world.cluster.resume(stopped);
        // It may refuse, or say that it cannot know. It does not say yes.
        let used = world.clients[stopped]
            .sign(&world.bob, &key.id, b"no", Some(&known))
            .await;
        let status = world::status(&used.unwrap_err());
        assert!(matches!(status, Some(403 | 503)), "turn {turn}: {status:?}");
        world.cluster.ready(stopped).await;
        world.must_be_revoked(stopped, &key, &known).await;
        world.sign(stopped, &key).await.unwrap();
    }
    world.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_binds_every_node() {
    acknowledged_means_everywhere(50).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: run by make test-long"]
async fn what_is_acknowledged_binds_every_node_a_thousand_times() {
    acknowledged_means_everywhere(1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_stopped_accepts_nothing_old() {
    a_stopped_node_accepts_nothing_old(3, 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: run by make test-long"]
async fn what_is_acknowledged_while_a_node_is_stopped_binds_a_thousand_times() {
    a_stopped_node_accepts_nothing_old(10, 100).await;
}
