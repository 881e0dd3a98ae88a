//! A new cluster, made in one step: beside its place first, then moved there whole or not at all.
//!
//! ```text
//! DIR/ca.pem            for clients and nodes
//! DIR/ca.key            signs further certificates; keep it off the nodes
//! DIR/operator.key      signs changes of membership; keep it off the nodes
//! DIR/genesis.json      who the members and operators are
//! DIR/node-N/           everything that node N needs, and nothing of the others
//! DIR/keys/node-N.key   node keys that go to systemd or into an HSM, when the seal is of that kind
//! ```

use std::path::{Path, PathBuf};
use std::{fs, io};

use rand::{CryptoRng, RngCore};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::certificates::Authority;
use super::genesis::Body;
use super::node_files::{NodeFiles, NodeKeys};
use super::{Genesis, OperatorKey, ProvisionError};
use crate::config::{Alike, Backup, Config, Hex32, Listen, Log, MeterAdmins, PublicUrl, fields::encode_hex};
use crate::membership::{Placement, placement::place};
use crate::seal::passphrase::Cost;
use crate::seal::{NodeKey, secret_file};

/// What the configurations of a cluster's nodes have in common.
pub struct Common {
    /// The cluster's public URL.
    pub public_url: PublicUrl,
    /// Number of Raft groups.
    pub groups: u32,
    /// Who may create meters.
    pub meter_admins: MeterAdmins,
    /// Whether `X-Forwarded-For` is believed.
    pub trust_forwarded_for: bool,
    /// How the nodes get their keys.
    pub seal: SealPlan,
    /// Logs.
    pub log: Log,
    /// Timings, bounds and periods.
    pub alike: Alike,
    /// How they make backups; none: not at all.
    pub backup: Option<BackupPlan>,
}

/// How a node makes backups, with the public keys of the recovery officers.
pub struct BackupPlan {
    settings: Backup,
    officers: Vec<u8>,
}

impl BackupPlan {
    /// As the node makes them whose configuration this is, in `folder`; none if it makes none, or if the configuration alone is here
    /// and not the officers' file.
    ///
    /// # Errors
    /// The officers' file.
    pub fn like(config: &Config, folder: &Path) -> Result<Option<Self>, ProvisionError> {
        let Some(backup) = config.backup.as_ref().filter(|backup| backup.recovery.is_file()) else {
            return Ok(None);
        };
        // What is in that node's folder will be in the other's.
        let own = backup.folder.strip_prefix(folder).unwrap_or(&backup.folder);
        Ok(Some(Self {
            officers: secret_file::read_public(&backup.recovery, MAX_OFFICERS)?.to_vec(),
            settings: Backup {
                folder: own.to_owned(),
                recovery: "recovery.json".into(),
                ..backup.clone()
            },
        }))
    }

    pub(super) fn settings(&self) -> Backup {
        self.settings.clone()
    }

    pub(super) fn write(&self, folder: &Path) -> Result<(), ProvisionError> {
        let path = folder.join(&self.settings.recovery);
        Ok(secret_file::create_public(&path, &self.officers)?)
    }
}

/// The largest file of recovery officers' public keys.
const MAX_OFFICERS: usize = 16 * 1024;

/// What a new cluster is to be.
pub struct NewCluster {
    /// What all its nodes are like.
    pub common: Common,
    /// Its first members, by rising number.
    pub nodes: Vec<NewNode>,
    /// An operator key that exists already; else one is made.
    pub operator: Option<OperatorKey>,
    /// Public keys of further operators.
    pub further_operators: Vec<Hex32>,
    /// How many operators must sign a change of membership.
    pub threshold: u32,
    /// How many nodes each group is on; none: all.
    pub committee: Option<usize>,
    /// Where groups are, in place of what follows from `committee`.
    pub placement: Option<Placement>,
}

/// One first member.
#[derive(Clone, Debug)]
pub struct NewNode {
    /// Its number.
    pub node: u64,
    /// Where the others dial it, host:port.
    pub peer: String,
    /// What it listens on.
    pub listen: Listen,
}

/// How the nodes of a new cluster get their keys.
pub enum SealPlan {
    /// `node-N/node.key`, beside what it opens: for development.
    File,
    /// Sealed under this passphrase in `node-N/passphrase.json`.
    Passphrase(Zeroizing<Vec<u8>>, Cost),
    /// In `keys/node-N.key`, for `systemd-creds encrypt`, under this credential name.
    Credential(String),
    /// In `keys/node-N.key`, for whatever this command then prints it from.
    Command(Vec<String>),
}

/// What was made of one node: given to the caller so that it can write its own first records.
pub struct NodeMaterial<'a> {
    /// The node's configuration, its paths as they are now (the folder is moved afterwards, whole).
    pub config: &'a Config,
    /// The statement.
    pub genesis: &'a Genesis,
    /// The node's key.
    pub node_key: &'a NodeKey,
}

/// What was made.
#[derive(Clone, Debug)]
pub struct Created {
    /// The cluster's id.
    pub cluster: Hex32,
    /// The public key of the operator that signed the genesis.
    pub operator: Hex32,
    /// The node's folders, in order.
    pub nodes: Vec<PathBuf>,
}

/// An error of the caller's hook.
pub type HookError = Box<dyn std::error::Error + Send + Sync>;

/// The name of node `node`'s folder.
pub fn node_folder(node: u64) -> String {
    format!("node-{node}")
}

/// Makes everything under `out`, which must not exist or be empty. On an error nothing is left behind.
///
/// `bootstrap` is called once for each node, when its folder and its empty data directory are there.
pub fn create(
    plan: &NewCluster,
    out: &Path,
    now: OffsetDateTime,
    rng: &mut (impl CryptoRng + RngCore),
    bootstrap: impl Fn(&NodeMaterial<'_>) -> Result<(), HookError>,
) -> Result<Created, ProvisionError> {
    if fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some()) || out.is_file() {
        return Err(secret_file::SecretFileError::Exists(out.to_owned()).into());
    }
    let place = |source: io::Error| ProvisionError::Place {
        path: out.to_owned(),
        source,
    };
    let out = std::path::absolute(out).map_err(place)?;
    let (Some(parent), Some(name)) = (out.parent(), out.file_name()) else {
        return Err(ProvisionError::Plan(format!("{} cannot be made", out.display())));
    };
    fs::create_dir_all(parent).map_err(place)?;
    let staging = parent.join(format!(".{}.new-{:016x}", name.to_string_lossy(), rng.next_u64()));
    secret_file::create_folder(&staging)?;
    let made = fill(plan, &staging, now, rng, bootstrap).and_then(|mut created| {
        // Over an empty folder this succeeds, over anything else it fails: also when somebody was faster.
        fs::rename(&staging, &out).map_err(place)?;
        fs::File::open(parent)
            .and_then(|folder| folder.sync_all())
            .map_err(place)?;
        created.nodes = plan
            .nodes
            .iter()
            .map(|node| out.join(node_folder(node.node)))
            .collect();
        Ok(created)
    });
    if made.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_dir_all(&staging);
    }
    made
}

fn fill(
    plan: &NewCluster,
    folder: &Path,
    now: OffsetDateTime,
    rng: &mut (impl CryptoRng + RngCore),
    bootstrap: impl Fn(&NodeMaterial<'_>) -> Result<(), HookError>,
) -> Result<Created, ProvisionError> {
    let made;
    let operator = match &plan.operator {
        Some(key) => key,
        None => {
            made = OperatorKey::generate(rng);
            made.create(&folder.join("operator.key"))?;
            &made
        }
    };
    let keys = plan.nodes.iter().map(|_| NodeKeys::generate(rng));
    let keys: Vec<NodeKeys> = keys.collect::<Result<_, _>>()?;
    let genesis = sign_genesis(plan, &keys, operator, rng)?;
    let cluster = Hex32(genesis.cluster_id());
    let authority = Authority::generate(&encode_hex(&cluster.0[..4]), now)?;
    secret_file::create_public(&folder.join("ca.pem"), authority.pem().as_bytes())?;
    secret_file::create(&folder.join("ca.key"), authority.key_pem().as_bytes())?;
    secret_file::create_public(&folder.join("genesis.json"), &genesis.to_json())?;
    for (node, keys) in plan.nodes.iter().zip(&keys) {
        let files = NodeFiles {
            common: &plan.common,
            root: folder,
            node,
            keys,
            genesis: &genesis,
            ca: authority.pem(),
            orders: None,
        };
        let config = files.write(rng)?;
        let candidate = keys.candidate(node)?;
        let certificates = authority.certify(&candidate, &cluster.0, &plan.common.public_url, now)?;
        certificates.write(&config)?;
        bootstrap(&NodeMaterial {
            config: &config,
            genesis: &genesis,
            node_key: &keys.node_key,
        })
        .map_err(|source| ProvisionError::Bootstrap {
            node: node.node,
            source,
        })?;
    }
    Ok(Created {
        cluster,
        operator: Hex32(operator.public()),
        nodes: Vec::new(),
    })
}

fn sign_genesis(
    plan: &NewCluster,
    keys: &[NodeKeys],
    operator: &OperatorKey,
    rng: &mut (impl CryptoRng + RngCore),
) -> Result<Genesis, ProvisionError> {
    let mut nonce = [0; 32];
    rng.fill_bytes(&mut nonce);
    let operators = [&[Hex32(operator.public())], plan.further_operators.as_slice()].concat();
    let numbers: Vec<u64> = plan.nodes.iter().map(|node| node.node).collect();
    let placed = |committee| place(plan.common.groups, &numbers, committee, |_| Vec::new());
    let placement = plan.placement.clone().or_else(|| plan.committee.and_then(placed));
    let body = Body {
        format: if placement.is_some() { 2 } else { 1 },
        nonce: Hex32(nonce),
        groups: plan.common.groups,
        members: plan
            .nodes
            .iter()
            .zip(keys)
            .map(|(node, keys)| keys.member(node))
            .collect(),
        operators,
        threshold: plan.threshold,
        placement,
    };
    Ok(Genesis::sign(body, operator)?)
}

/// A further node of a cluster that there is.
pub struct Joining<'a> {
    /// What it is like.
    pub common: &'a Common,
    /// Its number and addresses.
    pub node: &'a NewNode,
    /// Its secrets.
    pub keys: &'a NodeKeys,
    /// The cluster's statement.
    pub genesis: &'a Genesis,
    /// The certificate of the cluster's authority, PEM.
    pub ca: &'a str,
}

/// Makes the folder of a node that is to join, `out/node-N`, which must not be there, all but its certificates; with it what
/// operators pin of it.
///
/// `bootstrap` is called when its folder and its empty data directory are there.
pub fn create_joining(
    joining: &Joining<'_>,
    out: &Path,
    rng: &mut (impl CryptoRng + RngCore),
    bootstrap: impl Fn(&NodeMaterial<'_>) -> Result<(), HookError>,
) -> Result<Config, ProvisionError> {
    let (node, keys) = (joining.node, joining.keys);
    let files = NodeFiles {
        common: joining.common,
        root: out,
        node,
        keys,
        genesis: joining.genesis,
        ca: joining.ca,
        orders: Some(JOINING_ORDERS.into()),
    };
    let config = files.write(rng)?;
    let material = NodeMaterial {
        config: &config,
        genesis: joining.genesis,
        node_key: &keys.node_key,
    };
    bootstrap(&material).map_err(|source| ProvisionError::Bootstrap {
        node: node.node,
        source,
    })?;
    // Strings and integers only: cannot fail.
    let json = serde_json::to_vec_pretty(&keys.member(node)).unwrap_or_default();
    let path = out.join(node_folder(node.node)).join("member.json");
    secret_file::create_public(&path, &json)?;
    Ok(config)
}

/// Where a node that joined finds the orders that made it a member, in its folder.
pub const JOINING_ORDERS: &str = "orders.json";
