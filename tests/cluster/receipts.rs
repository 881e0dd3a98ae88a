//! Receipts with real processes and the command that controllers use: a node that lies to its client is found out, one that
//! is left alone serves without a receipt, and who does not ask gets none.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::common::https::{self, Answer};
use crate::common::world::{ED25519, World};

/// Exit code of an answer that the members do not vouch for.
const UNVOUCHED: i32 = 5;

/// A node that was taken over, with its own certificate: it hands requests to itself and alters what comes back.
struct Liar {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Liar {
    async fn start(world: &World, lie: impl Fn(&mut Answer) + Send + Sync + 'static) -> Self {
        let folder = world.cluster.path().join("node-1");
        let chain = CertificateDer::pem_file_iter(folder.join("https.pem")).unwrap();
        let chain = chain.map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(folder.join("https.key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (honest, ca) = (world.cluster.nodes()[0].https, world.cluster.ca());
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let mut stream = acceptor.accept(socket).await.unwrap();
                let request = request(&mut stream).await;
                let mut answer = https::send(honest, "localhost", &ca, &request).await.unwrap();
                lie(&mut answer);
                let kept = answer
                    .head
                    .lines()
                    .filter(|line| !line.starts_with("content-length:"));
                let head: Vec<&str> = kept.collect();
                let length = answer.body.len();
                let said = format!(
                    "{}\r\ncontent-length: {length}\r\n\r\n{}",
                    head.join("\r\n"),
                    answer.body
                );
                stream.write_all(said.as_bytes()).await.unwrap();
                let _ = stream.shutdown().await;
            }
        });
        Self { address, task }
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A whole request, asking for the end of the connection.
async fn request(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return format!("{head}\r\nconnection: close\r\n\r\n{body}").into_bytes();
            }
        }
        let mut more = [0; 4_096];
        let read = stream.read(&mut more).await.unwrap();
        assert!(read > 0, "half a request");
        bytes.extend_from_slice(&more[..read]);
    }
}

/// Runs the command as Alice, through this address.
async fn conclave(world: &World, through: SocketAddr, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_conclave"))
        .args(arguments)
        .args(["--connect", &through.to_string()])
        .env("CONCLAVE_URL", &world.cluster.public_url)
        .env("CONCLAVE_CA", world.cluster.ca())
        .env("CONCLAVE_IDENTITY", world.cluster.path().join("alice.json"))
        .kill_on_drop(true)
        .output()
        .await
        .unwrap()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", told(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The genesis statement of another cluster.
async fn another_cluster(folder: &Path) -> PathBuf {
    let made = Command::new(env!("CARGO_BIN_EXE_conclave"))
        .args(["init", "--out"])
        .arg(folder.join("other"))
        .args(["--public-url", "https://other.example", "--seal", "file"])
        .args([
            "--node",
            "1=127.0.0.1:1",
            "--node",
            "2=127.0.0.1:2",
            "--node",
            "3=127.0.0.1:3",
        ])
        .output()
        .await
        .unwrap();
    assert!(made.status.success(), "{}", told(&made));
    folder.join("other/genesis.json")
}

/// A description as `path` of the public URL gives it, with this header line or none.
async fn raw(world: &World, url: &str, line: &str) -> Answer {
    let path = url.strip_prefix(&world.cluster.public_url).unwrap();
    let host = world.cluster.public_url.strip_prefix("https://").unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {host}\r\naccept: application/json\r\n{line}connection: close\r\n\r\n"
    );
    world.cluster.send(0, request.as_bytes()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lies_to_its_client_is_found_out() {
    let mut world = World::start(3).await;
    let folder = world.cluster.path();
    world.alice.save(&folder.join("alice.json")).unwrap();
    let genesis = folder.join("genesis.json");
    let genesis = genesis.to_str().unwrap();
    let honest = world.cluster.nodes()[0].https;
    let checked = ["--genesis", genesis, "--require-receipt"];
    let checking = |command: &[&str]| {
        [command, &checked[..]]
            .concat()
            .iter()
            .map(|text| (*text).to_owned())
            .collect::<Vec<_>>()
    };
    let run = async |through, command: &[&str]| {
        let arguments = checking(command);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        conclave(&world, through, &arguments).await
    };

    // Generated and shown, with a quorum's word for it.
    let made = run(honest, &["key", "generate", &world.keystore, "--json"]).await;
    assert!(
        told(&made).contains("2 of 3 members vouch for"),
        "{}",
        told(&made)
    );
    let made = json(&made);
    assert_eq!(made["vouchedBy"].as_array().unwrap().len(), 2);
    let key = made["keyId"].as_str().unwrap().to_owned();
    let shown = run(honest, &["key", "get", &key]).await;
    assert!(
        told(&shown).contains("2 of 3 members vouch for"),
        "{}",
        told(&shown)
    );
    assert_eq!(json(&shown), made["keyDescription"]);

    // Who does not ask gets none; who does may read it in a browser.
    let plain = raw(&world, &key, "").await;
    assert!(!plain.head.contains("conclave-receipt"), "{}", plain.head);
    let asked = raw(&world, &key, "conclave-receipt: wanted\r\n").await;
    assert_eq!((asked.status, &asked.body), (200, &plain.body));
    assert!(
        asked
            .head
            .contains("access-control-expose-headers: conclave-receipt"),
        "{}",
        asked.head
    );
    assert!(asked.head.contains("\nconclave-receipt: v1 1 "), "{}", asked.head);

    // Another public key under this key's URL, with the true one's receipt; then with none.
    let public = made["keyDescription"]["publicKeyMultibase"]
        .as_str()
        .unwrap()
        .to_owned();
    let own = "z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK";
    let liar = Liar::start(&world, move |answer| {
        answer.body = answer.body.replace(&public, own)
    })
    .await;
    let believed = conclave(&world, liar.address, &["key", "get", &key]).await;
    assert_eq!(
        json(&believed)["publicKeyMultibase"],
        own,
        "without a receipt it is believed"
    );
    let found = run(liar.address, &["key", "get", &key]).await;
    assert_eq!(found.status.code(), Some(UNVOUCHED), "{}", told(&found));
    assert!(
        told(&found).contains("has not signed this") && found.stdout.is_empty(),
        "{}",
        told(&found)
    );
    let without = conclave(&world, liar.address, &["key", "get", &key, "--genesis", genesis]).await;
    assert_eq!(
        without.status.code(),
        Some(UNVOUCHED),
        "a wrong receipt is always a failure"
    );
    drop(liar);
    let stripped = Liar::start(&world, |answer| {
        answer.head = answer
            .head
            .lines()
            .filter(|line| !line.starts_with("conclave-receipt"))
            .collect::<Vec<_>>()
            .join("\r\n");
    })
    .await;
    let found = run(stripped.address, &["key", "generate", &world.keystore]).await;
    assert_eq!(found.status.code(), Some(UNVOUCHED), "{}", told(&found));
    assert!(
        told(&found).contains("the reply has no receipt"),
        "{}",
        told(&found)
    );
    let lenient = conclave(
        &world,
        stripped.address,
        &["key", "get", &key, "--genesis", genesis],
    )
    .await;
    assert!(
        lenient.status.success() && told(&lenient).contains("no quorum vouches"),
        "{}",
        told(&lenient)
    );

    // A revocation that goes nowhere, and one that was made.
    let described = conclave::client::Capability::from_json(
        world
            .delegate(&crate::common::world::Key {
                id: key.clone(),
                description: Value::Null,
            })
            .json()
            .clone(),
    );
    let file = folder.join("lent.json");
    fs::write(&file, described.unwrap().json().to_string()).unwrap();
    let file = file.to_str().unwrap();
    let pretends = Liar::start(&world, |answer| {
        answer.head = "HTTP/1.1 204 No Content".into();
        answer.body.clear();
    })
    .await;
    let revoked = run(pretends.address, &["zcap", "revoke", file]).await;
    assert_eq!(revoked.status.code(), Some(UNVOUCHED), "{}", told(&revoked));
    drop(pretends);
    // It was made after all (the liar has handed it on): the next node refuses it, and shows the members' word.
    let again = run(
        world.cluster.nodes()[2].https,
        &["zcap", "revoke", file, "--json"],
    )
    .await;
    assert_eq!(json(&again)["vouchedBy"].as_array().unwrap().len(), 2);

    // Other members.
    let other = another_cluster(&folder).await;
    let other = ["key", "get", &key, "--genesis", other.to_str().unwrap()];
    let found = conclave(&world, honest, &other).await;
    assert_eq!(found.status.code(), Some(UNVOUCHED), "{}", told(&found));
    let nothing = conclave(&world, honest, &["key", "get", &key, "--require-receipt"]).await;
    assert_eq!(nothing.status.code(), Some(1));
    assert!(
        told(&nothing).contains("--genesis is needed"),
        "{}",
        told(&nothing)
    );

    // Alone a node serves what it has, and no quorum vouches.
    drop(stripped);
    world.cluster.kill(1).await;
    world.cluster.kill(2).await;
    let alone = conclave(&world, honest, &["key", "get", &key, "--genesis", genesis]).await;
    assert_eq!(json(&alone), made["keyDescription"]);
    assert!(told(&alone).contains("no quorum vouches"), "{}", told(&alone));
    let alone = conclave(
        &world,
        honest,
        &["key", "get", &key, "--genesis", genesis, "--require-receipt"],
    )
    .await;
    assert_eq!(alone.status.code(), Some(UNVOUCHED), "{}", told(&alone));
    world.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_library_takes_a_receipt_for_a_key_by_itself() {
    let world = World::start(3).await;
    let key = world.key(1, ED25519).await;
    let call = conclave::client::Call::get_key(&key.id);
    let (reply, _) = world.clients[2]
        .invoke_for_receipt(&world.alice, &call, None)
        .await
        .unwrap();
    let genesis = fs::read(world.cluster.path().join("genesis.json")).unwrap();
    let genesis = conclave::provision::Genesis::parse(&genesis).unwrap();
    let members = conclave::provision::introduction::first_members(&genesis).unwrap();
    let receipt = conclave::receipt::Receipt::parse(&reply.receipt.unwrap()).unwrap();
    let subject = conclave::receipt::Subject::description(&key.id, &reply.body);
    let now = crate::common::world::now() * 1_000;
    assert_eq!(receipt.verify(&members, subject, now).unwrap().len(), 2);
    world.cluster.stop().await;
}
