//! An independent look at a folder: every byte of every segment, the whole chain, and the signed heads. Needs no
//! running node and changes nothing; `conclave audit verify` is this.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use ed25519_dalek::VerifyingKey;

use super::chain;
use super::error::VerifyError;
use super::record::{Capability, Content, Kind, Record};
use super::recovery::remember;
use super::segment::{self, Header, Scanner, Step};

/// What a valid folder holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Records, heads included.
    pub records: u64,
    /// Segments.
    pub segments: u64,
    /// Number of the first record; above 1 if retention removed older segments.
    pub first_sequence: Option<u64>,
    /// Number of the last record. An end that was cut away cannot be seen from the folder alone, but from the heads
    /// that peers have of it on record ([`super::Heads`]).
    pub last_sequence: Option<u64>,
    /// Hash of the last record.
    pub last_hash: Option<[u8; 32]>,
    /// Time of the first record, milliseconds since 1970.
    pub first_ms: Option<u64>,
    /// Time of the last record, milliseconds since 1970.
    pub last_ms: Option<u64>,
    /// Heads whose signature was checked; 0 without a key.
    pub heads_verified: u64,
    /// Number of the last record that a checked head covers.
    pub covered: Option<u64>,
    /// The last segment is a sealed one: there was another after it, when or before it was compressed.
    pub ends_sealed: bool,
    /// Records by kind.
    pub by_kind: BTreeMap<Kind, u64>,
}

/// The cluster and the node that a folder says it is of; [`verify_each`] compares all of it.
pub fn owner(folder: &Path) -> Result<([u8; 32], u64), VerifyError> {
    let segments = segments(folder)?;
    let header = header(&segments[0].1)?;
    Ok((header.cluster, header.node))
}

/// The folder's segments, one at least.
fn segments(folder: &Path) -> Result<Vec<(u64, PathBuf)>, VerifyError> {
    let segments = segment::list(folder).map_err(disk(folder))?;
    match segments.is_empty() {
        true => Err(wrong(folder, 0, "no audit segments here")),
        false => Ok(segments),
    }
}

fn header(path: &Path) -> Result<Header, VerifyError> {
    let header = segment::header(path).map_err(disk(path))?;
    header.map_err(|reason| wrong(path, 0, reason))
}

fn disk(path: &Path) -> impl Fn(io::Error) -> VerifyError {
    |error| wrong(path, 0, &error.to_string())
}

fn wrong(path: &Path, offset: u64, reason: &str) -> VerifyError {
    VerifyError {
        file: path.to_owned(),
        offset,
        reason: reason.to_owned(),
    }
}

/// Checks the folder; with the node's Ed25519 public key its heads too.
pub fn verify(folder: &Path, key: Option<&[u8; 32]>) -> Result<Report, VerifyError> {
    verify_each(folder, key, |_| {})
}

/// The same, and shows every record that is found good, in order.
pub fn verify_each(
    folder: &Path,
    key: Option<&[u8; 32]>,
    mut show: impl FnMut(&Record),
) -> Result<Report, VerifyError> {
    let key = match key.map(VerifyingKey::from_bytes).transpose() {
        Ok(key) => key,
        Err(_) => return Err(wrong(folder, 0, "the public key is not a point")),
    };
    let segments = segments(folder)?;
    let mut report = Report::default();
    let mut before: Option<(Header, Scanner)> = None;
    let last = segments.len() - 1;
    for (at, (first, path)) in segments.iter().enumerate() {
        let header = header(path)?;
        if header.first != *first {
            return Err(wrong(path, 0, "segment has the name of another"));
        }
        match &before {
            Some((earlier, _)) if (earlier.cluster, earlier.node) != (header.cluster, header.node) => {
                return Err(wrong(path, 0, "segment belongs to another cluster or node"));
            }
            Some((_, end)) if (end.expected, end.previous) != (header.first, header.previous) => {
                return Err(wrong(path, 0, "segment does not follow from the one before it"));
            }
            Some((_, end)) if header.created_ms < end.time_ms => {
                return Err(wrong(path, 0, "segment is older than the one before it"));
            }
            None if header.first == 1 && header.previous != chain::start(&header.cluster, header.node) => {
                return Err(wrong(path, 0, "the chain does not begin at its start"));
            }
            _ => {}
        }
        let mut scanner = Scanner::open(path, &header).map_err(disk(path))?;
        let mut known = HashSet::new();
        loop {
            let offset = scanner.offset;
            match scanner.step().map_err(disk(path))? {
                Step::End => break,
                Step::Bad { reason, torn } if torn && at == last => {
                    let reason = format!(
                        "{reason}: a write cut off by a crash (starting the node cuts it), or damage"
                    );
                    return Err(wrong(path, offset, &reason));
                }
                Step::Bad { reason, .. } => return Err(wrong(path, offset, reason)),
                Step::Record(record) => {
                    check(&record, &header, key.as_ref(), &mut known, &mut report)
                        .map_err(|reason| wrong(path, offset, reason))?;
                    show(&record);
                }
            }
        }
        report.segments += 1;
        report.ends_sealed = scanner.is_compressed();
        before = Some((header, scanner));
    }
    Ok(report)
}

fn check(
    record: &Record,
    header: &Header,
    key: Option<&VerifyingKey>,
    known: &mut HashSet<[u8; 32]>,
    report: &mut Report,
) -> Result<(), &'static str> {
    match (&record.content, key) {
        (Content::Operation(entry), _) => {
            if entry.time_ms != record.time_ms {
                return Err("record has two times");
            }
            if matches!(entry.kind, Kind::Head | Kind::Witnessed) {
                return Err("record says that it is a head, and is none");
            }
            remember(record, known);
            let missing = entry
                .evidence
                .iter()
                .flat_map(|evidence| &evidence.capabilities)
                .any(|capability| matches!(capability, Capability::Known(hash) if !known.contains(hash)));
            if missing {
                return Err("record names a capability that is not in its segment");
            }
        }
        (Content::Head(signature), Some(key)) => {
            let covered = record.sequence - 1;
            let message = chain::head_message(&header.cluster, header.node, covered, &record.previous);
            let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
            if key.verify_strict(&message, &signature).is_err() {
                return Err("head is not signed by this node");
            }
            report.heads_verified += 1;
            report.covered = Some(covered);
        }
        (Content::Head(_), None) | (Content::Witnessed(_), _) => {}
    }
    report.records += 1;
    report.first_sequence.get_or_insert(record.sequence);
    report.last_sequence = Some(record.sequence);
    report.last_hash = Some(record.hash);
    report.first_ms.get_or_insert(record.time_ms);
    report.last_ms = Some(record.time_ms);
    *report.by_kind.entry(record.kind()).or_default() += 1;
    Ok(())
}
