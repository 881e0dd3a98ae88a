//! The real ceremonies in seeded worlds: generations, renewals of shares and signatures run side by side, message by message
//! in any order, while nodes crash and come back with their disks, and learn late what was committed. Checked after every
//! event: a key that was acknowledged has a share, or an envelope at each of its participants, for every member; a pair of
//! nonces is used once; a renewal leaves the public key as it was; every signature verifies, whichever quorum made it, and
//! shares of two epochs never meet. `SEEDS=2000 cargo test -p conclave-threshold --test worlds` for more seeds.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod ceremonies;
mod signatures;
mod world;

use conclave_simulator::seeds::{self, Replay};
use world::{Bug, Counts, World};

fn run(seed: u64, bug: Option<Bug>) -> Result<([u8; 32], Counts), String> {
    let mut world = World::new(seed, bug);
    world.run().map_err(|what| format!("seed {seed}: {what}"))?;
    let counts = world.counts;
    Ok((world.trace(), counts))
}

const REPLAY: Replay = Replay("-p conclave-threshold --test worlds seeds_break_no_rule");

#[test]
fn seeds_break_no_rule() {
    let seeds = seeds::from_environment(60);
    let count = seeds.end - seeds.start;
    let of_threads = seeds::on_all_cores(seeds, REPLAY, |seed, sum: &mut Counts| {
        let (_, counts) = run(seed, None)?;
        sum.add(&counts);
        Ok::<(), String>(())
    });
    let mut sum = Counts::default();
    of_threads.iter().for_each(|counts| sum.add(counts));
    println!("{count} seeds: {sum:?}");
    if count >= 50 {
        // A world in which nothing happens breaks no rule either.
        assert!(
            sum.keys > count && sum.signatures > 2 * count && sum.crashes > count,
            "{sum:?}"
        );
        assert!(sum.renewed > count / 2 && sum.overtaken > 0, "{sum:?}");
        assert!(
            sum.abstained > count / 10 && sum.asked_again > count / 10,
            "{sum:?}"
        );
    }
}

#[test]
fn a_seed_replays_exactly() {
    seeds::one(3, REPLAY, || {
        assert_eq!(run(3, None).unwrap(), run(3, None).unwrap())
    });
}

/// The first seed that finds a bug, by a failure that says `expected`.
fn is_found(bug: Bug, test: &'static str, expected: &str) {
    let found = seeds::find(&format!("{bug:?}"), Replay(test), |seed| {
        run(seed, Some(bug)).err()
    });
    assert!(found.contains(expected), "{found}");
}

#[test]
fn a_signature_before_the_share_is_on_disk_is_found() {
    let test = "-p conclave-threshold --test worlds before_the_share_is_on_disk_is_found";
    is_found(Bug::SignsBeforeItStores, test, "is nowhere");
}

#[test]
fn a_share_of_another_epoch_is_found() {
    let test = "-p conclave-threshold --test worlds share_of_another_epoch_is_found";
    is_found(Bug::UncheckedEpochs, test, "does not verify");
}

#[test]
fn nonces_that_answer_twice_are_found() {
    let test = "-p conclave-threshold --test worlds nonces_that_answer_twice_are_found";
    is_found(Bug::KeepsNonces, test, "used twice");
}
