//! A delegated capability as text: the same by itself and packed in a header; its canonical form is rdf-canon's.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use conclave::authorization::capability::Delegated;
use conclave::authorization::{ChainCache, ExpectedRoot, invocation, json, verify_delegation};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

use super::{Seed, Target, seed};
use crate::support::key::alice;
use crate::support::request::{AUTHORITY, KEY_PATH, KEYSTORE, NOW, judge, policy, signed};
use crate::support::{quads, vectors};

pub(super) const TARGET: Target = Target {
    name: "capability",
    longest: 8_192,
    mutations: 600,
    run,
    seeds,
};

fn run(text: &[u8]) -> bool {
    let value = json::parse(text).ok();
    let shape = value
        .as_ref()
        .and_then(|value| Delegated::from_json(value, [0; 32], 10).ok());
    assert_eq!(
        shape.is_some(),
        is_taken_in_header(text),
        "by itself and in a header"
    );
    let (Some(value), Some(shape)) = (value, shape) else {
        return false;
    };
    let level = shape.links().len() - 1;
    assert!(level < 9, "a chain has 10 capabilities at most");
    let forms = shape
        .canonical_forms(level)
        .expect("every chain has a canonical form");
    for form in &forms {
        assert!(
            quads::agrees(form, text.len()),
            "rdf-canon disagrees about\n{form}"
        );
    }
    let roots = [ExpectedRoot::new(KEYSTORE, vec![alice().names.did.clone()])];
    let verified = verify_delegation(
        &value,
        &roots,
        &|_, _| false,
        &policy(),
        &ChainCache::new(0),
        NOW * 1_000,
    );
    if let Ok(verified) = verified {
        assert_eq!(verified.chain.len(), level + 1);
        assert_eq!(verified.chain[0].delegator, alice().names.did);
        assert!(
            verified
                .chain
                .iter()
                .all(|link| link.target.starts_with(KEYSTORE))
        );
    }
    true
}

fn is_taken_in_header(text: &[u8]) -> bool {
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    let packed = packer.write_all(text).and_then(|()| packer.finish());
    let packed = packed.expect("memory takes what it is given");
    let value = format!(
        "zcap capability=\"{}\",action=\"sign\"",
        URL_SAFE_NO_PAD.encode(packed)
    );
    let headers: [(&str, &[u8]); 2] = [
        ("host", AUTHORITY.as_bytes()),
        ("capability-invocation", value.as_bytes()),
    ];
    let taken = judge(&signed(KEY_PATH, &headers, b"")).is_ok();
    assert!(!taken || text.len() <= invocation::MAX_INFLATED);
    taken
}

fn seeds() -> Vec<Seed> {
    let capabilities = vectors::capabilities().into_iter();
    let short = capabilities.filter(|(name, _)| !name.ends_with("chain4") && !name.ends_with("chain9"));
    let some = short.filter(|(name, _)| name.starts_with("ok") || name.len() % 3 == 0);
    some.map(|(name, value): (String, Value)| seed(name, value.to_string()))
        .collect()
}
