//! Five nodes, each group on three of them, in real processes: whoever is asked serves, one that is lost is replaced in its groups
//! by the command, and groups are put elsewhere by another.

use std::fs;

use conclave::client::Client;
use serde_json::Value;

use super::heads::verify;
use super::members::{change, client_of, ordered};
use crate::common::world::{self, ED25519, HMAC, KEK, World, X25519, served};

/// The groups that a node has, beside group 0.
fn groups_of(status: &Value, node: u64) -> usize {
    let groups = status["groups"].as_array().unwrap().iter();
    let has = |group: &&Value| {
        let holders = group["holders"].as_array().unwrap();
        group["group"] != 0 && holders.iter().any(|holder| *holder == node)
    };
    groups.filter(has).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_nodes_with_committees_of_three_serve_through_each_and_a_lost_one_is_replaced() {
    let mut world = World::start_with(5, &["--committee", "3"]).await;
    let signing = world.key(0, ED25519).await;
    let agreeing = world.key(1, X25519).await;
    let tags = world.key(2, HMAC).await;
    let wraps = world.key(3, KEK).await;
    let status = world.status(0).await;
    assert!((1..=5).all(|node| groups_of(&status, node) == 9), "{status}");

    let tag = world.clients[0]
        .sign(&world.alice, &tags.id, b"a message", None)
        .await
        .unwrap();
    let with_all = async |client: &Client, alice: &conclave::client::Identity| {
        world::sign(client, alice, &signing, None).await.unwrap();
        world::derive(client, alice, &agreeing).await.unwrap();
        let again = served(async || client.sign(alice, &tags.id, b"a message", None).await).await;
        assert_eq!(again, tag);
        let payload = rand::random::<[u8; 32]>();
        let wrapped = served(async || client.wrap_key(alice, &wraps.id, &payload, None).await).await;
        let unwrapped = served(async || client.unwrap_key(alice, &wraps.id, &wrapped, None).await).await;
        assert_eq!(unwrapped.map(|key| key.to_vec()), Some(payload.to_vec()));
    };
    for node in 0..5 {
        with_all(&world.clients[node], &world.alice).await;
        // What is revoked through one is revoked through all.
        let bobs = world.delegate(&signing);
        world.clients[node].revoke(&world.alice, &bobs).await.unwrap();
        for other in 0..5 {
            world.must_be_revoked(other, &signing, &bobs).await;
        }
        // A keystore that is made through one is used through another.
        let client = &world.clients[node];
        let keystore = world::keystore(client, &world.bob).await;
        let key = world::generate(&world.clients[(node + 1) % 5], &world.bob, &keystore, ED25519).await;
        world::sign(&world.clients[(node + 2) % 5], &world.bob, &key.unwrap(), None)
            .await
            .unwrap();
    }

    // The machine and its disk are gone: the others go on, and a new one takes its groups.
    world.cluster.kill(2).await;
    fs::remove_dir_all(world.cluster.path().join("node-3")).unwrap();
    for node in [0, 1, 3, 4] {
        served(async || world.sign(node, &signing).await).await;
    }
    let new = change(&world, "replace", &[3], (6, 1)).await.remove(0);
    with_all(&client_of(&world, &new), &world.alice).await;
    for node in [0, 1, 3, 4] {
        with_all(&world.clients[node], &world.alice).await;
    }
    let status = world.status(0).await;
    assert_eq!(
        status["members"]["nodes"],
        serde_json::json!([1, 2, 4, 5, 6]),
        "{status}"
    );
    assert_eq!(status["members"]["under_way"], serde_json::json!([]), "{status}");
    assert!(
        [1, 2, 4, 5, 6].iter().all(|node| groups_of(&status, *node) == 9),
        "{status}"
    );

    // Four of the five for each group.
    let told = ordered(&world, &["place", "--committee", "4"]).await;
    assert!(told.contains("every key is with them"), "{told}");
    let status = world.status(4).await;
    assert!(
        [1, 2, 4, 5, 6].iter().all(|node| groups_of(&status, *node) == 12),
        "{status}"
    );
    with_all(&client_of(&world, &new), &world.alice).await;
    with_all(&world.clients[1], &world.alice).await;
    world.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_result_of_a_placed_cluster_is_on_record_at_its_committee() {
    let mut world = World::start_with(5, &["--committee", "3"]).await;
    // Keystores of several groups, each used through nodes that have a part of it and through nodes that have none.
    for turn in 0..4 {
        let keystore = world::keystore(&world.clients[turn], &world.alice).await;
        let [signing, tags] = [ED25519, HMAC]
            .map(|key_type| world::generate(&world.clients[turn], &world.alice, &keystore, key_type));
        let (signing, tags) = (signing.await.unwrap(), tags.await.unwrap());
        for client in &world.clients {
            world::sign(client, &world.alice, &signing, None).await.unwrap();
            let tag = served(async || client.sign(&world.alice, &tags.id, b"a message", None).await).await;
            assert_eq!(tag.len(), 32);
        }
    }
    let nodes = world.cluster.nodes().into_iter();
    let folders: Vec<_> = nodes.map(|node| node.data_dir.join("audit")).collect();
    assert!(world.cluster.end().await.success());
    let verified = verify(&world, &folders, &["--stopped", "--json"]);
    let told = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success(), "{told}");
    let facts: Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert!(facts["results"].as_u64().unwrap() >= 4 * 2 * 5, "{facts}");
    assert_eq!(facts["results"], facts["corroborated"], "{facts}");
    assert_eq!(facts["proven"], true, "{facts}");
}
