//! The fuzz targets without libFuzzer: every file of every corpus, and some mutations, the same in every run.
//!
//! A finding of `make fuzz` stays as a file in its target's corpus, so that it is tried again for ever.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use conclave_fuzz::mutation::Mutator;
use conclave_fuzz::{ALL, Target};

/// Most bytes of memory that the process may have had at once, all targets and their worlds together.
const MOST_MEMORY: u64 = 1 << 30;
/// Longest seed, in bytes: a corpus is for reading too.
const LONGEST_SEED: u64 = 8_192;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name)
}

/// A corpus by its files' names.
fn corpus(target: &Target) -> Vec<(String, Vec<u8>)> {
    let folder = folder(target.name);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut corpus: Vec<_> = files
        .map(|file| {
            let path = file.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read(path).unwrap())
        })
        .collect();
    corpus.sort();
    corpus
}

/// Runs one input; whoever reads the failure gets the bytes.
fn try_input(target: &Target, what: &str, bytes: &[u8]) -> bool {
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(bytes)));
    outcome.unwrap_or_else(|_| {
        let path = std::env::temp_dir().join(format!("conclave-fuzz-{}", target.name));
        fs::write(&path, bytes).unwrap();
        panic!("{}: {what}: the input is in {}", target.name, path.display())
    })
}

fn replay(name: &str) {
    let target = ALL.iter().find(|target| target.name == name).unwrap();
    let corpus = corpus(target);
    let taken = corpus
        .iter()
        .filter(|(file, bytes)| try_input(target, file, bytes));
    assert!(
        taken.count() > 0,
        "{name}: no seed is taken: write them anew (see write_the_seeds)"
    );
    let seeds: Vec<Vec<u8>> = corpus.into_iter().map(|(_, bytes)| bytes).collect();
    let mut mutator = Mutator::new(&seeds, target.longest, 1);
    for number in 0..target.mutations {
        let input = mutator.next_input();
        try_input(target, &format!("mutation {number}"), &input);
    }
    let peak = peak_memory();
    assert!(peak < MOST_MEMORY, "{name}: {peak} bytes of memory");
}

/// The most memory that this process has had, bytes.
fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1_024
}

macro_rules! replayed {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            replay(stringify!($name));
        })*
        const REPLAYED: &[&str] = &[$(stringify!($name)),*];
    };
}

replayed! {
    audit backup birth candidate capability capability_invocation ceremony configuration delegation diffie_hellman digest entry evidence
    frame frost garbled genesis http_signature json node_call operation_body orders raft receipt request share
}

/// Every target has a test here, a program for libFuzzer, and a corpus of its own that is small.
#[test]
fn nothing_is_left_out() {
    let names: Vec<&str> = ALL.iter().map(|target| target.name).collect();
    assert_eq!(names, REPLAYED);
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["fuzz_targets", "corpus"] {
        let files = fs::read_dir(manifest.join(folder)).unwrap();
        let mut found: Vec<String> = files
            .map(|file| {
                file.unwrap()
                    .path()
                    .file_stem()
                    .unwrap()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        found.sort();
        assert_eq!(found, names, "{folder}");
    }
    for target in &ALL {
        for (name, bytes) in corpus(target) {
            assert!(bytes.len() as u64 <= LONGEST_SEED, "{}/{name}", target.name);
        }
    }
}

/// After a change of a format: `cargo test -p conclave-fuzz -- --ignored write_the_seeds`. Findings stay as they are.
#[test]
#[ignore = "writes the seeds of all corpora"]
fn write_the_seeds() {
    for target in &ALL {
        fs::create_dir_all(folder(target.name)).unwrap();
        for (name, bytes) in (target.seeds)() {
            let name = name.replace(|c: char| !c.is_ascii_alphanumeric() && c != '_', "-");
            assert!(
                bytes.len() <= target.longest,
                "{}/{name}: {} bytes",
                target.name,
                bytes.len()
            );
            fs::write(folder(target.name).join(name), bytes).unwrap();
        }
    }
}
