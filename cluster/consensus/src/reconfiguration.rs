//! Changes of a group's configuration on one node: what an entry of it does when it is applied, when a leader proposes the
//! next one, and what becomes of those who leave.
//!
//! An entry counts only if it is the one step that the state at its index calls for ([`configuration::next`]). What counts
//! not changes nothing on every replica alike; raft is not told of it, which is all that raft wants then.

use crate::application::{Application, Halt, Overlay, StateTransaction};
use crate::configuration::{self, Configuration, Move, Standing, Step};
use crate::group::{Context, Group};
use crate::ids::{Millis, NodeId};
use crate::keys;
use crate::sabotage;
use crate::settings::Settings;
use crate::store::Store;
use protobuf::Message as _;
use raft::GetEntriesContext;
use raft::Storage as _;
use raft::eraftpb::{ConfChangeV2, Entry, EntryType, Message, MessageType};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

/// A newcomer that lacks no more than so many entries has caught up.
pub(crate) const CAUGHT_UP: u64 = 64;
/// Time between two answers to a node that does not know yet that it was removed.
const FAREWELL_MS: Millis = 100;
/// Entries that are looked at to find where the log of such a node ends.
const FAREWELL_SEARCH: u64 = 64;

/// What a group knows of moves beside its configuration.
#[derive(Default)]
pub(crate) struct Moves {
    /// What the state calls for, as of the last look.
    pub(crate) wanted: Option<Move>,
    /// When removed nodes were last answered.
    farewells: BTreeMap<NodeId, Millis>,
}

impl<S: Store> Group<S> {
    pub(crate) fn configuration(&self) -> &Configuration {
        &self.log().record.configuration
    }

    /// Whether the node is in the group, or in the move that it is making.
    pub(crate) fn is_member(&self, node: NodeId) -> bool {
        let wanted = self.moves.wanted.as_ref();
        self.configuration().contains(node) || wanted.is_some_and(|wanted| wanted.concerns(node))
    }

    /// Whether the node may be one that leads the group: also one that this node does not know as a member yet.
    pub(crate) fn may_lead(&self, settings: &Settings, node: NodeId) -> bool {
        self.is_member(node) || settings.peers.contains(&node)
    }

    /// Whether the node is in the group or its move, or was until lately.
    pub(crate) fn knows(&self, node: NodeId) -> bool {
        self.is_member(node) || self.log().record.departed_at(node).is_some()
    }

    /// Everybody whom this group knows.
    pub(crate) fn acquaintances(&self) -> impl Iterator<Item = NodeId> + '_ {
        let of_move = self.moves.wanted.iter().flat_map(Move::nodes);
        let departed = self.log().record.departed.iter().map(|(node, _)| *node);
        self.configuration()
            .nodes()
            .into_iter()
            .chain(of_move)
            .chain(departed)
    }

    /// Looks at what the applied state calls for.
    pub(crate) fn look_at_wanted(&mut self, app: &dyn Application) {
        let log = self.log();
        if log.record.configuration.is_empty() {
            return;
        }
        let (prefix, earlier) = (keys::state(self.id, log.record.generation), Overlay::new());
        let state = StateTransaction::new(log.store(), prefix, &earlier);
        match app.wanted(self.id, &state) {
            Ok(wanted) => self.moves.wanted = wanted,
            Err(halt) => self.halt(halt),
        }
    }

    /// The step that an entry of configuration takes, if it is the one that the state calls for.
    pub(crate) fn allowed_step(
        &self,
        app: &dyn Application,
        entry: &Entry,
        state: &StateTransaction<'_>,
    ) -> Result<Option<Step>, Halt> {
        if entry.get_entry_type() != EntryType::EntryConfChangeV2 {
            return Ok(None);
        }
        let Ok(change) = ConfChangeV2::parse_from_bytes(&entry.data) else {
            return Ok(None);
        };
        let wanted = app.wanted(self.id, state)?;
        let step = configuration::next(self.configuration(), wanted.as_ref());
        Ok(step.filter(|step| step.change == change))
    }

    /// Takes a step that is allowed: from here on raft counts by it.
    pub(crate) fn take_step(
        &mut self,
        context: &mut Context<'_>,
        index: u64,
        step: Step,
    ) -> Result<(), Halt> {
        let mut outcome = None;
        for part in step.parts() {
            let state = self.raw.apply_conf_change(&part);
            outcome = Some(state.map_err(|error| Halt::new(error.to_string()))?);
        }
        let reached = outcome.as_ref().and_then(Configuration::from_conf_state);
        if reached.as_ref() != Some(&step.configuration) {
            return Err(Halt::new("raft came to another configuration than the entry's"));
        }
        sabotage::forget_outgoing(context.settings.sabotage, &mut self.raw);
        tracing::info!(group = %self.id, index, configuration = ?step.configuration, "the group has another configuration");
        context.counters.configurations_applied.add(1);
        self.log_mut().record.configure(index, step.configuration);
        self.settle_configuration(context);
        Ok(())
    }

    /// After every change of the configuration: who left is forgotten, and if it is this node it leads nobody any more.
    pub(crate) fn settle_configuration(&mut self, context: &mut Context<'_>) {
        let configuration = self.configuration().clone();
        self.fence.retain(|node| configuration.contains(node));
        self.states.retain(|node| configuration.contains(node));
        self.board
            .ahead
            .lock()
            .retain(|node, _| configuration.contains(*node));
        self.judge_divergence();
        if configuration.standing(context.settings.node) == Standing::Removed {
            self.leave(context);
        }
    }

    /// Shows readers the configuration. Before what is pending because of it is taken away.
    pub(crate) fn show_configuration(&self, settings: &Settings) {
        let record = &self.log().record;
        self.board
            .configuration_index
            .store(record.configuration_index, Ordering::Release);
        *self.board.standing.lock() = record.configuration.standing(settings.node);
    }

    /// As leader: takes the next step, if one is due and nothing speaks against it now.
    pub(crate) fn drive_configuration(&mut self, context: &mut Context<'_>) {
        let raft = &self.raw.raft;
        if !self.leads() || self.halted || raft.has_pending_conf() || raft.lead_transferee.is_some() {
            return;
        }
        let Some(step) = configuration::next(self.configuration(), self.moves.wanted.as_ref()) else {
            return;
        };
        let early = sabotage::votes_early(context.settings.sabotage);
        let begins = step.configuration.is_joint();
        if begins && !early && !self.have_caught_up(&self.configuration().learners) {
            return;
        }
        if !step.configuration.votes(context.settings.node) {
            // Who is not among those that stay would go on leading and refuse proposals.
            self.transfer_leadership(context.settings);
            return;
        }
        // What raft does not take now is proposed again.
        let _ = self.raw.propose_conf_change(Vec::new(), step.change);
    }

    /// Whether they have what this node has, and know it from others too: who does not know that could decide nothing.
    fn have_caught_up(&self, learners: &[NodeId]) -> bool {
        let raft = &self.raw.raft;
        learners.iter().all(|learner| {
            let progress = raft.prs().get(*learner);
            // In a short log even who has nothing is not far behind: it must have the entry that made it a learner.
            progress.is_some_and(|progress| {
                progress.recent_active
                    && self.states.speaks(*learner)
                    && progress.matched >= self.log().record.configuration_index
                    && progress.matched + CAUGHT_UP >= raft.raft_log.committed
            })
        })
    }

    /// Who has said of itself, since the last link to it came up, that it has applied about what this node had, and that others
    /// vouch for its state. Not who may only be believed to have another state.
    pub(crate) fn caught_up(&self) -> Vec<NodeId> {
        let since = self.log().record.configuration_index;
        let differing = self.states.differing();
        let stated = self.fence.caught_up();
        let is_there = |(node, index): &(NodeId, u64)| {
            self.configuration().contains(*node) && *index >= since && !differing.contains(node)
        };
        stated.filter(is_there).map(|(node, _)| node).collect()
    }

    /// How far the log of every other member is known to be, by the leader.
    pub(crate) fn progress(&self, own: NodeId) -> Vec<(NodeId, u64)> {
        let prs = self.raw.raft.prs();
        let others = self.configuration().nodes().into_iter();
        others
            .filter(|node| self.leads() && *node != own)
            .filter_map(|node| prs.get(node).map(|progress| (node, progress.matched)))
            .collect()
    }

    /// A node that was removed asks for votes, since the entry that removed it, or the word that it is committed, never
    /// reached it, and raft has forgotten it. The leader shows it the log up to there, and nothing beyond.
    pub(crate) fn bid_farewell(&mut self, context: &mut Context<'_>, from: NodeId, message: &Message) {
        let asks = match message.get_msg_type() {
            MessageType::MsgRequestPreVote | MessageType::MsgRequestVote => Some(message.index),
            MessageType::MsgAppendResponse if message.reject => Some(message.reject_hint),
            _ => None,
        };
        let removed_at = self.log().record.departed_at(from);
        let (Some(ends), Some(removed_at)) = (asks, removed_at) else {
            return;
        };
        let answered = self.moves.farewells.get(&from);
        let hasty = answered.is_some_and(|at| context.now < at + FAREWELL_MS);
        if !self.leads() || hasty || message.to != context.settings.node || message.from != from {
            return;
        }
        self.moves.farewells.insert(from, context.now);
        if let Some(append) = self.farewell(context.settings.node, from, (ends, message.log_term), removed_at)
            && let Err(error) = context.out.raft(&context.settings.cluster, self.id, &append)
        {
            tracing::error!(group = %self.id, %error, "a farewell could not be encoded");
        }
    }

    fn farewell(
        &self,
        own: NodeId,
        to: NodeId,
        (ends, term): (u64, u64),
        removed_at: u64,
    ) -> Option<Message> {
        let log = self.log();
        let mut before = ends.min(removed_at);
        let lowest = before
            .saturating_sub(FAREWELL_SEARCH)
            .max(log.record.truncated_index);
        // Its last entry may be one that was cut here: go back to where the terms may agree.
        while before > lowest && log.term(before).is_ok_and(|ours| ours > term) {
            before -= 1;
        }
        let mut append = Message::default();
        append.set_msg_type(MessageType::MsgAppend);
        append.from = own;
        append.to = to;
        append.term = self.raw.raft.term;
        append.index = before;
        append.log_term = log.term(before).ok()?;
        append.commit = removed_at;
        if before < removed_at {
            let budget = Some(1024 * 1024);
            let entries = log.entries(
                before + 1,
                removed_at + 1,
                budget,
                GetEntriesContext::empty(false),
            );
            append.set_entries(entries.ok()?.into());
        }
        Some(append)
    }
}
