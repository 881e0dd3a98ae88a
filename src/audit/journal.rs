//! The handle that the rest of the node has on its audit folder. Open it once, before the node serves: opening
//! blocks, reads back the replay window and hands every record to the visitor.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::error::{AppendError, OpenError};
use super::record::{Content, Entry, PeerHead, Record, Signature};
use super::recovery;
use super::settings::Settings;
use super::space;
use super::writer::{Item, Signer, Sync, Waiter, Writer};

/// A head that is on disk: the node's word for its chain up to `sequence`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedHead {
    /// Number of the last record that it covers.
    pub sequence: u64,
    /// That record's hash.
    pub hash: [u8; 32],
    /// That record's time, milliseconds since 1970.
    pub time_ms: u64,
    /// Ed25519 over [`super::head_message`].
    pub signature: Signature,
}

/// What the writer has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Records written, heads included.
    pub records: u64,
    /// Writes; each takes all that waited.
    pub writes: u64,
    /// Calls of `fdatasync`.
    pub syncs: u64,
    /// Entries refused because the queue was full.
    pub busy: u64,
    /// Sealed segments that were compressed.
    pub compressed: u64,
}

/// What a head of a peer's chain is beside the last one on record here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sighting {
    /// The same.
    Known,
    /// A later one; it is queued to be written.
    New,
    /// One that cannot be of the same chain: its number is lower, or its hash another. It is queued to be written: both
    /// together are the proof.
    Contradiction,
}

/// Whether uses may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Records are written.
    Ok,
    /// Little disk is left: uses are refused, reads and endorsements go on.
    DiskLow {
        /// What is free, in percent.
        free_percent: u8,
    },
    /// A write failed: nothing is recorded until the process starts anew.
    Failed,
}

/// About how many bytes a peer's head holds; what the queue's byte bound counts.
const WITNESSED_WEIGHT: usize = 256;

/// What handles and writer share.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) queued_bytes: AtomicUsize,
    pub(super) records: AtomicU64,
    pub(super) writes: AtomicU64,
    pub(super) syncs: AtomicU64,
    pub(super) busy: AtomicU64,
    pub(super) compressed: AtomicU64,
    pub(super) recorded_ms: AtomicU64,
    pub(super) failed: AtomicBool,
    pub(super) low_disk_percent: AtomicU8,
    pub(super) head: Mutex<Option<SignedHead>>,
    /// By node, number and hash of the last head of a peer's chain.
    pub(super) witnessed: Mutex<BTreeMap<u64, (u64, [u8; 32])>>,
}

/// The chain as this process found it.
struct Opened {
    sequence: u64,
    hash: [u8; 32],
    /// Number and hash of the records that its last heads cover.
    covered: BTreeMap<u64, [u8; 32]>,
    /// The last of these heads.
    head: Option<SignedHead>,
}

struct Inner {
    sender: Option<SyncSender<Item>>,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
    opened: Opened,
    folder: PathBuf,
    node: u64,
    queue_bytes: usize,
}

impl Drop for Inner {
    /// Waits until what is queued is on disk and the last head is signed.
    fn drop(&mut self) {
        drop(self.sender.take());
        if let Some(thread) = self.thread.take() {
            // A writer that panicked has told so; every waiter got `Failed`.
            let _ = thread.join();
        }
    }
}

/// A handle on the audit folder; clones are cheap. When the last one goes, the writer finishes and ends.
#[derive(Clone)]
pub struct Audit {
    inner: Arc<Inner>,
}

impl Audit {
    /// Opens the folder, making it if it is not there, and starts the writer. Blocks while it reads back the
    /// replay window; `visitor` sees each of those records once, oldest first. `signer` is the node's Ed25519 key.
    pub fn open(
        folder: &Path,
        settings: Settings,
        signer: impl Fn(&[u8]) -> [u8; 64] + Send + 'static,
        visitor: impl FnMut(&Record),
    ) -> Result<Audit, OpenError> {
        Audit::open_with(
            folder,
            settings,
            Box::new(signer),
            Box::new(File::sync_data),
            visitor,
        )
    }

    /// [`Audit::open`] with another way to make data durable.
    pub(super) fn open_with(
        folder: &Path,
        settings: Settings,
        signer: Signer,
        sync: Sync,
        mut visitor: impl FnMut(&Record),
    ) -> Result<Audit, OpenError> {
        settings.check()?;
        make_folder(folder)?;
        let lock = lock(folder)?;
        let mut position = recovery::recover(folder, &settings, &mut visitor)?;
        let opened = Opened {
            sequence: position.sequence,
            hash: position.previous,
            covered: std::mem::take(&mut position.covered),
            head: position.head.take(),
        };
        let shared = Arc::new(Shared::default());
        shared.recorded_ms.store(position.time_ms, Ordering::Release);
        *shared.witnessed.lock() = std::mem::take(&mut position.witnessed);
        let (sender, receiver) = sync_channel(settings.queue);
        shared
            .low_disk_percent
            .store(settings.low_disk_percent, Ordering::Relaxed);
        let (node, queue_bytes) = (settings.node, settings.queue_bytes);
        let writer = Writer::new(
            settings,
            folder.to_owned(),
            lock,
            signer,
            sync,
            Arc::clone(&shared),
            position,
        )
        .map_err(OpenError::disk(folder))?;
        let thread = std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || writer.run(&receiver))
            .map_err(OpenError::disk(folder))?;
        let folder = folder.to_owned();
        let inner = Inner {
            sender: Some(sender),
            thread: Some(thread),
            shared,
            opened,
            folder,
            node,
            queue_bytes,
        };
        Ok(Audit {
            inner: Arc::new(inner),
        })
    }

    /// Queues the entry at once, in the order of the calls; the future resolves to its number when it is on disk
    /// for good. Dropping the future does not take the entry back.
    pub fn append(&self, entry: Entry) -> impl Future<Output = Result<u64, AppendError>> + Send + use<> {
        let (waiter, answer) = oneshot::channel();
        let queued = self.queue(entry, Some(waiter));
        async move {
            queued?;
            answer.await.unwrap_or(Err(AppendError::Failed))
        }
    }

    /// Queues the entry without waiting for the disk: for claims, which only have to be found after a restart.
    pub fn append_unsynced(&self, entry: Entry) -> Result<(), AppendError> {
        self.queue(entry, None)
    }

    /// Puts a head that a peer has signed, as the caller has verified, on record, if it is another than the last one of
    /// that peer: unsynced, at `time_ms` by the holder's clock.
    ///
    /// # Errors
    /// It is not on record.
    pub fn witness(&self, head: PeerHead, time_ms: u64) -> Result<Sighting, AppendError> {
        let mut witnessed = self.inner.shared.witnessed.lock();
        let seen = (head.sequence, head.hash);
        let sighting = match witnessed.get(&head.node) {
            Some(known) if *known == seen => return Ok(Sighting::Known),
            Some((sequence, _)) if head.sequence <= *sequence => Sighting::Contradiction,
            _ => Sighting::New,
        };
        self.send(Content::Witnessed(head), time_ms, WITNESSED_WEIGHT, None)?;
        witnessed.insert(head.node, seen);
        Ok(sighting)
    }

    fn queue(&self, entry: Entry, waiter: Option<Waiter>) -> Result<(), AppendError> {
        entry.check()?;
        let (time_ms, weight) = (entry.time_ms, entry.weight());
        self.send(Content::Operation(Box::new(entry)), time_ms, weight, waiter)
    }

    fn send(
        &self,
        content: Content,
        time_ms: u64,
        weight: usize,
        waiter: Option<Waiter>,
    ) -> Result<(), AppendError> {
        let shared = &self.inner.shared;
        if shared.failed.load(Ordering::Acquire) {
            return Err(AppendError::Failed);
        }
        let busy = || {
            shared.queued_bytes.fetch_sub(weight, Ordering::Relaxed);
            shared.busy.fetch_add(1, Ordering::Relaxed);
            AppendError::Busy
        };
        if shared.queued_bytes.fetch_add(weight, Ordering::Relaxed) + weight > self.inner.queue_bytes {
            return Err(busy());
        }
        let Some(sender) = &self.inner.sender else {
            return Err(AppendError::Failed);
        };
        match sender.try_send(Item {
            content,
            time_ms,
            weight,
            waiter,
        }) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_)) => Err(busy()),
            Err(TrySendError::Disconnected(_)) => Err(AppendError::Failed),
        }
    }

    /// Whether uses may go on; asks the file system.
    pub fn health(&self) -> Health {
        if self.inner.shared.failed.load(Ordering::Acquire) {
            return Health::Failed;
        }
        let free_percent = space::free_percent(&self.inner.folder).unwrap_or(0);
        if free_percent <= self.inner.shared.low_disk_percent.load(Ordering::Relaxed) {
            return Health::DiskLow { free_percent };
        }
        Health::Ok
    }

    /// From now on little disk is left when this many percent are free: a disk that fills up.
    #[cfg(test)]
    pub(crate) fn refuse_uses_at(&self, free_percent: u8) {
        self.inner
            .shared
            .low_disk_percent
            .store(free_percent, Ordering::Relaxed);
    }

    /// The time of the last durable record, milliseconds since 1970: what a holder's clock never falls below.
    pub fn recorded_ms(&self) -> u64 {
        self.inner.shared.recorded_ms.load(Ordering::Acquire)
    }

    /// The last head that this process signed and put on disk.
    pub fn head(&self) -> Option<SignedHead> {
        *self.inner.shared.head.lock()
    }

    /// What peers are to put on record of this chain: the last head that was signed and is on disk, in this life of the node
    /// or before it.
    pub fn signed_head(&self) -> Option<PeerHead> {
        let head = self.head().or(self.inner.opened.head)?;
        Some(PeerHead {
            node: self.inner.node,
            sequence: head.sequence,
            hash: head.hash,
            signature: head.signature,
        })
    }

    /// Number and hash of a record that is on disk for good, with all before it: what the last head covers, or where the
    /// chain ended when it was opened. 0 before the first record.
    pub fn attestable(&self) -> (u64, [u8; 32]) {
        let opened = &self.inner.opened;
        self.head()
            .map_or((opened.sequence, opened.hash), |head| (head.sequence, head.hash))
    }

    /// What the chain lacked when it was opened of one that had this record, if anything; for the operator. Of a record
    /// that it has, the hash is compared if it is one of the last that a head covers.
    pub fn lacks(&self, sequence: u64, hash: &[u8; 32]) -> Option<String> {
        let opened = &self.inner.opened;
        if sequence > opened.sequence {
            let end = opened.sequence;
            return Some(format!("the audit chain had record {sequence} and ends at {end}"));
        }
        let here = match sequence == opened.sequence {
            true => Some(&opened.hash),
            false => opened.covered.get(&sequence),
        };
        here.filter(|here| *here != hash)
            .map(|_| format!("the audit chain has another record {sequence}"))
    }

    /// What the writer has done since it was opened.
    pub fn counters(&self) -> Counters {
        let shared = &self.inner.shared;
        Counters {
            records: shared.records.load(Ordering::Relaxed),
            writes: shared.writes.load(Ordering::Relaxed),
            syncs: shared.syncs.load(Ordering::Relaxed),
            busy: shared.busy.load(Ordering::Relaxed),
            compressed: shared.compressed.load(Ordering::Relaxed),
        }
    }
}

fn make_folder(folder: &Path) -> Result<(), OpenError> {
    if folder.is_dir() {
        return Ok(());
    }
    DirBuilder::new()
        .mode(0o700)
        .create(folder)
        .map_err(OpenError::disk(folder))?;
    let parent = match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(parent)
        .and_then(|parent| parent.sync_all())
        .map_err(OpenError::disk(parent))
}

fn lock(folder: &Path) -> Result<File, OpenError> {
    let path = folder.join("lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(OpenError::disk(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(folder.to_owned())),
        Err(TryLockError::Error(error)) => Err(OpenError::Disk { path, source: error }),
    }
}
