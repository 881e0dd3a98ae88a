//! F10: links that are late, bring their bytes in small pieces and are reset. What TLS lets through is whole, so a lost
//! message is a lost connection here; see `common/links.rs`.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::common::ledger::{Ledger, is_not_now};
use crate::common::links::{FAIR, Links, Weather};
use crate::common::machines::{Machines, on_loopback};

/// Late as between continents, and lossy.
const MODERATE: Weather = Weather {
    delay: (10, 60),
    piece: 1_400,
    reset: 0.005,
};
/// The worst that nodes are held to: they need not serve, but may not be wrong.
const STORM: Weather = Weather {
    delay: (10, 500),
    piece: 1_400,
    reset: 0.01,
};
/// In which each turn succeeds at a moderate rate of everything.
const SERVED: Duration = Duration::from_secs(60);

/// `turns` through each node in moderate weather; a storm of so many seconds; fair weather again.
async fn weathers(seed: u64, turns: usize, storm: Duration) {
    let addresses = on_loopback(3);
    let peers: Vec<_> = addresses.iter().map(|at| at.peer).collect();
    let links = Links::before(&peers, seed).await;
    let mut machines = Machines::made(addresses).await;
    for from in 0..3 {
        for to in machines.others(from) {
            let proxy = links.addresses[from][to].to_string();
            machines.configure(from, "addresses", &(to + 1).to_string(), proxy);
        }
    }
    machines.start().await;
    let mut ledger = Ledger::of(&machines.clients[0]).await;

    links.set(MODERATE);
    let mut failed = 0;
    for turn in 0..turns * 3 {
        let (client, until) = (&machines.clients[turn % 3], Instant::now() + SERVED);
        while let Err(error) = ledger.turn(client).await {
            assert!(is_not_now(&error) && Instant::now() < until, "{error}");
            failed += 1;
            sleep(Duration::from_millis(100)).await;
        }
        ledger
            .nothing_revoked_is_accepted(&machines.clients[(turn + 1) % 3])
            .await;
    }
    println!(
        "moderate: {} turns, {failed} failed, {} resets",
        turns * 3,
        links.resets()
    );

    links.set(STORM);
    let until = Instant::now() + storm;
    let uses = machines.clients.iter().map(async |client| {
        let (mut tried, mut done) = (0, 0);
        while Instant::now() < until {
            tried += 1;
            match ledger.sign(client).await {
                Ok(()) => done += 1,
                Err(error) => assert!(is_not_now(&error), "{error}"),
            }
        }
        ledger.nothing_revoked_is_accepted(client).await;
        (tried, done)
    });
    let uses = futures::future::join_all(uses).await;
    println!(
        "storm: tried and answered by node {uses:?}, {} resets in all",
        links.resets()
    );
    assert!(links.resets() > 0, "no connection was reset");

    links.set(FAIR);
    machines.converge(&[0, 1, 2], Duration::from_secs(30)).await;
    for client in &machines.clients {
        ledger.holds_at(client).await;
    }
    machines.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_and_broken_links_make_nothing_wrong() {
    weathers(1, 1, Duration::from_secs(3)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: run by make test-long"]
async fn minutes_of_late_and_broken_links_make_nothing_wrong() {
    for seed in 2..6 {
        weathers(seed, 10, Duration::from_secs(60)).await;
    }
}
