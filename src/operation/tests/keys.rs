//! Generating and using keys.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::*;
use crate::keystore::record::Alias;
use crate::operation::description::multibase;
use crate::operation::judge::{Intent, Using};

pub(super) fn sign_body(target: &str, message: &[u8]) -> Value {
    json!({ "type": "SignOperation", "invocationTarget": url(target), "verifyData": URL_SAFE_NO_PAD.encode(message) })
}

pub(super) fn generate_body() -> Value {
    json!({ "type": "GenerateKeyOperation", "invocationTarget": { "type": "Ed25519VerificationKey2020" } })
}

fn derive_body(target: &str, key_type: &str, multibase: &str) -> Value {
    json!({
        "type": "DeriveSecretOperation",
        "invocationTarget": url(target),
        "publicKey": { "id": "urn:k", "type": key_type, "publicKeyMultibase": multibase },
    })
}

fn generate(desk: &Desk, body: &Value) -> Result<Judgement, NotAllowed> {
    let root = keystore_path(&KS);
    desk.post(ALICE, &format!("{root}/keys"), &root, "generateKey", body)
}

/// Alice uses a key with her keystore's root capability.
fn use_key(desk: &Desk, id: &LocalId, action: &str, body: &Value) -> Result<Judgement, NotAllowed> {
    desk.post(ALICE, &key_path(&KS, id), &keystore_path(&KS), action, body)
}

/// Bob signs with Alice's key by a delegated capability.
fn sign_with(desk: &Desk, capability: &Value) -> Result<Judgement, NotAllowed> {
    let target = key_path(&KS, &SIGN_KEY);
    desk.post_with(BOB, &target, capability, "sign", &sign_body(&target, b"m"))
}

#[test]
fn a_controller_generates_keys_of_every_type() {
    let desk = Desk::new();
    for key_type in KeyType::ALL {
        let body = json!({
            "@context": ["https://w3id.org/webkms/v1", "https://w3id.org/security/suites/x/v1"],
            "type": "GenerateKeyOperation",
            "invocationTarget": { "type": key_type.name(), "maxCapabilityChainLength": 3, "publicAlias": "urn:mine" },
        });
        let judgement = generate(&desk, &body).unwrap();
        assert_eq!((judgement.state_version, judgement.chain.len()), (VERSION, 0));
        let Intent::Generate(terms) = judgement.intent else {
            panic!("no generation")
        };
        assert_eq!(
            (terms.keystore, terms.key),
            (KS, LocalId::derive(&CLUSTER, &OPERATION, 0))
        );
        assert_eq!((terms.key_type, terms.max_chain_length), (key_type, Some(3)));
        assert_eq!(terms.alias, Some(Alias::Fixed("urn:mine".into())));
    }
    let root = keystore_path(&KS);
    let keys = format!("{root}/keys");
    let delegated = desk.post_with(
        BOB,
        &keys,
        &bobs("urn:uuid:c", &["generateKey"]),
        "generateKey",
        &generate_body(),
    );
    assert_eq!(delegated.unwrap().chain, [("urn:uuid:c".to_owned(), did(ALICE))]);
    let other = desk.post(MALLORY, &keys, &root, "generateKey", &generate_body());
    assert_not_authorized(other, "Error", WRONG_INVOKER);
    let wrong = desk.post(ALICE, &keys, &root, "write", &generate_body());
    let expected = "Capability action \"write\" does not match the expected action of \"generateKey\".";
    assert_not_authorized(wrong, "Error", expected);
}

#[test]
fn what_cannot_be_generated_is_refused() {
    let desk = Desk::new();
    let of = |target: Value| {
        generate(
            &desk,
            &json!({ "type": "GenerateKeyOperation", "invocationTarget": target }),
        )
    };
    assert_not_authorized(
        of(json!({ "type": "NoSuchType" })),
        "Error",
        "Unknown key type \"NoSuchType\".",
    );
    let template = json!({ "type": "Ed25519VerificationKey2020", "publicAliasTemplate": "did:key:{" });
    let cannot = "The \"publicAliasTemplate\" cannot be expanded.";
    assert_not_authorized(of(template), "SyntaxError", cannot);
    for target in [
        json!("Ed25519VerificationKey2020"),
        json!({}),
        json!({ "type": ["Ed25519VerificationKey2020"] }),
        json!({ "type": "Ed25519VerificationKey2020", "more": 1 }),
        json!({ "type": "Ed25519VerificationKey2020", "maxCapabilityChainLength": 0 }),
        json!({ "type": "Ed25519VerificationKey2020", "maxCapabilityChainLength": 11 }),
        json!({ "type": "Ed25519VerificationKey2020", "publicAlias": "a", "publicAliasTemplate": "b" }),
        json!({ "type": "Ed25519VerificationKey2020", "publicAlias": "https://kms.example/../x" }),
    ] {
        assert_refused(of(target), 400, "SyntaxError", "");
    }
    let other =
        json!({ "type": "SignOperation", "invocationTarget": { "type": "Ed25519VerificationKey2020" } });
    assert_refused(generate(&desk, &other), 400, "SyntaxError", "");
}

#[test]
fn a_controller_signs_and_derives() {
    let desk = Desk::new();
    let target = key_path(&KS, &SIGN_KEY);
    for message in [&b"message"[..], b""] {
        let judgement = use_key(&desk, &SIGN_KEY, "sign", &sign_body(&target, message)).unwrap();
        assert_eq!(judgement.state_version, VERSION);
        let Intent::Use {
            keystore,
            key,
            record,
            using,
        } = judgement.intent
        else {
            panic!("no use")
        };
        assert_eq!((keystore, key), (KS, SIGN_KEY));
        assert_eq!(record.material.pair().map(|(_, key)| *key), Some([8; 32]));
        assert_eq!(using, Using::Sign(message.to_vec()));
    }
    let target = key_path(&KS, &AGREE_KEY);
    let body = derive_body(
        &target,
        "X25519KeyAgreementKey2020",
        &multibase([0xec, 0x01], &[5; 32]),
    );
    let judgement = use_key(&desk, &AGREE_KEY, "deriveSecret", &body).unwrap();
    assert!(matches!(judgement.intent, Intent::Use { using: Using::DeriveSecret(u), .. } if u == [5; 32]));
}

#[test]
fn a_message_comes_from_the_signed_body_alone() {
    let desk = Desk::new();
    let target = key_path(&KS, &SIGN_KEY);
    let elsewhere = sign_body(&key_path(&KS, &SHORT_KEY), b"m");
    let message = "\"invocationTarget\" does not match the request URL.";
    assert_refused(
        use_key(&desk, &SIGN_KEY, "sign", &elsewhere),
        400,
        "DataError",
        message,
    );
    for (member, value) in [
        ("type", json!("NoSuchOperation")),
        ("type", json!(["SignOperation"])),
        ("verifyData", json!("not base64!")),
        ("verifyData", json!("bQ==")),
        ("verifyData", Value::Null),
        ("more", json!(1)),
        ("@context", json!("https://example/v1")),
    ] {
        let mut body = sign_body(&target, b"m");
        body[member] = value;
        assert_refused(use_key(&desk, &SIGN_KEY, "sign", &body), 400, "SyntaxError", "");
    }
}

#[test]
fn an_absent_key_looks_the_same_wherever_it_is_absent_from() {
    let desk = Desk::new();
    for name in [
        LocalId([77; 16]).to_string(),
        OTHER_KEY.to_string(),
        "nonsense".into(),
    ] {
        let target = format!("{}/keys/{name}", keystore_path(&KS));
        let result = desk.post(
            ALICE,
            &target,
            &keystore_path(&KS),
            "sign",
            &sign_body(&target, b"m"),
        );
        let problem = assert_refused(result, 403, "NotAllowedError", "Authorization error.");
        let cause = problem.cause.unwrap();
        assert_eq!(
            (cause.name.as_str(), cause.message.as_str()),
            ("NotFoundError", "Key not found.")
        );
        assert_eq!(details(&cause)["key"], url(&target));
    }
    // A stranger is not told whether the key exists.
    for id in [SIGN_KEY, LocalId([77; 16])] {
        let target = key_path(&KS, &id);
        let result = desk.post(
            MALLORY,
            &target,
            &keystore_path(&KS),
            "sign",
            &sign_body(&target, b"m"),
        );
        assert_not_authorized(result, "Error", WRONG_INVOKER);
    }
}

#[test]
fn a_key_does_what_its_type_does() {
    let desk = Desk::new();
    let sign_at = key_path(&KS, &SIGN_KEY);
    let agree_at = key_path(&KS, &AGREE_KEY);
    assert_not_authorized(
        use_key(&desk, &AGREE_KEY, "sign", &sign_body(&agree_at, b"m")),
        "Error",
        "Unsupported operation \"sign\" for key type \"X25519KeyAgreementKey2020\".",
    );
    let derive = derive_body(
        &sign_at,
        "X25519KeyAgreementKey2020",
        &multibase([0xec, 0x01], &[5; 32]),
    );
    assert_not_authorized(
        use_key(&desk, &SIGN_KEY, "deriveSecret", &derive),
        "Error",
        "Unsupported operation \"deriveSecret\" for key type \"Ed25519VerificationKey2020\".",
    );
    let target = url(&sign_at);
    let verify = json!({ "type": "VerifyOperation", "invocationTarget": target, "verifyData": "bQ", "signatureValue": "bQ" });
    assert_not_authorized(
        use_key(&desk, &SIGN_KEY, "verify", &verify),
        "Error",
        "Unsupported operation \"verify\" for key type \"Ed25519VerificationKey2020\".",
    );
    for (operation, action) in [
        ("DeleteKeyOperation", "deleteKey"),
        ("ExportKeyOperation", "exportKey"),
    ] {
        let body = json!({ "type": operation, "invocationTarget": target });
        let result = use_key(&desk, &SIGN_KEY, action, &body);
        assert_not_authorized(result, "NotSupportedError", "KMS operation not supported.");
    }
    assert_not_authorized(
        use_key(&desk, &SIGN_KEY, "verify", &sign_body(&sign_at, b"m")),
        "Error",
        "Capability action \"verify\" does not match the expected action of \"sign\".",
    );
}

#[test]
fn the_other_party_s_key_has_the_right_type_and_header() {
    let desk = Desk::new();
    let target = key_path(&KS, &AGREE_KEY);
    let derive = |key_type: &str, multibase: &str| {
        use_key(
            &desk,
            &AGREE_KEY,
            "deriveSecret",
            &derive_body(&target, key_type, multibase),
        )
    };
    let ours = "X25519KeyAgreementKey2020";
    let header = "Multibase value does not have expected header.";
    let good = multibase([0xec, 0x01], &[5; 32]);
    for wrong in [
        multibase([0xed, 0x01], &[5; 32]),
        good[1..].to_owned(),
        format!("{good}1"),
        "z".into(),
        "z0".into(),
        format!("z{}", "1".repeat(2_000)),
        String::new(),
    ] {
        assert_not_authorized(derive(ours, &wrong), "Error", header);
    }
    assert_not_authorized(
        derive("Multikey", &good),
        "Error",
        "The given public key type \"urn:webkms:multikey:X25519\" does not match the key agreement key's type \
         \"X25519KeyAgreementKey2020\".",
    );
    let base64 = format!(
        "u{}",
        URL_SAFE_NO_PAD.encode([&[0xec, 0x01][..], &[5; 32]].concat())
    );
    assert!(derive(ours, &base64).is_ok());
}

#[test]
fn a_delegate_uses_a_key_until_any_link_is_revoked() {
    let mut desk = Desk::new();
    let root = url(&keystore_path(&KS));
    let parent = Terms::new("urn:uuid:parent", &root, &["sign", "read"]).delegate(
        ALICE,
        ANNE,
        Capability::Root(&root),
    );
    let child =
        Terms::new("urn:uuid:child", &root, &["sign"]).delegate(ANNE, BOB, Capability::Delegated(&parent));
    let chain = [
        ("urn:uuid:parent".to_owned(), did(ALICE)),
        ("urn:uuid:child".to_owned(), did(ANNE)),
    ];
    assert_eq!(sign_with(&desk, &child).unwrap().chain, chain);
    // The same id, delegated by somebody else, or in another keystore.
    desk.revoke(&KS, "urn:uuid:child", ALICE);
    desk.revoke(&OTHER_KS, "urn:uuid:child", ANNE);
    assert!(sign_with(&desk, &child).is_ok());
    let revoked = "One or more capabilities in the chain have been revoked.";
    desk.revoke(&KS, "urn:uuid:parent", ALICE);
    assert_not_authorized(sign_with(&desk, &child), "Error", revoked);
    let mut desk = Desk::new();
    desk.revoke(&KS, "urn:uuid:child", ANNE);
    assert_not_authorized(sign_with(&desk, &child), "Error", revoked);
}

#[test]
fn a_delegation_ends_with_its_time_its_delegator_and_its_limits() {
    let mut desk = Desk::new();
    let root = url(&keystore_path(&KS));
    let of = |terms: Terms<'_>| terms.delegate(ALICE, BOB, Capability::Root(&root));
    let usual = || Terms::new("urn:uuid:c", &root, &["sign"]);
    let expired = of(Terms {
        created: NOW - 4_000,
        expires: NOW - 301,
        ..usual()
    });
    assert_not_authorized(
        sign_with(&desk, &expired),
        "Error",
        "The invoked capability has expired.",
    );
    let other = of(Terms {
        actions: Some(&["read"]),
        ..usual()
    });
    assert_not_authorized(
        sign_with(&desk, &other),
        "Error",
        "Capability action \"sign\" is not allowed by the capability; allowed actions are: \"read\"",
    );
    let elsewhere = url(&key_path(&KS, &AGREE_KEY));
    let narrow = of(Terms {
        target: &elsewhere,
        ..usual()
    });
    assert_not_authorized(
        sign_with(&desk, &narrow),
        "Error",
        "The invocation target is not allowed by the capability.",
    );
    let mut tampered = of(usual());
    tampered["allowedAction"] = json!(["sign", "write"]);
    assert_not_authorized(
        sign_with(&desk, &tampered),
        "VerificationError",
        "Verification error(s).",
    );
    let mallorys = usual().delegate(MALLORY, BOB, Capability::Root(&root));
    assert_not_authorized(
        sign_with(&desk, &mallorys),
        "VerificationError",
        "Verification error(s).",
    );
    // A controller that left the list takes its delegations along.
    let good = of(usual());
    assert!(sign_with(&desk, &good).is_ok());
    desk.put(&layout::keystore(&KS), &keystore(vec![did(ANNE)], VERSION + 1));
    assert_not_authorized(
        sign_with(&desk, &good),
        "VerificationError",
        "Verification error(s).",
    );
}

#[test]
fn delegations_live_longer_for_keys_than_for_the_rest() {
    let desk = Desk::new();
    let root = url(&keystore_path(&KS));
    let year = 365 * 24 * 3_600;
    let long = Terms {
        expires: NOW + 2 * year,
        ..Terms::new("urn:uuid:c", &root, &["sign", "read", "write"])
    };
    let long = long.delegate(ALICE, BOB, Capability::Root(&root));
    assert!(sign_with(&desk, &long).is_ok());
    let read = desk.judge(Ask {
        who: BOB,
        method: "GET",
        target: &keystore_path(&KS),
        capability: Capability::Delegated(&long),
        action: "read",
        body: None,
    });
    let too_long = "A delegated capability in the delegation chain has a time to live that is too long.";
    assert_not_authorized(read, "Error", too_long);
}

#[test]
fn a_key_may_bound_its_chains() {
    let desk = Desk::new();
    let target = key_path(&KS, &SHORT_KEY);
    assert!(use_key(&desk, &SHORT_KEY, "sign", &sign_body(&target, b"m")).is_ok());
    let capability = bobs("urn:uuid:c", &["sign"]);
    let result = desk.post_with(BOB, &target, &capability, "sign", &sign_body(&target, b"m"));
    let message = "Maximum zcap invocation capability chain length (1) exceeded.";
    assert_not_authorized(result, "Error", message);
}

#[test]
fn a_restored_keystore_refuses_delegates_until_its_controller_has_looked() {
    let mut desk = Desk::new();
    let capability = bobs("urn:uuid:c", &["sign"]);
    sign_with(&desk, &capability).unwrap();
    let hold = Hold {
        backup: 1_790_000_000_000,
    };
    desk.state.pairs.put_record(&layout::hold(&KS), &hold).unwrap();
    let refused = problem(sign_with(&desk, &capability));
    let cause = refused.cause.unwrap();
    assert_eq!((refused.status, cause.name.as_str()), (403, "InvalidStateError"));
    assert!(
        cause.message.contains("backup of 2026-09-21T"),
        "{}",
        cause.message
    );
    // The controller's own root goes on, and so does every other keystore.
    let target = key_path(&KS, &SIGN_KEY);
    let body = sign_body(&target, b"m");
    use_key(&desk, &SIGN_KEY, "sign", &body).unwrap();
    desk.state.pairs.delete(&layout::hold(&KS)).unwrap();
    desk.state
        .pairs
        .put_record(&layout::hold(&OTHER_KS), &hold)
        .unwrap();
    sign_with(&desk, &capability).unwrap();
}

#[test]
fn a_delegate_may_revoke_while_delegations_are_held_back() {
    let mut desk = Desk::new();
    let hold = Hold { backup: 0 };
    desk.state.pairs.put_record(&layout::hold(&KS), &hold).unwrap();
    let capability = bobs("urn:uuid:c", &["sign"]);
    let target = revocations::path(&KS, "urn:uuid:c");
    desk.post(BOB, &target, &target, "write", &capability).unwrap();
}
