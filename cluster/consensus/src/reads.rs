//! ReadIndex: one on its way per group and node, later ones join the next; contexts are never used twice.
//!
//! raft drops a ReadIndex silently when the leader has committed nothing in its term yet, or changes; so a
//! silent one is asked again with a new context. The caller is answered when the index is applied here.

use crate::frame::{Call, CallId};
use crate::group::{Context, Group};
use crate::guard::Violation;
use crate::ids::{Millis, NodeId};
use crate::output::{NoLeader, Reply};
use crate::store::Store;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

#[derive(Clone, Copy)]
struct Caller {
    /// `None`: the ReadIndex after the start.
    ticket: Option<u64>,
    deadline: Millis,
}

struct Round {
    callers: Vec<Caller>,
    /// Every attempt of this round has a counter from here on.
    first: u64,
    /// Leader and time of the last attempt.
    asked: Option<(NodeId, Millis)>,
}

#[derive(Default)]
pub(crate) struct Reads {
    next_counter: u64,
    waiting: Vec<Caller>,
    round: Option<Round>,
    /// Confirmed, and not yet applied here.
    confirmed: Vec<(u64, Caller)>,
    /// As leader: what peers ask, one each, and when.
    peers: BTreeMap<NodeId, (CallId, Millis)>,
    started: bool,
}

impl Reads {
    pub(crate) fn forget_peers(&mut self) {
        self.peers.clear();
    }
}

impl<S: Store> Group<S> {
    /// A local caller's read. Always answered, at its deadline at the latest.
    pub(crate) fn read_index(&mut self, context: &mut Context<'_>, ticket: u64, deadline: Millis) {
        self.reads.waiting.push(Caller {
            ticket: Some(ticket),
            deadline,
        });
        self.drive_reads(context);
    }

    pub(crate) fn drive_reads(&mut self, context: &mut Context<'_>) {
        if !self.reads.started {
            self.reads.started = true;
            self.reads.waiting.push(Caller {
                ticket: None,
                deadline: Millis::MAX,
            });
        }
        self.give_up_late_reads(context);
        if self.reads.round.is_none() && !self.reads.waiting.is_empty() {
            let callers = std::mem::take(&mut self.reads.waiting);
            let first = self.reads.next_counter;
            self.reads.round = Some(Round {
                callers,
                first,
                asked: None,
            });
        }
        let Some(leader) = self.leader() else { return };
        let Some(round) = &mut self.reads.round else {
            return;
        };
        let again = context.settings.read_retry_ms;
        if round
            .asked
            .is_some_and(|(to, at)| to == leader && context.now < at + again)
        {
            return;
        }
        round.asked = Some((leader, context.now));
        let id = CallId {
            node: context.settings.node,
            boot: context.boot,
            counter: self.reads.next_counter,
        };
        self.reads.next_counter += 1;
        context.counters.read_indexes.add(1);
        if leader == context.settings.node {
            self.ask_raft(id);
        } else {
            context.call(self.id, leader, &Call::ReadIndex { id });
        }
    }

    fn give_up_late_reads(&mut self, context: &mut Context<'_>) {
        let (now, group) = (context.now, self.id);
        let mut late = Vec::new();
        let mut keep = |caller: &Caller| {
            let in_time = caller.deadline > now;
            if !in_time {
                late.extend(caller.ticket);
            }
            in_time
        };
        self.reads.waiting.retain(&mut keep);
        self.reads.confirmed.retain(|(_, caller)| keep(caller));
        if let Some(round) = &mut self.reads.round {
            round.callers.retain(&mut keep);
            if round.callers.is_empty() {
                self.reads.round = None;
            }
        }
        for ticket in late {
            context.out.replies.push(Reply::Read {
                ticket,
                result: Err(NoLeader(group)),
            });
        }
    }

    fn ask_raft(&mut self, id: CallId) {
        // Raft would drop it without a word; whoever asks asks again.
        if self.leads() && self.raw.raft.commit_to_current_term() {
            self.raw.read_index(id.to_context());
        }
    }

    /// A peer asks this node, which it takes for the leader.
    pub(crate) fn peer_reads(
        &mut self,
        context: &mut Context<'_>,
        from: NodeId,
        id: CallId,
    ) -> Result<(), Violation> {
        if id.node != from {
            return Err(Violation::Call);
        }
        // An honest peer has one on its way; more would fill raft's queue.
        let hasty = |at: Millis| context.now < at + context.settings.read_retry_ms / 4;
        if self.reads.peers.get(&from).is_some_and(|(_, at)| hasty(*at)) {
            return Err(Violation::Call);
        }
        if self.leads() {
            self.reads.peers.insert(from, (id, context.now));
            self.ask_raft(id);
        }
        Ok(())
    }

    /// raft confirmed that this node led when the read was asked.
    pub(crate) fn read_confirmed(&mut self, context: &mut Context<'_>, ctx: &[u8], index: u64) {
        let Some(id) = CallId::from_context(ctx) else {
            return;
        };
        if id.node == context.settings.node {
            self.round_confirmed(context, context.settings.node, id, index);
        } else if self
            .reads
            .peers
            .get(&id.node)
            .is_some_and(|(asked, _)| *asked == id)
        {
            self.reads.peers.remove(&id.node);
            context.call(self.id, id.node, &Call::ReadIndexed { id, index });
        }
    }

    /// The leader's answer.
    pub(crate) fn round_confirmed(
        &mut self,
        context: &mut Context<'_>,
        from: NodeId,
        id: CallId,
        index: u64,
    ) {
        if id.node != context.settings.node || id.boot != context.boot {
            return;
        }
        let Some(round) = &self.reads.round else { return };
        let of_round = (round.first..self.reads.next_counter).contains(&id.counter);
        if !of_round || round.asked.is_none_or(|(leader, _)| leader != from) {
            return;
        }
        if let Some(round) = self.reads.round.take() {
            self.reads
                .confirmed
                .extend(round.callers.into_iter().map(|caller| (index, caller)));
        }
        self.answer_reads(context);
        self.drive_reads(context);
    }

    /// Answers what is applied by now.
    pub(crate) fn answer_reads(&mut self, context: &mut Context<'_>) {
        let applied = self.applied.index;
        let board = &self.board;
        self.reads.confirmed.retain(|(index, caller)| {
            if *index > applied {
                return true;
            }
            match caller.ticket {
                Some(ticket) => context.out.replies.push(Reply::Read {
                    ticket,
                    result: Ok(*index),
                }),
                None => board.confirmed.store(true, Ordering::Release),
            }
            false
        });
    }
}
