//! A segment of the audit record, as damage or another hand may leave it, with right checksums or compressed: opening mends
//! or refuses it, and what was opened once opens again with the same records.

use std::io::Write as _;
use std::path::Path;
use std::sync::LazyLock;

use conclave::audit::{
    Audit, Capability, Entry, Evidence, Kind, OperationId, PeerHead, Settings, Signature, verify_each,
};
use ed25519_dalek::{Signer as _, SigningKey};
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

use super::{Seed, Target, seed};

pub(super) const TARGET: Target = Target {
    name: "audit",
    longest: 4_096,
    mutations: 200,
    run,
    seeds,
};

const CLUSTER: [u8; 32] = [3; 32];
const NODE: u64 = 2;
const HEADER: usize = 128;
/// Magic, length and checksum before a record.
const OVERHEAD: usize = 12;
const MAGIC: [u8; 4] = [0xa7, b'C', b'r', 0xd1];
const SEGMENT: &str = "00000000000000000001.audit";

static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::from_bytes(&[9; 32]));

fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    made.expect("a temporary folder")
}

/// A byte that says whether checksums and links of the chain are put right; then the segment.
fn run(bytes: &[u8]) -> bool {
    let (mend, segment) = match bytes.split_first() {
        Some((flags, segment)) => (flags & 1 == 1, segment),
        None => return false,
    };
    let mut segment = segment.to_vec();
    if mend {
        put_right(&mut segment);
    }
    let folder = folder();
    std::fs::write(folder.path().join(SEGMENT), &segment).expect("room in a temporary folder");
    let mut verified = Vec::new();
    let public = KEY.verifying_key().to_bytes();
    let report = verify_each(folder.path(), Some(&public), |record| {
        verified.push(record.clone())
    });
    if report.as_ref().is_ok_and(|report| report.ends_sealed) {
        assert!(
            open(folder.path()).is_none(),
            "a node goes on behind no sealed segment"
        );
        return !verified.is_empty();
    }
    let is_sound = report.is_ok();
    let Some(opened) = open(folder.path()) else {
        assert!(!is_sound, "what verifies opens");
        return false;
    };
    assert!(!is_sound || opened == verified, "both readers see the same");
    let again = open(folder.path()).expect("what was opened opens again");
    assert!(again.starts_with(&opened), "and has the same records");
    !opened.is_empty()
}

fn open(folder: &Path) -> Option<Vec<conclave::audit::Record>> {
    let mut settings = Settings::new(CLUSTER, NODE);
    settings.segment_bytes = 8_192;
    settings.low_disk_percent = 0;
    settings.replay_window_ms = u64::MAX;
    let mut seen = Vec::new();
    let signer = |message: &[u8]| KEY.sign(message).to_bytes();
    let audit = Audit::open(folder, settings, signer, |record| seen.push(record.clone())).ok()?;
    drop(audit);
    Some(seen)
}

/// Puts the right checksum to the header and to each record, and the right hash of the record before into each.
fn put_right(segment: &mut [u8]) {
    if let Some((header, _)) = segment.split_first_chunk_mut::<HEADER>() {
        let crc = crc32(&[&header[..HEADER - 4]]);
        header[HEADER - 4..].copy_from_slice(&crc.to_le_bytes());
    }
    let mut previous: Option<[u8; 32]> = None;
    let mut at = HEADER;
    while let Some(head) = segment.get(at..at + OVERHEAD) {
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        let end = (at + OVERHEAD).saturating_add(usize::try_from(length).unwrap_or(usize::MAX));
        if head[..4] != MAGIC || end > segment.len() {
            return;
        }
        let payload = &mut segment[at + OVERHEAD..end];
        if let (Some(hash), Some(place)) = (previous, place_of_previous(payload)) {
            payload[place..place + 32].copy_from_slice(&hash);
        }
        let mut hash = Sha256::new_with_prefix(b"conclave audit record\0");
        hash.update(&payload);
        previous = Some(hash.finalize().into());
        let crc = crc32(&[&length.to_le_bytes(), payload]);
        segment[at + 8..at + OVERHEAD].copy_from_slice(&crc.to_le_bytes());
        at = end;
    }
}

/// Where the hash of the record before stands in a payload: after three numbers of varying length.
fn place_of_previous(payload: &[u8]) -> Option<usize> {
    let mut place = 0;
    for _ in 0..3 {
        place += 1 + payload.get(place..)?.iter().position(|byte| byte & 0x80 == 0)?;
    }
    (place + 32 <= payload.len()).then_some(place)
}

/// CRC-32 (IEEE 802.3), bit by bit.
fn crc32(parts: &[&[u8]]) -> u32 {
    let bytes = parts.iter().copied().flatten();
    !bytes.fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

fn compressed(segment: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let written = encoder.write_all(segment).and_then(|()| encoder.finish());
    written.expect("room in memory")
}

fn seeds() -> Vec<Seed> {
    let folder = folder();
    let mut settings = Settings::new(CLUSTER, NODE);
    settings.segment_bytes = 8_192;
    settings.low_disk_percent = 0;
    let signer = |message: &[u8]| KEY.sign(message).to_bytes();
    let audit = Audit::open(folder.path(), settings, signer, |_| {}).expect("a new folder");
    for counter in 0..3 {
        let operation = OperationId {
            node: 1,
            boot: 7,
            counter,
        };
        let mut entry = Entry::new(Kind::Contributed, 1_780_315_205_000 + counter, operation);
        entry.participants = vec![1, 2];
        entry.verdict = "ok".into();
        entry.evidence = (counter < 2).then(|| Evidence {
            key_id: "did:key:a#a".into(),
            signing_string: "(key-id): did:key:a#a".into(),
            signature: Signature([5; 64]),
            capabilities: vec![Capability::Whole(b"{}".as_slice().into())],
        });
        audit.append_unsynced(entry).expect("room in the queue");
    }
    let head = PeerHead {
        node: 3,
        sequence: 7,
        hash: [7; 32],
        signature: Signature([8; 64]),
    };
    audit.witness(head, 1_780_315_205_004).expect("room in the queue");
    drop(audit);
    let mut segment = std::fs::read(folder.path().join(SEGMENT)).expect("the only segment");
    let end = segment.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
    segment.truncate(end);
    let cut = segment[..end - 40].to_vec();
    vec![
        seed("as-it-is", [&[0], &segment[..]].concat()),
        seed("put-right", [&[1], &segment[..]].concat()),
        seed("torn", [&[0], &cut[..]].concat()),
        seed("compressed", [&[0], &compressed(&segment)[..]].concat()),
    ]
}
