//! `conclave node`: members come and go, by orders that the operators sign.

mod admit;
mod change;
mod join;
mod prepare;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::de::DeserializeOwned;

use super::operator::OperatorError;
use super::seal::SealError;
use crate::config::ConfigError;
use crate::provision::genesis::{GenesisError, MAX_GENESIS};
use crate::provision::introduction::Orders;
use crate::provision::{Genesis, OperatorKey, ProvisionError};
use crate::seal::secret_file::{self, SecretFileError};
use crate::telemetry::admin::Refusal;
use crate::telemetry::client::{self, Answer, ClientError};

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
    Prepare(prepare::PrepareArguments),
    /// Prints a token that lets one new machine be seen, once and within an hour. Run it on a node of the cluster.
    #[command(after_help = "Example:\n  conclave node invite")]
    Invite {
        /// The node's admin address.
        #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9600")]
        admin: String,
    },
    /// Makes this machine's own keys and folder, shows its public keys to the cluster, and waits until operators have made it a member.
    #[command(
        after_help = "Example:\n  conclave node join --token TOKEN --node 4=10.0.0.4:9443 --admin 10.0.0.1:9600"
    )]
    Join(join::JoinArguments),
    /// Certifies the keys of a machine that asks to join; for orders that are signed step by step (`add --candidate` does it by itself).
    #[command(
        after_help = "Example:\n  conclave node admit 4=0f3a-… --cluster cluster --admin 10.0.0.1:9600"
    )]
    Admit(admit::AdmitArguments),
    /// Prints the orders that changed the members so far: a new machine needs them as orders.json, operators to sign the next.
    #[command(after_help = "Example:\n  conclave node orders --admin 127.0.0.1:9600 > orders.json")]
    Orders {
        /// A node's admin address.
        #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9600")]
        admin: String,
    },
    /// Adds a member: prepares its folder, or takes one that asks to join, signs the order, brings it, and waits until all keys are there.
    #[command(
        after_help = "Examples:\n  conclave node add --candidate 4=0f3a-… --cluster cluster --admin 10.0.0.1:9600\n  conclave node add \
                      --cluster cluster --like node.toml --node 4=10.0.0.4:9443 --admin 10.0.0.1:9600"
    )]
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

/// Where an operator's material is.
#[derive(Debug, Args)]
struct OperatorArguments {
    /// The folder that `conclave init` has made: genesis.json, and for a new member ca.key and ca.pem.
    #[arg(long, value_name = "DIR")]
    cluster: PathBuf,
    /// The operator's key; else operator.key in the cluster's folder.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

impl OperatorArguments {
    fn genesis(&self) -> Result<Genesis, NodeError> {
        genesis(&self.cluster)
    }

    fn key(&self) -> Result<OperatorKey, NodeError> {
        let beside = || self.cluster.join("operator.key");
        Ok(OperatorKey::read(&self.key.clone().unwrap_or_else(beside))?)
    }
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
    Seal(#[from] SealError),
    /// The new node's number or addresses.
    #[error("--node {0}: {1}")]
    Node(String, &'static str),
    /// The node that was asked.
    #[error(transparent)]
    Ask(#[from] ClientError),
    /// What it answered.
    #[error("{admin}: {reason}")]
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
            NodeSubcommand::Prepare(arguments) => arguments.run()?,
            NodeSubcommand::Invite { admin } => join::invite(&admin).await?,
            NodeSubcommand::Join(arguments) => arguments.run().await?,
            NodeSubcommand::Admit(arguments) => arguments.run().await?,
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
    read(admin, &answer, "it does not tell the members")
}

/// What a node answered; else why not, after `trouble`.
fn read<T: DeserializeOwned>(admin: &str, answer: &Answer, trouble: &str) -> Result<T, NodeError> {
    let told = match answer.status.is_success() {
        true => serde_json::from_slice(&answer.body).map_err(|error| error.to_string()),
        false => Err(serde_json::from_slice::<Refusal>(&answer.body)
            .map_or_else(|_| answer.status.to_string(), |refusal| refusal.error)),
    };
    told.map_err(|reason| NodeError::Answer {
        admin: admin.to_owned(),
        reason: format!("{trouble} ({reason})"),
    })
}
