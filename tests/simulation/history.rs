//! What an observer outside the cluster knows: what was acknowledged, what must therefore hold, and every call of every
//! client, for the check in the end that each keystore's calls have an order.

use std::collections::{BTreeMap, BTreeSet};

use conclave::identifier::{LocalId, OperationId};
use conclave::keystore::{Outcome, Rejection};
use conclave_consensus::{Configuration, GroupId};
use conclave_simulator::linearizability::{Operation, check};

use crate::register::{Answer, Call, Keystore, Session, matters};

/// How much happened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Changes acknowledged.
    pub(crate) changes: u64,
    /// Renewals of shares among them.
    pub(crate) renewed: u64,
    /// Uses that got their quorum.
    pub(crate) granted: u64,
    /// Uses that a holder refused.
    pub(crate) refused: u64,
    /// Uses for which a holder had shares of another epoch than the coordinator named.
    pub(crate) epochs: u64,
    /// Entries forged by a node.
    pub(crate) forged: u64,
    /// Confirmed reads.
    pub(crate) reads: u64,
    /// Outcomes of operations that were applied before.
    pub(crate) repeated: u64,
    /// What a node did not decide because its clock is wrong.
    pub(crate) clocks: u64,
    /// Calls of keystores whose histories were checked.
    pub(crate) calls: u64,
    /// Keys moved to other members, acknowledged.
    pub(crate) moved: u64,
    /// Changes of a group's members that were carried out.
    pub(crate) lists: u64,
    /// Changes of a group's members that were begun.
    pub(crate) begun: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Counts) {
        self.changes += other.changes;
        self.renewed += other.renewed;
        self.granted += other.granted;
        self.refused += other.refused;
        self.epochs += other.epochs;
        self.forged += other.forged;
        self.reads += other.reads;
        self.repeated += other.repeated;
        self.clocks += other.clocks;
        self.calls += other.calls;
        self.moved += other.moved;
        self.lists += other.lists;
        self.begun += other.begun;
    }
}

/// A delegation by one controller of a keystore.
#[derive(Clone)]
pub(crate) struct Delegated {
    pub(crate) id: String,
    pub(crate) capability: serde_json::Value,
    /// The sequence at which its delegator controls the keystore.
    pub(crate) by: u64,
    pub(crate) expired: bool,
}

/// A keystore as its clients know it.
#[derive(Default)]
pub(crate) struct Tenant {
    /// Acknowledged keys.
    pub(crate) keys: BTreeSet<LocalId>,
    /// Keys that were proposed, acknowledged or not.
    pub(crate) proposed: BTreeSet<LocalId>,
    /// Ceremonies whose shares a proposed renewal replaces: their shares may be gone.
    pub(crate) replacing: BTreeSet<Session>,
    /// Public key of each key, once seen.
    pub(crate) public_keys: BTreeMap<LocalId, [u8; 32]>,
    /// Which ceremony's shares took the place of which, acknowledged.
    pub(crate) replaced: BTreeMap<Session, Session>,
    /// Acknowledged sequence: the client of this number controls the keystore since.
    pub(crate) sequence: u64,
    /// The client that proposed each sequence: a controller is never put back.
    pub(crate) acknowledged: BTreeSet<u64>,
    /// Delegations in use.
    pub(crate) delegated: Vec<Delegated>,
    /// Acknowledged as revoked.
    pub(crate) revoked: BTreeSet<String>,
    calls: Vec<Operation<Call, Answer>>,
    /// Places of calls that changed nothing and say nothing.
    void: BTreeSet<usize>,
}

impl Tenant {
    /// A call whose answer is awaited; where it is.
    pub(crate) fn called(&mut self, call: Call, invoked: u64) -> usize {
        self.calls.push(Operation {
            call,
            invoked,
            returned: None,
        });
        self.calls.len() - 1
    }

    /// Its answer, or none if it changed nothing for a reason that says nothing of the keystore.
    pub(crate) fn answered(&mut self, place: usize, at: u64, answer: Option<Answer>) {
        match answer {
            Some(answer) => self.calls[place].returned = Some((at, answer)),
            None => drop(self.void.insert(place)),
        }
    }

    /// Calls that matter: what nobody has an answer to and nobody has seen the effect of may as well not have been made.
    fn history(&self) -> Vec<Operation<Call, Answer>> {
        let places = self.calls.iter().enumerate();
        let told = places.filter(|(place, _)| !self.void.contains(place));
        let told: Vec<_> = told.map(|(_, operation)| operation).collect();
        let kept =
            (told.iter()).filter(|operation| operation.returned.is_some() || matters(&operation.call, &told));
        kept.map(|operation| (*operation).clone()).collect()
    }
}

/// Everything that was acknowledged so far.
#[derive(Default)]
pub(crate) struct History {
    pub(crate) counts: Counts,
    pub(crate) meter: Option<LocalId>,
    /// Acknowledged keystores.
    pub(crate) keystores: BTreeMap<LocalId, Tenant>,
    /// Keystores whose creation was proposed.
    pub(crate) unborn: BTreeMap<LocalId, Tenant>,
    /// Every entry that was proposed: a leader may propose it again.
    pub(crate) proposed: Vec<(OperationId, GroupId, Vec<u8>)>,
    /// What each operation came to.
    outcomes: BTreeMap<OperationId, Outcome>,
    /// Which configuration the entry of an index made.
    pub(crate) configurations: BTreeMap<(GroupId, u64), Configuration>,
    /// Lists of members, by number, that somebody has seen decide alone.
    pub(crate) left: BTreeSet<(GroupId, u64)>,
    moments: u64,
}

impl History {
    /// A moment after all others: virtual time, with the events of one microsecond in their order.
    pub(crate) fn moment(&mut self) -> u64 {
        self.moments += 1;
        self.moments
    }

    /// An operation is applied once: whoever asks again, later or elsewhere, gets the same.
    pub(crate) fn came_to(&mut self, operation: OperationId, outcome: Outcome) -> Result<(), String> {
        // By others than decide now: when those decide that endorsed it, it may be applied.
        if let Outcome::Refused(Rejection::NotEndorsed(_)) = outcome {
            return Ok(());
        }
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

    /// Whether the calls of each keystore could have been made one after the other.
    pub(crate) fn check(&mut self) -> Result<(), String> {
        self.counts.lists = self.left.len() as u64;
        for (id, tenant) in &self.keystores {
            let history = tenant.history();
            self.counts.calls += history.len() as u64;
            check(&Keystore, &history).map_err(|refused| {
                let stuck = match &refused {
                    conclave_simulator::linearizability::Refused::NotLinearizable { stuck, .. } => {
                        format!(": {:?}", history[*stuck])
                    }
                    _ => String::new(),
                };
                format!("the history of keystore {id} is not linearizable: {refused}{stuck}")
            })?;
        }
        Ok(())
    }
}
