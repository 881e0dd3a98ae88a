//! From a call to the bytes that are sent: the HTTP signature and the capability invocation that
//! [`crate::authorization::issue`] makes, as a request that a connection can carry, more than once if need be.

use crate::authorization::issue::{self, Invocation, IssueError};
use crate::authorization::{RawRequest, name_of};
use crate::client::call::Call;
use crate::client::capability::Capability;
use crate::client::identity::Identity;
use crate::client::origin::{Origin, OriginError};
use crate::receipt;
use bytes::Bytes;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Uri};
use std::time::{SystemTime, UNIX_EPOCH};
use thiserror::Error;

/// How long a signature holds, in seconds: what the npm client asks for, and the most that servers need to take.
pub const VALIDITY: u64 = 600;

/// Why a call or a delegation could not be signed.
#[derive(Debug, Error)]
pub enum SignError {
    /// It is for another server.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// It could not be issued.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// Its headers are not HTTP.
    #[error("the request cannot be written as HTTP")]
    Http(#[from] hyper::http::Error),
    /// The capability that came out cannot be read.
    #[error(transparent)]
    Capability(#[from] crate::client::capability::CapabilityError),
    /// The one who delegates does not hold the parent.
    #[error("{0} is not a controller of the capability that is to be delegated")]
    NotController(String),
    /// The delegation asks for more than its parent gives.
    #[error("the parent capability does not allow {0:?}")]
    Widened(String),
}

/// Between which times a signature holds, both in Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// From.
    pub created: u64,
    /// To.
    pub expires: u64,
}

impl Window {
    /// [`VALIDITY`] from now on.
    #[must_use]
    pub fn starting_now() -> Self {
        Self::starting_at(unix_seconds())
    }

    /// [`VALIDITY`] from `created` on.
    #[must_use]
    pub fn starting_at(created: u64) -> Self {
        Self {
            created,
            expires: created + VALIDITY,
        }
    }

    /// The same, ending earlier: signatures over the same call then differ.
    #[must_use]
    pub fn shortened(self, seconds: u64) -> Self {
        Self {
            expires: self.expires.saturating_sub(seconds).max(self.created),
            ..self
        }
    }
}

/// Unix time in seconds, by the system's clock.
#[must_use]
pub fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// A request with its signature. It stays valid until its window ends.
#[derive(Clone, Debug)]
pub struct SignedRequest {
    /// GET or POST.
    pub method: Method,
    /// Path and query.
    pub target: Uri,
    /// All headers but the length of the body.
    pub headers: HeaderMap,
    /// JSON.
    pub body: Option<Bytes>,
}

/// Signs `call` for `origin`. `capability` is the delegated capability to invoke; without one, the root of the
/// call's keystore is.
///
/// # Errors
/// [`SignError`].
pub fn sign(
    origin: &Origin,
    identity: &Identity,
    call: &Call,
    capability: Option<&Capability>,
    window: Window,
) -> Result<SignedRequest, SignError> {
    sendable(&signed(origin, identity, call, capability, window)?, call)
}

/// The same, asking for a receipt, with the name that nodes will give to it.
///
/// # Errors
/// [`SignError`].
pub fn sign_for_receipt(
    origin: &Origin,
    identity: &Identity,
    call: &Call,
    capability: Option<&Capability>,
    window: Window,
) -> Result<(SignedRequest, [u8; 32]), SignError> {
    let signed = signed(origin, identity, call, capability, window)?;
    let mut request = sendable(&signed, call)?;
    let wanted = HeaderValue::from_static(receipt::WANTED);
    request
        .headers
        .insert(HeaderName::from_static(receipt::HEADER), wanted);
    // It was signed just now, so it has one.
    Ok((request, name_of(&signed).unwrap_or_default()))
}

fn signed(
    origin: &Origin,
    identity: &Identity,
    call: &Call,
    capability: Option<&Capability>,
    window: Window,
) -> Result<RawRequest, SignError> {
    let target = origin.target(&call.url)?;
    let capability = match capability {
        Some(delegated) => issue::Capability::Delegated(delegated.json()),
        None => issue::Capability::Root(&call.root),
    };
    let invocation = Invocation {
        key: identity.signing_key(),
        method: call.method.as_str(),
        authority: origin.authority(),
        target,
        capability,
        action: call.action,
        created: window.created,
        expires: window.expires,
        body: call.body.as_deref(),
    };
    Ok(invocation.sign()?)
}

fn sendable(signed: &RawRequest, call: &Call) -> Result<SignedRequest, SignError> {
    let mut headers = HeaderMap::with_capacity(signed.headers.len());
    for (name, value) in &signed.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(hyper::http::Error::from)?;
        headers.append(
            name,
            HeaderValue::from_bytes(value).map_err(hyper::http::Error::from)?,
        );
    }
    let target = signed.target.parse::<Uri>().map_err(hyper::http::Error::from)?;
    Ok(SignedRequest {
        method: call.method.clone(),
        target,
        headers,
        body: call.body.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::{VALIDITY, Window, sign};
    use crate::client::{Call, Identity, Origin};

    #[test]
    fn a_shortened_window_differs_and_does_not_turn_around() {
        let window = Window::starting_at(1000);
        assert_eq!(window.expires, 1000 + VALIDITY);
        assert_ne!(window, window.shortened(1));
        assert_eq!(window.shortened(5000).expires, 1000);
    }

    #[test]
    fn signs_for_its_own_server_only() {
        let origin = Origin::parse("https://a:1").unwrap();
        let identity = Identity::from_seed(&[7; 32]);
        let window = Window::starting_at(1_795_457_062);
        let request = sign(
            &origin,
            &identity,
            &Call::sign("https://a:1/kms/keystores/z/keys/k", b"x"),
            None,
            window,
        )
        .unwrap();
        assert_eq!(request.headers["host"], "a:1");
        assert_eq!(
            request.headers["capability-invocation"],
            "zcap id=\"urn:zcap:root:https%3A%2F%2Fa%3A1%2Fkms%2Fkeystores%2Fz\",action=\"sign\""
        );
        assert_eq!(request.target.path(), "/kms/keystores/z/keys/k");
        assert!(
            request.headers["authorization"]
                .to_str()
                .unwrap()
                .contains("created=\"1795457062\"")
        );
        let other = Call::sign("https://b:1/kms/keystores/z/keys/k", b"x");
        assert!(sign(&origin, &identity, &other, None, window).is_err());
    }
}
