//! Statements of peers, both ways: what they have applied and we have not, and whether their state is ours.
//!
//! A holder that is behind a peer's statement abstains ([`crate::Freshness::may_contribute`]), unless the
//! peer, asked, cannot show the entry: then it lied. Chain hashes at equal indexes must be equal (threats.md
//! I8); when one differs, contributions stop unless a majority has the state that we have, so that one node's
//! lie stops nobody.

use crate::board::Ahead;
use crate::frame::{Call, Shown};
use crate::group::{Context, Group};
use crate::guard::Violation;
use crate::ids::{Millis, NodeId};
use crate::store::Store;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

/// The chain is kept for comparison at each multiple of this.
pub(crate) const MARK_EVERY: u64 = 64;
/// Marks kept in memory.
pub(crate) const MARKS: usize = 256;

#[derive(Default)]
pub(crate) struct Fence {
    /// Whether the last comparable mark of a peer was equal to ours.
    agrees: BTreeMap<NodeId, bool>,
    /// What was asked of a peer, and when.
    asked: BTreeMap<NodeId, (u64, Millis)>,
    /// Statements that a peer could not show the entry for.
    pub(crate) lies: BTreeMap<NodeId, u64>,
}

impl<S: Store> Group<S> {
    /// States to a peer how far this node has come.
    pub(crate) fn state_to(&self, context: &mut Context<'_>, peer: NodeId) {
        let (mark, chain) = self.applied.mark;
        context.call(
            self.id,
            peer,
            &Call::Statement {
                restricting: self.applied.restricting,
                mark,
                chain,
            },
        );
    }

    pub(crate) fn peer_states(
        &mut self,
        context: &mut Context<'_>,
        from: NodeId,
        restricting: u64,
        mark: u64,
        chain: [u8; 32],
    ) {
        let mut ahead = self.board.ahead.lock();
        if restricting > self.applied.index {
            let since = ahead.get(&from).map_or(context.now, |earlier| earlier.since);
            ahead.insert(
                from,
                Ahead {
                    index: restricting,
                    since,
                },
            );
        } else {
            ahead.remove(&from);
        }
        drop(ahead);
        self.compare(from, mark, chain);
    }

    fn compare(&mut self, from: NodeId, mark: u64, chain: [u8; 32]) {
        let Some((_, ours)) = self.marks.iter().find(|(index, _)| *index == mark && mark != 0) else {
            return;
        };
        let agrees = *ours == chain;
        if !agrees {
            tracing::error!(group = %self.id, peer = from, index = mark, "a peer has another state at the same index");
        }
        self.fence.agrees.insert(from, agrees);
        let with_us = 1 + self.fence.agrees.values().filter(|agrees| **agrees).count();
        let differs = self.fence.agrees.values().any(|agrees| !agrees);
        let majority = self.log().record.voters.len() / 2 + 1;
        self.board
            .diverged
            .store(differs && with_us < majority, Ordering::Release);
    }

    /// Peers whose last comparable state was not ours.
    pub(crate) fn differing_peers(&self) -> Vec<NodeId> {
        self.fence
            .agrees
            .iter()
            .filter(|(_, agrees)| !**agrees)
            .map(|(peer, _)| *peer)
            .collect()
    }

    /// Asks peers for the entries behind statements that hold us up too long.
    pub(crate) fn drive_fence(&mut self, context: &mut Context<'_>) {
        let applied = self.applied.index;
        let late: Vec<(NodeId, u64)> = {
            let mut ahead = self.board.ahead.lock();
            ahead.retain(|_, ahead| ahead.index > applied);
            let grace = context.settings.statement_grace_ms;
            let late = ahead
                .iter()
                .filter(|(_, ahead)| context.now >= ahead.since + grace);
            late.map(|(peer, ahead)| (*peer, ahead.index)).collect()
        };
        for (peer, index) in late {
            let asked = self.fence.asked.get(&peer);
            if asked.is_some_and(|(at_index, at)| *at_index == index && context.now < at + 1_000) {
                continue;
            }
            self.fence.asked.insert(peer, (index, context.now));
            context.call(self.id, peer, &Call::Show { index });
        }
    }

    /// A peer wants to see an entry that we said we applied.
    pub(crate) fn show(&mut self, context: &mut Context<'_>, from: NodeId, index: u64) {
        let shown = match self.log().entry(index) {
            _ if index > self.applied.index => Shown::Absent,
            Ok(Some(entry)) => Shown::Entry(entry.data.to_vec()),
            Ok(None) => Shown::Truncated,
            Err(error) => {
                tracing::error!(group = %self.id, index, %error, "an entry could not be read");
                return;
            }
        };
        context.call(self.id, from, &Call::Shown { index, shown });
    }

    /// The peer shows it, or cannot.
    pub(crate) fn peer_shows(
        &mut self,
        context: &mut Context<'_>,
        from: NodeId,
        index: u64,
        shown: &Shown,
    ) -> Result<(), Violation> {
        if self
            .fence
            .asked
            .get(&from)
            .is_none_or(|(asked, _)| *asked != index)
        {
            return Err(Violation::Call);
        }
        let honest = match shown {
            Shown::Entry(entry) => context.app.genuine(self.id, entry),
            // It has truncated what we still need: a snapshot will come.
            Shown::Truncated => true,
            Shown::Absent => false,
        };
        if !honest {
            *self.fence.lies.entry(from).or_default() += 1;
            tracing::warn!(group = %self.id, peer = from, index, "a peer cannot show the entry that it stated");
            self.board.ahead.lock().remove(&from);
        }
        Ok(())
    }
}
