//! A long time of load while nodes are killed, stand still and have slow disks, one after the other at random.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::common::load::Load;
use crate::common::strace::{self, SYNCS, Tracer};
use crate::common::world::World;

fn number(name: &str, default: u64) -> u64 {
    let given = std::env::var(name).ok().map(|text| text.parse());
    given.map_or(default, |number| number.unwrap())
}

/// A node's resident memory, MiB.
fn resident(pid: i32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: f64 = line.map_or(0.0, |line| line.trim().trim_end_matches(" kB").parse().unwrap());
    kib / 1024.0
}

/// `LOAD_SECONDS` (an hour) of it, from `SEED` (the clock's): what was acknowledged is there in the end, every answer was right,
/// no node that lived refused, and memory has stopped growing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: LOAD_SECONDS=3600, run by make test-long"]
async fn an_hour_of_kills_standstills_and_slow_disks_loses_nothing() {
    if let Some(what) = strace::missing() {
        panic!("needs {what}");
    }
    let seconds = number("LOAD_SECONDS", 3_600);
    let since = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let seed = number("SEED", since);
    println!("SEED={seed} LOAD_SECONDS={seconds}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut world = World::start(3).await;
    let load = Load::start(&world, 2).await;
    let began = Instant::now();
    let (mut kills, mut standstills, mut slow) = (0, 0, 0);
    // Of the largest node, before each fault.
    let mut memory = Vec::new();
    while began.elapsed() < Duration::from_secs(seconds) {
        load.goes_on(20).await;
        let nodes = world.cluster.nodes();
        let largest = nodes.iter().map(|node| resident(node.pid));
        memory.push(largest.fold(0.0, f64::max));
        let (node, length) = (
            rng.gen_range(0..3),
            Duration::from_millis(rng.gen_range(500..12_000)),
        );
        match rng.gen_range(0..3) {
            0 => {
                kills += 1;
                load.goes_down(node);
                world.cluster.kill(node).await;
                tokio::time::sleep(length).await;
                world.cluster.restart(node).await;
                load.is_up(node);
            }
            1 => {
                standstills += 1;
                load.goes_down(node);
                world.cluster.pause(node);
                tokio::time::sleep(length).await;
                world.cluster.resume(node);
                world.cluster.ready(node).await;
                load.is_up(node);
            }
            _ => {
                slow += 1;
                let pid = world.cluster.nodes()[node].pid;
                let tracer = Tracer::attach(pid, SYNCS, "delay_enter=100000", &[]);
                tokio::time::sleep(length).await;
                drop(tracer);
            }
        }
    }
    let account = load.finish().await;
    let third = memory.len() / 3;
    let most = |part: &[f64]| part.iter().copied().fold(0.0, f64::max);
    let (early, late) = (most(&memory[..third.max(1)]), most(&memory[2 * third..]));
    println!(
        "{kills} kills, {standstills} standstills, {slow} slow disks; p50 {:?}, p99 {:?} of what was answered well; the largest \
         node had {early:.0} MiB in the first third of the time, {late:.0} MiB in the last",
        account.percentile(50),
        account.percentile(99)
    );
    for client in &world.clients {
        account.holds_at(client).await;
    }
    account.whole_or_nothing(&world.clients).await;
    assert!(late < 1.5 * early + 32.0, "memory grows");
    account.is_faultless();
    world.cluster.stop().await;
}
