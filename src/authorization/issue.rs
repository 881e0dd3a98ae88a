//! The client's side: sign a request, and delegate a capability. What these make, [`super::authenticate()`],
//! [`super::authorize()`] and any other WebKMS server accept. Nothing here reads a clock: times are given.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ed25519_dalek::{Signer as _, SigningKey};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Map, Value, json};
use std::io::Write as _;

use super::capability::{self, Delegated, MAX_CHAIN, PURPOSE, Suite, ZCAP_CONTEXT};
use super::did_key::DidKey;
use super::digest;
use super::error::Refusal;
use super::http_signature::{ALWAYS, WITH_BODY};
use super::policy::root_id;
use super::proof;
use super::request::RawRequest;
use super::time::Timestamp;

/// Why nothing was issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// A time lies after the year 9999.
    #[error("time out of range")]
    Time,
    /// The action is not a plain word.
    #[error("action is not a plain word")]
    Action,
    /// The capability that should come out would be refused by our own verifier.
    #[error("the delegation would not be accepted: {}", .0.detail())]
    Refused(#[source] Refusal),
    /// The capability could not be written as compressed JSON.
    #[error("could not encode the capability")]
    Encode(#[source] std::io::Error),
}

/// The capability that a request invokes, or from which a delegation is made.
#[derive(Clone, Copy, Debug)]
pub enum Capability<'a> {
    /// The root capability of a target URL.
    Root(&'a str),
    /// A delegated capability.
    Delegated(&'a Value),
}

/// A request to be signed.
#[derive(Clone, Copy)]
pub struct Invocation<'a> {
    /// Who signs.
    pub key: &'a SigningKey,
    /// `GET`, `POST`, …
    pub method: &'a str,
    /// The server's `host` or `host:port`.
    pub authority: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// The capability to invoke.
    pub capability: Capability<'a>,
    /// The action to invoke.
    pub action: &'a str,
    /// Unix seconds.
    pub created: u64,
    /// Unix seconds, at most 600 after `created`.
    pub expires: u64,
    /// A JSON body.
    pub body: Option<&'a [u8]>,
}

impl Invocation<'_> {
    /// Makes the signed request, with the headers that clients send and in their order.
    pub fn sign(&self) -> Result<RawRequest, IssueError> {
        let mut headers: Vec<(String, Vec<u8>)> = vec![
            ("accept".into(), b"application/ld+json, application/json".to_vec()),
            ("host".into(), self.authority.into()),
            (
                "capability-invocation".into(),
                invocation_header(self.capability, self.action)?.into_bytes(),
            ),
        ];
        let mut covered: Vec<&str> = ALWAYS.to_vec();
        if let Some(body) = self.body {
            headers.push(("digest".into(), digest::header_value(body).into_bytes()));
            headers.push(("content-type".into(), b"application/json".to_vec()));
            covered.extend(WITH_BODY);
        }
        let key_id = DidKey::of(&self.key.verifying_key()).method;
        let mut lines = Vec::with_capacity(covered.len());
        for name in &covered {
            let value = match *name {
                "(key-id)" => key_id.clone(),
                "(created)" => self.created.to_string(),
                "(expires)" => self.expires.to_string(),
                "(request-target)" => format!("{} {}", self.method.to_ascii_lowercase(), self.target),
                name => headers
                    .iter()
                    .find(|(other, _)| other == name)
                    .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
                    .unwrap_or_default(),
            };
            lines.push(format!("{name}: {value}"));
        }
        let signature = self.key.sign(lines.join("\n").as_bytes());
        let authorization = format!(
            "Signature keyId=\"{key_id}\",headers=\"{}\",signature=\"{}\",created=\"{}\",expires=\"{}\"",
            covered.join(" "),
            STANDARD.encode(signature.to_bytes()),
            self.created,
            self.expires,
        );
        headers.push(("authorization".into(), authorization.into_bytes()));
        Ok(RawRequest {
            method: self.method.to_owned(),
            target: self.target.to_owned(),
            headers,
            body: self.body.unwrap_or_default().to_vec(),
        })
    }
}

/// The value of a `Capability-Invocation` header.
pub fn invocation_header(capability: Capability<'_>, action: &str) -> Result<String, IssueError> {
    if !capability::is_action(action) {
        return Err(IssueError::Action);
    }
    Ok(match capability {
        Capability::Root(target) => format!("zcap id=\"{}\",action=\"{action}\"", root_id(target)),
        Capability::Delegated(value) => {
            let mut packer = GzEncoder::new(Vec::new(), Compression::best());
            packer
                .write_all(value.to_string().as_bytes())
                .map_err(IssueError::Encode)?;
            let packed = packer.finish().map_err(IssueError::Encode)?;
            format!(
                "zcap capability=\"{}\",action=\"{action}\"",
                URL_SAFE_NO_PAD.encode(packed)
            )
        }
    })
}

/// A delegation to be made.
#[derive(Clone, Copy)]
pub struct Delegation<'a> {
    /// Who delegates: a controller of the parent.
    pub key: &'a SigningKey,
    /// What is delegated from.
    pub parent: Capability<'a>,
    /// The new capability's id, an absolute IRI; `urn:uuid:…` is usual.
    pub id: &'a str,
    /// Who may use it: did:key DIDs. One is written as a text, more as an array.
    pub controllers: &'a [&'a str],
    /// The parent's target or one under it.
    pub target: &'a str,
    /// The allowed actions; `None` for all, which only an unrestricted parent permits.
    pub actions: Option<&'a [&'a str]>,
    /// Unix seconds.
    pub created: u64,
    /// Unix seconds, not after the parent's.
    pub expires: u64,
    /// How it is signed.
    pub suite: Suite,
}

impl Delegation<'_> {
    /// Makes the delegated capability. Its shape is checked; whether the parent permits it is not.
    pub fn sign(&self) -> Result<Value, IssueError> {
        let mut chain = Vec::new();
        let parent_id = match self.parent {
            Capability::Root(target) => {
                chain.push(Value::from(root_id(target)));
                root_id(target)
            }
            Capability::Delegated(parent) => {
                let shape = Delegated::from_json(parent, [0; 32], MAX_CHAIN).map_err(IssueError::Refused)?;
                let (last, above) = shape
                    .links()
                    .split_last()
                    .unwrap_or_else(|| unreachable!("never empty"));
                chain.push(Value::from(shape.root()));
                chain.extend(above.iter().map(|link| Value::from(link.id.as_str())));
                chain.push(parent.clone());
                last.id.clone()
            }
        };
        let mut capability = Map::new();
        capability.insert("@context".into(), json!([ZCAP_CONTEXT, self.suite.context()]));
        capability.insert("id".into(), self.id.into());
        capability.insert("parentCapability".into(), parent_id.into());
        capability.insert("controller".into(), one_or_more(self.controllers));
        capability.insert("invocationTarget".into(), self.target.into());
        if let Some(actions) = self.actions {
            capability.insert("allowedAction".into(), json!(actions));
        }
        capability.insert(
            "expires".into(),
            Timestamp::format(self.expires).ok_or(IssueError::Time)?.into(),
        );
        let mut proof = Map::new();
        proof.insert("type".into(), self.suite.proof_type().into());
        proof.insert(
            "created".into(),
            Timestamp::format(self.created).ok_or(IssueError::Time)?.into(),
        );
        proof.insert(
            "verificationMethod".into(),
            DidKey::of(&self.key.verifying_key()).method.into(),
        );
        if self.suite == Suite::EddsaRdfc2022 {
            proof.insert("cryptosuite".into(), Suite::CRYPTOSUITE.into());
        }
        proof.insert("proofPurpose".into(), PURPOSE.into());
        proof.insert("capabilityChain".into(), chain.into());
        // Options do not contain the value: any 64 bytes make the shape complete while they are computed.
        proof.insert("proofValue".into(), multibase(&[0; 64]).into());
        capability.insert("proof".into(), proof.into());
        let mut capability = Value::from(capability);
        let shape = Delegated::from_json(&capability, [0; 32], MAX_CHAIN).map_err(IssueError::Refused)?;
        let data = proof::verify_data(&shape, shape.links().len() - 1)
            .map_err(|_| IssueError::Refused(super::error::ChainFault::Proof.into()))?;
        capability["proof"]["proofValue"] = multibase(&self.key.sign(&data).to_bytes()).into();
        Ok(capability)
    }
}

fn one_or_more(texts: &[&str]) -> Value {
    match texts {
        [one] => Value::from(*one),
        more => json!(more),
    }
}

fn multibase(signature: &[u8; 64]) -> String {
    format!("z{}", bs58::encode(signature).into_string())
}
