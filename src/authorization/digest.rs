//! The `Digest` header: SHA-256 of the body's raw bytes as `mh=u…` (multihash in multibase base64url) or
//! `SHA-256=…`. Another algorithm, a list, or a second spelling of the same bytes is 400; another value is 403.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use super::error::Refusal;

/// Multihash header: SHA2-256, 32 bytes.
const MULTIHASH: [u8; 2] = [0x12, 0x20];

/// The header value that clients send for a body.
pub fn header_value(body: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(34);
    bytes.extend_from_slice(&MULTIHASH);
    bytes.extend_from_slice(&Sha256::digest(body));
    format!("mh=u{}", URL_SAFE_NO_PAD.encode(bytes))
}

/// Checks a header value against a body.
pub(crate) fn check(value: &str, body: &[u8]) -> Result<(), Refusal> {
    let claimed = parse(value).ok_or(Refusal::malformed(
        "the \"digest\" header is not one SHA-256 digest",
    ))?;
    if claimed == <[u8; 32]>::from(Sha256::digest(body)) {
        Ok(())
    } else {
        Err(Refusal::DigestMismatch)
    }
}

fn parse(value: &str) -> Option<[u8; 32]> {
    if let Some(text) = value.strip_prefix("mh=u") {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        bytes.strip_prefix(&MULTIHASH)?.try_into().ok()
    } else {
        STANDARD
            .decode(value.strip_prefix("SHA-256=")?)
            .ok()?
            .try_into()
            .ok()
    }
}
