//! A machine that makes its own keys becomes a member: seen with a token, certified and ordered in by the operators, and nothing
//! secret of it is ever anywhere else.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::common::cluster::free_ports;
use crate::common::world::{self, ED25519, World};
use crate::members::{Joined, client_of, ordered};

/// Longest wait for a step.
const STEP: Duration = Duration::from_secs(120);

fn node(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_conclave"));
    command.arg("node").args(words);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn ended(mut command: Command) -> Output {
    timeout(STEP, command.output()).await.expect("in time").unwrap()
}

/// A machine that waits for operators.
struct Waiting {
    lines: Lines<BufReader<ChildStdout>>,
    _machine: Child,
    fingerprint: String,
}

/// Runs `conclave node join` on a machine of its own, as far as its fingerprint.
async fn join(token: &str, addresses: &str, admin: &str, out: &Path) -> Waiting {
    let mut command = node(&["join", "--seal", "file", "--token", token]);
    command.args(["--node", addresses, "--admin", admin]);
    let mut machine = command.arg("--out").arg(out).spawn().unwrap();
    let mut lines = BufReader::new(machine.stdout.take().unwrap()).lines();
    let fingerprint = loop {
        let line = timeout(STEP, lines.next_line()).await.expect("in time").unwrap();
        let line = line.expect("a fingerprint");
        let digits = line.trim();
        if digits.len() == 8 * 4 + 7 && digits.split('-').count() == 8 {
            break digits.to_owned();
        }
    };
    Waiting {
        lines,
        _machine: machine,
        fingerprint,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_with_keys_of_its_own_joins() {
    let world = World::start(3).await;
    let signing = world.key(0, ED25519).await;
    let cluster = world.cluster.path();
    let admin = world.cluster.nodes()[0].admin.to_string();
    let base = free_ports(1);
    let [https, peer, own_admin] = [0, 100, 200].map(|lane| SocketAddr::from(([127, 0, 0, 1], base + lane)));
    let addresses = format!("4={peer},{https},{own_admin}");

    let invited = ended(node(&["invite", "--admin", &admin])).await;
    let token = String::from_utf8(invited.stdout).unwrap().trim().to_owned();
    // A machine of its own: nothing of the cluster is in its folder but what it is told.
    let machine = tempfile::tempdir().unwrap();
    let first = join(&token, &addresses, &admin, machine.path()).await;
    // It is cut off while it waits, and goes on with the keys that it has.
    let fingerprint = first.fingerprint.clone();
    drop(first);
    let mut waiting = join(&token, &addresses, &admin, machine.path()).await;
    assert_eq!(waiting.fingerprint, fingerprint);

    // Seen is all that it is.
    let mut status = Command::new(env!("CARGO_BIN_EXE_conclave"));
    let shown = ended({
        status.args(["status", "--admin", &admin]);
        status
    })
    .await;
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains(&fingerprint), "{shown}");
    assert_eq!(
        world.status(0).await["members"]["nodes"],
        serde_json::json!([1, 2, 3])
    );

    // The token is spent, and no other keys pass for the ones that were seen.
    let other = tempfile::tempdir().unwrap();
    let mut second = node(&["join", "--seal", "file", "--token", &token]);
    second.args(["--node", &addresses, "--admin", &admin]);
    second.arg("--out").arg(other.path());
    let refused = ended(second).await;
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && told.contains("conclave node invite"),
        "{told}"
    );
    assert!(
        !other.path().join("node-4").exists(),
        "nothing is made for who is not seen"
    );
    let wrong = format!("4={}", fingerprint.replace(|digit: char| digit != '-', "0"));
    let mut mistaken = node(&["add", "--candidate", &wrong, "--admin", &admin]);
    mistaken.arg("--cluster").arg(&cluster);
    let refused = ended(mistaken).await;
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && told.contains("fingerprint"),
        "{told}"
    );

    // The operators' one command, and the machine's server as soon as the machine says so.
    let candidate = format!("4={fingerprint}");
    let words = ["add", "--candidate", &candidate];
    let adding = ordered(&world, &words);
    let starting = async {
        loop {
            let line = timeout(STEP, waiting.lines.next_line())
                .await
                .expect("in time")
                .unwrap();
            let line = line.expect("it is said how to start it");
            if let Some(config) = line.strip_prefix("start it now: conclave server --config ") {
                return Joined::start(Path::new(config), https, own_admin, &machine.path().join("log"));
            }
        }
    };
    let (_, joined) = tokio::join!(adding, starting);
    assert!(
        !cluster.join("node-4").exists(),
        "its folder is on its machine only"
    );
    joined.ready().await;
    let client = client_of(&world, &joined);
    world::sign(&client, &world.alice, &signing, None).await.unwrap();
    // It may leave as any other.
    ordered(&world, &["remove", "4"]).await;
    world.cluster.stop().await;
}
