//! Statements of peers, both ways: what they have applied and we have not, and whether their state is ours.
//!
//! A holder that is behind a peer's statement abstains ([`crate::Freshness::may_contribute`]), unless the
//! peer, asked, cannot show the entry: then it lied. Chain hashes at equal indexes must be equal (threats.md
//! I8); when one differs, contributions stop unless a majority has the state that we have, so that one node's
//! lie stops nobody.

use crate::board::Ahead;
use crate::frame::Call;
use crate::group::{Context, Group};
use crate::guard::Violation;
use crate::ids::{Millis, NodeId};
use crate::keys;
use crate::records::{self, FIRST_INDEX};
use crate::store::{Batch, Store, StoreError};
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
    /// Index and bytes of the last restricting entry that was truncated from the log.
    truncated: Option<(u64, Vec<u8>)>,
}

impl Fence {
    pub(crate) fn open(truncated: Option<(u64, Vec<u8>)>) -> Self {
        Fence {
            truncated,
            ..Fence::default()
        }
    }

    /// Forgets all nodes but those.
    pub(crate) fn retain(&mut self, those: impl Fn(NodeId) -> bool) {
        self.agrees.retain(|node, _| those(*node));
        self.asked.retain(|node, _| those(*node));
    }
}

impl<S: Store> Group<S> {
    /// States to a peer how far this node has come.
    pub(crate) fn state_to(&self, context: &mut Context<'_>, peer: NodeId) {
        let members = self.configuration();
        if peer == context.settings.node
            || !members.contains(peer)
            || !members.contains(context.settings.node)
        {
            return;
        }
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
        let ours = |wanted| self.marks.iter().find(|(index, _)| *index == wanted);
        // Only groups that began with a restored state have a mark at the first index.
        let restored_alone = match mark {
            0 => ours(FIRST_INDEX).is_some(),
            FIRST_INDEX => ours(0).is_some(),
            _ => false,
        };
        let agrees = match ours(mark).filter(|_| mark != 0) {
            _ if restored_alone => false,
            Some((_, ours)) => *ours == chain,
            None => return,
        };
        if !agrees {
            tracing::error!(group = %self.id, peer = from, index = mark, "a peer has another state at the same index");
        }
        self.fence.agrees.insert(from, agrees);
        self.judge_divergence();
    }

    /// Whether peers have another state, and no majority has ours: in a joint configuration, of both sets of voters.
    pub(crate) fn judge_divergence(&self) {
        let agrees = &self.fence.agrees;
        let own = self.raw.raft.id;
        let with_us = |node| node == own || agrees.get(&node).copied().unwrap_or(false);
        let differs = agrees.values().any(|agrees| !agrees);
        self.board.diverged.store(
            differs && !self.configuration().is_majority(with_us),
            Ordering::Release,
        );
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

    /// The entry at `index`, or a later restricting one, if this node still has it.
    fn showable(&self, index: u64) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        for at in [index, self.applied.restricting] {
            if (index..=self.applied.index).contains(&at)
                && let Some(entry) = self.log().entry(at)?
            {
                return Ok(Some((at, entry.data.to_vec())));
            }
        }
        Ok(self.fence.truncated.clone().filter(|(at, _)| *at >= index))
    }

    /// Keeps the last restricting entry when the log is truncated beyond it.
    pub(crate) fn keep_restricting(&mut self, index: u64, extra: &mut Batch) -> Result<(), StoreError> {
        let restricting = self.applied.restricting;
        if restricting <= index
            && let Some(entry) = self.log().entry(restricting)?
        {
            let kept = (restricting, entry.data.to_vec());
            extra.put(keys::shown(self.id), records::encode(&kept)?);
            self.fence.truncated = Some(kept);
        }
        Ok(())
    }

    /// A peer wants to see the entry that we said we applied.
    pub(crate) fn show(&mut self, context: &mut Context<'_>, from: NodeId, index: u64) {
        match self.showable(index) {
            Ok(entry) => context.call(self.id, from, &Call::Shown { asked: index, entry }),
            Err(error) => tracing::error!(group = %self.id, index, %error, "an entry could not be read"),
        }
    }

    /// The peer shows it, or cannot.
    pub(crate) fn peer_shows(
        &mut self,
        context: &mut Context<'_>,
        from: NodeId,
        asked: u64,
        entry: Option<&(u64, Vec<u8>)>,
    ) -> Result<(), Violation> {
        if self
            .fence
            .asked
            .get(&from)
            .is_none_or(|(index, _)| *index != asked)
        {
            return Err(Violation::Call);
        }
        let honest =
            entry.is_some_and(|(index, entry)| *index >= asked && context.app.genuine(self.id, entry));
        if !honest {
            context.counters.lies.add(1);
            tracing::warn!(group = %self.id, peer = from, asked, "a peer cannot show the entry that it stated");
            self.board.ahead.lock().remove(&from);
        }
        Ok(())
    }
}
