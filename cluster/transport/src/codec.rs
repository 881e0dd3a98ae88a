//! The bytes of a connection for somebody who has no connection: reads what a peer may send and writes it again. What a
//! connection itself reads goes the same way; the fuzz targets come in here.

use std::time::Duration;

use crate::frame::{FrameReader, ReadError};
use crate::hello::{self, Hello};

/// The first frame of a side, read and written again; `None` if it is none.
pub fn hello(bytes: &[u8]) -> Option<Vec<u8>> {
    let bytes: &[u8; hello::SIZE] = bytes.try_into().ok()?;
    Some(Hello::decode(bytes).ok()?.encode().to_vec())
}

/// The frames that these bytes begin with, each read and written again, under this bound on a payload in bytes; and
/// whether the bytes ended after a whole frame.
pub async fn frames(bytes: &[u8], payload: usize) -> (Vec<Vec<u8>>, bool) {
    let mut reader = FrameReader::new(bytes, payload, Duration::MAX);
    let mut frames = Vec::new();
    let mut read = 0;
    loop {
        match reader.next().await {
            Ok(frame) => {
                let mut written = Vec::new();
                let payload = frame.encode(&mut written);
                written.extend_from_slice(&payload);
                read += written.len();
                frames.push(written);
            }
            Err(ReadError::Io(_)) => return (frames, read == bytes.len()),
            Err(_) => return (frames, false),
        }
    }
}
