//! The rules for twins, retries and replays, one test each; numbers are those of trust.md, section 5.

use proptest::prelude::*;

use super::*;
use crate::audit::{self, Content, Entry, OperationId, Record};

const WALL_S: u64 = 1_700_000_000;
const START: Moment = Moment {
    mono_ms: 50_000,
    wall_ms: WALL_S * 1000,
};
const REPLAYED: Verdict = Verdict::Refused(Refusal::Replayed);

fn after(ms: u64) -> Moment {
    Moment {
        mono_ms: START.mono_ms + ms,
        wall_ms: START.wall_ms + ms,
    }
}

fn operation(node: u64, counter: u64) -> OperationId {
    OperationId {
        node,
        boot: 1,
        counter,
    }
}

fn guard_with(settings: Settings) -> ReplayGuard {
    let mut guard = ReplayGuard::new(settings, [5; 32], START);
    guard.restored();
    guard
}

fn guard() -> ReplayGuard {
    guard_with(Settings::default())
}

/// Name 1, brought by node 1 with this counter, as its first attempt.
fn sighting(counter: u64) -> Sighting {
    Sighting {
        name: [1; 32],
        operation: operation(1, counter),
        coordinator: 1,
        attempt: 0,
        kind: Kind::Plain,
        created: WALL_S,
        expires: WALL_S + 600,
    }
}

#[test]
fn rule_1_an_unknown_name_is_fresh() {
    let mut guard = guard();
    assert_eq!(guard.judge(&sighting(1), after(0)), Verdict::Fresh);
    assert_eq!(
        guard.judge(
            &Sighting {
                name: [2; 32],
                ..sighting(2)
            },
            after(1)
        ),
        Verdict::Fresh
    );
    assert_eq!(guard.len(), 2);
}

#[test]
fn rule_2_the_same_operation_may_come_four_times_in_ten_seconds() {
    let mut guard = guard();
    let attempt = |attempt| Sighting {
        attempt,
        ..sighting(1)
    };
    assert_eq!(guard.judge(&attempt(0), after(0)), Verdict::Fresh);
    assert_eq!(guard.judge(&attempt(0), after(10)), Verdict::Repeat);
    assert_eq!(guard.judge(&attempt(1), after(3_000)), Verdict::Retry);
    assert_eq!(guard.judge(&attempt(2), after(9_000)), Verdict::Retry);
    assert_eq!(guard.judge(&attempt(1), after(9_500)), Verdict::Repeat);
    assert_eq!(guard.judge(&attempt(3), after(10_000)), Verdict::Retry);
    assert_eq!(guard.judge(&attempt(4), after(10_000)), REPLAYED);
    assert_eq!(guard.judge(&attempt(0), after(10_001)), REPLAYED);
}

#[test]
fn rule_2_is_for_its_own_coordinator_alone() {
    let mut guard = guard();
    assert_eq!(guard.judge(&sighting(1), after(0)), Verdict::Fresh);
    let stolen = Sighting {
        coordinator: 2,
        attempt: 1,
        ..sighting(1)
    };
    assert_eq!(guard.judge(&stolen, after(1)), REPLAYED);
}

#[test]
fn rule_2_does_not_reach_past_ten_seconds() {
    let mut guard = guard();
    assert_eq!(guard.judge(&sighting(1), after(0)), Verdict::Fresh);
    assert_eq!(
        guard.judge(
            &Sighting {
                attempt: 1,
                ..sighting(1)
            },
            after(10_001)
        ),
        REPLAYED
    );
}

#[test]
fn rule_3_another_operation_within_two_seconds_is_a_twin() {
    let mut guard = guard();
    assert_eq!(guard.judge(&sighting(1), after(0)), Verdict::Fresh);
    assert_eq!(guard.judge(&sighting(2), after(2_000)), Verdict::Twin);
    assert_eq!(guard.judge(&sighting(3), after(2_001)), REPLAYED);
    // A twin is retried as any other.
    assert_eq!(
        guard.judge(
            &Sighting {
                attempt: 1,
                ..sighting(2)
            },
            after(5_000)
        ),
        Verdict::Retry
    );
    assert_eq!(
        guard.judge(
            &Sighting {
                attempt: 1,
                ..sighting(3)
            },
            after(5_000)
        ),
        REPLAYED
    );
}

#[test]
fn rule_3_stops_at_sixteen() {
    let mut guard = guard();
    assert_eq!(guard.judge(&sighting(1), after(0)), Verdict::Fresh);
    for counter in 2..=16 {
        assert_eq!(guard.judge(&sighting(counter), after(100)), Verdict::Twin);
    }
    assert_eq!(guard.judge(&sighting(17), after(100)), REPLAYED);
}

#[test]
fn rule_3_a_secret_twin_from_another_coordinator_is_refused() {
    let secret = |coordinator, counter| Sighting {
        kind: Kind::Secret,
        coordinator,
        operation: operation(coordinator, counter),
        ..sighting(0)
    };
    let mut guard = guard();
    assert_eq!(guard.judge(&secret(1, 1), after(0)), Verdict::Fresh);
    assert_eq!(guard.judge(&secret(2, 1), after(1)), REPLAYED);
    assert_eq!(guard.judge(&secret(1, 2), after(2)), Verdict::Twin);
    // Refused it was: its retry is no retry.
    assert_eq!(
        guard.judge(
            &Sighting {
                attempt: 1,
                ..secret(2, 1)
            },
            after(3)
        ),
        REPLAYED
    );
    let plain = |coordinator| Sighting {
        kind: Kind::Plain,
        name: [9; 32],
        ..secret(coordinator, 5)
    };
    assert_eq!(guard.judge(&plain(1), after(3)), Verdict::Fresh);
    assert_eq!(guard.judge(&plain(2), after(4)), Verdict::Twin);
}

#[test]
fn without_twins_every_request_is_good_for_one_use() {
    let mut guard = guard_with(Settings {
        twins: Twins::None,
        ..Settings::default()
    });
    assert_eq!(guard.judge(&sighting(1), after(0)), Verdict::Fresh);
    assert_eq!(guard.judge(&sighting(2), after(0)), REPLAYED);
    assert_eq!(
        guard.judge(
            &Sighting {
                attempt: 1,
                ..sighting(1)
            },
            after(1)
        ),
        Verdict::Retry
    );
}

#[test]
fn rule_4_holds_until_expires_and_skew_and_then_the_request_is_expired() {
    let mut guard = guard();
    assert_eq!(guard.judge(&sighting(1), after(0)), Verdict::Fresh);
    for second in (11..1200).step_by(7) {
        let verdict = guard.judge(&sighting(2), after(second * 1000));
        let expected = if second < 900 {
            REPLAYED
        } else {
            Verdict::Refused(Refusal::Expired)
        };
        assert_eq!(verdict, expected, "after {second} s");
    }
    assert_eq!(guard.len(), 0);
}

#[test]
fn a_wall_clock_that_runs_back_brings_nothing_back() {
    let mut guard = guard();
    assert_eq!(guard.judge(&sighting(1), after(0)), Verdict::Fresh);
    guard.advance(after(1_000_000));
    let back = Moment {
        wall_ms: START.wall_ms,
        mono_ms: START.mono_ms + 1_000_001,
    };
    assert_eq!(
        guard.judge(&sighting(2), back),
        Verdict::Refused(Refusal::Expired)
    );
}

#[test]
fn nobody_can_have_a_name_remembered_for_long() {
    let mut guard = guard();
    let verdict = guard.judge(
        &Sighting {
            expires: WALL_S + 901,
            ..sighting(1)
        },
        after(0),
    );
    assert_eq!(verdict, Verdict::Refused(Refusal::ExpiresTooLate));
    let verdict = guard.judge(
        &Sighting {
            expires: u64::MAX,
            ..sighting(1)
        },
        after(0),
    );
    assert_eq!(verdict, Verdict::Refused(Refusal::ExpiresTooLate));
    assert_eq!(
        guard.judge(
            &Sighting {
                expires: WALL_S + 900,
                ..sighting(1)
            },
            after(0)
        ),
        Verdict::Fresh
    );
}

#[test]
fn at_the_bound_new_names_are_refused_and_none_is_forgotten() {
    let mut guard = guard_with(Settings {
        bound: 3,
        ..Settings::default()
    });
    let named = |byte| Sighting {
        name: [byte; 32],
        ..sighting(u64::from(byte))
    };
    for byte in 1..=3 {
        assert_eq!(guard.judge(&named(byte), after(0)), Verdict::Fresh);
    }
    assert_eq!(guard.judge(&named(4), after(0)), Verdict::Full);
    assert_eq!(
        guard.judge(
            &Sighting {
                attempt: 1,
                ..named(1)
            },
            after(1)
        ),
        Verdict::Retry
    );
    assert_eq!(guard.judge(&named(4), after(60_000)), Verdict::Full);
    for byte in 1..=3 {
        assert_eq!(guard.judge(&named(byte), after(60_000)), REPLAYED);
    }
    // A minute's set is dropped whole, and there is room again.
    let later = Sighting {
        created: WALL_S + 960,
        expires: WALL_S + 1560,
        ..named(4)
    };
    assert_eq!(guard.judge(&later, after(960_000)), Verdict::Fresh);
}

fn record(kind: audit::Kind, sighting: &Sighting, age_ms: u64) -> Record {
    let time_ms = START.wall_ms - age_ms;
    let mut entry = Entry::new(kind, time_ms, sighting.operation);
    (entry.name, entry.attempt) = (sighting.name, sighting.attempt);
    (entry.created, entry.expires) = (sighting.created, sighting.expires);
    let content = Content::Operation(Box::new(entry));
    Record {
        sequence: 1,
        synced: 0,
        time_ms,
        previous: [0; 32],
        hash: [0; 32],
        content,
    }
}

#[test]
fn after_a_restart_old_names_are_replays_and_young_operations_may_retry() {
    let mut guard = ReplayGuard::new(Settings::default(), [5; 32], START);
    let young = Sighting {
        name: [1; 32],
        ..sighting(1)
    };
    let old = Sighting {
        name: [2; 32],
        ..sighting(2)
    };
    guard.restore(&record(audit::Kind::Contributed, &old, 10_001));
    guard.restore(&record(audit::Kind::Contributed, &young, 4_000));
    guard.restore(&record(
        audit::Kind::Contributed,
        &Sighting { attempt: 1, ..young },
        3_000,
    ));
    guard.restored();
    assert_eq!(guard.judge(&young, after(0)), Verdict::Repeat);
    assert_eq!(
        guard.judge(&Sighting { attempt: 2, ..young }, after(6_000)),
        Verdict::Retry
    );
    assert_eq!(
        guard.judge(&Sighting { attempt: 3, ..young }, after(6_001)),
        REPLAYED
    );
    assert_eq!(guard.judge(&Sighting { attempt: 1, ..old }, after(0)), REPLAYED);
    // None of the two seconds of rule 3 are left, whatever the age.
    let mut guard = ReplayGuard::new(Settings::default(), [5; 32], START);
    guard.restore(&record(audit::Kind::Contributed, &young, 0));
    guard.restored();
    assert_eq!(guard.judge(&sighting(7), after(0)), REPLAYED);
}

#[test]
fn after_a_restart_a_refused_operation_has_no_retry() {
    let mut guard = ReplayGuard::new(Settings::default(), [5; 32], START);
    guard.restore(&record(audit::Kind::Contributed, &sighting(1), 4_000));
    guard.restore(&record(audit::Kind::Refused, &sighting(2), 3_000));
    guard.restore(&record(
        audit::Kind::Refused,
        &Sighting {
            name: [3; 32],
            ..sighting(3)
        },
        3_000,
    ));
    guard.restored();
    assert_eq!(
        guard.judge(
            &Sighting {
                attempt: 1,
                ..sighting(2)
            },
            after(0)
        ),
        REPLAYED
    );
    assert_eq!(
        guard.judge(
            &Sighting {
                attempt: 1,
                ..sighting(1)
            },
            after(0)
        ),
        Verdict::Retry
    );
    assert_eq!(
        guard.judge(
            &Sighting {
                name: [3; 32],
                ..sighting(3)
            },
            after(0)
        ),
        REPLAYED
    );
}

#[test]
fn what_is_expired_or_no_use_is_not_taken_in() {
    let mut guard = ReplayGuard::new(Settings::default(), [5; 32], START);
    let expired = Sighting {
        expires: WALL_S - 300,
        ..sighting(1)
    };
    guard.restore(&record(audit::Kind::Contributed, &expired, 900_000));
    guard.restore(&record(audit::Kind::Endorsed, &sighting(2), 0));
    guard.restore(&record(audit::Kind::Outcome, &sighting(2), 0));
    assert!(guard.is_empty());
    let last_second = Sighting {
        expires: WALL_S - 299,
        ..sighting(1)
    };
    guard.restore(&record(audit::Kind::Contributed, &last_second, 900_000));
    assert_eq!(guard.len(), 1);
}

#[test]
fn until_it_is_restored_a_holder_abstains_from_what_is_older_than_its_start() {
    let mut guard = ReplayGuard::new(Settings::default(), [5; 32], START);
    guard.restore(&record(audit::Kind::Contributed, &sighting(1), 20_000));
    assert_eq!(guard.judge(&sighting(2), after(0)), REPLAYED);
    let other = |created| Sighting {
        name: [7; 32],
        created,
        ..sighting(3)
    };
    assert_eq!(guard.judge(&other(WALL_S - 1), after(0)), Verdict::Abstain);
    assert_eq!(guard.judge(&other(WALL_S), after(0)), Verdict::Abstain);
    assert_eq!(guard.judge(&other(WALL_S + 1), after(1_000)), Verdict::Fresh);
    guard.restored();
    let another = Sighting {
        name: [8; 32],
        created: WALL_S - 1,
        ..sighting(4)
    };
    assert_eq!(guard.judge(&another, after(1_000)), Verdict::Fresh);
}

proptest! {
    /// Whatever the order and the times: no name is served by more than sixteen operations of four attempts, none
    /// newly more than two seconds or at all more than ten seconds after its first sight.
    #[test]
    fn no_sequence_gets_more_than_the_rules_give(
        steps in proptest::collection::vec((0u8..3, 1u64..3, 0u64..20, 0u8..6, any::<bool>(), 0u64..1500), 1..400)
    ) {
        let mut guard = guard();
        let mut now = 0;
        let mut served: std::collections::HashMap<u8, (u64, Vec<OperationId>)> = Default::default();
        for (name, node, counter, attempt, secret, wait) in steps {
            now += wait;
            let sighting = Sighting {
                name: [name; 32],
                operation: operation(node, counter),
                coordinator: node,
                attempt,
                kind: if secret { Kind::Secret } else { Kind::Plain },
                ..sighting(0)
            };
            let verdict = guard.judge(&sighting, after(now));
            match verdict {
                Verdict::Fresh => {
                    prop_assert!(served.insert(name, (now, vec![sighting.operation])).is_none());
                }
                Verdict::Twin | Verdict::Retry => {
                    let (first, operations) = served.get_mut(&name).unwrap();
                    let new = !operations.contains(&sighting.operation);
                    prop_assert_eq!(new, verdict == Verdict::Twin);
                    let limit = if new { 2_000 } else { 10_000 };
                    prop_assert!(now - *first <= limit);
                    operations.push(sighting.operation);
                    let distinct: std::collections::HashSet<_> = operations.iter().collect();
                    prop_assert!(distinct.len() <= 16);
                    prop_assert!(operations.iter().filter(|one| **one == sighting.operation).count() <= 4);
                }
                Verdict::Repeat => prop_assert!(now - served[&name].0 <= 10_000),
                Verdict::Refused(_) => prop_assert!(served.contains_key(&name) || now >= 900_000),
                Verdict::Full | Verdict::Abstain => prop_assert!(false),
            }
        }
    }
}
