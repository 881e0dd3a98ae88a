//! Members change while keys are used: an order of the operators is carried out in every group, keys move as shares, and
//! nobody is ever asked to believe a leader.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use conclave_consensus::GroupId;
use ed25519_dalek::Signer;

use super::client::{ED25519, Key, Keystore, derive_well, furnished, sign_well};
use super::cluster::{CLUSTER, Candidate, Cluster, SOON, operator, run, until};
use crate::actors::coordinator::order::submit;
use crate::actors::coordinator::renewal::Renewer;
use crate::actors::coordinator::upkeep;
use crate::config::Hex32;
use crate::operator::{Change, NewMembers, Order, SignedOrder};
use crate::provision::genesis::Member as Pinned;
use crate::provision::introduction::Orders;

/// The next order about members, signed by the operator.
fn order(cluster: &Cluster, so_far: &Orders, come: &[Pinned], gone: &[u64]) -> SignedOrder {
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
    let order = Order {
        cluster: Hex32(CLUSTER),
        sequence: so_far.orders.len() as u64 + 1,
        change: Change::Members(NewMembers {
            number: current.index + 1,
            replaces: Hex32(current.digest()),
            members,
        }),
    };
    let signature = operator().sign(&order.signed_bytes()).to_bytes();
    let mut signed = SignedOrder::new(order);
    signed.add(operator().verifying_key().to_bytes(), &signature);
    signed
}

/// Carries out what is ordered until these nodes have come to the list of this number in every group.
async fn carry_out(cluster: &Cluster, nodes: &[u64], number: u64) {
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
            (0..parts.rules.groups).map(GroupId).all(|group| {
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
                    let roster = node.parts.roster(status.group).unwrap();
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
    client: &super::client::Client,
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
