//! A state that came from one node: a voter installs it once others have said that it is theirs, and never if it is not; a
//! newcomer installs it and believes it later.

use super::configuration::{apply, cluster, deliver_one};
use super::harness::*;
use crate::frame::Call;
use crate::records::{self, AppliedRecord, GroupRecord};
use crate::snapshots::{Offer, SnapshotName, hash_pairs};
use crate::store::{Batch, Reading as _, Store as _};
use crate::*;
use raft::eraftpb::{Message, MessageType};
use sha2::{Digest as _, Sha256};

/// A node that was cut off until the log that it needs is gone, the leader, and who else there is.
fn lagging(adjust: impl Fn(&mut Settings)) -> (Nodes, NodeId, NodeId, NodeId) {
    let mut nodes = Nodes::with(|settings| {
        settings.truncate_above = 8;
        settings.keep_entries = 2;
        adjust(settings);
    });
    let leader = nodes.elect();
    let away = other(&[leader]);
    nodes.apply(leader, "before=here");
    nodes.run(300);
    nodes.cut.insert(away);
    for round in 0..20 {
        nodes.apply(leader, &format!("key{round}=value{round}"));
    }
    nodes.wires.clear();
    (nodes, away, leader, other(&[leader, away]))
}

fn installed(nodes: &Nodes, node: NodeId) -> u64 {
    nodes.machines[&node].driver.counters().snapshots_installed.get()
}

fn reason(nodes: &Nodes, node: NodeId) -> Option<Reason> {
    let abstain = nodes.freshness(node).may_contribute(G).err();
    abstain.map(|abstain| abstain.reason)
}

/// Puts another value into a node's state behind its back.
fn forge(nodes: &Nodes, node: NodeId, key: &str, value: &str) {
    let disk = &nodes.machines[&node].disk;
    let record: GroupRecord = records::read(&**disk, &keys::group(G)).unwrap().unwrap();
    let full = [&keys::state(G, record.generation), key.as_bytes()].concat();
    assert!(disk.get(&full).unwrap().is_some());
    let mut batch = Batch::default();
    batch.put(full, value.into());
    disk.write(&batch, true).unwrap();
}

/// What a node says of its state in its statements from here on.
fn said(nodes: &Nodes, node: NodeId, since: usize) -> Vec<bool> {
    let calls = nodes.sent[since..].iter().filter(|wire| wire.from == node);
    let states = calls.filter_map(|wire| match wire.call() {
        Some(Call::Statement { states, .. }) => Some(states.is_some()),
        _ => None,
    });
    states.collect()
}

/// What a node answered to who asked for its state at an index.
fn told(nodes: &Nodes, node: NodeId, since: usize) -> Vec<Option<[u8; 32]>> {
    let calls = nodes.sent[since..].iter().filter(|wire| wire.from == node);
    let states = calls.filter_map(|wire| match wire.call() {
        Some(Call::StateAt { stated, .. }) => Some(stated),
        _ => None,
    });
    states.collect()
}

fn restart(nodes: &mut Nodes, node: NodeId, settings: Settings) {
    let disk = nodes.machines.remove(&node).unwrap().disk;
    nodes.start(settings, disk, Words::default());
}

#[test]
fn a_voter_keeps_what_it_has_until_another_one_has_the_same_state() {
    let (mut nodes, away, leader, third) = lagging(|_| {});
    let before = nodes.status(away).applied;
    nodes.cut = [third].into();
    nodes.run(400);
    let chunks = |wire: &Wire| matches!(wire.call(), Some(Call::SnapshotChunk { .. }));
    assert!(nodes.sent.iter().any(chunks), "everything is here");
    assert_eq!((installed(&nodes, away), nodes.status(away).applied), (0, before));
    assert_eq!(nodes.status(away).unvouched, Some(leader));
    assert_eq!(nodes.value(away, "before").as_deref(), Some("here"));
    // The other one comes back; nothing has to be sent again.
    let since = nodes.sent.len();
    nodes.cut.clear();
    nodes.run(2_000);
    assert_eq!(installed(&nodes, away), 1);
    assert!(!nodes.sent[since..].iter().any(chunks));
    assert_eq!(nodes.value(away, "key3").as_deref(), Some("value3"));
    assert_eq!((reason(&nodes, away), nodes.status(away).unvouched), (None, None));
    // It speaks of its state from then on, and stays so.
    nodes.run(6_000);
    assert!(said(&nodes, away, since).contains(&true));
    restart(&mut nodes, away, settings(away));
    nodes.cut = [leader].into();
    nodes.run(6_000);
    assert_eq!(reason(&nodes, away), None);
}

#[test]
fn a_state_that_only_its_leader_has_is_not_installed() {
    let (mut nodes, away, leader, third) = lagging(|_| {});
    forge(&nodes, leader, "key3", "mallory");
    nodes.cut.clear();
    nodes.run(11_000);
    assert_eq!(installed(&nodes, away), 0);
    assert!(nodes.dropped(away, Violation::SnapshotUnvouched) > 0);
    assert_eq!(nodes.value(away, "before").as_deref(), Some("here"));
    assert_eq!(reason(&nodes, third), None);
}

/// Somebody who says that it leads, with a state that nobody else has.
struct Usurper {
    node: NodeId,
    term: u64,
    offer: Offer,
    pairs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Usurper {
    fn hash(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        hash_pairs(&mut hasher, &self.pairs);
        hasher.finalize().into()
    }

    fn heartbeat(&self, nodes: &mut Nodes, to: NodeId) {
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgHeartbeat);
        (message.from, message.to, message.term) = (self.node, to, self.term);
        nodes.receive(to, self.node, &raft_frame(&message));
        nodes.turn(to);
    }

    /// Everything that a leader sends, whether it is asked for or not.
    fn fills(&self, nodes: &mut Nodes, to: NodeId) {
        self.heartbeat(nodes, to);
        assert_eq!(nodes.status(to).leader, Some(self.node));
        let id = self.offer.id;
        nodes.receive(
            to,
            self.node,
            &call_frame(&Call::SnapshotOffer(self.offer.clone())),
        );
        nodes.turn(to);
        let chunk = Call::SnapshotChunk {
            id,
            sequence: 0,
            pairs: self.pairs.clone(),
            hash: Some(self.hash()),
        };
        nodes.receive(to, self.node, &call_frame(&chunk));
        nodes.turn(to);
    }

    fn installs(&self, nodes: &mut Nodes, to: NodeId) {
        let Offer {
            id,
            index,
            term,
            chain,
            configuration,
        } = self.offer.clone();
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgSnapshot);
        (message.from, message.to, message.term) = (self.node, to, self.term);
        let snapshot = message.mut_snapshot();
        let metadata = snapshot.mut_metadata();
        (metadata.index, metadata.term) = (index, term);
        metadata.set_conf_state(configuration.conf_state());
        let name = SnapshotName {
            id,
            hash: self.hash(),
            applied: AppliedRecord {
                index,
                term,
                restricting: 1,
                chain,
                mark: (0, [0; 32]),
            },
            configuration_index: 1,
        };
        snapshot.data = records::encode(&name).unwrap().into();
        nodes.receive(to, self.node, &raft_frame(&message));
        nodes.turn(to);
    }
}

#[test]
fn who_says_that_it_leads_takes_nothing_away() {
    let mut nodes = Nodes::new();
    let leader = nodes.elect();
    nodes.apply(leader, "key=mine");
    nodes.run(300);
    let corrupt = other(&[leader]);
    let honest = [leader, other(&[leader, corrupt])];
    let usurper = Usurper {
        node: corrupt,
        term: nodes.status(leader).term + 1,
        offer: Offer {
            id: 7,
            index: 1_000,
            term: 2,
            chain: [9; 32],
            configuration: Configuration::stable(&[1, 2, 3]),
        },
        pairs: vec![(b"key".to_vec(), b"mallory".to_vec())],
    };
    nodes.cut.insert(corrupt);
    for node in honest {
        usurper.fills(&mut nodes, node);
    }
    for _ in 0..2 {
        nodes.deliver();
        for node in honest {
            usurper.installs(&mut nodes, node);
            assert!(nodes.dropped(node, Violation::SnapshotData) > 0);
        }
        nodes.run(600);
    }
    // They find a leader of their own, and have all that they had.
    nodes.run(5_000);
    for node in honest {
        assert_eq!(installed(&nodes, node), 0);
        assert_eq!(nodes.value(node, "key").as_deref(), Some("mine"));
    }
    let leads = nodes.status(honest[0]).leader.unwrap();
    assert!(honest.contains(&leads));
    nodes.apply(leads, "key=still");
    nodes.run(300);
    assert!(
        honest
            .iter()
            .all(|node| nodes.value(*node, "key").as_deref() == Some("still"))
    );
}

#[test]
fn the_true_state_under_a_false_term_is_not_installed() {
    // Raft would throw away the log behind it, which this node has acknowledged.
    let (mut nodes, away, leader, third) = lagging(|_| {});
    let status = nodes.status(leader);
    let disk = &nodes.machines[&leader].disk;
    let record: GroupRecord = records::read(&**disk, &keys::group(G)).unwrap().unwrap();
    let prefix = keys::state(G, record.generation);
    let state = disk.scan(&prefix, &keys::after_prefix(&prefix), 999).unwrap();
    let usurper = |term| Usurper {
        node: leader,
        term: status.term + 1,
        offer: Offer {
            id: term,
            index: status.applied,
            term,
            chain: status.chain,
            configuration: Configuration::stable(&[1, 2, 3]),
        },
        pairs: state
            .iter()
            .map(|(key, value)| (key[prefix.len()..].to_vec(), value.clone()))
            .collect(),
    };
    nodes.cut = [leader].into();
    for (term, count) in [(status.term + 1, 0), (status.term, 1)] {
        let usurper = usurper(term);
        usurper.fills(&mut nodes, away);
        let since = nodes.sent.len();
        nodes.run(25);
        assert!(told(&nodes, third, since).iter().all(Option::is_some));
        usurper.installs(&mut nodes, away);
        assert_eq!(installed(&nodes, away), count, "{term}");
    }
}

#[test]
fn what_is_not_known_is_not_vouched_for() {
    let (mut nodes, away, leader, third) = lagging(|_| {});
    let ask = |nodes: &mut Nodes, index| {
        let since = nodes.sent.len();
        nodes.receive(third, away, &call_frame(&Call::AskState { index }));
        nodes.gather(third);
        told(nodes, third, since)
    };
    let applied = nodes.status(third).applied;
    assert!(matches!(ask(&mut nodes, applied)[..], [Some(_)]));
    assert_eq!(ask(&mut nodes, applied + 1), []);
    restart(&mut nodes, third, settings(third));
    assert!(matches!(ask(&mut nodes, applied)[..], [Some(_)]));
    assert_eq!(
        ask(&mut nodes, applied - 1),
        [None],
        "a restarted node knows its own index only"
    );
    // So it vouches for a later offer.
    nodes.apply(leader, "later=1");
    nodes.cut.clear();
    nodes.run(5_000);
    assert_eq!(installed(&nodes, away), 1);
}

/// A newcomer that has the leader's snapshot, and whom the two others have told nothing; (newcomer, leader).
fn newcomer() -> (Nodes, NodeId, NodeId) {
    let mut nodes = cluster(&[4]);
    let leader = nodes.elect_of(&[1, 2, 3]);
    for round in 0..4 {
        apply(&mut nodes, &format!("key{round}=value{round}"));
    }
    apply(&mut nodes, "!move=1,2,3>1,2,3,4");
    nodes.cut = (1..=3).filter(|node| *node != leader).collect();
    while installed(&nodes, 4) == 0 {
        deliver_one(&mut nodes);
    }
    nodes.turn(4);
    (nodes, 4, leader)
}

#[test]
fn a_newcomer_says_and_decides_nothing_until_others_have_the_same_state() {
    let (mut nodes, new, leader) = newcomer();
    let since = nodes.sent.len();
    nodes.run(6_000);
    assert_eq!(nodes.status(new).unvouched, Some(leader));
    let settling = nodes.freshness(new).settle(G, scope(b'k'));
    assert!(matches!(settling, Err(Behind::Unvouched(G))));
    // Also after a restart.
    restart(&mut nodes, new, super::configuration::mover(new));
    nodes.run(2_000);
    assert_eq!(nodes.status(new).unvouched, Some(leader));
    assert!(said(&nodes, new, since).iter().all(|says| !says));
    let applied = nodes.status(new).applied;
    nodes.receive(new, leader, &call_frame(&Call::AskState { index: applied }));
    nodes.gather(new);
    assert_eq!(told(&nodes, new, since), []);
    nodes.cut.clear();
    nodes.run(6_000);
    assert_eq!((reason(&nodes, new), nodes.status(new).unvouched), (None, None));
    assert!(said(&nodes, new, since).contains(&true));
}

#[test]
fn a_newcomer_never_believes_what_only_its_leader_has() {
    let mut nodes = cluster(&[4]);
    let leader = nodes.elect_of(&[1, 2, 3]);
    apply(&mut nodes, "key=value");
    forge(&nodes, leader, "key", "mallory");
    let since = nodes.sent.len();
    apply(&mut nodes, "!move=1,2,3>1,2,3,4");
    for round in 0..80 {
        nodes.apply(leader, &format!("other{round}=later"));
    }
    nodes.run(11_000);
    assert_eq!(nodes.value(4, "key").as_deref(), Some("mallory"));
    assert!(nodes.freshness(4).settle(G, scope(b'k')).is_err());
    assert!(said(&nodes, 4, since).iter().all(|says| !says));
    assert_eq!(nodes.status(4).unvouched, Some(leader));
    assert!(!nodes.status(4).configuration.votes(4));
}

/// What a newcomer need not wait for it must wait for once others have vouched for what it has.
#[test]
fn a_transfer_that_began_when_there_was_nothing_to_lose_takes_nothing_away() {
    let (mut nodes, new, leader) = newcomer();
    let status = nodes.status(new);
    let disk = &nodes.machines[&new].disk;
    let record: GroupRecord = records::read(&**disk, &keys::group(G)).unwrap().unwrap();
    let prefix = keys::state(G, record.generation);
    let state = disk.scan(&prefix, &keys::after_prefix(&prefix), 999).unwrap();
    let pairs = state.into_iter().map(|(key, value)| {
        let key = key[prefix.len()..].to_vec();
        let value = if key == b"key0" {
            b"mallory".to_vec()
        } else {
            value
        };
        (key, value)
    });
    let usurper = Usurper {
        node: leader,
        term: status.term,
        offer: Offer {
            id: 7,
            index: 1_000,
            term: status.term,
            chain: [9; 32],
            configuration: status.configuration.clone(),
        },
        pairs: pairs.collect(),
    };
    usurper.fills(&mut nodes, new);
    nodes.cut = [leader].into();
    // The others come back and speak, so that what it has is vouched for; the leader is silent.
    for node in (1..=3).filter(|node| *node != leader) {
        let since = nodes.sent.len();
        nodes.receive(node, new, &call_frame(&Call::AskStatement));
        nodes.gather(node);
        let wires: Vec<Wire> = nodes.sent[since..].to_vec();
        for wire in wires.iter().filter(|wire| (wire.from, wire.to) == (node, new)) {
            nodes.receive(new, node, &wire.frame);
        }
        nodes.turn(new);
    }
    assert_eq!(reason(&nodes, new), Some(Reason::Learner));
    assert!(nodes.freshness(new).settle(G, scope(b'k')).is_ok(), "vouched for");
    assert_eq!(nodes.driver(new).status().remove(0).chain, status.chain);
    usurper.installs(&mut nodes, new);
    assert_eq!(
        installed(&nodes, new),
        1,
        "what the leader sent first, and nothing after it"
    );
    assert_eq!(nodes.value(new, "key0").as_deref(), Some("value0"));
}

#[test]
fn an_empty_chunk_keeps_no_transfer_alive() {
    let (mut nodes, new, leader) = newcomer();
    let configuration = nodes.status(new).configuration;
    let offer = Offer {
        id: 7,
        index: 1_000,
        term: 2,
        chain: [9; 32],
        configuration,
    };
    nodes.receive(new, leader, &call_frame(&Call::SnapshotOffer(offer)));
    let chunk = Call::SnapshotChunk {
        id: 7,
        sequence: 0,
        pairs: Vec::new(),
        hash: None,
    };
    nodes.receive(new, leader, &call_frame(&chunk));
    assert_eq!(nodes.dropped(new, Violation::SnapshotData), 1);
}

#[test]
fn who_is_told_to_believes_its_leader() {
    let (mut nodes, away, _, third) = lagging(|settings| settings.believe_leaders = true);
    nodes.cut = [third].into();
    nodes.run(11_000);
    assert_eq!(installed(&nodes, away), 1);
    assert_eq!(reason(&nodes, away), None);
}

#[test]
fn a_disk_without_a_digest_gets_the_one_of_its_state() {
    let (mut nodes, away, leader, third) = lagging(|_| {});
    let mut batch = Batch::default();
    batch.delete(keys::digest(G));
    let disk = nodes.machines.remove(&third).unwrap().disk;
    disk.write(&batch, true).unwrap();
    nodes.start(settings(third), disk, Words::default());
    nodes.cut.clear();
    nodes.run(11_000);
    assert_eq!((reason(&nodes, away), reason(&nodes, leader)), (None, None));
    assert_eq!(nodes.status(leader).differing_peers, []);
}
