//! What a group remembers of names, operations and endorsements, and for how long.

use super::apply::{apply, request_hash};
use super::apply_tests::{
    GROUP, KS, METER, NOW, State, config, create, endorsed, generate, key, members, revoke, rosters, run,
    statement, with_keystore,
};
use super::command::Command;
use super::entry::{Entry, Statement};
use super::layout;
use super::outcome::{Outcome, Rejection, Reply};
use super::query;
use crate::identifier::OperationId;

fn update(tag: u64, sequence: u64, version: u64) -> Statement {
    let command = Command::UpdateKeystore {
        id: KS,
        config: config(&["did:b"], sequence),
    };
    statement(tag, command, version)
}

fn pass_time(state: &mut State, to: u64) {
    let entry = endorsed(statement(900, Command::Time, 0), &[(1, to), (2, to)]);
    assert_eq!(run(state, &entry), Outcome::Applied(Reply::Time));
    assert_eq!(query::last_time(state).unwrap(), to);
}

#[test]
fn time_passes_by_a_quorum_only_and_any_number_of_times() {
    let mut state = with_keystore();
    for later in 1..=3 {
        pass_time(&mut state, NOW + later);
    }
    let alone = endorsed(statement(900, Command::Time, 0), &[(1, NOW + 9)]);
    assert!(matches!(
        run(&mut state, &alone),
        Outcome::Refused(Rejection::NotEndorsed(_))
    ));
    assert_eq!(query::last_time(&state).unwrap(), NOW + 3);
}

#[test]
fn endorsements_of_a_key_live_thirty_seconds() {
    let mut state = with_keystore();
    pass_time(&mut state, NOW + 30_000);
    let entry = endorsed(generate(2, &[1, 2], NOW), &[(1, NOW), (2, NOW)]);
    assert!(matches!(run(&mut state, &entry), Outcome::Applied(_)));
    let entry = endorsed(update(3, 1, 1), &[(1, NOW + 19_999), (2, NOW + 19_999)]);
    assert_eq!(run(&mut state, &entry), Outcome::Refused(Rejection::Stale));
    pass_time(&mut state, NOW + 30_001);
    let entry = endorsed(generate(4, &[1, 2], NOW + 1), &[(1, NOW), (2, NOW)]);
    assert_eq!(run(&mut state, &entry), Outcome::Refused(Rejection::Stale));
}

#[test]
fn an_outcome_is_shown_to_whom_the_committee_endorses() {
    let mut state = with_keystore();
    let by_nobody = Entry {
        endorsements: Vec::new(),
        ..endorsed(create(100), &[])
    };
    let outcome = run(&mut state, &by_nobody);
    assert!(
        matches!(outcome, Outcome::Refused(Rejection::NotEndorsed(_))),
        "{outcome:?}"
    );
}

#[test]
fn a_refusal_is_final_unless_it_is_stale() {
    let mut state = with_keystore();
    let wrong = update(2, 7, 1);
    assert_eq!(
        run(&mut state, &endorsed(wrong.clone(), &[(1, NOW), (2, NOW)])),
        Outcome::Refused(Rejection::Sequence)
    );
    // The state moves to where it would fit; the operation has its answer.
    let fits = Statement {
        command: update(2, 1, 1).command,
        ..wrong
    };
    assert_eq!(
        run(&mut state, &endorsed(fits, &[(1, NOW), (2, NOW)])),
        Outcome::Refused(Rejection::Sequence)
    );
    // One that came too late for its version may come again.
    assert_eq!(
        run(&mut state, &endorsed(update(3, 1, 0), &[(1, NOW), (2, NOW)])),
        Outcome::Refused(Rejection::VersionPassed)
    );
    assert!(matches!(
        run(&mut state, &endorsed(update(3, 1, 1), &[(1, NOW), (2, NOW)])),
        Outcome::Applied(_)
    ));
}

#[test]
fn an_operation_is_remembered_as_long_as_its_request_can_be_endorsed() {
    let mut state = with_keystore();
    let made = endorsed(generate(2, &[1, 2], NOW), &[(1, NOW), (2, NOW)]);
    let outcome = run(&mut state, &made);
    let expires = made.statement.expires;
    pass_time(&mut state, expires + 299_999);
    let fresh = endorsed(
        made.statement.clone(),
        &[(1, expires + 299_999), (2, expires + 299_999)],
    );
    assert_eq!(run(&mut state, &fresh), outcome);
    pass_time(&mut state, expires + 400_000);
    assert!(
        !state.contains_key(&layout::operation(&made.statement.operation)),
        "forgotten in the end"
    );
    assert!(
        !state.contains_key(&layout::name(&made.statement.name)),
        "and so is the name"
    );
}

/// The same signed request with an operation id of its own.
fn again(of: &Statement, counter: u64, start: u64) -> Statement {
    let Command::GenerateKey(generated) = generate(counter, &[1, 2], start).command else {
        unreachable!("a generation")
    };
    Statement {
        operation: OperationId {
            node: 2,
            boot: 1,
            counter,
        },
        request: request_hash(&counter.to_be_bytes()),
        command: Command::GenerateKey(generated),
        ..of.clone()
    }
}

#[test]
fn a_name_outlives_every_endorsement_of_its_request() {
    let mut state = with_keystore();
    let first = generate(2, &[1, 2], NOW);
    assert!(matches!(
        run(&mut state, &endorsed(first.clone(), &[(1, NOW), (2, NOW)])),
        Outcome::Applied(_)
    ));
    // The last moment at which an honest member endorses the request, and the longest that this may take to apply.
    let last = first.expires + 300_000;
    pass_time(&mut state, last + 30_000);
    let replay = endorsed(again(&first, 55, last), &[(1, last), (2, last)]);
    assert_eq!(run(&mut state, &replay), Outcome::Refused(Rejection::Replayed));
}

#[test]
fn what_was_refused_does_not_use_up_a_name() {
    let mut state = with_keystore();
    let mut moved = members();
    moved.index = 2;
    let entry = endorsed(generate(2, &[1, 2], NOW), &[(1, NOW), (2, NOW)]);
    let refused = apply(&entry, GROUP, &rosters(moved), &mut state).unwrap();
    assert_eq!(refused, Outcome::Refused(Rejection::ConfigurationChanged));
    // The coordinator's next attempt, after the window of twins.
    let later = NOW + 5_000;
    let retry = endorsed(generate(2, &[1, 2], later), &[(1, later), (2, later)]);
    assert!(matches!(run(&mut state, &retry), Outcome::Applied(_)));
}

#[test]
fn what_does_not_exist_is_not_changed() {
    let mut state = State::new();
    let at = [(1, NOW), (2, NOW)];
    let missing = Outcome::Refused(Rejection::Missing);
    assert_eq!(run(&mut state, &endorsed(update(1, 1, 0), &at)), missing);
    let revocation = Statement {
        state_version: 0,
        ..revoke(2, "urn:c", None)
    };
    assert_eq!(run(&mut state, &endorsed(revocation, &at)), missing);
    let key = Statement {
        state_version: 0,
        ..generate(3, &[1, 2], NOW)
    };
    assert_eq!(run(&mut state, &endorsed(key, &at)), missing);
}

#[test]
fn a_meter_is_made_once() {
    let mut state = State::new();
    let command = Command::CreateMeter {
        id: METER,
        controller: "did:a".into(),
        product: "p".into(),
    };
    let entry = endorsed(statement(1, command.clone(), 0), &[(1, NOW), (2, NOW)]);
    assert_eq!(run(&mut state, &entry), Outcome::Applied(Reply::Meter(METER)));
    let entry = endorsed(statement(2, command, 0), &[(1, NOW), (2, NOW)]);
    assert_eq!(run(&mut state, &entry), Outcome::Refused(Rejection::Exists));
}

#[test]
fn an_entry_has_no_more_endorsements_than_there_are_members() {
    let mut state = State::new();
    let mut entry = endorsed(create(1), &[(1, NOW), (2, NOW), (3, NOW)]);
    let fourth = entry.statement.endorse(1, &key(1), NOW + 1);
    entry.endorsements.push(fourth);
    let outcome = run(&mut state, &entry);
    let expected = Rejection::NotEndorsed("more endorsements than members".into());
    assert_eq!(outcome, Outcome::Refused(expected));
}

#[test]
fn each_entry_forgets_a_bounded_number_of_things() {
    let mut state = with_keystore();
    for tag in 1..=40 {
        let entry = endorsed(revoke(tag, &format!("urn:{tag}"), None), &[(1, NOW), (2, NOW)]);
        assert_eq!(run(&mut state, &entry), Outcome::Applied(Reply::Revoked));
    }
    let left = |state: &State| state.keys().filter(|key| key[0] == b'x').count();
    let all = left(&state);
    pass_time(&mut state, NOW + 10 * 3_600_000);
    assert_eq!(left(&state), all - 32);
    for _ in 0..3 {
        pass_time(&mut state, NOW + 10 * 3_600_000);
    }
    assert_eq!(left(&state), 0);
    assert!(
        !state.keys().any(|key| b"ron".contains(&key[0])),
        "what the index named is gone too"
    );
    assert!(query::keystore(&state, &KS).unwrap().is_some());
}
