//! Total loss: every node and its disk gone, and all keys back under the same public keys from the backups of two of three
//! nodes, by three of five recovery officers. Two officers open nothing.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use conclave::client::{Client, ClientError, Identity};
use rand::rngs::OsRng;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use super::members::change_in;
use crate::common::cluster::{free_ports, turn};
use crate::common::https;
use crate::common::world::{self, ED25519, HMAC, KEK, X25519};

const MESSAGE: &[u8] = b"a message before and after";

/// What a run of the program ended with.
struct Ran {
    success: bool,
    out: String,
    errors: String,
}

async fn conclave(arguments: &[&str]) -> Ran {
    let run = Command::new(env!("CARGO_BIN_EXE_conclave"))
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = run.await.unwrap();
    Ran {
        success: output.status.success(),
        out: String::from_utf8(output.stdout).unwrap(),
        errors: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Ran {
    fn done(self) -> String {
        assert!(self.success, "{}", self.errors);
        self.out
    }

    fn refused(self, because: &str) {
        assert!(!self.success, "this should have failed: {}", self.out);
        assert!(
            self.errors.contains(because),
            "{because:?} is not why: {}",
            self.errors
        );
    }

    fn facts(self) -> Value {
        serde_json::from_str(&self.done()).unwrap()
    }
}

/// One cluster of `init` after the other at the same addresses.
struct Place {
    folder: TempDir,
    base: u16,
    alice: Identity,
    /// Its nodes, and on how many of them groups are.
    nodes: &'static [u16],
    committee: Option<&'static str>,
    /// The nodes whose backups are left.
    left: &'static [u16],
}

impl Place {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn url(&self) -> String {
        format!("https://localhost:{}", self.base)
    }

    fn address(&self, node: u16, lane: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.base + lane * 100 + node - 1))
    }

    /// `conclave init` of all nodes into the folder `name`.
    async fn init(&self, name: &str, operator: Option<&str>) -> Ran {
        let (url, out) = (self.url(), self.text(name));
        let mut arguments = vec!["init", "--public-url", &url, "--seal", "file", "--out", &out];
        arguments.extend(["--meter-admin", self.alice.did()]);
        if let Some(committee) = self.committee {
            arguments.extend(["--committee", committee]);
        }
        let nodes: Vec<String> = (self.nodes.iter())
            .map(|node| {
                let [public, peer, admin] = [0, 1, 2].map(|lane| self.address(*node, lane));
                format!("{node}={peer},{public},{admin}")
            })
            .collect();
        for node in &nodes {
            arguments.extend(["--node", node]);
        }
        if let Some(operator) = operator {
            arguments.extend(["--operator-key", operator]);
        }
        conclave(&arguments).await
    }

    fn config(&self, cluster: &str, node: u16) -> String {
        self.text(&format!("{cluster}/node-{node}/node.toml"))
    }

    fn start(&self, cluster: &str) -> Vec<Child> {
        let spawn = |node: &u16| {
            let node = *node;
            let log = fs::File::create(self.path(&format!("{cluster}-{node}.log"))).unwrap();
            Command::new(env!("CARGO_BIN_EXE_conclave"))
                .args(["server", "--config", &self.config(cluster, node)])
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .kill_on_drop(true)
                .spawn()
                .unwrap()
        };
        self.nodes.iter().map(spawn).collect()
    }

    /// Waits until all can serve.
    async fn ready(&self) {
        let until = Instant::now() + Duration::from_secs(60);
        for node in self.nodes.iter().copied() {
            loop {
                let last = https::admin(self.address(node, 2), "/health/ready").await;
                if matches!(&last, Ok(answer) if answer.status == 200) {
                    break;
                }
                assert!(Instant::now() < until, "node {node} is not ready: {last:?}");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }

    fn clients(&self, cluster: &str) -> Vec<Client> {
        let addresses = self.nodes.iter().map(|node| self.address(*node, 0).to_string());
        let addresses: Vec<String> = addresses.collect();
        world::clients(&self.url(), &self.path(&format!("{cluster}/ca.pem")), &addresses)
    }

    /// `conclave restore` of a node of the new cluster from the backups that are left.
    async fn restore(&self, action: &str, node: u16, more: &[&str]) -> Ran {
        let config = self.config("new", node);
        let backups = self
            .left
            .iter()
            .map(|node| self.text(&format!("safe/{node}.backup")));
        let backups: Vec<String> = backups.collect();
        let mut arguments = vec!["restore", action, "--config", &config];
        for backup in &backups {
            arguments.extend(["--backup", backup]);
        }
        arguments.extend(more);
        conclave(&arguments).await
    }

    /// An empty cluster, and what officers 2, 3 and 5 answer to the requests of its nodes.
    async fn empty_with_answers(&self) {
        // Of the one before nothing is left.
        let _ = fs::remove_dir_all(self.path("new"));
        self.init("new", Some(&self.text("safe/operator.key")))
            .await
            .done();
        for node in 1..=3 {
            for file in fs::read_dir(self.folder.path()).unwrap() {
                let file = file.unwrap();
                if file
                    .file_name()
                    .to_str()
                    .unwrap()
                    .starts_with(&format!("request-{node}"))
                {
                    fs::remove_file(file.path()).unwrap();
                }
            }
            let request = self.text(&format!("request-{node}.json"));
            let told = self.restore("request", node, &["--out", &request]).await.done();
            assert!(told.contains("4 keys"), "{told}");
        }
        for officer in [2, 3, 5] {
            let share = self.text(&format!("officers/officer-{officer}.json"));
            let requests = [1, 2, 3].map(|node| self.text(&format!("request-{node}.json")));
            let mut arguments = vec!["recovery", "answer", "--share", &share];
            arguments.extend(requests.iter().map(String::as_str));
            // Nobody answers in passing.
            conclave(&arguments).await.refused("--yes");
            arguments.push("--yes");
            let told = conclave(&arguments).await.done();
            let (own, all) = (told.matches("THIS NODE'S SHARES"), told.matches("Backup of node"));
            assert_eq!((own.count(), all.count()), (2, 6), "{told}");
        }
    }

    /// `conclave restore run` of a node of the new cluster with these officers' answers to `asked`'s request.
    async fn run(&self, node: u16, asked: u16, officers: &[u16], more: &[&str]) -> Ran {
        let file = |officer: &u16| self.text(&format!("request-{asked}.officer-{officer}.json"));
        let files: Vec<String> = officers.iter().map(file).collect();
        let mut arguments = more.to_vec();
        for file in &files {
            arguments.extend(["--answer", file]);
        }
        self.restore("run", node, &arguments).await
    }

    /// `conclave recovery init` for the old cluster.
    async fn officers(&self) -> Ran {
        let (genesis, officers) = (self.text("old/genesis.json"), self.text("officers"));
        conclave(&["recovery", "init", "--genesis", &genesis, "--out", &officers]).await
    }

    /// Has a node of the old cluster make backups for the officers; `when` ends the section.
    fn backs_up(&self, node: u16, when: &str) {
        let folder = self.path(&format!("old/node-{node}"));
        fs::copy(self.path("officers/recovery.json"), folder.join("recovery.json")).unwrap();
        let section = format!("[backup]\nfolder = \"backups\"\nrecovery = \"recovery.json\"\n{when}");
        append(&folder.join("node.toml"), &section);
    }

    /// A node of the new cluster asks, these officers answer, and it is restored: what `run` tells.
    async fn restored(&self, node: u16, officers: &[u16]) -> Value {
        let request = self.text(&format!("request-{node}.json"));
        self.restore("request", node, &["--out", &request]).await.done();
        for officer in officers {
            let share = self.text(&format!("officers/officer-{officer}.json"));
            let answer = ["recovery", "answer", "--share", &share, &request, "--yes"];
            conclave(&answer).await.done();
        }
        self.run(node, node, officers, &["--json"]).await.facts()
    }

    /// What the old cluster leaves behind: an operator's key and genesis statement, officers, backups of two nodes.
    async fn backups(&self) {
        fs::create_dir(self.path("safe")).unwrap();
        for node in 1..=3_u16 {
            let admin = self.address(node, 2).to_string();
            let told = conclave(&["backup", "--admin", &admin, "--json"]).await.facts();
            let told = &told["backups"][0];
            assert_eq!((&told["keys"], &told["shares"]), (&4.into(), &4.into()), "{told}");
            if node < 3 {
                fs::rename(
                    told["file"].as_str().unwrap(),
                    self.path(&format!("safe/{node}.backup")),
                )
                .unwrap();
            }
        }
        for name in ["operator.key", "genesis.json"] {
            fs::copy(
                self.path(&format!("old/{name}")),
                self.path(&format!("safe/{name}")),
            )
            .unwrap();
        }
    }
}

/// A symmetric key's use, once the node that lost its part has it again.
async fn tag(client: &Client, alice: &Identity, key: &world::Key) -> Vec<u8> {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        match client.sign(alice, &key.id, MESSAGE, None).await {
            Ok(tag) => return tag,
            Err(error) => assert!(Instant::now() < until, "no tag: {error}"),
        }
        sleep(Duration::from_millis(200)).await;
    }
}

fn is_refused<T>(used: Result<T, ClientError>) -> bool {
    used.is_err_and(|error| world::status(&error) == Some(403))
}

/// Every byte of a file changed or the file cut at some places must be refused.
async fn spoiled_backups_are_refused(place: &Place) {
    let path = place.path("safe/2.backup");
    let whole = fs::read(&path).unwrap();
    let header = 20 + usize::try_from(u32::from_be_bytes(whole[16..20].try_into().unwrap())).unwrap();
    let mut spoiled: Vec<(Vec<u8>, &str)> = Vec::new();
    for place in [0, 17, 40, header, header + 63] {
        spoiled.push((flipped(&whole, place), "header"));
    }
    for place in [header + 64, header + 70, header + 2_000] {
        spoiled.push((flipped(&whole, place), "content"));
    }
    for length in [10, header, header + 64, header + 500, whole.len() - 1] {
        spoiled.push((whole[..length].to_vec(), ""));
    }
    spoiled.push(([whole.as_slice(), &[0]].concat(), "content"));
    for (bytes, because) in spoiled {
        fs::write(&path, bytes).unwrap();
        place.run(1, 1, &[2, 3, 5], &[]).await.refused(because);
    }
    fs::write(&path, whole).unwrap();
}

fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1;
    bytes
}

fn append(path: &Path, text: &str) {
    let before = fs::read_to_string(path).unwrap();
    fs::write(path, format!("{before}\n{text}")).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_is_lost_and_every_key_comes_back_by_three_of_five_officers() {
    let _turn = turn().await;
    let place = Place {
        folder: tempfile::tempdir().unwrap(),
        base: free_ports(3),
        alice: Identity::generate(&mut OsRng),
        nodes: &[1, 2, 3],
        committee: None,
        left: &[1, 2],
    };
    let (alice, bob) = (&place.alice, Identity::generate(&mut OsRng));
    place.init("old", None).await.done();
    let told = place.officers().await.done();
    assert!(
        told.contains("3 of 5 officers") && told.contains("dealer"),
        "{told}"
    );
    for node in 1..=3 {
        // Node 3 goes by its schedule: none is there, so one is due.
        place.backs_up(node, if node < 3 { "every_hours = 0\n" } else { "" });
    }
    let servers = place.start("old");
    place.ready().await;
    assert!(told_of_backups(&place, 1).await["last"].is_null());
    scheduled(&place, 3).await;
    let clients = place.clients("old");
    let keystore = world::keystore(&clients[0], alice).await;
    let mut keys = Vec::new();
    for key_type in [ED25519, X25519, HMAC, KEK] {
        keys.push(
            world::generate(&clients[0], alice, &keystore, key_type)
                .await
                .unwrap(),
        );
    }
    let [signing, agreeing, tagging, wrapping] = &keys[..] else {
        panic!("four keys")
    };
    let made = tag(&clients[0], alice, tagging).await;
    let mut wrapped = Vec::new();
    for client in &clients {
        let payload = rand::random::<[u8; 32]>();
        let by_it = client.wrap_key(alice, &wrapping.id, &payload, None).await;
        wrapped.push((payload, by_it.unwrap()));
    }
    let delegated = world::delegate(alice, &bob, signing);
    let revoked = world::delegate(alice, &bob, signing);
    world::sign(&clients[1], &bob, signing, Some(&delegated))
        .await
        .unwrap();
    clients[1].revoke(alice, &revoked).await.unwrap();
    // What a node has not applied yet is not in its backup.
    for client in &clients {
        assert!(is_refused(
            client.sign(&bob, &signing.id, b"no", Some(&revoked)).await
        ));
        world::sign(client, alice, signing, None).await.unwrap();
    }
    place.backups().await;
    let told = told_of_backups(&place, 1).await;
    assert!(told["age_seconds"].as_u64().unwrap() < 600, "{told}");
    let metrics = https::admin(place.address(1, 2), "/metrics").await.unwrap().body;
    assert!(metrics.contains("conclave_backup_age_seconds "), "{metrics}");
    let late = world::generate(&clients[0], alice, &keystore, ED25519)
        .await
        .unwrap();

    drop(servers);
    wait_until_gone(&place).await;
    fs::remove_dir_all(place.path("old")).unwrap();
    place.empty_with_answers().await;
    let because = "2 officers have answered, 3 are needed";
    place.run(1, 1, &[2, 5], &[]).await.refused(because);
    let because = "officer 2 has answered twice";
    place.run(1, 1, &[2, 5, 2], &[]).await.refused(because);
    // An answer to another node's request is none: it is sealed to that node and asks for other shares.
    place.run(1, 2, &[2, 3, 5], &[]).await.refused("another request");
    spoiled_backups_are_refused(&place).await;

    let mut states = Vec::new();
    for node in 1..=3_u16 {
        let facts = place.run(node, node, &[2, 3, 5], &["--json"]).await.facts();
        let shares = if node < 3 { 4 } else { 0 };
        assert_eq!(
            (&facts["keys"], &facts["lost"]),
            (&4.into(), &0.into()),
            "{facts}"
        );
        assert_eq!(
            (&facts["shares"], &facts["unfit"]),
            (&shares.into(), &0.into()),
            "{facts}"
        );
        states.push(facts["state"].clone());
    }
    assert!(states.windows(2).all(|pair| pair[0] == pair[1]), "{states:?}");
    let audit = place.text("new/node-1/data/restored-audit");
    let identity = fs::read_to_string(place.path("safe/genesis.json")).unwrap();
    let identity: Value = serde_json::from_str(&identity).unwrap();
    let identity = identity["statement"]["members"][0]["identity"].as_str().unwrap();
    let verified = conclave(&["audit", "verify", &audit, "--key", identity, "--json"])
        .await
        .facts();
    assert!(verified["records"].as_u64().unwrap() > 0, "{verified}");

    let servers = place.start("new");
    place.ready().await;
    let clients = place.clients("new");
    for (client, (payload, wrapped)) in clients.iter().zip(&wrapped) {
        world::sign(client, alice, signing, None).await.unwrap();
        world::derive(client, alice, agreeing).await.unwrap();
        assert_eq!(tag(client, alice, tagging).await, made);
        let unwrapped = client
            .unwrap_key(alice, &wrapping.id, wrapped, None)
            .await
            .unwrap();
        assert_eq!(unwrapped.as_deref().map(|key| &key[..]), Some(&payload[..]));
        assert!(client.sign(alice, &late.id, b"gone", None).await.is_err());
    }
    // A delegate waits for the controller, who alone knows what may have been revoked since.
    for client in &clients {
        let held = client.sign(&bob, &signing.id, MESSAGE, Some(&delegated)).await;
        assert!(is_refused(held));
    }
    let mut config = clients[0].get_keystore(alice, &keystore, None).await.unwrap();
    config["sequence"] = (config["sequence"].as_u64().unwrap() + 1).into();
    clients[0]
        .update_keystore(alice, &keystore, &config, None)
        .await
        .unwrap();
    for client in &clients {
        world::sign(client, &bob, signing, Some(&delegated))
            .await
            .unwrap();
        assert!(is_refused(
            client.sign(&bob, &signing.id, b"no", Some(&revoked)).await
        ));
    }
    let new = world::generate(&clients[2], alice, &keystore, ED25519)
        .await
        .unwrap();
    world::sign(&clients[1], alice, &new, None).await.unwrap();
    // Over a node that runs or has started nothing is restored.
    place.run(1, 1, &[2, 3, 5], &[]).await.refused("stop it first");
    drop(servers);
    wait_until_gone(&place).await;
    place
        .run(1, 1, &[2, 3, 5], &[])
        .await
        .refused("already initialized");

    // Once more, with an operator who takes the risk.
    place.empty_with_answers().await;
    for node in 1..=3_u16 {
        let accept = ["--json", "--accept-lost-revocations"];
        let facts = place.run(node, node, &[2, 3, 5], &accept).await.facts();
        assert_ne!(facts["state"], states[0], "{facts}");
        assert_eq!(facts["delegations_held"], false, "{facts}");
    }
    let _servers = place.start("new");
    place.ready().await;
    for client in place.clients("new") {
        world::sign(&client, &bob, signing, Some(&delegated))
            .await
            .unwrap();
        assert!(is_refused(
            client.sign(&bob, &signing.id, b"no", Some(&revoked)).await
        ));
    }
}

/// A node's backup has the groups that the node has: k nodes of each group are needed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_cluster_whose_groups_are_on_some_nodes_comes_back() {
    let _turn = turn().await;
    let mut place = Place {
        folder: tempfile::tempdir().unwrap(),
        base: free_ports(5),
        alice: Identity::generate(&mut OsRng),
        nodes: &[1, 2, 3, 4, 5],
        committee: Some("3"),
        left: &[1, 2, 3, 4],
    };
    place.init("old", None).await.done();
    place.officers().await.done();
    for node in 1..=5 {
        place.backs_up(node, "every_hours = 0\n");
    }
    let servers = place.start("old");
    place.ready().await;
    let clients = place.clients("old");
    let (alice, mut kept) = (&place.alice, Vec::new());
    for client in &clients {
        let keystore = world::keystore(client, alice).await;
        let signing = world::generate(client, alice, &keystore, ED25519).await.unwrap();
        let tagging = world::generate(client, alice, &keystore, HMAC).await.unwrap();
        let made = tag(client, alice, &tagging).await;
        kept.push((signing, tagging, made));
    }
    fs::create_dir(place.path("safe")).unwrap();
    fs::copy(place.path("old/operator.key"), place.path("safe/operator.key")).unwrap();
    for node in 1..=5_u16 {
        // What a node has not applied yet is not in its backup.
        for (signing, ..) in &kept {
            world::sign(&clients[usize::from(node) - 1], alice, signing, None)
                .await
                .unwrap();
        }
        let admin = place.address(node, 2).to_string();
        let told = conclave(&["backup", "--admin", &admin, "--json"]).await.facts();
        let file = told["backups"][0]["file"].as_str().unwrap();
        fs::rename(file, place.path(&format!("safe/{node}.backup"))).unwrap();
    }
    drop(servers);
    wait_until_gone(&place).await;
    fs::remove_dir_all(place.path("old")).unwrap();
    place
        .init("new", Some(&place.text("safe/operator.key")))
        .await
        .done();

    place.left = &[1, 2, 3];
    let request = place.text("request-1.json");
    let few = place.restore("request", 1, &["--out", &request]).await;
    few.refused("and 2 are needed");
    place.left = &[1, 2, 3, 4];
    for node in 1..=5_u16 {
        let facts = place.restored(node, &[2, 3, 5]).await;
        assert_eq!(
            (&facts["keys"], &facts["lost"]),
            (&10.into(), &0.into()),
            "{facts}"
        );
    }
    let _servers = place.start("new");
    place.ready().await;
    for client in place.clients("new") {
        for (signing, tagging, made) in &kept {
            world::sign(&client, &place.alice, signing, None).await.unwrap();
            assert_eq!(tag(&client, &place.alice, tagging).await, *made);
        }
    }
}

/// The member that came later makes backups as the one that it is like, and its backup counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_cluster_whose_member_was_replaced_comes_back() {
    let _turn = turn().await;
    let mut place = Place {
        folder: tempfile::tempdir().unwrap(),
        base: free_ports(4),
        alice: Identity::generate(&mut OsRng),
        nodes: &[1, 2, 3],
        committee: None,
        left: &[2, 4],
    };
    place.init("old", None).await.done();
    place.officers().await.done();
    for node in 1..=3 {
        let config = place.path(&format!("old/node-{node}/node.toml"));
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, text.replace("days = 30", "days = 9")).unwrap();
        place.backs_up(node, "every_hours = 0\n");
    }
    let mut servers = place.start("old");
    place.ready().await;
    let (clients, alice) = (place.clients("old"), &place.alice);
    let keystore = world::keystore(&clients[0], alice).await;
    let make = async |key_type| {
        world::generate(&clients[0], alice, &keystore, key_type)
            .await
            .unwrap()
    };
    let (signing, agreeing) = (make(ED25519).await, make(X25519).await);
    let (tagging, wrapping) = (make(HMAC).await, make(KEK).await);
    let made = tag(&clients[0], alice, &tagging).await;
    let mut wrapped = Vec::new();
    for node in 0..3 {
        let payload = [node; 32];
        let by_it = clients[0].wrap_key(alice, &wrapping.id, &payload, None).await;
        wrapped.push((payload, by_it.unwrap()));
    }

    drop(servers.pop());
    fs::remove_dir_all(place.path("old/node-3")).unwrap();
    let admin = place.address(1, 2);
    let four = change_in(&place.path("old"), admin, "replace", &[3], (4, 1))
        .await
        .remove(0);
    let config = fs::read_to_string(place.path("old/node-4/node.toml")).unwrap();
    assert!(config.contains("days = 9"), "{config}");
    let late = make(ED25519).await;
    fs::create_dir(place.path("safe")).unwrap();
    fs::copy(place.path("old/operator.key"), place.path("safe/operator.key")).unwrap();
    for (node, admin) in [(2, place.address(2, 2)), (4, four.admin)] {
        let admin = admin.to_string();
        // What a node has not applied yet is not in its backup.
        let until = Instant::now() + Duration::from_secs(20);
        let told = loop {
            let told = conclave(&["backup", "--admin", &admin, "--json"]).await.facts();
            let told = told["backups"][0].clone();
            if told["shares"] == 5 {
                break told;
            }
            assert!(Instant::now() < until, "node {node} has not all shares: {told}");
            sleep(Duration::from_secs(1)).await;
        };
        assert_eq!(told["keys"], 5, "{told}");
        fs::rename(
            told["file"].as_str().unwrap(),
            place.path(&format!("safe/{node}.backup")),
        )
        .unwrap();
    }
    drop((servers, four));
    wait_until_gone(&place).await;
    fs::remove_dir_all(place.path("old")).unwrap();

    place.nodes = &[1, 2, 4];
    let operator = place.text("safe/operator.key");
    place.init("new", Some(&operator)).await.done();
    for node in [1, 2, 4] {
        let facts = place.restored(node, &[1, 2, 4]).await;
        let shares = if node == 1 { 0 } else { 5 };
        let found = ["keys", "lost", "shares"].map(|what| facts[what].as_u64().unwrap());
        assert_eq!(found, [5, 0, shares], "{facts}");
    }
    let _servers = place.start("new");
    place.ready().await;
    let alice = &place.alice;
    for (client, (payload, wrapped)) in place.clients("new").iter().zip(&wrapped) {
        for key in [&signing, &late] {
            world::sign(client, alice, key, None).await.unwrap();
        }
        world::derive(client, alice, &agreeing).await.unwrap();
        assert_eq!(tag(client, alice, &tagging).await, made);
        let unwrapped = client.unwrap_key(alice, &wrapping.id, wrapped, None).await;
        assert_eq!(
            unwrapped.unwrap().as_deref().map(|key| &key[..]),
            Some(&payload[..])
        );
    }
}

/// Waits until the processes that were killed have let go of their data.
async fn wait_until_gone(place: &Place) {
    for node in place.nodes.iter().copied() {
        let until = Instant::now() + Duration::from_secs(20);
        while https::admin(place.address(node, 2), "/health/live").await.is_ok() {
            assert!(Instant::now() < until, "node {node} lives");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// What a node says about its backups.
async fn told_of_backups(place: &Place, node: u16) -> Value {
    let answer = https::admin(place.address(node, 2), "/status").await.unwrap();
    let status: Value = serde_json::from_str(&answer.body).unwrap();
    status["backup"].clone()
}

/// Waits for a node's first backup by schedule.
async fn scheduled(place: &Place, node: u16) {
    let until = Instant::now() + Duration::from_secs(60);
    while told_of_backups(place, node).await["last"].is_null() {
        assert!(Instant::now() < until, "node {node} made no backup by itself");
        sleep(Duration::from_millis(100)).await;
    }
}
