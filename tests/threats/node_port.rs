//! Rows 87 to 93 on the node port of real processes: node 3 is taken over. Its process is killed, its key and
//! certificate are read from its folder, and this test speaks to the other two as node 3, past every rule of ours.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use conclave::actors::wire::{Abstention, Answer, Beginning, Call, Forwarded, Round, ShareName};
use conclave::audit;
use conclave::authorization::RawRequest;
use conclave::config::{Config, Hex32};
use conclave::identifier::{LocalId, OperationId};
use conclave::keystore::{Command, Endorsement, Entry, KeystoreConfig, Statement};
use conclave::node::transport_settings;
use conclave::operator::{Change, Order, SignedOrder};
use conclave::provision::{OperatorKey, Started};
use conclave::seal::NodeKey;
use conclave_transport::{BoxFuture, Handler, Lane, Network, Refused, Transport};
use ed25519_dalek::SigningKey;
use protobuf::Message as _;
use raft::eraftpb::{self, MessageType};
use rand::rngs::OsRng;
use serde_json::json;
use sha2::Digest as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::server::Server;
use super::servers::{by_alice, furnish, good_request};
use super::support::{Forge, here, keystore};
use crate::common::cluster::Cluster;
use crate::common::{namespace, world};

/// The longest wait for what must happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// What one attack must come to.
enum Expected {
    /// A refusal, as a client would get it.
    Refused,
    /// The question does not fit.
    Misfit,
    /// No judgement.
    Abstained(Abstention),
}

/// Node 3 in our hands.
struct Corrupt {
    transport: Transport,
    cluster: [u8; 32],
    boot: [u8; 16],
    key: SigningKey,
    operations: AtomicU64,
    /// When it was taken over, seconds since 1970.
    since: u64,
    rows: std::cell::RefCell<BTreeSet<u32>>,
}

/// Node 3 has nothing to say to the others.
struct Silent;

impl Handler for Silent {
    fn message(&self, _from: u64, _lane: Lane, _payload: Bytes) {}

    fn call(&self, _: u64, _: Bytes, _: Duration) -> BoxFuture<'static, Result<Bytes, Refused>> {
        Box::pin(async { Err(Refused::Busy) })
    }

    fn link(&self, _peer: u64, _up: bool) {}

    fn gone(&self, _peer: u64) {}
}

fn material(cluster: &Cluster) -> (Config, Started) {
    let node = &cluster.nodes()[2];
    let config = Config::load(&node.config).unwrap();
    let hex = std::fs::read_to_string(node.config.with_file_name("node.key")).unwrap();
    let key: Vec<u8> = (0..32)
        .map(|at| u8::from_str_radix(&hex.trim()[2 * at..2 * at + 2], 16).unwrap())
        .collect();
    let material = Started::open(&config, &NodeKey::new(&key.try_into().unwrap())).unwrap();
    (config, material)
}

impl Corrupt {
    async fn take_over(cluster: &mut Cluster) -> Self {
        cluster.kill(2).await;
        let (config, material) = material(cluster);
        let boot = [9; 16];
        let settings = transport_settings(&config, &material, boot);
        let transport = Transport::start(settings, Arc::new(Silent)).await.unwrap();
        let corrupt = Self {
            transport,
            cluster: config.cluster.0,
            boot,
            key: material.identity.signing_key().clone(),
            operations: AtomicU64::new(1),
            since: world::now(),
            rows: Default::default(),
        };
        corrupt
            .until("links", async || {
                (1..=2).all(|node| corrupt.transport.connected(node))
            })
            .await;
        corrupt
    }

    /// Waits for what must come.
    async fn until(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !holds().await {
            assert!(Instant::now() < end, "{what}: did not come");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn operation(&self) -> OperationId {
        OperationId {
            node: 3,
            boot: 7,
            counter: self.operations.fetch_add(1, Ordering::Relaxed),
        }
    }

    fn forward(&self, request: &RawRequest) -> Forwarded {
        self.forward_as(self.operation(), request.signed_part().unwrap().encode())
    }

    fn forward_as(&self, operation: OperationId, request: Vec<u8>) -> Forwarded {
        Forwarded {
            operation,
            attempt: 1,
            request,
            needs: Vec::new(),
            participants: vec![1, 3],
            epoch: None,
        }
    }

    fn beginning(&self) -> Beginning {
        Beginning {
            start: world::now() * 1_000,
            participants: vec![(1, [1; 16]), (2, [2; 16]), (3, self.boot)],
            configuration: 1,
        }
    }

    /// The next good request is answered by each of the others.
    async fn others_serve(&self, server: &Server) {
        for _ in &server.nodes {
            let outcome = server.send(&self.dated()).await;
            assert_eq!(outcome.status, 200, "{}", outcome.body);
        }
    }

    /// A request to sign that is no other's twin: the client made it some seconds ago.
    fn dated(&self) -> RawRequest {
        let created = self.since - self.operations.fetch_add(1, Ordering::Relaxed);
        Forge::root()
            .with(|forge| (forge.created, forge.expires) = (created.to_string(), (created + 600).to_string()))
            .signed()
    }

    async fn ask(&self, call: &[u8]) -> Answer {
        let answer = self
            .transport
            .call(1, call.to_vec().into(), PATIENCE)
            .await
            .unwrap();
        Answer::decode(&answer).unwrap()
    }

    async fn expect(&self, row: u32, what: &str, call: &Call, expected: Expected) {
        self.expect_bytes(row, what, &call.encode(), expected).await;
    }

    async fn expect_bytes(&self, row: u32, what: &str, call: &[u8], expected: Expected) {
        let answer = self.ask(call).await;
        let (fits, came) = match (&expected, &answer) {
            (Expected::Refused, Answer::Refused(problem)) => {
                (true, format!("{} {}", problem.status, problem.name))
            }
            (Expected::Misfit, Answer::Misfit(reason)) => (true, reason.clone()),
            (Expected::Abstained(wanted), Answer::Abstained(why)) => (wanted == why, why.to_string()),
            (_, Answer::Refused(problem)) => (false, format!("refused: {problem:?}")),
            (_, Answer::Misfit(reason)) => (false, format!("misfit: {reason}")),
            (_, Answer::Abstained(why)) => (false, format!("abstained: {why}")),
            _ => (false, "something was given".to_owned()),
        };
        self.line(row, what, &came);
        assert!(fits, "row {row}, {what}: {came}");
    }

    fn line(&self, row: u32, what: &str, came: &str) {
        self.rows.borrow_mut().insert(row);
        println!("{row:>3}  {what:<46}  {came}");
    }

    /// A frame of the consensus lane to node 1: format, cluster, group, kind, body.
    fn frame(&self, cluster: &[u8; 32], kind: u8, body: &[u8]) -> Bytes {
        let group = group_of(&keystore_id());
        [&[1][..], cluster, &group.to_be_bytes(), &[kind], body]
            .concat()
            .into()
    }

    fn send(&self, frame: Bytes) {
        self.transport.send(1, Lane::Raft, frame).unwrap();
    }

    /// A message of raft under node 3's name.
    fn raft(&self, kind: MessageType, edit: impl FnOnce(&mut eraftpb::Message)) -> Bytes {
        let mut message = eraftpb::Message {
            from: 3,
            to: 1,
            term: 1,
            ..Default::default()
        };
        message.set_msg_type(kind);
        edit(&mut message);
        self.frame(&self.cluster, 0, &message.write_to_bytes().unwrap())
    }

    /// A proposal of an entry, as one that came to node 3.
    fn proposal(&self, entry: &[u8]) -> Bytes {
        let counter = self.operations.fetch_add(1, Ordering::Relaxed);
        // The call's variant, (node, boot, counter), the entry: the wire format of consensus' first call.
        let call = postcard::to_stdvec(&(0_u8, 3_u64, 7_u64, counter, entry)).unwrap();
        self.frame(&self.cluster, 1, &call)
    }
}

fn keystore_id() -> LocalId {
    LocalId::parse(keystore().rsplit_once('/').unwrap().1).unwrap()
}

fn group_of(keystore: &LocalId) -> u32 {
    keystore.group(16)
}

/// Frames that the guard drops, or that a link does not survive, and what it counts.
fn hostile_frames(corrupt: &Corrupt) -> Vec<(&'static str, Bytes)> {
    let configuration = || {
        let mut entry = eraftpb::Entry::default();
        entry.set_entry_type(eraftpb::EntryType::EntryConfChangeV2);
        entry
    };
    vec![
        ("bytes that are no frame", Bytes::from_static(b"raft")),
        ("a message cut off", corrupt.frame(&corrupt.cluster, 0, &[8])),
        ("another cluster", corrupt.frame(&[8; 32], 0, &[])),
        (
            "an unknown kind of frame",
            corrupt.frame(&corrupt.cluster, 7, &[]),
        ),
        (
            "under the name of no member",
            corrupt.raft(MessageType::MsgHeartbeat, |message| message.from = 4),
        ),
        (
            "under another member's name",
            corrupt.raft(MessageType::MsgHeartbeat, |message| message.from = 2),
        ),
        (
            "for another node",
            corrupt.raft(MessageType::MsgHeartbeat, |message| message.to = 2),
        ),
        (
            "term u64::MAX",
            corrupt.raft(MessageType::MsgRequestVote, |message| message.term = u64::MAX),
        ),
        (
            "term 0",
            corrupt.raft(MessageType::MsgHeartbeat, |message| message.term = 0),
        ),
        (
            "a campaign on order (MsgHup)",
            corrupt.raft(MessageType::MsgHup, |_| ()),
        ),
        (
            "MsgTimeoutNow from a follower",
            corrupt.raft(MessageType::MsgTimeoutNow, |message| message.term = 20),
        ),
        (
            "an entry that changes the configuration",
            corrupt.raft(MessageType::MsgPropose, |message| {
                message.entries = vec![configuration()].into();
            }),
        ),
        (
            "MsgReadIndex of its own",
            corrupt.raft(MessageType::MsgReadIndex, |_| ()),
        ),
        (
            "an append that conflicts below the commit",
            corrupt.raft(MessageType::MsgAppend, |message| {
                (message.index, message.log_term, message.term) = (1, 1, 100);
                let entry = eraftpb::Entry {
                    index: 2,
                    term: 100,
                    ..Default::default()
                };
                message.entries = vec![entry].into();
            }),
        ),
        (
            "a heartbeat with a commit above the log",
            corrupt.raft(MessageType::MsgHeartbeat, |message| {
                (message.commit, message.term) = (1 << 40, 100);
            }),
        ),
        (
            "a snapshot with a configuration of its own",
            corrupt.raft(MessageType::MsgSnapshot, |message| {
                let metadata = message.mut_snapshot().mut_metadata();
                (metadata.index, metadata.term) = (1 << 40, 100);
                metadata.mut_conf_state().voters = vec![3];
                message.term = 100;
            }),
        ),
        ("a call under another node's name", {
            let call = postcard::to_stdvec(&(0_u8, 2_u64, 7_u64, 1_u64, &b"entry"[..])).unwrap();
            corrupt.frame(&corrupt.cluster, 1, &call)
        }),
    ]
}

/// What node 3 would like the log to say, endorsed as far as it can.
fn entries(corrupt: &Corrupt) -> Vec<(&'static str, Entry)> {
    let now = world::now() * 1_000;
    let mallory = super::support::did("mallory");
    let config: KeystoreConfig = KeystoreConfig {
        sequence: 1,
        controllers: vec![mallory],
        single_controller: true,
        meter: LocalId([4; 16]),
        kms_module: "ssm-v1".into(),
        ip_allow_list: None,
    };
    let request = b"nobody's".to_vec();
    let statement = Statement {
        cluster: corrupt.cluster,
        group: group_of(&keystore_id()),
        operation: corrupt.operation(),
        request: sha2::Sha256::digest(&request).into(),
        name: [5; 32],
        expires: now + 300_000,
        command: Command::UpdateKeystore {
            id: keystore_id(),
            config,
        },
        state_version: 1,
        chain: Vec::new(),
    };
    let own = |time| statement.endorse(3, &corrupt.key, time);
    let as_another = Endorsement { node: 1, ..own(now) };
    let entry = |statement: &Statement, endorsements: Vec<Endorsement>| Entry {
        statement: statement.clone(),
        request: request.clone(),
        endorsements,
    };
    let stale = Statement {
        state_version: 0,
        ..statement.clone()
    };
    let elsewhere = Statement {
        group: 1 + statement.group % 15,
        ..statement.clone()
    };
    vec![
        ("no endorsements", entry(&statement, vec![])),
        ("one endorsement", entry(&statement, vec![own(now)])),
        ("two copies of one", entry(&statement, vec![own(now), own(now)])),
        (
            "two times of one member",
            entry(&statement, vec![own(now), own(now - 6_000)]),
        ),
        (
            "our own in a member's name",
            entry(&statement, vec![own(now), as_another.clone()]),
        ),
        (
            "a state version that has passed",
            entry(&stale, vec![stale.endorse(3, &corrupt.key, now), own(now)]),
        ),
        (
            "for another group",
            entry(
                &elsewhere,
                vec![elsewhere.endorse(3, &corrupt.key, now), as_another],
            ),
        ),
    ]
}

/// Raw TLS to the node port with node 3's certificate, past the transport: what comes after a valid hello.
async fn by_hand(cluster: &Cluster, bytes: &[u8]) {
    let (config, material) = material(cluster);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(material.peer_roots[0].clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            material.peer_chain.clone(),
            material.identity.peer_private_key().into(),
        )
        .unwrap();
    tls.alpn_protocols = vec![b"conclave/1".to_vec()];
    let name = conclave::provision::certificates::peer_name(1, &config.cluster.0);
    let tcp = TcpStream::connect(cluster.nodes()[0].peer).await.unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(tls))
        .connect(name.try_into().unwrap(), tcp)
        .await
        .unwrap();
    let hello = [
        b"conclave",
        // The lowest and the highest format.
        &[1, 1][..],
        &config.cluster.0,
        &3_u64.to_be_bytes(),
        &1_u64.to_be_bytes(),
        &[9; 16],
        &[1, 1],
    ]
    .concat();
    stream.write_all(&hello).await.unwrap();
    let mut welcome = [0; 76];
    stream.read_exact(&mut welcome).await.unwrap();
    assert_eq!(welcome[75], 1, "the hello is taken");
    stream.write_all(bytes).await.unwrap();
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the node keeps a connection that it must end");
}

#[test]
fn a_node_that_was_taken_over_gets_nothing_and_changes_nothing() {
    namespace::block_on(async {
        let mut cluster = Cluster::start(3, &[]).await;
        furnish(&cluster).await;
        let server = Server::of_nodes(&cluster, 0..2);
        good_request(&server).await;
        let generate = json!({"type": "GenerateKeyOperation", "invocationTarget": {"type": world::ED25519}});
        let path = format!("{}/keys", here("/kms/keystores/z1A"));
        let generate = by_alice("POST", &path, "generateKey", &generate);
        let through_3 = Server::of_nodes(&cluster, 2..3).send(&generate).await;
        assert_eq!(through_3.status, 200);
        let made: serde_json::Value =
            serde_json::from_str(&through_3.body[through_3.body.find('{').unwrap()..]).unwrap();
        let made = made["keyId"].as_str().unwrap().rsplit_once('/').unwrap().1;
        let made = LocalId::parse(made).unwrap();

        let corrupt = Corrupt::take_over(&mut cluster).await;
        corrupt.others_serve(&server).await;
        let before = server.metrics(0).await;
        use_of_keys(&corrupt).await;
        let operation = operation_of(&cluster, &made);
        generation(&corrupt, &generate, operation).await;
        impostures(&corrupt).await;
        consensus(&corrupt, &server).await;
        for row in 87..=93 {
            assert!(corrupt.rows.borrow().contains(&row), "no case of row {row}");
        }

        by_hand(&cluster, &100_000_000_u32.to_be_bytes()).await;
        corrupt.line(87, "a length of 100 MB on the wire", "the connection ends");

        let after = server.metrics(0).await;
        let rose = |name: &str| after[name] - before[name];
        assert!(
            rose("conclave_holder_refusals_total") >= 4.0,
            "refusals are counted"
        );
        assert!(
            rose("conclave_foreign_operations_total") >= 2.0,
            "foreign names are counted"
        );
        assert_eq!(rose("conclave_verdict_alarms_total"), 0.0);
        corrupt.others_serve(&server).await;
        cluster.stop().await;
    });
}

async fn use_of_keys(corrupt: &Corrupt) {
    let sign = || corrupt.dated();
    let honest = sign();
    let commitments = [1_u8; 64].to_vec();
    let identity = [[1].as_slice(), &[0; 31], &[1], &[0; 31]].concat();

    let mut changed = honest.signed_part().unwrap();
    changed.body[20] ^= 1;
    let call = Call::Cosign(
        corrupt.forward_as(corrupt.operation(), changed.encode()),
        commitments.clone(),
    );
    corrupt
        .expect(
            89,
            "a relayed request, one byte changed",
            &call,
            Expected::Refused,
        )
        .await;
    let call = Call::Derive(corrupt.forward(&honest));
    corrupt
        .expect(89, "a request to sign, asked to derive", &call, Expected::Misfit)
        .await;

    let foreign = OperationId {
        node: 1,
        ..corrupt.operation()
    };
    let encoded = honest.signed_part().unwrap().encode();
    let call = Call::Cosign(corrupt.forward_as(foreign, encoded.clone()), commitments.clone());
    corrupt
        .expect(93, "a contribution under node 1's name", &call, Expected::Refused)
        .await;
    let call = Call::Endorse(corrupt.forward_as(foreign, encoded.clone()));
    corrupt
        .expect(93, "an endorsement under node 1's name", &call, Expected::Refused)
        .await;

    let mut ahead = corrupt.forward(&sign());
    ahead.needs = vec![(group_of(&keystore_id()), u64::MAX)];
    let call = Call::Cosign(ahead, commitments);
    corrupt
        .expect(
            90,
            "entries that this node has not applied",
            &call,
            Expected::Abstained(Abstention::Behind),
        )
        .await;

    for (what, commitments) in [
        ("the identity as commitments", identity),
        ("no commitments", Vec::new()),
    ] {
        let call = Call::Cosign(corrupt.forward(&sign()), commitments);
        corrupt.expect(87, what, &call, Expected::Misfit).await;
    }
    let call = Call::SignShare(corrupt.operation(), 1, Default::default());
    corrupt
        .expect(87, "second round of no session", &call, Expected::Misfit)
        .await;
    for (what, bytes) in [
        ("no message at all", &b""[..]),
        ("an unknown message", &[0xff, 0xff, 3]),
        ("a message cut off", &[2, 3, 9]),
    ] {
        corrupt.expect_bytes(87, what, bytes, Expected::Misfit).await;
    }
    let name = ShareName {
        keystore: keystore_id(),
        key: LocalId([4; 16]),
        session: [4; 32],
    };
    let answer = corrupt.ask(&Call::Envelopes(Some(name)).encode()).await;
    assert!(matches!(answer, Answer::Envelopes(ref kept) if kept.is_empty()));
    corrupt.line(87, "envelopes of a key that is not there", "none");
}

/// The operation by which node 3 made a key, from its own audit record.
fn operation_of(cluster: &Cluster, key: &LocalId) -> OperationId {
    let node = &cluster.nodes()[2];
    let id = Config::load(&node.config).unwrap().cluster.0;
    let mut found = None;
    audit::verify_each(&node.data_dir.join("audit"), None, |record| {
        let Some(operation) = record.entry().map(|entry| entry.operation) else {
            return;
        };
        if LocalId::derive(&id, &operation, 0) == *key {
            found = Some(operation);
        }
    })
    .unwrap();
    found.expect("node 3's record of the key")
}

async fn generation(corrupt: &Corrupt, generate: &RawRequest, operation: OperationId) {
    let encoded = generate.signed_part().unwrap().encode();
    let call = Call::Begin(
        corrupt.forward_as(operation, encoded),
        corrupt.beginning(),
        Vec::new(),
    );
    corrupt
        .expect(90, "a generation for a key that exists", &call, Expected::Refused)
        .await;
    let sign = corrupt.dated();
    let call = Call::Begin(corrupt.forward(&sign), corrupt.beginning(), Vec::new());
    corrupt
        .expect(87, "a generation for a request to sign", &call, Expected::Misfit)
        .await;
    for round in [Round::Package, Round::Deal, Round::Outcome] {
        let call = Call::Continue([6; 32], round, Default::default());
        corrupt
            .expect(87, "a late round of no ceremony", &call, Expected::Misfit)
            .await;
    }
    let unreadable = [0x7f, 1, 2, 3];
    corrupt
        .expect_bytes(88, "a call that nobody can read", &unreadable, Expected::Misfit)
        .await;
}

/// Orders in an operator's place, and questions in another node's.
async fn impostures(corrupt: &Corrupt) {
    let stranger = OperatorKey::generate(&mut OsRng);
    let order = |cluster: [u8; 32]| {
        SignedOrder::new(Order {
            cluster: Hex32(cluster),
            sequence: 1,
            change: Change::RenewShares,
        })
    };
    let signed = |mut order: SignedOrder, key: &OperatorKey| {
        order.add(key.sign(&order.order.signed_bytes()));
        order
    };
    let unsigned = order(corrupt.cluster);
    let mut of_another = signed(unsigned.clone(), &stranger);
    of_another.order.sequence = 2;
    for (what, order) in [
        ("an order that nobody signed", unsigned.clone()),
        ("an order that no operator signed", signed(unsigned, &stranger)),
        ("an order under another one's signature", of_another),
        ("an order for another cluster", signed(order([9; 32]), &stranger)),
    ] {
        for group in [0, 1] {
            let call = Call::EndorseOrder(Box::new(order.clone()), group, corrupt.operation());
            corrupt.expect(92, what, &call, Expected::Misfit).await;
        }
    }
    let anothers = OperationId {
        node: 2,
        ..corrupt.operation()
    };
    let call = Call::Claim(anothers, vec![[1; 32]]);
    corrupt
        .expect(93, "a claim under another node's name", &call, Expected::Misfit)
        .await;
    let call = Call::EndorseMove {
        group: 1,
        number: 2,
        operation: anothers,
    };
    corrupt
        .expect(93, "a move under another node's name", &call, Expected::Misfit)
        .await;
}

async fn consensus(corrupt: &Corrupt, server: &Server) {
    let counter = async |name: &str| server.metrics(0).await[name];
    for (what, frame) in hostile_frames(corrupt) {
        let before = counter("conclave_raft_frames_dropped_total").await;
        corrupt.send(frame);
        corrupt
            .until(what, async || {
                counter("conclave_raft_frames_dropped_total").await > before
            })
            .await;
        corrupt.line(88, what, "dropped, counted");
    }
    corrupt.line(92, "a configuration change by MsgPropose", "dropped, counted");
    let mut all: Vec<(&str, Vec<u8>)> = entries(corrupt)
        .into_iter()
        .map(|(what, entry)| (what, entry.encode()))
        .collect();
    // Of a format that nobody knows: it would halt the group if its members had endorsed that.
    let mut tomorrows = all[1].1.clone();
    tomorrows[0] = conclave::format::NEWEST + 1;
    all.push(("an entry of today that is called one of tomorrow", tomorrows));
    for (what, entry) in all {
        let before = counter("conclave_unendorsed_entries_total").await;
        // Node 1 need not lead the group: whoever does takes it.
        let proposal = corrupt.proposal(&entry);
        for node in 1..=2 {
            corrupt
                .transport
                .send(node, Lane::Raft, proposal.clone())
                .unwrap();
        }
        corrupt
            .until(what, async || {
                counter("conclave_unendorsed_entries_total").await > before
            })
            .await;
        corrupt.line(91, what, "refused at apply, counted");
    }
    // The keystore's controller is who it was.
    corrupt.others_serve(server).await;
}
