//! An older copy of a node's data directory is put back: the node recognizes it by its own signatures, which the others
//! kept, and takes no part; the others go on. Put back the newest, it serves again.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use conclave::audit::{self, Kind};
use serde_json::Value;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use crate::common::files::copy;
use crate::common::https;
use crate::common::world::{self, ED25519, Key, World};

/// A node states how far its disk is once a second, and peers have it on disk half a second later.
const REMEMBERED: Duration = Duration::from_millis(2_500);
/// How long anything may take here.
const PATIENCE: Duration = Duration::from_secs(60);

/// Keys are made and used through the nodes `at` until whatever happened is remembered.
async fn move_on(world: &World, at: &[usize]) -> Vec<Key> {
    let until = Instant::now() + REMEMBERED;
    let mut keys = Vec::new();
    while Instant::now() < until {
        for node in at {
            let key = world.key(*node, ED25519).await;
            world.sign(*node, &key).await.unwrap();
            keys.push(key);
        }
    }
    keys
}

/// Waits until a node says that it is rolled back; what it says, and its status.
async fn rolled_back(world: &World, node: usize) -> (Value, Value) {
    let admin = world.cluster.nodes()[node].admin;
    let until = Instant::now() + PATIENCE;
    loop {
        if let Ok(answer) = https::admin(admin, "/health/ready").await {
            assert_eq!(answer.status, 503, "{answer:?}");
            let told: Value = serde_json::from_str(&answer.body).unwrap();
            if told["reason"].as_str().unwrap().starts_with("rolled back: ") {
                return (told, status(world, node).await);
            }
        }
        assert!(
            Instant::now() < until,
            "node {node} does not know that it is rolled back"
        );
        sleep(Duration::from_millis(20)).await;
    }
}

async fn status(world: &World, node: usize) -> Value {
    let admin = world.cluster.nodes()[node].admin;
    let answer = https::admin(admin, "/status").await.unwrap();
    serde_json::from_str(&answer.body).unwrap()
}

/// Term and end of the log of each group.
fn logs(status: &Value) -> Vec<(u64, u64)> {
    let groups = status["groups"].as_array().unwrap();
    let number = |group: &Value, what: &str| group[what].as_u64().unwrap();
    groups
        .iter()
        .map(|group| (number(group, "term"), number(group, "last")))
        .collect()
}

/// Contributions and endorsements on record.
fn took_part(folder: &Path) -> u64 {
    let kinds = audit::verify(folder, None).unwrap().by_kind;
    [Kind::Contributed, Kind::Endorsed]
        .iter()
        .filter_map(|kind| kinds.get(kind))
        .sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_copy_takes_no_part_and_the_others_go_on() {
    let mut world = World::start(3).await;
    let key = world.key(0, ED25519).await;
    let data: PathBuf = world.cluster.nodes()[2].data_dir.clone();
    let (older, newest) = (data.with_extension("older"), data.with_extension("newest"));

    world.cluster.terminate(2).await;
    copy(&data, &older);
    world.cluster.restart(2).await;
    let keys = move_on(&world, &[0, 1, 2]).await;
    // Its own disk is never taken for an older one, however it died.
    world.cluster.kill(2).await;
    world.cluster.restart(2).await;
    world.sign(2, &keys[0]).await.unwrap();
    world.cluster.kill(2).await;
    fs::rename(&data, &newest).unwrap();
    copy(&older, &data);
    let before = took_part(&data.join("audit"));
    world.cluster.spawn(2);

    let (told, first) = rolled_back(&world, 2).await;
    let hint = told["hint"].as_str().unwrap();
    assert!(
        hint.contains("newest data directory") && hint.contains("new node id"),
        "{hint}"
    );
    assert_eq!(first["state"], "quarantined");
    let printed = Command::new(env!("CARGO_BIN_EXE_conclave"))
        .args(["status", "--dir"])
        .arg(world.cluster.path())
        .output()
        .await
        .unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert!(
        printed.contains("quarantined") && printed.contains("rolled back: "),
        "{printed}"
    );
    let admin = world.cluster.nodes()[2].admin;
    let metrics = https::admin(admin, "/metrics").await.unwrap().body;
    assert!(metrics.contains("conclave_rolled_back 1"), "{metrics}");

    // The others go on without it, and it neither contributes, votes nor appends.
    let later = move_on(&world, &[0, 1]).await;
    for key in [&key, &keys[0], &later[0]] {
        let refused = world.sign(2, key).await.unwrap_err();
        assert_eq!(world::status(&refused), Some(503), "{refused}");
    }
    world.cluster.kill(0).await;
    assert!(
        world.sign(1, &key).await.is_err(),
        "one node and an older copy are no quorum"
    );
    world.cluster.restart(0).await;
    world.sign(0, &key).await.unwrap();
    let now = status(&world, 2).await;
    assert_eq!(logs(&now), logs(&first));
    let told = fs::read_to_string(world.cluster.path().join("restarted-2.log")).unwrap();
    assert!(told.contains("newest data directory"), "the log says what to do");

    // It knows by itself from now on.
    for node in [2, 0, 1] {
        world.cluster.kill(node).await;
    }
    assert_eq!(
        took_part(&data.join("audit")),
        before,
        "it has recorded a contribution"
    );
    world.cluster.spawn(2);
    rolled_back(&world, 2).await;
    world.cluster.kill(2).await;

    // The newest is put back, and everything is as it was.
    fs::remove_dir_all(&data).unwrap();
    fs::rename(&newest, &data).unwrap();
    for node in 0..3 {
        world.cluster.spawn(node);
    }
    for node in 0..3 {
        world.cluster.ready(node).await;
    }
    for node in 0..3 {
        for key in [&key, &keys[0], &later[0]] {
            world.sign(node, key).await.unwrap();
        }
    }
    world.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audit_chain_that_was_cut_is_recognized_with_the_log_as_it_was() {
    let mut world = World::start(3).await;
    let key = world.key(0, ED25519).await;
    let audit = world.cluster.nodes()[1].data_dir.join("audit");
    let older = audit.with_extension("older");
    world.cluster.terminate(1).await;
    copy(&audit, &older);
    world.cluster.restart(1).await;
    let until = Instant::now() + REMEMBERED;
    while Instant::now() < until {
        // Uses alone: the groups' logs stand still.
        world.sign(1, &key).await.unwrap();
    }
    world.cluster.terminate(1).await;
    fs::remove_dir_all(&audit).unwrap();
    copy(&older, &audit);
    world.cluster.spawn(1);
    let (told, _) = rolled_back(&world, 1).await;
    let reason = told["reason"].as_str().unwrap();
    assert!(reason.contains("the audit chain had record"), "{reason}");
    world.sign(0, &key).await.unwrap();
    world.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_disk_does_not_come_back_under_its_old_name() {
    let mut world = World::start(3).await;
    let key = world.key(0, ED25519).await;
    world.cluster.kill(2).await;
    let raft = world.cluster.nodes()[2].data_dir.join("raft");
    fs::remove_dir_all(&raft).unwrap();
    fs::create_dir(&raft).unwrap();
    for _ in 0..2 {
        world.cluster.spawn(2);
        world.cluster.ended(2).await;
    }
    let told = fs::read_to_string(world.cluster.path().join("restarted-2.log")).unwrap();
    assert!(told.contains("the data directory is empty"), "{told}");
    for node in [0, 1] {
        world.sign(node, &key).await.unwrap();
    }
    world.cluster.stop().await;
}
