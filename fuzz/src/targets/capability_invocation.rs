//! The `Capability-Invocation` header of a signed request.

use conclave::authorization::{Invoked, root_id};

use super::{Seed, Target, seed};
use crate::support::request::{AUTHORITY, KEY_PATH, KEYSTORE, judge, signed};
use crate::support::vectors;

pub(super) const TARGET: Target = Target {
    name: "capability_invocation",
    longest: 8_192,
    mutations: 1_500,
    run,
    seeds,
};

fn run(value: &[u8]) -> bool {
    let headers: [(&str, &[u8]); 2] = [("host", AUTHORITY.as_bytes()), ("capability-invocation", value)];
    let Ok(taken) = judge(&signed(KEY_PATH, &headers, b"")) else {
        return false;
    };
    let text = std::str::from_utf8(value).unwrap_or_default();
    assert!(!taken.action.is_empty() && text.contains(&format!("action=\"{}\"", taken.action)));
    match &taken.capability {
        Invoked::Root(id) => assert!(text.contains(&format!("id=\"{id}\"")), "the id is as it was sent"),
        Invoked::Delegated(delegated) => {
            assert!(text.contains("capability=\""));
            assert!(
                (1..10).contains(&delegated.links().len()),
                "a chain has 10 capabilities at most"
            );
        }
    }
    true
}

fn seeds() -> Vec<Seed> {
    let mut seeds = vec![
        seed(
            "root",
            format!("zcap id=\"{}\",action=\"sign\"", root_id(KEYSTORE)),
        ),
        seed("both", "zcap id=\"urn:a\",capability=\"H4sI\",action=\"sign\""),
    ];
    for (name, request) in vectors::requests() {
        let mut headers = request.headers.into_iter();
        let header = headers.find(|(name, _)| name == "capability-invocation");
        if let Some((_, value)) = header.filter(|_| !name.starts_with("bad")) {
            seeds.push(seed(name, value));
        }
    }
    let vectors = vectors::read("webkms.json");
    for name in ["delegatedDepth1", "delegatedDepth2"] {
        seeds.push(seed(
            name,
            vectors[name]["headerValue"].as_str().unwrap_or_default(),
        ));
    }
    seeds
}
