//! Symmetric keys while nodes die: with four holders any three go on; of three, one that restarts is waited for.

use std::sync::Arc;

use conclave::client::{Client, Identity};
use rand::rngs::OsRng;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::common::https;
use crate::common::world::{self, ED25519, HMAC, KEK, Key, World};

const MESSAGE: &[u8] = b"message";

/// Workers that make tags and open a wrap, each as soon as the last is answered.
struct Uses {
    controller: Arc<Identity>,
    keystore: String,
    keys: Arc<(Key, Key)>,
    tag: Arc<Vec<u8>>,
    stop: watch::Sender<bool>,
    answered: watch::Sender<usize>,
    workers: JoinSet<Vec<String>>,
}

impl Uses {
    /// Makes keys; `first` is a node that lives.
    async fn of(first: &Client) -> Uses {
        let controller = Arc::new(Identity::generate(&mut OsRng));
        let keystore = world::keystore(first, &controller).await;
        let key = |key_type| world::generate(first, &controller, &keystore, key_type);
        let (hmac, kek) = (key(HMAC).await.unwrap(), key(KEK).await.unwrap());
        let tag = first.sign(&controller, &hmac.id, MESSAGE, None).await.unwrap();
        Uses {
            controller,
            keystore,
            keys: Arc::new((hmac, kek)),
            tag: Arc::new(tag),
            stop: watch::channel(false).0,
            answered: watch::channel(0).0,
            workers: JoinSet::new(),
        }
    }

    /// A worker for each of these clients, all of them at work.
    async fn under_way(world: &World, clients: impl Iterator<Item = Client>) -> Uses {
        let mut uses = Uses::of(&world.clients[0]).await;
        for client in clients {
            uses.through(client).await;
        }
        uses.go_on(12).await;
        uses
    }

    /// One more worker. Each has a message and a wrap of its own: the same bytes are no requests of their own.
    async fn through(&mut self, client: Client) {
        let (controller, keys) = (self.controller.clone(), self.keys.clone());
        let (stop, answered) = (self.stop.subscribe(), self.answered.clone());
        let (message, payload): ([u8; 32], [u8; 32]) = (rand::random(), rand::random());
        let tag = client
            .sign(&controller, &keys.0.id, &message, None)
            .await
            .unwrap();
        let wrapped = client
            .wrap_key(&controller, &keys.1.id, &payload, None)
            .await
            .unwrap();
        self.workers.spawn(async move {
            let mut errors = Vec::new();
            let (hmac, kek) = &*keys;
            while !*stop.borrow() {
                match client.sign(&controller, &hmac.id, &message, None).await {
                    Ok(made) => assert_eq!(made, tag),
                    Err(error) => errors.push(format!("a tag: {error}")),
                }
                match client.unwrap_key(&controller, &kek.id, &wrapped, None).await {
                    Ok(opened) => assert_eq!(opened.as_deref().map(|opened| &opened[..]), Some(&payload[..])),
                    Err(error) => errors.push(format!("an unwrap: {error}")),
                }
                answered.send_modify(|answered| *answered += 2);
            }
            errors
        });
    }

    /// Waits for so many more answers.
    async fn go_on(&self, more: usize) {
        let mut answered = self.answered.subscribe();
        let enough = *answered.borrow() + more;
        let enough = answered.wait_for(|answered| *answered >= enough);
        tokio::time::timeout(std::time::Duration::from_secs(60), enough)
            .await
            .unwrap()
            .unwrap();
    }

    /// What went wrong.
    async fn end(mut self) -> Vec<String> {
        self.stop.send_replace(true);
        let mut errors = Vec::new();
        while let Some(worker) = self.workers.join_next().await {
            errors.extend(worker.unwrap());
        }
        errors
    }
}

/// A client that knows all nodes, and goes to the next one when one does not answer its call.
fn anywhere(world: &World) -> Client {
    let nodes = world.cluster.nodes();
    let addresses: Vec<String> = nodes.iter().map(|node| node.https.to_string()).collect();
    world::client(&world.cluster.public_url, &world.cluster.ca(), &addresses)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_holders_go_on_without_one() {
    let mut world = World::start(4).await;
    let uses = Uses::under_way(&world, (0..3).map(|node| world.client_of(node))).await;
    world.cluster.kill(3).await;
    uses.go_on(60).await;
    world.cluster.restart(3).await;
    uses.go_on(12).await;
    assert_eq!(uses.end().await, [""; 0]);
    world.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_three_holders_one_that_restarts_is_waited_for_and_one_that_is_away_is_told() {
    let mut world = World::start(3).await;
    let uses = Uses::under_way(&world, (0..2).map(|node| world.client_of(node))).await;
    world.cluster.kill(2).await;
    world.cluster.restart(2).await;
    uses.go_on(12).await;
    let (controller, keystore, keys, expected) = (
        uses.controller.clone(),
        uses.keystore.clone(),
        uses.keys.clone(),
        uses.tag.clone(),
    );
    assert_eq!(uses.end().await, [""; 0], "a restart costs nobody an error");

    assert_eq!(at_risk(&world, 0).await, (1, 0));
    world.cluster.kill(2).await;
    let signing = world.key(0, ED25519).await;
    for client in &world.clients[..2] {
        let refused = client.sign(&controller, &keys.0.id, MESSAGE, None).await;
        let conclave::client::ClientError::Refused(refusal) = refused.unwrap_err() else {
            panic!("no answer of the server's");
        };
        assert_eq!((refusal.status, refusal.retry_after), (503, Some(1)));
        assert!(
            refusal.reason.message.contains("node 3"),
            "{}",
            refusal.reason.message
        );
        assert!(
            refusal.reason.message.contains("fourth node"),
            "{}",
            refusal.reason.message
        );
    }
    for node in 0..2 {
        world.sign(node, &signing).await.unwrap();
    }
    assert_eq!(at_risk(&world, 0).await, (0, 1));

    world.cluster.restart(2).await;
    for client in &world.clients {
        let tag = client.sign(&controller, &keys.0.id, MESSAGE, None).await.unwrap();
        assert_eq!(tag, *expected);
        world::generate(client, &controller, &keystore, HMAC)
            .await
            .unwrap();
    }
    world.cluster.stop().await;
}

/// Keystores that would stop with one more node down, and those that have, by a node's word.
async fn at_risk(world: &World, node: usize) -> (u64, u64) {
    let admin = world.cluster.nodes()[node].admin;
    let answer = https::admin(admin, "/status/symmetric").await.unwrap();
    let status: Value = serde_json::from_str(&answer.body).unwrap();
    (
        status["at_risk"].as_u64().unwrap(),
        status["stopped"].as_u64().unwrap(),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_of_three_costs_nobody_an_error() {
    let mut world = World::start(3).await;
    let uses = Uses::under_way(&world, (0..3).map(|_| anywhere(&world))).await;
    for node in 0..3 {
        world.cluster.terminate(node).await;
        world.cluster.restart(node).await;
        uses.go_on(12).await;
    }
    assert_eq!(uses.end().await, [""; 0]);
    world.cluster.stop().await;
}
