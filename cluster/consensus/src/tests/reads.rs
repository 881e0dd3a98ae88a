//! ReadIndex: asked again, never with the same context, shared by those who wait.

use super::harness::*;
use crate::frame::{Call, CallId};
use crate::*;
use std::collections::BTreeSet;

fn asked(nodes: &Nodes) -> Vec<CallId> {
    let ids = nodes.sent.iter().filter_map(|wire| match wire.call() {
        Some(Call::ReadIndex { id }) => Some(id),
        _ => None,
    });
    ids.collect()
}

#[test]
fn a_read_sees_everything_acknowledged_before_it_on_every_node() {
    let mut nodes = Nodes::new();
    let leader = nodes.elect();
    for node in 1..=3 {
        // The write is acknowledged at the leader; the reader may not have applied it yet.
        nodes.propose(leader, 1, &format!("a={node}"));
        let applied = loop {
            nodes.turn(leader);
            if let Some(result) = nodes.proposed(leader, 1) {
                break result.unwrap();
            }
            let wire = nodes.wires.pop_front().unwrap();
            nodes.receive(wire.to, wire.from, &wire.frame);
            nodes.turn(wire.to);
        };
        let now = nodes.now();
        nodes.driver(node).read_index(now, 5, G, now + 1_000);
        nodes.deliver();
        let index = nodes.read(node, 5).unwrap().unwrap();
        assert!(index >= applied.index);
        assert_eq!(nodes.value(node, "a"), Some(node.to_string()));
    }
}

#[test]
fn a_silent_read_is_asked_again_with_a_new_context() {
    let mut nodes = Nodes::new();
    let leader = nodes.elect();
    let follower = other(&[leader]);
    let now = nodes.now();
    let before = asked(&nodes).len();
    nodes.driver(follower).read_index(now, 1, G, now + 10_000);
    nodes.turn(follower);
    // Lost, as raft loses it where a leader has committed nothing in its term.
    nodes.wires.clear();
    nodes.run(150);
    let ids = asked(&nodes);
    assert!(ids.len() >= before + 2);
    assert_eq!(
        ids.iter().collect::<BTreeSet<_>>().len(),
        ids.len(),
        "a context is never used twice"
    );
    assert!(nodes.read(follower, 1).unwrap().is_ok());
}

#[test]
fn contexts_differ_between_nodes_and_lives() {
    let mut nodes = Nodes::new();
    nodes.elect();
    let boots = |nodes: &Nodes| {
        asked(nodes)
            .iter()
            .map(|id| (id.node, id.boot))
            .collect::<BTreeSet<_>>()
    };
    assert!(boots(&nodes).len() >= 2);
    assert_eq!(
        boots(&nodes)
            .iter()
            .map(|(_, boot)| boot)
            .collect::<BTreeSet<_>>()
            .len(),
        boots(&nodes).len()
    );
}

#[test]
fn callers_share_a_round_and_later_ones_join_the_next() {
    let mut nodes = Nodes::new();
    let leader = nodes.elect();
    let follower = other(&[leader]);
    let before = asked(&nodes).len();
    let now = nodes.now();
    for ticket in 0..50 {
        nodes.driver(follower).read_index(now, ticket, G, now + 1_000);
    }
    nodes.deliver();
    assert_eq!(
        asked(&nodes).len(),
        before + 2,
        "the first alone, all later ones together"
    );
    for ticket in 0..50 {
        assert!(nodes.read(follower, ticket).unwrap().is_ok());
    }
}

#[test]
fn a_leader_without_a_majority_confirms_nothing() {
    let mut nodes = Nodes::new();
    let leader = nodes.elect();
    nodes.cut.extend([1, 2, 3]);
    let now = nodes.now();
    nodes.driver(leader).read_index(now, 1, G, now + 3_000);
    nodes.run(3_100);
    assert_eq!(nodes.read(leader, 1).unwrap(), Err(NoLeader(G)));
}

#[test]
fn an_answer_that_nobody_asked_for_changes_nothing() {
    let mut nodes = Nodes::new();
    let leader = nodes.elect();
    let follower = other(&[leader]);
    let third = other(&[leader, follower]);
    let now = nodes.now();
    nodes.driver(follower).read_index(now, 1, G, now + 5_000);
    nodes.turn(follower);
    let id = *asked(&nodes).last().unwrap();
    // Not the leader, and another life's context.
    nodes.receive(follower, third, &call_frame(&Call::ReadIndexed { id, index: 0 }));
    let stale = CallId {
        boot: id.boot ^ 1,
        ..id
    };
    nodes.receive(
        follower,
        leader,
        &call_frame(&Call::ReadIndexed { id: stale, index: 0 }),
    );
    let later = CallId {
        counter: id.counter + 7,
        ..id
    };
    nodes.receive(
        follower,
        leader,
        &call_frame(&Call::ReadIndexed { id: later, index: 0 }),
    );
    nodes.turn(follower);
    assert_eq!(nodes.read(follower, 1), None);
    // Under another's name.
    nodes.receive(leader, third, &call_frame(&Call::ReadIndex { id }));
    assert_eq!(nodes.dropped(leader, Violation::Call), 1);
    nodes.deliver();
    assert!(nodes.read(follower, 1).unwrap().is_ok());
}
