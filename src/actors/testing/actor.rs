//! A keystore's actor panics, is flooded, is passivated: what that costs, and whom.

use std::sync::mpsc;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::oneshot;

use super::client::{furnished, sign_well, status};
use super::cluster::{run, until};
use crate::actors::keystore::Ask;
use crate::operation::route::Route;

#[test]
fn a_panic_costs_its_keystore_a_moment_and_no_other_anything() {
    run(async {
        let (cluster, client, keystore, key, _) = furnished(3).await;
        let node = cluster.node(1);
        let other = client.keystore(node).await;
        let other_key = client.key(node, &other, super::client::ED25519).await;
        for turn in 0..5_u8 {
            let requests: Vec<_> = (0..8_u8)
                .map(|n| {
                    (
                        client.sign(&keystore, &key, &[turn, n]),
                        client.sign(&other, &other_key, &[turn, n]),
                    )
                })
                .collect();
            let under_way: Vec<_> = requests
                .into_iter()
                .map(|(hit, spared)| {
                    let (first, second) = (node.registry.clone(), node.registry.clone());
                    let hit =
                        tokio::spawn(
                            async move { first.serve(first.next_operation(), hit, Vec::new()).await },
                        );
                    let spared = tokio::spawn(async move {
                        second.serve(second.next_operation(), spared, Vec::new()).await
                    });
                    (hit, spared)
                })
                .collect();
            node.registry.tell(keystore.id, Ask::Panic).unwrap();
            for (hit, spared) in under_way {
                let hit = status(&hit.await.unwrap());
                assert!(hit == 200 || hit == 503, "{hit}");
                assert_eq!(status(&spared.await.unwrap()), 200, "another keystore paid");
            }
            // Until the registry sees that the actor is gone, a message may still fall into its mailbox.
            loop {
                match status(&node.serve(client.sign(&keystore, &key, &[turn, 99])).await) {
                    200 => break,
                    code => assert_eq!(code, 503),
                }
            }
        }
        cluster.stop().await;
    });
}

#[test]
fn a_full_mailbox_is_a_503_and_what_was_accepted_is_answered() {
    run(async {
        let (cluster, client, keystore, key, _) = furnished(3).await;
        let node = cluster.node(1);
        sign_well(node, &client, &keystore, &key, b"the actor lives").await;

        let (release, held) = mpsc::channel::<()>();
        let (blocked, is_blocked) = oneshot::channel();
        node.arbiter.spawn_fn(move || {
            let _ = blocked.send(());
            let _ = held.recv();
        });
        is_blocked.await.unwrap();
        let Some(Route::GetKey(in_path, key_in_path)) = Route::parse("GET", &key.path) else {
            panic!("no route");
        };
        let mut accepted = Vec::new();
        let refused = loop {
            assert!(accepted.len() < 10_000, "a mailbox without a bound");
            let (answer, answered) = oneshot::channel();
            let ask = Ask::Describe {
                keystore: in_path.clone(),
                key: key_in_path.clone(),
                addresses: Vec::new().into(),
                answer,
            };
            match node.registry.tell(keystore.id, ask) {
                Ok(()) => accepted.push(answered),
                Err(problem) => break problem,
            }
        };
        assert_eq!(refused.status, 503);
        assert!(refused.retry_after.is_some());
        assert_eq!(
            status(&node.serve(client.sign(&keystore, &key, b"no room")).await),
            503
        );
        release.send(()).unwrap();
        for answer in join_all(accepted).await {
            let code = status(&answer.expect("what was accepted is answered"));
            assert!(code == 200 || code == 429, "{code}");
        }
        sign_well(node, &client, &keystore, &key, b"room again").await;
        cluster.stop().await;
    });
}

#[test]
fn an_idle_actor_ends_and_the_next_message_makes_it_anew() {
    run(async {
        let (cluster, client, keystore, key, _) = furnished(3).await;
        let node = cluster.node(1);
        sign_well(node, &client, &keystore, &key, b"awake").await;
        let living = node.registry.len();
        assert!(living > 0);
        node.registry
            .tell(keystore.id, Ask::Idle(Duration::from_secs(30)))
            .unwrap();
        sign_well(node, &client, &keystore, &key, b"not idle for long enough").await;
        assert_eq!(node.registry.len(), living);
        node.registry
            .tell(keystore.id, Ask::Idle(Duration::from_secs(60)))
            .unwrap();
        until("the actor ends", || node.registry.len() < living).await;
        sign_well(node, &client, &keystore, &key, b"awake again").await;
        assert_eq!(node.registry.len(), living);
        cluster.stop().await;
    });
}
