//! The store itself. Open it once per process; a second opener finds it locked.

use std::collections::HashSet;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use rand::{CryptoRng, RngCore};
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBRecoveryMode, ErrorKind, IteratorMode, Options, ReadOptions, WriteBatch,
    WriteOptions,
};

use crate::epoch_file::EpochFile;
use crate::error::Error;
use crate::identity::{KeptEnvelope, Owner, Session, ShareId};
use crate::record::{
    ENVELOPE, EnvelopeRecord, FORMAT, Fresh, IDENTITY, IdentityRecord, ShareRecord, UNSETTLED, above,
    damaged, decode, encode, envelope_key, id_of, share_key, shares_of, unsettled_key,
};
use crate::rotation::{Epoch, Epochs, new_key};
use crate::seal::{NONCE, RawKey};
use crate::secret::{NodeKey, SecretBytes};

/// The longest share, in bytes.
pub const SECRET_LIMIT: usize = 64 * 1024;
/// The longest envelope, in bytes.
pub const ENVELOPE_LIMIT: usize = 256 * 1024;
/// The most envelopes kept with one share.
pub const ENVELOPES_LIMIT: usize = 16;
/// The most records in one answer.
pub const PAGE_LIMIT: usize = 4096;
/// A record's key and value.
pub(crate) type Entry = (Box<[u8]>, Box<[u8]>);

/// Sealed shares, and envelopes for members that are away.
pub struct ShareStore {
    pub(crate) database: DB,
    pub(crate) owner: Owner,
    pub(crate) file: EpochFile,
    /// Read for as long as a record is read or written under it: when a writer gets in, nothing is half done.
    pub(crate) epochs: RwLock<Epochs>,
    pub(crate) rng: Mutex<Box<dyn RngCore + Send>>,
    /// Shares that are being put: the look-up and the write of one name are not interrupted by a second put of it.
    arriving: Mutex<HashSet<ShareId>>,
    /// Held by whatever reads a record and then writes by what it read.
    pub(crate) changes: Mutex<()>,
    pub(crate) rotating: Mutex<()>,
    pub(crate) open_envelopes: AtomicU64,
}

pub(crate) fn database(error: rocksdb::Error) -> Error {
    match error.kind() {
        ErrorKind::Corruption => Error::Quarantine(error.into_string()),
        _ => Error::Database(error),
    }
}

/// What came of a write. One that fails ends the process, as one of the Raft log does: RocksDB takes no other before it is
/// opened again, and nobody knows how much of it is on disk. The other nodes keep what this one misses.
pub(crate) fn written(outcome: Result<(), rocksdb::Error>) -> Result<(), Error> {
    match outcome {
        Err(error) if error.kind() == ErrorKind::IOError => {
            tracing::error!(%error, "the share store cannot be written; the process ends");
            std::process::abort();
        }
        other => other.map_err(database),
    }
}

fn options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_paranoid_checks(true);
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_max_open_files(256);
    options.set_write_buffer_size(4 * 1024 * 1024);
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(&Cache::new_lru_cache(4 * 1024 * 1024));
    options.set_block_based_table_factory(&blocks);
    options.set_keep_log_file_num(4);
    // Ciphertext does not shrink.
    options.set_compression_type(rocksdb::DBCompressionType::None);
    options
}

fn synced() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    options
}

impl ShareStore {
    /// Opens the store in the folder `path`, or makes it. `epoch_file` lies outside that folder and outside backups.
    ///
    /// Errors: [`Error::Locked`], [`Error::Foreign`], [`Error::WrongNodeKey`], [`Error::EpochFileMissing`],
    /// [`Error::Quarantine`] for what is damaged. A rotation that a crash interrupted is finished first.
    pub fn open(
        path: &Path,
        epoch_file: &Path,
        node_key: NodeKey,
        cluster: [u8; 32],
        node: u64,
        rng: impl RngCore + CryptoRng + Send + 'static,
    ) -> Result<ShareStore, Error> {
        Self::open_with(
            &options(),
            path,
            epoch_file,
            node_key,
            Owner { cluster, node },
            Box::new(rng),
        )
    }

    fn open_with(
        options: &Options,
        path: &Path,
        epoch_file: &Path,
        node_key: NodeKey,
        owner: Owner,
        mut rng: Box<dyn RngCore + Send>,
    ) -> Result<ShareStore, Error> {
        if epoch_file.starts_with(path) {
            return Err(Error::Bound("epoch file's place"));
        }
        make_folder(path)?;
        let db = DB::open(options, path).map_err(|error| {
            let locked = error.kind() == ErrorKind::IOError && error.as_ref().contains("lock");
            if locked {
                Error::Locked(error)
            } else {
                database(error)
            }
        })?;
        let fresh = match db.get(IDENTITY).map_err(database)? {
            Some(bytes) => {
                check_identity(&IdentityRecord::decode(&bytes)?, &owner)?;
                false
            }
            None if db.iterator(IteratorMode::Start).next().is_none() => true,
            None => return Err(damaged("the first record is gone")),
        };
        let file = EpochFile::new(epoch_file, owner, node_key);
        let mut keys = match file.read()? {
            Some(keys) => keys,
            None if !fresh => return Err(Error::EpochFileMissing(epoch_file.to_owned())),
            None => {
                let key = new_key(1, rng.as_mut());
                file.write(&[&key], nonce(rng.as_mut()))?;
                vec![key]
            }
        };
        if fresh {
            let record = IdentityRecord {
                format: FORMAT,
                cluster: owner.cluster,
                node: owner.node,
            };
            db.put_opt(IDENTITY, encode(&record)?, &synced())
                .map_err(database)?;
        }
        let current = keys.pop().ok_or_else(|| damaged("the epoch file is empty"))?;
        let previous = keys.pop();
        let interrupted = previous.is_some();
        let epochs = Epochs {
            current: Epoch::new(current)?,
            previous: previous.map(Epoch::new).transpose()?,
        };
        let store = ShareStore {
            database: db,
            owner,
            file,
            epochs: RwLock::new(epochs),
            rng: Mutex::new(rng),
            arriving: Mutex::default(),
            changes: Mutex::default(),
            rotating: Mutex::default(),
            open_envelopes: AtomicU64::new(0),
        };
        let mut envelopes = 0;
        for entry in store.range(vec![ENVELOPE], above(&[ENVELOPE])) {
            entry?;
            envelopes += 1;
        }
        store.open_envelopes.store(envelopes, Ordering::Relaxed);
        if interrupted {
            store.finish_rotation()?;
        }
        Ok(store)
    }

    /// Stores a share, and with it the envelopes that this node keeps for others (one a member). On disk when this
    /// returns; a write that fails ends the process. [`Error::Exists`] if there is one under this (keystore, key, session): it stays as it is.
    pub fn put(
        &self,
        id: &ShareId,
        secret: &[u8],
        envelopes: &[KeptEnvelope],
        started_ms: u64,
    ) -> Result<(), Error> {
        check_bounds(id, secret, envelopes)?;
        let place = ShareId {
            key_type: String::new(),
            epoch: 0,
            ..id.clone()
        };
        let _arrival = Arrival::begin(&self.arriving, place)?;
        if self
            .database
            .get_pinned(share_key(id))
            .map_err(database)?
            .is_some()
        {
            return Err(Error::Exists);
        }
        let fresh = {
            let mut rng = self.rng.lock();
            let mut wrapping_key = RawKey::default();
            rng.fill_bytes(wrapping_key.as_mut_slice());
            Fresh {
                wrapping_key,
                wrapping_nonce: nonce(rng.as_mut()),
                share_nonce: nonce(rng.as_mut()),
            }
        };
        let session = Session {
            id: id.clone(),
            started_ms,
        };
        let members = envelopes.iter().map(|envelope| envelope.member).collect();
        let mut batch = WriteBatch::default();
        // Held over the write: a rotation waits for it and then sees the record.
        let epochs = self.epochs.read();
        let epoch = (epochs.current.raw.generation, &epochs.current.key);
        let record = ShareRecord::seal(&self.owner, &session, members, secret, epoch, &fresh)?;
        batch.put(share_key(id), encode(&record)?);
        batch.put(unsettled_key(started_ms, id), []);
        for envelope in envelopes {
            let record = EnvelopeRecord {
                key_type: id.key_type.clone(),
                epoch: id.epoch,
                bytes: envelope.bytes.clone(),
            };
            batch.put(envelope_key(envelope.member, id), encode(&record)?);
        }
        // RocksDB joins the writes of all who wait here into one append and one sync.
        written(self.database.write_opt(batch, &synced()))?;
        self.open_envelopes
            .fetch_add(envelopes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// The share; `None` if there is none. [`Error::Other`] if there is one of another type or epoch;
    /// [`Error::Quarantine`] if it is not what was put.
    pub fn get(&self, id: &ShareId) -> Result<Option<SecretBytes>, Error> {
        let Some((record, secret)) = self.read(id)? else {
            return Ok(None);
        };
        if record.key_type != id.key_type || record.epoch != id.epoch {
            return Err(Error::Other {
                key_type: record.key_type,
                epoch: record.epoch,
            });
        }
        Ok(Some(secret))
    }

    /// Whatever is at this place, opened: a header is not believed before its share opens.
    pub(crate) fn read(&self, place: &ShareId) -> Result<Option<(ShareRecord, SecretBytes)>, Error> {
        // Locked before the record is read: its generation is then among the keys.
        let epochs = self.epochs.read();
        let Some(bytes) = self.database.get_pinned(share_key(place)).map_err(database)? else {
            return Ok(None);
        };
        let record: ShareRecord = decode(&bytes)?;
        let secret = record.open(&self.owner, place, epochs.of(record.generation)?)?;
        Ok(Some((record, secret)))
    }

    /// The shares of one key, by session. Which one is live, the replicated state says.
    pub fn sessions(&self, keystore: &[u8; 16], key: &[u8; 16]) -> Result<Vec<Session>, Error> {
        let prefix = shares_of(keystore, key);
        let end = above(&prefix);
        let mut sessions = Vec::new();
        for entry in self.range(prefix, end).take(PAGE_LIMIT) {
            let place = id_of(&entry?.0)?;
            if let Some((record, _)) = self.read(&place)? {
                sessions.push(record.session(&place));
            }
        }
        Ok(sessions)
    }

    /// Shares of ceremonies that started before this time and that nobody has settled, oldest first, `limit` at most, those
    /// that follow `after`: those that the replicated state calls live are to be [settled](Self::settle), the orphans
    /// [removed](Self::remove_session). The time is the group's applied time, never the local clock.
    pub fn unsettled(
        &self,
        started_before_ms: u64,
        after: Option<&Session>,
        limit: usize,
    ) -> Result<Vec<Session>, Error> {
        let mut end = vec![UNSETTLED];
        end.extend_from_slice(&started_before_ms.to_be_bytes());
        let begin = match after {
            Some(after) => [&unsettled_key(after.started_ms, &after.id)[..], &[0]].concat(),
            None => vec![UNSETTLED],
        };
        let mut sessions = Vec::new();
        for entry in self.range(begin, end).take(limit.min(PAGE_LIMIT)) {
            let place = id_of(&entry?.0)?;
            if let Some((record, _)) = self.read(&place)? {
                sessions.push(record.session(&place));
            }
        }
        Ok(sessions)
    }

    /// Takes a share off the list of unsettled ones: its session is live. A crash may bring it back there once.
    pub fn settle(&self, session: &Session) -> Result<(), Error> {
        written(
            self.database
                .delete(unsettled_key(session.started_ms, &session.id)),
        )
    }

    /// Removes a share and its envelopes; `false` if there was none. Durable when this returns. The old bytes stay in
    /// RocksDB's files, sealed, until [`ShareStore::rotate`] makes them unreadable.
    pub fn remove_session(&self, id: &ShareId) -> Result<bool, Error> {
        let _changes = self.changes.lock();
        let Some((record, _)) = self.read(id)? else {
            return Ok(false);
        };
        if record.key_type != id.key_type || record.epoch != id.epoch {
            return Err(Error::Other {
                key_type: record.key_type,
                epoch: record.epoch,
            });
        }
        let mut batch = WriteBatch::default();
        batch.delete(share_key(id));
        batch.delete(unsettled_key(record.started_ms, id));
        let mut envelopes = 0;
        for member in record.members {
            let key = envelope_key(member, id);
            if self.database.get_pinned(&key).map_err(database)?.is_some() {
                batch.delete(key);
                envelopes += 1;
            }
        }
        written(self.database.write_opt(batch, &synced()))?;
        self.open_envelopes.fetch_sub(envelopes, Ordering::Relaxed);
        Ok(true)
    }

    /// Where the epoch keys are.
    pub fn epoch_file(&self) -> &Path {
        self.file.path()
    }

    pub(crate) fn range(
        &self,
        begin: Vec<u8>,
        end: Vec<u8>,
    ) -> impl Iterator<Item = Result<Entry, Error>> + '_ {
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(end);
        let mode = IteratorMode::From(&begin, rocksdb::Direction::Forward);
        self.database
            .iterator_opt(mode, options)
            .map(|entry| entry.map_err(database))
    }
}

/// The folder is for this process's user alone; what is in it is sealed all the same.
fn make_folder(path: &Path) -> Result<(), Error> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| Error::Folder {
        path: path.to_owned(),
        source,
    })
}

/// One put under way.
struct Arrival<'a> {
    arriving: &'a Mutex<HashSet<ShareId>>,
    place: ShareId,
}

impl<'a> Arrival<'a> {
    fn begin(arriving: &'a Mutex<HashSet<ShareId>>, place: ShareId) -> Result<Self, Error> {
        if arriving.lock().insert(place.clone()) {
            Ok(Self { arriving, place })
        } else {
            Err(Error::Exists)
        }
    }
}

impl Drop for Arrival<'_> {
    fn drop(&mut self) {
        self.arriving.lock().remove(&self.place);
    }
}

pub(crate) fn nonce(rng: &mut (dyn RngCore + Send)) -> [u8; NONCE] {
    let mut nonce = [0; NONCE];
    rng.fill_bytes(&mut nonce);
    nonce
}

fn check_identity(found: &IdentityRecord, owner: &Owner) -> Result<(), Error> {
    let other = Owner {
        cluster: found.cluster,
        node: found.node,
    };
    if other == *owner {
        return Ok(());
    }
    Err(Error::Foreign {
        found: other.to_string(),
        expected: owner.to_string(),
    })
}

fn check_bounds(id: &ShareId, secret: &[u8], envelopes: &[KeptEnvelope]) -> Result<(), Error> {
    if id.key_type.is_empty() || id.key_type.len() > 255 {
        return Err(Error::Bound("key type"));
    }
    if secret.is_empty() || secret.len() > SECRET_LIMIT {
        return Err(Error::Bound("share"));
    }
    if envelopes.len() > ENVELOPES_LIMIT || envelopes.iter().any(|e| e.bytes.len() > ENVELOPE_LIMIT) {
        return Err(Error::Bound("envelopes"));
    }
    let members: HashSet<_> = envelopes.iter().map(|envelope| envelope.member).collect();
    if members.len() != envelopes.len() {
        return Err(Error::Bound("envelopes of one member"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rand::rngs::OsRng;
    use rocksdb::statistics::Ticker;

    use super::*;

    #[test]
    fn concurrent_puts_share_syncs() {
        let folder = tempfile::tempdir().unwrap();
        let mut options = options();
        options.enable_statistics();
        let owner = Owner {
            cluster: [1; 32],
            node: 1,
        };
        let (path, file) = (folder.path().join("shares"), folder.path().join("epoch-keys"));
        let key = NodeKey::new(Box::new([1; 32]));
        let store = ShareStore::open_with(&options, &path, &file, key, owner, Box::new(OsRng)).unwrap();
        let before = options.get_ticker_count(Ticker::WalFileSynced);
        let (threads, each) = (32_u8, 20_u8);
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let store = &store;
                scope.spawn(move || {
                    for number in 0..each {
                        let id = ShareId {
                            keystore: [thread; 16],
                            key: [number; 16],
                            session: [1; 32],
                            key_type: "t".into(),
                            epoch: 1,
                        };
                        store.put(&id, &[number; 32], &[], 0).unwrap();
                    }
                });
            }
        });
        let syncs = options.get_ticker_count(Ticker::WalFileSynced) - before;
        let puts = u64::from(threads) * u64::from(each);
        assert!(0 < syncs && syncs < puts / 2, "{syncs} syncs for {puts} puts");
    }
}
