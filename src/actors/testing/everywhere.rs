//! Acknowledged means everywhere: a revocation or a controller's removal through one node binds a use through
//! another that begins when it is acknowledged.

use serde_json::json;

use super::client::{Client, furnished, status};
use super::cluster::{Cluster, run, until};
use super::malicious_coordinator::{commitments, encoded, forwarded};
use crate::actors::coordinator::upkeep;
use crate::actors::wire::{Answer, Call};
use crate::authorization::issue::Capability;
use crate::keystore::query;

const TIMES: u64 = 100;

#[test]
fn a_revocation_binds_every_node_at_once() {
    run(async {
        let (cluster, alice, keystore, key, _) = furnished(3).await;
        let bob = Client::new();
        for turn in 0..TIMES {
            let capability = alice.delegate(&keystore, &key, &bob, &format!("urn:uuid:{turn}"));
            let sign = |message: String| {
                bob.sign_by(Capability::Delegated(&capability), &key, message.as_bytes(), 0)
            };
            let (here, there) = (
                cluster.node(1 + turn % 3),
                cluster.node(1 + (turn + 1 + turn / 3 % 2) % 3),
            );
            if turn % 10 == 0 {
                assert_eq!(status(&there.serve(sign(format!("before {turn}"))).await), 200);
            }
            assert_eq!(
                status(&here.serve(alice.revoke(&keystore, &capability)).await),
                204
            );
            let code = status(&there.serve(sign(format!("after {turn}"))).await);
            assert_eq!(code, 403, "turn {turn}");
        }
        cluster.stop().await;
    });
}

#[test]
fn a_removed_controller_is_refused_by_every_node_at_once() {
    run(async {
        let cluster = Cluster::start(3).await;
        let (alice, bob) = (Client::new(), Client::new());
        let both = json!([alice.did, bob.did]);
        let keystore = alice.keystore_of(cluster.node(1), both.clone()).await;
        let key = alice
            .key(cluster.node(1), &keystore, super::client::ED25519)
            .await;
        for turn in 0..TIMES / 2 {
            let (here, there) = (
                cluster.node(1 + turn % 3),
                cluster.node(1 + (turn + 1 + turn / 3 % 2) % 3),
            );
            let message = |when: &str| format!("{when} {turn}").into_bytes();
            let used = there.serve(bob.sign(&keystore, &key, &message("before"))).await;
            assert_eq!(status(&used), 200, "turn {turn}, a controller");
            let removed = alice.update(&keystore, 2 * turn + 1, &json!([alice.did]));
            assert_eq!(status(&here.serve(removed).await), 200, "turn {turn}");
            let used = there.serve(bob.sign(&keystore, &key, &message("after"))).await;
            assert_eq!(status(&used), 403, "turn {turn}, no controller any more");
            let restored = alice.update(&keystore, 2 * turn + 2, &both);
            assert_eq!(status(&there.serve(restored).await), 200, "turn {turn}");
        }
        cluster.stop().await;
    });
}

#[test]
fn also_while_a_third_node_is_cut_off_from_the_leader() {
    run(async {
        let (cluster, alice, keystore, key, _) = furnished(3).await;
        let bob = Client::new();
        let group = cluster.node(1).parts.group_of(&keystore.id);
        for turn in 0..6 {
            let lent = alice.delegate(&keystore, &key, &bob, &format!("urn:uuid:cut-{turn}"));
            let sign =
                |message: String| bob.sign_by(Capability::Delegated(&lent), &key, message.as_bytes(), 0);
            let leader = cluster.leader(group, 1).unwrap();
            let [cut, other] = [1, 2, 3]
                .into_iter()
                .filter(|node| *node != leader)
                .collect::<Vec<_>>()
                .try_into()
                .unwrap();
            assert_eq!(
                status(&cluster.node(cut).serve(sign(format!("before {turn}"))).await),
                200
            );
            cluster.hub.cut(cut, leader);
            let revoke = alice.revoke(&keystore, &lent);
            let acknowledged = cluster
                .node(if turn % 2 == 0 { leader } else { other })
                .serve(revoke)
                .await;
            assert_eq!(status(&acknowledged), 204, "turn {turn}");
            for node in [cut, other, leader] {
                let code = status(
                    &cluster
                        .node(node)
                        .serve(sign(format!("after {turn} {node}")))
                        .await,
                );
                assert!(
                    code == 403 || (code == 503 && node == cut),
                    "turn {turn}, node {node}: {code}"
                );
            }
            cluster.hub.heal(cut, leader);
            let all: Vec<_> = cluster.nodes().iter().collect();
            cluster.settle(&all).await;
            assert_eq!(
                status(&cluster.node(cut).serve(sign(format!("healed {turn}"))).await),
                403
            );
        }
        cluster.stop().await;
    });
}

#[test]
fn a_denial_binds_a_member_from_which_the_entry_is_kept() {
    run(async {
        let cluster = Cluster::start(3).await;
        let (alice, bob, carol) = (Client::new(), Client::new(), Client::new());
        let both = json!([alice.did, bob.did]);
        let keystore = alice.keystore_of(cluster.node(1), both).await;
        let key = alice
            .key(cluster.node(1), &keystore, super::client::ED25519)
            .await;
        let lent = alice.delegate(&keystore, &key, &carol, "urn:uuid:lent");
        let by_carol = |message: &[u8]| carol.sign_by(Capability::Delegated(&lent), &key, message, 0);
        let by_bob = |message: &[u8]| bob.sign(&keystore, &key, message);
        cluster.catch_up(&keystore.id).await;
        let group = cluster.node(1).parts.group_of(&keystore.id);

        for (what, denial) in [
            ("revocation", alice.revoke(&keystore, &lent)),
            ("removal", alice.update(&keystore, 1, &json!([alice.did]))),
        ] {
            let denied = |message: &[u8]| match what {
                "revocation" => by_carol(message),
                _ => by_bob(message),
            };
            let leader = cluster.leader(group, 1).unwrap();
            let followers: Vec<u64> = (1..=3).filter(|node| *node != leader).collect();
            let (kept, thief) = (cluster.node(followers[0]), cluster.node(followers[1]));
            let theirs = commitments(thief, &keystore, &key).1;
            let question = |message: &[u8]| {
                let operation = thief.parts.next_operation();
                Call::Cosign(forwarded(operation, &encoded(&denied(message))), theirs.clone())
            };
            let before = thief.ask(followers[0], &question(b"before")).await;
            assert!(matches!(before, Answer::Cosigned(..)), "{what}");

            kept.deafen(true);
            let acknowledged = cluster.node(leader).serve(denial).await;
            assert!(acknowledged.is_ok(), "{what}: {acknowledged:?}");
            let after = thief.ask(followers[0], &question(b"after")).await;
            assert!(matches!(after, Answer::Refused(_)), "{what}: not refused");
            // It has not heard of the entry: only its own endorsement told it.
            let view = kept.parts.consensus.view(group).unwrap();
            let revoked = query::revoked(&view, &keystore.id, "urn:uuid:lent", &alice.did).unwrap();
            let record = kept.keystore_record(&keystore.id).unwrap();
            assert!(what != "revocation" || !revoked, "the entry got through");
            assert!(what != "removal" || record.version == 1, "the entry got through");
            drop(view);

            kept.deafen(false);
            cluster.catch_up(&keystore.id).await;
            let later = thief.ask(followers[0], &question(b"later")).await;
            assert!(
                matches!(later, Answer::Refused(_)),
                "{what}: not refused by the entry"
            );
        }
        cluster.stop().await;
    });
}

#[test]
fn a_change_whose_coordinator_died_is_finished_by_a_member_that_endorsed_it() {
    run(async {
        let cluster = Cluster::start(3).await;
        let (alice, carol) = (Client::new(), Client::new());
        let keystore = alice.keystore(cluster.node(1)).await;
        let key = alice
            .key(cluster.node(1), &keystore, super::client::ED25519)
            .await;
        let lent = alice.delegate(&keystore, &key, &carol, "urn:uuid:lent");
        let by_carol = |message: &[u8]| carol.sign_by(Capability::Delegated(&lent), &key, message, 0);
        cluster.catch_up(&keystore.id).await;

        // Node 3 shows the revocation to node 1, and dies before it proposes it.
        let dead = cluster.node(3);
        let operation = dead.parts.next_operation();
        let shown = Call::Endorse(forwarded(operation, &encoded(&alice.revoke(&keystore, &lent))));
        assert!(matches!(dead.ask(1, &shown).await, Answer::Endorsed(_)));
        assert_eq!(status(&cluster.node(1).serve(by_carol(b"there")).await), 403);
        assert_eq!(status(&cluster.node(2).serve(by_carol(b"elsewhere")).await), 200);

        let now = cluster.node(1).parts.now().unwrap();
        upkeep::orphans(&cluster.node(1).parts, now + 20_000).await;
        cluster.catch_up(&keystore.id).await;
        for node in cluster.nodes() {
            let view = node
                .parts
                .consensus
                .view(node.parts.group_of(&keystore.id))
                .unwrap();
            assert!(query::revoked(&view, &keystore.id, "urn:uuid:lent", &alice.did).unwrap());
            assert_eq!(status(&node.serve(by_carol(b"after")).await), 403);
            // It is told of an entry just after the state is visible.
            until("nothing is left open", || {
                !node.parts.denials.lock().concern(&keystore.id)
            })
            .await;
        }
        cluster.stop().await;
    });
}
