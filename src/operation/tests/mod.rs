//! What each route allows, and each refusal with the status, name and cause of the wire contract (table 1.3).
//!
//! Requests are really signed and really authenticated; the state is a `BTreeMap`. A [`Desk`] is one node's state
//! with one meter, two tenants and a few keys; tests change it and put requests before it.

mod isolation;
mod keys;
mod keystores;
mod meters;
mod revocations;

use std::collections::BTreeMap;

use ed25519_dalek::SigningKey;
use serde_json::Value;

use super::judge::{Case, Facts, Judgement, NotAllowed, Rules};
use super::route::Route;
use crate::authorization::issue::{Capability, Delegation, Invocation};
use crate::authorization::{ChainCache, DidKey, Policy, RawRequest, Suite, authenticate};
use crate::identifier::{LocalId, OperationId};
use crate::keystore::config::KeystoreConfig;
use crate::keystore::record::{Hold, KeyRecord, KeyType, KeystoreRecord, Material, Meter, RevocationRecord};
use crate::keystore::{StateError, WriteState, layout, query};
use crate::problem::Problem;

const URL: &str = "https://kms.example";
const AUTHORITY: &str = "kms.example";
/// The node's clock, Unix seconds.
const NOW: u64 = 1_800_000_000;
const CLUSTER: [u8; 32] = [9; 32];
const OPERATION: OperationId = OperationId {
    node: 1,
    boot: 2,
    counter: 3,
};

const METER: LocalId = LocalId([1; 16]);
/// Alice's keystore.
const KS: LocalId = LocalId([2; 16]);
/// Mallory's keystore.
const OTHER_KS: LocalId = LocalId([3; 16]);
const SIGN_KEY: LocalId = LocalId([4; 16]);
const AGREE_KEY: LocalId = LocalId([5; 16]);
/// For the root capability alone: its longest chain is 1.
const SHORT_KEY: LocalId = LocalId([6; 16]);
/// In Mallory's keystore.
const OTHER_KEY: LocalId = LocalId([7; 16]);
/// The state version of Alice's keystore.
const VERSION: u64 = 4;

const ALICE: u8 = 1;
/// The second controller of Alice's keystore.
const ANNE: u8 = 2;
const BOB: u8 = 3;
const MALLORY: u8 = 4;

const WRONG_INVOKER: &str =
    "The capability controller does not match the verification method (or its controller) used to invoke.";

fn key(who: u8) -> SigningKey {
    SigningKey::from_bytes(&[who; 32])
}

fn did(who: u8) -> String {
    DidKey::of(&key(who).verifying_key()).did
}

fn keystore_path(keystore: &LocalId) -> String {
    format!("/kms/keystores/{keystore}")
}

fn key_path(keystore: &LocalId, id: &LocalId) -> String {
    format!("/kms/keystores/{keystore}/keys/{id}")
}

fn url(path: &str) -> String {
    format!("{URL}{path}")
}

/// One group's state, in which everything is.
struct State {
    pairs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Whether reads fail.
    broken: bool,
}

impl State {
    fn read(&self) -> Result<&BTreeMap<Vec<u8>, Vec<u8>>, StateError> {
        match self.broken {
            true => Err(StateError("input/output error".into())),
            false => Ok(&self.pairs),
        }
    }
}

impl Facts for State {
    fn keystore(&self, id: &LocalId) -> Result<Option<KeystoreRecord>, StateError> {
        query::keystore(self.read()?, id)
    }

    fn meter(&self, id: &LocalId) -> Result<Option<Meter>, StateError> {
        query::meter(self.read()?, id)
    }

    fn key(&self, keystore: &LocalId, id: &LocalId) -> Result<Option<KeyRecord>, StateError> {
        query::key(self.read()?, keystore, id)
    }

    fn hold(&self, keystore: &LocalId) -> Result<Option<Hold>, StateError> {
        query::hold(self.read()?, keystore)
    }

    fn revoked(&self, keystore: &LocalId, capability: &str, delegator: &str) -> Result<bool, StateError> {
        query::revoked(self.read()?, keystore, capability, delegator)
    }
}

/// A request before it is signed.
struct Ask<'a> {
    who: u8,
    method: &'a str,
    target: &'a str,
    capability: Capability<'a>,
    action: &'a str,
    body: Option<&'a Value>,
}

/// Where requests are judged.
struct Desk {
    rules: Rules,
    state: State,
}

impl Desk {
    fn new() -> Self {
        let mut desk = Self {
            rules: Rules {
                public_url: URL.into(),
                policy: Policy::new(AUTHORITY),
                cluster: CLUSTER,
                groups: 2,
                meter_admins: None,
                chains: ChainCache::new(64),
                wrap_bytes: 256,
            },
            state: State {
                pairs: BTreeMap::new(),
                broken: false,
            },
        };
        let meter = Meter {
            controller: did(ALICE),
            product: "urn:uuid:product".into(),
            sequence: 0,
        };
        desk.put(&layout::meter(&METER), &meter);
        desk.put(
            &layout::keystore(&KS),
            &keystore(vec![did(ALICE), did(ANNE)], VERSION),
        );
        desk.put(&layout::keystore(&OTHER_KS), &keystore(vec![did(MALLORY)], 1));
        let keys = [
            (KS, SIGN_KEY, KeyType::Ed25519VerificationKey2020, None),
            (KS, AGREE_KEY, KeyType::X25519KeyAgreementKey2020, None),
            (KS, SHORT_KEY, KeyType::MultikeyEd25519, Some(1)),
            (OTHER_KS, OTHER_KEY, KeyType::MultikeyEd25519, None),
        ];
        for (keystore, id, key_type, longest) in keys {
            desk.put(&layout::of_key(&keystore, &id), &record(key_type, longest));
        }
        desk
    }

    fn put<T: serde::Serialize>(&mut self, at: &[u8], record: &T) {
        self.state.pairs.put_record(at, record).unwrap();
    }

    fn revoke(&mut self, keystore: &LocalId, capability: &str, delegator: u8) {
        let record = RevocationRecord {
            expires: u64::MAX,
            revoker: None,
        };
        self.put(
            &layout::revocation(keystore, capability, &did(delegator)),
            &record,
        );
    }

    fn judge_raw(&self, request: &RawRequest) -> Result<Judgement, NotAllowed> {
        let now = NOW * 1_000;
        let request = authenticate(request, &self.rules.policy, &self.rules.chains, now)
            .expect("the request is authentic");
        let route = Route::parse(&request.method, &request.request_target).expect("the route exists");
        let case = Case {
            rules: &self.rules,
            facts: &self.state,
            request: &request,
            route: &route,
            operation: OPERATION,
            now,
        };
        case.judge()
    }

    fn judge(&self, ask: Ask<'_>) -> Result<Judgement, NotAllowed> {
        self.judge_raw(&ask.sign())
    }

    /// A POST of `body` by `who` with the root capability of `root` (a path).
    fn post(
        &self,
        who: u8,
        target: &str,
        root: &str,
        action: &str,
        body: &Value,
    ) -> Result<Judgement, NotAllowed> {
        self.judge(Ask {
            who,
            method: "POST",
            target,
            capability: Capability::Root(&url(root)),
            action,
            body: Some(body),
        })
    }

    /// The same with a delegated capability.
    fn post_with(
        &self,
        who: u8,
        target: &str,
        capability: &Value,
        action: &str,
        body: &Value,
    ) -> Result<Judgement, NotAllowed> {
        self.judge(Ask {
            who,
            method: "POST",
            target,
            capability: Capability::Delegated(capability),
            action,
            body: Some(body),
        })
    }

    /// A GET by `who` with the root capability of `root` (a path).
    fn get(&self, who: u8, target: &str, root: &str) -> Result<Judgement, NotAllowed> {
        self.judge(Ask {
            who,
            method: "GET",
            target,
            capability: Capability::Root(&url(root)),
            action: "read",
            body: None,
        })
    }
}

impl Ask<'_> {
    fn sign(&self) -> RawRequest {
        let body = self.body.map(Value::to_string);
        let invocation = Invocation {
            key: &key(self.who),
            method: self.method,
            authority: AUTHORITY,
            target: self.target,
            capability: self.capability,
            action: self.action,
            created: NOW,
            expires: NOW + 300,
            body: body.as_deref().map(str::as_bytes),
        };
        invocation.sign().unwrap()
    }
}

fn keystore(controllers: Vec<String>, version: u64) -> KeystoreRecord {
    KeystoreRecord {
        config: KeystoreConfig {
            controllers,
            single_controller: false,
            meter: METER,
            sequence: version - 1,
            kms_module: "ssm-v1".into(),
            ip_allow_list: None,
        },
        version,
        created: 0,
    }
}

fn record(key_type: KeyType, max_chain_length: Option<u32>) -> KeyRecord {
    KeyRecord {
        key_type,
        epoch: 0,
        session: [0; 32],
        material: Material::Pair {
            commitment: Vec::new(),
            public_key: [8; 32],
        },
        committee: 1,
        away: Vec::new(),
        alias: None,
        max_chain_length,
        created: 0,
        origin: None,
    }
}

/// What a delegation of a test differs in from the usual one.
struct Terms<'a> {
    id: &'a str,
    actions: Option<&'a [&'a str]>,
    target: &'a str,
    created: u64,
    expires: u64,
}

impl<'a> Terms<'a> {
    /// An hour's delegation of `actions` at `target` (a URL).
    fn new(id: &'a str, target: &'a str, actions: &'a [&'a str]) -> Self {
        Self {
            id,
            actions: Some(actions),
            target,
            created: NOW - 10,
            expires: NOW + 3_600,
        }
    }

    /// Signed by `from`, for `to`, under `parent`.
    fn delegate(&self, from: u8, to: u8, parent: Capability<'_>) -> Value {
        let delegation = Delegation {
            key: &key(from),
            parent,
            id: self.id,
            controllers: &[&did(to)],
            target: self.target,
            actions: self.actions,
            created: self.created,
            expires: self.expires,
            suite: Suite::Ed25519Signature2020,
        };
        delegation.sign().unwrap()
    }
}

/// A delegation by Alice to Bob at her keystore.
fn bobs(id: &str, actions: &[&str]) -> Value {
    let root = url(&keystore_path(&KS));
    Terms::new(id, &root, actions).delegate(ALICE, BOB, Capability::Root(&root))
}

fn problem(result: Result<Judgement, NotAllowed>) -> Problem {
    match result {
        Err(NotAllowed::Problem(problem)) => *problem,
        other => panic!("no refusal, but {other:?}"),
    }
}

/// The refusal has this status and name, and its message starts with this.
#[track_caller]
fn assert_refused(result: Result<Judgement, NotAllowed>, status: u16, name: &str, message: &str) -> Problem {
    let problem = problem(result);
    assert_eq!(
        (problem.status, problem.name.as_str()),
        (status, name),
        "{problem:?}"
    );
    assert!(problem.message.starts_with(message), "{problem:?}");
    problem
}

/// 403 "Authorization error." with this cause: how every failure after routing reads.
#[track_caller]
fn assert_not_authorized(result: Result<Judgement, NotAllowed>, cause_name: &str, cause: &str) {
    let problem = assert_refused(result, 403, "NotAllowedError", "Authorization error.");
    let reason = problem.cause.expect("a cause");
    assert_eq!(
        (reason.name.as_str(), reason.message.as_str()),
        (cause_name, cause)
    );
}

/// The `details` of a refusal, as the client reads them.
fn details(problem: &Problem) -> Value {
    problem.body()["details"].clone()
}

#[test]
fn a_key_description_is_read_without_authorization() {
    let desk = Desk::new();
    let target = key_path(&KS, &SIGN_KEY);
    assert_refused(
        desk.get(ALICE, &target, &target),
        400,
        "DataError",
        "A key description",
    );
}

#[test]
fn a_state_that_cannot_be_read_is_no_verdict() {
    let mut desk = Desk::new();
    desk.state.broken = true;
    let target = key_path(&KS, &SIGN_KEY);
    let results = [
        desk.get(ALICE, &keystore_path(&KS), &keystore_path(&KS)),
        desk.get(ALICE, &format!("/meters/{METER}"), &format!("/meters/{METER}")),
        desk.post(
            ALICE,
            &target,
            &keystore_path(&KS),
            "sign",
            &keys::sign_body(&target, b"m"),
        ),
    ];
    for result in results {
        assert!(matches!(result, Err(NotAllowed::State(_))), "{result:?}");
    }
}

/// A state of which only the revocations cannot be read.
struct NoRevocations<'a>(&'a State);

impl Facts for NoRevocations<'_> {
    fn keystore(&self, id: &LocalId) -> Result<Option<KeystoreRecord>, StateError> {
        self.0.keystore(id)
    }

    fn meter(&self, id: &LocalId) -> Result<Option<Meter>, StateError> {
        self.0.meter(id)
    }

    fn key(&self, keystore: &LocalId, id: &LocalId) -> Result<Option<KeyRecord>, StateError> {
        self.0.key(keystore, id)
    }

    fn hold(&self, keystore: &LocalId) -> Result<Option<Hold>, StateError> {
        self.0.hold(keystore)
    }

    fn revoked(&self, _: &LocalId, _: &str, _: &str) -> Result<bool, StateError> {
        Err(StateError("input/output error".into()))
    }
}

#[test]
fn revocations_that_cannot_be_read_are_neither_a_grant_nor_a_revocation() {
    let desk = Desk::new();
    let capability = bobs("urn:uuid:c", &["sign"]);
    let use_target = key_path(&KS, &SIGN_KEY);
    let use_body = keys::sign_body(&use_target, b"m");
    let revoke_target = revocations::path(&KS, "urn:uuid:c");
    let root = url(&keystore_path(&KS));
    let asks = [
        Ask {
            who: BOB,
            method: "POST",
            target: &use_target,
            capability: Capability::Delegated(&capability),
            action: "sign",
            body: Some(&use_body),
        },
        Ask {
            who: ALICE,
            method: "POST",
            target: &revoke_target,
            capability: Capability::Root(&root),
            action: "write",
            body: Some(&capability),
        },
    ];
    for ask in asks {
        let now = NOW * 1_000;
        let request = authenticate(&ask.sign(), &desk.rules.policy, &desk.rules.chains, now).unwrap();
        let route = Route::parse(&request.method, &request.request_target).unwrap();
        let case = Case {
            rules: &desk.rules,
            facts: &NoRevocations(&desk.state),
            request: &request,
            route: &route,
            operation: OPERATION,
            now,
        };
        let result = case.judge();
        assert!(matches!(result, Err(NotAllowed::State(_))), "{result:?}");
    }
}
