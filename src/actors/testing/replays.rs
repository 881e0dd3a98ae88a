//! The same bytes twice: at once they are two requests, later they are a replay, whichever node they reach.

use futures::join;
use rand::rngs::OsRng;

use super::client::{ED25519, Key, furnished, status};
use super::cluster::run;

#[test]
fn twins_are_two_requests_and_replays_are_refused_through_any_node() {
    run(async {
        let (cluster, client, keystore, signing, agreement) = furnished(3).await;
        let nodes = || cluster.nodes().iter();
        let first = cluster.node(1);

        let generate = client.generate(&keystore, ED25519, "");
        let (one, two) = join!(first.serve(generate.clone()), first.serve(generate.clone()));
        let (one, two) = (Key::of(&one.unwrap()), Key::of(&two.unwrap()));
        assert_ne!(one.id, two.id);
        assert_ne!(one.public, two.public);

        let sign = client.sign(&keystore, &signing, b"twin");
        let (one, two) = join!(first.serve(sign.clone()), first.serve(sign.clone()));
        assert!(signing.verifies(b"twin", &one.unwrap()) && signing.verifies(b"twin", &two.unwrap()));
        let elsewhere = cluster.node(2).serve(sign.clone()).await;
        assert!(
            signing.verifies(b"twin", &elsewhere.unwrap()),
            "a twin through another node"
        );

        let other = x25519_dalek::PublicKey::from(&x25519_dalek::StaticSecret::random_from_rng(OsRng));
        let derive = client.derive(&keystore, &agreement, &other);
        let (one, two) = join!(first.serve(derive.clone()), first.serve(derive.clone()));
        assert_eq!(one.unwrap().body, two.unwrap().body);

        nodes().for_each(|node| node.pass(2_001));
        for node in nodes() {
            for (what, request) in [("sign", &sign), ("derive", &derive), ("generate", &generate)] {
                let code = status(&node.serve(request.clone()).await);
                assert_eq!(code, 409, "{what} through node {}", node.parts.node);
            }
        }
        cluster.stop().await;
    });
}

#[test]
fn a_secret_goes_to_one_coordinator_only() {
    run(async {
        let (cluster, client, keystore, _, agreement) = furnished(3).await;
        let other = x25519_dalek::PublicKey::from(&x25519_dalek::StaticSecret::random_from_rng(OsRng));
        let derive = client.derive(&keystore, &agreement, &other);
        // Node 3 away, so that nodes 1 and 2 have both seen it.
        cluster.isolate(3);
        assert_eq!(status(&cluster.node(1).serve(derive.clone()).await), 200);
        cluster.rejoin(3);
        for node in [2, 3] {
            let code = status(&cluster.node(node).serve(derive.clone()).await);
            assert_eq!(code, 409, "within the twins' time, through node {node}");
        }
        cluster.stop().await;
    });
}
