//! Creating, listing, reading and updating keystores.

use serde_json::{Value, json};

use super::*;
use crate::authorization::encode_component;
use crate::keystore::Command;
use crate::operation::judge::Intent;

const ALL: &str = "/kms/keystores";

fn new_keystore() -> Value {
    json!({ "sequence": 0, "controller": did(BOB), "meterId": url(&format!("/meters/{METER}")) })
}

fn update(sequence: u64) -> Value {
    json!({ "id": url(&keystore_path(&KS)), "sequence": sequence, "controller": did(BOB) })
}

/// Alice's next configuration, with `who` as its only controller.
pub(super) fn hand_over(who: u8) -> Value {
    with(update(VERSION), "controller", json!(did(who)))
}

/// `body` with one member set, or taken out.
fn with(mut body: Value, member: &str, value: Value) -> Value {
    match value {
        Value::Null => drop(body.as_object_mut().unwrap().remove(member)),
        value => body[member] = value,
    }
    body
}

fn config_of(result: Result<Judgement, NotAllowed>) -> (LocalId, KeystoreConfig) {
    match result.unwrap().intent {
        Intent::Change(Command::CreateKeystore { id, config } | Command::UpdateKeystore { id, config }) => {
            (id, config)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_meter_s_controller_makes_keystores() {
    let desk = Desk::new();
    let judgement = desk.post(ALICE, ALL, ALL, "write", &new_keystore()).unwrap();
    assert_eq!((judgement.state_version, judgement.chain.len()), (0, 0));
    let (id, config) = config_of(Ok(judgement));
    assert_eq!(id, LocalId::derive(&CLUSTER, &OPERATION, 0));
    let expected = KeystoreConfig {
        controllers: vec![did(BOB)],
        single_controller: true,
        meter: METER,
        sequence: 0,
        kms_module: "ssm-v1".into(),
        ip_allow_list: None,
    };
    assert_eq!(config, expected);
    let more = with(new_keystore(), "controller", json!([did(BOB), did(ALICE)]));
    let more = with(more, "kmsModule", json!("nope-v1"));
    let more = with(more, "ipAllowList", json!(["10.0.0.0/8"]));
    let (_, config) = config_of(desk.post(ALICE, ALL, ALL, "write", &more));
    assert_eq!((config.controllers.len(), config.single_controller), (2, false));
    assert_eq!(config.kms_module, "nope-v1");
    assert_eq!(config.ip_allow_list, Some(vec!["10.0.0.0/8".to_owned()]));
    assert_not_authorized(
        desk.post(BOB, ALL, ALL, "write", &new_keystore()),
        "Error",
        WRONG_INVOKER,
    );
}

#[test]
fn a_meter_must_be_one_of_ours() {
    let desk = Desk::new();
    for meter in [
        url(&format!("/meters/{}", LocalId([77; 16]))),
        format!("https://other.example/meters/{METER}"),
        url(&format!("/meters/{METER}/")),
        METER.to_string(),
    ] {
        let result = desk.post(
            ALICE,
            ALL,
            ALL,
            "write",
            &with(new_keystore(), "meterId", json!(meter)),
        );
        let problem = assert_refused(result, 403, "NotAllowedError", "Permission denied.");
        assert_eq!(problem.cause.unwrap().name, "NotFoundError");
    }
}

#[test]
fn a_new_keystore_s_body_is_validated() {
    let desk = Desk::new();
    let post = |body: Value| desk.post(ALICE, ALL, ALL, "write", &body);
    let invalid = "A validation error occurred in the 'postKeystoreBody' validator.";
    for (member, value) in [
        ("controller", Value::Null),
        ("controller", json!([])),
        ("controller", json!("")),
        ("controller", json!([did(BOB), did(BOB)])),
        ("controller", json!((0..33).map(did).collect::<Vec<_>>())),
        ("sequence", Value::Null),
        ("sequence", json!(-1)),
        ("sequence", json!((1u64 << 53) - 1)),
        ("sequence", json!("0")),
        ("meterId", Value::Null),
        ("kmsModule", json!("../ssm-v1")),
        ("ipAllowList", json!([])),
        ("ipAllowList", json!(["0.0.0.0/0"])),
        ("referenceId", json!("urn:x")),
    ] {
        assert_refused(
            post(with(new_keystore(), member, value)),
            400,
            "ValidationError",
            invalid,
        );
    }
    let late = with(new_keystore(), "sequence", json!(1));
    assert_refused(
        post(late.clone()),
        400,
        "DataError",
        "Keystore config sequence must be \"0\".",
    );
    // Who may not is told nothing but that.
    assert_not_authorized(desk.post(BOB, ALL, ALL, "write", &late), "Error", WRONG_INVOKER);
    let named = with(new_keystore(), "controller", json!("did:web:example"));
    assert_refused(post(named), 400, "DataError", "A keystore's controllers");
}

#[test]
fn a_controller_lists_its_own_keystores() {
    let desk = Desk::new();
    let of = |who: u8| format!("{ALL}?controller={}", encode_component(&did(who)));
    let judgement = desk.get(ALICE, &of(ALICE), ALL).unwrap();
    assert!(matches!(judgement.intent, Intent::ListKeystores(controller) if controller == did(ALICE)));
    assert_not_authorized(desk.get(MALLORY, &of(ALICE), ALL), "Error", WRONG_INVOKER);
    let invalid = "A validation error occurred in the 'Service Object Configuration Query' validator.";
    for target in [
        ALL.to_owned(),
        format!("{ALL}?"),
        format!("{ALL}?owner=x"),
        format!("{}&controller=x", of(ALICE)),
        format!("{ALL}?controller=%zz"),
        format!("{ALL}?controller=%ff"),
    ] {
        assert_refused(desk.get(ALICE, &target, ALL), 400, "ValidationError", invalid);
    }
}

#[test]
fn every_controller_and_delegate_reads_the_configuration() {
    let desk = Desk::new();
    let path = keystore_path(&KS);
    for who in [ALICE, ANNE] {
        let judgement = desk.get(who, &path, &path).unwrap();
        assert!(matches!(judgement.intent, Intent::ShowKeystore(KS, stored) if stored.version == VERSION));
    }
    assert_not_authorized(desk.get(MALLORY, &path, &path), "Error", WRONG_INVOKER);
    let read = |capability: &Value| {
        desk.judge(Ask {
            who: BOB,
            method: "GET",
            target: &path,
            capability: Capability::Delegated(capability),
            action: "read",
            body: None,
        })
    };
    let judgement = read(&bobs("urn:uuid:c", &["read"])).unwrap();
    assert_eq!(judgement.chain, [("urn:uuid:c".to_owned(), did(ALICE))]);
    assert_not_authorized(
        read(&bobs("urn:uuid:c", &["sign"])),
        "Error",
        "Capability action \"read\" is not allowed by the capability; allowed actions are: \"sign\"",
    );
}

#[test]
fn an_absent_keystore_is_404_for_every_verb() {
    let desk = Desk::new();
    for name in [LocalId([77; 16]).to_string(), "nonsense".into()] {
        let path = format!("{ALL}/{name}");
        let key = format!("{path}/keys/{SIGN_KEY}");
        let revocation = format!("{path}/zcaps/revocations/urn%3Auuid%3Ac");
        let capability = bobs("urn:uuid:c", &["sign"]);
        let results = [
            desk.get(ALICE, &path, &path),
            desk.post(
                ALICE,
                &path,
                &path,
                "write",
                &with(update(4), "id", json!(url(&path))),
            ),
            desk.post(
                ALICE,
                &format!("{path}/keys"),
                &path,
                "generateKey",
                &keys::generate_body(),
            ),
            desk.post(ALICE, &key, &path, "sign", &keys::sign_body(&key, b"m")),
            desk.post(ALICE, &revocation, &path, "write", &capability),
        ];
        for result in results {
            let problem = assert_refused(result, 404, "NotFoundError", "Keystore configuration not found.");
            assert_eq!(
                details(&problem),
                json!({ "keystoreId": url(&path), "httpStatusCode": 404 })
            );
        }
    }
}

#[test]
fn a_controller_replaces_the_configuration() {
    let desk = Desk::new();
    let path = keystore_path(&KS);
    let judgement = desk.post(ANNE, &path, &path, "write", &update(VERSION)).unwrap();
    assert_eq!(judgement.state_version, VERSION);
    let (id, config) = config_of(Ok(judgement));
    assert_eq!((id, config.sequence), (KS, VERSION));
    assert_eq!(
        (config.controllers, config.single_controller),
        (vec![did(BOB)], true)
    );
    assert_eq!((config.meter, config.kms_module.as_str()), (METER, "ssm-v1"));
    let same = with(
        update(VERSION),
        "meterId",
        json!(url(&format!("/meters/{METER}"))),
    );
    let same = with(same, "kmsModule", json!("ssm-v1"));
    assert!(desk.post(ALICE, &path, &path, "write", &same).is_ok());
    let delegated = desk.post_with(
        BOB,
        &path,
        &bobs("urn:uuid:c", &["write"]),
        "write",
        &update(VERSION),
    );
    assert_eq!(delegated.unwrap().chain, [("urn:uuid:c".to_owned(), did(ALICE))]);
    assert_not_authorized(
        desk.post(MALLORY, &path, &path, "write", &update(VERSION)),
        "Error",
        WRONG_INVOKER,
    );
}

#[test]
fn an_update_follows_the_stored_configuration() {
    let desk = Desk::new();
    let path = keystore_path(&KS);
    let post = |body: &Value| desk.post(ALICE, &path, &path, "write", body);
    for sequence in [0, VERSION - 1, VERSION + 1] {
        let problem = assert_refused(
            post(&update(sequence)),
            409,
            "InvalidStateError",
            "Could not update",
        );
        let expected = json!({ "id": url(&path), "sequence": sequence, "httpStatusCode": 409 });
        assert_eq!(details(&problem), expected);
    }
    let module = with(update(VERSION), "kmsModule", json!("other-v1"));
    assert_refused(post(&module), 409, "InvalidStateError", "Could not update");
    let meter = with(update(VERSION), "meterId", json!(url(&format!("/meters/{KS}"))));
    assert_refused(
        post(&meter),
        400,
        "DataError",
        "A keystore's \"meterId\" cannot be changed.",
    );
    let elsewhere = with(update(VERSION), "id", json!(url(&keystore_path(&OTHER_KS))));
    let problem = assert_refused(post(&elsewhere), 400, "URLMismatchError", "Configuration \"id\"");
    let (request, given) = (url(&path), url(&keystore_path(&OTHER_KS)));
    let expected = json!({
        "requestUrl": request, "configId": given, "expected": request, "actual": given, "httpStatusCode": 400
    });
    assert_eq!(details(&problem), expected);
    let invalid = "A validation error occurred in the 'updateKeystoreConfigBody' validator.";
    for (member, value) in [
        ("id", Value::Null),
        ("controller", Value::Null),
        ("controller", json!([])),
        ("sequence", json!((1u64 << 53) - 1)),
        ("referenceId", json!("urn:x")),
    ] {
        assert_refused(
            post(&with(update(VERSION), member, value)),
            400,
            "ValidationError",
            invalid,
        );
    }
    let named = with(update(VERSION), "controller", json!(["did:web:example"]));
    assert_refused(post(&named), 400, "DataError", "A keystore's controllers");
}
