//! The sealed parts of a backup: records in numbered segments of AES-256-GCM, the last one marked.
//!
//! ```text
//! section 1 (with bit 8 in the last segment), length 4 (big endian), ciphertext and tag
//! ```
//! The key is HKDF(the sealed key, header hash, section); the nonce is section and number; the associated data are the header's
//! hash, the mark and the number. So no segment can be left out, doubled, moved, cut off, or taken from another backup.

use std::io::{self, Read, Write};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::RecoveryError;
use super::officers::BackupKey;
use crate::seal::node_key::derive;

/// Plaintext of a segment, bytes.
const SEGMENT: usize = 256 * 1024;
const TAG: usize = 16;
const LAST: u8 = 0x80;
/// The longest record: a pair of the state of 1 MiB, and its frame.
pub(super) const MAX_RECORD: usize = 1024 * 1024 + 1024;
const LABEL: &[u8] = b"conclave backup v1";

/// Which part of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Section {
    /// The groups' state, the names of the shares, the audit chain.
    State = 1,
    /// The shares.
    Shares = 2,
}

struct Cipher {
    key: LessSafeKey,
    header: [u8; 32],
    section: Section,
    number: u64,
}

impl Cipher {
    fn new(key: &BackupKey, header: [u8; 32], section: Section) -> Self {
        let derived = derive(key, LABEL, &[&[section as u8], &header]);
        let key = UnboundKey::new(&AES_256_GCM, &derived[..]).expect("an AES-256 key has 32 bytes");
        Self {
            key: LessSafeKey::new(key),
            header,
            section,
            number: 0,
        }
    }

    /// Nonce and associated data of the next segment.
    fn next(&mut self, mark: u8) -> (Nonce, [u8; 41]) {
        let mut nonce = [0; 12];
        nonce[0] = self.section as u8;
        nonce[4..].copy_from_slice(&self.number.to_be_bytes());
        let mut data = [mark; 41];
        data[1..33].copy_from_slice(&self.header);
        data[33..].copy_from_slice(&self.number.to_be_bytes());
        self.number += 1;
        (Nonce::assume_unique_for_key(nonce), data)
    }
}

/// Writes one section.
pub struct SectionWriter<'a, W> {
    to: &'a mut W,
    cipher: Cipher,
    /// Both with all the room that they will ever need: growing would leave copies of secrets behind.
    plain: Zeroizing<Vec<u8>>,
    record: Zeroizing<Vec<u8>>,
}

impl<'a, W: Write> SectionWriter<'a, W> {
    /// Begins a section of the backup whose header has this hash.
    pub fn new(to: &'a mut W, key: &BackupKey, header: [u8; 32], section: Section) -> Self {
        Self {
            to,
            cipher: Cipher::new(key, header, section),
            plain: Zeroizing::new(Vec::with_capacity(SEGMENT + TAG)),
            record: Zeroizing::new(vec![0; MAX_RECORD]),
        }
    }

    /// Appends a record.
    ///
    /// # Errors
    /// One that is too long, or what the system says.
    pub fn record(&mut self, record: &impl Serialize) -> Result<(), RecoveryError> {
        let mut room = std::mem::take(&mut self.record);
        let length = match postcard::to_slice(record, &mut room) {
            Ok(text) => text.len(),
            Err(_) => return Err(RecoveryError::Content("a record is too long")),
        };
        let framed = u32::try_from(length).map_err(|_| RecoveryError::Content("a record is too long"))?;
        self.append(&framed.to_be_bytes())?;
        self.append(&room[..length])?;
        self.record = room;
        Ok(())
    }

    fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.plain.len() == SEGMENT {
                self.seal(0)?;
            }
            let (now, later) = bytes.split_at(bytes.len().min(SEGMENT - self.plain.len()));
            self.plain.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    fn seal(&mut self, last: u8) -> io::Result<()> {
        let mark = self.cipher.section as u8 | last;
        let (nonce, data) = self.cipher.next(mark);
        self.cipher
            .key
            .seal_in_place_append_tag(nonce, Aad::from(data), &mut *self.plain)
            .map_err(|_| io::Error::other("a segment could not be sealed"))?;
        let length = u32::try_from(self.plain.len()).map_err(io::Error::other)?;
        self.to.write_all(&[mark])?;
        self.to.write_all(&length.to_be_bytes())?;
        self.to.write_all(&self.plain)?;
        self.plain.clear();
        Ok(())
    }

    /// Ends the section with its last segment.
    ///
    /// # Errors
    /// What the system says.
    pub fn finish(mut self) -> io::Result<()> {
        self.seal(LAST)
    }
}

/// Reads one section.
pub struct SectionReader<'a, R> {
    from: &'a mut R,
    cipher: Cipher,
    segment: Zeroizing<Vec<u8>>,
    /// How much of the opened segment has been read, and its length.
    read: usize,
    length: usize,
    is_last: bool,
    record: Zeroizing<Vec<u8>>,
}

impl<'a, R: Read> SectionReader<'a, R> {
    /// Begins a section of the backup whose header has this hash.
    pub fn new(from: &'a mut R, key: &BackupKey, header: [u8; 32], section: Section) -> Self {
        Self {
            from,
            cipher: Cipher::new(key, header, section),
            segment: Zeroizing::new(vec![0; SEGMENT + TAG]),
            read: 0,
            length: 0,
            is_last: false,
            record: Zeroizing::new(vec![0; MAX_RECORD]),
        }
    }

    /// The next record; none at the section's end.
    ///
    /// # Errors
    /// [`RecoveryError::Content`] if anything is not as it was written.
    pub fn record<'b, T: Deserialize<'b>>(&'b mut self) -> Result<Option<T>, RecoveryError> {
        let mut length = [0; 4];
        let got = self.fill(&mut length)?;
        if got == 0 {
            return Ok(None);
        }
        let broken = RecoveryError::Content("it ends inside a record");
        if got < length.len() {
            return Err(broken);
        }
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > MAX_RECORD {
            return Err(RecoveryError::Content("a record is too long"));
        }
        let mut record = std::mem::take(&mut self.record);
        let got = self.fill(&mut record[..length])?;
        self.record = record;
        if got < length {
            return Err(broken);
        }
        match postcard::take_from_bytes(&self.record[..length]) {
            Ok((record, [])) => Ok(Some(record)),
            _ => Err(RecoveryError::Content("a record cannot be read")),
        }
    }

    /// Fills as much as there is.
    fn fill(&mut self, into: &mut [u8]) -> Result<usize, RecoveryError> {
        let mut done = 0;
        while done < into.len() {
            if self.read == self.length {
                if self.is_last {
                    break;
                }
                self.open()?;
                continue;
            }
            let some = (into.len() - done).min(self.length - self.read);
            into[done..done + some].copy_from_slice(&self.segment[self.read..self.read + some]);
            done += some;
            self.read += some;
        }
        Ok(done)
    }

    fn open(&mut self) -> Result<(), RecoveryError> {
        let mut front = [0; 5];
        self.from.read_exact(&mut front).map_err(cut)?;
        let [mark, length @ ..] = front;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if mark & !LAST != self.cipher.section as u8 || !(TAG..=SEGMENT + TAG).contains(&length) {
            return Err(RecoveryError::Content("a segment of this section was expected"));
        }
        self.from.read_exact(&mut self.segment[..length]).map_err(cut)?;
        let (nonce, data) = self.cipher.next(mark);
        let opened = self
            .cipher
            .key
            .open_in_place(nonce, Aad::from(data), &mut self.segment[..length])
            .map_err(|_| RecoveryError::Content("a segment is not what was sealed, or its key is another"))?;
        self.length = opened.len();
        self.read = 0;
        self.is_last = mark & LAST != 0;
        if self.length == 0 && !self.is_last {
            return Err(RecoveryError::Content("an empty segment that is not the last"));
        }
        Ok(())
    }
}

/// Skips a section without its key. Its end is believed: nothing of it is.
///
/// # Errors
/// [`RecoveryError::Content`] if there is no such section.
pub fn skip(from: &mut impl Read, section: Section) -> Result<(), RecoveryError> {
    loop {
        let mut front = [0; 5];
        from.read_exact(&mut front).map_err(cut)?;
        let [mark, length @ ..] = front;
        let length = u64::from(u32::from_be_bytes(length));
        if mark & !LAST != section as u8 || length > (SEGMENT + TAG) as u64 {
            return Err(RecoveryError::Content("a segment of this section was expected"));
        }
        if io::copy(&mut from.take(length), &mut io::sink())? != length {
            return Err(RecoveryError::Content("the file was cut off"));
        }
        if mark & LAST != 0 {
            return Ok(());
        }
    }
}

fn cut(error: io::Error) -> RecoveryError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => RecoveryError::Content("the file was cut off"),
        _ => RecoveryError::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: [u8; 32] = [5; 32];

    fn key(byte: u8) -> BackupKey {
        BackupKey::new([byte; 32])
    }

    /// Records of all lengths, over several segments.
    fn written() -> (Vec<Vec<u8>>, Vec<u8>) {
        let records: Vec<Vec<u8>> = (0..12u8).map(|n| vec![n; usize::from(n) * 50_000]).collect();
        let mut bytes = Vec::new();
        let mut writer = SectionWriter::new(&mut bytes, &key(1), HEADER, Section::Shares);
        for record in &records {
            writer.record(record).unwrap();
        }
        writer.finish().unwrap();
        (records, bytes)
    }

    fn read(mut bytes: &[u8], key: &BackupKey, header: [u8; 32]) -> Result<Vec<Vec<u8>>, RecoveryError> {
        let mut reader = SectionReader::new(&mut bytes, key, header, Section::Shares);
        let mut records = Vec::new();
        while let Some(record) = reader.record()? {
            records.push(record);
        }
        Ok(records)
    }

    /// Where each segment begins.
    fn segments(bytes: &[u8]) -> Vec<usize> {
        let (mut starts, mut at) = (Vec::new(), 0);
        while at < bytes.len() {
            starts.push(at);
            at += 5 + u32::from_be_bytes(bytes[at + 1..at + 5].try_into().unwrap()) as usize;
        }
        starts
    }

    #[test]
    fn what_was_written_is_read() {
        let (records, bytes) = written();
        assert_eq!(read(&bytes, &key(1), HEADER).unwrap(), records);
        let mut rest = bytes.as_slice();
        skip(&mut rest, Section::Shares).unwrap();
        assert!(rest.is_empty());
        let mut nothing = Vec::new();
        let writer = SectionWriter::new(&mut nothing, &key(1), HEADER, Section::Shares);
        writer.finish().unwrap();
        assert!(read(&nothing, &key(1), HEADER).unwrap().is_empty());
    }

    #[test]
    fn another_key_or_header_opens_nothing() {
        let (_, bytes) = written();
        assert!(read(&bytes, &key(2), HEADER).is_err());
        assert!(read(&bytes, &key(1), [6; 32]).is_err());
        let mut other = bytes.as_slice();
        let mut reader = SectionReader::new(&mut other, &key(1), HEADER, Section::State);
        assert!(reader.record::<Vec<u8>>().is_err());
    }

    #[test]
    fn segments_cannot_be_cut_off_left_out_moved_or_changed() {
        let (_, bytes) = written();
        let starts = segments(&bytes);
        assert!(starts.len() > 4, "{starts:?}");
        for (at, start) in starts.iter().enumerate() {
            let end = starts.get(at + 1).copied().unwrap_or(bytes.len());
            assert!(
                read(&bytes[..*start], &key(1), HEADER).is_err(),
                "cut before segment {at}"
            );
            assert!(
                read(&bytes[..end - 1], &key(1), HEADER).is_err(),
                "cut in segment {at}"
            );
            let without = [&bytes[..*start], &bytes[end..]].concat();
            assert!(read(&without, &key(1), HEADER).is_err(), "without segment {at}");
            let twice = [&bytes[..end], &bytes[*start..]].concat();
            // After the last one nothing is read any more.
            assert_eq!(
                read(&twice, &key(1), HEADER).is_err(),
                at + 1 < starts.len(),
                "segment {at} twice"
            );
            for place in [0, 1, 4, 5, 100] {
                let mut changed = bytes.clone();
                changed[start + place] ^= 0x81;
                assert!(
                    read(&changed, &key(1), HEADER).is_err(),
                    "segment {at}, byte {place}"
                );
            }
        }
    }

    #[test]
    fn no_segment_can_be_called_the_last_one() {
        // Each record fills a segment, so that the section could end after any of them.
        let record = vec![7_u8; SEGMENT - 4 - 3];
        let mut bytes = Vec::new();
        let mut writer = SectionWriter::new(&mut bytes, &key(1), HEADER, Section::Shares);
        for _ in 0..3 {
            writer.record(&record).unwrap();
        }
        writer.finish().unwrap();
        assert_eq!(read(&bytes, &key(1), HEADER).unwrap().len(), 3);
        let starts = segments(&bytes);
        assert_eq!(starts.len(), 3);
        for (last, end) in [(0, starts[1]), (starts[1], starts[2])] {
            let mut early = bytes[..end].to_vec();
            early[last] |= LAST;
            assert!(read(&early, &key(1), HEADER).is_err());
        }
        let mut endless = bytes;
        endless[starts[2]] &= !LAST;
        assert!(read(&endless, &key(1), HEADER).is_err());
    }

    #[test]
    fn a_record_that_is_too_long_is_not_written() {
        let mut bytes = Vec::new();
        let mut writer = SectionWriter::new(&mut bytes, &key(1), HEADER, Section::Shares);
        assert!(writer.record(&vec![0_u8; MAX_RECORD]).is_err());
    }
}
