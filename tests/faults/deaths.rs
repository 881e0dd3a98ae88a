//! F2, F3 and F23: a node is killed at each write and each sync of the Raft log, of the share store and of the audit record
//! while a key is generated, used, or its shares are renewed. A key is absent or whole, never between; what was
//! acknowledged is used through every node, and a retry works.
//!
//! The failpoints are strace's, so the program has none. It counts each call of each thread for itself: the second write is the
//! second of one thread, and a thread that comes after another one's first is not told from it. Writes and syncs are
//! therefore walked apart, and what is between the threads of a pool is left to the simulator. A process that is killed leaves
//! the system's cache as it is: what a power cut leaves is the simulator's too.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use conclave::identifier::LocalId;
use conclave::keystore::{KeyRecord, layout};
use conclave_consensus::Reading as _;
use conclave_shares::ShareId;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use crate::common::disks;
use crate::common::https;
use crate::common::ledger::{Ledger, is_not_now};
use crate::common::machines::{Machines, on_loopback};
use crate::common::strace::{self, SYNCS, Tracer};

/// What leaves something in a file.
const WRITES: &str = "write,pwrite64,pwritev";
/// No generation has so many of them in one file.
const BOUND: usize = 40;
const SERVED: Duration = Duration::from_secs(60);
/// A renewal that a holder broke off is tried again after a minute. If nothing comes of it, it was over before the death.
const RENEWED: Duration = Duration::from_secs(90);

/// What a node writes to, by part.
const PARTS: [&str; 3] = ["raft", "shares", "audit"];

fn files(machines: &Machines, node: usize, part: &str) -> Vec<PathBuf> {
    let ending = if part == "audit" { ".audit" } else { ".log" };
    strace::files(&machines.data(node).join(part), ending)
}

/// Which of a node's failpoints are tried.
#[derive(Clone, Copy)]
struct Walk {
    /// Of which calls.
    calls: &'static str,
    /// The first.
    from: usize,
    /// Every so many.
    step: usize,
}

/// Whether a node answers at all. One that is being killed does not, though its process may still be seen.
async fn lives(machines: &Machines, node: usize) -> bool {
    let asked = https::admin(machines.at(node).admin, "/health/live").await;
    asked.is_ok()
}

/// A turn through a node until it succeeds; what failed must have failed for want of another.
async fn retried(ledger: &mut Ledger, machines: &Machines, node: usize) {
    let until = Instant::now() + SERVED;
    while let Err(error) = ledger.turn(&machines.clients[node]).await {
        assert!(is_not_now(&error) && Instant::now() < until, "{error}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// Makes keys through node 0 and kills `victim` at one failpoint after the other, until a turn passes without reaching it.
/// How often it died.
async fn killed_at_each_write(
    machines: &mut Machines,
    ledger: &mut Ledger,
    victim: usize,
    part: &str,
    walk: Walk,
) -> usize {
    for (deaths, at) in (walk.from..BOUND).step_by(walk.step).enumerate() {
        let files = files(machines, victim, part);
        let what = format!("signal=KILL:when={at}");
        let tracer = Tracer::attach(machines.pid(victim), walk.calls, &what, &files);
        let made = ledger.turn(&machines.clients[0]).await;
        if let Err(error) = &made {
            assert!(is_not_now(error), "node {victim}, {part} {at}: {error}");
        }
        drop(tracer);
        let lives = https::admin(machines.at(victim).admin, "/health/live")
            .await
            .is_ok();
        if lives {
            made.unwrap_or_else(|error| panic!("node {victim}, {part} {at}: it lives, and {error}"));
            return deaths;
        }
        machines.ended(victim).await;
        // Without it first: what it leaves behind stops nobody.
        if victim != 0 {
            retried(ledger, machines, 0).await;
        }
        machines.restart(victim).await;
        retried(ledger, machines, 0).await;
        ledger.sign(&machines.clients[victim]).await.unwrap();
    }
    panic!("node {victim}, {part}: more than {BOUND} writes in a turn");
}

/// The epochs of all keys that are in the state of stopped nodes. Each key must be whole: its live share on every node.
fn whole(machines: &Machines, ledger: &Ledger) -> Vec<u64> {
    let state = disks::raft(&machines.path(), 1);
    let all = state.scan(&[0], &[0xff], usize::MAX).unwrap();
    let record = |place: &ShareId| -> Option<KeyRecord> {
        let ending = layout::of_key(&LocalId(place.keystore), &LocalId(place.key));
        let found = all.iter().find(|(at, _)| at.ends_with(&ending))?;
        postcard::from_bytes(&found.1).ok()
    };
    let mut live = Vec::new();
    let mut absent = 0;
    for node in 1..=3 {
        let store = disks::shares(&machines.path(), node, node).unwrap();
        let mut names = BTreeSet::new();
        let mut after = None;
        loop {
            let places = store.places(after.as_ref(), 1_024).unwrap();
            let Some(last) = places.last() else { break };
            after = Some(last.clone());
            for place in &places {
                match record(place) {
                    Some(record) if record.session == place.session => {
                        assert!(store.open_at(place).unwrap().is_some());
                        names.insert((place.key, place.session, record.epoch));
                    }
                    _ => absent += 1,
                }
            }
        }
        live.push(names);
    }
    println!(
        "{} whole keys; {absent} shares of sessions that came to nothing",
        live[0].len()
    );
    assert!(
        live.windows(2).all(|two| two[0] == two[1]),
        "a key is there in part"
    );
    assert!(live[0].len() >= ledger.keys.len(), "an acknowledged key is lost");
    live[0].iter().map(|(_, _, epoch)| *epoch).collect()
}

async fn deaths_while_keys_are_made(walks: &[(usize, &str, Walk)]) {
    if let Some(needs) = strace::missing() {
        return println!("skipped: needs {needs}");
    }
    let mut machines = Machines::made(on_loopback(3)).await;
    machines.start().await;
    let mut ledger = Ledger::of(&machines.clients[0]).await;
    ledger.turn(&machines.clients[0]).await.unwrap();
    for (victim, part, walk) in walks {
        let deaths = killed_at_each_write(&mut machines, &mut ledger, *victim, part, *walk).await;
        println!("node {victim} died {deaths} times at {part}: {}", walk.calls);
    }
    machines.converge(&[0, 1, 2], SERVED).await;
    for client in &machines.clients {
        ledger.holds_at(client).await;
    }
    machines.delivered().await;
    for node in 0..3 {
        machines.terminate(node).await;
    }
    whole(&machines, &ledger);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dies_at_a_write_leaves_a_key_absent_or_whole() {
    // The shares' failpoints, some of the others'.
    let walk = |calls, from, step| Walk { calls, from, step };
    let walks = [
        (0, "shares", walk(WRITES, 1, 1)),
        (0, "shares", walk(SYNCS, 1, 1)),
        (0, "raft", walk(SYNCS, 2, 4)),
        (1, "shares", walk(SYNCS, 1, 1)),
        (1, "audit", walk(WRITES, 1, 3)),
    ];
    deaths_while_keys_are_made(&walks).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: run by make test-long"]
async fn a_node_that_dies_at_any_write_leaves_a_key_absent_or_whole() {
    let mut walks = Vec::new();
    for victim in 0..2 {
        for part in PARTS {
            for calls in [WRITES, SYNCS] {
                let (from, step) = (1, 1);
                walks.push((victim, part, Walk { calls, from, step }));
            }
        }
    }
    deaths_while_keys_are_made(&walks).await;
}

/// Signs the operators' order number `sequence` to renew all shares and brings it to a node.
async fn order(machines: &Machines, sequence: u64, node: usize) {
    let folder = machines.path();
    let sign = Command::new(env!("CARGO_BIN_EXE_conclave"))
        .args([
            "operator",
            "sign",
            "renew-shares",
            "--sequence",
            &sequence.to_string(),
            "--genesis",
        ])
        .arg(folder.join("genesis.json"))
        .arg("--key")
        .arg(folder.join("operator.key"))
        .output();
    let signed = sign.await.unwrap();
    assert!(
        signed.status.success(),
        "{}",
        String::from_utf8_lossy(&signed.stderr)
    );
    let file = folder.join(format!("order-{sequence}.json"));
    fs::write(&file, signed.stdout).unwrap();
    let submit = Command::new(env!("CARGO_BIN_EXE_conclave"))
        .args([
            "operator",
            "submit",
            "--admin",
            &machines.at(node).admin.to_string(),
        ])
        .arg(file)
        .output();
    let told = submit.await.unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
}

/// Keys that these nodes, as leaders, have renewed since they started; nothing of a node that is down.
async fn renewed(machines: &Machines, nodes: &[usize]) -> u64 {
    let mut sum = 0;
    for node in nodes {
        let answer = https::admin(machines.at(*node).admin, "/metrics").await;
        let body = answer.map_or_else(|_| String::new(), |answer| answer.body);
        let line = body
            .lines()
            .find_map(|line| line.strip_prefix("conclave_keys_renewed_total "));
        sum += line.map_or(0, |count| count.parse::<u64>().unwrap());
    }
    sum
}

/// Orders renewals and kills `victim` at the writes `at` of `part`, while the key is used through the others.
async fn deaths_while_shares_are_renewed(deaths: &[(&str, &str, usize)]) {
    if let Some(needs) = strace::missing() {
        return println!("skipped: needs {needs}");
    }
    let mut machines = Machines::made(on_loopback(3)).await;
    machines.start().await;
    let mut ledger = Ledger::of(&machines.clients[0]).await;
    ledger.turn(&machines.clients[0]).await.unwrap();
    let id = LocalId::parse(ledger.keystore.rsplit_once('/').unwrap().1).unwrap();
    let mut died = 0;
    for (number, (part, calls, at)) in deaths.iter().enumerate() {
        let groups = machines.groups(0).await;
        let leader = groups[usize::try_from(id.group(16)).unwrap()].leader.unwrap();
        // The leader renews; in every other round a holder dies.
        let victim = (leader + number % 2) % 3;
        let others = machines.others(victim);
        let files = files(&machines, victim, part);
        let what = format!("signal=KILL:when={at}");
        let before = renewed(&machines, &[0, 1, 2]).await;
        let tracer = Tracer::attach(machines.pid(victim), calls, &what, &files);
        order(&machines, number as u64 + 1, others[0]).await;
        let until = Instant::now() + SERVED;
        while machines.has_ended(victim).is_none() && renewed(&machines, &[0, 1, 2]).await <= before {
            assert!(
                Instant::now() < until,
                "{part} {at}: neither a death nor a renewal"
            );
            for other in &others {
                let used = ledger.sign(&machines.clients[*other]).await;
                assert!(used.as_ref().err().is_none_or(is_not_now), "{used:?}");
            }
        }
        drop(tracer);
        if lives(&machines, victim).await {
            println!("{part} {at}: node {victim} lives");
        } else {
            if machines.runs(victim) {
                machines.ended(victim).await;
            }
            died += 1;
            let began = Instant::now();
            let before = renewed(&machines, &others).await;
            machines.restart(victim).await;
            while renewed(&machines, &[0, 1, 2]).await <= before && began.elapsed() < RENEWED {
                sleep(Duration::from_millis(100)).await;
            }
            println!(
                "{part} {at}: node {victim} died; renewed after {:?}",
                began.elapsed()
            );
        }
        for client in &machines.clients {
            ledger.sign(client).await.unwrap();
        }
    }
    assert!(died > 0, "nobody died");
    machines.converge(&[0, 1, 2], SERVED).await;
    for client in &machines.clients {
        ledger.holds_at(client).await;
    }
    machines.delivered().await;
    for node in 0..3 {
        machines.terminate(node).await;
    }
    let epochs = whole(&machines, &ledger);
    println!("epochs {epochs:?} after {} orders", deaths.len());
    assert!(epochs.iter().all(|epoch| *epoch >= 1), "a key was not renewed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dies_at_a_write_of_a_renewal_leaves_one_epoch_or_the_other() {
    deaths_while_shares_are_renewed(&[("shares", SYNCS, 1)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: run by make test-long"]
async fn a_node_that_dies_at_any_write_of_a_renewal_leaves_one_epoch_or_the_other() {
    let mut deaths = Vec::new();
    for part in PARTS {
        for calls in [WRITES, SYNCS] {
            // Twice each: once the one that renews, once a holder.
            for at in [1, 1, 2, 2, 3, 3] {
                deaths.push((part, calls, at));
            }
        }
    }
    deaths_while_shares_are_renewed(&deaths).await;
}
