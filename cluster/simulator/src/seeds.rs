//! Many seeds on all cores, for tests: which ones the environment asks for, how far they are, and how a failure is
//! replayed. A world that panics fails like one that breaks a rule: it is reported with its seed.

use std::any::Any;
use std::fmt::Display;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

/// The command that replays a failure, but for its seed: `cargo test` and what follows.
#[derive(Clone, Copy, Debug)]
pub struct Replay(pub &'static str);

impl Replay {
    /// The whole command for one seed.
    pub fn command(&self, seed: u64) -> String {
        format!("SEED={seed} cargo test --locked {} -- --nocapture", self.0)
    }
}

fn told(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied())
        .unwrap_or("without a message")
}

/// Runs the world of one seed. What code it drives panics with, where the standard error has it already, is an error that
/// names the seed. Whatever the world had in hand is not to be used after that.
fn caught<T>(seed: u64, world: impl FnOnce() -> T) -> Result<T, String> {
    let ended = catch_unwind(AssertUnwindSafe(world));
    ended.map_err(|panic| format!("seed {seed}: the world panicked: {}", told(&*panic)))
}

/// One world outside of a search: what it came to.
///
/// # Panics
/// The world panics: with its seed, what it panicked with, and the command that replays it.
pub fn one<T>(seed: u64, replay: Replay, world: impl FnOnce() -> T) -> T {
    caught(seed, world).unwrap_or_else(|told| panic!("{told}\nreplay: {}", replay.command(seed)))
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    match text.parse() {
        Ok(number) => Some(number),
        Err(_) => panic!("{name}={text} is no number"),
    }
}

/// `SEED=n`: that one. Else `SEEDS=n`, or `default`, from `FIRST_SEED` on.
pub fn from_environment(default: u64) -> Range<u64> {
    if let Some(seed) = number("SEED") {
        return seed..seed + 1;
    }
    let first = number("FIRST_SEED").unwrap_or(0);
    first..first + number("SEEDS").unwrap_or(default)
}

/// The seeds among which a bug put in on purpose has to be found: `SEED=n`, that one, or the first 2,000.
pub fn to_find_a_bug() -> Range<u64> {
    match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..2_000,
    }
}

/// Runs a world for each seed, as many at a time as there are cores; what each thread made of its own. Tells on standard
/// error how far it is.
///
/// # Panics
/// A seed fails, by a failure or by a panic: with its failure and the command that replays it.
pub fn on_all_cores<T: Default + Send, E: Display>(
    seeds: Range<u64>,
    replay: Replay,
    run: impl Fn(u64, &mut T) -> Result<(), E> + Sync,
) -> Vec<T> {
    let count = seeds.end - seeds.start;
    let next = AtomicU64::new(seeds.start);
    let done = AtomicU64::new(0);
    let work = || {
        let mut sum = T::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return sum;
            }
            let ended = caught(seed, || {
                run(seed, &mut sum).map_err(|failure| failure.to_string())
            });
            if let Err(failure) = ended.flatten() {
                // Nobody needs the rest.
                next.store(seeds.end, Ordering::Relaxed);
                panic!("{failure}\nreplay: {}", replay.command(seed));
            }
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            if count >= 1_000 && done.is_multiple_of(count.div_ceil(10)) {
                eprintln!("{done} of {count} seeds");
            }
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        let ended = threads.into_iter().map(|thread| thread.join());
        ended
            .map(|ended| ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

/// The same where each seed is counted: the sums.
///
/// # Panics
/// As [`on_all_cores`].
pub fn sums<const N: usize, E: Display>(
    seeds: Range<u64>,
    replay: Replay,
    counts: impl Fn(u64) -> Result<[u64; N], E> + Sync,
) -> [u64; N] {
    let add = |sums: &mut [u64; N], counts: &[u64; N]| {
        let each = sums.iter_mut().zip(counts);
        each.for_each(|(sum, count)| *sum += count);
    };
    let of_threads = on_all_cores(seeds, replay, |seed, sums: &mut Option<[u64; N]>| {
        add(sums.get_or_insert([0; N]), &counts(seed)?);
        Ok::<(), E>(())
    });
    let mut all = [0; N];
    of_threads.iter().flatten().for_each(|sums| add(&mut all, sums));
    all
}

/// The first seed that finds a bug put in on purpose, printed with the command that shows it.
///
/// # Panics
/// None does, or a world panics before: that is no finding.
pub fn find<E: Display>(bug: &str, replay: Replay, run: impl Fn(u64) -> Option<E>) -> E {
    first_of(to_find_a_bug(), bug, replay, run)
}

fn first_of<E: Display>(seeds: Range<u64>, bug: &str, replay: Replay, run: impl Fn(u64) -> Option<E>) -> E {
    let world = |seed| one(seed, replay, || run(seed));
    let found = seeds.clone().find_map(|seed| Some((seed, world(seed)?)));
    let (seed, found) = found.unwrap_or_else(|| panic!("no seed of {seeds:?} finds {bug}"));
    println!("{bug}: {found}\nreplay: {}", replay.command(seed));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLAY: Replay = Replay("--test worlds");

    /// What `run` panics with.
    fn told_by<T>(run: impl FnOnce() -> T) -> String {
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(_) => panic!("no panic"),
            Err(panic) => told(&*panic).to_owned(),
        }
    }

    fn is_reported(told: &str) {
        for part in [
            "seed 17: the world panicked",
            "no such entry",
            "replay: SEED=17 cargo test --locked --test worlds",
        ] {
            assert!(told.contains(part), "{part:?} is missing in {told:?}");
        }
    }

    #[test]
    fn a_world_that_panics_is_reported_with_its_seed() {
        let world = |seed| assert_ne!(seed, 17, "no such entry");
        is_reported(&told_by(|| {
            on_all_cores(0..40, REPLAY, |seed, _: &mut ()| {
                world(seed);
                Ok::<(), String>(())
            })
        }));
        is_reported(&told_by(|| {
            sums(0..40, REPLAY, |seed| {
                world(seed);
                Ok::<[u64; 1], String>([seed])
            })
        }));
        is_reported(&told_by(|| {
            first_of(0..40, "a bug", REPLAY, |seed| {
                world(seed);
                None::<String>
            })
        }));
        is_reported(&told_by(|| one(17, REPLAY, || world(17))));
    }

    #[test]
    fn messages_of_panics_are_kept() {
        let text = |text: &'static str| told_by(|| std::panic::panic_any(text));
        assert_eq!(text("a literal"), "a literal");
        assert_eq!(told_by(|| std::panic::panic_any(7)), "without a message");
    }

    #[test]
    fn a_failure_is_reported_with_its_seed() {
        let told = told_by(|| {
            on_all_cores(0..40, REPLAY, |seed, _: &mut ()| match seed {
                17 => Err("a rule is broken"),
                _ => Ok(()),
            })
        });
        let command = "replay: SEED=17 cargo test --locked --test worlds -- --nocapture";
        assert_eq!(told, format!("a rule is broken\n{command}"));
    }
}
