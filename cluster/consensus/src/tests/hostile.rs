//! One peer that says anything: every kind of message that would stop raft 0.7 or bend its log is dropped,
//! counted under the peer's name, and the group goes on.

use super::harness::*;
use crate::*;
use proptest::prelude::*;
use protobuf::Message as _;
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeType, ConfChangeV2, Entry, EntryType, Message, MessageType, Snapshot,
};

fn message(kind: MessageType, from: NodeId, to: NodeId, term: u64) -> Message {
    let mut message = Message::default();
    message.set_msg_type(kind);
    message.from = from;
    message.to = to;
    message.term = term;
    message
}

fn entry(index: u64, term: u64) -> Entry {
    Entry {
        index,
        term,
        data: b"a=evil".to_vec().into(),
        ..Entry::default()
    }
}

struct Scene {
    nodes: Nodes,
    leader: NodeId,
    follower: NodeId,
    third: NodeId,
    term: u64,
    last: u64,
}

fn scene() -> Scene {
    let mut nodes = Nodes::new();
    let leader = nodes.elect();
    nodes.apply(leader, "a=good");
    nodes.run(200);
    let follower = other(&[leader]);
    let status = nodes.status(leader);
    let third = other(&[leader, follower]);
    Scene {
        leader,
        follower,
        third,
        term: status.term,
        last: status.last_index,
        nodes,
    }
}

impl Scene {
    /// The message is dropped for this reason, and nothing changes.
    fn refused(&mut self, to: NodeId, from: NodeId, message: &Message, why: Violation) {
        let before = (self.nodes.status(to), self.nodes.dropped(to, why));
        self.nodes.receive(to, from, &raft_frame(message));
        self.nodes.turn(to);
        assert_eq!(
            self.nodes.dropped(to, why),
            before.1 + 1,
            "{message:?} is not dropped as {why}"
        );
        assert_eq!(self.nodes.status(to), before.0, "{message:?} changed something");
    }

    fn goes_on(mut self) {
        self.nodes.deliver();
        let leader = self.leader;
        self.nodes.apply(leader, "a=on");
        self.nodes.run(200);
        for node in 1..=3 {
            assert_eq!(self.nodes.value(node, "a").as_deref(), Some("on"));
            assert_eq!(self.nodes.status(node).term, self.term);
        }
    }
}

#[test]
fn a_heartbeat_that_commits_above_our_log() {
    let mut scene = scene();
    let mut heartbeat = message(
        MessageType::MsgHeartbeat,
        scene.leader,
        scene.follower,
        scene.term,
    );
    heartbeat.commit = scene.last + 1;
    scene.refused(
        scene.follower,
        scene.leader,
        &heartbeat,
        Violation::HeartbeatCommit,
    );
    scene.goes_on();
}

#[test]
fn terms_that_are_zero_or_far_away() {
    let mut scene = scene();
    for kind in [
        MessageType::MsgRequestVote,
        MessageType::MsgAppendResponse,
        MessageType::MsgHeartbeat,
    ] {
        for term in [0, u64::MAX, scene.term + 1_001] {
            let hostile = message(kind, scene.third, scene.follower, term);
            scene.refused(scene.follower, scene.third, &hostile, Violation::Term);
        }
    }
    scene.goes_on();
}

#[test]
fn kinds_that_no_peer_may_send() {
    let mut scene = scene();
    let mut change = ConfChangeV2::default();
    let mut single = ConfChangeSingle::default();
    single.set_change_type(ConfChangeType::RemoveNode);
    single.node_id = scene.follower;
    change.mut_changes().push(single);
    let mut evil = entry(0, 0);
    evil.set_entry_type(EntryType::EntryConfChangeV2);
    evil.data = change.write_to_bytes().unwrap().into();
    let mut propose = message(MessageType::MsgPropose, scene.third, scene.leader, scene.term);
    propose.set_entries(vec![evil].into());
    scene.refused(scene.leader, scene.third, &propose, Violation::Malformed);
    for kind in [
        MessageType::MsgPropose,
        MessageType::MsgHup,
        MessageType::MsgBeat,
        MessageType::MsgCheckQuorum,
        MessageType::MsgTransferLeader,
        MessageType::MsgReadIndex,
        MessageType::MsgReadIndexResp,
        MessageType::MsgUnreachable,
        MessageType::MsgSnapStatus,
    ] {
        let hostile = message(kind, scene.third, scene.leader, scene.term);
        scene.refused(scene.leader, scene.third, &hostile, Violation::Kind);
    }
    scene.goes_on();
}

#[test]
fn names_that_are_not_the_links() {
    let mut scene = scene();
    let (leader, follower, third) = (scene.leader, scene.follower, scene.third);
    let forged = message(MessageType::MsgHeartbeat, leader, follower, scene.term);
    scene.refused(follower, third, &forged, Violation::Sender);
    let elsewhere = message(MessageType::MsgHeartbeat, leader, third, scene.term);
    scene.refused(follower, leader, &elsewhere, Violation::Receiver);
    let stranger = message(MessageType::MsgRequestVote, 9, follower, scene.term + 1);
    scene.refused(follower, 9, &stranger, Violation::NotMember);
    let ourselves = message(MessageType::MsgHeartbeat, follower, follower, scene.term);
    scene.refused(follower, follower, &ourselves, Violation::NotMember);
    scene.goes_on();
}

#[test]
fn a_second_leader_and_a_timeout_now_from_a_follower() {
    let mut scene = scene();
    let (leader, follower, third) = (scene.leader, scene.follower, scene.third);
    for to in [leader, follower] {
        let heartbeat = message(MessageType::MsgHeartbeat, third, to, scene.term);
        scene.refused(to, third, &heartbeat, Violation::SecondLeader);
    }
    let now = message(MessageType::MsgTimeoutNow, third, follower, scene.term);
    scene.refused(follower, third, &now, Violation::TimeoutNow);
    let later = message(MessageType::MsgTimeoutNow, leader, follower, scene.term + 1);
    scene.refused(follower, leader, &later, Violation::TimeoutNow);
    scene.goes_on();
}

#[test]
fn appends_that_are_torn_or_contradict_what_is_committed() {
    let mut scene = scene();
    let (leader, follower, term, last) = (scene.leader, scene.follower, scene.term, scene.last);
    let append = |index: u64, log_term: u64, entries: Vec<Entry>| {
        let mut append = message(MessageType::MsgAppend, leader, follower, term);
        append.index = index;
        append.log_term = log_term;
        append.commit = last;
        append.set_entries(entries.into());
        append
    };
    for shape in [
        append(last, term, vec![entry(last + 2, term)]),
        append(last, term, vec![entry(last + 1, term), entry(last + 1, term)]),
        append(last, term, vec![entry(last + 1, term + 1)]),
        append(last, term, vec![entry(last + 1, term - 1)]),
        append(last, term + 1, vec![]),
        append(0, 0, vec![]),
        append(u64::MAX, term, vec![entry(0, term)]),
    ] {
        scene.refused(follower, leader, &shape, Violation::AppendShape);
    }
    // The entry at `last` has this term and is committed.
    for conflict in [
        append(last - 1, 1, vec![entry(last, 1)]),
        append(last, 1, vec![]),
        append(last + 3, term - 1, vec![]),
    ] {
        scene.refused(follower, leader, &conflict, Violation::AppendConflict);
    }
    scene.goes_on();
}

#[test]
fn responses_about_entries_that_we_never_had() {
    let mut scene = scene();
    let (leader, third, term, last) = (scene.leader, scene.third, scene.term, scene.last);
    let base = message(MessageType::MsgAppendResponse, third, leader, term);
    let beyond = Message {
        index: last + 1,
        ..base.clone()
    };
    let hint = Message {
        index: last,
        reject: true,
        reject_hint: last + 9,
        log_term: term,
        ..base.clone()
    };
    let commit = Message {
        commit: last + 1,
        ..base.clone()
    };
    let request = Message {
        request_snapshot: last,
        reject: true,
        ..base
    };
    for hostile in [beyond, hint, commit, request] {
        scene.refused(leader, third, &hostile, Violation::Response);
    }
    scene.goes_on();
}

#[test]
fn fields_of_other_kinds_and_unknown_ones() {
    let mut scene = scene();
    let (leader, follower, third, term) = (scene.leader, scene.follower, scene.third, scene.term);
    let mut with_entries = message(MessageType::MsgHeartbeat, leader, follower, term);
    with_entries.set_entries(vec![entry(1, 1)].into());
    let mut with_snapshot = message(MessageType::MsgHeartbeat, leader, follower, term);
    with_snapshot.set_snapshot(Snapshot::default());
    let mut long_context = message(MessageType::MsgHeartbeat, leader, follower, term);
    long_context.context = vec![0; 65].into();
    let mut unknown = message(MessageType::MsgHeartbeat, leader, follower, term);
    unknown.mut_unknown_fields().add_varint(99, 1);
    for hostile in [with_entries, with_snapshot, long_context, unknown] {
        scene.refused(follower, leader, &hostile, Violation::Malformed);
    }
    let mut forced = message(MessageType::MsgRequestVote, third, follower, term + 1);
    forced.context = b"CampaignElsewhere".to_vec().into();
    scene.refused(follower, third, &forced, Violation::Malformed);
    scene.goes_on();
}

#[test]
fn a_votes_hint_commits_nothing() {
    let mut scene = scene();
    let (leader, follower, third) = (scene.leader, scene.follower, scene.third);
    // An entry that only this follower has: nobody may commit it by a word.
    scene.nodes.propose(leader, 1, "a=uncommitted");
    scene.nodes.turn(leader);
    let append = scene
        .nodes
        .wires
        .iter()
        .find(|wire| wire.to == follower)
        .cloned()
        .unwrap();
    scene.nodes.wires.clear();
    scene.nodes.receive(follower, leader, &append.frame);
    scene.nodes.turn(follower);
    let before = scene.nodes.status(follower).committed;
    let mut vote = message(MessageType::MsgRequestPreVote, third, follower, scene.term);
    vote.commit = scene.last + 1;
    vote.commit_term = scene.term;
    vote.index = 1;
    vote.log_term = 1;
    scene.nodes.receive(follower, third, &raft_frame(&vote));
    scene.nodes.turn(follower);
    assert_eq!(scene.nodes.status(follower).committed, before);
}

#[test]
fn a_configuration_in_the_log_changes_nothing() {
    let mut scene = scene();
    let (leader, follower, term, last) = (scene.leader, scene.follower, scene.term, scene.last);
    let mut change = ConfChangeV2::default();
    let mut single = ConfChangeSingle::default();
    single.set_change_type(ConfChangeType::AddNode);
    single.node_id = 9;
    change.mut_changes().push(single);
    let mut evil = entry(last + 1, term);
    evil.set_entry_type(EntryType::EntryConfChangeV2);
    evil.data = change.write_to_bytes().unwrap().into();
    let mut append = message(MessageType::MsgAppend, leader, follower, term);
    append.index = last;
    append.log_term = term;
    append.commit = last + 1;
    append.set_entries(vec![evil].into());
    scene.nodes.receive(follower, leader, &raft_frame(&append));
    scene.nodes.turn(follower);
    let status = scene.nodes.status(follower);
    assert_eq!(
        (status.applied, &status.configuration.voters[..]),
        (last + 1, &[1, 2, 3][..])
    );
    assert_eq!(
        scene.nodes.machines[&follower]
            .driver
            .counters()
            .configurations_refused
            .get(),
        1
    );
}

#[test]
fn frames_of_other_clusters_groups_and_lengths() {
    let mut scene = scene();
    let (leader, follower) = (scene.leader, scene.follower);
    let heartbeat = message(MessageType::MsgHeartbeat, leader, follower, scene.term);
    let foreign = crate::frame::raft(&[8; 32], G, &heartbeat).unwrap();
    scene.nodes.receive(follower, leader, &foreign);
    assert_eq!(scene.nodes.dropped(follower, Violation::Cluster), 1);
    let unknown = crate::frame::raft(&CLUSTER, GroupId(7), &heartbeat).unwrap();
    scene.nodes.receive(follower, leader, &unknown);
    assert_eq!(scene.nodes.dropped(follower, Violation::Group), 1);
    let mut long = raft_frame(&heartbeat);
    long.resize(MAX_FRAME + 1, 0);
    scene.nodes.receive(follower, leader, &long);
    assert_eq!(scene.nodes.dropped(follower, Violation::TooLong), 1);
    scene.nodes.receive(follower, leader, &[]);
    assert_eq!(scene.nodes.dropped(follower, Violation::Malformed), 1);
    assert_eq!(
        scene.nodes.machines[&follower].driver.counters().dropped()[0].0,
        leader,
        "the peer is named"
    );
    scene.goes_on();
}

/// Values around the edges of what the group has.
fn near(last: u64) -> impl Strategy<Value = u64> {
    prop_oneof![0..last + 4, Just(u64::MAX), Just(u64::MAX - 1), Just(1_000u64)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever one peer sends in any order, no node panics, and the other two go on once it is silent.
    #[test]
    fn no_sequence_of_messages_stops_the_others(
        hostile in proptest::collection::vec(
            (0i32..19, near(12), near(12), near(12), near(12), near(12), any::<bool>(), 0usize..4, any::<bool>()),
            1..40,
        ),
    ) {
        let mut scene = scene();
        let evil = scene.third;
        for (kind, term, index, log_term, commit, hint, reject, entries, to_leader) in hostile {
            let to = if to_leader { scene.leader } else { scene.follower };
            let kind = <MessageType as protobuf::ProtobufEnum>::from_i32(kind).unwrap();
            let mut message = message(kind, evil, to, term);
            message.index = index;
            message.log_term = log_term;
            message.commit = commit;
            message.commit_term = log_term;
            message.reject_hint = hint;
            message.reject = reject;
            let made = (1..=entries as u64).map(|next| entry(index.wrapping_add(next), log_term.max(term.min(3))));
            if kind == MessageType::MsgAppend {
                message.set_entries(made.collect::<Vec<_>>().into());
            }
            scene.nodes.receive(to, evil, &raft_frame(&message));
            scene.nodes.turn(to);
        }
        scene.nodes.wires.clear();
        scene.nodes.cut.insert(evil);
        // A vote or a higher term may cost an election; no more.
        scene.nodes.run(3_000);
        let leader = scene.nodes.elect();
        scene.nodes.propose(leader, 1, "z=1");
        scene.nodes.run(500);
        prop_assert!(scene.nodes.proposed(leader, 1).unwrap().is_ok());
    }
}
