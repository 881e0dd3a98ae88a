//! Each rule of apply, with a test that fails without it.

use std::collections::BTreeMap;

use ed25519_dalek::SigningKey;

use super::apply::{apply, request_hash};
use super::command::{Command, GeneratedKey};
use super::config::KeystoreConfig;
use super::entry::{Entry, EntryError, Statement};
use super::layout;
use super::outcome::{Outcome, Rejection, Reply};
use super::query;
use super::record::{Hold, KeyType, Material, Sharing};
use super::state::WriteState as _;
use crate::format::NEWEST;
use crate::identifier::{LocalId, OperationId};
use crate::keystore::Rosters;
use crate::membership::{Member, Membership};

pub(super) const GROUP: u32 = 3;
pub(super) const KS: LocalId = LocalId([1; 16]);
pub(super) const METER: LocalId = LocalId([2; 16]);
pub(super) const NOW: u64 = 1_800_000_000_000;

pub(super) type State = BTreeMap<Vec<u8>, Vec<u8>>;

pub(super) fn key(node: u64) -> SigningKey {
    SigningKey::from_bytes(&[node as u8; 32])
}

pub(super) fn operator() -> SigningKey {
    SigningKey::from_bytes(&[77; 32])
}

pub(super) fn members() -> Membership {
    let member = |node: u64| Member {
        node,
        index: node as u16,
        address: String::new(),
        verifying_key: key(node).verifying_key(),
        envelope_key: [node as u8; 32],
    };
    Membership {
        cluster: [9; 32],
        index: 1,
        members: (1..=3).map(member).collect(),
        operators: vec![operator().verifying_key()],
        operator_threshold: 1,
        ..Membership::default()
    }
}

pub(super) fn rosters(members: Membership) -> Rosters {
    Rosters::new(std::sync::Arc::new(members))
}

pub(super) fn config(controllers: &[&str], sequence: u64) -> KeystoreConfig {
    KeystoreConfig {
        controllers: controllers.iter().map(|text| text.to_string()).collect(),
        single_controller: false,
        meter: METER,
        sequence,
        kms_module: "ssm-v1".into(),
        ip_allow_list: None,
    }
}

/// A statement for `command`; `tag` tells operations and requests apart.
pub(super) fn statement(tag: u64, command: Command, state_version: u64) -> Statement {
    Statement {
        cluster: [9; 32],
        group: GROUP,
        operation: OperationId {
            node: 1,
            boot: 1,
            counter: tag,
        },
        request: request_hash(&tag.to_be_bytes()),
        name: [tag as u8; 32],
        expires: NOW + 600_000,
        command,
        state_version,
        chain: Vec::new(),
    }
}

pub(super) fn endorsed(statement: Statement, by: &[(u64, u64)]) -> Entry {
    let endorsements = by
        .iter()
        .map(|(node, time)| statement.endorse(*node, &key(*node), *time))
        .collect();
    let request = statement.operation.counter.to_be_bytes().to_vec();
    Entry {
        statement,
        request,
        endorsements,
    }
}

pub(super) fn create(tag: u64) -> Statement {
    statement(
        tag,
        Command::CreateKeystore {
            id: KS,
            config: config(&["did:a"], 0),
        },
        0,
    )
}

pub(super) fn run(state: &mut State, entry: &Entry) -> Outcome {
    apply(entry, GROUP, &rosters(members()), state).unwrap()
}

/// A state with the keystore in it.
pub(super) fn with_keystore() -> State {
    let mut state = State::new();
    let made = run(&mut state, &endorsed(create(100), &[(1, NOW), (2, NOW)]));
    assert_eq!(made, Outcome::Applied(Reply::Keystore(KS)));
    state
}

fn assert_not_endorsed(entry: &Entry) {
    let mut state = State::new();
    let outcome = run(&mut state, entry);
    assert!(
        matches!(outcome, Outcome::Refused(Rejection::NotEndorsed(_))),
        "{outcome:?}"
    );
    assert!(state.is_empty(), "an entry that is not endorsed leaves no trace");
}

#[test]
fn a_leader_alone_changes_nothing() {
    assert_not_endorsed(&endorsed(create(1), &[]));
    assert_not_endorsed(&endorsed(create(1), &[(1, NOW)]));
    assert_not_endorsed(&endorsed(create(1), &[(1, NOW), (1, NOW)]));
    assert_not_endorsed(&endorsed(create(1), &[(1, NOW), (7, NOW)]));
}

#[test]
fn endorsements_are_for_one_statement() {
    let mut other = endorsed(create(1), &[(1, NOW), (2, NOW)]);
    other.statement.command = Command::CreateKeystore {
        id: KS,
        config: config(&["did:mallory"], 0),
    };
    assert_not_endorsed(&other);
    let mut dated = endorsed(create(1), &[(1, NOW), (2, NOW)]);
    dated.endorsements[0].time -= 1;
    assert_not_endorsed(&dated);
    let mut request = endorsed(create(1), &[(1, NOW), (2, NOW)]);
    request.request.push(0);
    assert_not_endorsed(&request);
    let mut borrowed = endorsed(create(1), &[(1, NOW), (2, NOW)]);
    borrowed.endorsements[1].node = 3;
    assert_not_endorsed(&borrowed);
}

#[test]
fn endorsements_are_for_one_group_of_one_cluster() {
    assert_not_endorsed(&endorsed(
        Statement {
            group: GROUP + 1,
            ..create(1)
        },
        &[(1, NOW), (2, NOW)],
    ));
    assert_not_endorsed(&endorsed(
        Statement {
            cluster: [8; 32],
            ..create(1)
        },
        &[(1, NOW), (2, NOW)],
    ));
}

#[test]
fn endorsers_clocks_are_close() {
    assert_not_endorsed(&endorsed(create(1), &[(1, NOW), (2, NOW + 5_001)]));
    let mut state = State::new();
    let outcome = run(&mut state, &endorsed(create(1), &[(1, NOW), (2, NOW + 5_000)]));
    assert!(matches!(outcome, Outcome::Applied(_)));
    assert_eq!(
        query::last_time(&state).unwrap(),
        NOW,
        "the entry's time is the smallest"
    );
}

#[test]
fn endorsements_die() {
    let mut state = with_keystore();
    let later = statement(
        2,
        Command::UpdateKeystore {
            id: KS,
            config: config(&["did:b"], 1),
        },
        1,
    );
    assert!(matches!(
        run(
            &mut state,
            &endorsed(later, &[(1, NOW + 20_000), (3, NOW + 20_000)])
        ),
        Outcome::Applied(_)
    ));
    let old = statement(
        3,
        Command::UpdateKeystore {
            id: KS,
            config: config(&["did:c"], 2),
        },
        2,
    );
    let stale = endorsed(old.clone(), &[(1, NOW + 9_999), (2, NOW + 9_999)]);
    assert_eq!(run(&mut state, &stale), Outcome::Refused(Rejection::Stale));
    let fresh = endorsed(old, &[(1, NOW + 10_000), (2, NOW + 10_000)]);
    assert!(
        matches!(run(&mut state, &fresh), Outcome::Applied(_)),
        "the same operation with fresh endorsements"
    );
    assert_eq!(
        query::last_time(&state).unwrap(),
        NOW + 20_000,
        "time never runs back"
    );
}

#[test]
fn an_operation_is_applied_once() {
    let mut state = with_keystore();
    let update = statement(
        2,
        Command::UpdateKeystore {
            id: KS,
            config: config(&["did:b"], 1),
        },
        1,
    );
    let entry = endorsed(update, &[(1, NOW), (2, NOW)]);
    let first = run(&mut state, &entry);
    assert_eq!(run(&mut state, &entry), first, "a retry finds the first outcome");
    assert_eq!(query::keystore(&state, &KS).unwrap().unwrap().version, 2);
}

#[test]
fn a_change_is_for_one_state_version_and_follows_the_sequence() {
    let mut state = with_keystore();
    let update = |tag, sequence, version| {
        let command = Command::UpdateKeystore {
            id: KS,
            config: config(&["did:b"], sequence),
        };
        endorsed(statement(tag, command, version), &[(1, NOW), (2, NOW)])
    };
    assert_eq!(
        run(&mut state, &update(2, 1, 0)),
        Outcome::Refused(Rejection::VersionPassed)
    );
    assert_eq!(
        run(&mut state, &update(3, 2, 1)),
        Outcome::Refused(Rejection::Sequence)
    );
    assert!(matches!(run(&mut state, &update(4, 1, 1)), Outcome::Applied(_)));
    assert_eq!(
        run(&mut state, &update(5, 1, 1)),
        Outcome::Refused(Rejection::VersionPassed)
    );
    let mut moved = config(&["did:b"], 2);
    moved.meter = LocalId([7; 16]);
    let command = Command::UpdateKeystore {
        id: KS,
        config: moved,
    };
    let moved = endorsed(statement(6, command, 2), &[(1, NOW), (2, NOW)]);
    assert_eq!(run(&mut state, &moved), Outcome::Refused(Rejection::Sequence));
}

#[test]
fn what_exists_is_not_created_again() {
    let mut state = with_keystore();
    let again = run(&mut state, &endorsed(create(2), &[(1, NOW), (2, NOW)]));
    assert_eq!(again, Outcome::Refused(Rejection::Exists));
}

#[test]
fn the_controller_index_follows_updates() {
    let mut state = with_keystore();
    let command = Command::UpdateKeystore {
        id: KS,
        config: config(&["did:b"], 1),
    };
    run(
        &mut state,
        &endorsed(statement(2, command, 1), &[(1, NOW), (2, NOW)]),
    );
    assert!(query::controlled_by(&state, "did:a", 10).unwrap().is_empty());
    assert_eq!(query::controlled_by(&state, "did:b", 10).unwrap().len(), 1);
}

pub(super) fn revoke(tag: u64, capability: &str, revoker: Option<&str>) -> Statement {
    let command = Command::Revoke {
        keystore: KS,
        capability: capability.into(),
        delegator: "did:a".into(),
        expires: NOW + 3_600_000,
        revoker: revoker.map(str::to_owned),
    };
    statement(tag, command, 1)
}

#[test]
fn a_revoked_chain_changes_nothing_any_more_and_is_revoked_once() {
    let mut state = with_keystore();
    assert_eq!(
        run(
            &mut state,
            &endorsed(revoke(2, "urn:c", None), &[(1, NOW), (2, NOW)])
        ),
        Outcome::Applied(Reply::Revoked)
    );
    assert!(query::revoked(&state, &KS, "urn:c", "did:a").unwrap());
    assert!(
        !query::revoked(&state, &KS, "urn:c", "did:b").unwrap(),
        "another delegator's id is not hit"
    );
    let twice = run(
        &mut state,
        &endorsed(revoke(3, "urn:c", None), &[(1, NOW), (2, NOW)]),
    );
    assert_eq!(twice, Outcome::Refused(Rejection::AlreadyRevoked));
    let command = Command::UpdateKeystore {
        id: KS,
        config: config(&["did:b"], 1),
    };
    let mut by_it = statement(4, command, 1);
    by_it.chain = vec![("urn:c".into(), "did:a".into())];
    let outcome = run(&mut state, &endorsed(by_it, &[(1, NOW), (2, NOW)]));
    assert_eq!(outcome, Outcome::Refused(Rejection::ChainRevoked));
}

#[test]
fn revocations_of_strangers_are_bounded_and_expire() {
    let mut state = with_keystore();
    let counter = super::layout::revoker(&KS, "did:bob");
    super::WriteState::put_record(&mut state, &counter, &10_000u32).unwrap();
    let more = endorsed(revoke(2, "urn:c", Some("did:bob")), &[(1, NOW), (2, NOW)]);
    assert_eq!(
        run(&mut state, &more),
        Outcome::Refused(Rejection::TooManyRevocations)
    );
    super::WriteState::put_record(&mut state, &counter, &9_999u32).unwrap();
    let fits = endorsed(revoke(3, "urn:c", Some("did:bob")), &[(1, NOW), (2, NOW)]);
    assert!(matches!(run(&mut state, &fits), Outcome::Applied(_)));
    let later = NOW + 3_600_001;
    run(
        &mut state,
        &endorsed(statement(4, Command::Time, 0), &[(1, later), (2, later)]),
    );
    assert!(
        !query::revoked(&state, &KS, "urn:c", "did:a").unwrap(),
        "forgotten when its time has passed"
    );
    let left: Option<u32> = super::ReadState::record(&state, &counter).unwrap();
    assert_eq!(left, Some(9_999));
}

pub(super) fn generate(tag: u64, participants: &[u64], start: u64) -> Statement {
    let generated = GeneratedKey {
        keystore: KS,
        key: LocalId([tag as u8; 16]),
        key_type: KeyType::Ed25519VerificationKey2020,
        alias: None,
        max_chain_length: None,
        epoch: 0,
        session: [tag as u8; 32],
        start,
        configuration: 1,
        participants: participants.to_vec(),
        away: Vec::new(),
        transcript: [0; 32],
        material: Material::Pair {
            commitment: Vec::new(),
            public_key: [0; 32],
        },
    };
    statement(tag, Command::GenerateKey(Box::new(generated)), 1)
}

#[test]
fn every_participant_signs_a_key() {
    let mut state = with_keystore();
    let missing = endorsed(generate(2, &[1, 2, 3], NOW), &[(1, NOW), (2, NOW)]);
    assert!(matches!(
        run(&mut state, &missing),
        Outcome::Refused(Rejection::NotEndorsed(_))
    ));
    let few = endorsed(generate(2, &[1], NOW), &[(1, NOW), (2, NOW)]);
    assert!(matches!(
        run(&mut state, &few),
        Outcome::Refused(Rejection::NotEndorsed(_))
    ));
    let all = endorsed(generate(2, &[1, 2, 3], NOW), &[(1, NOW), (2, NOW), (3, NOW)]);
    assert_eq!(
        run(&mut state, &all),
        Outcome::Applied(Reply::Key(KS, LocalId([2; 16])))
    );
    let again = endorsed(generate(2, &[1, 2, 3], NOW), &[(1, NOW), (2, NOW), (3, NOW)]);
    let same_key = Entry {
        statement: Statement {
            operation: OperationId {
                node: 1,
                boot: 1,
                counter: 77,
            },
            ..again.statement
        },
        ..again
    };
    let resigned = endorsed(
        Statement {
            request: request_hash(&77u64.to_be_bytes()),
            ..same_key.statement
        },
        &[(1, NOW), (2, NOW), (3, NOW)],
    );
    assert_eq!(run(&mut state, &resigned), Outcome::Refused(Rejection::Exists));
}

#[test]
fn three_holders_make_a_symmetric_key() {
    let of_holders = |holders: &[u64], participants: &[u64]| {
        let mut statement = generate(2, participants, NOW);
        let Command::GenerateKey(generated) = &mut statement.command else {
            unreachable!("a key is generated");
        };
        generated.material = Material::Pieces(Sharing {
            holders: holders.to_vec(),
            pieces: vec![[0; 32]; holders.len()],
            correction: [0; 32],
            inner: None,
            check: [0; 16],
        });
        let signed: Vec<(u64, u64)> = participants.iter().map(|node| (*node, NOW)).collect();
        endorsed(statement, &signed)
    };
    // A quorum signs it, and two of three that compute are not enough; nor is a third one who holds no piece.
    for few in [
        of_holders(&[1, 2, 3], &[1, 2]),
        of_holders(&[1, 2, 4, 5], &[1, 2, 3]),
    ] {
        let refused = run(&mut with_keystore(), &few);
        assert!(matches!(refused, Outcome::Refused(Rejection::NotEndorsed(_))));
    }
    let without_one = of_holders(&[1, 2, 3, 4], &[1, 2, 3]);
    assert!(matches!(
        run(&mut with_keystore(), &without_one),
        Outcome::Applied(_)
    ));
}

#[test]
fn a_ceremony_has_thirty_seconds() {
    let mut state = with_keystore();
    let late = NOW + 30_001;
    let entry = endorsed(generate(2, &[1, 2], NOW), &[(1, late), (2, late)]);
    assert_eq!(run(&mut state, &entry), Outcome::Refused(Rejection::Stale));
    let mut other = members();
    other.index = 2;
    let entry = endorsed(generate(3, &[1, 2], late), &[(1, late), (2, late)]);
    let outcome = apply(&entry, GROUP, &rosters(other), &mut state).unwrap();
    assert_eq!(outcome, Outcome::Refused(Rejection::ConfigurationChanged));
}

#[test]
fn twins_come_within_two_seconds_and_are_sixteen_at_most() {
    let mut state = with_keystore();
    let twin = |tag: u64, time: u64| {
        let mut statement = generate(tag, &[1, 2], NOW);
        statement.name = [0x77; 32];
        endorsed(statement, &[(1, time), (2, time)])
    };
    for tag in 1..=16 {
        assert!(
            matches!(run(&mut state, &twin(tag, NOW + 2_000)), Outcome::Applied(_)),
            "twin {tag}"
        );
    }
    assert_eq!(
        run(&mut state, &twin(17, NOW + 2_000)),
        Outcome::Refused(Rejection::Replayed)
    );
    let mut state = with_keystore();
    assert!(matches!(run(&mut state, &twin(1, NOW)), Outcome::Applied(_)));
    assert_eq!(
        run(&mut state, &twin(2, NOW + 2_001)),
        Outcome::Refused(Rejection::Replayed)
    );
}

#[test]
fn an_entry_of_a_later_format_is_told_from_garbage() {
    let bytes = endorsed(create(1), &[(1, NOW), (2, NOW)]).encode();
    assert_eq!(Entry::decode(&bytes).unwrap().encode(), bytes);
    let other = [&[NEWEST + 1], &bytes[1..]].concat();
    assert!(matches!(
        Entry::decode(&other),
        Err(EntryError::UnknownFormat(format)) if format == NEWEST + 1
    ));
    assert!(matches!(
        Entry::decode(&bytes[..bytes.len() - 1]),
        Err(EntryError::Malformed)
    ));
    assert!(matches!(
        Entry::decode(&[&bytes[..], &[0]].concat()),
        Err(EntryError::Malformed)
    ));
}

#[test]
fn an_update_ends_the_hold_of_its_keystore_alone() {
    let mut state = with_keystore();
    let other = LocalId([7; 16]);
    for keystore in [KS, other] {
        state
            .put_record(&layout::hold(&keystore), &Hold { backup: 5 })
            .unwrap();
    }
    let refused = statement(
        2,
        Command::UpdateKeystore {
            id: KS,
            config: config(&["did:a"], 7),
        },
        1,
    );
    let outcome = run(&mut state, &endorsed(refused, &[(1, NOW), (3, NOW)]));
    assert!(matches!(outcome, Outcome::Refused(Rejection::Sequence)));
    assert_eq!(query::hold(&state, &KS).unwrap(), Some(Hold { backup: 5 }));
    let update = statement(
        3,
        Command::UpdateKeystore {
            id: KS,
            config: config(&["did:a"], 1),
        },
        1,
    );
    let outcome = run(&mut state, &endorsed(update, &[(1, NOW), (3, NOW)]));
    assert!(matches!(outcome, Outcome::Applied(_)));
    assert_eq!(query::hold(&state, &KS).unwrap(), None);
    assert_eq!(query::hold(&state, &other).unwrap(), Some(Hold { backup: 5 }));
}

/// Found by the fuzz target `entry`: times at the end of the clock, endorsed by a quorum, overflowed.
#[test]
fn no_time_that_is_endorsed_overflows() {
    for time in [NOW, u64::MAX] {
        let mut create = create(1);
        create.expires = u64::MAX;
        let mut state = State::new();
        let made = run(&mut state, &endorsed(create, &[(1, time), (2, time)]));
        assert_eq!(made, Outcome::Applied(Reply::Keystore(KS)));
        let born = run(
            &mut state,
            &endorsed(generate(2, &[1, 2], u64::MAX), &[(1, time), (2, time)]),
        );
        assert!(matches!(born, Outcome::Applied(Reply::Key(..))), "{born:?}");
    }
}
