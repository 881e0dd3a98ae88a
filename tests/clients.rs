//! Real clients, unchanged: the npm packages of tests/clients against three real nodes behind a relay, and what
//! they sent once more after every node was killed.
#![allow(clippy::unwrap_used, reason = "a test's own helpers may fail loudly")]

mod common;

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use common::cluster::Cluster;
use common::npm;
use tokio::process::Command;

/// The test files, in the order of their names.
fn scripts() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(npm::folder())
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.to_str().is_some_and(|path| path.ends_with(".test.mjs")))
        .collect();
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unmodified_npm_clients_do_every_call_through_every_node() {
    npm::install();
    let mut cluster = Cluster::start(3, &[]).await;
    let captured = tempfile::tempdir().unwrap();
    let scripts = scripts();
    assert!(scripts.len() >= 5);
    // Their connections are counted together: one file after the other.
    let output = Command::new("node")
        .args(["--test", "--test-concurrency=1", "--test-reporter=spec"])
        .args(&scripts)
        .current_dir(npm::folder())
        .env("CONCLAVE_URL", &cluster.public_url)
        .env("CONCLAVE_RELAY", format!("http://{}", cluster.relay.control))
        .env("CONCLAVE_CAPTURED", captured.path())
        .env("NODE_EXTRA_CA_CERTS", cluster.ca())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .expect("node is needed for the clients' tests: `make deps` installs it");
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        output.status.success(),
        "the npm clients' tests failed; {}\n{said}",
        cluster.path().display()
    );

    let counts = cluster.relay.counts();
    println!("connections per node: {counts:?}");
    assert_eq!(counts.len(), 3);
    let all: u64 = counts.iter().sum();
    assert!(
        counts.iter().all(|count| *count >= all / 5),
        "each node must get its part: {counts:?}"
    );

    // The same bytes once more, after SIGKILL and restart of all nodes, through each of them.
    cluster.restart_all().await;
    let requests: Vec<Vec<u8>> = (0..3)
        .map(|at| fs::read(captured.path().join(format!("{at}.request"))).unwrap())
        .collect();
    for request in &requests {
        for node in 0..3 {
            let answer = cluster.send(node, request).await.unwrap();
            assert_eq!(answer.status, 409, "{}", answer.body);
        }
    }
    let ended = cluster.stop().await;
    assert!(ended.success(), "conclave dev ended with {ended}");
}
