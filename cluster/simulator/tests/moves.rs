//! The majority worlds while operators change the members: lists of three to five, one after the other, keys that move to
//! them, and every fault meanwhile. Planted bugs must be found. `SEEDS=2000 cargo test -p conclave-simulator --test moves` for
//! more; `SEED=n` for one.

use conclave_simulator::majority::{Bug, Clerks};
use conclave_simulator::seeds::{self, Replay};
use conclave_simulator::{Failure, Mode, Report, Setup, World};

fn run(seed: u64, bug: Option<Bug>) -> (Result<Report, Failure>, [u64; 5]) {
    let setup = Setup::moving_from_seed(seed);
    let clerks = Clerks::new(seed, &setup).with(bug);
    let history = clerks.history.clone();
    let result = World::new(seed, setup, clerks).run();
    let history = history.borrow();
    let changes = &history.changes;
    let counts = [
        history.uses,
        history.waits,
        changes.carried_out(),
        changes.keys,
        changes.epochs,
    ];
    (result, counts)
}

const REPLAY: Replay = Replay("-p conclave-simulator --test moves seeds_break_no_rule");

#[test]
fn seeds_break_no_rule() {
    let seeds = seeds::from_environment(100);
    let count = seeds.end - seeds.start;
    let one = |seed, totals: &mut [u64; 10]| {
        let (result, [uses, waits, changes, keys, epochs]) = run(seed, None);
        let report = result?;
        let lives = matches!(Setup::moving_from_seed(seed).mode, Mode::Liveness { .. });
        let counts = [
            report.events,
            report.acknowledgements,
            uses,
            waits,
            changes,
            keys,
            epochs,
            report.snapshots,
            u64::from(lives),
            report.achieved,
        ];
        totals
            .iter_mut()
            .zip(counts)
            .for_each(|(total, count)| *total += count);
        Ok::<(), Failure>(())
    };
    let of_threads = seeds::on_all_cores(seeds, REPLAY, one);
    let sum = |place: usize| of_threads.iter().map(|totals| totals[place]).sum::<u64>();
    let [
        events,
        acknowledged,
        uses,
        waits,
        changes,
        keys,
        epochs,
        snapshots,
        cores,
        achieved,
    ] = std::array::from_fn(sum);
    println!(
        "{count} seeds: {events} events, {acknowledged} acknowledged, {uses} uses, {waits} polls of waits, {changes} changes of a group's members, {keys} keys moved, {epochs} holders in another epoch, {snapshots} snapshots; {cores} cores left alone achieved {achieved}"
    );
    if count >= 50 {
        // A world in which nothing happens breaks no rule either.
        assert!(uses > 20 * count && waits > count && acknowledged > 20 * count);
        assert!(changes > count && keys > 3 * count && epochs > count / 4);
        assert!(snapshots > count / 2);
        assert!(cores > count / 5 && achieved >= 9 * cores);
    }
}

#[test]
fn a_seed_replays_exactly() {
    for seed in [1, 3, 17] {
        assert_eq!(run(seed, None).0.unwrap(), run(seed, None).0.unwrap());
    }
}
