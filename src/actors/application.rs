//! The adapter between consensus and the keystore state machine: what an entry restricts, how it is applied, who is
//! told. Runs on the store thread, so it does nothing else.

use std::sync::Arc;

use conclave_consensus::{Application, GroupId, Halt, Restricts, Scope, StateTransaction};
use parking_lot::Mutex;

use super::recheck::{self, Applied};
use crate::keystore::apply::{apply, is_endorsed};
use crate::keystore::entry::EntryError;
use crate::keystore::state::Pair;
use crate::keystore::{Entry, Outcome, ReadState, Rejection, StateError, WriteState, query};
use crate::membership::Membership;

/// What is told of an applied entry.
pub type Listener = Box<dyn Fn(GroupId, &Entry, &Outcome) + Send + Sync>;

/// The keystore state machine as consensus drives it.
pub struct KeystoreApplication {
    membership: Arc<Membership>,
    listener: Mutex<Option<Arc<Listener>>>,
    recheck: Mutex<Option<recheck::Sender>>,
}

impl KeystoreApplication {
    /// With the members whose endorsements count.
    pub fn new(membership: Arc<Membership>) -> Self {
        Self {
            membership,
            listener: Mutex::new(None),
            recheck: Mutex::new(None),
        }
    }

    /// Whom to tell of applied entries, from now on.
    pub fn listen(&self, listener: Listener) {
        *self.listener.lock() = Some(Arc::new(listener));
    }

    /// Who is to look again at what changed the state, from now on; as far as there is room in the queue.
    pub fn recheck(&self, sender: recheck::Sender) {
        *self.recheck.lock() = Some(sender);
    }

    /// Applies, and hands over what changed the state.
    fn change(&self, group: GroupId, entry: Entry, state: &mut Transaction<'_, '_>) -> Result<Outcome, Halt> {
        let halt = |error: StateError| Halt::new(error.to_string());
        let sender = self.recheck.lock().clone();
        let keystore = entry.statement.command.keystore().filter(|_| sender.is_some());
        let before = match keystore {
            Some(keystore) => query::keystore(state, &keystore).map_err(halt)?,
            None => None,
        };
        let outcome = apply(&entry, group.0, &self.membership, state).map_err(halt)?;
        if let (Some(sender), Outcome::Applied(_)) = (sender, &outcome) {
            let applied = Applied { group, entry, before };
            if sender.try_send(applied).is_err() {
                tracing::debug!(%group, "too much to do: a change is not looked at again");
            }
        }
        Ok(outcome)
    }
}

/// A transaction of the consensus store as the state machine's state.
struct Transaction<'a, 'b>(&'a mut StateTransaction<'b>);

impl ReadState for Transaction<'_, '_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        self.0.get(key).map_err(|error| StateError(error.to_string()))
    }

    fn scan(&self, prefix: &[u8], limit: usize) -> Result<Vec<Pair>, StateError> {
        self.0
            .scan(prefix, None, limit)
            .map_err(|error| StateError(error.to_string()))
    }
}

impl WriteState for Transaction<'_, '_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateError> {
        self.0.put(key, value);
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), StateError> {
        self.0.delete(key);
        Ok(())
    }
}

impl Application for KeystoreApplication {
    fn restricts(&self, _group: GroupId, entry: &[u8]) -> Restricts {
        match Entry::decode(entry) {
            Ok(entry) if !entry.statement.command.restricts() => Restricts::Nothing,
            Ok(entry) => match entry.statement.command.keystore() {
                Some(keystore) => Restricts::Scope(Scope(keystore.0)),
                None => Restricts::Everything,
            },
            // Bytes that are no entry change nothing; those of another version could change anything.
            Err(EntryError::Malformed) => Restricts::Nothing,
            Err(EntryError::UnknownVersion(_)) => Restricts::Everything,
        }
    }

    fn apply(
        &self,
        group: GroupId,
        _index: u64,
        entry: &[u8],
        state: &mut StateTransaction<'_>,
    ) -> Result<Vec<u8>, Halt> {
        let outcome = match Entry::decode(entry) {
            Ok(entry) => self.change(group, entry, &mut Transaction(state))?,
            Err(EntryError::Malformed) => Outcome::Refused(Rejection::NotEndorsed("not an entry".into())),
            Err(error @ EntryError::UnknownVersion(_)) => return Err(Halt::new(error.to_string())),
        };
        if let Outcome::Refused(Rejection::NotEndorsed(reason)) = &outcome {
            tracing::warn!(%group, reason, "an entry that is not endorsed changed nothing");
        }
        postcard::to_stdvec(&outcome).map_err(|error| Halt::new(error.to_string()))
    }

    fn genuine(&self, group: GroupId, entry: &[u8]) -> bool {
        Entry::decode(entry).is_ok_and(|entry| is_endorsed(&entry, group.0, &self.membership))
    }

    fn applied(&self, group: GroupId, _index: u64, entry: &[u8], result: &[u8]) {
        let Some(listener) = self.listener.lock().clone() else {
            return;
        };
        if let (Ok(entry), Ok(outcome)) = (Entry::decode(entry), postcard::from_bytes(result)) {
            listener(group, &entry, &outcome);
        }
    }
}
