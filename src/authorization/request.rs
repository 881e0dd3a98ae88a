//! A client's request as it was received, the thing that nodes show each other. It is verbatim: nothing here
//! normalises. Before it leaves a node the caller takes [`RawRequest::signed_part`], so that nothing unsigned
//! travels (trust.md 1), and identifies it by [`RawRequest::hash`].

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::Refusal;
use super::http_signature;

/// The longest body, in bytes.
pub const MAX_BODY: usize = 102_400;
/// The longest request target (path and query), in bytes.
pub const MAX_TARGET: usize = 2_048;
/// The most bytes that header names and values may have together, four for each line included.
pub const MAX_HEADERS: usize = 32 * 1024;
/// The most header lines.
pub const MAX_HEADER_LINES: usize = 100;
/// The longest output of [`RawRequest::encode`] that [`RawRequest::decode`] looks at.
pub const MAX_ENCODED: usize = MAX_BODY + MAX_TARGET + MAX_HEADERS + 9 * MAX_HEADER_LINES + 64;

const TAG: &[u8] = b"conclave request 1\n";

/// One HTTP request.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawRequest {
    /// The method in upper case, as on the wire.
    pub method: String,
    /// Path and query exactly as sent, beginning with `/`.
    pub target: String,
    /// The header lines in order: lower-case name, value without surrounding white space.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body's bytes; empty when there is none.
    pub body: Vec<u8>,
}

/// Shows no header value and no byte of the body: a wrap's body is a plaintext key.
impl std::fmt::Debug for RawRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawRequest")
            .field("method", &self.method)
            .field("target", &self.target)
            .field(
                "headers",
                &self
                    .headers
                    .iter()
                    .map(|(name, _)| name.as_str())
                    .collect::<Vec<_>>(),
            )
            .field("body_bytes", &self.body.len())
            .finish()
    }
}

/// Why bytes are not an encoded request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// More than [`MAX_ENCODED`] bytes.
    #[error("encoded request is too long")]
    TooLong,
    /// Cut off, with bytes left over, or with a length or text that does not fit.
    #[error("not an encoded request")]
    Invalid,
}

impl RawRequest {
    /// The value of a header that may occur once: `None` when absent, 400 when it occurs twice.
    pub fn header(&self, name: &str) -> Result<Option<&[u8]>, Refusal> {
        let mut values = self
            .headers
            .iter()
            .filter(|(other, _)| other == name)
            .map(|(_, value)| value);
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(Refusal::Malformed(
                format!("the {name:?} header occurs more than once").into(),
            )),
            (value, None) => Ok(value.map(Vec::as_slice)),
        }
    }

    /// 413, 414 or 431 for what is longer than the limits of this file.
    pub fn check_sizes(&self) -> Result<(), Refusal> {
        if self.target.len() > MAX_TARGET {
            return Err(Refusal::TargetTooLong);
        }
        let bytes: usize = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.len() + 4)
            .sum();
        if self.headers.len() > MAX_HEADER_LINES || bytes > MAX_HEADERS {
            return Err(Refusal::HeadersTooLarge);
        }
        if self.body.len() > MAX_BODY {
            return Err(Refusal::BodyTooLarge);
        }
        Ok(())
    }

    /// The request without any header that its signature does not cover (`authorization` stays).
    /// Fails when the `Authorization` header cannot be read.
    pub fn signed_part(&self) -> Result<RawRequest, Refusal> {
        let value = self
            .header("authorization")?
            .ok_or(Refusal::MissingAuthorization)?;
        let parsed = http_signature::SignatureHeader::parse(value)?;
        // Before the rest is left out: what had to be signed and was not is to be named as that.
        parsed.check_coverage(self)?;
        let kept = |name: &str| name == "authorization" || parsed.headers.contains(&name);
        Ok(RawRequest {
            method: self.method.clone(),
            target: self.target.clone(),
            headers: self
                .headers
                .iter()
                .filter(|(name, _)| kept(name))
                .cloned()
                .collect(),
            body: self.body.clone(),
        })
    }

    /// SHA-256 of [`RawRequest::encode`]: the h of trust.md. Take it of the signed part.
    pub fn hash(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        self.write(&mut |bytes| hash.update(bytes));
        hash.finalize().into()
    }

    /// An unambiguous encoding: a tag, then each field with its length in eight bytes, little-endian.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256 + self.body.len());
        self.write(&mut |bytes| out.extend_from_slice(bytes));
        out
    }

    fn write(&self, sink: &mut dyn FnMut(&[u8])) {
        let mut field = |bytes: &[u8]| {
            sink(&(bytes.len() as u64).to_le_bytes());
            sink(bytes);
        };
        field(TAG);
        field(self.method.as_bytes());
        field(self.target.as_bytes());
        field(&(self.headers.len() as u64).to_le_bytes());
        for (name, value) in &self.headers {
            field(name.as_bytes());
            field(value);
        }
        field(&self.body);
    }

    /// Reads what [`RawRequest::encode`] wrote. Nothing longer than the limits of this file is accepted.
    pub fn decode(bytes: &[u8]) -> Result<RawRequest, DecodeError> {
        if bytes.len() > MAX_ENCODED {
            return Err(DecodeError::TooLong);
        }
        let mut rest = bytes;
        let mut field = || -> Result<&[u8], DecodeError> {
            let (length, after) = rest.split_first_chunk::<8>().ok_or(DecodeError::Invalid)?;
            let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| DecodeError::Invalid)?;
            let (value, after) = after.split_at_checked(length).ok_or(DecodeError::Invalid)?;
            rest = after;
            Ok(value)
        };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| DecodeError::Invalid);
        if field()? != TAG {
            return Err(DecodeError::Invalid);
        }
        let method = text(field()?)?;
        let target = text(field()?)?;
        let lines = u64::from_le_bytes(field()?.try_into().map_err(|_| DecodeError::Invalid)?);
        if lines > MAX_HEADER_LINES as u64 {
            return Err(DecodeError::TooLong);
        }
        let mut headers = Vec::new();
        for _ in 0..lines {
            headers.push((text(field()?)?, field()?.to_vec()));
        }
        let body = field()?.to_vec();
        if !rest.is_empty() {
            return Err(DecodeError::Invalid);
        }
        let request = RawRequest {
            method,
            target,
            headers,
            body,
        };
        request.check_sizes().map_err(|_| DecodeError::TooLong)?;
        Ok(request)
    }
}
