//! Peers' audit heads go on each other's record: what a node has signed, once, and nothing that it has not.

use super::client::{furnished, sign_well};
use super::cluster::{Cluster, Node, run, until};
use crate::actors::heads::ask_all;
use crate::actors::wire::{Answer, Call};
use crate::audit::{Content, Kind, PeerHead};

/// Waits until a node's last operation is below a head.
async fn headed(node: &Node) -> PeerHead {
    let last = node.chain().await;
    let last = last.iter().rfind(|record| record.entry().is_some()).unwrap();
    let covers = || {
        node.parts
            .audit
            .signed_head()
            .is_some_and(|head| head.sequence >= last.sequence)
    };
    until("a head over all that was done", covers).await;
    node.parts.audit.signed_head().unwrap()
}

async fn exchange(cluster: &Cluster) {
    for node in cluster.nodes() {
        ask_all(&node.parts).await;
    }
}

/// The heads of peers in a node's chain.
async fn held(node: &Node) -> Vec<PeerHead> {
    let chain = node.chain().await;
    let heads = chain.iter().filter_map(|record| match &record.content {
        Content::Witnessed(head) => Some(*head),
        _ => None,
    });
    heads.collect()
}

#[test]
fn what_each_node_has_signed_is_on_the_others_record_once() {
    run(async {
        let (cluster, client, keystore, signing, _) = furnished(3).await;
        sign_well(cluster.node(1), &client, &keystore, &signing, b"signed").await;
        let mut heads = Vec::new();
        for node in cluster.nodes() {
            heads.push(headed(node).await);
        }
        exchange(&cluster).await;
        for node in cluster.nodes() {
            let mut held = held(node).await;
            held.sort_by_key(|head| head.node);
            let others = heads.iter().filter(|head| head.node != node.parts.node);
            // A later one if a chain went on meanwhile.
            let pairs: Vec<_> = held.iter().zip(others).collect();
            assert_eq!((held.len(), pairs.len()), (2, 2));
            for (held, head) in pairs {
                assert!(
                    held.node == head.node && held.sequence >= head.sequence,
                    "{held:?}"
                );
                let key = cluster.node(held.node).parts.signing_key.verifying_key();
                assert!(held.is_signed(node.parts.cluster(), &key));
            }
        }
        cluster.stop().await;
    });
}

#[test]
fn a_head_that_a_peer_has_not_signed_names_it_and_is_not_recorded() {
    run(async {
        let (cluster, client, keystore, signing, _) = furnished(3).await;
        sign_well(cluster.node(1), &client, &keystore, &signing, b"signed").await;
        let honest = headed(cluster.node(3)).await;
        let lies: [fn(&mut PeerHead); 3] = [
            |head| head.sequence += 1,
            |head| head.hash[0] ^= 1,
            |head| head.node = 1,
        ];
        for (at, lie) in lies.into_iter().enumerate() {
            cluster.node(3).tamper(move |call: &Call, answer| match call {
                Call::AuditHead => {
                    let mut head = honest;
                    lie(&mut head);
                    Answer::AuditHead(Some(head), true).encode()
                }
                _ => answer.encode(),
            });
            let node = cluster.node(1);
            let named = node.named(3);
            ask_all(&node.parts).await;
            assert_eq!(node.named(3), named + 1, "lie {at}");
            assert!(held(node).await.iter().all(|head| head.node != 3));
        }
        assert_eq!(
            cluster.node(1).recorded(Kind::Witnessed).await,
            0,
            "no entry is one"
        );
        cluster.stop().await;
    });
}
