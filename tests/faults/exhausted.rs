//! F34: a node has no file descriptors left, or is killed for its memory.

use std::fs;
use std::process::Command;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::common::ledger::{Ledger, retried};
use crate::common::machines::{Machines, on_loopback};

/// What the node may have open.
const FILES: usize = 256;
/// Over which its time is measured.
const WINDOW: Duration = Duration::from_secs(2);
/// How much of one core a node may take that accepts nothing. One that spins takes all of it.
const BUSY: f64 = 0.5;
const SERVED: Duration = Duration::from_secs(60);

/// Seconds of processor time that a process has had.
fn processor_time(pid: i32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks = |field: usize| fields[field].parse::<f64>().unwrap();
    // utime and stime, fields 14 and 15 of proc(5), of which two stand before the bracket; in hundredths.
    (ticks(11) + ticks(12)) / 100.0
}

fn open_files(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_file_descriptors_does_not_spin_and_comes_back() {
    let mut machines = Machines::made(on_loopback(3)).await;
    machines.start().await;
    let mut ledger = Ledger::of(&machines.clients[0]).await;
    ledger.turn(&machines.clients[0]).await.unwrap();
    let (node, others) = (2, [0, 1]);
    let pid = machines.pid(node);
    let limited = Command::new("prlimit")
        .args(["--pid", &pid.to_string(), &format!("--nofile={FILES}")])
        .status();
    assert!(limited.unwrap().success());

    // More of them than it can have, to every listener. They say nothing.
    let at = machines.at(node);
    let mut idle = Vec::new();
    for _ in 0..FILES / 2 {
        for listener in [at.https, at.peer, at.admin] {
            // A full backlog leaves a connection waiting; that is idle enough.
            let connected = tokio::time::timeout(Duration::from_millis(50), TcpStream::connect(listener));
            if let Ok(Ok(stream)) = connected.await {
                idle.push(stream);
            }
        }
    }
    let until = Instant::now() + SERVED;
    while open_files(pid) < FILES {
        assert!(
            Instant::now() < until,
            "{} of {FILES} files are open",
            open_files(pid)
        );
        sleep(Duration::from_millis(20)).await;
    }
    let before = processor_time(pid);
    sleep(WINDOW).await;
    let share = (processor_time(pid) - before) / WINDOW.as_secs_f64();
    println!(
        "{} idle connections, {} files, {share:.2} of a core",
        idle.len(),
        open_files(pid)
    );
    assert!(
        share < BUSY,
        "a node that can accept nothing is busy: {share:.2} of a core"
    );
    for client in others.map(|other| &machines.clients[other]) {
        retried(SERVED, "a signature", || ledger.sign(client)).await;
    }
    for other in others {
        let until = Instant::now() + SERVED;
        while let Err(error) = ledger.turn(&machines.clients[other]).await {
            assert!(Instant::now() < until, "node {other}: {error}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    idle.clear();
    // It may have ended itself for want of a file; else it goes on as if nothing had been.
    if let Some(ended) = machines.has_ended(node) {
        println!("the node ended itself: {ended}");
        machines.spawn(node);
    }
    machines.ready(node).await;
    retried(SERVED, "a signature", || ledger.sign(&machines.clients[node])).await;
    // Killed for its memory is killed.
    machines.kill(node).await;
    retried(SERVED, "a signature", || ledger.sign(&machines.clients[0])).await;
    machines.restart(node).await;
    machines.converge(&[0, 1, 2], SERVED).await;
    for client in &machines.clients {
        ledger.holds_at(client).await;
    }
    machines.stop().await;
}
