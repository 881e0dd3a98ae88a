//! A change of members in one command, for operators who have the keys at hand: prepare, sign, bring, wait.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

use super::admit::Asking;
use super::prepare::PrepareArguments;
use super::{NodeError, OperatorArguments, TIMEOUT, orders, read};
use crate::cli::init::parse_committee;
use crate::cli::operator::{signed_by, submit};
use crate::config::Hex32;
use crate::membership::NewMembers;
use crate::operator::{Change, Order, SignedOrder};
use crate::provision::cluster::JOINING_ORDERS;
use crate::provision::{Genesis, OperatorKey};
use crate::seal::secret_file;
use crate::telemetry::client;
use crate::telemetry::status::NodeStatus;

/// Which change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Add,
    Remove,
    Replace,
    Place,
}

/// A change of members.
#[derive(Debug, Args)]
pub(super) struct ChangeArguments {
    /// The members that go.
    #[arg(value_name = "NODE")]
    gone: Vec<u64>,
    /// A member that comes: a number that no node of the cluster had before, and addresses as for `conclave init`.
    #[arg(
        long = "node",
        value_name = "ID=PEER_HOST:PORT[,HTTPS_IP:PORT[,ADMIN_IP:PORT]]"
    )]
    come: Vec<String>,
    /// A member that comes and has made its own keys: its number, and the fingerprint that `conclave node join` shows on it.
    #[arg(long = "candidate", value_name = "ID=FINGERPRINT")]
    candidates: Vec<String>,
    /// With --node: the configuration of a node of the cluster, which the new one's is like.
    #[arg(long, value_name = "FILE")]
    like: Option<PathBuf>,
    /// How many nodes each group is on, 3 to 5; else as many as before.
    #[arg(long, value_name = "N", value_parser = parse_committee)]
    committee: Option<usize>,
    #[command(flatten)]
    order: OrderArguments,
}

/// Where an order about the members is signed and brought.
#[derive(Debug, Args)]
pub(super) struct OrderArguments {
    #[command(flatten)]
    operator: OperatorArguments,
    /// A node's admin address (repeatable): the first that answers is asked.
    #[arg(long = "admin", value_name = "HOST:PORT", default_value = "127.0.0.1:9600")]
    admins: Vec<String>,
    /// How long to wait until it is carried out, seconds; 0: do not wait.
    #[arg(long, value_name = "SECONDS", default_value_t = 3_600)]
    timeout: u64,
}

impl ChangeArguments {
    pub(super) async fn run(self, kind: Kind) -> Result<ExitCode, NodeError> {
        let wrong = |reason: &str| Err(NodeError::Members(reason.to_owned()));
        match (kind, self.gone.len(), self.come.len() + self.candidates.len()) {
            (Kind::Add, 0, 1..) | (Kind::Remove, 1.., 0) | (Kind::Replace, 1.., 1..) => {}
            (Kind::Place, 0, 0) if self.committee.is_some() => {}
            (Kind::Place, ..) => return wrong("place wants --committee, and no member that comes or goes"),
            (Kind::Add, ..) => {
                return wrong("add wants one --candidate or --node, or more, and no member that goes");
            }
            (Kind::Remove, ..) => return wrong("remove wants the members that go, and none that comes"),
            (Kind::Replace, ..) => {
                return wrong(
                    "replace wants the members that go, and as --candidate or --node those that come",
                );
            }
        }
        let genesis = self.order.operator.genesis()?;
        let key = self.order.operator.key()?;
        let (admin, status) = self.order.first_that_answers().await?;
        let mut so_far = orders(&admin).await?;
        let mut come = Vec::new();
        let mut folders = Vec::new();
        for node in &self.come {
            let like = self.like.clone().ok_or_else(|| {
                NodeError::Members("with --node, --like FILE names a configuration to follow".into())
            })?;
            let arguments = PrepareArguments {
                cluster: self.order.operator.cluster.clone(),
                like,
                node: node.clone(),
            };
            let (member, folder) = arguments.prepare(&genesis)?;
            println!("node {}: {} is made", member.node, folder.display());
            come.push(member);
            folders.push(folder);
        }
        let mut asking = Vec::new();
        for named in &self.candidates {
            let machine = Asking::find(&self.order.admins, named).await?;
            come.push(machine.candidate.member.clone());
            asking.push(machine);
        }
        let new = so_far
            .next(&genesis, (&come, &self.gone), self.committee)
            .map_err(NodeError::Members)?;
        let number = new.number;
        let order = sign(new, &status, &genesis, &key)?;
        so_far.orders.push(order.clone());
        for folder in &folders {
            secret_file::replace_public(&folder.join(JOINING_ORDERS), &so_far.to_json())?;
        }
        submit(&order, &admin).await?;
        println!(
            "order {}: the cluster changes to members {number}",
            order.order.sequence
        );
        for machine in &asking {
            machine
                .admit(&self.order.operator.cluster, &genesis, &key)
                .await?;
        }
        for folder in &folders {
            println!(
                "start it now: conclave server --config {}",
                folder.join("node.toml").display()
            );
        }
        std::io::stdout().flush()?;
        self.order.wait(number).await
    }
}

impl OrderArguments {
    /// Takes the order under way back.
    pub(super) async fn withdraw(self) -> Result<ExitCode, NodeError> {
        let genesis = self.operator.genesis()?;
        let key = self.operator.key()?;
        let (admin, status) = self.first_that_answers().await?;
        if status.members.under_way.is_empty() {
            let reason = "no change of members is under way that could be taken back";
            return Err(NodeError::Members(reason.into()));
        }
        let new = orders(&admin).await?.withdrawal(&genesis);
        let new = new.map_err(NodeError::Members)?;
        let number = new.number;
        let order = sign(new, &status, &genesis, &key)?;
        submit(&order, &admin).await?;
        println!(
            "order {}: the change of members is taken back",
            order.order.sequence
        );
        self.wait(number).await
    }

    async fn wait(&self, number: u64) -> Result<ExitCode, NodeError> {
        match self.timeout {
            0 => Ok(ExitCode::SUCCESS),
            seconds => wait(&self.admins, number, Duration::from_secs(seconds)).await,
        }
    }

    async fn first_that_answers(&self) -> Result<(String, NodeStatus), NodeError> {
        let mut last = None;
        for admin in &self.admins {
            match status(admin).await {
                Ok(status) => return Ok((admin.clone(), status)),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| NodeError::Members("give --admin of a node that is up".into())))
    }
}

fn sign(
    new: NewMembers,
    status: &NodeStatus,
    genesis: &Genesis,
    key: &OperatorKey,
) -> Result<SignedOrder, NodeError> {
    let order = Order {
        cluster: Hex32(genesis.cluster_id()),
        sequence: status.last_order + 1,
        change: Change::Members(new),
    };
    Ok(signed_by(SignedOrder::new(order), genesis, key)?)
}

pub(super) async fn status(admin: &str) -> Result<NodeStatus, NodeError> {
    let answer = client::get(admin, "/status", TIMEOUT).await?;
    read(admin, &answer, "it does not tell its status")
}

/// Waits until the list of members of this number, or the last one that is known if that is later, is that of every group; a line
/// for each step. A node that cannot tell yet is asked again.
pub(super) async fn wait(admins: &[String], number: u64, timeout: Duration) -> Result<ExitCode, NodeError> {
    let begun = Instant::now();
    let mut shown = String::new();
    loop {
        for admin in admins {
            let Ok(status) = status(admin).await else { continue };
            let line = progress(&status);
            if line != shown {
                println!("{:>5} s  {line}", begun.elapsed().as_secs());
                std::io::stdout().flush()?;
                shown = line;
            }
            let known = status.members.number >= number.max(1);
            if known && status.members.under_way.is_empty() {
                return Ok(ExitCode::SUCCESS);
            }
            break;
        }
        if begun.elapsed() > timeout {
            eprintln!("It goes on by itself; `conclave node wait` shows how far it is.");
            return Ok(ExitCode::FAILURE);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn progress(status: &NodeStatus) -> String {
    let members = &status.members;
    let all = status.groups.len();
    match members.under_way.len() {
        0 => format!(
            "members {}: nodes {:?}; every key is with them",
            members.number, members.nodes
        ),
        left => {
            let keys: u64 = status.due_for_renewal;
            format!(
                "{} of {all} groups are with members {}; keys still to move in the groups that node {} leads: {keys}",
                all - left.min(all),
                members.number,
                status.node
            )
        }
    }
}
