//! Proposals: through any node, never by raft's own forwarding, answered by what this node applied.

use super::harness::*;
use crate::frame::{Call, CallId};
use crate::*;
use raft::eraftpb::MessageType;

#[test]
fn any_node_takes_a_proposal_and_answers_with_its_own_result() {
    let mut nodes = Nodes::new();
    nodes.elect();
    for node in 1..=3 {
        let applied = nodes.apply(node, &format!("n{node}=x"));
        assert_eq!(applied.result, applied.index.to_string().into_bytes());
        assert_eq!(
            nodes.value(node, &format!("n{node}")).as_deref(),
            Some("x"),
            "applied here, not elsewhere"
        );
    }
    let raft_only = [
        MessageType::MsgPropose,
        MessageType::MsgReadIndex,
        MessageType::MsgReadIndexResp,
    ];
    assert!(
        !nodes
            .sent
            .iter()
            .any(|wire| raft_only.iter().any(|kind| wire.is(*kind)))
    );
}

#[test]
fn a_silent_proposal_is_sent_again_and_appended_once() {
    let mut nodes = Nodes::new();
    let leader = nodes.elect();
    let follower = other(&[leader]);
    let before = nodes.status(leader).last_index;
    nodes.propose(follower, 1, "a=1");
    nodes.turn(follower);
    let frame = nodes.wires.pop_back().unwrap().frame;
    // Twice at the leader, and the answer of neither gets back for a while.
    for _ in 0..2 {
        nodes.receive(leader, follower, &frame);
    }
    nodes.turn(leader);
    assert_eq!(
        nodes.status(leader).last_index,
        before + 1,
        "the second is the same proposal"
    );
    nodes.wires.clear();
    let proposals = |nodes: &Nodes| {
        nodes
            .sent
            .iter()
            .filter(|wire| matches!(wire.call(), Some(Call::Propose { .. })))
            .count()
    };
    let sent = proposals(&nodes);
    nodes.cut.insert(leader);
    nodes.run(275);
    assert_eq!(proposals(&nodes), sent);
    nodes.run(50);
    assert_eq!(proposals(&nodes), sent + 1, "300 ms of silence");
    nodes.cut.clear();
    nodes.run(1_500);
    assert!(nodes.proposed(follower, 1).unwrap().is_ok());
}

#[test]
fn a_change_of_leader_does_not_lose_a_proposal() {
    let mut nodes = Nodes::new();
    let leader = nodes.elect();
    let follower = other(&[leader]);
    nodes.cut.insert(leader);
    nodes.propose(follower, 1, "a=1");
    nodes.elect();
    nodes.run(300);
    assert!(nodes.proposed(follower, 1).unwrap().is_ok());
}

#[test]
fn without_a_leader_the_outcome_is_known_and_with_one_that_vanished_it_is_not() {
    let mut nodes = Nodes::new();
    nodes.propose(1, 1, "a=1");
    let now = nodes.now();
    nodes.cut.extend([1, 2, 3]);
    nodes.driver(1).propose(now, 2, GroupId(5), vec![1], now + 10);
    nodes.run(8_100);
    assert_eq!(nodes.proposed(1, 1).unwrap(), Err(ProposeError::NoLeader(G)));
    assert_eq!(
        nodes.proposed(1, 2).unwrap(),
        Err(ProposeError::NoGroup(GroupId(5)))
    );
    nodes.cut.clear();
    let leader = nodes.elect();
    nodes.cut.insert(leader);
    nodes.propose(leader, 3, "a=1");
    nodes.run(8_100);
    assert_eq!(
        nodes.proposed(leader, 3).unwrap(),
        Err(ProposeError::OutcomeUnknown(G))
    );
}

#[test]
fn proposals_are_bounded_at_both_ends() {
    let mut nodes = Nodes::with(|settings| settings.max_proposals = 4);
    let leader = nodes.elect();
    let follower = other(&[leader]);
    let now = nodes.now();
    nodes
        .driver(follower)
        .propose(now, 9, G, vec![b'a'; MAX_ENTRY + 1], now + 8_000);
    nodes
        .driver(follower)
        .propose(now, 10, G, Vec::new(), now + 8_000);
    for ticket in 0..5 {
        nodes.propose(follower, ticket, "a=1");
    }
    nodes.turn(follower);
    assert_eq!(nodes.proposed(follower, 9).unwrap(), Err(ProposeError::TooLong));
    assert_eq!(nodes.proposed(follower, 10).unwrap(), Err(ProposeError::TooLong));
    assert_eq!(nodes.proposed(follower, 4).unwrap(), Err(ProposeError::Busy(G)));
    // The leader has a bound of its own: it has four from one peer, and refuses the other's.
    let third = other(&[leader, follower]);
    nodes.propose(third, 0, "b=1");
    nodes.turn(third);
    let calls: Vec<Wire> = nodes
        .wires
        .iter()
        .filter(|wire| matches!(wire.call(), Some(Call::Propose { .. })))
        .cloned()
        .collect();
    assert_eq!(calls.len(), 5);
    for call in &calls {
        nodes.receive(leader, call.from, &call.frame);
    }
    nodes.wires.clear();
    nodes.deliver();
    assert_eq!(nodes.proposed(third, 0).unwrap(), Err(ProposeError::Busy(G)));
    nodes.run(200);
    for ticket in 0..4 {
        assert!(nodes.proposed(follower, ticket).unwrap().is_ok());
    }
    let big = Nodes::with(|settings| settings.max_proposal_bytes = 2 * 1024 * 1024);
    let mut big = big;
    let now = big.now();
    for ticket in 0..5 {
        big.driver(1)
            .propose(now, ticket, G, vec![b'a'; MAX_ENTRY], now + 8_000);
    }
    big.turn(1);
    assert_eq!(big.proposed(1, 4).unwrap(), Err(ProposeError::Busy(G)));
    assert_eq!(big.proposed(1, 3), None);
}

#[test]
fn a_new_leader_holds_proposals_while_a_configuration_may_be_pending() {
    let mut nodes = Nodes::new();
    let old = nodes.elect();
    // An entry that the next leader has and does not know to be committed.
    nodes.propose(old, 1, "a=1");
    nodes.turn(old);
    for wire in std::mem::take(&mut nodes.wires) {
        nodes.receive(wire.to, old, &wire.frame);
        nodes.turn(wire.to);
    }
    nodes.wires.clear();
    nodes.cut.insert(old);
    // Until somebody leads, deliver by hand, so that its first entry is not committed at once.
    let next = 'found: loop {
        nodes.tick(25);
        for node in 1..=3 {
            nodes.turn(node);
        }
        while let Some(wire) = nodes.wires.pop_front() {
            if wire.to == old || wire.from == old {
                continue;
            }
            nodes.receive(wire.to, wire.from, &wire.frame);
            nodes.turn(wire.to);
            if nodes.status(wire.to).role == Role::Leader {
                break 'found wire.to;
            }
        }
    };
    let before = nodes.status(next).last_index;
    assert!(nodes.status(next).applied < before);
    nodes.propose(next, 2, "a=2");
    nodes.turn(next);
    assert_eq!(
        nodes.status(next).last_index,
        before,
        "held until the inherited log is applied"
    );
    nodes.run(1_000);
    assert!(nodes.proposed(next, 2).unwrap().is_ok());
}

#[test]
fn only_our_own_bytes_answer_our_proposal() {
    let mut nodes = Nodes::new();
    let leader = nodes.elect();
    let follower = other(&[leader]);
    nodes.propose(follower, 1, "a=mine");
    nodes.turn(follower);
    let call = nodes.wires.iter().find_map(Wire::call).unwrap();
    let Call::Propose { id, .. } = call else {
        panic!("{call:?}")
    };
    nodes.wires.clear();
    // A leader that puts our context on an entry of its own making.
    let now = nodes.now();
    nodes.receive(
        leader,
        follower,
        &call_frame(&Call::Propose {
            id,
            entry: b"a=forged".to_vec(),
        }),
    );
    nodes.driver(follower).tick(now).unwrap();
    nodes.deliver();
    assert_eq!(nodes.value(follower, "a").as_deref(), Some("forged"));
    assert_eq!(nodes.proposed(follower, 1), None, "that was not what we proposed");
}

#[test]
fn a_proposal_under_anothers_name_is_dropped() {
    let mut nodes = Nodes::new();
    let leader = nodes.elect();
    let follower = other(&[leader]);
    let id = CallId {
        node: other(&[leader, follower]),
        boot: 1,
        counter: 0,
    };
    let before = nodes.status(leader).last_index;
    nodes.receive(
        leader,
        follower,
        &call_frame(&Call::Propose {
            id,
            entry: b"a=1".to_vec(),
        }),
    );
    assert_eq!(nodes.dropped(leader, Violation::Call), 1);
    assert_eq!(nodes.status(leader).last_index, before);
}
