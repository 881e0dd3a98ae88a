//! Replacing the epoch key: both keys in the file, every wrapping key wrapped anew, only the new one in the file. A crash
//! at any point leaves two keys in the file, and opening the store finishes.

use rand::RngCore;
use rocksdb::WriteBatch;

use crate::epoch_file::EpochKey;
use crate::error::Error;
use crate::record::{SHARE, ShareRecord, above, damaged, decode, encode, id_of};
use crate::seal::{Key, RawKey};
use crate::store::{ShareStore, database, nonce, written};

/// Records that are wrapped anew in one batch.
const REWRAP: usize = 256;

/// The epoch keys in use: one, but for the time of a rotation.
pub(crate) struct Epochs {
    pub(crate) current: Epoch,
    pub(crate) previous: Option<Epoch>,
}

pub(crate) struct Epoch {
    pub(crate) raw: EpochKey,
    pub(crate) key: Key,
}

impl Epoch {
    pub(crate) fn new(raw: EpochKey) -> Result<Self, Error> {
        Ok(Epoch {
            key: Key::new(&raw.key)?,
            raw,
        })
    }
}

impl Epochs {
    pub(crate) fn of(&self, generation: u64) -> Result<&Key, Error> {
        let both = [Some(&self.current), self.previous.as_ref()];
        let found = both
            .into_iter()
            .flatten()
            .find(|epoch| epoch.raw.generation == generation);
        found
            .map(|epoch| &epoch.key)
            .ok_or_else(|| damaged("a share is of an epoch key that is gone"))
    }
}

pub(crate) fn new_key(generation: u64, rng: &mut (dyn RngCore + Send)) -> EpochKey {
    let mut key = RawKey::default();
    rng.fill_bytes(key.as_mut_slice());
    EpochKey { generation, key }
}

impl ShareStore {
    /// Draws a new epoch key, wraps every wrapping key under it and forgets the old one: whatever was removed before
    /// cannot be opened again. Call it after a refresh and after keys were deleted. Other calls go on meanwhile.
    pub fn rotate(&self) -> Result<(), Error> {
        let _rotating = self.rotating.lock();
        if self.epochs.read().previous.is_none() {
            let (next, nonce) = {
                let mut rng = self.rng.lock();
                let generation = self.epochs.read().current.raw.generation + 1;
                (new_key(generation, rng.as_mut()), nonce(rng.as_mut()))
            };
            // Both are in the file before anything is written under the new one.
            self.file
                .write(&[&self.epochs.read().current.raw, &next], nonce)?;
            let next = Epoch::new(next)?;
            let mut epochs = self.epochs.write();
            let old = std::mem::replace(&mut epochs.current, next);
            epochs.previous = Some(old);
        }
        self.finish_rotation()
    }

    /// From two epoch keys to one.
    pub(crate) fn finish_rotation(&self) -> Result<(), Error> {
        let mut begin = vec![SHARE];
        loop {
            let keys: Vec<_> = self
                .range(begin.clone(), above(&[SHARE]))
                .take(REWRAP)
                .map(|entry| entry.map(|(key, _)| key))
                .collect::<Result<_, _>>()?;
            let Some(last) = keys.last() else { break };
            begin = [last.as_ref(), &[0]].concat();
            self.rewrap(&keys)?;
        }
        // Everything under the new key is durable before the old one goes.
        self.database.flush_wal(true).map_err(database)?;
        let nonce = nonce(self.rng.lock().as_mut());
        self.file.write(&[&self.epochs.read().current.raw], nonce)?;
        self.epochs.write().previous = None;
        self.database.flush().map_err(database)?;
        self.database.compact_range(Some([SHARE]), Some(above(&[SHARE])));
        Ok(())
    }

    fn rewrap(&self, keys: &[Box<[u8]>]) -> Result<(), Error> {
        // Read again under the lock: one that was removed since must not come back.
        let _changes = self.changes.lock();
        let epochs = self.epochs.read();
        let new = (epochs.current.raw.generation, &epochs.current.key);
        let mut batch = WriteBatch::default();
        for key in keys {
            let Some(bytes) = self.database.get_pinned(key).map_err(database)? else {
                continue;
            };
            let mut record: ShareRecord = decode(&bytes)?;
            if record.generation == new.0 {
                continue;
            }
            let place = id_of(key)?;
            let nonce = nonce(self.rng.lock().as_mut());
            record.rewrap(&self.owner, &place, epochs.of(record.generation)?, new, nonce)?;
            batch.put(key, encode(&record)?);
        }
        written(self.database.write(batch))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rand::rngs::OsRng;

    use super::*;
    use crate::identity::ShareId;
    use crate::secret::NodeKey;

    fn open(folder: &Path) -> ShareStore {
        let key = NodeKey::new(Box::new([1; 32]));
        ShareStore::open(
            &folder.join("shares"),
            &folder.join("epoch-keys"),
            key,
            [2; 32],
            3,
            OsRng,
        )
        .unwrap()
    }

    fn id(key: u8) -> ShareId {
        ShareId {
            keystore: [0; 16],
            key: [key; 16],
            session: [9; 32],
            key_type: "t".into(),
            epoch: 1,
        }
    }

    /// Stops a rotation after `wrapped` batches of one record, as a crash does; then opens the store again.
    fn crash_after(wrapped: u8) {
        let folder = tempfile::tempdir().unwrap();
        {
            let store = open(folder.path());
            for key in 0..5 {
                store.put(&id(key), &[key; 32], &[], 0).unwrap();
            }
            let next = new_key(2, &mut OsRng);
            store
                .file
                .write(&[&store.epochs.read().current.raw, &next], [7; 12])
                .unwrap();
            let mut epochs = store.epochs.write();
            let old = std::mem::replace(&mut epochs.current, Epoch::new(next).unwrap());
            epochs.previous = Some(old);
            drop(epochs);
            for key in 0..wrapped {
                store
                    .rewrap(&[crate::record::share_key(&id(key)).into_boxed_slice()])
                    .unwrap();
            }
            if wrapped > 0 {
                store.put(&id(100), &[100; 32], &[], 0).unwrap();
            }
        }
        let store = open(folder.path());
        let keys = store.file.read().unwrap().unwrap();
        assert_eq!(keys.iter().map(|key| key.generation).collect::<Vec<_>>(), [2]);
        for key in (0..5).chain((wrapped > 0).then_some(100)) {
            assert!(
                store.get(&id(key)).unwrap().unwrap().expose() == [key; 32],
                "key {key}"
            );
        }
        assert!(store.epochs.read().previous.is_none());
        store.rotate().unwrap();
        assert!(store.epochs.read().previous.is_none());
        assert_eq!(store.file.read().unwrap().unwrap()[0].generation, 3);
        assert!(store.get(&id(4)).unwrap().unwrap().expose() == [4; 32]);
    }

    #[test]
    fn opening_finishes_a_rotation_wherever_it_stopped() {
        for wrapped in [0, 2, 5] {
            crash_after(wrapped);
        }
    }
}
