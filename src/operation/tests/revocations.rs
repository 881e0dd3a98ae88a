//! `POST …/zcaps/revocations/:id`.

use serde_json::{Value, json};

use super::*;
use crate::authorization::encode_component;
use crate::keystore::Command;
use crate::operation::judge::Intent;

const INVALID: &str = "The provided capability delegation is invalid.";
const DAY: u64 = 24 * 3_600;

pub(super) fn path(keystore: &LocalId, id: &str) -> String {
    format!(
        "{}/zcaps/revocations/{}",
        keystore_path(keystore),
        encode_component(id)
    )
}

/// `who` revokes by the keystore's root capability.
fn by_keystore(desk: &Desk, who: u8, capability: &Value) -> Result<Judgement, NotAllowed> {
    let target = path(&KS, capability["id"].as_str().unwrap_or_default());
    desk.post(who, &target, &keystore_path(&KS), "write", capability)
}

/// `who` revokes by the root capability of the revocation itself.
fn by_chain(desk: &Desk, who: u8, capability: &Value) -> Result<Judgement, NotAllowed> {
    let target = path(&KS, capability["id"].as_str().unwrap_or_default());
    desk.post(who, &target, &target, "write", capability)
}

fn revoker(result: Result<Judgement, NotAllowed>, id: &str, delegator: u8) -> Option<String> {
    let judgement = result.unwrap();
    assert_eq!(judgement.state_version, VERSION);
    let Intent::Change(Command::Revoke {
        keystore,
        capability,
        delegator: by,
        expires,
        revoker,
    }) = judgement.intent
    else {
        panic!("no revocation")
    };
    assert_eq!((keystore, capability.as_str(), by), (KS, id, did(delegator)));
    assert_eq!(
        expires,
        (NOW + 3_600 + DAY) * 1_000,
        "kept for a day after the capability's end, ms"
    );
    revoker
}

/// Alice to Anne to Bob.
fn chain() -> Value {
    let root = url(&keystore_path(&KS));
    let parent =
        Terms::new("urn:uuid:parent", &root, &["sign"]).delegate(ALICE, ANNE, Capability::Root(&root));
    Terms::new("urn:uuid:child", &root, &["sign"]).delegate(ANNE, BOB, Capability::Delegated(&parent))
}

#[test]
fn a_controller_revokes_without_a_bound() {
    let desk = Desk::new();
    let capability = bobs("urn:uuid:c", &["sign"]);
    assert_eq!(
        revoker(by_keystore(&desk, ALICE, &capability), "urn:uuid:c", ALICE),
        None
    );
    assert_eq!(
        revoker(by_keystore(&desk, ANNE, &capability), "urn:uuid:c", ALICE),
        None
    );
    assert_eq!(
        revoker(by_chain(&desk, ALICE, &capability), "urn:uuid:c", ALICE),
        None
    );
}

#[test]
fn everybody_in_the_chain_may_revoke_and_counts_against_the_bound() {
    let desk = Desk::new();
    let capability = bobs("urn:uuid:c", &["sign"]);
    assert_eq!(
        revoker(by_chain(&desk, BOB, &capability), "urn:uuid:c", ALICE),
        Some(did(BOB))
    );
    // The last link is revoked, whoever revokes it, under the name of who delegated it.
    assert_eq!(
        revoker(by_chain(&desk, BOB, &chain()), "urn:uuid:child", ANNE),
        Some(did(BOB))
    );
    assert_eq!(
        revoker(by_keystore(&desk, ALICE, &chain()), "urn:uuid:child", ANNE),
        None
    );
    let by_delegation = desk.post_with(
        BOB,
        &path(&KS, "urn:uuid:child"),
        &bobs("urn:uuid:w", &["write"]),
        "write",
        &chain(),
    );
    assert_eq!(revoker(by_delegation, "urn:uuid:child", ANNE), Some(did(BOB)));
}

#[test]
fn outsiders_revoke_nothing() {
    let desk = Desk::new();
    let capability = bobs("urn:uuid:c", &["sign"]);
    assert_not_authorized(by_chain(&desk, MALLORY, &capability), "Error", WRONG_INVOKER);
    assert_not_authorized(by_keystore(&desk, MALLORY, &capability), "Error", WRONG_INVOKER);
    assert_not_authorized(by_keystore(&desk, BOB, &capability), "Error", WRONG_INVOKER);
}

#[test]
fn only_a_valid_delegation_under_this_keystore_is_revoked() {
    let mut desk = Desk::new();
    let root = url(&keystore_path(&OTHER_KS));
    let foreign = Terms::new("urn:uuid:c", &root, &["sign"]).delegate(MALLORY, BOB, Capability::Root(&root));
    assert_not_authorized(by_keystore(&desk, ALICE, &foreign), "DataError", INVALID);
    let mut tampered = bobs("urn:uuid:c", &["sign"]);
    tampered["controller"] = json!(did(MALLORY));
    assert_not_authorized(by_chain(&desk, MALLORY, &tampered), "DataError", INVALID);
    let root = url(&keystore_path(&KS));
    let expired = Terms {
        created: NOW - 4_000,
        expires: NOW - 301,
        ..Terms::new("urn:uuid:c", &root, &["sign"])
    };
    let expired = expired.delegate(ALICE, BOB, Capability::Root(&root));
    assert_not_authorized(by_keystore(&desk, ALICE, &expired), "DataError", INVALID);
    // Revoked twice is 403: the capability is not valid any more.
    desk.revoke(&KS, "urn:uuid:parent", ALICE);
    assert_not_authorized(by_keystore(&desk, ALICE, &chain()), "DataError", INVALID);
}

#[test]
fn what_is_no_delegated_capability_is_malformed() {
    let desk = Desk::new();
    let target = path(&KS, "urn:uuid:c");
    let post = |target: &str, body: &Value| desk.post(ALICE, target, &keystore_path(&KS), "write", body);
    let root = json!({
        "@context": "https://w3id.org/zcap/v1",
        "id": "urn:uuid:c",
        "controller": did(ALICE),
        "invocationTarget": url(&keystore_path(&KS)),
    });
    let invalid = "A validation error occurred in the 'delegatedZcap' validator.";
    assert_refused(post(&target, &root), 400, "ValidationError", invalid);
    assert_refused(post(&target, &json!({})), 400, "ValidationError", invalid);
    assert_refused(post(&target, &json!([])), 400, "ValidationError", invalid);
    let mismatch = "The capability's \"id\" does not match the request URL.";
    let capability = bobs("urn:uuid:d", &["sign"]);
    assert_refused(post(&target, &capability), 400, "DataError", mismatch);
}
