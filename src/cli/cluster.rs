//! A development cluster of this very program, started for a while: `conclave dev` as a child process.
//!
//! Call [`DevCluster::stop`] when done; a cluster that is dropped is killed.

use crate::cli::output::{Failure, note};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::Rng;
use serde::Deserialize;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// How long a cluster may take to serve.
const START: Duration = Duration::from_secs(60);

/// How long it may take to stop.
const STOP: Duration = Duration::from_secs(20);

/// What `conclave dev` writes about itself.
#[derive(Deserialize)]
pub(crate) struct Description {
    /// The one public URL.
    pub(crate) public_url: String,
    /// Its nodes.
    pub(crate) nodes: Vec<Node>,
}

/// One node of it.
#[derive(Deserialize)]
pub(crate) struct Node {
    /// Number, from 1.
    pub(crate) id: u64,
    /// Process.
    pub(crate) pid: i32,
    /// Where it takes requests, `HOST:PORT`.
    pub(crate) https: String,
}

/// A running cluster.
pub(crate) struct DevCluster {
    child: Child,
    dir: PathBuf,
    log: PathBuf,
}

impl DevCluster {
    /// Starts `nodes` nodes that keep everything under `dir`, and waits until they serve.
    pub(crate) async fn start(dir: &Path, nodes: u16) -> Result<Self, Failure> {
        let program = std::env::current_exe().map_err(Failure::local)?;
        let log = dir.join("dev.log");
        let errors = File::create(&log).map_err(Failure::local)?;
        let port = free_ports(nodes)?;
        let child = Command::new(program)
            .arg("dev")
            .args([
                "--nodes",
                &nodes.to_string(),
                "--port",
                &port.to_string(),
                "--dir",
            ])
            .arg(dir.join("cluster"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Failure::because(format!("cannot start `conclave dev`: {error}")))?;
        let mut cluster = Self {
            child,
            dir: dir.join("cluster"),
            log,
        };
        match timeout(START, cluster.ready()).await {
            Ok(Ok(())) => Ok(cluster),
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(cluster.failure("the cluster was not ready in time")),
        }
    }

    /// Waits for the line `ready`.
    async fn ready(&mut self) -> Result<(), Failure> {
        let Some(output) = self.child.stdout.take() else {
            return Err(self.failure("`conclave dev` has no output"));
        };
        let mut lines = BufReader::new(output).lines();
        loop {
            match lines.next_line().await.map_err(Failure::local)? {
                Some(line) if line.trim() == "ready" => break,
                Some(_) => {}
                None => return Err(self.failure("`conclave dev` ended before it was ready")),
            }
        }
        // What it says later is read and dropped, so that it never waits for a reader.
        let mut rest = lines.into_inner();
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while rest.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
        });
        Ok(())
    }

    /// What the cluster says about itself now.
    pub(crate) fn describe(&self) -> Result<Description, Failure> {
        let path = self.dir.join("cluster.json");
        let text = fs::read(&path)
            .map_err(|error| Failure::because(format!("cannot read {}: {error}", path.display())))?;
        serde_json::from_slice(&text)
            .map_err(|error| Failure::because(format!("{} is not as expected: {error}", path.display())))
    }

    /// The authority that signed the certificates of its nodes.
    pub(crate) fn authority(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// Stops all nodes and waits for their end.
    pub(crate) async fn stop(mut self) -> Result<(), Failure> {
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            signal(pid, Signal::SIGTERM)?;
        }
        match timeout(STOP, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            // The nodes are gone all the same; one of them may have been killed on purpose.
            Ok(Ok(status)) => {
                note(format_args!("`conclave dev` ended with {status}"));
                Ok(())
            }
            Ok(Err(error)) => Err(Failure::local(error)),
            Err(_) => Err(self.failure("`conclave dev` did not stop in time")),
        }
    }

    fn failure(&self, what: &str) -> Failure {
        Failure::because(format!("{what}; its log is {}", self.log.display()))
    }
}

/// Ends a node at once, as a power cut would.
pub(crate) fn kill_node(node: &Node) -> Result<(), Failure> {
    signal(node.pid, Signal::SIGKILL)
}

fn signal(pid: i32, signal: Signal) -> Result<(), Failure> {
    // Zero and below would reach whole process groups.
    if pid <= 1 {
        return Err(Failure::because(format!("{pid} is not the process of a node")));
    }
    kill(Pid::from_raw(pid), signal)
        .map_err(|error| Failure::because(format!("cannot send {signal} to process {pid}: {error}")))
}

/// A port from which on all those that a cluster needs are free now: node i uses base + i - 1, + 100 and + 200.
fn free_ports(nodes: u16) -> Result<u16, Failure> {
    let mut rng = rand::thread_rng();
    for _ in 0..100 {
        // Below the range that systems hand out for outgoing connections.
        let base: u16 = rng.gen_range(12_000..30_000);
        let free = [0, 100, 200].iter().all(|offset| {
            (0..nodes).all(|node| TcpListener::bind(("127.0.0.1", base + offset + node)).is_ok())
        });
        if free {
            return Ok(base);
        }
    }
    Err(Failure::because("no free ports on 127.0.0.1"))
}

#[cfg(test)]
mod tests {
    use super::{Description, free_ports, signal};
    use nix::sys::signal::Signal;

    #[test]
    fn reads_what_dev_writes() {
        let text = r#"{"public_url":"https://localhost:8443","ca":"ca.pem","nodes":[{"id":1,"pid":42,
            "https":"127.0.0.1:8443","peer":"127.0.0.1:8543","admin":"127.0.0.1:8643","data_dir":"d","config":"c"}]}"#;
        let description: Description = serde_json::from_str(text).unwrap();
        assert_eq!(
            (description.nodes[0].pid, description.nodes[0].https.as_str()),
            (42, "127.0.0.1:8443")
        );
        assert_eq!(description.nodes[0].id, 1);
    }

    #[test]
    fn never_signals_a_group() {
        for pid in [0, -1, 1, -42] {
            assert!(signal(pid, Signal::SIGKILL).is_err(), "{pid}");
        }
    }

    #[test]
    fn finds_free_ports() {
        assert!((12_000..30_000).contains(&free_ports(3).unwrap()));
    }
}
