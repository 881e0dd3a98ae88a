//! Random actions of a coordinator and of one dealer, over committees of 3 to 5: nothing panics, no honest member
//! is ever named, and whoever ends with a key ends with the same whole one.

use proptest::prelude::*;

use super::*;

/// What is done to one message in one set.
#[derive(Clone, Debug)]
enum Action {
    Drop,
    Flip(usize, u8),
    Cut(usize),
    Grow(u8),
    TakeFrom(u16),
    RoundBefore,
}

#[derive(Clone, Debug)]
struct Step {
    round: u8,
    receiver: u16,
    sender: u16,
    action: Action,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        Just(Action::Drop),
        (any::<usize>(), 1u8..).prop_map(|(place, mask)| Action::Flip(place, mask)),
        any::<usize>().prop_map(Action::Cut),
        any::<u8>().prop_map(Action::Grow),
        (1u16..=5).prop_map(Action::TakeFrom),
        Just(Action::RoundBefore),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    (0u8..3, 1u16..=5, 1u16..=5, action()).prop_map(|(round, receiver, sender, action)| Step {
        round,
        receiver,
        sender,
        action,
    })
}

fn change(bytes: &mut Vec<u8>, action: &Action) {
    match action {
        Action::Flip(place, mask) if !bytes.is_empty() => {
            let place = place % bytes.len();
            bytes[place] ^= mask;
        }
        Action::Cut(length) if !bytes.is_empty() => bytes.truncate(length % bytes.len()),
        Action::Grow(byte) => bytes.push(*byte),
        _ => (),
    }
}

fn committee(members: u16, away: bool) -> World {
    World::new(members, members / 2 + 1, if away { &[2] } else { &[] }, 9)
}

/// Those that ended with one transcript have one commitment, the same envelopes, and shares that fit.
fn assert_consistent(world: &World, outcomes: &Outcomes<Edwards25519>) {
    let done: Vec<&Outcome> = outcomes
        .values()
        .filter_map(|outcome| outcome.as_ref().ok())
        .collect();
    for outcome in &done {
        assert!(outcome.commitment.holds(&outcome.share));
        for other in done.iter().filter(|other| other.transcript == outcome.transcript) {
            assert_eq!(other.commitment, outcome.commitment);
            assert_eq!(other.envelopes, outcome.envelopes);
        }
        let again = outcome
            .commitment
            .transcript(world.session.digest(), &outcome.record);
        assert_eq!(again, outcome.transcript);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_coordinator_gets_nobody_named(
        members in 3u16..=5,
        away in any::<bool>(),
        steps in proptest::collection::vec(step(), 0..4),
    ) {
        let mut world = committee(members, away);
        let mut before: Vec<Set> = vec![Set::new(); 4];
        let outcomes = world.run_with::<Edwards25519>(BTreeMap::new(), |_, round, receiver, set| {
            before[usize::from(round) + 1] = set.clone();
            for step in steps.iter().filter(|step| step.round == round && step.receiver == receiver) {
                let other = match step.action {
                    Action::TakeFrom(other) => set.get(&other).cloned(),
                    Action::RoundBefore => before[usize::from(round)].get(&step.sender).cloned(),
                    _ => None,
                };
                if let Action::Drop = step.action {
                    set.remove(&step.sender);
                } else if let Some(bytes) = set.get_mut(&step.sender) {
                    change(bytes, &step.action);
                    if let Some(other) = other {
                        *bytes = other;
                    }
                }
            }
        });
        assert_consistent(&world, &outcomes);
        for fault in outcomes.values().filter_map(|outcome| outcome.as_ref().err()) {
            prop_assert!(fault.culprits.is_empty() && fault.evidence.is_none(), "{fault}");
        }
        if steps.is_empty() {
            prop_assert!(outcomes.values().all(Result::is_ok));
        }
    }

    #[test]
    fn only_the_liar_is_named(
        members in 3u16..=5,
        away in any::<bool>(),
        round in 0u8..3,
        receivers in proptest::collection::btree_set(1u16..=5, 1..5),
        action in action(),
    ) {
        let liar = 3;
        let mut world = committee(members, away);
        let outcomes = world.run_with::<Edwards25519>(BTreeMap::new(), |world, now, me, set| {
            if now == round && me != liar && receivers.contains(&me) {
                let Some(bytes) = set.get(&liar) else { return };
                let mut payload = message::read(bytes).unwrap().payload.to_vec();
                change(&mut payload, &action);
                set.insert(liar, world.say(round, liar, &payload));
            }
        });
        assert_consistent(&world, &outcomes);
        for fault in outcomes.values().filter_map(|outcome| outcome.as_ref().err()) {
            prop_assert!(fault.culprits.is_empty() || fault.culprits == [liar], "{fault}: {:?}", fault.culprits);
            if let Some(evidence) = &fault.evidence {
                prop_assert_eq!(evidence.convicts::<Edwards25519>(&world.session), Some(liar));
            }
        }
    }

    #[test]
    fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let world = World::new(3, 2, &[], 9);
        prop_assert!(message::read(&bytes).is_none_or(|message| !message.statement.verify(&world.session)));
        prop_assert!(package::check::<Edwards25519>(&world.session, 1, &bytes).is_err());
        prop_assert!(read_deal::<Edwards25519>(&world.session, 1, &bytes).is_none());
        prop_assert!(postcard::from_bytes::<Commitment>(&bytes).is_err());
        prop_assert_eq!(Evidence::Message(bytes).convicts::<Edwards25519>(&world.session), None);
    }
}
