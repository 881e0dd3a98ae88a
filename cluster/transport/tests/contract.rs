//! The contract of `Network`, run against the transport over TLS and against the in-memory double.

// clippy.toml allows it in test functions; this file's other functions are tests' too.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::world::{World, call, contract, pair, text};
use common::{PATIENCE, Seen, patient, quick};
use conclave_transport::memory::{Hub, Kind, Recorder};
use conclave_transport::{Bounds, CallError, Handler, Lane, Network, Refused, SendError};

contract! {
    messages_keep_their_order
    calls_are_answered_under_the_callers_name
    refusals_reach_the_caller
    a_call_ends_in_time_and_its_slot_is_free_again
    a_handler_that_panics_is_no_silence
    calls_under_way_are_bounded
    what_cannot_be_sent_is_said
    a_peer_that_goes_and_returns
    a_full_raft_queue_says_so_and_delays_nothing_else
    a_full_bulk_queue_says_so_and_delays_nothing_else
    sending_waits_for_the_peer
    shutdown_ends_calls
    three_nodes_know_each_other
}

async fn messages_keep_their_order<W: World>() {
    let (_world, [one, two], seen) = pair::<W>(quick()).await;
    for number in 0..1000_u32 {
        one.send(2, Lane::Raft, Bytes::from(number.to_be_bytes().to_vec()))
            .unwrap();
        let bulk = Bytes::from(vec![number as u8; 1000]);
        patient(one.send_when_free(2, Lane::Bulk, bulk, PATIENCE))
            .await
            .unwrap();
    }
    let (mut raft, mut bulk) = (0_u32, 0_u32);
    while raft < 1000 || bulk < 1000 {
        let (from, lane, payload) = seen[1].message().await;
        assert_eq!(from, 1);
        if lane == Lane::Raft {
            assert_eq!(payload, raft.to_be_bytes().as_slice());
            raft += 1;
        } else {
            assert_eq!(payload, vec![bulk as u8; 1000]);
            bulk += 1;
        }
    }
    let counters = two.counters().peer(1).unwrap();
    assert_eq!(counters.received_frames[Lane::Raft.index()].get(), 1000);
    assert_eq!(counters.received_bytes[Lane::Bulk.index()].get(), 1_000_000);
}

async fn calls_are_answered_under_the_callers_name<W: World>() {
    let (_world, [one, two], _seen) = pair::<W>(quick()).await;
    assert_eq!(call(&one, 2, "who").await.unwrap(), text("1"));
    assert_eq!(call(&two, 1, "who").await.unwrap(), text("2"));
    assert_eq!(call(&one, 2, "").await.unwrap(), Bytes::new());
    let big = Bytes::from(vec![5; one_payload()]);
    assert_eq!(patient(one.call(2, big.clone(), PATIENCE)).await.unwrap(), big);
    // The time left travels as such.
    let left = patient(one.call(2, text("left"), Duration::from_secs(20)))
        .await
        .unwrap();
    let left: u64 = std::str::from_utf8(&left).unwrap().parse().unwrap();
    assert!(0 < left && left <= 20_000_000, "{left}");
    let many = (0..200).map(|number: u32| {
        let one = Arc::clone(&one);
        tokio::spawn(async move {
            let payload = Bytes::from(format!("number {number}"));
            assert_eq!(one.call(2, payload.clone(), PATIENCE).await.unwrap(), payload);
        })
    });
    for task in many.collect::<Vec<_>>() {
        patient(task).await.unwrap();
    }
}

fn one_payload() -> usize {
    Bounds::default().payload_of(Lane::Ceremony)
}

async fn refusals_reach_the_caller<W: World>() {
    let (_world, [one, _two], _seen) = pair::<W>(quick()).await;
    let refused = Refused::Because {
        code: 42,
        detail: "not today".into(),
    };
    assert_eq!(call(&one, 2, "refuse").await, Err(CallError::Refused(refused)));
    assert_eq!(call(&one, 2, "busy").await, Err(CallError::Busy));
    assert_eq!(one.counters().peer(2).unwrap().busy_there.get(), 1);
}

async fn a_call_ends_in_time_and_its_slot_is_free_again<W: World>() {
    let (_world, [one, _two], _seen) = pair::<W>(Bounds { calls: 1, ..quick() }).await;
    for _ in 0..3 {
        let ended = patient(one.call(2, text("hang"), Duration::from_millis(50))).await;
        assert_eq!(ended, Err(CallError::TimedOut));
        // The callee may notice a moment later than the caller; until then it is busy.
        patient(async {
            while call(&one, 2, "echo").await == Err(CallError::Busy) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    assert_eq!(one.counters().peer(2).unwrap().timed_out.get(), 3);
}

async fn a_handler_that_panics_is_no_silence<W: World>() {
    let (_world, [one, _two], _seen) = pair::<W>(quick()).await;
    assert_eq!(call(&one, 2, "panic").await, Err(CallError::Closed));
    // So is an answer that does not fit.
    assert_eq!(call(&one, 2, "huge").await, Err(CallError::Closed));
    assert_eq!(call(&one, 2, "echo").await.unwrap(), text("echo"));
    assert!(one.connected(2));
}

async fn calls_under_way_are_bounded<W: World>() {
    let (_world, [one, _two], seen) = pair::<W>(Bounds { calls: 2, ..quick() }).await;
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let one = Arc::clone(&one);
            tokio::spawn(async move { one.call(2, text("wait"), PATIENCE).await })
        })
        .collect();
    seen[1].call_begins().await;
    seen[1].call_begins().await;
    assert_eq!(call(&one, 2, "echo").await, Err(CallError::Busy));
    assert_eq!(one.counters().peer(2).unwrap().busy_here.get(), 1);
    seen[1].gate.add_permits(2);
    for call in waiting {
        assert_eq!(patient(call).await.unwrap().unwrap(), text("waited"));
    }
}

async fn what_cannot_be_sent_is_said<W: World>() {
    let (_world, [one, _two], _seen) = pair::<W>(quick()).await;
    let large = Bytes::from(vec![0; 5 * 1024 * 1024]);
    assert_eq!(one.send(9, Lane::Raft, text("x")), Err(SendError::UnknownPeer));
    assert_eq!(one.send(1, Lane::Raft, text("x")), Err(SendError::UnknownPeer));
    assert_eq!(one.send(2, Lane::Ceremony, text("x")), Err(SendError::CallsOnly));
    assert_eq!(one.send(2, Lane::Raft, large.clone()), Err(SendError::TooLarge));
    assert_eq!(
        one.send_when_free(2, Lane::Bulk, large.clone(), PATIENCE).await,
        Err(SendError::TooLarge)
    );
    assert_eq!(one.call(2, large, PATIENCE).await, Err(CallError::TooLarge));
    assert_eq!(call(&one, 9, "x").await, Err(CallError::NotConnected));
    assert_eq!(call(&one, 1, "x").await, Err(CallError::NotConnected));
    assert!(!one.connected(9) && one.boot_of(9).is_none());
}

async fn a_peer_that_goes_and_returns<W: World>() {
    let (world, [one, mut two], mut seen) = pair::<W>(quick()).await;
    for boot in 3..6 {
        assert_eq!(one.boot_of(2), Some([boot - 1; 16]));
        let pending = tokio::spawn({
            let one = Arc::clone(&one);
            async move { one.call(2, text("hang"), PATIENCE).await }
        });
        seen[1].call_begins().await;
        patient(two.shutdown()).await;
        assert_eq!(patient(pending).await.unwrap(), Err(CallError::Closed));
        assert_eq!(seen[0].link().await, (2, false));
        assert_eq!(seen[0].gone().await, 2);
        assert!(!one.connected(2));
        assert_eq!(one.boot_of(2), None);
        assert_eq!(call(&one, 2, "echo").await, Err(CallError::NotConnected));
        // The link is down when one of its lanes is; the other ends by itself.
        patient(async {
            while one.send(2, Lane::Raft, text("lost")) != Err(SendError::NotConnected) {
                tokio::task::yield_now().await;
            }
        })
        .await;

        seen[1] = Seen::new();
        two = world.join(2, boot, Arc::clone(&seen[1])).await;
        assert_eq!(seen[0].link().await, (2, true));
        assert_eq!(seen[1].link().await, (1, true));
        one.send(2, Lane::Raft, text("again")).unwrap();
        assert_eq!(seen[1].message().await, (1, Lane::Raft, text("again")));
        assert_eq!(call(&two, 1, "who").await.unwrap(), text("2"));
    }
}

// The guard is the gate before which the other node's reader stands, in a thread that may block.
#[allow(clippy::await_holding_lock)]
async fn fill<W: World>(lane: Lane) {
    let mut bounds = quick();
    bounds.queue_frames[lane.index()] = 8;
    let other = if lane == Lane::Raft {
        Lane::Bulk
    } else {
        Lane::Raft
    };
    let (_world, [one, _two], seen) = pair::<W>(bounds).await;
    // The bulk lane may be up a moment after the link.
    patient(one.send_when_free(2, lane, text("first"), PATIENCE))
        .await
        .unwrap();
    assert_eq!(seen[1].message().await.2, text("first"));
    let mut taken = 0_u32;
    {
        let _stopped = seen[1].stopped[lane.index()].lock();
        // Sockets hold some megabytes; the loop ends when they and the queue are full.
        loop {
            let mut payload = vec![0; 256 * 1024];
            payload[..4].copy_from_slice(&taken.to_be_bytes());
            match one.send(2, lane, Bytes::from(payload)) {
                Ok(()) => taken += 1,
                // Full may only mean that the writer has not come to it; it must stay full to count.
                Err(SendError::Full) => {
                    let wait = Duration::from_millis(200);
                    let mut payload = vec![0; 256 * 1024];
                    payload[..4].copy_from_slice(&taken.to_be_bytes());
                    match one.send_when_free(2, lane, Bytes::from(payload), wait).await {
                        Ok(()) => taken += 1,
                        Err(SendError::TimedOut) => break,
                        Err(error) => panic!("{error}"),
                    }
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert!(taken >= 8);
        assert!(one.counters().peer(2).unwrap().queue_full[lane.index()].get() > 0);
        // The other lanes know nothing of it.
        assert_eq!(call(&one, 2, "echo").await.unwrap(), text("echo"));
        patient(one.send_when_free(2, other, text("other"), PATIENCE))
            .await
            .unwrap();
        assert_eq!(seen[1].message().await, (1, other, text("other")));
        assert!(one.connected(2));
    }
    for number in 0..taken {
        let (_, got, payload) = seen[1].message().await;
        assert_eq!((got, &payload[..4]), (lane, number.to_be_bytes().as_slice()));
    }
}

async fn a_full_raft_queue_says_so_and_delays_nothing_else<W: World>() {
    fill::<W>(Lane::Raft).await;
}

async fn a_full_bulk_queue_says_so_and_delays_nothing_else<W: World>() {
    fill::<W>(Lane::Bulk).await;
}

async fn sending_waits_for_the_peer<W: World>() {
    let world = W::new(2, quick());
    let seen = [Seen::new(), Seen::new()];
    let one = world.join(1, 1, Arc::clone(&seen[0])).await;
    let early = one
        .send_when_free(2, Lane::Bulk, text("early"), Duration::from_millis(20))
        .await;
    assert_eq!(early, Err(SendError::TimedOut));
    let waiting = tokio::spawn({
        let one = Arc::clone(&one);
        async move { one.send_when_free(2, Lane::Bulk, text("chunk"), PATIENCE).await }
    });
    tokio::task::yield_now().await;
    let _two = world.join(2, 2, Arc::clone(&seen[1])).await;
    assert_eq!(patient(waiting).await.unwrap(), Ok(()));
    assert_eq!(seen[1].message().await, (1, Lane::Bulk, text("chunk")));
}

async fn shutdown_ends_calls<W: World>() {
    let (_world, [one, _two], seen) = pair::<W>(quick()).await;
    let pending = tokio::spawn({
        let one = Arc::clone(&one);
        async move { one.call(2, text("hang"), PATIENCE).await }
    });
    seen[1].call_begins().await;
    patient(one.shutdown()).await;
    patient(one.shutdown()).await;
    assert_eq!(patient(pending).await.unwrap(), Err(CallError::Closed));
    assert_eq!(call(&one, 2, "echo").await, Err(CallError::Closed));
    assert_eq!(one.send(2, Lane::Raft, text("x")), Err(SendError::ShutDown));
    let late = one.send_when_free(2, Lane::Bulk, text("x"), PATIENCE).await;
    assert_eq!(late, Err(SendError::ShutDown));
    assert_eq!(seen[0].link().await, (2, false));
    assert_eq!(seen[1].link().await, (1, false));
}

async fn three_nodes_know_each_other<W: World>() {
    let world = W::new(3, quick());
    let seen = [Seen::new(), Seen::new(), Seen::new()];
    let mut nodes = Vec::new();
    for (number, seen) in (1..).zip(&seen) {
        nodes.push(world.join(number, number as u8, Arc::clone(seen)).await);
    }
    for seen in &seen {
        let mut peers = [seen.link().await, seen.link().await];
        peers.sort_unstable();
        assert!(peers.iter().all(|(_, up)| *up) && peers[0].0 != peers[1].0);
    }
    for from in &nodes {
        for to in &nodes {
            if from.node() != to.node() {
                assert_eq!(
                    call(from, to.node(), "who").await.unwrap(),
                    Bytes::from(from.node().to_string())
                );
            }
        }
    }
}

#[tokio::test]
async fn the_double_cuts_heals_and_shows_every_payload() {
    let record = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let recorder: Recorder = Arc::new({
        let record = Arc::clone(&record);
        move |seen| {
            record
                .lock()
                .push((seen.from, seen.to, seen.kind, seen.payload.clone()))
        }
    });
    let hub = Hub::new([1, 2], quick(), Some(recorder)).unwrap();
    let seen = [Seen::new(), Seen::new()];
    let one = hub.join(1, [1; 16], Arc::clone(&seen[0]) as Arc<dyn Handler>);
    let two = hub.join(2, [2; 16], Arc::clone(&seen[1]) as Arc<dyn Handler>);
    one.send(2, Lane::Raft, text("message")).unwrap();
    seen[1].message().await;
    two.call(1, text("who"), PATIENCE).await.unwrap();
    let expected = [
        (1, 2, Kind::Message, text("message")),
        (2, 1, Kind::Call, text("who")),
        (1, 2, Kind::Answer, text("2")),
    ];
    assert_eq!(*record.lock(), expected);
    assert_eq!(seen[0].link().await, (2, true));
    hub.cut(2, 1);
    assert_eq!(seen[0].link().await, (2, false));
    assert!(
        seen[0].gone.lock().await.try_recv().is_err(),
        "cut off is not gone"
    );
    assert_eq!(one.send(2, Lane::Raft, text("x")), Err(SendError::NotConnected));
    hub.heal(1, 2);
    assert_eq!(seen[0].link().await, (2, true));
    one.send(2, Lane::Raft, text("x")).unwrap();
    assert_eq!(seen[1].message().await.2, text("x"));
}
