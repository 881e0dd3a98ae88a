//! All groups of one node, sans-IO: given time, randomness and a store, it queues what it wants done.
//!
//! A turn, for whoever runs it: give it what arrived ([`Driver::receive`] and the like), [`Driver::tick`] when
//! one is due, then while [`Driver::collect`] returns a [`Turn`]: send what [`Driver::take_output`] has, write
//! the turn's batch (synced if it says so), [`Driver::finish`] it, send again. Nothing else may be called on
//! the driver between `collect` and `finish`.

use crate::application::Application;
use crate::attestation::Attestor;
use crate::board::Board;
use crate::configuration::{Configuration, Standing};
use crate::counters::Counters;
use crate::frame::{self, Body, Call};
use crate::freshness::{Clock, Freshness};
use crate::group::{Context, Group};
use crate::guard::Violation;
use crate::ids::{GroupId, Millis, NodeId};
use crate::opening::{self, OpenError};
use crate::output::{NoLeader, Output, ProposeError, Reply};
use crate::records;
use crate::remembered::{OF_ALL, Remembered};
use crate::settings::Settings;
use crate::snapshot_read::ChunkRead;
use crate::store::{Batch, Store, StoreError};
use crate::turn::Done;
use raft::{Ready, StateRole};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Whether a node leads, follows or campaigns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Follows.
    Follower,
    /// Asks for votes, or whether it would get them.
    Candidate,
    /// Leads.
    Leader,
}

/// One group as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupStatus {
    /// The group.
    pub group: GroupId,
    /// Its leader, if this node knows one.
    pub leader: Option<NodeId>,
    /// The term.
    pub term: u64,
    /// Index of the last entry in the log.
    pub last_index: u64,
    /// Index of the last applied entry.
    pub applied: u64,
    /// Index of the last entry known to be committed.
    pub committed: u64,
    /// Who is in it, as of the last applied entry.
    pub configuration: Configuration,
    /// Index of the entry that made this configuration.
    pub configuration_index: u64,
    /// What this node is in it.
    pub standing: Standing,
    /// How far the log of each other member is known to be; empty unless this node leads.
    pub progress: Vec<(NodeId, u64)>,
    /// What this node does in it.
    pub role: Role,
    /// Why the application stopped, if it did.
    pub halted: Option<String>,
    /// Other nodes of it that say of themselves that they have caught up, and that others vouch for their state.
    pub caught_up: Vec<NodeId>,
    /// Peers whose state differed at the last comparable index.
    pub differing_peers: Vec<NodeId>,
    /// Who sent a state that not enough others have vouched for yet: this node's own if it has just joined, else one that is
    /// here whole and waits for their word.
    pub unvouched: Option<NodeId>,
    /// Hash chained over everything that was applied; equal at equal `applied` on honest nodes.
    pub chain: [u8; 32],
}

/// What has to be written before a turn can be finished.
pub struct Turn {
    /// All groups' entries and hard states.
    pub batch: Batch,
    /// Whether it must be durable first.
    pub sync: bool,
    readies: Vec<(GroupId, Ready)>,
}

/// All groups of one node.
pub struct Driver<S: Store> {
    pub(crate) settings: Settings,
    pub(crate) boot: u64,
    store: Arc<S>,
    app: Arc<dyn Application>,
    pub(crate) groups: BTreeMap<GroupId, Group<S>>,
    pub(crate) remembered: Remembered,
    pub(crate) out: Output,
    /// Changes for the next batch that need no raft: chunks, truncation.
    extra: Batch,
    counters: Arc<Counters>,
    freshness: Arc<Freshness>,
    rng: ChaCha20Rng,
    next_statement: Millis,
}

macro_rules! context {
    ($driver:ident, $now:expr) => {
        Context {
            now: $now,
            boot: $driver.boot,
            settings: &$driver.settings,
            app: &*$driver.app,
            counters: &$driver.counters,
            rng: &mut $driver.rng,
            out: &mut $driver.out,
        }
    };
}

impl<S: Store> Driver<S> {
    /// Writes the records of a new node: its identity, and the one-use permission to create the groups.
    pub fn bootstrap(store: &S, settings: &Settings) -> Result<(), OpenError> {
        opening::validate_voter(settings)?;
        opening::check_empty(store)?;
        store.write(&records::initial(settings)?, true)?;
        Ok(())
    }

    /// Writes the records of a node that joins a cluster: its identity, and the one-use permission to create the groups
    /// with nothing in them. Their leaders fill them, once an entry of configuration has made the node a learner.
    pub fn prepare_joining(store: &S, settings: &Settings) -> Result<(), OpenError> {
        opening::validate(settings)?;
        opening::check_empty(store)?;
        store.write(&records::joining(settings)?, true)?;
        Ok(())
    }

    /// Opens the groups of this disk. `seed` must come from the operating system in production.
    pub fn open(
        settings: Settings,
        store: Arc<S>,
        app: Arc<dyn Application>,
        attestor: Arc<dyn Attestor>,
        clock: Arc<dyn Clock>,
        seed: [u8; 32],
    ) -> Result<Self, OpenError> {
        opening::validate(&settings)?;
        opening::check_identity(&*store, &settings)?;
        opening::consume_bootstrap(&*store, &settings)?;
        opening::consume_joining(&*store, &settings)?;
        opening::consume_restore(&*store, &settings)?;
        let mut rng = ChaCha20Rng::from_seed(seed);
        let mut groups = BTreeMap::new();
        for id in (0..settings.groups).map(GroupId) {
            let group = Group::open(id, &store, &settings, &*app, &mut rng)?;
            groups.insert(id, group.ok_or(OpenError::GroupMissing(id))?);
        }
        for (id, group) in &groups {
            opening::remove_nameless_generations(&*store, *id, group.log().record.generation)?;
        }
        let remembered = Remembered::open(&*store, &settings, &groups, attestor)?;
        let counters = Arc::new(Counters::default());
        let boards: BTreeMap<GroupId, Arc<Board>> = groups
            .iter()
            .map(|(id, group)| (*id, group.board.clone()))
            .collect();
        let source = store.clone();
        let freshness = Freshness::new(
            boards,
            Box::new(move || source.snapshot()),
            clock,
            counters.clone(),
            remembered.rolled_back.clone(),
            &settings,
        );
        Ok(Driver {
            boot: rng.r#gen(),
            settings,
            store,
            app,
            groups,
            remembered,
            out: Output::default(),
            extra: Batch::default(),
            counters,
            freshness: Arc::new(freshness),
            rng,
            next_statement: 0,
        })
    }

    /// Who decides by state asks there.
    pub fn freshness(&self) -> &Arc<Freshness> {
        &self.freshness
    }

    /// What this node counts.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// A frame from a peer, whose name is the link's own. Dropped and counted if it is not what a peer may
    /// send.
    pub fn receive(&mut self, now: Millis, from: NodeId, frame: &[u8]) {
        self.counters.frames_in.add(1);
        let result = frame::parse(&self.settings.cluster, frame).and_then(|(group, body)| {
            if !self.knows(from) {
                return Err(Violation::NotMember);
            }
            let body = match body {
                Body::Call(Call::Attest(_) | Call::Recall { .. } | Call::Recalled { .. })
                    if group != OF_ALL =>
                {
                    return Err(Violation::Group);
                }
                Body::Call(Call::Attest(signed)) => return self.peer_attests(now, from, signed),
                Body::Call(Call::Recall { boot }) => {
                    self.recall(from, boot);
                    return Ok(());
                }
                Body::Call(Call::Recalled { boot, attestation }) => {
                    return self.peer_recalls(now, from, boot, attestation);
                }
                // Nothing that others say can make an older copy whole.
                _ if self.rolled_back().is_some() => return Ok(()),
                Body::Raft(_) if !self.remembered.has_answered(from) => {
                    self.counters.early.add(1);
                    return Ok(());
                }
                body => body,
            };
            let extra = &mut self.extra;
            let context = &mut context!(self, now);
            let group = self.groups.get_mut(&group).ok_or(Violation::Group)?;
            let before = (group.leader(), group.raw.raft.term);
            match body {
                Body::Raft(message) => group.step(context, from, message)?,
                Body::Call(call) => {
                    admit(group, context.settings, from, &call)?;
                    answer(group, context, extra, from, call)?;
                }
            }
            if (group.leader(), group.raw.raft.term) != before {
                // What waited for a leader waits no longer.
                group.drive_proposals(context);
                group.drive_reads(context);
            }
            Ok(())
        });
        if let Err(why) = result {
            if why == Violation::NotMember && self.knows(from) {
                self.counters.outsiders.add(1);
                return;
            }
            self.counters.drop_frame(from, why);
            if why == Violation::HeartbeatCommit {
                self.doubt(now);
            }
        }
    }

    /// Whether the node is a peer, or one that a group knows.
    fn knows(&self, node: NodeId) -> bool {
        let mut groups = self.groups.values();
        node != self.settings.node
            && (self.settings.peers.contains(&node) || groups.any(|group| group.knows(node)))
    }

    /// Changes whom this node may talk to beside the members of its groups ([`Settings::peers`]).
    pub fn set_peers(&mut self, peers: Vec<NodeId>) {
        self.settings.peers = peers;
    }

    /// One tick of all clocks. Ticks that a stall made late are skipped, not made up for.
    pub fn tick(&mut self, now: Millis) -> Result<(), StoreError> {
        self.drive_memory(now);
        let takes_part = self.rolled_back().is_none();
        let statements_due = now >= self.next_statement;
        if statements_due {
            self.next_statement = now + self.settings.statement_ms;
        }
        let extra = &mut self.extra;
        let context = &mut context!(self, now);
        for group in self.groups.values_mut() {
            if takes_part {
                group.tick(context);
            }
            group.drive_proposals(context);
            group.drive_reads(context);
            if !takes_part {
                continue;
            }
            group.drive_fence(context);
            group.drive_snapshots(context, &self.store, extra)?;
            group.drive_configuration(context);
            if statements_due {
                for peer in group.configuration().nodes() {
                    group.state_to(context, peer);
                }
            }
        }
        Ok(())
    }

    /// A link to a peer came up or broke.
    pub fn link(&mut self, now: Millis, peer: NodeId, up: bool) {
        if up {
            self.compare_memories(now, peer);
        }
        if self.rolled_back().is_some() {
            return;
        }
        let context = &mut context!(self, now);
        for group in self.groups.values_mut() {
            if up {
                group.campaign_at = None;
                group.state_to(context, peer);
            } else {
                group.raw.report_unreachable(peer);
                group.fence.silence(peer);
            }
            group.resend_to(context, peer);
        }
    }

    /// A broken link could not be made again because nobody listens there: the peer's process is gone. In
    /// groups that it led an election starts within 150 ms.
    pub fn refused(&mut self, now: Millis, peer: NodeId) {
        if self.rolled_back().is_some() {
            return;
        }
        let context = &mut context!(self, now);
        for group in self.groups.values_mut() {
            group.leader_gone(context, peer);
        }
    }

    /// Proposes for a local caller; answered by a [`Reply::Proposed`] with this ticket.
    pub fn propose(&mut self, now: Millis, ticket: u64, group: GroupId, entry: Vec<u8>, deadline: Millis) {
        match self.groups.get_mut(&group) {
            Some(group) => group.propose(&mut context!(self, now), ticket, entry, deadline),
            None => {
                let result = Err(ProposeError::NoGroup(group));
                self.out.replies.push(Reply::Proposed { ticket, result });
            }
        }
    }

    /// Confirms an index for a local caller; answered by a [`Reply::Read`] with this ticket.
    pub fn read_index(&mut self, now: Millis, ticket: u64, group: GroupId, deadline: Millis) {
        match self.groups.get_mut(&group) {
            Some(group) => group.read_index(&mut context!(self, now), ticket, deadline),
            None => self.out.replies.push(Reply::Read {
                ticket,
                result: Err(NoLeader(group)),
            }),
        }
    }

    /// A chunk of a snapshot was read.
    pub fn chunk_read(&mut self, now: Millis, read: ChunkRead) -> Result<(), StoreError> {
        match self.groups.get_mut(&read.group) {
            Some(group) => group.chunk_read(&mut context!(self, now), read),
            None => Ok(()),
        }
    }

    /// What is to be written next, if anything. Messages that may leave before are in the output.
    pub fn collect(&mut self, now: Millis) -> Result<Option<Turn>, StoreError> {
        let mut turn = Turn {
            batch: std::mem::take(&mut self.extra),
            sync: false,
            readies: Vec::new(),
        };
        let takes_part = self.rolled_back().is_none();
        let context = &mut context!(self, now);
        for (id, group) in self.groups.iter_mut().filter(|_| takes_part) {
            if let Some(ready) = group.collect(context, &mut turn.batch, &mut turn.sync)? {
                turn.readies.push((*id, ready));
            }
        }
        self.remembered
            .write(now, &self.settings, &mut turn.batch, &mut turn.sync)?;
        if turn.readies.is_empty() && turn.batch.is_empty() {
            return Ok(None);
        }
        self.counters.turns.add(1);
        self.counters.bytes_written.add(turn.batch.bytes());
        Ok(Some(turn))
    }

    /// The turn's batch is written (and durable, if it had to be). Applies what is committed.
    pub fn finish(&mut self, now: Millis, turn: Turn) -> Result<(), StoreError> {
        if turn.sync {
            self.counters.syncs.add(1);
        }
        let mut batch = Batch::default();
        let mut done: Vec<(GroupId, Done)> = Vec::new();
        let extra = &mut self.extra;
        let context = &mut context!(self, now);
        for group in self.groups.values_mut() {
            group.chunks_written(context, extra);
        }
        if turn.sync {
            // The sync covered every apply batch before it.
            for group in self.groups.values_mut() {
                group.synced = group.applied.index;
            }
        }
        for (id, ready) in turn.readies {
            if let Some(group) = self.groups.get_mut(&id) {
                done.push((id, group.finish(context, ready, &*self.store, &mut batch)?));
            }
        }
        if !batch.is_empty() {
            // Without a sync: log and state share one WAL, so the next synced batch covers this one, and until
            // then the log has it.
            context.counters.bytes_written.add(batch.bytes());
            self.store.write(&batch, false)?;
        }
        for (id, done) in done {
            if let Some(group) = self.groups.get_mut(&id) {
                group.make_visible(context, &done);
                group.truncate(context, extra)?;
            }
        }
        Ok(())
    }

    /// What was queued since the last call.
    pub fn take_output(&mut self) -> Output {
        let output = std::mem::take(&mut self.out);
        self.counters
            .frames_out
            .add((output.messages.len() + output.bulk.len()) as u64);
        output
    }

    /// Hands every leadership to a peer that can take it; returns how many this node still has.
    pub fn transfer_leaderships(&mut self) -> usize {
        for group in self.groups.values_mut() {
            group.transfer_leadership(&self.settings);
        }
        self.groups.values().filter(|group| group.leads()).count()
    }

    /// Leads and follows nobody any more.
    pub(crate) fn leave_groups(&mut self, now: Millis) {
        let context = &mut context!(self, now);
        for group in self.groups.values_mut() {
            group.leave(context);
        }
    }

    /// Every group as this node sees it.
    pub fn status(&self) -> Vec<GroupStatus> {
        let own = self.settings.node;
        self.groups.values().map(|group| status(group, own)).collect()
    }
}

fn status<S: Store>(group: &Group<S>, own: NodeId) -> GroupStatus {
    let raft = &group.raw.raft;
    let configuration = group.configuration().clone();
    GroupStatus {
        group: group.id,
        leader: group.leader(),
        term: raft.term,
        last_index: raft.raft_log.last_index(),
        applied: group.applied.index,
        committed: raft.raft_log.committed,
        configuration_index: group.log().record.configuration_index,
        standing: configuration.standing(own),
        progress: group.progress(own),
        configuration,
        role: match raft.state {
            StateRole::Follower => Role::Follower,
            StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
            StateRole::Leader => Role::Leader,
        },
        halted: group.board.halted.lock().clone(),
        caught_up: group.caught_up(),
        differing_peers: group.states.differing(),
        unvouched: (group.states.unvouched().map(|given| given.by)).or(group.snapshots.waiting_for_word()),
        chain: group.applied.chain,
    }
}

/// Whether a node may make this call. What a leader makes may come from one that this node does not know as a member yet,
/// and is checked against whom it follows.
fn admit<S: Store>(
    group: &Group<S>,
    settings: &Settings,
    from: NodeId,
    call: &Call,
) -> Result<(), Violation> {
    let known = match call {
        Call::SnapshotOffer(_)
        | Call::SnapshotChunk { .. }
        | Call::StateAt { .. }
        | Call::ProposeRefused { .. }
        | Call::ReadIndexed { .. } => group.may_lead(settings, from),
        _ => group.is_member(from),
    };
    if known { Ok(()) } else { Err(Violation::NotMember) }
}

fn answer<S: Store>(
    group: &mut Group<S>,
    context: &mut Context<'_>,
    extra: &mut Batch,
    from: NodeId,
    call: Call,
) -> Result<(), Violation> {
    match call {
        Call::Propose { id, entry } => return group.peer_proposes(context, from, id, entry),
        Call::ProposeRefused { id, refusal } => group.proposal_refused(context, from, id, refusal),
        Call::ReadIndex { id } => return group.peer_reads(context, from, id),
        Call::ReadIndexed { id, index } => group.round_confirmed(context, from, id, index),
        Call::Statement { restricting, states } => {
            group.peer_states(context, from, restricting, states, extra);
        }
        Call::AskStatement => group.state_to(context, from),
        Call::Show { index } => group.show(context, from, index),
        Call::Shown { asked, entry } => return group.peer_shows(context, from, asked, entry.as_ref()),
        Call::AskState { index } => group.tell_state(context, from, index),
        Call::StateAt { index, stated } => {
            return group.state_told(context, from, (index, stated), extra);
        }
        Call::SnapshotOffer(offer) => return group.snapshot_offered(context, from, offer, extra),
        Call::SnapshotPull { id, sequence } => group.snapshot_pulled(context, from, id, sequence),
        Call::SnapshotChunk {
            id,
            sequence,
            pairs,
            hash,
        } => {
            return group.snapshot_chunk(context, from, (id, sequence), (pairs, hash), extra);
        }
        Call::SnapshotStaged { id } => group.snapshot_staged(context, from, id),
        // About no group: answered before.
        Call::Attest(_) | Call::Recall { .. } | Call::Recalled { .. } => return Err(Violation::Call),
    }
    Ok(())
}
