//! The bytes of a segment as they were written, whether its file holds them as they are or compressed. Compressed ones
//! are a single gzip member and nothing after it, so `gunzip` makes the old file of it. Read as a stream: whatever a
//! file claims, no more than a buffer of it is in memory, and no more than a segment can have is read.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Take};
use std::path::Path;

use flate2::bufread::GzDecoder;

/// Longest segment, without what its last record is beyond it.
pub(super) const MAX_SEGMENT: u64 = 1 << 30;
/// What is wrong with a compressed segment that cannot be read.
pub(super) const DAMAGED: &str = "compressed segment cannot be decompressed";

/// More than any segment has: a record may begin just below its end.
const LONGEST: u64 = MAX_SEGMENT + (2 << 20);
/// How gzip begins; a segment's own header begins otherwise.
const GZIP: [u8; 2] = [0x1f, 0x8b];
const BUFFER: usize = 256 << 10;
const SMALL_BUFFER: usize = 1 << 10;

/// A segment's bytes, from its header on.
pub(super) enum Contents {
    /// As they are.
    Plain(BufReader<File>),
    /// Compressed.
    Compressed(Box<BufReader<Take<GzDecoder<BufReader<File>>>>>),
}

impl Contents {
    pub(super) fn open(path: &Path) -> io::Result<Contents> {
        Contents::open_with(path, BUFFER, LONGEST)
    }

    /// For somebody who wants no more than the header.
    pub(super) fn begin(path: &Path) -> io::Result<Contents> {
        Contents::open_with(path, SMALL_BUFFER, LONGEST)
    }

    /// `longest` bounds what a compressed file may hold.
    pub(super) fn open_with(path: &Path, buffer: usize, longest: u64) -> io::Result<Contents> {
        let mut file = BufReader::with_capacity(buffer, File::open(path)?);
        Ok(match file.fill_buf()?.starts_with(&GZIP) {
            true => {
                let contents = GzDecoder::new(file).take(longest);
                Contents::Compressed(Box::new(BufReader::with_capacity(buffer, contents)))
            }
            false => Contents::Plain(file),
        })
    }

    pub(super) fn is_compressed(&self) -> bool {
        matches!(self, Contents::Compressed(_))
    }

    /// Whether an error is about what the file holds, not about the disk.
    pub(super) fn is_damage(&self, error: &io::Error) -> bool {
        use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
        self.is_compressed() && matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof)
    }
}

impl Read for Contents {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let contents = match self {
            Contents::Plain(file) => return file.read(into),
            Contents::Compressed(contents) => contents,
        };
        let got = contents.read(into)?;
        if got == 0 && !into.is_empty() {
            let contents = contents.get_mut();
            if contents.limit() == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "longer than a segment",
                ));
            }
            if !contents.get_mut().get_mut().fill_buf()?.is_empty() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "something follows"));
            }
        }
        Ok(got)
    }
}
