//! The one thread that writes. It takes all that waits, writes it in one piece, makes one `fdatasync` if anyone
//! waits for it, and answers everyone. After a failed write or fsync it acknowledges nothing any more: what the
//! kernel then holds and what the disk holds may differ, and asking again does not tell.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::chain;
use super::compression::{AllSealed, Compressor};
use super::error::AppendError;
use super::frame;
use super::journal::{Shared, SignedHead};
use super::record::{Capability, Content, Signature};
use super::recovery::Position;
use super::retention::{self, Sealed};
use super::segment::{self, Header};
use super::settings::Settings;
use super::space;

/// Records between two heads at most.
const HEAD_EVERY: u64 = 1000;
/// Time between a record and the head that covers it at most.
const HEAD_AFTER: Duration = Duration::from_secs(1);
/// Most entries that one write takes.
const MAX_BATCH: usize = 4096;
/// How long a measurement of the free disk space is believed.
const SPACE_AGE: Duration = Duration::from_secs(1);

/// Whoever waits for a record.
pub(super) type Waiter = oneshot::Sender<Result<u64, AppendError>>;
/// Signs heads with the node's key.
pub(super) type Signer = Box<dyn Fn(&[u8]) -> [u8; 64] + Send>;
/// Makes a file's data durable; a double of it fails or waits.
pub(super) type Sync = Box<dyn FnMut(&File) -> io::Result<()> + Send>;

/// One record on its way, with its weight.
pub(super) struct Item {
    pub(super) content: Content,
    /// When it happened; lifted to the last record's time.
    pub(super) time_ms: u64,
    pub(super) weight: usize,
    pub(super) waiter: Option<Waiter>,
}

pub(super) struct Writer {
    settings: Settings,
    folder: PathBuf,
    compressor: Compressor,
    /// Held for as long as the writer lives, and the compressor before it.
    _lock: File,
    signer: Signer,
    sync: Sync,
    shared: Arc<Shared>,
    path: PathBuf,
    file: File,
    offset: u64,
    first_time: Option<u64>,
    sequence: u64,
    synced: u64,
    previous: [u8; 32],
    time_ms: u64,
    since_head: u64,
    head_due: Option<Instant>,
    known: HashSet<[u8; 32]>,
    sealed: AllSealed,
    /// Encoded, not yet written.
    buffer: Vec<u8>,
    /// The last head that was made, and whether it has reached the disk.
    head: Option<SignedHead>,
    failed: bool,
    /// What was free in percent, and when that was measured.
    free: Option<(Instant, u8)>,
}

/// Why one entry could not be placed.
enum Refused {
    Entry(AppendError),
    Disk(io::Error),
}

impl Writer {
    pub(super) fn new(
        settings: Settings,
        folder: PathBuf,
        lock: File,
        signer: Signer,
        sync: Sync,
        shared: Arc<Shared>,
        position: Position,
    ) -> io::Result<Writer> {
        let Position {
            path,
            file,
            offset,
            first_time,
            sequence,
            previous,
            time_ms,
            covered: _,
            head: _,
            witnessed: _,
            since_head,
            known,
            sealed,
        } = position;
        let sealed = Arc::new(Mutex::new(sealed));
        Ok(Writer {
            settings,
            folder,
            compressor: Compressor::start(Arc::clone(&sealed), Arc::clone(&shared))?,
            _lock: lock,
            signer,
            sync,
            shared,
            path,
            file,
            offset,
            first_time,
            sequence,
            synced: sequence,
            previous,
            time_ms,
            since_head,
            head_due: (since_head > 0).then(|| Instant::now() + HEAD_AFTER),
            known,
            sealed,
            buffer: Vec::new(),
            head: None,
            failed: false,
            free: None,
        })
    }

    /// Runs until every handle is gone.
    pub(super) fn run(mut self, receiver: &Receiver<Item>) {
        self.remove_expired();
        if self.settings.compress {
            self.compressor.wake();
        }
        loop {
            let first = match self.head_due {
                None => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(due) => receiver.recv_timeout(due.saturating_duration_since(Instant::now())),
            };
            match first {
                Ok(item) => {
                    let mut batch = vec![item];
                    while batch.len() < MAX_BATCH
                        && let Ok(item) = receiver.try_recv()
                    {
                        batch.push(item);
                    }
                    self.write(batch);
                }
                Err(RecvTimeoutError::Timeout) => self.write(Vec::new()),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.head_due = (self.since_head > 0).then(Instant::now);
        self.write(Vec::new());
    }

    /// One write and at most one fsync for the whole batch; with an empty batch, for a head that is due.
    fn write(&mut self, batch: Vec<Item>) {
        let weight: usize = batch.iter().map(|item| item.weight).sum();
        self.shared.queued_bytes.fetch_sub(weight, Ordering::Relaxed);
        let low = self.disk_is_low();
        let mut waiting: Vec<(Waiter, u64)> = Vec::new();
        let mut rest = batch.into_iter();
        let mut outcome = Ok(());
        for item in rest.by_ref() {
            let Item {
                content,
                time_ms,
                waiter,
                ..
            } = item;
            let placed = if self.failed {
                Err(Refused::Entry(AppendError::Failed))
            } else if low && content.waits_for_space() {
                Err(Refused::Entry(AppendError::DiskFull))
            } else {
                self.place(content, time_ms)
            };
            let answer = match placed {
                Ok(sequence) => {
                    if let Some(waiter) = waiter {
                        waiting.push((waiter, sequence));
                    }
                    continue;
                }
                Err(Refused::Entry(error)) => error,
                Err(Refused::Disk(error)) => {
                    outcome = Err(error);
                    AppendError::Failed
                }
            };
            // Whoever stopped waiting needs no answer.
            let _ = waiter.map(|waiter| waiter.send(Err(answer)));
            if outcome.is_err() {
                break;
            }
        }
        let outcome = outcome.and_then(|()| self.finish(!waiting.is_empty()));
        if let Err(error) = &outcome {
            self.fail(error);
        }
        for (waiter, sequence) in waiting {
            let _ = waiter.send(if outcome.is_ok() {
                Ok(sequence)
            } else {
                Err(AppendError::Failed)
            });
        }
        for item in rest {
            let _ = item.waiter.map(|waiter| waiter.send(Err(AppendError::Failed)));
        }
    }

    /// Makes a head if one is due, writes what is buffered and, if anyone waits or a head was made, syncs.
    fn finish(&mut self, mut durable: bool) -> io::Result<()> {
        if self.failed {
            return Ok(());
        }
        if self.head_due.is_some_and(|due| due <= Instant::now()) {
            self.make_head()?;
        }
        durable |= self.head.is_some();
        self.flush()?;
        if durable { self.make_durable() } else { Ok(()) }
    }

    /// Encodes the content as the next record, in a new segment if this one is full or old enough.
    fn place(&mut self, content: Content, time_ms: u64) -> Result<u64, Refused> {
        let time_ms = time_ms.max(self.time_ms);
        let old = self
            .first_time
            .is_some_and(|first| time_ms.saturating_sub(first) >= self.settings.segment_age_ms);
        let (mut frame, mut hash) = self.encode(time_ms, &content)?;
        let end = self.offset + (self.buffer.len() + frame.len()) as u64;
        let full = end > self.settings.segment_bytes && self.first_time.is_some();
        if old || full {
            match self.roll() {
                // Old but with room: better to go on here than to record nothing.
                Err(Refused::Entry(AppendError::DiskFull)) if !full => {}
                rolled => rolled?,
            }
            (frame, hash) = self.encode(time_ms, &content)?;
        }
        self.buffer.extend_from_slice(&frame);
        self.first_time.get_or_insert(time_ms);
        self.sequence += 1;
        self.previous = hash;
        self.time_ms = time_ms;
        self.shared.records.fetch_add(1, Ordering::Relaxed);
        if let Content::Operation(entry) = &content {
            for capability in entry.evidence.iter().flat_map(|evidence| &evidence.capabilities) {
                self.known.insert(capability.hash());
            }
            self.since_head += 1;
            self.head_due.get_or_insert_with(|| Instant::now() + HEAD_AFTER);
            let placed = self.sequence;
            if self.since_head >= HEAD_EVERY {
                self.make_head().map_err(Refused::Disk)?;
            }
            return Ok(placed);
        }
        Ok(self.sequence)
    }

    /// The frame of the next record; capabilities that this segment already has become their hashes.
    fn encode(&self, time_ms: u64, content: &Content) -> Result<(Vec<u8>, [u8; 32]), Refused> {
        let mut content = content.clone();
        if let Content::Operation(entry) = &mut content {
            entry.time_ms = time_ms;
            let mut here = HashSet::new();
            for capability in entry
                .evidence
                .iter_mut()
                .flat_map(|evidence| &mut evidence.capabilities)
            {
                let hash = capability.hash();
                if self.known.contains(&hash) || !here.insert(hash) {
                    *capability = Capability::Known(hash);
                }
            }
        }
        let mut frame = Vec::with_capacity(1024);
        let hash = frame::encode(
            &mut frame,
            self.sequence + 1,
            self.synced,
            time_ms,
            self.previous,
            content,
        )
        .ok_or(Refused::Entry(AppendError::Unrecordable("record too long")))?;
        Ok((frame, hash))
    }

    /// Signs the chain up to the last record.
    fn make_head(&mut self) -> io::Result<()> {
        let (sequence, hash) = (self.sequence, self.previous);
        let message = chain::head_message(&self.settings.cluster, self.settings.node, sequence, &hash);
        let signature = Signature((self.signer)(&message));
        self.since_head = 0;
        self.head_due = None;
        match self.place(Content::Head(signature), self.time_ms) {
            Ok(_) => {
                self.head = Some(SignedHead {
                    sequence,
                    hash,
                    time_ms: self.time_ms,
                    signature,
                });
                Ok(())
            }
            // No room for a new segment: the next record asks for a head again.
            Err(Refused::Entry(_)) => Ok(()),
            Err(Refused::Disk(error)) => Err(error),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.file.write_all_at(&self.buffer, self.offset)?;
        self.offset += self.buffer.len() as u64;
        self.buffer.clear();
        self.shared.writes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn make_durable(&mut self) -> io::Result<()> {
        self.shared.syncs.fetch_add(1, Ordering::Relaxed);
        (self.sync)(&self.file)?;
        self.synced = self.sequence;
        self.shared.recorded_ms.store(self.time_ms, Ordering::Release);
        if let Some(head) = self.head.take() {
            *self.shared.head.lock() = Some(head);
        }
        Ok(())
    }

    /// Seals this segment and begins the next. The old one is durable before the new one has a name: only the
    /// last segment of a folder can ever have a torn tail.
    fn roll(&mut self) -> Result<(), Refused> {
        self.flush().map_err(Refused::Disk)?;
        self.make_durable().map_err(Refused::Disk)?;
        let header = Header {
            cluster: self.settings.cluster,
            node: self.settings.node,
            first: self.sequence + 1,
            created_ms: self.time_ms,
            previous: self.previous,
        };
        let (path, file) = match segment::create(&self.folder, &header, self.settings.segment_bytes) {
            Ok(made) => made,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
                ) =>
            {
                return Err(Refused::Entry(AppendError::DiskFull));
            }
            Err(error) => return Err(Refused::Disk(error)),
        };
        self.file.set_len(self.offset).map_err(Refused::Disk)?;
        self.sealed.lock().push(Sealed {
            path: std::mem::replace(&mut self.path, path),
            bytes: self.offset,
            last_ms: self.time_ms,
            compressed: false,
        });
        self.file = file;
        self.offset = segment::HEADER as u64;
        self.first_time = None;
        self.known.clear();
        self.remove_expired();
        if self.settings.compress {
            self.compressor.wake();
        }
        Ok(())
    }

    fn remove_expired(&mut self) {
        let mut sealed = self.sealed.lock();
        let count = retention::expired(&sealed, &self.settings, self.time_ms);
        for (at, segment) in sealed[..count].iter().enumerate() {
            if let Err(error) = fs::remove_file(&segment.path) {
                tracing::warn!(segment = %segment.path.display(), %error, "could not remove an old audit segment");
                // The chain must stay contiguous: the next ones wait for this one.
                sealed.drain(..at);
                return;
            }
        }
        sealed.drain(..count);
    }

    fn disk_is_low(&mut self) -> bool {
        let known = self.free.filter(|(measured, _)| measured.elapsed() < SPACE_AGE);
        let (measured, free) = known.unwrap_or_else(|| {
            // A folder that cannot be asked is treated as full: nothing is promised on it.
            let free = space::free_percent(&self.folder).unwrap_or(0);
            (Instant::now(), free)
        });
        self.free = Some((measured, free));
        free <= self.shared.low_disk_percent.load(Ordering::Relaxed)
    }

    fn fail(&mut self, error: &io::Error) {
        tracing::error!(segment = %self.path.display(), %error, "the audit file cannot be written");
        self.failed = true;
        self.head_due = None;
        self.since_head = 0;
        self.shared.failed.store(true, Ordering::Release);
    }
}
