//! What a node needs to know to reach its peers. Check with [`Settings::check`]; [`crate::Transport::start`] does.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::formats::Formats;
use crate::network::{Lane, NodeId};
use crate::tls::public_key_of;

/// A nonce that a process draws at its start.
pub type Boot = [u8; 16];

/// Another member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its number.
    pub node: NodeId,
    /// Where it listens: `host:port`; the name is looked up at each attempt to connect.
    pub address: String,
    /// The Ed25519 public key that membership pins for it: the one in its certificate.
    pub public_key: [u8; 32],
}

/// Everything that [`crate::Transport::start`] wants.
pub struct Settings {
    /// The cluster's id; a peer of another one is refused.
    pub cluster: [u8; 32],
    /// This node.
    pub node: NodeId,
    /// Fresh random bytes of this process, stated to every peer.
    pub boot: Boot,
    /// What this build speaks, stated to every peer.
    pub formats: Formats,
    /// Where to accept. Port 0 takes a free one (see [`crate::Transport::local_address`]).
    pub listen: SocketAddr,
    /// This node's certificate (Ed25519, usable for client and server), then any intermediates.
    pub certificate_chain: Vec<CertificateDer<'static>>,
    /// The certificate's key.
    pub private_key: PrivateKeyDer<'static>,
    /// The cluster's certificate authority.
    pub roots: Vec<CertificateDer<'static>>,
    /// The other members at the start, this node not among them; later [`crate::Network::set_peers`] changes them.
    pub peers: Vec<Peer>,
    /// Sizes, numbers and times.
    pub bounds: Bounds,
}

/// The bounds of queues, frames, connections and waits. The defaults suit three to five nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Largest payload per lane, in bytes, by [`Lane::index`].
    pub payload: [usize; 3],
    /// Most frames that wait in a lane's queue to one peer, by [`Lane::index`].
    pub queue_frames: [usize; 3],
    /// Most bytes that wait there; at least the lane's largest payload.
    pub queue_bytes: [usize; 3],
    /// Most calls under way from this node to one peer, and from one peer to this node.
    pub calls: usize,
    /// Longest time a call may take; a longer timeout is cut to this.
    pub call_time: Duration,
    /// Time for TCP connect, TLS and hello together.
    pub handshake: Duration,
    /// Most incoming connections whose handshake is under way; one more ends the oldest.
    pub half_open: usize,
    /// A connection that is idle for this long is probed.
    pub probe: Duration,
    /// A connection on which nothing arrives, or nothing can be written, for this long is closed.
    pub silence: Duration,
    /// First wait before dialling again; doubles, with jitter.
    pub backoff_first: Duration,
    /// Longest wait before dialling again.
    pub backoff_most: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        const KIB: usize = 1024;
        const MIB: usize = 1024 * KIB;
        Self {
            payload: [4 * MIB, 2 * MIB, 4 * MIB],
            queue_frames: [4096, 4096, 64],
            queue_bytes: [32 * MIB, 32 * MIB, 16 * MIB],
            calls: 1024,
            call_time: Duration::from_secs(60),
            handshake: Duration::from_secs(5),
            half_open: 256,
            probe: Duration::from_secs(1),
            silence: Duration::from_secs(4),
            backoff_first: Duration::from_millis(20),
            backoff_most: Duration::from_secs(1),
        }
    }
}

impl Bounds {
    /// The largest payload on a lane, in bytes.
    pub fn payload_of(&self, lane: Lane) -> usize {
        self.payload[lane.index()]
    }
}

/// Why settings are refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// A bound is zero, above what the wire can carry, or a queue smaller than one frame.
    #[error("bound {0} is out of range")]
    Bound(&'static str),
    /// The list of peers holds this node.
    #[error("this node is among its own peers")]
    SelfPeer,
    /// Two peers with one number.
    #[error("node {0} is listed twice")]
    DuplicateNode(NodeId),
    /// Two peers, or a peer and this node, with one public key.
    #[error("the public key of node {0} belongs to another node too")]
    DuplicateKey(NodeId),
}

/// No payload may be larger than this, whatever the settings say (64 MiB).
pub const PAYLOAD_LIMIT: usize = 64 * 1024 * 1024;

impl Settings {
    /// Refuses settings that cannot work.
    pub fn check(&self) -> Result<(), SettingsError> {
        self.bounds.check()?;
        let own = self.certificate_chain.first().and_then(public_key_of);
        check_peers(self.node, own.as_ref(), &self.peers)
    }
}

/// Refuses a list of peers that cannot work for this node, whose own public key is `own` where it has one.
pub(crate) fn check_peers(node: NodeId, own: Option<&[u8; 32]>, peers: &[Peer]) -> Result<(), SettingsError> {
    let mut keys: HashSet<_> = own.into_iter().collect();
    let mut nodes = HashSet::new();
    for peer in peers {
        if peer.node == node {
            return Err(SettingsError::SelfPeer);
        }
        if !nodes.insert(peer.node) {
            return Err(SettingsError::DuplicateNode(peer.node));
        }
        if !keys.insert(&peer.public_key) {
            return Err(SettingsError::DuplicateKey(peer.node));
        }
    }
    Ok(())
}

impl Bounds {
    /// Refuses bounds that cannot work.
    pub fn check(&self) -> Result<(), SettingsError> {
        for lane in Lane::ALL {
            let i = lane.index();
            if self.payload[i] == 0 || self.payload[i] > PAYLOAD_LIMIT {
                return Err(SettingsError::Bound("payload"));
            }
            if self.queue_frames[i] == 0 || self.queue_frames[i] > 1 << 20 {
                return Err(SettingsError::Bound("queue_frames"));
            }
            if self.queue_bytes[i] < self.payload[i] || self.queue_bytes[i] > 1 << 30 {
                return Err(SettingsError::Bound("queue_bytes"));
            }
        }
        if self.calls == 0 || self.calls > 1 << 20 {
            return Err(SettingsError::Bound("calls"));
        }
        if self.half_open == 0 {
            return Err(SettingsError::Bound("half_open"));
        }
        if self.probe.is_zero() || self.probe >= self.silence {
            return Err(SettingsError::Bound("probe"));
        }
        if self.handshake.is_zero() {
            return Err(SettingsError::Bound("handshake"));
        }
        if self.call_time.is_zero() || self.call_time > Duration::from_secs(3600) {
            return Err(SettingsError::Bound("call_time"));
        }
        if self.backoff_first.is_zero() || self.backoff_first > self.backoff_most {
            return Err(SettingsError::Bound("backoff_first"));
        }
        Ok(())
    }
}
