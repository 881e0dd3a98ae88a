//! Three real nodes: commit, restart from disk, change of leader, reads, waits, snapshots.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::time::{Duration, Instant};

use conclave_consensus::{GroupId, ProposeError, Scope};
use support::{Cluster, NODES, entry, soon, until};

const G: GroupId = GroupId(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_proposed_anywhere_is_applied_there_when_it_is_answered() {
    let cluster = Cluster::new(|_| ());
    for (at, node) in NODES.into_iter().enumerate() {
        let consensus = cluster.node(node);
        let value = [at as u8];
        let applied = consensus
            .propose(G, entry(0, 1, at as u8, &value), soon())
            .await
            .unwrap();
        assert_eq!(applied.result, applied.index.to_be_bytes());
        let view = consensus.view(G).unwrap();
        assert_eq!(view.get(&[1, at as u8]).unwrap().unwrap(), value);
        assert!(view.applied_index() >= applied.index);
    }
    // What one node answered, every other sees after a read through the leader.
    for node in NODES {
        let consensus = cluster.node(node);
        consensus.read_index(G, soon()).await.unwrap();
        assert_eq!(consensus.view(G).unwrap().scan(&[1], None, 10).unwrap().len(), 3);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_is_replaced_and_comes_back_with_what_it_had() {
    let cluster = Cluster::new(|_| ());
    cluster
        .node(1)
        .propose(G, entry(0, 1, 1, b"before"), soon())
        .await
        .unwrap();
    let leader = cluster.leader(G).await;
    cluster.kill(leader).await;
    let other = NODES.into_iter().find(|node| *node != leader).unwrap();
    for node in NODES.into_iter().filter(|node| *node != leader) {
        cluster.node(node).link(leader, false);
        cluster.node(node).refused(leader);
    }
    cluster
        .node(other)
        .propose(G, entry(0, 1, 2, b"without"), soon())
        .await
        .unwrap();
    cluster.start(leader);
    let back = cluster.node(leader);
    assert_eq!(back.view(G).unwrap().get(&[1, 1]).unwrap().unwrap(), b"before");
    back.read_index(G, soon()).await.unwrap();
    assert_eq!(back.view(G).unwrap().get(&[1, 2]).unwrap().unwrap(), b"without");
    until(|| back.freshness().may_contribute(G).ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaderships_are_handed_over_before_a_stop() {
    let cluster = Cluster::new(|_| ());
    cluster
        .node(1)
        .propose(G, entry(0, 1, 1, b"x"), soon())
        .await
        .unwrap();
    let leader = cluster.leader(G).await;
    cluster.node(leader).shutdown().await;
    let other = NODES.into_iter().find(|node| *node != leader).unwrap();
    // The word of the new leader may be on its way still.
    let handed = || {
        cluster.node(other).status()[1]
            .leader
            .filter(|now| *now != leader)
    };
    assert_ne!(until(handed).await, leader);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_cut_off_knows_no_outcome_and_no_index_and_abstains_from_nothing_it_has_not_seen() {
    let cluster = Cluster::new(|_| ());
    cluster
        .node(1)
        .propose(G, entry(0, 1, 1, b"x"), soon())
        .await
        .unwrap();
    let leader = cluster.leader(G).await;
    let cut = NODES.into_iter().find(|node| *node != leader).unwrap();
    cluster.net.isolate(cut, &NODES);
    let brief = Instant::now() + Duration::from_millis(400);
    let node = cluster.node(cut);
    let (proposed, read) = tokio::join!(
        node.propose(G, entry(0, 1, 2, b"y"), brief),
        node.read_index(G, brief)
    );
    assert!(matches!(
        proposed,
        Err(ProposeError::OutcomeUnknown(_) | ProposeError::NoLeader(_))
    ));
    assert!(read.is_err());
    cluster.net.heal();
    node.propose(G, entry(0, 1, 3, b"z"), soon()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_for_a_pending_entry_ends_in_behind_never_in_an_old_view() {
    let cluster = Cluster::new(|_| ());
    cluster
        .node(1)
        .propose(G, entry(0, 1, 1, b"old"), soon())
        .await
        .unwrap();
    let leader = cluster.leader(G).await;
    let node = cluster.node(leader);
    // The leader writes the entry into its log, and nobody is there to commit it.
    cluster.net.isolate(leader, &NODES);
    let proposing = tokio::spawn({
        let node = node.clone();
        async move {
            node.propose(G, entry(1, 5, 1, b"new"), Instant::now() + Duration::from_secs(2))
                .await
        }
    });
    let last = node.applied_index(G);
    until(|| (node.status()[1].last_index > last).then_some(())).await;
    let deadline = Instant::now() + Duration::from_millis(50);
    let waited = node.freshness().settled(G, Scope([5; 16]), deadline).await;
    assert!(waited.is_err());
    // Another scope is not concerned: one that was would wait in vain, however long.
    node.freshness().settled(G, Scope([6; 16]), soon()).await.unwrap();
    cluster.net.heal();
    let view = node.freshness().settled(G, Scope([5; 16]), soon()).await.unwrap();
    // Applied, or cut away by a new leader: either way the wait saw the log's decision.
    assert!(view.applied_index() > last || view.get(&[5, 1]).unwrap().is_none());
    let _ = proposing.await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_past_the_log_gets_a_snapshot() {
    let cluster = Cluster::new(|settings| {
        settings.keep_entries = 5;
        settings.truncate_above = 10;
        settings.chunk_bytes = 512;
    });
    cluster
        .node(1)
        .propose(G, entry(0, 1, 0, b"first"), soon())
        .await
        .unwrap();
    let leader = cluster.leader(G).await;
    let away = NODES.into_iter().find(|node| *node != leader).unwrap();
    cluster.kill(away).await;
    let node = cluster.node(leader);
    for key in 1..=60 {
        node.propose(G, entry(1, 1, key, &[key; 100]), soon())
            .await
            .unwrap();
    }
    cluster.start(away);
    let back = cluster.node(away);
    back.read_index(G, soon()).await.unwrap();
    assert_eq!(back.counters().snapshots_installed.get(), 1);
    let rows = |view: conclave_consensus::View| view.scan(&[], None, 100).unwrap();
    assert_eq!(rows(back.view(G).unwrap()), rows(node.view(G).unwrap()));
    // And it survives a restart, and goes on from there.
    cluster.kill(away).await;
    drop(back);
    cluster.start(away);
    let back = cluster.node(away);
    assert_eq!(rows(back.view(G).unwrap()).len(), 61);
    back.propose(G, entry(0, 1, 99, b"after"), soon()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_entry_halts_its_group_and_no_other() {
    let cluster = Cluster::new(|_| ());
    cluster
        .node(1)
        .propose(G, entry(0, 1, 1, b"x"), soon())
        .await
        .unwrap();
    let brief = Instant::now() + Duration::from_secs(2);
    assert!(
        cluster
            .node(1)
            .propose(G, entry(9, 1, 2, b"?"), brief)
            .await
            .is_err()
    );
    let node = cluster.node(1);
    until(|| node.status()[1].halted.clone()).await;
    assert!(node.freshness().may_contribute(G).is_err());
    node.propose(GroupId(0), entry(0, 1, 1, b"x"), soon())
        .await
        .unwrap();
}
