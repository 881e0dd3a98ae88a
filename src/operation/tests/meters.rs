//! `POST /meters`, `GET /meters/:id`.

use serde_json::{Value, json};

use super::*;
use crate::keystore::Command;
use crate::operation::judge::Intent;

fn body() -> Value {
    json!({ "controller": did(BOB), "product": { "id": "urn:uuid:product" } })
}

#[test]
fn a_meter_is_made_for_its_controller() {
    let judgement = Desk::new()
        .post(MALLORY, "/meters", "/meters", "write", &body())
        .unwrap();
    let Intent::Change(Command::CreateMeter {
        id,
        controller,
        product,
    }) = judgement.intent
    else {
        panic!("{judgement:?}")
    };
    assert_eq!(
        id,
        LocalId::derive(&CLUSTER, &OPERATION, 0),
        "no node chooses an id"
    );
    assert_eq!((controller, product.as_str()), (did(BOB), "urn:uuid:product"));
    assert_eq!((judgement.state_version, judgement.chain.len()), (0, 0));
}

#[test]
fn only_admins_make_meters_where_there_are_admins() {
    let mut desk = Desk::new();
    desk.rules.meter_admins = Some(vec![did(ALICE)]);
    assert!(desk.post(ALICE, "/meters", "/meters", "write", &body()).is_ok());
    assert_not_authorized(
        desk.post(MALLORY, "/meters", "/meters", "write", &body()),
        "Error",
        WRONG_INVOKER,
    );
}

#[test]
fn a_meter_s_body_is_a_closed_shape() {
    let desk = Desk::new();
    let post = |body: Value| desk.post(ALICE, "/meters", "/meters", "write", &body);
    for body in [
        json!({ "controller": did(BOB) }),
        json!({ "controller": did(BOB), "product": "urn:uuid:product" }),
        json!({ "controller": [did(BOB)], "product": { "id": "p" } }),
        json!({ "controller": did(BOB), "product": { "id": "p" }, "more": 1 }),
        json!([]),
    ] {
        assert_refused(post(body), 400, "SyntaxError", "");
    }
    let stranger = json!({ "controller": "did:web:example", "product": { "id": "p" } });
    assert_refused(post(stranger), 400, "DataError", "A meter's controller");
    let none = desk.judge(Ask {
        who: ALICE,
        method: "POST",
        target: "/meters",
        capability: Capability::Root(&url("/meters")),
        action: "write",
        body: None,
    });
    assert_refused(none, 400, "DataError", "The request must have a JSON body.");
}

#[test]
fn a_meter_is_shown_to_its_controller() {
    let desk = Desk::new();
    let path = format!("/meters/{METER}");
    let judgement = desk.get(ALICE, &path, &path).unwrap();
    assert!(matches!(judgement.intent, Intent::ShowMeter(METER, meter) if meter.controller == did(ALICE)));
    assert_not_authorized(desk.get(BOB, &path, &path), "Error", WRONG_INVOKER);
    for absent in [
        format!("/meters/{}", LocalId([77; 16])),
        "/meters/nonsense".into(),
    ] {
        let problem = assert_refused(
            desk.get(ALICE, &absent, &absent),
            404,
            "NotFoundError",
            "Meter not found.",
        );
        assert_eq!(details(&problem)["meter"], url(&absent));
    }
}
