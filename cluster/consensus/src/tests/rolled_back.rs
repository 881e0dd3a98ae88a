//! A disk that is put back from an older copy is recognized by what its node has signed; its own disk never is,
//! whenever it died (threats.md F16, F29; consensus.md 4).

use super::harness::*;
use crate::attestation::{Attestation, Position, Signed};
use crate::frame::Call;
use crate::*;
use raft::eraftpb::{Message, MessageType};
use std::sync::Arc;

/// Three nodes that have done something, and stated it.
fn busy() -> (Nodes, NodeId) {
    let mut nodes = Nodes::new();
    let leader = nodes.elect();
    nodes.apply(leader, "a=1");
    nodes.run(1_500);
    (nodes, leader)
}

/// The node dies and starts from what its disk was after so many batches.
fn put_back(nodes: &mut Nodes, node: NodeId, batches: usize) {
    let disk = nodes.machines.remove(&node).unwrap().disk.after(batches);
    // What was on its way to the old process is lost with its connections.
    nodes.wires.retain(|wire| wire.to != node && wire.from != node);
    nodes.start(settings(node), disk, Words::default());
}

fn batches(nodes: &Nodes, node: NodeId) -> usize {
    nodes.machines[&node].disk.batches.lock().len()
}

fn found(nodes: &Nodes, node: NodeId) -> Option<RolledBack> {
    nodes.machines[&node].driver.rolled_back().cloned()
}

fn sent_by(nodes: &Nodes, node: NodeId, from: usize) -> Vec<MessageType> {
    let sent = nodes.sent[from..].iter().filter(|wire| wire.from == node);
    sent.filter_map(Wire::raft)
        .map(|message| message.get_msg_type())
        .collect()
}

/// Asks for a vote in the next term, whoever leads now.
fn canvass(of: &GroupStatus, from: NodeId, to: NodeId) -> Message {
    let mut vote = Message::default();
    vote.set_msg_type(MessageType::MsgRequestVote);
    (vote.from, vote.to, vote.term) = (from, to, of.term + 1);
    // Further than any log here.
    (vote.index, vote.log_term) = (of.last_index + 9, of.term);
    vote.context = raft::CAMPAIGN_TRANSFER.into();
    vote
}

#[test]
fn an_older_copy_votes_appends_and_contributes_no_more() {
    let (mut nodes, leader) = busy();
    let old = other(&[leader]);
    let copy = batches(&nodes, old);
    for round in 0..5 {
        nodes.apply(leader, &format!("k{round}=v"));
    }
    nodes.run(1_500);
    put_back(&mut nodes, old, copy);
    let (began, last) = (nodes.sent.len(), nodes.status(old).last_index);
    nodes.run(1_000);
    let lack = found(&nodes, old).expect("the copy is recognized").lack;
    assert!(
        matches!(lack, Lack::Entries { group: G, stated, found } if stated > found && found == last),
        "{lack}"
    );
    let abstains = nodes.freshness(old).may_contribute(G).unwrap_err();
    assert_eq!(abstains.reason, Reason::RolledBack);
    // Whatever happens now, nothing of raft ever comes from it, and it takes nothing in.
    nodes.cut.insert(leader);
    nodes.run(3_000);
    nodes.cut.clear();
    nodes.run(3_000);
    assert!(sent_by(&nodes, old, began).is_empty());
    assert_eq!(nodes.status(old).last_index, last);
    nodes.propose(old, 5, "x=1");
    nodes.run(8_100);
    assert_eq!(nodes.proposed(old, 5), Some(Err(ProposeError::NoLeader(G))));
    // The others go on.
    let leader = nodes.status(leader).leader.unwrap();
    nodes.apply(leader, "after=1");
}

#[test]
fn a_lost_term_is_recognized_without_a_lost_entry() {
    let (mut nodes, leader) = busy();
    // The leader is away: the two elect, one of them with the other's vote.
    nodes.cut.insert(leader);
    let next = nodes.elect();
    nodes.run(1_500);
    let voter = other(&[leader, next]);
    // As of the batch before the one with its vote.
    let disk = nodes.machines[&voter].disk.clone();
    let term = |batches: usize| {
        let hard = records::read_hard_state(&*disk.after(batches), G)
            .unwrap()
            .unwrap();
        (hard.term, hard.vote)
    };
    let now = term(batches(&nodes, voter));
    let before = (2..batches(&nodes, voter))
        .rev()
        .find(|count| term(*count).0 < now.0);
    put_back(&mut nodes, voter, before.unwrap());
    nodes.run(500);
    let lack = found(&nodes, voter).unwrap().lack;
    assert!(
        matches!(lack, Lack::Term { stated, .. } if stated == now.0),
        "{lack}"
    );
}

#[test]
fn no_message_of_raft_is_taken_from_a_peer_that_has_not_answered() {
    let (mut nodes, leader) = busy();
    let old = other(&[leader]);
    let third = other(&[leader, old]);
    let copy = batches(&nodes, old);
    nodes.apply(leader, "b=1");
    nodes.run(1_500);
    put_back(&mut nodes, old, copy);
    let term = nodes.status(old).term;
    // The leader's appends arrive, its memory does not; nor does the third node's.
    nodes.cut.insert(third);
    for _ in 0..40 {
        nodes.tick(25);
        for node in [leader, old] {
            nodes.turn(node);
        }
        for wire in std::mem::take(&mut nodes.wires) {
            if wire.from != third && wire.to != third && wire.raft().is_some() {
                nodes.receive(wire.to, wire.from, &wire.frame);
            }
        }
    }
    let counters = nodes.machines[&old].driver.counters().clone();
    assert!(counters.early.get() > 0 && counters.applied.get() == 0);
    assert_eq!((nodes.status(old).term, found(&nodes, old)), (term, None));
    // Whoever answers first tells it.
    nodes.cut.insert(leader);
    nodes.cut.remove(&third);
    nodes.run(200);
    assert_eq!(found(&nodes, old).unwrap().shown_by, third);
}

#[test]
fn what_arrived_before_the_proof_is_neither_written_nor_answered() {
    let (mut nodes, leader) = busy();
    let old = other(&[leader]);
    let third = other(&[leader, old]);
    let copy = batches(&nodes, old);
    nodes.apply(leader, "b=1");
    nodes.run(1_500);
    let (_, stated) = nodes.attested(old).pop().unwrap();
    put_back(&mut nodes, old, copy);
    let began = nodes.sent.len();
    nodes.tick(25);
    nodes.gather(old);
    let boot = nodes.sent[began..].iter().find_map(|wire| match wire.call() {
        Some(Call::Recall { boot }) => Some(boot),
        _ => None,
    });
    let recalled = |attestation| {
        let boot = boot.unwrap();
        call_frame(&Call::Recalled { boot, attestation })
    };
    // The leader, taken over, says that it remembers nothing, and has a vote before the third says what it knows.
    nodes.receive(old, leader, &recalled(None));
    let vote = canvass(&nodes.status(old), leader, old);
    nodes.receive(old, leader, &raft_frame(&vote));
    assert_eq!(nodes.status(old).term, vote.term);
    nodes.receive(old, third, &recalled(Some(stated)));
    nodes.turn(old);
    assert!(found(&nodes, old).is_some());
    assert!(sent_by(&nodes, old, began).is_empty());
    let disk = &*nodes.machines[&old].disk;
    let hard = records::read_hard_state(disk, G).unwrap().unwrap();
    assert!(hard.term < vote.term);
}

#[test]
fn a_node_on_its_own_disk_is_never_accused_whenever_it_died() {
    let (mut nodes, leader) = busy();
    nodes.apply(leader, "b=1");
    nodes.cut.insert(leader);
    let next = nodes.elect();
    nodes.apply(next, "c=1");
    nodes.cut.clear();
    nodes.run(1_200);
    for entry in ["d=1", "e=1"] {
        nodes.apply(next, entry);
        nodes.run(300);
    }
    // Each attestation that ever left, against the disk as a crash could have left it just after: everything up to
    // the last synced batch.
    let mut checked = 0;
    for node in 1..=3 {
        let disk = nodes.machines[&node].disk.clone();
        let synced: Vec<usize> = {
            let batches = disk.batches.lock();
            (1..=batches.len()).filter(|count| batches[count - 1].1).collect()
        };
        for (at, shown) in nodes.attested(node) {
            let durable = synced.iter().copied().filter(|count| *count <= at).max().unwrap();
            let mut alone = Nodes::new();
            alone.machines.clear();
            alone.start(settings(node), disk.after(durable), Words::default());
            let answer = Call::Recalled {
                boot: 0,
                attestation: Some(shown),
            };
            alone.receive(node, other(&[node]), &call_frame(&answer));
            assert_eq!(found(&alone, node), None, "node {node} as of batch {durable}");
            checked += 1;
        }
    }
    assert!(checked > 10, "{checked}");
}

#[test]
fn what_is_not_written_yet_is_not_stated() {
    let (mut nodes, leader) = busy();
    let node = other(&[leader]);
    let before = nodes.status(node);
    let vote = canvass(&before, other(&[leader, node]), node);
    nodes.receive(node, vote.from, &raft_frame(&vote));
    assert_eq!(nodes.status(node).term, before.term + 1, "in memory");
    let terms = |nodes: &mut Nodes| -> Vec<u64> {
        let known = nodes.attested(node).len();
        nodes.tick(6_000);
        nodes.gather(node);
        let stated = nodes.attested(node).split_off(known);
        let read = |signed: &Signed| signed.read(&CLUSTER, node, 1, &*Hand::of(node)).unwrap();
        stated
            .iter()
            .map(|(_, signed)| read(signed).positions[0].term)
            .collect()
    };
    assert_eq!(terms(&mut nodes), [before.term; 2]);
    nodes.turn(node);
    let after = terms(&mut nodes);
    assert!(after.iter().all(|term| *term > before.term) && !after.is_empty());
}

#[test]
fn a_node_that_restarts_on_its_own_disk_goes_on() {
    let (mut nodes, _) = busy();
    for node in 1..=3 {
        for _ in 0..3 {
            let all = batches(&nodes, node);
            put_back(&mut nodes, node, all);
            let leader = nodes.elect();
            nodes.apply(leader, "again=1");
            nodes.run(1_200);
        }
    }
    nodes.run(2_000);
    for node in 1..=3 {
        assert_eq!(found(&nodes, node), None);
        assert!(nodes.freshness(node).may_contribute(G).is_ok());
        assert_eq!(nodes.value(node, "again").as_deref(), Some("1"));
    }
}

#[test]
fn a_liar_stops_nobody() {
    let (mut nodes, leader) = busy();
    let (honest, liar) = (other(&[leader]), other(&[leader, other(&[leader])]));
    let all = batches(&nodes, honest);
    put_back(&mut nodes, honest, all);
    let far = Attestation {
        cluster: CLUSTER,
        node: honest,
        boot: 9,
        positions: vec![Position {
            term: 99,
            ..Position::default()
        }],
        mark: Mark::default(),
    };
    let elsewhere = Attestation {
        cluster: [8; 32],
        ..far.clone()
    };
    let another = Attestation {
        node: liar,
        ..far.clone()
    };
    let fewer = Attestation {
        positions: Vec::new(),
        ..far.clone()
    };
    let signed = |attestation: &Attestation, by| Signed::new(attestation, &*Hand::of(by)).unwrap();
    // Under the liar's own signature; the node's own about another cluster, another node, other groups.
    let lies = [
        signed(&far, liar),
        signed(&elsewhere, honest),
        signed(&another, liar),
        signed(&another, honest),
        signed(&fewer, honest),
    ];
    for lie in lies {
        let call = Call::Recalled {
            boot: 0,
            attestation: Some(lie),
        };
        nodes.receive(honest, liar, &call_frame(&call));
    }
    assert_eq!(nodes.dropped(honest, Violation::Attestation), 5);
    assert_eq!(found(&nodes, honest), None);
    // Nor can it make others remember what is not so, under its own name or another's.
    for lie in [signed(&far, liar), signed(&far, honest)] {
        nodes.receive(leader, liar, &call_frame(&Call::Attest(lie)));
    }
    assert_eq!(nodes.dropped(leader, Violation::Attestation), 2);
    // Only the node itself could have signed this, and then it is the truth.
    let call = Call::Recalled {
        boot: 0,
        attestation: Some(signed(&far, honest)),
    };
    nodes.receive(honest, liar, &call_frame(&call));
    assert!(found(&nodes, honest).is_some());
}

#[test]
fn a_flood_of_attestations_is_not_looked_at() {
    let (mut nodes, leader) = busy();
    let (node, flooding) = (other(&[leader]), other(&[leader, other(&[leader])]));
    let forged = |boot| Attestation {
        cluster: CLUSTER,
        node: flooding,
        boot,
        positions: vec![Position::default()],
        mark: Mark::default(),
    };
    for boot in 0..100 {
        let lie = Signed::new(&forged(boot), &*Hand::of(9)).unwrap();
        nodes.receive(node, flooding, &call_frame(&Call::Attest(lie)));
    }
    assert!(nodes.dropped(node, Violation::Attestation) <= 16);
    nodes.run(3_000);
    assert!(nodes.freshness(node).may_contribute(G).is_ok());
}

#[test]
fn memory_survives_the_peers_restart_and_proof_the_nodes_own() {
    let (mut nodes, leader) = busy();
    let old = other(&[leader]);
    let third = other(&[leader, old]);
    let copy = batches(&nodes, old);
    nodes.apply(leader, "b=1");
    nodes.run(2_000);
    // All restart, the old one from its copy; only the third can tell it.
    for node in [leader, third] {
        let all = batches(&nodes, node);
        put_back(&mut nodes, node, all);
    }
    put_back(&mut nodes, old, copy);
    nodes.cut.insert(leader);
    nodes.run(200);
    let shown = found(&nodes, old).unwrap();
    assert_eq!(shown.shown_by, third);
    nodes.run(1_000);
    // It knows by itself from now on.
    let all = batches(&nodes, old);
    nodes.cut.insert(old);
    put_back(&mut nodes, old, all);
    let again = found(&nodes, old).unwrap();
    assert_eq!((again.shown_by, again.lack), (old, shown.lack));
}

#[test]
fn what_a_peer_remembers_never_falls() {
    let (mut nodes, leader) = busy();
    let old = other(&[leader]);
    let stated = nodes.attested(old).last().unwrap().1.clone();
    // An older one of the same node comes late, or from its copy.
    let early = nodes.attested(old).first().unwrap().1.clone();
    assert_ne!(early, stated);
    let from = nodes.sent.len();
    nodes.receive(leader, old, &call_frame(&Call::Attest(early)));
    nodes.receive(leader, old, &call_frame(&Call::Recall { boot: 4 }));
    nodes.gather(leader);
    let shown: Vec<Call> = nodes.sent[from..].iter().filter_map(Wire::call).collect();
    let known = shown.iter().filter(|call| match call {
        Call::Recalled { attestation, .. } => *attestation == Some(stated.clone()),
        _ => false,
    });
    assert_eq!(
        known.count(),
        2,
        "shown to who stated less, and to who asked: {shown:?}"
    );
}

#[test]
fn what_else_a_disk_had_is_compared_too() {
    let mut nodes = Nodes::new();
    nodes.numbers.extend([(1, 5), (2, 5), (3, 5)]);
    let disks: Vec<_> = (1..=3).map(|node| nodes.machines[&node].disk.clone()).collect();
    for (node, disk) in (1..=3).zip(disks) {
        nodes.start(settings(node), disk, Words::default());
    }
    nodes.elect();
    nodes.run(1_500);
    for (number, lost) in [(5, false), (6, false), (4, true)] {
        nodes.numbers.insert(2, number);
        let all = batches(&nodes, 2);
        put_back(&mut nodes, 2, all);
        nodes.run(1_500);
        let lacks = found(&nodes, 2).map(|found| found.lack);
        let told = lost.then(|| Lack::Mark("had 6 and has 4".into()));
        assert_eq!(lacks, told);
    }
}

#[test]
fn a_heartbeat_above_the_log_makes_the_node_ask_what_others_remember() {
    let (mut nodes, leader) = busy();
    nodes.run(1_500);
    let follower = other(&[leader]);
    let status = nodes.status(follower);
    let mut heartbeat = Message::default();
    heartbeat.set_msg_type(MessageType::MsgHeartbeat);
    (heartbeat.from, heartbeat.to, heartbeat.term) = (leader, follower, status.term);
    heartbeat.commit = status.last_index + 1;
    let from = nodes.sent.len();
    for _ in 0..3 {
        nodes.receive(follower, leader, &raft_frame(&heartbeat));
    }
    nodes.gather(follower);
    let asked = nodes.sent[from..].iter().filter_map(Wire::call);
    assert_eq!(
        asked.filter(|call| matches!(call, Call::Recall { .. })).count(),
        2
    );
    // Nobody remembers more, so it is the leader that is named, and the node goes on.
    nodes.run(500);
    assert_eq!(nodes.dropped(follower, Violation::HeartbeatCommit), 3);
    assert_eq!(found(&nodes, follower), None);
    nodes.apply(leader, "b=1");
}

#[test]
fn a_wiped_disk_serves_nothing_and_does_not_begin_anew() {
    let (nodes, leader) = busy();
    let wiped = other(&[leader]);
    let open = Driver::open(
        settings(wiped),
        Arc::new(Memory::default()),
        Arc::new(Words::default()),
        Hand::of(wiped),
        Arc::new(nodes.clock.clone()),
        [1; 32],
    );
    assert!(matches!(open, Err(OpenError::Joining)));
}

#[test]
fn a_disk_that_is_initialized_anew_is_an_older_copy_too() {
    let (mut nodes, leader) = busy();
    let wiped = other(&[leader]);
    nodes.machines.remove(&wiped);
    nodes.wires.clear();
    let disk = Arc::new(Memory::default());
    Driver::bootstrap(&*disk, &settings(wiped)).unwrap();
    nodes.start(settings(wiped), disk, Words::default());
    let began = nodes.sent.len();
    nodes.run(1_000);
    let lack = found(&nodes, wiped).unwrap().lack;
    assert!(matches!(lack, Lack::Term { found: 1, .. }), "{lack}");
    assert!(sent_by(&nodes, wiped, began).is_empty());
}
