//! The draft-cavage signature of a request (contract 3.1): the `Authorization` header's grammar, which headers must be
//! covered, the time window, the signing string. Nothing is normalised: what was signed is what was sent.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::did_key::DidKey;
use super::error::Refusal;
use super::parameters;
use super::policy::Policy;
use super::request::RawRequest;

const PSEUDO: [&str; 4] = ["(key-id)", "(created)", "(expires)", "(request-target)"];
/// What every signature covers, in the order in which clients send it.
pub(crate) const ALWAYS: [&str; 6] = [
    "(key-id)",
    "(created)",
    "(expires)",
    "(request-target)",
    "host",
    "capability-invocation",
];
/// What it covers besides when there is a body or one of these headers.
pub(crate) const WITH_BODY: [&str; 2] = ["content-type", "digest"];
const MAX_COVERED: usize = 32;

/// The parsed `Authorization` header.
pub(crate) struct SignatureHeader<'a> {
    pub(crate) key_id: &'a str,
    pub(crate) headers: Vec<&'a str>,
    pub(crate) signature: &'a str,
    pub(crate) created: u64,
    pub(crate) expires: u64,
}

impl<'a> SignatureHeader<'a> {
    pub(crate) fn parse(value: &'a [u8]) -> Result<Self, Refusal> {
        let text = parameters::visible(value)?;
        let list = text
            .strip_prefix("Signature ")
            .ok_or(Refusal::MissingAuthorization)?;
        if list.trim().is_empty() {
            return Err(Refusal::MissingAuthorization);
        }
        let (mut key_id, mut headers, mut signature, mut created, mut expires) =
            (None, None, None, None, None);
        for (name, value) in parameters::parse(list)? {
            match name {
                "keyId" => key_id = Some(value),
                "headers" => headers = Some(covered(value)?),
                "signature" => signature = Some(value),
                "created" => created = Some(seconds(value)?),
                "expires" => expires = Some(seconds(value)?),
                // `algorithm` among them: it is not signed, and there is only one.
                _ => {
                    return Err(Refusal::malformed(
                        "unknown parameter in the \"authorization\" header",
                    ));
                }
            }
        }
        Ok(Self {
            key_id: key_id.ok_or(Refusal::MissingAuthorization)?,
            headers: headers.ok_or(Refusal::NotCovered(Cow::Borrowed("(request-target)")))?,
            signature: signature.ok_or(Refusal::MissingAuthorization)?,
            created: created.ok_or(Refusal::MissingAuthorization)?,
            expires: expires.ok_or(Refusal::MissingAuthorization)?,
        })
    }

    /// Whether the list covers what it must, given the request's body and headers.
    pub(crate) fn check_coverage(&self, request: &RawRequest) -> Result<(), Refusal> {
        let content_type = request.header("content-type")?;
        let digest = request.header("digest")?;
        if !request.body.is_empty() {
            if digest.is_none()
                && (request.method != "GET" && request.method != "HEAD" && request.method != "DELETE")
            {
                return Err(Refusal::MissingDigest);
            }
            if digest.is_none() || content_type.is_none() && !self.headers.contains(&"content-type") {
                return Err(Refusal::malformed(
                    "a body without \"content-type\" and \"digest\"",
                ));
            }
        }
        let with_body = !request.body.is_empty() || content_type.is_some() || digest.is_some();
        let required = ALWAYS.iter().chain(WITH_BODY.iter().filter(|_| with_body));
        for name in required {
            if !self.headers.contains(name) {
                return Err(Refusal::NotCovered(Cow::Borrowed(name)));
            }
        }
        Ok(())
    }

    /// Whether the signature's own time window is acceptable at `now` (Unix milliseconds).
    pub(crate) fn check_window(&self, policy: &Policy, now: u64) -> Result<(), Refusal> {
        let skew = u64::from(policy.clock_skew) * 1_000;
        if self.created * 1_000 > now.saturating_add(skew) {
            return Err(Refusal::SignatureInFuture);
        }
        if self.expires * 1_000 + skew < now {
            return Err(Refusal::SignatureExpired);
        }
        match self.expires.checked_sub(self.created) {
            Some(window) if window <= u64::from(policy.max_window) => Ok(()),
            _ => Err(Refusal::SignatureWindow),
        }
    }

    /// One line for each covered name, joined by line feeds.
    pub(crate) fn signing_string(&self, request: &RawRequest) -> Result<String, Refusal> {
        let mut out = String::with_capacity(1_024);
        for (index, name) in self.headers.iter().enumerate() {
            if index > 0 {
                out.push('\n');
            }
            out.push_str(name);
            out.push_str(": ");
            match *name {
                "(key-id)" => out.push_str(self.key_id),
                "(created)" => out.push_str(&self.created.to_string()),
                "(expires)" => out.push_str(&self.expires.to_string()),
                "(request-target)" => {
                    out.push_str(&request.method.to_ascii_lowercase());
                    out.push(' ');
                    out.push_str(&request.target);
                }
                name => {
                    let value = request.header(name)?.ok_or_else(|| match name {
                        "capability-invocation" => Refusal::MissingInvocation,
                        _ => Refusal::CoveredHeaderAbsent(name.to_owned()),
                    })?;
                    out.push_str(parameters::visible(value)?.trim_matches(' '));
                }
            }
        }
        Ok(out)
    }

    /// The signature's bytes, if they are the signer's over the signing string.
    pub(crate) fn verify(&self, signer: &DidKey, signing_string: &str) -> Result<[u8; 64], Refusal> {
        let bytes = STANDARD
            .decode(self.signature)
            .map_err(|_| Refusal::SignatureNotVerified)?;
        let signature: [u8; 64] = bytes.try_into().map_err(|_| Refusal::SignatureNotVerified)?;
        if signer.verifies(signing_string.as_bytes(), &signature) {
            Ok(signature)
        } else {
            Err(Refusal::SignatureNotVerified)
        }
    }
}

/// The names in a `headers` parameter.
fn covered(list: &str) -> Result<Vec<&str>, Refusal> {
    let mut names = Vec::with_capacity(8);
    for name in list.split(' ') {
        let plain = !name.is_empty()
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !plain && !PSEUDO.contains(&name) || name == "authorization" {
            return Err(Refusal::malformed(
                "a name in the signature's header list is not known or not lower case",
            ));
        }
        if names.contains(&name) {
            return Err(Refusal::malformed(
                "a name occurs twice in the signature's header list",
            ));
        }
        if names.len() == MAX_COVERED {
            return Err(Refusal::malformed(
                "too many names in the signature's header list",
            ));
        }
        names.push(name);
    }
    Ok(names)
}

/// Unix seconds in the one spelling that every reader takes alike.
fn seconds(text: &str) -> Result<u64, Refusal> {
    let canonical = !text.is_empty()
        && text.len() <= 11
        && text.bytes().all(|b| b.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'));
    let refusal = Refusal::malformed("\"created\" or \"expires\" is not a canonical integer");
    if canonical {
        text.parse().map_err(|_| refusal)
    } else {
        Err(refusal)
    }
}
