//! Chains of any names, times and rights that are delegated with real signatures: whatever the verdict on them is, no
//! proof is ever the reason, and nobody may do more than the first in the chain let them.

use conclave::authorization::issue::{Capability, Delegation};
use conclave::authorization::{
    ChainCache, ChainFault, ExpectedRoot, Refusal, Suite, target, verify_delegation,
};
use serde_json::Value;

use super::{Seed, Target, seed};
use crate::support::input::{Input, Output};
use crate::support::key::{PEOPLE, alice};
use crate::support::request::{KEYSTORE, NOW, policy};
use conclave::authorization::capability::Delegated;

use crate::support::quads;

pub(super) const TARGET: Target = Target {
    name: "delegation",
    longest: 1_024,
    mutations: 400,
    run,
    seeds,
};

const LONGEST_CHAIN: usize = 6;

fn run(bytes: &[u8]) -> bool {
    let mut input = Input(bytes);
    let mut capability: Option<Value> = None;
    for _ in 0..LONGEST_CHAIN {
        if input.is_empty() {
            break;
        }
        let Some(next) = delegate(&mut input, capability.as_ref()) else {
            break;
        };
        capability = Some(next);
    }
    let Some(capability) = capability else {
        return false;
    };
    let shape = Delegated::from_json(&capability, [0; 32], 10).expect("what is issued has the right shape");
    let level = shape.links().len() - 1;
    for form in shape
        .canonical_forms(level)
        .expect("every chain has a canonical form")
    {
        assert!(
            quads::agrees(&form, bytes.len()),
            "rdf-canon disagrees about\n{form}"
        );
    }
    let is_good = match verdict(&capability) {
        Ok(()) => true,
        Err(Refusal::InvalidDelegation(refusal)) => {
            assert_ne!(
                *refusal,
                Refusal::Verification(ChainFault::Proof),
                "issued and not proven"
            );
            false
        }
        Err(refusal) => panic!("a delegation is refused as one: {refusal:?}"),
    };
    let mut changed = capability;
    let id = format!("{}x", changed["id"].as_str().unwrap_or_default());
    changed["id"] = id.into();
    assert!(verdict(&changed).is_err(), "another id under the same proof");
    is_good
}

/// The next capability of the chain that the bytes describe.
fn delegate(input: &mut Input<'_>, parent: Option<&Value>) -> Option<Value> {
    let flags = input.byte();
    let (delegator, holder) = (input.byte(), input.byte());
    let person = |number: u8| &PEOPLE[usize::from(number) % PEOPLE.len()];
    let others = usize::from(flags >> 4 & 3);
    let controllers: Vec<&str> = PEOPLE
        .iter()
        .cycle()
        .skip(usize::from(holder))
        .take(1 + others)
        .map(|person| person.names.did.as_str())
        .collect();
    let (id, path) = (input.text(), input.text());
    let target = format!("{KEYSTORE}{path}");
    let words: Vec<String> = (0..flags & 3).map(|_| input.text()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (created, expires) = (u64::from(input.short()), u64::from(input.short()));
    let delegation = Delegation {
        key: &person(delegator).key,
        parent: parent.map_or(Capability::Root(KEYSTORE), Capability::Delegated),
        id: &id,
        controllers: &controllers,
        target: &target,
        actions: (flags & 3 > 0).then_some(&words[..]),
        created: NOW - 40_000 + created,
        expires: NOW + 3_600 * expires,
        suite: match flags & 4 {
            0 => Suite::Ed25519Signature2020,
            _ => Suite::EddsaRdfc2022,
        },
    };
    delegation.sign().ok()
}

fn verdict(capability: &Value) -> Result<(), Refusal> {
    let roots = [ExpectedRoot::new(KEYSTORE, vec![alice().names.did.clone()])];
    let cache = ChainCache::new(0);
    let verified = verify_delegation(capability, &roots, &|_, _| false, &policy(), &cache, NOW * 1_000)?;
    assert_eq!(verified.chain[0].delegator, alice().names.did);
    for link in &verified.chain {
        assert!(target::is_strict(&link.target) && target::allows(KEYSTORE, &link.target, true));
        assert!(link.expires >= NOW - 300);
    }
    for pair in verified.chain.windows(2) {
        assert!(pair[1].expires <= pair[0].expires, "no child outlives its parent");
        assert!(target::allows(&pair[0].target, &pair[1].target, true));
        let delegator = &pair[1].delegator;
        assert!(
            pair[0]
                .controllers
                .iter()
                .any(|controller| controller.starts_with(delegator.as_str())),
            "only a controller delegates"
        );
    }
    Ok(())
}

fn seeds() -> Vec<Seed> {
    let link =
        |output: Output, flags: u8, (from, to): (u8, u8), id: &str, path: &str, words: &[&str], times| {
            let (created, expires): (u16, u16) = times;
            let output = output.byte(flags | words.len() as u8).byte(from).byte(to);
            let output = output.chunk(id.as_bytes()).chunk(path.as_bytes());
            let output = words
                .iter()
                .fold(output, |output, word| output.chunk(word.as_bytes()));
            output.short(created).short(expires)
        };
    let one = link(Output::default(), 0, (0, 1), "urn:uuid:1", "", &[], (100, 24));
    let two = link(
        Output::default(),
        4,
        (0, 1),
        "urn:uuid:2",
        "/keys",
        &["sign", "read"],
        (100, 24),
    );
    let two = link(two, 0, (1, 2), "urn:uuid:1", "/keys/z1B", &["sign"], (101, 23));
    let three = link(Output::default(), 0, (0, 1), "urn:a", "", &[], (100, 24));
    let three = link(three, 0x14, (1, 2), "urn:c", "?x=1", &["sign", "sign"], (100, 24));
    let three = link(three, 0, (2, 3), "urn:b", "?x=1&y=2", &["sign"], (100, 9));
    let wide = link(
        Output::default(),
        0,
        (0, 1),
        "urn:a",
        "/keys",
        &["read"],
        (100, 24),
    );
    let wide = link(wide, 0, (1, 2), "urn:b", "/keys/../x", &["sign"], (100, 25));
    vec![
        seed("one", one.0),
        seed("two", two.0),
        seed("three", three.0),
        seed("widened", wide.0),
    ]
}
