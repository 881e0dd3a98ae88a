//! F6 to F9: three nodes, each in a network namespace of its own, with links that are cut one way, both ways, again and again.
//!
//! Over TCP a link that is cut one way carries nothing either way for long: what arrives is not acknowledged to its sender.

use std::time::Duration;

use conclave::identifier::LocalId;
use tokio::time::{Instant, sleep, sleep_until};

use crate::common::ledger::{Ledger, controller, is_not_now};
use crate::common::machines::Machines;
use crate::common::network::{Network, on_hosts};
use crate::common::world::{self, ED25519};

/// Raft groups of a cluster.
const GROUPS: u32 = 16;
/// In which the nodes agree again after a cut. Stated are 10 s; these tests share their cores with others.
const AGREED: Duration = Duration::from_secs(20);
/// In which those that can serve do, elections included.
const SERVED: Duration = Duration::from_secs(30);

/// Who leads the group of the ledger's keystore.
async fn leader(machines: &Machines, ledger: &Ledger) -> usize {
    let id = LocalId::parse(ledger.keystore.rsplit_once('/').unwrap().1).unwrap();
    let group = usize::try_from(id.group(GROUPS)).unwrap();
    machines.groups(0).await[group].leader.unwrap()
}

/// A turn through each of these nodes, repeated until it succeeds.
async fn served(machines: &Machines, ledger: &mut Ledger, nodes: &[usize]) {
    for node in nodes {
        let (client, until) = (&machines.clients[*node], Instant::now() + SERVED);
        while let Err(error) = ledger.turn(client).await {
            assert!(is_not_now(&error), "node {node}: {error}");
            assert!(Instant::now() < until, "node {node}: {error}");
            sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Waits until all agree again, and holds the ledger against each.
async fn heals(machines: &mut Machines, ledger: &Ledger) {
    let began = Instant::now();
    machines.converge(&[0, 1, 2], AGREED).await;
    println!("agreed {:?} after the cut was healed", began.elapsed());
    for client in &machines.clients {
        ledger.holds_at(client).await;
    }
}

#[test]
fn a_leader_in_the_minority_acknowledges_nothing_and_answers_nothing_old() {
    on_hosts(|network, mut machines| async move {
        let mut ledger = Ledger::of(&machines.clients[0]).await;
        ledger.turn(&machines.clients[0]).await.unwrap();
        let leader = leader(&machines, &ledger).await;
        let others = machines.others(leader);
        network.isolate(leader, &others);
        // At once, while it still believes that it leads, and while the others elect another one.
        let alone = &machines.clients[leader];
        let (alice, keystore) = (controller(), ledger.keystore.clone());
        let write = async {
            let made = world::generate(alone, &alice, &keystore, ED25519).await;
            let refused = made.err().expect("a minority has acknowledged a key");
            assert!(is_not_now(&refused), "{refused}");
        };
        tokio::join!(write, served(&machines, &mut ledger, &others));
        // What the majority has made since is not there for the minority; it does not say so, but that it cannot know.
        let newest = ledger.keys.last().unwrap().clone();
        let (read, listed, used, ()) = tokio::join!(
            alone.get_key(&alice, &newest.id, None),
            alone.get_keystore(&alice, &keystore, None),
            world::sign(alone, &alice, &ledger.keys[0], None),
            ledger.nothing_revoked_is_accepted(alone),
        );
        for refused in [read.err(), listed.err(), used.err()] {
            let refused = refused.expect("a minority has answered");
            assert!(is_not_now(&refused), "an answer from what it has: {refused}");
        }
        assert_eq!(machines.ask(leader, "/health/ready").await.status, 503);
        network.rejoin(leader, &others);
        heals(&mut machines, &ledger).await;
        machines.stop().await;
    });
}

/// Terms of all groups as a node sees them.
async fn terms(machines: &Machines, node: usize) -> Vec<u64> {
    machines
        .groups(node)
        .await
        .iter()
        .map(|group| group.term)
        .collect()
}

/// With the links as they are: once leaders are settled, these nodes are served for `long` without another election.
async fn no_election(machines: &Machines, ledger: &mut Ledger, nodes: &[usize], long: Duration) {
    served(machines, ledger, nodes).await;
    let asked = nodes[0];
    let until = Instant::now() + SERVED;
    while !machines
        .groups(asked)
        .await
        .iter()
        .all(|group| group.leader.is_some())
    {
        assert!(Instant::now() < until, "a group has no leader");
        sleep(Duration::from_millis(100)).await;
    }
    let before = terms(machines, asked).await;
    let until = Instant::now() + long;
    let mut turns = 0;
    while Instant::now() < until {
        served(machines, ledger, nodes).await;
        turns += nodes.len();
    }
    let after = terms(machines, asked).await;
    println!("{turns} turns, terms {before:?} -> {after:?}");
    assert_eq!(after, before, "leaders are moved again and again");
}

/// One-way cuts of every kind, each for `long`.
async fn one_way_cuts(network: Network, mut machines: Machines, long: Duration) {
    let mut ledger = Ledger::of(&machines.clients[0]).await;
    ledger.turn(&machines.clients[0]).await.unwrap();
    let leader = leader(&machines, &ledger).await;
    let others = machines.others(leader);

    // It hears nobody, all hear it.
    for other in &others {
        network.cut(*other, leader);
    }
    no_election(&machines, &mut ledger, &others, long).await;
    for other in &others {
        network.heal(*other, leader);
    }
    heals(&mut machines, &ledger).await;

    // It hears all, nobody hears it.
    for other in &others {
        network.cut(leader, *other);
    }
    no_election(&machines, &mut ledger, &others, long).await;
    for other in &others {
        network.heal(leader, *other);
    }
    heals(&mut machines, &ledger).await;

    // One link one way. The third node, linked with both, serves all the while.
    let [deaf, third] = others[..] else {
        panic!("three nodes")
    };
    network.cut(leader, deaf);
    no_election(&machines, &mut ledger, &[third], long).await;
    network.heal(leader, deaf);
    heals(&mut machines, &ledger).await;
    machines.stop().await;
}

#[test]
fn a_link_that_is_cut_one_way_moves_leaders_once_and_not_again() {
    on_hosts(|network, machines| one_way_cuts(network, machines, Duration::from_secs(2)));
}

#[test]
#[ignore = "long: run by make test-long"]
fn a_link_that_is_cut_one_way_for_minutes_moves_leaders_once() {
    on_hosts(|network, machines| one_way_cuts(network, machines, Duration::from_secs(60)));
}

/// The links of the leader break and come back, a second each. In every period something is acknowledged.
async fn flapping(network: Network, mut machines: Machines, periods: u32) {
    let mut ledger = Ledger::of(&machines.clients[0]).await;
    ledger.turn(&machines.clients[0]).await.unwrap();
    let leader = leader(&machines, &ledger).await;
    let others = machines.others(leader);
    let period = Duration::from_secs(1);
    let mut acknowledged = Vec::new();
    for round in 0..periods {
        let began = Instant::now();
        let mut turns = 0;
        for (cut, until) in [(true, began + period), (false, began + 2 * period)] {
            match cut {
                true => network.isolate(leader, &others),
                false => network.rejoin(leader, &others),
            }
            let node = others[usize::try_from(round).unwrap() % 2];
            let work = async {
                loop {
                    match ledger.turn(&machines.clients[node]).await {
                        Ok(()) => turns += 1,
                        Err(error) => {
                            assert!(is_not_now(&error), "{error}");
                            sleep(Duration::from_millis(50)).await;
                        }
                    }
                }
            };
            tokio::select! {
                () = work => {}
                () = sleep_until(until) => {}
            }
        }
        acknowledged.push(turns);
    }
    println!("turns in each period: {acknowledged:?}");
    let idle = acknowledged.iter().filter(|turns| **turns == 0).count();
    // The first may go to the election.
    assert!(idle <= 1, "periods without progress: {acknowledged:?}");
    heals(&mut machines, &ledger).await;
    machines.stop().await;
}

#[test]
fn a_flapping_link_stops_nobody() {
    on_hosts(|network, machines| flapping(network, machines, 4));
}

#[test]
#[ignore = "long: run by make test-long"]
fn a_link_that_flaps_for_five_minutes_stops_nobody() {
    on_hosts(|network, machines| flapping(network, machines, 150));
}
