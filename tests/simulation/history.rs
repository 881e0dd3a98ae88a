//! What an observer outside the cluster knows: what was acknowledged, and what must therefore hold.

use std::collections::{BTreeMap, BTreeSet};

use conclave::identifier::{LocalId, OperationId};
use conclave::keystore::Outcome;
use conclave_consensus::GroupId;

/// How much happened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Changes acknowledged.
    pub(crate) changes: u64,
    /// Uses that got their quorum.
    pub(crate) granted: u64,
    /// Uses that a holder refused.
    pub(crate) refused: u64,
    /// Entries forged by a node.
    pub(crate) forged: u64,
    /// Confirmed reads.
    pub(crate) reads: u64,
    /// Outcomes of operations that were applied before.
    pub(crate) repeated: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Counts) {
        self.changes += other.changes;
        self.granted += other.granted;
        self.refused += other.refused;
        self.forged += other.forged;
        self.reads += other.reads;
        self.repeated += other.repeated;
    }
}

/// Everything that was acknowledged so far.
#[derive(Default)]
pub(crate) struct History {
    pub(crate) counts: Counts,
    pub(crate) meter: Option<LocalId>,
    pub(crate) keystore: Option<LocalId>,
    /// Acknowledged keys.
    pub(crate) keys: BTreeSet<LocalId>,
    /// Public key of each key, once seen.
    pub(crate) public_keys: BTreeMap<LocalId, [u8; 32]>,
    /// Acknowledged sequence, and which client controls the keystore since.
    pub(crate) sequence: u64,
    /// The client that proposed each sequence: a controller is never put back.
    pub(crate) acknowledged: BTreeSet<u64>,
    /// Delegations in use: capability id and the text.
    pub(crate) delegated: Vec<(String, serde_json::Value, u64)>,
    /// Acknowledged as revoked.
    pub(crate) revoked: BTreeSet<String>,
    /// Every entry that was proposed: a leader may propose it again.
    pub(crate) proposed: Vec<(OperationId, GroupId, Vec<u8>)>,
    /// What each operation came to.
    outcomes: BTreeMap<OperationId, Outcome>,
}

impl History {
    /// An operation is applied once: whoever asks again, later or elsewhere, gets the same.
    pub(crate) fn came_to(&mut self, operation: OperationId, outcome: Outcome) -> Result<(), String> {
        let Some(known) = self.outcomes.get(&operation) else {
            self.outcomes.insert(operation, outcome);
            return Ok(());
        };
        let applied = |outcome: &Outcome| matches!(outcome, Outcome::Applied(_));
        if !applied(known) && !applied(&outcome) {
            return Ok(());
        }
        self.counts.repeated += 1;
        if *known == outcome {
            return Ok(());
        }
        Err(format!(
            "operation {operation} came to {known:?} and to {outcome:?}"
        ))
    }
}
