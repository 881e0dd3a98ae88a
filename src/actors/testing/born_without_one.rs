//! Symmetric keys that are born while one of their four holders is away: it gets its part from the others, and then any
//! other one may go.

use super::client::{Key, Keystore, furnished};
use super::cluster::{Cluster, run, until};
use super::symmetric::{Desk, HMAC, KEK, tag_of};
use crate::actors::wire::{Abstention, Answer, Call};

fn parts_of(cluster: &Cluster, node: u64, keystore: &Keystore, key: &Key) -> usize {
    let shares = &cluster.node(node).parts.shares;
    shares.sessions(&keystore.id.0, &key.id.0).unwrap().len()
}

/// Gives no pieces to anybody.
fn keeps_pieces(call: &Call, answer: Answer) -> Vec<u8> {
    let answer = match call {
        Call::Portion(_) => Abstention::Busy.into(),
        _ => answer,
    };
    answer.encode()
}

/// Gives what nobody has sealed.
fn spoils_pieces(call: &Call, answer: Answer) -> Vec<u8> {
    let answer = match (call, answer) {
        (Call::Portion(_), Answer::Message(mut sealed)) => {
            sealed[0] ^= 1;
            Answer::Message(sealed)
        }
        (_, answer) => answer,
    };
    answer.encode()
}

#[test]
fn one_of_four_that_was_away_gets_its_part_and_then_any_other_may_go() {
    run(async {
        let (cluster, client, keystore, ..) = furnished(4).await;
        let desk = Desk::new(&cluster, &client, &keystore);
        cluster.isolate(4);
        let there = [cluster.node(1), cluster.node(2), cluster.node(3)];
        cluster.settle(&there).await;
        let (hmac, kek) = (desk.generate(1, HMAC).await, desk.generate(2, KEK).await);
        for key in [&hmac, &kek] {
            until("all three know it", || {
                let known = |node: &&super::cluster::Node| node.key_record(&keystore.id, &key.id).is_some();
                there.iter().all(known)
            })
            .await;
            assert_eq!(
                cluster.node(1).key_record(&keystore.id, &key.id).unwrap().away,
                [4]
            );
            assert_eq!(parts_of(&cluster, 4, &keystore, key), 0);
        }
        let (outer, inner) = desk.rebuilt(&hmac, [1, 2]);
        let expected = tag_of(inner.unwrap(), outer, b"m");
        for node in 1..=3 {
            assert_eq!(desk.tag(node, &hmac, b"m").await, expected);
            assert_eq!(cluster.node(node).parts.shares.open_envelopes(), 2);
            cluster.node(node).tamper(keeps_pieces);
        }

        // It is back and has no part yet: another holder serves in its place.
        cluster.rejoin(4);
        let late = cluster.node(4);
        until("it knows the keys", || {
            late.key_record(&keystore.id, &kek.id).is_some()
        })
        .await;
        until("it is linked", || {
            (1..=3).all(|node| late.parts.network.connected(node))
        })
        .await;
        assert_eq!(desk.tag(4, &hmac, b"m").await, expected);
        assert_eq!(parts_of(&cluster, 4, &keystore, &hmac), 0);

        // One of the three lies about the pieces; the other two have them all.
        cluster.node(1).tamper(spoils_pieces);
        for node in [2, 3] {
            cluster.node(node).tamper(|_, answer| answer.encode());
        }
        late.parts.wake.notify_one();
        until("both parts arrive", || late.parts.metrics.delivered.get() == 2).await;
        for node in 1..=3 {
            let shares = &cluster.node(node).parts.shares;
            until("nothing is owed any more", || shares.open_envelopes() == 0).await;
        }
        cluster.isolate(1);
        cluster.settle(&[cluster.node(2), cluster.node(3), late]).await;
        for node in 2..=4 {
            assert_eq!(desk.tag(node, &hmac, b"m").await, expected, "node {node}");
        }
        assert_eq!(desk.rebuilt(&hmac, [2, 4]), (outer, inner));
        cluster.stop().await;
    });
}

#[test]
fn pieces_go_to_nobody_who_was_there() {
    run(async {
        let (cluster, client, keystore, ..) = furnished(4).await;
        let desk = Desk::new(&cluster, &client, &keystore);
        let hmac = desk.generate(1, HMAC).await;
        cluster.catch_up(&keystore.id).await;
        let record = cluster.node(1).key_record(&keystore.id, &hmac.id).unwrap();
        assert!(record.away.is_empty());
        let name = crate::actors::wire::ShareName {
            keystore: keystore.id,
            key: hmac.id,
            session: record.session,
        };
        let answer = cluster.node(4).ask(1, &Call::Portion(name)).await;
        assert!(matches!(answer, Answer::Misfit(_)));
        cluster.stop().await;
    });
}
