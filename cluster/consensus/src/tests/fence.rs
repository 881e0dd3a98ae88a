//! Who does not contribute: the fence of consensus.md 1.7, and diverged replicas.

use super::harness::*;
use crate::frame::Call;
use crate::*;

fn reason(nodes: &Nodes, node: NodeId) -> Option<Reason> {
    nodes
        .freshness(node)
        .may_contribute(G)
        .err()
        .map(|abstain| abstain.reason)
}

#[test]
fn a_starting_node_abstains_until_a_leader_confirms_it() {
    let mut nodes = Nodes::new();
    assert_eq!(reason(&nodes, 1), Some(Reason::Starting));
    nodes.elect();
    for node in 1..=3 {
        assert_eq!(reason(&nodes, node), None);
    }
    assert_eq!(
        nodes.freshness(1).may_contribute(GroupId(9)).unwrap_err().reason,
        Reason::NoGroup
    );
}

#[test]
fn who_has_not_heard_from_a_leader_for_ten_seconds_abstains() {
    let mut nodes = Nodes::new();
    let leader = nodes.elect();
    let follower = other(&[leader]);
    nodes.cut.insert(follower);
    nodes.run(9_800);
    assert_eq!(reason(&nodes, follower), None, "far above an election");
    nodes.run(400);
    assert!(matches!(reason(&nodes, follower), Some(Reason::Unheard(_))));
    // Who leads is heard by itself, as long as a majority hears it.
    assert_eq!(reason(&nodes, leader), None);
    nodes.cut.clear();
    nodes.run(2_000);
    assert_eq!(reason(&nodes, follower), None);
}

#[test]
fn a_leader_that_was_cut_off_abstains_too() {
    let mut nodes = Nodes::new();
    let leader = nodes.elect();
    nodes.cut.extend([1, 2, 3]);
    nodes.run(11_500);
    assert!(matches!(reason(&nodes, leader), Some(Reason::Unheard(_))));
}

#[test]
fn who_is_behind_a_peers_statement_abstains_until_it_caught_up() {
    let mut nodes = Nodes::new();
    let leader = nodes.elect();
    let follower = other(&[leader]);
    let third = other(&[leader, follower]);
    nodes.cut.insert(follower);
    let index = nodes.apply(leader, "a=1").index;
    nodes.run(200);
    // A corrupt leader keeps the entry from the follower; an honest peer states that it has it.
    let now = nodes.now();
    nodes.driver(third).link(now, follower, true);
    nodes.gather(third);
    let statement = nodes.wires.pop_back().unwrap();
    assert!(matches!(statement.call(), Some(Call::Statement { restricting, .. }) if restricting == index));
    nodes.receive(follower, third, &statement.frame);
    assert_eq!(reason(&nodes, follower), None, "two seconds of grace");
    nodes.run(2_100);
    assert_eq!(reason(&nodes, follower), Some(Reason::BehindPeer(third)));
    // The peer is asked, shows the entry, and the follower goes on abstaining.
    let ask = Call::Show { index };
    assert!(
        nodes
            .sent
            .iter()
            .any(|wire| wire.to == third && wire.call() == Some(ask.clone()))
    );
    nodes.receive(third, follower, &call_frame(&ask));
    nodes.gather(third);
    let shown = nodes.sent.last().unwrap().clone();
    assert_eq!(
        shown.call(),
        Some(Call::Shown {
            asked: index,
            entry: Some((index, b"a=1".to_vec()))
        })
    );
    nodes.receive(follower, third, &shown.frame);
    assert_eq!(reason(&nodes, follower), Some(Reason::BehindPeer(third)));
    nodes.cut.clear();
    nodes.run(1_500);
    assert_eq!(reason(&nodes, follower), None);
}

#[test]
fn a_statement_without_its_entry_is_a_lie_and_fences_nobody() {
    // The real peer's own statements would take the lie back.
    let mut nodes = Nodes::with(|settings| settings.statement_ms = 60_000);
    let leader = nodes.elect();
    let (one, two) = (other(&[leader]), other(&[leader, other(&[leader])]));
    for entry in [
        None,
        Some((5_000, b"lie".to_vec())),
        Some((4_999, b"a=1".to_vec())),
    ] {
        let statement = Call::Statement {
            restricting: 5_000,
            states: None,
        };
        nodes.receive(one, two, &call_frame(&statement));
        nodes.run(1_900);
        nodes.tick(200);
        nodes.turn(one);
        assert_eq!(reason(&nodes, one), Some(Reason::BehindPeer(two)));
        nodes.wires.clear();
        nodes.receive(one, two, &call_frame(&Call::Shown { asked: 5_000, entry }));
        assert_eq!(reason(&nodes, one), None);
    }
    assert_eq!(nodes.machines[&one].driver.counters().lies.get(), 3);
    // What was not asked is not taken.
    nodes.receive(
        one,
        leader,
        &call_frame(&Call::Shown {
            asked: 5_000,
            entry: None,
        }),
    );
    assert_eq!(nodes.dropped(one, Violation::Call), 1);
}

#[test]
fn one_that_differs_from_a_majority_stops_and_one_liar_stops_nobody() {
    let mut nodes = Nodes::new();
    // Node 3 applies the same entries otherwise.
    let disk = nodes.machines.remove(&3).unwrap().disk;
    nodes.start(
        settings(3),
        disk,
        Words {
            knows: false,
            salt: 1,
        },
    );
    let leader = nodes.elect();
    for _ in 0..70 {
        nodes.apply(leader, "+x");
    }
    nodes.run(11_000);
    assert_eq!(reason(&nodes, 3), Some(Reason::Diverged));
    assert_eq!(reason(&nodes, 1), None);
    assert_eq!(reason(&nodes, 2), None);
    assert_eq!(nodes.status(1).differing_peers, [3]);
}

#[test]
fn a_restricting_entry_can_be_shown_after_truncation_and_restart() {
    let mut nodes = Nodes::with(|settings| {
        settings.truncate_above = 8;
        settings.keep_entries = 0;
    });
    let leader = nodes.elect();
    let index = nodes.apply(leader, "a=1").index;
    for _ in 0..30 {
        nodes.apply(leader, "+x");
    }
    let disk = nodes.machines.remove(&leader).unwrap().disk;
    nodes.start(settings(leader), disk, Words::default());
    let peer = other(&[leader]);
    let now = nodes.now();
    nodes.driver(leader).link(now, peer, true);
    nodes.receive(leader, peer, &call_frame(&Call::Show { index }));
    nodes.gather(leader);
    let calls: Vec<Call> = nodes.wires.iter().filter_map(Wire::call).collect();
    assert!(
        calls
            .iter()
            .any(|call| matches!(call, Call::Statement { restricting, .. } if *restricting == index))
    );
    assert!(calls.contains(&Call::Shown {
        asked: index,
        entry: Some((index, b"a=1".to_vec()))
    }));
}
