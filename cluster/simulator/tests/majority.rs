//! The majority rule, consensus and its disks through many seeds; and planted bugs, each of which must be
//! found. `SEEDS=2000 cargo test -p conclave-simulator` for more; `SEED=n` for one.

use conclave_consensus::Sabotage;
use conclave_simulator::majority::Clerks;
use conclave_simulator::{Failure, Report, Setup, World};
use std::sync::atomic::{AtomicU64, Ordering};

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
    // Each seed is one thread's own; several at a time.
    let next = AtomicU64::new(seeds.start);
    let workers = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let totals = std::thread::scope(|scope| {
        let work = || {
            let mut totals = [0; 6];
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds.end {
                    return totals;
                }
                let (result, [uses, waits, reads]) = run(seed, None);
                let report = result.unwrap_or_else(|failure| panic!("{failure}"));
                let counts = [
                    report.events,
                    report.acknowledgements,
                    uses,
                    waits,
                    reads,
                    report.snapshots,
                ];
                totals
                    .iter_mut()
                    .zip(counts)
                    .for_each(|(total, count)| *total += count);
            }
        };
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .fold([0; 6], |mut sum, part| {
                sum.iter_mut()
                    .zip(part)
                    .for_each(|(total, count)| *total += count);
                sum
            })
    });
    let [events, acknowledged, uses, waits, reads, snapshots] = totals;
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
