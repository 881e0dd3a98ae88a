//! A cluster of n real nodes. Call [`run`] around the test: the nodes need an actix system and a runtime with
//! threads, and one cluster at a time is what a small machine can tick.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix::{Arbiter, ArbiterHandle, System};
use bytes::Bytes;
use conclave_consensus::{Application, Consensus, GroupId, Settings as RaftSettings};
use conclave_shares::ShareStore;
use conclave_threshold::envelope::EnvelopeKey;
use conclave_transport::memory::{Hub, Recorder};
use conclave_transport::{Bounds, BoxFuture, Handler, Lane, Network, NodeId, Refused};
use ed25519_dalek::{Signer, SigningKey};
use parking_lot::{Mutex, RwLock};
use rand::RngCore;
use rand::rngs::OsRng;
use tempfile::TempDir;

use crate::actors::application::KeystoreApplication;
use crate::actors::attestor::NodeAttestor;
use crate::actors::coordinator::{deliveries, moves, upkeep};
use crate::actors::crypto_pool::CryptoPool;
use crate::actors::directory::{self, Directory};
use crate::actors::doors::{Doors, Lanes};
use crate::actors::formats::SPOKEN;
use crate::actors::metrics::{Metrics, OfNode};
use crate::actors::parts::Parts;
use crate::actors::proposals::Proposals;
use crate::actors::receipts::Receipts;
use crate::actors::recheck;
use crate::actors::registry::Registry;
use crate::actors::renewals::{Policy as RenewalPolicy, Renewals};
use crate::actors::symmetric::Symmetric;
use crate::actors::wire::{Answer, CIRCUITS, Call};
use crate::audit::{self, Audit, Entry as AuditEntry, Kind, RefusalRate, Settings as AuditSettings};
use crate::authorization::{ChainCache, Policy, RawRequest};
use crate::identifier::{LocalId, OperationId};
use crate::keystore::{KeyRecord, KeystoreRecord, query};
use crate::membership::placement::place;
use crate::membership::{Member, Membership, Pinned};
use crate::operation::judge::Rules;
use crate::problem::Problem;
use crate::provision::introduction::Orders;
use crate::replay::{Claims, HolderClock, Moment, ReplayGuard, Settings as ReplaySettings};
use crate::reply::Reply;
use crate::telemetry;

/// What clients call the cluster.
pub(super) const URL: &str = "https://kms.example";
/// What they send as Host.
pub(super) const AUTHORITY: &str = "kms.example";
pub(super) const CLUSTER: [u8; 32] = [7; 32];
const GROUPS: u32 = 3;
/// Jobs that wait for the crypto pool, and clients' requests under way, at most: as in the defaults.
pub(super) const POOL: usize = 4_096;
pub(super) const REQUESTS: usize = 4_096;

/// Runs a test about a cluster.
pub(super) fn run(test: impl Future<Output = ()>) {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock();
    if std::env::var("CONCLAVE_TEST_LOG").is_ok() {
        let _ = tracing_subscriber::fmt().with_test_writer().try_init();
    }
    let system = System::with_tokio_rt(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap()
    });
    system.block_on(test);
}

/// What a taken-over node answers in place of its honest answer: bytes, so that garbage can be said too.
pub(super) type Tamper = Arc<dyn Fn(&Call, Answer) -> Vec<u8> + Send + Sync>;

/// What becomes of a message on its way to a node.
pub(super) type Alter = Box<dyn FnOnce(&mut Vec<u8>) + Send + Sync>;

/// The door of a node that a test may take over.
struct Door {
    honest: Arc<Doors>,
    tamper: Mutex<Option<Tamper>>,
    /// For the next segment of a circuit.
    alter: Mutex<Option<Alter>>,
    deaf: AtomicBool,
}

impl Handler for Door {
    fn message(&self, from: NodeId, lane: Lane, payload: Bytes) {
        if self.deaf.load(Ordering::Relaxed) {
            return;
        }
        let circuit = lane == Lane::Bulk && payload.first() == Some(&CIRCUITS);
        let payload = match self.alter.lock().take_if(|_| circuit) {
            Some(alter) => {
                let mut altered = payload.to_vec();
                alter(&mut altered);
                altered.into()
            }
            None => payload,
        };
        self.honest.message(from, lane, payload);
    }

    fn call(
        &self,
        from: NodeId,
        payload: Bytes,
        left: Duration,
    ) -> BoxFuture<'static, Result<Bytes, Refused>> {
        let honest = self.honest.call(from, payload.clone(), left);
        let Some(tamper) = self.tamper.lock().clone() else {
            return honest;
        };
        Box::pin(async move {
            let answer = Answer::decode(&honest.await?).unwrap();
            let call = Call::decode(&payload).unwrap();
            Ok(tamper(&call, answer).into())
        })
    }

    fn link(&self, peer: NodeId, up: bool) {
        self.honest.link(peer, up);
    }

    fn gone(&self, peer: NodeId) {
        self.honest.gone(peer);
    }
}

/// One node.
pub(super) struct Node {
    pub(super) parts: Arc<Parts>,
    pub(super) registry: Arc<Registry>,
    /// Where its actors live.
    pub(super) arbiter: ArbiterHandle,
    door: Arc<Door>,
    audit: PathBuf,
}

impl Node {
    /// A client's request reaches this node.
    pub(super) async fn serve(&self, request: RawRequest) -> Result<Reply, Problem> {
        let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
        self.registry
            .serve(self.registry.next_operation(), request, vec![client])
            .await
    }

    /// Takes over what this node answers to others.
    pub(super) fn tamper(&self, tamper: impl Fn(&Call, Answer) -> Vec<u8> + Send + Sync + 'static) {
        *self.door.tamper.lock() = Some(Arc::new(tamper));
    }

    /// Questions of other nodes that this one works at.
    pub(super) fn questions(&self) -> usize {
        self.door.honest.under_way()
    }

    /// Alters the next segment of a circuit that reaches this node.
    pub(super) fn alter_segment(&self, alter: impl FnOnce(&mut Vec<u8>) + Send + Sync + 'static) {
        *self.door.alter.lock() = Some(Box::new(alter));
    }

    /// Whether no segment has come since.
    pub(super) fn awaits_segment(&self) -> bool {
        self.door.alter.lock().is_some()
    }

    /// Keeps Raft's messages from this node, as a corrupt leader could; questions still reach it.
    pub(super) fn deafen(&self, deaf: bool) {
        self.door.deaf.store(deaf, Ordering::Relaxed);
    }

    /// Asks another node as this one, whatever this one's own rules would say.
    pub(super) async fn ask(&self, node: u64, call: &Call) -> Answer {
        let asked = self.parts.network.call(node, call.encode().into(), SOON);
        Answer::decode(&asked.await.unwrap()).unwrap()
    }

    /// Times that this node has named `node` a liar.
    pub(super) fn named(&self, node: u64) -> u64 {
        self.parts.metrics.liars.get_or_create(&OfNode { node }).get()
    }

    /// Calls of `node` that did not fit, as this node counted them.
    pub(super) fn misfits(&self, node: u64) -> u64 {
        self.parts.metrics.misfits.get_or_create(&OfNode { node }).get()
    }

    /// Records of this kind in this node's audit chain, which is verified whole.
    pub(super) async fn recorded(&self, kind: Kind) -> u64 {
        self.records()
            .await
            .iter()
            .filter(|entry| entry.kind == kind)
            .count() as u64
    }

    /// Everything on this node's record, in order.
    pub(super) async fn records(&self) -> Vec<AuditEntry> {
        let chain = self.chain().await;
        chain
            .iter()
            .filter_map(|record| record.entry().cloned())
            .collect()
    }

    /// This node's audit chain, verified whole.
    pub(super) async fn chain(&self) -> Vec<audit::Record> {
        // One writer in order: when this one is on disk, so is everything before it.
        let operation = OperationId {
            node: 0,
            boot: 0,
            counter: 0,
        };
        let now = self.parts.now().unwrap();
        let last = AuditEntry::new(Kind::Claimed, now, operation);
        self.parts.audit.append(last).await.unwrap();
        let key = self.parts.signing_key.verifying_key().to_bytes();
        let mut records = Vec::new();
        audit::verify_each(&self.audit, Some(&key), |record| records.push(record.clone())).unwrap();
        records
    }

    /// Lets time pass on both clocks, 5 s at most in a test: the wall clock never runs back, so it stays ahead.
    pub(super) fn pass(&self, milliseconds: u64) {
        self.parts.passed.fetch_add(milliseconds, Ordering::Relaxed);
        let then = self.parts.now().unwrap() + milliseconds;
        self.parts.clock.lock().recorded(then);
    }

    /// This node's record of a key.
    pub(super) fn key_record(&self, keystore: &LocalId, key: &LocalId) -> Option<KeyRecord> {
        let view = self.parts.consensus.view(self.parts.group_of(keystore)).unwrap();
        query::key(&view, keystore, key).unwrap()
    }

    /// This node's record of a keystore.
    pub(super) fn keystore_record(&self, keystore: &LocalId) -> Option<KeystoreRecord> {
        let view = self.parts.consensus.view(self.parts.group_of(keystore)).unwrap();
        query::keystore(&view, keystore).unwrap()
    }
}

/// The cluster's operator.
pub(super) fn operator() -> SigningKey {
    SigningKey::from_bytes(&[77; 32])
}

/// All nodes, numbered from 1.
pub(super) struct Cluster {
    nodes: Vec<Node>,
    pub(super) hub: Hub,
    genesis: Arc<Membership>,
    folder: TempDir,
}

/// A node's own keys.
type Keys = (SigningKey, EnvelopeKey);

/// A machine that no order has named yet.
pub(super) struct Candidate {
    number: u64,
    keys: Keys,
}

impl Candidate {
    /// With fresh keys.
    pub(super) fn new(number: u64) -> Self {
        Self {
            number,
            keys: fresh(),
        }
    }

    /// As operators sign it.
    pub(super) fn pinned(&self) -> Pinned {
        member(self.number, &self.keys).pinned()
    }
}

fn fresh() -> Keys {
    (
        SigningKey::generate(&mut OsRng),
        EnvelopeKey::generate(&mut OsRng),
    )
}

fn member(node: u64, (signing, envelope): &Keys) -> Member {
    Member {
        node,
        index: u16::try_from(node).unwrap(),
        address: String::new(),
        verifying_key: signing.verifying_key(),
        envelope_key: envelope.public(),
    }
}

/// Longest wait for what must happen soon.
pub(super) const SOON: Duration = Duration::from_secs(10);

impl Cluster {
    /// `n` nodes, with leaders in every group and the keys of the nodes drawn anew.
    pub(super) async fn start(n: u64) -> Self {
        Self::start_with(n, None).await
    }

    /// The same; `recorder` sees everything that nodes say to each other.
    pub(super) async fn start_with(n: u64, recorder: Option<Recorder>) -> Self {
        Self::begin(n, None, recorder).await
    }

    /// The same with each group on so many of the nodes.
    pub(super) async fn start_placed(n: u64, committee: usize) -> Self {
        Self::begin(n, Some(committee), None).await
    }

    async fn begin(n: u64, committee: Option<usize>, recorder: Option<Recorder>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let numbers: Vec<u64> = (1..=n).collect();
        let hub = Hub::new(numbers.clone(), Bounds::default(), recorder).unwrap();
        let keys: Vec<Keys> = numbers.iter().map(|_| fresh()).collect();
        let members = numbers.iter().zip(&keys).map(|(node, keys)| member(*node, keys));
        let membership = Arc::new(Membership {
            cluster: CLUSTER,
            index: 1,
            members: members.collect(),
            operators: vec![operator().verifying_key()],
            operator_threshold: 1,
            groups: GROUPS,
            placement: committee
                .and_then(|committee| place(GROUPS, &numbers, committee, |_| Vec::new()))
                .map(Arc::new),
        });
        let mut nodes = Vec::new();
        for (number, keys) in numbers.iter().zip(keys) {
            let home = folder.path().join(number.to_string());
            std::fs::create_dir(&home).unwrap();
            nodes.push(node(*number, keys, (&membership, None), &hub, home));
        }
        let cluster = Self {
            nodes,
            hub,
            genesis: membership,
            folder,
        };
        let all: Vec<&Node> = cluster.nodes.iter().collect();
        cluster.settle(&all).await;
        cluster
    }

    /// Starts the next machine, which these orders make a member.
    pub(super) fn join(&mut self, candidate: Candidate, orders: &Orders) {
        let Candidate { number, keys } = candidate;
        assert_eq!(number, self.nodes.len() as u64 + 1, "the next one");
        let home = self.folder.path().join(number.to_string());
        std::fs::create_dir(&home).unwrap();
        let introduced = orders.introduce((*self.genesis).clone()).unwrap().everybody;
        let genesis = (&self.genesis, Some(introduced));
        let started = node(number, keys, genesis, &self.hub, home);
        self.nodes.push(started);
    }

    /// The members that the cluster began with.
    pub(super) fn genesis(&self) -> &Membership {
        &self.genesis
    }

    /// Waits until each of these nodes knows leaders and may contribute.
    pub(super) async fn settle(&self, nodes: &[&Node]) {
        for node in nodes {
            for group in (0..GROUPS).map(GroupId) {
                if node.parts.is_outside(group) {
                    continue;
                }
                let deadline = Instant::now() + 2 * SOON;
                node.parts.consensus.read_index(group, deadline).await.unwrap();
                until("the node may contribute", || {
                    node.parts.consensus.freshness().may_contribute(group).is_ok()
                })
                .await;
            }
        }
    }

    /// Waits until every node has applied what was acknowledged about a keystore.
    pub(super) async fn catch_up(&self, keystore: &LocalId) {
        for node in &self.nodes {
            let group = node.parts.group_of(keystore);
            if node.parts.is_outside(group) {
                continue;
            }
            let deadline = Instant::now() + SOON;
            node.parts.consensus.read_index(group, deadline).await.unwrap();
        }
    }

    /// Node `number`.
    pub(super) fn node(&self, number: u64) -> &Node {
        &self.nodes[usize::try_from(number).unwrap() - 1]
    }

    /// All of them.
    pub(super) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Cuts a node off from all others.
    pub(super) fn isolate(&self, number: u64) {
        for other in self.others(number) {
            self.hub.cut(number, other);
        }
    }

    /// Takes that back.
    pub(super) fn rejoin(&self, number: u64) {
        for other in self.others(number) {
            self.hub.heal(number, other);
        }
    }

    fn others(&self, number: u64) -> impl Iterator<Item = u64> {
        (1..=self.nodes.len() as u64).filter(move |other| *other != number)
    }

    /// The node that leads a group, by the word of any node in `among`.
    pub(super) fn leader(&self, group: GroupId, among: u64) -> Option<u64> {
        let status = self.node(among).parts.consensus.status();
        status.into_iter().find(|status| status.group == group)?.leader
    }

    /// Ends all nodes.
    pub(super) async fn stop(self) {
        futures::future::join_all(self.nodes.iter().map(|node| node.parts.consensus.shutdown())).await;
    }
}

/// Waits for what other tasks and threads bring about, at most [`SOON`].
pub(super) async fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !happened() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Starts one node as the composition root does: a first member, or one that joins.
fn node(
    number: u64,
    (signing_key, envelope_key): Keys,
    (genesis, introduced): (&Arc<Membership>, Option<Vec<Member>>),
    hub: &Hub,
    home: PathBuf,
) -> Node {
    let mut boot = [0; 16];
    OsRng.fill_bytes(&mut boot);
    let start = Moment {
        mono_ms: 0,
        wall_ms: Parts::system_ms(),
    };
    let mut replays = ReplayGuard::new(ReplaySettings::default(), [1; 32], start);
    let mut claims = Claims::default();
    let audit_folder = home.join("audit");
    let audit = {
        let mut settings = AuditSettings::new(CLUSTER, number);
        (settings.segment_bytes, settings.low_disk_percent) = (1 << 20, 0);
        let key = signing_key.clone();
        let sign = move |message: &[u8]| key.sign(message).to_bytes();
        let restore = |record: &_| {
            replays.restore(record);
            claims.restore(record, start.wall_ms);
        };
        Audit::open(&audit_folder, settings, sign, restore).unwrap()
    };
    replays.restored();
    let shares = {
        let key = conclave_shares::NodeKey::new(Box::new([u8::try_from(number).unwrap(); 32]));
        let (folder, epochs) = (home.join("shares"), home.join("epochs.sealed"));
        ShareStore::open(&folder, &epochs, key, CLUSTER, number, OsRng).unwrap()
    };
    let application = Arc::new(KeystoreApplication::new(genesis.clone()));
    let known = introduced.as_ref().unwrap_or(&genesis.members).clone();
    let directory = Directory::new(&known);
    application.introduce_to(directory.clone());
    let lanes = Arc::new(Lanes::default());
    let consensus = {
        let mut settings = RaftSettings::new(CLUSTER, number, genesis.nodes());
        settings.groups = GROUPS;
        let placed = genesis.placement.iter().flat_map(|placement| placement.each());
        settings.placed = placed
            .map(|(group, nodes)| (GroupId(group), nodes.to_vec()))
            .collect();
        settings.peers = known.iter().map(|member| member.node).collect();
        let folder = home.join("raft");
        match introduced {
            None => Consensus::bootstrap(&folder, &settings).unwrap(),
            Some(_) => Consensus::prepare_joining(&folder, &settings).unwrap(),
        }
        let as_application: Arc<dyn Application> = application.clone();
        // A test that failed takes its folder away: that must not end the process.
        let on_fatal = Box::new(|reason: &str| eprintln!("the store ended: {reason}"));
        let attestor = NodeAttestor::new(directory.clone(), signing_key.clone(), audit.clone());
        let attestor = Arc::new(attestor);
        Consensus::open_with(
            settings,
            &folder,
            as_application,
            attestor,
            lanes.clone(),
            on_fatal,
        )
        .unwrap()
    };
    let doors = Arc::new(Doors::new(consensus.clone()));
    let door = Arc::new(Door {
        honest: doors.clone(),
        tamper: Mutex::new(None),
        alter: Mutex::new(None),
        deaf: AtomicBool::new(false),
    });
    let network: Arc<dyn Network> = Arc::new(hub.join_speaking(SPOKEN, number, boot, door.clone()));
    let others = known.iter().filter(|member| member.node != number);
    let others = others.map(|member| directory::peer_of(member, &BTreeMap::new()));
    network.set_peers(others.collect()).unwrap();
    lanes.connect(network.clone());
    let rules = Rules {
        public_url: URL.into(),
        policy: Policy::new(AUTHORITY),
        cluster: CLUSTER,
        groups: GROUPS,
        meter_admins: None,
        chains: ChainCache::new(1_024),
        wrap_bytes: 256,
    };
    let metrics = Metrics::register(&telemetry::Metrics::new());
    let parts = Arc::new(Parts {
        node: number,
        boot,
        rosters: application.rosters().clone(),
        directory,
        introduced: known,
        addresses: BTreeMap::new(),
        service_id: "did:example:service".into(),
        rules,
        signing_key,
        envelope_key,
        consensus,
        network,
        shares: Arc::new(shares),
        audit,
        refusals: Mutex::new(RefusalRate::new(200)),
        replays: Mutex::new(replays),
        claims: Mutex::new(claims),
        clock: Mutex::new(HolderClock::new(0)),
        pool: CryptoPool::start(1, POOL, metrics.shed.clone()).unwrap(),
        proposals: Proposals::default(),
        denials: Mutex::default(),
        ceremonies: Mutex::default(),
        receipts: Receipts::default(),
        renewals: Mutex::new(Renewals::new(RenewalPolicy {
            period: 0,
            keys_per_second: 1_000,
            backups: 0,
        })),
        removal: RwLock::default(),
        nonces: Mutex::default(),
        answers: Mutex::default(),
        open_keys: Mutex::new(HashMap::new()),
        wake: doors.wake(),
        symmetric: Symmetric::new(CLUSTER, number, boot),
        metrics,
        started: Instant::now(),
        passed: AtomicU64::new(0),
        operations: AtomicU64::new(0),
        census: Mutex::default(),
        heard: Mutex::default(),
        elsewhere: Mutex::default(),
    });
    let told = parts.clone();
    let (sender, applied) = recheck::queue();
    application.recheck(sender);
    tokio::spawn(recheck::run(parts.clone(), applied));
    application.listen(Box::new(move |_: GroupId, entry, outcome| {
        told.applied(entry, outcome)
    }));
    let arbiter = Arbiter::new().handle();
    let registry = Arc::new(Registry::new(parts.clone(), vec![arbiter.clone()], REQUESTS));
    doors.open(registry.clone());
    tokio::spawn(deliveries::run(parts.clone()));
    tokio::spawn(upkeep::chores(parts.clone()));
    tokio::spawn(moves::run(parts.clone()));
    tokio::spawn(directory::keep(parts.clone()));
    Node {
        parts,
        registry,
        arbiter,
        door,
        audit: audit_folder,
    }
}
