//! Each rule of a renewal, with a test that fails without it.

use super::apply_tests::{GROUP, KS, NOW, State, endorsed, key, members, run, statement, with_keystore};
use super::command::{Command, GeneratedKey, MAX_RENEWED, RenewedKey, RenewedShares};
use super::entry::{Entry, EntryError};
use super::outcome::{Outcome, Rejection, Reply};
use super::query;
use super::record::{KeyRecord, KeyType, Material};
use crate::format::{FIRST, NEWEST};
use crate::identifier::LocalId;

const EVERYBODY: [(u64, u64); 3] = [(1, NOW), (2, NOW), (3, NOW)];

fn material(commitment: u8, public_key: u8) -> Material {
    Material::Pair {
        commitment: vec![commitment],
        public_key: [public_key; 32],
    }
}

fn id(number: u8) -> LocalId {
    LocalId([number; 16])
}

/// A keystore with keys 1 to `keys`, each of session [number; 32]; the last member was away.
fn with_keys(keys: u8) -> State {
    let mut state = with_keystore();
    for number in 1..=keys {
        let command = Command::GenerateKey(Box::new(GeneratedKey {
            keystore: KS,
            key: id(number),
            key_type: KeyType::MultikeyEd25519,
            alias: None,
            max_chain_length: Some(3),
            epoch: 0,
            session: [number; 32],
            start: NOW,
            configuration: 1,
            participants: vec![1, 2],
            away: vec![3],
            transcript: [0; 32],
            material: material(number, number),
        }));
        let made = run(
            &mut state,
            &endorsed(statement(u64::from(number), command, 1), &[(1, NOW), (2, NOW)]),
        );
        assert!(matches!(made, Outcome::Applied(_)), "{made:?}");
    }
    state
}

fn next(number: u8) -> RenewedKey {
    RenewedKey {
        key: id(number),
        replaces: [number; 32],
        epoch: 1,
        session: [number | 0x80; 32],
        transcript: [7; 32],
        material: material(number | 0x80, number),
    }
}

fn renewal(keys: Vec<RenewedKey>) -> RenewedShares {
    RenewedShares {
        keystore: KS,
        start: NOW,
        configuration: 1,
        participants: vec![1, 2, 3],
        keys,
    }
}

fn entry(renewed: RenewedShares, by: &[(u64, u64)]) -> Entry {
    let command = Command::RenewShares(Box::new(renewed));
    endorsed(statement(90, command, 1), by)
}

fn record(state: &State, number: u8) -> KeyRecord {
    query::key(state, &KS, &id(number)).unwrap().unwrap()
}

fn changes_nothing(state: &State, entry: &Entry, expected: &Rejection) {
    let mut after = state.clone();
    assert_eq!(run(&mut after, entry), Outcome::Refused(expected.clone()));
    for number in 1..=2 {
        assert_eq!(record(state, number), record(&after, number), "{expected:?}");
    }
}

fn not_endorsed(entry: &Entry, reason: &str) {
    let state = with_keys(2);
    changes_nothing(&state, entry, &Rejection::NotEndorsed(reason.into()));
}

#[test]
fn keys_get_their_next_shares_and_stay_the_same_keys() {
    let mut state = with_keys(3);
    let later = EVERYBODY.map(|(node, time)| (node, time + 2_000));
    let outcome = run(&mut state, &entry(renewal(vec![next(1), next(2)]), &later));
    assert_eq!(outcome, Outcome::Applied(Reply::Renewed(KS)));
    for number in [1, 2] {
        let renewed = record(&state, number);
        assert_eq!((renewed.epoch, renewed.session), (1, [number | 0x80; 32]));
        assert_eq!(renewed.material, material(number | 0x80, number));
        assert_eq!((renewed.max_chain_length, renewed.created), (Some(3), NOW));
        assert!(renewed.away.is_empty(), "everybody has a share of this epoch");
        let shared = query::shared_at(&state, &KS, &id(number), &renewed).unwrap();
        assert_eq!(shared, NOW + 2_000);
    }
    let untouched = record(&state, 3);
    assert_eq!((untouched.epoch, untouched.away.clone()), (0, vec![3]));
    assert_eq!(query::shared_at(&state, &KS, &id(3), &untouched).unwrap(), NOW);
}

#[test]
fn every_member_takes_part_and_signs() {
    not_endorsed(
        &entry(renewal(vec![next(1)]), &EVERYBODY[..2]),
        "a participant of the ceremony has not signed",
    );
    let mut without = renewal(vec![next(1)]);
    without.participants = vec![1, 2];
    not_endorsed(
        &entry(without.clone(), &EVERYBODY),
        "a renewal without some member",
    );
    without.participants = vec![1, 2, 2];
    not_endorsed(&entry(without, &EVERYBODY), "a renewal without some member");
}

#[test]
fn a_renewal_has_some_keys_and_not_too_many() {
    let reason = "a renewal of no keys, or of too many";
    not_endorsed(&entry(renewal(Vec::new()), &EVERYBODY), reason);
    let many = vec![next(1); MAX_RENEWED + 1];
    not_endorsed(&entry(renewal(many), &EVERYBODY), reason);
}

#[test]
fn only_the_next_epoch_of_the_same_key_follows() {
    let state = with_keys(2);
    let wrong = |change: fn(&mut RenewedKey)| {
        let mut new = next(2);
        change(&mut new);
        let renewed = entry(renewal(vec![next(1), new]), &EVERYBODY);
        changes_nothing(&state, &renewed, &Rejection::EpochPassed);
    };
    wrong(|new| new.epoch = 2);
    wrong(|new| new.epoch = 0);
    wrong(|new| new.replaces = [9; 32]);
    wrong(|new| new.material = material(2, 99));
    wrong(|new| *new = next(1));
    let missing = entry(renewal(vec![next(1), next(5)]), &EVERYBODY);
    changes_nothing(&state, &missing, &Rejection::Missing);
}

#[test]
fn two_renewals_of_one_epoch_make_one() {
    let mut state = with_keys(2);
    run(&mut state, &entry(renewal(vec![next(1)]), &EVERYBODY));
    let mut other = next(1);
    other.session = [0x55; 32];
    let mut late = entry(renewal(vec![other]), &EVERYBODY);
    late.statement.operation.counter += 1;
    late.request = late.statement.operation.counter.to_be_bytes().to_vec();
    late.statement.request = super::apply::request_hash(&late.request);
    late.endorsements = EVERYBODY
        .map(|(node, time)| late.statement.endorse(node, &key(node), time))
        .to_vec();
    let outcome = run(&mut state, &late);
    assert_eq!(outcome, Outcome::Refused(Rejection::EpochPassed));
    assert_eq!(record(&state, 1).session, [0x81; 32]);
}

#[test]
fn a_renewal_dies_with_its_configuration_and_its_time() {
    let state = with_keys(2);
    let mut other = renewal(vec![next(1)]);
    other.configuration = 2;
    changes_nothing(
        &state,
        &entry(other, &EVERYBODY),
        &Rejection::ConfigurationChanged,
    );
    let mut old = renewal(vec![next(1)]);
    old.start = NOW - 30_001;
    changes_nothing(&state, &entry(old, &EVERYBODY), &Rejection::Stale);
}

/// A build of the format before must halt at what it does not know, not skip it.
#[test]
fn an_entry_of_every_known_format_is_read_and_a_later_one_is_no_garbage() {
    let renewed = entry(renewal(vec![next(1)]), &EVERYBODY);
    for format in FIRST..=NEWEST {
        let bytes = renewed.encode_in(format).unwrap();
        assert_eq!(bytes[0], format);
        assert_eq!(Entry::decode(&bytes).unwrap(), renewed);
    }
    assert_eq!(
        (renewed.encode_in(0), renewed.encode_in(NEWEST + 1)),
        (None, None)
    );
    for unknown in [0, NEWEST + 1, 255] {
        let mut bytes = renewed.encode();
        bytes[0] = unknown;
        assert!(matches!(
            Entry::decode(&bytes),
            Err(EntryError::UnknownFormat(format)) if format == unknown
        ));
    }
    assert!(matches!(Entry::decode(&[]), Err(EntryError::Malformed)));
    assert_eq!(members().members.len(), EVERYBODY.len());
    assert_eq!(renewed.statement.group, GROUP);
}
