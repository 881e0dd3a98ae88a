//! More nodes than a committee has: each group is on some of them, any node serves any request, and no node outside a committee has
//! a share of its keys, also while groups move.

use conclave_consensus::GroupId;
use serde_json::json;

use super::batch::{answers, batch, sign, statuses};
use super::client::{Client, ED25519, Key, Keystore, X25519, derive_well, furnished_in, sign_well, status};
use super::cluster::{Candidate, Cluster, Node, run, until};
use super::moves::{carried_out, placed, staged};
use super::receipts::{described_to, wanting};
use super::symmetric::{Desk, HMAC, KEK};
use crate::actors::coordinator::order::submit;
use crate::actors::coordinator::upkeep;
use crate::actors::holder::{endorse_move, endorse_order, move_statement, order_statement};
use crate::actors::views::GROUP_ZERO;
use crate::actors::wire::{Answer, Call, Forwarded, Relay};
use crate::authorization::RawRequest;
use crate::authorization::issue::Capability;
use crate::keystore::Stage;
use crate::membership::placement::{Placed, Placement, place};
use crate::provision::introduction::Orders;
use crate::receipt::HEADER;

/// The nodes that have no part of a group, and those that have.
fn outside_and_in<'a>(cluster: &'a Cluster, keystore: &Keystore) -> (Vec<&'a Node>, Vec<&'a Node>) {
    let group = cluster.node(1).parts.group_of(&keystore.id);
    cluster
        .nodes()
        .iter()
        .partition(|node| node.parts.is_outside(group))
}

fn holds(node: &Node, keystore: &Keystore, key: &Key) -> bool {
    let sessions = node.parts.shares.sessions(&keystore.id.0, &key.id.0);
    !sessions.unwrap().is_empty()
}

fn configuration(client: &Client, keystore: &Keystore) -> RawRequest {
    let invoked = (Capability::Root(&keystore.url), "read");
    client.request("GET", &keystore.path, invoked, None, 0)
}

fn list(client: &Client) -> RawRequest {
    let root = format!("{}/kms/keystores", super::cluster::URL);
    let controller = client.did.replace(':', "%3A");
    let target = format!("/kms/keystores?controller={controller}");
    client.request("GET", &target, (Capability::Root(&root), "read"), None, 0)
}

#[test]
fn every_operation_goes_through_a_node_that_has_no_part_of_the_group() {
    run(async {
        let cluster = Cluster::start_placed(5, 3).await;
        let (cluster, alice, keystore, signing, agreement) = furnished_in(cluster).await;
        let group = cluster.node(1).parts.group_of(&keystore.id);
        let committee = cluster.genesis().of_group(group.0);
        let desk = Desk::new(&cluster, &alice, &keystore);
        let (outside, within) = outside_and_in(&cluster, &keystore);
        assert_eq!((outside.len(), within.len()), (2, 3));
        for node in &outside {
            let number = node.parts.node;
            sign_well(node, &alice, &keystore, &signing, b"by others").await;
            derive_well(node, &alice, &keystore, &agreement).await;
            let born = alice.key(node, &keystore, ED25519).await;
            sign_well(node, &alice, &keystore, &born, b"by others").await;
            let agreed = alice.key(node, &keystore, X25519).await;
            derive_well(node, &alice, &keystore, &agreed).await;
            let tags = desk.key(number, HMAC).await;
            let tag = desk.tag(number, &tags, b"a message").await;
            assert_eq!(desk.tag(within[0].parts.node, &tags, b"a message").await, tag);
            let wraps = desk.key(number, KEK).await;
            let wrapped = desk.wrapped(number, &wraps, &[7; 32]).await;
            let unwrapped = desk.unwrapped(number, &wraps, &wrapped).await;
            assert_eq!(unwrapped, json!(super::symmetric::encode(&[7; 32])));

            // Descriptions, configurations, lists; receipts of the group's members.
            let vouching = described_to(&committee, node, &signing).await.unwrap();
            assert_eq!(vouching.len(), 2);
            let shown = node.serve(configuration(&alice, &keystore)).await.unwrap();
            assert_eq!(shown.body.unwrap()["id"], json!(keystore.url));
            let listed = node.serve(list(&alice)).await.unwrap().body.unwrap();
            let listed = listed["results"].as_array().unwrap();
            assert!(listed.iter().any(|config| config["id"] == json!(keystore.url)));
            let items = json!([sign(&signing, "one"), sign(&born, "two")]);
            let together = batch(&alice, &keystore, Capability::Root(&keystore.url), &items);
            assert_eq!(statuses(&answers(node, together).await), [200, 200]);

            // A revocation through it, with a receipt, binds everybody; what is not there is not there.
            let bob = Client::new();
            let lent = alice.delegate(&keystore, &signing, &bob, &format!("urn:uuid:lent-{number}"));
            let by_bob =
                |message: &str| bob.sign_by(Capability::Delegated(&lent), &signing, message.as_bytes(), 0);
            assert_eq!(status(&node.serve(by_bob("before")).await), 200);
            let revoked = node.serve(wanting(alice.revoke(&keystore, &lent))).await.unwrap();
            assert_eq!((revoked.status, revoked.receipt.is_some()), (204, true));
            for other in cluster.nodes() {
                let after = format!("after, through {}", other.parts.node);
                assert_eq!(status(&other.serve(by_bob(&after)).await), 403, "{after}");
            }
            let again = node
                .serve(wanting(alice.revoke(&keystore, &lent)))
                .await
                .unwrap_err();
            assert_eq!((again.status, again.receipt.is_some()), (403, true));
            let missing = node.serve(bob.sign(&keystore, &signing, b"no controller")).await;
            assert_eq!(status(&missing), 403);

            for key in [&signing, &agreement, &born, &agreed, &tags, &wraps] {
                assert!(!holds(node, &keystore, key), "node {number} holds a share");
                let holders = within.iter().filter(|node| holds(node, &keystore, key)).count();
                assert_eq!(holders, 3);
            }
        }
        let updated = alice.update(&keystore, 1, &json!([alice.did]));
        assert_eq!(status(&outside[0].serve(updated).await), 200);
        // Keystores that are made through any node are listed through any other.
        let mut made = vec![keystore.url.clone()];
        for node in cluster.nodes() {
            made.push(alice.keystore(node).await.url);
        }
        for node in cluster.nodes() {
            let listed = node.serve(list(&alice)).await.unwrap().body.unwrap();
            let listed = listed["results"].as_array().unwrap();
            let urls: Vec<&str> = listed
                .iter()
                .map(|config| config["id"].as_str().unwrap())
                .collect();
            assert_eq!(urls.len(), made.len());
            assert!(made.iter().all(|url| urls.contains(&url.as_str())));
        }
        cluster.stop().await;
    });
}

#[test]
fn one_of_the_committee_may_be_down_and_without_two_it_is_said_so() {
    run(async {
        let cluster = Cluster::start_placed(5, 3).await;
        let (cluster, alice, keystore, signing, agreement) = furnished_in(cluster).await;
        let (outside, within) = outside_and_in(&cluster, &keystore);
        let (outside, down) = (outside[0], [within[0].parts.node, within[1].parts.node]);
        cluster.isolate(down[0]);
        let group = outside.parts.group_of(&keystore.id);
        until("the others go on", || {
            let led = |node: &&Node| {
                let status = node.parts.consensus.status();
                let of_group = status.into_iter().find(|status| status.group == group);
                of_group.is_some_and(|status| status.leader.is_some_and(|leader| leader != down[0]))
            };
            !outside.parts.network.connected(down[0]) && within[1..].iter().all(led)
        })
        .await;
        sign_well(outside, &alice, &keystore, &signing, b"by two of three").await;
        derive_well(outside, &alice, &keystore, &agreement).await;
        alice.key(outside, &keystore, ED25519).await;
        cluster.isolate(down[1]);
        cluster.isolate(within[2].parts.node);
        until("nobody of them is there", || {
            within
                .iter()
                .all(|node| !outside.parts.network.connected(node.parts.node))
        })
        .await;
        let request = alice.sign(&keystore, &signing, b"by nobody");
        let refused = outside.serve(request).await.unwrap_err();
        assert_eq!((refused.status, refused.retry_after), (503, Some(1)));
        assert!(
            refused.message.contains("no part of this keystore"),
            "{}",
            refused.message
        );
        cluster.stop().await;
    });
}

#[test]
fn nothing_is_served_for_a_member_or_by_who_is_none() {
    run(async {
        let cluster = Cluster::start_placed(5, 3).await;
        let (cluster, alice, keystore, signing, _) = furnished_in(cluster).await;
        let (outside, within) = outside_and_in(&cluster, &keystore);
        let relay = |asking: &Node, request: &RawRequest| {
            let forwarded = Forwarded {
                operation: asking.parts.next_operation(),
                attempt: 1,
                request: super::malicious_coordinator::encoded(request),
                needs: Vec::new(),
                participants: Vec::new(),
                epoch: None,
            };
            Call::Relay(Box::new(Relay {
                forwarded,
                addresses: Vec::new(),
                receipt: false,
            }))
        };
        let request = alice.sign(&keystore, &signing, b"shown to a holder");
        for (asking, asked) in [(within[0], within[1]), (outside[0], outside[1])] {
            let answer = asking.ask(asked.parts.node, &relay(asking, &request)).await;
            assert!(matches!(answer, Answer::Abstained(_)));
        }
        let answer = outside[0]
            .ask(within[0].parts.node, &relay(outside[0], &request))
            .await;
        assert!(matches!(answer, Answer::Relayed(relayed) if relayed.served.is_ok()));
        let listed = outside[0]
            .ask(within[0].parts.node, &relay(outside[0], &list(&alice)))
            .await;
        assert!(matches!(listed, Answer::Refused(problem) if problem.status == 400));
        cluster.stop().await;
    });
}

/// The allow list is the one rule that only the node that the client reached can tell: its word goes along.
#[test]
fn an_allow_list_holds_through_every_node() {
    run(async {
        let cluster = Cluster::start_placed(5, 3).await;
        let (cluster, alice, keystore, signing, _) = furnished_in(cluster).await;
        let body = json!({
            "id": keystore.url, "controller": [alice.did], "sequence": 1, "meterId": keystore.meter,
            "ipAllowList": ["10.9.9.0/24"],
        });
        let invoked = (Capability::Root(&keystore.url), "write");
        let update = alice.request("POST", &keystore.path, invoked, Some(&body), 0);
        let (outside, within) = outside_and_in(&cluster, &keystore);
        assert_eq!(status(&within[0].serve(update).await), 200);
        let describe = || RawRequest {
            method: "GET".into(),
            target: signing.path.clone(),
            headers: vec![(HEADER.into(), b"wanted".to_vec())],
            body: Vec::new(),
        };
        for node in [outside[0], within[1]] {
            let number = node.parts.node;
            let sign = || alice.sign(&keystore, &signing, format!("through {number}").as_bytes());
            assert_eq!(status(&node.serve(sign()).await), 403, "node {number}");
            assert_eq!(status(&node.serve(describe()).await), 403, "node {number}");
            let from = vec!["10.9.9.7".parse().unwrap()];
            let operation = node.registry.next_operation();
            assert_eq!(
                status(&node.registry.serve(operation, sign(), from.clone()).await),
                200
            );
            let operation = node.registry.next_operation();
            assert_eq!(
                status(&node.registry.serve(operation, describe(), from).await),
                200
            );
        }
        cluster.stop().await;
    });
}

/// Every key's group moves, to others and back again, while the key is used through all nodes.
#[test]
fn groups_move_between_nodes_while_their_keys_are_used() {
    run(async {
        let cluster = Cluster::start_placed(5, 3).await;
        let (cluster, alice, keystore, signing, agreement) = furnished_in(cluster).await;
        let desk = Desk::new(&cluster, &alice, &keystore);
        let tags = desk.key(1, HMAC).await;
        let tag = desk.tag(1, &tags, b"the same before and after").await;
        let group = cluster.node(1).parts.group_of(&keystore.id);
        let first = cluster.genesis().nodes_of(group.0);
        let others: Vec<u64> = (1..=5).filter(|node| !first.contains(node)).collect();
        // One of the three stays; then back to where it was: the two that left come again.
        let second = vec![others[0], others[1], first[0]];
        let mut orders = Orders::default();
        for (number, nodes) in [(2, &second), (3, &first)] {
            let order = placed(&cluster, &orders, group, nodes);
            orders.orders.push(order.clone());
            submit(&cluster.node(2).parts, order).await.unwrap();
            carried_out(&cluster, number, async |turn| {
                let node = cluster.node(1 + turn % 5);
                let request = alice.sign(&keystore, &signing, format!("{number} {turn}").as_bytes());
                let code = status(&node.serve(request).await);
                assert!(matches!(code, 200 | 503), "turn {turn}: {code}");
            })
            .await;
            let mut nodes = nodes.clone();
            nodes.sort_unstable();
            for node in cluster.nodes() {
                let (number, parts) = (node.parts.node, &node.parts);
                until("who left knows it", || {
                    parts.is_in(group) == nodes.contains(&number)
                })
                .await;
                upkeep::sweep_moved(parts, group, &mut Default::default()).await;
                for key in [&signing, &agreement, &tags] {
                    assert_eq!(
                        holds(node, &keystore, key),
                        nodes.contains(&number),
                        "node {number}"
                    );
                }
                sign_well(node, &alice, &keystore, &signing, b"afterwards").await;
                derive_well(node, &alice, &keystore, &agreement).await;
                assert_eq!(desk.tag(number, &tags, b"the same before and after").await, tag);
                let born = alice.key(node, &keystore, ED25519).await;
                sign_well(node, &alice, &keystore, &born, b"born afterwards").await;
            }
            // A group whose nodes are the same has taken the order and moved nothing.
            let still = (1..cluster.genesis().groups)
                .map(GroupId)
                .find(|other| *other != group)
                .unwrap();
            let committee = cluster.genesis().nodes_of(still.0);
            for node in &committee {
                let roster = cluster.node(*node).parts.roster(still).unwrap();
                assert_eq!(
                    (roster.current.index, roster.current.nodes()),
                    (number, committee.clone())
                );
            }
        }
        cluster.stop().await;
    });
}

/// While a group is on its way nobody says that all have come, and no other order is taken, whoever is asked.
#[test]
fn one_order_after_the_other_and_group_0_ends_last() {
    run(async {
        let cluster = Cluster::start_placed(5, 3).await;
        let (mut cluster, alice, keystore, signing, _) = furnished_in(cluster).await;
        let group = cluster.node(1).parts.group_of(&keystore.id);
        let first = cluster.genesis().nodes_of(group.0);
        let others: Vec<u64> = (1..=5).filter(|node| !first.contains(node)).collect();
        // Nobody moves keys here: the group stays between both lists, and group 0, which is on all nodes, has come at once.
        let mut orders = Orders::default();
        let elsewhere = [others[0], others[1], first[0]];
        let order = placed(&cluster, &orders, group, &elsewhere);
        orders.orders.push(order.clone());
        submit(&cluster.node(1).parts, order).await.unwrap();
        staged(&cluster, &first, &keystore, Stage::Joint).await;
        let candidate = Candidate::new(6);
        let next = super::moves::order(&cluster, &orders, &[candidate.pinned()], &[]);
        let nodes = [first[0], others[0], 6];
        let next = super::moves::with_placement(next, |_| {
            let now = orders.follow(cluster.genesis().clone()).unwrap();
            let of_group = |other: u32| match other == group.0 {
                true => nodes.to_vec(),
                false => now.nodes_of(other),
            };
            let placed = (1..now.groups).map(|group| Placed {
                group,
                nodes: of_group(group),
            });
            let mut placed: Vec<Placed> = placed.collect();
            placed.iter_mut().for_each(|placed| placed.nodes.sort_unstable());
            Some(Placement::new(placed))
        });
        for node in cluster.nodes() {
            let parts = &node.parts;
            until("group 0 has the order", || {
                parts.roster(GROUP_ZERO).unwrap().current.index == 2
            })
            .await;
            let refused = submit(parts, next.clone()).await.unwrap_err();
            assert_eq!(refused.status, 409, "node {}: {}", parts.node, refused.message);
            let statement = order_statement(parts, GROUP_ZERO, &next, parts.next_operation());
            let endorsed = endorse_order(parts, &next, &statement).await;
            assert!(endorsed.is_err(), "node {} takes another order", parts.node);
            // Its keys are used by those that have them, whoever is asked.
            sign_well(node, &alice, &keystore, &signing, b"between two lists").await;
        }
        carried_out(&cluster, 2, async |_| tokio::task::yield_now().await).await;
        let deadline = std::time::Instant::now() + super::cluster::SOON;
        while submit(&cluster.node(1).parts, next.clone()).await.is_err() {
            assert!(
                std::time::Instant::now() < deadline,
                "the next order is not taken"
            );
        }
        orders.orders.push(next);
        cluster.join(candidate, &orders);
        staged(&cluster, &elsewhere, &keystore, Stage::Joint).await;
        for node in cluster.nodes() {
            let parts = &node.parts;
            until("group 0 has begun", || {
                let zero = parts.roster(GROUP_ZERO);
                let next = zero.ok().and_then(|zero| zero.next.clone());
                next.is_some_and(|(_, stage)| stage == Stage::Joint)
            })
            .await;
            let statement = move_statement(parts, GROUP_ZERO, 3, parts.next_operation());
            let endorsed = endorse_move(parts, GROUP_ZERO, 3, &statement).await;
            assert!(endorsed.is_err(), "node {} says that it is over", parts.node);
        }
        carried_out(&cluster, 3, async |_| tokio::task::yield_now().await).await;
        sign_well(cluster.node(6), &alice, &keystore, &signing, b"with the sixth").await;
        cluster.stop().await;
    });
}

/// Group 0 is with such an order at once, and the group's keys are still with the nodes that it leaves.
#[test]
fn while_a_group_moves_both_its_lists_are_asked() {
    run(async {
        let cluster = Cluster::start_placed(6, 3).await;
        let (cluster, alice, keystore, signing, _) = furnished_in(cluster).await;
        let group = cluster.node(1).parts.group_of(&keystore.id);
        let first = cluster.genesis().nodes_of(group.0);
        let others: Vec<u64> = (1..=6).filter(|node| !first.contains(node)).collect();
        let order = placed(
            &cluster,
            &Orders::default(),
            group,
            &[first[0], others[0], others[1]],
        );
        submit(&cluster.node(1).parts, order).await.unwrap();
        staged(&cluster, &first, &keystore, Stage::Joint).await;
        let outside = cluster.node(others[2]);
        until("group 0 has the order", || {
            outside.parts.roster(GROUP_ZERO).unwrap().current.index == 2
        })
        .await;
        let asked = outside.parts.members_elsewhere(group, 0);
        let all = [&first[..], &others[..2]].concat();
        assert!(
            all.iter().all(|node| asked.contains(node)),
            "{asked:?} of {all:?}"
        );
        sign_well(outside, &alice, &keystore, &signing, b"between two lists").await;
        cluster.stop().await;
    });
}

#[test]
fn a_lost_node_of_five_is_replaced_in_its_groups_only() {
    run(async {
        let cluster = Cluster::start_placed(5, 3).await;
        let (mut cluster, alice, keystore, signing, agreement) = furnished_in(cluster).await;
        let group = cluster.node(1).parts.group_of(&keystore.id);
        let lost = cluster.genesis().nodes_of(group.0)[1];
        cluster.isolate(lost);
        let candidate = Candidate::new(6);
        let mut orders = Orders::default();
        let mut order = super::moves::order(&cluster, &orders, &[candidate.pinned()], &[lost]);
        let before = cluster.genesis().clone();
        order = super::moves::with_placement(order, |nodes| {
            place(before.groups, nodes, 3, |group| before.nodes_of(group))
        });
        orders.orders.push(order.clone());
        let through = (1..=5).find(|node| *node != lost).unwrap();
        let deadline = std::time::Instant::now() + 2 * super::cluster::SOON;
        while let Err(problem) = submit(&cluster.node(through).parts, order.clone()).await {
            assert!(
                problem.status == 503 && std::time::Instant::now() < deadline,
                "{problem:?}"
            );
        }
        cluster.join(candidate, &orders);
        let left: Vec<u64> = (1..=6).filter(|node| *node != lost).collect();
        super::moves::carry_out(&cluster, &left, 2).await;
        let now = orders.follow(cluster.genesis().clone()).unwrap();
        assert_eq!(now.nodes_of(group.0).len(), 3);
        assert!(now.nodes_of(group.0).contains(&6));
        for node in left {
            let node = cluster.node(node);
            sign_well(node, &alice, &keystore, &signing, b"with the new one").await;
            derive_well(node, &alice, &keystore, &agreement).await;
            let is_member = now.nodes_of(group.0).contains(&node.parts.node);
            assert_eq!(holds(node, &keystore, &signing), is_member);
        }
        cluster.stop().await;
    });
}
