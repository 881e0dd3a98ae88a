//! The majority worlds while operators change the members: lists of three to five, one after the other, keys that move to
//! them, and every fault meanwhile. Planted bugs must be found. `SEEDS=2000 cargo test -p conclave-simulator --test moves` for
//! more; `SEED=n` for one.

use conclave_consensus::Sabotage;
use conclave_simulator::majority::{Bug, Clerks};
use conclave_simulator::seeds::{self, Replay};
use conclave_simulator::{Failure, Mode, Report, Setup, World};

fn run(seed: u64, sabotage: Option<Sabotage>, bug: Option<Bug>) -> (Result<Report, Failure>, [u64; 5]) {
    let mut setup = Setup::moving_from_seed(seed);
    setup.settings.sabotage = sabotage;
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
    let one = |seed| {
        let (result, [uses, waits, changes, keys, epochs]) = run(seed, None, None);
        let report = result?;
        let lives = matches!(Setup::moving_from_seed(seed).mode, Mode::Liveness { .. });
        Ok::<_, Failure>([
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
        ])
    };
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
    ] = seeds::sums(seeds, REPLAY, one);
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
        seeds::one(seed, REPLAY, || {
            assert_eq!(run(seed, None, None).0.unwrap(), run(seed, None, None).0.unwrap());
        });
    }
}

/// The first seed that finds a bug, by a failure that says `expected`: a bug may also keep a change from coming to its end.
fn is_found(
    what: &str,
    test: &'static str,
    (sabotage, bug): (Option<Sabotage>, Option<Bug>),
    expected: &str,
) {
    seeds::find(what, Replay(test), |seed| {
        let failure = run(seed, sabotage, bug).0.err();
        failure.filter(|failure| failure.what.contains(expected))
    });
}

#[test]
fn a_group_that_leaves_a_key_behind_is_found() {
    let test = "-p conclave-simulator --test moves leaves_a_key_behind_is_found";
    let bug = (None, Some(Bug::LeavesEarly));
    is_found("leaves before every key has moved", test, bug, "has not moved");
}

#[test]
fn old_shares_that_are_destroyed_early_are_found() {
    let test = "-p conclave-simulator --test moves destroyed_early_are_found";
    let bug = (None, Some(Bug::DestroysEarly));
    is_found("destroys old shares early", test, bug, "were destroyed while");
}

#[test]
fn new_shares_that_are_used_early_are_found() {
    let test = "-p conclave-simulator --test moves used_early_are_found";
    let bug = (None, Some(Bug::UsesEarly));
    is_found("uses new shares early", test, bug, "before it had applied");
}

#[test]
fn a_newcomer_that_votes_before_it_caught_up_is_found() {
    let test = "-p conclave-simulator --test moves votes_before_it_caught_up_is_found";
    let bug = (Some(Sabotage::VotesBeforeCaughtUp), None);
    is_found("votes before it caught up", test, bug, "that made it a learner");
}

#[test]
fn a_majority_of_one_list_alone_is_found() {
    let test = "-p conclave-simulator --test moves one_list_alone_is_found";
    let bug = (Some(Sabotage::CountsOneList), None);
    is_found("counts one list", test, bug, "that began after");
}
