//! What a verifier is configured with and what one route expects. Both are given by the caller; nothing here has a
//! clock, a network or a state of its own.

use std::time::Duration;

/// What holds for every request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The only accepted `Host`: `host` or `host:port`, lower case.
    pub authority: String,
    /// How far clocks may be apart, in seconds. Applies to signatures and to capabilities (contract 3.6).
    pub clock_skew: u32,
    /// The longest `expires - created` of a request, in seconds.
    pub max_window: u32,
    /// The most capabilities in a chain, the root and the invoked one included.
    pub max_chain_length: usize,
    /// The longest `expires - created` of a delegated capability; `None` for no limit. The smaller of this and the
    /// route's ([`Expectation::max_delegation_ttl`]) holds.
    pub max_delegation_ttl: Option<Duration>,
    /// Whether a target may lie under its parent's, or must equal it.
    pub allow_target_attenuation: bool,
}

impl Policy {
    /// What the contract has: 300 s of skew, windows of 600 s, chains of 10, attenuation on.
    pub fn new(authority: impl Into<String>) -> Self {
        Self {
            authority: authority.into(),
            clock_skew: 300,
            max_window: 600,
            max_chain_length: 10,
            max_delegation_ttl: None,
            allow_target_attenuation: true,
        }
    }
}

/// A root capability that a route accepts: synthesised from state, never sent by anyone (contract 3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedRoot {
    id: String,
    target: String,
    controllers: Vec<String>,
}

impl ExpectedRoot {
    /// The root capability of `target` (an absolute https URL), controlled by DIDs or verification methods.
    pub fn new(target: impl Into<String>, controllers: Vec<String>) -> Self {
        let target = target.into();
        Self {
            id: root_id(&target),
            target,
            controllers,
        }
    }

    /// `urn:zcap:root:` and the encoded target.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The URL that the root stands for.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Who may invoke it and delegate from it.
    pub fn controllers(&self) -> &[String] {
        &self.controllers
    }
}

/// Whether a capability of this id, delegated by this DID, is revoked: (capability id, delegator DID).
pub type Revoked<'a> = &'a dyn Fn(&str, &str) -> bool;

/// What one route wants.
#[derive(Clone, Copy)]
pub struct Expectation<'a> {
    /// The roots from which authority may come, one of them.
    pub roots: &'a [ExpectedRoot],
    /// The request's URL: `https://authority/path?query`.
    pub target: &'a str,
    /// The operation's action.
    pub action: &'a str,
    /// The route's limit on `expires - created` of each delegation; `None` for no limit.
    pub max_delegation_ttl: Option<Duration>,
    /// Asked for every link of the chain.
    pub revoked: Revoked<'a>,
}

/// The id of a target's root capability: `urn:zcap:root:` and JavaScript's `encodeURIComponent` of the target.
pub fn root_id(target: &str) -> String {
    format!("{ROOT_PREFIX}{}", encode_component(target))
}

pub(crate) const ROOT_PREFIX: &str = "urn:zcap:root:";

/// `encodeURIComponent`: leaves letters, digits and `-_.!~*'()`.
pub fn encode_component(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len() + text.len() / 4);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}
