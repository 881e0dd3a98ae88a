//! Capabilities as a client holds them: delegated ones as JSON, root ones by their id.
//!
//! Nothing is verified here (the server does that); what is read is only what a client needs to invoke, delegate
//! further or revoke: id, target, the keystore at the root of the chain.

use crate::authorization::DidKey;
pub use crate::authorization::{encode_component, root_id};
use serde_json::Value;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Longest capability that is read, in bytes: servers inflate no more.
pub const MAX_CAPABILITY: usize = 64 * 1024;

/// What every root capability's id starts with.
pub const ROOT_PREFIX: &str = "urn:zcap:root:";

/// Why a capability cannot be used.
#[derive(Debug, Error)]
pub enum CapabilityError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Longer than [`MAX_CAPABILITY`].
    #[error("the capability is longer than {MAX_CAPABILITY} bytes")]
    TooLong,
    /// Not JSON.
    #[error("the capability is not JSON")]
    NotJson(#[source] serde_json::Error),
    /// A member that every delegated capability has is missing or of another type.
    #[error("the capability has no usable {0:?}: is it a delegated capability?")]
    Missing(&'static str),
    /// Its chain does not start at a root capability of an https URL.
    #[error("the capability's chain does not start at a root capability")]
    NoRoot,
}

/// A delegated capability.
#[derive(Clone, Debug)]
pub struct Capability {
    json: Value,
    id: String,
    target: String,
    root_target: String,
}

impl Capability {
    /// Reads a capability file.
    ///
    /// # Errors
    /// [`CapabilityError`].
    pub fn load(path: &Path) -> Result<Self, CapabilityError> {
        let read = |source| CapabilityError::Read {
            path: path.to_owned(),
            source,
        };
        let mut text = Vec::new();
        let file = File::open(path).map_err(read)?;
        file.take(MAX_CAPABILITY as u64 + 1)
            .read_to_end(&mut text)
            .map_err(read)?;
        Self::parse(&text)
    }

    /// Reads a capability from JSON text.
    ///
    /// # Errors
    /// [`CapabilityError`].
    pub fn parse(text: &[u8]) -> Result<Self, CapabilityError> {
        if text.len() > MAX_CAPABILITY {
            return Err(CapabilityError::TooLong);
        }
        Self::from_json(serde_json::from_slice(text).map_err(CapabilityError::NotJson)?)
    }

    /// The same from JSON that was parsed already.
    ///
    /// # Errors
    /// [`CapabilityError`].
    pub fn from_json(json: Value) -> Result<Self, CapabilityError> {
        let text = |name: &'static str| {
            json.get(name)
                .and_then(Value::as_str)
                .map(str::to_owned)
                .ok_or(CapabilityError::Missing(name))
        };
        let (id, target) = (text("id")?, text("invocationTarget")?);
        let root = json
            .pointer("/proof/capabilityChain/0")
            .and_then(Value::as_str)
            .ok_or(CapabilityError::Missing("proof.capabilityChain"))?;
        let root_target = root_target(root).ok_or(CapabilityError::NoRoot)?;
        Ok(Self {
            id,
            target,
            root_target,
            json,
        })
    }

    /// The document, as it was read.
    #[must_use]
    pub fn json(&self) -> &Value {
        &self.json
    }

    /// Its id, a URN.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The URL that it is for.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The DID that has delegated it, by its own word.
    ///
    /// # Errors
    /// [`CapabilityError::Missing`] where its proof names none.
    pub fn delegator(&self) -> Result<String, CapabilityError> {
        let method = self.json.pointer("/proof/verificationMethod");
        let method = method.and_then(Value::as_str);
        let key = method.and_then(|method| DidKey::from_method(method).ok());
        key.map(|key| key.did)
            .ok_or(CapabilityError::Missing("proof.verificationMethod"))
    }

    /// The URL at the root of its chain: its keystore.
    #[must_use]
    pub fn root_target(&self) -> &str {
        &self.root_target
    }
}

/// The target of a root capability, from its id; `None` when it is not one, or not of an https URL.
#[must_use]
pub fn root_target(id: &str) -> Option<String> {
    let target = decode_component(id.strip_prefix(ROOT_PREFIX)?)?;
    target.starts_with("https://").then_some(target)
}

fn decode_component(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let high = char::from(rest.next()?).to_digit(16)?;
        let low = char::from(rest.next()?).to_digit(16)?;
        bytes.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::{Capability, CapabilityError, encode_component, root_id, root_target};
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn root_ids_are_those_of_the_npm_client() {
        let url = "https://localhost:18443/kms/keystores/z1A6zRzwpJTtjzWqchPunwkcH";
        let id =
            "urn:zcap:root:https%3A%2F%2Flocalhost%3A18443%2Fkms%2Fkeystores%2Fz1A6zRzwpJTtjzWqchPunwkcH";
        assert_eq!(root_id(url), id);
        assert_eq!(root_target(id).as_deref(), Some(url));
        // A revocation URL has an escaped id in it, which is escaped again.
        assert!(root_id("https://a/b/urn%3Auuid%3A1").ends_with("urn%253Auuid%253A1"));
        assert_eq!(encode_component("-_.!~*'()"), "-_.!~*'()");
        for bad in [
            "urn:zcap:root:",
            "urn:zcap:root:https%3",
            "urn:zcap:root:%FF",
            "urn:uuid:1",
            "urn:zcap:root:http%3A%2F%2Fa",
        ] {
            assert_eq!(root_target(bad), None, "{bad}");
        }
    }

    #[test]
    fn reads_what_a_client_needs() {
        let zcap = json!({"id": "urn:uuid:1", "invocationTarget": "https://a/kms/keystores/z1/keys/z2",
            "proof": {"capabilityChain": ["urn:zcap:root:https%3A%2F%2Fa%2Fkms%2Fkeystores%2Fz1"]}});
        let capability = Capability::from_json(zcap.clone()).unwrap();
        assert_eq!(capability.id(), "urn:uuid:1");
        assert_eq!(capability.root_target(), "https://a/kms/keystores/z1");
        assert_eq!(capability.json(), &zcap);
        assert!(matches!(
            Capability::from_json(json!({})),
            Err(CapabilityError::Missing("id"))
        ));
        assert!(matches!(
            Capability::parse(b"{"),
            Err(CapabilityError::NotJson(_))
        ));
        assert!(matches!(
            Capability::parse(&vec![b' '; 70_000]),
            Err(CapabilityError::TooLong)
        ));
    }

    proptest! {
        #[test]
        fn escaping_is_undone(text in "\\PC{0,60}") {
            let url = format!("https://{text}");
            prop_assert_eq!(root_target(&root_id(&url)), Some(url));
        }
    }
}
