//! A disk that loses in a crash what was not synced: all of it, or all but the first few batches.

use conclave_consensus::{Batch, Change, Pair, Reading, Store, StoreError};
use parking_lot::Mutex;
use rand::Rng;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Default)]
struct Content {
    /// Shared with snapshots; copied when written while one lives.
    current: Arc<Map>,
    durable: Map,
    unsynced: Vec<Batch>,
    /// What somebody copied.
    copy: Option<Map>,
    failing: bool,
}

/// One node's disk. Outlives the node's process.
#[derive(Default)]
pub struct SimulatedDisk(Mutex<Content>);

fn apply(map: &mut Map, batch: &Batch) {
    for change in &batch.changes {
        match change {
            Change::Put(key, value) => {
                map.insert(key.clone(), value.clone());
            }
            Change::Delete(key) => {
                map.remove(key);
            }
            Change::DeleteRange(from, to) => {
                let doomed: Vec<Vec<u8>> = range(map, from, to).map(|(key, _)| key.clone()).collect();
                for key in doomed {
                    map.remove(&key);
                }
            }
        }
    }
}

fn range<'a>(map: &'a Map, from: &[u8], to: &[u8]) -> impl Iterator<Item = (&'a Vec<u8>, &'a Vec<u8>)> {
    // A range that ends before it starts is empty, not a panic.
    map.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to.max(from))))
}

fn pairs(map: &Map, from: &[u8], to: &[u8], limit: usize) -> Vec<Pair> {
    range(map, from, to)
        .take(limit)
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

impl SimulatedDisk {
    /// The process died, or the power: of what was not synced a prefix survives, and `torn` (a batch that was
    /// being written) only if everything before it did.
    pub fn crash(&self, torn: Option<&Batch>, rng: &mut impl Rng) {
        let mut content = self.0.lock();
        let mut batches = std::mem::take(&mut content.unsynced);
        batches.extend(torn.cloned());
        let kept = rng.gen_range(0..=batches.len());
        for batch in &batches[..kept] {
            apply(&mut content.durable, batch);
        }
        content.current = Arc::new(content.durable.clone());
    }

    /// Somebody copies what is durable now.
    pub fn copy(&self) {
        let mut content = self.0.lock();
        content.copy = Some(content.durable.clone());
    }

    /// Somebody puts the copy in the place of everything; whether there is one. Only while no process runs on it.
    pub fn put_back(&self) -> bool {
        let mut content = self.0.lock();
        let Some(copy) = content.copy.clone() else {
            return false;
        };
        content.durable = copy;
        content.unsynced.clear();
        content.current = Arc::new(content.durable.clone());
        true
    }

    /// Whether writes fail.
    pub fn is_failing(&self) -> bool {
        self.0.lock().failing
    }

    /// From now on every write fails, or works again.
    pub fn fail(&self, failing: bool) {
        self.0.lock().failing = failing;
    }
}

impl Reading for SimulatedDisk {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.lock().current.get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError> {
        Ok(pairs(&self.0.lock().current, from, to, limit))
    }
}

impl Store for SimulatedDisk {
    fn write(&self, batch: &Batch, sync: bool) -> Result<(), StoreError> {
        let mut content = self.0.lock();
        if content.failing {
            return Err(StoreError::message("input/output error"));
        }
        apply(Arc::make_mut(&mut content.current), batch);
        content.unsynced.push(batch.clone());
        if sync {
            for batch in std::mem::take(&mut content.unsynced) {
                apply(&mut content.durable, &batch);
            }
        }
        Ok(())
    }

    fn snapshot(&self) -> Arc<dyn Reading> {
        Arc::new(Snapshot(self.0.lock().current.clone()))
    }
}

struct Snapshot(Arc<Map>);

impl Reading for Snapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError> {
        Ok(pairs(&self.0, from, to, limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    fn put(key: &str) -> Batch {
        let mut batch = Batch::default();
        batch.put(key.as_bytes().to_vec(), vec![1]);
        batch
    }

    #[test]
    fn a_crash_keeps_what_was_synced_and_a_prefix_of_the_rest() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut kept = [0; 4];
        for _ in 0..200 {
            let disk = SimulatedDisk::default();
            disk.write(&put("a"), false).unwrap();
            disk.write(&put("b"), true).unwrap();
            disk.write(&put("c"), false).unwrap();
            disk.write(&put("d"), false).unwrap();
            disk.crash(Some(&put("e")), &mut rng);
            let keys: String = "abcde"
                .chars()
                .filter(|key| disk.get(key.to_string().as_bytes()).unwrap().is_some())
                .collect();
            let length = keys.len();
            assert_eq!(keys, "abcde"[..length]);
            kept[length - 2] += 1;
        }
        assert!(kept.iter().all(|count| *count > 10), "{kept:?}");
    }
}
