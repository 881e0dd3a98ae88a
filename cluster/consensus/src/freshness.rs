//! The majority rule for those who decide without a leader (consensus.md 1): wait for what is pending now,
//! then read once. And the fence: who has not heard from a leader, or is behind a peer, does not contribute.
//!
//! A caller decides only by the [`View`] that it gets here, and never contributes after a [`Behind`].

use crate::attestation::RolledBack;
use crate::board::{Board, EntryName};
use crate::configuration::Standing;
use crate::counters::Counters;
use crate::ids::{GroupId, Millis, NodeId, Scope};
use crate::sabotage::{self, Sabotage};
use crate::settings::Settings;
use crate::store::{Reading, StoreError};
use crate::view::View;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// A monotonic clock. Real in production, turned by hand in the simulator.
pub trait Clock: Send + Sync {
    /// Milliseconds since some moment of this process.
    fn now(&self) -> Millis;
}

/// The machine's monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct MonotonicClock(Instant);

impl MonotonicClock {
    /// Starts at a little above 0.
    pub fn start() -> Self {
        MonotonicClock(Instant::now())
    }
}

impl Clock for MonotonicClock {
    fn now(&self) -> Millis {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// This node cannot decide: its state may be too old. No refusal; another holder may be able to.
#[derive(Debug, thiserror::Error)]
pub enum Behind {
    /// What was pending is not yet applied.
    #[error("{0} has not applied what was pending in time")]
    TimedOut(GroupId),
    /// Too many decisions wait in this group.
    #[error("too many decisions wait for {0}")]
    Crowded(GroupId),
    /// No such group here: not yet, or no more.
    #[error("{0} is not on this node")]
    NoGroup(GroupId),
    /// The state came from one node, and not enough others have said that it is theirs.
    #[error("no other member has vouched yet for the state of {0} that its leader sent")]
    Unvouched(GroupId),
    /// The state could not be read.
    #[error("the state of {0} could not be read")]
    Store(GroupId, #[source] StoreError),
}

/// Why a holder contributes nothing to uses of a group's keys (consensus.md 1.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No such group here.
    NoGroup,
    /// The node joins the group and has no state of it yet.
    Joining,
    /// The node gets the group's log and counts for nothing yet.
    Learner,
    /// The node was removed from the group.
    Removed,
    /// Started, and not yet confirmed by a ReadIndex.
    Starting,
    /// No direct sign of a leader for this many milliseconds.
    Unheard(Millis),
    /// Behind what this peer has applied.
    BehindPeer(NodeId),
    /// The application stopped at an entry that it does not know.
    Halted,
    /// A majority has another state at the same index.
    Diverged,
    /// The state came from one node, and not enough others have said that it is theirs.
    Unvouched,
    /// The node's disk is an older copy.
    RolledBack,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::NoGroup => f.write_str("group is not on this node"),
            Reason::Joining => f.write_str("joins, and has no state of the group yet"),
            Reason::Learner => f.write_str("is not a voter of the group yet"),
            Reason::Removed => f.write_str("was removed from the group"),
            Reason::Starting => f.write_str("not yet confirmed by a leader since the start"),
            Reason::Unheard(millis) => write!(f, "no sign of a leader for {millis} ms"),
            Reason::BehindPeer(peer) => write!(f, "behind what node {peer} has applied"),
            Reason::Halted => f.write_str("stopped at an entry of an unknown version"),
            Reason::RolledBack => f.write_str("this node's disk is an older copy"),
            Reason::Unvouched => {
                f.write_str("no other member has vouched yet for the state that its leader sent")
            }
            Reason::Diverged => f.write_str("state differs from a majority's at the same index"),
        }
    }
}

/// The holder abstains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{group} abstains: {reason}")]
pub struct Abstain {
    /// The group.
    pub group: GroupId,
    /// Why.
    pub reason: Reason,
}

/// Who decides by state asks here first.
pub struct Freshness {
    boards: BTreeMap<GroupId, Arc<Board>>,
    snapshot: Box<dyn Fn() -> Arc<dyn Reading> + Send + Sync>,
    clock: Arc<dyn Clock>,
    counters: Arc<Counters>,
    max_waiters: usize,
    fence_ms: Millis,
    grace_ms: Millis,
    rolled_back: Arc<OnceLock<RolledBack>>,
    sabotage: Option<Sabotage>,
}

impl Freshness {
    pub(crate) fn new(
        boards: BTreeMap<GroupId, Arc<Board>>,
        snapshot: Box<dyn Fn() -> Arc<dyn Reading> + Send + Sync>,
        clock: Arc<dyn Clock>,
        counters: Arc<Counters>,
        rolled_back: Arc<OnceLock<RolledBack>>,
        settings: &Settings,
    ) -> Self {
        Freshness {
            boards,
            snapshot,
            clock,
            counters,
            max_waiters: settings.max_waiters,
            fence_ms: settings.fence_ms,
            grace_ms: settings.statement_grace_ms,
            rolled_back,
            sabotage: settings.sabotage,
        }
    }

    pub(crate) fn board(&self, group: GroupId) -> Option<&Arc<Board>> {
        self.boards.get(&group)
    }

    /// The state of a group now, from one snapshot.
    pub fn view(&self, group: GroupId) -> Result<View, StoreError> {
        View::new((self.snapshot)(), group)
    }

    /// Takes what is pending now for `scope`. The caller polls what it gets ([`Settling::poll`]); sans-IO
    /// form of [`Freshness::settled`].
    pub fn settle(&self, group: GroupId, scope: Scope) -> Result<Settling, Behind> {
        let board = self.boards.get(&group).ok_or(Behind::NoGroup(group))?;
        if matches!(*board.standing.lock(), Standing::Joining | Standing::Removed) {
            return Err(Behind::NoGroup(group));
        }
        if board.unvouched.load(Ordering::Acquire) {
            return Err(Behind::Unvouched(group));
        }
        let early = match sabotage::decides_by_old_state(self.sabotage) {
            true => Some(self.view(group).map_err(|error| Behind::Store(group, error))?),
            false => None,
        };
        let (waiting, snapshot) = board.pending_for(scope);
        let seat = Seat(board.clone());
        if board.waiters.fetch_add(1, Ordering::Relaxed) >= self.max_waiters {
            self.counters.behind.add(1);
            return Err(Behind::Crowded(group));
        }
        Ok(Settling {
            seat,
            waiting,
            snapshot,
            early,
        })
    }

    /// Waits until everything that restricts `scope` and was pending at the call is applied or cut away, then
    /// reads the state once.
    pub async fn settled(&self, group: GroupId, scope: Scope, deadline: Instant) -> Result<View, Behind> {
        let mut settling = self.settle(group, scope)?;
        let mut changes = settling.seat.0.watch();
        let wait = async {
            loop {
                changes.mark_unchanged();
                if settling.is_over() {
                    return;
                }
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        if tokio::time::timeout_at(deadline.into(), wait).await.is_err() {
            self.counters.behind.add(1);
            return Err(Behind::TimedOut(group));
        }
        settling.into_view(self)
    }

    /// Waits until `index` is applied here.
    pub async fn wait_applied(&self, group: GroupId, index: u64, deadline: Instant) -> Result<(), Behind> {
        let board = self.boards.get(&group).ok_or(Behind::NoGroup(group))?;
        let mut changes = board.watch();
        let wait = async {
            while board.applied() < index {
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::time::timeout_at(deadline.into(), wait)
            .await
            .map_err(|_| Behind::TimedOut(group))
    }

    /// Why this node takes no part in anything, if its disk was found to be an older copy.
    pub fn rolled_back(&self) -> Option<&RolledBack> {
        self.rolled_back.get()
    }

    /// Whether the group's state here is more than one node's word ([`Reason::Unvouched`]).
    pub fn is_vouched_for(&self, group: GroupId) -> bool {
        let board = self.boards.get(&group);
        board.is_some_and(|board| !board.unvouched.load(Ordering::Acquire))
    }

    /// What this node is in a group; none if there is no such group.
    pub fn standing(&self, group: GroupId) -> Option<Standing> {
        let board = self.boards.get(&group)?;
        Some(*board.standing.lock())
    }

    /// The fence. Asked before every contribution, and again after a wait.
    pub fn may_contribute(&self, group: GroupId) -> Result<(), Abstain> {
        match self.reason_to_abstain(group) {
            None => Ok(()),
            Some(reason) => Err(Abstain { group, reason }),
        }
    }

    fn reason_to_abstain(&self, group: GroupId) -> Option<Reason> {
        let Some(board) = self.boards.get(&group) else {
            return Some(Reason::NoGroup);
        };
        if self.rolled_back.get().is_some() {
            return Some(Reason::RolledBack);
        }
        match *board.standing.lock() {
            Standing::Joining => return Some(Reason::Joining),
            Standing::Learner => return Some(Reason::Learner),
            Standing::Removed => return Some(Reason::Removed),
            Standing::Voter => {}
        }
        if board.halted.lock().is_some() {
            return Some(Reason::Halted);
        }
        if board.diverged.load(Ordering::Acquire) {
            return Some(Reason::Diverged);
        }
        if board.unvouched.load(Ordering::Acquire) {
            return Some(Reason::Unvouched);
        }
        if !board.confirmed.load(Ordering::Acquire) {
            return Some(Reason::Starting);
        }
        let now = self.clock.now();
        let silent = now.saturating_sub(board.heard.load(Ordering::Acquire));
        if silent > self.fence_ms {
            return Some(Reason::Unheard(silent));
        }
        let applied = board.applied();
        let ahead = board.ahead.lock();
        let late = |since: Millis| now.saturating_sub(since) > self.grace_ms;
        let peer = ahead
            .iter()
            .find(|(_, ahead)| ahead.index > applied && late(ahead.since));
        peer.map(|(peer, _)| Reason::BehindPeer(*peer))
    }
}

/// One waiter of a group; leaves when dropped.
struct Seat(Arc<Board>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.waiters.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A decision that waits. Dropping it gives up.
pub struct Settling {
    seat: Seat,
    waiting: Vec<EntryName>,
    snapshot: Option<u64>,
    early: Option<View>,
}

impl Settling {
    /// Whether nothing that was pending at the start still is.
    pub fn is_over(&mut self) -> bool {
        self.seat.0.retain_pending(&mut self.waiting, &mut self.snapshot);
        self.waiting.is_empty() && self.snapshot.is_none()
    }

    /// The view to decide by once the wait is over; else the wait itself, to be polled again.
    pub fn poll(mut self, freshness: &Freshness) -> Result<Result<View, Behind>, Settling> {
        if self.is_over() {
            Ok(self.into_view(freshness))
        } else {
            Err(self)
        }
    }

    fn into_view(self, freshness: &Freshness) -> Result<View, Behind> {
        let group = self.seat.0.group;
        let view = match self.early {
            Some(early) => early,
            None => freshness
                .view(group)
                .map_err(|error| Behind::Store(group, error))?,
        };
        // Asked again: what was installed meanwhile is in the view.
        match freshness.is_vouched_for(group) {
            true => Ok(view),
            false => Err(Behind::Unvouched(group)),
        }
    }
}
