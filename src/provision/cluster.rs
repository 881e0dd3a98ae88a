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

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rand::{CryptoRng, RngCore};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::{
    Genesis, Identity, OperatorKey, ProvisionError,
    certificates::Authority,
    genesis::{Body, Member},
};
use crate::{
    config::{
        Audit, Config, Hex32, Https, Limits, Listen, Log, MeterAdmins, Operators, PeerFiles, PublicUrl, Raft,
        SealMethod, Twins, fields::encode_hex,
    },
    membership::{Placement, placement::place},
    seal::{
        NodeKey,
        passphrase::{Cost, SealedNodeKey},
        secret_file,
    },
};

/// What a new cluster is to be.
pub struct NewCluster {
    /// Its public URL.
    pub public_url: PublicUrl,
    /// Its first members, by rising number.
    pub nodes: Vec<NewNode>,
    /// Number of Raft groups.
    pub groups: u32,
    /// Who may create meters.
    pub meter_admins: MeterAdmins,
    /// Whether `X-Forwarded-For` is believed.
    pub trust_forwarded_for: bool,
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
    /// How the nodes get their keys.
    pub seal: SealPlan,
    /// Logs.
    pub log: Log,
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
    let identities: Vec<Identity> = plan.nodes.iter().map(|_| Identity::generate(rng)).collect();
    let genesis = sign_genesis(plan, &identities, operator, rng)?;
    let cluster = Hex32(genesis.cluster_id());
    let authority = Authority::generate(&encode_hex(&cluster.0[..4]), now)?;
    secret_file::create_public(&folder.join("ca.pem"), authority.pem().as_bytes())?;
    secret_file::create(&folder.join("ca.key"), authority.key_pem().as_bytes())?;
    secret_file::create_public(&folder.join("genesis.json"), &genesis.to_json())?;
    if matches!(plan.seal, SealPlan::Credential(_) | SealPlan::Command(_)) {
        secret_file::create_folder(&folder.join("keys"))?;
    }
    for (node, identity) in plan.nodes.iter().zip(&identities) {
        let files = NodeFiles {
            plan,
            root: folder,
            node,
            identity,
            genesis: &genesis,
            authority: &authority,
            orders: None,
        };
        let node_key = NodeKey::generate(rng);
        let config = files.write(&node_key, now, rng)?;
        bootstrap(&NodeMaterial {
            config: &config,
            genesis: &genesis,
            node_key: &node_key,
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
    identities: &[Identity],
    operator: &OperatorKey,
    rng: &mut (impl CryptoRng + RngCore),
) -> Result<Genesis, ProvisionError> {
    let mut nonce = [0; 32];
    rng.fill_bytes(&mut nonce);
    let member = |(node, identity): (&NewNode, &Identity)| Member {
        node: node.node,
        peer: node.peer.clone(),
        identity: Hex32(identity.public()),
        envelope: Hex32(identity.envelope_public()),
    };
    let operators = [&[Hex32(operator.public())], plan.further_operators.as_slice()].concat();
    let numbers: Vec<u64> = plan.nodes.iter().map(|node| node.node).collect();
    let placed = |committee| place(plan.groups, &numbers, committee, |_| Vec::new());
    let placement = plan.placement.clone().or_else(|| plan.committee.and_then(placed));
    let body = Body {
        format: if placement.is_some() { 2 } else { 1 },
        nonce: Hex32(nonce),
        groups: plan.groups,
        members: plan.nodes.iter().zip(identities).map(member).collect(),
        operators,
        threshold: plan.threshold,
        placement,
    };
    Ok(Genesis::sign(body, operator)?)
}

/// A further node of a cluster that there is: what it is like beside its own numbers and addresses.
pub struct Joining<'a> {
    /// The cluster's public URL, meter admins, seal and so on; its nodes are the one that joins.
    pub plan: &'a NewCluster,
    /// The cluster's statement.
    pub genesis: &'a Genesis,
    /// The cluster's authority.
    pub authority: &'a Authority,
}

/// Makes the folder of a node that is to join, `out/node-N`, which must not be there; with it what operators pin of it.
///
/// `bootstrap` is called when its folder and its empty data directory are there.
pub fn create_joining(
    joining: &Joining<'_>,
    out: &Path,
    now: OffsetDateTime,
    rng: &mut (impl CryptoRng + RngCore),
    bootstrap: impl Fn(&NodeMaterial<'_>) -> Result<(), HookError>,
) -> Result<Member, ProvisionError> {
    let [node] = &joining.plan.nodes[..] else {
        return Err(ProvisionError::Plan("one node joins at a time".into()));
    };
    let identity = Identity::generate(rng);
    let node_key = NodeKey::generate(rng);
    if matches!(joining.plan.seal, SealPlan::Credential(_) | SealPlan::Command(_)) {
        let keys = out.join("keys");
        if !keys.is_dir() {
            secret_file::create_folder(&keys)?;
        }
    }
    let files = NodeFiles {
        plan: joining.plan,
        root: out,
        node,
        identity: &identity,
        genesis: joining.genesis,
        authority: joining.authority,
        orders: Some(JOINING_ORDERS.into()),
    };
    let config = files.write(&node_key, now, rng)?;
    let material = NodeMaterial {
        config: &config,
        genesis: joining.genesis,
        node_key: &node_key,
    };
    bootstrap(&material).map_err(|source| ProvisionError::Bootstrap {
        node: node.node,
        source,
    })?;
    let member = Member {
        node: node.node,
        peer: node.peer.clone(),
        identity: Hex32(identity.public()),
        envelope: Hex32(identity.envelope_public()),
    };
    let path = out.join(node_folder(node.node)).join("member.json");
    // Strings and integers only: cannot fail.
    let json = serde_json::to_vec_pretty(&member).unwrap_or_default();
    secret_file::create_public(&path, &json)?;
    Ok(member)
}

/// Where a node that joined finds the orders that made it a member, in its folder.
pub const JOINING_ORDERS: &str = "orders.json";

/// What one node's folder is made of.
struct NodeFiles<'a> {
    plan: &'a NewCluster,
    root: &'a Path,
    node: &'a NewNode,
    identity: &'a Identity,
    genesis: &'a Genesis,
    authority: &'a Authority,
    /// Of a node that joins later: where the orders that made it a member are.
    orders: Option<PathBuf>,
}

impl NodeFiles<'_> {
    fn write(
        &self,
        node_key: &NodeKey,
        now: OffsetDateTime,
        rng: &mut (impl CryptoRng + RngCore),
    ) -> Result<Config, ProvisionError> {
        let folder = self.root.join(node_folder(self.node.node));
        secret_file::create_folder(&folder)?;
        secret_file::create_folder(&folder.join("data"))?;
        let cluster = self.genesis.cluster_id();
        let node = self.node.node;
        let config = self.config();
        let public = self.authority.issue_public(&self.plan.public_url, now)?;
        secret_file::create_public(
            &folder.join(&config.https.certificate),
            public.certificate.as_bytes(),
        )?;
        secret_file::create(&folder.join(&config.https.key), public.key.as_bytes())?;
        let key = Zeroizing::new(self.identity.peer_private_key().secret_pkcs8_der().to_vec());
        let peer = self
            .authority
            .issue_peer(node, &cluster, &key.as_slice().into(), now)?;
        secret_file::create_public(&folder.join(&config.peer.certificate), peer.as_bytes())?;
        secret_file::create_public(&folder.join(&config.peer.ca), self.authority.pem().as_bytes())?;
        secret_file::create_public(&folder.join(&config.genesis), &self.genesis.to_json())?;
        self.identity
            .create(&folder.join(&config.peer.identity), &cluster, node, node_key, rng)?;
        let key_text = || Zeroizing::new(format!("{}\n", *Zeroizing::new(encode_hex(node_key.expose()))));
        match (&self.plan.seal, &config.seal) {
            (SealPlan::Passphrase(passphrase, cost), SealMethod::Passphrase { path }) => {
                let sealed = SealedNodeKey::seal(node_key, passphrase, *cost, &cluster, node, rng)?;
                secret_file::create(&folder.join(path), &sealed.to_json())?;
            }
            (_, SealMethod::File { path }) => secret_file::create(&folder.join(path), key_text().as_bytes())?,
            _ => {
                let path = self.root.join("keys").join(format!("{}.key", node_folder(node)));
                secret_file::create(&path, key_text().as_bytes())?;
            }
        }
        let path = folder.join("node.toml");
        secret_file::create_public(&path, &config_text(&config)?)?;
        Ok(Config::load(&path)?)
    }

    /// With paths relative to the node's folder.
    fn config(&self) -> Config {
        let body = self.genesis.body();
        Config {
            cluster: Hex32(self.genesis.cluster_id()),
            node: self.node.node,
            public_url: self.plan.public_url.clone(),
            data_dir: "data".into(),
            genesis: "genesis.json".into(),
            orders: self.orders.clone(),
            meter_admins: self.plan.meter_admins.clone(),
            trust_forwarded_for: self.plan.trust_forwarded_for,
            groups: self.plan.groups,
            twins: Twins::default(),
            listen: self.node.listen,
            https: Https {
                certificate: "https.pem".into(),
                key: "https.key".into(),
            },
            peer: PeerFiles {
                certificate: "peer.pem".into(),
                identity: "identity.sealed".into(),
                ca: "ca.pem".into(),
            },
            seal: match &self.plan.seal {
                SealPlan::File => SealMethod::File {
                    path: "node.key".into(),
                },
                SealPlan::Passphrase(..) => SealMethod::Passphrase {
                    path: "passphrase.json".into(),
                },
                SealPlan::Credential(name) => SealMethod::Credential { name: name.clone() },
                SealPlan::Command(command) => SealMethod::Command {
                    command: command.clone(),
                    timeout_seconds: 30,
                },
            },
            operators: Operators {
                keys: body.operators.clone(),
                threshold: body.threshold,
            },
            addresses: Default::default(),
            raft: Raft::default(),
            audit: Audit::default(),
            renewal: Default::default(),
            limits: Limits::default(),
            log: self.plan.log.clone(),
            backup: None,
        }
    }
}

/// A configuration as a file, with a pointer to where its keys are explained.
pub fn config_text(config: &Config) -> Result<Vec<u8>, ProvisionError> {
    let text = toml::to_string_pretty(config)
        .map_err(|error| ProvisionError::Plan(format!("the configuration cannot be written: {error}")))?;
    Ok(format!(
        "# One node of a Conclave cluster. Every key is explained in deploy/node.example.toml.\n\n{text}"
    )
    .into_bytes())
}
