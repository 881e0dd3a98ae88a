//! A cluster moves to other machines, all of them, while its clients go on with everything that they do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use conclave::client::Client;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::members::{change_through, client_of};
use super::orders;
use crate::common::disks;
use crate::common::world::{self, ED25519, KEK, Key, World, X25519};

/// A key of each kind.
struct Keys {
    signing: Key,
    agreeing: Key,
    wrapping: Key,
}

impl Keys {
    async fn new(world: &World) -> Self {
        let (signing, agreeing) = (world.key(0, ED25519).await, world.key(1, X25519).await);
        Self {
            wrapping: world.key(2, KEK).await,
            signing,
            agreeing,
        }
    }

    fn all(&self) -> [&Key; 3] {
        [&self.signing, &self.agreeing, &self.wrapping]
    }
}

/// A client that signs, derives, wraps and revokes all the time, and accepts no error but a 503 that goes away.
struct Busy {
    /// The node that it goes to, and whether it is to stop.
    at: watch::Sender<(Arc<Client>, bool)>,
    rounds: watch::Receiver<u32>,
    ended: JoinHandle<Result<(), String>>,
}

impl Busy {
    fn start(world: &Arc<World>, keys: &Arc<Keys>, first: Client) -> Self {
        let (at, going) = watch::channel((Arc::new(first), false));
        let (count, rounds) = watch::channel(0);
        let (world, keys) = (world.clone(), keys.clone());
        let ended = tokio::spawn(async move {
            loop {
                let (client, over) = going.borrow().clone();
                if over {
                    return Ok(());
                }
                let round = round(&world, &keys, &client).await;
                round.map_err(|what| format!("round {}: {what}", *count.borrow()))?;
                count.send_modify(|count| *count += 1);
            }
        });
        Self { at, rounds, ended }
    }

    /// Goes to another node from its next round on, and comes back when it has done a few there.
    async fn goes_to(&mut self, client: Client) {
        self.at.send_modify(|at| at.0 = Arc::new(client));
        self.goes_on().await;
    }

    async fn goes_on(&mut self) {
        let before = *self.rounds.borrow();
        let enough = self.rounds.wait_for(|rounds| *rounds >= before + 3);
        let _ = tokio::time::timeout(Duration::from_secs(60), enough).await;
        if *self.rounds.borrow() < before + 3 {
            assert!(self.ended.is_finished(), "it stands still");
            panic!("{:?}", (&mut self.ended).await);
        }
    }

    async fn ends(self) -> u32 {
        self.at.send_modify(|at| at.1 = true);
        self.ended.await.unwrap().unwrap();
        *self.rounds.borrow()
    }
}

/// Asks again after a 503, as clients do: while parts of a symmetric key move, or the machine has too much to do, it is right to say so.
macro_rules! served {
    ($what:literal, $ask:expr) => {{
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            match $ask.await {
                Err(error) if world::status(&error) == Some(503) && Instant::now() < until => {
                    println!("{} is asked again: {error}", $what);
                    sleep(Duration::from_millis(200)).await;
                }
                other => break other.map_err(|error| format!("{}: {error}", $what))?,
            }
        }
    }};
}

async fn round(world: &World, keys: &Keys, client: &Client) -> Result<(), String> {
    let (alice, bob) = (&world.alice, &world.bob);
    served!("sign", world::sign(client, alice, &keys.signing, None));
    served!("derive", world::derive(client, alice, &keys.agreeing));
    let payload = rand::random::<[u8; 32]>();
    let kek = &keys.wrapping.id;
    let wrapped = served!("wrap", client.wrap_key(alice, kek, &payload, None));
    let unwrapped = served!("unwrap", client.unwrap_key(alice, kek, &wrapped, None));
    if unwrapped.is_none_or(|unwrapped| *unwrapped != payload) {
        return Err("another payload".into());
    }
    let capability = world.delegate(&keys.signing);
    served!(
        "sign by delegation",
        world::sign(client, bob, &keys.signing, Some(&capability))
    );
    served!("revoke", client.revoke(alice, &capability));
    let used = client.sign(bob, &keys.signing.id, b"no", Some(&capability)).await;
    match used.map_err(|error| world::status(&error)) {
        Err(Some(403 | 503)) => Ok(()),
        other => Err(format!("what was revoked answers {other:?}")),
    }
}

/// Orders new shares of all six keys, and waits until they are there.
async fn refresh(world: &World, admins: &[SocketAddr], sequence: &str) {
    let before = orders::renewed(admins).await;
    let order = orders::signed(&world.cluster.path(), sequence).await;
    let admin = admins[0].to_string();
    let brought = orders::operator(&["submit", "--admin", &admin, order.to_str().unwrap()]).await;
    assert!(
        brought.status.success(),
        "{}",
        String::from_utf8_lossy(&brought.stderr)
    );
    let until = Instant::now() + Duration::from_secs(60);
    while orders::renewed(admins).await < before + 6 {
        assert!(Instant::now() < until, "the keys have no new shares");
        sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until a node that left has no share of any of the keys, and stops it to look at its disk.
async fn leaves_nothing(world: &mut World, keys: &[Arc<Keys>; 2], place: usize) {
    let node = place as u64 + 1;
    let until = Instant::now() + Duration::from_secs(60);
    while world.status(place).await["shares"]["holds_any"] != false {
        assert!(Instant::now() < until, "{}", world.status(place).await);
        sleep(Duration::from_millis(200)).await;
    }
    world.cluster.kill(place).await;
    let shares = disks::shares(&world.cluster.path(), node, node).unwrap();
    for key in keys.iter().flat_map(|keys| keys.all()) {
        let (keystore, id) = disks::ids(key);
        let sessions = shares.sessions(&keystore.0, &id.0).unwrap();
        assert!(sessions.is_empty(), "node {node} has shares of {}", key.id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_become_five_and_three_others_while_clients_go_on() {
    let world = Arc::new(World::start(3).await);
    let admin = |node: usize| world.cluster.nodes()[node].admin;
    let keys = [
        Arc::new(Keys::new(&world).await),
        Arc::new(Keys::new(&world).await),
    ];
    let mut busy = [0, 1].map(|one| Busy::start(&world, &keys[one], world.client_of(2 * one)));
    for one in &mut busy {
        one.goes_on().await;
    }

    let grown = change_through(&world, admin(0), "add", &[], (4, 2)).await;
    busy[0].goes_to(client_of(&world, &grown[0])).await;
    let of_five: Vec<SocketAddr> = (0..3)
        .map(admin)
        .chain(grown.iter().map(|new| new.admin))
        .collect();
    refresh(&world, &of_five, "2").await;

    busy[1].goes_to(client_of(&world, &grown[1])).await;
    change_through(&world, grown[0].admin, "remove", &[1, 2], (0, 0)).await;
    let last = change_through(&world, grown[0].admin, "replace", &[3], (6, 1)).await;
    busy[0].goes_to(client_of(&world, &last[0])).await;
    let of_three = [grown[0].admin, grown[1].admin, last[0].admin];
    refresh(&world, &of_three, "5").await;

    for one in &mut busy {
        one.goes_on().await;
    }
    let mut rounds = Vec::new();
    for one in busy {
        rounds.push(one.ends().await);
    }
    println!("{rounds:?} rounds while the members changed three times and shares twice");

    // The old machines together have nothing of any key, and the new ones need none of them.
    let mut world = Arc::into_inner(world).unwrap();
    for place in 0..3 {
        leaves_nothing(&mut world, &keys, place).await;
    }
    for node in grown.iter().chain(&last) {
        round(&world, &keys[0], &client_of(&world, node)).await.unwrap();
    }
}
