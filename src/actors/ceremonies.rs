//! Generations that this node takes part in, by ceremony id: bounded in number and in time. What happens between
//! rounds is nobody's but the threshold crate's; this file keeps it and throws it away.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use conclave_threshold::Session;
use conclave_threshold::dkg::Participant;

use super::conduct::Conduct;
use super::decide::Weighed;
use super::wire::{Answer, Beginning, Round};
use crate::identifier::OperationId;

/// Longest life of a ceremony.
const LIFE: Duration = Duration::from_secs(10);
/// How often old ones are looked for.
const SWEEP: Duration = Duration::from_secs(1);
/// Most ceremonies at once.
const MAX: usize = 1_024;

/// Names a ceremony: a hash of everything that its participants agree on.
pub type Id = [u8; 32];

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

/// What stays of a ceremony beside the protocol's state: for others that ask what this node said.
struct Record {
    coordinator: u64,
    operation: OperationId,
    session: Arc<Session>,
    asked: BTreeMap<Round, [u8; 32]>,
    said: BTreeMap<Round, Answer>,
    begun: Instant,
}

/// All of them.
#[derive(Default)]
pub struct Ceremonies {
    /// How members behave in them.
    pub conduct: Conduct,
    under_way: HashMap<Id, Ceremony>,
    records: HashMap<Id, Record>,
    swept: Option<Instant>,
}

impl Ceremonies {
    /// Begins one; `false` if there are too many or it is known already.
    pub fn begin(&mut self, id: Id, ceremony: Ceremony) -> bool {
        self.sweep();
        if self.under_way.len() >= MAX || self.records.contains_key(&id) {
            return false;
        }
        let record = Record {
            coordinator: ceremony.coordinator,
            operation: ceremony.operation,
            session: ceremony.participant.session().clone(),
            asked: BTreeMap::new(),
            said: BTreeMap::new(),
            begun: ceremony.begun,
        };
        self.records.insert(id, record);
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

    /// Keeps a digest of what this node was first asked in a round, and what it said.
    pub fn say(&mut self, id: &Id, round: Round, asked: [u8; 32], said: &Answer) {
        if let Some(record) = self.records.get_mut(id) {
            record.asked.entry(round).or_insert(asked);
            record.said.entry(round).or_insert_with(|| said.clone());
        }
    }

    /// Whether this node was asked exactly this in a round.
    pub fn was_asked(&self, id: &Id, round: Round, asked: &[u8; 32]) -> bool {
        let record = self.records.get(id);
        record.and_then(|record| record.asked.get(&round)) == Some(asked)
    }

    /// The ceremony that a question began.
    pub fn begun_by(&self, asked: &[u8; 32]) -> Option<Id> {
        let begun = |record: &Record| record.asked.get(&Round::Hash) == Some(asked);
        self.records
            .iter()
            .find_map(|(id, record)| begun(record).then_some(*id))
    }

    /// What this node said in a round of a ceremony that it is or was in.
    pub fn said(&self, id: &Id, round: Round) -> Option<Answer> {
        self.records.get(id)?.said.get(&round).cloned()
    }

    /// Who coordinates a ceremony that this node is or was in.
    pub fn coordinator(&self, id: &Id) -> Option<u64> {
        self.records.get(id).map(|record| record.coordinator)
    }

    /// What a ceremony is for.
    pub fn operation(&self, id: &Id) -> Option<OperationId> {
        self.records.get(id).map(|record| record.operation)
    }

    /// The session and operation of a ceremony that `coordinator` runs and this node is or was in.
    pub fn session(&self, id: &Id, coordinator: u64) -> Option<(Arc<Session>, OperationId)> {
        let record = self.records.get(id)?;
        (record.coordinator == coordinator).then(|| (record.session.clone(), record.operation))
    }

    fn sweep(&mut self) {
        if self.swept.is_some_and(|swept| swept.elapsed() < SWEEP) {
            return;
        }
        self.swept = Some(Instant::now());
        self.under_way
            .retain(|_, ceremony| ceremony.begun.elapsed() < LIFE);
        self.records.retain(|_, record| record.begun.elapsed() < LIFE);
    }
}
