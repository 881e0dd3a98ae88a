//! F15: a bit of a stopped node's files flips. It is found, or it does no harm: what the node answers is right, and the others
//! go on.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::{Instant, sleep};

use crate::common::files::copy;
use crate::common::https;
use crate::common::ledger::{Ledger, is_not_now};
use crate::common::machines::{Machines, on_loopback};
use crate::common::world;

/// The node with the bad disk.
const HIT: usize = 2;
/// In which a node has started, or has said what keeps it.
const STARTED: Duration = Duration::from_secs(20);

/// The kinds of files that a node reads: folder, and how the name begins or ends.
const KINDS: [(&str, &str); 9] = [
    ("raft", ".sst"),
    ("raft", ".log"),
    ("raft", "MANIFEST-"),
    ("raft", "CURRENT"),
    ("shares", ".sst"),
    ("shares", ".log"),
    ("shares", "MANIFEST-"),
    ("audit", ".audit"),
    ("", "epochs.sealed"),
];

/// What a flipped bit came to.
enum Found {
    /// The node did not start.
    Refused,
    /// It started, said that something is wrong, and took no part.
    Told(String),
    /// It serves, and everything is right.
    Harmless,
}

/// A byte of a file that holds something, and which of its bits.
fn choose(data: &Path, random: &mut StdRng) -> Option<(PathBuf, usize, u8)> {
    let (folder, name) = *KINDS.choose(random).unwrap();
    let entries = fs::read_dir(data.join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let fits = |path: &PathBuf| {
        let file = path.file_name().unwrap().to_str().unwrap();
        path.is_file() && (file.starts_with(name) || file.ends_with(name))
    };
    let files: Vec<PathBuf> = entries.filter(fits).collect();
    let file = files.choose(random)?.clone();
    let bytes = fs::read(&file).unwrap();
    // What is reserved behind the last record is zero, and means nothing.
    let used = bytes.iter().rposition(|byte| *byte != 0)? + 1;
    Some((file, random.gen_range(0..used), random.gen_range(0..8)))
}

fn flip(file: &Path, at: usize, bit: u8) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 1 << bit;
    fs::write(file, bytes).unwrap();
}

fn put_back(from: &Path, to: &Path) {
    fs::remove_dir_all(to).unwrap();
    copy(from, to);
}

/// Starts the node and holds it against the ledger.
async fn found(machines: &mut Machines, ledger: &Ledger) -> Found {
    machines.spawn(HIT);
    let until = Instant::now() + STARTED;
    let told = loop {
        if let Some(ended) = machines.has_ended(HIT) {
            assert!(!ended.success(), "it ended well");
            return Found::Refused;
        }
        match https::admin(machines.at(HIT).admin, "/health/ready").await {
            Ok(answer) if answer.status == 200 => break None,
            Ok(answer) if answer.body.contains("rolled back") || Instant::now() > until => {
                break Some(answer.body);
            }
            last => assert!(Instant::now() < until + STARTED, "{last:?}"),
        }
        sleep(Duration::from_millis(20)).await;
    };
    let client = &machines.clients[HIT];
    for key in &ledger.keys {
        match client.get_key(&ledger.alice, &key.id, None).await {
            Ok(read) => assert_eq!(read, key.description, "wrong data is served"),
            Err(error) => assert!(told.is_some() && is_not_now(&error), "{error}"),
        }
        // What is answered is verified.
        match world::sign(client, &ledger.alice, key, None).await {
            Ok(()) => assert!(told.is_none(), "{told:?}, and it signs"),
            Err(error) => assert!(is_not_now(&error), "{error}"),
        }
    }
    ledger.nothing_revoked_is_accepted(client).await;
    told.map_or(Found::Harmless, Found::Told)
}

async fn flipped_bits(seed: u64, positions: usize) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut machines = Machines::made(on_loopback(3)).await;
    for node in 0..3 {
        machines.configure(node, "audit", "segment_bytes", 1 << 20);
    }
    machines.start().await;
    let mut ledger = Ledger::of(&machines.clients[0]).await;
    for node in 0..3 {
        ledger.turn(&machines.clients[node]).await.unwrap();
        // A start moves what was written into tables.
        machines.terminate(node).await;
        machines.restart(node).await;
    }
    machines.delivered().await;
    for node in 0..3 {
        machines.terminate(node).await;
    }
    // A node that has run may not be put back alone: the others would know it for an older copy of itself.
    let all = machines.path().with_extension("all");
    copy(&machines.path(), &all);
    let name = machines.data(HIT);
    let name = name.strip_prefix(machines.path()).unwrap().to_owned();
    let newest = all.join(&name);
    for node in [0, 1] {
        machines.spawn(node);
    }
    for node in [0, 1] {
        machines.ready(node).await;
    }
    let mut counts = [0; 3];
    for _ in 0..positions {
        let data = machines.data(HIT);
        let Some((file, at, bit)) = choose(&data, &mut random) else {
            continue;
        };
        flip(&file, at, bit);
        let outcome = found(&mut machines, &ledger).await;
        let place = file.strip_prefix(&data).unwrap().display();
        let told = match &outcome {
            Found::Refused => "it does not start",
            Found::Told(reason) => reason,
            Found::Harmless => "harmless",
        };
        println!("{place}, byte {at}, bit {bit}: {told}");
        // The others go on whatever it is.
        for client in &machines.clients[..2] {
            ledger.sign(client).await.unwrap();
        }
        match outcome {
            Found::Refused => {
                counts[0] += 1;
                put_back(&newest, &data);
            }
            Found::Told(_) | Found::Harmless => {
                counts[1 + usize::from(matches!(outcome, Found::Harmless))] += 1;
                for node in 0..3 {
                    if machines.runs(node) && machines.has_ended(node).is_none() {
                        machines.kill(node).await;
                    }
                    let home = format!("node-{}/data", node + 1);
                    put_back(&all.join(&home), &machines.path().join(&home));
                }
                for node in [0, 1] {
                    machines.spawn(node);
                }
                for node in [0, 1] {
                    machines.ready(node).await;
                }
            }
        }
    }
    let [refused, told, harmless] = counts;
    println!("{refused} not started, {told} told, {harmless} harmless");
    assert!(refused + told > 0, "nothing was found");
    machines.restart(HIT).await;
    for client in &machines.clients {
        ledger.holds_at(client).await;
    }
    machines.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bit_that_flips_on_a_stopped_node_is_found_or_harmless() {
    flipped_bits(1, 8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: run by make test-long"]
async fn two_hundred_bits_that_flip_on_a_stopped_node_are_found_or_harmless() {
    flipped_bits(2, 200).await;
}
