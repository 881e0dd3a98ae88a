//! The handle that the rest of the node has on its audit folder. Open it once, before the node serves: opening
//! blocks, reads back the replay window and hands every record to the visitor.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::error::{AppendError, OpenError};
use super::record::{Entry, Record, Signature};
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

/// What handles and writer share.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) queued_bytes: AtomicUsize,
    pub(super) records: AtomicU64,
    pub(super) writes: AtomicU64,
    pub(super) syncs: AtomicU64,
    pub(super) busy: AtomicU64,
    pub(super) recorded_ms: AtomicU64,
    pub(super) failed: AtomicBool,
    pub(super) head: Mutex<Option<SignedHead>>,
}

/// The chain as this process found it.
struct Opened {
    sequence: u64,
    hash: [u8; 32],
    /// Number and hash of the records that its last heads cover.
    covered: BTreeMap<u64, [u8; 32]>,
}

struct Inner {
    sender: Option<SyncSender<Item>>,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
    opened: Opened,
    folder: PathBuf,
    queue_bytes: usize,
    low_disk_percent: u8,
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
        };
        let shared = Arc::new(Shared::default());
        shared.recorded_ms.store(position.time_ms, Ordering::Release);
        let (sender, receiver) = sync_channel(settings.queue);
        let (queue_bytes, low_disk_percent) = (settings.queue_bytes, settings.low_disk_percent);
        let writer = Writer::new(
            settings,
            folder.to_owned(),
            lock,
            signer,
            sync,
            Arc::clone(&shared),
            position,
        );
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
            queue_bytes,
            low_disk_percent,
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

    fn queue(&self, entry: Entry, waiter: Option<Waiter>) -> Result<(), AppendError> {
        entry.check()?;
        let shared = &self.inner.shared;
        if shared.failed.load(Ordering::Acquire) {
            return Err(AppendError::Failed);
        }
        let weight = entry.weight();
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
            entry: Box::new(entry),
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
        if free_percent <= self.inner.low_disk_percent {
            return Health::DiskLow { free_percent };
        }
        Health::Ok
    }

    /// The time of the last durable record, milliseconds since 1970: what a holder's clock never falls below.
    pub fn recorded_ms(&self) -> u64 {
        self.inner.shared.recorded_ms.load(Ordering::Acquire)
    }

    /// The last head that this process signed and put on disk.
    pub fn head(&self) -> Option<SignedHead> {
        *self.inner.shared.head.lock()
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
