//! Nodes have each other's signed audit heads on record: a chain whose tail was cut while its node was stopped holds by itself,
//! and is found by the others' chains.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use conclave::audit::{self, Content};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::common::world::{ED25519, World};

/// Nodes ask each other every 10 s.
const PATIENCE: Duration = Duration::from_secs(60);

/// `conclave audit verify` over the chains in these folders.
pub(crate) fn verify(world: &World, folders: &[PathBuf], more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_conclave"))
        .args(["audit", "verify", "--genesis"])
        .arg(world.cluster.path().join("genesis.json"))
        .args(more)
        .args(folders)
        .output()
        .unwrap()
}

/// The highest head of node `of` in the chain that a node is writing.
fn witnessed(folder: &Path, of: u64) -> Option<u64> {
    let mut highest = None;
    // The end is being written: what is before it has been shown.
    let _ = audit::verify_each(folder, None, |record| {
        if let Content::Witnessed(head) = &record.content
            && head.node == of
        {
            highest = highest.max(Some(head.sequence));
        }
    });
    highest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_that_was_cut_is_found_by_the_others() {
    let mut world = World::start(3).await;
    let key = world.key(0, ED25519).await;
    let folders: Vec<PathBuf> = world
        .cluster
        .nodes()
        .iter()
        .map(|node| node.data_dir.join("audit"))
        .collect();
    world.cluster.terminate(1).await;
    let older = folders[1].with_extension("older");
    fs::create_dir(&older).unwrap();
    for file in fs::read_dir(&folders[1]).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), older.join(file.file_name())).unwrap();
    }
    let before = audit::verify(&older, None).unwrap().last_sequence.unwrap();
    world.cluster.restart(1).await;
    let until = Instant::now() + PATIENCE;
    while witnessed(&folders[0], 2).is_none_or(|sequence| sequence <= before) {
        assert!(Instant::now() < until, "no head of node 2 at node 1");
        world.sign(1, &key).await.unwrap();
        sleep(Duration::from_millis(100)).await;
    }
    for node in 0..3 {
        world.cluster.terminate(node).await;
    }

    let verified = verify(&world, &folders, &["--stopped", "--json"]);
    let told = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success(), "{told}");
    let facts: Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert!(facts["heads"]["held"].as_u64().unwrap() > 0, "{facts}");
    assert_eq!(facts["heads"]["held"], facts["heads"]["confirmed"], "{facts}");
    assert_eq!(facts["proven"], true, "{facts}");

    fs::remove_dir_all(&folders[1]).unwrap();
    fs::rename(&older, &folders[1]).unwrap();
    let alone = verify(&world, &folders[1..2], &["--stopped", "--partial"]);
    assert!(alone.status.success(), "by itself it holds");
    let alone = verify(&world, &folders[1..2], &["--stopped"]);
    let told = String::from_utf8_lossy(&alone.stderr);
    assert!(!alone.status.success() && told.contains("nodes 1, 3"), "{told}");
    let found = verify(&world, &folders, &["--stopped"]);
    let told = String::from_utf8_lossy(&found.stderr);
    assert!(!found.status.success(), "{told}");
    let expected = format!("node 2's chain ends at record {before}, and node ");
    assert!(
        told.contains(&expected) && told.contains("its chain was cut"),
        "{told}"
    );
}
