//! Generations that this node takes part in, by ceremony id: bounded in number and in time. What happens between
//! rounds is nobody's but the threshold crate's; this file keeps it and throws it away.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use conclave_threshold::dkg::Participant;

use super::decide::Weighed;
use super::wire::Beginning;
use crate::identifier::OperationId;

/// Longest life of a ceremony.
const LIFE: Duration = Duration::from_secs(10);
/// Most ceremonies at once.
const MAX: usize = 1_024;

/// One generation as its participant sees it.
pub struct Ceremony {
    /// The coordinator, by its TLS identity.
    pub coordinator: u64,
    /// The operation.
    pub operation: OperationId,
    /// What the coordinator proposed, as it was checked.
    pub beginning: Beginning,
    /// This node's decision, not yet on record.
    pub weighed: Weighed,
    /// SHA-256 of the client's request.
    pub request: [u8; 32],
    /// The request's name and expiry (ms).
    pub named: ([u8; 32], u64),
    /// The protocol's state.
    pub participant: Participant,
    begun: Instant,
}

impl Ceremony {
    /// One that begins now.
    pub fn new(
        (coordinator, operation): (u64, OperationId),
        beginning: Beginning,
        weighed: Weighed,
        (request, name, expires): ([u8; 32], [u8; 32], u64),
        participant: Participant,
    ) -> Self {
        let named = (name, expires);
        Self {
            coordinator,
            operation,
            beginning,
            weighed,
            request,
            named,
            participant,
            begun: Instant::now(),
        }
    }
}

/// What became of a ceremony that is no longer under way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Past {
    Finished,
    Failed,
}

/// All of them.
#[derive(Default)]
pub struct Ceremonies {
    under_way: HashMap<[u8; 32], Ceremony>,
    past: HashMap<[u8; 32], (Past, Instant)>,
}

/// A shared place to take a ceremony from.
pub type Id = [u8; 32];

impl Ceremonies {
    /// Begins one; `false` if there are too many or it is known already.
    pub fn begin(&mut self, id: Id, ceremony: Ceremony) -> bool {
        self.sweep();
        if self.under_way.len() >= MAX || self.under_way.contains_key(&id) || self.past.contains_key(&id) {
            return false;
        }
        self.under_way.insert(id, ceremony);
        true
    }

    /// Takes one out for a round; it is put back after it, or is over.
    pub fn take(&mut self, id: &Id, coordinator: u64) -> Option<Ceremony> {
        let ours = self
            .under_way
            .get(id)
            .is_some_and(|ceremony| ceremony.coordinator == coordinator);
        ours.then(|| self.under_way.remove(id)).flatten()
    }

    /// Puts one back between rounds.
    pub fn put_back(&mut self, id: Id, ceremony: Ceremony) {
        if ceremony.begun.elapsed() < LIFE {
            self.under_way.insert(id, ceremony);
        }
    }

    /// It is over, well or not.
    pub fn over(&mut self, id: Id, finished: bool) {
        self.under_way.remove(&id);
        self.past.insert(
            id,
            (
                if finished { Past::Finished } else { Past::Failed },
                Instant::now(),
            ),
        );
    }

    /// Whether this node itself refused or failed the ceremony.
    pub fn failed(&self, id: &Id) -> bool {
        matches!(self.past.get(id), Some((Past::Failed, _)))
    }

    fn sweep(&mut self) {
        self.under_way
            .retain(|_, ceremony| ceremony.begun.elapsed() < LIFE);
        if self.past.len() > 4 * MAX {
            self.past.retain(|_, (_, at)| at.elapsed() < 3 * LIFE);
        }
    }
}
