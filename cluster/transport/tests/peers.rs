//! The list of peers changes while the network runs: one contract for TLS and for the in-memory double.

// clippy.toml allows it in test functions; this file's other functions are tests' too.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use common::world::{World, call, contract, pair, text};
use common::{PATIENCE, Seen, patient, quick};
use conclave_transport::{CallError, Lane, Network, NodeId, SendError, SettingsError};
use tokio::runtime::Handle;

contract! {
    a_peer_that_is_added_is_reached_and_let_in
    a_peer_that_is_removed_is_let_go
    a_peer_that_is_removed_and_added_again_is_reached_again
    the_others_notice_nothing
    the_same_list_changes_nothing
    a_list_that_cannot_work_changes_nothing
    who_waits_to_send_is_told
    changes_among_calls_and_connections_leave_nothing_behind
    after_the_end_a_list_changes_nothing
}

fn listed(network: &Arc<dyn Network>) -> Vec<NodeId> {
    network.counters().peers().map(|(node, _)| node).collect()
}

async fn no_more_links(seen: &Seen) {
    assert_eq!(seen.links.lock().await.try_recv().ok(), None);
}

/// Until the runtime has no more tasks than this.
async fn tasks_end(most: usize) {
    patient(async {
        while Handle::current().metrics().num_alive_tasks() > most {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// A call that hangs at its callee until it is ended.
async fn hanging(
    from: &Arc<dyn Network>,
    to: NodeId,
    at: &Seen,
) -> tokio::task::JoinHandle<Result<Bytes, CallError>> {
    let from = Arc::clone(from);
    // Of calls before this one.
    at.begun.forget_permits(usize::MAX);
    let hanging = tokio::spawn(async move { from.call(to, text("hang"), PATIENCE).await });
    at.call_begins().await;
    hanging
}

async fn a_peer_that_is_added_is_reached_and_let_in<W: World>() {
    let world = W::new(2, quick());
    let seen = [Seen::new(), Seen::new()];
    let one = world.join(1, 1, Arc::clone(&seen[0])).await;
    one.set_peers(Vec::new()).unwrap();
    assert!(listed(&one).is_empty());
    let two = world.join(2, 2, Arc::clone(&seen[1])).await;
    assert_eq!(call(&two, 1, "who").await, Err(CallError::NotConnected));
    assert_eq!(one.send(2, Lane::Raft, text("x")), Err(SendError::UnknownPeer));

    // From a thread that has no runtime.
    let (network, added) = (Arc::clone(&one), vec![world.peer(2)]);
    let setting = std::thread::spawn(move || network.set_peers(added));
    setting.join().unwrap().unwrap();
    assert_eq!(listed(&one), [2]);
    assert_eq!(seen[0].link().await, (2, true));
    assert_eq!(seen[1].link().await, (1, true));
    assert_eq!(call(&one, 2, "who").await.unwrap(), text("1"));
    assert_eq!(call(&two, 1, "who").await.unwrap(), text("2"));
    one.send(2, Lane::Raft, text("message")).unwrap();
    assert_eq!(seen[1].message().await, (1, Lane::Raft, text("message")));
}

async fn a_peer_that_is_removed_is_let_go<W: World>() {
    let (_world, [one, two], seen) = pair::<W>(quick()).await;
    let calls = [hanging(&one, 2, &seen[1]).await, hanging(&two, 1, &seen[0]).await];
    one.set_peers(Vec::new()).unwrap();
    // At once, for whoever asks after it.
    assert_eq!(seen[0].links.lock().await.try_recv(), Ok((2, false)));
    assert!(!one.connected(2));
    assert_eq!(one.boot_of(2), None);
    assert_eq!(one.send(2, Lane::Raft, text("x")), Err(SendError::UnknownPeer));
    let late = one.send_when_free(2, Lane::Bulk, text("x"), PATIENCE).await;
    assert_eq!(late, Err(SendError::UnknownPeer));
    assert_eq!(call(&one, 2, "echo").await, Err(CallError::NotConnected));
    assert!(listed(&one).is_empty() && one.counters().peer(2).is_none());
    for call in calls {
        assert_eq!(patient(call).await.unwrap(), Err(CallError::Closed));
    }
    // The other has it on its list still, and loses it.
    assert_eq!(seen[1].link().await, (1, false));
    assert_eq!(call(&two, 1, "echo").await, Err(CallError::NotConnected));
    assert_eq!(listed(&two), [1]);

    one.set_peers(Vec::new()).unwrap();
    for seen in &seen {
        no_more_links(seen).await;
        assert!(seen.gone.lock().await.try_recv().is_err());
    }
}

async fn a_peer_that_is_removed_and_added_again_is_reached_again<W: World>() {
    let (world, [one, two], seen) = pair::<W>(quick()).await;
    for round in 1..=5 {
        let pending = hanging(&one, 2, &seen[1]).await;
        one.set_peers(Vec::new()).unwrap();
        one.set_peers(vec![world.peer(2)]).unwrap();
        assert_eq!(patient(pending).await.unwrap(), Err(CallError::Closed));
        assert_eq!(seen[0].link().await, (2, false));
        assert_eq!(seen[0].link().await, (2, true));
        assert_eq!(seen[1].link().await, (1, false));
        assert_eq!(seen[1].link().await, (1, true));
        assert_eq!(call(&one, 2, "who").await.unwrap(), text("1"));
        assert_eq!(call(&two, 1, "who").await.unwrap(), text("2"));
        one.send(2, Lane::Raft, text("again")).unwrap();
        assert_eq!(seen[1].message().await, (1, Lane::Raft, text("again")));
        // The counters go on where they were.
        let counters = two.counters().peer(1).unwrap();
        assert_eq!(counters.received_frames[Lane::Raft.index()].get(), round);
        assert!(one.counters().peer(2).unwrap().sent_frames[Lane::Ceremony.index()].get() >= 2 * round);
    }
    for seen in &seen {
        no_more_links(seen).await;
    }
}

async fn the_others_notice_nothing<W: World>() {
    let world = W::new(3, quick());
    let seen = [Seen::new(), Seen::new(), Seen::new()];
    let mut nodes = Vec::new();
    for (number, seen) in (1..).zip(&seen) {
        nodes.push(world.join(number, number as u8, Arc::clone(seen)).await);
    }
    for seen in &seen {
        assert!(seen.link().await.1 && seen.link().await.1);
    }
    let kept = tokio::spawn({
        let one = Arc::clone(&nodes[0]);
        async move { one.call(2, text("wait"), PATIENCE).await }
    });
    seen[1].call_begins().await;
    nodes[0].set_peers(vec![world.peer(2)]).unwrap();
    assert_eq!(seen[0].link().await, (3, false));
    assert_eq!(seen[2].link().await, (1, false));
    nodes[0].set_peers(vec![world.peer(3), world.peer(2)]).unwrap();
    assert_eq!(seen[0].link().await, (3, true));
    assert_eq!(seen[2].link().await, (1, true));
    seen[1].gate.add_permits(1);
    assert_eq!(patient(kept).await.unwrap().unwrap(), text("waited"));
    no_more_links(&seen[1]).await;
    assert_eq!(call(&nodes[2], 2, "who").await.unwrap(), text("3"));
}

async fn the_same_list_changes_nothing<W: World>() {
    let (world, [one, two], seen) = pair::<W>(quick()).await;
    let kept = tokio::spawn({
        let one = Arc::clone(&one);
        async move { one.call(2, text("wait"), PATIENCE).await }
    });
    seen[1].call_begins().await;
    for _ in 0..100 {
        one.set_peers(vec![world.peer(2)]).unwrap();
        two.set_peers(vec![world.peer(1)]).unwrap();
    }
    seen[1].gate.add_permits(1);
    assert_eq!(patient(kept).await.unwrap().unwrap(), text("waited"));
    for seen in &seen {
        no_more_links(seen).await;
    }
    assert_eq!(
        one.counters()
            .peer(2)
            .unwrap()
            .replaced
            .each_ref()
            .map(|c| c.get()),
        [0; 3]
    );
}

async fn a_list_that_cannot_work_changes_nothing<W: World>() {
    let (world, [one, _two], seen) = pair::<W>(quick()).await;
    let (own, two) = (world.peer(1), world.peer(2));
    let mut three = two.clone();
    three.node = 3;
    for (peers, error) in [
        (vec![two.clone(), own], SettingsError::SelfPeer),
        (vec![two.clone(), two.clone()], SettingsError::DuplicateNode(2)),
        (vec![two.clone(), three], SettingsError::DuplicateKey(3)),
    ] {
        assert_eq!(one.set_peers(peers), Err(error));
    }
    assert_eq!(listed(&one), [2]);
    assert_eq!(call(&one, 2, "echo").await.unwrap(), text("echo"));
    no_more_links(&seen[0]).await;
}

async fn who_waits_to_send_is_told<W: World>() {
    let world = W::new(2, quick());
    let one = world.join(1, 1, Seen::new()).await;
    let mut waiting = one.send_when_free(2, Lane::Bulk, text("chunk"), PATIENCE * 2);
    // It waits from here on.
    assert!(futures::poll!(&mut waiting).is_pending());
    one.set_peers(Vec::new()).unwrap();
    assert_eq!(patient(waiting).await, Err(SendError::UnknownPeer));
}

async fn changes_among_calls_and_connections_leave_nothing_behind<W: World>() {
    let before = Handle::current().metrics().num_alive_tasks();
    let (world, nodes, seen) = pair::<W>(quick()).await;
    // The bulk lanes may be up a moment after the link.
    for (network, seen, other) in [(&nodes[0], &seen[1], 2), (&nodes[1], &seen[0], 1)] {
        patient(network.send_when_free(other, Lane::Bulk, text("up"), PATIENCE))
            .await
            .unwrap();
        seen.message().await;
    }
    let settled = Handle::current().metrics().num_alive_tasks();
    let over = Arc::new(AtomicBool::new(false));
    let mut work = Vec::new();
    for (node, other) in [(0, 2), (1, 1)] {
        for lane in Lane::ALL {
            let (network, over) = (Arc::clone(&nodes[node]), Arc::clone(&over));
            work.push(tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    if lane == Lane::Ceremony {
                        let answer = network.call(other, text("echo"), PATIENCE).await;
                        assert!(
                            matches!(
                                answer,
                                Ok(_) | Err(CallError::Closed | CallError::NotConnected | CallError::Busy)
                            ),
                            "{answer:?}"
                        );
                    } else {
                        let _ = network.send(other, lane, text("message"));
                    }
                    tokio::task::yield_now().await;
                }
            }));
        }
    }
    // Both nodes at once.
    let changing = [(0, 2), (1, 1)].map(|(node, other): (usize, NodeId)| {
        let (network, peer) = (Arc::clone(&nodes[node]), world.peer(other));
        tokio::spawn(async move {
            for round in 0..80 {
                network.set_peers(Vec::new()).unwrap();
                network.set_peers(vec![peer.clone()]).unwrap();
                // Now and then long enough for connections to be half made, or made.
                for _ in 0..(round % 10) * 20 {
                    tokio::task::yield_now().await;
                }
            }
        })
    });
    for task in changing {
        patient(task).await.unwrap();
    }
    over.store(true, Ordering::Relaxed);
    for task in work {
        patient(task).await.unwrap();
    }
    // Both ends up in the end, and what either was told alternates up to there.
    for (seen, network, other) in [(&seen[0], &nodes[0], 2), (&seen[1], &nodes[1], 1)] {
        patient(async {
            while !network.connected(other) || call(network, other, "echo").await.is_err() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        let mut up = true;
        let mut links = seen.links.lock().await;
        while let Ok(link) = links.try_recv() {
            assert_eq!(link, (other, !up));
            up = !up;
        }
        assert!(up);
        patient(network.send_when_free(other, Lane::Bulk, text("up"), PATIENCE))
            .await
            .unwrap();
    }
    tasks_end(settled).await;
    for network in &nodes {
        patient(network.shutdown()).await;
    }
    tasks_end(before).await;
}

async fn after_the_end_a_list_changes_nothing<W: World>() {
    let (world, [one, _two], seen) = pair::<W>(quick()).await;
    patient(one.shutdown()).await;
    assert_eq!(seen[0].link().await, (2, false));
    one.set_peers(Vec::new()).unwrap();
    assert_eq!(listed(&one), [2]);
    one.set_peers(vec![world.peer(2)]).unwrap();
    assert!(!one.connected(2));
    assert_eq!(one.send(2, Lane::Raft, text("x")), Err(SendError::ShutDown));
    no_more_links(&seen[0]).await;
}
