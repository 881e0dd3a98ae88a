//! The bodies of all operations: closed types, answers of bounded size, configurations that survive being shown.

use std::collections::BTreeSet;

use conclave::authorization::{digest, json, root_id};
use conclave::identifier::LocalId;
use conclave::operation::batch;
use conclave::operation::body::{self, KeyOperation};
use conclave::problem::Problem;
use serde_json::{Value, json};

use super::{Seed, Target, seed};
use crate::support::request::{AUTHORITY, KEY_PATH, KEYSTORE, judge, signed};
use crate::support::vectors;

pub(super) const TARGET: Target = Target {
    name: "operation_body",
    longest: 16_384,
    mutations: 1_500,
    run,
    seeds,
};

const PUBLIC_URL: &str = "https://kms.example";
/// Longest answer to a body that is refused, in bytes.
const LONGEST_ANSWER: usize = 256 * 1_024;

fn run(bytes: &[u8]) -> bool {
    let Ok(value) = json::parse(bytes) else {
        return false;
    };
    let key_url = format!("{PUBLIC_URL}{KEY_PATH}");
    let taken = [
        is_taken(body::meter(&value).map(drop)),
        is_taken(body::new_keystore(&value).map(|new| shown(new.into_config(LocalId([2; 16]), "m".into())))),
        is_taken(body::keystore_update(&value).map(drop)),
        is_taken(body::new_key(&value).map(drop)),
        is_taken(body::key_operation(&value, &key_url).map(|operation| check_action(&operation))),
        is_taken(body::delegated_capability(&value).map(drop)),
        is_taken(items(bytes)),
    ];
    taken.contains(&true)
}

fn is_taken(outcome: Result<(), Problem>) -> bool {
    let Err(problem) = outcome else {
        return true;
    };
    let answer = problem.body().to_string();
    assert!((400..500).contains(&problem.status), "{answer}");
    assert!(
        answer.len() <= LONGEST_ANSWER,
        "an answer of {} bytes",
        answer.len()
    );
    false
}

/// A configuration, shown to its controller, can be sent back as it is.
fn shown(config: conclave::keystore::KeystoreConfig) {
    let again = body::keystore_update(&config.to_json(PUBLIC_URL, &LocalId([1; 16])));
    let again = again.unwrap_or_else(|problem| panic!("what is shown is refused: {}", problem.body()));
    assert_eq!(
        (&again.controllers, again.sequence),
        (&config.controllers, config.sequence)
    );
    assert_eq!(again.ip_allow_list, config.ip_allow_list);
    assert_eq!(again.single_controller, config.single_controller);
}

fn check_action(operation: &KeyOperation) {
    let actions = [
        "sign",
        "deriveSecret",
        "verify",
        "wrapKey",
        "unwrapKey",
        "deleteKey",
        "exportKey",
        "updateKey",
        "revokeKey",
    ];
    assert!(actions.contains(&operation.action()));
}

/// The same bytes as the body of a batch.
fn items(bytes: &[u8]) -> Result<(), Problem> {
    let invocation = format!("zcap id=\"{}\",action=\"batch\"", root_id(KEYSTORE));
    let digest = digest::header_value(bytes);
    let headers: [(&str, &[u8]); 4] = [
        ("host", AUTHORITY.as_bytes()),
        ("capability-invocation", invocation.as_bytes()),
        ("content-type", b"application/json"),
        ("digest", digest.as_bytes()),
    ];
    let target = "/kms/keystores/z1AAAAAAAAAAAAAAAAAAAAAAAA/operations";
    let request = judge(&signed(target, &headers, bytes)).map_err(Problem::from)?;
    let items = batch::items(&request, PUBLIC_URL, KEYSTORE)?;
    assert!((1..=batch::MAX_ITEMS).contains(&items.len()));
    let mut names = BTreeSet::new();
    for item in items {
        match item {
            Ok(item) => {
                let url = format!("{PUBLIC_URL}{}", item.authenticated.request_target);
                assert!(url.starts_with(&format!("{KEYSTORE}/keys/")), "{url}");
                assert!(
                    names.insert(item.authenticated.name),
                    "each item has a name of its own"
                );
            }
            Err(problem) => drop(is_taken(Err(problem))),
        }
    }
    Ok(())
}

fn seeds() -> Vec<Seed> {
    let url = format!("{PUBLIC_URL}{KEY_PATH}");
    let sign = json!({"type": "SignOperation", "invocationTarget": url, "verifyData": "aGVsbG8"});
    let peer = json!({"type": "X25519KeyAgreementKey2020", "publicKeyMultibase": "z6LS"});
    let derive = json!({"@context": "https://w3id.org/webkms/v1", "type": "DeriveSecretOperation",
        "invocationTarget": url, "publicKey": peer});
    let verify =
        json!({"type": "VerifyOperation", "invocationTarget": url, "verifyData": "", "signatureValue": "AA"});
    let wrap = json!({"type": "WrapKeyOperation", "invocationTarget": url, "unwrappedKey": "AAAAAAAAAAAAAAAAAAAAAA"});
    let config = json!({"sequence": 0, "controller": ["did:key:a", "did:key:b"], "meterId": "https://kms.example/meters/z1A",
        "kmsModule": "ssm-v1", "ipAllowList": ["10.0.0.0/8", "2001:db8::/32"]});
    let listed: Vec<Value> = vec![sign.clone(), derive.clone(), verify.clone(), wrap.clone()];
    let mut seeds: Vec<Seed> = [
        ("sign", sign),
        ("derive", derive),
        ("verify", verify),
        ("wrap", wrap),
        ("keystore", config),
        ("batch", Value::from(listed)),
    ]
    .map(|(name, value)| seed(name, value.to_string()))
    .into();
    let unknown: serde_json::Map<String, Value> = (0..300).map(|n| (n.to_string(), Value::Null)).collect();
    seeds.push(seed("unknown-members", Value::from(unknown).to_string()));
    let bodies = vectors::bodies().into_iter();
    seeds.extend(bodies.step_by(6).filter(|(_, body)| body.len() < 4_096));
    seeds
}
