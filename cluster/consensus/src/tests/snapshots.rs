//! Snapshots: data first, installed in one step, never one that an operator did not allow.

use super::configuration::deliver_one;
use super::harness::*;
use crate::frame::Call;
use crate::records::{self, GroupRecord};
use crate::snapshots::hash_pairs;
use crate::store::Pair;
use crate::*;
use raft::eraftpb::MessageType;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;

fn small() -> Nodes {
    Nodes::with(|settings| {
        settings.truncate_above = 8;
        settings.keep_entries = 2;
        settings.chunk_bytes = 30;
    })
}

/// A node that was away while the log it needs was truncated.
fn lagging(nodes: &mut Nodes) -> (NodeId, NodeId) {
    let leader = nodes.elect();
    let away = other(&[leader]);
    nodes.cut.insert(away);
    for round in 0..20 {
        nodes.apply(leader, &format!("key{round}=value{round}"));
    }
    nodes.wires.clear();
    (leader, away)
}

fn installed(nodes: &Nodes, node: NodeId) -> u64 {
    nodes.machines[&node].driver.counters().snapshots_installed.get()
}

#[test]
fn who_was_away_too_long_gets_a_snapshot_and_the_same_state() {
    let mut nodes = small();
    let (leader, away) = lagging(&mut nodes);
    nodes.apply(leader, "key3=changed");
    nodes.cut.clear();
    nodes.run(3_000);
    assert_eq!(installed(&nodes, away), 1);
    let chunks = nodes
        .sent
        .iter()
        .filter(|wire| matches!(wire.call(), Some(Call::SnapshotChunk { .. })));
    assert!(chunks.count() > 5, "in bounded chunks");
    assert_eq!(nodes.value(away, "key3").as_deref(), Some("changed"));
    nodes.apply(leader, "after=1");
    nodes.run(300);
    assert_eq!(nodes.status(away).chain, nodes.status(leader).chain);
    assert_eq!(nodes.machines[&leader].driver.counters().snapshots_sent.get(), 1);
    // The generation from before is gone, and only the named one is there.
    let disk = &nodes.machines[&away].disk;
    let record: GroupRecord = records::read(&**disk, &keys::group(G)).unwrap().unwrap();
    let states = keys::states(G);
    let all = disk.scan(&states, &keys::after_prefix(&states), 9_999).unwrap();
    assert!(
        all.iter()
            .all(|(key, _)| key.starts_with(&keys::state(G, record.generation)))
    );
    // And it starts again from there.
    let disk = disk.clone();
    nodes.machines.remove(&away);
    nodes.start(settings(away), disk, Words::default());
    assert_eq!(nodes.value(away, "key3").as_deref(), Some("changed"));
}

#[test]
fn a_crash_during_an_installation_leaves_the_old_state_or_the_new_one() {
    let mut nodes = small();
    let (_, away) = lagging(&mut nodes);
    let before = nodes.machines[&away].disk.batches.lock().len();
    let (old, old_applied) = (nodes.status(away).chain, nodes.status(away).applied);
    nodes.cut.clear();
    nodes.run(3_000);
    let machine = &nodes.machines[&away];
    let count = machine.disk.batches.lock().len();
    let mut switched = false;
    for kept in before..=count {
        let disk = machine.disk.after(kept);
        let clock = Arc::new(HandClock::default());
        let driver = Driver::open(
            settings(away),
            disk.clone(),
            Arc::new(Words::default()),
            Hand::of(away),
            clock,
            [1; 32],
        )
        .unwrap();
        let status = driver.status().remove(0);
        let keys = driver
            .freshness()
            .view(G)
            .unwrap()
            .scan(b"key", None, 99)
            .unwrap()
            .len();
        if status.applied == old_applied {
            assert!(!switched && status.chain == old && keys == 0);
        } else {
            switched = true;
            assert_eq!(keys, 20, "nothing between");
        }
        // Whatever a half transfer left is removed at the start.
        let record: GroupRecord = records::read(&*disk, &keys::group(G)).unwrap().unwrap();
        let states = keys::states(G);
        let all = disk.scan(&states, &keys::after_prefix(&states), 9_999).unwrap();
        assert!(
            all.iter()
                .all(|(key, _)| key.starts_with(&keys::state(G, record.generation)))
        );
    }
    assert!(switched);
}

#[test]
fn a_receiver_that_died_in_the_middle_is_served_again_soon() {
    let mut nodes = small();
    let (_, away) = lagging(&mut nodes);
    nodes.cut.clear();
    let chunks = |nodes: &Nodes| {
        let sent = nodes.sent.iter();
        sent.filter(|wire| matches!(wire.call(), Some(Call::SnapshotChunk { .. })))
            .count()
    };
    while chunks(&nodes) < 3 {
        deliver_one(&mut nodes);
    }
    let disk = nodes.machines.remove(&away).unwrap().disk;
    nodes.wires.clear();
    nodes.start(settings(away), disk, Words::default());
    // What it had staged went with its process, and it does not ask for what it knows nothing of.
    nodes.run(6_000);
    assert_eq!(installed(&nodes, away), 1);
    assert_eq!(nodes.value(away, "key3").as_deref(), Some("value3"));
}

#[test]
fn a_snapshot_that_is_being_installed_is_pending_for_everybody() {
    let mut nodes = Nodes::with(|settings| {
        settings.truncate_above = 8;
        settings.keep_entries = 2;
        settings.believe_leaders = true;
    });
    let (leader, away) = lagging(&mut nodes);
    nodes.cut.clear();
    let freshness = nodes.freshness(away);
    // Deliver until the message of raft is on its way.
    let message = 'found: loop {
        nodes.tick(25);
        for node in 1..=3 {
            nodes.turn(node);
        }
        while let Some(wire) = nodes.wires.pop_front() {
            if wire.is(MessageType::MsgSnapshot) {
                break 'found wire;
            }
            nodes.receive(wire.to, wire.from, &wire.frame);
            nodes.turn(wire.to);
        }
    };
    assert_eq!((message.from, message.to), (leader, away));
    assert!(freshness.settle(G, scope(b'z')).unwrap().is_over());
    nodes.receive(away, leader, &message.frame);
    let now = nodes.now();
    let turn = nodes.driver(away).collect(now).unwrap().unwrap();
    assert!(turn.sync);
    let mut waiting = freshness.settle(G, scope(b'z')).unwrap();
    assert!(!waiting.is_over(), "it may restrict anything");
    nodes.machines[&away].disk.write(&turn.batch, true).unwrap();
    nodes.driver(away).finish(now, turn).unwrap();
    assert!(waiting.is_over());
}

#[test]
fn a_snapshot_with_a_configuration_of_its_own_or_without_data_is_dropped() {
    let mut nodes = small();
    let (leader, away) = lagging(&mut nodes);
    nodes.cut.clear();
    let message = 'found: loop {
        nodes.tick(25);
        for node in 1..=3 {
            nodes.turn(node);
        }
        while let Some(wire) = nodes.wires.pop_front() {
            if wire.is(MessageType::MsgSnapshot) {
                break 'found wire;
            }
            nodes.receive(wire.to, wire.from, &wire.frame);
            nodes.turn(wire.to);
        }
    };
    let mut own = message.raft().unwrap();
    own.mut_snapshot()
        .mut_metadata()
        .mut_conf_state()
        .set_voters(vec![away, 9]);
    nodes.receive(away, leader, &raft_frame(&own));
    let mut other_data = message.raft().unwrap();
    other_data.mut_snapshot().data = vec![1, 2, 3].into();
    nodes.receive(away, leader, &raft_frame(&other_data));
    let mut other_index = message.raft().unwrap();
    other_index.mut_snapshot().mut_metadata().index += 1;
    nodes.receive(away, leader, &raft_frame(&other_index));
    assert_eq!(nodes.dropped(away, Violation::SnapshotData), 3);
    nodes.turn(away);
    assert_eq!(installed(&nodes, away), 0);
    // The real one still counts.
    nodes.receive(away, leader, &message.frame);
    nodes.deliver();
    assert_eq!(installed(&nodes, away), 1);
}

#[test]
fn chunks_that_are_not_what_the_hash_says_are_thrown_away() {
    bent_chunks_are_thrown_away(small(), |pairs, _| pairs[0].1.push(b'!'));
}

#[test]
fn a_key_that_comes_twice_is_thrown_away() {
    // 65,536 of the same pair are none for the digest.
    let nodes = Nodes::with(|settings| {
        settings.truncate_above = 8;
        settings.keep_entries = 2;
    });
    bent_chunks_are_thrown_away(nodes, |pairs, hash| {
        pairs.insert(0, pairs[0].clone());
        let mut hasher = Sha256::new();
        hash_pairs(&mut hasher, pairs);
        *hash = Some(hasher.finalize().into());
    });
}

fn bent_chunks_are_thrown_away(mut nodes: Nodes, bend: impl Fn(&mut Vec<Pair>, &mut Option<[u8; 32]>)) {
    let (_, away) = lagging(&mut nodes);
    nodes.cut.clear();
    let mut bent = 0;
    for _ in 0..20 {
        nodes.tick(25);
        for node in 1..=3 {
            nodes.turn(node);
        }
        while let Some(mut wire) = nodes.wires.pop_front() {
            if let Some(Call::SnapshotChunk {
                id,
                sequence,
                mut pairs,
                mut hash,
            }) = wire.call()
                && bent == 0
            {
                bent += 1;
                bend(&mut pairs, &mut hash);
                wire.frame = call_frame(&Call::SnapshotChunk {
                    id,
                    sequence,
                    pairs,
                    hash,
                });
            }
            nodes.receive(wire.to, wire.from, &wire.frame);
            nodes.turn(wire.to);
        }
    }
    assert_eq!(nodes.dropped(away, Violation::SnapshotData), 1);
    assert_eq!(installed(&nodes, away), 0);
    let staged = |wire: &Wire| matches!(wire.call(), Some(Call::SnapshotStaged { .. }));
    assert!(!nodes.sent.iter().any(staged));
    // The sender gives up in time and a new attempt succeeds.
    nodes.run(13_000);
    assert_eq!(installed(&nodes, away), 1);
}

#[test]
fn a_lost_snapshot_message_is_reported_and_tried_again() {
    let mut nodes = small();
    let (leader, away) = lagging(&mut nodes);
    nodes.cut.clear();
    let mut lost = 0;
    for _ in 0..400 {
        nodes.tick(25);
        for node in 1..=3 {
            nodes.turn(node);
        }
        while let Some(wire) = nodes.wires.pop_front() {
            if wire.is(MessageType::MsgSnapshot) && lost == 0 {
                lost += 1;
                continue;
            }
            nodes.receive(wire.to, wire.from, &wire.frame);
            nodes.turn(wire.to);
        }
    }
    assert_eq!((lost, installed(&nodes, away)), (1, 1));
    nodes.apply(leader, "after=1");
    nodes.run(200);
    assert_eq!(nodes.value(away, "after").as_deref(), Some("1"));
}

#[test]
fn reading_a_snapshot_is_not_done_in_the_loop() {
    let mut nodes = small();
    let (leader, _) = lagging(&mut nodes);
    nodes.cut.clear();
    // Drive the leader by hand: what it hands out is a job, and nothing is sent before it was run.
    let mut jobs = 0;
    for _ in 0..40 {
        nodes.tick(25);
        let now = nodes.now();
        while let Some(turn) = nodes.driver(leader).collect(now).unwrap() {
            nodes.machines[&leader]
                .disk
                .write(&turn.batch, turn.sync)
                .unwrap();
            nodes.driver(leader).finish(now, turn).unwrap();
        }
        let output = nodes.driver(leader).take_output();
        jobs += output.reads.len();
        assert!(output.bulk.is_empty());
        for (to, frame) in output.messages {
            nodes.wires.push_back(Wire {
                from: leader,
                to,
                frame,
            });
        }
        for node in (1..=3).filter(|node| *node != leader) {
            nodes.turn(node);
        }
        while let Some(wire) = nodes.wires.pop_front() {
            nodes.receive(wire.to, wire.from, &wire.frame);
            if wire.to != leader {
                nodes.turn(wire.to);
            }
        }
    }
    assert_eq!(jobs, 1, "one at a time, and it is still out");
}
