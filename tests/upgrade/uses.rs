//! Load on a cluster whose nodes are replaced: every kind of call, each through whichever node answers, none of which may
//! fail.

use std::sync::Arc;

use conclave::client::{Client, ClientError, Connection, Identity, Limits, Origin, tls};
use rand::rngs::OsRng;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::SOON;
use crate::common::world::{self, ED25519, HMAC, World};

/// Workers, each with a keystore of its own and one call after the other.
pub(crate) struct Uses {
    stop: watch::Sender<bool>,
    /// Rounds that each worker has done.
    rounds: watch::Sender<Vec<usize>>,
    workers: JoinSet<Vec<String>>,
}

struct Worker {
    number: usize,
    client: Client,
    alice: Identity,
    bob: Identity,
    keystore: String,
    errors: Vec<String>,
}

impl Uses {
    /// One worker that changes things and one that makes tags.
    pub(crate) async fn under_way(world: &World) -> Uses {
        let mut uses = Uses {
            stop: watch::channel(false).0,
            rounds: watch::channel(vec![0; 2]).0,
            workers: JoinSet::new(),
        };
        for number in 0..2 {
            let alice = Identity::generate(&mut OsRng);
            let worker = Worker {
                number,
                client: anywhere(world),
                keystore: world::keystore(&world.clients[0], &alice).await,
                alice,
                bob: Identity::generate(&mut OsRng),
                errors: Vec::new(),
            };
            let (stop, rounds) = (uses.stop.subscribe(), uses.rounds.clone());
            uses.workers.spawn(worker.work(stop, rounds));
        }
        uses.go_on().await;
        uses
    }

    /// Waits until every worker has done two rounds from now on: one of them began after this.
    pub(crate) async fn go_on(&self) {
        let mut rounds = self.rounds.subscribe();
        let before = rounds.borrow().clone();
        let enough = |now: &Vec<usize>| now.iter().zip(&before).all(|(now, before)| *now >= before + 2);
        let enough = tokio::time::timeout(SOON, rounds.wait_for(enough)).await;
        enough.expect("the load goes on").unwrap();
    }

    /// What went wrong.
    pub(crate) async fn end(mut self) -> Vec<String> {
        self.stop.send_replace(true);
        let mut errors = Vec::new();
        while let Some(worker) = self.workers.join_next().await {
            errors.extend(worker.unwrap());
        }
        errors
    }
}

/// A client that knows all nodes, and goes to the next one when one takes no connection. It makes one for each call: a node
/// that stops closes those that are idle, and a call that is sent on one in that moment has no answer.
fn anywhere(world: &World) -> Client {
    let nodes = world.cluster.nodes();
    let addresses: Vec<String> = nodes.iter().map(|node| node.https.to_string()).collect();
    let origin = Origin::parse(&world.cluster.public_url).unwrap();
    let trusted = tls::config(Some(&world.cluster.ca())).unwrap();
    let limits = Limits {
        idle: 0,
        ..Limits::default()
    };
    Client::new(Connection::new(origin, &addresses, trusted, limits).unwrap())
}

impl Worker {
    async fn work(mut self, stop: watch::Receiver<bool>, rounds: watch::Sender<Vec<usize>>) -> Vec<String> {
        let hmac = world::generate(&self.client, &self.alice, &self.keystore, HMAC).await;
        let hmac = Arc::new(hmac.unwrap());
        while !*stop.borrow() {
            match self.number {
                0 => self.change().await,
                _ => {
                    let message: [u8; 32] = rand::random();
                    let made = self.client.sign(&self.alice, &hmac.id, &message, None).await;
                    if let Some(tag) = self.done("a tag", made) {
                        let verified = self.client.verify(&self.alice, &hmac.id, (&message, &tag), None);
                        let verified = verified.await;
                        assert_ne!(self.done("a verification", verified), Some(false));
                    }
                }
            }
            rounds.send_modify(|rounds| rounds[self.number] += 1);
        }
        self.errors
    }

    /// A new key, signatures by it, a delegation and its revocation, a new configuration.
    async fn change(&mut self) {
        let made = world::generate(&self.client, &self.alice, &self.keystore, ED25519).await;
        let Some(key) = self.done("a key", made) else {
            return;
        };
        let signed = world::sign(&self.client, &self.alice, &key, None).await;
        self.done("a signature", signed);
        let capability = world::delegate(&self.alice, &self.bob, &key);
        let signed = world::sign(&self.client, &self.bob, &key, Some(&capability)).await;
        self.done("a signature by delegation", signed);
        let revoked = self.client.revoke(&self.alice, &capability).await;
        if self.done("a revocation", revoked).is_some() {
            let used = self
                .client
                .sign(&self.bob, &key.id, b"no", Some(&capability))
                .await;
            let status = used.map_or_else(|error| world::status(&error), |_| None);
            if status != Some(403) {
                self.errors.push(format!("a revoked capability: {status:?}"));
            }
        }
        let config = self.client.get_keystore(&self.alice, &self.keystore, None).await;
        let Some(mut config) = self.done("a configuration", config) else {
            return;
        };
        config["sequence"] = (config["sequence"].as_u64().unwrap() + 1).into();
        let updated = self
            .client
            .update_keystore(&self.alice, &self.keystore, &config, None)
            .await;
        self.done("an update", updated);
    }

    fn done<T>(&mut self, what: &str, outcome: Result<T, ClientError>) -> Option<T> {
        outcome
            .inspect_err(|error| self.errors.push(format!("{what}: {error}")))
            .ok()
    }
}
