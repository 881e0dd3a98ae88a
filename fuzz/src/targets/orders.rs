//! The operators' orders that changed the members, after a genesis statement: in a file, in a backup, from another node.

use std::sync::Arc;

use conclave::config::Hex32;
use conclave::membership::{Membership, Pinned};
use conclave::operator::{Change, Order, SignedOrder};
use conclave::provision::Genesis;
use conclave::provision::introduction::{Orders, first_members};

use super::{Seed, Target, seed};
use crate::support::cluster::{genesis, operator, pinned};

pub(super) const TARGET: Target = Target {
    name: "orders",
    longest: 8_192,
    mutations: 1_000,
    run,
    seeds,
};

fn three() -> Genesis {
    genesis(&[1, 2, 3], 9)
}

fn first() -> Membership {
    first_members(&three()).expect("sound keys")
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
            .next(&three(), (come, gone), None)
            .expect("an order that can be");
        signed(SignedOrder::new(Order {
            cluster: Hex32(three().cluster_id()),
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
