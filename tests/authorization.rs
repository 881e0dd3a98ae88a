//! Authorization as its callers use it, against requests that others made: the signed requests of `tests/vectors/zcap`
//! and the captured ones of the npm client.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use conclave::authorization::{
    ChainCache, Expectation, ExpectedRoot, Policy, RawRequest, Refusal, authenticate, authorize, json,
    verify_delegation,
};
use serde_json::Value;

fn read(path: &str) -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/vectors")
        .join(path);
    json::parse(&std::fs::read(path).unwrap()).unwrap()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap()
}

fn never(_: &str, _: &str) -> bool {
    false
}

#[test]
fn every_signed_request_gets_its_verdict() {
    let policy = Policy::new("kms.example");
    let cache = ChainCache::new(10);
    let keystore = "https://kms.example/kms/keystores/z1AAAAAAAAAAAAAAAAAAAAAAAA";
    let alice = "did:key:z6MktwVujco61TSL2RSds283CeCer8Kkx1KuwjeXw26HEiut".to_owned();
    let roots = [ExpectedRoot::new(keystore, vec![alice])];
    let cases = read("zcap/http-invocations.json");
    let cases = cases.as_array().unwrap();
    assert_eq!(cases.len(), 13);
    for case in cases {
        let name = text(case, "name");
        let sent = &case["request"];
        let url = text(sent, "url");
        let request = RawRequest {
            method: text(sent, "method").into(),
            target: url.strip_prefix("https://kms.example").unwrap().into(),
            headers: sent["headers"]
                .as_object()
                .unwrap()
                .iter()
                .map(|(name, value)| (name.clone(), value.as_str().unwrap().into()))
                .collect(),
            body: sent["body"].as_str().unwrap_or_default().into(),
        };
        let now = case["now"].as_u64().unwrap() * 1_000;
        let action = match (request.method.as_str(), request.target.ends_with("/keys")) {
            ("GET", _) => "read",
            (_, true) => "generateKey",
            (_, false) => "sign",
        };
        let verdict = authenticate(&request, &policy, &cache, now);
        if text(case, "expected") == "valid" {
            let authenticated = verdict.unwrap_or_else(|refusal| panic!("{name}: {}", refusal.detail()));
            assert_eq!(
                authenticated.signing_string,
                text(case, "signingString"),
                "{name}"
            );
            let expectation = Expectation {
                roots: &roots,
                target: url,
                action,
                max_delegation_ttl: None,
                revoked: &never,
            };
            let authorized = authorize(&authenticated, &expectation, &policy, &cache, now)
                .unwrap_or_else(|refusal| panic!("{name}: {}", refusal.detail()));
            assert_eq!(authorized.invoker, authenticated.signer);
            // The signed part is all that another node needs, and says the same.
            let part = request.signed_part().unwrap();
            assert!(part.headers.iter().all(|(name, _)| name != "accept"));
            assert_eq!(
                authenticate(&part, &policy, &cache, now).unwrap().name,
                authenticated.name,
                "{name}"
            );
        } else {
            let expected = match name {
                "bad-body-swapped" => Refusal::DigestMismatch,
                "bad-ctype-stripped" => Refusal::CoveredHeaderAbsent("content-type".into()),
                "bad-header-list-short" => Refusal::NotCovered("digest".into()),
                "bad-algorithm-confusion" | "bad-algorithm-unsigned" => {
                    Refusal::Malformed("unknown parameter in the \"authorization\" header".into())
                }
                _ => Refusal::SignatureNotVerified,
            };
            assert_eq!(verdict.unwrap_err(), expected, "{name}");
        }
    }
}

/// What the npm client sent, replayed at the time at which it was sent. What another server answered for a reason
/// that lies in the authorization is answered alike, status and cause; everything else is authorized.
#[test]
fn real_clients_are_answered_as_they_expect() {
    let policy = Policy::new("localhost:18443");
    let cache = ChainCache::new(10);
    let agents = &read("webkms.json")["agents"];
    let (alice, bob) = (
        text(&agents["alice"], "did").to_owned(),
        text(&agents["bob"], "did").to_owned(),
    );
    let captures = read("captures.json");
    let (mut authorized, mut refused) = (0, 0);
    for capture in captures.as_array().unwrap() {
        let step = text(capture, "step");
        let target = text(capture, "target");
        let request = RawRequest {
            method: text(capture, "method").into(),
            target: target.into(),
            headers: capture["headers"]
                .as_array()
                .unwrap()
                .iter()
                .map(|line| (line[0].as_str().unwrap().into(), line[1].as_str().unwrap().into()))
                .collect(),
            body: text(capture, "body").into(),
        };
        let now = capture["now"].as_u64().unwrap() * 1_000;
        let url = format!("https://localhost:18443{target}");
        let is_bobs = target.contains("?controller=") || step.starts_with("70c");
        let authorization =
            String::from_utf8_lossy(request.header("authorization").unwrap().unwrap_or_default());
        let signer = authorization
            .split(['"', '#'])
            .nth(1)
            .unwrap_or_default()
            .to_owned();
        // Meters are made by an application of its own.
        let owner = match step.starts_with("01-") {
            true => &signer,
            false if is_bobs => &bob,
            false => &alice,
        };
        let revoked = |id: &str, delegator: &str| {
            step.starts_with("40c")
                && id == "urn:uuid:ba8a3364-34ac-422a-a039-0f1ad25e3b73"
                && delegator == bob
        };
        let mut roots = vec![];
        for (prefix, length) in [("/meters", 2), ("/kms/keystores/", 4), ("/kms/keystores", 3)] {
            if target.starts_with(prefix) {
                let path = target
                    .split('?')
                    .next()
                    .unwrap()
                    .split('/')
                    .take(length)
                    .collect::<Vec<_>>()
                    .join("/");
                roots.push(ExpectedRoot::new(
                    format!("https://localhost:18443{path}"),
                    vec![owner.clone()],
                ));
                break;
            }
        }
        if step.starts_with("01b") {
            roots = vec![ExpectedRoot::new(url.clone(), vec![owner.clone()])];
        }
        if target.contains("/zcaps/revocations/") {
            let body = json::parse(&request.body).unwrap();
            let delegation = verify_delegation(&body, &roots, &never, &policy, &cache, now).unwrap();
            assert!(delegation.controllers.contains(&alice), "{step}");
            roots.push(ExpectedRoot::new(url.clone(), delegation.controllers));
        }
        let action = match (request.method.as_str(), target) {
            ("GET", _) => "read",
            (_, target) if target.ends_with("/keys") => "generateKey",
            (_, target) if target.contains("/keys/") => match json::parse(&request.body) {
                Ok(body) => match body["type"].as_str().unwrap_or_default() {
                    "SignOperation" => "sign",
                    "VerifyOperation" => "verify",
                    "WrapKeyOperation" => "wrapKey",
                    "UnwrapKeyOperation" => "unwrapKey",
                    "DeriveSecretOperation" => "deriveSecret",
                    "DeleteKeyOperation" => "deleteKey",
                    "ExportKeyOperation" => "exportKey",
                    "UpdateKeyOperation" => "updateKey",
                    // An unknown operation is the schema's to refuse.
                    _ => "sign",
                },
                Err(_) => "sign",
            },
            _ => "write",
        };
        let expectation = Expectation {
            roots: &roots,
            target: &url,
            action,
            max_delegation_ttl: None,
            revoked: &revoked,
        };
        let verdict = authenticate(&request, &policy, &cache, now)
            .and_then(|authenticated| authorize(&authenticated, &expectation, &policy, &cache, now));
        if request.method == "GET" && target.contains("/keys/") {
            // A public route: the client signs with whatever it has, and nobody judges it.
            assert!(authenticate(&request, &policy, &cache, now).is_ok(), "{step}");
            continue;
        }
        let expected = match step.split('-').next().unwrap() {
            // These come as 500 from the other server; here they say what is wrong.
            "50j" => Some((400, "DataError".to_owned(), None)),
            "50r" => {
                let message = "The \"digest\" header value does not match digest of body.";
                Some((403, "DataError".to_owned(), Some(message)))
            }
            "50t" => Some((415, "NotSupportedError".to_owned(), None)),
            "50p" | "50k" | "50l" | "50x" => None,
            // Refused for what comes after the authorization, or by state that this test does not keep.
            "10" | "20" | "21c" | "21d" | "22c" | "22d" | "22g" | "23d" | "23e" | "24" | "24b" | "32d"
            | "40b" | "50m" | "50n" | "50o" => None,
            _ => capture["cause"].as_object().map(|cause| {
                (
                    403,
                    cause["name"].as_str().unwrap().to_owned(),
                    Some(cause["message"].as_str().unwrap()),
                )
            }),
        };
        match (expected, verdict) {
            (None, Ok(_)) => authorized += 1,
            (Some((status, name, message)), Err(refusal)) => {
                assert_eq!(
                    (refusal.status(), refusal.cause_name()),
                    (status, name.as_str()),
                    "{step}"
                );
                if let Some(message) = message {
                    assert_eq!(refusal.to_string(), message, "{step}");
                }
                refused += 1;
            }
            (expected, verdict) => {
                panic!(
                    "{step}: expected {expected:?}, got {:?}",
                    verdict.map_err(|refusal| refusal.detail())
                )
            }
        }
    }
    assert_eq!((authorized, refused), (84, 20));
}

/// A route that asks about another URL than the request's, on another authority or another path, gets no grant.
#[test]
fn the_route_and_the_request_must_be_the_same() {
    let cache = ChainCache::new(0);
    let policy = Policy::new("kms.example");
    let cases = read("zcap/http-invocations.json");
    let case = &cases[0];
    let sent = &case["request"];
    let keystore = "https://kms.example/kms/keystores/z1AAAAAAAAAAAAAAAAAAAAAAAA";
    let request = RawRequest {
        method: "POST".into(),
        target: "/kms/keystores/z1AAAAAAAAAAAAAAAAAAAAAAAA/keys".into(),
        headers: sent["headers"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| (name.clone(), value.as_str().unwrap().into()))
            .collect(),
        body: text(sent, "body").into(),
    };
    let now = case["now"].as_u64().unwrap() * 1_000;
    let authenticated = authenticate(&request, &policy, &cache, now).unwrap();
    let roots = [
        ExpectedRoot::new(keystore, vec![authenticated.signer.clone()]),
        ExpectedRoot::new("https://other.example/kms", vec![authenticated.signer.clone()]),
    ];
    let judge = |target: &str| {
        let expectation = Expectation {
            roots: &roots,
            target,
            action: "generateKey",
            max_delegation_ttl: None,
            revoked: &never,
        };
        authorize(&authenticated, &expectation, &policy, &cache, now).map(|authorized| authorized.root)
    };
    assert_eq!(judge(&format!("{keystore}/keys")).unwrap(), roots[0].id());
    for target in [
        format!("{keystore}/keys/z1B"),
        keystore.to_owned(),
        format!("{keystore}/keys?x=1"),
        "https://other.example/kms/keystores/z1AAAAAAAAAAAAAAAAAAAAAAAA/keys".into(),
        "https://kms.example.other/kms/keystores/z1AAAAAAAAAAAAAAAAAAAAAAAA/keys".into(),
    ] {
        assert_eq!(judge(&target), Err(Refusal::TargetNotAllowed), "{target}");
    }
}
