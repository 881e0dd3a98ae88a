//! Every file of `tests/vectors/`: verdicts with their reasons, canonical forms and signed bytes. Inside the crate,
//! because canonical forms are not part of its interface.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::authorize::Invocation;
use super::cache::ChainCache;
use super::capability::Delegated;
use super::did_key::DidKey;
use super::error::{ChainFault, Member, Refusal};
use super::time::Timestamp;
use super::{Expectation, ExpectedRoot, Invoked, Policy, canonical, json, proof};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

fn read(path: &str) -> Value {
    let path = folder().join(path);
    json::parse(&std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).unwrap()
}

fn delegated(value: &Value) -> Result<Delegated, Refusal> {
    Delegated::from_json(value, Sha256::digest(value.to_string()).into(), 10)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The verdict on one file of `zcap/`, as its own parameters want it.
fn judge(file: &Value, cache: &ChainCache) -> Result<usize, Refusal> {
    let text = |name: &str| file[name].as_str().unwrap();
    let root = ExpectedRoot::new(
        file["root"]["invocationTarget"].as_str().unwrap(),
        vec![file["root"]["controller"].as_str().unwrap().to_owned()],
    );
    assert_eq!(root.id(), text("expectedRootCapability"));
    let policy = Policy {
        clock_skew: file["maxClockSkew"].as_u64().unwrap() as u32,
        max_chain_length: file["maxChainLength"].as_u64().unwrap() as usize,
        max_delegation_ttl: file["maxDelegationTtl"].as_u64().map(Duration::from_millis),
        allow_target_attenuation: file["allowTargetAttenuation"].as_bool().unwrap(),
        ..Policy::new("kms.example")
    };
    let now = Timestamp::parse(text("now")).unwrap().millis();
    let revoked: BTreeSet<&str> = file["revoked"]
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_str().unwrap())
        .collect();
    let capability = match &file["capability"] {
        Value::String(id) => Invoked::Root(id.clone()),
        value => Invoked::Delegated(Arc::new(Delegated::from_json(
            value,
            Sha256::digest(value.to_string()).into(),
            policy.max_chain_length,
        )?)),
    };
    let invoker = DidKey::from_method(file["invoker"]["verificationMethod"].as_str().unwrap()).unwrap();
    let action = text("capabilityAction");
    let expectation = Expectation {
        roots: &[root],
        target: text("invocationTarget"),
        action,
        max_delegation_ttl: None,
        revoked: &|id, _| revoked.contains(id),
    };
    let invocation = Invocation {
        capability: &capability,
        action,
        created: now / 1_000,
        invoker: &invoker,
    };
    invocation
        .verify(&expectation, &policy, cache, now)
        .map(|authorized| authorized.chain_length)
}

fn reason(name: &str) -> Refusal {
    let fault = Refusal::Verification;
    match name {
        "bad-action-as-iri" | "bad-property-undefined" => fault(ChainFault::UnknownMember),
        "bad-action-not-allowed" => Refusal::ActionNotAllowed {
            action: "generateKey".into(),
            allowed: vec!["sign".into(), "read".into()],
        },
        "bad-action-widened" => fault(ChainFault::Action),
        "bad-chain-empty" | "bad-chain-parent-mismatch" => fault(ChainFault::Chain),
        "bad-chain-too-long" => Refusal::ChainTooLong(2),
        "bad-context-inline" | "bad-context-string" => fault(ChainFault::Context),
        "bad-created-before-parent" => fault(ChainFault::Created),
        "bad-expired" => Refusal::CapabilityExpired,
        "bad-expires-missing" => fault(ChainFault::Member(Member::Expires)),
        "bad-expires-widened" => fault(ChainFault::Expires),
        "bad-field-controller-swapped" | "bad-proof-bitflip" | "bad-sig-malleable" => {
            fault(ChainFault::Proof)
        }
        "bad-proof-vm-swapped" => fault(ChainFault::Delegator),
        "bad-proof-missing" => fault(ChainFault::Member(Member::Proof)),
        "bad-proof-purpose-assertion" => fault(ChainFault::Purpose),
        "bad-revoked-tail" => Refusal::Revoked,
        "bad-target-dotdot" | "bad-target-prefix-confusion" => Refusal::TargetNotAllowed,
        "bad-target-widened" => fault(ChainFault::Target),
        "bad-ttl-too-long" => Refusal::TtlTooLong,
        "bad-wrong-invoker" => Refusal::WrongInvoker,
        other => panic!("no reason known for {other}"),
    }
}

#[test]
fn every_file_gets_its_verdict() {
    let index = read("zcap/index.json");
    let listed: BTreeSet<String> = index
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["file"].as_str().unwrap().to_owned())
        .collect();
    let present: BTreeSet<String> = std::fs::read_dir(folder().join("zcap"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("ok-") || name.starts_with("bad-"))
        .collect();
    assert_eq!(listed, present);
    assert_eq!(listed.len(), 38);
    let cache = ChainCache::new(100);
    for entry in index.as_array().unwrap() {
        let name = entry["file"].as_str().unwrap().trim_end_matches(".json");
        let file = read(&format!("zcap/{name}.json"));
        assert_eq!(file["expected"], entry["expected"], "{name}");
        // Twice: with a cold cache and with whatever the first time has left in it.
        for round in 0..2 {
            match (entry["expected"].as_str().unwrap(), judge(&file, &cache)) {
                ("valid", Ok(length)) => {
                    let links = file["capability"]["proof"]["capabilityChain"]
                        .as_array()
                        .map_or(0, Vec::len);
                    assert_eq!(length, links + 1, "{name}");
                }
                ("invalid", Err(refusal)) => assert_eq!(refusal, reason(name), "{name}, round {round}"),
                (expected, verdict) => panic!("{name}, round {round}: expected {expected}, got {verdict:?}"),
            }
        }
    }
}

#[test]
fn canonical_forms_are_byte_equal() {
    let mut compared = 0;
    for entry in read("zcap/index.json").as_array().unwrap() {
        let name = entry["file"].as_str().unwrap();
        let file = read(&format!("zcap/{name}"));
        let Some(forms) = file["canonical"].as_array() else {
            continue;
        };
        let chain = delegated(&file["capability"]).unwrap();
        for form in forms {
            let level = chain
                .links()
                .iter()
                .position(|link| form["id"] == link.id)
                .unwrap();
            assert_eq!(
                canonical::document(&chain, level).unwrap(),
                form["documentNQuads"],
                "{name} {level}"
            );
            assert_eq!(
                canonical::proof_options(&chain, level).unwrap(),
                form["proofNQuads"],
                "{name} {level}"
            );
            assert_eq!(
                hex(&proof::verify_data(&chain, level).unwrap()),
                form["verifyDataHex"],
                "{name} {level}"
            );
            compared += 1;
        }
    }
    // 1 + 2 + 3 + 4 and the tail of the longest, for each of two suites, and 2 of mixed suites.
    assert_eq!(compared, 24);
}

#[test]
fn npm_delegations_are_byte_equal() {
    let vectors = read("webkms.json");
    for (depth, name) in [(1, "delegatedDepth1"), (2, "delegatedDepth2")] {
        let vector = &vectors[name];
        let chain = delegated(&vector["zcap"]).unwrap();
        assert_eq!(chain.links().len(), depth);
        let level = depth - 1;
        let (document, options) = (
            canonical::document(&chain, level).unwrap(),
            canonical::proof_options(&chain, level).unwrap(),
        );
        assert_eq!(document, vector["canonicalA_first_call"]);
        assert_eq!(options, vector["canonicalB_second_call"]);
        assert_eq!(hex(&Sha256::digest(&document)), vector["sha256_A"]);
        assert_eq!(hex(&Sha256::digest(&options)), vector["sha256_B"]);
        assert_eq!(
            hex(&proof::verify_data(&chain, level).unwrap()),
            vector["verifyData_hex"]
        );
        assert_eq!(hex(&chain.links()[level].proof), vector["signature_hex"]);
        assert_eq!(proof::verify_all(&chain), Ok(depth));
        let header = vector["headerValue"].as_str().unwrap();
        let (action, invoked) = super::invocation::parse(header.as_bytes(), 10, &ChainCache::new(0)).unwrap();
        assert_eq!(action, "sign");
        let Invoked::Delegated(from_header) = invoked else {
            panic!("not delegated")
        };
        assert_eq!(from_header.links().len(), depth);
        assert_eq!(from_header.links()[level].id, chain.links()[level].id);
    }
}

/// The number of proofs that were verified is what the verdict stands on: a cache entry that claims another number
/// than the chain has, none above all, must not be believed.
#[test]
fn a_chain_without_as_many_verified_proofs_as_links_is_refused() {
    let file = read("zcap/ok-ed25519-2020-chain2.json");
    let chain = Arc::new(delegated(&file["capability"]).unwrap());
    for proofs in [0, 1, 3] {
        let cache = ChainCache::new(10);
        cache.remember(&chain, proofs);
        assert_eq!(judge(&file, &cache), Err(ChainFault::Proof.into()), "{proofs}");
    }
    let cache = ChainCache::new(10);
    assert_eq!(judge(&file, &cache), Ok(3));
    assert_eq!(cache.proofs(chain.hash()), Some(2));
}
