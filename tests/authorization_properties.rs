//! Properties: what is issued is accepted, whatever its depth; what is changed in one byte is not; nothing that is
//! read from outside panics.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "threats/support.rs"]
mod support;

use conclave::authorization::issue::{Capability, Delegation, Invocation};
use conclave::authorization::{ChainCache, RawRequest, Suite, authenticate, json, target};
use proptest::prelude::*;
use serde_json::Value;
use support::*;

/// One random link: suite, actions kept, path added, days cut off, further controllers.
#[derive(Clone, Debug)]
struct Step {
    suite: Suite,
    actions: Option<usize>,
    path: Option<String>,
    shorter: u64,
    others: usize,
}

fn step() -> impl Strategy<Value = Step> {
    (
        any::<bool>(),
        proptest::option::of(1usize..5),
        proptest::option::weighted(0.3, "[a-zA-Z0-9]{1,6}"),
        0u64..3,
        0usize..4,
    )
        .prop_map(|(modern, actions, path, shorter, others)| Step {
            suite: if modern {
                Suite::EddsaRdfc2022
            } else {
                Suite::Ed25519Signature2020
            },
            actions,
            path,
            shorter,
            others,
        })
}

/// Delegates along the steps; gives the capability and the target and the one who holds it.
fn delegate(steps: &[Step]) -> (Value, String, String) {
    const ACTIONS: [&str; 5] = ["sign", "read", "verify", "generateKey", "deriveSecret"];
    let (mut holder, mut url, mut actions, mut expires) =
        ("alice".to_owned(), keystore().to_owned(), None, now() + 40 * DAY);
    let mut capability: Option<Value> = None;
    for (index, step) in steps.iter().enumerate() {
        let next = format!("agent {index}");
        if let Some(path) = &step.path {
            url = format!("{url}/{path}");
        }
        // Once restricted, always restricted, to fewer or as many.
        actions = match (actions, step.actions) {
            (None, wanted) => wanted,
            (Some(had), wanted) => Some(wanted.unwrap_or(had).min(had)),
        };
        expires -= step.shorter * DAY;
        let mut controllers: Vec<String> = (0..step.others).map(|n| did(&format!("other {n}"))).collect();
        controllers.insert(index % (step.others + 1), did(&next));
        let controllers: Vec<&str> = controllers.iter().map(String::as_str).collect();
        let id = format!("urn:uuid:{index}:{}", step.others);
        let parent = capability
            .as_ref()
            .map_or(Capability::Root(keystore()), Capability::Delegated);
        let made = Delegation {
            key: &key(&holder),
            parent,
            id: &id,
            controllers: &controllers,
            target: &url,
            actions: actions.map(|count| &ACTIONS[..count]),
            created: now() - 100 + index as u64,
            expires,
            suite: step.suite,
        }
        .sign()
        .unwrap();
        (capability, holder) = (Some(made), next);
    }
    (capability.unwrap(), url, holder)
}

fn invocation(capability: &Value, url: &str, holder: &str, body: Option<&[u8]>) -> RawRequest {
    Invocation {
        key: &key(holder),
        method: if body.is_some() { "POST" } else { "GET" },
        authority: host(),
        target: url.strip_prefix("https://kms.example").unwrap(),
        capability: Capability::Delegated(capability),
        action: "sign",
        created: now(),
        expires: now() + 600,
        body,
    }
    .sign()
    .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_issued_is_accepted(steps in proptest::collection::vec(step(), 1..10), with_body: bool) {
        let (capability, url, holder) = delegate(&steps);
        let url = format!("{url}/end?x=1");
        let request = invocation(&capability, &url, &holder, with_body.then_some(body()));
        let authorized = World::new().judge(&request).map_err(|refusal| TestCaseError::fail(refusal.detail()))?;
        prop_assert_eq!(authorized.chain_length, steps.len() + 1);
        prop_assert_eq!(authorized.invoker, did(&holder));
        // Anybody else is refused, and so is the same chain hanging from another controller.
        let stranger = invocation(&capability, &url, "mallory", with_body.then_some(body()));
        prop_assert!(World::new().judge(&stranger).is_err());
        let usurped = World::new().with(|world| world.controllers = vec![did("mallory")]);
        prop_assert!(usurped.judge(&request).is_err());
        // Any link revoked, the whole is refused.
        for link in &authorized.chain {
            let world = World::new().with(|world| world.revoked = vec![(link.id.clone(), "did:key:other".into())]);
            prop_assert!(world.judge(&request).is_ok());
            let pair = (link.id.clone(), link.delegator.clone());
            prop_assert!(World::new().with(|world| world.revoked = vec![pair]).judge(&request).is_err());
        }
    }
}

proptest! {
    #[test]
    fn requests_survive_their_encoding(
        method in "[A-Z]{0,8}", path in "/[ -~]{0,40}", body: Vec<u8>,
        headers in proptest::collection::vec(("[a-z-]{0,8}", proptest::collection::vec(any::<u8>(), 0..20)), 0..6),
    ) {
        let request = RawRequest { method, target: path, headers, body };
        let encoded = request.encode();
        prop_assert_eq!(&RawRequest::decode(&encoded).unwrap(), &request);
        prop_assert_eq!(&postcard::from_bytes::<RawRequest>(&postcard::to_stdvec(&request).unwrap()).unwrap(), &request);
        prop_assert!(RawRequest::decode(&encoded[..encoded.len() - 1]).is_err());
        prop_assert!(RawRequest::decode(&[&encoded[..], &[0]].concat()).is_err());
        // What moves from one field to its neighbour is another request.
        let mut moved = request.clone();
        if let Some(last) = moved.target.pop() {
            moved.method.push(last);
            prop_assert_ne!(moved.hash(), request.hash());
        }
    }

    #[test]
    fn nothing_read_from_outside_panics(bytes: Vec<u8>, text in "\\PC{0,60}", at in 0usize..400, byte: u8) {
        let _ = RawRequest::decode(&bytes);
        let mut encoded = Forge::root().signed().encode();
        let at = at % encoded.len();
        encoded[at] = byte;
        if let Ok(request) = RawRequest::decode(&encoded) {
            let _ = World::new().judge(&request);
        }
        let _ = json::parse(&bytes);
        let _ = target::is_strict(&text);
        let _ = conclave::authorization::DidKey::from_method(&text);
        let _ = conclave::authorization::time::Timestamp::parse(&text);
        for value in [text.clone(), format!("Signature {text}"), format!("Signature keyId=\"{text}\",headers=\"host\"")] {
            let _ = authenticate(&Forge::root().sent(&value), &World::new().policy, &ChainCache::new(0), now() * 1_000);
        }
        for value in [text.clone(), format!("zcap {text}"), format!("zcap capability=\"{text}\",action=\"sign\"")] {
            let _ = authenticate(&Forge::new(&value).signed(), &World::new().policy, &ChainCache::new(0), now() * 1_000);
        }
        let _ = World::new().judge(&invoke_text(&bytes, "carol"));
        let _ = World::new().judge(&invoke_packed(&text, "carol"));
    }
}

/// Every byte of a signed request counts: method, target, every header name and value, body.
#[test]
fn no_byte_of_a_request_can_change() {
    let world = World::new();
    for request in [Forge::root().signed(), invoke(&links().parent, "bob")] {
        assert!(world.judge(&request).is_ok());
        for mask in [0x01, 0x20, 0x80] {
            for at in 0..request.method.len() + request.target.len() {
                let mut changed = request.clone();
                let (field, at) = match at.checked_sub(request.method.len()) {
                    None => (&mut changed.method, at),
                    Some(at) => (&mut changed.target, at),
                };
                let mut bytes = field.clone().into_bytes();
                bytes[at] ^= mask;
                if let Ok(text) = String::from_utf8(bytes) {
                    *field = text;
                    assert!(world.judge(&changed).is_err(), "{changed:?}");
                }
            }
            for line in 0..request.headers.len() {
                for at in 0..request.headers[line].1.len() {
                    let mut changed = request.clone();
                    changed.headers[line].1[at] ^= mask;
                    assert!(
                        world.judge(&changed).is_err(),
                        "{} at {at} ^ {mask:#x}",
                        request.headers[line].0
                    );
                }
                let mut changed = request.clone();
                changed.headers[line].0.push('x');
                assert!(world.judge(&changed).is_err(), "{}", request.headers[line].0);
                changed.headers.remove(line);
                assert!(world.judge(&changed).is_err(), "{}", request.headers[line].0);
            }
            for at in 0..request.body.len() {
                let mut changed = request.clone();
                changed.body[at] ^= mask;
                assert!(world.judge(&changed).is_err(), "body at {at}");
            }
        }
    }
}

/// Every byte of a capability counts, the invoker signing whatever it has become.
#[test]
fn no_byte_of_a_capability_can_change() {
    let world = World::new();
    let text = links().child.to_string().into_bytes();
    for at in 0..text.len() {
        for mask in [0x01, 0x20] {
            let mut changed = text.clone();
            changed[at] ^= mask;
            assert!(
                world.judge(&invoke_text(&changed, "carol")).is_err(),
                "at {at} ^ {mask:#x}"
            );
        }
    }
}
