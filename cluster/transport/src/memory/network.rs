//! One node's view of the hub: what it sends, whom it calls, and who its peers are.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use super::{Inner, Kind, Pipe, Seat};
use crate::counters::Counters;
use crate::formats::{Format, Formats};
use crate::frame::Verdict;
use crate::network::{CallError, Lane, Network, NodeId, Refused, SendError};
use crate::queue::PushError;
use crate::settings::{Boot, Peer, SettingsError, check_peers};

/// One node's view of a [`super::Hub`].
#[derive(Clone)]
pub struct MemoryNetwork {
    pub(super) inner: Arc<Inner>,
    pub(super) seat: Arc<Seat>,
}

impl MemoryNetwork {
    fn stopped(&self) -> bool {
        *self.seat.changed.borrow()
    }

    fn sendable(&self, to: NodeId, lane: Lane, payload: &Bytes) -> Result<(), SendError> {
        if self.stopped() {
            return Err(SendError::ShutDown);
        }
        if lane == Lane::Ceremony {
            return Err(SendError::CallsOnly);
        }
        if payload.len() > self.inner.bounds.payload_of(lane) {
            return Err(SendError::TooLarge);
        }
        if !self.seat.lists(to) {
            return Err(SendError::UnknownPeer);
        }
        Ok(())
    }
}

#[async_trait]
impl Network for MemoryNetwork {
    fn node(&self) -> NodeId {
        self.seat.node
    }

    fn set_peers(&self, peers: Vec<Peer>) -> Result<(), SettingsError> {
        check_peers(self.seat.node, None, &peers)?;
        let _control = self.inner.control.lock();
        if self.stopped() {
            return Ok(());
        }
        let nodes = peers.iter().map(|peer| peer.node);
        self.seat.counters.follow(nodes.clone());
        *self.seat.peers.write() = nodes.collect();
        self.inner.settle();
        // Whoever waits to send looks again.
        self.seat.changed.send_modify(|_| ());
        Ok(())
    }

    fn send(&self, to: NodeId, lane: Lane, payload: Bytes) -> Result<(), SendError> {
        self.sendable(to, lane, &payload)?;
        let pipe = self.inner.find(&self.seat, to).ok_or(SendError::NotConnected)?;
        let size = payload.len();
        pipe.queues[lane.index()]
            .try_push(payload, size)
            .map_err(|error| match error {
                PushError::Full => {
                    self.seat.counters.with(to, |c| c.queue_full[lane.index()].one());
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
        let mut changed = self.seat.changed.subscribe();
        let sending = async {
            loop {
                changed.borrow_and_update();
                self.sendable(to, lane, &payload)?;
                let Some(pipe) = self.inner.find(&self.seat, to) else {
                    if changed.changed().await.is_err() {
                        return Err(SendError::ShutDown);
                    }
                    continue;
                };
                if pipe.queues[lane.index()]
                    .push(payload.clone(), payload.len())
                    .await
                    .is_ok()
                {
                    return Ok(());
                }
                tokio::task::yield_now().await;
            }
        };
        timeout_at(Instant::now() + timeout, sending)
            .await
            .unwrap_or(Err(SendError::TimedOut))
    }

    async fn call(&self, to: NodeId, payload: Bytes, timeout: Duration) -> Result<Bytes, CallError> {
        let deadline = Instant::now() + timeout.min(self.inner.bounds.call_time);
        if self.stopped() {
            return Err(CallError::Closed);
        }
        if payload.len() > self.inner.bounds.payload_of(Lane::Ceremony) {
            return Err(CallError::TooLarge);
        }
        let pipe = self.inner.find(&self.seat, to).ok_or(CallError::NotConnected)?;
        let count = |count: fn(&crate::counters::PeerCounters)| self.seat.counters.with(to, count);
        let Ok(_room) = pipe.room.try_acquire() else {
            count(|c| c.busy_here.one());
            return Err(CallError::Busy);
        };
        let (sender, receiver) = oneshot::channel();
        self.seat.counters.sent(to, Lane::Ceremony, payload.len());
        tokio::spawn(callee(
            Arc::clone(&self.inner),
            Arc::clone(&pipe),
            payload,
            deadline,
            sender,
        ));
        match timeout_at(deadline, receiver).await {
            Err(_) => {
                count(|c| c.timed_out.one());
                Err(CallError::TimedOut)
            }
            Ok(Err(_)) | Ok(Ok(Verdict::Failed)) => Err(CallError::Closed),
            Ok(Ok(Verdict::Done(bytes))) => Ok(bytes),
            Ok(Ok(Verdict::Busy)) => {
                count(|c| c.busy_there.one());
                Err(CallError::Busy)
            }
            Ok(Ok(Verdict::Refused { code, detail })) => {
                Err(CallError::Refused(Refused::Because { code, detail }))
            }
        }
    }

    fn connected(&self, peer: NodeId) -> bool {
        self.inner.find(&self.seat, peer).is_some()
    }

    fn boot_of(&self, peer: NodeId) -> Option<Boot> {
        self.inner.find(&self.seat, peer).map(|pipe| pipe.to.boot)
    }

    fn formats(&self) -> Formats {
        self.seat.formats
    }

    fn formats_of(&self, peer: NodeId) -> Option<Formats> {
        let stated = self.seat.stated.lock().get(&peer).copied();
        stated.filter(|_| self.seat.lists(peer))
    }

    fn format_with(&self, peer: NodeId) -> Option<Format> {
        let pipe = self.inner.find(&self.seat, peer)?;
        self.seat.formats.common(pipe.to.formats)
    }

    fn counters(&self) -> &Counters {
        &self.seat.counters
    }

    async fn shutdown(&self) {
        let _control = self.inner.control.lock();
        {
            let mut state = self.inner.state.write();
            if state
                .seats
                .get(&self.seat.node)
                .is_some_and(|seat| Arc::ptr_eq(seat, &self.seat))
            {
                state.seats.remove(&self.seat.node);
            }
        }
        self.seat.changed.send_replace(true);
        self.inner.settle();
    }
}

/// What happens to a call at the other node. Dropping `answer` tells the caller that the connection ended.
async fn callee(
    inner: Arc<Inner>,
    pipe: Arc<Pipe>,
    payload: Bytes,
    deadline: Instant,
    answer: oneshot::Sender<Verdict>,
) {
    let (from, to, lane) = (pipe.from.node, pipe.to.node, Lane::Ceremony);
    inner.record(from, to, lane, Kind::Call, &payload);
    pipe.to.counters.received(from, lane, payload.len());
    let mut closed = pipe.closed.subscribe();
    let left = deadline.saturating_duration_since(Instant::now());
    let result = tokio::select! {
        _ = closed.wait_for(|closed| *closed) => return,
        result = timeout(left, async { pipe.to.handler.call(from, payload, left).await }) => result,
    };
    let verdict = match result {
        // The caller's own clock is about to tell it; dropping the channel before would say `Closed`.
        Err(_) => {
            let mut answer = answer;
            return answer.closed().await;
        }
        Ok(Ok(bytes)) if bytes.len() > inner.bounds.payload_of(lane) => Verdict::Failed,
        Ok(result) => Verdict::from(result),
    };
    if let Verdict::Done(bytes) = &verdict {
        inner.record(to, from, lane, Kind::Answer, bytes);
        pipe.to.counters.sent(from, lane, bytes.len());
        pipe.from.counters.received(to, lane, bytes.len());
    }
    let _ = answer.send(verdict);
}
