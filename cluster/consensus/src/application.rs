//! What a group's entries mean. The caller implements [`Application`]; nothing of it is known in here.

use crate::configuration::{Configuration, Move};
use crate::ids::{GroupId, Restricts};
use crate::keys;
use crate::store::{Batch, Pair, Reading, StoreError};
use std::collections::BTreeMap;
use std::ops::Bound;

/// The group cannot go on applying: the entry is of a version that this build does not know, or the disk
/// failed. The entry is not skipped; a build that knows it applies it after a restart.
#[derive(Debug, thiserror::Error)]
#[error("apply stops: {reason}")]
pub struct Halt {
    /// Why, for the operator.
    pub reason: String,
}

impl Halt {
    /// Stops the group for this reason.
    pub fn new(reason: impl Into<String>) -> Self {
        Halt {
            reason: reason.into(),
        }
    }
}

impl From<StoreError> for Halt {
    fn from(error: StoreError) -> Self {
        Halt {
            reason: error.to_string(),
        }
    }
}

/// The deterministic state machine of the groups. Called from the store thread only, except for
/// `restricts` and `genuine`, which must be cheap and pure.
pub trait Application: Send + Sync + 'static {
    /// What this entry may turn from allowed to refused. An entry that cannot be read restricts everything.
    fn restricts(&self, group: GroupId, entry: &[u8]) -> Restricts;

    /// Applies a committed entry. The same on every replica: reads no clock, no randomness, no other group.
    /// The bytes returned go to whoever proposed the entry through this node.
    fn apply(
        &self,
        group: GroupId,
        index: u64,
        entry: &[u8],
        state: &mut StateTransaction<'_>,
    ) -> Result<Vec<u8>, Halt>;

    /// Called after the batch with this entry is visible to readers, in order of application.
    fn applied(&self, _group: GroupId, _index: u64, _entry: &[u8], _result: &[u8]) {}

    /// Whether an entry that a peer shows as the reason for its statement is one that a cluster could have
    /// accepted (endorsements valid). What is not is a lie: counted, and it does not fence (consensus.md 1.7).
    fn genuine(&self, group: GroupId, entry: &[u8]) -> bool {
        self.restricts(group, entry) != Restricts::Nothing
    }

    /// The change of voters that this state calls for, if any. Asked at every entry of configuration, which counts only
    /// if it is the next step of this move, and of the leader, who takes the steps: so it must follow from the state
    /// alone, the same on every replica. Once the group is joint the state must go on calling for the move until it is
    /// over. An entry that changes the answer restricts everything, or the leader may not notice before its next start;
    /// while there is a move, the leader looks after every entry.
    fn wanted(&self, _group: GroupId, _state: &dyn StateRead) -> Result<Option<Move>, Halt> {
        Ok(None)
    }

    /// An entry of configuration was allowed and is being applied at this index: what the state has to keep of it is
    /// written here, in the same batch. Rules of [`Application::apply`].
    fn configured(
        &self,
        _group: GroupId,
        _index: u64,
        _configuration: &Configuration,
        _state: &mut StateTransaction<'_>,
    ) -> Result<(), Halt> {
        Ok(())
    }

    /// Whether a snapshot of this state may bring this configuration. `initial` is the one of the group's first day. An
    /// application whose groups move compares it with what [`Application::configured`] wrote.
    fn configuration_allowed(
        &self,
        _group: GroupId,
        configuration: &Configuration,
        initial: &Configuration,
        _state: &dyn StateRead,
    ) -> bool {
        configuration == initial
    }

    /// A leader has offered a state whose configuration is allowed. Nobody has vouched for it yet; whom it names as members by
    /// somebody's signature may have to be linked to, to be asked whether it is theirs.
    fn offered(&self, _group: GroupId, _state: &dyn StateRead) {}

    /// Whether a snapshot's state may come later in the group's history than the state that this node has, for which others vouch.
    /// What is not told apart here is told apart once others state what they have.
    fn follows(&self, _group: GroupId, _own: &dyn StateRead, _state: &dyn StateRead) -> bool {
        true
    }
}

/// Reads of one group's state, by the application's keys.
pub trait StateRead {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
    /// Up to `limit` pairs whose keys start with `prefix` and come after `after` (a whole key), in order.
    fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>, StoreError>;
}

impl StateRead for StateTransaction<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        StateTransaction::get(self, key)
    }
    fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>, StoreError> {
        StateTransaction::scan(self, prefix, after, limit)
    }
}

/// Writes that are not yet in the store: `None` is a deletion.
pub(crate) type Overlay = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// The state of one group as an entry sees it: what is stored, what earlier entries of the same batch wrote,
/// and its own writes. Keys are the application's own; the group's prefix is added here.
pub struct StateTransaction<'a> {
    base: &'a dyn Reading,
    prefix: Vec<u8>,
    earlier: &'a Overlay,
    own: Overlay,
}

impl<'a> StateTransaction<'a> {
    pub(crate) fn new(base: &'a dyn Reading, prefix: Vec<u8>, earlier: &'a Overlay) -> Self {
        StateTransaction {
            base,
            prefix,
            earlier,
            own: Overlay::new(),
        }
    }

    /// The entry's own writes, by the application's keys.
    pub(crate) fn into_writes(self) -> Overlay {
        self.own
    }

    fn full(&self, key: &[u8]) -> Vec<u8> {
        let mut full = self.prefix.clone();
        full.extend_from_slice(key);
        full
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        if let Some(value) = self.own.get(key).or_else(|| self.earlier.get(key)) {
            return Ok(value.clone());
        }
        self.base.get(&self.full(key))
    }

    /// Sets a value. A key and its value are at most [`crate::MAX_PAIR`] bytes long: more stops the group.
    pub fn put(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.own.insert(key.into(), Some(value.into()));
    }

    /// Removes a key.
    pub fn delete(&mut self, key: impl Into<Vec<u8>>) {
        self.own.insert(key.into(), None);
    }

    /// Up to `limit` pairs whose keys start with `prefix` and come after `after` (a whole key), in order.
    pub fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>, StoreError> {
        let end = self.full_end(prefix);
        let start = match after {
            Some(after) if after >= prefix => after.to_vec(),
            _ => prefix.to_vec(),
        };
        let past = |key: &[u8]| after.is_none_or(|after| key > after);
        let in_prefix = |key: &Vec<u8>| key.starts_with(prefix);
        let mut merged: Overlay = Overlay::new();
        for layer in [self.earlier, &self.own] {
            let range = layer.range::<Vec<u8>, _>((Bound::Included(&start), Bound::Unbounded));
            for (key, value) in range
                .take_while(|(key, _)| in_prefix(key))
                .filter(|(key, _)| past(key))
            {
                merged.insert(key.clone(), value.clone());
            }
        }
        // Every overlaid key can hide one stored pair, so reading that many more leaves `limit` to return.
        let from = match after {
            Some(after) if after >= prefix => keys::after(&self.full(after)),
            _ => self.full(prefix),
        };
        let stored = self.base.scan(&from, &end, limit.saturating_add(merged.len()))?;
        for (key, value) in stored {
            merged
                .entry(key[self.prefix.len()..].to_vec())
                .or_insert(Some(value));
        }
        let live = merged
            .into_iter()
            .filter_map(|(key, value)| value.map(|value| (key, value)));
        Ok(live.take(limit).collect())
    }

    fn full_end(&self, prefix: &[u8]) -> Vec<u8> {
        keys::after_prefix(&self.full(prefix))
    }
}

/// Adds an overlay to a batch under a generation's prefix.
pub(crate) fn write_overlay(batch: &mut Batch, prefix: &[u8], overlay: Overlay) {
    for (key, value) in overlay {
        let mut full = prefix.to_vec();
        full.extend_from_slice(&key);
        match value {
            Some(value) => batch.put(full, value),
            None => batch.delete(full),
        }
    }
}
