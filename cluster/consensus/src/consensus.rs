//! The handle that a node keeps: everything that the rest of the node may ask of its groups.

use crate::application::Application;
use crate::attestation::{Attestor, RolledBack};
use crate::counters::Counters;
use crate::driver::{Driver, GroupStatus};
use crate::freshness::{Behind, Clock, Freshness, MonotonicClock};
use crate::ids::{GroupId, Millis, NodeId};
use crate::inbox::{Inbox, Item};
use crate::opening::OpenError;
use crate::output::{Applied, NoLeader, ProposeError};
use crate::rocks::RocksStore;
use crate::settings::{MAX_FRAME, Settings};
use crate::store::StoreError;
use crate::store_loop::{self, OnFatal, Outbound, StoreLoop};
use crate::view::View;
use parking_lot::Mutex;
use rand::RngCore as _;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How long a node waits for others to take its leaderships.
const HAND_OVER: Duration = Duration::from_secs(2);

/// All Raft groups of this node. Cheap to clone; every clone is the same node.
#[derive(Clone)]
pub struct Consensus {
    shared: Arc<Shared>,
}

struct Shared {
    inbox: Arc<Inbox>,
    freshness: Arc<Freshness>,
    counters: Arc<Counters>,
    clock: Arc<dyn Clock>,
    status: Arc<Mutex<Vec<GroupStatus>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Consensus {
    /// `init`: writes this node's identity and the one-use permission to create the groups. Every node of the
    /// new cluster gets the same settings but for `node`. Refuses a directory that has something in it.
    pub fn bootstrap(path: &Path, settings: &Settings) -> Result<(), OpenError> {
        Driver::bootstrap(&RocksStore::open(path)?, settings)
    }

    /// Writes this node's identity and the one-use permission to start with empty groups, which their leaders fill once the
    /// node is a learner. `settings.voters` are those that the cluster began with, `settings.peers` those who are in it
    /// now. Refuses a directory that has something in it.
    pub fn prepare_joining(path: &Path, settings: &Settings) -> Result<(), OpenError> {
        Driver::prepare_joining(&RocksStore::open(path)?, settings)
    }

    /// Opens the database at `path` and starts the store thread. An empty directory is
    /// [`OpenError::Joining`], another node's or cluster's [`OpenError::Mismatch`]. A failed write aborts the
    /// process.
    pub fn open(
        settings: Settings,
        path: &Path,
        app: Arc<dyn Application>,
        attestor: Arc<dyn Attestor>,
        outbound: Arc<dyn Outbound>,
    ) -> Result<Self, OpenError> {
        let on_fatal: OnFatal = Box::new(|reason| {
            tracing::error!(reason, "the store failed; the process ends");
            std::process::abort();
        });
        Self::open_with(settings, path, app, attestor, outbound, on_fatal)
    }

    /// [`Consensus::open`] with another way to end when a write fails or the store thread panics. After
    /// `on_fatal` nothing is acknowledged any more, whatever it does.
    pub fn open_with(
        settings: Settings,
        path: &Path,
        app: Arc<dyn Application>,
        attestor: Arc<dyn Attestor>,
        outbound: Arc<dyn Outbound>,
        on_fatal: OnFatal,
    ) -> Result<Self, OpenError> {
        let store = Arc::new(RocksStore::open(path)?);
        let clock: Arc<dyn Clock> = Arc::new(MonotonicClock::start());
        let inbox = Arc::new(Inbox::new(settings.inbox, settings.inbox_bytes));
        let tick = Duration::from_millis(settings.tick_ms);
        let mut seed = [0; 32];
        rand::rngs::OsRng.fill_bytes(&mut seed);
        let driver = Driver::open(settings, store.clone(), app, attestor, clock.clone(), seed)?;
        let status = Arc::new(Mutex::new(driver.status()));
        let (freshness, counters) = (driver.freshness().clone(), driver.counters().clone());
        let (jobs, to_read) = mpsc::channel();
        let chunks = inbox.clone();
        let reader = spawn("snapshot-reader", move || {
            store_loop::read_chunks(&to_read, &chunks)
        })?;
        let store_loop = StoreLoop::new(
            driver,
            store,
            inbox.clone(),
            outbound,
            clock.clone(),
            tick,
            status.clone(),
            jobs,
        );
        let writer = spawn("raft-store", move || store_loop.run(on_fatal))?;
        let threads = Mutex::new(vec![writer, reader]);
        Ok(Consensus {
            shared: Arc::new(Shared {
                inbox,
                freshness,
                counters,
                clock,
                status,
                threads,
            }),
        })
    }

    /// A frame of the raft or the bulk lane, from the peer that the link's TLS identity names. Never blocks:
    /// drops and counts when the store thread is behind.
    pub fn receive(&self, from: NodeId, frame: &[u8]) {
        let long = frame.len() > MAX_FRAME;
        if long || self.shared.inbox.put(Item::Frame(from, frame.to_vec())).is_err() {
            self.shared.counters.inbox_full.add(1);
        }
    }

    /// A link to a peer came up, or broke.
    pub fn link(&self, peer: NodeId, up: bool) {
        let _ = self.shared.inbox.put(Item::Link(peer, up));
    }

    /// A broken link could not be made again because nobody listens there (connection refused). Groups that
    /// the peer led start an election within 150 ms instead of a second.
    pub fn refused(&self, peer: NodeId) {
        let _ = self.shared.inbox.put(Item::Refused(peer));
    }

    /// Changes whom this node may talk to beside the members of its groups ([`Settings::peers`]).
    pub fn set_peers(&self, peers: Vec<NodeId>) {
        let _ = self.shared.inbox.put(Item::Peers(peers));
    }

    /// Proposes an entry through whichever node leads and answers when **this** node has applied it, with the
    /// result of applying it here. Tries again by itself until the deadline, so the entry may be committed
    /// more than once: the application applies an operation once, by its id inside the entry.
    pub async fn propose(
        &self,
        group: GroupId,
        entry: Vec<u8>,
        deadline: Instant,
    ) -> Result<Applied, ProposeError> {
        let (answer, answered) = oneshot::channel();
        let deadline = self.millis(deadline);
        self.shared
            .inbox
            .put(Item::Propose {
                group,
                entry,
                deadline,
                answer,
            })
            .map_err(|_| {
                self.shared.counters.proposals_busy.add(1);
                ProposeError::Busy(group)
            })?;
        answered.await.unwrap_or(Err(ProposeError::OutcomeUnknown(group)))
    }

    /// Confirms with a leader an index that covers everything acknowledged before this call, and returns when
    /// it is applied here. Calls share rounds.
    pub async fn read_index(&self, group: GroupId, deadline: Instant) -> Result<u64, NoLeader> {
        let (answer, answered) = oneshot::channel();
        let deadline = self.millis(deadline);
        let put = self.shared.inbox.put(Item::ReadIndex {
            group,
            deadline,
            answer,
        });
        put.map_err(|_| NoLeader(group))?;
        answered.await.unwrap_or(Err(NoLeader(group)))
    }

    /// The state of a group now, from one snapshot. Enough for what a stale answer does not hurt; decisions go
    /// through [`Consensus::freshness`].
    pub fn view(&self, group: GroupId) -> Result<View, StoreError> {
        self.shared.freshness.view(group)
    }

    /// Who decides by state without a leader asks there.
    pub fn freshness(&self) -> &Freshness {
        &self.shared.freshness
    }

    /// Index of the last applied entry that readers see; 0 for a group that is not here.
    pub fn applied_index(&self, group: GroupId) -> u64 {
        self.shared
            .freshness
            .board(group)
            .map_or(0, |board| board.applied())
    }

    /// Index of the entry that made the group's configuration; 0 for a group that is not here.
    pub fn configuration_index(&self, group: GroupId) -> u64 {
        let board = self.shared.freshness.board(group);
        board.map_or(0, |board| board.configuration_index.load(Ordering::Acquire))
    }

    /// Waits until `index` is applied here and visible to readers.
    pub async fn wait_applied(&self, group: GroupId, index: u64, deadline: Instant) -> Result<(), Behind> {
        self.shared.freshness.wait_applied(group, index, deadline).await
    }

    /// Why this node takes no part in anything, if its disk was found to be an older copy.
    pub fn rolled_back(&self) -> Option<&RolledBack> {
        self.shared.freshness.rolled_back()
    }

    /// Every group, as of the store thread's last turn.
    pub fn status(&self) -> Vec<GroupStatus> {
        self.shared.status.lock().clone()
    }

    /// What this node counts.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// Hands over leaderships (2 s at most) and stops the threads. The database closes when the last clone of
    /// this handle and the last [`View`] are dropped.
    pub async fn shutdown(&self) {
        let (answer, answered) = oneshot::channel();
        let deadline = self.millis(Instant::now() + HAND_OVER);
        if self.shared.inbox.put(Item::Shutdown { deadline, answer }).is_ok() {
            let _ = answered.await;
        }
        let threads = std::mem::take(&mut *self.shared.threads.lock());
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                let _ = thread.join();
            }
        });
        let _ = joined.await;
    }

    /// A deadline on the driver's clock.
    fn millis(&self, deadline: Instant) -> Millis {
        let left = deadline.saturating_duration_since(Instant::now()).as_millis();
        self.shared
            .clock
            .now()
            .saturating_add(u64::try_from(left).unwrap_or(u64::MAX))
    }

    #[cfg(test)]
    pub(crate) fn panic_store_thread(&self) {
        let _ = self.shared.inbox.put(Item::Panic);
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(body);
    thread.map_err(|error| OpenError::Store(StoreError(Box::new(error))))
}
