//! Orders that say where groups are: each group takes of them what is its own, and what is no placement is taken by none.

use std::sync::Arc;

use ed25519_dalek::Signer as _;

use super::apply::apply;
use super::apply_tests::{NOW, State, endorsed, key, members, operator, statement};
use super::command::Command;
use super::members::{Move, begin, configured, is_ordered, wanted};
use super::outcome::{Outcome, Rejection};
use super::state::WriteState as _;
use crate::config::Hex32;
use crate::keystore::{Entry, Lists, Rosters, Stage, layout};
use crate::membership::placement::{Placed, Placement, place};
use crate::membership::{Member, Membership, NewMembers};
use crate::operator::{Change, OperatorSignature, Order, SignedOrder};

const GROUPS: u32 = 4;

fn placement(of: [&[u64]; 3]) -> Placement {
    let placed = (1..).zip(of).map(|(group, nodes)| Placed {
        group,
        nodes: nodes.to_vec(),
    });
    Placement::new(placed.collect())
}

const FIRST: [&[u64]; 3] = [&[1, 2, 3], &[1, 4, 5], &[2, 3, 4]];

fn genesis() -> Membership {
    let member = |node: u64| Member {
        node,
        index: node as u16,
        address: String::new(),
        verifying_key: key(node).verifying_key(),
        envelope_key: [node as u8; 32],
    };
    Membership {
        members: (1..=5).map(member).collect(),
        groups: GROUPS,
        placement: Some(Arc::new(placement(FIRST))),
        ..members()
    }
}

fn rosters(group: u32) -> Rosters {
    Arc::new(Lists::new(Arc::new(genesis()))).of_group(group)
}

fn order(placement: Option<Placement>) -> SignedOrder {
    let genesis = genesis();
    let order = Order {
        cluster: Hex32(genesis.cluster),
        sequence: 1,
        change: Change::Members(NewMembers {
            number: 2,
            replaces: Hex32(genesis.digest()),
            members: genesis.members.iter().map(Member::pinned).collect(),
            placement,
        }),
    };
    let signature = operator().sign(&order.signed_bytes()).to_bytes();
    let mut signed = SignedOrder::new(order);
    signed.add(OperatorSignature::new(
        operator().verifying_key().to_bytes(),
        &signature,
    ));
    signed
}

/// The order as these nodes endorse it in a group, there and back through a log's bytes.
fn entry(order: SignedOrder, group: u32, by: &[u64]) -> Entry {
    let mut statement = statement(1, Command::Order(Box::new(order)), 0);
    statement.group = group;
    let by: Vec<(u64, u64)> = by.iter().map(|node| (*node, NOW)).collect();
    Entry::decode(&endorsed(statement, &by).encode()).unwrap()
}

fn taken(state: &mut State, order: SignedOrder, group: u32, by: &[u64]) -> Outcome {
    apply(&entry(order, group, by), group, &rosters(group), state).unwrap()
}

#[test]
fn a_group_whose_nodes_stay_takes_the_order_and_another_one_moves() {
    let order = || order(Some(placement([&[1, 2, 3], &[1, 3, 5], &[2, 3, 4]])));
    let mut still = State::new();
    assert!(matches!(
        taken(&mut still, order(), 1, &[1, 3]),
        Outcome::Applied(_)
    ));
    let roster = rosters(1).of(&still).unwrap();
    assert_eq!((roster.current.index, roster.current.nodes()), (2, vec![1, 2, 3]));
    assert!(roster.next.is_none() && roster.current.placement.is_none());
    assert_eq!(wanted(&rosters(1), &still).unwrap(), None);

    let mut moving = State::new();
    assert!(matches!(
        taken(&mut moving, order(), 2, &[4, 5]),
        Outcome::Applied(_)
    ));
    let from_to = |begun| Move {
        from: vec![1, 4, 5],
        to: vec![1, 3, 5],
        begun,
        complete: false,
    };
    assert_eq!(wanted(&rosters(2), &moving).unwrap(), Some(from_to(false)));
    begin(2, &mut moving).unwrap().unwrap();
    assert_eq!(wanted(&rosters(2), &moving).unwrap(), Some(from_to(true)));
    configured(&rosters(2), (&[1, 3, 5], true), &mut moving).unwrap();
    let roster = rosters(2).of(&moving).unwrap();
    assert_eq!(roster.next.as_ref().unwrap().1, Stage::Joint);
    assert_eq!(roster.deciders(), [1, 3, 4, 5], "node 2 has nothing to say in it");
    assert!(is_ordered(&rosters(1), &still).unwrap() && is_ordered(&rosters(2), &moving).unwrap());

    // Group 0 has everybody, and knows where the others are.
    let mut zero = State::new();
    assert!(matches!(
        taken(&mut zero, order(), 0, &[1, 2, 4]),
        Outcome::Applied(_)
    ));
    let roster = rosters(0).of(&zero).unwrap();
    assert_eq!((roster.current.index, roster.current.members.len()), (2, 5));
    assert_eq!(roster.current.nodes_of(2), [1, 3, 5]);
}

#[test]
fn only_a_groups_own_members_decide_in_it() {
    let order = || order(Some(placement([&[1, 2, 4], &[1, 4, 5], &[2, 3, 4]])));
    for strangers in [[4, 5], [1, 4]] {
        let outcome = taken(&mut State::new(), order(), 1, &strangers);
        assert!(matches!(outcome, Outcome::Refused(Rejection::NotEndorsed(_))));
    }
    assert!(matches!(
        taken(&mut State::new(), order(), 1, &[1, 2]),
        Outcome::Applied(_)
    ));
}

#[test]
fn what_is_no_placement_is_taken_by_no_group() {
    let reason = |placement: Placement, group, by: &[u64]| match taken(
        &mut State::new(),
        order(Some(placement)),
        group,
        by,
    ) {
        Outcome::Refused(Rejection::Members(reason)) => reason,
        other => panic!("{other:?}"),
    };
    let few = placement([&[1, 2], &[1, 4, 5], &[2, 3, 4]]);
    let stranger = placement([&[1, 2, 3], &[1, 4, 6], &[2, 3, 4]]);
    let missing = Placement::new(vec![Placed {
        group: 1,
        nodes: vec![1, 2, 3],
    }]);
    let too_many = place(GROUPS + 1, &[1, 2, 3, 4, 5], 3, |_| Vec::new()).unwrap();
    for (bad, why) in [
        (few, "3 to 5 nodes"),
        (stranger, "no member"),
        (missing, "not placed"),
        (too_many, "does not have"),
    ] {
        for (group, by) in [(0, &[1, 2, 3][..]), (1, &[1, 2]), (2, &[4, 5])] {
            let reason = reason(bad.clone(), group, by);
            assert!(reason.contains(why), "{reason}");
        }
    }
}

#[test]
fn everybody_has_everything_again_where_the_order_says_no_place() {
    let mut state = State::new();
    assert!(matches!(
        taken(&mut state, order(None), 1, &[1, 2]),
        Outcome::Applied(_)
    ));
    let roster = rosters(1).of(&state).unwrap();
    assert_eq!(roster.next.as_ref().unwrap().0.nodes(), [1, 2, 3, 4, 5]);
}

#[test]
fn a_state_whose_order_says_another_place_than_the_operators_is_not_believed() {
    let good = order(Some(placement([&[1, 2, 4], &[1, 4, 5], &[2, 3, 4]])));
    let mut state = State::new();
    taken(&mut state, good.clone(), 1, &[1, 2]);
    assert!(is_ordered(&rosters(1), &state).unwrap());
    let mut forged = good;
    let Change::Members(new) = &mut forged.order.change else {
        unreachable!()
    };
    new.placement = Some(placement([&[1, 2, 5], &[1, 4, 5], &[2, 3, 4]]));
    state.put_record(&layout::members(2), &forged).unwrap();
    assert!(!is_ordered(&rosters(1), &state).unwrap());
}
