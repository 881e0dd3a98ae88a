//! Step 1: who sent this request, unchanged and when, and what does it invoke? Needs no state. The caller judges
//! replays by [`Authenticated::name`] next, then calls [`super::authorize()`].

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::cache::ChainCache;
use super::did_key::DidKey;
use super::digest;
use super::error::Refusal;
use super::http_signature::SignatureHeader;
use super::invocation::{self, Invoked};
use super::json;
use super::parameters;
use super::policy::Policy;
use super::request::RawRequest;

/// A request whose signature holds. That its signer may do what it asks for is not said yet.
#[derive(Clone)]
pub struct Authenticated {
    /// The `keyId`: `did:key:…#…`.
    pub key_id: String,
    /// The signer's DID: `did:key:…`.
    pub signer: String,
    /// The signature's `created`, Unix seconds.
    pub created: u64,
    /// The signature's `expires`, Unix seconds.
    pub expires: u64,
    /// What was signed.
    pub signing_string: String,
    /// The Ed25519 signature over it.
    pub signature: [u8; 64],
    /// SHA-256(keyId, 0, signing string): what replays are judged by (trust.md 1).
    pub name: [u8; 32],
    /// The method, upper case.
    pub method: String,
    /// Path and query as sent.
    pub request_target: String,
    /// The invoked action.
    pub action: String,
    /// The invoked capability.
    pub capability: Invoked,
    /// The body, strictly parsed; `None` when there is none.
    pub body_json: Option<Value>,
    pub(crate) key: DidKey,
}

/// Shows nothing of the body: a wrap's body is a plaintext key.
impl std::fmt::Debug for Authenticated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authenticated")
            .field("key_id", &self.key_id)
            .field("created", &self.created)
            .field("method", &self.method)
            .field("request_target", &self.request_target)
            .field("action", &self.action)
            .finish_non_exhaustive()
    }
}

/// Verifies a request as far as that needs no state, cheap checks first: sizes, header grammar, time window,
/// signature, digest, invocation header, strict shape of the chain, which is not read again if `cache` has it. `now` is
/// Unix milliseconds.
pub fn authenticate(
    request: &RawRequest,
    policy: &Policy,
    cache: &ChainCache,
    now: u64,
) -> Result<Authenticated, Refusal> {
    let Head {
        header,
        key,
        signing_string,
        signature,
    } = authenticate_head(request, policy, now)?;
    if let Some(value) = request.header("digest")? {
        digest::check(parameters::visible(value)?.trim_matches(' '), &request.body)?;
    }
    let invocation = request
        .header("capability-invocation")?
        .ok_or(Refusal::MissingInvocation)?;
    let (action, capability) = invocation::parse(invocation, policy.max_chain_length, cache)?;
    let body_json = read_body(request)?;
    Ok(Authenticated {
        key_id: key.method.clone(),
        signer: key.did.clone(),
        created: header.created,
        expires: header.expires,
        name: name(header.key_id, &signing_string),
        signing_string,
        signature,
        method: request.method.clone(),
        request_target: request.target.clone(),
        action,
        capability,
        body_json,
        key,
    })
}

/// What the signature says, before anything is asked of the body.
pub(crate) struct Head<'a> {
    header: SignatureHeader<'a>,
    key: DidKey,
    signing_string: String,
    signature: [u8; 64],
}

/// The steps of [`authenticate`] that need no body: whether it is worth reading one.
pub(crate) fn authenticate_head<'a>(
    request: &'a RawRequest,
    policy: &Policy,
    now: u64,
) -> Result<Head<'a>, Refusal> {
    request.check_sizes()?;
    check_request_line(request)?;
    let authorization = request
        .header("authorization")?
        .ok_or(Refusal::MissingAuthorization)?;
    let header = SignatureHeader::parse(authorization)?;
    check_host(request, policy)?;
    header.check_coverage(request)?;
    header.check_window(policy, now)?;
    let signing_string = header.signing_string(request)?;
    if request.header("content-encoding")?.is_some() {
        return Err(Refusal::UnsupportedContent("content-encoding".into()));
    }
    let key = DidKey::from_method(header.key_id)?;
    let signature = header.verify(&key, &signing_string)?;
    Ok(Head {
        header,
        key,
        signing_string,
        signature,
    })
}

/// A method in upper case and a target in origin form: `/path?query` in printable ASCII.
fn check_request_line(request: &RawRequest) -> Result<(), Refusal> {
    let is_method =
        (1..=16).contains(&request.method.len()) && request.method.bytes().all(|b| b.is_ascii_uppercase());
    if !is_method {
        return Err(Refusal::malformed("the method is not a word in upper case"));
    }
    if !request.target.starts_with('/') || !request.target.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Refusal::malformed("the request target is not a path"));
    }
    Ok(())
}

fn check_host(request: &RawRequest, policy: &Policy) -> Result<(), Refusal> {
    match request.header("host")? {
        Some(host) if host == policy.authority.as_bytes() => Ok(()),
        _ => Err(Refusal::malformed("the \"host\" header is not this cluster's")),
    }
}

fn read_body(request: &RawRequest) -> Result<Option<Value>, Refusal> {
    if request.body.is_empty() {
        return Ok(None);
    }
    let content_type = request.header("content-type")?.unwrap_or_default();
    if !is_json(parameters::visible(content_type)?) {
        return Err(Refusal::UnsupportedContent("the body is not JSON".into()));
    }
    json::parse(&request.body)
        .map(Some)
        .map_err(|_| Refusal::malformed("the body is not strict JSON"))
}

/// `application/json` or `application/*+json`, in UTF-8.
fn is_json(content_type: &str) -> bool {
    let lower = content_type.to_ascii_lowercase();
    let mut parts = lower.split(';').map(str::trim);
    let subtype = parts
        .next()
        .and_then(|essence| essence.strip_prefix("application/"));
    let is_json = subtype.is_some_and(|subtype| subtype == "json" || subtype.ends_with("+json"));
    is_json && parts.all(|parameter| matches!(parameter, "charset=utf-8" | "charset=\"utf-8\""))
}

/// The name of a request of which only the client's signature is left; none if that does not verify.
pub fn name_of_signed(key_id: &str, signing_string: &str, signature: &[u8; 64]) -> Option<[u8; 32]> {
    let key = DidKey::from_method(key_id).ok()?;
    let signed = key.verifies(signing_string.as_bytes(), signature);
    signed.then(|| name(key_id, signing_string))
}

/// The name that nodes will give to a request that is signed here and sent as it is; none if it has no signature.
pub fn name_of(request: &RawRequest) -> Option<[u8; 32]> {
    let value = request.header("authorization").ok()??;
    let header = SignatureHeader::parse(value).ok()?;
    let signing_string = header.signing_string(request).ok()?;
    Some(name(header.key_id, &signing_string))
}

fn name(key_id: &str, signing_string: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(key_id);
    hash.update([0]);
    hash.update(signing_string);
    hash.finalize().into()
}
