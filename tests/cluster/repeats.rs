//! Twins are two, replays are refused: the same bytes to any node, before and after all of them died.

use std::time::Duration;

use conclave::client::{Call, Reply, SignedRequest};
use serde_json::Value;
use tokio::time::{Instant, sleep_until};

use crate::common::world::{ED25519, Key, World, X25519, of_type};

/// How long the same bytes are a twin, and a little more.
const TWINS: Duration = Duration::from_millis(2_100);

fn body(reply: &Reply) -> Value {
    assert!(
        reply.is_success(),
        "{} {}",
        reply.status,
        String::from_utf8_lossy(&reply.body)
    );
    reply.json().unwrap()
}

/// The same bytes to two nodes at the same time.
async fn twins(world: &World, call: &Call, nodes: (usize, usize)) -> [Value; 2] {
    let request = world.signed(call);
    let (one, other) = tokio::join!(world.send(nodes.0, &request), world.send(nodes.1, &request));
    [body(&one), body(&other)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twins_are_served_and_replays_refused_also_after_all_were_killed() {
    let mut world = World::start(3).await;
    let key = world.key(0, ED25519).await;
    let agreeing = world.key(1, X25519).await;

    let [one, other] = twins(&world, &Call::sign(&key.id, b"twin"), (0, 2)).await;
    for answer in [one, other] {
        let signature = answer["signatureValue"].as_str().unwrap();
        let signature = base64::Engine::decode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, signature);
        key.verify(b"twin", &signature.unwrap());
    }
    let generate = Call::generate_key(&world.keystore, &of_type(ED25519));
    let [one, other] = twins(&world, &generate, (1, 2)).await;
    assert_ne!(one["keyId"], other["keyId"]);
    for made in [one, other] {
        let made = Key {
            id: made["keyId"].as_str().unwrap().to_owned(),
            description: made["keyDescription"].clone(),
        };
        world.sign(0, &made).await.unwrap();
    }

    let first = world.clients[0].get_keystore(&world.alice, &world.keystore, None);
    let mut config = first.await.unwrap();
    config["sequence"] = 1.into();
    let public = agreeing.description["publicKeyMultibase"].as_str().unwrap();
    let meter = config["meterId"].as_str().unwrap();
    let origin = world.clients[0].connection().origin();
    let controllers = [world.alice.did().to_owned()];
    let calls = [
        ("sign", Call::sign(&key.id, b"once")),
        ("deriveSecret", Call::derive_secret(&agreeing.id, X25519, public)),
        (
            "generateKey",
            Call::generate_key(&world.keystore, &of_type(X25519)),
        ),
        ("update", Call::update_keystore(&world.keystore, &config)),
        (
            "meter",
            Call::create_meter(origin, world.alice.did(), "urn:uuid:once"),
        ),
        (
            "create",
            Call::create_keystore(origin, meter, &controllers, "ssm-v1", &[]),
        ),
    ];
    let requests: Vec<(&str, SignedRequest)> = calls
        .iter()
        .map(|(what, call)| (*what, world.signed(call)))
        .collect();
    for (at, (_, request)) in requests.iter().enumerate() {
        body(&world.send(at % 3, request).await);
    }
    let later = Instant::now() + TWINS;
    sleep_until(later).await;
    refused(&world, &requests).await;
    world.cluster.restart_all().await;
    refused(&world, &requests).await;
    // A fresh signature over the same call is another request.
    let again = world.send(0, &world.signed(&calls[0].1)).await;
    body(&again);
    world.cluster.stop().await;
}

async fn refused(world: &World, requests: &[(&str, SignedRequest)]) {
    for (what, request) in requests {
        for node in 0..3 {
            let reply = world.send(node, request).await;
            let told = String::from_utf8_lossy(&reply.body);
            assert_eq!(reply.status, 409, "{what} again at node {node}: {told}");
        }
    }
}
