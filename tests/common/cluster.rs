//! `conclave dev` with a relay before it. A panic in a test leaves the cluster's folder, with its logs, where it is
//! and says where.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::https;
use super::relay::Relay;

/// How long a cluster or a node may take to serve.
const START: Duration = Duration::from_secs(120);

/// One node as cluster.json tells it.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) id: u64,
    pub(crate) pid: i32,
    pub(crate) https: SocketAddr,
    pub(crate) peer: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) data_dir: PathBuf,
    pub(crate) config: PathBuf,
}

/// A running cluster; dropping it stops what it started.
pub(crate) struct Cluster {
    pub(crate) relay: Relay,
    pub(crate) public_url: String,
    dev: Child,
    /// Nodes that were restarted here, by their place.
    restarted: Vec<Option<Child>>,
    folder: Option<TempDir>,
    /// Released by the drop, whatever the test's end.
    _turn: fs::File,
}

/// Waits until no other test has a cluster: three nodes that share few cores with three others are not what their
/// timeouts are made for. Tests may be processes of their own, so it is a file that is locked.
pub(crate) async fn turn() -> fs::File {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cluster.lock");
    let file = fs::File::options().create(true).append(true).open(path).unwrap();
    tokio::task::spawn_blocking(move || {
        file.lock().unwrap();
        file
    })
    .await
    .unwrap()
}

impl Cluster {
    /// Starts `nodes` nodes and waits until the cluster says `ready`. `more` are further arguments of `dev`.
    pub(crate) async fn start(nodes: u16, more: &[&str]) -> Cluster {
        let turn = turn().await;
        let folder = tempfile::tempdir().unwrap();
        let relay = Relay::listen().await;
        let public_url = format!("https://localhost:{}", relay.port);
        let mut dev = Command::new(env!("CARGO_BIN_EXE_conclave"))
            .args([
                "dev",
                "--nodes",
                &nodes.to_string(),
                "--port",
                &free_ports(nodes).to_string(),
            ])
            .args(["--public-url", &public_url])
            .arg("--dir")
            .arg(folder.path().join("cluster"))
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(folder.path().join("dev.log")).unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(dev.stdout.take().unwrap()).lines();
        let restarted = (0..nodes).map(|_| None).collect();
        let cluster = Cluster {
            relay,
            public_url,
            dev,
            restarted,
            folder: Some(folder),
            _turn: turn,
        };
        let ready = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if line == "ready" {
                    return true;
                }
            }
            false
        };
        let ready = timeout(START, ready).await;
        assert_eq!(
            ready,
            Ok(true),
            "conclave dev did not become ready; see {}",
            cluster.path().display()
        );
        // Whatever else it prints must not fill the pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        cluster
            .relay
            .set_nodes(cluster.nodes().iter().map(|node| node.https).collect());
        cluster
    }

    /// The folder given to `dev`.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.as_ref().unwrap().path().join("cluster")
    }

    /// The authority that signed the nodes' certificates.
    pub(crate) fn ca(&self) -> PathBuf {
        self.path().join("ca.pem")
    }

    /// The nodes as cluster.json has them now, with the pids of those that were restarted here.
    pub(crate) fn nodes(&self) -> Vec<Node> {
        let text = fs::read_to_string(self.path().join("cluster.json")).unwrap();
        let cluster: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(cluster["public_url"], self.public_url.as_str());
        let listed = cluster["nodes"].as_array().unwrap();
        listed
            .iter()
            .zip(&self.restarted)
            .map(|(node, restarted)| {
                let pid = restarted.as_ref().and_then(|child| child.id()).map(u64::from);
                let text = |key: &str| node[key].as_str().unwrap_or_else(|| panic!("{key} in {node}"));
                let path = |key: &str| self.path().join(text(key));
                Node {
                    id: node["id"].as_u64().unwrap(),
                    pid: i32::try_from(pid.or(node["pid"].as_u64()).unwrap()).unwrap(),
                    https: text("https").parse().unwrap(),
                    peer: text("peer").parse().unwrap(),
                    admin: text("admin").parse().unwrap(),
                    data_dir: path("data_dir"),
                    config: path("config"),
                }
            })
            .collect()
    }

    /// SIGKILL to a node (from 0); comes back when the process is gone.
    pub(crate) async fn kill(&mut self, node: usize) {
        self.end_node(node, Signal::SIGKILL).await;
    }

    /// SIGTERM to a node; comes back when the process is gone.
    pub(crate) async fn terminate(&mut self, node: usize) {
        self.end_node(node, Signal::SIGTERM).await;
    }

    async fn end_node(&mut self, node: usize, signal: Signal) {
        let pid = self.nodes()[node].pid;
        kill(Pid::from_raw(pid), signal).unwrap();
        match self.restarted[node].take() {
            Some(mut child) => {
                child.wait().await.unwrap();
            }
            None => {
                // It is another process's child.
                let until = Instant::now() + Duration::from_secs(20);
                while lives(pid) {
                    assert!(Instant::now() < until, "node {node} lives after {signal}");
                    sleep(Duration::from_millis(5)).await;
                }
            }
        }
    }

    /// SIGSTOP: the node's sockets stay open and nothing comes out of them.
    pub(crate) fn pause(&self, node: usize) {
        kill(Pid::from_raw(self.nodes()[node].pid), Signal::SIGSTOP).unwrap();
    }

    /// SIGCONT.
    pub(crate) fn resume(&self, node: usize) {
        kill(Pid::from_raw(self.nodes()[node].pid), Signal::SIGCONT).unwrap();
    }

    /// SIGKILL to all nodes and a fresh start of all.
    pub(crate) async fn restart_all(&mut self) {
        self.restart_all_after(|_| {}).await;
    }

    /// The same; `change` is made to the folder while all are down.
    pub(crate) async fn restart_all_after(&mut self, change: impl FnOnce(&Path)) {
        let all = 0..self.restarted.len();
        for node in all.clone() {
            self.kill(node).await;
        }
        change(&self.path());
        for node in all.clone() {
            self.spawn(node);
        }
        for node in all {
            self.ready(node).await;
        }
    }

    /// Starts a node that is down, by `conclave server --config`, without waiting for it.
    pub(crate) fn spawn(&mut self, node: usize) {
        self.spawn_build(node, Path::new(env!("CARGO_BIN_EXE_conclave")));
    }

    /// The same with another build of the program.
    pub(crate) fn spawn_build(&mut self, node: usize, build: &Path) {
        let log = fs::File::options()
            .append(true)
            .create(true)
            .open(self.path().join(format!("restarted-{node}.log")))
            .unwrap();
        let child = Command::new(build)
            .args(["server", "--config"])
            .arg(&self.nodes()[node].config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        self.restarted[node] = Some(child);
    }

    /// Waits until a node that was started here ends by itself, which must be as a failure.
    pub(crate) async fn ended(&mut self, node: usize) {
        let mut child = self.restarted[node].take().unwrap();
        let ended = timeout(START, child.wait()).await.unwrap().unwrap();
        assert!(!ended.success(), "node {node} ended well: {ended}");
    }

    /// Starts a node that is down and waits until it can serve.
    pub(crate) async fn restart(&mut self, node: usize) {
        self.spawn(node);
        self.ready(node).await;
    }

    /// Waits until the node says that it can serve.
    pub(crate) async fn ready(&self, node: usize) {
        let admin = self.nodes()[node].admin;
        let until = Instant::now() + START;
        loop {
            let last = https::admin(admin, "/health/ready").await;
            if matches!(&last, Ok(answer) if answer.status == 200) {
                return;
            }
            assert!(
                Instant::now() < until,
                "node {node} is not ready: {last:?}; see {}",
                self.path().display()
            );
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Sends a whole request to one node as if it came through the relay.
    pub(crate) async fn send(&self, node: usize, request: &[u8]) -> std::io::Result<https::Answer> {
        https::send(self.nodes()[node].https, "localhost", &self.ca(), request).await
    }

    /// SIGTERM to everything that was started here; how `dev` ended.
    pub(crate) async fn stop(mut self) -> ExitStatus {
        self.end().await
    }

    /// The same, and leaves the folder as long as this lives.
    pub(crate) async fn end(&mut self) -> ExitStatus {
        for child in self.restarted.iter_mut().flatten() {
            terminate(child);
            let ended = timeout(Duration::from_secs(20), child.wait()).await;
            assert!(ended.is_ok(), "a node did not end within 20 s of SIGTERM");
        }
        terminate(&self.dev);
        let ended = timeout(Duration::from_secs(30), self.dev.wait()).await;
        ended
            .expect("conclave dev did not end within 30 s of SIGTERM")
            .unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Its children end with it; SIGKILL follows by `kill_on_drop` if it does not listen.
        for child in self.restarted.iter().flatten().chain([&self.dev]) {
            terminate(child);
        }
        let until = std::time::Instant::now() + Duration::from_secs(15);
        while matches!(self.dev.try_wait(), Ok(None)) && std::time::Instant::now() < until {
            std::thread::yield_now();
        }
        if std::thread::panicking()
            && let Some(folder) = self.folder.take()
        {
            eprintln!("the cluster's folder is left in {}", folder.keep().display());
        }
    }
}

/// Whether a process runs, any thread of it: one that has ended may still wait for its parent to look.
fn lives(pid: i32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // After the name, which is in brackets and may have any in it.
    let has_ended = stat
        .rsplit_once(") ")
        .is_none_or(|(_, state)| state.starts_with('Z'));
    threads > 1 || !has_ended
}

fn terminate(child: &Child) {
    if let Some(pid) = child.id() {
        // It may have ended just now.
        let _ = kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGTERM);
    }
}

/// A base port such that `dev` finds base + i, base + 100 + i and base + 200 + i free. Below the range that
/// outgoing connections take theirs from.
pub(crate) fn free_ports(nodes: u16) -> u16 {
    loop {
        let base = 12_000 + rand::random::<u16>() % 18_000;
        let all = [0, 100, 200]
            .into_iter()
            .flat_map(|lane| (0..nodes).map(move |node| base + lane + node));
        let held: Result<Vec<_>, _> = all.map(|port| TcpListener::bind(("127.0.0.1", port))).collect();
        if held.is_ok() {
            return base;
        }
    }
}
