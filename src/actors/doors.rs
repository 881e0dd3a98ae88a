//! Where frames of other nodes come in and consensus' frames go out: between the network on one side, consensus and
//! the registry on the other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use conclave_consensus::{Consensus, Outbound};
use conclave_transport::{BoxFuture, Handler, Lane, Network, NodeId, Refused};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::registry::Registry;
use super::wire::{Abstention, Answer, CIRCUITS, CONSENSUS, Call, format_of};
use crate::format::OLDEST;
use crate::overload::Shares;

/// Questions of one peer that this node works at, also those that nobody waits for any more; a class finds its part of it.
pub const OF_ONE_PEER: usize = 1_024;
/// The same of all: more peers than a group has members.
const OF_ALL_PEERS: usize = 16 * OF_ONE_PEER;

/// Consensus' way out; the network is connected once it has started.
#[derive(Default)]
pub struct Lanes(Mutex<Option<Arc<dyn Network>>>);

impl Lanes {
    /// From now on frames leave through `network`.
    pub fn connect(&self, network: Arc<dyn Network>) {
        *self.0.lock() = Some(network);
    }

    fn send_on(&self, lane: Lane, to: NodeId, frame: Vec<u8>) {
        // Raft sends again what is lost here.
        if let Some(network) = self.0.lock().clone() {
            let frame = match lane {
                Lane::Bulk => [&[CONSENSUS][..], &frame].concat(),
                _ => frame,
            };
            let _ = network.send(to, lane, Bytes::from(frame));
        }
    }
}

impl Outbound for Lanes {
    fn send(&self, to: NodeId, frame: Vec<u8>) {
        self.send_on(Lane::Raft, to, frame);
    }

    fn send_bulk(&self, to: NodeId, frame: Vec<u8>) {
        self.send_on(Lane::Bulk, to, frame);
    }
}

/// The way in.
pub struct Doors {
    consensus: Consensus,
    registry: Mutex<Option<Arc<Registry>>>,
    /// Questions under way, by who asked.
    questions: Arc<Shares<NodeId>>,
    wake: Arc<Notify>,
}

impl Doors {
    /// Doors to consensus; questions are answered `Busy` until [`Doors::open`].
    pub fn new(consensus: Consensus) -> Self {
        Self {
            consensus,
            registry: Mutex::new(None),
            questions: Arc::new(Shares::new(OF_ALL_PEERS, OF_ONE_PEER)),
            wake: Arc::default(),
        }
    }

    /// From now on questions are answered by `registry`.
    pub fn open(&self, registry: Arc<Registry>) {
        *self.registry.lock() = Some(registry);
    }

    /// Questions of peers under way.
    pub fn under_way(&self) -> usize {
        self.questions.taken()()
    }

    /// Told whenever a link comes up.
    pub fn wake(&self) -> Arc<Notify> {
        self.wake.clone()
    }
}

impl Handler for Doors {
    fn message(&self, from: NodeId, lane: Lane, mut payload: Bytes) {
        if lane != Lane::Bulk {
            return self.consensus.receive(from, &payload);
        }
        match (!payload.is_empty()).then(|| payload.get_u8()) {
            Some(CONSENSUS) => self.consensus.receive(from, &payload),
            Some(CIRCUITS) => {
                let registry = self.registry.lock().clone();
                if let Some(registry) = registry {
                    registry.stream(from, payload);
                }
            }
            _ => {}
        }
    }

    fn call(
        &self,
        from: NodeId,
        payload: Bytes,
        left: Duration,
    ) -> BoxFuture<'static, Result<Bytes, Refused>> {
        let deadline = Instant::now() + left;
        let registry = self.registry.lock().clone();
        let questions = self.questions.clone();
        Box::pin(async move {
            let Some(registry) = registry else {
                return Err(Refused::Busy);
            };
            let format = format_of(&payload);
            let answer = match Call::decode(&payload) {
                Some(call) => {
                    // The place is given back when the work has ended, not when its sender has lost patience.
                    let Ok(place) = questions.enter(from, call.class()) else {
                        registry.peer_shed(from, call.class());
                        return Err(Refused::Busy);
                    };
                    // Spawned: a contribution that has begun is finished, whatever becomes of the connection.
                    let held = tokio::spawn(async move {
                        let _place = place;
                        registry.hold(from, call, deadline).await
                    });
                    match tokio::time::timeout(left, held).await {
                        Ok(Ok(answer)) => answer,
                        _ => Answer::Abstained(Abstention::Busy),
                    }
                }
                None => registry.cannot_read(from, format.err().flatten()),
            };
            // One that is in no format of this build has an answer in the nearest one that is.
            let format = format.unwrap_or_else(|unknown| unknown.unwrap_or(OLDEST));
            Ok(answer.encode_in(format).into())
        })
    }

    fn link(&self, peer: NodeId, up: bool) {
        self.consensus.link(peer, up);
        if up {
            self.wake.notify_one();
        } else if let Some(registry) = self.registry.lock().as_ref() {
            registry.disconnected(peer);
        }
    }
    fn gone(&self, peer: NodeId) {
        self.consensus.refused(peer);
    }
}
