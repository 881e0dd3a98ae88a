//! Changes the list of peers while the transport runs: who is new is dialled, who is gone is let go.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use crate::network::Lane;
use crate::outgoing::keep_up;
use crate::peers::{PeerState, Shared};
use crate::settings::{Peer, SettingsError, check_peers};

impl Shared {
    /// Makes these the peers; the first list is set in this way too. After the end it changes nothing.
    pub(crate) fn set_peers(self: &Arc<Self>, peers: Vec<Peer>) -> Result<(), SettingsError> {
        check_peers(self.node, Some(&self.tls.public_key), &peers)?;
        let mut former = self.former.lock();
        if self.stopped() {
            return Ok(());
        }
        self.counters.follow(peers.iter().map(|peer| peer.node));
        let before = self.peers.all();
        former.retain(|peer| peer.strong_count() > 0);
        let mut now = BTreeMap::new();
        let mut come = Vec::new();
        for peer in peers {
            let state = match before.get(&peer.node) {
                Some(same) if same.public_key == peer.public_key => {
                    same.move_to(peer.address);
                    Arc::clone(same)
                }
                other_key => {
                    let mut left = former.iter().filter_map(Weak::upgrade);
                    let last = other_key
                        .cloned()
                        .or_else(|| left.find(|left| left.node == peer.node));
                    let state = Arc::new(PeerState::new(peer, &self.bounds, last.as_deref()));
                    come.push(Arc::clone(&state));
                    state
                }
            };
            now.insert(state.node, state);
        }
        // Nobody finds the old ones from here on, so that nothing new is begun with them while they end.
        self.peers.replace(now.clone());
        for (node, peer) in &before {
            if !now.get(node).is_some_and(|now| Arc::ptr_eq(now, peer)) {
                tracing::info!(peer = node, "let go");
                peer.end(self.handler.as_ref());
                former.push(Arc::downgrade(peer));
            }
        }
        for peer in come {
            tracing::info!(peer = peer.node, "taken on");
            let config = self.tls.client(peer.public_key);
            for lane in Lane::ALL {
                self.run(keep_up(
                    Arc::clone(self),
                    Arc::clone(&peer),
                    lane,
                    Arc::clone(&config),
                ));
            }
        }
        Ok(())
    }
}
