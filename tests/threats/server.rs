//! The attacked server: three real nodes, asked in turn with raw bytes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use conclave::authorization::RawRequest;
use serde_json::Value;

use crate::common::cluster::{Cluster, Node};
use crate::common::https::{self, Answer};
use crate::common::process::resident;

/// Sends each request to the next node.
pub(crate) struct Server {
    pub(crate) nodes: Vec<Node>,
    ca: PathBuf,
    next: AtomicUsize,
}

/// What a request came to.
pub(crate) struct Outcome {
    /// 0: the connection was closed without an answer.
    pub(crate) status: u16,
    /// Name of the error, of its cause if it has one.
    pub(crate) reason: String,
    pub(crate) body: String,
}

impl Outcome {
    /// The JSON in the body, which may be in a chunk.
    pub(crate) fn json(&self) -> serde_json::Value {
        let (start, end) = (self.body.find('{'), self.body.rfind('}'));
        let text = start.zip(end).map(|(start, end)| &self.body[start..=end]);
        text.and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default()
    }
}

impl Server {
    pub(crate) fn of(cluster: &Cluster) -> Self {
        Self::of_nodes(cluster, 0..cluster.nodes().len())
    }

    /// Some of the nodes only, counted from 0.
    pub(crate) fn of_nodes(cluster: &Cluster, nodes: Range<usize>) -> Self {
        Self {
            nodes: cluster.nodes()[nodes].to_vec(),
            ca: cluster.ca(),
            next: AtomicUsize::new(0),
        }
    }

    fn address(&self) -> SocketAddr {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        self.nodes[next % self.nodes.len()].https
    }

    pub(crate) async fn send(&self, request: &RawRequest) -> Outcome {
        self.send_bytes(&on_the_wire(request)).await
    }

    pub(crate) async fn send_bytes(&self, bytes: &[u8]) -> Outcome {
        match https::send(self.address(), "localhost", &self.ca, bytes).await {
            Ok(answer) => outcome(&answer),
            Err(error) => Outcome {
                status: 0,
                reason: error.kind().to_string(),
                body: String::new(),
            },
        }
    }

    /// What must not grow with what was refused, by node: resident memory in KiB, open files.
    pub(crate) fn footprint(&self) -> Vec<(u64, usize)> {
        let of = |node: &Node| {
            let files = std::fs::read_dir(format!("/proc/{}/fd", node.pid))
                .unwrap()
                .count();
            (resident(node.pid), files)
        };
        self.nodes.iter().map(of).collect()
    }

    /// A node's counters and gauges that have no labels.
    pub(crate) async fn metrics(&self, node: usize) -> BTreeMap<String, f64> {
        let answer = https::admin(self.nodes[node].admin, "/metrics").await.unwrap();
        let lines = answer.body.lines().filter(|line| !line.starts_with('#'));
        lines
            .filter_map(|line| {
                let (name, value) = line.split_once(' ')?;
                Some((name.to_owned(), value.parse().ok()?))
            })
            .collect()
    }
}

fn outcome(answer: &Answer) -> Outcome {
    let json: Value = answer
        .body
        .find('{')
        .and_then(|start| serde_json::from_str(answer.body[start..].trim_end_matches(['\r', '\n', '0'])).ok())
        .unwrap_or_default();
    let name = |value: &Value| value["name"].as_str().map(str::to_owned);
    let cause = json.get("cause").or_else(|| json["details"].get("cause"));
    let reason = cause.and_then(name).or_else(|| name(&json)).unwrap_or_default();
    Outcome {
        status: answer.status,
        reason,
        body: answer.body.clone(),
    }
}

/// The request as a client that closes afterwards sends it.
fn on_the_wire(request: &RawRequest) -> Vec<u8> {
    let mut bytes = format!("{} {} HTTP/1.1\r\n", request.method, request.target).into_bytes();
    for (name, value) in &request.headers {
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(
        format!(
            "content-length: {}\r\nconnection: close\r\n\r\n",
            request.body.len()
        )
        .as_bytes(),
    );
    bytes.extend_from_slice(&request.body);
    bytes
}
