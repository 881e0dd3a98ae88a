//! A cluster's operator, its members and its genesis statement, the same in every run.

use conclave::config::Hex32;
use conclave::membership::Pinned;
use conclave::provision::genesis::Body;
use conclave::provision::{Genesis, OperatorKey};
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;

use super::key::PEOPLE;

pub(crate) fn operator() -> OperatorKey {
    OperatorKey::generate(&mut ChaCha20Rng::from_seed([4; 32]))
}

pub(crate) fn pinned(node: u8) -> Pinned {
    let person = &PEOPLE[usize::from(node) % PEOPLE.len()];
    Pinned {
        node: node.into(),
        peer: format!("10.0.0.{node}:9443"),
        identity: Hex32(person.key.verifying_key().to_bytes()),
        envelope: Hex32([node; 32]),
    }
}

/// Of these members; clusters with different nonces are different clusters.
pub(crate) fn genesis(members: &[u8], nonce: u8) -> Genesis {
    let body = Body {
        format: 1,
        nonce: Hex32([nonce; 32]),
        groups: 16,
        members: members.iter().map(|node| pinned(*node)).collect(),
        operators: vec![Hex32(operator().public())],
        threshold: 1,
        placement: None,
    };
    Genesis::sign(body, &operator()).expect("a sound statement")
}
