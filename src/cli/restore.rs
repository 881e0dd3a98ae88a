//! `conclave restore`: brings a lost cluster back, node by node, into a new one that `conclave init` has made.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use conclave_threshold::envelope::EnvelopeKey;
use serde_json::json;

use super::unseal::{PromptError, read_passphrase};
use crate::config::{Config, ConfigError, SealMethod, fields::encode_hex};
use crate::membership::quorum_of;
use crate::node::{restoration, share_store};
use crate::provision::lock::{DirectoryLock, LockError};
use crate::provision::start::read_genesis;
use crate::provision::{Genesis, ProvisionError, Started};
use crate::recovery::request::{Answer, MAX_ANSWER, Request};
use crate::recovery::restore::{Restored, Target, restore};
use crate::recovery::survey::{Backup, Named, Survey, read_header, survey};
use crate::recovery::{RecoveryError, VerifiedHeader};
use crate::seal::passphrase::{PassphraseError, SealedNodeKey};
use crate::seal::{self, NodeKey, SealError, secret_file, unseal};

/// Brings a lost cluster back from its nodes' backups, under the same public keys.
///
/// First make an empty cluster with the same node numbers and public URL (`conclave init`, with the old operator's key) and
/// start none of its nodes. Then, on the machine of each: `request`, send the request to a quorum of recovery officers, and
/// `run` with their answers. Give every node the same backups: those of a quorum of nodes at least.
#[derive(Debug, Args)]
pub struct RestoreCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Writes what this node asks the recovery officers for: the shares in its own backup, the state in all.
    #[command(
        after_help = "Example:\n  conclave restore request --config node-1/node.toml --backup node-1.backup --backup node-2.backup \
                      --out request-node-1.json"
    )]
    Request(RequestArguments),
    /// Restores this node with the officers' answers. Its next start is its first.
    #[command(
        after_help = "Example:\n  conclave restore run --config node-1/node.toml --backup node-1.backup --backup node-2.backup \
                      --answer request-node-1.officer-1.json --answer request-node-1.officer-3.json --answer \
                      request-node-1.officer-4.json"
    )]
    Run(RunArguments),
}

#[derive(Debug, Args)]
struct RequestArguments {
    #[command(flatten)]
    about: AboutArguments,
    /// The new file for the request.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Debug, Args)]
struct AboutArguments {
    /// The configuration of this node of the new cluster.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// A node's backup (repeatable); those of a quorum of nodes, the same on every machine.
    #[arg(long = "backup", value_name = "FILE", required = true)]
    backups: Vec<PathBuf>,
}

#[derive(Debug, Args)]
struct RunArguments {
    #[command(flatten)]
    about: AboutArguments,
    /// An officer's answer to this node's request (repeatable).
    #[arg(long = "answer", value_name = "FILE", required = true)]
    answers: Vec<PathBuf>,
    /// Let delegated capabilities hold at once, although revocations that are younger than the newest backup are lost. Without
    /// it a keystore's delegations are refused until its controller updates its configuration.
    #[arg(long)]
    accept_lost_revocations: bool,
    /// Print facts as JSON.
    #[arg(long)]
    json: bool,
}

/// Why a node was not restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The configuration of the new node.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Its material.
    #[error(transparent)]
    Provision(#[from] ProvisionError),
    /// Somebody uses its data directory.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Its node key.
    #[error("the node key")]
    Seal(#[from] SealError),
    /// A passphrase was not given.
    #[error("the node's passphrase")]
    Prompt(#[from] PromptError),
    /// A passphrase is wrong.
    #[error("the node's passphrase")]
    Passphrase(#[from] PassphraseError),
    /// Backups, officers, or the node's disks.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
}

impl RestoreCommand {
    /// Runs it.
    ///
    /// # Errors
    /// [`RestoreError`].
    pub async fn run(self) -> Result<ExitCode, RestoreError> {
        match self.action {
            Action::Request(arguments) => request(&arguments),
            Action::Run(arguments) => run(&arguments).await,
        }
    }
}

/// What a node of the new cluster asks for.
struct Asked {
    config: Config,
    request: Request,
    /// Headers with their files, in the request's order.
    backups: Vec<(PathBuf, VerifiedHeader)>,
}

impl AboutArguments {
    fn load(&self) -> Result<Asked, RestoreError> {
        let config = Config::load(&self.config)?;
        let genesis = read_genesis(&config)?;
        let mut backups = Vec::new();
        for path in &self.backups {
            backups.push((path.clone(), read_header(path)?));
        }
        backups.sort_by_key(|(_, header)| header.header.node);
        enough_of_each_group(&genesis, &backups)?;
        let headers = backups.iter().map(|(_, header)| header.clone()).collect();
        let url = config.public_url.to_string();
        let url = url.trim_end_matches('/');
        if let Some((path, header)) = backups.iter().find(|(_, header)| header.header.public_url != url) {
            let text = format!(
                "its keys are known under {}, the new cluster's URL is {url}",
                header.header.public_url
            );
            return Err(RecoveryError::Unfit(text).at(path).into());
        }
        let (given, quorum) = (backups.len(), quorum_of(members(&genesis)));
        if given < quorum {
            let text = format!(
                "a restore needs the backups of {quorum} nodes, {given} are given: fewer bring no key back"
            );
            return Err(RecoveryError::Unfit(text).into());
        }
        let request = Request::new(genesis, config.node, headers)?;
        Ok(Asked {
            config,
            request,
            backups,
        })
    }
}

/// Where groups are placed a node's backup has its own groups only: those of a quorum of each group's nodes are needed.
fn enough_of_each_group(
    genesis: &Genesis,
    backups: &[(PathBuf, VerifiedHeader)],
) -> Result<(), RecoveryError> {
    for (group, nodes) in genesis
        .body()
        .placement
        .iter()
        .flat_map(|placement| placement.each())
    {
        let has = |header: &VerifiedHeader| {
            let head = header.header.groups.get(group as usize);
            head.is_some_and(|head| head.applied > 0)
        };
        let having = backups.iter().filter(|(_, header)| has(header)).count();
        let needed = quorum_of(nodes.len());
        if having < needed {
            return Err(RecoveryError::Unfit(format!(
                "group {group} is in {having} of these backups, and {needed} are needed: give those of more of the nodes that had \
                 it, which the new cluster has as nodes {nodes:?}"
            )));
        }
    }
    Ok(())
}

fn members(genesis: &Genesis) -> usize {
    genesis.body().members.len()
}

fn request(arguments: &RequestArguments) -> Result<ExitCode, RestoreError> {
    let asked = arguments.about.load()?;
    let file = secret_file::create_public(&arguments.out, &asked.request.to_json());
    file.map_err(RecoveryError::from)?;
    for line in asked.request.describe() {
        println!("{line}");
    }
    println!(
        "Send {} to {} recovery officers.",
        arguments.out.display(),
        asked.request.officers().quorum()
    );
    Ok(ExitCode::SUCCESS)
}

async fn run(arguments: &RunArguments) -> Result<ExitCode, RestoreError> {
    let Asked {
        config,
        request,
        backups,
    } = arguments.about.load()?;
    let answers = arguments.answers.iter().map(|path| {
        let bytes = secret_file::read_public(path, MAX_ANSWER).map_err(RecoveryError::from);
        bytes
            .and_then(|bytes| Answer::parse(&bytes))
            .map_err(|error| error.at(path))
    });
    let answers: Vec<Answer> = answers.collect::<Result<_, _>>()?;
    let _lock = DirectoryLock::take(&config.data_dir)?;
    let node_key = node_key(&config).await?;
    let material = Started::open(&config, &node_key)?;
    let key = EnvelopeKey::from_bytes(&material.identity.envelope_secret().to_bytes());
    let keys = request.open(&answers, &key)?;
    let backups: Vec<Backup> = backups
        .into_iter()
        .zip(keys)
        .map(|((path, header), keys)| Backup { path, header, keys })
        .collect();

    let survey = survey(&backups, &material.genesis.nodes(), |node| {
        eprintln!("Reading the backup of node {node} ...")
    })?;
    same_places(&material.genesis, &survey)?;
    let groups = restoration(&config, &material.genesis).map_err(RecoveryError::from)?;
    let shares = share_store(&config, &node_key)().map_err(RecoveryError::from)?;
    let target = Target {
        node: config.node,
        groups,
        shares: &shares,
        data: &config.data_dir,
        accept_lost_revocations: arguments.accept_lost_revocations,
    };
    let restored = restore(target, &backups, &survey, |what| {
        eprintln!("Restoring {what} ...")
    })?;
    let report = Report {
        config: &config,
        request: &request,
        backups: &backups,
        survey: &survey,
        restored: &restored,
        held: !arguments.accept_lost_revocations,
    };
    match arguments.json {
        true => println!("{}", report.facts()),
        false => report.tell(),
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether every group is where its keys' shares are: a share is of its node's number.
fn same_places(genesis: &Genesis, survey: &Survey) -> Result<(), RecoveryError> {
    let Some(placement) = &genesis.body().placement else {
        return Ok(());
    };
    for ((keystore, _), live) in &survey.keys {
        let group = keystore.group(genesis.body().groups);
        let nodes = placement.of(group).unwrap_or_default();
        if let Some(node) = live.holders.iter().find(|node| !nodes.contains(node)) {
            return Err(RecoveryError::Unfit(format!(
                "node {node} holds keys of group {group}, and the new cluster has that on nodes {nodes:?}: its groups must be on \
                 the same nodes as before"
            )));
        }
    }
    Ok(())
}

/// The node key of a node that does not run.
async fn node_key(config: &Config) -> Result<NodeKey, RestoreError> {
    if let SealMethod::Passphrase { path } = &config.seal {
        let sealed = SealedNodeKey::read(path)?;
        let passphrase = read_passphrase(&format!("Passphrase of node {}: ", config.node), false)?;
        return Ok(sealed.open(&passphrase, &config.cluster.0, config.node)?);
    }
    // Nobody can come through this door: the other methods do not wait at it.
    let (_, attempts) = unseal::door();
    Ok(seal::obtain(&config.seal, &config.cluster.0, config.node, attempts).await?)
}

/// Keys named one by one at most.
const LISTED: usize = 1_000;

struct Report<'a> {
    config: &'a Config,
    request: &'a Request,
    backups: &'a [Backup],
    survey: &'a Survey,
    restored: &'a Restored,
    held: bool,
}

impl Report<'_> {
    fn urls(&self, named: &[Named]) -> Vec<String> {
        let url = self.config.public_url.to_string();
        let url = url.trim_end_matches('/');
        let of = |(keystore, key): &Named| format!("{url}/kms/keystores/{keystore}/keys/{key}");
        named.iter().take(LISTED).map(of).collect()
    }

    /// For each group, the node whose state it has.
    fn sources(&self) -> Vec<u64> {
        let node = |at: &usize| self.backups[*at].header.header.node;
        self.survey.chosen.iter().map(node).collect()
    }

    fn has_own(&self) -> bool {
        self.backups
            .iter()
            .any(|backup| backup.header.header.node == self.config.node)
    }

    fn facts(&self) -> serde_json::Value {
        let (lost, restored) = (self.survey.lost(), self.restored);
        json!({
            "node": self.config.node, "state": encode_hex(&restored.state), "groups_from": self.sources(),
            "keystores": restored.keystores, "keys": restored.keys, "shares": restored.shares,
            "unfit": restored.unfit.len(), "audit_segments": restored.segments, "delegations_held": self.held,
            "lost": lost.len(), "lost_keys": self.urls(&lost), "earlier": self.survey.earlier(),
            "vanished": self.survey.vanished.len(), "vanished_keys": self.urls(&self.survey.vanished),
        })
    }

    fn tell(&self) {
        let restored = self.restored;
        println!(
            "Node {} is restored: {} keystores, {} keys, {} shares, {} segments of its old audit chain.",
            self.config.node, restored.keystores, restored.keys, restored.shares, restored.segments
        );
        println!(
            "State {}: it must be the same on every node.",
            encode_hex(&restored.state[..16])
        );
        println!("The groups' state is that of nodes {:?}.", self.sources());
        if !self.has_own() {
            println!(
                "There was no backup of this node: it has no shares. Of symmetric keys it gets its part from the others; \
                 of key pairs it has none until they are shared anew."
            );
        }
        if !restored.unfit.is_empty() {
            println!(
                "{} shares in its backup belong to no key of this state and were left out.",
                restored.unfit.len()
            );
        }
        if self.survey.earlier() > 0 {
            println!(
                "{} keys come back with shares that were replaced between two of the backups: renew all shares once it runs.",
                self.survey.earlier()
            );
        }
        let list = |keys: &[Named], what: &str| {
            if keys.is_empty() {
                return;
            }
            println!("\n{} KEYS {what}:", keys.len());
            for url in self.urls(keys) {
                println!("  {url}");
            }
            if keys.len() > LISTED {
                println!("  and {} more", keys.len() - LISTED);
            }
        };
        list(
            &self.survey.lost(),
            "ARE LOST, their shares are in too few of these backups",
        );
        list(
            &self.survey.vanished,
            "are in an older state and not in the one that counts: look at the backups' nodes",
        );
        println!("\nNext:");
        println!("  restore the other nodes from the same backups, then start them all.");
        match self.held {
            true => println!(
                "  Delegated capabilities are refused until each keystore's controller updates its configuration: \
                 conclave keystore update URL. Revocations after {} may be lost: revoke again what must be.",
                self.request.newest()
            ),
            false => println!(
                "  Delegated capabilities hold. Revocations after {} may be lost: revoke again what must be.",
                self.request.newest()
            ),
        }
        println!("  The cluster has a new id: run `conclave recovery init` for it, and make backups.");
    }
}
