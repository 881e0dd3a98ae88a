//! What needs a disk that fails or waits, or a hand on the frames.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use ed25519_dalek::{Signer, SigningKey};
use futures::FutureExt;
use futures::executor::block_on;
use futures::future::join_all;
use proptest::prelude::*;

use super::frame::{self, OVERHEAD};
use super::segment::HEADER;
use super::writer::Sync;
use super::*;

/// Longer than any fsync takes; whoever waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

fn settings() -> Settings {
    let mut settings = Settings::new([3; 32], 2);
    settings.segment_bytes = 1 << 20;
    settings.low_disk_percent = 0;
    settings
}

fn key() -> SigningKey {
    SigningKey::from_bytes(&[9; 32])
}

fn open(folder: &Path, settings: Settings, sync: Sync) -> (Audit, Vec<Record>) {
    let key = key();
    let mut seen = Vec::new();
    let signer = Box::new(move |message: &[u8]| key.sign(message).to_bytes());
    let audit = Audit::open_with(folder, settings, signer, sync, |record| seen.push(record.clone())).unwrap();
    (audit, seen)
}

fn entry(counter: u64) -> Entry {
    Entry::new(
        Kind::Contributed,
        1000 + counter,
        OperationId {
            node: 2,
            boot: 7,
            counter,
        },
    )
}

/// A sync that says when it begins and then waits to be let go.
fn gated() -> (Sync, Receiver<()>, Sender<()>) {
    let (begun, begins) = channel();
    let (go, gone) = channel::<()>();
    let sync = Box::new(move |file: &File| {
        let _ = begun.send(());
        // When the test is over nobody lets go any more.
        let _ = gone.recv();
        file.sync_data()
    });
    (sync, begins, go)
}

#[test]
fn all_that_wait_share_one_fsync() {
    let folder = tempfile::tempdir().unwrap();
    let (sync, begins, go) = gated();
    let (audit, _) = open(folder.path(), settings(), sync);
    let first = audit.append(entry(0));
    begins.recv_timeout(PATIENCE).unwrap();
    let rest: Vec<_> = (1..=100).map(|counter| audit.append(entry(counter))).collect();
    go.send(()).unwrap();
    assert_eq!(block_on(first), Ok(1));
    begins.recv_timeout(PATIENCE).unwrap();
    go.send(()).unwrap();
    assert!(block_on(join_all(rest)).into_iter().all(|answer| answer.is_ok()));
    // A third only if the test was so slow that the timed head came.
    assert!((2..=3).contains(&audit.counters().syncs));
    drop(go);
}

#[test]
fn nothing_is_acknowledged_before_its_fsync() {
    let folder = tempfile::tempdir().unwrap();
    let (sync, begins, go) = gated();
    let (audit, _) = open(folder.path(), settings(), sync);
    let mut waiting = Box::pin(audit.append(entry(0)));
    begins.recv_timeout(PATIENCE).unwrap();
    assert!(waiting.as_mut().now_or_never().is_none());
    assert_eq!((audit.recorded_ms(), audit.head()), (0, None));
    go.send(()).unwrap();
    assert_eq!(block_on(waiting), Ok(1));
    assert_eq!(audit.recorded_ms(), 1000);
    drop(go);
}

#[test]
fn a_chain_that_was_cut_or_written_anew_lacks_what_was_attested() {
    let folder = tempfile::tempdir().unwrap();
    let start = |folder: &Path| open(folder, settings(), Box::new(File::sync_data)).0;
    let fill = |audit: &Audit, first: u64| {
        for counter in first..first + 3 {
            block_on(audit.append(entry(counter))).unwrap();
        }
    };
    let audit = start(folder.path());
    let (none, chain_start) = audit.attestable();
    assert_eq!(none, 0);
    fill(&audit, 0);
    drop(audit);
    let older = tempfile::tempdir().unwrap();
    for file in fs::read_dir(folder.path())
        .unwrap()
        .map(|file| file.unwrap().path())
    {
        fs::copy(&file, older.path().join(file.file_name().unwrap())).unwrap();
    }
    // The head at the end is record 4, and where a chain is found to end is good to be attested.
    let audit = start(folder.path());
    let (at_start, _) = audit.attestable();
    assert_eq!(at_start, 4);
    assert_eq!(audit.lacks(0, &chain_start), None);
    fill(&audit, 3);
    drop(audit);
    let audit = start(folder.path());
    let (sequence, hash) = audit.attestable();
    assert_eq!((sequence, audit.lacks(sequence, &hash)), (8, None));
    let cut = start(older.path());
    let lack = cut.lacks(sequence, &hash).unwrap();
    assert_eq!(lack, "the audit chain had record 8 and ends at 4");
    // Made longer than it had been, of other records.
    fill(&cut, 30);
    drop(cut);
    let other = start(older.path());
    assert_eq!(other.attestable().0, 8);
    let lack = other.lacks(sequence, &hash).unwrap();
    assert_eq!(lack, "the audit chain has another record 8");
    assert_eq!(
        other.lacks(3, &[0; 32]).unwrap(),
        "the audit chain has another record 3"
    );
    drop(other);
    // Heads in between are compared as well.
    let covered = |folder: &Path| {
        let mut heads = Vec::new();
        verify_each(folder, None, |record| {
            if record.kind() == Kind::Head {
                heads.push((record.sequence - 1, record.previous));
            }
        })
        .unwrap();
        heads
    };
    let [first, second] = covered(folder.path())[..] else {
        panic!("two heads")
    };
    let other = start(older.path());
    assert_eq!(other.lacks(first.0, &first.1), None, "the same up to the copy");
    assert!(other.lacks(second.0, &second.1).is_some());
}

#[test]
fn a_full_queue_says_busy_and_loses_nothing_that_it_took() {
    let folder = tempfile::tempdir().unwrap();
    let (sync, begins, go) = gated();
    let mut narrow = settings();
    narrow.queue = 2;
    let (audit, _) = open(folder.path(), narrow, sync);
    let first = audit.append(entry(0));
    begins.recv_timeout(PATIENCE).unwrap();
    let (second, third, fourth) = (
        audit.append(entry(1)),
        audit.append(entry(2)),
        audit.append(entry(3)),
    );
    assert_eq!(block_on(fourth), Err(AppendError::Busy));
    assert_eq!(audit.counters().busy, 1);
    drop(go);
    assert_eq!(
        (block_on(first), block_on(second), block_on(third)),
        (Ok(1), Ok(2), Ok(3))
    );
    let mut small = settings();
    small.queue_bytes = 100;
    let other = tempfile::tempdir().unwrap();
    let (audit, _) = open(other.path(), small, Box::new(File::sync_data));
    assert_eq!(block_on(audit.append(entry(0))), Err(AppendError::Busy));
}

#[test]
fn after_a_failed_fsync_nothing_is_acknowledged_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let broken = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&broken);
    let sync = Box::new(move |file: &File| {
        if switch.load(Ordering::SeqCst) {
            Err(io::Error::other("disk gone"))
        } else {
            file.sync_data()
        }
    });
    let (audit, _) = open(folder.path(), settings(), sync);
    assert_eq!(block_on(audit.append(entry(0))), Ok(1));
    broken.store(true, Ordering::SeqCst);
    let batch: Vec<_> = (1..=10).map(|counter| audit.append(entry(counter))).collect();
    assert!(
        block_on(join_all(batch))
            .iter()
            .all(|answer| *answer == Err(AppendError::Failed))
    );
    broken.store(false, Ordering::SeqCst);
    assert_eq!(block_on(audit.append(entry(11))), Err(AppendError::Failed));
    assert_eq!(audit.append_unsynced(entry(12)), Err(AppendError::Failed));
    assert_eq!(audit.health(), Health::Failed);
    assert_eq!(audit.recorded_ms(), 1000);
}

#[test]
fn what_waited_behind_a_failed_fsync_fails_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let (begun, begins) = channel();
    let (go, gone) = channel::<()>();
    let mut first = true;
    let sync = Box::new(move |file: &File| {
        if !std::mem::take(&mut first) {
            return file.sync_data();
        }
        let _ = begun.send(());
        let _ = gone.recv();
        Err(io::Error::other("disk gone"))
    });
    let (audit, _) = open(folder.path(), settings(), sync);
    let ahead = audit.append(entry(0));
    begins.recv_timeout(PATIENCE).unwrap();
    let behind = audit.append(entry(1));
    go.send(()).unwrap();
    assert_eq!(block_on(ahead), Err(AppendError::Failed));
    assert_eq!(block_on(behind), Err(AppendError::Failed));
}

/// A power cut may keep the end of the last write and lose its beginning: nothing of it was acknowledged.
#[test]
fn a_last_write_with_a_hole_is_torn_and_one_before_it_is_damage() {
    let folder = tempfile::tempdir().unwrap();
    let (sync, begins, go) = gated();
    let (audit, _) = open(folder.path(), settings(), sync);
    let first = audit.append(entry(0));
    begins.recv_timeout(PATIENCE).unwrap();
    let rest: Vec<_> = (1..=50).map(|counter| audit.append(entry(counter))).collect();
    go.send(()).unwrap();
    block_on(first).unwrap();
    begins.recv_timeout(PATIENCE).unwrap();
    // The second write is in the file now and its fsync has not happened: the power goes.
    let path = segment::list(folder.path()).unwrap().remove(0).1;
    let written = fs::read(&path).unwrap();
    drop(go);
    block_on(join_all(rest));
    drop(audit);

    let header: &[u8; OVERHEAD] = written[HEADER..HEADER + OVERHEAD].try_into().unwrap();
    let second = HEADER + OVERHEAD + frame::announced(header).unwrap();
    for hole in [second..second + 40, second + 1000..second + 3000] {
        let mut bytes = written.clone();
        bytes[hole].fill(0);
        fs::write(&path, &bytes).unwrap();
        let (audit, seen) = open(folder.path(), settings(), Box::new(File::sync_data));
        assert!(!seen.is_empty() && seen.len() < 51);
        block_on(audit.append(entry(99))).unwrap();
        drop(audit);
        verify(folder.path(), Some(&key().verifying_key().to_bytes())).unwrap();
    }
    let mut bytes = written;
    bytes[HEADER + 20] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let outcome = Audit::open(folder.path(), settings(), |_| [0; 64], |_| {});
    assert!(matches!(outcome, Err(OpenError::Quarantined { .. })));
}

/// Whoever has the disk but not the key can rewrite records and hashes, and is found by the heads.
#[test]
fn a_chain_that_was_made_anew_does_not_carry_its_heads() {
    let folder = tempfile::tempdir().unwrap();
    let (audit, _) = open(folder.path(), settings(), Box::new(File::sync_data));
    for counter in 0..3 {
        block_on(audit.append(entry(counter))).unwrap();
    }
    drop(audit);
    let (audit, seen) = open(folder.path(), settings(), Box::new(File::sync_data));
    drop(audit);
    let path = segment::list(folder.path()).unwrap().remove(0).1;
    let mut bytes = fs::read(&path).unwrap()[..HEADER].to_vec();
    let mut previous = seen[0].previous;
    for record in seen {
        let mut content = record.content;
        if let Content::Operation(entry) = &mut content {
            entry.verdict = "rewritten".into();
        }
        previous = frame::encode(
            &mut bytes,
            record.sequence,
            record.synced,
            record.time_ms,
            previous,
            content,
        )
        .unwrap();
    }
    fs::write(&path, bytes).unwrap();
    verify(folder.path(), None).unwrap();
    let error = verify(folder.path(), Some(&key().verifying_key().to_bytes())).unwrap_err();
    assert_eq!(error.reason, "head is not signed by this node");
}

#[test]
fn a_head_signs_exactly_what_its_message_says() {
    let message = head_message(&[1; 32], 2, 3, &[4; 32]);
    let mut expected = b"conclave audit head\0".to_vec();
    expected.extend([1; 32]);
    expected.extend([0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3]);
    expected.extend([4; 32]);
    assert_eq!(message, expected);
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let ids = (
        any::<u64>(),
        any::<u64>(),
        any::<u64>(),
        any::<[u8; 32]>(),
        any::<[u8; 32]>(),
    );
    let rest = (
        any::<Option<[u8; 16]>>(),
        proptest::collection::vec(any::<u64>(), 0..16),
        "[a-z]{0,64}",
    );
    let evidence = proptest::option::of(("[ -~]{0,200}", "[ -~\n]{0,2000}", any::<u8>(), any::<[u8; 32]>()));
    (ids, rest, evidence).prop_map(|(ids, rest, evidence)| {
        let mut entry = entry(ids.0);
        (entry.group, entry.epoch, entry.applied) = (7, ids.1, ids.2);
        (entry.name, entry.request) = (ids.3, ids.4);
        (entry.key, entry.participants, entry.verdict) = rest;
        entry.evidence = evidence.map(|(key_id, signing_string, byte, hash)| Evidence {
            key_id,
            signing_string,
            signature: Signature([byte; 64]),
            capabilities: vec![Capability::Known(hash), Capability::Whole(vec![byte; 9].into())],
        });
        entry
    })
}

proptest! {
    #[test]
    fn every_record_is_read_back_as_it_was_written(entry in any_entry(), sequence: u64, previous: [u8; 32]) {
        let mut bytes = Vec::new();
        let content = Content::Operation(Box::new(entry));
        let hash = frame::encode(&mut bytes, sequence, 4, 5, previous, content.clone()).unwrap();
        let header: &[u8; OVERHEAD] = bytes[..OVERHEAD].try_into().unwrap();
        prop_assert_eq!(frame::announced(header), Some(bytes.len() - OVERHEAD));
        let record = frame::decode(header, &bytes[OVERHEAD..]).unwrap();
        prop_assert_eq!(&record, &Record { sequence, synced: 4, time_ms: 5, previous, hash, content });
        let found = frame::find(&[&[0xa7; 5], &bytes[..], &[1, 2]].concat(), 0, |_| true);
        prop_assert_eq!(found, Some(record));
    }

    #[test]
    fn garbage_is_refused_quietly(mut bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let begins = bytes.len().min(4);
        bytes[..begins].copy_from_slice(&frame::MAGIC[..begins]);
        prop_assert_eq!(frame::find(&bytes, 0, |_| true), None);
    }
}
