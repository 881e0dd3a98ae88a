//! Log entries of a keystore: decoded, applied as they came, and applied with the endorsements of a quorum.

use std::collections::BTreeMap;

use conclave::identifier::{LocalId, OperationId};
use conclave::keystore::apply::{apply, is_endorsed, request_hash};
use conclave::keystore::command::{GeneratedKey, RenewedKey, RenewedShares};
use conclave::keystore::entry::EntryError;
use conclave::keystore::query::last_time;
use conclave::keystore::record::{KeyType, Material, Sharing};
use conclave::keystore::unknown;
use conclave::keystore::{
    Command, Endorsement, Entry, KeystoreConfig, Outcome, Rejection, Rosters, Statement,
};
use conclave::membership::{Member, Membership};
use ed25519_dalek::SigningKey;

use super::{Seed, Target, seed};
use crate::support::input::{Input, Output};

pub(super) const TARGET: Target = Target {
    name: "entry",
    longest: 4_096,
    mutations: 800,
    run,
    seeds,
};

/// All three members endorse.
const ALL: u8 = 7;
const GROUP: u32 = 3;
const CLUSTER: [u8; 32] = [9; 32];
const NOW: u64 = 1_780_315_205_000;

type State = BTreeMap<Vec<u8>, Vec<u8>>;

/// Who endorses, and chunks, each an encoded entry: they are applied one after the other.
fn run(bytes: &[u8]) -> bool {
    let (rosters, mut input) = (Rosters::new(std::sync::Arc::new(membership())), Input(bytes));
    let (mut state, mut is_applied) = (State::new(), false);
    while !input.is_empty() {
        let (endorsers, encoded) = (input.byte(), input.chunk());
        let entry = match Entry::decode(encoded) {
            Ok(entry) => entry,
            Err(EntryError::UnknownFormat(format)) => {
                assert_eq!(encoded.first(), Some(&format));
                let roster = rosters.of(&state).expect("a state in memory");
                unknown::is_endorsed(encoded, &roster);
                continue;
            }
            Err(EntryError::Malformed) => continue,
        };
        let written = entry.encode();
        let again = Entry::decode(&written).expect("what is written is read");
        assert_eq!(again, entry);
        applied(&entry, &rosters, &mut state);
        is_applied |= applied(&endorsed(entry, endorsers), &rosters, &mut state);
    }
    is_applied
}

/// Applies it, twice as a retry would.
fn applied(entry: &Entry, rosters: &Rosters, state: &mut State) -> bool {
    let before = state.clone();
    let time = last_time(state).expect("a state in memory");
    let outcome = apply(entry, GROUP, rosters, state).expect("a state in memory");
    let mut other = before.clone();
    let again = apply(entry, GROUP, rosters, &mut other).expect("a state in memory");
    assert_eq!(
        (&again, &other),
        (&outcome, &*state),
        "every replica comes to the same bytes"
    );
    assert!(
        last_time(state).expect("a state in memory") >= time,
        "time never runs back"
    );
    let mut endorsers: Vec<u64> = entry
        .endorsements
        .iter()
        .map(|endorsement| endorsement.node)
        .collect();
    endorsers.sort_unstable();
    endorsers.dedup();
    let roster = rosters.of(&before).expect("a state in memory");
    let is_endorsed = is_endorsed(entry, GROUP, &roster);
    if endorsers.len() < roster.current.quorum() {
        assert!(!is_endorsed, "by fewer than a quorum");
    }
    if !is_endorsed {
        assert!(matches!(outcome, Outcome::Refused(Rejection::NotEndorsed(_))));
        assert_eq!(before, *state, "what is not endorsed leaves no trace");
        return false;
    }
    let is_final = !matches!(&outcome, Outcome::Refused(rejection) if rejection.is_stale());
    if is_final && !matches!(entry.statement.command, Command::Time) {
        let retried = apply(entry, GROUP, rosters, &mut other).expect("a state in memory");
        let is_forgotten = matches!(&retried, Outcome::Refused(rejection) if rejection.is_stale());
        assert!(
            retried == outcome || is_forgotten,
            "a retry finds {outcome:?}, not {retried:?}"
        );
    }
    matches!(outcome, Outcome::Applied(_))
}

/// The entry as members endorse it, each at the time that it says: a bit for each of them, and one for one that does it
/// twice.
fn endorsed(mut entry: Entry, endorsers: u8) -> Entry {
    entry.statement.cluster = CLUSTER;
    entry.statement.group = GROUP;
    if !matches!(entry.statement.command, Command::Time) {
        entry.statement.request = request_hash(&entry.request);
    }
    let time = |at: usize| {
        entry
            .endorsements
            .get(at)
            .map_or(NOW, |endorsement| endorsement.time)
    };
    let bits = (0..4usize).filter(|bit| endorsers >> bit & 1 == 1);
    let endorsements: Vec<Endorsement> = bits
        .map(|bit| {
            let node = 1 + (bit % 3) as u8;
            entry.statement.endorse(node.into(), &key(node), time(bit))
        })
        .collect();
    entry.endorsements = endorsements;
    entry
}

fn key(node: u8) -> SigningKey {
    SigningKey::from_bytes(&[node; 32])
}

fn membership() -> Membership {
    let member = |node: u8| Member {
        node: node.into(),
        index: node.into(),
        address: String::new(),
        verifying_key: key(node).verifying_key(),
        envelope_key: [node; 32],
    };
    Membership {
        cluster: CLUSTER,
        index: 1,
        members: (1..=3).map(member).collect(),
        operators: vec![key(9).verifying_key()],
        operator_threshold: 1,
        ..Membership::default()
    }
}

fn seeds() -> Vec<Seed> {
    let (keystore, meter) = (LocalId([1; 16]), LocalId([2; 16]));
    let config = |sequence| KeystoreConfig {
        controllers: vec!["did:key:a".into(), "did:key:b".into()],
        single_controller: false,
        meter,
        sequence,
        kms_module: "ssm-v1".into(),
        ip_allow_list: Some(vec!["10.0.0.0/8".into()]),
    };
    let create = Command::CreateKeystore {
        id: keystore,
        config: config(0),
    };
    let update = Command::UpdateKeystore {
        id: keystore,
        config: config(1),
    };
    let revoke = |revoker: Option<&str>| Command::Revoke {
        keystore,
        capability: "urn:uuid:1".into(),
        delegator: "did:key:a".into(),
        expires: NOW + 90_000_000,
        revoker: revoker.map(str::to_owned),
    };
    let key = |key, key_type, material| GeneratedKey {
        keystore,
        key: LocalId([key; 16]),
        key_type,
        alias: None,
        max_chain_length: Some(3),
        epoch: 0,
        session: [key; 32],
        start: NOW,
        configuration: 1,
        participants: vec![1, 2, 3],
        away: vec![],
        transcript: [8; 32],
        material,
    };
    let pair = Material::Pair {
        commitment: vec![1; 8],
        public_key: [7; 32],
    };
    let pieces = Material::Pieces(Sharing {
        holders: vec![1, 2, 3],
        pieces: vec![[1; 32]; 3],
        correction: [2; 32],
        inner: Some([4; 32]),
        check: [3; 16],
    });
    let meter = Command::CreateMeter {
        id: meter,
        controller: "did:key:a".into(),
        product: "urn:p".into(),
    };
    let made = |key| Command::GenerateKey(Box::new(key));
    let renewal = Command::RenewShares(Box::new(RenewedShares {
        keystore,
        start: NOW,
        configuration: 1,
        participants: vec![1, 2, 3],
        keys: vec![RenewedKey {
            key: LocalId([5; 16]),
            replaces: [5; 32],
            epoch: 1,
            session: [9; 32],
            transcript: [8; 32],
            material: pair.clone(),
        }],
    }));
    let pair = made(key(5, KeyType::Ed25519VerificationKey2020, pair));
    let symmetric = made(key(6, KeyType::Sha256HmacKey2019, pieces));
    vec![
        seed(
            "end-of-time",
            entries_until(u64::MAX, ALL, &[(create.clone(), 0)]),
        ),
        seed("one-endorser", entries(1, &[(create.clone(), 0)])),
        seed("one-twice", entries(9, &[(create.clone(), 0)])),
        seed("meter", entries(ALL, &[(meter, 0), (Command::Time, 0)])),
        seed("keystore", entries(ALL, &[(create.clone(), 0), (update, 1)])),
        seed(
            "keys",
            entries(ALL, &[(create.clone(), 0), (pair.clone(), 1), (symmetric, 1)]),
        ),
        seed(
            "renewal",
            entries(ALL, &[(create.clone(), 0), (pair, 1), (renewal, 1)]),
        ),
        seed(
            "revocations",
            entries(
                ALL,
                &[(create, 0), (revoke(None), 1), (revoke(Some("did:key:c")), 1)],
            ),
        ),
    ]
}

fn entries(endorsers: u8, commands: &[(Command, u64)]) -> Vec<u8> {
    entries_until(NOW + 600_000, endorsers, commands)
}

fn entries_until(expires: u64, endorsers: u8, commands: &[(Command, u64)]) -> Vec<u8> {
    let mut output = Output::default();
    for (number, (command, state_version)) in (1..).zip(commands) {
        let statement = Statement {
            cluster: CLUSTER,
            group: GROUP,
            operation: OperationId {
                node: 1,
                boot: 1,
                counter: number,
            },
            request: [0; 32],
            name: [number as u8; 32],
            expires,
            command: command.clone(),
            state_version: *state_version,
            chain: vec![("urn:uuid:9".into(), "did:key:a".into())],
        };
        let entry = Entry {
            statement,
            request: number.to_be_bytes().to_vec(),
            endorsements: vec![],
        };
        output = output.byte(endorsers).chunk(&endorsed(entry, endorsers).encode());
    }
    output.0
}
