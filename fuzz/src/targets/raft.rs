//! Frames of peers to a node that leads or follows: whatever they say, the node goes on, its log stays the log of one
//! history, and what it has applied stays applied.

use std::sync::LazyLock;

use conclave_consensus::{GroupStatus, NodeId};
use protobuf::{Message as _, ProtobufEnum as _};
use raft::eraftpb::{Entry, EntryType, Message, MessageType};

use super::{Seed, Target, seed};
use crate::support::input::{Input, Output};
use crate::support::raft::{CLUSTER, Event, GROUP, Lives, Node, lives};

pub(super) const TARGET: Target = Target {
    name: "raft",
    longest: 2_048,
    mutations: 1_000,
    run,
    seeds,
};

/// Things that happen in one input.
const MOST_EVENTS: usize = 24;

const BODY: u8 = 0;
const MESSAGE: u8 = 1;
const TICKS: u8 = 2;
const FRAME: u8 = 3;
const PROPOSE: u8 = 4;
const READ: u8 = 5;
const KINDS: u8 = 6;

static LIVES: LazyLock<Lives> = LazyLock::new(lives);

/// A byte that says whether the node leads; then what happens.
fn run(bytes: &[u8]) -> bool {
    let mut input = Input(bytes);
    let (number, events) = match input.byte() & 1 {
        0 => &LIVES.follower,
        _ => &LIVES.leader,
    };
    let mut node = Node::new(*number);
    for event in events {
        node.take(event);
    }
    let born = node.status();
    let mut before = born.clone();
    for _ in 0..MOST_EVENTS {
        if input.is_empty() {
            break;
        }
        for event in next(&mut input, *number, &before) {
            node.take(&event);
            let after = node.status();
            check(&before, &after);
            before = after;
        }
    }
    before.term > born.term || before.applied > born.applied
}

fn check(before: &GroupStatus, after: &GroupStatus) {
    assert!(after.term >= before.term, "terms only rise");
    assert!(
        after.committed >= before.committed,
        "nothing committed is taken back"
    );
    assert!(after.applied >= before.applied, "nothing applied is taken back");
    assert!(after.applied <= after.committed && after.committed <= after.last_index);
    assert!(
        after.applied > before.applied || after.chain == before.chain,
        "one history"
    );
    assert_eq!(
        after.configuration, before.configuration,
        "no peer changes the members"
    );
    assert_eq!(after.halted, None, "no peer stops a group");
}

fn next(input: &mut Input<'_>, me: NodeId, status: &GroupStatus) -> Vec<Event> {
    let kind = input.byte();
    // One of the two others.
    let from = (me + NodeId::from(kind >> 7)) % 3 + 1;
    match kind % KINDS {
        BODY => {
            let kind = input.byte();
            vec![Event::Frame(from, frame(kind, input.chunk()))]
        }
        MESSAGE => {
            let body = message(input, from, me, status).write_to_bytes();
            vec![Event::Frame(from, frame(0, &body.unwrap_or_default()))]
        }
        TICKS => vec![Event::Tick; 1 + usize::from(input.byte() % 16)],
        FRAME => vec![Event::Frame(from, input.chunk().to_vec())],
        PROPOSE => vec![Event::Propose(input.chunk().to_vec())],
        READ => vec![Event::Read],
        _ => vec![],
    }
}

/// A frame of this cluster and group: a message of raft (0) or a call (1).
fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[1], &CLUSTER[..], &GROUP.0.to_be_bytes(), &[kind], body].concat()
}

/// A message whose numbers lie around those of the node.
fn message(input: &mut Input<'_>, from: NodeId, to: NodeId, status: &GroupStatus) -> Message {
    let near = |input: &mut Input<'_>, number: u64| match input.byte() as i8 {
        i8::MAX => u64::MAX,
        i8::MIN => 0,
        by => number.saturating_add_signed(by.into()),
    };
    let kinds = MessageType::values();
    let mut message = Message {
        from,
        to,
        ..Message::default()
    };
    message.set_msg_type(kinds[usize::from(input.byte()) % kinds.len()]);
    message.term = near(input, status.term);
    message.log_term = near(input, status.term);
    message.index = near(input, status.last_index);
    message.commit = near(input, status.committed);
    let flags = input.byte();
    let mut last = (message.index, message.log_term);
    for _ in 0..flags & 3 {
        let mut entry = Entry::default();
        last = (near(input, last.0.saturating_add(1)), near(input, last.1));
        (entry.index, entry.term) = last;
        let kinds = EntryType::values();
        entry.set_entry_type(kinds[usize::from(input.byte()) % kinds.len()]);
        entry.data = input.chunk().to_vec().into();
        message.entries.push(entry);
    }
    message.reject = flags & 4 != 0;
    if flags & 8 != 0 {
        message.reject_hint = near(input, status.last_index);
        message.commit_term = near(input, status.term);
        message.request_snapshot = near(input, 0);
        message.priority = i64::from(input.byte() as i8);
    }
    if flags & 16 != 0 {
        message.context = input.chunk().to_vec().into();
    }
    if flags & 32 != 0 {
        let snapshot = message.mut_snapshot();
        snapshot.data = input.chunk().to_vec().into();
        let (index, term) = (near(input, status.last_index), near(input, status.term));
        let metadata = snapshot.mut_metadata();
        (metadata.index, metadata.term) = (index, term);
        metadata.mut_conf_state().voters = (1..=3).take(usize::from(input.byte() % 4)).collect();
    }
    message
}

/// The byte that says this about one of the two peers.
fn kind(kind: u8, peer: bool) -> u8 {
    let mut bytes = (0..=u8::MAX).filter(|byte| byte % KINDS == kind && (byte >> 7 == 1) == peer);
    bytes.next().unwrap_or(kind)
}

fn seeds() -> Vec<Seed> {
    let mut seeds = Vec::new();
    // A recorded frame of each kind and size, to each of the two.
    let mut known = Vec::new();
    for (from, frame) in &LIVES.frames {
        for (leads, (me, _)) in [(0, &LIVES.follower), (1, &LIVES.leader)] {
            let like = (leads, frame[37..40].to_vec(), frame.len() / 16);
            if from == me || known.contains(&like) {
                continue;
            }
            known.push(like);
            let other = (me + 1) % 3 + 1 == *from;
            let output = Output::default()
                .byte(leads)
                .byte(kind(BODY, other))
                .byte(frame[37]);
            let name = format!("frame-{:02}", seeds.len());
            seeds.push(seed(name, output.chunk(&frame[38..]).byte(TICKS).byte(1).0));
        }
    }
    let kinds = MessageType::values().len() as u8;
    let near = |output: Output, peer: bool, number: u8, by: [i8; 4], flags: u8| {
        let output = output.byte(kind(MESSAGE, peer)).byte(number);
        let output = by.iter().fold(output, |output, by| output.byte(*by as u8));
        output.byte(flags)
    };
    // Messages of every kind: term, log term, index and commit are the node's own, or a little more.
    for leads in [0, 1] {
        for peer in [false, true] {
            for (name, by) in [
                ("same", [0; 4]),
                ("commit", [0, 0, 0, 9]),
                ("term", [1, 0, 0, 0]),
                ("index", [0, 0, 1, 0]),
            ] {
                let output = Output::default().byte(leads);
                let all = (0..kinds).fold(output, |output, number| near(output, peer, number, by, 0));
                seeds.push(seed(
                    format!("{name}-{leads}{}", u8::from(peer)),
                    all.byte(TICKS).byte(3).0,
                ));
            }
        }
    }
    let number = |kind| {
        MessageType::values()
            .iter()
            .position(|other| *other == kind)
            .unwrap_or(0) as u8
    };
    let (append, vote) = (
        number(MessageType::MsgAppend),
        number(MessageType::MsgRequestVote),
    );
    let entry = near(Output::default().byte(0), false, append, [1, 0, 0, 1], 1);
    let entry = entry.byte(0).byte(1).byte(0).chunk(b"x=1");
    seeds.push(seed(
        "append-vote",
        near(entry, false, vote, [2, 1, 0, 0], 0).byte(TICKS).byte(15).0,
    ));
    let granted = [
        MessageType::MsgRequestPreVoteResponse,
        MessageType::MsgRequestVoteResponse,
    ]
    .map(number);
    let campaign = (0..6).fold(Output::default().byte(0), |output, _| output.byte(TICKS).byte(15));
    let elected = near(campaign, false, granted[0], [1, 0, 0, 0], 0);
    let elected = near(elected, false, granted[1], [0; 4], 0);
    seeds.push(seed("campaign", elected.byte(PROPOSE).chunk(b"y=1").byte(READ).0));
    seeds
}
