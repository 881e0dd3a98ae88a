//! `conclave operator`: signs orders on a machine without network, and brings them to a node.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, Subcommand, ValueEnum};
use hyper::StatusCode;

use crate::cli::init::parse_committee;
use crate::config::Hex32;
use crate::membership::NewMembers;
use crate::operator::{Change, MAX_ORDER, Order, SignedOrder};
use crate::provision::genesis::{GenesisError, MAX_GENESIS};
use crate::provision::introduction::Orders;
use crate::provision::{Genesis, OperatorKey, ProvisionError};
use crate::seal::secret_file::{self, SecretFileError};
use crate::telemetry::admin::Refusal;
use crate::telemetry::client::{self, ClientError};

/// Signs operators' orders, and brings them to the cluster.
#[derive(Debug, Args)]
pub struct OperatorCommand {
    #[command(subcommand)]
    command: OperatorSubcommand,
}

#[derive(Debug, Subcommand)]
enum OperatorSubcommand {
    /// Signs an order. Needs no network: the operator's key stays where it is.
    #[command(
        after_help = "Examples:\n  conclave operator sign renew-shares --sequence 1 --genesis genesis.json --key operator.key > \
                      order.json\n  conclave operator sign members --orders orders.json --add member.json --remove 3 --sequence 2 \
                      --genesis genesis.json --key operator.key > order.json\n  conclave operator sign --order order.json --genesis genesis.json --key second.key > \
                      signed.json"
    )]
    Sign {
        /// What is to be done; or --order.
        #[arg(value_enum, required_unless_present = "order", requires = "sequence")]
        change: Option<ChangeArgument>,
        /// An order that another operator has signed, to sign it as well.
        #[arg(long, value_name = "FILE", conflicts_with_all = ["change", "sequence"])]
        order: Option<PathBuf>,
        /// The order's number: the last one's, which `conclave status` shows, and 1.
        #[arg(long, value_name = "NUMBER")]
        sequence: Option<u64>,
        /// With members and withdrawal: the orders that changed them so far, as `conclave node orders` prints them.
        #[arg(long, value_name = "FILE")]
        orders: Option<PathBuf>,
        /// With members: one that comes, the member.json of `conclave node prepare` (repeatable).
        #[arg(long, value_name = "FILE")]
        add: Vec<PathBuf>,
        /// With members: one that goes (repeatable).
        #[arg(long, value_name = "NODE")]
        remove: Vec<u64>,
        /// With members: how many nodes each group is on, 3 to 5; else as many as before.
        #[arg(long, value_name = "N", value_parser = parse_committee)]
        committee: Option<usize>,
        /// The cluster's genesis statement.
        #[arg(long, value_name = "FILE")]
        genesis: PathBuf,
        /// The operator's key.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
    /// Brings a signed order to a node, which needs no rights for it: the signatures count.
    #[command(after_help = "Example:\n  conclave operator submit --admin 127.0.0.1:9600 order.json")]
    Submit {
        /// The order.
        order: PathBuf,
        /// The node's admin address.
        #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9600")]
        admin: String,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ChangeArgument {
    /// Make all key shares anew, whatever their age: what was stolen of them before is worth nothing after.
    RenewShares,
    /// Other members: --add and --remove say which; or other places of groups: --committee.
    Members,
    /// Takes the last order for other members back, as long as no group has begun to move: wants --orders.
    Withdrawal,
}

/// Why an order was not signed or brought.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// The genesis statement is not to be believed.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    /// The operator's key cannot be used.
    #[error(transparent)]
    Key(#[from] ProvisionError),
    /// Not an order.
    #[error("{0} is no operators' order of this version")]
    Malformed(PathBuf),
    /// The order and the genesis statement name different clusters.
    #[error("the order is for cluster {order}, the genesis statement is that of {genesis}")]
    OtherCluster {
        /// The order's.
        order: Hex32,
        /// The genesis statement's.
        genesis: Hex32,
    },
    /// The key is not one of the operators'.
    #[error("the key is not that of an operator of this cluster")]
    Stranger,
    /// There can be no such list of members.
    #[error("{0}")]
    Members(String),
    /// Nothing could be printed.
    #[error("cannot write the order")]
    Write(#[from] std::io::Error),
    /// The node did not answer.
    #[error(transparent)]
    Ask(#[from] ClientError),
    /// The node did not take it.
    #[error("{admin} did not take the order ({status}): {reason}")]
    Refused {
        /// Who was asked.
        admin: String,
        /// The HTTP status.
        status: StatusCode,
        /// What it said.
        reason: String,
    },
}

const TIMEOUT: Duration = Duration::from_secs(15);

impl OperatorCommand {
    /// Runs it.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn run(self) -> Result<ExitCode, OperatorError> {
        match self.command {
            OperatorSubcommand::Sign {
                change,
                order,
                sequence,
                orders,
                add,
                remove,
                committee,
                genesis,
                key,
            } => {
                let genesis = Genesis::parse(&secret_file::read_public(&genesis, MAX_GENESIS)?)?;
                let order = match (order, change) {
                    (Some(file), _) => read(&file)?,
                    (None, change) => SignedOrder::new(Order {
                        cluster: Hex32(genesis.cluster_id()),
                        sequence: sequence.unwrap_or_default(),
                        change: match change {
                            Some(ChangeArgument::RenewShares) | None => Change::RenewShares,
                            Some(ChangeArgument::Members) => {
                                let changes = (&add[..], &remove[..]);
                                Change::Members(new_members(&genesis, orders.as_deref(), changes, committee)?)
                            }
                            Some(ChangeArgument::Withdrawal) => {
                                let orders = orders
                                    .as_deref()
                                    .map(Orders::read)
                                    .transpose()?
                                    .unwrap_or_default();
                                let new = orders.withdrawal(&genesis);
                                Change::Members(new.map_err(OperatorError::Members)?)
                            }
                        },
                    }),
                };
                sign(order, &genesis, &OperatorKey::read(&key)?)
            }
            OperatorSubcommand::Submit { order, admin } => {
                let order = read(&order)?;
                submit(&order, &admin).await?;
                println!("order {} is in force", order.order.sequence);
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

fn read(file: &Path) -> Result<SignedOrder, OperatorError> {
    let bytes = secret_file::read_public(file, MAX_ORDER)?;
    serde_json::from_slice(&bytes).map_err(|_| OperatorError::Malformed(file.to_owned()))
}

/// The next list of members after those of the orders so far; without a file the genesis statement's.
fn new_members(
    genesis: &Genesis,
    orders: Option<&Path>,
    (add, remove): (&[PathBuf], &[u64]),
    committee: Option<usize>,
) -> Result<NewMembers, OperatorError> {
    const MAX_MEMBER: usize = 4 * 1024;
    let orders = orders.map(Orders::read).transpose()?.unwrap_or_default();
    let mut come = Vec::new();
    for file in add {
        let bytes = secret_file::read_public(file, MAX_MEMBER)?;
        let member = serde_json::from_slice(&bytes);
        come.push(member.map_err(|_| OperatorError::Malformed(file.clone()))?);
    }
    orders
        .next(genesis, (&come, remove), committee)
        .map_err(OperatorError::Members)
}

fn sign(order: SignedOrder, genesis: &Genesis, key: &OperatorKey) -> Result<ExitCode, OperatorError> {
    let order = signed_by(order, genesis, key)?;
    std::io::stdout().write_all(&order.to_json())?;
    Ok(ExitCode::SUCCESS)
}

/// Adds an operator's signature, and says on standard error what is signed.
pub(super) fn signed_by(
    mut order: SignedOrder,
    genesis: &Genesis,
    key: &OperatorKey,
) -> Result<SignedOrder, OperatorError> {
    let cluster = Hex32(genesis.cluster_id());
    if order.order.cluster != cluster {
        return Err(OperatorError::OtherCluster {
            order: order.order.cluster,
            genesis: cluster,
        });
    }
    let body = genesis.body();
    if !body.operators.contains(&Hex32(key.public())) {
        return Err(OperatorError::Stranger);
    }
    order.add(key.sign(&order.order.signed_bytes()));
    let Order { sequence, change, .. } = &order.order;
    eprintln!("Order {sequence} of cluster {cluster}: {}.", change.explain());
    eprintln!(
        "Signed by {} operators; {} must sign it.",
        order.signed(),
        body.threshold
    );
    Ok(order)
}

/// Brings an order to a node.
pub(super) async fn submit(order: &SignedOrder, admin: &str) -> Result<(), OperatorError> {
    let answer = client::post(admin, "/orders", Bytes::from(order.to_json()), TIMEOUT).await?;
    if answer.status == StatusCode::NO_CONTENT {
        return Ok(());
    }
    let reason = serde_json::from_slice::<Refusal>(&answer.body);
    Err(OperatorError::Refused {
        admin: admin.to_owned(),
        status: answer.status,
        reason: reason.map(|refusal| refusal.error).unwrap_or_default(),
    })
}
