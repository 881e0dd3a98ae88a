//! Requests that are signed whatever is in them, at the place and time of the vectors.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use conclave::authorization::{Authenticated, ChainCache, Policy, RawRequest, Refusal, authenticate};
use ed25519_dalek::Signer as _;

use super::key::{PEOPLE, alice};

/// The cluster's only host.
pub(crate) const AUTHORITY: &str = "kms.example";
/// Alice's keystore.
pub(crate) const KEYSTORE: &str = "https://kms.example/kms/keystores/z1AAAAAAAAAAAAAAAAAAAAAAAA";
/// The path of a key of hers.
pub(crate) const KEY_PATH: &str = "/kms/keystores/z1AAAAAAAAAAAAAAAAAAAAAAAA/keys/z1BBBBBBBBBBBBBBBBBBBBBBBB";
/// Seconds since 1970 at which everything is judged.
pub(crate) const NOW: u64 = 1_780_315_205;

/// A POST by alice that covers every header that it has.
pub(crate) fn signed(target: &str, headers: &[(&str, &[u8])], body: &[u8]) -> RawRequest {
    let mut covered = "(key-id) (created) (expires) (request-target)".to_owned();
    for (name, _) in headers {
        covered.push(' ');
        covered.push_str(name);
    }
    let authorization = format!(
        "Signature keyId=\"{}\",headers=\"{covered}\",signature=\"\",created=\"{NOW}\",expires=\"{}\"",
        alice().names.method,
        NOW + 600
    );
    let mut request = RawRequest {
        method: "POST".into(),
        target: target.into(),
        headers: headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.to_vec()))
            .collect(),
        body: body.to_vec(),
    };
    request
        .headers
        .push(("authorization".into(), authorization.into_bytes()));
    resign(&mut request);
    request
}

/// Puts the right signature into the `Authorization` header, if its key is one of the vectors' people's.
pub(crate) fn resign(request: &mut RawRequest) {
    let Some(at) = request
        .headers
        .iter()
        .position(|(name, _)| name == "authorization")
    else {
        return;
    };
    let value = String::from_utf8_lossy(&request.headers[at].1).into_owned();
    let parameter = |name: &str| {
        let (_, after) = value.split_once(&format!("{name}=\""))?;
        Some(after.split_once('"')?.0)
    };
    let key_id = parameter("keyId").unwrap_or_default();
    let Some(signer) = PEOPLE.iter().find(|person| person.names.method == key_id) else {
        return;
    };
    let mut signing_string = Vec::new();
    for name in parameter("headers").unwrap_or_default().split(' ') {
        if !signing_string.is_empty() {
            signing_string.push(b'\n');
        }
        signing_string.extend_from_slice(name.as_bytes());
        signing_string.extend_from_slice(b": ");
        match name {
            "(key-id)" => signing_string.extend_from_slice(key_id.as_bytes()),
            "(created)" | "(expires)" => {
                let value = parameter(name.trim_matches(['(', ')']));
                signing_string.extend_from_slice(value.unwrap_or_default().as_bytes());
            }
            "(request-target)" => {
                let line = format!("{} {}", request.method.to_ascii_lowercase(), request.target);
                signing_string.extend_from_slice(line.as_bytes());
            }
            name => {
                let value = request.headers.iter().find(|(other, _)| other == name);
                let value = value.map_or(&[][..], |(_, value)| value);
                signing_string.extend_from_slice(trim(value));
            }
        }
    }
    let signature = STANDARD.encode(signer.key.sign(&signing_string).to_bytes());
    let Some((before, after)) = value.split_once("signature=\"") else {
        return;
    };
    let after = after.split_once('"').map_or("", |(_, after)| after);
    request.headers[at].1 = format!("{before}signature=\"{signature}\"{after}").into_bytes();
}

fn trim(value: &[u8]) -> &[u8] {
    let from = value.iter().position(|byte| *byte != b' ').unwrap_or(value.len());
    let to = value
        .iter()
        .rposition(|byte| *byte != b' ')
        .map_or(from, |at| at + 1);
    &value[from..to]
}

/// What the verifier says of it, with a cache that remembers nothing.
pub(crate) fn judge(request: &RawRequest) -> Result<Authenticated, Refusal> {
    authenticate(request, &policy(), &ChainCache::new(0), NOW * 1_000)
}

/// The contract's policy.
pub(crate) fn policy() -> Policy {
    Policy::new(AUTHORITY)
}
