//! The order of send, write, sync and apply; what every crash leaves behind.

use super::harness::*;
use crate::records::{self, AppliedRecord};
use crate::store::Change;
use crate::*;
use raft::eraftpb::MessageType;
use std::collections::BTreeSet;
use std::sync::Arc;

#[test]
fn a_leader_sends_before_its_write_and_a_follower_answers_after_its_own() {
    let mut nodes = Nodes::new();
    let leader = nodes.elect();
    let follower = other(&[leader]);
    nodes.propose(leader, 1, "a=1");
    let now = nodes.now();
    let turn = nodes
        .driver(leader)
        .collect(now)
        .unwrap()
        .expect("entries to write");
    nodes.gather(leader);
    assert!(turn.sync, "entries are synced before they count");
    let appends: Vec<Wire> = nodes
        .wires
        .iter()
        .filter(|wire| wire.is(MessageType::MsgAppend))
        .cloned()
        .collect();
    assert_eq!(
        appends.len(),
        2,
        "replication does not wait for the leader's own disk"
    );
    nodes.wires.clear();

    let append = appends.iter().find(|wire| wire.to == follower).unwrap();
    nodes.receive(follower, leader, &append.frame);
    let its_turn = nodes
        .driver(follower)
        .collect(now)
        .unwrap()
        .expect("entries to write");
    nodes.gather(follower);
    assert!(its_turn.sync);
    assert!(
        nodes.wires.is_empty(),
        "nothing is acknowledged before it is durable: {:?}",
        nodes.wires
    );
    nodes.machines[&follower]
        .disk
        .write(&its_turn.batch, true)
        .unwrap();
    nodes.driver(follower).finish(now, its_turn).unwrap();
    nodes.gather(follower);
    assert!(
        nodes
            .wires
            .iter()
            .any(|wire| wire.is(MessageType::MsgAppendResponse))
    );

    // Finish the leader's turn, so that nothing is left open.
    nodes.machines[&leader].disk.write(&turn.batch, true).unwrap();
    nodes.driver(leader).finish(now, turn).unwrap();
    nodes.gather(leader);
    nodes.deliver();
    assert!(nodes.proposed(leader, 1).unwrap().is_ok());
}

#[test]
fn a_vote_leaves_after_it_is_durable() {
    let mut nodes = Nodes::new();
    // No leader yet: tick until somebody asks for votes, and pass the pre-votes on.
    let asked = loop {
        nodes.tick(25);
        for node in 1..=3 {
            nodes.turn(node);
        }
        while let Some(wire) = nodes.wires.pop_front() {
            if wire.is(MessageType::MsgRequestVote) {
                nodes.wires.push_front(wire);
                break;
            }
            nodes.receive(wire.to, wire.from, &wire.frame);
            nodes.turn(wire.to);
        }
        if let Some(wire) = nodes.wires.pop_front() {
            break wire;
        }
    };
    nodes.wires.clear();
    nodes.receive(asked.to, asked.from, &asked.frame);
    let now = nodes.now();
    let turn = nodes
        .driver(asked.to)
        .collect(now)
        .unwrap()
        .expect("a vote to write");
    nodes.gather(asked.to);
    assert!(turn.sync && nodes.wires.is_empty());
    nodes.driver(asked.to).finish(now, turn).unwrap();
    nodes.gather(asked.to);
    assert!(
        nodes
            .wires
            .iter()
            .any(|wire| wire.is(MessageType::MsgRequestVoteResponse))
    );
}

/// Writes of all kinds: entries, elections, snapshots, truncation.
fn eventful() -> Nodes {
    let mut nodes = Nodes::with(|settings| {
        settings.truncate_above = 8;
        settings.keep_entries = 2;
        settings.chunk_bytes = 20;
    });
    let first = nodes.elect();
    for round in 0..6 {
        nodes.apply(first, &format!("k{round}=v"));
    }
    nodes.cut.insert(first);
    let second = nodes.elect();
    for round in 0..12 {
        nodes.apply(second, &format!("m{round}=w"));
        nodes.run(50);
    }
    nodes.cut.clear();
    nodes.run(3_000);
    assert!(nodes.machines[&first].driver.counters().snapshots_installed.get() > 0);
    nodes
}

#[test]
fn every_crash_leaves_a_disk_that_starts() {
    let nodes = eventful();
    for (node, machine) in &nodes.machines {
        let count = machine.disk.batches.lock().len();
        let full = machine.driver.status().remove(0);
        for kept in 2..=count {
            let disk = machine.disk.after(kept);
            let applied: AppliedRecord = records::read(&*disk, &keys::applied(G)).unwrap().unwrap();
            let hard = records::read_hard_state(&*disk, G).unwrap().unwrap();
            assert!(hard.commit >= applied.index, "raft would refuse to start");
            let clock = Arc::new(HandClock::default());
            let driver = Driver::open(
                nodes_settings(*node),
                disk,
                Arc::new(Words::default()),
                Hand::of(*node),
                clock,
                [1; 32],
            );
            let status = driver
                .expect("a crash leaves a disk that starts")
                .status()
                .remove(0);
            if kept == count {
                assert_eq!((status.applied, status.chain), (full.applied, full.chain));
            }
        }
    }
}

fn nodes_settings(node: NodeId) -> Settings {
    settings(node)
}

#[test]
fn a_batch_with_entries_has_the_hard_state_and_is_synced() {
    let nodes = eventful();
    for machine in nodes.machines.values() {
        let mut seen = 0;
        for (batch, sync) in machine.disk.batches.lock().iter() {
            let written: BTreeSet<Vec<u8>> = batch
                .changes
                .iter()
                .filter_map(|change| match change {
                    Change::Put(key, _) => Some(key.clone()),
                    _ => None,
                })
                .collect();
            let prefix = &keys::entry(G, 0)[..5];
            if written.iter().any(|key| key.starts_with(prefix)) {
                seen += 1;
                assert!(*sync && written.contains(&keys::hard_state(G)));
            }
        }
        assert!(seen > 5);
    }
}

#[test]
fn a_failed_write_ends_the_turn_before_anything_is_acknowledged() {
    let mut nodes = Nodes::new();
    let leader = nodes.elect();
    nodes.propose(leader, 1, "a=1");
    let now = nodes.now();
    let turn = nodes.driver(leader).collect(now).unwrap();
    assert!(turn.is_some());
    // The caller drops the turn and the process ends: no reply was queued.
    nodes.gather(leader);
    assert!(nodes.proposed(leader, 1).is_none());
}

#[test]
fn the_log_is_truncated_below_a_synced_applied_index_only() {
    let mut nodes = Nodes::with(|settings| {
        settings.truncate_above = 8;
        settings.keep_entries = 0;
    });
    let leader = nodes.elect();
    for round in 0..40 {
        nodes.apply(leader, &format!("k{round}=v"));
        for machine in nodes.machines.values() {
            // What a crash may leave: everything up to the last synced batch.
            let synced = machine
                .disk
                .batches
                .lock()
                .iter()
                .rposition(|(_, sync)| *sync)
                .unwrap();
            let durable = machine.disk.after(synced + 1);
            let applied: AppliedRecord = records::read(&*durable, &keys::applied(G)).unwrap().unwrap();
            let record: records::GroupRecord = records::read(&*machine.disk.snapshot(), &keys::group(G))
                .unwrap()
                .unwrap();
            assert!(record.truncated_index <= applied.index);
        }
    }
    let record: records::GroupRecord =
        records::read(&*nodes.machines[&leader].disk.snapshot(), &keys::group(G))
            .unwrap()
            .unwrap();
    assert!(record.truncated_index > 20, "it is truncated at all");
}

#[test]
fn an_unknown_entry_stops_apply_and_is_not_skipped() {
    let mut nodes = Nodes::new();
    let leader = nodes.elect();
    nodes.propose(leader, 1, "?new");
    nodes.propose(leader, 2, "a=after");
    nodes.run(1_000);
    for node in 1..=3 {
        let status = nodes.status(node);
        assert_eq!(status.halted.as_deref(), Some("unknown version"));
        assert_eq!(nodes.value(node, "a"), None, "nothing after it is applied");
        assert!(status.committed > status.applied);
        assert_eq!(
            nodes.freshness(node).may_contribute(G).unwrap_err().reason,
            Reason::Halted
        );
        // A decision waits for it for ever rather than go on without it.
        assert!(!nodes.freshness(node).settle(G, scope(b'z')).unwrap().is_over());
    }
    // A build that knows it goes on where the others stopped.
    let disk = nodes.machines.remove(&1).unwrap().disk;
    nodes.start(settings(1), disk, Words { knows: true, salt: 0 });
    nodes.run(3_000);
    assert_eq!(nodes.value(1, "a").as_deref(), Some("after"));
    assert!(nodes.value(1, "last").unwrap().contains("?new"));
}

#[test]
fn election_timeouts_follow_the_seed() {
    let trace = || {
        let mut nodes = Nodes::new();
        let mut roles = Vec::new();
        for round in 0..200 {
            // An election every second.
            nodes.cut = if round % 40 < 20 {
                BTreeSet::new()
            } else {
                BTreeSet::from([1 + round / 40 % 3])
            };
            nodes.run(25);
            roles.extend((1..=3).map(|node| (nodes.status(node).role, nodes.status(node).term)));
        }
        (
            roles,
            nodes
                .sent
                .iter()
                .map(|wire| wire.frame.clone())
                .collect::<Vec<_>>(),
        )
    };
    assert!(trace() == trace(), "the same seeds must give the same frames");
}

#[test]
fn a_node_whose_leader_is_gone_campaigns_within_150_ms() {
    let mut nodes = Nodes::new();
    let leader = nodes.elect();
    nodes.machines.remove(&leader);
    nodes.cut.insert(leader);
    let now = nodes.now();
    for node in nodes.machines.keys().copied().collect::<Vec<_>>() {
        nodes.driver(node).link(now, leader, false);
        nodes.driver(node).refused(now, leader);
    }
    nodes.run(200);
    let leads = |node: &NodeId| nodes.status(*node).role == Role::Leader;
    assert!(
        nodes.machines.keys().any(leads),
        "the election did not wait for a timeout of 500 ms"
    );
}

#[test]
fn leadership_is_handed_over_before_a_stop() {
    let mut nodes = Nodes::new();
    let leader = nodes.elect();
    assert_eq!(nodes.driver(leader).transfer_leaderships(), 1);
    nodes.deliver();
    assert_eq!(nodes.driver(leader).transfer_leaderships(), 0);
    assert!((1..=3).any(|node| node != leader && nodes.status(node).role == Role::Leader));
}

#[test]
fn an_entry_that_writes_what_no_snapshot_could_carry_stops_the_group() {
    let mut nodes = Nodes::new();
    let leader = nodes.elect();
    nodes.propose(leader, 1, "big");
    nodes.run(500);
    for node in 1..=3 {
        assert!(nodes.status(node).halted.unwrap().contains("longer value"));
    }
}
