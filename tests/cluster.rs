//! Real processes, killed for real: what was acknowledged stays, what was revoked stays revoked, on every node.
//!
//! What takes long is ignored here and run by `make test-long`.
#![allow(clippy::unwrap_used, reason = "a test's own helpers may fail loudly")]

mod common;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::cluster::Cluster;
use common::https;
use conclave::client::call::KeyParameters;
use conclave::client::delegation::{self, Delegation};
use conclave::client::{Capability, Client, ClientError, Connection, Identity, Limits, Origin, tls};
use ed25519_dalek::{Signature, VerifyingKey};
use rand::rngs::OsRng;
use serde_json::Value;

/// No request to a live node takes longer.
const LONGEST: Duration = Duration::from_secs(5);

/// A controller with a keystore, and a client for each node.
struct World {
    cluster: Cluster,
    clients: Vec<Client>,
    alice: Identity,
    bob: Identity,
    keystore: String,
}

impl World {
    async fn start() -> World {
        let cluster = Cluster::start(3, &[]).await;
        let trusted = tls::config(Some(&cluster.ca())).unwrap();
        let clients: Vec<Client> = cluster
            .nodes()
            .iter()
            .map(|node| {
                let origin = Origin::parse(&cluster.public_url).unwrap();
                let addresses = [node.https.to_string()];
                let connection = Connection::new(origin, &addresses, trusted.clone(), Limits::default());
                Client::new(connection.unwrap())
            })
            .collect();
        let (alice, bob) = (Identity::generate(&mut OsRng), Identity::generate(&mut OsRng));
        let (meter, _) = clients[0]
            .create_meter(&alice, alice.did(), "urn:uuid:test")
            .await
            .unwrap();
        let controllers = [alice.did().to_owned()];
        let config = clients[1]
            .create_keystore(&alice, &meter, &controllers, "ssm-v1", &[])
            .await
            .unwrap();
        let keystore = config["id"].as_str().unwrap().to_owned();
        World {
            cluster,
            clients,
            alice,
            bob,
            keystore,
        }
    }

    async fn key(&self, node: usize, key_type: &str) -> Key {
        let parameters = KeyParameters {
            key_type: key_type.to_owned(),
            ..KeyParameters::default()
        };
        let made = self.clients[node]
            .generate_key(&self.alice, &self.keystore, &parameters, None)
            .await
            .unwrap();
        Key {
            id: made.key_id,
            description: made.key_description,
        }
    }

    /// Signs through a node and verifies.
    async fn sign(&self, node: usize, key: &Key) -> Result<Duration, ClientError> {
        let data = rand::random::<[u8; 32]>();
        let began = Instant::now();
        let signature = self.clients[node].sign(&self.alice, &key.id, &data, None).await?;
        let took = began.elapsed();
        key.verify(&data, &signature);
        Ok(took)
    }

    fn delegate(&self, key: &Key) -> Capability {
        let delegation = Delegation {
            id: delegation::new_id(&mut OsRng),
            target: key.id.clone(),
            controller: self.bob.did().to_owned(),
            actions: vec!["sign".into()],
            expires: now() + 3_600,
            parent: None,
        };
        delegation.sign(&self.alice, now()).unwrap()
    }

    async fn open_envelopes(&self, node: usize) -> u64 {
        let answer = https::admin(self.cluster.nodes()[node].admin, "/status")
            .await
            .unwrap();
        let status: Value = serde_json::from_str(&answer.body).unwrap();
        status["shares"]["open_envelopes"].as_u64().unwrap()
    }
}

struct Key {
    id: String,
    description: Value,
}

impl Key {
    fn verify(&self, data: &[u8], signature: &[u8]) {
        let multibase = self.description["publicKeyMultibase"].as_str().unwrap();
        let bytes = bs58::decode(&multibase[1..]).into_vec().unwrap();
        let key = VerifyingKey::from_bytes(bytes[2..].try_into().unwrap()).unwrap();
        key.verify_strict(data, &Signature::from_slice(signature).unwrap())
            .unwrap();
    }
}

const ED25519: &str = "Ed25519VerificationKey2020";

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn status(refused: &ClientError) -> Option<u16> {
    match refused {
        ClientError::Refused(refusal) => Some(refusal.status),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_node_may_die_and_nothing_acknowledged_is_lost() {
    let mut world = World::start().await;
    let mut keys = vec![world.key(0, ED25519).await];
    let revoked = world.delegate(&keys[0]);
    world.clients[2].revoke(&world.alice, &revoked).await.unwrap();
    for dead in 0..3 {
        world.cluster.kill(dead).await;
        for live in (0..3).filter(|node| *node != dead) {
            // Using keys needs no leader: at once, and in time.
            assert!(world.sign(live, &keys[0]).await.unwrap() < LONGEST);
            // Changes need one; a dead leader is replaced.
            let began = Instant::now();
            keys.push(world.key(live, ED25519).await);
            assert!(began.elapsed() < LONGEST);
            let used = world.clients[live]
                .sign(&world.bob, &keys[0].id, b"no", Some(&revoked))
                .await;
            assert_eq!(status(&used.unwrap_err()), Some(403));
        }
        world.cluster.restart(dead).await;
        assert!(
            world.sign(dead, &keys[0]).await.unwrap() < LONGEST,
            "it serves again"
        );
    }
    for node in 0..3 {
        world.cluster.kill(node).await;
    }
    for node in 0..3 {
        world.cluster.spawn(node);
    }
    for node in 0..3 {
        world.cluster.ready(node).await;
        for key in &keys {
            world.sign(node, key).await.unwrap();
        }
        let used = world.clients[node]
            .sign(&world.bob, &keys[0].id, b"no", Some(&revoked))
            .await;
        assert_eq!(status(&used.unwrap_err()), Some(403));
    }
    world.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_gets_its_shares_and_then_another_may_die_for_good() {
    let mut world = World::start().await;
    world.cluster.kill(2).await;
    let keys = [world.key(0, ED25519).await, world.key(1, ED25519).await];
    assert_eq!(
        world.open_envelopes(0).await,
        2,
        "the others keep what the absent member will need"
    );
    world.cluster.restart(2).await;
    let until = Instant::now() + Duration::from_secs(20);
    while world.open_envelopes(0).await + world.open_envelopes(1).await > 0 {
        assert!(Instant::now() < until, "the shares did not arrive");
        tokio::task::yield_now().await;
    }
    world.cluster.kill(0).await;
    for key in &keys {
        world.sign(1, key).await.unwrap();
        world.sign(2, key).await.unwrap();
    }
    world.cluster.stop().await;
}

/// Revokes through one node and uses at once through another; changes the controller through one and acts as the old
/// one through another. Never accepted.
async fn acknowledged_means_everywhere(rounds: usize) {
    let world = World::start().await;
    let key = world.key(0, ED25519).await;
    for round in 0..rounds {
        let (one, other) = (round % 3, (round + 1 + round / 3 % 2) % 3);
        let capability = world.delegate(&key);
        world.clients[other]
            .sign(&world.bob, &key.id, b"yes", Some(&capability))
            .await
            .unwrap();
        world.clients[one]
            .revoke(&world.alice, &capability)
            .await
            .unwrap();
        let used = world.clients[other]
            .sign(&world.bob, &key.id, b"no", Some(&capability))
            .await;
        assert_eq!(status(&used.unwrap_err()), Some(403), "round {round}");
    }
    let mut controllers = [&world.alice, &world.bob];
    for round in 0..rounds {
        let (one, other) = (round % 3, (round + 1 + round / 3 % 2) % 3);
        let [old, new] = controllers;
        let mut config = world.clients[other]
            .get_keystore(old, &world.keystore, None)
            .await
            .unwrap();
        config["sequence"] = (config["sequence"].as_u64().unwrap() + 1).into();
        config["controller"] = new.did().into();
        world.clients[one]
            .update_keystore(old, &world.keystore, &config, None)
            .await
            .unwrap();
        let used = world.clients[other].sign(old, &key.id, b"no", None).await;
        assert_eq!(status(&used.unwrap_err()), Some(403), "round {round}");
        world.clients[other]
            .sign(new, &key.id, b"yes", None)
            .await
            .unwrap();
        controllers.reverse();
    }
    world.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_binds_every_node() {
    acknowledged_means_everywhere(40).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: run by make test-long"]
async fn what_is_acknowledged_binds_every_node_a_thousand_times() {
    acknowledged_means_everywhere(1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_nodes_sign_and_derive_with_three() {
    let mut cluster = Cluster::start(5, &[]).await;
    let trusted = tls::config(Some(&cluster.ca())).unwrap();
    let addresses: Vec<String> = cluster
        .nodes()
        .iter()
        .map(|node| node.https.to_string())
        .collect();
    let origin = Origin::parse(&cluster.public_url).unwrap();
    let client = Client::new(Connection::new(origin, &addresses, trusted, Limits::default()).unwrap());
    let alice = Identity::generate(&mut OsRng);
    let (meter, _) = client
        .create_meter(&alice, alice.did(), "urn:uuid:test")
        .await
        .unwrap();
    let controllers = [alice.did().to_owned()];
    let config = client
        .create_keystore(&alice, &meter, &controllers, "ssm-v1", &[])
        .await
        .unwrap();
    let keystore = config["id"].as_str().unwrap();
    let parameters = KeyParameters {
        key_type: ED25519.to_owned(),
        ..KeyParameters::default()
    };
    let made = client
        .generate_key(&alice, keystore, &parameters, None)
        .await
        .unwrap();
    let key = Key {
        id: made.key_id,
        description: made.key_description,
    };
    cluster.kill(4).await;
    cluster.kill(3).await;
    for _ in 0..6 {
        let signature = client
            .sign(&alice, &key.id, b"three of five", None)
            .await
            .unwrap();
        key.verify(b"three of five", &signature);
    }
    cluster.stop().await;
}
