//! What an authenticated request may do, by the replicated state: the same judgement on the node that the client
//! reached and on every holder and endorser, each by its own state and clock.
//!
//! Pure. The caller has authenticated the request and waited until its state is fresh enough; a refusal that it
//! gives to a client it confirms first (`consensus.md`: a refusal is confirmed, a grant is not).

use std::cell::RefCell;
use std::time::Duration;

use serde_json::json;

use super::body::{self, KeyOperation, Payload, PeerKey};
use super::route::{Named, Route};
use crate::authorization::{
    Authenticated, Authorized, ChainCache, Expectation, ExpectedRoot, Policy, Refusal, authorize,
    verify_delegation,
};
use crate::identifier::{LocalId, OperationId};
use crate::keystore::apply::REVOCATION_MEMORY;
use crate::keystore::record::{Alias, Hold, KeyRecord, KeyType, KeystoreRecord, Meter, Purpose};
use crate::keystore::{Command, StateError};
use crate::problem::Problem;

const YEAR: u64 = 365 * 24 * 3600;
/// Longest life of a delegation that uses or generates keys.
const OPERATION_TTL: Duration = Duration::from_secs(1_000 * YEAR);
/// Longest life of every other delegation.
const OTHER_TTL: Duration = Duration::from_secs(90 * 24 * 3600);

/// The module name of keystores whose creator names none, and what the existing server calls its own.
const DEFAULT_MODULE: &str = "ssm-v1";

/// What does not depend on a request.
pub struct Rules {
    /// `https://host[:port]`, without a slash at the end.
    pub public_url: String,
    /// Skew, windows, lengths.
    pub policy: Policy,
    /// The cluster.
    pub cluster: [u8; 32],
    /// The number of Raft groups.
    pub groups: u32,
    /// Who may create meters; `None`: anyone.
    pub meter_admins: Option<Vec<String>>,
    /// Chains whose proofs verified before.
    pub chains: ChainCache,
    /// Longest payload of a key wrap, bytes.
    pub wrap_bytes: usize,
}

/// The replicated state as a judgement needs it.
pub trait Facts {
    /// A keystore.
    fn keystore(&self, id: &LocalId) -> Result<Option<KeystoreRecord>, StateError>;
    /// A meter.
    fn meter(&self, id: &LocalId) -> Result<Option<Meter>, StateError>;
    /// A key.
    fn key(&self, keystore: &LocalId, id: &LocalId) -> Result<Option<KeyRecord>, StateError>;
    /// Whether a keystore's delegations are held back since a restore.
    fn hold(&self, keystore: &LocalId) -> Result<Option<Hold>, StateError>;
    /// Whether a link is revoked.
    fn revoked(&self, keystore: &LocalId, capability: &str, delegator: &str) -> Result<bool, StateError>;
}

/// What an allowed request asks for.
#[derive(Clone, Debug)]
pub enum Intent {
    /// A change of the state.
    Change(Command),
    /// A generation ceremony, then a change.
    Generate(NewKeyTerms),
    /// A use of a key.
    Use {
        /// The keystore.
        keystore: LocalId,
        /// The key.
        key: LocalId,
        /// Its public part.
        record: Box<KeyRecord>,
        /// What to do with it.
        using: Using,
    },
    /// The keystore's configuration.
    ShowKeystore(LocalId, Box<KeystoreRecord>),
    /// The meter.
    ShowMeter(LocalId, Meter),
    /// The keystores of this controller.
    ListKeystores(String),
}

/// The terms of a new key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewKeyTerms {
    /// The keystore.
    pub keystore: LocalId,
    /// Derived from the operation id.
    pub key: LocalId,
    /// Its type.
    pub key_type: KeyType,
    /// In place of the URL in descriptions.
    pub alias: Option<Alias>,
    /// Longest capability chain that may use it.
    pub max_chain_length: Option<u32>,
}

/// A use of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Using {
    /// Sign the message.
    Sign(Vec<u8>),
    /// Agree with the holder of this Montgomery u.
    DeriveSecret([u8; 32]),
    /// Make the message's tag.
    Authenticate(Payload),
    /// Compare the message's tag with this one; one of another length is none.
    Verify(Payload, Option<[u8; 32]>),
    /// Wrap this.
    Wrap(Payload),
    /// Unwrap this.
    Unwrap(Payload),
}

/// An allowed request.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// What it asks for.
    pub intent: Intent,
    /// (capability id, delegator) of every delegation in its chain.
    pub chain: Vec<(String, String)>,
    /// The keystore's state version that this rests on; 0 where there is none.
    pub state_version: u64,
}

/// A judgement could not be made, or is a refusal.
#[derive(Debug, thiserror::Error)]
pub enum NotAllowed {
    /// The client is told this.
    #[error("refused: {}", .0.message)]
    Problem(Box<Problem>),
    /// The state could not be read.
    #[error(transparent)]
    State(#[from] StateError),
}

impl From<Problem> for NotAllowed {
    fn from(problem: Problem) -> Self {
        Self::Problem(Box::new(problem))
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let (status, message) = (refusal.status(), refusal.to_string());
        match status {
            403 => Problem::not_authorized(refusal.cause_name(), message),
            _ => Problem::new(status, refusal.cause_name(), message),
        }
    }
}

/// One request, its route and what it is judged by.
pub struct Case<'a, F> {
    /// The rules.
    pub rules: &'a Rules,
    /// The state.
    pub facts: &'a F,
    /// The request, authenticated.
    pub request: &'a Authenticated,
    /// Its route.
    pub route: &'a Route,
    /// Names what it makes.
    pub operation: OperationId,
    /// The judging node's clock, ms.
    pub now: u64,
}

impl<F: Facts> Case<'_, F> {
    /// Judges.
    ///
    /// # Errors
    /// [`NotAllowed`].
    pub fn judge(&self) -> Result<Judgement, NotAllowed> {
        match self.route {
            Route::CreateMeter => self.create_meter(),
            Route::GetMeter(named) => self.get_meter(named),
            Route::CreateKeystore => self.create_keystore(),
            Route::ListKeystores(query) => self.list_keystores(query),
            Route::GetKeystore(named) => {
                let (id, stored) = self.stored(named)?;
                let authorized = self.by_keystore(&id, &stored, "read", OTHER_TTL)?;
                Ok(judgement(
                    Intent::ShowKeystore(id, Box::new(stored)),
                    authorized,
                    0,
                ))
            }
            Route::UpdateKeystore(named) => self.update_keystore(named),
            Route::GenerateKey(named) => self.generate_key(named),
            Route::UseKey(named, key) => self.use_key(named, key),
            Route::Revoke(named) => self.revoke(named),
            Route::Batch(_) => Err(Problem::malformed("A batch is judged item by item.").into()),
            Route::GetKey(..) => {
                Err(Problem::malformed("A key description is read without authorization.").into())
            }
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.rules.public_url)
    }

    fn keystore_url(&self, id: &LocalId) -> String {
        self.url(&format!("/kms/keystores/{id}"))
    }

    fn body(&self) -> Result<&serde_json::Value, Problem> {
        self.request
            .body_json
            .as_ref()
            .ok_or_else(|| Problem::malformed("The request must have a JSON body."))
    }

    fn authorize(
        &self,
        roots: &[ExpectedRoot],
        action: &str,
        ttl: Duration,
        keystore: Option<&LocalId>,
    ) -> Result<Authorized, NotAllowed> {
        let failed = RefCell::new(None);
        let revoked = |capability: &str, delegator: &str| match keystore {
            None => false,
            Some(id) => self
                .facts
                .revoked(id, capability, delegator)
                .unwrap_or_else(|error| {
                    failed.replace(Some(error));
                    true
                }),
        };
        let expectation = Expectation {
            roots,
            target: &self.url(&self.request.request_target),
            action,
            max_delegation_ttl: Some(ttl),
            revoked: &revoked,
        };
        let rules = self.rules;
        let verdict = authorize(self.request, &expectation, &rules.policy, &rules.chains, self.now);
        if let Some(error) = failed.take() {
            return Err(error.into());
        }
        let authorized = verdict.map_err(Problem::from)?;
        if let Some(id) = keystore.filter(|_| !authorized.chain.is_empty())
            && let Some(hold) = self.facts.hold(id)?
        {
            return Err(held_back(hold).into());
        }
        Ok(authorized)
    }

    fn create_meter(&self) -> Result<Judgement, NotAllowed> {
        let new = body::meter(self.body()?)?;
        // Where anyone may, the signer is the root's controller: its signature is all that counts.
        let admins = self
            .rules
            .meter_admins
            .clone()
            .unwrap_or_else(|| vec![self.request.signer.clone()]);
        let root = ExpectedRoot::new(self.url("/meters"), admins);
        let authorized = self.authorize(&[root], "write", OTHER_TTL, None)?;
        if !crate::authorization::did_key::is_controller(&new.controller) {
            return Err(Problem::malformed("A meter's controller must be an Ed25519 did:key.").into());
        }
        let id = LocalId::derive(&self.rules.cluster, &self.operation, 0);
        let command = Command::CreateMeter {
            id,
            controller: new.controller,
            product: new.product,
        };
        Ok(judgement(Intent::Change(command), authorized, 0))
    }

    fn get_meter(&self, named: &Named) -> Result<Judgement, NotAllowed> {
        let url = self.url(&format!("/meters/{}", named.text));
        let absent =
            || Problem::new(404, "NotFoundError", "Meter not found.").with_details(json!({ "meter": url }));
        let id = named.id.ok_or_else(absent)?;
        let meter = self.facts.meter(&id)?.ok_or_else(absent)?;
        let root = ExpectedRoot::new(url.clone(), vec![meter.controller.clone()]);
        let authorized = self.authorize(&[root], "read", OTHER_TTL, None)?;
        Ok(judgement(Intent::ShowMeter(id, meter), authorized, 0))
    }

    /// The meter that a body names, which must be one of ours.
    fn meter_of(&self, url: &str) -> Result<(LocalId, Meter), NotAllowed> {
        let unknown = || {
            Problem::denied("Permission denied.").caused_by(Problem::new(
                403,
                "NotFoundError",
                "Meter not found.",
            ))
        };
        let id = url
            .strip_prefix(&self.url("/meters/"))
            .and_then(LocalId::parse)
            .ok_or_else(unknown)?;
        let meter = self.facts.meter(&id)?.ok_or_else(unknown)?;
        Ok((id, meter))
    }

    fn create_keystore(&self) -> Result<Judgement, NotAllowed> {
        let new = body::new_keystore(self.body()?)?;
        let (meter_id, meter) = self.meter_of(new.meter.as_deref().unwrap_or_default())?;
        let root = ExpectedRoot::new(self.url("/kms/keystores"), vec![meter.controller]);
        let authorized = self.authorize(&[root], "write", OTHER_TTL, None)?;
        if new.sequence != 0 {
            return Err(Problem::malformed("Keystore config sequence must be \"0\".").into());
        }
        controllers_are_dids(&new.controllers)?;
        let module = new
            .kms_module
            .clone()
            .unwrap_or_else(|| DEFAULT_MODULE.to_owned());
        let (rules, name) = (self.rules, &self.request.name);
        let id = LocalId::of_new_keystore(&rules.cluster, &self.operation, name, rules.groups);
        let command = Command::CreateKeystore {
            id,
            config: new.into_config(meter_id, module),
        };
        Ok(judgement(Intent::Change(command), authorized, 0))
    }

    fn list_keystores(&self, query: &str) -> Result<Judgement, NotAllowed> {
        let controller = query
            .strip_prefix("controller=")
            .filter(|value| !value.contains('&'))
            .and_then(decode_component);
        let Some(controller) = controller else {
            let message =
                "A validation error occurred in the 'Service Object Configuration Query' validator.";
            return Err(Problem::new(400, "ValidationError", message).into());
        };
        let root = ExpectedRoot::new(self.url("/kms/keystores"), vec![controller.clone()]);
        let authorized = self.authorize(&[root], "read", OTHER_TTL, None)?;
        Ok(judgement(Intent::ListKeystores(controller), authorized, 0))
    }

    fn stored(&self, named: &Named) -> Result<(LocalId, KeystoreRecord), NotAllowed> {
        let absent = || Problem::keystore_not_found(&self.url(&format!("/kms/keystores/{}", named.text)));
        let id = named.id.ok_or_else(absent)?;
        let stored = self.facts.keystore(&id)?.ok_or_else(absent)?;
        Ok((id, stored))
    }

    fn by_keystore(
        &self,
        id: &LocalId,
        stored: &KeystoreRecord,
        action: &str,
        ttl: Duration,
    ) -> Result<Authorized, NotAllowed> {
        let root = ExpectedRoot::new(self.keystore_url(id), stored.config.controllers.clone());
        self.authorize(&[root], action, ttl, Some(id))
    }

    fn update_keystore(&self, named: &Named) -> Result<Judgement, NotAllowed> {
        let new = body::keystore_update(self.body()?)?;
        let (id, stored) = self.stored(named)?;
        let authorized = self.by_keystore(&id, &stored, "write", OTHER_TTL)?;
        let (url, given) = (self.keystore_url(&id), new.id.clone().unwrap_or_default());
        if url != given {
            let problem = Problem::new(
                400,
                "URLMismatchError",
                "Configuration \"id\" does not match request URL.",
            );
            let details = json!({ "requestUrl": url, "configId": given, "expected": url, "actual": given });
            return Err(problem.with_details(details).into());
        }
        if new
            .meter
            .as_ref()
            .is_some_and(|meter| *meter != self.url(&format!("/meters/{}", stored.config.meter)))
        {
            return Err(Problem::malformed("A keystore's \"meterId\" cannot be changed.").into());
        }
        controllers_are_dids(&new.controllers)?;
        let module = new
            .kms_module
            .clone()
            .unwrap_or_else(|| stored.config.kms_module.clone());
        if new.sequence != stored.config.sequence + 1 || module != stored.config.kms_module {
            return Err(sequence_mismatch(&url, new.sequence).into());
        }
        let command = Command::UpdateKeystore {
            id,
            config: new.into_config(stored.config.meter, module),
        };
        Ok(judgement(Intent::Change(command), authorized, stored.version))
    }

    fn generate_key(&self, named: &Named) -> Result<Judgement, NotAllowed> {
        let new = body::new_key(self.body()?)?;
        let (keystore, stored) = self.stored(named)?;
        let authorized = self.by_keystore(&keystore, &stored, "generateKey", OPERATION_TTL)?;
        let key_type = new
            .key_type
            .map_err(|name| Problem::not_authorized("Error", format!("Unknown key type \"{name}\".")))?;
        let terms = NewKeyTerms {
            keystore,
            key: LocalId::derive(&self.rules.cluster, &self.operation, 0),
            key_type,
            alias: new.alias,
            max_chain_length: new.max_chain_length,
        };
        super::description::check_alias(&terms)?;
        Ok(judgement(Intent::Generate(terms), authorized, stored.version))
    }

    fn use_key(&self, named: &Named, key: &Named) -> Result<Judgement, NotAllowed> {
        let key_url = self.url(&format!("/kms/keystores/{}/keys/{}", named.text, key.text));
        let operation = body::key_operation(self.body()?, &key_url)?;
        let (keystore, stored) = self.stored(named)?;
        let authorized = self.by_keystore(&keystore, &stored, operation.action(), OPERATION_TTL)?;
        if let KeyOperation::NotSupported(_) = operation {
            return Err(Problem::not_authorized("NotSupportedError", "KMS operation not supported.").into());
        }
        let absent = || {
            Problem::new(403, "NotAllowedError", "Authorization error.")
                .caused_by(Problem::key_not_found(&key_url))
        };
        let id = key.id.ok_or_else(absent)?;
        let record = self.facts.key(&keystore, &id)?.ok_or_else(absent)?;
        if let Some(longest) = record.max_chain_length {
            authorized.limit_chain(longest as usize).map_err(Problem::from)?;
        }
        let using = using(operation, record.key_type)?;
        self.check_length(&using)?;
        let intent = Intent::Use {
            keystore,
            key: id,
            record: Box::new(record),
            using,
        };
        Ok(judgement(intent, authorized, stored.version))
    }

    /// A wrap costs its length a thousand times over.
    fn check_length(&self, using: &Using) -> Result<(), Problem> {
        let longest = self.rules.wrap_bytes;
        let (length, longest) = match using {
            Using::Wrap(payload) => (payload.0.len(), longest),
            Using::Unwrap(wrapped) => (wrapped.0.len(), longest + 8),
            _ => return Ok(()),
        };
        match length <= longest {
            true => Ok(()),
            false => {
                let message = format!("A key of more than {longest} bytes is not wrapped or unwrapped here.");
                Err(Problem::not_authorized("DataError", message))
            }
        }
    }

    fn revoke(&self, named: &Named) -> Result<Judgement, NotAllowed> {
        let capability = self.body()?;
        let id = body::delegated_capability(capability)?;
        let (keystore, stored) = self.stored(named)?;
        let path_id = self
            .request
            .request_target
            .rsplit('/')
            .next()
            .and_then(decode_component);
        if path_id.as_deref() != Some(id) {
            return Err(Problem::malformed("The capability's \"id\" does not match the request URL.").into());
        }
        let root = ExpectedRoot::new(self.keystore_url(&keystore), stored.config.controllers.clone());
        let failed = RefCell::new(None);
        let revoked = |capability: &str, delegator: &str| {
            self.facts
                .revoked(&keystore, capability, delegator)
                .unwrap_or_else(|error| {
                    failed.replace(Some(error));
                    true
                })
        };
        let rules = self.rules;
        let roots = std::slice::from_ref(&root);
        let delegation = verify_delegation(
            capability,
            roots,
            &revoked,
            &rules.policy,
            &rules.chains,
            self.now,
        );
        if let Some(error) = failed.take() {
            return Err(error.into());
        }
        let delegation = delegation.map_err(Problem::from)?;
        let tail = delegation
            .chain
            .last()
            .ok_or_else(|| Problem::from(Refusal::RootByValue))?;
        // Every controller in the chain may revoke at the revocation's own root; the keystore's root serves too.
        let own_root = ExpectedRoot::new(
            self.url(&self.request.request_target),
            delegation.controllers.clone(),
        );
        let authorized = self.authorize(&[root, own_root], "write", OTHER_TTL, Some(&keystore))?;
        let by_controller = stored.config.controllers.iter().any(|controller| {
            *controller == authorized.invoker || controller.split('#').next() == Some(&authorized.invoker)
        });
        let command = Command::Revoke {
            keystore,
            capability: tail.id.clone(),
            delegator: tail.delegator.clone(),
            // Seconds in capabilities, milliseconds in entries.
            expires: tail
                .expires
                .saturating_mul(1_000)
                .saturating_add(REVOCATION_MEMORY),
            revoker: (!by_controller).then(|| authorized.invoker.clone()),
        };
        Ok(judgement(Intent::Change(command), authorized, stored.version))
    }
}

fn judgement(intent: Intent, authorized: Authorized, state_version: u64) -> Judgement {
    let chain = authorized
        .chain
        .into_iter()
        .map(|link| (link.id, link.delegator))
        .collect();
    Judgement {
        intent,
        chain,
        state_version,
    }
}

/// 403: a restore may have lost a revocation, and no controller has looked since.
fn held_back(hold: Hold) -> Problem {
    let made = i64::try_from(hold.backup / 1_000).unwrap_or_default();
    let made = time::OffsetDateTime::from_unix_timestamp(made).ok();
    let made = made.and_then(|made| made.format(&time::format_description::well_known::Rfc3339).ok());
    let message = format!(
        "This keystore was restored from a backup of {}; revocations since then may be lost, so delegated capabilities are \
         refused until a controller updates the keystore's configuration (the same content under the next sequence will do).",
        made.unwrap_or_default()
    );
    Problem::not_authorized("InvalidStateError", message)
}

/// 409: the sequence or the module does not follow the stored configuration.
pub fn sequence_mismatch(url: &str, sequence: u64) -> Problem {
    let message = "Could not update keystore configuration. Record sequence and \"kmsModule\" do not match or \
                   keystore does not exist.";
    Problem::new(409, "InvalidStateError", message).with_details(json!({ "id": url, "sequence": sequence }))
}

fn controllers_are_dids(controllers: &[String]) -> Result<(), Problem> {
    match controllers
        .iter()
        .find(|controller| !crate::authorization::did_key::is_controller(controller))
    {
        Some(_) => Err(Problem::malformed(
            "A keystore's controllers must be Ed25519 did:keys.",
        )),
        None => Ok(()),
    }
}

fn using(operation: KeyOperation, key_type: KeyType) -> Result<Using, Problem> {
    let unsupported = |action: &str| {
        let message = format!(
            "Unsupported operation \"{action}\" for key type \"{}\".",
            key_type.name()
        );
        Problem::not_authorized("Error", message)
    };
    match (operation, key_type.purpose()) {
        (KeyOperation::Sign(message), Purpose::Sign) => Ok(Using::Sign(message)),
        (KeyOperation::DeriveSecret(peer), Purpose::DeriveSecret) => {
            peer_u(&peer, key_type).map(Using::DeriveSecret)
        }
        (KeyOperation::Sign(message), Purpose::Authenticate) => Ok(Using::Authenticate(message.into())),
        (KeyOperation::Verify(message, tag), Purpose::Authenticate) => {
            Ok(Using::Verify(message.into(), tag.try_into().ok()))
        }
        (KeyOperation::Wrap(payload), Purpose::WrapKey) => Ok(Using::Wrap(payload)),
        (KeyOperation::Unwrap(wrapped), Purpose::WrapKey) => Ok(Using::Unwrap(wrapped)),
        (operation, _) => Err(unsupported(operation.action())),
    }
}

/// The Montgomery u of the other party's key, whose type must be that of the key that is used.
fn peer_u(peer: &PeerKey, key_type: KeyType) -> Result<[u8; 32], Problem> {
    let bytes = match peer.multibase.split_at_checked(1) {
        Some(("z", rest)) if rest.len() <= 64 => bs58::decode(rest).into_vec().ok(),
        Some(("u", rest)) => {
            use base64::Engine;
            base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(rest).ok()
        }
        _ => None,
    };
    let header = key_type.multicodec().unwrap_or_default();
    let key = bytes.as_deref().and_then(|bytes| bytes.strip_prefix(&header));
    let key = key.and_then(|key| <[u8; 32]>::try_from(key).ok());
    let key = key
        .ok_or_else(|| Problem::not_authorized("Error", "Multibase value does not have expected header."))?;
    if peer.key_type != key_type.description_type() {
        let given = if peer.key_type == "Multikey" {
            KeyType::MultikeyX25519.name()
        } else {
            &peer.key_type
        };
        let message = format!(
            "The given public key type \"{given}\" does not match the key agreement key's type \"{}\".",
            key_type.name()
        );
        return Err(Problem::not_authorized("Error", message));
    }
    Ok(key)
}

/// Undoes `encodeURIComponent`; `None` for a broken escape or text that is not UTF-8.
fn decode_component(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return None;
            }
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}
