//! The transport over TCP and TLS. Start it inside a tokio runtime; end it with [`Network::shutdown`] (dropping the
//! last clone ends it too, without waiting).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::runtime;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::counters::Counters;
use crate::formats::{Format, Formats};
use crate::frame::Verdict;
use crate::incoming::accept_all;
use crate::network::{CallError, Handler, Lane, Network, NodeId, Refused, SendError};
use crate::peers::{Outbound, PeerState, Shared};
use crate::queue::PushError;
use crate::settings::{Boot, Peer, Settings, SettingsError};
use crate::table::PeerTable;
use crate::tls::{Tls, TlsError};

/// Why the transport does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings contradict themselves.
    #[error("settings: {0}")]
    Settings(#[from] SettingsError),
    /// Certificates or keys do not fit.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The port cannot be had.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A node's connections to all its peers. Clones are the same transport.
#[derive(Clone)]
pub struct Transport {
    owner: Arc<Owner>,
}

/// Ends the tasks when the last clone goes; they hold only what is shared.
struct Owner {
    shared: Arc<Shared>,
    local: SocketAddr,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.stop.send_replace(true);
    }
}

impl Transport {
    /// Listens, and dials every peer until it is reached. Returns when the port is open, not when peers are up.
    pub async fn start(settings: Settings, handler: Arc<dyn Handler>) -> Result<Transport, StartError> {
        settings.check()?;
        let peers = Arc::<PeerTable>::default();
        let tls = Tls::new(&settings, Arc::clone(&peers))?;
        let address = settings.listen;
        let listening = async {
            let listener = TcpListener::bind(address).await?;
            let local = listener.local_addr()?;
            Ok((listener, local))
        };
        let (listener, local) = listening
            .await
            .map_err(|source| StartError::Listen { address, source })?;
        let shared = Arc::new(Shared {
            cluster: settings.cluster,
            node: settings.node,
            boot: settings.boot,
            formats: settings.formats,
            bounds: settings.bounds,
            tls,
            handler,
            counters: Counters::default(),
            peers,
            former: Mutex::default(),
            runtime: runtime::Handle::current(),
            stop: watch::Sender::new(false),
            tasks: watch::Sender::new(0),
        });
        let owner = Arc::new(Owner {
            shared: Arc::clone(&shared),
            local,
        });
        shared.set_peers(settings.peers)?;
        shared.run(accept_all(Arc::clone(&shared), listener));
        Ok(Transport { owner })
    }

    /// Where it accepts; the port in use if port 0 was asked for.
    pub fn local_address(&self) -> SocketAddr {
        self.owner.local
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.owner.shared
    }

    /// What both ways of sending check first.
    fn sendable(&self, to: NodeId, lane: Lane, payload: &Bytes) -> Result<Arc<PeerState>, SendError> {
        let shared = self.shared();
        if shared.stopped() {
            return Err(SendError::ShutDown);
        }
        if lane == Lane::Ceremony {
            return Err(SendError::CallsOnly);
        }
        if payload.len() > shared.bounds.payload_of(lane) {
            return Err(SendError::TooLarge);
        }
        shared.peers.get(to).ok_or(SendError::UnknownPeer)
    }
}

/// Waits for a connection and for room in its queue.
async fn push_when_free(peer: &PeerState, lane: Lane, payload: &Bytes) -> Result<(), SendError> {
    let mut current = peer.lane(lane).current.subscribe();
    loop {
        let connection = match current.wait_for(Option::is_some).await {
            Ok(connection) => connection.clone(),
            Err(_) => return Err(SendError::ShutDown),
        };
        if let Some(connection) = connection {
            let pushed = connection
                .queue
                .push(Outbound::Message(payload.clone()), payload.len());
            if pushed.await.is_ok() {
                return Ok(());
            }
            // It ended; the slot is emptied in a moment.
            tokio::task::yield_now().await;
        }
    }
}

#[async_trait]
impl Network for Transport {
    fn node(&self) -> NodeId {
        self.shared().node
    }

    fn set_peers(&self, peers: Vec<Peer>) -> Result<(), SettingsError> {
        self.shared().set_peers(peers)
    }

    fn send(&self, to: NodeId, lane: Lane, payload: Bytes) -> Result<(), SendError> {
        let peer = self.sendable(to, lane, &payload)?;
        let connection = peer.current(lane).ok_or(SendError::NotConnected)?;
        let size = payload.len();
        connection
            .queue
            .try_push(Outbound::Message(payload), size)
            .map_err(|error| match error {
                PushError::Full => {
                    self.shared()
                        .counters
                        .with(to, |c| c.queue_full[lane.index()].one());
                    SendError::Full
                }
                PushError::Closed => SendError::NotConnected,
            })
    }

    async fn send_when_free(
        &self,
        to: NodeId,
        lane: Lane,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<(), SendError> {
        let deadline = Instant::now() + timeout;
        loop {
            let peer = self.sendable(to, lane, &payload)?;
            let sending = push_when_free(&peer, lane, &payload);
            tokio::select! {
                sent = timeout_at(deadline, sending) => return sent.unwrap_or(Err(SendError::TimedOut)),
                // Either it is no peer any more, or it has another key: look again.
                () = peer.until_ended() => (),
                () = self.shared().until_stopped() => return Err(SendError::ShutDown),
            }
        }
    }

    async fn call(&self, to: NodeId, payload: Bytes, timeout: Duration) -> Result<Bytes, CallError> {
        let shared = self.shared();
        let deadline = Instant::now() + timeout.min(shared.bounds.call_time);
        if shared.stopped() {
            return Err(CallError::Closed);
        }
        if payload.len() > shared.bounds.payload_of(Lane::Ceremony) {
            return Err(CallError::TooLarge);
        }
        let peer = shared.peers.get(to).ok_or(CallError::NotConnected)?;
        let busy = || {
            shared.counters.with(to, |c| c.busy_here.one());
            CallError::Busy
        };
        let _room = peer.calls_out.try_acquire().map_err(|_| busy())?;
        let connection = peer.current(Lane::Ceremony).ok_or(CallError::NotConnected)?;
        let mut waiting = connection.calls.open().ok_or(CallError::NotConnected)?;
        let size = payload.len();
        let outbound = Outbound::Call {
            id: waiting.id,
            deadline,
            payload,
        };
        connection
            .queue
            .try_push(outbound, size)
            .map_err(|error| match error {
                PushError::Full => busy(),
                PushError::Closed => CallError::NotConnected,
            })?;
        match timeout_at(deadline, &mut waiting.verdict).await {
            Err(_) => {
                shared.counters.with(to, |c| c.timed_out.one());
                Err(CallError::TimedOut)
            }
            Ok(Err(_)) | Ok(Ok(Verdict::Failed)) => Err(CallError::Closed),
            Ok(Ok(Verdict::Done(bytes))) => Ok(bytes),
            Ok(Ok(Verdict::Busy)) => Err(CallError::Busy),
            Ok(Ok(Verdict::Refused { code, detail })) => {
                Err(CallError::Refused(Refused::Because { code, detail }))
            }
        }
    }

    fn connected(&self, peer: NodeId) -> bool {
        self.shared()
            .peers
            .get(peer)
            .is_some_and(|peer| peer.up.load(Ordering::Acquire))
    }

    fn boot_of(&self, peer: NodeId) -> Option<Boot> {
        let peer = self.shared().peers.get(peer)?;
        peer.current(Lane::Ceremony).map(|connection| connection.boot)
    }

    fn formats(&self) -> Formats {
        self.shared().formats
    }

    fn formats_of(&self, peer: NodeId) -> Option<Formats> {
        self.shared().peers.get(peer)?.formats()
    }

    fn format_with(&self, peer: NodeId) -> Option<Format> {
        let peer = self.shared().peers.get(peer)?;
        peer.current(Lane::Ceremony).map(|connection| connection.format)
    }

    fn counters(&self) -> &Counters {
        &self.shared().counters
    }

    async fn shutdown(&self) {
        let shared = self.shared();
        {
            let _no_change = shared.former.lock();
            shared.stop.send_replace(true);
        }
        // The sender is in `shared`, so this cannot fail.
        let _ = shared.tasks.subscribe().wait_for(|tasks| *tasks == 0).await;
    }
}
