//! Bad inputs 43 to 67 of the threat list: chains and delegation, each with its reason. The parts of 65 that need a
//! route (whose request revokes what) are the caller's.

use std::time::Duration;

use super::support::*;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use conclave::authorization::issue::{Capability, Delegation};
use conclave::authorization::{
    ChainCache, ChainFault, ExpectedRoot, Refusal, Suite, root_id, verify_delegation,
};
use serde_json::{Value, json};

#[test]
fn chain_and_delegation() {
    table();
}

/// Judges every case by the verifier, and gives them all.
pub(crate) fn table() -> Table {
    let (table, world) = (Table::default(), World::new());
    let links = links();
    let judge = |value: &Value, who: &str| world.judge(&invoke(value, who));
    let edit = |value: &Value, edit: &dyn Fn(&mut Value)| {
        let mut value = value.clone();
        edit(&mut value);
        value
    };
    let fault = |row, case: &str, value: &Value, fault: ChainFault| {
        table.for_reason(row, case, judge(value, "carol"), fault.into());
    };
    let edited = |row, case: &str, change: &dyn Fn(&mut Value), reason: ChainFault| {
        fault(row, case, &edit(&links.child, change), reason);
    };
    use ChainFault::{
        Action, Chain, Created, Delegator, Expires, Member, Proof, Purpose, Suite as BadSuite, Target,
    };
    use conclave::authorization::error::Member as M;

    edited(
        43,
        "forged",
        &|v| v["proof"]["proofValue"] = links.parent["proof"]["proofValue"].clone(),
        Proof,
    );
    edited(
        43,
        "unsigned",
        &|v| v["proof"]["proofValue"] = json!(""),
        Member(M::ProofValue),
    );
    edited(44, "empty", &|v| v["proof"]["capabilityChain"] = json!([]), Chain);
    let other = &here("https://kms.example/kms/keystores/z1O");
    let alice = key("alice");
    let foreign = Delegation {
        controllers: &[&did("carol")],
        target: other,
        ..delegation(&alice, Capability::Root(other), "urn:uuid:o")
    };
    let refusal = table.refused(45, "other root", judge(&made(foreign), "carol"), 403);
    assert!(matches!(refusal, Refusal::RootMismatch { .. }));
    edited(
        46,
        "by reference",
        &|v| v["proof"]["capabilityChain"][1] = json!("urn:uuid:p"),
        Member(M::CapabilityChain),
    );
    edited(
        46,
        "parent",
        &|v| v["parentCapability"] = json!("urn:uuid:x"),
        Chain,
    );
    edited(46, "cycle", &|v| v["id"] = json!("urn:uuid:p"), Chain);
    edited(46, "root as id", &|v| v["id"] = json!(root_id(keystore())), Chain);
    edited(
        46,
        "levels differ",
        &|v| v["proof"]["capabilityChain"][0] = json!(root_id(other)),
        Chain,
    );
    edited(
        46,
        "one level more",
        &|v| {
            let chain = v["proof"]["capabilityChain"].as_array_mut().unwrap();
            chain.insert(1, json!("urn:uuid:q"));
        },
        Chain,
    );
    edited(
        46,
        "not hanging from a root",
        &|v| {
            v["proof"]["capabilityChain"][0] = json!("urn:uuid:r");
            v["proof"]["capabilityChain"][1]["proof"]["capabilityChain"][0] = json!("urn:uuid:r");
            v["proof"]["capabilityChain"][1]["parentCapability"] = json!("urn:uuid:r");
        },
        Chain,
    );
    for length in 1..=12 {
        let capability = long_chain(length);
        let verdict = judge(&capability, &format!("agent {length}"));
        match length {
            ..=9 => assert_eq!(verdict.unwrap().chain_length, length + 1),
            _ => table.for_reason(47, "too long", verdict, Refusal::ChainTooLong(10)),
        }
    }
    edited(
        48,
        "none",
        &|v| drop(v.as_object_mut().unwrap().remove("proof")),
        Member(M::Proof),
    );
    edited(
        48,
        "two",
        &|v| v["proof"] = json!([v["proof"], v["proof"]]),
        Member(M::Proof),
    );
    edited(
        48,
        "array of one",
        &|v| v["proof"] = json!([v["proof"]]),
        Member(M::Proof),
    );
    edited(
        49,
        "parent's action",
        &|v| v["proof"]["capabilityChain"][1]["allowedAction"] = json!(["sign"]),
        Proof,
    );
    edited(49, "action", &|v| v["allowedAction"] = json!(["sign"]), Proof);
    edited(
        49,
        "target",
        &|v| v["invocationTarget"] = json!(format!("{}/keys", keystore())),
        Proof,
    );
    edited(49, "id", &|v| v["id"] = json!("urn:uuid:d"), Proof);
    edited(
        49,
        "created",
        &|v| v["proof"]["created"] = json!("2026-05-30T00:00:00Z"),
        Proof,
    );
    edited(
        49,
        "same instant, other text",
        &|v| {
            let text = v["expires"].as_str().unwrap().replace('Z', ".0Z");
            v["expires"] = json!(text);
        },
        Proof,
    );
    edited(
        50,
        "type",
        &|v| v["proof"]["type"] = json!("Ed25519Signature2018"),
        BadSuite,
    );
    edited(
        50,
        "2020 with cryptosuite",
        &|v| v["proof"]["cryptosuite"] = json!("eddsa-rdfc-2022"),
        BadSuite,
    );
    let modern = child(&links.parent, |d| {
        made(Delegation {
            suite: Suite::EddsaRdfc2022,
            ..d
        })
    });
    assert!(judge(&modern, "carol").is_ok());
    for suite in [
        json!("eddsa-jcs-2022"),
        json!("bbs-2023"),
        json!(null),
        json!(["eddsa-rdfc-2022"]),
    ] {
        fault(
            50,
            "cryptosuite",
            &edit(&modern, &|v| v["proof"]["cryptosuite"] = suite.clone()),
            BadSuite,
        );
    }
    fault(
        50,
        "2020 context",
        &edit(&modern, &|v| v["@context"] = links.child["@context"].clone()),
        ChainFault::Context,
    );
    edited(
        50,
        "DI context",
        &|v| v["@context"] = modern["@context"].clone(),
        ChainFault::Context,
    );
    for purpose in [
        json!("assertionMethod"),
        json!("capabilityInvocation"),
        json!(["capabilityDelegation"]),
    ] {
        edited(
            51,
            "purpose",
            &|v| v["proof"]["proofPurpose"] = purpose.clone(),
            Purpose,
        );
    }
    edited(
        52,
        "swapped",
        &|v| v["proof"]["verificationMethod"] = json!(method("alice")),
        Delegator,
    );
    edited(
        52,
        "object",
        &|v| v["proof"]["verificationMethod"] = json!({"id": method("bob")}),
        Member(M::VerificationMethod),
    );
    edited(
        52,
        "fragment",
        &|v| v["proof"]["verificationMethod"] = json!(format!("{}#x", did("bob"))),
        Member(M::VerificationMethod),
    );
    let mallory = key("mallory");
    let usurped = child(&links.parent, |d| made(Delegation { key: &mallory, ..d }));
    fault(53, "wrong delegator", &usurped, Delegator);
    let from_root = parent(|d| {
        made(Delegation {
            key: &mallory,
            controllers: &[&did("carol")],
            ..d
        })
    });
    fault(53, "not the keystore's controller", &from_root, Delegator);
    for who in ["alice", "bob", "mallory"] {
        table.for_reason(53, who, judge(&links.child, who), Refusal::WrongInvoker);
    }
    let end = now() + 10 * DAY;
    let at = |now: u64, skew: u32, value: &Value| {
        let world = world.clone().with(|world| {
            world.now = now * 1_000;
            world.policy.clock_skew = skew;
        });
        let forge = Forge::new(&format!(
            "zcap capability=\"{}\",action=\"sign\"",
            URL_SAFE_NO_PAD.encode(gzip(value.to_string().as_bytes()))
        ));
        let forge = forge.with(|forge| {
            (forge.key, forge.key_id) = (key("carol"), method("carol"));
            (forge.created, forge.expires) = (now.to_string(), (now + 60).to_string());
        });
        world.judge(&forge.signed())
    };
    assert!(at(end + 300, 300, &links.child).is_ok() && at(end, 0, &links.child).is_ok());
    table.for_reason(
        54,
        "with skew",
        at(end + 301, 300, &links.child),
        Refusal::CapabilityExpired,
    );
    table.for_reason(
        54,
        "without",
        at(end + 1, 0, &links.child),
        Refusal::CapabilityExpired,
    );
    let expired = child(&links.parent, |d| {
        made(Delegation {
            expires: now() - 310,
            ..d
        })
    });
    let expired = judge(&expired, "carol");
    table.for_reason(54, "more than the skew ago", expired, Refusal::CapabilityExpired);
    let widened = child(&links.parent, |d| {
        made(Delegation {
            expires: end + 1,
            ..d
        })
    });
    fault(55, "widened", &widened, Expires);
    edited(
        55,
        "missing",
        &|v| drop(v.as_object_mut().unwrap().remove("expires")),
        Member(M::Expires),
    );
    for text in [
        "2035",
        "2035-01-01T00:00:00+00:00",
        "2026-06-10T24:00:00Z",
        "2026-02-30T00:00:00Z",
        "2026-06-30T23:59:60Z",
        "2026-06-05",
    ] {
        edited(55, text, &|v| v["expires"] = json!(text), Member(M::Expires));
        edited(
            55,
            text,
            &|v| v["proof"]["created"] = json!(text),
            Member(M::ProofCreated),
        );
    }
    edited(55, "number", &|v| v["expires"] = json!(end), Member(M::Expires));
    let created = |at: u64, expires: u64| {
        child(&links.parent, |d| {
            made(Delegation {
                created: at,
                expires,
                ..d
            })
        })
    };
    fault(56, "after expires", &created(now(), now() - 1), Created);
    fault(
        56,
        "before parent",
        &created(now() - 10 * DAY - 1, now() + DAY),
        Created,
    );
    assert!(judge(&created(now() + 300, now() + DAY), "carol").is_ok());
    // To the second by the verifier's clock; a server's goes on.
    let ahead = judge(&created(now() + 301, now() + DAY), "carol");
    assert_eq!(ahead.unwrap_err(), Refusal::DelegatedInFuture);
    table.for_reason(
        56,
        "in the future",
        judge(&created(now() + 360, now() + DAY), "carol"),
        Refusal::DelegatedInFuture,
    );
    // Signed at now(), judged 10 minutes later, delegated in between, beyond the skew.
    let later = world.clone().with(|world| world.now = (now() + 600) * 1_000);
    let early = later.judge(&invoke(&created(now() + 301, now() + DAY), "carol"));
    table.for_reason(56, "invoked before", early, Refusal::DelegatedInFuture);
    // Ahead of now by more than the skew, though not of an invocation that is itself ahead by less.
    let ahead = Forge::root().with(|forge| {
        let packed = URL_SAFE_NO_PAD.encode(gzip(created(now() + 450, now() + DAY).to_string().as_bytes()));
        *forge = Forge::new(&format!("zcap capability=\"{packed}\",action=\"sign\""));
        (forge.key, forge.key_id) = (key("carol"), method("carol"));
        (forge.created, forge.expires) = ((now() + 200).to_string(), (now() + 300).to_string());
    });
    table.for_reason(
        56,
        "ahead of now only",
        world.judge(&ahead.signed()),
        Refusal::DelegatedInFuture,
    );
    let ttl = |seconds: u64| {
        let mut world = world.clone();
        world.ttl = Some(Duration::from_secs(seconds));
        world.judge(&invoke(&links.child, "carol"))
    };
    assert!(ttl(20 * DAY).is_ok());
    table.for_reason(57, "route", ttl(20 * DAY - 1), Refusal::TtlTooLong);
    let strict = world
        .clone()
        .with(|world| world.policy.max_delegation_ttl = Some(Duration::from_secs(20 * DAY - 1)));
    table.for_reason(
        57,
        "policy",
        strict.judge(&invoke(&links.child, "carol")),
        Refusal::TtlTooLong,
    );
    let actions = |actions: Option<&[&str]>| child(&links.parent, |d| made(Delegation { actions, ..d }));
    fault(58, "widened", &actions(Some(&["sign", "deleteKey"])), Action);
    fault(58, "omitted", &actions(None), Action);
    fault(58, "case", &actions(Some(&["Sign"])), Action);
    let only_read = judge(&actions(Some(&["read"])), "carol");
    let reason = Refusal::ActionNotAllowed {
        action: "sign".into(),
        allowed: vec!["read".into()],
    };
    table.for_reason(58, "not allowed", only_read, reason);
    for value in [
        json!([]),
        json!(""),
        json!(" sign"),
        json!("si gn"),
        json!(1),
        json!(null),
        json!([1]),
        json!([["sign"]]),
    ] {
        edited(
            58,
            "shape",
            &|v| v["allowedAction"] = value.clone(),
            Member(M::AllowedAction),
        );
    }
    for name in [
        "@nest",
        "@included",
        "@graph",
        "@reverse",
        "@index",
        "@type",
        "@id",
        "https://w3id.org/security#allowedAction",
    ] {
        let change = |v: &mut Value| {
            let actions = v.as_object_mut().unwrap().remove("allowedAction").unwrap();
            v[name] = json!({ "https://w3id.org/security#allowedAction": actions });
        };
        edited(59, name, &change, ChainFault::UnknownMember);
    }
    for value in [
        json!({"@set": ["sign"]}),
        json!({"@list": ["sign"]}),
        json!({"@value": "sign"}),
        json!([{"@value": "sign"}]),
    ] {
        edited(
            59,
            "value object",
            &|v| v["allowedAction"] = value.clone(),
            Member(M::AllowedAction),
        );
        edited(
            59,
            "value object",
            &|v| v["controller"] = json!({"@id": did("carol")}),
            Member(M::Controller),
        );
    }
    let narrow = format!("{}/keys", keystore());
    let narrowed = parent(|d| made(Delegation { target: &narrow, ..d }));
    for (case, target) in [
        ("widened", keystore().to_owned()),
        ("sibling with the same prefix", format!("{narrow}X")),
        ("no separator", format!("{narrow}-")),
        ("outside", here("https://kms.example/kms/keystores/z1O/keys")),
        (
            "other host",
            "https://kms.exampl/kms/keystores/z1A/keys/z1B".into(),
        ),
    ] {
        fault(
            60,
            case,
            &child(&narrowed, |d| made(Delegation { target: &target, ..d })),
            Target,
        );
    }
    for target in [
        "/keys/../../z1O/keys/k",
        "/./keys",
        "/keys/..",
        "/%2e%2e/z1O",
        "/a%2Fb",
        "/a%5Cb",
        "//keys",
        "/keys/",
        "/a;v=1",
        "#f",
        "/keys#f",
    ] {
        let target = format!("{}{target}", keystore());
        fault(
            61,
            &target,
            &parent(|d| {
                made(Delegation {
                    target: &target,
                    controllers: &[&did("carol")],
                    ..d
                })
            }),
            Target,
        );
    }
    for target in [
        "https://KMS.example/kms/keystores/z1A",
        "https://kms.example:443/kms/keystores/z1A",
        "https://kms.example./kms/keystores/z1A",
        "https://u@kms.example/kms/keystores/z1A",
        "http://kms.example/kms/keystores/z1A",
    ] {
        let target = here(target);
        let target = target.as_str();
        fault(
            61,
            target,
            &parent(|d| {
                made(Delegation {
                    target,
                    controllers: &[&did("carol")],
                    ..d
                })
            }),
            Target,
        );
    }
    for path in [
        "/kms/keystores/z1A/keys/../../z1O/keys/k",
        "/kms/keystores/z1A/keys/%2e%2e/x",
        "/kms/keystores/z1A/a%2Fb",
        "/kms/keystores/z1A//keys",
        "/kms/keystores/z1A/keys/z1B;x",
        "/kms/keystores/z1A/keys#f",
    ] {
        let path = here(path);
        let path = path.as_str();
        let request = Forge::root().with(|forge| forge.target = path.into()).signed();
        table.for_reason(61, path, world.judge(&request), Refusal::TargetNotAllowed);
    }
    let asked = format!("{}?a=1", keystore());
    let with_query = parent(|d| {
        made(Delegation {
            target: &asked,
            controllers: &[&did("carol")],
            ..d
        })
    });
    let get = |path: &str| {
        let capability = URL_SAFE_NO_PAD.encode(gzip(with_query.to_string().as_bytes()));
        let forge = Forge::new(&format!("zcap capability=\"{capability}\",action=\"sign\"")).with(|forge| {
            (forge.key, forge.key_id) = (key("carol"), method("carol"));
            forge.target = path.into();
        });
        world.judge(&forge.signed())
    };
    assert!(get(&here("/kms/keystores/z1A?a=1&b=2")).is_ok());
    for path in [
        "?a=1&a=2",
        "?a=1&%61=2",
        "?a=12",
        "?b=2&a=1",
        "?a=1/b",
        "/keys?a=1",
        "",
    ] {
        table.for_reason(
            62,
            path,
            get(&here(&format!("/kms/keystores/z1A{path}"))),
            Refusal::TargetNotAllowed,
        );
    }
    let exact = world
        .clone()
        .with(|world| world.policy.allow_target_attenuation = false);
    table.for_reason(
        63,
        "root",
        exact.judge(&Forge::root().signed()),
        Refusal::TargetNotAllowed,
    );
    table.for_reason(
        63,
        "delegated",
        exact.judge(&invoke(&links.child, "carol")),
        Refusal::TargetNotAllowed,
    );
    let narrowed = parent(|d| {
        made(Delegation {
            target: &narrow,
            controllers: &[&did("carol")],
            ..d
        })
    });
    table.for_reason(
        63,
        "link",
        exact.judge(&invoke(&narrowed, "carol")),
        Target.into(),
    );
    let revoked = |id: &str, by: &str, value: &Value| {
        let world = world
            .clone()
            .with(|world| world.revoked = vec![(id.into(), did(by))]);
        world.judge(&invoke(value, "carol"))
    };
    table.for_reason(
        64,
        "tail",
        revoked("urn:uuid:c", "bob", &links.child),
        Refusal::Revoked,
    );
    table.for_reason(
        64,
        "parent",
        revoked("urn:uuid:p", "alice", &links.child),
        Refusal::Revoked,
    );
    let again = created(now(), now() + DAY);
    table.for_reason(
        64,
        "issued again",
        revoked("urn:uuid:c", "bob", &again),
        Refusal::Revoked,
    );
    let delegations = |value: &Value, roots: &[ExpectedRoot], revoked: bool| {
        verify_delegation(
            value,
            roots,
            &|_, _| revoked,
            &world.policy,
            &ChainCache::new(0),
            world.now,
        )
    };
    let roots = [ExpectedRoot::new(keystore(), vec![did("alice")])];
    let verified = delegations(&links.child, &roots, false).unwrap();
    assert_eq!(verified.controllers, [did("alice"), did("bob"), did("carol")]);
    assert_eq!(
        verified
            .chain
            .iter()
            .map(|link| link.delegator.as_str())
            .collect::<Vec<_>>(),
        [did("alice"), did("bob")]
    );
    let revocation_refused = |case: &str, verdict: Result<_, Refusal>| {
        table.rows.borrow_mut().insert(65);
        let refusal: Refusal = verdict
            .map(|_: conclave::authorization::VerifiedDelegation| ())
            .unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "The provided capability delegation is invalid.",
            "{case}"
        );
        assert_eq!(
            (refusal.status(), refusal.cause_name()),
            (403, "DataError"),
            "{case}"
        );
    };
    revocation_refused("twice", delegations(&links.child, &roots, true));
    revocation_refused(
        "root",
        delegations(&json!({"id": root_id(keystore())}), &roots, false),
    );
    revocation_refused(
        "other keystore",
        delegations(
            &links.child,
            &[ExpectedRoot::new(other, vec![did("alice")])],
            false,
        ),
    );
    revocation_refused("stranger's", delegations(&usurped, &roots, false));
    revocation_refused(
        "expired",
        delegations(&created(now() - 2 * DAY, now() - DAY), &roots, false),
    );
    table.for_reason(
        66,
        "same id and delegator",
        revoked("urn:uuid:c", "bob", &actions(Some(&["sign"]))),
        Refusal::Revoked,
    );
    let by_other = parent(|d| {
        made(Delegation {
            id: "urn:uuid:c",
            controllers: &[&did("carol")],
            ..d
        })
    });
    assert!(
        revoked("urn:uuid:c", "bob", &by_other).is_ok(),
        "another delegator's capability of the same id"
    );
    let thousand: Vec<String> = vec![did("carol"); 1_000];
    for value in [
        json!(thousand),
        json!(thousand[..11]),
        json!([]),
        json!(1),
        json!(null),
        json!([1]),
        json!("did:web:x"),
        json!(""),
    ] {
        edited(
            67,
            "controller",
            &|v| v["controller"] = value.clone(),
            Member(M::Controller),
        );
    }
    assert_eq!(*table.rows.borrow(), (43..=67).collect());
    table
}
