//! The worlds that one contract runs in: nodes over TLS, and nodes of the in-memory double.

#![allow(unused_imports, unused_macros)]

use std::sync::Arc;

use bytes::Bytes;
use conclave_transport::memory::Hub;
use conclave_transport::{Bounds, CallError, Network, NodeId, Peer, Transport};

use super::{Members, PATIENCE, Seen, patient, quick};

/// Something that makes networks.
pub trait World {
    fn new(nodes: usize, bounds: Bounds) -> Self;
    async fn join(&self, node: NodeId, boot: u8, handler: Arc<Seen>) -> Arc<dyn Network>;
    /// A node as others list it.
    fn peer(&self, node: NodeId) -> Peer;
}

pub struct Tls(pub Members, Bounds);

impl World for Tls {
    fn new(nodes: usize, bounds: Bounds) -> Self {
        Tls(Members::new(nodes), bounds)
    }

    async fn join(&self, node: NodeId, boot: u8, handler: Arc<Seen>) -> Arc<dyn Network> {
        let settings = self.0.settings(node, [boot; 16], self.1.clone());
        Arc::new(Transport::start(settings, handler).await.unwrap())
    }

    fn peer(&self, node: NodeId) -> Peer {
        self.0.peer(node)
    }
}

pub struct Memory(Hub);

impl World for Memory {
    fn new(nodes: usize, bounds: Bounds) -> Self {
        Memory(Hub::new(1..=nodes as u64, bounds, None).unwrap())
    }

    async fn join(&self, node: NodeId, boot: u8, handler: Arc<Seen>) -> Arc<dyn Network> {
        Arc::new(self.0.join(node, [boot; 16], handler))
    }

    fn peer(&self, node: NodeId) -> Peer {
        Peer {
            node,
            address: String::new(),
            public_key: [node as u8; 32],
        }
    }
}

/// Runs each test on TLS and on the double.
macro_rules! contract {
    ($($name:ident)*) => {
        mod tls {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name::<crate::common::world::Tls>().await })*
        }
        mod memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name::<crate::common::world::Memory>().await })*
        }
    };
}

pub(crate) use contract;

pub async fn pair<W: World>(bounds: Bounds) -> (W, [Arc<dyn Network>; 2], [Arc<Seen>; 2]) {
    let world = W::new(2, bounds);
    let seen = [Seen::new(), Seen::new()];
    let one = world.join(1, 1, Arc::clone(&seen[0])).await;
    let two = world.join(2, 2, Arc::clone(&seen[1])).await;
    assert_eq!(seen[0].link().await, (2, true));
    assert_eq!(seen[1].link().await, (1, true));
    assert!(one.connected(2) && two.connected(1));
    (world, [one, two], seen)
}

pub fn text(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

pub async fn call(network: &Arc<dyn Network>, to: NodeId, payload: &'static str) -> Result<Bytes, CallError> {
    patient(network.call(to, text(payload), PATIENCE)).await
}
