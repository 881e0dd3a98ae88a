//! Members change while keys are used: an order of the operators is carried out in every group, keys move as shares, and
//! nobody is ever asked to believe a leader.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use conclave_consensus::GroupId;
use ed25519_dalek::Signer;

use super::client::{Client, ED25519, Key, Keystore, derive_well, furnished, sign_well, status};
use super::cluster::{CLUSTER, Candidate, Cluster, Node, SOON, operator, run, until};
use super::receipts::described_to;
use crate::actors::coordinator::order::submit;
use crate::actors::coordinator::renewal::Renewer;
use crate::actors::coordinator::upkeep;
use crate::actors::wire::{Abstention, Answer, Beginning, Call, Renewal, ToRenew};
use crate::authorization::RawRequest;
use crate::authorization::issue::Capability;
use crate::config::Hex32;
use crate::keystore::Stage;
use crate::membership::placement::{Placed, Placement};
use crate::membership::{NewMembers, Pinned};
use crate::operator::{Change, OperatorSignature, Order, SignedOrder};
use crate::provision::introduction::Orders;
use crate::receipt::Doubt;

/// The next order about members, signed by the operator.
pub(super) fn order(cluster: &Cluster, so_far: &Orders, come: &[Pinned], gone: &[u64]) -> SignedOrder {
    let current = so_far.follow(cluster.genesis().clone()).unwrap();
    let stay = current
        .members
        .iter()
        .filter(|member| !gone.contains(&member.node));
    let mut members: Vec<Pinned> = stay
        .map(|member| member.pinned())
        .chain(come.iter().cloned())
        .collect();
    members.sort_by_key(|member| member.node);
    let new = NewMembers {
        number: current.index + 1,
        replaces: Hex32(current.digest()),
        members,
        placement: None,
    };
    signed(so_far.orders.len() as u64 + 1, new)
}

/// The next order, which moves one group to these nodes and leaves everything else where it is.
pub(super) fn placed(cluster: &Cluster, so_far: &Orders, group: GroupId, nodes: &[u64]) -> SignedOrder {
    let current = so_far.follow(cluster.genesis().clone()).unwrap();
    let mut nodes = nodes.to_vec();
    nodes.sort_unstable();
    let of_group = |other: u32| Placed {
        group: other,
        nodes: if other == group.0 {
            nodes.clone()
        } else {
            current.nodes_of(other)
        },
    };
    let placement = Placement::new((1..current.groups).map(of_group).collect());
    with_placement(order(cluster, so_far, &[], &[]), |_| Some(placement.clone()))
}

/// The same order with its groups elsewhere.
pub(super) fn with_placement(
    order: SignedOrder,
    placement: impl Fn(&[u64]) -> Option<Placement>,
) -> SignedOrder {
    let Order { sequence, change, .. } = order.order;
    let Change::Members(mut new) = change else {
        panic!("another order");
    };
    let nodes: Vec<u64> = new.members.iter().map(|member| member.node).collect();
    new.placement = placement(&nodes);
    signed(sequence, new)
}

/// Carries out what is ordered until every node that has a part of a group is with this list in it, and calls `meanwhile` again and
/// again.
pub(super) async fn carried_out(cluster: &Cluster, number: u64, meanwhile: impl AsyncFn(u64)) {
    let nodes: Vec<u64> = cluster.nodes().iter().map(|node| node.parts.node).collect();
    let mut turn = 0;
    let carried = carry_out(cluster, &nodes, number);
    let uses = async {
        loop {
            meanwhile(turn).await;
            turn += 1;
        }
    };
    tokio::select! {
        () = carried => {}
        () = uses => {}
    }
}

pub(super) fn signed(sequence: u64, new: NewMembers) -> SignedOrder {
    let order = Order {
        cluster: Hex32(CLUSTER),
        sequence,
        change: Change::Members(new),
    };
    let signature = operator().sign(&order.signed_bytes()).to_bytes();
    let mut signed = SignedOrder::new(order);
    signed.add(OperatorSignature::new(
        operator().verifying_key().to_bytes(),
        &signature,
    ));
    signed
}

/// Carries out what is ordered until these nodes have come to the list of this number in every group.
pub(super) async fn carry_out(cluster: &Cluster, nodes: &[u64], number: u64) {
    let deadline = Instant::now() + 6 * SOON;
    let mut renewers: Vec<Renewer> = cluster
        .nodes()
        .iter()
        .map(|node| Renewer::new(node.parts.clone()))
        .collect();
    loop {
        for renewer in &mut renewers {
            renewer.pass().await;
        }
        let is_there = |node: &u64| {
            let parts = &cluster.node(*node).parts;
            let here = (0..parts.rules.groups).map(GroupId);
            let mut here = here.filter(|group| !parts.is_outside(*group));
            here.all(|group| {
                let roster = parts.roster(group);
                roster.is_ok_and(|roster| roster.current.index == number && roster.next.is_none())
            })
        };
        if nodes.iter().all(is_there) {
            return;
        }
        if Instant::now() > deadline {
            for node in cluster.nodes() {
                for status in node.parts.consensus.status() {
                    let Ok(roster) = node.parts.roster(status.group) else {
                        eprintln!("node {}: nothing of {}", node.parts.node, status.group);
                        continue;
                    };
                    eprintln!(
                        "node {}: {status:?} {:?} {:?}",
                        node.parts.node,
                        roster.current.nodes(),
                        roster.next.as_ref().map(|(next, stage)| (next.nodes(), *stage))
                    );
                }
            }
            panic!("the members did not change");
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

async fn used_by(
    cluster: &Cluster,
    nodes: &[u64],
    client: &Client,
    keystore: &Keystore,
    signing: &Key,
    agreement: &Key,
) {
    for node in nodes {
        sign_well(
            cluster.node(*node),
            client,
            keystore,
            signing,
            b"by its new holders",
        )
        .await;
        derive_well(cluster.node(*node), client, keystore, agreement).await;
    }
}

/// What a node answers in the end: one that cannot now, says so, and is asked again, by a request of its own.
async fn settled(node: &Node, request: impl Fn(u32) -> RawRequest) -> u16 {
    let deadline = Instant::now() + SOON;
    for attempt in 0.. {
        match status(&node.serve(request(attempt)).await) {
            503 if Instant::now() < deadline => {}
            other => return other,
        }
    }
    503
}

/// Waits until a keystore's group is in this stage on these nodes.
pub(super) async fn staged(cluster: &Cluster, nodes: &[u64], keystore: &Keystore, wanted: Stage) {
    for node in nodes {
        let parts = &cluster.node(*node).parts;
        until("the group's next stage", || {
            let roster = parts.roster(parts.group_of(&keystore.id));
            roster.is_ok_and(|roster| roster.next.as_ref().is_some_and(|(_, stage)| *stage == wanted))
        })
        .await;
    }
}

#[test]
fn what_is_revoked_while_members_change_binds_both_lists() {
    run(async {
        let (mut cluster, alice, keystore, signing, _) = furnished(3).await;
        let bob = Client::new();
        let candidate = Candidate::new(4);
        let mut orders = Orders::default();
        let order = order(&cluster, &orders, &[candidate.pinned()], &[3]);
        orders.orders.push(order.clone());
        submit(&cluster.node(2).parts, order).await.unwrap();
        cluster.join(candidate, &orders);
        // No key has moved yet: its holders are the old members.
        staged(&cluster, &[1, 2, 3, 4], &keystore, Stage::Joint).await;
        let newcomer = &cluster.node(4).parts;
        until("the new member takes part", || {
            let group = newcomer.group_of(&keystore.id);
            newcomer.consensus.freshness().may_contribute(group).is_ok()
        })
        .await;
        for (turn, (here, there)) in [(1, 3), (3, 2), (4, 1), (2, 4)].into_iter().enumerate() {
            let capability = alice.delegate(&keystore, &signing, &bob, &format!("urn:uuid:joint-{turn}"));
            let sign = |message: String| {
                bob.sign_by(
                    Capability::Delegated(&capability),
                    &signing,
                    message.as_bytes(),
                    0,
                )
            };
            let (here, there) = (cluster.node(here), cluster.node(there));
            let before = settled(there, |attempt| sign(format!("before {turn} {attempt}"))).await;
            assert_eq!(before, 200, "turn {turn}");
            let revoked = settled(here, |_| alice.revoke(&keystore, &capability)).await;
            assert_eq!(revoked, 204, "turn {turn}");
            for node in cluster.nodes() {
                let after = format!("after {turn} {}", node.parts.node);
                assert_eq!(
                    settled(node, |attempt| sign(format!("{after} {attempt}"))).await,
                    403,
                    "turn {turn} at {after}"
                );
            }
        }
        // A key that is born now is the new members', whoever is asked for it: the one that leaves hands it on.
        let mut attempt = 0;
        let born = loop {
            attempt += 1;
            let made = cluster
                .node(3)
                .serve(alice.generate(&keystore, ED25519, &format!("born-in-between-{attempt}")))
                .await;
            match status(&made) {
                503 => continue,
                _ => break Key::of(&made.unwrap()),
            }
        };
        until("another node has applied the birth", || {
            cluster.node(1).key_record(&keystore.id, &born.id).is_some()
        })
        .await;
        let record = cluster.node(1).key_record(&keystore.id, &born.id).unwrap();
        assert_eq!((record.committee, record.epoch), (2, 0));
        carry_out(&cluster, &[1, 2, 4], 2).await;
        for node in [1, 2, 4] {
            sign_well(cluster.node(node), &alice, &keystore, &born, b"born in between").await;
        }
        cluster.stop().await;
    });
}

#[test]
fn a_cluster_grows_and_then_consists_of_others() {
    run(async {
        let (mut cluster, client, keystore, signing, agreement) = furnished(3).await;
        let mut orders = Orders::default();
        let grown: Vec<Candidate> = [4, 5].map(Candidate::new).into();
        let pinned: Vec<Pinned> = grown.iter().map(Candidate::pinned).collect();
        let first = order(&cluster, &orders, &pinned, &[]);
        orders.orders.push(first.clone());
        submit(&cluster.node(3).parts, first).await.unwrap();
        grown
            .into_iter()
            .for_each(|candidate| cluster.join(candidate, &orders));
        carry_out(&cluster, &[1, 2, 3, 4, 5], 2).await;
        used_by(
            &cluster,
            &[1, 2, 3, 4, 5],
            &client,
            &keystore,
            &signing,
            &agreement,
        )
        .await;

        let candidate = Candidate::new(6);
        let second = order(&cluster, &orders, &[candidate.pinned()], &[1, 2, 3]);
        orders.orders.push(second.clone());
        submit(&cluster.node(5).parts, second).await.unwrap();
        cluster.join(candidate, &orders);
        carry_out(&cluster, &[4, 5, 6], 3).await;
        for gone in [1, 2, 3] {
            let parts = &cluster.node(gone).parts;
            let group = parts.group_of(&keystore.id);
            until("who has left knows it", || {
                parts.roster(group).is_ok_and(|roster| roster.current.index == 3)
            })
            .await;
            upkeep::sweep_moved(parts, group, &mut Default::default()).await;
            let left = parts.shares.sessions(&keystore.id.0, &signing.id.0).unwrap();
            assert!(left.is_empty(), "node {gone} keeps shares");
        }
        [1, 2, 3].into_iter().for_each(|gone| cluster.isolate(gone));
        used_by(&cluster, &[4, 5, 6], &client, &keystore, &signing, &agreement).await;
        let record = cluster.node(6).key_record(&keystore.id, &signing.id).unwrap();
        assert_eq!((record.committee, record.epoch), (3, 2));
        // Receipts are the new members', and who does not know them is told so.
        let now = orders.follow(cluster.genesis().clone()).unwrap();
        let vouching = described_to(&now, cluster.node(6), &signing).await.unwrap();
        assert_eq!(vouching.len(), 2);
        let doubt = described_to(cluster.genesis(), cluster.node(6), &signing).await;
        assert_eq!(doubt, Err(Doubt::OtherMembers { named: 3, known: 1 }));
        cluster.stop().await;
    });
}

/// What a corrupt leader would need of the others to make a process of its own a member.
#[test]
fn nobody_helps_a_leader_without_the_operators() {
    run(async {
        let (cluster, client, keystore, signing, _) = furnished(3).await;
        let candidate = Candidate::new(4);
        let thief = cluster.node(3);
        let ordered = order(&cluster, &Orders::default(), &[candidate.pinned()], &[2]);
        let mut forged = SignedOrder::new(ordered.order.clone());
        let stranger = ed25519_dalek::SigningKey::from_bytes(&[78; 32]);
        let signature = stranger.sign(&forged.order.signed_bytes()).to_bytes();
        forged.add(OperatorSignature::new(
            stranger.verifying_key().to_bytes(),
            &signature,
        ));
        assert_eq!(
            submit(&cluster.node(1).parts, forged.clone())
                .await
                .unwrap_err()
                .status,
            403
        );
        let group = thief.parts.group_of(&keystore.id).0;
        for group in [0, group] {
            let shown = Call::EndorseOrder(Box::new(forged.clone()), group, thief.parts.next_operation());
            assert!(
                matches!(thief.ask(1, &shown).await, Answer::Misfit(_)),
                "a forged order, group {group}"
            );
        }
        // Signed by the operators, and group 0 has not taken it.
        let shown = Call::EndorseOrder(Box::new(ordered), group, thief.parts.next_operation());
        assert!(matches!(
            thief.ask(1, &shown).await,
            Answer::Abstained(Abstention::Behind)
        ));
        // A move of which nobody has heard is not complete, and nobody deals for other members than its own state has.
        let shown = Call::EndorseMove {
            group,
            number: 2,
            operation: thief.parts.next_operation(),
        };
        assert!(matches!(
            thief.ask(1, &shown).await,
            Answer::Abstained(Abstention::Behind)
        ));
        let record = thief.key_record(&keystore.id, &signing.id).unwrap();
        let lives: Vec<(u64, [u8; 16])> = cluster
            .nodes()
            .iter()
            .map(|node| (node.parts.node, node.parts.boot))
            .collect();
        for (configuration, participants) in [
            (2, lives.clone()),
            (1, [&lives[..], &[(4, [4; 16])]].concat()),
            (1, vec![lives[0], lives[2], (4, [4; 16])]),
        ] {
            let proposal = Renewal {
                operation: thief.parts.next_operation(),
                keystore: keystore.id,
                keys: vec![ToRenew {
                    key: signing.id,
                    replaces: record.session,
                    dealers: vec![1, 3],
                }],
                beginning: Beginning {
                    start: thief.parts.now().unwrap(),
                    participants,
                    configuration,
                },
                applied: 0,
            };
            let answer = thief.ask(1, &Call::Renew(proposal)).await;
            assert!(
                matches!(answer, Answer::Misfit(_) | Answer::Ended(_)),
                "others were dealt to"
            );
        }
        sign_well(cluster.node(1), &client, &keystore, &signing, b"as before").await;
        cluster.stop().await;
    });
}

#[test]
fn a_member_is_replaced_while_its_keys_are_used() {
    run(async {
        let (mut cluster, client, keystore, signing, agreement) = furnished(3).await;
        let candidate = Candidate::new(4);
        let mut orders = Orders::default();
        let order = order(&cluster, &orders, &[candidate.pinned()], &[3]);
        orders.orders.push(order.clone());
        submit(&cluster.node(1).parts, order).await.unwrap();
        cluster.join(candidate, &orders);
        let over = AtomicBool::new(false);
        let moving = async {
            carry_out(&cluster, &[1, 2, 4], 2).await;
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
        let (_, first, second) = futures::join!(moving, signing_on(1), signing_on(2));
        assert!(first.min(second) > 3, "{first} {second}");
        let record = cluster.node(4).key_record(&keystore.id, &signing.id).unwrap();
        assert_eq!((record.committee, record.epoch), (2, 1));

        // The one that left is away for good, and one more may be.
        cluster.isolate(3);
        used_by(&cluster, &[1, 2, 4], &client, &keystore, &signing, &agreement).await;
        let born = client.key(cluster.node(4), &keystore, ED25519).await;
        sign_well(
            cluster.node(2),
            &client,
            &keystore,
            &born,
            b"born with new members",
        )
        .await;
        cluster.isolate(1);
        used_by(&cluster, &[4], &client, &keystore, &signing, &agreement).await;
        cluster.rejoin(1);

        // What the old epoch left is nobody's any more.
        for node in [1, 2, 3] {
            let parts = &cluster.node(node).parts;
            let group = parts.group_of(&keystore.id);
            until("every member knows that it is over", || {
                parts.roster(group).is_ok_and(|roster| roster.current.index == 2)
            })
            .await;
            upkeep::sweep_moved(parts, group, &mut Default::default()).await;
            let sessions = parts.shares.sessions(&keystore.id.0, &signing.id.0).unwrap();
            let left: Vec<u64> = sessions.iter().map(|session| session.id.epoch).collect();
            assert_eq!(left, if node == 3 { vec![] } else { vec![1] }, "node {node}");
        }
        cluster.stop().await;
    });
}

/// Why a member leaves may be why it does not help: its disk is full, its clock is off, or it is somebody else's.
#[test]
fn a_member_that_leaves_and_does_not_help_keeps_nobody_from_it() {
    run(async {
        let (mut cluster, client, keystore, signing, agreement) = furnished(3).await;
        cluster.node(3).tamper(|call, answer| match call {
            Call::Renew(_) => Answer::Abstained(Abstention::Audit).encode(),
            _ => answer.encode(),
        });
        let candidate = Candidate::new(4);
        let mut orders = Orders::default();
        let order = order(&cluster, &orders, &[candidate.pinned()], &[3]);
        orders.orders.push(order.clone());
        submit(&cluster.node(1).parts, order).await.unwrap();
        cluster.join(candidate, &orders);
        carry_out(&cluster, &[1, 2, 4], 2).await;
        used_by(&cluster, &[1, 2, 4], &client, &keystore, &signing, &agreement).await;
        cluster.stop().await;
    });
}

/// A second order waits: whoever joins by it must find everybody who leads by the first.
#[test]
fn one_order_about_members_is_carried_out_after_the_other() {
    run(async {
        let (mut cluster, _, keystore, _, _) = furnished(3).await;
        let (first, second) = (Candidate::new(4), Candidate::new(5));
        let mut orders = Orders::default();
        let one = order(&cluster, &orders, &[first.pinned()], &[]);
        orders.orders.push(one.clone());
        submit(&cluster.node(1).parts, one).await.unwrap();
        cluster.join(first, &orders);
        staged(&cluster, &[1, 2, 3, 4], &keystore, Stage::Joint).await;
        let two = order(&cluster, &orders, &[second.pinned()], &[]);
        let refused = submit(&cluster.node(1).parts, two.clone()).await.unwrap_err();
        assert_eq!(refused.status, 409, "{}", refused.message);
        carry_out(&cluster, &[1, 2, 3, 4], 2).await;
        submit(&cluster.node(2).parts, two).await.unwrap();
        cluster.stop().await;
    });
}

#[test]
fn an_order_whose_machine_never_comes_is_taken_back() {
    run(async {
        let (mut cluster, client, keystore, signing, agreement) = furnished(3).await;
        let mut orders = Orders::default();
        let lost = Candidate::new(4);
        let first = order(&cluster, &orders, &[lost.pinned()], &[3]);
        orders.orders.push(first.clone());
        cluster.join(lost, &orders);
        cluster.isolate(4);
        submit(&cluster.node(1).parts, first).await.unwrap();
        staged(&cluster, &[1, 2, 3], &keystore, Stage::Announced).await;
        let other = Candidate::new(5);
        let premature = order(&cluster, &orders, &[other.pinned()], &[4]);
        let refused = submit(&cluster.node(2).parts, premature).await.unwrap_err();
        assert!(refused.message.contains("withdraw"), "{}", refused.message);

        let back = orders.withdrawal_of(cluster.genesis()).unwrap();
        let back = signed(orders.orders.len() as u64 + 1, back);
        orders.orders.push(back.clone());
        submit(&cluster.node(2).parts, back).await.unwrap();
        carry_out(&cluster, &[1, 2, 3], 3).await;
        used_by(&cluster, &[1, 2, 3], &client, &keystore, &signing, &agreement).await;

        let next = order(&cluster, &orders, &[other.pinned()], &[3]);
        orders.orders.push(next.clone());
        submit(&cluster.node(1).parts, next).await.unwrap();
        cluster.join(other, &orders);
        carry_out(&cluster, &[1, 2, 5], 4).await;
        used_by(&cluster, &[1, 2, 5], &client, &keystore, &signing, &agreement).await;
        cluster.stop().await;
    });
}
