//! The real state machine, the real verifier and the real holder rules through seeded faults.
//!
//! Every node of a simulated world runs a [`clerk::Clerk`]: client, coordinator, endorser and holder. Requests are
//! really signed, judged by `operation::judge` on the node's own replicated state, endorsed, applied by
//! `keystore::apply`; shares are renewed meanwhile. In the end each keystore's history of calls has to be
//! linearizable. `SEEDS=2000 cargo test --test simulation` for more seeds, `SEED=n` for one.
#![allow(clippy::unwrap_used, reason = "a test's own helpers may fail loudly")]

mod beginnings;
mod clerk;
mod clients;
mod disks;
mod history;
mod office;
mod one_list;
mod register;

use std::ops::Range;

use conclave_simulator::seeds::{self, Replay};
use conclave_simulator::{Failure, Report, Setup, World};
use history::Counts;
use office::{Bug, Office};

fn run(seed: u64, bug: Option<Bug>) -> (Result<Report, Failure>, Counts) {
    run_in(Setup::from_seed(seed), seed, bug)
}

/// In a world whose members change.
fn run_moving(seed: u64, bug: Option<Bug>) -> (Result<Report, Failure>, Counts) {
    run_in(Setup::moving_from_seed(seed), seed, bug)
}

fn run_in(mut setup: Setup, seed: u64, bug: Option<Bug>) -> (Result<Report, Failure>, Counts) {
    setup.settings.groups = 2;
    let office = Office::new(seed, &setup, bug);
    let (history, beginnings) = (office.history(), office.beginnings());
    let result = World::new(seed, setup, office).run();
    let mut history = history.borrow_mut();
    let checked = result.and_then(|report| match history.check() {
        Ok(()) => Ok(report),
        Err(what) => Err(Failure {
            seed,
            micros: report.micros,
            what,
        }),
    });
    history.counts.begun = beginnings.count();
    (checked, history.counts)
}

/// What happened in the worlds of all these seeds, and what cores that were left alone achieved. None may break a rule.
fn in_all(
    seeds: Range<u64>,
    replay: Replay,
    world: impl Fn(u64) -> (Result<Report, Failure>, Counts) + Sync,
) -> (Counts, u64) {
    let of_threads = seeds::on_all_cores(seeds, replay, |seed, totals: &mut (Counts, u64)| {
        let (result, counts) = world(seed);
        totals.0.add(&counts);
        totals.1 += result?.achieved;
        Ok::<(), Failure>(())
    });
    let (mut totals, mut achieved) = (Counts::default(), 0);
    for (counts, more) in of_threads {
        totals.add(&counts);
        achieved += more;
    }
    (totals, achieved)
}

const REPLAY: Replay = Replay("--test simulation seeds_break_no_rule");

#[test]
fn seeds_break_no_rule() {
    let seeds = seeds::from_environment(60);
    let count = seeds.end - seeds.start;
    let (totals, achieved) = in_all(seeds, REPLAY, |seed| run(seed, None));
    println!("{count} seeds: {totals:?}; cores left alone achieved {achieved}");
    if count >= 50 {
        // A world in which nothing happens breaks no rule either.
        assert!(
            totals.changes > 5 * count && totals.granted > 5 * count && totals.refused > count,
            "{totals:?}"
        );
        assert!(totals.repeated > count, "{totals:?}");
        assert!(totals.forged > count && totals.reads > count, "{totals:?}");
        assert!(
            totals.renewed > count / 4 && totals.epochs > 0 && totals.clocks > 0,
            "{totals:?}"
        );
        assert!(totals.calls > 20 * count && achieved > 2 * count, "{totals:?}");
    }
}

#[test]
fn a_seed_replays_exactly() {
    for seed in [2, 3] {
        seeds::one(seed, REPLAY, || {
            assert_eq!(run(seed, None).0.unwrap(), run(seed, None).0.unwrap());
        });
        seeds::one(seed, REPLAY_MOVES, || {
            let again = || run_moving(seed, None).0.unwrap();
            assert_eq!(again(), again());
        });
    }
}

const REPLAY_MOVES: Replay = Replay("--test simulation changes_of_members_break_no_rule");

#[test]
fn changes_of_members_break_no_rule() {
    let seeds = seeds::from_environment(40);
    let count = seeds.end - seeds.start;
    let (totals, achieved) = in_all(seeds, REPLAY_MOVES, |seed| run_moving(seed, None));
    println!("{count} seeds of changes of members: {totals:?}; cores left alone achieved {achieved}");
    if count >= 40 {
        assert!(
            totals.changes > 5 * count && totals.granted > 5 * count,
            "{totals:?}"
        );
        assert!(totals.lists > 2 * count && totals.moved > count, "{totals:?}");
        assert!(totals.begun >= totals.lists, "{totals:?}");
        assert!(
            totals.epochs > 0 && totals.calls > 20 * count && achieved > 2 * count,
            "{totals:?}"
        );
    }
}

/// The first seed that finds a bug, by a failure that says `expected`.
fn is_found(bug: Bug, test: &'static str, expected: &str) {
    is_found_in(|seed| run(seed, Some(bug)).0.err(), bug, test, expected);
}

/// The same in worlds of this kind.
fn is_found_in(world: impl Fn(u64) -> Option<Failure>, bug: Bug, test: &'static str, expected: &str) {
    let found = seeds::find(&format!("{bug:?}"), Replay(test), world);
    assert!(found.what.contains(expected), "{found}");
}

#[test]
fn an_endorsement_that_is_not_checked_is_found() {
    let test = "--test simulation endorsement_that_is_not_checked_is_found";
    is_found(Bug::UncheckedEndorsements, test, "nobody endorsed");
}

#[test]
fn a_decision_that_forgets_revocations_is_found() {
    let test = "--test simulation forgets_revocations_is_found";
    is_found(Bug::ForgottenRevocations, test, "acknowledged as revoked");
}

#[test]
fn an_operation_whose_outcome_is_forgotten_is_found() {
    let test = "--test simulation outcome_is_forgotten_is_found";
    is_found(Bug::ForgottenOutcomes, test, "came to");
}

#[test]
fn entries_applied_out_of_order_are_found() {
    let test = "--test simulation out_of_order_are_found";
    is_found(Bug::AppliesOutOfOrder, test, "has another state");
}

#[test]
fn a_renewal_of_other_shares_is_found() {
    let test = "--test simulation renewal_of_other_shares_is_found";
    is_found(Bug::UncheckedReplacements, test, "replaced twice");
}

#[test]
fn a_contribution_of_another_epoch_is_found() {
    let test = "--test simulation contribution_of_another_epoch_is_found";
    is_found(Bug::UncheckedEpochs, test, "two epochs");
}

/// The same in a world whose members change.
fn is_found_moving(bug: Bug, test: &'static str, expected: &str) {
    is_found_in(|seed| run_moving(seed, Some(bug)).0.err(), bug, test, expected);
}

#[test]
fn a_quorum_of_one_list_alone_is_found() {
    let test = "--test simulation quorum_of_one_list_alone_is_found";
    is_found_moving(Bug::CountsOneList, test, "no quorum of each list");
}

#[test]
fn a_group_that_leaves_a_key_behind_is_found() {
    let test = "--test simulation leaves_a_key_behind_is_found";
    is_found_moving(Bug::LeavesEarly, test, "has not moved");
}

#[test]
fn a_group_that_begins_before_group_0_is_found() {
    let test = "--test simulation begins_before_group_0_is_found";
    is_found_moving(Bug::BeginsUnseen, test, "group 0 has not begun");
}

#[test]
fn old_shares_that_are_destroyed_early_are_found() {
    let test = "--test simulation destroyed_early_are_found";
    is_found_moving(Bug::DestroysEarly, test, "were destroyed while");
}

#[test]
fn a_contribution_of_another_list_is_found() {
    let test = "--test simulation contribution_of_another_list_is_found";
    is_found_moving(Bug::UncheckedEpochs, test, "two epochs");
}

#[test]
fn a_read_that_nobody_confirmed_is_found() {
    let test = "--test simulation read_that_nobody_confirmed_is_found";
    is_found(Bug::UnconfirmedReads, test, "is not linearizable");
}
