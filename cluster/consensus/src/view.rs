//! The state of one group at one moment.

use crate::application::StateRead;
use crate::configuration::Configuration;
use crate::ids::GroupId;
use crate::keys;
use crate::records::{self, AppliedRecord, GroupRecord};
use crate::store::{Pair, Reading, StoreError};
use std::sync::Arc;

/// One snapshot of a group's state; later writes do not show. Holds disk space while it lives: seconds, not
/// minutes.
#[derive(Clone)]
pub struct View {
    reading: Arc<dyn Reading>,
    group: GroupId,
    prefix: Vec<u8>,
    applied: u64,
    configuration: Arc<(Configuration, u64)>,
}

impl StateRead for View {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        View::get(self, key)
    }
    fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>, StoreError> {
        View::scan(self, prefix, after, limit)
    }
}

impl View {
    pub(crate) fn new(reading: Arc<dyn Reading>, group: GroupId) -> Result<Self, StoreError> {
        // Generation and applied index come from the same snapshot, so an installation cannot slip between.
        let missing = || StoreError::message(format!("{group} is not on this node"));
        let record = GroupRecord::read(&*reading, group)?.ok_or_else(missing)?;
        if record.configuration.is_empty() {
            return Err(missing());
        }
        let applied: AppliedRecord = records::read(&*reading, &keys::applied(group))?.ok_or_else(missing)?;
        let prefix = keys::state(group, record.generation);
        Ok(View {
            reading,
            group,
            prefix,
            applied: applied.index,
            configuration: Arc::new((record.configuration, record.configuration_index)),
        })
    }

    /// The group.
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// Index of the last entry whose effects this view has.
    pub fn applied_index(&self) -> u64 {
        self.applied
    }

    /// The group's configuration in this view, and the index of the entry that made it.
    pub fn configuration(&self) -> (&Configuration, u64) {
        (&self.configuration.0, self.configuration.1)
    }

    fn full(&self, key: &[u8]) -> Vec<u8> {
        let mut full = self.prefix.clone();
        full.extend_from_slice(key);
        full
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.reading.get(&self.full(key))
    }

    /// Up to `limit` pairs whose keys start with `prefix` and come after `after` (a whole key), in order.
    pub fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>, StoreError> {
        let from = match after {
            Some(after) if after >= prefix => keys::after(&self.full(after)),
            _ => self.full(prefix),
        };
        let pairs = self
            .reading
            .scan(&from, &keys::after_prefix(&self.full(prefix)), limit)?;
        Ok(pairs
            .into_iter()
            .map(|(key, value)| (key[self.prefix.len()..].to_vec(), value))
            .collect())
    }
}
