//! Who joins has nothing, says nothing and decides nothing until a leader's snapshot is installed; and no snapshot brings a
//! configuration that its own state does not allow.

use super::configuration::*;
use super::harness::*;
use crate::frame::Call;
use crate::records::{self, AppliedRecord};
use crate::snapshots::{Offer, SnapshotName};
use crate::*;
use raft::eraftpb::{Message, MessageType};
use std::sync::Arc;

#[test]
fn an_empty_disk_joins_only_with_the_permission_to() {
    let clock = Arc::new(HandClock::default());
    let open = |disk: &Arc<Memory>, settings: Settings| {
        let attestor = Hand::of(settings.node);
        Driver::open(
            settings,
            disk.clone(),
            Arc::new(Words::default()),
            attestor,
            clock.clone(),
            [4; 32],
        )
    };
    let disk = Arc::new(Memory::default());
    assert!(matches!(open(&disk, mover(4)), Err(OpenError::Joining)));
    Driver::prepare_joining(&*disk, &mover(4)).unwrap();
    assert!(matches!(
        Driver::prepare_joining(&*disk, &mover(4)),
        Err(OpenError::AlreadyInitialized)
    ));
    let mut more = mover(4);
    more.groups = 2;
    assert!(matches!(open(&disk, more), Err(OpenError::Bootstrap)));
    // Once: groups that are lost later are not made again.
    open(&disk, mover(4)).unwrap();
    let batches = disk.batches.lock().len();
    let lost = disk.after(batches);
    let mut batch = Batch::default();
    batch.delete(keys::group(G));
    lost.write(&batch, true).unwrap();
    assert!(matches!(open(&lost, mover(4)), Err(OpenError::GroupMissing(G))));
    assert_eq!(
        open(&disk, mover(4)).unwrap().status()[0].standing,
        Standing::Joining
    );
}

#[test]
fn who_joins_votes_for_nobody_answers_nobody_and_decides_nothing() {
    let mut nodes = cluster(&[4]);
    nodes.elect_of(&[1, 2, 3]);
    nodes.run(5_000);
    let status = nodes.status(4);
    assert_eq!((status.term, status.last_index, status.leader), (0, 0, None));
    assert_eq!(
        nodes.freshness(4).may_contribute(G).unwrap_err().reason,
        Reason::Joining
    );
    assert!(nodes.freshness(4).settle(G, scope(b'a')).is_err());
    assert!(nodes.freshness(4).view(G).is_err());
    let now = nodes.now();
    nodes.driver(4).read_index(now, 1, G, now + 1_000);
    nodes.run(1_500);
    assert!(nodes.read(4, 1).unwrap().is_err());
    for kind in [MessageType::MsgRequestVote, MessageType::MsgRequestPreVote] {
        let mut vote = Message::default();
        vote.set_msg_type(kind);
        (vote.from, vote.to, vote.term, vote.index, vote.log_term) = (1, 4, 9, 9, 9);
        nodes.receive(4, 1, &raft_frame(&vote));
        nodes.turn(4);
    }
    assert_eq!(nodes.status(4).term, 0);
    assert_eq!(
        nodes.driver(4).counters().dropped_total(),
        0,
        "known, and no alarm"
    );
    assert!(nodes.driver(4).counters().outsiders.get() >= 2);
    for node in 1..=3 {
        assert_eq!(nodes.driver(node).counters().dropped_total(), 0);
    }
}

#[test]
fn who_joins_takes_the_cluster_s_term_and_no_absurd_one() {
    let mut nodes = cluster(&[4]);
    nodes.elect_of(&[1, 2, 3]);
    let mut heartbeat = Message::default();
    heartbeat.set_msg_type(MessageType::MsgHeartbeat);
    (heartbeat.from, heartbeat.to, heartbeat.term) = (1, 4, u64::MAX);
    nodes.receive(4, 1, &raft_frame(&heartbeat));
    assert_eq!(nodes.dropped(4, Violation::Term), 1);
    // Many elections later it is no stranger.
    heartbeat.term = 1_000_000;
    nodes.receive(4, 1, &raft_frame(&heartbeat));
    nodes.turn(4);
    assert_eq!(nodes.status(4).term, 1_000_000);
}

fn small(nodes: &mut Nodes) {
    for node in 1..=3 {
        let disk = kill(nodes, node);
        let mut settings = mover(node);
        settings.truncate_above = 8;
        settings.keep_entries = 2;
        nodes.start(settings, disk, Words::default());
    }
}

/// Node 3 is away while the group moves and its log is truncated.
fn away() -> Nodes {
    let mut nodes = cluster(&[4, 5]);
    small(&mut nodes);
    nodes.elect_of(&[1, 2, 3]);
    while leader(&nodes) == Some(3) {
        nodes.driver(3).transfer_leaderships();
        nodes.run(500);
    }
    nodes.cut.insert(3);
    apply(&mut nodes, "!move=1,2,3>3,4,5");
    apply(&mut nodes, "!complete=yes");
    until_all_have(&mut nodes, &[4, 5], &Configuration::stable(&[3, 4, 5]));
    for round in 0..20 {
        apply(&mut nodes, &format!("key{round}=1"));
    }
    nodes.wires.clear();
    nodes
}

/// Runs until raft's message with the snapshot is on its way to a node, and takes it off the wire.
fn snapshot_message(nodes: &mut Nodes, to: NodeId) -> Wire {
    for _ in 0..400 {
        nodes.tick(25);
        for node in nodes.machines.keys().copied().collect::<Vec<_>>() {
            nodes.turn(node);
        }
        while let Some(wire) = nodes.wires.pop_front() {
            if wire.to == to && wire.is(MessageType::MsgSnapshot) {
                return wire;
            }
            if nodes.machines.contains_key(&wire.to) && !nodes.cut.contains(&wire.to) {
                nodes.receive(wire.to, wire.from, &wire.frame);
                nodes.turn(wire.to);
            }
        }
    }
    panic!("no snapshot in ten seconds");
}

#[test]
fn a_member_that_was_away_during_the_whole_move_gets_its_snapshot_from_a_leader_it_did_not_know() {
    let mut nodes = away();
    nodes.cut.clear();
    until_all_have(&mut nodes, &[3], &Configuration::stable(&[3, 4, 5]));
    assert_eq!(nodes.driver(3).counters().snapshots_installed.get(), 1);
    nodes.run(6_000);
    nodes.freshness(3).may_contribute(G).unwrap();
    let (of_view, index) = {
        let view = nodes.freshness(3).view(G).unwrap();
        (view.configuration().0.clone(), view.configuration().1)
    };
    assert_eq!(of_view, Configuration::stable(&[3, 4, 5]));
    assert_eq!(
        index,
        nodes.status(4).configuration_index,
        "of the entry, not of the snapshot"
    );
    assert_eq!(nodes.status(3).chain, nodes.status(4).chain);
}

#[test]
fn a_snapshot_with_another_configuration_than_was_offered_is_refused() {
    let mut nodes = away();
    nodes.cut.clear();
    nodes.cut.extend([1, 2]);
    let real = snapshot_message(&mut nodes, 3);
    for bend in [
        (&[3, 4, 9][..], &[][..], &[][..]),
        (&[3], &[], &[]),
        (&[3, 4, 5], &[1, 2, 3], &[]),
        (&[3, 4, 5], &[], &[9]),
        (&[1, 2, 3], &[], &[]),
        (&[4, 5], &[], &[]),
    ] {
        let before = nodes.dropped(3, Violation::SnapshotData);
        let mut bent = real.raft().unwrap();
        let metadata = bent.mut_snapshot().mut_metadata();
        metadata.set_conf_state(of(bend.0, bend.1, bend.2).conf_state());
        nodes.receive(3, real.from, &raft_frame(&bent));
        nodes.turn(3);
        assert_eq!(nodes.dropped(3, Violation::SnapshotData), before + 1, "{bend:?}");
    }
    let mut automatic = real.raft().unwrap();
    automatic
        .mut_snapshot()
        .mut_metadata()
        .mut_conf_state()
        .auto_leave = true;
    nodes.receive(3, real.from, &raft_frame(&automatic));
    assert_eq!(nodes.dropped(3, Violation::SnapshotData), 7);
    assert_eq!(nodes.driver(3).counters().snapshots_installed.get(), 0);
    nodes.receive(3, real.from, &real.frame);
    nodes.turn(3);
    assert_eq!(nodes.driver(3).counters().snapshots_installed.get(), 1);
    assert_eq!(nodes.status(3).configuration, Configuration::stable(&[3, 4, 5]));
}

#[test]
fn an_offer_of_a_configuration_that_its_state_does_not_allow_is_refused() {
    for bend in [
        (&[3, 4, 9][..], &[][..], &[][..]),
        (&[3], &[], &[]),
        (&[3, 4, 5], &[1, 2, 3], &[]),
        (&[3, 4, 5], &[], &[9]),
        (&[1, 2, 3], &[], &[]),
        (&[4, 5], &[], &[]),
    ] {
        let mut nodes = away();
        nodes.cut.clear();
        nodes.cut.extend([1, 2]);
        offer_another(&mut nodes, 3, &of(bend.0, bend.1, bend.2));
        assert_eq!(nodes.dropped(3, Violation::SnapshotConfiguration), 1, "{bend:?}");
        // The leader offers again, and what it offers now is true.
        nodes.run(15_000);
        assert_eq!(nodes.driver(3).counters().snapshots_installed.get(), 1);
        assert_eq!(nodes.status(3).configuration, Configuration::stable(&[3, 4, 5]));
    }
}

/// Runs until a node has refused an offer, which has another configuration on its way.
fn offer_another(nodes: &mut Nodes, to: NodeId, configuration: &Configuration) {
    for _ in 0..400 {
        nodes.tick(25);
        for node in nodes.machines.keys().copied().collect::<Vec<_>>() {
            nodes.turn(node);
        }
        while let Some(mut wire) = nodes.wires.pop_front() {
            if let (true, Some(Call::SnapshotOffer(offer))) = (wire.to == to, wire.call()) {
                wire.frame = call_frame(&Call::SnapshotOffer(Offer {
                    configuration: configuration.clone(),
                    ..offer
                }));
            }
            if nodes.machines.contains_key(&wire.to) && !nodes.cut.contains(&wire.to) {
                nodes.receive(wire.to, wire.from, &wire.frame);
                nodes.turn(wire.to);
            }
        }
        if nodes.dropped(to, Violation::SnapshotConfiguration) > 0 {
            return;
        }
    }
    panic!("nothing was refused in ten seconds");
}

#[test]
fn a_snapshot_that_cannot_come_after_what_a_node_knows_is_refused() {
    let mut nodes = away();
    nodes.cut.clear();
    nodes.cut.extend([1, 2]);
    let knows_lists = |nodes: &Nodes, known: bool| {
        let disk = &nodes.machines[&3].disk;
        let record: records::GroupRecord = records::read(&**disk, &keys::group(G)).unwrap().unwrap();
        let key = [&keys::state(G, record.generation), &b"!lists"[..]].concat();
        let mut batch = Batch::default();
        match known {
            true => batch.put(key, b"2".to_vec()),
            false => batch.delete(key),
        }
        disk.write(&batch, true).unwrap();
    };
    knows_lists(&nodes, true);
    for _ in 0..400 {
        if nodes.dropped(3, Violation::SnapshotConfiguration) > 0 {
            break;
        }
        nodes.run(25);
    }
    assert_eq!(nodes.dropped(3, Violation::SnapshotConfiguration), 1);
    assert_eq!(nodes.driver(3).counters().snapshots_installed.get(), 0);
    knows_lists(&nodes, false);
    nodes.run(15_000);
    assert_eq!(nodes.driver(3).counters().snapshots_installed.get(), 1);
}

#[test]
fn a_joiner_takes_no_configuration_from_the_initial_voters_either_that_the_state_does_not_allow() {
    let mut nodes = cluster(&[4]);
    nodes.elect_of(&[1, 2, 3]);
    apply(&mut nodes, "!move=1,2,3>1,2,3,4");
    offer_another(&mut nodes, 4, &of(&[1, 4], &[], &[]));
    assert_eq!(nodes.status(4).standing, Standing::Joining);
    let real = snapshot_message(&mut nodes, 4);
    nodes.receive(4, real.from, &real.frame);
    nodes.turn(4);
    assert_eq!(nodes.status(4).standing, Standing::Learner);
}

#[test]
fn data_that_are_not_written_yet_allow_nothing() {
    // The configuration is judged by what is on the disk, so a snapshot's message that comes before that is early.
    let mut nodes = away();
    nodes.cut.clear();
    nodes.cut.extend([1, 2]);
    let mut last = None;
    for _ in 0..400 {
        nodes.tick(25);
        for node in 3..=5 {
            nodes.turn(node);
        }
        while let Some(wire) = nodes.wires.pop_front() {
            if wire.to == 3 && matches!(wire.call(), Some(Call::SnapshotChunk { hash: Some(_), .. })) {
                last = Some(wire);
                break;
            }
            if (3..=5).contains(&wire.to) {
                nodes.receive(wire.to, wire.from, &wire.frame);
                nodes.turn(wire.to);
            }
        }
        if last.is_some() {
            break;
        }
    }
    let last = last.unwrap();
    let Some(Call::SnapshotChunk { id, hash, .. }) = last.call() else {
        panic!("not a chunk");
    };
    let disk = &nodes.machines[&last.from].disk;
    let applied: AppliedRecord = records::read(&**disk, &keys::applied(G)).unwrap().unwrap();
    let mut message = Message::default();
    message.set_msg_type(MessageType::MsgSnapshot);
    (message.from, message.to, message.term) = (last.from, 3, nodes.status(3).term);
    let metadata = message.mut_snapshot().mut_metadata();
    (metadata.index, metadata.term) = (applied.index, applied.term);
    metadata.set_conf_state(Configuration::stable(&[3, 4, 5]).conf_state());
    let name = SnapshotName {
        id,
        hash: hash.unwrap(),
        applied,
        configuration_index: nodes.status(last.from).configuration_index,
    };
    message.mut_snapshot().data = records::encode(&name).unwrap().into();
    nodes.receive(3, last.from, &last.frame);
    nodes.receive(3, last.from, &raft_frame(&message));
    assert_eq!(nodes.dropped(3, Violation::SnapshotData), 1);
    nodes.turn(3);
    // What the third member says of it.
    while let Some(wire) = nodes.wires.pop_front() {
        if matches!(wire.call(), Some(Call::AskState { .. } | Call::StateAt { .. })) {
            nodes.receive(wire.to, wire.from, &wire.frame);
            nodes.turn(wire.to);
        }
    }
    nodes.receive(3, last.from, &raft_frame(&message));
    nodes.turn(3);
    assert_eq!(nodes.driver(3).counters().snapshots_installed.get(), 1);
}

#[test]
fn what_comes_after_a_snapshot_in_the_same_turn_stays_pending() {
    let mut nodes = cluster(&[]);
    let believing = Settings {
        believe_leaders: true,
        ..mover(4)
    };
    let disk = Arc::new(Memory::default());
    Driver::prepare_joining(&*disk, &believing).unwrap();
    nodes.start(believing, disk, Words::default());
    nodes.elect_of(&[1, 2, 3]);
    apply(&mut nodes, "!move=1,2,3>1,2,3,4");
    let message = snapshot_message(&mut nodes, 4);
    nodes.receive(4, message.from, &message.frame);
    let metadata = message.raft().unwrap().get_snapshot().get_metadata().clone();
    let mut append = Message::default();
    append.set_msg_type(MessageType::MsgAppend);
    (append.from, append.to, append.term) = (message.from, 4, message.raft().unwrap().term);
    (append.index, append.log_term, append.commit) = (metadata.index, metadata.term, metadata.index);
    append.set_entries(
        vec![raft::eraftpb::Entry {
            index: metadata.index + 1,
            term: append.term,
            data: b"z=1".to_vec().into(),
            ..raft::eraftpb::Entry::default()
        }]
        .into(),
    );
    nodes.receive(4, message.from, &raft_frame(&append));
    nodes.turn(4);
    let status = nodes.status(4);
    assert_eq!(
        (status.applied, status.last_index),
        (metadata.index, metadata.index + 1)
    );
    assert!(!nodes.freshness(4).settle(G, scope(b'z')).unwrap().is_over());
}

#[test]
fn a_second_offer_does_not_take_away_what_is_being_installed() {
    let mut nodes = cluster(&[4]);
    nodes.elect_of(&[1, 2, 3]);
    apply(&mut nodes, "!move=1,2,3>1,2,3,4");
    let message = snapshot_message(&mut nodes, 4);
    nodes.receive(4, message.from, &message.frame);
    let offer = Call::SnapshotOffer(Offer {
        id: 1,
        index: 1_000,
        term: 2,
        chain: [0; 32],
        configuration: Configuration::stable(&[1, 2, 3, 4]),
    });
    nodes.receive(4, message.from, &call_frame(&offer));
    nodes.turn(4);
    assert_eq!(nodes.driver(4).counters().snapshots_installed.get(), 1);
}

#[test]
fn a_snapshot_at_our_commit_with_another_term_is_not_installed() {
    let mut nodes = cluster(&[]);
    let leads = nodes.elect_of(&[1, 2, 3]);
    apply(&mut nodes, "a=1");
    nodes.run(500);
    let follower = other(&[leads]);
    let status = nodes.status(follower);
    let mut message = Message::default();
    message.set_msg_type(MessageType::MsgSnapshot);
    (message.from, message.to, message.term) = (leads, follower, status.term);
    let metadata = message.mut_snapshot().mut_metadata();
    (metadata.index, metadata.term) = (status.committed, status.term - 1);
    metadata.set_conf_state(Configuration::stable(&[1, 2, 3]).conf_state());
    nodes.receive(follower, leads, &raft_frame(&message));
    assert_eq!(nodes.dropped(follower, Violation::SnapshotData), 1);
    nodes.turn(follower);
}
