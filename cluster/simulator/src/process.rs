//! What runs beside the driver on a simulated node: holders, coordinators, clients; whatever the user of this
//! crate wants to drive through faults.

use conclave_consensus::{Application, Freshness, GroupId, GroupStatus, Millis, NodeId, Reply};
use rand_chacha::ChaCha8Rng;
use std::fmt::Debug;
use std::sync::Arc;

/// One process of one node. It is made anew at each start of the node; what it wants to keep it keeps outside
/// (a disk of its own, a history shared by all).
pub trait Process: Sized {
    /// What processes send each other. Delivered late, twice, out of order or not at all.
    type Message: Clone + Debug;

    /// The node has started.
    fn on_start(&mut self, node: &mut Node<'_, Self::Message>);
    /// A message from another node, or from itself.
    fn on_message(&mut self, node: &mut Node<'_, Self::Message>, from: NodeId, message: Self::Message);
    /// A timer that it set.
    fn on_timer(&mut self, node: &mut Node<'_, Self::Message>, tag: u64);
    /// An answer to one of its proposals or reads.
    fn on_reply(&mut self, node: &mut Node<'_, Self::Message>, reply: Reply);
    /// The node's consensus finished a turn: waits may be over.
    fn on_progress(&mut self, node: &mut Node<'_, Self::Message>);
}

/// How the world makes what runs on a node.
pub trait Cluster {
    /// The process.
    type Process: Process;
    /// The application of a node, the same for all its lives.
    fn application(&mut self, node: NodeId) -> Arc<dyn Application>;
    /// The process of a node's life that starts now.
    fn process(&mut self, node: NodeId, life: u64) -> Self::Process;
    /// An entry that the world may propose, once everything is healed, to see whether a group works again.
    fn probe(&mut self, group: GroupId, number: u64) -> Vec<u8>;
}

/// A node as its process sees it.
pub struct Node<'a, M> {
    pub(crate) id: NodeId,
    pub(crate) micros: u64,
    pub(crate) life: u64,
    pub(crate) healed: bool,
    pub(crate) errand: Option<u64>,
    pub(crate) skew_millis: i64,
    pub(crate) rng: &'a mut ChaCha8Rng,
    pub(crate) freshness: &'a Arc<Freshness>,
    pub(crate) nodes: &'a [NodeId],
    pub(crate) status: &'a [GroupStatus],
    pub(crate) actions: Vec<Action<M>>,
}

pub(crate) enum Action<M> {
    Send(NodeId, M),
    Timer(u64, u64),
    Propose {
        ticket: u64,
        group: GroupId,
        entry: Vec<u8>,
        deadline: Millis,
    },
    ReadIndex {
        ticket: u64,
        group: GroupId,
        deadline: Millis,
    },
    Violation(String),
    Achieved(u64),
}

impl<M> Node<'_, M> {
    /// This node.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// All nodes of the cluster.
    pub fn nodes(&self) -> &[NodeId] {
        self.nodes
    }

    /// A group as this node's consensus saw it after its last turn.
    pub fn status(&self, group: GroupId) -> Option<&GroupStatus> {
        self.status.iter().find(|status| status.group == group)
    }

    /// Microseconds of virtual time: one clock for the whole world, and the one that nodes measure spans of time by.
    pub fn micros(&self) -> u64 {
        self.micros
    }

    /// Milliseconds of virtual time, as the driver counts.
    pub fn now(&self) -> Millis {
        self.micros / 1_000
    }

    /// By how many milliseconds this node's wall clock differs from the world's. It jumps.
    pub fn skew_millis(&self) -> i64 {
        self.skew_millis
    }

    /// Which life of the node this is, from 0.
    pub fn life(&self) -> u64 {
        self.life
    }

    /// Whether the time of faults is over: from here on everything has to work.
    pub fn is_healed(&self) -> bool {
        self.healed
    }

    /// In liveness mode, once this node is of a core that is left alone: the number of the operation that it has to try,
    /// again and again, as all nodes of the core do, until one says that it has succeeded ([`Node::achieved`]).
    pub fn errand(&self) -> Option<u64> {
        self.errand
    }

    /// The operation of this number has succeeded.
    pub fn achieved(&mut self, errand: u64) {
        self.actions.push(Action::Achieved(errand));
    }

    /// The world's randomness.
    pub fn rng(&mut self) -> &mut ChaCha8Rng {
        self.rng
    }

    /// The node's consensus, as deciders see it.
    pub fn freshness(&self) -> &Arc<Freshness> {
        self.freshness
    }

    /// Sends a message.
    pub fn send(&mut self, to: NodeId, message: M) {
        self.actions.push(Action::Send(to, message));
    }

    /// Calls `on_timer` with this tag after so many microseconds.
    pub fn timer(&mut self, after_micros: u64, tag: u64) {
        self.actions.push(Action::Timer(after_micros, tag));
    }

    /// Proposes an entry. Tickets below 2^32 are the process's own.
    pub fn propose(&mut self, ticket: u64, group: GroupId, entry: Vec<u8>, deadline: Millis) {
        self.actions.push(Action::Propose {
            ticket,
            group,
            entry,
            deadline,
        });
    }

    /// Asks for a ReadIndex.
    pub fn read_index(&mut self, ticket: u64, group: GroupId, deadline: Millis) {
        self.actions.push(Action::ReadIndex {
            ticket,
            group,
            deadline,
        });
    }

    /// A rule was broken: the run ends and names the seed.
    pub fn violation(&mut self, what: impl Into<String>) {
        self.actions.push(Action::Violation(what.into()));
    }
}
