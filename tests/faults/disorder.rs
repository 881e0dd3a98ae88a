//! A long time of load while nodes are killed, cut off, stand still and have slow disks, one after the other at random.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::sleep;

use crate::common::load::Load;
use crate::common::machines::Machines;
use crate::common::network::{Network, on_hosts};
use crate::common::process::resident;
use crate::common::strace::{self, SYNCS, Tracer};

/// Keys of a worker for each minute of load. It makes more than a hundred, so that it has all of them within half of the time.
const KEYS_A_MINUTE: u64 = 48;

fn number(name: &str, default: u64) -> u64 {
    let given = std::env::var(name).ok().map(|text| text.parse());
    given.map_or(default, |number| number.unwrap())
}

/// The network's directed links that a cut takes away, and the nodes that need not serve meanwhile.
fn cut(rng: &mut StdRng, node: usize) -> (Vec<(usize, usize)>, Vec<usize>) {
    let others = [(node + 1) % 3, (node + 2) % 3];
    let (to, from) = (
        others.map(|other| (node, other)),
        others.map(|other| (other, node)),
    );
    match rng.gen_range(0..4) {
        0 => ([to, from].concat(), vec![node]),
        // It is heard by nobody; it hears nobody.
        1 => (to.to_vec(), vec![node]),
        2 => (from.to_vec(), vec![node]),
        // One link one way: only the third node is linked with a majority, itself included, for certain.
        _ => (vec![to[0]], vec![node, others[0]]),
    }
}

/// `LOAD_SECONDS` (an hour) of it, from `SEED` (the clock's): what was acknowledged is there in the end, every answer was right,
/// no node that lived and was linked refused, and memory stops growing once no more is stored.
#[test]
#[ignore = "long: LOAD_SECONDS=3600, run by make test-long"]
fn an_hour_of_kills_cuts_standstills_and_slow_disks_loses_nothing() {
    if let Some(what) = strace::missing() {
        panic!("needs {what}");
    }
    on_hosts(disorder);
}

async fn disorder(network: Network, mut machines: Machines) {
    let seconds = number("LOAD_SECONDS", 3_600);
    let since = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let seed = number("SEED", since);
    println!("SEED={seed} LOAD_SECONDS={seconds}");
    let mut rng = StdRng::seed_from_u64(seed);
    let most = usize::try_from(seconds * KEYS_A_MINUTE / 60).unwrap();
    let load = Load::start(|| machines.new_clients(), 2, Some(most)).await;
    let began = Instant::now();
    let (mut kills, mut cuts, mut standstills, mut slow) = (0, 0, 0, 0);
    // Of the largest node before each fault, KiB.
    let mut memory: Vec<u64> = Vec::new();
    while began.elapsed() < Duration::from_secs(seconds) {
        load.goes_on(20).await;
        let largest = (0..3).map(|node| resident(machines.pid(node))).max().unwrap();
        memory.push(largest);
        if memory.len().is_multiple_of(50) {
            let minutes = began.elapsed().as_secs() / 60;
            println!("{minutes} min: {} faults, {} MiB", memory.len(), largest / 1024);
        }
        let (node, length) = (
            rng.gen_range(0..3),
            Duration::from_millis(rng.gen_range(500..12_000)),
        );
        match rng.gen_range(0..4) {
            0 => {
                kills += 1;
                load.goes_down(node);
                machines.kill(node).await;
                sleep(length).await;
                machines.restart(node).await;
                load.is_up(node);
            }
            1 => {
                cuts += 1;
                let (links, excused) = cut(&mut rng, node);
                excused.iter().for_each(|node| load.goes_down(*node));
                links.iter().for_each(|(from, to)| network.cut(*from, *to));
                sleep(length).await;
                links.iter().for_each(|(from, to)| network.heal(*from, *to));
                for node in excused {
                    machines.ready(node).await;
                    load.is_up(node);
                }
            }
            2 => {
                standstills += 1;
                load.goes_down(node);
                machines.pause(node);
                sleep(length).await;
                machines.resume(node);
                machines.ready(node).await;
                load.is_up(node);
            }
            _ => {
                slow += 1;
                let tracer = Tracer::attach(machines.pid(node), SYNCS, "delay_enter=100000", &[]);
                sleep(length).await;
                drop(tracer);
            }
        }
    }
    let account = load.finish().await;
    let third = memory.len() / 3;
    let most = |part: &[u64]| part.iter().copied().max().unwrap_or_default();
    let (middle, late) = (most(&memory[third..2 * third]), most(&memory[2 * third..]));
    println!(
        "{kills} kills, {cuts} cuts, {standstills} standstills, {slow} slow disks; p50 {:?}, p99 {:?} of what was answered well; the \
         largest node had {} MiB in the second third of the time, {} MiB in the last",
        account.percentile(50),
        account.percentile(99),
        middle / 1024,
        late / 1024
    );
    for client in &machines.clients {
        account.holds_at(client).await;
    }
    account.whole_or_nothing(&machines.clients).await;
    assert!(10 * late < 12 * middle + 80 * 1024, "memory grows");
    account.is_faultless();
    machines.stop().await;
}
