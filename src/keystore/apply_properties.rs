//! Apply over random logs: equal logs give equal bytes, what is not endorsed leaves no trace, nothing acknowledged
//! is lost, no tenant touches another.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::apply::{apply, request_hash};
use super::apply_tests::{GROUP, NOW, State, config, key, members, rosters};
use super::command::{Command, GeneratedKey};
use super::entry::{Entry, Statement};
use super::layout;
use super::outcome::{Outcome, Rejection};
use super::query;
use super::record::{KeyRecord, KeyType, KeystoreRecord, Material, RevocationRecord};
use super::state::decode;
use crate::identifier::{LocalId, OperationId};

/// What one step of a log is made from; small ranges, so that names, operations and versions meet again.
#[derive(Clone, Debug)]
struct Step {
    kind: u8,
    keystore: u8,
    item: u8,
    operation: u8,
    name: u8,
    /// How far the endorsed time moves from the group's, ms.
    moves: i64,
    /// Added to the version and sequence that would fit.
    off: u64,
    signers: Vec<(u64, u64)>,
    chained: bool,
    tamper: u8,
}

fn step() -> impl Strategy<Value = Step> {
    let signers = prop::sample::select(vec![
        vec![(1, 0), (2, 0)],
        vec![(1, 0), (3, 900)],
        vec![(2, 4_000), (3, 0)],
        vec![(1, 0), (2, 10), (3, 20)],
        vec![(2, 0)],
        vec![(2, 0), (2, 0)],
        vec![(1, 0), (7, 0)],
        vec![(1, 0), (2, 6_000)],
    ]);
    let time = prop::sample::select(vec![0, 0, 500, 2_500, 9_000, -9_000, -11_000, 40_000, 700_000]);
    let off = prop::sample::select(vec![0, 0, 0, 0, 1]);
    let tamper = prop::sample::select(vec![0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5]);
    let numbers = (0u8..12, 0u8..3, 0u8..4, 0u8..40, 0u8..12);
    (numbers, time, off, signers, any::<bool>(), tamper).prop_map(
        |((kind, keystore, item, operation, name), moves, off, signers, chained, tamper)| Step {
            kind,
            keystore,
            item,
            operation,
            name,
            moves,
            off,
            signers,
            chained,
            tamper,
        },
    )
}

fn capability(item: u8) -> String {
    format!("urn:uuid:{item}")
}

impl Step {
    fn keystore(&self) -> LocalId {
        LocalId([self.keystore + 1; 16])
    }

    fn command(&self, stored: Option<&KeystoreRecord>, time: u64) -> Command {
        let id = self.keystore();
        let controllers = [format!("did:{}", self.item)];
        let controllers = [controllers[0].as_str()];
        match self.kind {
            0 => Command::Time,
            1 => Command::CreateMeter {
                id: LocalId([self.item; 16]),
                controller: "did:m".into(),
                product: "p".into(),
            },
            2..=4 => Command::CreateKeystore {
                id,
                config: config(&controllers, 0),
            },
            5 | 6 => {
                let sequence = stored.map_or(0, |record| record.config.sequence) + 1 + self.off;
                Command::UpdateKeystore {
                    id,
                    config: config(&controllers, sequence),
                }
            }
            7 | 8 => Command::Revoke {
                keystore: id,
                capability: capability(self.item),
                delegator: "did:d".into(),
                expires: time + 600_000,
                revoker: self.chained.then(|| "did:r".into()),
            },
            _ => Command::GenerateKey(Box::new(GeneratedKey {
                keystore: id,
                key: LocalId([self.operation; 16]),
                key_type: KeyType::MultikeyEd25519,
                alias: None,
                max_chain_length: None,
                epoch: 0,
                session: [self.name; 32],
                start: time.saturating_sub(u64::from(self.item) * 11_000),
                configuration: 1 + self.off,
                participants: self.signers.iter().map(|(node, _)| *node).collect(),
                away: Vec::new(),
                transcript: [0; 32],
                material: Material::Pair {
                    commitment: vec![self.item],
                    public_key: [self.item; 32],
                },
            })),
        }
    }

    /// The entry that this step proposes to a group in this state.
    fn entry(&self, state: &State) -> Entry {
        let last = query::last_time(state).unwrap().max(NOW);
        let time = last.saturating_add_signed(self.moves);
        let stored = query::keystore(state, &self.keystore()).unwrap();
        let command = self.command(stored.as_ref(), time);
        let version = match command.keystore() {
            Some(_) => stored.map_or(0, |record| record.version) + self.off,
            None => 0,
        };
        let request = vec![self.name, self.kind];
        let statement = Statement {
            cluster: members().cluster,
            group: GROUP,
            operation: OperationId {
                node: 1,
                boot: 1,
                counter: self.operation.into(),
            },
            request: request_hash(&request),
            name: [self.name; 32],
            expires: time + 300_000,
            command,
            state_version: version,
            chain: match self.chained {
                true => vec![(capability(self.item), "did:d".into())],
                false => Vec::new(),
            },
        };
        let endorse = |(node, later): &(u64, u64)| statement.endorse(*node, &key(*node), time + later);
        let endorsements = self.signers.iter().map(endorse).collect();
        let mut entry = Entry {
            statement,
            request,
            endorsements,
        };
        match self.tamper {
            1 => entry.statement.group += 1,
            2 => entry.statement.cluster[0] ^= 1,
            3 => entry.statement.expires += 1,
            4 => entry.endorsements[0].time += 1,
            5 => entry.endorsements[0].signature[40] ^= 1,
            _ => {}
        }
        entry
    }

    /// Whether no honest committee could have signed this entry.
    fn is_forged(&self) -> bool {
        let mut nodes: Vec<u64> = self.signers.iter().map(|(node, _)| *node).collect();
        nodes.sort_unstable();
        nodes.dedup();
        let far = self.signers.iter().any(|(_, later)| *later > 5_000);
        self.tamper != 0 || far || nodes.len() < self.signers.len() || nodes.len() < 2 || nodes.contains(&7)
    }
}

/// The records under one letter, decoded.
fn records<T: serde::de::DeserializeOwned>(state: &State, letter: u8) -> BTreeMap<Vec<u8>, T> {
    let of_letter = state.iter().filter(|(key, _)| key[0] == letter);
    of_letter
        .map(|(key, value)| (key.clone(), decode(value).unwrap()))
        .collect()
}

/// What holds between the states before and after one entry.
fn check(before: &State, after: &State, step: &Step, entry: &Entry, outcome: &Outcome) {
    let (was, is) = (
        query::last_time(before).unwrap(),
        query::last_time(after).unwrap(),
    );
    assert!(was <= is, "time ran back");
    let traceless = matches!(
        outcome,
        Outcome::Refused(Rejection::NotEndorsed(_) | Rejection::Stale) if was == is
    );
    if step.is_forged() {
        assert!(
            matches!(outcome, Outcome::Refused(Rejection::NotEndorsed(_))),
            "{outcome:?}"
        );
        assert!(traceless && before == after, "a forged entry left a trace");
    }
    let keystores: BTreeMap<Vec<u8>, KeystoreRecord> = records(after, b'k');
    for (at, old) in records::<KeystoreRecord>(before, b'k') {
        let new = keystores.get(&at).expect("a keystore was lost");
        let moved = new.version - old.version;
        assert_eq!(new.config.sequence - old.config.sequence, moved);
        assert!(moved <= 1, "more than one step");
        let named = entry
            .statement
            .command
            .keystore()
            .is_some_and(|id| at[1..] == id.0);
        assert!(
            moved == 0 && old == *new || named,
            "an entry for another tenant changed this one"
        );
    }
    let keys: BTreeMap<Vec<u8>, KeyRecord> = records(after, b'y');
    for (at, old) in records::<KeyRecord>(before, b'y') {
        assert_eq!(keys.get(&at), Some(&old), "a key changed or was lost");
    }
    for (at, old) in records::<RevocationRecord>(before, b'r') {
        assert!(
            after.contains_key(&at) || old.expires <= is,
            "a revocation was forgotten early"
        );
    }
    // The index of controllers says what the records say.
    for (at, record) in &keystores {
        let id = LocalId(at[1..].try_into().unwrap());
        for controller in &record.config.controllers {
            let found = query::controlled_by(after, controller, 100).unwrap();
            assert!(found.iter().any(|(other, _)| *other == id));
        }
    }
    let indexed = after.keys().filter(|key| key[0] == b'c').count();
    assert_eq!(
        indexed,
        keystores
            .values()
            .map(|record| record.config.controllers.len())
            .sum::<usize>()
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn equal_logs_give_equal_bytes_and_keep_every_promise(steps in prop::collection::vec(step(), 1..60)) {
        let members = rosters(members());
        let mut first = State::new();
        let mut log = Vec::new();
        for step in &steps {
            let entry = step.entry(&first);
            let before = first.clone();
            let outcome = apply(&entry, GROUP, &members, &mut first).unwrap();
            check(&before, &first, step, &entry, &outcome);
            log.push((entry.encode(), outcome));
        }
        // Another replica, which came by a snapshot in the middle.
        let mut second = State::new();
        for (at, (bytes, outcome)) in log.iter().enumerate() {
            if at == log.len() / 2 {
                second = second.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
            }
            let entry = Entry::decode(bytes).unwrap();
            prop_assert_eq!(&apply(&entry, GROUP, &members, &mut second).unwrap(), outcome);
        }
        prop_assert_eq!(&first, &second);
    }

    /// A leader may propose old entries again, in any order, for ever: nothing happens twice.
    #[test]
    fn an_entry_that_comes_again_changes_nothing(
        steps in prop::collection::vec(step(), 1..40),
        order in any::<prop::sample::Index>(),
    ) {
        let members = rosters(members());
        let mut state = State::new();
        let mut applied = Vec::new();
        for step in &steps {
            let entry = step.entry(&state);
            // One operation's outcome answers whatever else comes under its name: that did not apply this entry.
            let answered = state.contains_key(&layout::operation(&entry.statement.operation));
            let outcome = apply(&entry, GROUP, &members, &mut state).unwrap();
            if matches!(outcome, Outcome::Applied(_)) && !answered {
                applied.push(entry);
            }
        }
        let facts = |state: &State| -> State {
            let kept = state.iter().filter(|(key, _)| b"kymcnr".contains(&key[0]));
            kept.map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        let before = facts(&state);
        let length = applied.len().max(1);
        for at in 0..applied.len() {
            let entry = &applied[(at + order.index(length)) % length];
            apply(entry, GROUP, &members, &mut state).unwrap();
        }
        let after = facts(&state);
        for (key, value) in &before {
            // Names and revocations may be swept meanwhile; nothing else may go.
            prop_assert!(after.get(key) == Some(value) || b"nr".contains(&key[0]), "{key:?}");
        }
        for key in after.keys() {
            prop_assert!(before.contains_key(key), "{key:?}");
        }
    }
}
