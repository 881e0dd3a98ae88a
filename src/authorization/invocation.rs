//! The `Capability-Invocation` header (contract 0.8): which capability is invoked, by id or by value, and for which
//! action. A capability by value is gzip in base64url: one member, nothing after it, at most 64 KiB inflated. One that
//! was verified before is known by the hash of that text and is not read again.

use std::io::Read as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flate2::bufread::GzDecoder;
use sha2::{Digest, Sha256};

use super::cache::ChainCache;
use super::capability::{self, Delegated};
use super::error::Refusal;
use super::json;
use super::parameters;

/// The most bytes that a capability may inflate to.
pub const MAX_INFLATED: usize = 64 * 1024;

/// The invoked capability.
#[derive(Clone, Debug)]
pub enum Invoked {
    /// A root capability, by its id.
    Root(String),
    /// A delegated capability, by value, with its chain. Its shape is checked, its proofs are not.
    Delegated(Arc<Delegated>),
}

/// Reads the header: the action and the capability.
pub(crate) fn parse(
    value: &[u8],
    max_chain_length: usize,
    cache: &ChainCache,
) -> Result<(String, Invoked), Refusal> {
    let text = parameters::visible(value)?.trim_matches(' ');
    let list = text.strip_prefix("zcap ").ok_or(Refusal::malformed(
        "the scheme of \"capability-invocation\" is not zcap",
    ))?;
    let (mut id, mut by_value, mut action) = (None, None, None);
    for (name, value) in parameters::parse(list)? {
        match name {
            "id" => id = Some(value),
            "capability" => by_value = Some(value),
            "action" => action = Some(value),
            _ => {
                return Err(Refusal::malformed(
                    "unknown parameter in \"capability-invocation\"",
                ));
            }
        }
    }
    let action = action.ok_or(Refusal::malformed("\"capability-invocation\" has no action"))?;
    if !capability::is_action(action) {
        return Err(Refusal::malformed(
            "the action in \"capability-invocation\" is not a plain word",
        ));
    }
    let invoked = match (id, by_value) {
        (Some(id), None) if capability::is_iri(id) => Invoked::Root(id.to_owned()),
        (Some(_), None) => return Err(Refusal::malformed("the capability's id is not an absolute IRI")),
        (None, Some(encoded)) => {
            let packed = Sha256::digest(encoded).into();
            Invoked::Delegated(match cache.read(&packed) {
                Some(chain) => chain,
                None => {
                    let chain = Arc::new(read(encoded, max_chain_length)?);
                    cache.keep(packed, &chain);
                    chain
                }
            })
        }
        _ => {
            return Err(Refusal::malformed(
                "\"capability-invocation\" needs either an id or a capability",
            ));
        }
    };
    Ok((action.to_owned(), invoked))
}

fn read(encoded: &str, max_chain_length: usize) -> Result<Delegated, Refusal> {
    let text = inflate(encoded)?;
    let value =
        json::parse(&text).map_err(|_| Refusal::malformed("the invoked capability is not strict JSON"))?;
    Delegated::from_json(&value, Sha256::digest(&text).into(), max_chain_length)
}

fn inflate(encoded: &str) -> Result<Vec<u8>, Refusal> {
    let packed = URL_SAFE_NO_PAD
        .decode(encoded)
        .map_err(|_| Refusal::malformed("the invoked capability is not base64url without padding"))?;
    let mut reader = GzDecoder::new(packed.as_slice());
    let mut text = Vec::with_capacity(4 * packed.len().min(MAX_INFLATED / 4));
    let limit = MAX_INFLATED as u64 + 1;
    let read = (&mut reader).take(limit).read_to_end(&mut text);
    if text.len() > MAX_INFLATED {
        return Err(Refusal::CapabilityTooLarge);
    }
    // The end was reached, so the checksum of the one member has been verified.
    if read.is_err() || !reader.into_inner().is_empty() {
        return Err(Refusal::malformed(
            "the invoked capability is not one gzip member",
        ));
    }
    Ok(text)
}
