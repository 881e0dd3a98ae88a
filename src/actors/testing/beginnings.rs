//! A change of members begins by the word of a quorum of the old ones: not before the new ones are there, not before group 0,
//! not after the order was taken back, whatever a corrupt leader says.

use std::time::Instant;

use conclave_consensus::GroupId;

use super::client::{Keystore, furnished};
use super::cluster::{Candidate, Cluster, SOON, run, until};
use super::moves::{carry_out, order, signed, staged};
use crate::actors::coordinator::order::submit;
use crate::actors::holder::beginning_statement;
use crate::actors::views::GROUP_ZERO;
use crate::actors::wire::{Abstention, Answer, Call};
use crate::identifier::OperationId;
use crate::keystore::{Endorsement, Entry, Outcome, Rejection, Stage};
use crate::provision::introduction::Orders;

/// Asks a member as node 3 to endorse a beginning.
async fn asked_by_3(cluster: &Cluster, of: u64, group: GroupId, number: u64) -> Answer {
    let thief = cluster.node(3);
    let operation = thief.parts.next_operation();
    let call = Call::EndorseBeginning {
        group: group.0,
        number,
        operation,
    };
    thief.ask(of, &call).await
}

/// Nobody helps node 3 to begin the move of a group to a list.
async fn nobody_follows(cluster: &Cluster, group: GroupId, number: u64) {
    for of in [1, 2] {
        let answer = asked_by_3(cluster, of, group, number).await;
        assert!(
            matches!(answer, Answer::Abstained(Abstention::Behind)),
            "node {of} endorses that {group} moves to {number}"
        );
    }
}

fn stage(cluster: &Cluster, node: u64, group: GroupId) -> Option<Stage> {
    let roster = cluster.node(node).parts.roster(group).unwrap();
    roster.next.as_ref().map(|(_, stage)| *stage)
}

/// Waits until nodes 1 and 2 know for themselves that a new member has caught up with a group.
async fn known_to_be_there(cluster: &Cluster, group: GroupId, newcomer: u64) {
    for node in [1, 2] {
        let parts = &cluster.node(node).parts;
        until("the new member has caught up", || {
            let status = parts.consensus.status();
            let status = status.iter().find(|status| status.group == group);
            status.is_some_and(|status| status.caught_up.contains(&newcomer))
                && parts.network.connected(newcomer)
        })
        .await;
    }
}

fn group_of(cluster: &Cluster, keystore: &Keystore) -> GroupId {
    cluster.node(1).parts.group_of(&keystore.id)
}

/// The members are 1, 2, 3; 4, which is to take the place of 3, is cut off. Every group knows of the order.
async fn announced() -> (Cluster, Keystore, Orders) {
    let (mut cluster, _, keystore, ..) = furnished(3).await;
    let candidate = Candidate::new(4);
    let mut orders = Orders::default();
    let first = order(&cluster, &orders, &[candidate.pinned()], &[3]);
    orders.orders.push(first.clone());
    cluster.join(candidate, &orders);
    cluster.isolate(4);
    submit(&cluster.node(1).parts, first).await.unwrap();
    staged(&cluster, &[1, 2, 3], &keystore, Stage::Announced).await;
    (cluster, keystore, orders)
}

#[test]
fn nothing_begins_before_the_new_members_are_there() {
    run(async {
        let (cluster, keystore, _) = announced().await;
        let (thief, other) = (cluster.node(3), cluster.node(1).parts.next_operation());
        let group = group_of(&cluster, &keystore);
        for group in [GROUP_ZERO, group] {
            nobody_follows(&cluster, group, 2).await;
            // What it signs itself is no quorum, however often.
            let operation = thief.parts.next_operation();
            let statement = beginning_statement(&thief.parts, group, 2, operation);
            let now = thief.parts.now().unwrap();
            let own = statement.endorse(3, &thief.parts.signing_key, now);
            let anothers = Endorsement {
                node: 1,
                ..own.clone()
            };
            for endorsements in [
                vec![own.clone()],
                vec![own.clone(), own.clone()],
                vec![own, anothers],
            ] {
                let entry = Entry {
                    statement: statement.clone(),
                    request: Vec::new(),
                    endorsements,
                };
                let deadline = Instant::now() + SOON;
                let proposed = thief.parts.consensus.propose(group, entry.encode(), deadline);
                let outcome: Outcome = postcard::from_bytes(&proposed.await.unwrap().result).unwrap();
                assert!(
                    matches!(outcome, Outcome::Refused(Rejection::NotEndorsed(_))),
                    "{outcome:?}"
                );
            }
        }
        // Under another node's operation, and for no group.
        for (group, operation) in [(group.0, other), (9, thief.parts.next_operation())] {
            let call = Call::EndorseBeginning {
                group,
                number: 2,
                operation,
            };
            assert!(matches!(thief.ask(1, &call).await, Answer::Misfit(_)));
        }
        for node in 1..=3 {
            for group in [GROUP_ZERO, group] {
                assert_eq!(stage(&cluster, node, group), Some(Stage::Announced));
            }
        }
        cluster.rejoin(4);
        carry_out(&cluster, &[1, 2, 4], 2).await;
        cluster.stop().await;
    });
}

/// Has nodes 1, 2 and 3 answer questions of others that `is_kept_back` names as if they had too much to do.
fn keep_back(cluster: &Cluster, is_kept_back: impl Fn(&Call) -> bool + Clone + Send + Sync + 'static) {
    for node in 1..=3 {
        let is_kept_back = is_kept_back.clone();
        cluster
            .node(node)
            .tamper(move |call, answer| match is_kept_back(call) {
                true => Answer::Abstained(Abstention::Busy).encode(),
                false => answer.encode(),
            });
    }
}

#[test]
fn nothing_begins_before_group_0() {
    run(async {
        let (cluster, keystore, _) = announced().await;
        let group = group_of(&cluster, &keystore);
        let of_group_0 = |call: &Call| matches!(call, Call::EndorseBeginning { group: 0, .. });
        keep_back(&cluster, of_group_0);
        cluster.rejoin(4);
        known_to_be_there(&cluster, group, 4).await;
        known_to_be_there(&cluster, GROUP_ZERO, 4).await;
        assert_eq!(stage(&cluster, 1, GROUP_ZERO), Some(Stage::Announced));
        nobody_follows(&cluster, group, 2).await;
        for node in 1..=3 {
            assert_eq!(stage(&cluster, node, group), Some(Stage::Announced));
        }
        keep_back(&cluster, |_| false);
        carry_out(&cluster, &[1, 2, 4], 2).await;
        cluster.stop().await;
    });
}

#[test]
fn nothing_begins_after_the_order_was_taken_back() {
    run(async {
        let (cluster, keystore, mut orders) = announced().await;
        let group = group_of(&cluster, &keystore);
        // A group whose leader does not tell it that the order was taken back.
        keep_back(
            &cluster,
            move |call| matches!(call, Call::EndorseOrder(_, of, _) if *of == group.0),
        );
        let back = orders.withdrawal_of(cluster.genesis()).unwrap();
        let back = signed(orders.orders.len() as u64 + 1, back);
        orders.orders.push(back.clone());
        submit(&cluster.node(2).parts, back).await.unwrap();
        for node in [1, 2] {
            let parts = &cluster.node(node).parts;
            until("group 0 has taken it back", || {
                let zero = parts.roster(GROUP_ZERO).unwrap();
                zero.current.index == 3 && zero.next.is_none()
            })
            .await;
        }
        cluster.rejoin(4);
        known_to_be_there(&cluster, group, 4).await;
        for number in [2, 3] {
            nobody_follows(&cluster, group, number).await;
        }
        for node in 1..=3 {
            assert_eq!(stage(&cluster, node, group), Some(Stage::Announced));
        }
        keep_back(&cluster, |_| false);
        carry_out(&cluster, &[1, 2, 3], 3).await;
        cluster.stop().await;
    });
}

#[test]
fn what_has_begun_is_not_taken_back() {
    run(async {
        let (cluster, _, mut orders) = announced().await;
        cluster.rejoin(4);
        for node in [1, 2] {
            until("group 0 has begun", || {
                stage(&cluster, node, GROUP_ZERO) != Some(Stage::Announced)
            })
            .await;
        }
        let back = orders.withdrawal_of(cluster.genesis()).unwrap();
        let back = signed(orders.orders.len() as u64 + 1, back);
        orders.orders.push(back.clone());
        let refused = submit(&cluster.node(2).parts, back.clone()).await.unwrap_err();
        assert_eq!(refused.status, 409, "{}", refused.message);
        // Nor by who is told that it was.
        let operation: OperationId = cluster.node(3).parts.next_operation();
        let call = Call::EndorseOrder(Box::new(back), 1, operation);
        let answer = cluster.node(3).ask(1, &call).await;
        assert!(matches!(answer, Answer::Abstained(Abstention::Behind)));
        carry_out(&cluster, &[1, 2, 4], 2).await;
        cluster.stop().await;
    });
}
