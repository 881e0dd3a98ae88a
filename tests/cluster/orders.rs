//! Operators' orders through real processes: signed apart, brought to any node, carried out by all.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::{Instant, sleep};

use crate::common::https;
use crate::common::world::{ED25519, World};

pub(super) async fn operator(arguments: &[&str]) -> Output {
    let ran = Command::new(env!("CARGO_BIN_EXE_conclave"))
        .arg("operator")
        .args(arguments)
        .output();
    ran.await.unwrap()
}

/// The order, signed on its own and written to a file.
pub(super) async fn signed(folder: &Path, sequence: &str) -> PathBuf {
    let (genesis, key) = (folder.join("genesis.json"), folder.join("operator.key"));
    let sign = ["sign", "renew-shares", "--sequence", sequence];
    let files = [
        "--genesis",
        genesis.to_str().unwrap(),
        "--key",
        key.to_str().unwrap(),
    ];
    let output = operator(&[&sign[..], &files[..]].concat()).await;
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let file = folder.join(format!("order-{sequence}.json"));
    fs::write(&file, output.stdout).unwrap();
    file
}

/// Keys that leaders have renewed, over the nodes with these admin addresses.
pub(super) async fn renewed(admins: &[SocketAddr]) -> u64 {
    let mut sum = 0;
    for admin in admins {
        let body = https::admin(*admin, "/metrics").await.unwrap().body;
        let line = body
            .lines()
            .find_map(|line| line.strip_prefix("conclave_keys_renewed_total "));
        sum += line.unwrap().parse::<u64>().unwrap();
    }
    sum
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_renews_every_key_and_each_stays_the_same() {
    let mut world = World::start(3).await;
    let keys = [world.key(0, ED25519).await, world.key(1, ED25519).await];
    let folder = world.cluster.path();
    let admin = world.cluster.nodes()[1].admin.to_string();
    let early = signed(&folder, "2").await;
    let refused = operator(&["submit", "--admin", &admin, early.to_str().unwrap()]).await;
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && told.contains("--sequence 1"),
        "{told}"
    );

    let order = signed(&folder, "1").await;
    let brought = operator(&["submit", "--admin", &admin, order.to_str().unwrap()]).await;
    assert!(
        brought.status.success(),
        "{}",
        String::from_utf8_lossy(&brought.stderr)
    );
    let until = Instant::now() + Duration::from_secs(30);
    let admins: Vec<SocketAddr> = world.cluster.nodes().iter().map(|node| node.admin).collect();
    while renewed(&admins).await < 2 {
        assert!(Instant::now() < until, "the keys were not renewed");
        for (node, key) in [(0, &keys[0]), (1, &keys[1]), (2, &keys[0])] {
            world.sign(node, key).await.unwrap();
        }
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(world.status(0).await["last_order"], 1);
    // New shares are used after a restart as well.
    world.cluster.kill(2).await;
    world.cluster.restart(2).await;
    world.cluster.kill(0).await;
    for key in &keys {
        world.sign(1, key).await.unwrap();
        world.sign(2, key).await.unwrap();
    }
    world.cluster.stop().await;
}
