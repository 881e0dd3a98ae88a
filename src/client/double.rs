//! For tests: a WebKMS server of one process that keeps whole keys in memory, behind the house's own verifier. It
//! stands in for *any* WebKMS server: what a client makes must be accepted, and what is wrong must be refused.

use crate::authorization::{
    Authenticated, ChainCache, Expectation, ExpectedRoot, Policy, RawRequest, authenticate, authorize,
    verify_delegation,
};
use crate::client::multikey::{self, ED25519_PUBLIC, X25519_PUBLIC};
use crate::client::signer::unix_seconds;
use crate::client::testing::Answer;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer as _, SigningKey};
use parking_lot::Mutex;
use rand::rngs::OsRng;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use x25519_dalek::{PublicKey, StaticSecret};

enum Secret {
    Signing(SigningKey),
    Agreeing(StaticSecret),
}

#[derive(Default)]
struct State {
    meters: HashMap<String, String>,
    keystores: HashMap<String, Value>,
    keys: HashMap<String, (Secret, Value)>,
    revoked: HashSet<(String, String)>,
    seen: HashSet<[u8; 32]>,
    count: usize,
}

/// The server's state; [`Kms::answer`] is a handler for [`crate::client::testing::Server`].
pub(crate) struct Kms {
    authority: String,
    state: Mutex<State>,
    cache: ChainCache,
    /// Every how many operations the result is wrong; 0 for never.
    lie: usize,
}

impl Kms {
    pub(crate) fn new(authority: &str, lie: usize) -> Self {
        Self {
            authority: authority.to_owned(),
            state: Mutex::default(),
            cache: ChainCache::new(64),
            lie,
        }
    }

    pub(crate) fn answer(&self, request: &RawRequest) -> Answer {
        let (status, body) = self.handle(request).unwrap_or_else(|(status, name, message)| {
            let cause = json!({"name": name, "message": message, "cause": {"name": "OperationError", "message": "x"}});
            (status, json!({"name": "NotAllowedError", "message": "Authorization error.", "cause": cause}))
        });
        Answer::Json(
            status,
            if body.is_null() {
                String::new()
            } else {
                body.to_string()
            },
        )
    }

    fn handle(&self, request: &RawRequest) -> Result<(u16, Value), (u16, String, String)> {
        let refused = |refusal: crate::authorization::Refusal| {
            (
                refusal.status(),
                refusal.cause_name().to_owned(),
                refusal.detail(),
            )
        };
        let policy = Policy::new(self.authority.clone());
        let now = unix_seconds() * 1000;
        let signed = authenticate(request, &policy, &self.cache, now).map_err(refused)?;
        let mut state = self.state.lock();
        if request.method == "POST" && !state.seen.insert(signed.name) {
            return Err((
                409,
                "InvalidStateError".into(),
                "The request was made before.".into(),
            ));
        }
        let url = format!("https://{}{}", self.authority, request.target);
        let path = request.target.split('?').next().unwrap_or_default();
        let keystore_path: Vec<&str> = path.split('/').take(4).collect();
        let keystore = format!("https://{}{}", self.authority, keystore_path.join("/"));
        let body = signed.body_json.clone().unwrap_or_default();
        let revocation = url.contains("/zcaps/revocations/");
        let (root, controllers) = if path == "/meters" {
            (url.clone(), vec![signed.signer.clone()])
        } else if path == "/kms/keystores" {
            let controller = match body["meterId"].as_str() {
                Some(meter) => state.meters.get(meter).cloned().unwrap_or_default(),
                None => signed.signer.clone(),
            };
            (keystore.clone(), vec![controller])
        } else {
            let found = state.keystores.get(&keystore);
            let found = found.ok_or_else(|| (404, "NotFoundError".to_owned(), "No keystore.".to_owned()))?;
            (keystore.clone(), texts(&found["controller"]))
        };
        let revoked =
            |id: &str, delegator: &str| state.revoked.contains(&(id.to_owned(), delegator.to_owned()));
        let mut roots = vec![ExpectedRoot::new(root, controllers)];
        let mut condemned = None;
        if revocation {
            let link =
                verify_delegation(&body, &roots, &revoked, &policy, &self.cache, now).map_err(|_| {
                    (
                        403,
                        "DataError".to_owned(),
                        "The provided capability delegation is invalid.".to_owned(),
                    )
                })?;
            roots.push(ExpectedRoot::new(url.clone(), link.controllers.clone()));
            condemned = link
                .chain
                .last()
                .map(|last| (last.id.clone(), last.delegator.clone()));
        }
        let action = action_of(request, path, &body);
        let expectation = Expectation {
            roots: &roots,
            target: &url,
            action: &action,
            max_delegation_ttl: None,
            revoked: &revoked,
        };
        authorize(&signed, &expectation, &policy, &self.cache, now).map_err(refused)?;
        if let Some(condemned) = condemned {
            state.revoked.insert(condemned);
            return Ok((204, Value::Null));
        }
        self.carry_out(&mut state, &signed, &url, &keystore, &body)
    }

    fn carry_out(
        &self,
        state: &mut State,
        signed: &Authenticated,
        url: &str,
        keystore: &str,
        body: &Value,
    ) -> Result<(u16, Value), (u16, String, String)> {
        state.count += 1;
        let number = state.count;
        let lies = self.lie > 0 && number.is_multiple_of(self.lie);
        if url.ends_with("/meters") {
            let id = format!("z1M{number}");
            state.meters.insert(
                format!("{url}/{id}"),
                body["controller"].as_str().unwrap_or_default().to_owned(),
            );
            return Ok((
                201,
                json!({"meter": {"controller": body["controller"], "id": id, "sequence": 0}}),
            ));
        }
        if signed.method == "GET" {
            if url.contains("/keystores?") {
                let own = state
                    .keystores
                    .values()
                    .filter(|one| texts(&one["controller"]).contains(&signed.signer));
                return Ok((200, json!({"results": own.collect::<Vec<_>>()})));
            }
            return match state.keys.get(url) {
                Some((_, description)) => Ok((200, description.clone())),
                None => Ok((200, state.keystores[keystore].clone())),
            };
        }
        if url.ends_with("/kms/keystores") {
            let mut config = json!({"id": format!("{url}/z1K{number}")});
            for (name, value) in body.as_object().into_iter().flatten() {
                config[name] = value.clone();
            }
            state
                .keystores
                .insert(format!("{url}/z1K{number}"), config.clone());
            return Ok((201, config));
        }
        if url == keystore {
            let stored = &state.keystores[keystore];
            if body["sequence"].as_u64() != stored["sequence"].as_u64().map(|n| n + 1) {
                return Err((409, "InvalidStateError".into(), "sequence".into()));
            }
            state.keystores.insert(keystore.to_owned(), body.clone());
            return Ok((200, json!({"config": body})));
        }
        if url.ends_with("/keys") {
            return Ok((200, generate(state, url, &body["invocationTarget"], number)));
        }
        let data = |name: &str| {
            URL_SAFE_NO_PAD
                .decode(body[name].as_str().unwrap_or_default())
                .unwrap_or_default()
        };
        match (&state.keys.get(url), body["type"].as_str()) {
            (Some((Secret::Signing(key), _)), Some("SignOperation")) => {
                let message = if lies { b"lie".to_vec() } else { data("verifyData") };
                let value = URL_SAFE_NO_PAD.encode(key.sign(&message).to_bytes());
                Ok((200, json!({"signatureValue": value})))
            }
            (Some((Secret::Agreeing(key), _)), Some("DeriveSecretOperation")) => {
                let other = body["publicKey"]["publicKeyMultibase"]
                    .as_str()
                    .unwrap_or_default();
                let other = multikey::decode(X25519_PUBLIC, other).unwrap_or_default();
                let secret = key.diffie_hellman(&PublicKey::from(other));
                Ok((200, json!({"secret": URL_SAFE_NO_PAD.encode(secret.as_bytes())})))
            }
            _ => Err((403, "NotSupportedError".into(), "Unsupported operation.".into())),
        }
    }
}

fn generate(state: &mut State, url: &str, wanted: &Value, number: usize) -> Value {
    let id = format!("{url}/z1A{number}");
    let (secret, public) = if wanted["type"] == "X25519KeyAgreementKey2020" {
        let key = StaticSecret::random_from_rng(OsRng);
        let public = multikey::encode(X25519_PUBLIC, PublicKey::from(&key).as_bytes());
        (Secret::Agreeing(key), public)
    } else {
        let key = SigningKey::generate(&mut OsRng);
        let public = multikey::encode(ED25519_PUBLIC, key.verifying_key().as_bytes());
        (Secret::Signing(key), public)
    };
    let shown = wanted["publicAlias"].as_str().unwrap_or(&id);
    let description = json!({"id": shown, "type": wanted["type"], "publicKeyMultibase": public});
    state.keys.insert(id.clone(), (secret, description.clone()));
    json!({"keyId": id, "keyDescription": description})
}

fn action_of(request: &RawRequest, path: &str, body: &Value) -> String {
    match body["type"]
        .as_str()
        .and_then(|kind| kind.strip_suffix("Operation"))
    {
        Some(kind) => kind[..1].to_ascii_lowercase() + &kind[1..],
        None if request.method == "GET" && !path.is_empty() => "read".to_owned(),
        None => "write".to_owned(),
    }
}

fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(values) => values
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        one => one.as_str().map(str::to_owned).into_iter().collect(),
    }
}
