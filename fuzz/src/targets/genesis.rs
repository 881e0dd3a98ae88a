//! The genesis statement, as it came and signed anew by its operator.

use conclave::provision::Genesis;
use conclave::provision::genesis::Body;
use serde_json::Value;

use super::{Seed, Target, seed};
use crate::support::cluster::{genesis, operator};

pub(super) const TARGET: Target = Target {
    name: "genesis",
    longest: 4_096,
    mutations: 1_500,
    run,
    seeds,
};

fn run(bytes: &[u8]) -> bool {
    let as_it_came = Genesis::parse(bytes).is_ok_and(|genesis| check(&genesis));
    let value = serde_json::from_slice::<Value>(bytes).unwrap_or_default();
    let statement = value.get("statement").cloned();
    let body = statement.and_then(|statement| serde_json::from_value::<Body>(statement).ok());
    let signed = body.and_then(|body| Genesis::sign(body, &operator()).ok());
    signed.is_some_and(|genesis| check(&genesis)) || as_it_came
}

fn check(genesis: &Genesis) -> bool {
    let again = Genesis::parse(&genesis.to_json()).expect("what is written is read");
    assert_eq!(again.cluster_id(), genesis.cluster_id());
    assert_eq!(again.body(), genesis.body());
    let body = genesis.body();
    assert!(body.members.windows(2).all(|pair| pair[0].node < pair[1].node));
    let threshold = usize::try_from(body.threshold).unwrap_or(usize::MAX);
    assert!((1..=body.operators.len()).contains(&threshold));
    for (_, nodes) in body.placement.iter().flat_map(|placement| placement.each()) {
        assert!(nodes.len() >= 3 && nodes.iter().all(|node| genesis.member(*node).is_some()));
    }
    true
}

fn seeds() -> Vec<Seed> {
    let genesis = genesis(&[1, 2, 3], 9);
    vec![seed("three-members", genesis.to_json()), seed("no-object", "0")]
}
