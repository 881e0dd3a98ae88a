//! One segment file: its header, its name, and a scanner that reads its records in order and says exactly where
//! and why they stop making sense. `<first sequence, 20 digits>.audit`; a header of 128 bytes; then frames; then
//! zeros up to the preallocated length. A sealed segment may be compressed: the same bytes, without the zeros, in gzip.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::contents::{self, Contents};
use super::frame::{self, OVERHEAD};
use super::record::Record;
use super::space;

/// Bytes before the first record.
pub(super) const HEADER: usize = 128;
const MAGIC: [u8; 8] = *b"CONCLAUD";
const FORMAT: u16 = 1;
const SUFFIX: &str = ".audit";
const UNFINISHED: &str = ".audit.new";
/// What follows the name of a segment that is being made, or made anew.
pub(super) const UNFINISHED_AFTER: &str = ".new";

/// What the first 128 bytes of a segment say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) cluster: [u8; 32],
    pub(super) node: u64,
    /// Number of the segment's first record.
    pub(super) first: u64,
    /// No record of the segment is older; 0 in a node's first segment.
    pub(super) created_ms: u64,
    /// Hash of the record before the first.
    pub(super) previous: [u8; 32],
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        out[0..8].copy_from_slice(&MAGIC);
        out[8..10].copy_from_slice(&FORMAT.to_le_bytes());
        out[16..48].copy_from_slice(&self.cluster);
        out[48..56].copy_from_slice(&self.node.to_le_bytes());
        out[56..64].copy_from_slice(&self.first.to_le_bytes());
        out[64..72].copy_from_slice(&self.created_ms.to_le_bytes());
        out[72..104].copy_from_slice(&self.previous);
        let crc = crc32fast::hash(&out[..HEADER - 4]);
        out[HEADER - 4..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8; HEADER]) -> Result<Header, &'static str> {
        if bytes[0..8] != MAGIC {
            return Err("not an audit segment");
        }
        if crc32fast::hash(&bytes[..HEADER - 4]).to_le_bytes() != bytes[HEADER - 4..] {
            return Err("segment header's checksum does not match");
        }
        if bytes[8..10] != FORMAT.to_le_bytes() {
            return Err("segment has a format that this build does not know");
        }
        let number = |at: usize| {
            let mut eight = [0; 8];
            eight.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(eight)
        };
        let (mut cluster, mut previous) = ([0; 32], [0; 32]);
        cluster.copy_from_slice(&bytes[16..48]);
        previous.copy_from_slice(&bytes[72..104]);
        let header = Header {
            cluster,
            node: number(48),
            first: number(56),
            created_ms: number(64),
            previous,
        };
        if header.encode() != *bytes {
            return Err("segment header says more than its format");
        }
        Ok(header)
    }
}

/// The segments of a folder by their names, oldest first.
pub(super) fn list(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for file in fs::read_dir(folder)? {
        let path = file?.path();
        let first = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_suffix(SUFFIX))
            .and_then(|digits| digits.parse().ok());
        if let Some(first) = first {
            found.push((first, path));
        }
    }
    found.sort();
    Ok(found)
}

/// Removes segments whose making was cut off: no record was ever written to them alone.
pub(super) fn remove_unfinished(folder: &Path) -> io::Result<()> {
    for file in fs::read_dir(folder)? {
        let path = file?.path();
        if path
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.ends_with(UNFINISHED))
        {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Makes a segment with its space reserved. It has its name only once its header is on disk.
pub(super) fn create(folder: &Path, header: &Header, bytes: u64) -> io::Result<(PathBuf, File)> {
    let unfinished = folder.join(format!("{:020}{UNFINISHED}", header.first));
    let made = (|| {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&unfinished)?;
        space::reserve(&file, bytes)?;
        file.write_all_at(&header.encode(), 0)?;
        file.sync_all()?;
        let path = folder.join(format!("{:020}{SUFFIX}", header.first));
        fs::rename(&unfinished, &path)?;
        File::open(folder)?.sync_all()?;
        Ok((path, file))
    })();
    if made.is_err() {
        // The first error is the one to tell; what is left over is removed at the next opening at the latest.
        let _ = fs::remove_file(&unfinished);
    }
    made
}

/// The header of a segment; the inner error says what is wrong with it.
pub(super) fn header(path: &Path) -> io::Result<Result<Header, &'static str>> {
    let mut bytes = [0; HEADER];
    let mut contents = Contents::begin(path)?;
    match contents.read_exact(&mut bytes) {
        Ok(()) => Ok(Header::decode(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Err("segment is too short")),
        Err(error) if contents.is_damage(&error) => Ok(Err(contents::DAMAGED)),
        Err(error) => Err(error),
    }
}

/// What stands next in a segment.
pub(super) enum Step {
    /// A record that continues the chain.
    Record(Record),
    /// Nothing but zeros, or the end of the file.
    End,
    /// Something else. `torn`: it may be a write that a crash cut off; otherwise it is whole and wrong.
    Bad { reason: &'static str, torn: bool },
}

/// Reads a segment's records in order and checks that each continues the chain.
pub(super) struct Scanner {
    reader: Contents,
    /// Where the next record begins, in the segment as it was written.
    pub(super) offset: u64,
    /// Number of the record that comes next.
    pub(super) expected: u64,
    /// Hash of the record before it.
    pub(super) previous: [u8; 32],
    /// No later record may be older.
    pub(super) time_ms: u64,
}

impl Scanner {
    /// Begins behind the header, which was read already.
    pub(super) fn open(path: &Path, header: &Header) -> io::Result<Scanner> {
        let mut reader = Contents::open(path)?;
        reader.read_exact(&mut [0; HEADER])?;
        Ok(Scanner {
            reader,
            offset: HEADER as u64,
            expected: header.first,
            previous: header.previous,
            time_ms: header.created_ms,
        })
    }

    /// Whether the segment is compressed, as only sealed ones are.
    pub(super) fn is_compressed(&self) -> bool {
        self.reader.is_compressed()
    }

    pub(super) fn step(&mut self) -> io::Result<Step> {
        match self.read_next() {
            Err(error) if self.reader.is_damage(&error) => Ok(Step::Bad {
                reason: contents::DAMAGED,
                torn: false,
            }),
            read => read,
        }
    }

    fn read_next(&mut self) -> io::Result<Step> {
        let mut head = [0; OVERHEAD];
        let got = read_up_to(&mut self.reader, &mut head)?;
        if head[..got].iter().all(|byte| *byte == 0) {
            return self.rest_is_zero();
        }
        if got < OVERHEAD {
            return Ok(Step::Bad {
                reason: "segment ends inside a record",
                torn: true,
            });
        }
        let Some(length) = frame::announced(&head) else {
            return Ok(Step::Bad {
                reason: "no record begins here",
                torn: true,
            });
        };
        let mut payload = vec![0; length];
        if read_up_to(&mut self.reader, &mut payload)? < length {
            return Ok(Step::Bad {
                reason: "segment ends inside a record",
                torn: true,
            });
        }
        let record = match frame::decode(&head, &payload) {
            Ok(record) => record,
            Err(reason) => return Ok(Step::Bad { reason, torn: true }),
        };
        let wrong = if record.sequence != self.expected {
            "record is out of sequence"
        } else if record.previous != self.previous {
            "record does not follow from the one before it"
        } else if record.time_ms < self.time_ms {
            "record is older than the one before it"
        } else if record.synced >= record.sequence {
            "record claims to have been on disk before it was written"
        } else {
            self.offset += (OVERHEAD + length) as u64;
            self.expected += 1;
            self.previous = record.hash;
            self.time_ms = record.time_ms;
            return Ok(Step::Record(record));
        };
        Ok(Step::Bad {
            reason: wrong,
            torn: false,
        })
    }

    fn rest_is_zero(&mut self) -> io::Result<Step> {
        let mut chunk = [0; 16 << 10];
        loop {
            let got = read_up_to(&mut self.reader, &mut chunk)?;
            if chunk[..got].iter().any(|byte| *byte != 0) {
                return Ok(Step::Bad {
                    reason: "no record begins here, yet something follows",
                    torn: true,
                });
            }
            if got < chunk.len() {
                return Ok(Step::End);
            }
        }
    }
}

pub(super) fn read_up_to(reader: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < into.len() {
        match reader.read(&mut into[got..]) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}
