//! What members are asked to vouch for, and what a member has to remember for it: which keys were made lately, by which
//! requests. The rest it reads from its state.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, watch};

use crate::identifier::LocalId;
use crate::keystore::{Command, Entry, Outcome, Reply};

/// Keys that were made last, which are remembered with their requests: a receipt of a birth is asked for right after it.
const MAX_MADE: usize = 4_096;
/// Receipts that are gathered at once, and questions of one other node that are answered at once. Anybody may read a key's
/// description: beyond this the answer goes without a receipt.
const AT_ONCE: usize = 64;

/// Vouch for this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vouch {
    /// As a member of the list of this number.
    pub members: u64,
    /// What the asker had applied of the keystore's group: the asked one waits for it, a moment.
    pub applied: u64,
    /// For what.
    pub about: About,
}

/// What is to be vouched for. The asker says what it is about, never what it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum About {
    /// A key's description.
    Description {
        /// The keystore.
        keystore: LocalId,
        /// The key.
        key: LocalId,
    },
    /// That this request made the key, and its description.
    Birth {
        /// The keystore.
        keystore: LocalId,
        /// The key.
        key: LocalId,
        /// The request's name.
        request: [u8; 32],
    },
    /// That a delegation is revoked.
    Revocation {
        /// The keystore.
        keystore: LocalId,
        /// The capability's id.
        capability: String,
        /// The DID that signed its delegation.
        delegator: String,
    },
}

impl About {
    /// The keystore that it concerns.
    pub fn keystore(&self) -> &LocalId {
        match self {
            Self::Description { keystore, .. }
            | Self::Birth { keystore, .. }
            | Self::Revocation { keystore, .. } => keystore,
        }
    }
}

/// A key that a request made: the request's name, the keystore, the key.
type Made = ([u8; 32], LocalId, LocalId);

/// What this node keeps for receipts, in memory only: after a restart it vouches for no birth before it.
pub struct Receipts {
    made: Mutex<VecDeque<Made>>,
    /// Tells when there is another one.
    changes: watch::Sender<()>,
    gathering: Semaphore,
    /// By who asks: one of them must not take the others' room.
    answering: Mutex<BTreeMap<u64, Arc<Semaphore>>>,
}

impl Default for Receipts {
    fn default() -> Self {
        Self {
            made: Mutex::default(),
            changes: watch::Sender::default(),
            gathering: Semaphore::new(AT_ONCE),
            answering: Mutex::default(),
        }
    }
}

impl Receipts {
    /// Takes note of an entry that this node has applied.
    pub fn applied(&self, entry: &Entry, outcome: &Outcome) {
        let statement = &entry.statement;
        if let (Command::GenerateKey(_), Outcome::Applied(Reply::Key(keystore, key))) =
            (&statement.command, outcome)
        {
            let mut made = self.made.lock();
            if made.len() == MAX_MADE {
                made.pop_front();
            }
            made.push_back((statement.name, *keystore, *key));
            drop(made);
            self.changes.send_replace(());
        }
    }

    /// Whether this request made the key, as far as this node remembers.
    pub fn has_made(&self, request: &[u8; 32], keystore: &LocalId, key: &LocalId) -> bool {
        let wanted = (*request, *keystore, *key);
        // The youngest first: it was made a moment ago.
        self.made.lock().iter().rev().any(|made| *made == wanted)
    }

    /// The same; waits for it until `deadline`, since an entry is applied a moment before it is told of.
    pub async fn have_made(
        &self,
        request: &[u8; 32],
        (keystore, key): (&LocalId, &LocalId),
        deadline: Instant,
    ) -> bool {
        let mut changes = self.changes.subscribe();
        loop {
            if self.has_made(request, keystore, key) {
                return true;
            }
            let changed = tokio::time::timeout_at(deadline.into(), changes.changed());
            if !matches!(changed.await, Ok(Ok(()))) {
                return false;
            }
        }
    }

    /// Room to gather a receipt.
    pub fn gather(&self) -> Option<SemaphorePermit<'_>> {
        self.gathering.try_acquire().ok()
    }

    /// Room to answer a node; their numbers are those that TLS has proven, so they are few.
    pub fn answer(&self, from: u64) -> Option<OwnedSemaphorePermit> {
        let mut answering = self.answering.lock();
        let room = answering
            .entry(from)
            .or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE)));
        room.clone().try_acquire_owned().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identifier::OperationId;
    use crate::keystore::Statement;
    use crate::keystore::command::GeneratedKey;
    use crate::keystore::record::{KeyType, Material};

    fn made(number: u64) -> (Entry, Outcome) {
        let (keystore, key) = (LocalId([1; 16]), LocalId(u128::from(number).to_be_bytes()));
        let generated = GeneratedKey {
            keystore,
            key,
            key_type: KeyType::Ed25519VerificationKey2020,
            epoch: 0,
            session: [0; 32],
            configuration: 1,
            start: 0,
            transcript: [0; 32],
            material: Material::Pair {
                commitment: Vec::new(),
                public_key: [9; 32],
            },
            participants: Vec::new(),
            away: Vec::new(),
            alias: None,
            max_chain_length: None,
        };
        let mut name = [0; 32];
        name[..8].copy_from_slice(&number.to_be_bytes());
        let statement = Statement {
            cluster: [7; 32],
            group: 1,
            operation: OperationId {
                node: 1,
                boot: 1,
                counter: number,
            },
            request: [0; 32],
            name,
            expires: 0,
            command: Command::GenerateKey(Box::new(generated)),
            state_version: 1,
            chain: Vec::new(),
        };
        let entry = Entry {
            statement,
            request: Vec::new(),
            endorsements: Vec::new(),
        };
        (entry, Outcome::Applied(Reply::Key(keystore, key)))
    }

    #[test]
    fn the_last_births_are_remembered_by_their_requests() {
        let receipts = Receipts::default();
        let knows = |number: u64| {
            let (entry, outcome) = made(number);
            let Outcome::Applied(Reply::Key(keystore, key)) = outcome else {
                unreachable!()
            };
            receipts.has_made(&entry.statement.name, &keystore, &key)
        };
        assert!(!knows(0));
        for number in 0..=MAX_MADE as u64 {
            let (entry, outcome) = made(number);
            receipts.applied(&entry, &outcome);
        }
        assert!(!knows(0) && knows(1) && knows(MAX_MADE as u64));
        let ((one, _), (two, outcome)) = (made(1), made(2));
        let Outcome::Applied(Reply::Key(keystore, key)) = outcome else {
            unreachable!()
        };
        assert!(receipts.has_made(&two.statement.name, &keystore, &key));
        assert!(
            !receipts.has_made(&one.statement.name, &keystore, &key),
            "another request's key"
        );
        let (entry, _) = made(99_999);
        receipts.applied(&entry, &Outcome::Refused(crate::keystore::Rejection::Missing));
        assert!(!knows(99_999));
    }
}
