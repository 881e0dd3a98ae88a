//! The majority rule, consensus and its disks through many seeds, in safety mode and in liveness mode; and planted bugs,
//! each of which must be found. `SEEDS=2000 cargo test -p conclave-simulator` for more; `SEED=n` for one.

use conclave_consensus::Sabotage;
use conclave_simulator::majority::{Bug, Clerks};
use conclave_simulator::seeds::{self, Replay};
use conclave_simulator::{Failure, Mode, Report, Setup, World};

fn run(seed: u64, sabotage: Option<Sabotage>, bug: Option<Bug>) -> (Result<Report, Failure>, [u64; 3]) {
    let mut setup = Setup::from_seed(seed);
    setup.settings.sabotage = sabotage;
    let clerks = Clerks::new(seed, &setup).with(bug);
    let history = clerks.history.clone();
    let result = World::new(seed, setup, clerks).run();
    let history = history.borrow();
    (result, [history.uses, history.waits, history.reads])
}

const REPLAY: Replay = Replay("-p conclave-simulator --test majority seeds_break_no_rule");

#[test]
fn seeds_break_no_rule() {
    let seeds = seeds::from_environment(200);
    let count = seeds.end - seeds.start;
    let one = |seed| {
        let (result, [uses, waits, reads]) = run(seed, None, None);
        let report = result?;
        let lives = matches!(Setup::from_seed(seed).mode, Mode::Liveness { .. });
        Ok::<_, Failure>([
            report.events,
            report.acknowledgements,
            uses,
            waits,
            reads,
            report.snapshots,
            u64::from(lives),
            report.achieved,
        ])
    };
    let [
        events,
        acknowledged,
        uses,
        waits,
        reads,
        snapshots,
        cores,
        achieved,
    ] = seeds::sums(seeds, REPLAY, one);
    println!(
        "{count} seeds: {events} events, {acknowledged} acknowledged, {uses} uses, {waits} polls of waits, {reads} reads, {snapshots} snapshots; {cores} cores left alone achieved {achieved}"
    );
    if count >= 50 {
        // A world in which nothing happens breaks no rule either.
        assert!(uses > 20 * count && waits > count && reads > count && acknowledged > 20 * count);
        assert!(snapshots > count / 20);
        assert!(cores > count / 5 && achieved >= 9 * cores);
    }
}

#[test]
fn a_seed_replays_exactly() {
    for seed in [1, 3, 17] {
        seeds::one(seed, REPLAY, || {
            let (first, _) = run(seed, None, None);
            let (second, _) = run(seed, None, None);
            assert_eq!(first.unwrap(), second.unwrap());
        });
    }
    let trace = |seed| run(seed, None, None).0.unwrap().trace;
    assert_ne!(trace(1), trace(2));
}

#[test]
fn a_decision_by_the_state_before_the_wait_is_found() {
    let replay = Replay("-p conclave-simulator --test majority the_state_before_the_wait_is_found");
    let found = seeds::find("decides by old state", replay, |seed| {
        run(seed, Some(Sabotage::DecideByOldState), None).0.err()
    });
    assert!(found.what.contains("that began after"), "{found}");
}

#[test]
fn pending_published_after_the_acknowledgement_is_found() {
    let replay = Replay("-p conclave-simulator --test majority published_after_the_acknowledgement_is_found");
    let found = seeds::find("pending published late", replay, |seed| {
        run(seed, Some(Sabotage::PublishAfterAcknowledging), None).0.err()
    });
    assert!(found.what.contains("that began after"), "{found}");
}

#[test]
fn a_wait_that_times_out_and_contributes_is_found() {
    let replay = Replay("-p conclave-simulator --test majority times_out_and_contributes_is_found");
    let found = seeds::find("contributes after a timeout", replay, |seed| {
        run(seed, None, Some(Bug::ContributesAfterTimeout)).0.err()
    });
    assert!(found.what.contains("that began after"), "{found}");
}

#[test]
fn entries_applied_out_of_order_are_found() {
    let replay = Replay("-p conclave-simulator --test majority out_of_order_are_found");
    let found = seeds::find("applies out of order", replay, |seed| {
        run(seed, None, Some(Bug::AppliesOutOfOrder)).0.err()
    });
    assert!(found.what.contains("has another state"), "{found}");
}
