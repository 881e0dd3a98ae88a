//! Three nodes in one process on real disks, joined by a network in memory whose links can be cut.
#![allow(dead_code, clippy::unwrap_used, missing_docs, unreachable_pub)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use conclave_consensus::{
    Application, Attestor, Consensus, GroupId, Halt, Mark, NodeId, Outbound, Restricts, Role, Scope,
    Settings, StateTransaction,
};
use tempfile::TempDir;

/// Entries are `kind scope key value`: kind 0 adds, 1 restricts its scope, anything else is unknown.
pub struct Cells;

pub fn entry(kind: u8, scope: u8, key: u8, value: &[u8]) -> Vec<u8> {
    [&[kind, scope, key], value].concat()
}

impl Application for Cells {
    fn restricts(&self, _: GroupId, entry: &[u8]) -> Restricts {
        match entry {
            [1, scope, ..] => Restricts::Scope(Scope([*scope; 16])),
            _ => Restricts::Nothing,
        }
    }

    fn apply(
        &self,
        _: GroupId,
        index: u64,
        entry: &[u8],
        state: &mut StateTransaction<'_>,
    ) -> Result<Vec<u8>, Halt> {
        match entry {
            [0 | 1, scope, key, value @ ..] => {
                state.put(vec![*scope, *key], value);
                Ok(index.to_be_bytes().to_vec())
            }
            _ => Err(Halt::new("unknown version")),
        }
    }
}

/// Signs with its number: nobody lies here.
struct Name(NodeId);

fn signature(node: NodeId) -> [[u8; 32]; 2] {
    [[u8::try_from(node).unwrap(); 32]; 2]
}

impl Attestor for Name {
    fn sign(&self, _: &[u8]) -> [[u8; 32]; 2] {
        signature(self.0)
    }

    fn is_signed(&self, by: NodeId, _: &[u8], given: &[[u8; 32]; 2]) -> bool {
        *given == signature(by)
    }

    fn mark(&self) -> Mark {
        Mark::default()
    }

    fn lacks(&self, _: &Mark) -> Option<String> {
        None
    }
}

#[derive(Default)]
pub struct Net {
    nodes: Mutex<BTreeMap<NodeId, Consensus>>,
    cut: Mutex<BTreeSet<(NodeId, NodeId)>>,
}

impl Net {
    pub fn isolate(&self, node: NodeId, all: &[NodeId]) {
        let mut cut = self.cut.lock().unwrap();
        for other in all {
            cut.insert((node, *other));
            cut.insert((*other, node));
        }
    }

    pub fn heal(&self) {
        self.cut.lock().unwrap().clear();
    }
}

struct Port {
    node: NodeId,
    net: Weak<Net>,
}

impl Outbound for Port {
    fn send(&self, to: NodeId, frame: Vec<u8>) {
        let Some(net) = self.net.upgrade() else { return };
        if net.cut.lock().unwrap().contains(&(self.node, to)) {
            return;
        }
        let peer = net.nodes.lock().unwrap().get(&to).cloned();
        if let Some(peer) = peer {
            peer.receive(self.node, &frame);
        }
    }

    fn send_bulk(&self, to: NodeId, frame: Vec<u8>) {
        self.send(to, frame);
    }
}

pub struct Cluster {
    pub net: Arc<Net>,
    disks: BTreeMap<NodeId, TempDir>,
    change: fn(&mut Settings),
}

pub const NODES: [NodeId; 3] = [1, 2, 3];

impl Cluster {
    pub fn new(change: fn(&mut Settings)) -> Self {
        let mut cluster = Self {
            net: Arc::default(),
            disks: BTreeMap::new(),
            change,
        };
        for node in NODES {
            let disk = TempDir::new().unwrap();
            Consensus::bootstrap(disk.path(), &cluster.settings(node)).unwrap();
            cluster.disks.insert(node, disk);
            cluster.start(node);
        }
        cluster
    }

    fn settings(&self, node: NodeId) -> Settings {
        let mut settings = Settings::new([7; 32], node, NODES.to_vec());
        settings.groups = 2;
        (self.change)(&mut settings);
        settings
    }

    pub fn start(&self, node: NodeId) {
        let out = Arc::new(Port {
            node,
            net: Arc::downgrade(&self.net),
        });
        let consensus = Consensus::open(
            self.settings(node),
            self.disks[&node].path(),
            Arc::new(Cells),
            Arc::new(Name(node)),
            out,
        )
        .unwrap();
        self.net.nodes.lock().unwrap().insert(node, consensus);
    }

    /// Stops a node as a crash would.
    pub async fn kill(&self, node: NodeId) {
        let consensus = self.net.nodes.lock().unwrap().remove(&node).unwrap();
        consensus.shutdown().await;
    }

    pub fn node(&self, node: NodeId) -> Consensus {
        self.net.nodes.lock().unwrap()[&node].clone()
    }

    pub async fn leader(&self, group: GroupId) -> NodeId {
        until(|| {
            let nodes = self.net.nodes.lock().unwrap();
            nodes
                .iter()
                .find(|(_, n)| n.status()[group.0 as usize].role == Role::Leader)
                .map(|(id, _)| *id)
        })
        .await
    }
}

pub fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

/// Polls a condition that no event announces.
pub async fn until<T>(mut condition: impl FnMut() -> Option<T>) -> T {
    for _ in 0..6000 {
        if let Some(value) = condition() {
            return value;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the condition never held");
}
