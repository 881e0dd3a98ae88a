//! What all test files share: an authority, node identities, a handler that tells what it saw.

#![allow(dead_code, unreachable_pub)]

pub mod by_hand;
pub mod world;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use conclave_transport::{
    Boot, Bounds, BoxFuture, Formats, Handler, Lane, NodeId, Peer, Refused, Settings, public_key_of,
};
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ED25519};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::sync::{Semaphore, mpsc};

/// The longest wait of a test for something that must happen; it decides only how a failure looks.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub certificate: CertificateDer<'static>,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    pub fn certify(&self, key: &KeyPair) -> CertificateDer<'static> {
        self.certify_until(key, 2096)
    }

    pub fn certify_until(&self, key: &KeyPair, year: i32) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["node.test".into()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        params.signed_by(key, &self.issuer).unwrap().der().clone()
    }
}

/// A node's key and certificate.
pub struct Identity {
    pub key: KeyPair,
    pub certificate: CertificateDer<'static>,
}

impl Identity {
    pub fn new(authority: &Authority) -> Self {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let certificate = authority.certify(&key);
        Self { key, certificate }
    }

    pub fn public_key(&self) -> [u8; 32] {
        public_key_of(&self.certificate).unwrap()
    }

    pub fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()))
    }
}

/// Nodes 1, 2, ... of one cluster, with ports of their own on loopback.
pub struct Members {
    pub authority: Authority,
    pub identities: Vec<Identity>,
    pub ports: Vec<u16>,
}

pub const CLUSTER: [u8; 32] = [7; 32];

impl Members {
    pub fn new(count: usize) -> Self {
        let authority = Authority::new();
        let identities = (0..count).map(|_| Identity::new(&authority)).collect();
        // Held together, so that they differ; a node can bind its port again after a restart.
        let listeners: Vec<_> = (0..count)
            .map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let ports = listeners
            .iter()
            .map(|listener| listener.local_addr().unwrap().port())
            .collect();
        Self {
            authority,
            identities,
            ports,
        }
    }

    /// A node as others list it.
    pub fn peer(&self, node: NodeId) -> Peer {
        let at = node as usize - 1;
        Peer {
            node,
            address: format!("127.0.0.1:{}", self.ports[at]),
            public_key: self.identities[at].public_key(),
        }
    }

    pub fn settings(&self, node: NodeId, boot: Boot, bounds: Bounds) -> Settings {
        let own = &self.identities[node as usize - 1];
        let peers = (1..=self.identities.len() as u64).filter(|peer| *peer != node);
        Settings {
            cluster: CLUSTER,
            node,
            boot,
            formats: Formats::only(1),
            listen: format!("127.0.0.1:{}", self.ports[node as usize - 1])
                .parse()
                .unwrap(),
            certificate_chain: vec![own.certificate.clone()],
            private_key: own.private_key(),
            roots: vec![self.authority.certificate.clone()],
            peers: peers.map(|peer| self.peer(peer)).collect(),
            bounds,
        }
    }
}

/// Short waits before dialling again; everything else as in production.
pub fn quick() -> Bounds {
    Bounds {
        backoff_first: Duration::from_millis(2),
        backoff_most: Duration::from_millis(20),
        ..Bounds::default()
    }
}

/// A handler that tells what it saw, and answers as the call's payload says.
pub struct Seen {
    pub messages: tokio::sync::Mutex<mpsc::UnboundedReceiver<(NodeId, Lane, Bytes)>>,
    pub links: tokio::sync::Mutex<mpsc::UnboundedReceiver<(NodeId, bool)>>,
    to_messages: mpsc::UnboundedSender<(NodeId, Lane, Bytes)>,
    to_links: mpsc::UnboundedSender<(NodeId, bool)>,
    /// Peers whose processes are gone.
    pub gone: tokio::sync::Mutex<mpsc::UnboundedReceiver<NodeId>>,
    to_gone: mpsc::UnboundedSender<NodeId>,
    /// A call `wait` takes one permit before it answers.
    pub gate: Arc<Semaphore>,
    /// While locked, messages of the lane stand before it.
    pub stopped: [Mutex<()>; 3],
    /// Calls that have begun.
    pub begun: Semaphore,
}

impl Seen {
    pub fn new() -> Arc<Self> {
        let (to_messages, messages) = mpsc::unbounded_channel();
        let (to_links, links) = mpsc::unbounded_channel();
        let (to_gone, gone) = mpsc::unbounded_channel();
        Arc::new(Self {
            messages: messages.into(),
            links: links.into(),
            to_messages,
            to_links,
            gone: gone.into(),
            to_gone,
            gate: Arc::new(Semaphore::new(0)),
            stopped: [Mutex::new(()), Mutex::new(()), Mutex::new(())],
            begun: Semaphore::new(0),
        })
    }

    pub async fn message(&self) -> (NodeId, Lane, Bytes) {
        patient(async { self.messages.lock().await.recv().await.unwrap() }).await
    }

    pub async fn link(&self) -> (NodeId, bool) {
        patient(async { self.links.lock().await.recv().await.unwrap() }).await
    }

    pub async fn gone(&self) -> NodeId {
        patient(async { self.gone.lock().await.recv().await.unwrap() }).await
    }

    pub async fn call_begins(&self) {
        patient(self.begun.acquire()).await.unwrap().forget();
    }
}

pub async fn patient<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work)
        .await
        .expect("nothing happened")
}

impl Handler for Seen {
    fn message(&self, from: NodeId, lane: Lane, payload: Bytes) {
        if self.stopped[lane.index()].is_locked() {
            tokio::task::block_in_place(|| drop(self.stopped[lane.index()].lock()));
        }
        let _ = self.to_messages.send((from, lane, payload));
    }

    fn call(
        &self,
        from: NodeId,
        payload: Bytes,
        left: Duration,
    ) -> BoxFuture<'static, Result<Bytes, Refused>> {
        self.begun.add_permits(1);
        let gate = Arc::clone(&self.gate);
        Box::pin(async move {
            match payload.as_ref() {
                b"who" => Ok(Bytes::from(from.to_string())),
                b"left" => Ok(Bytes::from(left.as_micros().to_string())),
                b"refuse" => Err(Refused::Because {
                    code: 42,
                    detail: "not today".into(),
                }),
                b"busy" => Err(Refused::Busy),
                b"hang" => std::future::pending().await,
                b"panic" => panic!("asked to"),
                b"huge" => Ok(Bytes::from(vec![0; 3 * 1024 * 1024])),
                b"wait" => {
                    gate.acquire().await.unwrap().forget();
                    Ok(Bytes::from_static(b"waited"))
                }
                _ => Ok(payload),
            }
        })
    }

    fn link(&self, peer: NodeId, up: bool) {
        let _ = self.to_links.send((peer, up));
    }

    fn gone(&self, peer: NodeId) {
        let _ = self.to_gone.send(peer);
    }
}
