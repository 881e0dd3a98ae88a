//! `conclave node prepare`: the folder of a new machine, made where the authority's key is.

use std::path::{Path, PathBuf};

use clap::Args;
use rand::rngs::OsRng;
use time::OffsetDateTime;

use super::{NodeError, genesis};
use crate::cli::init::parse_node;
use crate::cli::seal::seal_plan;
use crate::config::Config;
use crate::config::fields::encode_hex;
use crate::membership::Pinned;
use crate::node::prepare_joining;
use crate::provision::certificates::Authority;
use crate::provision::cluster::{BackupPlan, Common, JOINING_ORDERS, Joining, create_joining, node_folder};
use crate::provision::node_files::NodeKeys;
use crate::provision::{Genesis, ProvisionError};
use crate::seal::secret_file;

/// What a new machine's folder is made from.
#[derive(Debug, Args)]
pub(super) struct PrepareArguments {
    /// The folder that `conclave init` has made, with ca.key, ca.pem and genesis.json; node-N is made in it.
    #[arg(long, value_name = "DIR")]
    pub(super) cluster: PathBuf,
    /// The configuration of a node of the cluster: the new one is like it but for its number and addresses.
    #[arg(long, value_name = "FILE")]
    pub(super) like: PathBuf,
    /// The new member: a number that no node of the cluster had before, and addresses as for `conclave init`.
    #[arg(long, value_name = "ID=PEER_HOST:PORT[,HTTPS_IP:PORT[,ADMIN_IP:PORT]]")]
    pub(super) node: String,
}

impl PrepareArguments {
    pub(super) fn run(&self) -> Result<(), NodeError> {
        let genesis = genesis(&self.cluster)?;
        let (member, folder) = self.prepare(&genesis)?;
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
        Ok(())
    }

    /// Makes the new node's folder.
    pub(super) fn prepare(&self, genesis: &Genesis) -> Result<(Pinned, PathBuf), NodeError> {
        let like = Config::load(&self.like)?;
        let node = parse_node(&self.node, like.public_url.port())
            .map_err(|reason| NodeError::Node(self.node.clone(), reason))?;
        let now = OffsetDateTime::now_utc();
        let authority = authority(&self.cluster, genesis, now)?;
        let keys = NodeKeys::generate(&mut OsRng)?;
        let candidate = keys.candidate(&node)?;
        let common = Common {
            alike: like.alike(),
            backup: BackupPlan::like(&like, like.genesis.parent().unwrap_or(Path::new(".")))?,
            seal: seal_plan(&like.seal)?,
            public_url: like.public_url.clone(),
            groups: like.groups,
            meter_admins: like.meter_admins.clone(),
            trust_forwarded_for: like.trust_forwarded_for,
            log: like.log.clone(),
        };
        if like.backup.is_some() && common.backup.is_none() {
            println!(
                "node {} will make no backups: put the cluster's recovery.json and [backup] into its configuration",
                node.node
            );
        }
        let joining = Joining {
            common: &common,
            node: &node,
            keys: &keys,
            genesis,
            ca: authority.pem(),
        };
        let config = create_joining(&joining, &self.cluster, &mut OsRng, prepare_joining)?;
        let certificates = authority.certify(&candidate, &genesis.cluster_id(), &common.public_url, now)?;
        certificates.write(&config)?;
        Ok((candidate.member, self.cluster.join(node_folder(node.node))))
    }
}

/// The authority of the cluster whose `ca.pem` and `ca.key` are in this folder.
pub(super) fn authority(
    cluster: &Path,
    genesis: &Genesis,
    now: OffsetDateTime,
) -> Result<Authority, NodeError> {
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
