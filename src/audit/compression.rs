//! Compresses sealed segments beside the writer, oldest first. A compressed copy is written whole, read back and compared,
//! synced, and then takes the segment's name: a crash at any moment leaves the one or the other under that name.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use flate2::Compression;
use flate2::write::GzEncoder;
use parking_lot::Mutex;

use super::contents::Contents;
use super::journal::Shared;
use super::retention::Sealed;
use super::segment;

/// Bytes that are compressed before somebody who wants to stop is heard.
const CHUNK: usize = 256 << 10;
/// Two thirds of the space go at once; higher levels take much longer for little more.
const LEVEL: u32 = 3;

/// Sealed segments, oldest first. Whoever removes or replaces one of their files holds the lock.
pub(super) type AllSealed = Arc<Mutex<Vec<Sealed>>>;

/// The thread that compresses. When this goes, the thread has ended: a copy that it was making is gone.
pub(super) struct Compressor {
    wake: Option<SyncSender<()>>,
    stops: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Compressor {
    pub(super) fn start(sealed: AllSealed, shared: Arc<Shared>) -> io::Result<Compressor> {
        let (wake, woken) = sync_channel(1);
        let stops = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stops);
        let thread = std::thread::Builder::new()
            .name("audit-gzip".into())
            .spawn(move || run(&sealed, &shared, &stopping, &woken))?;
        Ok(Compressor {
            wake: Some(wake),
            stops,
            thread: Some(thread),
        })
    }

    /// A segment was sealed, or more can be compressed for another reason.
    pub(super) fn wake(&self) {
        // A full channel: it is woken already.
        let _ = self.wake.as_ref().map(|wake| wake.try_send(()));
    }
}

impl Drop for Compressor {
    fn drop(&mut self) {
        self.stops.store(true, Ordering::Release);
        drop(self.wake.take());
        if let Some(thread) = self.thread.take() {
            // One that panicked compresses nothing more; the segments are as they were.
            let _ = thread.join();
        }
    }
}

fn run(sealed: &AllSealed, shared: &Shared, stops: &AtomicBool, woken: &Receiver<()>) {
    while woken.recv().is_ok() {
        let next = || {
            let sealed = sealed.lock();
            let next = sealed.iter().find(|segment| !segment.compressed);
            next.map(|segment| segment.path.clone())
        };
        while let Some(path) = next() {
            match replace(&path, sealed, stops) {
                Ok(()) => drop(shared.compressed.fetch_add(1, Ordering::Relaxed)),
                Err(_) if stops.load(Ordering::Acquire) => return,
                Err(error) => {
                    // Tried again when the next one is sealed.
                    tracing::warn!(segment = %path.display(), %error, "could not compress an audit segment");
                    break;
                }
            }
        }
    }
}

/// Puts the compressed form of a segment in its place, unless the segment was removed meanwhile.
fn replace(path: &Path, sealed: &AllSealed, stops: &AtomicBool) -> io::Result<()> {
    let copy = copy_of(path);
    let replaced = (|| {
        let bytes = compress(path, &copy, stops)?;
        {
            let mut sealed = sealed.lock();
            match sealed.iter_mut().find(|segment| segment.path == path) {
                Some(segment) => {
                    fs::rename(&copy, path)?;
                    (segment.bytes, segment.compressed) = (bytes, true);
                }
                None => fs::remove_file(&copy)?,
            }
        }
        path.parent()
            .map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    })();
    if replaced.is_err() {
        // The first error is the one to tell; what is left over is removed at the next opening at the latest.
        let _ = fs::remove_file(&copy);
    }
    replaced
}

/// Where the compressed form of a segment is made; opening a folder removes what is called so.
fn copy_of(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(segment::UNFINISHED_AFTER);
    path.with_file_name(name)
}

/// Writes the compressed form of a segment to `copy`, durable and compared with it; its length.
fn compress(path: &Path, copy: &Path, stops: &AtomicBool) -> io::Result<u64> {
    let go_on = || match stops.load(Ordering::Acquire) {
        true => Err(io::Error::from(io::ErrorKind::Interrupted)),
        false => Ok(()),
    };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(copy)?;
    let mut encoder = GzEncoder::new(file, Compression::new(LEVEL));
    let (mut chunk, mut other) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut plain = Contents::open(path)?;
    loop {
        go_on()?;
        let got = segment::read_up_to(&mut plain, &mut chunk)?;
        encoder.write_all(&chunk[..got])?;
        if got < CHUNK {
            break;
        }
    }
    let file = encoder.finish()?;
    file.sync_all()?;
    let (mut plain, mut compressed) = (Contents::open(path)?, Contents::open(copy)?);
    loop {
        go_on()?;
        let got = segment::read_up_to(&mut plain, &mut chunk)?;
        let read = segment::read_up_to(&mut compressed, &mut other)?;
        if chunk[..got] != other[..read] {
            return Err(io::Error::other("the compressed form is another"));
        }
        if got < CHUNK {
            // Nothing follows in the compressed form either.
            if compressed.read(&mut other)? != 0 {
                return Err(io::Error::other("the compressed form is longer"));
            }
            return Ok(file.metadata()?.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(path: &Path) -> AllSealed {
        Arc::new(Mutex::new(vec![Sealed {
            path: path.to_owned(),
            bytes: 1,
            last_ms: 1,
            compressed: false,
        }]))
    }

    fn contents(path: &Path) -> Vec<u8> {
        let mut bytes = Vec::new();
        Contents::open(path).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    }

    fn files(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn the_compressed_form_has_the_same_bytes_and_the_same_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1.audit");
        for length in [0, 1, 5_000, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
            let bytes: Vec<u8> = (0..length).map(|at| u8::try_from(at % 90).unwrap()).collect();
            fs::write(&path, &bytes).unwrap();
            let sealed = sealed(&path);
            replace(&path, &sealed, &AtomicBool::new(false)).unwrap();
            assert!(Contents::open(&path).unwrap().is_compressed());
            assert_eq!(contents(&path), bytes);
            assert_eq!(files(folder.path()), 1);
            let entry = &sealed.lock()[0];
            assert_eq!(
                (entry.bytes, entry.compressed),
                (fs::metadata(&path).unwrap().len(), true)
            );
            assert!(length < 5_000 || entry.bytes * 2 < length as u64);
        }
    }

    #[test]
    fn one_that_retention_removed_meanwhile_does_not_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1.audit");
        fs::write(&path, b"a segment").unwrap();
        let none = Arc::new(Mutex::new(Vec::new()));
        let kept = fs::read(&path).unwrap();
        replace(&path, &none, &AtomicBool::new(false)).unwrap();
        assert_eq!(
            fs::read(&path).unwrap(),
            kept,
            "whoever removed it from the list removes the file"
        );
        assert_eq!(files(folder.path()), 1);
    }

    #[test]
    fn one_that_is_stopped_leaves_the_segment_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1.audit");
        fs::write(&path, b"a segment").unwrap();
        assert!(replace(&path, &sealed(&path), &AtomicBool::new(true)).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"a segment");
        assert_eq!(files(folder.path()), 1);
    }

    #[test]
    fn what_is_behind_the_compressed_form_or_beyond_any_segment_is_damage() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1.audit");
        fs::write(&path, b"a segment").unwrap();
        replace(&path, &sealed(&path), &AtomicBool::new(false)).unwrap();
        let good = fs::read(&path).unwrap();
        let read_bounded = |bytes: &[u8], longest| {
            fs::write(&path, bytes).unwrap();
            let mut contents = Contents::open_with(&path, CHUNK, longest).unwrap();
            let error = io::copy(&mut contents, &mut io::sink()).unwrap_err();
            assert!(contents.is_damage(&error), "{error}");
        };
        let read = |bytes: &[u8]| read_bounded(bytes, 1_000);
        read(&[&good[..], &[0]].concat());
        read(&[&good[..], &good[..]].concat());
        read(&good[..good.len() - 1]);
        for at in 10..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            read(&bytes);
        }
        // A bomb holds more than it may.
        read_bounded(&good, 8);
    }
}
