//! One Raft group on one node: raft-rs behind the guard, and what surrounds it.

use crate::application::{Application, Halt, Overlay, StateTransaction};
use crate::board::Board;
use crate::counters::Counters;
use crate::fence::Fence;
use crate::frame::Call;
use crate::guard::{self, Sight, Violation};
use crate::ids::{GroupId, Millis, NodeId, Restricts};
use crate::keys;
use crate::log::GroupLog;
use crate::output::Output;
use crate::proposals::Proposals;
use crate::reads::Reads;
use crate::reconfiguration::Moves;
use crate::records::{self, AppliedRecord};
use crate::settings::Settings;
use crate::snapshots::Snapshots;
use crate::states::States;
use crate::store::{Store, StoreError};
use raft::eraftpb::{Entry, EntryType, Message, MessageType};
use raft::{RawNode, StateRole};
use rand::Rng as _;
use rand_chacha::ChaCha20Rng;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What a group is given with every call.
pub(crate) struct Context<'a> {
    pub(crate) now: Millis,
    pub(crate) boot: u64,
    pub(crate) settings: &'a Settings,
    pub(crate) app: &'a dyn Application,
    pub(crate) counters: &'a Counters,
    pub(crate) rng: &'a mut ChaCha20Rng,
    pub(crate) out: &'a mut Output,
}

impl Context<'_> {
    pub(crate) fn call(&mut self, group: GroupId, to: NodeId, call: &Call) {
        self.out.call(&self.settings.cluster, group, to, call);
    }
}

/// First index, and index, term and restriction of each entry from there.
pub(crate) type Late = (u64, Vec<(u64, u64, Restricts)>);

/// One group.
pub(crate) struct Group<S: Store> {
    pub(crate) id: GroupId,
    pub(crate) raw: RawNode<GroupLog<S>>,
    pub(crate) board: Arc<Board>,
    pub(crate) applied: AppliedRecord,
    pub(crate) states: States,
    /// The applied index that a sync has covered; the log may be truncated up to it.
    pub(crate) synced: u64,
    pub(crate) halted: bool,
    pub(crate) proposals: Proposals,
    pub(crate) reads: Reads,
    pub(crate) snapshots: Snapshots,
    pub(crate) fence: Fence,
    pub(crate) moves: Moves,
    /// Set when the link to the leader broke and its process is gone.
    pub(crate) campaign_at: Option<Millis>,
    /// Pending entries that a planted bug publishes too late.
    pub(crate) late: Vec<Late>,
    election_timeout: usize,
    role: StateRole,
}

impl<S: Store> Group<S> {
    /// Opens what the disk has of the group; `None` if it has nothing.
    pub(crate) fn open(
        id: GroupId,
        store: &Arc<S>,
        settings: &Settings,
        app: &dyn Application,
        rng: &mut ChaCha20Rng,
    ) -> Result<Option<Self>, StoreError> {
        let Some(log) = GroupLog::open(store.clone(), id)? else {
            return Ok(None);
        };
        let applied: AppliedRecord = records::read(&**store, &keys::applied(id))?
            .ok_or_else(|| StoreError::message(format!("{id} has no applied record")))?;
        let (last, truncated) = (log.last(), log.record.truncated_index);
        let in_order =
            truncated <= applied.index && applied.index <= log.hard.commit && log.hard.commit <= last;
        if !in_order {
            return Err(StoreError::message(format!(
                "{id} is torn: truncated {truncated}, applied {}, committed {}, last {last}",
                applied.index, log.hard.commit
            )));
        }
        let states = States::open(&**store, id, log.record.generation, &applied)?;
        let board = Arc::new(Board::new(
            id,
            applied.index,
            log.record.configuration_index,
            log.record.configuration.standing(settings.node),
        ));
        // Pending again before anybody is served: nobody knows here what was acknowledged.
        let mut pending = Vec::new();
        for index in applied.index + 1..=last {
            let entry = log.entry(index)?;
            let entry = entry.ok_or_else(|| StoreError::message(format!("{id} misses entry {index}")))?;
            pending.push((index, entry.term, restricts(app, id, &entry)));
        }
        board.publish(applied.index + 1, pending);
        let config = raft::Config {
            id: settings.node,
            election_tick: settings.election_ticks,
            heartbeat_tick: settings.heartbeat_ticks,
            applied: applied.index,
            max_size_per_msg: 1024 * 1024,
            max_inflight_msgs: 256,
            max_uncommitted_size: settings.max_proposal_bytes.max(1024 * 1024) as u64,
            max_committed_size_per_ready: 4 * 1024 * 1024,
            check_quorum: true,
            pre_vote: true,
            ..raft::Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raw = RawNode::new(&config, log, &logger).map_err(|error| StoreError(error.into()))?;
        let mut group = Group {
            id,
            raw,
            board,
            states,
            synced: applied.index,
            applied,
            halted: false,
            proposals: Proposals::default(),
            reads: Reads::default(),
            snapshots: Snapshots::default(),
            fence: Fence::open(records::read(&**store, &keys::shown(id))?),
            moves: Moves::default(),
            campaign_at: None,
            late: Vec::new(),
            election_timeout: settings.election_ticks,
            role: StateRole::Follower,
        };
        group.draw_election_timeout(settings, rng);
        group.show_states();
        group.look_at_wanted(app);
        Ok(Some(group))
    }

    /// Nothing more is applied until the next start.
    pub(crate) fn halt(&mut self, halt: Halt) {
        tracing::error!(group = %self.id, after = self.applied.index, reason = %halt.reason, "apply stops");
        *self.board.halted.lock() = Some(halt.reason);
        self.halted = true;
    }

    pub(crate) fn leads(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    /// The leader as this node knows it.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        Some(self.raw.raft.leader_id).filter(|leader| *leader != raft::INVALID_ID)
    }

    pub(crate) fn log(&self) -> &GroupLog<S> {
        self.raw.raft.store()
    }

    pub(crate) fn log_mut(&mut self) -> &mut GroupLog<S> {
        self.raw.raft.mut_store()
    }

    /// A message of raft from the network.
    pub(crate) fn step(
        &mut self,
        context: &mut Context<'_>,
        from: NodeId,
        mut message: Message,
    ) -> Result<(), Violation> {
        if !self.is_member(from) {
            self.bid_farewell(context, from, &message);
        }
        self.check(context, from, &mut message)?;
        let kind = message.get_msg_type();
        let term = message.term;
        // The error says that a response came from a member that raft no longer knows: nothing to do.
        let _ = self.raw.step(message);
        let from_leader = matches!(
            kind,
            MessageType::MsgAppend | MessageType::MsgHeartbeat | MessageType::MsgSnapshot
        );
        if from_leader && self.raw.raft.leader_id == from && self.raw.raft.term == term {
            self.board.heard.store(context.now, Ordering::Release);
            self.campaign_at = None;
        }
        self.settle_role(context);
        Ok(())
    }

    fn check(&self, context: &Context<'_>, from: NodeId, message: &mut Message) -> Result<(), Violation> {
        let raft = &self.raw.raft;
        let needs_word = self.has_something_to_lose(context.settings);
        let sight = Sight {
            node: context.settings.node,
            is_member: &|node| self.is_member(node),
            may_lead: &|node| self.may_lead(context.settings, node),
            joining: self.configuration().is_empty(),
            term: raft.term,
            role: raft.state,
            leader: raft.leader_id,
            last_index: raft.raft_log.last_index(),
            committed: raft.raft_log.committed,
            // Raft says 0 for what is outside the log.
            term_at: &|index| raft.raft_log.term(index).ok().filter(|term| *term != 0),
            staged: &|snapshot| {
                self.snapshots
                    .staged_generation((self.id, needs_word), snapshot)
                    .is_some()
            },
        };
        guard::check(from, message, &sight)
    }

    /// Whether the application takes a state for a later one than this node's. One that is itself a single node's word binds
    /// nobody.
    pub(crate) fn may_follow(&self, app: &dyn Application, state: &StateTransaction<'_>) -> bool {
        let log = self.log();
        if log.record.configuration.is_empty() || self.states.unvouched().is_some() {
            return true;
        }
        let (prefix, earlier) = (keys::state(self.id, log.record.generation), Overlay::new());
        let own = StateTransaction::new(log.store(), prefix, &earlier);
        app.follows(self.id, &own, state)
    }

    /// One tick of raft's clock.
    pub(crate) fn tick(&mut self, context: &mut Context<'_>) {
        self.publish_late();
        self.raw.tick();
        if self.campaign_at.is_some_and(|at| at <= context.now) {
            self.campaign_at = None;
            if !self.leads() && self.configuration().votes(context.settings.node) {
                let _ = self.raw.campaign();
            }
        }
        self.settle_role(context);
        if self.leads() {
            // `check_quorum` makes a leader step down that has not heard from a majority for 0.5 s.
            self.board.heard.store(context.now, Ordering::Release);
        }
    }

    /// The leader's process is gone: campaign soon, not all at once.
    pub(crate) fn leader_gone(&mut self, context: &mut Context<'_>, peer: NodeId) {
        if self.leader() == Some(peer) && self.campaign_at.is_none() {
            self.campaign_at = Some(context.now + context.rng.gen_range(0..=150));
        }
    }

    /// After everything that may change raft's role: seeded timeouts, counters, leadership's own state.
    fn settle_role(&mut self, context: &mut Context<'_>) {
        if self.raw.raft.election_elapsed == 0 {
            self.draw_election_timeout(context.settings, context.rng);
        }
        // Raft draws from the thread's randomness, which no seed replays; ours overrides it.
        self.raw
            .raft
            .set_randomized_election_timeout(self.election_timeout);
        let role = self.raw.raft.state;
        if role == self.role {
            return;
        }
        match role {
            StateRole::PreCandidate => context.counters.elections.add(1),
            StateRole::Leader => context.counters.leaderships.add(1),
            StateRole::Candidate | StateRole::Follower => {}
        }
        if self.role == StateRole::Leader {
            self.leadership_lost(context);
        }
        self.role = role;
    }

    /// Follows nobody, so that callers find no leader. What raft wants written of it is never asked for.
    pub(crate) fn leave(&mut self, context: &mut Context<'_>) {
        let term = self.raw.raft.term;
        self.raw.raft.become_follower(term, raft::INVALID_ID);
        self.campaign_at = None;
        self.settle_role(context);
    }

    fn leadership_lost(&mut self, context: &mut Context<'_>) {
        self.refuse_held_proposals(context);
        self.reads.forget_peers();
        self.snapshots.stop_sending();
        self.log_mut().staged_at.clear();
    }

    fn draw_election_timeout(&mut self, settings: &Settings, rng: &mut ChaCha20Rng) {
        self.election_timeout = rng.gen_range(settings.election_ticks..2 * settings.election_ticks);
        self.raw
            .raft
            .set_randomized_election_timeout(self.election_timeout);
    }

    /// Hands leadership to the peer that is furthest along, if there is one to hand.
    pub(crate) fn transfer_leadership(&mut self, settings: &Settings) {
        if !self.leads() || self.raw.raft.lead_transferee.is_some() {
            return;
        }
        let active = |peer: &NodeId| {
            self.raw
                .raft
                .prs()
                .get(*peer)
                .filter(|progress| progress.recent_active)
                .map(|progress| progress.matched)
        };
        // In a joint configuration to one of those that stay.
        let others = self
            .configuration()
            .voters
            .iter()
            .filter(|voter| **voter != settings.node);
        let best = others
            .filter_map(|peer| active(peer).map(|matched| (matched, *peer)))
            .max();
        if let Some((_, peer)) = best {
            self.raw.transfer_leader(peer);
        }
    }
}

/// What an entry of the log restricts.
pub(crate) fn restricts(app: &dyn Application, group: GroupId, entry: &Entry) -> Restricts {
    match entry.get_entry_type() {
        EntryType::EntryNormal if entry.data.is_empty() => Restricts::Nothing,
        EntryType::EntryNormal => app.restricts(group, &entry.data),
        EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => Restricts::Everything,
    }
}
