//! One request has one name in the logs of all nodes that worked for it, and its client is told that name.

use std::collections::BTreeSet;
use std::time::Duration;

use conclave::client::Call;
use tokio::time::sleep;

use crate::common::world::{ED25519, World};

/// Names of requests in a node's log.
fn named(world: &World, node: u64) -> BTreeSet<String> {
    let log = world.cluster.path().join(format!("node-{node}")).join("log");
    let text = std::fs::read_to_string(log).unwrap();
    text.lines()
        .filter(|line| line.contains("is refused"))
        .filter_map(|line| {
            let (_, rest) = line.split_once("request=")?;
            Some(rest.chars().take_while(char::is_ascii_hexdigit).collect())
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_has_one_name_on_all_nodes() {
    let world = World::start(3).await;
    let key = world.key(0, ED25519).await;
    let request = world.signed(&Call::sign(&key.id, b"once"));
    assert!(world.send(0, &request).await.is_success());
    // Longer than a twin may take: what follows is a replay.
    sleep(Duration::from_millis(2_100)).await;
    let mut told = BTreeSet::new();
    for node in [1, 2] {
        let reply = world.send(node, &request).await;
        assert_eq!(reply.status, 409);
        told.insert(reply.request_id.unwrap());
    }
    // One of the two had no part in the first signature: it asked, and was refused by those who had.
    let logs: Vec<BTreeSet<String>> = (1..=3).map(|node| named(&world, node)).collect();
    let everywhere = |id: &String| logs.iter().filter(|log| log.contains(id)).count();
    assert!(told.iter().all(|id| everywhere(id) >= 1), "{told:?} {logs:?}");
    assert!(told.iter().any(|id| everywhere(id) >= 2), "{told:?} {logs:?}");
    world.cluster.stop().await;
}
