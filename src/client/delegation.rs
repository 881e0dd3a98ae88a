//! Delegating: from a keystore's root or a capability that one holds, to somebody else.
//!
//! What would certainly be refused by a server is refused here already: a delegator who does not hold the parent,
//! actions or a target that the parent does not have. Times are cut to the parent's.

use crate::authorization::capability::Suite;
use crate::authorization::issue;
use crate::client::capability::Capability;
use crate::client::identity::Identity;
use crate::client::signer::SignError;
use rand::{CryptoRng, RngCore};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A delegation that is not signed yet.
#[derive(Clone, Debug)]
pub struct Delegation {
    /// Id of the new capability, see [`new_id`].
    pub id: String,
    /// URL of the key or keystore that it is for: the parent's target or one below it.
    pub target: String,
    /// DID that gets it.
    pub controller: String,
    /// Allowed actions; empty for all that the parent has.
    pub actions: Vec<String>,
    /// Unix seconds; cut to the parent's end.
    pub expires: u64,
    /// What is delegated further; without one, the root of the target's keystore is.
    pub parent: Option<Capability>,
}

impl Delegation {
    /// Signs it as `identity` at `now` (Unix seconds).
    ///
    /// # Errors
    /// [`SignError`].
    pub fn sign(&self, identity: &Identity, now: u64) -> Result<Capability, SignError> {
        let root = root_of(&self.target);
        let mut expires = self.expires;
        let mut actions: Vec<&str> = self.actions.iter().map(String::as_str).collect();
        let parent = match &self.parent {
            None => issue::Capability::Root(root),
            Some(parent) => {
                self.check(parent, identity)?;
                expires = expires.min(expiry(parent).unwrap_or(expires));
                let allowed = texts(&parent.json()["allowedAction"]);
                if let Some(action) = actions
                    .iter()
                    .find(|action| !allowed.is_empty() && !allowed.contains(action))
                {
                    return Err(SignError::Widened((*action).to_owned()));
                }
                if actions.is_empty() {
                    actions = allowed;
                }
                issue::Capability::Delegated(parent.json())
            }
        };
        let signed = issue::Delegation {
            key: identity.signing_key(),
            parent,
            id: &self.id,
            controllers: &[&self.controller],
            target: &self.target,
            actions: (!actions.is_empty()).then_some(&actions),
            created: now,
            expires,
            suite: Suite::Ed25519Signature2020,
        }
        .sign()?;
        Ok(Capability::from_json(signed)?)
    }

    fn check(&self, parent: &Capability, identity: &Identity) -> Result<(), SignError> {
        let holders = texts(&parent.json()["controller"]);
        if !holders.contains(&identity.did()) && !holders.contains(&identity.key_id()) {
            return Err(SignError::NotController(identity.did().to_owned()));
        }
        let rest = self.target.strip_prefix(parent.target());
        let separators: &[char] = if parent.target().contains('?') {
            &['&']
        } else {
            &['/', '?']
        };
        match rest {
            Some(rest) if rest.is_empty() || rest.starts_with(separators) => Ok(()),
            _ => Err(SignError::Widened(self.target.clone())),
        }
    }
}

/// A new id for a capability: `urn:uuid:` and a random UUID.
pub fn new_id(rng: &mut (impl CryptoRng + RngCore)) -> String {
    format!("urn:uuid:{}", uuid(rng))
}

/// A random UUID (RFC 9562, version 4).
pub fn uuid(rng: &mut (impl CryptoRng + RngCore)) -> String {
    let mut bytes = [0u8; 16];
    rng.fill_bytes(&mut bytes);
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// The URL whose root capability everything at `target` falls under: its keystore.
#[must_use]
pub fn root_of(target: &str) -> &str {
    let path = target.split(['?']).next().unwrap_or(target);
    let end = ["/keys/", "/zcaps/"]
        .iter()
        .filter_map(|part| path.find(part))
        .min();
    match end {
        Some(end) => &path[..end],
        None => path.strip_suffix("/keys").unwrap_or(path),
    }
}

/// When a capability ends, in Unix seconds.
fn expiry(capability: &Capability) -> Option<u64> {
    let text = capability.json().get("expires")?.as_str()?;
    u64::try_from(OffsetDateTime::parse(text, &Rfc3339).ok()?.unix_timestamp()).ok()
}

/// A text, or an array of texts.
fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(values) => values.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Delegation, new_id, root_of};
    use crate::client::Identity;
    use crate::client::signer::SignError;
    use rand::rngs::OsRng;

    const KEYSTORE: &str = "https://a/kms/keystores/z1";
    const NOW: u64 = 1_795_457_062;

    fn delegation(to: &Identity, actions: &[&str]) -> Delegation {
        Delegation {
            id: new_id(&mut OsRng),
            target: format!("{KEYSTORE}/keys/z2"),
            controller: to.did().to_owned(),
            actions: actions.iter().map(|action| (*action).to_owned()).collect(),
            expires: NOW + 3600,
            parent: None,
        }
    }

    #[test]
    fn the_keystore_of_any_target() {
        for below in [
            "",
            "/keys",
            "/keys/z2",
            "/zcaps/revocations/urn%3Auuid%3A1",
            "?a=b",
            "/keys/z2?a=/keys/",
        ] {
            assert_eq!(root_of(&format!("{KEYSTORE}{below}")), KEYSTORE, "{below}");
        }
    }

    #[test]
    fn a_chain_narrows_and_never_outlives_its_parent() {
        let [alice, bob, carol] = [1, 2, 3].map(|n| Identity::from_seed(&[n; 32]));
        let first = delegation(&bob, &["sign", "deriveSecret"])
            .sign(&alice, NOW)
            .unwrap();
        assert_eq!(first.root_target(), KEYSTORE);
        let mut second = delegation(&carol, &[]);
        second.expires = NOW + 999_999;
        second.parent = Some(first.clone());
        let signed = second.sign(&bob, NOW + 1).unwrap();
        assert_eq!(signed.json()["allowedAction"], first.json()["allowedAction"]);
        assert_eq!(signed.json()["expires"], first.json()["expires"]);
        assert_eq!(signed.json()["parentCapability"], first.id());

        assert!(matches!(
            second.sign(&carol, NOW),
            Err(SignError::NotController(_))
        ));
        second.actions = vec!["generateKey".to_owned()];
        assert!(matches!(second.sign(&bob, NOW), Err(SignError::Widened(_))));
        second.actions = vec!["sign".to_owned()];
        second.target = format!("{KEYSTORE}/keys/z22");
        assert!(matches!(second.sign(&bob, NOW), Err(SignError::Widened(_))));
    }

    #[test]
    fn ids_are_random_uuids() {
        let id = new_id(&mut OsRng);
        assert_eq!(id.len(), 45);
        assert_eq!(&id[23..24], "4");
        assert_ne!(id, new_id(&mut OsRng));
    }
}
