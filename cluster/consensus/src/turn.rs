//! One turn of a group between two calls of raft: what is sent, written, synced and applied, in which order.
//!
//! The order is consensus.md 3: publish what is pending, send what may go before the sync, write entries and
//! hard state, sync, send the rest, apply with a hard state that covers it, make visible, answer.

use crate::application::{Halt, Overlay, StateTransaction, write_overlay};
use crate::configuration::Configuration;
use crate::group::{Context, Group, restricts};
use crate::ids::Restricts;
use crate::keys;
use crate::records;
use crate::sabotage;
use crate::settings::MAX_PAIR;
use crate::store::{Batch, Reading, Store, StoreError};
use raft::Ready;
use raft::eraftpb::{Entry, EntryType, Message, MessageType};
use sha2::{Digest, Sha256};

/// A node's state is kept for comparison with peers' at each multiple of this.
pub(crate) const MARK_EVERY: u64 = 64;

/// Entries that were applied and are not yet visible.
pub(crate) struct Done {
    entries: Vec<(Entry, Vec<u8>)>,
}

impl<S: Store> Group<S> {
    /// Before the write: `None` if raft has nothing to do. Sets `sync` if the batch must be durable before the
    /// messages that follow from it leave.
    pub(crate) fn collect(
        &mut self,
        context: &mut Context<'_>,
        batch: &mut Batch,
        sync: &mut bool,
    ) -> Result<Option<Ready>, StoreError> {
        if !self.raw.has_ready() {
            return Ok(None);
        }
        let mut ready = self.raw.ready();
        for state in ready.take_read_states() {
            self.read_confirmed(context, &state.request_ctx, state.index);
        }
        if !ready.snapshot().is_empty() {
            self.install(context, &ready, batch)?;
        }
        let entries = ready.take_entries();
        let written = !entries.is_empty() || !ready.snapshot().is_empty();
        self.publish(context, &entries);
        self.log_mut().append(entries, batch)?;
        if let Some(hard) = ready.hs() {
            self.log_mut().hard = hard.clone();
        }
        if written || ready.hs().is_some() {
            // Also where only the commit changed: it costs no sync of its own, and a batch with entries never
            // leaves it out.
            self.log().put_hard_state(batch)?;
        }
        *sync |= ready.must_sync();
        self.send(context, ready.take_messages())?;
        Ok(Some(ready))
    }

    /// What restricts is pending from here on, and nothing about it has left this node.
    fn publish(&mut self, context: &Context<'_>, entries: &[Entry]) {
        let Some(first) = entries.first().map(|entry| entry.index) else {
            return;
        };
        let named = entries
            .iter()
            .map(|entry| (entry.index, entry.term, restricts(context.app, self.id, entry)));
        if sabotage::publishes_late(context.settings.sabotage) {
            self.late.push((first, named.collect()));
        } else {
            self.board.publish(first, named);
        }
    }

    /// What a planted bug kept back.
    pub(crate) fn publish_late(&mut self) {
        for (first, named) in std::mem::take(&mut self.late) {
            let applied = self.applied.index;
            self.board
                .publish(first, named.into_iter().filter(|(index, _, _)| *index > applied));
        }
    }

    fn send(&mut self, context: &mut Context<'_>, messages: Vec<Message>) -> Result<(), StoreError> {
        for message in messages {
            if message.get_msg_type() == MessageType::MsgSnapshot {
                self.snapshot_message_sent(context.now, message.to);
            }
            context.out.raft(&context.settings.cluster, self.id, &message)?;
        }
        Ok(())
    }

    fn install(
        &mut self,
        context: &mut Context<'_>,
        ready: &Ready,
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        let snapshot = ready.snapshot();
        // The guard has let it in.
        let (generation, name) = self
            .snapshots
            .staged_generation((self.id, false), snapshot)
            .ok_or_else(|| StoreError::message("raft took a snapshot whose data are not here"))?;
        self.board.publish_snapshot(snapshot.get_metadata().index);
        let brought = Configuration::from_conf_state(snapshot.get_metadata().get_conf_state())
            .ok_or_else(|| StoreError::message("raft took a snapshot without a configuration"))?;
        self.log_mut().record.configure(name.configuration_index, brought);
        // Peers are told of no later entry than this node could show them.
        self.keep_restricting(u64::MAX, batch)?;
        self.log_mut().restore(snapshot, generation, batch)?;
        let restricting = self.applied.restricting;
        self.applied = name.applied;
        self.applied.restricting = restricting;
        if let Some(installed) = self.snapshots.installed(self.id) {
            self.state_given(context, installed);
        }
        self.put_digest(batch);
        batch.put(keys::applied(self.id), records::encode(&self.applied)?);
        self.settle_configuration(context);
        context.counters.snapshots_installed.add(1);
        Ok(())
    }

    /// After the write, synced or not needing it: sends the rest and applies into `batch`.
    pub(crate) fn finish(
        &mut self,
        context: &mut Context<'_>,
        mut ready: Ready,
        state: &dyn Reading,
        batch: &mut Batch,
    ) -> Result<Done, StoreError> {
        if !ready.snapshot().is_empty() {
            self.show_configuration(context.settings);
            self.board.installed(self.applied.index, self.log().last());
            self.look_at_wanted(context.app);
            self.ask_for_statements(context);
        }
        self.log_mut().trim();
        self.send(context, ready.take_persisted_messages())?;
        let mut committed = ready.take_committed_entries();
        let mut light = self.raw.advance_append(ready);
        self.log_mut().hard = self.raw.raft.hard_state();
        self.send(context, light.take_messages())?;
        committed.append(&mut light.take_committed_entries());
        self.apply(context, committed, state, batch)
    }

    fn apply(
        &mut self,
        context: &mut Context<'_>,
        committed: Vec<Entry>,
        state: &dyn Reading,
        batch: &mut Batch,
    ) -> Result<Done, StoreError> {
        let prefix = keys::state(self.id, self.log().record.generation);
        let mut written = Overlay::new();
        let mut done = Done { entries: Vec::new() };
        let configured_at = self.log().record.configuration_index;
        for entry in committed {
            if self.halted {
                break;
            }
            let (writes, result) = match self.apply_one(context, &entry, state, &prefix, &written) {
                Ok(outcome) => outcome,
                Err(halt) => {
                    self.halt(halt);
                    break;
                }
            };
            let before = |key: &[u8]| match written.get(key) {
                Some(value) => Ok(value.clone()),
                None => state.get(&[&prefix[..], key].concat()),
            };
            self.states.follow(&writes, before)?;
            self.advance_chain(&entry, &writes, &result);
            self.note_state(context, batch);
            // What is not genuine restricts nothing, and could not be shown to anybody who is to wait for it. Nor could
            // an entry of configuration, which is the leader's own; the statement behind it is an entry before it.
            if entry.get_entry_type() == EntryType::EntryNormal
                && restricts(context.app, self.id, &entry) != Restricts::Nothing
                && context.app.genuine(self.id, &entry.data)
            {
                self.applied.restricting = entry.index;
            }
            written.extend(writes);
            context.counters.applied.add(1);
            done.entries.push((entry, result));
        }
        if !done.entries.is_empty() {
            write_overlay(batch, &prefix, written);
            batch.put(keys::applied(self.id), records::encode(&self.applied)?);
            self.put_digest(batch);
            if self.log().record.configuration_index != configured_at {
                batch.put(keys::group(self.id), records::encode(&self.log().record)?);
            }
            // The commit on disk covers what is applied on disk, or raft would refuse to start.
            self.log().put_hard_state(batch)?;
        }
        Ok(done)
    }

    fn apply_one(
        &mut self,
        context: &mut Context<'_>,
        entry: &Entry,
        state: &dyn Reading,
        prefix: &[u8],
        earlier: &Overlay,
    ) -> Result<(Overlay, Vec<u8>), Halt> {
        let mut transaction = StateTransaction::new(state, prefix.to_vec(), earlier);
        let result = match entry.get_entry_type() {
            EntryType::EntryNormal if entry.data.is_empty() => Vec::new(),
            EntryType::EntryNormal => {
                context
                    .app
                    .apply(self.id, entry.index, &entry.data, &mut transaction)?
            }
            EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => {
                self.apply_configuration(context, entry, &mut transaction)?
            }
        };
        let writes = transaction.into_writes();
        let longest = writes
            .iter()
            .map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len))
            .max();
        if longest.is_some_and(|length| length > MAX_PAIR) {
            return Err(Halt::new(
                "an entry writes a longer value than a snapshot could carry",
            ));
        }
        Ok((writes, result))
    }

    /// An entry of configuration: the chain has, by the result, whether it counted.
    fn apply_configuration(
        &mut self,
        context: &mut Context<'_>,
        entry: &Entry,
        transaction: &mut StateTransaction<'_>,
    ) -> Result<Vec<u8>, Halt> {
        let Some(step) = self.allowed_step(context.app, entry, transaction)? else {
            context.counters.configurations_refused.add(1);
            return Ok(Vec::new());
        };
        context
            .app
            .configured(self.id, entry.index, &step.configuration, transaction)?;
        self.take_step(context, entry.index, step)?;
        Ok(b"configured".to_vec())
    }

    /// The chain covers every entry, what it wrote and what it answered.
    fn advance_chain(&mut self, entry: &Entry, writes: &Overlay, result: &[u8]) {
        let mut hasher = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hasher.update((bytes.len() as u64).to_be_bytes());
            hasher.update(bytes);
        };
        part(&self.applied.chain);
        part(&entry.index.to_be_bytes());
        part(&entry.data);
        part(result);
        for (key, value) in writes {
            part(key);
            part(&[u8::from(value.is_some())]);
            part(value.as_deref().unwrap_or_default());
        }
        self.applied.chain = hasher.finalize().into();
        self.applied.index = entry.index;
        self.applied.term = entry.term;
    }

    /// The apply batch is visible to readers: nothing of it is pending any more, callers are answered.
    pub(crate) fn make_visible(&mut self, context: &mut Context<'_>, done: &Done) {
        self.raw.advance_apply_to(self.applied.index);
        if !done.entries.is_empty() {
            self.show_configuration(context.settings);
            self.board.applied_to(self.applied.index);
        }
        let may_change =
            |(entry, _): &(Entry, Vec<u8>)| restricts(context.app, self.id, entry) == Restricts::Everything;
        if done.entries.iter().any(may_change) || self.moves.wanted.is_some() && !done.entries.is_empty() {
            self.look_at_wanted(context.app);
        }
        for (entry, result) in &done.entries {
            if entry.get_entry_type() == EntryType::EntryNormal && !entry.data.is_empty() {
                context.app.applied(self.id, entry.index, &entry.data, result);
            }
            self.proposal_applied(context, entry, result);
        }
        self.answer_reads(context);
        self.drive_configuration(context);
        // Applying may have ended what held proposals back.
        self.append_held(context);
    }

    /// Truncates the log where nobody needs it: applied, and the applied state covered by a sync.
    pub(crate) fn truncate(&mut self, context: &Context<'_>, extra: &mut Batch) -> Result<(), StoreError> {
        let truncated = self.log().record.truncated_index;
        if self.applied.index.saturating_sub(truncated) <= context.settings.truncate_above {
            return Ok(());
        }
        let keep_from = self.applied.index - context.settings.keep_entries.min(self.applied.index);
        let sending = self.snapshots.lowest_sending().unwrap_or(u64::MAX);
        let index = keep_from.min(self.synced).min(sending);
        if index > truncated {
            self.keep_restricting(index, extra)?;
            self.log_mut().truncate(index, extra)?;
        }
        Ok(())
    }
}
