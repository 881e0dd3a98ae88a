//! Orders of operators at apply: what the operators have not signed, or not next, changes nothing.

use ed25519_dalek::{Signer, SigningKey};

use super::apply::apply;
use super::apply_tests::{NOW, State, endorsed, members, operator, rosters, statement};
use super::command::Command;
use super::entry::Entry;
use super::outcome::{Outcome, Rejection, Reply};
use super::query;
use super::record::Orders;
use crate::config::Hex32;
use crate::operator::{Change, OperatorSignature, Order, SignedOrder};

fn entry(tag: u64, sequence: u64, key: &SigningKey, group: u32) -> Entry {
    let order = Order {
        cluster: Hex32([9; 32]),
        sequence,
        change: Change::RenewShares,
    };
    let signature = key.sign(&order.signed_bytes()).to_bytes();
    let mut signed = SignedOrder::new(order);
    signed.add(OperatorSignature::new(key.verifying_key().to_bytes(), &signature));
    let mut statement = statement(tag, Command::Order(Box::new(signed)), 0);
    statement.group = group;
    let time = NOW + tag;
    endorsed(statement, &[(1, time), (2, time)])
}

fn run(state: &mut State, entry: &Entry) -> Outcome {
    apply(entry, entry.statement.group, &rosters(members()), state).unwrap()
}

#[test]
fn orders_are_carried_out_once_and_in_their_order() {
    let mut state = State::new();
    assert_eq!(query::orders(&state).unwrap(), Orders::default());
    let outcome = run(&mut state, &entry(1, 1, &operator(), 0));
    assert_eq!(outcome, Outcome::Applied(Reply::Ordered(1)));
    let first = Orders {
        sequence: 1,
        renew_before: NOW + 1,
    };
    assert_eq!(query::orders(&state).unwrap(), first);
    for (tag, sequence) in [(2, 1), (3, 3), (4, 0), (5, u64::MAX)] {
        let outcome = run(&mut state, &entry(tag, sequence, &operator(), 0));
        assert_eq!(outcome, Outcome::Refused(Rejection::Sequence), "{sequence}");
    }
    assert_eq!(query::orders(&state).unwrap(), first);
    run(&mut state, &entry(6, 2, &operator(), 0));
    let orders = query::orders(&state).unwrap();
    assert_eq!((orders.sequence, orders.renew_before), (2, NOW + 6));
}

/// A quorum of members cannot order anything, nor can an order reach another group.
#[test]
fn members_cannot_order_for_the_operators() {
    let mut state = State::new();
    let stranger = SigningKey::from_bytes(&[78; 32]);
    for wrong in [entry(1, 1, &stranger, 0), entry(1, 1, &operator(), 3)] {
        let outcome = run(&mut state, &wrong);
        assert!(
            matches!(outcome, Outcome::Refused(Rejection::NotEndorsed(_))),
            "{outcome:?}"
        );
    }
    assert!(state.is_empty());
}
