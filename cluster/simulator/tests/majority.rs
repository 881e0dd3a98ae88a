//! The majority rule, consensus and its disks through many seeds; and planted bugs, each of which must be
//! found. `SEEDS=2000 cargo test -p conclave-simulator` for more; `SEED=n` for one.

use conclave_consensus::Sabotage;
use conclave_simulator::majority::Clerks;
use conclave_simulator::{Failure, Report, Setup, World};

fn run(seed: u64, sabotage: Option<Sabotage>) -> (Result<Report, Failure>, [u64; 3]) {
    let mut setup = Setup::from_seed(seed);
    setup.settings.sabotage = sabotage;
    let clerks = Clerks::new(setup.settings.groups);
    let history = clerks.history.clone();
    let result = World::new(seed, setup, clerks).run();
    let history = history.borrow();
    (result, [history.uses, history.waits, history.reads])
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn seeds_break_no_rule() {
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(200),
    };
    let count = seeds.end - seeds.start;
    let (mut uses, mut waits, mut reads, mut snapshots, mut acknowledged, mut events) = (0, 0, 0, 0, 0, 0);
    for seed in seeds {
        let (result, counts) = run(seed, None);
        let report = result.unwrap_or_else(|failure| panic!("{failure}"));
        uses += counts[0];
        waits += counts[1];
        reads += counts[2];
        snapshots += report.snapshots;
        acknowledged += report.acknowledgements;
        events += report.events;
    }
    println!(
        "{count} seeds: {events} events, {acknowledged} acknowledged, {uses} uses, {waits} polls of waits, {reads} reads, {snapshots} snapshots"
    );
    if count >= 50 {
        // A world in which nothing happens breaks no rule either.
        assert!(uses > 20 * count && waits > count && reads > count && acknowledged > 20 * count);
        assert!(snapshots > count / 20);
    }
}

#[test]
fn a_seed_replays_exactly() {
    for seed in [1, 17] {
        let (first, _) = run(seed, None);
        let (second, _) = run(seed, None);
        assert_eq!(first.unwrap(), second.unwrap());
    }
    assert_ne!(run(1, None).0.unwrap().trace, run(2, None).0.unwrap().trace);
}

fn is_found(sabotage: Sabotage) {
    let found = (0..30).find_map(|seed| run(seed, Some(sabotage)).0.err());
    let failure = found.expect("no seed finds the planted bug");
    println!("{sabotage:?}: {failure}");
    assert!(failure.what.contains("that began after"), "{failure}");
}

#[test]
fn a_decision_by_the_state_before_the_wait_is_found() {
    is_found(Sabotage::DecideByOldState);
}

#[test]
fn pending_published_after_the_acknowledgement_is_found() {
    is_found(Sabotage::PublishAfterAcknowledging);
}
