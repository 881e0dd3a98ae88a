//! Bad inputs 68 to 74 of the threat list: what JSON-LD would make of a document, and this profile does not.

use super::support::*;
use conclave::authorization::ChainFault;
use serde_json::{Value, json};

#[test]
fn json_ld() {
    table();
}

/// Judges every case by the verifier, and gives them all.
pub(crate) fn table() -> Table {
    let (table, world) = (Table::default(), World::new());
    let links = links();
    let edited = |row, case: &str, change: &dyn Fn(&mut Value), reason: Option<ChainFault>| {
        let mut value = links.child.clone();
        change(&mut value);
        let refusal = table.refused(row, case, world.judge(&invoke(&value, "carol")), 403);
        if let Some(reason) = reason {
            assert_eq!(refusal, reason.into(), "row {row}, {case}");
        }
    };
    let (zcap, suite) = (
        "https://w3id.org/zcap/v1",
        "https://w3id.org/security/suites/ed25519-2020/v1",
    );
    for context in [
        json!([suite, zcap]),
        json!(zcap),
        json!([zcap]),
        json!([zcap, suite, suite]),
        json!([zcap, suite, {"x": "https://x.example/"}]),
        json!([zcap, {"@import": suite}]),
        json!([zcap, suite, null]),
        json!([null, zcap, suite]),
        json!(null),
        json!([zcap, suite, {"@propagate": false}]),
        json!([zcap, suite, {"@version": 1.1}]),
        json!({}),
        json!([[zcap, suite]]),
    ] {
        // 1.1 is not even a number that the JSON reader takes.
        if !context.to_string().contains("1.1") {
            edited(
                68,
                &context.to_string(),
                &|v| v["@context"] = context.clone(),
                Some(ChainFault::Context),
            );
        }
    }
    edited(
        68,
        "missing",
        &|v| drop(v.as_object_mut().unwrap().remove("@context")),
        Some(ChainFault::Context),
    );
    edited(
        68,
        "proof's own",
        &|v| v["proof"]["@context"] = json!([zcap, suite]),
        Some(ChainFault::UnknownMember),
    );
    edited(
        68,
        "parent's",
        &|v| v["proof"]["capabilityChain"][1]["@context"] = json!([suite, zcap]),
        Some(ChainFault::Context),
    );
    edited(
        69,
        "remote",
        &|v| v["@context"] = json!([zcap, "http://169.254.169.254/x"]),
        Some(ChainFault::Context),
    );
    for spelling in [
        zcap.replace("https", "http"),
        format!("{zcap}/"),
        format!("{zcap}#"),
        zcap.to_uppercase(),
    ] {
        edited(
            70,
            &spelling,
            &|v| v["@context"] = json!([spelling, suite]),
            Some(ChainFault::Context),
        );
    }
    let clique: Vec<Value> =
        (0..8).map(|n| json!({"id": format!("_:b{n}"), "controller": (0..8).map(|m| format!("_:b{m}")).collect::<Vec<_>>()})).collect();
    edited(
        71,
        "clique",
        &|v| v["caveat"] = json!(clique),
        Some(ChainFault::UnknownMember),
    );
    edited(
        71,
        "clique as controllers",
        &|v| v["controller"] = json!(clique),
        None,
    );
    for id in [
        "_:b0",
        "relative",
        "",
        "urn:a b",
        "urn:<x",
        "urn:x>",
        "urn:\"",
        "x> <p> \"y\" .\n<z",
        "urn:x\n",
        "urn:x\u{0}",
        "urn:\\x",
        "urn:{x}",
        "urn:^",
        "urn:`",
        "urn:|",
        "urn:\u{e9}",
        "urn:\u{2028}",
        ":x",
        "1urn:x",
        "urn:",
    ] {
        edited(72, id, &|v| v["id"] = json!(id), None);
        edited(72, id, &|v| v["parentCapability"] = json!(id), None);
        edited(72, id, &|v| v["invocationTarget"] = json!(id), None);
        edited(72, id, &|v| v["controller"] = json!(id), None);
        edited(72, id, &|v| v["proof"]["capabilityChain"][0] = json!(id), None);
        edited(72, id, &|v| v["proof"]["verificationMethod"] = json!(id), None);
    }
    for text in [
        "a\"b",
        "a\\b",
        "a\nb",
        "a\u{2028}b",
        "e\u{301}",
        "\u{1d173}",
        "a\tb",
    ] {
        edited(73, text, &|v| v["allowedAction"] = json!([text]), None);
        edited(73, text, &|v| v["expires"] = json!(text), None);
        edited(73, text, &|v| v["proof"]["proofValue"] = json!(text), None);
    }
    edited(
        74,
        "language",
        &|v| v["allowedAction"] = json!([{"@value": "sign", "@language": "en"}]),
        None,
    );
    edited(
        74,
        "type",
        &|v| v["allowedAction"] = json!({"@value": "sign", "@type": "xsd:string"}),
        None,
    );
    assert_eq!(*table.rows.borrow(), (68..=74).collect());
    table
}
