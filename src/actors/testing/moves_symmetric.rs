//! Symmetric keys move with the members: what they make stays the same to the byte, their old holders keep nothing, and no new
//! holder takes a key that it has not checked itself.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use super::client::{Key, Keystore, furnished};
use super::cluster::{Candidate, Cluster, Node, SOON, run, until};
use super::moves::{carry_out, order, staged};
use super::symmetric::{Desk, HMAC, KEK, encode, tag_of};
use crate::actors::coordinator::order::submit;
use crate::actors::coordinator::renewal::Renewer;
use crate::actors::coordinator::upkeep;
use crate::actors::holder::renewal_id;
use crate::actors::parts::Parts;
use crate::actors::renewals::Id;
use crate::actors::wire::{Answer, Beginning, Call, RenewCompute, Renewal, Round, ToRenew};
use crate::keystore::{KeyRecord, Stage};
use crate::provision::introduction::Orders;

const MESSAGE: &[u8] = b"made by those before";

/// What was made with keys before they moved.
struct Made {
    hmac: Key,
    kek: Key,
    tag: Vec<u8>,
    /// One for each node: the same bytes through two nodes are another's claim.
    wraps: BTreeMap<u64, Vec<u8>>,
}

fn payload(node: u64) -> [u8; 32] {
    [u8::try_from(node).unwrap(); 32]
}

impl Made {
    async fn by(desk: &Desk<'_>, nodes: impl IntoIterator<Item = u64>) -> Self {
        let (hmac, kek) = (desk.key(1, HMAC).await, desk.key(2, KEK).await);
        let tag = desk.tag(1, &hmac, MESSAGE).await;
        let mut wraps = BTreeMap::new();
        for node in nodes {
            wraps.insert(node, desk.wrapped(2, &kek, &payload(node)).await);
        }
        Self {
            hmac,
            kek,
            tag,
            wraps,
        }
    }

    /// Through each of these nodes; a wrap is unwrapped once.
    async fn is_the_same(&mut self, desk: &Desk<'_>, nodes: &[u64]) {
        for node in nodes {
            assert_eq!(
                desk.tag(*node, &self.hmac, MESSAGE).await,
                self.tag,
                "node {node}"
            );
            let wrapped = self.wraps.remove(node).unwrap();
            let unwrapped = desk.unwrapped(*node, &self.kek, &wrapped).await;
            assert_eq!(unwrapped, json!(encode(&payload(*node))), "node {node}");
        }
    }
}

fn record(node: &Node, keystore: &Keystore, key: &Key) -> KeyRecord {
    node.key_record(&keystore.id, &key.id).unwrap()
}

fn holders(node: &Node, keystore: &Keystore, key: &Key) -> Vec<u64> {
    let record = record(node, keystore, key);
    record.material.sharing().unwrap().holders.clone()
}

/// Orders that some come and others go, and starts those that come.
async fn order_change(cluster: &mut Cluster, orders: &mut Orders, through: u64, come: &[u64], gone: &[u64]) {
    let candidates: Vec<Candidate> = come.iter().map(|number| Candidate::new(*number)).collect();
    let pinned: Vec<_> = candidates.iter().map(Candidate::pinned).collect();
    let order = order(cluster, orders, &pinned, gone);
    orders.orders.push(order.clone());
    submit(&cluster.node(through).parts, order).await.unwrap();
    for candidate in candidates {
        cluster.join(candidate, orders);
    }
}

/// These nodes keep nothing of the key's earlier epochs, and those that hold it no more keep nothing.
async fn nothing_is_left(cluster: &Cluster, keystore: &Keystore, key: &Key, nodes: &[u64], number: u64) {
    for node in nodes {
        let parts = &cluster.node(*node).parts;
        let group = parts.group_of(&keystore.id);
        until("every member knows that it is over", || {
            parts
                .roster(group)
                .is_ok_and(|roster| roster.current.index == number)
        })
        .await;
        upkeep::sweep_moved(parts, group, &mut Default::default()).await;
        let record = record(cluster.node(*node), keystore, key);
        let holds = record.material.sharing().unwrap().number(*node).is_some();
        let sessions = parts.shares.sessions(&keystore.id.0, &key.id.0).unwrap();
        let left: Vec<u64> = sessions.iter().map(|session| session.id.epoch).collect();
        assert_eq!(
            left,
            if holds { vec![record.epoch] } else { vec![] },
            "node {node}"
        );
    }
}

fn nobody_aborted_or_is_named(cluster: &Cluster) {
    for node in cluster.nodes() {
        assert_eq!(node.parts.metrics.aborts.get(), 0, "epochs met in a computation");
        for other in cluster.nodes() {
            assert_eq!(node.named(other.parts.node), 0, "an honest node was named");
        }
    }
}

#[test]
fn symmetric_keys_follow_a_replaced_member_while_they_are_used() {
    run(async {
        let (mut cluster, client, keystore, ..) = furnished(3).await;
        let mut made = Made::by(&Desk::new(&cluster, &client, &keystore), [1, 2, 4]).await;
        let mut orders = Orders::default();
        order_change(&mut cluster, &mut orders, 1, &[4], &[3]).await;
        let desk = &Desk::new(&cluster, &client, &keystore);
        let (hmac, kek) = (&made.hmac, &made.kek);
        let (outer, inner) = desk.rebuilt(hmac, [1, 2]);
        let over = &AtomicBool::new(false);
        let moving = async {
            carry_out(&cluster, &[1, 2, 4], 2).await;
            over.store(true, Ordering::Relaxed);
        };
        // The one that leaves serves until it knows that the key is with others.
        let has_left = &|node| node == 3 && record(cluster.node(3), &keystore, hmac).committee == 2;
        let tagging = |node: u64| async move {
            let mut count = 0_u32;
            while !over.load(Ordering::Relaxed) && !has_left(node) {
                let message = format!("{node} {count}").into_bytes();
                let tag = desk.tag(node, hmac, &message).await;
                assert_eq!(tag, tag_of(inner.unwrap(), outer, &message));
                count += 1;
            }
            count
        };
        let unwrapping = async {
            let mut count = 0_u32;
            while !over.load(Ordering::Relaxed) {
                let payload = [count.to_be_bytes(); 4].concat();
                let wrapped = desk.wrapped(2, kek, &payload).await;
                assert_eq!(desk.unwrapped(1, kek, &wrapped).await, json!(encode(&payload)));
                count += 1;
            }
            count
        };
        let (_, first, second, third, unwrapped) = futures::join!(
            Box::pin(moving),
            Box::pin(tagging(1)),
            Box::pin(tagging(2)),
            Box::pin(tagging(3)),
            Box::pin(unwrapping)
        );
        assert!(first.min(second).min(third) > 1, "{first} {second} {third}");
        assert!(unwrapped > 0);
        assert_eq!(holders(cluster.node(4), &keystore, hmac), [1, 2, 4]);
        assert_eq!(desk.rebuilt(hmac, [1, 4]), (outer, inner));
        made.is_the_same(desk, &[1, 2, 4]).await;
        for key in [&made.hmac, &made.kek] {
            assert_eq!(record(cluster.node(1), &keystore, key).epoch, 1);
            nothing_is_left(&cluster, &keystore, key, &[1, 2, 3, 4], 2).await;
        }
        nobody_aborted_or_is_named(&cluster);
        cluster.stop().await;
    });
}

/// More keys than one ceremony moves, and nobody computes with them until they have moved.
#[test]
fn symmetric_keys_leave_a_dead_member() {
    run(async {
        let (mut cluster, client, keystore, ..) = furnished(3).await;
        let desk = Desk::new(&cluster, &client, &keystore);
        let mut made = Made::by(&desk, [1, 2, 4]).await;
        let mut more = Vec::new();
        let unused = desk.key(1, KEK).await;
        for node in [2, 3] {
            let key = desk.key(node, HMAC).await;
            let tag = desk.tag(node, &key, MESSAGE).await;
            more.push((key, tag));
        }
        cluster.isolate(3);
        cluster.settle(&[cluster.node(1), cluster.node(2)]).await;
        let mut orders = Orders::default();
        order_change(&mut cluster, &mut orders, 1, &[4], &[3]).await;
        cluster.isolate(3);
        carry_out(&cluster, &[1, 2, 4], 2).await;
        let desk = Desk::new(&cluster, &client, &keystore);
        made.is_the_same(&desk, &[1, 2, 4]).await;
        for (key, tag) in &more {
            assert_eq!(holders(cluster.node(1), &keystore, key), [1, 2, 4]);
            assert_eq!(desk.tag(4, key, MESSAGE).await, *tag);
        }
        for key in [&made.hmac, &made.kek, &unused] {
            nothing_is_left(&cluster, &keystore, key, &[1, 2, 4], 2).await;
        }
        nobody_aborted_or_is_named(&cluster);
        cluster.stop().await;
    });
}

#[test]
fn symmetric_keys_move_to_three_others_at_once() {
    run(async {
        let (mut cluster, client, keystore, ..) = furnished(3).await;
        let mut made = Made::by(&Desk::new(&cluster, &client, &keystore), [4, 5, 6]).await;
        let mut orders = Orders::default();
        order_change(&mut cluster, &mut orders, 1, &[4, 5, 6], &[1, 2, 3]).await;
        carry_out(&cluster, &[4, 5, 6], 2).await;
        for key in [&made.hmac, &made.kek] {
            assert_eq!(holders(cluster.node(4), &keystore, key), [4, 5, 6]);
            nothing_is_left(&cluster, &keystore, key, &[1, 2, 3, 4, 5, 6], 2).await;
        }
        // Those that have left are needed for nothing any more.
        (1..=3).for_each(|node| cluster.isolate(node));
        let desk = Desk::new(&cluster, &client, &keystore);
        made.is_the_same(&desk, &[4, 5, 6]).await;
        nobody_aborted_or_is_named(&cluster);
        cluster.stop().await;
    });
}

#[test]
fn a_grown_committee_has_four_holders_and_a_shrunk_one_three() {
    run(async {
        let (mut cluster, client, keystore, ..) = furnished(3).await;
        let mut made = Made::by(&Desk::new(&cluster, &client, &keystore), 1..=6).await;
        let mut orders = Orders::default();
        order_change(&mut cluster, &mut orders, 1, &[4, 5], &[]).await;
        carry_out(&cluster, &[1, 2, 3, 4, 5], 2).await;
        let desk = Desk::new(&cluster, &client, &keystore);
        made.is_the_same(&desk, &[1, 2, 3]).await;
        for key in [&made.hmac, &made.kek] {
            assert_eq!(holders(cluster.node(1), &keystore, key).len(), 4);
            nothing_is_left(&cluster, &keystore, key, &[1, 2, 3, 4, 5], 2).await;
        }
        order_change(&mut cluster, &mut orders, 5, &[6], &[1, 2, 3]).await;
        carry_out(&cluster, &[4, 5, 6], 3).await;
        for key in [&made.hmac, &made.kek] {
            nothing_is_left(&cluster, &keystore, key, &[1, 2, 3, 4, 5, 6], 3).await;
        }
        let desk = Desk::new(&cluster, &client, &keystore);
        // Those that have left are needed for nothing any more.
        (1..=3).for_each(|node| cluster.isolate(node));
        made.is_the_same(&desk, &[4, 5, 6]).await;
        for key in [&made.hmac, &made.kek] {
            assert_eq!(record(cluster.node(4), &keystore, key).epoch, 2);
            assert_eq!(holders(cluster.node(4), &keystore, key), [4, 5, 6]);
        }
        nobody_aborted_or_is_named(&cluster);
        cluster.stop().await;
    });
}

/// Waits until these nodes may take part in ceremonies with each other.
async fn ready(cluster: &Cluster, nodes: &[u64]) {
    let all: Vec<&Node> = nodes.iter().map(|node| cluster.node(*node)).collect();
    cluster.settle(&all).await;
    until("all are linked", || {
        all.iter().all(|node| {
            let mut others = nodes.iter().filter(|other| **other != node.parts.node);
            others.all(|other| node.parts.network.connected(*other))
        })
    })
    .await;
}

/// Where all holders stay they only get new pieces; where one of them has lost its part, three deal, and it has one again.
#[test]
fn a_holder_that_lost_its_part_gets_one_when_the_key_moves() {
    run(async {
        let (mut cluster, client, keystore, ..) = furnished(4).await;
        let mut made = Made::by(&Desk::new(&cluster, &client, &keystore), 1..=5).await;
        let bereft = &cluster.node(2).parts;
        let id = Parts::share_id(
            &keystore.id,
            &made.hmac.id,
            &record(cluster.node(2), &keystore, &made.hmac),
        );
        assert!(bereft.shares.remove_session(&id).unwrap());
        bereft.symmetric.forget(&id);
        let mut orders = Orders::default();
        order_change(&mut cluster, &mut orders, 1, &[5], &[]).await;
        carry_out(&cluster, &[1, 2, 3, 4, 5], 2).await;
        assert_eq!(holders(cluster.node(5), &keystore, &made.kek), [1, 2, 3, 4]);
        for key in [&made.hmac, &made.kek] {
            nothing_is_left(&cluster, &keystore, key, &[1, 2, 3, 4, 5], 2).await;
        }
        let desk = Desk::new(&cluster, &client, &keystore);
        made.is_the_same(&desk, &[1, 2, 3, 4, 5]).await;
        nobody_aborted_or_is_named(&cluster);
        cluster.stop().await;
    });
}

/// What a holder writes when it deals another key: a piece that it alone deals, altered for all who do not have it from itself.
fn with_another_key(
    liar: &Parts,
    (id, coordinator): (&Id, u64),
    place: usize,
    said: &[u8],
    other: u8,
) -> Vec<u8> {
    let mut letters: BTreeMap<u64, Vec<u8>> = postcard::from_bytes(said).unwrap();
    let renewals = liar.renewals.lock();
    let renewing = renewals.kept(id, coordinator).unwrap();
    let resharing = renewing.keys[place].moved().unwrap();
    for (to, sealed) in &mut letters {
        let letter = resharing.letter(liar.node, *to);
        let boot = liar.network.boot_of(*to).unwrap();
        let secret = liar.symmetric.pairs.lock().with(*to, &boot).unwrap();
        let mut text = letter.open(&secret, sealed).unwrap();
        // The session, how many parts there are, then each: of which piece, for which new one, value and salt.
        let parts = text[33..].chunks_exact_mut(66);
        let mine = u8::try_from(liar.node).unwrap();
        let part = parts.into_iter().find(|part| part[..2] == [other, mine]);
        part.unwrap()[2] ^= 1;
        *sealed = letter.seal(&secret, &text).unwrap();
    }
    postcard::to_stdvec(&letters).unwrap()
}

/// One of three is dead, and one of the two that deal lies where nobody can compare: only the check value tells.
#[test]
fn a_holder_that_deals_another_key_moves_nothing() {
    run(async {
        let (mut cluster, client, keystore, signing, _) = furnished(3).await;
        let mut made = Made::by(&Desk::new(&cluster, &client, &keystore), [1, 2, 4]).await;
        cluster.isolate(3);
        cluster.settle(&[cluster.node(1), cluster.node(2)]).await;
        let mut orders = Orders::default();
        order_change(&mut cluster, &mut orders, 1, &[4], &[3]).await;
        cluster.isolate(3);
        staged(&cluster, &[1, 2, 4], &keystore, Stage::Joint).await;
        ready(&cluster, &[1, 2, 4]).await;
        let group = cluster.node(1).parts.group_of(&keystore.id);
        let leader = cluster.leader(group, 1).unwrap();
        let (liar, honest) = if leader == 2 { (1, 2) } else { (2, 1) };
        let parts = cluster.node(liar).parts.clone();
        cluster
            .node(liar)
            .tamper(move |call, answer| match (call, answer) {
                (Call::RenewStep(id, Round::Package, _), Answer::Renewing(mut said)) => {
                    let moving = |place: usize| {
                        let renewals = parts.renewals.lock();
                        renewals.kept(id, leader).unwrap().keys[place].moved().is_some()
                    };
                    for (place, message) in said.iter_mut().enumerate().filter(|(place, _)| moving(*place)) {
                        *message = with_another_key(&parts, (id, leader), place, message, honest);
                    }
                    Answer::Renewing(said).encode()
                }
                (_, answer) => answer.encode(),
            });
        let leading = cluster.node(leader);
        for _ in 0..10 {
            Renewer::new(leading.parts.clone()).pass().await;
            if record(leading, &keystore, &signing).committee == 2 {
                break;
            }
        }
        assert_eq!(
            record(leading, &keystore, &signing).committee,
            2,
            "key pairs move"
        );
        let failed = leading.parts.metrics.failed_renewals.get();
        Renewer::new(leading.parts.clone()).pass().await;
        assert!(leading.parts.metrics.failed_renewals.get() >= failed + 2);
        for key in [&made.hmac, &made.kek] {
            let record = record(leading, &keystore, key);
            assert_eq!((record.committee, record.epoch), (1, 0), "another key was taken");
        }
        cluster.node(liar).tamper(|_, answer| answer.encode());
        carry_out(&cluster, &[1, 2, 4], 2).await;
        made.is_the_same(&Desk::new(&cluster, &client, &keystore), &[1, 2, 4])
            .await;
        cluster.stop().await;
    });
}

/// Node 1, taken over, leads the move of a key by hand.
struct ByHand<'a> {
    cluster: &'a Cluster,
}

impl ByHand<'_> {
    /// What all say about the key.
    async fn round(&self, call: &Call) -> BTreeMap<u16, Vec<u8>> {
        let mut said = BTreeMap::new();
        for node in 1..=4 {
            let mut messages = match self.ask(node, call).await {
                Answer::Renewing(messages) => messages,
                Answer::Ended(reason) | Answer::Misfit(reason) => panic!("node {node}: {reason}"),
                Answer::Abstained(reason) => panic!("node {node}: {reason}"),
                _ => panic!("node {node} answers another question"),
            };
            let message = messages.pop().filter(|message| !message.is_empty());
            said.extend(message.map(|message| (u16::try_from(node).unwrap(), message)));
        }
        said
    }

    async fn ask(&self, node: u64, call: &Call) -> Answer {
        let thief = &self.cluster.node(1).parts;
        thief.ask(node, call, SOON).await.unwrap()
    }
}

#[test]
fn nobody_signs_a_moved_key_whose_check_value_it_has_not_seen() {
    run(async {
        let (mut cluster, client, keystore, ..) = furnished(3).await;
        let mut made = Made::by(&Desk::new(&cluster, &client, &keystore), [1, 2, 4]).await;
        let mut orders = Orders::default();
        order_change(&mut cluster, &mut orders, 1, &[4], &[3]).await;
        staged(&cluster, &[1, 2, 3, 4], &keystore, Stage::Joint).await;
        ready(&cluster, &[1, 2, 3, 4]).await;
        let thief = &cluster.node(1).parts;
        let proposal = Renewal {
            operation: thief.next_operation(),
            keystore: keystore.id,
            keys: vec![ToRenew {
                key: made.hmac.id,
                replaces: record(cluster.node(1), &keystore, &made.hmac).session,
                dealers: vec![1, 2, 3],
            }],
            beginning: Beginning {
                start: thief.now().unwrap(),
                participants: cluster
                    .nodes()
                    .iter()
                    .map(|node| (node.parts.node, node.parts.boot))
                    .collect(),
                configuration: 2,
            },
            applied: 0,
        };
        let roster = thief.roster(thief.group_of(&keystore.id)).unwrap();
        let id = renewal_id(roster.births(), &proposal);
        let by_hand = ByHand { cluster: &cluster };
        let mut call = Call::Renew(proposal);
        for round in [Round::Package, Round::Deal] {
            let said = by_hand.round(&call).await;
            call = Call::RenewStep(id, round, vec![said]);
        }
        let pieces = by_hand.round(&call).await;
        let agree = Call::RenewCompute(id, 0, RenewCompute::Agree(pieces.clone()));
        for node in [1, 2, 4] {
            assert!(matches!(by_hand.ask(node, &agree).await, Answer::Confirmed));
        }
        let leaving = by_hand.ask(3, &agree).await;
        assert!(matches!(leaving, Answer::Ended(_)), "node 3 is to hold nothing");
        let last = Call::RenewStep(id, Round::Outcome, vec![pieces]);
        for node in [1, 2, 4] {
            let Answer::Ended(reason) = by_hand.ask(node, &last).await else {
                panic!("node {node} signs");
            };
            assert!(reason.contains("not seen the check value"), "{reason}");
        }
        carry_out(&cluster, &[1, 2, 4], 2).await;
        made.is_the_same(&Desk::new(&cluster, &client, &keystore), &[1, 2, 4])
            .await;
        cluster.stop().await;
    });
}
