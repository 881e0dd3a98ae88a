//! Shares are made anew while keys are used: the keys stay the same, shares of two epochs never meet, and nobody can have
//! it done out of turn.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer, SigningKey};
use serde_json::json;

use super::client::{ED25519, Key, Keystore, derive_well, furnished, sign_well};
use super::cluster::{CLUSTER, Cluster, Node, SOON, operator, run, until};
use super::symmetric::{Desk, HMAC, KEK};
use crate::actors::census;
use crate::actors::coordinator::order::submit;
use crate::actors::coordinator::renewal::Renewer;
use crate::actors::coordinator::upkeep;
use crate::actors::parts::Parts;
use crate::actors::views::GROUP_ZERO;
use crate::actors::wire::{Abstention, Answer, Beginning, Call, Renewal, Round, ToRenew};
use crate::audit::Kind;
use crate::config::Hex32;
use crate::keystore::KeyRecord;
use crate::operator::{Change, OperatorSignature, Order, SignedOrder};

/// Shares are due at once on these nodes.
fn due_at_once(cluster: &Cluster) {
    for node in cluster.nodes() {
        node.parts.renewals.lock().policy.period = 1;
    }
}

/// Whoever leads renews what is due.
async fn renew(cluster: &Cluster) {
    for node in cluster.nodes() {
        Renewer::new(node.parts.clone()).pass().await;
    }
}

fn record(node: &Node, keystore: &Keystore, key: &Key) -> KeyRecord {
    node.key_record(&keystore.id, &key.id).unwrap()
}

/// Renews until this key has `epoch` on every node: leaders may change under a pass.
async fn renew_to(cluster: &Cluster, keystore: &Keystore, key: &Key, epoch: u64) {
    for _ in 0..10 {
        if record(cluster.node(1), keystore, key).epoch >= epoch {
            break;
        }
        renew(cluster).await;
        cluster.catch_up(&keystore.id).await;
    }
    for node in cluster.nodes() {
        assert!(record(node, keystore, key).epoch >= epoch);
    }
}

#[test]
fn keys_get_new_shares_and_stay_the_same_keys() {
    run(async {
        let (cluster, client, keystore, signing, agreement) = furnished(3).await;
        renew(&cluster).await;
        assert_eq!(record(cluster.node(1), &keystore, &signing).epoch, 0, "not due");
        due_at_once(&cluster);
        let before = record(cluster.node(1), &keystore, &signing);
        renew_to(&cluster, &keystore, &agreement, 1).await;
        let after = record(cluster.node(1), &keystore, &signing);
        let (old, new) = (before.material.pair().unwrap(), after.material.pair().unwrap());
        assert_eq!((after.epoch, new.1), (1, old.1));
        assert!(old.0 != new.0 && before.session != after.session);
        // Time passes in the group.
        client.key(cluster.node(3), &keystore, ED25519).await;
        cluster.catch_up(&keystore.id).await;
        for node in cluster.nodes() {
            sign_well(node, &client, &keystore, &signing, b"with new shares").await;
            derive_well(node, &client, &keystore, &agreement).await;
            assert!(node.recorded(Kind::Renewed).await >= 1);

            // Both epochs are on the disk until the new one is settled; then the old one cannot be opened any more.
            let shares = &node.parts.shares;
            let sessions = || shares.sessions(&keystore.id.0, &signing.id.0).unwrap();
            assert_eq!(sessions().len(), 2);
            let backup = node.parts.removal.read();
            upkeep::settle(&node.parts, 0).unwrap();
            assert_eq!(sessions().len(), 2, "a backup may name either");
            drop(backup);
            upkeep::settle(&node.parts, 0).unwrap();
            let left = sessions();
            assert_eq!(left.len(), 1);
            assert_eq!((left[0].id.epoch, left[0].id.session), (1, after.session));
            sign_well(node, &client, &keystore, &signing, b"without old ones").await;
        }
        cluster.stop().await;
    });
}

#[test]
fn uses_go_on_while_shares_are_renewed_again_and_again() {
    run(async {
        let (cluster, client, keystore, signing, _) = furnished(3).await;
        due_at_once(&cluster);
        let over = AtomicBool::new(false);
        let renewing = async {
            for epoch in 1..=8 {
                renew_to(&cluster, &keystore, &signing, epoch).await;
            }
            over.store(true, Ordering::Relaxed);
        };
        let signing_on = |node: u64| {
            let (cluster, client, keystore, signing, over) = (&cluster, &client, &keystore, &signing, &over);
            async move {
                let mut count = 0_u32;
                while !over.load(Ordering::Relaxed) {
                    let message = format!("{node} {count}");
                    sign_well(cluster.node(node), client, keystore, signing, message.as_bytes()).await;
                    count += 1;
                }
                count
            }
        };
        let (_, first, second, third) = futures::join!(renewing, signing_on(1), signing_on(2), signing_on(3));
        assert!(first.min(second).min(third) > 8, "{first} {second} {third}");
        for node in cluster.nodes() {
            for other in 1..=3 {
                assert_eq!(node.named(other), 0, "an honest node was named");
            }
        }
        cluster.stop().await;
    });
}

#[test]
fn operators_have_shares_renewed_whatever_their_age_and_nobody_else_has() {
    run(async {
        let (cluster, client, keystore, signing, _) = furnished(3).await;
        let order = |sequence: u64, key: &SigningKey| {
            let order = Order {
                cluster: Hex32(CLUSTER),
                sequence,
                change: Change::RenewShares,
            };
            let signature = key.sign(&order.signed_bytes()).to_bytes();
            let mut signed = SignedOrder::new(order);
            signed.add(OperatorSignature::new(key.verifying_key().to_bytes(), &signature));
            signed
        };
        let first = cluster.node(1);
        let made_up = order(1, &SigningKey::from_bytes(&[78; 32]));
        assert_eq!(
            submit(&first.parts, made_up.clone()).await.unwrap_err().status,
            403
        );
        let thief = cluster.node(3);
        let shown = Call::EndorseOrder(Box::new(made_up), 0, thief.parts.next_operation());
        let endorsed = thief.ask(1, &shown).await;
        assert!(
            matches!(endorsed, Answer::Misfit(_)),
            "an order of nobody was endorsed"
        );
        let early = submit(&first.parts, order(2, &operator())).await.unwrap_err();
        assert_eq!(
            (early.status, early.message.contains("--sequence 1")),
            (409, true)
        );
        renew(&cluster).await;
        assert_eq!(record(first, &keystore, &signing).epoch, 0);

        submit(&first.parts, order(1, &operator())).await.unwrap();
        assert_eq!(
            submit(&first.parts, order(1, &operator()))
                .await
                .unwrap_err()
                .status,
            409
        );
        for node in cluster.nodes() {
            let deadline = Instant::now() + SOON;
            node.parts
                .consensus
                .read_index(GROUP_ZERO, deadline)
                .await
                .unwrap();
        }
        renew_to(&cluster, &keystore, &signing, 1).await;
        renew(&cluster).await;
        assert_eq!(record(first, &keystore, &signing).epoch, 1, "once for each order");
        sign_well(first, &client, &keystore, &signing, b"as ordered").await;
        cluster.stop().await;
    });
}

/// The coordinator has not applied the new epoch yet: no holder is blamed, it looks again.
#[test]
fn a_coordinator_that_is_behind_catches_up_and_serves() {
    run(async {
        let (cluster, client, keystore, signing, _) = furnished(3).await;
        let group = cluster.node(1).parts.group_of(&keystore.id);
        let leader = cluster.leader(group, 1).unwrap();
        let behind = cluster.node(leader % 3 + 1);
        due_at_once(&cluster);
        behind.deafen(true);
        Renewer::new(cluster.node(leader).parts.clone()).pass().await;
        assert_eq!(record(cluster.node(leader), &keystore, &signing).epoch, 1);
        assert_eq!(record(behind, &keystore, &signing).epoch, 0);
        let served = sign_well(behind, &client, &keystore, &signing, b"from behind");
        let heard = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            behind.deafen(false);
        };
        futures::join!(served, heard);
        assert_eq!(record(behind, &keystore, &signing).epoch, 1);
        for other in 1..=3 {
            assert_eq!(behind.named(other), 0);
        }
        cluster.stop().await;
    });
}

#[test]
fn a_holder_that_makes_up_an_epoch_is_left_out() {
    run(async {
        let (cluster, client, keystore, signing, _) = furnished(3).await;
        cluster.node(2).tamper(|call, answer| match call {
            Call::Cosign(..) => Answer::Abstained(Abstention::Epoch).encode(),
            _ => answer.encode(),
        });
        for _ in 0..4 {
            sign_well(cluster.node(1), &client, &keystore, &signing, b"all the same").await;
        }
        cluster.stop().await;
    });
}

#[test]
fn nobody_renews_out_of_turn_or_without_a_member() {
    run(async {
        let (cluster, _, keystore, signing, _) = furnished(3).await;
        cluster.catch_up(&keystore.id).await;
        let thief = cluster.node(3);
        let proposal = || Renewal {
            operation: thief.parts.next_operation(),
            keystore: keystore.id,
            keys: vec![ToRenew {
                key: signing.id,
                replaces: record(thief, &keystore, &signing).session,
                dealers: vec![1, 2, 3],
            }],
            beginning: Beginning {
                start: thief.parts.now().unwrap(),
                participants: cluster
                    .nodes()
                    .iter()
                    .map(|node| (node.parts.node, node.parts.boot))
                    .collect(),
                configuration: 1,
            },
            applied: 0,
        };
        let refused = |change: fn(&mut Renewal), reason: &'static str| {
            let mut proposal = proposal();
            change(&mut proposal);
            async move {
                match thief.ask(1, &Call::Renew(proposal)).await {
                    Answer::Misfit(told) | Answer::Ended(told) => assert_eq!(told, reason),
                    _ => panic!("node 1 took part: {reason}"),
                }
            }
        };
        refused(|_| (), "a renewal of shares that are not due").await;
        due_at_once(&cluster);
        refused(
            |one| one.operation.node = 2,
            "a renewal under another node's operation",
        )
        .await;
        refused(
            |one| one.keys[0].replaces[0] ^= 1,
            "a renewal of shares that are not the key's",
        )
        .await;
        refused(
            |one| one.keys[0].key.0[0] ^= 1,
            "a renewal of shares that are not the key's",
        )
        .await;
        refused(
            |one| one.keystore.0[0] ^= 1,
            "a renewal in a keystore that is not there",
        )
        .await;
        let counted = "a renewal of no keys, of too many, or of one twice";
        refused(|one| one.keys.clear(), counted).await;
        refused(|one| one.keys.push(one.keys[0].clone()), counted).await;
        refused(
            |one| {
                one.beginning.participants.remove(1);
            },
            "a renewal without some member",
        )
        .await;
        refused(
            |one| one.beginning.start -= 6_000,
            "a renewal that began at another time",
        )
        .await;
        refused(
            |one| one.keys[0].dealers = vec![2, 3],
            "a renewal in which this node deals nothing of what it has",
        )
        .await;
        refused(
            |one| one.keys[0].dealers = vec![1],
            "too few dealers, or others than have shares",
        )
        .await;
        let honest = proposal();
        let first = thief.ask(1, &Call::Renew(honest.clone())).await;
        assert!(
            matches!(first, Answer::Renewing(_)),
            "the honest proposal is refused"
        );
        let again = thief.ask(1, &Call::Renew(honest)).await;
        assert!(matches!(again, Answer::Abstained(_)), "a renewal began twice");
        cluster.stop().await;
    });
}

/// A member whose share is gone has one again after the next renewal: any other may die then.
#[test]
fn a_member_that_lost_its_share_gets_one_by_a_renewal() {
    run(async {
        let (cluster, client, keystore, signing, agreement) = furnished(3).await;
        let bereft = cluster.node(2);
        for key in [&signing, &agreement] {
            let record = record(bereft, &keystore, key);
            let id = Parts::share_id(&keystore.id, &key.id, &record);
            assert!(bereft.parts.shares.remove_session(&id).unwrap());
            bereft.parts.open_keys.lock().clear();
            assert!(bereft.parts.open_key(&keystore.id, &key.id, &record).is_err());
        }
        due_at_once(&cluster);
        renew_to(&cluster, &keystore, &signing, 1).await;
        renew_to(&cluster, &keystore, &agreement, 1).await;
        cluster.isolate(1);
        cluster.settle(&[cluster.node(2), cluster.node(3)]).await;
        for node in [2, 3] {
            sign_well(cluster.node(node), &client, &keystore, &signing, b"whole again").await;
            derive_well(cluster.node(node), &client, &keystore, &agreement).await;
        }
        cluster.stop().await;
    });
}

/// The same of symmetric keys: the others deal, and all compute the value on record. Before, the node itself sees what it lacks.
async fn a_holder_that_lost_its_parts_gets_them(n: u64) {
    let (cluster, client, keystore, ..) = furnished(n).await;
    let desk = Desk::new(&cluster, &client, &keystore);
    let (hmac, kek) = (desk.key(1, HMAC).await, desk.key(2, KEK).await);
    let tag = desk.tag(1, &hmac, b"before").await;
    let wrapped = desk.wrapped(3, &kek, &[7; 32]).await;
    let bereft = &cluster.node(2).parts;
    let missing = || census::look(bereft).unwrap().missing;
    assert_eq!(missing(), 0);
    for key in [&hmac, &kek] {
        let id = Parts::share_id(&keystore.id, &key.id, &record(cluster.node(2), &keystore, key));
        assert!(bereft.shares.remove_session(&id).unwrap());
        bereft.symmetric.forget(&id);
    }
    assert_eq!(missing(), 2);
    due_at_once(&cluster);
    for key in [&hmac, &kek] {
        renew_to(&cluster, &keystore, key, 1).await;
    }
    assert_eq!(missing(), 0);
    for node in 1..=n {
        assert_eq!(desk.tag(node, &hmac, b"before").await, tag, "through node {node}");
    }
    let payload = json!(URL_SAFE_NO_PAD.encode([7; 32]));
    assert_eq!(desk.unwrapped(2, &kek, &wrapped).await, payload);
    for node in cluster.nodes() {
        assert_eq!(node.parts.metrics.aborts.get(), 0);
        assert!((1..=n).all(|other| node.named(other) == 0));
    }
    cluster.stop().await;
}

#[test]
fn a_holder_of_three_that_lost_its_parts_gets_them_by_a_renewal() {
    run(a_holder_that_lost_its_parts_gets_them(3));
}

#[test]
fn a_holder_of_four_that_lost_its_parts_gets_them_by_a_renewal() {
    run(a_holder_that_lost_its_parts_gets_them(4));
}

#[test]
fn renewal_waits_for_a_member_that_is_away() {
    run(async {
        let (cluster, client, keystore, signing, _) = furnished(3).await;
        due_at_once(&cluster);
        cluster.isolate(3);
        cluster.settle(&[cluster.node(1), cluster.node(2)]).await;
        let mut due = 0;
        for node in [1, 2] {
            due += Renewer::new(cluster.node(node).parts.clone()).pass().await;
        }
        assert_eq!(due, 2, "what is due is counted");
        assert_eq!(record(cluster.node(1), &keystore, &signing).epoch, 0);
        sign_well(cluster.node(1), &client, &keystore, &signing, b"meanwhile").await;
        cluster.rejoin(3);
        let all: Vec<&Node> = cluster.nodes().iter().collect();
        cluster.settle(&all).await;
        until("links are back", || {
            all.iter().all(|node| {
                (1..=3).all(|other| other == node.parts.node || node.parts.network.connected(other))
            })
        })
        .await;
        renew_to(&cluster, &keystore, &signing, 1).await;
        cluster.stop().await;
    });
}

/// Tags and wraps from before a renewal are good after it, through every node, by every trio; of five nodes one holds nothing.
async fn symmetric_keys_stay_the_same(n: u64) {
    let (cluster, client, keystore, ..) = furnished(n).await;
    let desk = Desk::new(&cluster, &client, &keystore);
    let (hmac, kek) = (desk.key(1, HMAC).await, desk.key(2, KEK).await);
    let tag = desk.tag(1, &hmac, b"before").await;
    // One for each node: the same bytes through two nodes are another's claim.
    let mut wraps = Vec::new();
    for node in 1..=n {
        wraps.push((node, desk.wrapped(2, &kek, &[node as u8; 32]).await));
    }
    let holders = record(cluster.node(1), &keystore, &kek);
    let holders = &holders.material.sharing().unwrap().holders;
    let key = desk.rebuilt(&kek, [holders[0], holders[1]]);
    let before = record(cluster.node(1), &keystore, &hmac);
    due_at_once(&cluster);
    for epoch in 1..=2 {
        renew_to(&cluster, &keystore, &hmac, epoch).await;
        renew_to(&cluster, &keystore, &kek, epoch).await;
        for node in 1..=n {
            let again = desk.tag(node, &hmac, b"before").await;
            assert_eq!(again, tag, "through node {node} of {n}");
        }
    }
    for (node, wrapped) in &wraps {
        let payload = json!(URL_SAFE_NO_PAD.encode([*node as u8; 32]));
        assert_eq!(desk.unwrapped(*node, &kek, wrapped).await, payload);
    }
    assert_eq!(desk.rebuilt(&kek, [holders[1], holders[2]]), key);
    let after = record(cluster.node(1), &keystore, &hmac);
    let (old, new) = (
        before.material.sharing().unwrap(),
        after.material.sharing().unwrap(),
    );
    assert!(
        old.pieces.iter().zip(&new.pieces).all(|(old, new)| old != new),
        "a piece was kept"
    );
    assert_eq!(
        (old.check, old.inner, old.correction),
        (new.check, new.inner, new.correction)
    );
    for node in cluster.nodes() {
        for other in 1..=n {
            assert_eq!(node.named(other), 0);
        }
    }
    cluster.stop().await;
}

#[test]
fn symmetric_keys_of_three_stay_the_same() {
    run(symmetric_keys_stay_the_same(3));
}

#[test]
fn symmetric_keys_of_four_stay_the_same() {
    run(symmetric_keys_stay_the_same(4));
}

#[test]
fn symmetric_keys_of_five_stay_the_same() {
    run(symmetric_keys_stay_the_same(5));
}

#[test]
fn tags_are_made_while_pieces_are_refreshed_again_and_again() {
    run(async {
        let (cluster, client, keystore, ..) = furnished(3).await;
        let desk = Desk::new(&cluster, &client, &keystore);
        let hmac = desk.key(1, HMAC).await;
        let tag = desk.tag(1, &hmac, b"message 0").await;
        due_at_once(&cluster);
        let over = AtomicBool::new(false);
        let renewing = async {
            for epoch in 1..=6 {
                renew_to(&cluster, &keystore, &hmac, epoch).await;
            }
            over.store(true, Ordering::Relaxed);
        };
        let tagging = |node: u64| {
            let (desk, hmac, over) = (&desk, &hmac, &over);
            async move {
                let mut count = 0_u32;
                while !over.load(Ordering::Relaxed) {
                    desk.tag(node, hmac, format!("{node} {count}").as_bytes()).await;
                    count += 1;
                }
                count
            }
        };
        let (_, first, second, third) = futures::join!(renewing, tagging(1), tagging(2), tagging(3));
        assert!(first.min(second).min(third) > 2, "{first} {second} {third}");
        assert_eq!(desk.tag(2, &hmac, b"message 0").await, tag);
        for node in cluster.nodes() {
            assert_eq!(node.parts.metrics.aborts.get(), 0, "epochs met in a computation");
        }
        cluster.stop().await;
    });
}

/// Whoever carries another's letters, or changes what a holder says of its pieces, gets no signatures and names nobody.
#[test]
fn a_holder_that_says_something_else_ends_a_renewal_and_the_old_epoch_stays() {
    run(async {
        let (cluster, client, keystore, ..) = furnished(3).await;
        let desk = Desk::new(&cluster, &client, &keystore);
        let hmac = desk.key(1, HMAC).await;
        let tag = desk.tag(1, &hmac, b"before").await;
        due_at_once(&cluster);
        let group = cluster.node(1).parts.group_of(&keystore.id);
        for round in [Round::Package, Round::Deal] {
            let leader = cluster.leader(group, 1).unwrap();
            let liar = cluster.node(leader % 3 + 1);
            liar.tamper(move |call, answer| match (call, answer) {
                (Call::RenewStep(_, at, _), Answer::Renewing(mut said)) if *at == round => {
                    for message in &mut said {
                        if let Some(last) = message.last_mut() {
                            *last ^= 1;
                        }
                    }
                    Answer::Renewing(said).encode()
                }
                (_, answer) => answer.encode(),
            });
            assert!(Renewer::new(cluster.node(leader).parts.clone()).pass().await > 0);
            cluster.catch_up(&keystore.id).await;
            assert_eq!(record(cluster.node(leader), &keystore, &hmac).epoch, 0);
            assert_eq!(desk.tag(leader, &hmac, b"before").await, tag);
            assert!(cluster.node(leader).named(liar.parts.node) > 0, "nobody is named");
            let honest = 6 - leader - liar.parts.node;
            assert_eq!(
                cluster.node(leader).named(honest) + cluster.node(honest).named(leader),
                0
            );
            assert_eq!(
                cluster.node(honest).misfits(leader),
                0,
                "who hands it on is counted"
            );
            liar.tamper(|_, answer| answer.encode());
        }
        renew_to(&cluster, &keystore, &hmac, 1).await;
        assert_eq!(desk.tag(3, &hmac, b"before").await, tag);
        cluster.stop().await;
    });
}
