//! Moves from one set of voters to another: every step in its order, whoever dies, and nothing lost.

use super::harness::*;
use crate::*;
use std::sync::Arc;

/// Everybody whom an operator of these tests knows.
pub(super) fn mover(node: NodeId) -> Settings {
    let mut settings = settings(node);
    settings.peers = (1..=9).collect();
    settings
}

/// Nodes 1, 2 and 3, and who joins.
pub(super) fn cluster(joiners: &[NodeId]) -> Nodes {
    let mut nodes = Nodes::with(|settings| settings.peers = (1..=9).collect());
    for node in joiners {
        join(&mut nodes, *node);
    }
    nodes
}

pub(super) fn join(nodes: &mut Nodes, node: NodeId) {
    let disk = Arc::new(Memory::default());
    Driver::prepare_joining(&*disk, &mover(node)).unwrap();
    nodes.start(mover(node), disk, Words::default());
}

/// Ends a node at once; its disk is what it has written.
pub(super) fn kill(nodes: &mut Nodes, node: NodeId) -> Arc<Memory> {
    nodes.machines.remove(&node).unwrap().disk
}

pub(super) fn of(voters: &[NodeId], outgoing: &[NodeId], learners: &[NodeId]) -> Configuration {
    Configuration {
        voters: voters.to_vec(),
        outgoing: outgoing.to_vec(),
        learners: learners.to_vec(),
    }
}

/// The leader of the highest term, among those that are running and not cut off.
pub(super) fn leader(nodes: &Nodes) -> Option<NodeId> {
    let running = nodes.machines.keys().filter(|node| !nodes.cut.contains(node));
    let leads = running.filter(|node| nodes.status(**node).role == Role::Leader);
    leads.max_by_key(|node| nodes.status(**node).term).copied()
}

/// The smallest step: one message, or a tick if none is on its way.
pub(super) fn deliver_one(nodes: &mut Nodes) {
    if nodes.wires.is_empty() {
        nodes.tick(25);
    }
    for node in nodes.machines.keys().copied().collect::<Vec<_>>() {
        nodes.turn(node);
    }
    if let Some(wire) = nodes.wires.pop_front()
        && nodes.machines.contains_key(&wire.to)
    {
        nodes.receive(wire.to, wire.from, &wire.frame);
        nodes.turn(wire.to);
    }
}

/// Runs until this holds.
pub(super) fn until(nodes: &mut Nodes, what: &str, holds: impl Fn(&Nodes) -> bool) {
    for _ in 0..1_200 {
        if holds(nodes) {
            return;
        }
        nodes.run(25);
    }
    for node in nodes.machines.keys() {
        let mut status = nodes.status(*node);
        status.chain = [0; 32];
        println!("{node}: {status:?}");
    }
    panic!("not in thirty seconds: {what}");
}

pub(super) fn until_all_have(nodes: &mut Nodes, those: &[NodeId], configuration: &Configuration) {
    until(nodes, &format!("{those:?} have {configuration:?}"), |nodes| {
        those
            .iter()
            .all(|node| nodes.status(*node).configuration == *configuration)
    });
}

/// Runs until there is a leader, and has it apply this.
pub(super) fn apply(nodes: &mut Nodes, entry: &str) {
    until(nodes, "a leader", |nodes| leader(nodes).is_some());
    let leader = leader(nodes).unwrap();
    nodes.apply(leader, entry);
}

/// A move from 1, 2, 3 to those, from its beginning to its end; everything written before and during it is there after.
fn moves_to(to: &[NodeId]) -> Nodes {
    let joiners: Vec<NodeId> = to.iter().copied().filter(|node| *node > 3).collect();
    let mut nodes = cluster(&joiners);
    nodes.elect_of(&[1, 2, 3]);
    apply(&mut nodes, "before=1");
    let list: Vec<String> = to.iter().map(ToString::to_string).collect();
    apply(&mut nodes, &format!("!move=1,2,3>{}", list.join(",")));
    let everybody: Vec<NodeId> = nodes.machines.keys().copied().collect();
    until_all_have(&mut nodes, &everybody, &of(to, &[1, 2, 3], &[]));
    apply(&mut nodes, "joint=1");
    nodes.run(1_000);
    let leader = leader(&nodes).unwrap();
    assert!(
        nodes.status(leader).configuration.is_joint(),
        "not before it is complete"
    );
    apply(&mut nodes, "!complete=yes");
    until_all_have(&mut nodes, &everybody, &Configuration::stable(to));
    apply(&mut nodes, "after=1");
    nodes.run(500);
    let chain = nodes.status(to[0]).chain;
    for node in to {
        for key in ["before", "joint", "after"] {
            assert_eq!(nodes.value(*node, key).as_deref(), Some("1"), "{key} on {node}");
        }
        assert_eq!(nodes.status(*node).chain, chain);
        assert_eq!(nodes.status(*node).standing, Standing::Voter);
        nodes.freshness(*node).may_contribute(G).unwrap();
        assert_eq!(refused(&nodes, *node), 0);
    }
    nodes
}

pub(super) fn refused(nodes: &Nodes, node: NodeId) -> u64 {
    let counters = nodes.machines[&node].driver.counters();
    counters.configurations_refused.get() + counters.dropped_total()
}

impl Nodes {
    /// Runs until one of those leads and all of them follow.
    pub(super) fn elect_of(&mut self, those: &[NodeId]) -> NodeId {
        until(self, "a leader that all follow", |nodes| {
            let leader = leader(nodes);
            leader.is_some() && those.iter().all(|node| nodes.status(*node).leader == leader)
        });
        self.run(200);
        leader(self).unwrap()
    }
}

#[test]
fn three_become_five() {
    moves_to(&[1, 2, 3, 4, 5]);
}

#[test]
fn three_become_three_others() {
    let nodes = moves_to(&[4, 5, 6]);
    for node in 1..=3 {
        assert_eq!(nodes.status(node).standing, Standing::Removed);
    }
}

#[test]
fn one_is_replaced_by_another() {
    moves_to(&[2, 3, 4]);
}

#[test]
fn one_leaves_and_nobody_comes() {
    moves_to(&[1, 2]);
}

#[test]
fn a_leader_that_leaves_hands_over_first() {
    let mut nodes = cluster(&[]);
    let old = nodes.elect_of(&[1, 2, 3]);
    let stay: Vec<NodeId> = (1..=3).filter(|node| *node != old).collect();
    apply(&mut nodes, &format!("!move=1,2,3>{},{}", stay[0], stay[1]));
    until_all_have(&mut nodes, &[old], &of(&stay, &[1, 2, 3], &[]));
    nodes.run(500);
    assert_eq!(leader(&nodes), Some(old), "only when the move is complete");
    apply(&mut nodes, "!complete=yes");
    until_all_have(&mut nodes, &[1, 2, 3], &Configuration::stable(&stay));
    assert!(stay.contains(&leader(&nodes).unwrap()));
    let new_term = nodes.status(stay[0]).term;
    nodes.run(3_000);
    assert_eq!(nodes.status(stay[0]).term, new_term, "one election and no more");
}

#[test]
fn two_moves_one_after_the_other() {
    let mut nodes = moves_to(&[1, 2, 3, 4, 5]);
    apply(&mut nodes, "!move=1,2,3,4,5>3,4,5");
    apply(&mut nodes, "!complete=yes");
    until_all_have(&mut nodes, &[1, 2, 3, 4, 5], &Configuration::stable(&[3, 4, 5]));
    apply(&mut nodes, "last=1");
    nodes.run(500);
    for node in 3..=5 {
        assert_eq!(nodes.value(node, "last").as_deref(), Some("1"));
    }
}

#[test]
fn who_left_may_come_again() {
    let mut nodes = moves_to(&[1, 2]);
    apply(&mut nodes, "between=1");
    apply(&mut nodes, "!move=1,2>1,2,3");
    apply(&mut nodes, "!complete=yes");
    until_all_have(&mut nodes, &[1, 2, 3], &Configuration::stable(&[1, 2, 3]));
    nodes.run(500);
    assert_eq!(nodes.value(3, "between").as_deref(), Some("1"));
    nodes.run(6_000);
    nodes.freshness(3).may_contribute(G).unwrap();
}

#[test]
fn a_joint_configuration_needs_both_majorities() {
    for cut in [[4, 5], [1, 2]] {
        let mut nodes = cluster(&[4, 5]);
        nodes.elect_of(&[1, 2, 3]);
        apply(&mut nodes, "!move=1,2,3>3,4,5");
        until_all_have(&mut nodes, &[1, 2, 3, 4, 5], &of(&[3, 4, 5], &[1, 2, 3], &[]));
        // Three of five are left, which is a majority of one set and one of three of the other.
        nodes.cut.extend(cut);
        nodes.run(3_000);
        assert_eq!(leader(&nodes), None, "without {cut:?}");
        nodes.propose(3, 1, "x=1");
        nodes.run(9_000);
        assert!(nodes.proposed(3, 1).unwrap().is_err());
        nodes.cut.clear();
        apply(&mut nodes, "!complete=yes");
        until_all_have(&mut nodes, &[3, 4, 5], &Configuration::stable(&[3, 4, 5]));
    }
}

#[test]
fn learners_count_for_nothing_and_decide_nothing() {
    let mut nodes = cluster(&[4, 5]);
    nodes.elect_of(&[1, 2, 3]);
    // Without 5 the learners cannot all catch up.
    nodes.cut.insert(5);
    apply(&mut nodes, "!move=1,2,3>1,2,3,4,5");
    until_all_have(&mut nodes, &[1, 2, 3, 4], &of(&[1, 2, 3], &[], &[4, 5]));
    apply(&mut nodes, "x=1");
    nodes.run(10_000);
    assert_eq!(nodes.status(1).configuration, of(&[1, 2, 3], &[], &[4, 5]));
    assert_eq!(nodes.value(4, "x").as_deref(), Some("1"));
    let abstains = nodes.freshness(4).may_contribute(G).unwrap_err();
    assert_eq!(abstains.reason, Reason::Learner);
    let leads = leader(&nodes).unwrap();
    let shown = nodes.status(leads).progress;
    assert_eq!(
        shown.len(),
        4,
        "the operator sees how far everybody is: {shown:?}"
    );
    assert_eq!(shown[3], (5, 0));
    // Two of the three voters, with a learner or without, are a majority; one with two learners is not.
    nodes.cut.clear();
    nodes.cut.extend([1, 2]);
    nodes.run(3_000);
    assert_eq!(leader(&nodes), None);
}

#[test]
fn a_move_that_is_withdrawn_takes_its_learners_away() {
    let mut nodes = cluster(&[4]);
    nodes.elect_of(&[1, 2, 3]);
    nodes.cut.insert(5);
    apply(&mut nodes, "!move=1,2,3>1,2,3,4,5");
    until_all_have(&mut nodes, &[1, 2, 3, 4], &of(&[1, 2, 3], &[], &[4, 5]));
    apply(&mut nodes, "!move=");
    until_all_have(&mut nodes, &[1, 2, 3, 4], &Configuration::stable(&[1, 2, 3]));
    assert_eq!(nodes.status(4).standing, Standing::Removed);
}

#[test]
fn a_leader_begins_nothing_before_the_state_says_so_and_all_know_who_has_caught_up() {
    let mut nodes = cluster(&[4, 5]);
    nodes.elect_of(&[1, 2, 3]);
    nodes.cut.insert(5);
    apply(&mut nodes, "!waits=yes");
    apply(&mut nodes, "!move=1,2,3>2,3,4,5");
    let learning = of(&[1, 2, 3], &[], &[4, 5]);
    until_all_have(&mut nodes, &[1, 2, 3, 4], &learning);
    let know = |nodes: &Nodes, newcomers: &[NodeId]| {
        (1..=3).all(|node| {
            let known = nodes.status(node).caught_up;
            newcomers.iter().all(|newcomer| known.contains(newcomer))
        })
    };
    until(&mut nodes, "all know that 4 has caught up", |nodes| {
        know(nodes, &[4])
    });
    assert!((1..=3).all(|node| !nodes.status(node).caught_up.contains(&5)));
    nodes.cut.clear();
    until(&mut nodes, "all know that both have", |nodes| {
        know(nodes, &[4, 5])
    });
    nodes.run(2_000);
    assert_eq!(nodes.status(1).configuration, learning);
    // What was said on a link that broke is said again.
    let now = nodes.now();
    nodes.driver(1).link(now, 5, false);
    assert!(!nodes.status(1).caught_up.contains(&5));
    until(&mut nodes, "it is said again", |nodes| know(nodes, &[4, 5]));
    apply(&mut nodes, "!waits=no");
    until_all_have(&mut nodes, &[1, 2, 3, 4, 5], &of(&[2, 3, 4, 5], &[1, 2, 3], &[]));
}

#[test]
fn who_says_that_it_is_far_behind_has_not_caught_up() {
    let mut nodes = cluster(&[4]);
    let leads = nodes.elect_of(&[1, 2, 3]);
    apply(&mut nodes, "!waits=yes");
    nodes.propose(leads, 1, "!move=1,2,3>1,2,3,4");
    // What a node with the true state says at this moment.
    let true_word = |nodes: &Nodes| nodes.machines[&leads].driver.groups[&G].stated();
    let mut before = None;
    while nodes.status(leads).configuration.learners.is_empty() {
        before = true_word(&nodes);
        deliver_one(&mut nodes);
    }
    let knows = |nodes: &Nodes| nodes.status(leads).caught_up.contains(&4);
    until(&mut nodes, "4 has caught up", knows);
    let says = |nodes: &mut Nodes, states| {
        let statement = crate::frame::Call::Statement {
            restricting: 0,
            states,
        };
        nodes.receive(leads, 4, &call_frame(&statement));
        knows(nodes)
    };
    let since = nodes.status(leads).configuration_index;
    assert!(before.unwrap()[1].0 < since && nodes.status(leads).applied < since + 60);
    let now = true_word(&nodes);
    assert!(says(&mut nodes, now));
    assert!(!says(&mut nodes, None), "nobody vouches for its state");
    assert!(says(&mut nodes, now));
    assert!(!says(&mut nodes, before), "from before it was a learner");
    let old = true_word(&nodes);
    for entry in 0..70 {
        nodes.apply(leads, &format!("a={entry}"));
    }
    let now = true_word(&nodes);
    assert!(says(&mut nodes, now));
    assert!(!says(&mut nodes, old), "too far behind");
    let [mark, (index, _)] = now.unwrap();
    assert!(!says(&mut nodes, Some([mark, (index, [0; 32])])), "another state");
}

/// The configurations of a move from 1, 2, 3 to 3, 4, 5.
fn path() -> [Configuration; 4] {
    [
        of(&[1, 2, 3], &[], &[]),
        of(&[1, 2, 3], &[], &[4, 5]),
        of(&[3, 4, 5], &[1, 2, 3], &[]),
        of(&[3, 4, 5], &[], &[]),
    ]
}

fn begin(nodes: &mut Nodes) {
    nodes.elect_of(&[1, 2, 3]);
    apply(nodes, "before=1");
    apply(nodes, "!complete=yes");
    nodes.run(200);
    let leader = leader(nodes).unwrap();
    nodes.propose(leader, 9, "!move=1,2,3>3,4,5");
}

#[test]
fn a_leader_that_dies_at_any_step_is_followed_by_one_that_finishes() {
    for step in path() {
        let mut nodes = cluster(&[4, 5]);
        begin(&mut nodes);
        // To the moment at which a leader has come to this step, and no further.
        let mut led = None;
        for _ in 0..4_000 {
            let at_step = |node: &NodeId| nodes.status(*node).configuration == step;
            led = leader(&nodes).filter(at_step);
            if led.is_some() {
                break;
            }
            deliver_one(&mut nodes);
        }
        let dead = led.unwrap_or_else(|| panic!("no leader at {step:?}"));
        let disk = kill(&mut nodes, dead);
        let rest: Vec<NodeId> = (3..=5).filter(|node| *node != dead).collect();
        if step == path()[0] {
            // The statement may have died with it.
            apply(&mut nodes, "!move=1,2,3>3,4,5");
        }
        until_all_have(&mut nodes, &rest, &path()[3]);
        apply(&mut nodes, "after=1");
        nodes.start(mover(dead), disk, Words::default());
        let mut all = vec![3, 4, 5];
        all.push(dead);
        until_all_have(&mut nodes, &all, &path()[3]);
        nodes.run(1_000);
        for node in 3..=5 {
            assert_eq!(nodes.value(node, "before").as_deref(), Some("1"));
            assert_eq!(nodes.value(node, "after").as_deref(), Some("1"));
        }
    }
}

#[test]
fn a_node_that_restarts_at_any_step_is_where_it_was() {
    for (node, step) in (1..=5).flat_map(|node| path().map(|step| (node, step))) {
        let mut nodes = cluster(&[4, 5]);
        begin(&mut nodes);
        // A joiner begins with nothing.
        let start = node > 3 && step == path()[0];
        let step = match start {
            true => Configuration::default(),
            false => step,
        };
        for _ in 0..4_000 {
            if nodes.status(node).configuration == step {
                break;
            }
            deliver_one(&mut nodes);
        }
        let before = nodes.status(node);
        assert_eq!(before.configuration, step, "{node} does not come to {step:?}");
        let disk = kill(&mut nodes, node);
        nodes.start(mover(node), disk, Words::default());
        let after = nodes.status(node);
        assert_eq!(
            (after.configuration, after.configuration_index),
            (before.configuration, before.configuration_index)
        );
        assert_eq!(after.standing, before.standing);
        if step == path()[0] {
            // The statement may have died with it.
            apply(&mut nodes, "!move=1,2,3>3,4,5");
        }
        until_all_have(&mut nodes, &[1, 2, 3, 4, 5], &path()[3]);
    }
}

#[test]
fn who_has_not_heard_of_a_newcomer_votes_for_it() {
    let mut nodes = cluster(&[4]);
    nodes.elect_of(&[1, 2, 3]);
    while leader(&nodes) == Some(1) {
        nodes.driver(1).transfer_leaderships();
        nodes.run(500);
    }
    nodes.cut.insert(1);
    apply(&mut nodes, "!move=1,2,3>1,2,3,4");
    until_all_have(&mut nodes, &[2, 3, 4], &of(&[1, 2, 3, 4], &[1, 2, 3], &[]));
    // The last entry of a leader that dies is with the newcomer alone.
    let dying = leader(&nodes).unwrap();
    let behind = if dying == 2 { 3 } else { 2 };
    nodes.cut.insert(behind);
    nodes.propose(dying, 9, "last=1");
    nodes.deliver();
    assert_eq!(nodes.status(4).last_index, nodes.status(dying).last_index);
    assert!(nodes.status(behind).last_index < nodes.status(dying).last_index);
    kill(&mut nodes, dying);
    nodes.cut.clear();
    assert_eq!(nodes.status(1).configuration, Configuration::stable(&[1, 2, 3]));
    until(&mut nodes, "the newcomer leads", |nodes| leader(nodes) == Some(4));
    nodes.run(1_000);
    assert_eq!(nodes.value(1, "last").as_deref(), Some("1"));
}
