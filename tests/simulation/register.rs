//! What a keystore is to its clients, one call after the other: a configuration that is replaced by whoever knows the
//! last one, keys that appear once, shares that are replaced once, revocations that stand. Every change names the
//! state version that it rests on, and has to find it (trust.md 2).

use std::collections::{BTreeMap, BTreeSet};

use conclave::identifier::LocalId;
use conclave_simulator::linearizability::{Model, Operation};

/// Names the shares of one ceremony.
pub(crate) type Session = [u8; 32];

/// What a client or the renewal of shares asks.
#[derive(Clone, Debug)]
pub(crate) enum Call {
    Create,
    Update {
        version: u64,
    },
    Generate {
        version: u64,
        key: LocalId,
        session: Session,
    },
    Revoke {
        version: u64,
        capability: String,
    },
    /// All of them, or none.
    Renew {
        version: u64,
        keys: Vec<Renewed>,
    },
    /// A use that a quorum granted with these shares, to the controller at `by` or to a delegation of that controller.
    Use {
        key: LocalId,
        session: Session,
        by: u64,
        capability: Option<String>,
    },
    /// All of it.
    Read,
}

/// New shares of a key.
#[derive(Clone, Debug)]
pub(crate) struct Renewed {
    pub(crate) key: LocalId,
    pub(crate) replaces: Session,
    pub(crate) session: Session,
}

/// What was answered.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Done,
    /// The state had another version.
    Passed,
    AlreadyRevoked,
    /// A key had other shares than those that were to be replaced.
    OtherShares,
    Seen(State),
}

/// What a keystore remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct State {
    /// 0 before it was created; else the configuration's sequence and one.
    pub(crate) version: u64,
    pub(crate) keys: BTreeMap<LocalId, Session>,
    pub(crate) revoked: BTreeSet<String>,
}

/// See the module.
pub(crate) struct Keystore;

impl State {
    /// The state after a change that was made, if it could be.
    fn changed(&self, call: &Call) -> Option<State> {
        let mut after = self.clone();
        let (rests_on, fits) = match call {
            Call::Create => {
                after.version = 1;
                (0, true)
            }
            Call::Update { version } => {
                after.version += 1;
                (*version, true)
            }
            Call::Generate {
                version,
                key,
                session,
            } => (*version, after.keys.insert(*key, *session).is_none()),
            Call::Revoke { version, capability } => (*version, after.revoked.insert(capability.clone())),
            Call::Renew { version, keys } => {
                for new in keys {
                    after.keys.insert(new.key, new.session);
                }
                (*version, self.has_shares(keys))
            }
            Call::Use { .. } | Call::Read => return None,
        };
        (fits && rests_on == self.version).then_some(after)
    }

    /// Whether all of these replace what is there.
    fn has_shares(&self, keys: &[Renewed]) -> bool {
        keys.iter()
            .all(|new| self.keys.get(&new.key) == Some(&new.replaces))
    }

    fn allows(&self, call: &Call) -> bool {
        match call {
            Call::Use {
                key,
                session,
                by,
                capability,
            } => {
                self.version == by + 1
                    && self.keys.get(key) == Some(session)
                    && capability.iter().all(|id| !self.revoked.contains(id))
            }
            _ => false,
        }
    }

    /// The version that a change rests on.
    fn version_of(call: &Call) -> Option<u64> {
        match call {
            Call::Create => Some(0),
            Call::Update { version }
            | Call::Generate { version, .. }
            | Call::Revoke { version, .. }
            | Call::Renew { version, .. } => Some(*version),
            Call::Use { .. } | Call::Read => None,
        }
    }
}

impl Model for Keystore {
    type State = State;
    type Call = Call;
    type Answer = Answer;

    fn initial(&self) -> State {
        State::default()
    }

    fn step(&self, state: &State, call: &Call, answer: Option<&Answer>) -> Option<State> {
        let unchanged = |holds: bool| holds.then(|| state.clone());
        match (call, answer) {
            (Call::Use { .. }, Some(Answer::Done)) => unchanged(state.allows(call)),
            (_, Some(Answer::Done) | None) => state.changed(call),
            (_, Some(Answer::Passed)) => unchanged(State::version_of(call) != Some(state.version)),
            (Call::Revoke { capability, .. }, Some(Answer::AlreadyRevoked)) => {
                unchanged(state.revoked.contains(capability))
            }
            (Call::Renew { keys, .. }, Some(Answer::OtherShares)) => unchanged(!state.has_shares(keys)),
            (Call::Read, Some(Answer::Seen(seen))) => unchanged(seen == state),
            _ => None,
        }
    }
}

/// Whether a call without an answer may have to be in the order: somebody may have seen what it did.
pub(crate) fn matters(call: &Call, history: &[&Operation<Call, Answer>]) -> bool {
    let seen = |of: &dyn Fn(&State) -> bool| {
        let mut answers = history.iter().filter_map(|other| other.returned.as_ref());
        answers.any(|(_, answer)| matches!(answer, Answer::Seen(state) if of(state)))
    };
    let used = |made: &Session| {
        history.iter().any(|other| match &other.call {
            Call::Use { session, .. } => session == made,
            Call::Renew { keys, .. } => keys.iter().any(|new| new.replaces == *made),
            _ => false,
        })
    };
    let answered_so = |of: &dyn Fn(&Call, &Answer) -> bool| {
        let answered = |other: &&&Operation<Call, Answer>| {
            (other.returned.as_ref()).is_some_and(|(_, answer)| of(&other.call, answer))
        };
        history.iter().any(|other| answered(&other))
    };
    match call {
        Call::Generate { session, .. } => {
            used(session) || seen(&|state| state.keys.values().any(|made| made == session))
        }
        Call::Renew { keys, .. } => {
            let made = |session: &Session| keys.iter().any(|new| new.session == *session);
            let of_these = |other: &Renewed| keys.iter().any(|new| new.key == other.key);
            let passed = |other: &Call, answer: &Answer| match (other, answer) {
                (Call::Renew { keys, .. }, Answer::OtherShares) => keys.iter().any(of_these),
                _ => false,
            };
            keys.iter().any(|new| used(&new.session))
                || seen(&|state| state.keys.values().any(made))
                || answered_so(&passed)
        }
        Call::Revoke { capability, .. } => {
            let again = |other: &Call, answer: &Answer| matches!((other, answer), (Call::Revoke { capability: of, .. }, Answer::AlreadyRevoked) if of == capability);
            seen(&|state| state.revoked.contains(capability)) || answered_so(&again)
        }
        Call::Create | Call::Update { .. } => true,
        Call::Use { .. } | Call::Read => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use conclave_simulator::linearizability::check;

    const KEY: LocalId = LocalId([1; 16]);
    const BIRTH: Session = [1; 32];
    const NEXT: Session = [2; 32];

    /// One after the other, each before the next begins.
    fn in_a_row(calls: Vec<(Call, Answer)>) -> Vec<Operation<Call, Answer>> {
        let at = |(place, (call, answer)): (usize, (Call, Answer))| Operation {
            call,
            invoked: 2 * place as u64,
            returned: Some((2 * place as u64 + 1, answer)),
        };
        calls.into_iter().enumerate().map(at).collect()
    }

    fn born(then: Vec<(Call, Answer)>) -> Vec<Operation<Call, Answer>> {
        let (version, key, session) = (1, KEY, BIRTH);
        let generate = Call::Generate {
            version,
            key,
            session,
        };
        let begun = vec![(Call::Create, Answer::Done), (generate, Answer::Done)];
        in_a_row(begun.into_iter().chain(then).collect())
    }

    fn accepts(then: Vec<(Call, Answer)>) -> bool {
        check(&Keystore, &born(then)).is_ok()
    }

    fn renew(replaces: Session, session: Session) -> Call {
        let key = KEY;
        let new = Renewed {
            key,
            replaces,
            session,
        };
        Call::Renew {
            version: 1,
            keys: vec![new],
        }
    }

    fn revoke(version: u64) -> Call {
        let capability = "urn:c".into();
        Call::Revoke { version, capability }
    }

    fn used(session: Session, by: u64, capability: Option<&str>) -> (Call, Answer) {
        let capability = capability.map(Into::into);
        let call = Call::Use {
            key: KEY,
            session,
            by,
            capability,
        };
        (call, Answer::Done)
    }

    fn read(version: u64, session: Session, revoked: &[&str]) -> (Call, Answer) {
        let revoked = revoked.iter().map(|id| (*id).into()).collect();
        let keys = BTreeMap::from([(KEY, session)]);
        let state = State {
            version,
            keys,
            revoked,
        };
        (Call::Read, Answer::Seen(state))
    }

    #[test]
    fn what_a_keystore_does_is_accepted() {
        let update = |version| Call::Update { version };
        assert!(accepts(vec![
            used(BIRTH, 0, Some("urn:c")),
            (revoke(1), Answer::Done),
            (revoke(1), Answer::AlreadyRevoked),
            used(BIRTH, 0, Some("urn:other")),
            (renew(BIRTH, NEXT), Answer::Done),
            (renew(BIRTH, [3; 32]), Answer::OtherShares),
            used(NEXT, 0, None),
            (update(1), Answer::Done),
            (update(1), Answer::Passed),
            used(NEXT, 1, None),
            read(2, NEXT, &["urn:c"]),
        ]));
    }

    #[test]
    fn what_a_keystore_does_not_do_is_refused() {
        let update = |version| (Call::Update { version }, Answer::Done);
        let refused: [(&str, Vec<(Call, Answer)>); 9] = [
            ("two winners of one sequence", vec![update(1), update(1)]),
            ("a sequence that skips one", vec![update(2)]),
            ("a controller of before", vec![update(1), used(BIRTH, 0, None)]),
            (
                "a revoked delegation",
                vec![(revoke(1), Answer::Done), used(BIRTH, 0, Some("urn:c"))],
            ),
            (
                "shares of before",
                vec![(renew(BIRTH, NEXT), Answer::Done), used(BIRTH, 0, None)],
            ),
            (
                "shares that are replaced twice",
                vec![
                    (renew(BIRTH, NEXT), Answer::Done),
                    (renew(BIRTH, [3; 32]), Answer::Done),
                ],
            ),
            ("a read of before", vec![update(1), read(1, BIRTH, &[])]),
            (
                "a lost revocation",
                vec![(revoke(1), Answer::Done), read(1, BIRTH, &[])],
            ),
            (
                "a change by a version that has passed",
                vec![update(1), (revoke(1), Answer::Done)],
            ),
        ];
        for (what, calls) in refused {
            assert!(!accepts(calls), "{what}");
        }
    }

    #[test]
    fn a_call_without_an_answer_matters_if_somebody_saw_what_it_did() {
        let history = born(vec![read(1, BIRTH, &["urn:c"])]);
        let history: Vec<_> = history.iter().collect();
        assert!(matters(&revoke(1), &history));
        assert!(!matters(&revoke(1), &history[..2]));
        assert!(!matters(&renew(BIRTH, NEXT), &history));
        let later = born(vec![used(NEXT, 0, None)]);
        let later: Vec<_> = later.iter().collect();
        assert!(matters(&renew(BIRTH, NEXT), &later));
    }
}
