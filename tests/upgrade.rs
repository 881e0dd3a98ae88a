//! A rolling upgrade with two builds: real processes of this version are replaced one after the other by a build of the next
//! format (the feature `next-format`), on the same disks and under load, and back again as long as that is possible.
#![allow(clippy::unwrap_used, reason = "a test's own helpers may fail loudly")]

mod common;

#[path = "upgrade/builds.rs"]
mod builds;
#[path = "upgrade/uses.rs"]
mod uses;

use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use builds::{next_format, this};
use common::cluster::Cluster;
use common::https;
use common::world::{self, ED25519, World};
use uses::Uses;

/// Longest wait for what must happen soon; a failure only.
const SOON: Duration = Duration::from_secs(60);

/// The formats of this build and of the next.
const NOW: u64 = conclave::format::NEWEST as u64;
const NEXT: u64 = NOW + 1;

/// What a node tells of formats: its newest, what it writes, what is written.
async fn formats(world: &World, node: usize) -> [u64; 3] {
    let status = world.status(node).await;
    ["newest", "agreed", "written"].map(|name| status["formats"][name].as_u64().unwrap())
}

/// Looks at a node's status until it is so.
async fn until(world: &World, node: usize, what: &str, so: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + SOON;
    loop {
        let status = world.status(node).await;
        if so(&status) {
            return status;
        }
        assert!(
            Instant::now() < deadline,
            "node {node} in vain: {what}: {status:#}"
        );
        sleep(Duration::from_millis(50)).await;
    }
}

/// SIGTERM, and the other build on the same disk.
async fn replace(cluster: &mut Cluster, node: usize, build: &std::path::Path) {
    cluster.terminate(node).await;
    cluster.spawn_build(node, build);
    cluster.ready(node).await;
}

/// The groups (by number) of a node's status for which this holds.
fn groups(status: &Value, which: impl Fn(&Value) -> bool) -> Vec<u64> {
    let groups = status["groups"].as_array().unwrap();
    let found = groups.iter().filter(|group| which(group));
    found.map(|group| group["group"].as_u64().unwrap()).collect()
}

fn is_halted(group: &Value) -> bool {
    group["role"] == "halted"
}

/// Calls that a node could not read, from all senders, and misfits: frames of another build.
async fn not_understood(world: &World, node: usize) -> Vec<String> {
    let answer = https::admin(world.cluster.nodes()[node].admin, "/metrics")
        .await
        .unwrap();
    let lines = answer.body.lines().map(str::trim);
    let of = |line: &&str| line.starts_with("conclave_calls_not_understood_total{") && !line.ends_with(" 0");
    lines.filter(of).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_are_upgraded_one_by_one_under_load_and_go_back_until_the_last_one_is() {
    let next = next_format();
    let mut world = World::start(3).await;
    let uses = Uses::under_way(&world).await;
    for node in 0..3 {
        assert_eq!(formats(&world, node).await, [NOW, NOW, NOW], "node {node}");
    }

    // Two of three: everything is served, in the older format.
    for node in 0..2 {
        replace(&mut world.cluster, node, &next).await;
        uses.go_on().await;
        assert_eq!(formats(&world, node).await, [NEXT, NOW, NOW], "node {node}");
    }
    assert_eq!(formats(&world, 2).await, [NOW, NOW, NOW]);

    // Back, and forth again: nothing of what the newer build wrote stands in the way.
    replace(&mut world.cluster, 0, this()).await;
    uses.go_on().await;
    assert_eq!(formats(&world, 0).await, [NOW, NOW, NOW]);
    replace(&mut world.cluster, 0, &next).await;
    uses.go_on().await;
    for node in 0..3 {
        assert_eq!(formats(&world, node).await[1..], [NOW, NOW], "node {node}");
        assert_eq!(not_understood(&world, node).await, [""; 0], "node {node}");
    }

    // The last one: from now on entries are of the newer format.
    replace(&mut world.cluster, 2, &next).await;
    for node in 0..3 {
        let risen =
            |status: &Value| status["formats"]["agreed"] == NEXT && status["formats"]["written"] == NEXT;
        until(&world, node, "the format rises", risen).await;
    }
    uses.go_on().await;
    for node in 0..3 {
        assert_eq!(not_understood(&world, node).await, [""; 0], "node {node}");
    }
    assert_eq!(uses.end().await, [""; 0]);
    too_late_to_go_back(&mut world, &next).await;
    world.cluster.stop().await;
}

/// All nodes run the next build: one of this build, on its old disk, halts where entries of that were written, and says so;
/// the others serve.
async fn too_late_to_go_back(world: &mut World, next: &std::path::Path) {
    let key = world.key(0, ED25519).await;
    world.cluster.terminate(2).await;
    world.cluster.spawn_build(2, this());
    let admin = world.cluster.nodes()[2].admin;
    let deadline = Instant::now() + SOON;
    while https::admin(admin, "/health/live").await.is_err() {
        assert!(Instant::now() < deadline, "the old build does not even start");
        sleep(Duration::from_millis(50)).await;
    }
    let halts = |status: &Value| !groups(status, is_halted).is_empty();
    until(world, 2, "the old build halts", halts).await;
    for node in 0..2 {
        world.sign(node, &key).await.unwrap();
        world.key(node, ED25519).await;
    }
    let ready = https::admin(admin, "/health/ready").await.unwrap();
    assert_eq!(ready.status, 503);
    let status = world.status(2).await;
    let reason = status["reason"].as_str().unwrap();
    for part in [&format!("format {NEXT}"), "install the version"] {
        assert!(reason.contains(part), "{part:?} is missing in {reason:?}");
    }
    // A group halts for what is written in it, and no other does.
    let written = groups(&world.status(0).await, |group| group["written"] == NEXT);
    let halted = groups(&status, is_halted);
    assert!(
        halted.iter().all(|group| written.contains(group)),
        "{halted:?} have halted, {written:?} are written in format {NEXT}"
    );
    let applying = groups(&status, |group| {
        !is_halted(group) && group["applied"].as_u64() > Some(0)
    });
    assert!(
        !applying.is_empty() || written.len() == 16,
        "groups that know nothing of format {NEXT} have ended"
    );

    // With the newer version again it goes on where it was.
    replace(&mut world.cluster, 2, next).await;
    world.sign(2, &key).await.unwrap();
    let key = world.key(2, ED25519).await;
    for client in &world.clients {
        world::sign(client, &world.alice, &key, None).await.unwrap();
    }
}
