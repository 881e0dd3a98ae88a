//! Proposals: those of this node's callers, sent to whoever leads until this node has applied them; and, while
//! this node leads, those of everybody.
//!
//! raft's own forwarding is not used (consensus.md 3). A proposal is known by its context (node, boot,
//! counter); it is answered when an entry with this context and these bytes is applied here. The same
//! proposal may enter the log twice after a change of leader: the application applies an operation once.

use crate::frame::{Call, CallId, Refusal};
use crate::group::{Context, Group};
use crate::guard::Violation;
use crate::ids::{Millis, NodeId};
use crate::output::{Applied, ProposeError, Reply};
use crate::settings::MAX_ENTRY;
use crate::store::Store;
use raft::eraftpb::Entry;
use std::collections::{BTreeMap, VecDeque};

struct Own {
    ticket: u64,
    entry: Vec<u8>,
    deadline: Millis,
    /// Leader, term and time of the last attempt.
    sent: Option<(NodeId, u64, Millis)>,
    attempts: u32,
}

/// A proposal that the leader keeps for a moment.
struct Held {
    id: CallId,
    entry: Vec<u8>,
}

#[derive(Default)]
pub(crate) struct Proposals {
    /// By the counter in their context.
    own: BTreeMap<u64, Own>,
    own_bytes: usize,
    next: u64,
    /// As leader: waiting until nothing of the configuration is pending.
    held: VecDeque<Held>,
    /// As leader: in the log and not yet applied.
    appended: BTreeMap<CallId, u64>,
}

impl<S: Store> Group<S> {
    /// Takes a local caller's proposal. Always answered, at its deadline at the latest.
    pub(crate) fn propose(
        &mut self,
        context: &mut Context<'_>,
        ticket: u64,
        entry: Vec<u8>,
        deadline: Millis,
    ) {
        let own = &mut self.proposals;
        let full = own.own.len() >= context.settings.max_proposals
            || own.own_bytes + entry.len() > context.settings.max_proposal_bytes;
        let refused = match () {
            // An empty entry is raft's own.
            () if entry.len() > MAX_ENTRY || entry.is_empty() => Some(ProposeError::TooLong),
            () if full => Some(ProposeError::Busy(self.id)),
            () => None,
        };
        if let Some(error) = refused {
            context.counters.proposals_busy.add(1);
            context.out.replies.push(Reply::Proposed {
                ticket,
                result: Err(error),
            });
            return;
        }
        context.counters.proposals.add(1);
        own.own_bytes += entry.len();
        let counter = own.next;
        own.next += 1;
        own.own.insert(
            counter,
            Own {
                ticket,
                entry,
                deadline,
                sent: None,
                attempts: 0,
            },
        );
        self.send_proposal(context, counter);
    }

    /// Sends again what is silent too long or has a new leader; gives up at deadlines.
    pub(crate) fn drive_proposals(&mut self, context: &mut Context<'_>) {
        self.append_held(context);
        let now = context.now;
        let late: Vec<u64> = self
            .proposals
            .own
            .iter()
            .filter(|(_, own)| own.deadline <= now)
            .map(|(counter, _)| *counter)
            .collect();
        for counter in late {
            let attempts = self.proposals.own.get(&counter).map_or(0, |own| own.attempts);
            let error = match attempts {
                0 => ProposeError::NoLeader(self.id),
                _ => ProposeError::OutcomeUnknown(self.id),
            };
            self.answer(context, counter, Err(error));
        }
        let Some(leader) = self.leader() else { return };
        let term = self.raw.raft.term;
        let retry = context.settings.retry_ms;
        let due = |own: &Own| {
            own.sent
                .is_none_or(|(to, at_term, at)| to != leader || at_term != term || now >= at + retry)
        };
        let again: Vec<u64> = self
            .proposals
            .own
            .iter()
            .filter(|(_, own)| due(own))
            .map(|(counter, _)| *counter)
            .collect();
        for counter in again {
            self.send_proposal(context, counter);
        }
    }

    /// A link came up or broke: what went over it may be lost.
    pub(crate) fn resend_to(&mut self, context: &mut Context<'_>, peer: NodeId) {
        for own in self.proposals.own.values_mut() {
            if own.sent.is_some_and(|(to, _, _)| to == peer) {
                own.sent = None;
            }
        }
        self.drive_proposals(context);
    }

    fn send_proposal(&mut self, context: &mut Context<'_>, counter: u64) {
        let Some(leader) = self.leader() else { return };
        let term = self.raw.raft.term;
        let Some(own) = self.proposals.own.get_mut(&counter) else {
            return;
        };
        own.sent = Some((leader, term, context.now));
        own.attempts += 1;
        let id = CallId {
            node: context.settings.node,
            boot: context.boot,
            counter,
        };
        let entry = own.entry.clone();
        if leader == context.settings.node {
            self.take_proposal(context, id, entry);
        } else {
            context.call(self.id, leader, &Call::Propose { id, entry });
        }
    }

    /// A peer's proposal.
    pub(crate) fn peer_proposes(
        &mut self,
        context: &mut Context<'_>,
        from: NodeId,
        id: CallId,
        entry: Vec<u8>,
    ) -> Result<(), Violation> {
        if id.node != from || entry.len() > MAX_ENTRY || entry.is_empty() {
            return Err(Violation::Call);
        }
        self.take_proposal(context, id, entry);
        Ok(())
    }

    fn take_proposal(&mut self, context: &mut Context<'_>, id: CallId, entry: Vec<u8>) {
        if !self.leads() {
            return self.refuse(context, id, Refusal::NotLeader);
        }
        let known =
            self.proposals.appended.contains_key(&id) || self.proposals.held.iter().any(|held| held.id == id);
        if known {
            return;
        }
        if self.proposals.appended.len() + self.proposals.held.len() >= context.settings.max_proposals {
            return self.refuse(context, id, Refusal::Busy);
        }
        self.proposals.held.push_back(Held { id, entry });
        self.append_held(context);
    }

    /// Appends what was held. Nothing of a client's enters the log while a configuration may be pending: an
    /// entry that was endorsed under one configuration must not be decided under another (consensus.md 1.5).
    pub(crate) fn append_held(&mut self, context: &mut Context<'_>) {
        let raft = &self.raw.raft;
        if !self.leads() || raft.has_pending_conf() || raft.lead_transferee.is_some() {
            return;
        }
        while let Some(Held { id, entry }) = self.proposals.held.pop_front() {
            match self.raw.propose(id.to_context(), entry) {
                Ok(()) => {
                    let index = self.raw.raft.raft_log.last_index();
                    self.proposals.appended.insert(id, index);
                }
                Err(_) => self.refuse(context, id, Refusal::Busy),
            }
        }
    }

    pub(crate) fn refuse_held_proposals(&mut self, context: &mut Context<'_>) {
        self.proposals.appended.clear();
        for held in std::mem::take(&mut self.proposals.held) {
            self.refuse(context, held.id, Refusal::NotLeader);
        }
    }

    fn refuse(&mut self, context: &mut Context<'_>, id: CallId, refusal: Refusal) {
        if id.node == context.settings.node {
            self.proposal_refused(context, context.settings.node, id, refusal);
        } else {
            context.call(self.id, id.node, &Call::ProposeRefused { id, refusal });
        }
    }

    /// The leader does not take it. *Not leader* is tried again by itself.
    pub(crate) fn proposal_refused(
        &mut self,
        context: &mut Context<'_>,
        from: NodeId,
        id: CallId,
        refusal: Refusal,
    ) {
        if id.node != context.settings.node || id.boot != context.boot {
            return;
        }
        let Some(own) = self.proposals.own.get(&id.counter) else {
            return;
        };
        let asked = own.sent.is_some_and(|(to, _, _)| to == from);
        // After an earlier attempt the entry may be in a log: then only the deadline ends the waiting.
        if asked && refusal == Refusal::Busy && own.attempts == 1 {
            context.counters.proposals_busy.add(1);
            self.answer(context, id.counter, Err(ProposeError::Busy(self.id)));
        }
    }

    /// An entry was applied and is visible here.
    pub(crate) fn proposal_applied(&mut self, context: &mut Context<'_>, entry: &Entry, result: &[u8]) {
        let Some(id) = CallId::from_context(&entry.context) else {
            return;
        };
        self.proposals.appended.remove(&id);
        if id.node != context.settings.node || id.boot != context.boot {
            return;
        }
        // A leader could put our context on another entry, so the bytes count too.
        let ours = self
            .proposals
            .own
            .get(&id.counter)
            .is_some_and(|own| own.entry[..] == entry.data[..]);
        if ours {
            let applied = Applied {
                index: entry.index,
                result: result.to_vec(),
            };
            self.answer(context, id.counter, Ok(applied));
        }
    }

    fn answer(&mut self, context: &mut Context<'_>, counter: u64, result: Result<Applied, ProposeError>) {
        if let Some(own) = self.proposals.own.remove(&counter) {
            self.proposals.own_bytes -= own.entry.len();
            context.out.replies.push(Reply::Proposed {
                ticket: own.ticket,
                result,
            });
        }
    }
}
