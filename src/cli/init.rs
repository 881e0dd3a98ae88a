//! `conclave init`: the material of a cluster on real machines, one folder for each node.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use rand::rngs::OsRng;
use time::OffsetDateTime;

use super::seal::{SealArguments, SealError};
use crate::{
    config::{
        Alike, Hex32, Listen, Log, LogFormat, MeterAdmins, PublicUrl,
        fields::{FieldError, check_did_key, is_host_port, split_host_port},
    },
    membership::{FEWEST, MOST, MOST_NODES, Placement, symmetric_notice},
    provision::{
        NewCluster, NewNode, NodeMaterial, OperatorKey, ProvisionError,
        cluster::{self, Common, Created, HookError, SealPlan},
    },
    seal::secret_file,
};

/// Makes the material of a new cluster: one folder for each node, to be copied to its machine.
///
/// Also makes a certificate authority and an operator key, which belong on no node. Nothing is overwritten.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  conclave init --out cluster --public-url https://kms.example.com \\
    --node 1=10.0.0.1:9443 --node 2=10.0.0.2:9443 --node 3=10.0.0.3:9443 \\
    --meter-admin did:key:z6Mk...
  conclave init --out cluster --public-url https://kms.example.com --seal credential \\
    --node 1=a.internal:9443,0.0.0.0:443,127.0.0.1:9600 --node 2=... --node 3=...")]
pub struct InitArguments {
    /// A member: its number, where the others dial it, what it listens on for clients (else every address, at the
    /// public URL's port) and for administration (else 127.0.0.1:9600).
    #[arg(
        long = "node",
        value_name = "ID=PEER_HOST:PORT[,HTTPS_IP:PORT[,ADMIN_IP:PORT]]",
        required = true
    )]
    nodes: Vec<String>,
    /// The one URL under which clients know the cluster.
    #[arg(long, value_name = "URL")]
    public_url: PublicUrl,
    /// Where to make everything; must not exist, or be empty.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    seal: SealArguments,
    /// An operator key that exists already; else one is made.
    #[arg(long, value_name = "FILE")]
    operator_key: Option<PathBuf>,
    /// Further operators' public keys (Ed25519, hexadecimal).
    #[arg(long = "operator", value_name = "KEY")]
    operators: Vec<Hex32>,
    /// How many operators must sign a change of membership.
    #[arg(long, value_name = "M", default_value_t = 1)]
    operator_threshold: u32,
    /// Number of Raft groups, fixed for good.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(2..=1024))]
    groups: u32,
    /// How many nodes each group is on, and with it each keystore and its keys: 3 to 5. Else all of up to five nodes; more nodes want
    /// it said.
    #[arg(long, value_name = "N", value_parser = parse_committee)]
    committee: Option<usize>,
    /// Where groups are: a file with what stands as "placement" in a genesis statement or an order, for a cluster that is restored from
    /// one whose groups have been moved.
    #[arg(long, value_name = "FILE", conflicts_with = "committee")]
    placement: Option<PathBuf>,
    /// An identity that may create meters (repeatable).
    #[arg(long = "meter-admin", value_name = "DID")]
    meter_admins: Vec<String>,
    /// Believe X-Forwarded-For: only behind a proxy that sets it.
    #[arg(long)]
    trust_forwarded_for: bool,
    /// Print what was made as JSON.
    #[arg(long)]
    json: bool,
}

/// Why nothing was made.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// A `--node` that cannot be read.
    #[error("--node {text}: {reason}")]
    Node {
        /// As given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Too few members, or too many, or one twice.
    #[error("{0}")]
    Members(&'static str),
    /// A `--meter-admin` that is no identity.
    #[error("--meter-admin: {0}")]
    MeterAdmin(#[from] FieldError),
    /// How the nodes get their keys.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// Making the material.
    #[error(transparent)]
    Provision(#[from] ProvisionError),
}

/// Makes everything; `bootstrap` writes each node's first records of Raft.
pub fn run(
    arguments: InitArguments,
    bootstrap: impl Fn(&NodeMaterial<'_>) -> Result<(), HookError>,
) -> Result<ExitCode, InitError> {
    let plan = plan(&arguments)?;
    let created = cluster::create(
        &plan,
        &arguments.out,
        OffsetDateTime::now_utc(),
        &mut OsRng,
        bootstrap,
    )?;
    if arguments.json {
        print_json(&arguments, &created)
    } else {
        print_steps(&arguments, &plan, &created)
    }
    Ok(ExitCode::SUCCESS)
}

fn plan(arguments: &InitArguments) -> Result<NewCluster, InitError> {
    let mut nodes = arguments
        .nodes
        .iter()
        .map(|text| {
            parse_node(text, arguments.public_url.port()).map_err(|reason| InitError::Node {
                text: text.clone(),
                reason,
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    nodes.sort_by_key(|node| node.node);
    match arguments.committee {
        None if arguments.placement.is_none() && !(FEWEST..=MOST).contains(&nodes.len()) => {
            return Err(InitError::Members(
                "a cluster begins with 3 to 5 members, or up to 16 with --committee, which says how many of them have a group",
            ));
        }
        Some(committee) if !(committee..=MOST_NODES).contains(&nodes.len()) => {
            return Err(InitError::Members(
                "a cluster begins with as many members as a committee has, up to 16",
            ));
        }
        _ => {}
    }
    if nodes.windows(2).any(|pair| pair[0].node == pair[1].node) {
        return Err(InitError::Members("two members have the same number"));
    }
    if nodes
        .iter()
        .enumerate()
        .any(|(i, node)| nodes[..i].iter().any(|other| other.peer == node.peer))
    {
        return Err(InitError::Members("two members have the same peer address"));
    }
    arguments
        .meter_admins
        .iter()
        .try_for_each(|did| check_did_key(did))?;
    let operator = arguments
        .operator_key
        .as_deref()
        .map(OperatorKey::read)
        .transpose()?;
    let common = Common {
        alike: Alike::default(),
        backup: None,
        public_url: arguments.public_url.clone(),
        groups: arguments.groups,
        meter_admins: MeterAdmins::These(arguments.meter_admins.clone()),
        trust_forwarded_for: arguments.trust_forwarded_for,
        seal: arguments.seal.plan()?,
        log: Log {
            format: LogFormat::Json,
            ..Log::default()
        },
    };
    Ok(NewCluster {
        common,
        nodes,
        operator,
        further_operators: arguments.operators.clone(),
        threshold: arguments.operator_threshold,
        committee: arguments.committee,
        placement: arguments.placement()?,
    })
}

impl InitArguments {
    fn placement(&self) -> Result<Option<Placement>, InitError> {
        const MAX: usize = 64 * 1024;
        let Some(path) = &self.placement else {
            return Ok(None);
        };
        let bytes = secret_file::read_public(path, MAX).map_err(ProvisionError::from)?;
        let placement = serde_json::from_slice(&bytes);
        placement.map(Some).map_err(|_| {
            let (path, expected) = (
                path.clone(),
                "where groups are: a list of groups with their nodes",
            );
            InitError::Provision(ProvisionError::Malformed { path, expected })
        })
    }
}

/// `--committee`.
pub(super) fn parse_committee(text: &str) -> Result<usize, String> {
    let size = text.parse().ok().filter(|size| (FEWEST..=MOST).contains(size));
    size.ok_or_else(|| "a committee has 3 to 5 nodes".to_owned())
}

/// `ID=PEER_HOST:PORT[,HTTPS_IP:PORT[,ADMIN_IP:PORT]]`.
pub(super) fn parse_node(text: &str, public_port: u16) -> Result<NewNode, &'static str> {
    let (node, addresses) = text.split_once('=').ok_or("ID=PEER_HOST:PORT is needed")?;
    let node = node
        .parse()
        .ok()
        .filter(|node| *node > 0)
        .ok_or("the number must be 1 or more")?;
    let mut addresses = addresses.split(',');
    let peer = addresses
        .next()
        .filter(|peer| is_host_port(peer))
        .ok_or("the peer address must be HOST:PORT")?;
    let (host, port) = split_host_port(peer).ok_or("the peer address must be HOST:PORT")?;
    let any = |port| SocketAddr::from(([0, 0, 0, 0], port));
    let given = |address: Option<&str>, default, reason| match address {
        Some(address) => address.parse::<SocketAddr>().map_err(|_| reason),
        None => Ok(default),
    };
    let https = given(
        addresses.next(),
        any(public_port),
        "what it listens on for clients must be IP:PORT",
    )?;
    let admin = SocketAddr::from(([127, 0, 0, 1], 9600));
    let admin = given(
        addresses.next(),
        admin,
        "what it listens on for administration must be IP:PORT",
    )?;
    if addresses.next().is_some() {
        return Err("at most three addresses");
    }
    // A name may stand for an address of this machine or of a relay before it: then every address is listened on.
    let own = host.trim_start_matches('[').trim_end_matches(']').parse();
    let listen = own.map_or(any(port), |host: std::net::IpAddr| SocketAddr::new(host, port));
    Ok(NewNode {
        node,
        peer: peer.to_owned(),
        listen: Listen {
            https,
            peer: listen,
            admin,
        },
    })
}

fn print_json(arguments: &InitArguments, created: &Created) {
    let nodes: Vec<_> = created
        .nodes
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let facts = serde_json::json!({
        "cluster": created.cluster.to_string(),
        "operator": created.operator.to_string(),
        "public_url": arguments.public_url.to_string(),
        "nodes": nodes,
        "notice": symmetric_notice(arguments.committee.unwrap_or(created.nodes.len())),
    });
    println!("{facts}");
}

fn print_steps(arguments: &InitArguments, plan: &NewCluster, created: &Created) {
    let out = arguments.out.display();
    println!("Cluster {} is made in {out}.", created.cluster);
    println!("\nNext:");
    for (node, folder) in plan.nodes.iter().zip(&created.nodes) {
        println!(
            "  copy {} to the machine of node {} ({})",
            folder.display(),
            node.node,
            node.peer
        );
    }
    println!("  and remove it here: it is one node's secrets, and no place should hold those of two.");
    if plan.operator.is_none() {
        println!("  Keep {out}/operator.key and {out}/ca.key offline: they change who the members are.");
    } else {
        println!("  Keep {out}/ca.key offline.");
    }
    println!(
        "  Clients trust {out}/ca.pem, or give each node a certificate of your own for {}.",
        plan.common.public_url
    );
    match &plan.common.seal {
        SealPlan::File => println!("  The node keys lie in node-N/node.key: for trials only."),
        SealPlan::Passphrase(..) => {
            println!("  After each start of a node: conclave unseal --admin 127.0.0.1:9600")
        }
        SealPlan::Credential(name) => println!(
            "  On each machine: systemd-creds encrypt --name={name} node-N.key /etc/credstore.encrypted/{name}\n  \
             with its file of {out}/keys, then destroy that file."
        ),
        SealPlan::Command(_) => {
            println!("  Give each file of {out}/keys to what the seal command asks, then destroy it.")
        }
    }
    println!("  On each machine: conclave server --config node-N/node.toml --check, then without --check.");
    if let Some(notice) = symmetric_notice(plan.committee.unwrap_or(plan.nodes.len())) {
        println!("  Note: {notice}");
    }
    if arguments.meter_admins.is_empty() {
        println!("  Nobody may create meters yet: put meter_admins into each node.toml.");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_one_to_three_addresses() {
        let node = parse_node("2=b.internal:9443", 8443).unwrap();
        assert_eq!((node.node, node.peer.as_str()), (2, "b.internal:9443"));
        assert_eq!(node.listen.peer, "0.0.0.0:9443".parse().unwrap());
        assert_eq!(node.listen.https, "0.0.0.0:8443".parse().unwrap());
        assert_eq!(node.listen.admin, "127.0.0.1:9600".parse().unwrap());
        let node = parse_node("1=[fd00::1]:9443,[::]:443,127.0.0.1:9601", 443).unwrap();
        assert_eq!(node.listen.peer, "[fd00::1]:9443".parse().unwrap());
        assert_eq!(node.listen.https, "[::]:443".parse().unwrap());
        assert_eq!(node.listen.admin, "127.0.0.1:9601".parse().unwrap());
    }

    #[test]
    fn a_node_that_cannot_be_read_is_refused() {
        for text in [
            "",
            "1",
            "0=a:1",
            "x=a:1",
            "1=a",
            "1=a:0",
            "1=a:1,b:2",
            "1=a:1,1.2.3.4",
            "1=a:1,1.2.3.4:1,::1,x",
            "1=a b:1",
        ] {
            assert!(parse_node(text, 443).is_err(), "{text}");
        }
    }
}
