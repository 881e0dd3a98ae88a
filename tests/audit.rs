//! The audit folder as its users see it: what is acknowledged is there again, what is damaged is found.

#![allow(clippy::unwrap_used, reason = "a test's own helpers may fail loudly")]

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use conclave::audit::{
    AppendError, Audit, Capability, Content, Entry, Evidence, Health, Kind, OpenError, OperationId, PeerHead,
    Record, Retention, Settings, Sighting, Signature, head_message, verify,
};
use ed25519_dalek::{Signer, SigningKey};
use futures::executor::block_on;
use futures::future::join_all;

const MAGIC: [u8; 4] = [0xa7, b'C', b'r', 0xd1];
const HEADER: usize = 128;

fn key() -> SigningKey {
    SigningKey::from_bytes(&[9; 32])
}

fn public() -> [u8; 32] {
    key().verifying_key().to_bytes()
}

fn signer() -> impl Fn(&[u8]) -> [u8; 64] + Send + 'static {
    let key = key();
    move |message| key.sign(message).to_bytes()
}

fn settings() -> Settings {
    let mut settings = Settings::new([3; 32], 2);
    settings.segment_bytes = 64 << 10;
    settings.low_disk_percent = 0;
    // Tests that look into the files want them as they were written.
    settings.compress = false;
    settings
}

fn entry(counter: u64) -> Entry {
    let mut entry = Entry::new(
        Kind::Contributed,
        1_700_000_000_000 + counter,
        OperationId {
            node: 2,
            boot: 7,
            counter,
        },
    );
    entry.name = [u8::try_from(counter % 251).unwrap(); 32];
    entry.verdict = "ok".into();
    entry.participants = vec![1, 2];
    entry
}

fn with_capabilities(counter: u64, documents: &[&str]) -> Entry {
    let mut entry = entry(counter);
    entry.evidence = Some(Evidence {
        key_id: "did:key:z6Mk#z6Mk".into(),
        signing_string: "(key-id): did:key:z6Mk#z6Mk\ndigest: mh=uEiB".into(),
        signature: Signature([5; 64]),
        capabilities: documents
            .iter()
            .map(|text| Capability::Whole(text.as_bytes().into()))
            .collect(),
    });
    entry
}

fn open(folder: &Path, settings: Settings) -> Result<(Audit, Vec<Record>), OpenError> {
    let mut seen = Vec::new();
    let audit = Audit::open(folder, settings, signer(), |record| seen.push(record.clone()))?;
    Ok((audit, seen))
}

fn quarantined(folder: &Path) -> (PathBuf, u64) {
    match open(folder, settings()).map(|_| ()) {
        Err(OpenError::Quarantined { file, offset, .. }) => (file, offset),
        other => panic!("expected a quarantine, got {other:?}"),
    }
}

/// A folder with `count` records, each durable before the next, and the closing head.
fn filled(count: u64, settings: Settings) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (audit, _) = open(folder.path(), settings).unwrap();
    for counter in 1..=count {
        block_on(audit.append(entry(counter))).unwrap();
    }
    drop(audit);
    folder
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "audit"))
        .collect();
    found.sort();
    found
}

/// Where the records of a segment begin, and where the last one ends.
fn frames(bytes: &[u8]) -> Vec<usize> {
    let mut at = HEADER;
    let mut found = vec![at];
    while bytes.get(at..at + 4) == Some(&MAGIC) {
        let length = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap());
        at += 12 + usize::try_from(length).unwrap();
        found.push(at);
    }
    found
}

fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for path in segments(from) {
        fs::copy(&path, to.path().join(path.file_name().unwrap())).unwrap();
    }
    to
}

#[test]
fn what_was_acknowledged_is_read_back_and_the_chain_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (audit, seen) = open(folder.path(), settings()).unwrap();
    assert!(seen.is_empty());
    for counter in 1..=3 {
        block_on(audit.append(entry(counter))).unwrap();
    }
    assert_eq!(audit.recorded_ms(), 1_700_000_000_003);
    assert!(matches!(
        open(folder.path(), settings()),
        Err(OpenError::InUse(_))
    ));
    drop(audit);

    let (audit, seen) = open(folder.path(), settings()).unwrap();
    let operations: Vec<&Entry> = seen.iter().filter_map(Record::entry).collect();
    assert_eq!(operations, [&entry(1), &entry(2), &entry(3)]);
    assert_eq!(seen.last().unwrap().kind(), Kind::Head);
    assert_eq!(audit.recorded_ms(), 1_700_000_000_003);
    // A clock that stands below the chain does not make it run back.
    let mut early = entry(4);
    early.time_ms = 5;
    let number = block_on(audit.append(early)).unwrap();
    assert_eq!(number, seen.last().unwrap().sequence + 1);
    drop(audit);

    let report = verify(folder.path(), Some(&public())).unwrap();
    assert_eq!(report.by_kind[&Kind::Contributed], 4);
    assert!(report.heads_verified >= 2);
    assert_eq!(report.covered, report.last_sequence.map(|last| last - 1));
    assert_eq!(
        (report.first_ms, report.last_ms),
        (Some(1_700_000_000_001), Some(1_700_000_000_003))
    );
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_and_the_chain_goes_on() {
    let folder = filled(3, settings());
    let path = segments(folder.path()).remove(0);
    let whole = fs::read(&path).unwrap();
    let frames = frames(&whole);
    let [start, end] = frames[frames.len() - 2..] else {
        panic!("two frames at least")
    };
    let records = frames.len() as u64 - 1;
    for kept in start..end {
        for garbage in [0, 0xff] {
            let torn = copy(folder.path());
            let path = segments(torn.path()).remove(0);
            let mut bytes = whole.clone();
            bytes[kept..end].fill(0);
            bytes[kept] = garbage;
            let intact = bytes == whole;
            fs::write(&path, &bytes).unwrap();
            assert_eq!(
                verify(torn.path(), None).is_ok(),
                intact || bytes[start..].iter().all(|b| *b == 0)
            );
            let (audit, seen) = open(torn.path(), settings()).unwrap();
            assert_eq!(seen.len() as u64, if intact { records } else { records - 1 });
            block_on(audit.append(entry(9))).unwrap();
            drop(audit);
            verify(torn.path(), Some(&public())).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().len(), 64 << 10);
        }
    }
}

#[test]
fn a_tail_cut_off_with_its_file_is_cut_too() {
    let folder = filled(2, settings());
    let path = segments(folder.path()).remove(0);
    let end = *frames(&fs::read(&path).unwrap()).last().unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(end as u64 - 3).unwrap();
    drop(file);
    let (_, seen) = open(folder.path(), settings()).unwrap();
    assert!(seen.iter().filter(|record| record.entry().is_some()).count() == 2);
}

#[test]
fn damage_to_anything_durable_quarantines() {
    let folder = filled(3, settings());
    let path = segments(folder.path()).remove(0);
    let whole = fs::read(&path).unwrap();
    let frames = frames(&whole);
    let last = frames[frames.len() - 2];
    for at in (0..last).step_by(7).chain([last - 1]) {
        let damaged = copy(folder.path());
        let path = segments(damaged.path()).remove(0);
        let mut bytes = whole.clone();
        bytes[at] ^= 0x20;
        fs::write(&path, &bytes).unwrap();
        let (file, offset) = quarantined(damaged.path());
        assert_eq!(file, path);
        let begins = frames
            .iter()
            .rev()
            .find(|begin| **begin <= at)
            .copied()
            .unwrap_or(0);
        assert_eq!(offset, begins as u64, "flip at {at}");
        assert!(verify(damaged.path(), None).is_err());
        assert_eq!(fs::read(&path).unwrap(), bytes, "evidence is left as it is");
    }
}

#[test]
fn an_inner_segment_is_never_cut() {
    let mut small = settings();
    small.segment_bytes = 4096;
    let folder = filled(60, small.clone());
    let paths = segments(folder.path());
    assert!(paths.len() > 2);
    let inner = fs::read(&paths[1]).unwrap();
    let frames = frames(&inner);
    // Its last record, torn; then a whole record missing; then the segment itself missing.
    for cut in [inner.len() - 2, frames[frames.len() - 2]] {
        let damaged = copy(folder.path());
        fs::write(damaged.path().join(paths[1].file_name().unwrap()), &inner[..cut]).unwrap();
        assert!(matches!(
            open(damaged.path(), small.clone()),
            Err(OpenError::Quarantined { .. })
        ));
        assert!(verify(damaged.path(), None).is_err());
    }
    let damaged = copy(folder.path());
    fs::remove_file(damaged.path().join(paths[1].file_name().unwrap())).unwrap();
    assert!(matches!(
        open(damaged.path(), small),
        Err(OpenError::Quarantined { .. })
    ));
    assert!(verify(damaged.path(), None).is_err());
}

#[test]
fn verify_finds_every_flip_removal_and_reordering() {
    let folder = filled(4, settings());
    verify(folder.path(), Some(&public())).unwrap();
    let whole = fs::read(&segments(folder.path())[0]).unwrap();
    let frames = frames(&whole);
    let end = *frames.last().unwrap();
    let check = |bytes: &[u8], what: &str| {
        let changed = copy(folder.path());
        let path = segments(changed.path()).remove(0);
        fs::write(&path, bytes).unwrap();
        assert!(verify(changed.path(), Some(&public())).is_err(), "{what}");
    };
    for at in 0..end + 40 {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        check(&bytes, &format!("flip at {at}"));
    }
    for pair in frames.windows(2).take(frames.len() - 2) {
        let removed = [&whole[..pair[0]], &whole[pair[1]..]].concat();
        check(&removed, "removed");
    }
    for three in frames.windows(3) {
        let [a, b, c] = [three[0], three[1], three[2]];
        let swapped = [&whole[..a], &whole[b..c], &whole[a..b], &whole[c..]].concat();
        check(&swapped, "swapped");
    }
    // Another node's key does not do.
    assert!(
        verify(
            folder.path(),
            Some(&SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes())
        )
        .is_err()
    );
}

#[test]
fn a_folder_of_another_cluster_or_node_is_refused() {
    let folder = filled(1, settings());
    let mut other = settings();
    other.cluster = [4; 32];
    assert!(matches!(
        open(folder.path(), other),
        Err(OpenError::Foreign { .. })
    ));
    let mut other = settings();
    other.node = 3;
    assert!(matches!(
        open(folder.path(), other),
        Err(OpenError::Foreign { .. })
    ));
}

#[test]
fn a_capability_stands_once_in_a_segment() {
    let mut small = settings();
    small.segment_bytes = 8192;
    let folder = tempfile::tempdir().unwrap();
    let (audit, _) = open(folder.path(), small.clone()).unwrap();
    let first = r#"{"id":"urn:uuid:first"}"#;
    let second = r#"{"id":"urn:uuid:second"}"#;
    for counter in 1..=60 {
        block_on(audit.append(with_capabilities(counter, &[first, second, first]))).unwrap();
    }
    drop(audit);
    let report = verify(folder.path(), Some(&public())).unwrap();
    assert!(report.segments > 1);
    for path in segments(folder.path()) {
        let bytes = fs::read(path).unwrap();
        let times = |text: &str| {
            bytes
                .windows(text.len())
                .filter(|window| *window == text.as_bytes())
                .count()
        };
        assert_eq!((times(first), times(second)), (1, 1));
    }
    // After a restart the segment still has them.
    let (audit, seen) = open(folder.path(), small).unwrap();
    assert_eq!(seen.iter().filter(|record| record.entry().is_some()).count(), 60);
    block_on(audit.append(with_capabilities(61, &[first]))).unwrap();
    drop(audit);
    verify(folder.path(), Some(&public())).unwrap();
    let bytes = fs::read(segments(folder.path()).last().unwrap()).unwrap();
    assert_eq!(
        bytes
            .windows(first.len())
            .filter(|window| *window == first.as_bytes())
            .count(),
        1
    );
}

#[test]
fn a_segment_is_sealed_by_age_and_old_ones_go_whole() {
    let mut short = settings();
    short.segment_age_ms = 1000;
    short.replay_window_ms = 5_000;
    short.retention = Retention {
        age_ms: 10_000,
        bytes: u64::MAX,
    };
    let folder = tempfile::tempdir().unwrap();
    let (audit, _) = open(folder.path(), short.clone()).unwrap();
    for second in 0..40 {
        let mut entry = entry(second);
        entry.time_ms = 1_700_000_000_000 + second * 1000;
        block_on(audit.append(entry)).unwrap();
    }
    drop(audit);
    let report = verify(folder.path(), Some(&public())).unwrap();
    assert!(report.first_sequence.unwrap() > 20, "{report:?}");
    assert!(report.segments < 15 && report.segments > 8, "{report:?}");
    // Only the window is read back.
    let (_, seen) = open(folder.path(), short).unwrap();
    let oldest = seen.first().unwrap().time_ms;
    assert!(
        (1_700_000_033_000..=1_700_000_034_000).contains(&oldest),
        "{oldest}"
    );
}

#[test]
fn a_thousand_records_have_a_head_among_them() {
    let folder = tempfile::tempdir().unwrap();
    let mut large = settings();
    large.segment_bytes = 4 << 20;
    let (audit, _) = open(folder.path(), large).unwrap();
    let answers = block_on(join_all((1..=2500).map(|counter| audit.append(entry(counter)))));
    assert!(answers.iter().all(Result::is_ok));
    let head = audit.head().unwrap();
    assert!(head.sequence >= 2001, "{head:?}");
    let counters = audit.counters();
    assert!(counters.syncs < 2500, "{counters:?}");
    drop(audit);
    let report = verify(folder.path(), Some(&public())).unwrap();
    assert_eq!(report.by_kind[&Kind::Contributed], 2500);
    assert!(report.heads_verified >= 3);
}

#[test]
fn a_lone_record_gets_its_head_within_a_second_or_so() {
    let folder = tempfile::tempdir().unwrap();
    let (audit, _) = open(folder.path(), settings()).unwrap();
    audit
        .append_unsynced(Entry {
            kind: Kind::Claimed,
            ..entry(1)
        })
        .unwrap();
    while audit.head().is_none() {
        std::thread::yield_now();
    }
    assert_eq!(audit.head().unwrap().sequence, 1);
}

#[test]
fn on_a_full_disk_uses_are_refused_and_endorsements_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut full = settings();
    full.low_disk_percent = 100;
    let (audit, _) = open(folder.path(), full).unwrap();
    assert!(matches!(audit.health(), Health::DiskLow { .. }));
    assert_eq!(block_on(audit.append(entry(1))), Err(AppendError::DiskFull));
    for kind in [Kind::Endorsed, Kind::Refused, Kind::Outcome] {
        block_on(audit.append(Entry { kind, ..entry(2) })).unwrap();
    }
}

#[test]
fn what_is_out_of_bounds_is_never_queued() {
    let folder = tempfile::tempdir().unwrap();
    let (audit, _) = open(folder.path(), settings()).unwrap();
    let long = "x".repeat(65 << 10);
    let cases = [
        Entry {
            kind: Kind::Head,
            ..entry(1)
        },
        Entry {
            kind: Kind::Witnessed,
            ..entry(1)
        },
        Entry {
            participants: vec![1; 17],
            ..entry(1)
        },
        Entry {
            verdict: "v".repeat(65),
            ..entry(1)
        },
        with_capabilities(1, &[&long]),
        with_capabilities(1, &["{}"; 11]),
    ];
    for case in cases {
        assert!(matches!(
            block_on(audit.append(case)),
            Err(AppendError::Unrecordable(_))
        ));
    }
    assert_eq!(audit.counters().records, 0);
}

#[test]
fn one_node_at_a_time_and_only_its_owner_may_read() {
    use std::os::unix::fs::PermissionsExt;
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("audit");
    let (audit, _) = open(&folder, settings()).unwrap();
    block_on(audit.append(entry(1))).unwrap();
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    for path in segments(&folder) {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn a_segment_that_was_never_finished_is_cleared_away() {
    let folder = filled(2, settings());
    let unfinished = folder.path().join("00000000000000000099.audit.new");
    fs::write(&unfinished, b"half a header").unwrap();
    verify(folder.path(), Some(&public())).unwrap();
    let (_, seen) = open(folder.path(), settings()).unwrap();
    assert!(seen.len() > 2 && !unfinished.exists());
}

#[test]
fn a_segment_with_nothing_in_it_yet_is_gone_on_with() {
    let mut small = settings();
    small.segment_bytes = 4096;
    let folder = filled(40, small.clone());
    let last = segments(folder.path()).pop().unwrap();
    let header = fs::read(&last).unwrap()[..HEADER].to_vec();
    // The crash came between the new segment's name and its first record.
    fs::write(&last, header).unwrap();
    let (audit, seen) = open(folder.path(), small).unwrap();
    let number = block_on(audit.append(entry(77))).unwrap();
    assert_eq!(number, seen.last().unwrap().sequence + 1);
    drop(audit);
    verify(folder.path(), Some(&public())).unwrap();
}

fn compressing() -> Settings {
    let mut settings = settings();
    settings.segment_bytes = 4096;
    settings.compress = true;
    settings
}

/// A folder of several segments, all compressed but the last; with the records in it.
fn compressed(count: u64) -> (tempfile::TempDir, Vec<Record>) {
    let mut small = settings();
    small.segment_bytes = 4096;
    let folder = filled(count, small);
    // The closing head may have sealed one more, so all of them are left to the next start.
    let (audit, records) = open(folder.path(), compressing()).unwrap();
    until_compressed(folder.path());
    drop(audit);
    verify(folder.path(), Some(&public())).unwrap();
    (folder, records)
}

fn is_compressed(path: &Path) -> bool {
    fs::read(path).unwrap().starts_with(&[0x1f, 0x8b])
}

/// Waits until every segment but the last is compressed.
fn until_compressed(folder: &Path) {
    let paths = segments(folder);
    let (last, sealed) = paths.split_last().unwrap();
    assert!(sealed.len() > 2);
    while !sealed.iter().all(|path| is_compressed(path)) {
        std::thread::yield_now();
    }
    assert!(!is_compressed(last));
}

#[test]
fn sealed_segments_are_compressed_and_read_as_before() {
    let (folder, records) = compressed(110);
    let paths = segments(folder.path());
    let (_, sealed) = paths.split_last().unwrap();
    let held: u64 = sealed.iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert!(held * 3 < sealed.len() as u64 * 4096 * 2, "{held}");
    let operations: Vec<u64> = records
        .iter()
        .filter_map(Record::entry)
        .map(|entry| entry.operation.counter)
        .collect();
    assert_eq!(operations, (1..=110).collect::<Vec<_>>());
    // A start reads them back, and the chain goes on.
    let (audit, seen) = open(folder.path(), compressing()).unwrap();
    assert_eq!(seen, records);
    block_on(audit.append(entry(111))).unwrap();
    drop(audit);
    let report = verify(folder.path(), Some(&public())).unwrap();
    assert_eq!(report.by_kind[&Kind::Contributed], 111);
    assert!(!report.ends_sealed);
}

#[test]
fn a_segment_is_compressed_while_the_chain_grows() {
    let folder = tempfile::tempdir().unwrap();
    let (audit, _) = open(folder.path(), compressing()).unwrap();
    let mut counter = 0;
    while audit.counters().compressed < 3 {
        counter += 1;
        block_on(audit.append(entry(counter))).unwrap();
    }
    drop(audit);
    let report = verify(folder.path(), Some(&public())).unwrap();
    assert_eq!(report.by_kind[&Kind::Contributed], counter);
    let (_, seen) = open(folder.path(), compressing()).unwrap();
    assert_eq!(seen.len() as u64, report.records);
}

#[test]
fn segments_from_before_are_compressed_and_a_copy_that_was_cut_off_is_cleared_away() {
    let mut small = settings();
    small.segment_bytes = 4096;
    let folder = filled(110, small.clone());
    assert!(segments(folder.path()).iter().all(|path| !is_compressed(path)));
    let first = segments(folder.path()).remove(0);
    let half = PathBuf::from(format!("{}.new", first.display()));
    fs::write(&half, [0x1f, 0x8b, 8, 0]).unwrap();
    verify(folder.path(), Some(&public())).unwrap();
    let (audit, seen) = open(folder.path(), compressing()).unwrap();
    until_compressed(folder.path());
    assert!(audit.counters().compressed > 2);
    drop(audit);
    assert!(!half.exists() && is_compressed(&first));
    let (_, again) = open(folder.path(), small).unwrap();
    assert_eq!(again, seen);
}

#[test]
fn damage_to_a_compressed_segment_quarantines() {
    let (folder, _) = compressed(110);
    let paths = segments(folder.path());
    let whole = fs::read(&paths[1]).unwrap();
    let plain = |bytes: &[u8]| {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(bytes)
            .read_to_end(&mut plain)
            .map(|_| plain)
            .ok()
    };
    let flips = (2..whole.len()).step_by(5).map(|at| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    });
    // Some bits have no meaning, and the same bytes can be compressed in several ways.
    let flips: Vec<Vec<u8>> = flips.filter(|bytes| plain(bytes) != plain(&whole)).collect();
    assert!(flips.len() * 10 > whole.len(), "half of them at least");
    let cuts = [&whole[..10], &whole[..whole.len() - 1]].map(<[u8]>::to_vec);
    let longer = [&whole[..], &[0]].concat();
    let twice = [&whole[..], &whole[..]].concat();
    for bytes in flips.into_iter().chain(cuts).chain([longer, twice]) {
        let damaged = copy(folder.path());
        let path = damaged.path().join(paths[1].file_name().unwrap());
        fs::write(&path, &bytes).unwrap();
        assert!(verify(damaged.path(), None).is_err());
        let opened = open(damaged.path(), compressing()).map(|_| ());
        assert!(
            matches!(&opened, Err(OpenError::Quarantined { file, .. }) if *file == path),
            "{opened:?}"
        );
        assert_eq!(fs::read(&path).unwrap(), bytes, "evidence is left as it is");
    }
}

#[test]
fn a_chain_that_ends_in_a_compressed_segment_lost_what_followed() {
    let (folder, _) = compressed(110);
    fs::remove_file(segments(folder.path()).pop().unwrap()).unwrap();
    // It may be a copy that was taken while the node ran; the node itself cannot have lost it.
    assert!(verify(folder.path(), Some(&public())).unwrap().ends_sealed);
    assert!(matches!(
        open(folder.path(), compressing()),
        Err(OpenError::Quarantined { .. })
    ));
}

#[test]
fn retention_counts_the_bytes_of_compressed_segments() {
    let (folder, _) = compressed(110);
    let sizes: Vec<u64> = segments(folder.path())
        .iter()
        .map(|path| fs::metadata(path).unwrap().len())
        .collect();
    let (last, sealed) = sizes.split_last().unwrap();
    let mut bounded = compressing();
    bounded.replay_window_ms = 0;
    bounded.retention = Retention {
        age_ms: u64::MAX,
        bytes: last + sealed[1..].iter().sum::<u64>(),
    };
    // Records are a millisecond apart: a window of none has all but the last segment to give.
    drop(open(folder.path(), bounded.clone()).unwrap());
    let left = segments(folder.path());
    assert_eq!(left.len(), sizes.len() - 1, "one had to go and no more");
    bounded.retention.bytes = 4096;
    drop(open(folder.path(), bounded).unwrap());
    assert_eq!(segments(folder.path()), left[left.len() - 1..]);
    verify(folder.path(), Some(&public())).unwrap();
}

fn peer_head(node: u64, sequence: u64, hash: u8) -> PeerHead {
    let message = head_message(&[3; 32], node, sequence, &[hash; 32]);
    PeerHead {
        node,
        sequence,
        hash: [hash; 32],
        signature: Signature(key().sign(&message).to_bytes()),
    }
}

fn witnessed(records: &[Record]) -> Vec<PeerHead> {
    let heads = records.iter().filter_map(|record| match &record.content {
        Content::Witnessed(head) => Some(*head),
        _ => None,
    });
    heads.collect()
}

#[test]
fn a_peers_head_is_recorded_once_and_asks_for_no_head_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let (audit, _) = open(folder.path(), settings()).unwrap();
    let time = 1_700_000_000_500;
    assert_eq!(audit.signed_head(), None);
    assert_eq!(audit.witness(peer_head(3, 7, 1), time), Ok(Sighting::New));
    assert_eq!(audit.witness(peer_head(3, 7, 1), time), Ok(Sighting::Known));
    assert_eq!(audit.witness(peer_head(4, 7, 2), time), Ok(Sighting::New));
    drop(audit);
    let heads = [peer_head(3, 7, 1), peer_head(4, 7, 2)];
    let (audit, seen) = open(folder.path(), settings()).unwrap();
    assert_eq!(witnessed(&seen), heads);
    assert_eq!(seen.len(), 2, "two nodes without work would write heads for ever");
    assert_eq!((seen[0].kind(), seen[0].time_ms), (Kind::Witnessed, time));
    // What was on record before the start is known.
    assert_eq!(audit.witness(peer_head(3, 7, 1), time), Ok(Sighting::Known));
    assert_eq!(audit.witness(peer_head(3, 8, 3), time), Ok(Sighting::New));
    block_on(audit.append(entry(1))).unwrap();
    drop(audit);
    let (audit, seen) = open(folder.path(), settings()).unwrap();
    assert_eq!(witnessed(&seen)[2..], [peer_head(3, 8, 3)]);
    // The head of the last life is still this node's to show.
    let head = audit.signed_head().unwrap();
    assert_eq!((head.node, head.sequence, head.hash), (2, 4, seen[3].hash));
    assert!(head.is_signed(&[3; 32], &key().verifying_key()));
    assert!(!head.is_signed(&[4; 32], &key().verifying_key()));
    drop(audit);
    let report = verify(folder.path(), Some(&public())).unwrap();
    assert_eq!((report.by_kind[&Kind::Witnessed], report.heads_verified), (3, 1));
}

#[test]
fn a_head_that_contradicts_an_earlier_one_is_kept_as_the_proof() {
    let folder = tempfile::tempdir().unwrap();
    let (audit, _) = open(folder.path(), settings()).unwrap();
    assert_eq!(audit.witness(peer_head(3, 7, 1), 5), Ok(Sighting::New));
    assert_eq!(audit.witness(peer_head(3, 7, 2), 5), Ok(Sighting::Contradiction));
    assert_eq!(audit.witness(peer_head(3, 6, 2), 5), Ok(Sighting::Contradiction));
    drop(audit);
    let (_, seen) = open(folder.path(), settings()).unwrap();
    let kept = [peer_head(3, 7, 1), peer_head(3, 7, 2), peer_head(3, 6, 2)];
    assert_eq!(witnessed(&seen), kept);
}
