//! A cluster as `conclave init` makes it for real machines, sealed by a passphrase: a node answers health and nothing
//! else until it is given it, after each start.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use conclave::client::Identity;
use rand::rngs::OsRng;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::common::cluster::{free_ports, turn};
use crate::common::https;
use crate::common::world::{self, ED25519};

const PASSPHRASE: &[u8] = b"a passphrase of some length\n";

/// Runs the program to its end with these bytes on its standard input.
async fn conclave(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_conclave"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input).await.unwrap();
    drop(stdin);
    child.wait_with_output().await.unwrap()
}

fn server(out: &Path, node: usize) -> Child {
    let log = fs::File::options()
        .append(true)
        .create(true)
        .open(out.join(format!("node-{}.log", node + 1)))
        .unwrap();
    Command::new(env!("CARGO_BIN_EXE_conclave"))
        .args(["server", "--config"])
        .arg(out.join(format!("node-{}/node.toml", node + 1)))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// Waits until the admin listener answers and its readiness is `status`; what it says.
async fn readiness(admin: SocketAddr, status: u16) -> String {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        match https::admin(admin, "/health/ready").await {
            Ok(answer) if answer.status == status => return answer.body,
            answer => assert!(Instant::now() < until, "{admin} is not {status}: {answer:?}"),
        }
        sleep(Duration::from_millis(50)).await;
    }
}

async fn unseal(admin: SocketAddr, passphrase: &[u8]) -> Option<i32> {
    let output = conclave(&["unseal", "--admin", &admin.to_string()], passphrase).await;
    output.status.code()
}

/// Health, and nothing else.
async fn is_sealed(admin: SocketAddr, public: SocketAddr, peer: SocketAddr) {
    let told = readiness(admin, 503).await;
    assert!(told.contains("sealed"), "{told}");
    assert_eq!(https::admin(admin, "/health/live").await.unwrap().status, 200);
    for listener in [public, peer] {
        assert!(
            TcpStream::connect(listener).await.is_err(),
            "a sealed node listens on {listener}"
        );
    }
    let status = conclave(&["status", "--admin", &admin.to_string()], b"").await;
    assert_eq!(
        status.status.code(),
        Some(2),
        "{}",
        String::from_utf8_lossy(&status.stdout)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_init_is_sealed_until_it_has_its_passphrase() {
    let _turn = turn().await;
    let folder = tempfile::tempdir().unwrap();
    let out: PathBuf = folder.path().join("cluster");
    let base = free_ports(3);
    let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let nodes: Vec<[SocketAddr; 3]> = (base..base + 3)
        .map(|port| [at(port), at(port + 100), at(port + 200)])
        .collect();
    let alice = Identity::generate(&mut OsRng);
    let url = format!("https://localhost:{base}");
    let mut arguments: Vec<String> = [
        "init",
        "--public-url",
        &url,
        "--meter-admin",
        alice.did(),
        "--out",
    ]
    .map(str::to_owned)
    .into();
    arguments.push(out.to_str().unwrap().to_owned());
    for (id, [public, peer, admin]) in (1..).zip(&nodes) {
        arguments.extend(["--node".to_owned(), format!("{id}={peer},{public},{admin}")]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let made = conclave(&arguments, PASSPHRASE).await;
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));

    let mut servers: Vec<Child> = (0..3).map(|node| server(&out, node)).collect();
    for [public, peer, admin] in &nodes {
        is_sealed(*admin, *public, *peer).await;
    }
    assert_eq!(unseal(nodes[0][2], b"not the passphrase at all").await, Some(2));
    is_sealed(nodes[0][2], nodes[0][0], nodes[0][1]).await;
    for [.., admin] in &nodes {
        assert_eq!(unseal(*admin, PASSPHRASE).await, Some(0));
    }
    for [.., admin] in &nodes {
        readiness(*admin, 200).await;
    }

    let addresses: Vec<String> = nodes.iter().map(|node| node[0].to_string()).collect();
    let clients = world::clients(&url, &out.join("ca.pem"), &addresses);
    let keystore = world::keystore(&clients[0], &alice).await;
    let key = world::generate(&clients[1], &alice, &keystore, ED25519)
        .await
        .unwrap();
    world::sign(&clients[2], &alice, &key, None).await.unwrap();
    // `init` names who may create meters; nobody else may.
    let eve = Identity::generate(&mut OsRng);
    let refused = clients[0].create_meter(&eve, eve.did(), "urn:uuid:test").await;
    assert_eq!(world::status(&refused.unwrap_err()), Some(403));

    // A restarted node is sealed again; the others go on without it, and with it once it is open.
    servers[2].kill().await.unwrap();
    servers[2] = server(&out, 2);
    let [public, peer, admin] = nodes[2];
    is_sealed(admin, public, peer).await;
    world::sign(&clients[0], &alice, &key, None).await.unwrap();
    assert_eq!(unseal(admin, PASSPHRASE).await, Some(0));
    readiness(admin, 200).await;
    world::sign(&clients[2], &alice, &key, None).await.unwrap();
}
