//! Who was removed elects nobody and disturbs nobody, is told so when it comes back, and stays removed.

use super::configuration::*;
use super::harness::*;
use crate::*;

/// Three voters move to 1 and 2, while 3 hears only so much of it.
fn two_left(nodes: &mut Nodes) {
    nodes.elect_of(&[1, 2, 3]);
    // The leader is one of those that stay, so that 3 can be cut off at any moment.
    while leader(nodes) == Some(3) {
        nodes.driver(3).transfer_leaderships();
        nodes.run(500);
    }
    apply(nodes, "before=1");
    nodes.run(200);
}

fn disturbs_nobody(nodes: &mut Nodes, removed: NodeId) {
    let leads = leader(nodes).unwrap();
    let before = nodes.status(leads);
    let alarms = nodes.machines[&leads].driver.counters().dropped_total();
    nodes.run(20_000);
    let after = nodes.status(leads);
    assert_eq!((after.term, after.role), (before.term, Role::Leader));
    assert_ne!(nodes.status(removed).role, Role::Leader);
    assert_eq!(
        nodes.machines[&leads].driver.counters().dropped_total(),
        alarms,
        "{:?}",
        nodes.machines[&leads].driver.counters().dropped()
    );
}

#[test]
fn who_is_connected_learns_that_it_is_removed_and_stays_so() {
    let mut nodes = cluster(&[]);
    two_left(&mut nodes);
    apply(&mut nodes, "!move=1,2,3>1,2");
    apply(&mut nodes, "!complete=yes");
    until_all_have(&mut nodes, &[1, 2, 3], &Configuration::stable(&[1, 2]));
    for _ in 0..2 {
        let status = nodes.status(3);
        assert_eq!(
            (status.standing, status.role),
            (Standing::Removed, Role::Follower)
        );
        assert_eq!(status.leader, None, "it follows nobody");
        let abstains = nodes.freshness(3).may_contribute(G).unwrap_err();
        assert_eq!(abstains.reason, Reason::Removed);
        assert!(matches!(
            nodes.freshness(3).settle(G, scope(b'a')),
            Err(Behind::NoGroup(_))
        ));
        let elections = nodes.machines[&3].driver.counters().elections.get();
        disturbs_nobody(&mut nodes, 3);
        assert_eq!(nodes.machines[&3].driver.counters().elections.get(), elections);
        let disk = kill(&mut nodes, 3);
        nodes.start(mover(3), disk, Words::default());
    }
}

#[test]
fn a_group_that_a_removed_node_led_hears_no_more_of_it() {
    let mut nodes = cluster(&[]);
    two_left(&mut nodes);
    apply(&mut nodes, "!move=1,2,3>1,2");
    until_all_have(&mut nodes, &[1, 2, 3], &of(&[1, 2], &[1, 2, 3], &[]));
    nodes.driver(3).refused(0, 1);
    nodes.driver(3).refused(0, 2);
    apply(&mut nodes, "!complete=yes");
    until_all_have(&mut nodes, &[1, 2, 3], &Configuration::stable(&[1, 2]));
    nodes.run(1_000);
    disturbs_nobody(&mut nodes, 3);
}

#[test]
fn who_was_away_when_it_was_removed_is_told_when_it_asks_for_votes() {
    // From before the move, from the joint configuration, and from the very end.
    for away_at in ["!move=1,2,3>1,2", "!complete=yes"] {
        let mut nodes = cluster(&[]);
        two_left(&mut nodes);
        for entry in ["!move=1,2,3>1,2", "!complete=yes"] {
            if entry == away_at {
                nodes.cut.insert(3);
            }
            apply(&mut nodes, entry);
            nodes.run(500);
        }
        until_all_have(&mut nodes, &[1, 2], &Configuration::stable(&[1, 2]));
        apply(&mut nodes, "secret=1");
        nodes.run(2_000);
        assert_eq!(nodes.status(3).standing, Standing::Voter, "it cannot know");
        let term = nodes.status(leader(&nodes).unwrap()).term;
        nodes.cut.clear();
        until_all_have(&mut nodes, &[3], &Configuration::stable(&[1, 2]));
        let removed = nodes.status(3);
        assert_eq!(
            removed.last_index, removed.configuration_index,
            "and nothing beyond"
        );
        assert_eq!(nodes.value(3, "secret"), None);
        assert_eq!(nodes.status(leader(&nodes).unwrap()).term, term);
        disturbs_nobody(&mut nodes, 3);
    }
}

#[test]
fn who_was_removed_and_has_entries_of_its_own_is_told_too() {
    let mut nodes = cluster(&[]);
    two_left(&mut nodes);
    while leader(&nodes) != Some(3) {
        let leads = leader(&nodes).unwrap();
        nodes.driver(leads).transfer_leaderships();
        nodes.run(500);
    }
    // It leads and writes what nobody gets.
    nodes.cut.insert(3);
    for ticket in 0..3 {
        nodes.propose(3, ticket, &format!("lost={ticket}"));
        nodes.run(25);
    }
    nodes.run(3_000);
    apply(&mut nodes, "!move=1,2,3>1,2");
    apply(&mut nodes, "!complete=yes");
    until_all_have(&mut nodes, &[1, 2], &Configuration::stable(&[1, 2]));
    nodes.cut.clear();
    until_all_have(&mut nodes, &[3], &Configuration::stable(&[1, 2]));
    assert_eq!(nodes.value(3, "lost"), None);
    disturbs_nobody(&mut nodes, 3);
}

#[test]
fn a_removed_node_still_votes_for_those_who_do_not_know_yet() {
    // 1, 2 and 3 know that they are removed, and of those that stay only the leader, which dies: the others are joint
    // still and need votes of both sets.
    let mut nodes = cluster(&[4, 5, 6]);
    nodes.elect_of(&[1, 2, 3]);
    apply(&mut nodes, "!move=1,2,3>4,5,6");
    let everybody = [1, 2, 3, 4, 5, 6];
    until_all_have(&mut nodes, &everybody, &of(&[4, 5, 6], &[1, 2, 3], &[]));
    let leads = leader(&nodes).unwrap();
    nodes.propose(leads, 9, "!complete=yes");
    let is_left = |nodes: &Nodes, node: NodeId| !nodes.status(node).configuration.is_joint();
    // Nobody who stays hears from the leader that the entry is committed.
    for _ in 0..4_000 {
        let leads = leader(&nodes).unwrap_or(leads);
        if (1..=3).all(|node| is_left(&nodes, node)) {
            break;
        }
        if nodes.wires.is_empty() {
            nodes.tick(25);
        }
        for node in everybody {
            nodes.turn(node);
        }
        if let Some(wire) = nodes.wires.pop_front() {
            let tells = wire.from == leads && wire.to > 3 && is_left(&nodes, leads) && wire.raft().is_some();
            if everybody.contains(&wire.to) && !tells {
                nodes.receive(wire.to, wire.from, &wire.frame);
                nodes.turn(wire.to);
            }
        }
    }
    let dead = leader(&nodes).unwrap();
    kill(&mut nodes, dead);
    nodes.wires.clear();
    let rest: Vec<NodeId> = (4..=6).filter(|node| *node != dead).collect();
    assert!(
        rest.iter().all(|node| !is_left(&nodes, *node)),
        "they do not know"
    );
    until_all_have(&mut nodes, &rest, &Configuration::stable(&[4, 5, 6]));
    apply(&mut nodes, "after=1");
}
