//! Entries of configuration that the state does not call for, from a corrupt leader; and moves under random faults.

use super::configuration::*;
use super::harness::*;
use crate::*;
use protobuf::Message as _;
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, Entry, EntryType, Message,
    MessageType,
};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;
use std::collections::BTreeMap;
use std::sync::Arc;

fn change(singles: &[(ConfChangeType, NodeId)], joint: bool) -> ConfChangeV2 {
    let mut change = ConfChangeV2::default();
    for (kind, node) in singles {
        let mut single = ConfChangeSingle::default();
        single.set_change_type(*kind);
        single.node_id = *node;
        change.mut_changes().push(single);
    }
    if joint {
        change.set_transition(ConfChangeTransition::Explicit);
    }
    change
}

/// The leader puts these entries of configuration into a follower's log and commits them.
fn forced(nodes: &mut Nodes, follower: NodeId, entries: Vec<(EntryType, Vec<u8>)>) {
    let leads = leader(nodes).unwrap();
    let status = nodes.status(follower);
    let mut append = Message::default();
    append.set_msg_type(MessageType::MsgAppend);
    (append.from, append.to, append.term) = (leads, follower, status.term);
    (append.index, append.log_term) = (status.last_index, status.term);
    append.commit = status.last_index + entries.len() as u64;
    let made = (status.last_index + 1..)
        .zip(entries)
        .map(|(index, (kind, data))| {
            let mut entry = Entry {
                index,
                term: status.term,
                data: data.into(),
                ..Entry::default()
            };
            entry.set_entry_type(kind);
            entry
        });
    append.set_entries(made.collect::<Vec<_>>().into());
    nodes.receive(follower, leads, &raft_frame(&append));
    nodes.turn(follower);
    assert_eq!(nodes.status(follower).applied, append.commit);
}

#[test]
fn an_entry_that_the_state_does_not_call_for_changes_nothing() {
    use ConfChangeType::{AddLearnerNode, AddNode, RemoveNode};
    // Without a move, and with one to 1, 2, 3, 4 whose learner has not come yet.
    for wanted in [false, true] {
        let mut nodes = cluster(&[]);
        let leads = nodes.elect_of(&[1, 2, 3]);
        let follower = other(&[leads]);
        let all: Vec<NodeId> = (1..=3).collect();
        let rest = nodes
            .machines
            .keys()
            .copied()
            .find(|node| ![leads, follower].contains(node));
        if wanted {
            nodes.apply(leads, "!move=1,2,3>1,2,3,4");
            until_all_have(&mut nodes, &all, &of(&[1, 2, 3], &[], &[4]));
        }
        nodes.cut.insert(rest.unwrap());
        let before = nodes.status(follower);
        let refused_before = nodes.driver(follower).counters().configurations_refused.get();
        let v2 = |change: ConfChangeV2| (EntryType::EntryConfChangeV2, change.write_to_bytes().unwrap());
        let evil = vec![
            v2(change(&[(AddNode, 9)], false)),
            v2(change(&[(AddLearnerNode, 9)], false)),
            v2(change(&[(AddLearnerNode, 4), (AddLearnerNode, 9)], false)),
            v2(change(&[(RemoveNode, 1)], false)),
            v2(change(&[(AddNode, 4)], false)),
            v2(change(&[(AddNode, 4), (RemoveNode, 1)], true)),
            v2(change(&[], false)),
            (EntryType::EntryConfChangeV2, vec![0xff; 9]),
            (EntryType::EntryConfChange, vec![8, 1]),
            (EntryType::EntryConfChange, vec![]),
        ];
        let count = evil.len() as u64;
        forced(&mut nodes, follower, evil);
        let after = nodes.status(follower);
        assert_eq!(
            (after.configuration, after.configuration_index),
            (before.configuration, before.configuration_index)
        );
        let counters = nodes.driver(follower).counters();
        assert_eq!(counters.configurations_refused.get(), refused_before + count);
        assert_eq!(after.halted, None);
    }
}

#[test]
fn a_step_out_of_its_order_changes_nothing_and_the_right_one_counts() {
    use ConfChangeType::{AddLearnerNode, AddNode};
    let v2 = |change: ConfChangeV2| (EntryType::EntryConfChangeV2, change.write_to_bytes().unwrap());
    let learner = v2(change(&[(AddLearnerNode, 4)], false));
    let joint = v2(change(&[(AddNode, 4)], true));
    let leave = v2(change(&[], false));
    let word = |word: &str| (EntryType::EntryNormal, word.as_bytes().to_vec());
    let steps = [
        (learner.clone(), Configuration::stable(&[1, 2, 3])),
        (word("!move=1,2,3>1,2,3,4"), Configuration::stable(&[1, 2, 3])),
        (joint.clone(), Configuration::stable(&[1, 2, 3])),
        (leave.clone(), Configuration::stable(&[1, 2, 3])),
        (learner.clone(), of(&[1, 2, 3], &[], &[4])),
        (learner.clone(), of(&[1, 2, 3], &[], &[4])),
        (leave.clone(), of(&[1, 2, 3], &[], &[4])),
        // The newcomers have come, and the state does not say yet that it may begin.
        (word("!waits=yes"), of(&[1, 2, 3], &[], &[4])),
        (joint.clone(), of(&[1, 2, 3], &[], &[4])),
        (word("!waits=no"), of(&[1, 2, 3], &[], &[4])),
        (joint.clone(), of(&[1, 2, 3, 4], &[1, 2, 3], &[])),
        (leave.clone(), of(&[1, 2, 3, 4], &[1, 2, 3], &[])),
        (word("!complete=yes"), of(&[1, 2, 3, 4], &[1, 2, 3], &[])),
        (joint, of(&[1, 2, 3, 4], &[1, 2, 3], &[])),
        (leave.clone(), Configuration::stable(&[1, 2, 3, 4])),
        (leave, Configuration::stable(&[1, 2, 3, 4])),
    ];
    // All of them in one batch come to the same.
    for together in [false, true] {
        let mut nodes = cluster(&[]);
        let leads = nodes.elect_of(&[1, 2, 3]);
        let follower = other(&[leads]);
        if together {
            forced(
                &mut nodes,
                follower,
                steps.iter().map(|(entry, _)| entry.clone()).collect(),
            );
        } else {
            for (entry, expected) in &steps {
                forced(&mut nodes, follower, vec![entry.clone()]);
                assert_eq!(nodes.status(follower).configuration, *expected, "after {entry:?}");
            }
        }
        let status = nodes.status(follower);
        assert_eq!(status.configuration, Configuration::stable(&[1, 2, 3, 4]));
        let counters = nodes.driver(follower).counters();
        assert_eq!(counters.configurations_applied.get(), 3);
        assert_eq!(counters.configurations_refused.get(), 9);
        // And the disk has it.
        let disk = kill(&mut nodes, follower);
        nodes.start(mover(follower), disk, Words::default());
        assert_eq!(nodes.status(follower).configuration, status.configuration);
    }
}

#[test]
fn who_decides_waits_for_an_entry_of_configuration_from_before_it_is_acknowledged() {
    for leading in [true, false] {
        let mut nodes = cluster(&[4]);
        let leads = nodes.elect_of(&[1, 2, 3]);
        let at = match leading {
            true => leads,
            false => other(&[leads]),
        };
        nodes.propose(leads, 1, "!move=1,2,3>1,2,3,4");
        // Message by message, to the first moment at which the entry is in this node's log.
        let mut seen = false;
        for _ in 0..2_000 {
            deliver_one(&mut nodes);
            let status = nodes.status(at);
            let log_has_it = (status.applied + 1..=status.last_index).any(|index| {
                let key = keys::entry(G, index);
                let entry = nodes.machines[&at].disk.get(&key).unwrap();
                entry.is_some_and(|bytes| {
                    let entry: Entry = records::decode_raft(&bytes).unwrap();
                    entry.get_entry_type() == EntryType::EntryConfChangeV2
                })
            });
            if log_has_it {
                let mut waiting = nodes.freshness(at).settle(G, scope(b'q')).unwrap();
                assert!(!waiting.is_over(), "any scope waits, leading or not");
                seen = true;
                break;
            }
        }
        assert!(seen, "the entry was pending for a moment");
        let mut waiting = nodes.freshness(at).settle(G, scope(b'q')).unwrap();
        until(&mut nodes, "the learner is there", |nodes| {
            !nodes.status(at).configuration.learners.is_empty()
        });
        assert!(waiting.is_over());
        let view = nodes.freshness(at).view(G).unwrap();
        assert_eq!(view.configuration().0.learners, [4], "and then its view has it");
    }
}

/// One run of moves while messages are lost and nodes die; everything acknowledged is there in the end.
fn under_faults(seed: u64) {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let targets: [&[NodeId]; 5] = [&[1, 2, 3, 4, 5], &[3, 4, 5], &[4, 5, 6], &[1, 2, 4], &[2, 3]];
    let to = targets[rng.gen_range(0..targets.len())].to_vec();
    let joiners: Vec<NodeId> = to.iter().copied().filter(|node| *node > 3).collect();
    let mut nodes = cluster(&joiners);
    let everybody: Vec<NodeId> = nodes.machines.keys().copied().collect();
    nodes.elect_of(&[1, 2, 3]);
    let list: Vec<String> = to.iter().map(ToString::to_string).collect();
    apply(&mut nodes, &format!("!move=1,2,3>{}", list.join(",")));
    apply(&mut nodes, "!complete=yes");
    let mut dead: BTreeMap<NodeId, Arc<Memory>> = BTreeMap::new();
    let mut acknowledged: Vec<u64> = Vec::new();
    let mut leaders: BTreeMap<u64, NodeId> = BTreeMap::new();
    let mut chains: BTreeMap<u64, [u8; 32]> = BTreeMap::new();
    for round in 0..400u64 {
        if rng.gen_bool(0.03) && dead.is_empty() {
            let victim = everybody[rng.gen_range(0..everybody.len())];
            let disk = kill(&mut nodes, victim);
            // What was not synced may be lost with the machine.
            let lost = rng.gen_bool(0.5);
            let (count, synced) = {
                let batches = disk.batches.lock();
                let last = batches.iter().rposition(|(_, sync)| *sync);
                (batches.len(), last.map_or(0, |at| at + 1))
            };
            let kept = match lost {
                true => rng.gen_range(synced..=count),
                false => count,
            };
            dead.insert(victim, disk.after(kept));
        } else if rng.gen_bool(0.08)
            && let Some((node, disk)) = dead.pop_first()
        {
            nodes.start(mover(node), disk, Words::default());
        }
        if rng.gen_bool(0.05) {
            nodes.cut = everybody.iter().copied().filter(|_| rng.gen_bool(0.2)).collect();
        }
        let alive: Vec<NodeId> = nodes.machines.keys().copied().collect();
        let through = alive[rng.gen_range(0..alive.len())];
        nodes.propose(through, 1_000 + round, &format!("w{round}=1"));
        nodes.tick(25);
        for node in alive.iter().copied() {
            nodes.turn(node);
        }
        for _ in 0..rng.gen_range(0..200) {
            let Some(wire) = nodes.wires.pop_front() else {
                break;
            };
            let lost = rng.gen_bool(0.02) || nodes.cut.contains(&wire.from) || nodes.cut.contains(&wire.to);
            if !lost && nodes.machines.contains_key(&wire.to) {
                nodes.receive(wire.to, wire.from, &wire.frame);
                nodes.turn(wire.to);
            }
        }
        for node in alive {
            let status = nodes.status(node);
            assert_eq!(status.halted, None, "seed {seed}");
            if status.role == Role::Leader {
                let other = leaders.insert(status.term, node);
                assert!(
                    other.is_none_or(|other| other == node),
                    "two leaders, seed {seed}"
                );
            }
            if status.applied > 0 {
                let chain = chains.entry(status.applied).or_insert(status.chain);
                assert_eq!(*chain, status.chain, "two states at one index, seed {seed}");
            }
        }
        for earlier in 0..=round {
            if nodes.machines.contains_key(&through)
                && let Some(Ok(_)) = nodes.proposed(through, 1_000 + earlier)
            {
                acknowledged.push(earlier);
            }
        }
    }
    nodes.cut.clear();
    for (node, disk) in std::mem::take(&mut dead) {
        nodes.start(mover(node), disk, Words::default());
    }
    until_all_have(&mut nodes, &to, &Configuration::stable(&to));
    apply(&mut nodes, "end=1");
    nodes.run(1_000);
    for node in &to {
        for round in &acknowledged {
            let value = nodes.value(*node, &format!("w{round}"));
            assert_eq!(value.as_deref(), Some("1"), "w{round} on {node}, seed {seed}");
        }
        assert_eq!(nodes.value(*node, "end").as_deref(), Some("1"), "seed {seed}");
        assert_eq!(
            nodes.status(*node).chain,
            nodes.status(to[0]).chain,
            "seed {seed}"
        );
        assert_eq!(
            nodes.driver(*node).counters().dropped_total(),
            0,
            "{:?}, seed {seed}",
            nodes.driver(*node).counters().dropped()
        );
    }
    assert!(!acknowledged.is_empty(), "seed {seed}");
}

#[test]
fn moves_come_to_their_end_under_faults_and_lose_nothing() {
    for seed in 0..24 {
        under_faults(seed);
    }
}
