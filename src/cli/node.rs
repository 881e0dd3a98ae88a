//! `conclave node`: members come and go, by orders that the operators sign.

mod change;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use rand::rngs::OsRng;
use time::OffsetDateTime;

use super::init::{parse_node, seal_plan};
use super::operator::OperatorError;
use crate::config::fields::encode_hex;
use crate::config::{Config, ConfigError};
use crate::node::prepare_joining;
use crate::provision::cluster::{JOINING_ORDERS, Joining, create_joining, node_folder};
use crate::provision::genesis::{GenesisError, MAX_GENESIS, Member as Pinned};
use crate::provision::introduction::Orders;
use crate::provision::{Genesis, NewCluster, ProvisionError, certificates::Authority};
use crate::seal::secret_file::{self, SecretFileError};
use crate::telemetry::client::{self, ClientError};

/// Adds, removes and replaces members.
///
/// Every change is an order that the operators sign: it names all members after it with their public keys, and every node
/// verifies it. Keys move to the new members as shares; no key is ever whole, and they go on being used meanwhile.
#[derive(Debug, Args)]
pub struct NodeCommand {
    #[command(subcommand)]
    command: NodeSubcommand,
}

#[derive(Debug, Subcommand)]
enum NodeSubcommand {
    /// Makes the folder of a new machine, and what the operators sign of it (member.json).
    #[command(
        after_help = "Example:\n  conclave node prepare --cluster cluster --like cluster/node-1/node.toml --node 4=10.0.0.4:9443"
    )]
    Prepare(PrepareArguments),
    /// Prints the orders that changed the members so far: a new machine needs them as orders.json, operators to sign the next.
    #[command(after_help = "Example:\n  conclave node orders --admin 127.0.0.1:9600 > orders.json")]
    Orders {
        /// A node's admin address.
        #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9600")]
        admin: String,
    },
    /// Adds a member: prepares its folder, signs the order, brings it, and waits until all keys are there.
    #[command(visible_alias = "join")]
    Add(change::ChangeArguments),
    /// Removes a member, whether it is up or not; what it holds is worth nothing afterwards.
    #[command(visible_alias = "drain")]
    Remove(change::ChangeArguments),
    /// Puts a new machine in the place of a member, whether that one is up or lost.
    #[command(
        after_help = "Example:\n  conclave node replace 3 --cluster cluster --like node.toml --node 4=10.0.0.4:9443 --admin \
                      127.0.0.1:9600"
    )]
    Replace(change::ChangeArguments),
    /// Puts the groups, and with them the keys, on other nodes of the cluster: --committee of them each, evenly.
    #[command(
        after_help = "Example:\n  conclave node place --committee 3 --cluster cluster --admin 127.0.0.1:9600"
    )]
    Place(change::ChangeArguments),
    /// Takes back the order to change the members that is under way, as long as no group has begun to move: of a new machine that
    /// does not come up, say.
    #[command(after_help = "Example:\n  conclave node withdraw --cluster cluster --admin 127.0.0.1:9600")]
    Withdraw(change::OrderArguments),
    /// Shows how far a change of members is, until it is carried out.
    Wait {
        /// A node's admin address (repeatable).
        #[arg(long = "admin", value_name = "HOST:PORT", default_value = "127.0.0.1:9600")]
        admin: String,
        /// How long to wait, seconds.
        #[arg(long, value_name = "SECONDS", default_value_t = 3_600)]
        timeout: u64,
    },
}

/// What a new machine's folder is made from.
#[derive(Debug, Args)]
struct PrepareArguments {
    /// The folder that `conclave init` has made, with ca.key, ca.pem and genesis.json; node-N is made in it.
    #[arg(long, value_name = "DIR")]
    cluster: PathBuf,
    /// The configuration of a node of the cluster: the new one is like it but for its number and addresses.
    #[arg(long, value_name = "FILE")]
    like: PathBuf,
    /// The new member: a number that no node of the cluster had before, and addresses as for `conclave init`.
    #[arg(long, value_name = "ID=PEER_HOST:PORT[,HTTPS_IP:PORT[,ADMIN_IP:PORT]]")]
    node: String,
}

/// Why nothing was changed, or not all.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// A file.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// The genesis statement.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    /// The configuration that the new node's is to be like.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The material of the new node.
    #[error(transparent)]
    Provision(#[from] ProvisionError),
    /// The passphrase.
    #[error(transparent)]
    Seal(#[from] super::init::InitError),
    /// The new node's number or addresses.
    #[error("--node {0}: {1}")]
    Node(String, &'static str),
    /// The node that was asked.
    #[error(transparent)]
    Ask(#[from] ClientError),
    /// What it answered.
    #[error("{admin} does not tell the members ({reason})")]
    Answer {
        /// Who was asked.
        admin: String,
        /// What was wrong.
        reason: String,
    },
    /// Signing or bringing the order.
    #[error(transparent)]
    Order(#[from] OperatorError),
    /// The members cannot be so.
    #[error("{0}")]
    Members(String),
    /// Nothing could be printed.
    #[error("cannot print")]
    Print(#[from] std::io::Error),
}

const TIMEOUT: Duration = Duration::from_secs(5);

impl NodeCommand {
    /// Runs it.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn run(self) -> Result<ExitCode, NodeError> {
        match self.command {
            NodeSubcommand::Prepare(arguments) => {
                let genesis = genesis(&arguments.cluster)?;
                let (member, folder) = prepare(&arguments, &genesis)?;
                println!("{} is made for node {}.", folder.display(), member.node);
                println!("\nNext:");
                println!(
                    "  on the operator's machine: conclave operator sign members --add {}",
                    folder.join("member.json").display()
                );
                println!(
                    "  then: conclave operator submit, and put what `conclave node orders` prints into {}.",
                    folder.join(JOINING_ORDERS).display()
                );
                println!("  Copy the folder to its machine, remove it here, and start the server there.");
            }
            NodeSubcommand::Orders { admin } => {
                let orders = orders(&admin).await?;
                std::io::stdout().write_all(&orders.to_json())?;
            }
            NodeSubcommand::Add(arguments) => return arguments.run(change::Kind::Add).await,
            NodeSubcommand::Remove(arguments) => return arguments.run(change::Kind::Remove).await,
            NodeSubcommand::Replace(arguments) => return arguments.run(change::Kind::Replace).await,
            NodeSubcommand::Place(arguments) => return arguments.run(change::Kind::Place).await,
            NodeSubcommand::Withdraw(arguments) => return arguments.withdraw().await,
            NodeSubcommand::Wait { admin, timeout } => {
                return change::wait(&[admin], 1, Duration::from_secs(timeout)).await;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn genesis(cluster: &Path) -> Result<Genesis, NodeError> {
    let bytes = secret_file::read_public(&cluster.join("genesis.json"), MAX_GENESIS)?;
    Ok(Genesis::parse(&bytes)?)
}

/// The orders that changed the members so far, as a node tells them.
async fn orders(admin: &str) -> Result<Orders, NodeError> {
    let answer = client::get(admin, "/orders", TIMEOUT).await?;
    let parsed = match answer.status.is_success() {
        true => serde_json::from_slice(&answer.body).map_err(|error| error.to_string()),
        false => Err(answer.status.to_string()),
    };
    parsed.map_err(|reason| NodeError::Answer {
        admin: admin.to_owned(),
        reason,
    })
}

/// Makes the new node's folder.
fn prepare(arguments: &PrepareArguments, genesis: &Genesis) -> Result<(Pinned, PathBuf), NodeError> {
    let like = Config::load(&arguments.like)?;
    let node = parse_node(&arguments.node, like.public_url.port())
        .map_err(|reason| NodeError::Node(arguments.node.clone(), reason))?;
    let number = node.node;
    let now = OffsetDateTime::now_utc();
    let authority = authority(&arguments.cluster, genesis, now)?;
    let plan = NewCluster {
        public_url: like.public_url.clone(),
        nodes: vec![node],
        groups: like.groups,
        meter_admins: like.meter_admins.clone(),
        trust_forwarded_for: like.trust_forwarded_for,
        operator: None,
        further_operators: Vec::new(),
        threshold: genesis.body().threshold,
        committee: None,
        placement: None,
        seal: seal_plan(&like.seal)?,
        log: like.log,
    };
    let joining = Joining {
        plan: &plan,
        genesis,
        authority: &authority,
    };
    let member = create_joining(&joining, &arguments.cluster, now, &mut OsRng, prepare_joining)?;
    Ok((member, arguments.cluster.join(node_folder(number))))
}

fn authority(cluster: &Path, genesis: &Genesis, now: OffsetDateTime) -> Result<Authority, NodeError> {
    const MAX_PEM: usize = 64 * 1024;
    let malformed = |path: PathBuf| ProvisionError::Malformed {
        path,
        expected: "PEM in UTF-8",
    };
    let path = cluster.join("ca.pem");
    let pem = String::from_utf8(secret_file::read_public(&path, MAX_PEM)?);
    let pem = pem.map_err(|_| malformed(path))?;
    let path = cluster.join("ca.key");
    let key = secret_file::read(&path, MAX_PEM)?;
    let key = std::str::from_utf8(&key).map_err(|_| malformed(path))?;
    let label = encode_hex(&genesis.cluster_id()[..4]);
    Ok(Authority::open(&label, pem, key, now)?)
}
