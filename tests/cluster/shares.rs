//! A key is born with all its shares, also those of members that are away; any quorum uses it.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::common::world::{ED25519, World, X25519};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_gets_its_shares_and_then_another_may_die_for_good() {
    let mut world = World::start(3).await;
    for node in 0..3 {
        assert_eq!(world.is_in_health(node, "optimal").await, "[]");
    }
    world.cluster.kill(2).await;
    let concerns = world.is_in_health(0, "degraded").await;
    assert!(concerns.contains("no link with node 3"), "{concerns}");
    let keys = [world.key(0, ED25519).await, world.key(1, ED25519).await];
    let agreeing = world.key(1, X25519).await;
    for node in [0, 1] {
        assert_eq!(
            world.open_envelopes(node).await,
            3,
            "node {node} keeps what the absent member will need"
        );
    }
    world.cluster.restart(2).await;
    let until = Instant::now() + Duration::from_secs(20);
    while world.open_envelopes(0).await + world.open_envelopes(1).await > 0 {
        assert!(Instant::now() < until, "the shares did not arrive");
        sleep(Duration::from_millis(50)).await;
    }
    world.is_in_health(0, "optimal").await;
    world.cluster.kill(0).await;
    for node in [1, 2] {
        for key in &keys {
            world.sign(node, key).await.unwrap();
        }
        world.derive(node, &agreeing).await.unwrap();
        let born_of_two = world.key(node, ED25519).await;
        world.sign(3 - node, &born_of_two).await.unwrap();
    }
    world.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_nodes_sign_with_three() {
    let mut world = World::start(5).await;
    let key = world.key(0, ED25519).await;
    world.cluster.kill(4).await;
    world.cluster.kill(3).await;
    for node in [0, 1, 2, 0, 1, 2] {
        world.sign(node, &key).await.unwrap();
    }
    world.cluster.stop().await;
}
