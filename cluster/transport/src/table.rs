//! The list of peers of now. Whoever needs a peer, the TLS verifier at every handshake among them, looks here.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::network::NodeId;
use crate::peers::PeerState;

/// Peers by number and by public key, changed together.
#[derive(Default)]
pub(crate) struct PeerTable(RwLock<Listed>);

#[derive(Default)]
struct Listed {
    by_node: BTreeMap<NodeId, Arc<PeerState>>,
    by_key: HashMap<[u8; 32], Arc<PeerState>>,
}

impl PeerTable {
    pub(crate) fn get(&self, node: NodeId) -> Option<Arc<PeerState>> {
        self.0.read().by_node.get(&node).cloned()
    }

    /// The peer that this public key is pinned for.
    pub(crate) fn by_key(&self, key: &[u8; 32]) -> Option<Arc<PeerState>> {
        self.0.read().by_key.get(key).cloned()
    }

    /// Every peer.
    pub(crate) fn all(&self) -> BTreeMap<NodeId, Arc<PeerState>> {
        self.0.read().by_node.clone()
    }

    /// From now on these are the peers. Their keys differ (see [`crate::settings::check_peers`]).
    pub(crate) fn replace(&self, by_node: BTreeMap<NodeId, Arc<PeerState>>) {
        let by_key = by_node
            .values()
            .map(|peer| (peer.public_key, Arc::clone(peer)))
            .collect();
        *self.0.write() = Listed { by_node, by_key };
    }
}

impl fmt::Debug for PeerTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.read().by_node.keys()).finish()
    }
}
