//! Opening a folder: read back what is inside the replay window, cut a torn tail, refuse anything worse.
//!
//! A record says up to which number everything was on disk when it was written (`synced`). A crash may leave any
//! part of the last write, also its end without its beginning; so a tail is torn, and cut, unless a record behind
//! the damage says that the damaged one was durable. Then something that had been acknowledged is lost, and the
//! folder is quarantined.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

use super::chain;
use super::contents::Contents;
use super::error::OpenError;
use super::frame;
use super::journal::SignedHead;
use super::record::{Capability, Content, Record};
use super::retention::Sealed;
use super::segment::{self, Header, Scanner, Step};
use super::settings::Settings;
use super::space;

/// Where the writer goes on.
pub(super) struct Position {
    pub(super) path: PathBuf,
    pub(super) file: File,
    pub(super) offset: u64,
    /// Time of the last segment's first record.
    pub(super) first_time: Option<u64>,
    /// Number of the last record, 0 if there is none.
    pub(super) sequence: u64,
    pub(super) previous: [u8; 32],
    pub(super) time_ms: u64,
    /// Number and hash of the records that the last heads cover.
    pub(super) covered: BTreeMap<u64, [u8; 32]>,
    /// The last head.
    pub(super) head: Option<SignedHead>,
    /// By node, number and hash of the last head of a peer's chain.
    pub(super) witnessed: BTreeMap<u64, (u64, [u8; 32])>,
    /// Records since the last head that call for one.
    pub(super) since_head: u64,
    /// Capabilities that stand whole in the last segment.
    pub(super) known: HashSet<[u8; 32]>,
    pub(super) sealed: Vec<Sealed>,
}

/// Heads whose records can be compared with what peers remember of them.
const COMPARABLE: usize = 4_096;

/// Reads the folder back. `visitor` sees every record of the replay window, oldest first.
pub(super) fn recover(
    folder: &Path,
    settings: &Settings,
    visitor: &mut impl FnMut(&Record),
) -> Result<Position, OpenError> {
    segment::remove_unfinished(folder).map_err(OpenError::disk(folder))?;
    let segments = headers(folder, settings)?;
    let Some(((last_path, last_header), inner)) = segments.split_last() else {
        return begin(folder, settings);
    };
    let window = last_header.created_ms.saturating_sub(settings.replay_window_ms);
    let from = inner
        .iter()
        .rposition(|(_, header)| header.created_ms <= window)
        .unwrap_or(0);
    let (mut since_head, mut covered) = (0, BTreeMap::new());
    let (mut head, mut witnessed) = (None, BTreeMap::new());
    let mut counted = |record: &Record| {
        match &record.content {
            Content::Operation(_) => since_head += 1,
            Content::Head(signature) => {
                since_head = 0;
                let (sequence, hash) = (record.sequence - 1, record.previous);
                covered.insert(sequence, hash);
                if covered.len() > COMPARABLE {
                    covered.pop_first();
                }
                head = Some(SignedHead {
                    sequence,
                    hash,
                    time_ms: record.time_ms,
                    signature: *signature,
                });
            }
            Content::Witnessed(head) => {
                witnessed.insert(head.node, (head.sequence, head.hash));
            }
        }
        visitor(record);
    };
    for at in from..inner.len() {
        let (path, header) = &segments[at];
        let mut scanner = Scanner::open(path, header).map_err(OpenError::disk(path))?;
        loop {
            match scanner.step().map_err(OpenError::disk(path))? {
                Step::Record(record) => counted(&record),
                Step::End => break,
                Step::Bad { reason, .. } => return Err(quarantine(path, scanner.offset, reason)),
            }
        }
        let (next_path, next) = &segments[at + 1];
        if next.first != scanner.expected || next.previous != scanner.previous {
            return Err(quarantine(
                next_path,
                0,
                "segment does not follow from the one before it",
            ));
        }
        if next.created_ms < scanner.time_ms {
            return Err(quarantine(
                next_path,
                0,
                "segment is older than the one before it",
            ));
        }
    }

    let mut scanner = Scanner::open(last_path, last_header).map_err(OpenError::disk(last_path))?;
    if scanner.is_compressed() {
        let reason = "only sealed segments are compressed, so the one that followed it is gone";
        return Err(quarantine(last_path, 0, reason));
    }
    let (mut first_time, mut known) = (None, HashSet::new());
    let torn = loop {
        match scanner.step().map_err(OpenError::disk(last_path))? {
            Step::Record(record) => {
                first_time.get_or_insert(record.time_ms);
                remember(&record, &mut known);
                counted(&record);
            }
            Step::End => break false,
            Step::Bad { reason, torn: false } => return Err(quarantine(last_path, scanner.offset, reason)),
            Step::Bad { reason, torn: true } => {
                refuse_if_durable(last_path, scanner.offset, scanner.expected, reason)?;
                break true;
            }
        }
    };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(last_path)
        .map_err(OpenError::disk(last_path))?;
    if torn {
        tracing::warn!(segment = %last_path.display(), offset = scanner.offset, "cut a torn audit tail");
        file.set_len(scanner.offset).map_err(OpenError::disk(last_path))?;
    }
    let length = file.metadata().map_err(OpenError::disk(last_path))?.len();
    if length < settings.segment_bytes
        && let Err(error) = space::reserve(&file, settings.segment_bytes)
    {
        // A full disk is told by the first append; the records that are here can be read all the same.
        tracing::warn!(segment = %last_path.display(), %error, "no room to reserve the audit segment");
    }
    file.sync_all().map_err(OpenError::disk(last_path))?;
    let sealed = segments
        .windows(2)
        .map(|pair| {
            Ok(Sealed {
                path: pair[0].0.clone(),
                bytes: length_of(&pair[0].0)?,
                last_ms: pair[1].1.created_ms,
                compressed: is_compressed(&pair[0].0)?,
            })
        })
        .collect::<Result<_, OpenError>>()?;
    Ok(Position {
        path: last_path.clone(),
        file,
        offset: scanner.offset,
        first_time,
        sequence: scanner.expected - 1,
        previous: scanner.previous,
        time_ms: scanner.time_ms,
        covered,
        head,
        witnessed,
        since_head,
        known,
        sealed,
    })
}

/// A fresh folder: record 1 will follow from the chain's start.
fn begin(folder: &Path, settings: &Settings) -> Result<Position, OpenError> {
    let header = Header {
        cluster: settings.cluster,
        node: settings.node,
        first: 1,
        created_ms: 0,
        previous: chain::start(&settings.cluster, settings.node),
    };
    let (path, file) =
        segment::create(folder, &header, settings.segment_bytes).map_err(OpenError::disk(folder))?;
    Ok(Position {
        path,
        file,
        offset: segment::HEADER as u64,
        first_time: None,
        sequence: 0,
        previous: header.previous,
        time_ms: 0,
        covered: BTreeMap::new(),
        head: None,
        witnessed: BTreeMap::new(),
        since_head: 0,
        known: HashSet::new(),
        sealed: Vec::new(),
    })
}

fn headers(folder: &Path, settings: &Settings) -> Result<Vec<(PathBuf, Header)>, OpenError> {
    let mut segments: Vec<(PathBuf, Header)> = Vec::new();
    for (first, path) in segment::list(folder).map_err(OpenError::disk(folder))? {
        let header = match segment::header(&path).map_err(OpenError::disk(&path))? {
            Ok(header) => header,
            Err(reason) => return Err(quarantine(&path, 0, reason)),
        };
        if header.cluster != settings.cluster {
            return Err(OpenError::Foreign {
                file: path,
                reason: "it belongs to another cluster",
            });
        }
        if header.node != settings.node {
            return Err(OpenError::Foreign {
                file: path,
                reason: "it belongs to another node",
            });
        }
        if header.first != first || first == 0 {
            return Err(quarantine(&path, 0, "segment has the name of another"));
        }
        segments.push((path, header));
    }
    Ok(segments)
}

/// Whether anything behind the damage shows that the record which should stand at `offset` was durable.
fn refuse_if_durable(path: &Path, offset: u64, expected: u64, reason: &str) -> Result<(), OpenError> {
    let bytes = fs::read(path).map_err(OpenError::disk(path))?;
    let from = usize::try_from(offset).unwrap_or(usize::MAX);
    match frame::find(&bytes, from.saturating_add(1), |record| record.synced >= expected) {
        None => Ok(()),
        Some(later) => Err(quarantine(
            path,
            offset,
            &format!(
                "{reason}, and record {} behind it says that {expected} was on disk",
                later.sequence
            ),
        )),
    }
}

/// Adds the capabilities that stand whole in this record.
pub(super) fn remember(record: &Record, known: &mut HashSet<[u8; 32]>) {
    for capability in record
        .entry()
        .and_then(|entry| entry.evidence.as_ref())
        .iter()
        .flat_map(|e| &e.capabilities)
    {
        if let Capability::Whole(_) = capability {
            known.insert(capability.hash());
        }
    }
}

fn length_of(path: &Path) -> Result<u64, OpenError> {
    Ok(fs::metadata(path).map_err(OpenError::disk(path))?.len())
}

fn is_compressed(path: &Path) -> Result<bool, OpenError> {
    let contents = Contents::begin(path).map_err(OpenError::disk(path))?;
    Ok(contents.is_compressed())
}

fn quarantine(file: &Path, offset: u64, reason: &str) -> OpenError {
    OpenError::Quarantined {
        file: file.to_owned(),
        offset,
        reason: reason.to_owned(),
    }
}
