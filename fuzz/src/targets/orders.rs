//! The operators' orders that changed the members, after a genesis statement: in a file, in a backup, from another node.

use std::sync::Arc;

use conclave::config::Hex32;
use conclave::membership::{Membership, Pinned};
use conclave::operator::{Change, Order, SignedOrder};
use conclave::provision::genesis::Body;
use conclave::provision::introduction::{Orders, first_members};
use conclave::provision::{Genesis, OperatorKey};
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;

use super::{Seed, Target, seed};
use crate::support::key::PEOPLE;

pub(super) const TARGET: Target = Target {
    name: "orders",
    longest: 8_192,
    mutations: 1_000,
    run,
    seeds,
};

fn operator() -> OperatorKey {
    OperatorKey::generate(&mut ChaCha20Rng::from_seed([4; 32]))
}

fn pinned(node: u8) -> Pinned {
    Pinned {
        node: node.into(),
        peer: format!("10.0.0.{node}:9443"),
        identity: Hex32(PEOPLE[usize::from(node) - 1].key.verifying_key().to_bytes()),
        envelope: Hex32([node; 32]),
    }
}

fn genesis() -> Genesis {
    let body = Body {
        format: 1,
        nonce: Hex32([9; 32]),
        groups: 16,
        members: (1..=3).map(pinned).collect(),
        operators: vec![Hex32(operator().public())],
        threshold: 1,
        placement: None,
    };
    Genesis::sign(body, &operator()).expect("a sound statement")
}

fn first() -> Membership {
    first_members(&genesis()).expect("sound keys")
}

fn signed(mut order: SignedOrder) -> SignedOrder {
    let signature = operator().sign(&order.order.signed_bytes());
    order.add(signature);
    order
}

fn run(bytes: &[u8]) -> bool {
    let Ok(orders) = serde_json::from_slice::<Orders>(bytes) else {
        return false;
    };
    let as_they_came = check(&orders);
    // As if the operator had signed whatever this is.
    let anew = Orders {
        orders: orders.orders.into_iter().map(signed).collect(),
    };
    check(&anew) || as_they_came
}

fn check(orders: &Orders) -> bool {
    let Ok(lists) = orders.lists(first()) else {
        return false;
    };
    let again: Orders = serde_json::from_slice(&orders.to_json()).expect("what is written is read");
    assert_eq!(&again, orders);
    let mut known: Vec<Arc<Membership>> = Vec::new();
    for list in lists {
        let nodes = list.nodes();
        assert!((1..=16).contains(&nodes.len()) && nodes.is_sorted());
        assert_eq!((list.cluster, list.operators.len()), (first().cluster, 1));
        for member in &list.members {
            // A number is never given to other keys.
            let before = known.iter().filter_map(|earlier| earlier.member(member.node));
            for earlier in before {
                assert_eq!(earlier.verifying_key, member.verifying_key);
            }
        }
        known.push(list.into());
    }
    true
}

fn seeds() -> Vec<Seed> {
    let next = |orders: &Orders, come: &[Pinned], gone: &[u64]| {
        let new = orders
            .next(&genesis(), (come, gone), None)
            .expect("an order that can be");
        signed(SignedOrder::new(Order {
            cluster: Hex32(genesis().cluster_id()),
            sequence: orders.orders.len() as u64 + 1,
            change: Change::Members(new),
        }))
    };
    let mut orders = Orders::default();
    orders.orders.push(next(&orders, &[pinned(4)], &[3]));
    let replaced = orders.to_json();
    orders.orders.push(next(&orders, &[pinned(5)], &[]));
    vec![
        seed("none", Orders::default().to_json()),
        seed("replaced", replaced),
        seed("and-grown", orders.to_json()),
        seed("no-object", "0"),
    ]
}
