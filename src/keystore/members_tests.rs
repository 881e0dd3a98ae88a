//! Each rule of a change of members, with a test that fails without it.

use std::sync::Arc;

use ed25519_dalek::{Signer, SigningKey};

use super::apply::apply;
use super::apply_tests::{GROUP, NOW, State, config, endorsed, key, members, operator, statement};
use super::command::{Command, GeneratedKey, RenewedKey, RenewedShares};
use super::entry::Entry;
use super::members::{configured, goes_on, is_ordered, wanted};
use super::outcome::{Outcome, Rejection, Reply};
use super::record::{KeyType, Material};
use super::state::{ReadState as _, WriteState as _};
use super::{layout, query};
use crate::config::Hex32;
use crate::identifier::LocalId;
use crate::keystore::roster::MembersRecord;
use crate::keystore::{Rosters, Stage};
use crate::membership::{Member, NewMembers, Pinned};
use crate::operator::{Change, OperatorSignature, Order, SignedOrder};

fn rosters() -> Rosters {
    Rosters::new(Arc::new(members()))
}

fn pinned(node: u64) -> Pinned {
    let envelope_key = [node as u8; 32];
    let member = Member {
        node,
        index: node as u16,
        address: String::new(),
        verifying_key: key(node).verifying_key(),
        envelope_key,
    };
    member.pinned()
}

/// An order for these members in the place of those that the state has.
fn order(state: &State, sequence: u64, nodes: &[u64], by: &SigningKey) -> SignedOrder {
    let current = rosters().of(state).unwrap().current.clone();
    let order = Order {
        cluster: Hex32([9; 32]),
        sequence,
        change: Change::Members(NewMembers {
            number: current.index + 1,
            replaces: Hex32(current.digest()),
            members: nodes.iter().map(|node| pinned(*node)).collect(),
            placement: None,
        }),
    };
    sign(order, by)
}

fn sign(order: Order, by: &SigningKey) -> SignedOrder {
    let signature = by.sign(&order.signed_bytes()).to_bytes();
    let mut signed = SignedOrder::new(order);
    signed.add(OperatorSignature::new(by.verifying_key().to_bytes(), &signature));
    signed
}

fn entry(tag: u64, order: SignedOrder, by: &[u64]) -> Entry {
    let statement = statement(tag, Command::Order(Box::new(order)), 0);
    endorsed(statement, &at(tag, by))
}

fn at(tag: u64, by: &[u64]) -> Vec<(u64, u64)> {
    by.iter().map(|node| (*node, NOW + tag)).collect()
}

fn run(state: &mut State, entry: &Entry) -> Outcome {
    apply(entry, GROUP, &rosters(), state).unwrap()
}

fn complete(tag: u64, number: u64, by: &[u64]) -> Entry {
    endorsed(statement(tag, Command::CompleteMove(number), 0), &at(tag, by))
}

fn begin(tag: u64, number: u64, by: &[u64]) -> Entry {
    endorsed(statement(tag, Command::BeginMove(number), 0), &at(tag, by))
}

/// The last order begins, and voting is joint.
fn enter_joint(state: &mut State, by: &[u64]) {
    let next = rosters().of(state).unwrap().next.clone().unwrap().0;
    let begun = run(state, &begin(500 + next.index, next.index, by));
    assert_eq!(begun, Outcome::Applied(Reply::Begun(next.index)));
    configured(&rosters(), (&next.nodes(), true), state).unwrap();
}

fn stage(state: &State) -> Option<Stage> {
    let roster = rosters().of(state).unwrap();
    roster.next.as_ref().map(|(_, stage)| *stage)
}

fn create(tag: u64, by: &[u64]) -> Entry {
    let command = Command::CreateKeystore {
        id: LocalId([tag as u8; 16]),
        config: config(&["did:a"], 0),
    };
    endorsed(statement(tag, command, 0), &at(tag, by))
}

fn not_endorsed(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Refused(Rejection::NotEndorsed(_)))
}

/// Members 1, 2, 3 to 3, 4, 5, in joint consensus.
fn joint() -> State {
    let mut state = State::new();
    let order = order(&state, 1, &[3, 4, 5], &operator());
    assert_eq!(
        run(&mut state, &entry(1, order, &[1, 2])),
        Outcome::Applied(Reply::Ordered(1))
    );
    enter_joint(&mut state, &[1, 2]);
    state
}

#[test]
fn a_group_goes_from_its_members_to_others_in_stages() {
    let mut state = State::new();
    assert_eq!(wanted(&rosters(), &state).unwrap(), None);
    let order = order(&state, 1, &[3, 4, 5], &operator());
    run(&mut state, &entry(1, order, &[1, 2]));
    let old_ones_decide = |state: &State| {
        let roster = rosters().of(state).unwrap();
        assert_eq!(roster.deciders(), [1, 2, 3], "the old ones alone");
        assert_eq!(roster.births().nodes(), [1, 2, 3]);
        let next = wanted(&rosters(), state).unwrap().unwrap();
        assert_eq!((next.from, next.to), (vec![1, 2, 3], vec![3, 4, 5]));
        (next.begun, next.complete)
    };
    assert_eq!(stage(&state), Some(Stage::Announced));
    assert_eq!(old_ones_decide(&state), (false, false));
    assert_eq!(rosters().of(&state).unwrap().begun().index, 1);

    // A configuration that nobody asked for, or too early, changes nothing.
    configured(&rosters(), (&[3, 4, 5], false), &mut state).unwrap();
    configured(&rosters(), (&[1, 2, 3], true), &mut state).unwrap();
    configured(&rosters(), (&[3, 4, 5], true), &mut state).unwrap();
    assert!(matches!(
        run(&mut state, &complete(2, 2, &[1, 2])),
        Outcome::Refused(Rejection::Members(_))
    ));
    assert_eq!(stage(&state), Some(Stage::Announced));

    assert_eq!(
        run(&mut state, &begin(4, 2, &[1, 2])),
        Outcome::Applied(Reply::Begun(2))
    );
    assert_eq!(stage(&state), Some(Stage::Begun));
    assert_eq!(old_ones_decide(&state), (true, false));
    assert_eq!(rosters().of(&state).unwrap().begun().index, 2);
    configured(&rosters(), (&[3, 4, 5], false), &mut state).unwrap();
    assert!(matches!(
        run(&mut state, &complete(5, 2, &[1, 2])),
        Outcome::Refused(Rejection::Members(_))
    ));
    assert_eq!(stage(&state), Some(Stage::Begun));

    configured(&rosters(), (&[3, 4, 5], true), &mut state).unwrap();
    let roster = rosters().of(&state).unwrap();
    assert_eq!(roster.deciders(), [1, 2, 3, 4, 5]);
    assert_eq!(roster.births().nodes(), [3, 4, 5]);

    assert_eq!(
        run(&mut state, &complete(3, 2, &[1, 3, 4])),
        Outcome::Applied(Reply::Moved(2))
    );
    assert!(wanted(&rosters(), &state).unwrap().unwrap().complete);
    configured(&rosters(), (&[3, 4, 5], false), &mut state).unwrap();
    let roster = rosters().of(&state).unwrap();
    assert!(roster.next.is_none());
    assert_eq!((roster.current.index, roster.deciders()), (2, vec![3, 4, 5]));
    assert_eq!(rosters().numbered(&state, 1).unwrap().nodes(), [1, 2, 3]);
    assert_eq!(rosters().numbered(&state, 2).unwrap().nodes(), [3, 4, 5]);
    assert!(rosters().numbered(&state, 3).is_err());
    assert!(is_ordered(&rosters(), &state).unwrap());
}

#[test]
fn a_move_begins_by_the_word_of_a_quorum_of_the_old_members() {
    for few in [&[1][..], &[], &[1, 1], &[1, 3, 4], &[4, 5], &[3, 4, 5]] {
        let mut state = State::new();
        let order = order(&state, 1, &[3, 4, 5], &operator());
        run(&mut state, &entry(1, order, &[1, 2]));
        assert!(not_endorsed(&run(&mut state, &begin(2, 2, few))), "{few:?}");
        assert_eq!(stage(&state), Some(Stage::Announced));
    }
    let refused = |state: &mut State, entry: &Entry| {
        let before = stage(state);
        let refused = matches!(run(state, entry), Outcome::Refused(Rejection::Members(_)));
        refused && stage(state) == before
    };
    assert!(refused(&mut State::new(), &begin(2, 2, &[1, 2])), "no order");
    let mut state = State::new();
    let order = order(&state, 1, &[3, 4, 5], &operator());
    run(&mut state, &entry(1, order, &[1, 2]));
    for (tag, other) in [(3, 0), (4, 1), (5, 3), (6, u64::MAX)] {
        assert!(refused(&mut state, &begin(tag, other, &[2, 3])), "{other}");
    }
    // By operations of their own: another one of the same may come too late.
    assert!(matches!(
        run(&mut state, &begin(20, 2, &[2, 3])),
        Outcome::Applied(_)
    ));
    assert!(refused(&mut state, &begin(21, 2, &[1, 2])), "begun already");
    let mut state = joint();
    assert!(refused(&mut state, &begin(22, 2, &[1, 3, 4])), "joint already");
}

#[test]
fn while_members_change_both_lists_decide() {
    let mut state = joint();
    for few in [&[1, 2][..], &[4, 5], &[1, 4, 5], &[1, 2, 4], &[3, 4]] {
        assert!(not_endorsed(&run(&mut state, &create(10, few))), "{few:?}");
    }
    assert!(matches!(
        run(&mut state, &create(11, &[1, 3, 4])),
        Outcome::Applied(_)
    ));
    assert!(matches!(
        run(&mut state, &create(12, &[1, 2, 4, 5])),
        Outcome::Applied(_)
    ));
    assert!(
        not_endorsed(&run(&mut state, &complete(13, 2, &[4, 5]))),
        "the new ones alone"
    );
    assert!(
        not_endorsed(&run(&mut state, &complete(14, 2, &[1, 2]))),
        "the old ones alone"
    );
}

#[test]
fn keys_are_born_with_the_new_members_and_move_to_them() {
    let mut state = State::new();
    run(&mut state, &create(1, &[1, 2]));
    let born = |tag: u64, configuration: u64, participants: &[u64]| {
        let command = Command::GenerateKey(Box::new(GeneratedKey {
            keystore: LocalId([1; 16]),
            key: LocalId([tag as u8; 16]),
            key_type: KeyType::MultikeyEd25519,
            alias: None,
            max_chain_length: None,
            epoch: 0,
            session: [tag as u8; 32],
            start: NOW,
            configuration,
            participants: participants.to_vec(),
            away: Vec::new(),
            transcript: [0; 32],
            material: pair(tag as u8),
        }));
        endorsed(statement(tag, command, 1), &at(tag, participants))
    };
    assert!(matches!(
        run(&mut state, &born(20, 1, &[1, 2])),
        Outcome::Applied(_)
    ));
    let order = order(&state, 1, &[3, 4, 5], &operator());
    run(&mut state, &entry(21, order, &[1, 2]));
    assert!(
        matches!(run(&mut state, &born(22, 1, &[1, 2])), Outcome::Applied(_)),
        "not joint yet"
    );
    enter_joint(&mut state, &[1, 2]);
    assert!(not_endorsed(&run(&mut state, &born(23, 1, &[1, 2]))));
    assert!(
        not_endorsed(&run(&mut state, &born(24, 2, &[1, 3]))),
        "one who is no member"
    );
    assert!(matches!(
        run(&mut state, &born(25, 2, &[3, 4])),
        Outcome::Applied(_)
    ));
    assert_eq!(
        run(&mut state, &born(26, 1, &[3, 4])),
        Outcome::Refused(Rejection::ConfigurationChanged)
    );

    let moved = |tag: u64, configuration: u64, by: &[u64]| {
        let command = Command::RenewShares(Box::new(RenewedShares {
            keystore: LocalId([1; 16]),
            start: NOW,
            configuration,
            participants: by.to_vec(),
            keys: vec![RenewedKey {
                key: LocalId([20; 16]),
                replaces: [20; 32],
                epoch: 1,
                session: [0x80; 32],
                transcript: [0; 32],
                material: pair(20),
            }],
        }));
        endorsed(statement(tag, command, 1), &at(tag, by))
    };
    assert!(
        not_endorsed(&run(&mut state, &moved(30, 1, &[1, 2, 3]))),
        "to the old ones"
    );
    assert!(
        not_endorsed(&run(&mut state, &moved(31, 2, &[3, 4]))),
        "without one of the new ones"
    );
    assert!(matches!(
        run(&mut state, &moved(32, 2, &[3, 4, 5])),
        Outcome::Applied(_)
    ));
    let record = query::key(&state, &LocalId([1; 16]), &LocalId([20; 16]))
        .unwrap()
        .unwrap();
    assert_eq!((record.committee, record.epoch), (2, 1));
}

fn put(state: &mut State, key: &[u8], record: &impl serde::Serialize) {
    state.put_record(key, record).unwrap();
}

fn members_record(state: &State) -> MembersRecord {
    state.record(layout::MEMBERS).unwrap().unwrap()
}

fn pair(number: u8) -> Material {
    Material::Pair {
        commitment: vec![number],
        public_key: [number; 32],
    }
}

#[test]
fn members_follow_only_from_the_operators_word() {
    let fresh = State::new;
    let refused = |state: &mut State, order: SignedOrder| -> bool {
        let outcome = run(state, &entry(1, order, &[1, 2]));
        let is_refused = matches!(outcome, Outcome::Refused(_));
        is_refused && rosters().of(state).unwrap().next.is_none()
    };
    let stranger = SigningKey::from_bytes(&[78; 32]);
    assert!(
        refused(&mut fresh(), order(&fresh(), 1, &[3, 4, 5], &stranger)),
        "a stranger's"
    );
    let change = |edit: fn(&mut NewMembers)| {
        let SignedOrder { order, .. } = order(&fresh(), 1, &[1, 2, 4], &operator());
        let Change::Members(mut new) = order.change else {
            panic!()
        };
        edit(&mut new);
        sign(
            Order {
                change: Change::Members(new),
                ..order
            },
            &operator(),
        )
    };
    assert!(!refused(&mut fresh(), change(|_| {})), "as it should be");
    for (what, edit) in [
        ("another number", (|new| new.number += 1) as fn(&mut NewMembers)),
        ("other members before", |new| new.replaces.0[0] ^= 1),
        ("two members", |new| drop(new.members.pop())),
        ("six members", |new| new.members.extend((5..8).map(pinned))),
        ("not ascending", |new| new.members.reverse()),
        ("one twice", |new| new.members[1] = new.members[0].clone()),
        ("another key of one that stays", |new| {
            new.members[0].identity = pinned(9).identity
        }),
        ("another envelope key", |new| {
            new.members[0].envelope = pinned(9).envelope
        }),
        ("a number that was there", |new| {
            new.members.remove(2);
            new.members.insert(0, Pinned { node: 0, ..pinned(9) });
        }),
        ("a key twice", |new| {
            new.members[2].identity = new.members[0].identity
        }),
        ("no key", |new| new.members[2].identity = Hex32([0; 32])),
    ] {
        assert!(refused(&mut fresh(), change(edit)), "{what}");
    }
    // Nothing else while one is carried out; and a number that a node had is nobody's again.
    let mut state = joint();
    let second = order(&state, 2, &[1, 2, 6], &operator());
    assert!(matches!(
        run(&mut state, &entry(40, second, &[1, 3, 4])),
        Outcome::Refused(Rejection::Members(_))
    ));
    run(&mut state, &complete(41, 2, &[1, 3, 4]));
    configured(&rosters(), (&[3, 4, 5], false), &mut state).unwrap();
    let again = order(&state, 2, &[2, 3, 4], &operator());
    assert!(refused(&mut state, again), "the number of one that left");
    let next = order(&state, 2, &[4, 5, 6], &operator());
    assert_eq!(
        run(&mut state, &entry(42, next, &[3, 4])),
        Outcome::Applied(Reply::Ordered(2))
    );
}

#[test]
fn an_address_may_change_alone() {
    let mut state = State::new();
    let SignedOrder { order, .. } = order(&state, 1, &[1, 2, 3], &operator());
    let Change::Members(mut new) = order.change else {
        panic!()
    };
    new.members[1].peer = "elsewhere:9443".into();
    let order = Order {
        change: Change::Members(new),
        ..order
    };
    run(&mut state, &entry(1, sign(order, &operator()), &[1, 2]));
    let roster = rosters().of(&state).unwrap();
    assert!(roster.next.is_none());
    assert_eq!(roster.current.index, 2);
    assert_eq!(roster.current.member(2).unwrap().address, "elsewhere:9443");
    assert!(matches!(
        run(&mut state, &create(2, &[1, 2])),
        Outcome::Applied(_)
    ));
}

#[test]
fn a_state_of_another_node_is_believed_for_the_operators_signatures() {
    let mut state = joint();
    run(&mut state, &complete(41, 2, &[1, 3, 4]));
    configured(&rosters(), (&[3, 4, 5], false), &mut state).unwrap();
    let next = order(&state, 2, &[4, 5, 6], &operator());
    run(&mut state, &entry(42, next, &[3, 4]));
    assert!(is_ordered(&rosters(), &state).unwrap());
    let forge = |edit: &dyn Fn(&mut State)| {
        let mut forged = state.clone();
        edit(&mut forged);
        !is_ordered(&rosters(), &forged).unwrap_or(false)
    };
    let mallory = SigningKey::from_bytes(&[78; 32]);
    let evil = || order(&joint(), 2, &[3, 7, 8], &mallory);
    assert!(
        forge(&|state| drop(state.remove(&layout::members(2)))),
        "a link is missing"
    );
    assert!(
        forge(&|state| put(state, &layout::members(2), &evil())),
        "a link is forged"
    );
    assert!(forge(&|state| {
        let mut record = members_record(state);
        record.next = Some((evil(), Stage::Joint));
        put(state, layout::MEMBERS, &record);
    }));
    assert!(forge(&|state| {
        let mut record = members_record(state);
        record.current = Some(evil());
        put(state, layout::MEMBERS, &record);
    }));
    assert!(
        is_ordered(&rosters(), &State::new()).unwrap(),
        "the genesis statement's"
    );
}

#[test]
fn a_state_of_another_node_knows_the_lists_that_this_one_knows() {
    let follows = |known: &State, state: &State| {
        let known = rosters().of(known).unwrap();
        goes_on(&rosters(), &known, state).unwrap_or(false)
    };
    let genesis = State::new();
    let mut later = joint();
    let mut history = vec![genesis.clone(), announced_to(&[3, 4, 5]), later.clone()];
    run(&mut later, &complete(41, 2, &[1, 3, 4]));
    configured(&rosters(), (&[3, 4, 5], false), &mut later).unwrap();
    history.push(later.clone());
    let next = order(&later, 2, &[4, 5, 6], &operator());
    run(&mut later, &entry(42, next, &[3, 4]));
    history.push(later);
    for (here, known) in history.iter().enumerate() {
        for (there, state) in history.iter().enumerate() {
            // Two stages of one move know the same lists.
            let expected = there >= here || (here, there) == (2, 1);
            assert_eq!(follows(known, state), expected, "{there} where {here} is known");
        }
    }
    // Another list under the same number, and a list that is there and was never ordered.
    assert!(!follows(&announced_to(&[3, 4, 5]), &announced_to(&[1, 2, 4])));
    let mut without = genesis;
    let order: SignedOrder = history[1].record(&layout::members(2)).unwrap().unwrap();
    put(&mut without, &layout::members(2), &order);
    assert!(!follows(&history[1], &without));
    // What was taken back is known later, too.
    let mut back = announced_to(&[1, 2, 4]);
    let order = taking_back(&back, 2, &[1, 2, 3]);
    run(&mut back, &entry(2, order, &[1, 2]));
    assert!(follows(&announced_to(&[1, 2, 4]), &back));
    assert!(!follows(&back, &announced_to(&[1, 2, 4])));
}

/// An order that starts from the members with which the last one started too.
fn taking_back(state: &State, sequence: u64, nodes: &[u64]) -> SignedOrder {
    let roster = rosters().of(state).unwrap();
    let last = roster.next.as_ref().map_or(&roster.current, |(next, _)| next);
    let order = Order {
        cluster: Hex32([9; 32]),
        sequence,
        change: Change::Members(NewMembers {
            number: last.index + 1,
            replaces: Hex32(members().digest()),
            members: nodes.iter().map(|node| pinned(*node)).collect(),
            placement: None,
        }),
    };
    sign(order, &operator())
}

fn announced() -> State {
    announced_to(&[1, 2, 4])
}

fn announced_to(nodes: &[u64]) -> State {
    let mut state = State::new();
    let order = order(&state, 1, nodes, &operator());
    run(&mut state, &entry(1, order, &[1, 2]));
    state
}

#[test]
fn an_announced_order_is_taken_back_by_one_that_starts_from_the_same_members() {
    let mut state = announced();
    let back = taking_back(&state, 2, &[1, 2, 3]);
    assert_eq!(
        run(&mut state, &entry(2, back, &[1, 2])),
        Outcome::Applied(Reply::Ordered(2))
    );
    let roster = rosters().of(&state).unwrap();
    assert_eq!((roster.current.index, roster.current.nodes()), (3, vec![1, 2, 3]));
    assert!(roster.next.is_none());
    assert_eq!(wanted(&rosters(), &state).unwrap(), None);
    assert!(is_ordered(&rosters(), &state).unwrap());
    // Its number was given all the same.
    let same = order(&state, 3, &[1, 2, 4], &operator());
    assert!(matches!(
        run(&mut state, &entry(3, same, &[1, 2])),
        Outcome::Refused(Rejection::Members(_))
    ));
    let next = order(&state, 3, &[1, 2, 5], &operator());
    run(&mut state, &entry(4, next, &[1, 2]));
    assert!(is_ordered(&rosters(), &state).unwrap());
    let wanted = wanted(&rosters(), &state).unwrap().unwrap();
    assert_eq!((wanted.from, wanted.to), (vec![1, 2, 3], vec![1, 2, 5]));
}

#[test]
fn another_list_may_take_its_place() {
    let mut state = announced();
    // One that came with it may stay, and one that was to go, too.
    let other = taking_back(&state, 2, &[2, 3, 4, 5]);
    run(&mut state, &entry(2, other, &[1, 2]));
    let roster = rosters().of(&state).unwrap();
    assert_eq!(roster.current.index, 1);
    assert_eq!(roster.next.as_ref().unwrap().0.nodes(), [2, 3, 4, 5]);
    assert!(is_ordered(&rosters(), &state).unwrap());
    enter_joint(&mut state, &[1, 3]);
    run(&mut state, &complete(3, 3, &[2, 3, 4]));
    configured(&rosters(), (&[2, 3, 4, 5], false), &mut state).unwrap();
    assert_eq!(rosters().of(&state).unwrap().current.index, 3);
    assert!(is_ordered(&rosters(), &state).unwrap());
    // A state that says that it stands where that order ends is another one's.
    let mut forged = announced();
    let other = taking_back(&forged, 2, &[2, 3, 4, 5]);
    run(&mut forged, &entry(2, other, &[1, 2]));
    let mut record = members_record(&forged);
    record.current = forged.record(&layout::members(3)).unwrap();
    put(&mut forged, layout::MEMBERS, &record);
    assert!(!is_ordered(&rosters(), &forged).unwrap());
}

#[test]
fn what_has_begun_is_not_taken_back_where_orders_are_counted() {
    let mut tag = 60;
    let mut refused = |state: &mut State, order: SignedOrder, group: u32, by: &[u64]| {
        tag += 1;
        let mut entry = entry(tag, order, by);
        entry.statement.group = group;
        let entry = endorsed(entry.statement, &at(tag, by));
        let outcome = apply(&entry, group, &rosters(), state).unwrap();
        matches!(outcome, Outcome::Refused(Rejection::Members(_)))
    };
    let mut state = announced();
    run(&mut state, &begin(4, 2, &[1, 2]));
    let back = taking_back(&state, 2, &[1, 2, 3]);
    assert!(refused(&mut state.clone(), back, GROUP, &[1, 2]));
    let back = taking_back(&state, 1, &[1, 2, 3]);
    assert!(refused(&mut state.clone(), back, 0, &[1, 2]));
    configured(&rosters(), (&[1, 2, 4], true), &mut state).unwrap();
    let back = taking_back(&state, 2, &[1, 2, 3]);
    assert!(refused(&mut state.clone(), back, GROUP, &[1, 2, 4]));
    run(&mut state, &complete(5, 2, &[1, 2, 4]));
    configured(&rosters(), (&[1, 2, 4], false), &mut state).unwrap();
    let back = taking_back(&state, 1, &[1, 2, 3]);
    assert!(refused(&mut state.clone(), back, 0, &[1, 2]));
    // A group whose leader went on while group 0 took the order back goes back, too.
    let back = taking_back(&state, 2, &[1, 2, 3]);
    assert!(!refused(&mut state, back, GROUP, &[1, 2]));
    let roster = rosters().of(&state).unwrap();
    assert_eq!(roster.next.as_ref().unwrap().0.nodes(), [1, 2, 3]);
    assert!(is_ordered(&rosters(), &state).unwrap());
    // Another start is none; one that takes that back as well is followed.
    let other = order(&state, 3, &[1, 2, 6], &operator());
    assert!(refused(&mut state.clone(), other, GROUP, &[1, 2]));
    let again = taking_back(&state, 3, &[1, 2, 6]);
    assert!(!refused(&mut state, again, GROUP, &[1, 2]));
    assert!(is_ordered(&rosters(), &state).unwrap());
}
