//! F24: the clock of one node is ten minutes off, either way, and jumps back an hour. The program has no switch for that: a
//! library of the tests, `clock.c`, is loaded before it. (libfaketime cannot be: it allocates when it is first asked for the
//! time, and the program's allocator asks for the time before it can allocate.)

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use conclave::client::Capability;
use conclave::client::delegation::{self, Delegation};
use conclave::client::{Client, Identity};
use rand::rngs::OsRng;
use tokio::time::{Instant, sleep};

use crate::common::ledger::{Ledger, is_not_now};
use crate::common::machines::{Machines, on_loopback};
use crate::common::world::{self, Key};

const SERVED: Duration = Duration::from_secs(30);

/// Compiles the library. The error says what it needs.
fn library(machines: &Machines) -> Result<PathBuf, &'static str> {
    let path = machines.path().join("clock.so");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
        .arg(&path)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults/clock.c"))
        .status()
        .map_err(|_| "a C compiler, cc")?;
    assert!(compiled.success());
    Ok(path)
}

/// The file that says by how much a node's clock is off.
fn offset(machines: &Machines, node: usize) -> PathBuf {
    machines.home(node).join("clock")
}

/// Sets a node's clock this many seconds off, at once.
fn set(machines: &Machines, node: usize, seconds: i64) {
    let options = fs::File::options()
        .create(true)
        .write(true)
        .truncate(false)
        .open(offset(machines, node));
    options.unwrap().write_all(&seconds.to_ne_bytes()).unwrap();
}

/// A capability to sign with a key that expires so many seconds from now, made long ago.
fn expiring(alice: &Identity, bob: &Identity, key: &Key, seconds: i64) -> Capability {
    let delegation = Delegation {
        id: delegation::new_id(&mut OsRng),
        target: key.id.clone(),
        controller: bob.did().to_owned(),
        actions: vec!["sign".into()],
        expires: world::now().checked_add_signed(seconds).unwrap(),
        parent: None,
    };
    delegation.sign(alice, world::now() - 3_600).unwrap()
}

/// Turns through each of these, each repeated until it succeeds.
async fn served(machines: &Machines, ledger: &mut Ledger, nodes: &[usize]) {
    for node in nodes {
        let until = Instant::now() + SERVED;
        while let Err(error) = ledger.turn(&machines.clients[*node]).await {
            assert!(is_not_now(&error), "node {node}: {error}");
            assert!(Instant::now() < until, "node {node}: {error}");
            sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_off_or_jumps_back_stops_its_node_alone_and_revives_nothing() {
    let mut machines = Machines::made(on_loopback(3)).await;
    let library = match library(&machines) {
        Ok(library) => library,
        Err(needs) => return println!("skipped: needs {needs}"),
    };
    for node in 0..3 {
        set(&machines, node, 0);
        machines.before[node] = vec![
            "env".to_owned(),
            format!("LD_PRELOAD={}", library.display()),
            format!("CLOCK_OFFSET={}", offset(&machines, node).display()),
        ];
    }
    machines.start().await;
    let mut ledger = Ledger::of(&machines.clients[0]).await;
    ledger.turn(&machines.clients[0]).await.unwrap();
    let bob = Identity::from_seed(&[13; 32]);
    let key = ledger.keys[0].clone();
    // Beyond the five minutes that are allowed for.
    let expired = expiring(&ledger.alice, &bob, &key, -400);
    let dead = async |client: &Client| world::sign(client, &bob, &key, Some(&expired)).await.is_err();

    let leader = {
        let groups = machines.groups(0).await;
        let led = |node| groups.iter().filter(|group| group.leader == Some(node)).count();
        (0..3).max_by_key(|node| led(*node)).unwrap()
    };
    let other = machines.others(leader)[0];
    for (wrong, seconds) in [(other, -600), (leader, -3_600), (leader, 600)] {
        set(&machines, wrong, seconds);
        // What is signed just now has not begun for a node that lags. One that leads takes it until it has expired.
        let used = ledger.sign(&machines.clients[wrong]).await;
        println!(
            "{seconds} s: {}",
            used.as_ref()
                .map_or_else(ToString::to_string, |()| "served".to_owned())
        );
        assert!(seconds > 0 || used.is_err());
        let right = machines.others(wrong);
        served(&machines, &mut ledger, &right).await;
        // To the node that lags the capability has not expired yet; it has for everybody else.
        for client in &machines.clients {
            assert!(dead(client).await, "an expired capability was accepted");
        }
        ledger.nothing_revoked_is_accepted(&machines.clients[wrong]).await;
        if seconds < 0 {
            machines.unready(wrong, "behind the last audit record").await;
        }
        set(&machines, wrong, 0);
        if seconds < 0 {
            machines.ready(wrong).await;
            served(&machines, &mut ledger, &[right[0], right[1], wrong]).await;
            machines.converge(&[0, 1, 2], SERVED).await;
            machines.delivered().await;
        }
    }
    // It has recorded a time that is to come: until then it takes part in nothing, and says why.
    machines.unready(leader, "behind the last audit record").await;
    let right = machines.others(leader);
    served(&machines, &mut ledger, &right).await;
    for node in right {
        ledger.holds_at(&machines.clients[node]).await;
    }
    machines.stop().await;
}
