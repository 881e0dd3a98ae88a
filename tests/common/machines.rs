//! Three nodes as `conclave init` makes them for real machines, each a process of its own that a test starts under whatever
//! it likes: in another network namespace, with another clock, on another disk, under strace.
//!
//! Make them with [`Machines::made`], say what is to stand before each command ([`Machines::before`]), then
//! [`Machines::start`]. Calls go through [`Machines::clients`], one for each node. A panic leaves the folder, with the
//! logs, where it is and says where.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use conclave::client::Client;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::cluster::turn;
use super::https::{self, Answer};
use super::world;

/// How long a node may take to serve, or to end.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at what is awaited.
const LOOK: Duration = Duration::from_millis(50);

/// Where a node listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) https: SocketAddr,
    pub(crate) peer: SocketAddr,
    pub(crate) admin: SocketAddr,
}

/// The nodes; dropping them ends what runs.
pub(crate) struct Machines {
    /// One client for each node.
    pub(crate) clients: Vec<Client>,
    /// Program and arguments that stand before each node's command.
    pub(crate) before: Vec<Vec<String>>,
    public_url: String,
    addresses: Vec<Addresses>,
    running: Vec<Option<Child>>,
    folder: Option<TempDir>,
    /// Released by the drop, whatever the test's end.
    _turn: fs::File,
}

/// On the loopback.
pub(crate) fn on_loopback(nodes: u16) -> Vec<Addresses> {
    let base = super::cluster::free_ports(nodes);
    let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
    (base..base + nodes)
        .map(|port| Addresses {
            https: at(port),
            peer: at(port + 100),
            admin: at(port + 200),
        })
        .collect()
}

impl Machines {
    /// Makes the material of nodes at these addresses and starts nothing. Waits until no other test has a cluster.
    pub(crate) async fn made(addresses: Vec<Addresses>) -> Machines {
        let turn = turn().await;
        let folder = tempfile::tempdir().unwrap();
        let url = format!("https://localhost:{}", addresses[0].https.port());
        let out = folder.path().join("cluster");
        let mut init = Command::new(env!("CARGO_BIN_EXE_conclave"));
        init.args(["init", "--public-url", &url, "--seal", "file", "--out"])
            .arg(&out);
        for (node, at) in addresses.iter().enumerate() {
            let listeners = format!("{}={},{},{}", node + 1, at.peer, at.https, at.admin);
            init.args(["--node", &listeners]);
        }
        init.args(["--meter-admin", super::ledger::controller().did()]);
        let made = init.stdin(Stdio::null()).output().await.unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut machines = Machines {
            clients: Vec::new(),
            before: vec![Vec::new(); addresses.len()],
            running: addresses.iter().map(|_| None).collect(),
            public_url: url,
            addresses,
            folder: Some(folder),
            _turn: turn,
        };
        machines.clients = machines.new_clients();
        machines
    }

    /// Clients of their own, one for each node.
    pub(crate) fn new_clients(&self) -> Vec<Client> {
        let to: Vec<String> = self.addresses.iter().map(|at| at.https.to_string()).collect();
        world::clients(&self.public_url, &self.path().join("ca.pem"), &to)
    }

    /// The folder that `init` made.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.as_ref().unwrap().path().join("cluster")
    }

    /// A node's folder (from 0).
    pub(crate) fn home(&self, node: usize) -> PathBuf {
        self.path().join(format!("node-{}", node + 1))
    }

    /// A node's data directory.
    pub(crate) fn data(&self, node: usize) -> PathBuf {
        self.home(node).join("data")
    }

    /// Where a node listens.
    pub(crate) fn at(&self, node: usize) -> Addresses {
        self.addresses[node]
    }

    /// All nodes but these.
    pub(crate) fn others(&self, node: usize) -> Vec<usize> {
        (0..self.addresses.len()).filter(|other| *other != node).collect()
    }

    /// The process of a node that runs.
    pub(crate) fn pid(&self, node: usize) -> i32 {
        let child = self.running[node].as_ref().unwrap();
        i32::try_from(child.id().unwrap()).unwrap()
    }

    /// Sets a key in a section of a node's configuration, for its next start.
    pub(crate) fn configure(&self, node: usize, section: &str, key: &str, value: impl Into<toml::Value>) {
        let file = self.home(node).join("node.toml");
        let mut all: toml::Table = fs::read_to_string(&file).unwrap().parse().unwrap();
        let section = all.entry(section).or_insert_with(|| toml::Table::new().into());
        section
            .as_table_mut()
            .unwrap()
            .insert(key.to_owned(), value.into());
        fs::write(file, all.to_string()).unwrap();
    }

    /// Starts all nodes and waits until each can serve.
    pub(crate) async fn start(&mut self) {
        for node in 0..self.addresses.len() {
            self.spawn(node);
        }
        for node in 0..self.addresses.len() {
            self.ready(node).await;
        }
    }

    /// Starts a node that is down, without waiting for it. It ends with this thread, whatever becomes of the test.
    pub(crate) fn spawn(&mut self, node: usize) {
        let log = fs::File::options()
            .append(true)
            .create(true)
            .open(self.log(node))
            .unwrap();
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .args(&self.before[node]);
        let child = command
            .arg(env!("CARGO_BIN_EXE_conclave"))
            .args(["server", "--config"])
            .arg(self.home(node).join("node.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        self.running[node] = Some(child);
    }

    /// A node's log.
    pub(crate) fn log(&self, node: usize) -> PathBuf {
        self.path().join(format!("node-{}.log", node + 1))
    }

    /// SIGKILL; comes back when the process is gone.
    pub(crate) async fn kill(&mut self, node: usize) {
        self.end(node, Signal::SIGKILL).await;
    }

    /// SIGTERM; comes back when the process is gone.
    pub(crate) async fn terminate(&mut self, node: usize) {
        self.end(node, Signal::SIGTERM).await;
    }

    /// SIGSTOP: the node's sockets stay open and nothing comes out of them.
    pub(crate) fn pause(&self, node: usize) {
        kill(Pid::from_raw(self.pid(node)), Signal::SIGSTOP).unwrap();
    }

    /// SIGCONT.
    pub(crate) fn resume(&self, node: usize) {
        kill(Pid::from_raw(self.pid(node)), Signal::SIGCONT).unwrap();
    }

    async fn end(&mut self, node: usize, signal: Signal) {
        kill(Pid::from_raw(self.pid(node)), signal).unwrap();
        self.ended(node).await;
    }

    /// Waits until a node's process ends; how it did.
    pub(crate) async fn ended(&mut self, node: usize) -> ExitStatus {
        let mut child = self.running[node].take().unwrap();
        let ended = timeout(PATIENCE, child.wait()).await;
        ended
            .unwrap_or_else(|_| panic!("node {node} goes on; see {}", self.log(node).display()))
            .unwrap()
    }

    /// Whether a node's process has ended by itself; it must be spawned again after that.
    pub(crate) fn has_ended(&mut self, node: usize) -> Option<ExitStatus> {
        let ended = self.running[node].as_mut()?.try_wait().unwrap();
        if ended.is_some() {
            self.running[node] = None;
        }
        ended
    }

    /// Whether a node's process was started and not yet seen to end.
    pub(crate) fn runs(&self, node: usize) -> bool {
        self.running[node].is_some()
    }

    /// Starts a node that is down and waits until it can serve.
    pub(crate) async fn restart(&mut self, node: usize) {
        self.spawn(node);
        self.ready(node).await;
    }

    /// Waits until the node says that it can serve.
    pub(crate) async fn ready(&mut self, node: usize) {
        let until = Instant::now() + PATIENCE;
        loop {
            let last = https::admin(self.at(node).admin, "/health/ready").await;
            if matches!(&last, Ok(answer) if answer.status == 200) {
                return;
            }
            let (ended, log) = (self.has_ended(node), self.log(node));
            assert!(
                Instant::now() < until && ended.is_none(),
                "node {node} is not ready: {last:?}, {ended:?}; see {}",
                log.display()
            );
            sleep(LOOK).await;
        }
    }

    /// Waits until the node answers that it cannot serve, for a reason with these words.
    pub(crate) async fn unready(&self, node: usize, words: &str) {
        let until = Instant::now() + PATIENCE;
        loop {
            let last = self.ask(node, "/health/ready").await;
            if last.status == 503 && last.body.contains(words) {
                return;
            }
            assert!(Instant::now() < until, "node {node} is not {words:?}: {last:?}");
            sleep(LOOK).await;
        }
    }

    /// What a node's admin listener answers.
    pub(crate) async fn ask(&self, node: usize, path: &str) -> Answer {
        let asked = https::admin(self.at(node).admin, path).await;
        asked.unwrap_or_else(|error| panic!("node {node}, {path}: {error}"))
    }

    /// What a node tells of itself and its groups.
    pub(crate) async fn status(&self, node: usize) -> Value {
        serde_json::from_str(&self.ask(node, "/status").await.body).unwrap()
    }

    /// A node's counters and gauges, with their labels in the name.
    pub(crate) async fn metrics(&self, node: usize) -> BTreeMap<String, f64> {
        let answer = self.ask(node, "/metrics").await;
        let lines = answer.body.lines().filter(|line| !line.starts_with('#'));
        let parsed = lines.filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.strip_prefix("conclave_")?.to_owned(), value.parse().ok()?))
        });
        parsed.collect()
    }

    /// Term, leader (from 0) and applied index of each group, as a node sees them.
    pub(crate) async fn groups(&self, node: usize) -> Vec<Group> {
        let status = self.status(node).await;
        let groups = status["groups"].as_array().unwrap().iter();
        groups
            .map(|group| Group {
                term: group["term"].as_u64().unwrap(),
                leader: group["leader"]
                    .as_u64()
                    .map(|node| usize::try_from(node).unwrap() - 1),
                applied: group["applied"].as_u64().unwrap(),
            })
            .collect()
    }

    /// Waits until all these nodes have applied the same of every group, under the same leaders, and can serve.
    pub(crate) async fn converge(&mut self, nodes: &[usize], within: Duration) {
        let until = Instant::now() + within;
        loop {
            let mut all = Vec::new();
            for node in nodes {
                all.push(self.groups(*node).await);
            }
            let led = all[0].iter().all(|group| group.leader.is_some());
            if led && all.windows(2).all(|two| two[0] == two[1]) {
                break;
            }
            assert!(Instant::now() < until, "the nodes differ: {all:#?}");
            sleep(LOOK).await;
        }
        for node in nodes {
            self.ready(*node).await;
        }
    }

    /// Waits until no node keeps a share for another one: only then can the next one be hit.
    pub(crate) async fn delivered(&self) {
        let until = Instant::now() + PATIENCE;
        for node in 0..self.addresses.len() {
            while self.status(node).await["shares"]["open_envelopes"] != 0 {
                assert!(Instant::now() < until, "node {node} keeps shares for others");
                sleep(LOOK).await;
            }
        }
    }

    /// SIGTERM to every node that runs.
    pub(crate) async fn stop(mut self) {
        for node in 0..self.running.len() {
            if self.running[node].is_some() {
                self.terminate(node).await;
            }
        }
    }
}

/// One group as one node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) term: u64,
    pub(crate) leader: Option<usize>,
    pub(crate) applied: u64,
}

impl Drop for Machines {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(folder) = self.folder.take()
        {
            eprintln!("the nodes' folder is left in {}", folder.keep().display());
        }
    }
}
