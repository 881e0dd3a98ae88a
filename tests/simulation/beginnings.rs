//! Which groups have begun to move to which lists of members, as an observer outside of all nodes sees it.

use std::collections::BTreeSet;
use std::sync::Arc;

use conclave::actors::application::Listener;
use conclave::keystore::{Command, Outcome, Reply};
use conclave_consensus::{GroupId, NodeId};
use parking_lot::Mutex;

/// The group that takes orders, and takes them back.
const FIRST: GroupId = GroupId(0);

/// Seen by all nodes' applications.
#[derive(Clone, Default)]
pub(crate) struct Beginnings(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    /// Each with the number of the list.
    begun: BTreeSet<(GroupId, u64)>,
    violation: Option<String>,
}

impl Beginnings {
    /// For the application of one node.
    pub(crate) fn listener(&self, node: NodeId) -> Listener {
        let seen = self.0.clone();
        Box::new(move |group, entry, outcome| {
            if let (Some(Command::BeginMove(_)), Outcome::Applied(Reply::Begun(number))) =
                (entry.map(|entry| &entry.statement.command), outcome)
            {
                seen.lock().begins(node, group, *number);
            }
        })
    }

    /// What was seen that must not be.
    pub(crate) fn violation(&self) -> Option<String> {
        self.0.lock().violation.take()
    }

    /// How many of them there were.
    pub(crate) fn count(&self) -> u64 {
        self.0.lock().begun.len() as u64
    }
}

impl Seen {
    fn begins(&mut self, node: NodeId, group: GroupId, number: u64) {
        if group != FIRST && !self.begun.contains(&(FIRST, number)) {
            let what =
                format!("{group} begins to move to list {number} on node {node}, and group 0 has not begun");
            self.violation.get_or_insert(what);
        }
        self.begun.insert((group, number));
    }
}
