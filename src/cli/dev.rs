//! `conclave dev`: a whole cluster on this machine, each node a process of its own.
//!
//! `material` makes or reuses what the nodes need, `child` runs one node, this file runs them all and stops them.

mod child;
mod material;

use std::{
    io::{self, Write as _},
    net::TcpListener,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use crate::{
    cli::init::parse_committee,
    config::{MeterAdmins, PublicUrl, fields::FieldError},
    provision::{
        ClusterFile, ClusterNode, NodeMaterial, ProvisionError,
        cluster::HookError,
        lock::{DirectoryLock, LockError},
    },
    telemetry::{admin::Live, client},
};
use child::{Child, Event};
use material::{Material, Wanted};

/// Runs a cluster on this machine: makes everything it needs under DIR, or goes on with what is there.
///
/// Prints `ready` on standard output when the cluster serves. Everything stops on SIGINT or SIGTERM. A node that is
/// killed stays down until `conclave server --config DIR/node-N/node.toml` is run for it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  conclave dev
  conclave dev --nodes 5 --dir /tmp/five --port 9443 --meter-admin did:key:z6Mk...
  conclave dev --public-url https://localhost:9000     (a relay on port 9000 spreads connections over the nodes)")]
pub struct DevArguments {
    /// Number of nodes.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(3..=16))]
    nodes: u64,
    /// How many nodes each group is on, 3 to 5; else all of up to five nodes, and three of more.
    #[arg(long, value_name = "N", value_parser = parse_committee)]
    committee: Option<usize>,
    /// Where everything lives; made if it is not there.
    #[arg(long, value_name = "DIR", default_value = ".conclave")]
    dir: PathBuf,
    /// HTTPS of node N is on PORT+N-1, links between nodes on PORT+100+N-1, administration on PORT+200+N-1.
    #[arg(long, value_name = "PORT", default_value_t = 8443, value_parser = clap::value_parser!(u16).range(1..=65_000))]
    port: u16,
    /// The cluster's public URL; else https://localhost:PORT. It may carry a port on which no node listens.
    #[arg(long, value_name = "URL")]
    public_url: Option<PublicUrl>,
    /// An identity that may create meters (repeatable); else anyone may.
    #[arg(long = "meter-admin", value_name = "DID")]
    meter_admins: Vec<String>,
    /// Believe X-Forwarded-For.
    #[arg(long)]
    trust_forwarded_for: bool,
}

/// Why there is no cluster.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// A `--meter-admin` that is no identity.
    #[error("--meter-admin: {0}")]
    MeterAdmin(#[from] FieldError),
    /// The default public URL.
    #[error("--port gives no public URL")]
    PublicUrl,
    /// Making or reading the material.
    #[error(transparent)]
    Provision(#[from] ProvisionError),
    /// What is in DIR is not what was asked for.
    #[error(
        "{dir} holds another cluster than the one asked for ({difference}); \
         give the same options, or another --dir, or remove {dir} and lose its keys"
    )]
    Different {
        /// The folder.
        dir: PathBuf,
        /// What differs.
        difference: String,
    },
    /// What is in DIR is no cluster.
    #[error("{dir} is not empty and holds no cluster of `conclave dev`; give another --dir")]
    NotACluster {
        /// The folder.
        dir: PathBuf,
        /// What is missing or wrong.
        source: ProvisionError,
    },
    /// Another `dev` runs here.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A port is taken.
    #[error("node {node} cannot listen on {address}; stop what does, or give another --port")]
    Port {
        /// The node.
        node: u64,
        /// Its address.
        address: std::net::SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A process could not be started, or a file of this command's own not be used.
    #[error("cannot run the nodes")]
    Io(#[from] io::Error),
    /// A node ended before the cluster served.
    #[error("node {node} ended before it was ready ({status}); its log is {log}")]
    Died {
        /// The node.
        node: u64,
        /// How.
        status: String,
        /// Its log.
        log: PathBuf,
    },
}

/// A node that has been told to end gets this long before it is killed.
const GRACE: Duration = Duration::from_secs(10);
/// How often a node that is down is looked for: somebody else may have started it.
const LOOK: Duration = Duration::from_millis(500);

/// Makes or reuses the material, starts the nodes, prints `ready`, and stops all when a signal comes.
pub async fn run(
    arguments: DevArguments,
    bootstrap: impl Fn(&NodeMaterial<'_>) -> Result<(), HookError>,
) -> Result<ExitCode, DevError> {
    // Before anything is started: a signal that comes early must not leave nodes behind.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let dir = std::path::absolute(&arguments.dir)?;
    let material = Material::prepare(&dir, &wanted(&arguments)?, bootstrap)?;
    let _lock = DirectoryLock::take(&dir)?;
    for node in &material.nodes {
        let listen = node.config.listen;
        for address in [listen.https, listen.peer, listen.admin] {
            TcpListener::bind(address).map_err(|source| DevError::Port {
                node: node.id(),
                address,
                source,
            })?;
        }
    }
    let (events, mut inbox) = mpsc::channel(64);
    let mut cluster = Cluster::start(&dir, &material, events)?;
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let outcome = loop {
        let step = tokio::select! {
            _ = interrupt.recv() => break Ok(()),
            _ = terminate.recv() => break Ok(()),
            Some(event) = inbox.recv() => cluster.on_event(event),
            _ = looks.tick() => cluster.look_for_strangers().await,
        };
        if let Err(error) = step {
            break Err(error);
        }
    };
    say("stopping");
    tokio::select! {
        () = cluster.stop(&mut inbox) => {}
        // A second signal means now.
        _ = interrupt.recv() => cluster.kill(),
        _ = terminate.recv() => cluster.kill(),
    }
    cluster.write_file()?;
    outcome.map(|()| ExitCode::SUCCESS)
}

fn wanted(arguments: &DevArguments) -> Result<Wanted, DevError> {
    arguments
        .meter_admins
        .iter()
        .try_for_each(|did| crate::config::fields::check_did_key(did))?;
    let url = match &arguments.public_url {
        Some(url) => url.clone(),
        None => format!("https://localhost:{}", arguments.port)
            .parse()
            .map_err(|_| DevError::PublicUrl)?,
    };
    let meter_admins = match arguments.meter_admins.as_slice() {
        [] => MeterAdmins::Anyone,
        list => MeterAdmins::These(list.to_vec()),
    };
    Ok(Wanted {
        nodes: arguments.nodes,
        committee: arguments.committee.or((arguments.nodes > 5).then_some(3)),
        port: arguments.port,
        public_url: url,
        meter_admins,
        trust_forwarded_for: arguments.trust_forwarded_for,
    })
}

/// The nodes that run.
struct Cluster {
    dir: PathBuf,
    children: Vec<Child>,
    file: ClusterFile,
    is_ready: bool,
}

impl Cluster {
    fn start(dir: &Path, material: &Material, events: mpsc::Sender<Event>) -> Result<Self, DevError> {
        let mut cluster = Self {
            dir: dir.to_owned(),
            children: Vec::new(),
            file: ClusterFile {
                public_url: material.public_url.to_string(),
                ca: dir.join("ca.pem"),
                nodes: Vec::new(),
            },
            is_ready: false,
        };
        for node in &material.nodes {
            let child = Child::spawn(node, events.clone())?;
            cluster.file.nodes.push(ClusterNode {
                id: node.id(),
                pid: child.pid(),
                https: node.config.listen.https.to_string(),
                peer: node.config.listen.peer.to_string(),
                admin: node.config.listen.admin.to_string(),
                data_dir: node.config.data_dir.clone(),
                config: node.config_path.clone(),
            });
            cluster.children.push(child);
        }
        cluster.write_file()?;
        say(&format!(
            "{} nodes start in {}",
            cluster.children.len(),
            dir.display()
        ));
        Ok(cluster)
    }

    fn write_file(&self) -> Result<(), DevError> {
        Ok(self.file.write(&self.dir)?)
    }

    fn on_event(&mut self, event: Event) -> Result<(), DevError> {
        match event {
            Event::Ready(node) => {
                say(&format!("node {node} is ready"));
                for child in self.children.iter_mut().filter(|child| child.node == node) {
                    child.is_ready = true;
                }
                if !self.is_ready && self.children.iter().all(|child| child.is_ready) {
                    self.is_ready = true;
                    let mut out = io::stdout().lock();
                    // Whoever started this may not read it, and the cluster serves all the same.
                    let _ = writeln!(out, "ready").and_then(|()| out.flush());
                }
                Ok(())
            }
            Event::Ended { node, status } => {
                let Some(child) = self.children.iter_mut().find(|child| child.node == node) else {
                    return Ok(());
                };
                child.has_ended();
                if !self.is_ready {
                    return Err(DevError::Died {
                        node,
                        status,
                        log: child.log.clone(),
                    });
                }
                say(&format!(
                    "node {node} ended ({status}) and stays down; to start it: conclave server --config {}",
                    child.config.display()
                ));
                Ok(())
            }
        }
    }

    /// A node that is down keeps the pid of its last process: scripts read a number there.
    fn set_pid(&mut self, node: u64, pid: Option<u32>) -> Result<(), DevError> {
        let Some(pid) = pid else { return Ok(()) };
        let Some(entry) = self.file.nodes.iter_mut().find(|entry| entry.id == node) else {
            return Ok(());
        };
        if entry.pid == Some(pid) {
            return Ok(());
        }
        entry.pid = Some(pid);
        self.write_file()
    }

    /// A node that is not a child (any more) may have been started by somebody else.
    async fn look_for_strangers(&mut self) -> Result<(), DevError> {
        let down: Vec<(u64, String)> = self
            .file
            .nodes
            .iter()
            .filter(|entry| {
                self.children
                    .iter()
                    .any(|child| child.node == entry.id && child.pid().is_none())
            })
            .map(|entry| (entry.id, entry.admin.clone()))
            .collect();
        for (node, admin) in down {
            let live = match client::get(&admin, "/health/live", LOOK).await {
                Ok(answer) => serde_json::from_slice::<Live>(&answer.body).ok(),
                Err(_) => None,
            };
            let pid = live.filter(|live| live.node == node).map(|live| live.pid);
            if pid.is_some()
                && self
                    .file
                    .nodes
                    .iter()
                    .any(|entry| entry.id == node && entry.pid != pid)
            {
                say(&format!(
                    "node {node} was started by somebody else; it is theirs to stop"
                ));
            }
            self.set_pid(node, pid)?;
        }
        Ok(())
    }

    /// Asks this command's own nodes to end and waits for them, for [`GRACE`]; what is left is killed.
    async fn stop(&mut self, inbox: &mut mpsc::Receiver<Event>) {
        for child in &self.children {
            child.terminate();
        }
        let ended = async {
            while self.children.iter().any(|child| child.pid().is_some()) {
                let Some(Event::Ended { node, .. }) = inbox.recv().await else {
                    continue;
                };
                for child in self.children.iter_mut().filter(|child| child.node == node) {
                    child.has_ended();
                }
            }
        };
        if tokio::time::timeout(GRACE, ended).await.is_err() {
            self.kill();
        }
    }

    fn kill(&mut self) {
        for child in &mut self.children {
            if child.pid().is_some() {
                say(&format!("node {} does not end; it is killed", child.node));
                child.kill();
            }
            child.has_ended();
        }
    }
}

/// This command's own lines, told from the nodes' by their prefix.
fn say(text: &str) {
    eprintln!("dev    | {text}");
}
