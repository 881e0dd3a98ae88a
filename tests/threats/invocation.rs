//! Bad inputs 34 to 42 of the threat list: the `Capability-Invocation` header and the JSON inside it.

use super::support::*;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use conclave::authorization::{ChainFault, RawRequest, Refusal, root_id};
use serde_json::json;

#[test]
fn capability_invocation_header() {
    table();
}

/// Judges every case by the verifier, and gives them all.
pub(crate) fn table() -> Table {
    let (table, world) = (Table::default(), World::new());
    let refused = |row, case: &str, request: &RawRequest, status| {
        table.refused(row, case, world.judge(request), status)
    };
    let root = root_id(keystore());
    let links = links();
    let text = links.child.to_string();
    let packed = gzip(text.as_bytes());
    let encoded = URL_SAFE_NO_PAD.encode(&packed);
    assert_eq!(
        world.judge(&invoke(&links.child, "carol")).unwrap().chain_length,
        3
    );

    let absent =
        Forge::root().with(|forge| forge.headers.retain(|(name, _)| name != "capability-invocation"));
    table.for_reason(
        34,
        "absent",
        world.judge(&absent.signed()),
        Refusal::MissingInvocation,
    );
    for value in [
        format!("bearer id=\"{root}\",action=\"sign\""),
        format!("ZCAP id=\"{root}\",action=\"sign\""),
        format!("zcap id=\"{root}\",capability=\"{encoded}\",action=\"sign\""),
        "zcap action=\"sign\"".into(),
        "zcap".into(),
        format!("zcap id=\"{root}\",action=\"sign\",x=\"1\""),
        format!("zcap id=\"{root}\", action=\"sign\""),
        "zcap id=\"no iri\",action=\"sign\"".into(),
    ] {
        refused(34, &value, &Forge::new(&value).signed(), 400);
    }
    for value in [
        format!("zcap id=\"{root}\""),
        format!("zcap id=\"{root}\",action=\"\""),
    ] {
        refused(35, &value, &Forge::new(&value).signed(), 400);
    }
    let changed = Forge::root().signed();
    let mut changed_after = changed.clone();
    changed_after.headers[1].1 = format!("zcap id=\"{root}\",action=\"read\"").into_bytes();
    table.for_reason(
        35,
        "edited",
        world.judge(&changed_after),
        Refusal::SignatureNotVerified,
    );
    let verify = Forge::new(&format!("zcap id=\"{root}\",action=\"verify\"")).signed();
    let refusal = refused(35, "not the route's", &verify, 403);
    assert_eq!(
        refusal.to_string(),
        "Capability action \"verify\" does not match the expected action of \"sign\"."
    );
    let mut cut = packed.clone();
    cut.truncate(packed.len() - 4);
    let mut checksum = packed.clone();
    *checksum.last_mut().unwrap() ^= 1;
    for (case, value) in [
        ("not base64url", STANDARD.encode(&packed) + "+/"),
        (
            "padded",
            URL_SAFE.encode([&packed[..], &[0; 3][..3 - packed.len() % 3]].concat()) + "=",
        ),
        ("not gzip", URL_SAFE_NO_PAD.encode(&text)),
        (
            "trailing byte",
            URL_SAFE_NO_PAD.encode([&packed[..], &[0]].concat()),
        ),
        (
            "two members",
            URL_SAFE_NO_PAD.encode([&packed[..], &gzip(b" ")].concat()),
        ),
        ("cut off", URL_SAFE_NO_PAD.encode(&cut)),
        ("wrong length", URL_SAFE_NO_PAD.encode(&checksum)),
        ("empty", String::new()),
    ] {
        refused(36, case, &invoke_packed(&value, "carol"), 400);
    }
    let bomb = gzip(&vec![b' '; 11 << 20]);
    assert!(URL_SAFE_NO_PAD.encode(&bomb).len() < 16_000);
    table.for_reason(
        37,
        "11 MiB",
        world.judge(&invoke_packed(&URL_SAFE_NO_PAD.encode(&bomb), "carol")),
        Refusal::CapabilityTooLarge,
    );
    refused(
        37,
        "one byte more",
        &invoke_text(&vec![b' '; 65_537], "carol"),
        413,
    );
    refused(37, "none more", &invoke_text(&vec![b' '; 65_536], "carol"), 400);
    for depth in [65, 129, 1_000, 30_000] {
        let open = "{\"proof\":".repeat(depth);
        refused(
            38,
            "objects",
            &invoke_text(format!("{open}1{}", "}".repeat(depth)).as_bytes(), "carol"),
            if open.len() + depth > 65_535 { 413 } else { 400 },
        );
        refused(
            38,
            "arrays",
            &invoke_text(
                format!("{}{}", "[".repeat(depth), "]".repeat(depth)).as_bytes(),
                "carol",
            ),
            400,
        );
    }
    let twice = text.replacen(
        "\"controller\":",
        "\"controller\":\"did:key:z6Mk\",\"controller\":",
        1,
    );
    refused(39, "controller", &invoke_text(twice.as_bytes(), "carol"), 400);
    refused(
        39,
        "by escape",
        &invoke_text(
            twice.replacen("controller", "c\\u006fntroller", 1).as_bytes(),
            "carol",
        ),
        400,
    );
    for (member, place) in [("top", "/"), ("proof", "/proof")] {
        let mut value = links.child.clone();
        value.pointer_mut(if place == "/" { "" } else { place }).unwrap()["note"] = json!("x");
        table.for_reason(
            40,
            member,
            world.judge(&invoke(&value, "carol")),
            ChainFault::UnknownMember.into(),
        );
    }
    let mut value = links.child.clone();
    value["proof"]["capabilityChain"][1]["proof"]["domain"] = json!("x");
    table.for_reason(
        40,
        "parent",
        world.judge(&invoke(&value, "carol")),
        ChainFault::UnknownMember.into(),
    );
    for bad in [
        text.replacen("urn:uuid:c", "\\ud800", 1).into_bytes(),
        [b"\xef\xbb\xbf", text.as_bytes()].concat(),
        text.replacen("urn:uuid:c", "\u{0}", 1).into_bytes(),
        text.replacen("\"urn:uuid:c\"", "NaN", 1).into_bytes(),
        text.replacen("\"urn:uuid:c\"", "1e400", 1).into_bytes(),
        text.replacen("\"urn:uuid:c\"", "123456789012345678901234567890", 1)
            .into_bytes(),
        text.replacen("}}", "},}", 1).into_bytes(),
        format!("{text}{text}").into_bytes(),
        text.bytes()
            .map(|byte| if byte == b'c' { 0xff } else { byte })
            .collect(),
        b"".to_vec(),
    ] {
        refused(41, "not strict", &invoke_text(&bad, "carol"), 400);
    }
    let by_id = Forge::new("zcap id=\"urn:uuid:c\",action=\"sign\"")
        .with(|forge| (forge.key, forge.key_id) = (key("carol"), method("carol")));
    refused(42, "delegated by id", &by_id.signed(), 403);
    let root_object = json!({
        "@context": "https://w3id.org/zcap/v1", "id": root, "controller": did("carol"), "invocationTarget": keystore()
    });
    table.for_reason(
        42,
        "root by value",
        world.judge(&invoke(&root_object, "carol")),
        Refusal::RootByValue,
    );
    assert_eq!(*table.rows.borrow(), (34..=42).collect());
    table
}
