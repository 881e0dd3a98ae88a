//! Statements of peers, both ways: what they have applied and we have not, and whether their state is ours.
//!
//! A holder that is behind a peer's statement abstains ([`crate::Freshness::may_contribute`]), unless the
//! peer, asked, cannot show the entry: then it lied. What they say of their state is for `states.rs`.

use crate::board::Ahead;
use crate::frame::Call;
use crate::group::{Context, Group};
use crate::guard::Violation;
use crate::ids::{Millis, NodeId};
use crate::keys;
use crate::reconfiguration::CAUGHT_UP;
use crate::records;
use crate::states::Stated;
use crate::store::{Batch, Store, StoreError};
use std::collections::BTreeMap;

#[derive(Default)]
pub(crate) struct Fence {
    /// What was asked of a peer, and when.
    asked: BTreeMap<NodeId, (u64, Millis)>,
    /// Up to where peers have applied that said, by their last word on this link, about as much as this node then had.
    caught_up: BTreeMap<NodeId, u64>,
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
        self.asked.retain(|node, _| those(*node));
        self.caught_up.retain(|node, _| those(*node));
    }

    /// The link to a node broke: what it said may not hold any more.
    pub(crate) fn silence(&mut self, node: NodeId) {
        self.caught_up.remove(&node);
    }

    /// Peers that have caught up by their own word, and up to which entry.
    pub(crate) fn caught_up(&self) -> impl Iterator<Item = (NodeId, u64)> + '_ {
        self.caught_up.iter().map(|(node, index)| (*node, *index))
    }

    /// What a peer says that it has applied, if others vouch for its state. Compared at once: what comes later says nothing
    /// about a statement that is seconds old.
    fn heard(&mut self, from: NodeId, stated: Option<u64>, applied: u64) {
        match stated {
            Some(index) if index.saturating_add(CAUGHT_UP) >= applied => {
                self.caught_up.insert(from, index);
            }
            _ => {
                self.caught_up.remove(&from);
            }
        }
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
        let statement = Call::Statement {
            restricting: self.applied.restricting,
            states: self.stated(),
        };
        context.call(self.id, peer, &statement);
    }

    pub(crate) fn peer_states(
        &mut self,
        context: &mut Context<'_>,
        from: NodeId,
        restricting: u64,
        states: Option<[Stated; 2]>,
        batch: &mut Batch,
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
        let stated = states.map(|[_, (index, _)]| index);
        self.fence.heard(from, stated, self.applied.index);
        self.peer_states_its_state(context, from, states, batch);
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
