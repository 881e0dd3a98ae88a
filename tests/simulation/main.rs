//! The real state machine, the real verifier and the real holder rules through seeded faults.
//!
//! Every node of a simulated world runs a [`clerk::Clerk`]: client, coordinator, endorser and holder. Requests are
//! really signed, judged by `operation::judge` on the node's own replicated state, endorsed, applied by
//! `keystore::apply`. `SEEDS=2000 cargo test --test simulation` for more seeds, `SEED=n` for one.
#![allow(clippy::unwrap_used, reason = "a test's own helpers may fail loudly")]

mod clerk;
mod clients;
mod history;
mod office;

use std::sync::atomic::{AtomicU64, Ordering};

use conclave_simulator::{Failure, Report, Setup, World};
use history::Counts;
use office::{Bug, Office};

fn run(seed: u64, bug: Option<Bug>) -> (Result<Report, Failure>, Counts) {
    let mut setup = Setup::from_seed(seed);
    setup.settings.groups = 2;
    let office = Office::new(setup.nodes, bug);
    let history = office.history();
    let result = World::new(seed, setup, office).run();
    let counts = history.borrow().counts;
    (result, counts)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn seeds_break_no_rule() {
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(60),
    };
    let count = seeds.end - seeds.start;
    let next = AtomicU64::new(seeds.start);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let totals = std::thread::scope(|scope| {
        let work = || {
            let mut totals = Counts::default();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds.end {
                    return totals;
                }
                let (result, counts) = run(seed, None);
                if let Err(failure) = result {
                    panic!("{failure}");
                }
                totals.add(&counts);
            }
        };
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let mut totals = Counts::default();
        for thread in threads {
            totals.add(&thread.join().unwrap());
        }
        totals
    });
    println!("{count} seeds: {totals:?}");
    if count >= 50 {
        // A world in which nothing happens breaks no rule either.
        assert!(
            totals.changes > 5 * count && totals.granted > 5 * count && totals.refused > count,
            "{totals:?}"
        );
        assert!(totals.repeated > count, "{totals:?}");
        assert!(totals.forged > count && totals.reads > count, "{totals:?}");
    }
}

#[test]
fn a_seed_replays_exactly() {
    let (first, second) = (run(3, None).0.unwrap(), run(3, None).0.unwrap());
    assert_eq!(first, second);
}

#[test]
fn an_endorsement_that_is_not_checked_is_found() {
    let failure = (0..30).find_map(|seed| run(seed, Some(Bug::UncheckedEndorsements)).0.err());
    let failure = failure.expect("no seed finds the planted bug");
    println!("{failure}");
    assert!(failure.what.contains("nobody endorsed"), "{failure}");
}

#[test]
fn a_decision_that_forgets_revocations_is_found() {
    let failure = (0..30).find_map(|seed| run(seed, Some(Bug::ForgottenRevocations)).0.err());
    let failure = failure.expect("no seed finds the planted bug");
    assert!(failure.what.contains("acknowledged as revoked"), "{failure}");
}

#[test]
fn an_operation_whose_outcome_is_forgotten_is_found() {
    let failure = (0..30).find_map(|seed| run(seed, Some(Bug::ForgottenOutcomes)).0.err());
    let failure = failure.expect("no seed finds the planted bug");
    println!("{failure}");
    assert!(failure.what.contains("came to"), "{failure}");
}
