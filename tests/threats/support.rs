//! What the tables of bad inputs share: a request whose every part can be made wrong before it is signed, the world
//! that it is judged in, and a chain alice -> bob -> carol to bend. Everything is deterministic.

#![allow(dead_code, reason = "each test crate uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use conclave::authorization::issue::{Capability, Delegation};
use conclave::authorization::{
    Authorized, ChainCache, DidKey, Expectation, ExpectedRoot, Policy, RawRequest, Refusal, Suite,
    authenticate, authorize, digest, root_id,
};
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::Value;
use sha2::Digest as _;

/// Where and when the requests of a table are made.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    /// The authority that clients send as Host.
    pub(crate) host: &'static str,
    /// URL of Alice's keystore.
    pub(crate) keystore: &'static str,
    /// Path of her key that signs.
    pub(crate) key_path: &'static str,
    /// The use of that key, as JSON.
    pub(crate) body: &'static str,
    /// Seconds since 1970.
    pub(crate) now: u64,
}

thread_local! {
    /// 2026-06-01T12:00:00Z at a server that does not exist; a thread that attacks a real one moves there first.
    static PLACE: Cell<Place> = const {
        Cell::new(Place {
            host: "kms.example",
            keystore: "https://kms.example/kms/keystores/z1A",
            key_path: "/kms/keystores/z1A/keys/z1B",
            body: r#"{"type":"SignOperation","invocationTarget":"https://kms.example/kms/keystores/z1A/keys/z1B","verifyData":"aGVsbG8"}"#,
            now: 1_780_315_200,
        })
    };
    /// What the verifier judged last in the world that a real server would judge it in.
    static JUDGED: RefCell<Option<RawRequest>> = const { RefCell::new(None) };
}

/// This thread's tables are made for `place` from now on.
pub(crate) fn move_to(place: Place) {
    PLACE.set(place);
}

pub(crate) fn host() -> &'static str {
    PLACE.get().host
}

pub(crate) fn keystore() -> &'static str {
    PLACE.get().keystore
}

pub(crate) fn key_path() -> &'static str {
    PLACE.get().key_path
}

pub(crate) fn body() -> &'static [u8] {
    PLACE.get().body.as_bytes()
}

pub(crate) fn now() -> u64 {
    PLACE.get().now
}

/// A text about the imagined server, made one about the real one.
pub(crate) fn here(text: &str) -> String {
    let path = keystore()
        .strip_prefix("https://")
        .and_then(|url| url.strip_prefix(host()))
        .unwrap();
    text.replace("/kms/keystores/z1A/keys/z1B", key_path())
        .replace("/kms/keystores/z1A", path)
        .replace("kms.example", host())
}

pub(crate) const DAY: u64 = 86_400;

pub(crate) fn key(name: &str) -> SigningKey {
    SigningKey::from_bytes(&sha2::Sha256::digest(name).into())
}

pub(crate) fn did(name: &str) -> String {
    DidKey::of(&key(name).verifying_key()).did
}

pub(crate) fn method(name: &str) -> String {
    DidKey::of(&key(name).verifying_key()).method
}

/// A request whose every part can be made wrong before it is signed.
#[derive(Clone)]
pub(crate) struct Forge {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) covered: Vec<String>,
    pub(crate) body: Vec<u8>,
    pub(crate) key: SigningKey,
    pub(crate) key_id: String,
    pub(crate) created: String,
    pub(crate) expires: String,
}

impl Forge {
    pub(crate) fn new(invocation: &str) -> Self {
        Self {
            method: "POST".into(),
            target: key_path().into(),
            headers: [
                ("host", host().as_bytes()),
                ("capability-invocation", invocation.as_bytes()),
                ("content-type", b"application/json"),
                ("digest", digest::header_value(body()).as_bytes()),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_vec()))
            .to_vec(),
            covered:
                "(key-id) (created) (expires) (request-target) host capability-invocation content-type digest"
                    .split(' ')
                    .map(str::to_owned)
                    .collect(),
            body: body().to_vec(),
            key: key("alice"),
            key_id: method("alice"),
            created: now().to_string(),
            expires: (now() + 600).to_string(),
        }
    }

    pub(crate) fn root() -> Self {
        Self::new(&format!("zcap id=\"{}\",action=\"sign\"", root_id(keystore())))
    }

    pub(crate) fn set(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.retain(|(other, _)| other != name);
        self.headers.push((name.into(), value.as_ref().to_vec()));
        self
    }

    pub(crate) fn with(mut self, edit: impl FnOnce(&mut Self)) -> Self {
        edit(&mut self);
        self
    }

    fn signing_string(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (index, name) in self.covered.iter().enumerate() {
            if index > 0 {
                out.push(b'\n');
            }
            out.extend_from_slice(format!("{name}: ").as_bytes());
            match name.as_str() {
                "(key-id)" => out.extend_from_slice(self.key_id.as_bytes()),
                "(created)" => out.extend_from_slice(self.created.as_bytes()),
                "(expires)" => out.extend_from_slice(self.expires.as_bytes()),
                "(request-target)" => {
                    out.extend_from_slice(
                        format!("{} {}", self.method.to_lowercase(), self.target).as_bytes(),
                    );
                }
                name => {
                    let value = self.headers.iter().find(|(other, _)| other == name);
                    out.extend_from_slice(value.map_or(&[][..], |(_, value)| value));
                }
            }
        }
        out
    }

    pub(crate) fn signature(&self) -> [u8; 64] {
        self.key.sign(&self.signing_string()).to_bytes()
    }

    pub(crate) fn authorization(&self, signature: &str) -> String {
        format!(
            "Signature keyId=\"{}\",headers=\"{}\",signature=\"{signature}\",created=\"{}\",expires=\"{}\"",
            self.key_id,
            self.covered.join(" "),
            self.created,
            self.expires
        )
    }

    pub(crate) fn signed(&self) -> RawRequest {
        self.sent(&self.authorization(&STANDARD.encode(self.signature())))
    }

    pub(crate) fn sent(&self, authorization: &str) -> RawRequest {
        let mut headers = self.headers.clone();
        headers.push(("authorization".into(), authorization.into()));
        RawRequest {
            method: self.method.clone(),
            target: self.target.clone(),
            headers,
            body: self.body.clone(),
        }
    }
}

/// The world that a request is judged in.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) policy: Policy,
    pub(crate) now: u64,
    pub(crate) action: String,
    pub(crate) controllers: Vec<String>,
    pub(crate) revoked: Vec<(String, String)>,
    pub(crate) ttl: Option<Duration>,
    /// Not the world of a real server.
    bent: bool,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            policy: Policy::new(host()),
            now: now() * 1_000,
            action: "sign".into(),
            controllers: vec![did("alice")],
            revoked: vec![],
            ttl: None,
            bent: false,
        }
    }

    pub(crate) fn with(mut self, edit: impl FnOnce(&mut Self)) -> Self {
        edit(&mut self);
        self.bent = true;
        self
    }

    pub(crate) fn judge(&self, request: &RawRequest) -> Result<Authorized, Refusal> {
        let verdict = self.verdict(request);
        let as_server =
            !self.bent && self.ttl.is_none() && self.revoked.is_empty() && self.now == now() * 1_000;
        JUDGED.replace((as_server && verdict.is_err()).then(|| request.clone()));
        verdict
    }

    fn verdict(&self, request: &RawRequest) -> Result<Authorized, Refusal> {
        let roots = [ExpectedRoot::new(keystore(), self.controllers.clone())];
        let cache = ChainCache::new(0);
        let authenticated = authenticate(request, &self.policy, &cache, self.now)?;
        let expectation = Expectation {
            roots: &roots,
            target: &format!("https://{}{}", host(), request.target),
            action: &self.action,
            max_delegation_ttl: self.ttl,
            revoked: &|id, delegator| {
                self.revoked
                    .iter()
                    .any(|pair| (pair.0.as_str(), pair.1.as_str()) == (id, delegator))
            },
        };
        authorize(&authenticated, &expectation, &self.policy, &cache, self.now)
    }
}

/// A chain alice -> bob -> carol over the keystore, of which each test bends a link.
#[derive(Clone)]
pub(crate) struct Links {
    pub(crate) parent: Value,
    pub(crate) child: Value,
}

pub(crate) fn delegation<'a>(from: &'a SigningKey, parent: Capability<'a>, id: &'a str) -> Delegation<'a> {
    Delegation {
        key: from,
        parent,
        id,
        controllers: &[],
        target: keystore(),
        actions: Some(&["read", "sign"]),
        created: now() - 10 * DAY,
        expires: now() + 10 * DAY,
        suite: Suite::Ed25519Signature2020,
    }
}

pub(crate) fn parent(edit: impl FnOnce(Delegation<'_>) -> Value) -> Value {
    edit(Delegation {
        controllers: &[&did("bob")],
        ..delegation(&key("alice"), Capability::Root(keystore()), "urn:uuid:p")
    })
}

pub(crate) fn child(parent: &Value, edit: impl FnOnce(Delegation<'_>) -> Value) -> Value {
    edit(Delegation {
        controllers: &[&did("carol")],
        ..delegation(&key("bob"), Capability::Delegated(parent), "urn:uuid:c")
    })
}

pub(crate) fn made(delegation: Delegation<'_>) -> Value {
    delegation.sign().unwrap()
}

pub(crate) fn links() -> Links {
    let parent = parent(made);
    let child = child(&parent, made);
    Links { parent, child }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

pub(crate) fn invoke_text(text: &[u8], who: &str) -> RawRequest {
    invoke_packed(&URL_SAFE_NO_PAD.encode(gzip(text)), who)
}

pub(crate) fn invoke_packed(packed: &str, who: &str) -> RawRequest {
    Forge::new(&format!("zcap capability=\"{packed}\",action=\"sign\""))
        .with(|forge| (forge.key, forge.key_id) = (key(who), method(who)))
        .signed()
}

pub(crate) fn invoke(capability: &Value, who: &str) -> RawRequest {
    invoke_text(capability.to_string().as_bytes(), who)
}

/// A bad input that the verifier has refused, for a real server.
pub(crate) struct Case {
    pub(crate) row: u32,
    pub(crate) case: String,
    pub(crate) request: RawRequest,
    pub(crate) status: u16,
}

/// The table: remembers which rows have had a case, and the requests.
#[derive(Default)]
pub(crate) struct Table {
    pub(crate) rows: RefCell<BTreeSet<u32>>,
    pub(crate) cases: RefCell<Vec<Case>>,
}

impl Table {
    pub(crate) fn refused(
        &self,
        row: u32,
        case: &str,
        verdict: Result<Authorized, Refusal>,
        status: u16,
    ) -> Refusal {
        self.rows.borrow_mut().insert(row);
        if let Some(request) = JUDGED.take() {
            self.cases.borrow_mut().push(Case {
                row,
                case: case.to_owned(),
                request,
                status,
            });
        }
        match verdict {
            Ok(_) => panic!("row {row}, {case}: accepted"),
            Err(refusal) => {
                assert_eq!(
                    refusal.status(),
                    status,
                    "row {row}, {case}: {}",
                    refusal.detail()
                );
                refusal
            }
        }
    }

    pub(crate) fn for_reason(
        &self,
        row: u32,
        case: &str,
        verdict: Result<Authorized, Refusal>,
        reason: Refusal,
    ) {
        let refusal = self.refused(row, case, verdict, reason.status());
        assert_eq!(refusal, reason, "row {row}, {case}");
    }
}

/// A chain of so many delegations, `agent n` being the controller of the n-th.
pub(crate) fn long_chain(length: usize) -> Value {
    let mut capability: Option<Value> = None;
    for index in 1..=length {
        let from = if index == 1 {
            "alice".to_owned()
        } else {
            format!("agent {}", index - 1)
        };
        let parent = capability
            .as_ref()
            .map_or(Capability::Root(keystore()), Capability::Delegated);
        let id = format!("urn:uuid:{index}");
        let made = Delegation {
            controllers: &[&did(&format!("agent {index}"))],
            suite: if index % 2 == 0 {
                Suite::EddsaRdfc2022
            } else {
                Suite::Ed25519Signature2020
            },
            ..delegation(&key(&from), parent, &id)
        }
        .sign()
        .unwrap();
        capability = Some(made);
    }
    capability.unwrap()
}
