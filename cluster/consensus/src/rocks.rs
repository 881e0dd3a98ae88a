//! RocksDB as the store of the database `raft/`.

use crate::owned_snapshot::OwnedSnapshot;
use crate::store::{Batch, Change, Pair, Reading, Store, StoreError};
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DBRecoveryMode, Direction, IteratorMode, Options,
    ReadOptions, WriteBatch, WriteOptions,
};
use std::path::Path;
use std::sync::Arc;

/// The database of one node. Its lock keeps a second process away.
pub struct RocksStore {
    db: Arc<DB>,
}

impl From<rocksdb::Error> for StoreError {
    fn from(error: rocksdb::Error) -> Self {
        StoreError(Box::new(error))
    }
}

impl RocksStore {
    /// Opens or creates the database. A torn end of the WAL is cut; any other corruption is an error and
    /// quarantines the node (consensus.md 4).
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_paranoid_checks(true);
        options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
        options.set_track_and_verify_wals_in_manifest(true);
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_max_total_wal_size(256 * 1024 * 1024);
        // Small enough that memory stays flat while it fills and a restart replays little of the log.
        options.set_write_buffer_size(8 * 1024 * 1024);
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&Cache::new_lru_cache(8 * 1024 * 1024));
        // Most look-ups of a decision find nothing (no revocation, no name before): those read no block.
        blocks.set_bloom_filter(10.0, false);
        options.set_block_based_table_factory(&blocks);
        options.set_max_background_jobs(2);
        options.set_max_open_files(512);
        options.set_keep_log_file_num(4);
        Ok(RocksStore {
            db: Arc::new(DB::open(&options, path)?),
        })
    }
}

/// Pairs of `from <= key < to` out of an iterator that starts at `from`.
pub(crate) fn collect_pairs(
    iterator: impl Iterator<Item = Result<(Box<[u8]>, Box<[u8]>), rocksdb::Error>>,
    to: &[u8],
    limit: usize,
) -> Result<Vec<Pair>, StoreError> {
    let mut pairs = Vec::new();
    for item in iterator.take(limit) {
        let (key, value) = item?;
        if &*key >= to {
            break;
        }
        pairs.push((key.into_vec(), value.into_vec()));
    }
    Ok(pairs)
}

/// Bounds the iterator, so that it does not wade through what was deleted beyond the range.
pub(crate) fn bounded(to: &[u8]) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_iterate_upper_bound(to.to_vec());
    options
}

impl Reading for RocksStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.db.get(key)?)
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError> {
        let mode = IteratorMode::From(from, Direction::Forward);
        collect_pairs(self.db.iterator_opt(mode, bounded(to)), to, limit)
    }
}

impl Store for RocksStore {
    fn write(&self, batch: &Batch, sync: bool) -> Result<(), StoreError> {
        let mut writes = WriteBatch::default();
        for change in &batch.changes {
            match change {
                Change::Put(key, value) => writes.put(key, value),
                Change::Delete(key) => writes.delete(key),
                Change::DeleteRange(from, to) => writes.delete_range(from, to),
            }
        }
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        self.db.write_opt(writes, &options)?;
        Ok(())
    }

    fn snapshot(&self) -> Arc<dyn Reading> {
        Arc::new(OwnedSnapshot::new(self.db.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(changes: &[(&str, &str)]) -> Batch {
        let mut batch = Batch::default();
        for (key, value) in changes {
            batch.put(key.as_bytes().to_vec(), value.as_bytes().to_vec());
        }
        batch
    }

    #[test]
    fn a_snapshot_does_not_see_later_writes_and_outlives_the_store() {
        let folder = tempfile::tempdir().unwrap();
        let store = RocksStore::open(folder.path()).unwrap();
        store
            .write(&batch(&[("a", "1"), ("b", "1"), ("c", "1")]), true)
            .unwrap();
        let before = store.snapshot();
        let mut later = batch(&[("a", "2"), ("d", "2")]);
        later.delete_range(b"b".to_vec(), b"c".to_vec());
        store.write(&later, false).unwrap();
        assert_eq!(store.get(b"b").unwrap(), None);
        let keys = |pairs: Vec<Pair>| pairs.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
        assert_eq!(keys(store.scan(b"a", b"d", 9).unwrap()), [b"a", b"c"]);
        drop(store);
        assert_eq!(before.get(b"a").unwrap().unwrap(), b"1");
        assert_eq!(before.get(b"zz").unwrap(), None);
        assert_eq!(keys(before.scan(b"a", b"z", 2).unwrap()), [b"a", b"b"]);
        assert_eq!(keys(before.scan(b"b", b"z", 9).unwrap()), [b"b", b"c"]);
        drop(before);
        // The lock is free again.
        let store = RocksStore::open(folder.path()).unwrap();
        assert_eq!(store.get(b"d").unwrap().unwrap(), b"2");
        assert!(RocksStore::open(folder.path()).is_err());
    }

    #[test]
    fn many_threads_read_one_snapshot() {
        let folder = tempfile::tempdir().unwrap();
        let store = RocksStore::open(folder.path()).unwrap();
        store.write(&batch(&[("a", "1")]), true).unwrap();
        let snapshot = store.snapshot();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..200).for_each(|_| assert_eq!(snapshot.get(b"a").unwrap().unwrap(), b"1")));
            }
        });
    }
}
