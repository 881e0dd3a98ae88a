//! How a record lies in a segment: `magic (4) || length (4, LE) || CRC-32 (4, LE) of length and payload || payload`,
//! the payload being the postcard form of the record. The length is checked before anything is read by it.

use serde::{Deserialize, Serialize};

use super::chain;
use super::record::{Content, Record};

/// Bytes before the payload.
pub(super) const OVERHEAD: usize = 12;
/// Longest payload that is written or read.
pub(super) const MAX_PAYLOAD: usize = 1 << 20;
/// The first bytes of every record; a search for what follows a damaged one starts from it.
pub(super) const MAGIC: [u8; 4] = [0xa7, b'C', b'r', 0xd1];

/// What the payload encodes: a record without its own hash.
#[derive(Serialize, Deserialize)]
struct Payload {
    sequence: u64,
    synced: u64,
    time_ms: u64,
    previous: [u8; 32],
    content: Content,
}

fn checksum(length: [u8; 4], payload: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&length);
    crc.update(payload);
    crc.finalize()
}

/// Appends the record's frame to `out` and returns the record's hash; `None` if it is longer than a payload may be.
pub(super) fn encode(
    out: &mut Vec<u8>,
    sequence: u64,
    synced: u64,
    time_ms: u64,
    previous: [u8; 32],
    content: Content,
) -> Option<[u8; 32]> {
    let payload = postcard::to_stdvec(&Payload {
        sequence,
        synced,
        time_ms,
        previous,
        content,
    })
    .ok()?;
    if payload.len() > MAX_PAYLOAD {
        return None;
    }
    let length = u32::try_from(payload.len()).ok()?.to_le_bytes();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&length);
    out.extend_from_slice(&checksum(length, &payload).to_le_bytes());
    out.extend_from_slice(&payload);
    Some(chain::record(&payload))
}

/// The payload length that a frame's first bytes announce, if they may begin a frame.
pub(super) fn announced(header: &[u8; OVERHEAD]) -> Option<usize> {
    let [m0, m1, m2, m3, l0, l1, l2, l3, ..] = *header;
    if [m0, m1, m2, m3] != MAGIC {
        return None;
    }
    let length = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).ok()?;
    (length > 0 && length <= MAX_PAYLOAD).then_some(length)
}

/// Decodes a payload whose length [`announced`] gave.
pub(super) fn decode(header: &[u8; OVERHEAD], payload: &[u8]) -> Result<Record, &'static str> {
    let [_, _, _, _, l0, l1, l2, l3, c0, c1, c2, c3] = *header;
    if checksum([l0, l1, l2, l3], payload) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Err("checksum does not match");
    }
    let (found, rest) =
        postcard::take_from_bytes::<Payload>(payload).map_err(|_| "record cannot be decoded")?;
    if !rest.is_empty() {
        return Err("record is longer than its content");
    }
    let Payload {
        sequence,
        synced,
        time_ms,
        previous,
        content,
    } = found;
    Ok(Record {
        sequence,
        synced,
        time_ms,
        previous,
        hash: chain::record(payload),
        content,
    })
}

/// The first whole record at or after `from` in `bytes` that `wanted` accepts.
pub(super) fn find(bytes: &[u8], from: usize, wanted: impl Fn(&Record) -> bool) -> Option<Record> {
    let mut at = from;
    while let Some(step) = bytes
        .get(at..)
        .and_then(|rest| rest.windows(4).position(|four| four == MAGIC))
    {
        at += step;
        let found = bytes
            .get(at..at + OVERHEAD)
            .and_then(|header| <&[u8; OVERHEAD]>::try_from(header).ok())
            .and_then(|header| {
                let length = announced(header)?;
                let payload = bytes.get(at + OVERHEAD..at + OVERHEAD + length)?;
                decode(header, payload).ok()
            });
        match found {
            Some(record) if wanted(&record) => return Some(record),
            _ => at += 1,
        }
    }
    None
}
