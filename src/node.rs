//! The composition root: the only file that knows every part of a node, and the order in which they start and stop.
//!
//! Logs, hardening, lock, admin listener, seal; then keys, audit record (read back), consensus, transport, actors,
//! the public listener. A sealed node answers nothing but health.

mod parent;

use std::collections::HashMap;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix::Arbiter;
use conclave_consensus::{Application, Consensus, GroupId, OpenError, Restoration, Settings as RaftSettings};
use conclave_shares::ShareStore;
use conclave_threshold::envelope::EnvelopeKey;
use conclave_transport::{Network, Transport};
use ed25519_dalek::{Signer, VerifyingKey};
use parking_lot::{Mutex, RwLock};
use rand::RngCore;
use rand::rngs::OsRng;

use crate::actors::application::KeystoreApplication;
use crate::actors::attestor::NodeAttestor;
use crate::actors::coordinator::{deliveries, moves, renewal, upkeep};
use crate::actors::crypto_pool::CryptoPool;
use crate::actors::directory::{self, Directory};
use crate::actors::doors::{Doors, Lanes};
use crate::actors::formats::SPOKEN;
use crate::actors::metrics::Metrics as RequestMetrics;
use crate::actors::parts::Parts;
use crate::actors::proposals::Proposals;
use crate::actors::receipts::Receipts;
use crate::actors::recheck;
use crate::actors::registry::Registry;
use crate::actors::renewals::{Policy as RenewalPolicy, Renewals};
use crate::actors::symmetric::Symmetric;
use crate::actors::{census, heads};
use crate::api::{self, Api};
use crate::audit::{Audit, RefusalRate, Settings as AuditSettings};
use crate::authorization::{ChainCache, DidKey, Policy};
use crate::config::{Config, ConfigError, MeterAdmins, Twins};
use crate::counted;
use crate::membership::Placement;
use crate::operation::judge::Rules;
use crate::provision::cluster::HookError;
use crate::provision::introduction::first_members;
use crate::provision::lock::DirectoryLock;
use crate::provision::{Genesis, NodeMaterial, Started};
use crate::recovery::Keeper;
use crate::replay::{Claims, HolderClock, Moment, ReplayGuard, Settings as ReplaySettings};
use crate::seal::{self, NodeKey};
use crate::status::StatusSource;
use crate::telemetry::admin::reception::Reception;
use crate::{replay, telemetry};

/// Chains whose proofs are remembered as verified.
const CHAINS: usize = 65_536;
/// Jobs that wait for the crypto pool.
const POOL_QUEUE: usize = 4_096;
/// Connections that are in use have this long to end with an answer.
const FAREWELL: Duration = Duration::from_millis(300);
/// Requests under way have this long when the node stops: a use of a symmetric key may wait 5 s for a holder that restarts.
const DRAIN: Duration = Duration::from_secs(6);
/// Recorded refusals a second.
const REFUSALS: u32 = 200;

/// Why a node does not run.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file or a socket.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Anything that failed while a part was started: which part, and its own error.
    #[error("{part}")]
    Start {
        /// The part.
        part: &'static str,
        /// Its error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

fn start<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    part: &'static str,
) -> impl FnOnce(E) -> NodeError {
    move |source| NodeError::Start {
        part,
        source: source.into(),
    }
}

/// The one-use permission to create the Raft groups, written by `init` and `dev`.
///
/// # Errors
/// What consensus says.
pub fn bootstrap(material: &NodeMaterial<'_>) -> Result<(), HookError> {
    let folder = material.config.data_dir.join("raft");
    std::fs::create_dir_all(&material.config.data_dir)?;
    Consensus::bootstrap(&folder, &raft_settings(material.config, material.genesis))?;
    Ok(())
}

/// The one-use permission to join the Raft groups, written for a node that is to join.
///
/// # Errors
/// What consensus says.
pub fn prepare_joining(material: &NodeMaterial<'_>) -> Result<(), HookError> {
    let folder = material.config.data_dir.join("raft");
    std::fs::create_dir_all(&material.config.data_dir)?;
    Consensus::prepare_joining(&folder, &raft_settings(material.config, material.genesis))?;
    Ok(())
}

/// Begins to fill the groups of a node that `init` has made and nobody has started.
///
/// # Errors
/// What consensus says.
pub fn restoration(config: &Config, genesis: &Genesis) -> Result<Restoration, OpenError> {
    Restoration::begin(&config.data_dir.join("raft"), raft_settings(config, genesis))
}

/// How this node's share store is opened; blocks on the disk.
pub fn share_store(
    config: &Config,
    node_key: &NodeKey,
) -> impl FnOnce() -> Result<ShareStore, conclave_shares::Error> + use<> {
    let key = conclave_shares::NodeKey::new(Box::new(*node_key.expose()));
    let (folder, epochs) = (
        config.data_dir.join("shares"),
        config.data_dir.join("epochs.sealed"),
    );
    let (cluster, node) = (config.cluster.0, config.node);
    move || ShareStore::open(&folder, &epochs, key, cluster, node, OsRng)
}

fn raft_settings(config: &Config, genesis: &Genesis) -> RaftSettings {
    let body = genesis.body();
    let nodes = body.members.iter().map(|member| member.node).collect();
    let mut settings = RaftSettings::new(config.cluster.0, config.node, nodes);
    let placed = body.placement.iter().flat_map(Placement::each);
    settings.placed = placed
        .map(|(group, nodes)| (GroupId(group), nodes.to_vec()))
        .collect();
    settings.groups = config.groups;
    settings.tick_ms = config.raft.tick_ms;
    settings.heartbeat_ticks = usize::try_from(config.raft.heartbeat_ticks).unwrap_or(4);
    settings.election_ticks = usize::try_from(config.raft.election_ticks).unwrap_or(20);
    settings.believe_leaders = config.raft.believe_leaders;
    settings
}

/// Runs a node until SIGINT or SIGTERM (or, if asked to, the end of standard input).
///
/// # Errors
/// [`NodeError`].
pub fn run(config: Config, exit_with_stdin: bool) -> Result<ExitCode, NodeError> {
    telemetry::logs::start(&config.log).map_err(start("logs"))?;
    telemetry::hardening::keep_memory_private().map_err(start("memory protection"))?;
    // A second installation fails and changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // Every thread more is woken for nothing: a question that comes in is handed on at once.
    let threads = std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).clamp(1, 4));
    let system = actix::System::with_tokio_rt(|| {
        // The runtime of transport, consensus callers and upkeep; HTTP workers and arbiters have their own.
        #[allow(
            clippy::expect_used,
            reason = "without threads there is no node and nobody to tell but the process"
        )]
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_all()
            .build()
            .expect("the runtime's threads start")
    });
    system.block_on(async move {
        let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let ended = async move {
            tokio::select! {
                _ = terminated.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
                () = parent::gone(), if exit_with_stdin => {}
            }
        };
        serve(config, ended).await
    })
}

async fn serve(config: Config, ended: impl Future<Output = ()>) -> Result<ExitCode, NodeError> {
    let _lock = DirectoryLock::take(&config.data_dir).map_err(start("the data directory"))?;
    let status = Arc::new(StatusSource::new(&config));
    let registry = telemetry::Metrics::new();
    let (door, attempts) = seal::unseal::door();
    let admin = telemetry::Admin {
        node: config.node,
        ready: status.readiness(),
        health: status.health(),
        status: status.report(),
        symmetric: status.symmetric(),
        orders: status.orders(),
        orders_so_far: status.orders_so_far(),
        backup: status.backup(),
        metrics: registry.clone(),
        door,
        reception: Reception::of(&config),
    };
    let (admin, _) = telemetry::admin::serve(config.listen.admin, admin)?;
    let admin_handle = admin.handle();
    tokio::spawn(admin);

    tokio::pin!(ended);
    let opened = seal::obtain(&config.seal, &config.cluster.0, config.node, attempts);
    let node_key = tokio::select! {
        key = opened => key.map_err(start("the seal"))?,
        () = &mut ended => return Ok(ExitCode::SUCCESS),
    };
    let node = Node::start(&config, &node_key, &registry).await?;
    drop(node_key);
    status.opened(node.parts.clone(), node.keeper.clone());
    status.register(&registry);
    tokio::spawn(status.clone().watch());
    let api = Api::new(&config, node.registry.clone(), &registry);
    let closing = api.closing.clone();
    let http = api::serve(&config, api).map_err(start("the public listener"))?;
    let http_handle = http.handle();
    let http = tokio::spawn(http);

    let announce = {
        let ready = status.readiness();
        async move {
            while ready().is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            println!("ready");
            let _ = std::io::stdout().flush();
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = &mut ended => tracing::info!("stopping"),
        () = announce => {}
        stopped = http => {
            if let Ok(Err(error)) = stopped {
                tracing::error!(%error, "the public listener ended");
            }
        }
    }
    // Connections that are in use end with their next answer; a client whose request meets a closed one cannot know whether
    // it was carried out.
    closing.store(true, Ordering::Relaxed);
    // Nor one whose connection is closed between its handshake and its request: none is taken any more, and who waits for
    // one goes elsewhere before it has sent anything.
    http_handle.pause().await;
    tokio::time::sleep(FAREWELL).await;
    if let Some(keeper) = &node.keeper {
        keeper.stop();
    }
    // Clients first: what is under way is answered. Then leaderships, so that the others go on at once.
    if tokio::time::timeout(DRAIN, http_handle.stop(true)).await.is_err() {
        http_handle.stop(false).await;
    }
    node.parts.consensus.shutdown().await;
    node.parts.network.shutdown().await;
    admin_handle.stop(false).await;
    Ok(ExitCode::SUCCESS)
}

/// A running node.
struct Node {
    parts: Arc<Parts>,
    keeper: Option<Arc<Keeper>>,
    registry: Arc<Registry>,
}

impl Node {
    async fn start(
        config: &Config,
        node_key: &NodeKey,
        metrics: &telemetry::Metrics,
    ) -> Result<Self, NodeError> {
        let material = Started::open(config, node_key).map_err(start("the node's identity"))?;
        let mut boot = [0; 16];
        OsRng.fill_bytes(&mut boot);

        let started = Instant::now();
        let wall = Parts::system_ms();
        let mut fingerprints = [0; 32];
        OsRng.fill_bytes(&mut fingerprints);
        let replay_settings = ReplaySettings {
            twins: match config.twins {
                Twins::Allow => replay::Twins::Allow,
                Twins::None => replay::Twins::None,
            },
            ..ReplaySettings::default()
        };
        let mut replays = ReplayGuard::new(
            replay_settings,
            fingerprints,
            Moment {
                mono_ms: 0,
                wall_ms: wall,
            },
        );
        let signing_key = material.identity.signing_key().clone();
        let mut claims = Claims::default();
        let (audit, replays, claims) = {
            let (folder, settings) = (config.data_dir.join("audit"), audit_settings(config));
            let key = signing_key.clone();
            let sign = move |message: &[u8]| key.sign(message).to_bytes();
            let opened = tokio::task::spawn_blocking(move || {
                let audit = Audit::open(&folder, settings, sign, |record| {
                    replays.restore(record);
                    claims.restore(record, wall);
                });
                (audit, replays, claims)
            });
            let (audit, mut replays, claims) = opened.await.map_err(start("the audit record"))?;
            replays.restored();
            (audit.map_err(start("the audit record"))?, replays, claims)
        };
        let clock = HolderClock::new(audit.recorded_ms());

        let shares = {
            let open = share_store(config, node_key);
            tokio::task::spawn_blocking(open)
                .await
                .map_err(start("the share store"))?
                .map_err(start("the share store"))?
        };

        let first = first_members(&material.genesis);
        let first = first
            .ok_or("a member that cannot be")
            .map_err(start("the genesis statement"))?;
        let mut raft = raft_settings(config, &material.genesis);
        raft.peers = material
            .introduction
            .everybody
            .iter()
            .map(|member| member.node)
            .collect();
        let application = Arc::new(KeystoreApplication::new(Arc::new(first)));
        let directory = Directory::new(&material.introduction.everybody);
        application.introduce_to(directory.clone());
        let lanes = Arc::new(Lanes::default());
        let folder = config.data_dir.join("raft");
        let as_application: Arc<dyn Application> = application.clone();
        let attestor = NodeAttestor::new(directory.clone(), signing_key.clone(), audit.clone());
        let consensus = Consensus::open(raft, &folder, as_application, Arc::new(attestor), lanes.clone())
            .map_err(start("consensus"))?;

        let doors = Arc::new(Doors::new(consensus.clone()));
        let transport = Transport::start(transport_settings(config, &material, boot), doors.clone());
        let network: Arc<dyn Network> = Arc::new(transport.await.map_err(start("the links to other nodes"))?);
        lanes.connect(network.clone());

        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let threads = match config.limits.crypto_threads {
            0 => cores.saturating_sub(1).max(1),
            threads => threads,
        };
        let requests = RequestMetrics::register(metrics);
        let parts = Arc::new(Parts {
            node: config.node,
            boot,
            rosters: application.rosters().clone(),
            directory,
            introduced: material.introduction.everybody.clone(),
            addresses: config.addresses.clone(),
            service_id: service_id(config),
            rules: rules(config),
            signing_key,
            envelope_key: EnvelopeKey::from_bytes(&material.identity.envelope_secret().to_bytes()),
            consensus,
            network,
            shares: Arc::new(shares),
            audit,
            refusals: Mutex::new(RefusalRate::new(REFUSALS)),
            replays: Mutex::new(replays),
            claims: Mutex::new(claims),
            clock: Mutex::new(clock),
            pool: CryptoPool::start(threads, POOL_QUEUE, requests.shed.clone())?,
            proposals: Proposals::default(),
            denials: Mutex::default(),
            ceremonies: Mutex::default(),
            receipts: Receipts::default(),
            renewals: Mutex::new(Renewals::new(renewal_policy(config))),
            removal: RwLock::default(),
            nonces: Mutex::default(),
            answers: Mutex::default(),
            open_keys: Mutex::new(HashMap::new()),
            wake: doors.wake(),
            symmetric: Symmetric::new(config.cluster.0, config.node, boot),
            metrics: requests,
            started,
            #[cfg(test)]
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
        directory::refresh(&parts);
        let arbiters = vec![Arbiter::new().handle()];
        let registry = Arc::new(Registry::new(
            parts.clone(),
            arbiters,
            config.limits.requests_in_flight,
        ));
        doors.open(registry.clone());
        tokio::spawn(deliveries::run(parts.clone()));
        tokio::spawn(upkeep::chores(parts.clone()));
        tokio::spawn(renewal::run(parts.clone()));
        tokio::spawn(moves::run(parts.clone()));
        tokio::spawn(directory::keep(parts.clone()));
        tokio::spawn(heads::run(parts.clone()));
        tokio::spawn(census::run(parts.clone()));
        counted::register(metrics, &parts, &registry);
        let keeper = config.backup.as_ref().map(|settings| {
            let audit = config.data_dir.join("audit");
            Keeper::open(settings, parts.clone(), material.genesis.to_json(), audit)
        });
        let keeper = keeper.transpose().map_err(start("backups"))?.map(Arc::new);
        if let Some(keeper) = &keeper {
            keeper.register(metrics);
            tokio::spawn(keeper.clone().run());
        }
        Ok(Self {
            parts,
            keeper,
            registry,
        })
    }
}

fn rules(config: &Config) -> Rules {
    Rules {
        public_url: config.public_url.to_string().trim_end_matches('/').to_owned(),
        policy: Policy::new(config.public_url.authority()),
        cluster: config.cluster.0,
        groups: config.groups,
        meter_admins: match &config.meter_admins {
            MeterAdmins::Anyone => None,
            MeterAdmins::These(admins) => Some(admins.clone()),
        },
        chains: ChainCache::new(CHAINS),
        wrap_bytes: config.limits.wrap_bytes,
    }
}

fn renewal_policy(config: &Config) -> RenewalPolicy {
    RenewalPolicy {
        period: u64::from(config.renewal.days) * 86_400_000,
        keys_per_second: config.renewal.keys_per_second,
        backups: config
            .backup
            .as_ref()
            .map_or(0, |backup| u64::from(backup.every_hours) * 3_600_000),
    }
}

/// Clients expect a service's DID with a meter: the operator's, who answers for the cluster.
fn service_id(config: &Config) -> String {
    let operator = config
        .operators
        .keys
        .first()
        .and_then(|key| VerifyingKey::from_bytes(&key.0).ok());
    operator.map(|key| DidKey::of(&key).did).unwrap_or_default()
}

fn audit_settings(config: &Config) -> AuditSettings {
    let mut settings = AuditSettings::new(config.cluster.0, config.node);
    settings.segment_bytes = config.audit.segment_bytes;
    settings.segment_age_ms = config.audit.segment_seconds * 1_000;
    settings.low_disk_percent = config.audit.minimum_free_percent;
    settings.retention.age_ms = u64::from(config.audit.retention_days) * 86_400_000;
    settings.retention.bytes = match config.audit.retention_bytes {
        0 => fifth_of_disk(&config.data_dir).unwrap_or(settings.retention.bytes),
        bytes => bytes,
    };
    settings
}

/// A fifth of the disk that a folder is on, bytes; none if the system does not tell.
fn fifth_of_disk(folder: &Path) -> Option<u64> {
    let disk = nix::sys::statvfs::statvfs(folder).ok()?;
    Some(disk.blocks().saturating_mul(disk.fragment_size()) / 5)
}

/// How this node's links are made, from its opened material.
pub fn transport_settings(
    config: &Config,
    material: &Started,
    boot: [u8; 16],
) -> conclave_transport::Settings {
    let peers = material.introduction.everybody.iter();
    let peers = peers.filter(|member| member.node != config.node);
    conclave_transport::Settings {
        cluster: config.cluster.0,
        node: config.node,
        boot,
        formats: SPOKEN,
        listen: config.listen.peer,
        certificate_chain: material.peer_chain.clone(),
        private_key: material.identity.peer_private_key().into(),
        roots: material.peer_roots.clone(),
        peers: peers
            .map(|member| directory::peer_of(member, &config.addresses))
            .collect(),
        bounds: conclave_transport::Bounds::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_audit_record_is_kept_for_90_days_and_in_a_fifth_of_the_disk_unless_configured() {
        let example = include_str!("../deploy/node.example.toml");
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::parse(example, folder.path()).unwrap();
        config.data_dir = folder.path().to_owned();
        let settings = audit_settings(&config);
        assert_eq!(settings.retention.age_ms, 90 * 86_400_000);
        let disk = nix::sys::statvfs::statvfs(folder.path()).unwrap();
        assert_eq!(settings.retention.bytes, disk.blocks() * disk.fragment_size() / 5);
        assert_eq!((settings.low_disk_percent, settings.compress), (5, true));
        config.audit.retention_days = 1;
        config.audit.retention_bytes = 1 << 30;
        let settings = audit_settings(&config);
        assert_eq!(
            (settings.retention.age_ms, settings.retention.bytes),
            (86_400_000, 1 << 30)
        );
    }
}
