//! The thread that owns all groups of a node: drain, tick, write once and sync once for all groups, send.
//!
//! While a sync runs, whatever arrives waits and shares the next one: batches grow with the load by
//! themselves. A write error or a panic ends the process by the given hook; what a failed write left behind
//! is unknown, so nothing more may be acknowledged.

use crate::driver::{Driver, GroupStatus};
use crate::freshness::Clock;
use crate::ids::{Millis, NodeId};
use crate::inbox::{Inbox, Item, ProposeAnswer, ReadAnswer};
use crate::output::{Output, ProposeError, Reply};
use crate::snapshot_read::SnapshotRead;
use crate::store::{Store, StoreError};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Carries frames to peers. Both lanes may drop; neither may block.
pub trait Outbound: Send + Sync + 'static {
    /// The raft lane: first in, first out.
    fn send(&self, to: NodeId, frame: Vec<u8>);
    /// The bulk lane: snapshot chunks, some 256 KiB each. They arrive by [`crate::Consensus::receive`] too.
    fn send_bulk(&self, to: NodeId, frame: Vec<u8>) {
        self.send(to, frame);
    }
}

/// Ends the process. The default logs and aborts.
pub type OnFatal = Box<dyn FnOnce(&str) + Send>;

enum Caller {
    Propose(ProposeAnswer),
    Read(ReadAnswer),
}

pub(crate) struct StoreLoop<S: Store> {
    pub(crate) driver: Driver<S>,
    pub(crate) store: Arc<S>,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) outbound: Arc<dyn Outbound>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) tick: Duration,
    pub(crate) status: Arc<Mutex<Vec<GroupStatus>>>,
    /// To the thread that reads snapshot chunks.
    pub(crate) reader: mpsc::Sender<SnapshotRead>,
    callers: BTreeMap<u64, Caller>,
    next_ticket: u64,
    stopping: Option<(Millis, oneshot::Sender<()>)>,
}

impl<S: Store> StoreLoop<S> {
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn new(
        driver: Driver<S>,
        store: Arc<S>,
        inbox: Arc<Inbox>,
        outbound: Arc<dyn Outbound>,
        clock: Arc<dyn Clock>,
        tick: Duration,
        status: Arc<Mutex<Vec<GroupStatus>>>,
        reader: mpsc::Sender<SnapshotRead>,
    ) -> Self {
        StoreLoop {
            driver,
            store,
            inbox,
            outbound,
            clock,
            tick,
            status,
            reader,
            callers: BTreeMap::new(),
            next_ticket: 1,
            stopping: None,
        }
    }

    /// Runs until shutdown, or until `on_fatal` is called.
    pub(crate) fn run(mut self, on_fatal: OnFatal) {
        let inbox = self.inbox.clone();
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| self.turn_until_stopped()));
        inbox.close();
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(error)) => on_fatal(&error.to_string()),
            Err(_) => on_fatal("the store thread panicked"),
        }
    }

    fn turn_until_stopped(&mut self) -> Result<(), StoreError> {
        let mut next_tick = Instant::now() + self.tick;
        loop {
            for item in self.inbox.take(next_tick) {
                self.take(item)?;
            }
            let now = Instant::now();
            if now >= next_tick {
                // One tick however late: a stall must not look like a silent leader.
                self.driver.tick(self.clock.now())?;
                next_tick = now + self.tick;
                self.hand_over();
            }
            self.process()?;
            if self.stop_now() {
                return Ok(());
            }
        }
    }

    fn take(&mut self, item: Item) -> Result<(), StoreError> {
        let now = self.clock.now();
        match item {
            Item::Frame(from, frame) => self.driver.receive(now, from, &frame),
            Item::Link(peer, up) => self.driver.link(now, peer, up),
            Item::Refused(peer) => self.driver.refused(now, peer),
            Item::Peers(peers) => self.driver.set_peers(peers),
            Item::Propose {
                group,
                entry,
                deadline,
                answer,
            } => {
                let ticket = self.ticket(Caller::Propose(answer));
                self.driver.propose(now, ticket, group, entry, deadline);
            }
            Item::ReadIndex {
                group,
                deadline,
                answer,
            } => {
                let ticket = self.ticket(Caller::Read(answer));
                self.driver.read_index(now, ticket, group, deadline);
            }
            Item::Chunk(read) => self.driver.chunk_read(now, read)?,
            Item::Shutdown { deadline, answer } => {
                self.stopping = Some((deadline, answer));
                self.hand_over();
            }
            #[cfg(test)]
            Item::Panic => panic!("asked to"),
        }
        Ok(())
    }

    fn ticket(&mut self, caller: Caller) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.callers.insert(ticket, caller);
        ticket
    }

    /// Turns until nothing is left to do.
    fn process(&mut self) -> Result<(), StoreError> {
        while let Some(turn) = self.driver.collect(self.clock.now())? {
            self.send();
            if !turn.batch.is_empty() || turn.sync {
                self.store.write(&turn.batch, turn.sync)?;
            }
            self.driver.finish(self.clock.now(), turn)?;
            *self.status.lock() = self.driver.status();
            self.send();
        }
        *self.status.lock() = self.driver.status();
        // After the status, so that who was answered sees it.
        self.send();
        Ok(())
    }

    fn send(&mut self) {
        let Output {
            messages,
            bulk,
            replies,
            reads,
        } = self.driver.take_output();
        for (to, frame) in messages {
            self.outbound.send(to, frame);
        }
        for (to, frame) in bulk {
            self.outbound.send_bulk(to, frame);
        }
        for read in reads {
            // The thread ends only after this loop does.
            let _ = self.reader.send(read);
        }
        for reply in replies {
            // A caller that no longer waits does not mind.
            match reply {
                Reply::Proposed { ticket, result } => {
                    if let Some(Caller::Propose(answer)) = self.callers.remove(&ticket) {
                        let _ = answer.send(result);
                    }
                }
                Reply::Read { ticket, result } => {
                    if let Some(Caller::Read(answer)) = self.callers.remove(&ticket) {
                        let _ = answer.send(result);
                    }
                }
            }
        }
    }

    fn hand_over(&mut self) {
        if self.stopping.is_some() {
            self.driver.transfer_leaderships();
        }
    }

    fn stop_now(&mut self) -> bool {
        let Some((deadline, _)) = &self.stopping else {
            return false;
        };
        let leads = self.driver.transfer_leaderships() > 0;
        if leads && self.clock.now() < *deadline {
            return false;
        }
        self.driver.take_leave(self.clock.now());
        self.send();
        for (_, caller) in std::mem::take(&mut self.callers) {
            if let Caller::Propose(answer) = caller {
                let _ = answer.send(Err(ProposeError::Stopping));
            }
        }
        if let Some((_, answer)) = self.stopping.take() {
            let _ = answer.send(());
        }
        true
    }
}

/// Reads snapshot chunks, which may wait for the disk, so that the loop does not.
pub(crate) fn read_chunks(jobs: &mpsc::Receiver<SnapshotRead>, inbox: &Inbox) {
    while let Ok(job) = jobs.recv() {
        if inbox.put(Item::Chunk(job.run())).is_err() {
            return;
        }
    }
}
