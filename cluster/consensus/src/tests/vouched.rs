//! A state that came from one node: believed once others have said that it is theirs, and never if it is not.

use super::harness::*;
use crate::frame::Call;
use crate::records::{self, GroupRecord};
use crate::store::{Batch, Reading as _, Store as _};
use crate::*;

/// A node that was cut off until the log that it needs is gone, the leader, and who else there is.
fn lagging(adjust: impl Fn(&mut Settings)) -> (Nodes, NodeId, NodeId, NodeId) {
    let mut nodes = Nodes::with(|settings| {
        settings.truncate_above = 8;
        settings.keep_entries = 2;
        adjust(settings);
    });
    let leader = nodes.elect();
    let away = other(&[leader]);
    nodes.cut.insert(away);
    for round in 0..20 {
        nodes.apply(leader, &format!("key{round}=value{round}"));
    }
    nodes.wires.clear();
    (nodes, away, leader, other(&[leader, away]))
}

fn installed(nodes: &Nodes, node: NodeId) -> u64 {
    nodes.machines[&node].driver.counters().snapshots_installed.get()
}

fn reason(nodes: &Nodes, node: NodeId) -> Option<Reason> {
    let abstain = nodes.freshness(node).may_contribute(G).err();
    abstain.map(|abstain| abstain.reason)
}

/// Puts another value into a node's state behind its back.
fn forge(nodes: &Nodes, node: NodeId, key: &str, value: &str) {
    let disk = &nodes.machines[&node].disk;
    let record: GroupRecord = records::read(&**disk, &keys::group(G)).unwrap().unwrap();
    let full = [&keys::state(G, record.generation), key.as_bytes()].concat();
    assert!(disk.get(&full).unwrap().is_some());
    let mut batch = Batch::default();
    batch.put(full, value.into());
    disk.write(&batch, true).unwrap();
}

/// What a node says of its state in its statements from here on.
fn said(nodes: &Nodes, node: NodeId, since: usize) -> Vec<bool> {
    let calls = nodes.sent[since..].iter().filter(|wire| wire.from == node);
    let states = calls.filter_map(|wire| match wire.call() {
        Some(Call::Statement { states, .. }) => Some(states.is_some()),
        _ => None,
    });
    states.collect()
}

#[test]
fn a_snapshot_counts_once_both_others_have_the_same_state() {
    let (mut nodes, away, leader, third) = lagging(|_| {});
    nodes.cut = [third].into();
    let since = nodes.sent.len();
    nodes.run(11_000);
    assert_eq!(installed(&nodes, away), 1);
    assert_eq!(reason(&nodes, away), Some(Reason::Unvouched));
    assert_eq!(nodes.status(away).unvouched, Some(leader));
    let settling = nodes.freshness(away).settle(G, scope(b'k'));
    assert!(matches!(settling, Err(Behind::Unvouched(G))));
    assert!(said(&nodes, away, since).iter().all(|says| !says));
    // Also after a restart.
    let disk = nodes.machines.remove(&away).unwrap().disk;
    nodes.start(settings(away), disk, Words::default());
    nodes.run(2_000);
    assert_eq!(reason(&nodes, away), Some(Reason::Unvouched));
    // The other one comes back and says the same; asked or not, since they all state again soon.
    nodes.cut.clear();
    nodes.run(6_000);
    assert_eq!(reason(&nodes, away), None);
    assert_eq!(nodes.status(away).unvouched, None);
    assert!(said(&nodes, away, since).contains(&true));
    // And stays so.
    let disk = nodes.machines.remove(&away).unwrap().disk;
    nodes.start(settings(away), disk, Words::default());
    nodes.cut = [leader].into();
    nodes.run(6_000);
    assert_eq!(reason(&nodes, away), None);
}

#[test]
fn a_state_that_only_its_leader_has_is_never_believed() {
    let (mut nodes, away, leader, third) = lagging(|_| {});
    forge(&nodes, leader, "key3", "mallory");
    nodes.cut.clear();
    let since = nodes.sent.len();
    nodes.run(11_000);
    assert_eq!(installed(&nodes, away), 1);
    assert_eq!(nodes.value(away, "key3").as_deref(), Some("mallory"));
    assert!(matches!(
        reason(&nodes, away),
        Some(Reason::Unvouched | Reason::Diverged)
    ));
    for round in 0..80 {
        nodes.apply(leader, &format!("other{round}=later"));
    }
    nodes.run(11_000);
    assert!(nodes.freshness(away).settle(G, scope(b'k')).is_err());
    assert!(said(&nodes, away, since).iter().all(|says| !says));
    assert_eq!(nodes.status(away).unvouched, Some(leader));
    assert_eq!(reason(&nodes, third), None);
}

#[test]
fn a_statement_about_a_later_index_counts_once_that_is_applied() {
    let (mut nodes, away, leader, third) = lagging(|_| {});
    nodes.cut = [third].into();
    nodes.run(6_000);
    assert_eq!(installed(&nodes, away), 1);
    nodes.cut = [away].into();
    nodes.apply(leader, "key3=later");
    nodes.run(6_000);
    let states = |wire: &&Wire| matches!(wire.call(), Some(Call::Statement { .. }));
    let of_third = |wire: &&Wire| (wire.from, wire.to) == (third, away);
    let statement = nodes.sent.iter().rev().filter(of_third).find(states).unwrap();
    let statement = statement.frame.clone();
    nodes.cut = [third].into();
    nodes.receive(away, third, &statement);
    nodes.turn(away);
    assert_eq!(reason(&nodes, away), Some(Reason::Unvouched));
    for _ in 0..400 {
        nodes.run(25);
        if nodes.value(away, "key3").as_deref() == Some("later") {
            break;
        }
    }
    nodes.run(200);
    assert_eq!(reason(&nodes, away), None);
}

#[test]
fn who_is_told_to_believes_its_leader() {
    let (mut nodes, away, _, third) = lagging(|settings| settings.believe_leaders = true);
    nodes.cut = [third].into();
    nodes.run(11_000);
    assert_eq!(installed(&nodes, away), 1);
    assert_eq!(reason(&nodes, away), None);
}

#[test]
fn a_disk_without_a_digest_gets_the_one_of_its_state() {
    let (mut nodes, away, leader, third) = lagging(|_| {});
    let mut batch = Batch::default();
    batch.delete(keys::digest(G));
    let disk = nodes.machines.remove(&third).unwrap().disk;
    disk.write(&batch, true).unwrap();
    nodes.start(settings(third), disk, Words::default());
    nodes.cut.clear();
    nodes.run(11_000);
    assert_eq!((reason(&nodes, away), reason(&nodes, leader)), (None, None));
    assert_eq!(nodes.status(leader).differing_peers, []);
}
