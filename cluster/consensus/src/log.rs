//! The log of one group, as raft reads it: the latest entries from memory, older ones from the store.
//!
//! Changes are made in memory and put into a batch at the same time; the caller writes the batch before it
//! gives raft anything else to do.

use crate::ids::{GroupId, NodeId};
use crate::keys;
use crate::records::{self, GroupRecord};
use crate::store::{Batch, Store, StoreError};
use protobuf::Message as _;
use raft::eraftpb::{Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Entries kept in memory, per group; older ones are read from the store.
const CACHED_ENTRIES: usize = 256;
const CACHED_BYTES: usize = 512 * 1024;

/// One group's log.
pub(crate) struct GroupLog<S> {
    store: Arc<S>,
    group: GroupId,
    pub(crate) record: GroupRecord,
    pub(crate) hard: HardState,
    last_index: u64,
    /// The end of the log, without a gap.
    cache: VecDeque<Entry>,
    cached_bytes: usize,
    /// Peers for which raft asked for a snapshot; it was told to ask again later.
    wanted: RefCell<BTreeSet<NodeId>>,
    /// Snapshots whose data the peer has on its disk already.
    pub(crate) staged_at: BTreeMap<NodeId, Snapshot>,
}

impl<S: Store> GroupLog<S> {
    /// Reads what the disk has of the group; `None` if it has nothing.
    pub(crate) fn open(store: Arc<S>, group: GroupId) -> Result<Option<Self>, StoreError> {
        let Some(record) = GroupRecord::read(&*store, group)? else {
            return Ok(None);
        };
        let hard = records::read_hard_state(&*store, group)?
            .ok_or_else(|| StoreError::message(format!("{group} has no hard state")))?;
        let mut log = GroupLog {
            last_index: record.truncated_index,
            store,
            group,
            record,
            hard,
            cache: VecDeque::new(),
            cached_bytes: 0,
            wanted: RefCell::default(),
            staged_at: BTreeMap::new(),
        };
        log.find_end()?;
        Ok(Some(log))
    }

    fn find_end(&mut self) -> Result<(), StoreError> {
        let end = keys::entry(self.group, u64::MAX);
        loop {
            let from = keys::entry(self.group, self.last_index + 1);
            let page = self.store.scan(&from, &end, CACHED_ENTRIES)?;
            if page.is_empty() {
                return Ok(());
            }
            for (_, bytes) in page {
                let entry: Entry = records::decode_raft(&bytes)?;
                if entry.index != self.last_index + 1 {
                    return Err(StoreError::message(format!(
                        "{} misses entry {}",
                        self.group,
                        self.last_index + 1
                    )));
                }
                self.last_index = entry.index;
                self.cached_bytes += entry.data.len();
                self.cache.push_back(entry);
            }
            self.trim();
        }
    }

    /// Adds entries, cutting away what conflicts with them.
    pub(crate) fn append(&mut self, entries: Vec<Entry>, batch: &mut Batch) -> Result<(), StoreError> {
        let Some(first) = entries.first().map(|entry| entry.index) else {
            return Ok(());
        };
        if first <= self.last_index {
            batch.delete_range(
                keys::entry(self.group, first),
                keys::entry(self.group, self.last_index + 1),
            );
            while self.cache.back().is_some_and(|entry| entry.index >= first) {
                let cut = self.cache.pop_back();
                self.cached_bytes -= cut.map_or(0, |entry| entry.data.len());
            }
        }
        for entry in entries {
            batch.put(
                keys::entry(self.group, entry.index),
                records::encode_raft(&entry)?,
            );
            self.last_index = entry.index;
            self.cached_bytes += entry.data.len();
            self.cache.push_back(entry);
        }
        Ok(())
    }

    /// Drops the oldest cached entries. Only after what they came in was written.
    pub(crate) fn trim(&mut self) {
        while self.cache.len() > CACHED_ENTRIES || self.cached_bytes > CACHED_BYTES {
            let oldest = self.cache.pop_front();
            self.cached_bytes -= oldest.map_or(0, |entry| entry.data.len());
        }
    }

    /// Removes entries up to `index`, which must be applied and synced.
    pub(crate) fn truncate(&mut self, index: u64, batch: &mut Batch) -> Result<(), StoreError> {
        let term = self.term(index).map_err(|error| StoreError(error.into()))?;
        let first = self.record.truncated_index + 1;
        batch.delete_range(keys::entry(self.group, first), keys::entry(self.group, index + 1));
        self.record.truncated_index = index;
        self.record.truncated_term = term;
        while self.cache.front().is_some_and(|entry| entry.index <= index) {
            let cut = self.cache.pop_front();
            self.cached_bytes -= cut.map_or(0, |entry| entry.data.len());
        }
        batch.put(keys::group(self.group), records::encode(&self.record)?);
        Ok(())
    }

    /// Starts over after a snapshot, whose state is in `generation`; the old generation is removed. The record's
    /// configuration is the snapshot's already.
    pub(crate) fn restore(
        &mut self,
        snapshot: &Snapshot,
        generation: u64,
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        let metadata = snapshot.get_metadata();
        batch.delete_range(keys::entry(self.group, 0), keys::entry(self.group, u64::MAX));
        let old = keys::state(self.group, self.record.generation);
        let old_end = keys::after_prefix(&old);
        batch.delete_range(old, old_end);
        self.record.generation = generation;
        self.record.truncated_index = metadata.index;
        self.record.truncated_term = metadata.term;
        self.last_index = metadata.index;
        self.cache.clear();
        self.cached_bytes = 0;
        batch.put(keys::group(self.group), records::encode(&self.record)?);
        Ok(())
    }

    /// Writes the hard state as it is now.
    pub(crate) fn put_hard_state(&self, batch: &mut Batch) -> Result<(), StoreError> {
        batch.put(keys::hard_state(self.group), records::encode_raft(&self.hard)?);
        Ok(())
    }

    /// One entry, if the log still has it.
    pub(crate) fn entry(&self, index: u64) -> Result<Option<Entry>, StoreError> {
        if index <= self.record.truncated_index || index > self.last_index {
            return Ok(None);
        }
        if let Some(first) = self.cache.front().map(|entry| entry.index)
            && index >= first
        {
            return Ok(self.cache.get((index - first) as usize).cloned());
        }
        let bytes = self.store.get(&keys::entry(self.group, index))?;
        bytes
            .map(|bytes| Entry::parse_from_bytes(&bytes))
            .transpose()
            .map_err(|error| StoreError(error.into()))
    }

    pub(crate) fn store(&self) -> &S {
        &self.store
    }

    pub(crate) fn last(&self) -> u64 {
        self.last_index
    }

    /// The peers that raft wants to send a snapshot to, once.
    pub(crate) fn take_wanted(&mut self) -> BTreeSet<NodeId> {
        std::mem::take(self.wanted.get_mut())
    }
}

fn other(error: StoreError) -> raft::Error {
    raft::Error::Store(StorageError::Other(error.into()))
}

impl<S: Store> Storage for GroupLog<S> {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(
            self.hard.clone(),
            self.record.configuration.conf_state(),
        ))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.record.truncated_index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        if high > self.last_index + 1 {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        let budget = max_size.into().unwrap_or(u64::MAX);
        let (mut bytes, mut entries) = (0u64, Vec::new());
        for index in low..high {
            let entry = self.entry(index).map_err(other)?;
            let entry = entry.ok_or(raft::Error::Store(StorageError::Unavailable))?;
            bytes = bytes.saturating_add(u64::from(entry.compute_size()));
            // At least one, whatever its size.
            if !entries.is_empty() && bytes > budget {
                break;
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.record.truncated_index {
            return Ok(self.record.truncated_term);
        }
        if index < self.record.truncated_index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        let entry = self.entry(index).map_err(other)?;
        entry
            .map(|entry| entry.term)
            .ok_or(raft::Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.record.truncated_index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last_index)
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        match self.staged_at.get(&to) {
            Some(snapshot) if snapshot.get_metadata().index >= request_index => Ok(snapshot.clone()),
            _ => {
                self.wanted.borrow_mut().insert(to);
                Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable))
            }
        }
    }
}
