//! Members change, with real processes and the commands that operators use: a machine that was lost is replaced, a cluster
//! grows and shrinks, and clients notice nothing.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use conclave::client::Client;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::common::cluster::free_ports;
use crate::common::https;
use crate::common::world::{self, ED25519, World, X25519};

/// Longest wait for a change of members.
const CHANGE: Duration = Duration::from_secs(120);

/// A node that joined.
pub(crate) struct Joined {
    pub(crate) https: SocketAddr,
    pub(crate) admin: SocketAddr,
    _server: Child,
}

impl Joined {
    /// Starts the server of a new machine.
    pub(crate) fn start(config: &Path, https: SocketAddr, admin: SocketAddr, log: &Path) -> Joined {
        let log = fs::File::options().append(true).create(true).open(log).unwrap();
        let server = Command::new(env!("CARGO_BIN_EXE_conclave"))
            .args(["server", "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn();
        Joined {
            https,
            admin,
            _server: server.unwrap(),
        }
    }

    /// Until it serves.
    pub(crate) async fn ready(&self) {
        let until = Instant::now() + CHANGE;
        loop {
            let last = https::admin(self.admin, "/health/ready").await;
            if matches!(&last, Ok(answer) if answer.status == 200) {
                return;
            }
            assert!(Instant::now() < until, "not ready: {last:?}");
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Changes the members by the first node's word: `gone` leave, and so many new machines come, numbered from `first`. Answers the
/// new ones once the change is carried out.
pub(crate) async fn change(world: &World, kind: &str, gone: &[u64], come: (u64, u16)) -> Vec<Joined> {
    change_through(world, world.cluster.nodes()[0].admin, kind, gone, come).await
}

/// The same by the word of the node with this admin address.
pub(crate) async fn change_through(
    world: &World,
    admin: SocketAddr,
    kind: &str,
    gone: &[u64],
    come: (u64, u16),
) -> Vec<Joined> {
    change_in(&world.cluster.path(), admin, kind, gone, come).await
}

/// The same in a cluster whose files are in this folder.
pub(crate) async fn change_in(
    cluster: &Path,
    admin: SocketAddr,
    kind: &str,
    gone: &[u64],
    (first, come): (u64, u16),
) -> Vec<Joined> {
    let base = free_ports(come.max(1));
    let admin = admin.to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_conclave"));
    command.args(["node", kind]).args(gone.iter().map(u64::to_string));
    command.arg("--cluster").arg(cluster);
    command.arg("--like").arg(cluster.join("node-1/node.toml"));
    command.args(["--admin", &admin, "--timeout", "110"]);
    let address = |at: u16, lane: u16| SocketAddr::from(([127, 0, 0, 1], base + lane * 100 + at));
    for at in 0..come {
        let [public, peer, admin] = [0, 1, 2].map(|lane| address(at, lane));
        let number = first + u64::from(at);
        command.args(["--node", &format!("{number}={peer},{public},{admin}")]);
    }
    let spawned = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut changing = spawned.unwrap();
    let mut lines = BufReader::new(changing.stdout.take().unwrap()).lines();
    let (mut joined, mut told) = (Vec::new(), String::new());
    let until = Instant::now() + CHANGE;
    while let Some(line) = timeout(until - Instant::now(), lines.next_line())
        .await
        .expect("in time")
        .unwrap()
    {
        told.push_str(&line);
        told.push('\n');
        // The machine is there, its orders are in its folder: its operator starts it.
        if let Some(config) = line.strip_prefix("start it now: conclave server --config ") {
            let log = cluster.join(format!("joined-{first}-{}.log", joined.len()));
            let at = u16::try_from(joined.len()).unwrap();
            joined.push(Joined::start(
                Path::new(config),
                address(at, 0),
                address(at, 2),
                &log,
            ));
        }
    }
    let ended = changing.wait().await.unwrap();
    assert!(ended.success(), "{told}");
    assert_eq!(joined.len(), usize::from(come), "{told}");
    for new in &joined {
        new.ready().await;
    }
    joined
}

/// Runs a command that moves groups and brings no new machine; what it says.
pub(crate) async fn ordered(world: &World, words: &[&str]) -> String {
    let cluster = world.cluster.path();
    let admin = world.cluster.nodes()[0].admin.to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_conclave"));
    command.arg("node").args(words).arg("--cluster").arg(&cluster);
    command.args(["--admin", &admin, "--timeout", "110"]);
    let ran = timeout(CHANGE, command.stdin(Stdio::null()).output());
    let ran = ran.await.expect("in time").unwrap();
    let told = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(
        ran.status.success(),
        "{told}{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    told
}

pub(crate) fn client_of(world: &World, node: &Joined) -> Client {
    world::client(
        &world.cluster.public_url,
        &world.cluster.ca(),
        &[node.https.to_string()],
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_machine_is_replaced_by_one_command() {
    let mut world = World::start(3).await;
    let signing = world.key(0, ED25519).await;
    let agreeing = world.key(1, X25519).await;
    let bobs = world.delegate(&signing);
    world.clients[1].revoke(&world.alice, &bobs).await.unwrap();

    // The machine and its disk are gone.
    world.cluster.kill(2).await;
    fs::remove_dir_all(world.cluster.path().join("node-3")).unwrap();
    let new = change(&world, "replace", &[3], (4, 1)).await.remove(0);

    let client = client_of(&world, &new);
    world::sign(&client, &world.alice, &signing, None).await.unwrap();
    world::derive(&client, &world.alice, &agreeing).await.unwrap();
    let used = client.sign(&world.bob, &signing.id, b"no", Some(&bobs)).await;
    assert_eq!(world::status(&used.unwrap_err()), Some(403), "revoked is revoked");
    // The new one is as good as the one that was lost: another may go.
    world.cluster.kill(0).await;
    let until = Instant::now() + Duration::from_secs(20);
    while let Err(error) = world::sign(&client, &world.alice, &signing, None).await {
        assert!(Instant::now() < until, "{error}");
    }
    let born = world::generate(&client, &world.alice, &world.keystore, ED25519)
        .await
        .unwrap();
    world::sign(&world.clients[1], &world.alice, &born, None)
        .await
        .unwrap();
    world.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_grows_to_five_while_a_client_goes_on() {
    let world = Arc::new(World::start(3).await);
    let signing = world.key(0, ED25519).await;
    let over = Arc::new(AtomicBool::new(false));
    let signed = tokio::spawn({
        let (world, signing, over) = (world.clone(), signing.clone(), over.clone());
        async move {
            let mut count = 0_u32;
            while !over.load(Ordering::Relaxed) {
                world.sign(count as usize % 3, &signing).await.unwrap();
                count += 1;
            }
            count
        }
    });
    let new = change(&world, "add", &[], (4, 2)).await;
    over.store(true, Ordering::Relaxed);
    assert!(signed.await.unwrap() > 0);
    for node in &new {
        let client = client_of(&world, node);
        world::sign(&client, &world.alice, &signing, None).await.unwrap();
    }
    let status = world.status(0).await;
    assert_eq!(
        status["members"]["nodes"],
        serde_json::json!([1, 2, 3, 4, 5]),
        "{status}"
    );
    assert_eq!(status["members"]["under_way"], serde_json::json!([]), "{status}");
}
