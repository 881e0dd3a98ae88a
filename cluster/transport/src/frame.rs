//! What travels on a connection after the hello: length, kind, body. The length is checked before anything is read.
//!
//! A frame is `u32 length (big endian, of what follows) | u8 kind | body`. Call: `u64 id | u32 microseconds left |
//! payload`. Answer: `u64 id | u8 status | payload`. A refusal's payload: `u16 code | UTF-8 detail`.

use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt, BufReader};
use tokio::time::timeout;

use crate::network::Refused;

/// Bytes in a frame besides its payload, length prefix not counted.
pub(crate) const OVERHEAD: usize = 13;
const DETAIL: usize = 512;
const BUFFER: usize = 64 * 1024;

const MESSAGE: u8 = 1;
const CALL: u8 = 2;
const ANSWER: u8 = 3;
const PING: u8 = 4;
const PONG: u8 = 5;

const DONE: u8 = 0;
const BUSY: u8 = 1;
const FAILED: u8 = 2;
const REFUSED: u8 = 3;

/// What became of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Done(Bytes),
    /// Not looked at, or refused by the handler as busy.
    Busy,
    /// The handler ended without an answer, or its answer was too large.
    Failed,
    Refused {
        code: u16,
        detail: String,
    },
}

impl From<Result<Bytes, Refused>> for Verdict {
    fn from(result: Result<Bytes, Refused>) -> Self {
        match result {
            Ok(bytes) => Verdict::Done(bytes),
            Err(Refused::Busy) => Verdict::Busy,
            Err(Refused::Because { code, mut detail }) => {
                let mut end = detail.len().min(DETAIL);
                while !detail.is_char_boundary(end) {
                    end -= 1;
                }
                detail.truncate(end);
                Verdict::Refused { code, detail }
            }
        }
    }
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Message(Bytes),
    Call { id: u64, left: Duration, payload: Bytes },
    Answer { id: u64, verdict: Verdict },
    Ping,
    Pong,
}

impl Frame {
    /// The bytes that the queue and the counters charge for it.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Frame::Message(payload) | Frame::Call { payload, .. } => payload.len(),
            Frame::Answer {
                verdict: Verdict::Done(payload),
                ..
            } => payload.len(),
            Frame::Answer {
                verdict: Verdict::Refused { detail, .. },
                ..
            } => detail.len(),
            Frame::Answer { .. } | Frame::Ping | Frame::Pong => 0,
        }
    }

    /// Puts all but the payload into `head` and returns the payload; on the wire it follows.
    pub(crate) fn encode(&self, head: &mut Vec<u8>) -> Bytes {
        head.clear();
        head.extend_from_slice(&[0; 4]);
        let payload = match self {
            Frame::Message(payload) => {
                head.push(MESSAGE);
                payload.clone()
            }
            Frame::Call { id, left, payload } => {
                head.push(CALL);
                head.extend_from_slice(&id.to_be_bytes());
                let left = u32::try_from(left.as_micros()).unwrap_or(u32::MAX);
                head.extend_from_slice(&left.to_be_bytes());
                payload.clone()
            }
            Frame::Answer { id, verdict } => {
                head.push(ANSWER);
                head.extend_from_slice(&id.to_be_bytes());
                match verdict {
                    Verdict::Done(payload) => {
                        head.push(DONE);
                        payload.clone()
                    }
                    Verdict::Busy => {
                        head.push(BUSY);
                        Bytes::new()
                    }
                    Verdict::Failed => {
                        head.push(FAILED);
                        Bytes::new()
                    }
                    Verdict::Refused { code, detail } => {
                        head.push(REFUSED);
                        head.extend_from_slice(&code.to_be_bytes());
                        head.extend_from_slice(detail.as_bytes());
                        Bytes::new()
                    }
                }
            }
            Frame::Ping => {
                head.push(PING);
                Bytes::new()
            }
            Frame::Pong => {
                head.push(PONG);
                Bytes::new()
            }
        };
        let length = u32::try_from(head.len() - 4 + payload.len()).unwrap_or(u32::MAX);
        head[..4].copy_from_slice(&length.to_be_bytes());
        payload
    }

    /// What these bytes (a frame without its length prefix) say; `None` if they are no frame.
    pub(crate) fn decode(mut bytes: Bytes) -> Option<Frame> {
        let kind = bytes.try_get_u8().ok()?;
        match kind {
            MESSAGE => Some(Frame::Message(bytes)),
            CALL => {
                let id = bytes.try_get_u64().ok()?;
                let left = Duration::from_micros(u64::from(bytes.try_get_u32().ok()?));
                Some(Frame::Call {
                    id,
                    left,
                    payload: bytes,
                })
            }
            ANSWER => {
                let id = bytes.try_get_u64().ok()?;
                let verdict = match bytes.try_get_u8().ok()? {
                    DONE => Verdict::Done(bytes),
                    BUSY if bytes.is_empty() => Verdict::Busy,
                    FAILED if bytes.is_empty() => Verdict::Failed,
                    REFUSED => {
                        let code = bytes.try_get_u16().ok()?;
                        if bytes.len() > DETAIL {
                            return None;
                        }
                        Verdict::Refused {
                            code,
                            detail: std::str::from_utf8(&bytes).ok()?.to_owned(),
                        }
                    }
                    _ => return None,
                };
                Some(Frame::Answer { id, verdict })
            }
            PING if bytes.is_empty() => Some(Frame::Ping),
            PONG if bytes.is_empty() => Some(Frame::Pong),
            _ => None,
        }
    }
}

/// Why no frame came.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("connection: {0}")]
    Io(#[from] io::Error),
    #[error("nothing arrived for too long")]
    Silent,
    #[error("a frame of {0} bytes is announced")]
    Length(u32),
    #[error("not a frame")]
    Malformed,
}

/// Reads frames of bounded size from a stream.
pub(crate) struct FrameReader<R> {
    stream: BufReader<R>,
    most: usize,
    silence: Duration,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// `payload` is the largest payload; `silence` the longest wait for any bytes.
    pub(crate) fn new(stream: R, payload: usize, silence: Duration) -> Self {
        Self {
            stream: BufReader::with_capacity(BUFFER, stream),
            most: payload + OVERHEAD,
            silence,
        }
    }

    /// The next frame. Not cancel safe: drop the reader with the future.
    pub(crate) async fn next(&mut self) -> Result<Frame, ReadError> {
        let mut prefix = [0; 4];
        timeout(self.silence, self.stream.read_exact(&mut prefix))
            .await
            .map_err(|_| ReadError::Silent)??;
        let length = u32::from_be_bytes(prefix);
        let size = usize::try_from(length).unwrap_or(usize::MAX);
        // A refusal's text is the one body that the lane's payload bound does not speak of.
        if size > self.most.max(OVERHEAD + DETAIL) {
            return Err(ReadError::Length(length));
        }
        let mut body = vec![0; size];
        let mut filled = 0;
        while filled < size {
            let read = timeout(self.silence, self.stream.read(&mut body[filled..]));
            match read.await.map_err(|_| ReadError::Silent)?? {
                0 => return Err(ReadError::Io(io::ErrorKind::UnexpectedEof.into())),
                n => filled += n,
            }
        }
        Frame::decode(Bytes::from(body)).ok_or(ReadError::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(frame: &Frame) -> Vec<u8> {
        let mut bytes = Vec::new();
        let payload = frame.encode(&mut bytes);
        bytes.extend_from_slice(&payload);
        bytes
    }

    fn samples() -> Vec<Frame> {
        let payload = Bytes::from_static(b"payload");
        vec![
            Frame::Message(payload.clone()),
            Frame::Message(Bytes::new()),
            Frame::Call {
                id: 7,
                left: Duration::from_micros(1_500_001),
                payload: payload.clone(),
            },
            Frame::Answer {
                id: u64::MAX,
                verdict: Verdict::Done(payload),
            },
            Frame::Answer {
                id: 0,
                verdict: Verdict::Busy,
            },
            Frame::Answer {
                id: 1,
                verdict: Verdict::Failed,
            },
            Frame::Answer {
                id: 2,
                verdict: Verdict::Refused {
                    code: 513,
                    detail: "käfig".into(),
                },
            },
            Frame::Ping,
            Frame::Pong,
        ]
    }

    #[test]
    fn layout_is_fixed() {
        let call = Frame::Call {
            id: 0x0102,
            left: Duration::from_millis(1),
            payload: Bytes::from_static(b"ab"),
        };
        assert_eq!(
            wire(&call),
            [0, 0, 0, 15, 2, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 3, 232, b'a', b'b']
        );
        assert_eq!(wire(&Frame::Ping), [0, 0, 0, 1, 4]);
    }

    #[test]
    fn every_frame_comes_back_and_no_cut_one_is_another() {
        for frame in samples() {
            let bytes = wire(&frame);
            assert_eq!(
                Frame::decode(Bytes::copy_from_slice(&bytes[4..])),
                Some(frame.clone())
            );
            for end in 4..bytes.len() {
                assert_ne!(
                    Frame::decode(Bytes::copy_from_slice(&bytes[4..end])),
                    Some(frame.clone())
                );
            }
        }
    }

    #[test]
    fn arbitrary_bytes_do_not_panic() {
        let mut seed = 1_u64;
        for _ in 0..20_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let length = (seed >> 60) as usize;
            let mut bytes = seed.to_le_bytes().repeat(2);
            bytes.truncate(length);
            if let Some(first) = bytes.first_mut() {
                *first %= 7;
            }
            let _ = Frame::decode(Bytes::from(bytes));
        }
    }

    #[test]
    fn a_long_detail_is_cut_at_a_character() {
        let refused = Refused::Because {
            code: 1,
            detail: format!("a{}", "é".repeat(400)),
        };
        let Verdict::Refused { detail, .. } = Verdict::from(Err(refused)) else {
            panic!("not refused")
        };
        assert_eq!(detail.len(), 511);
    }

    #[tokio::test]
    async fn the_length_is_refused_before_the_body_is_read() {
        let (mut far, near) = tokio::io::duplex(64);
        tokio::io::AsyncWriteExt::write_all(&mut far, &100_000_000_u32.to_be_bytes())
            .await
            .unwrap();
        let mut reader = FrameReader::new(near, 1000, Duration::from_secs(60));
        assert!(matches!(reader.next().await, Err(ReadError::Length(100_000_000))));
    }
}
