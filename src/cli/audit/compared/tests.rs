//! Chains of three nodes on disk, made by the real writer and then cut, gone on with, forged, signed by others.

use std::fs;
use std::os::unix::fs::FileExt;

use ed25519_dalek::{Signer, SigningKey};
use futures::executor::block_on;
use rand::rngs::OsRng;

use super::*;
use crate::audit::{Audit, Entry, Kind, OperationId, PeerHead, Settings, WrongHead};
use crate::config::Hex32;
use crate::membership::Pinned as PinnedMember;
use crate::operator::{Change, Order, SignedOrder};
use crate::provision::OperatorKey;
use crate::provision::genesis::Body;

const TIME: u64 = 1_700_000_000_000;

fn key(node: u64) -> SigningKey {
    SigningKey::from_bytes(&[u8::try_from(node).unwrap(); 32])
}

fn pinned(node: u64) -> PinnedMember {
    PinnedMember {
        node,
        peer: format!("node-{node}.internal:9443"),
        identity: Hex32(key(node).verifying_key().to_bytes()),
        envelope: Hex32([100 + u8::try_from(node).unwrap(); 32]),
    }
}

/// A cluster of nodes 1 to 3, with its statement and its nodes' chains on disk.
struct World {
    folder: tempfile::TempDir,
    operator: OperatorKey,
    genesis: Genesis,
    orders: Orders,
}

impl World {
    fn new() -> Self {
        let operator = OperatorKey::generate(&mut OsRng);
        let body = Body {
            format: 1,
            nonce: Hex32([9; 32]),
            groups: 16,
            members: (1..=3).map(pinned).collect(),
            operators: vec![Hex32(operator.public())],
            threshold: 1,
            placement: None,
        };
        let genesis = Genesis::sign(body, &operator).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("genesis.json"), genesis.to_json()).unwrap();
        let orders = Orders::default();
        Self {
            folder,
            operator,
            genesis,
            orders,
        }
    }

    /// The operators change the members.
    fn order(&mut self, come: &[u64], gone: &[u64]) {
        let come: Vec<PinnedMember> = come.iter().map(|node| pinned(*node)).collect();
        let new = self.orders.next(&self.genesis, (&come, gone), None).unwrap();
        let order = Order {
            cluster: Hex32(self.genesis.cluster_id()),
            sequence: self.orders.orders.len() as u64 + 1,
            change: Change::Members(new),
        };
        let signature = self.operator.sign(&order.signed_bytes());
        let mut signed = SignedOrder::new(order);
        signed.add(signature);
        self.orders.orders.push(signed);
        fs::write(self.orders_file(), self.orders.to_json()).unwrap();
    }

    fn orders_file(&self) -> PathBuf {
        self.folder.path().join("orders.json")
    }

    fn chain(&self, node: u64) -> PathBuf {
        self.folder.path().join(format!("node-{node}"))
    }

    fn open(&self, node: u64) -> Audit {
        let mut settings = Settings::new(self.genesis.cluster_id(), node);
        (settings.segment_bytes, settings.low_disk_percent) = (64 << 10, 0);
        // Tests cut and remove segments.
        settings.compress = false;
        let sign = move |message: &[u8]| key(node).sign(message).to_bytes();
        Audit::open(&self.chain(node), settings, sign, |_| {}).unwrap()
    }

    /// A node lives, records something at this time and ends; its last head.
    fn live(&self, node: u64, time_ms: u64) -> PeerHead {
        let audit = self.open(node);
        let operation = OperationId {
            node,
            boot: time_ms,
            counter: 1,
        };
        block_on(audit.append(Entry::new(Kind::Claimed, time_ms, operation))).unwrap();
        drop(audit);
        self.open(node).signed_head().unwrap()
    }

    /// A node puts a peer's head on record.
    fn witness(&self, node: u64, head: PeerHead) {
        self.witness_at(node, head, TIME + 1);
    }

    fn witness_at(&self, node: u64, head: PeerHead, time_ms: u64) {
        self.open(node).witness(head, time_ms).unwrap();
    }

    fn compare(&self, nodes: &[u64], stopped: bool) -> Result<Compared, String> {
        let terms = Terms {
            stopped,
            partial: false,
            retention_days: 90,
        };
        self.compare_by(nodes, terms)
    }

    fn compare_by(&self, nodes: &[u64], terms: Terms) -> Result<Compared, String> {
        let folders: Vec<PathBuf> = nodes.iter().map(|node| self.chain(*node)).collect();
        let orders = Some(self.orders_file()).filter(|file| file.exists());
        let genesis = self.folder.path().join("genesis.json");
        compare(&folders, Pinned::read(&genesis, orders.as_deref())?, terms)
    }

    /// Cuts a chain off behind this record, as a hand that knows the format does.
    fn cut(&self, node: u64, last: u64) {
        let folder = self.chain(node);
        let segment = folder.join("00000000000000000001.audit");
        let bytes = fs::read(&segment).unwrap();
        let mut end = 128;
        for _ in 0..last {
            let length = u32::from_le_bytes(bytes[end + 4..end + 8].try_into().unwrap());
            end += 12 + usize::try_from(length).unwrap();
        }
        let file = fs::OpenOptions::new().write(true).open(&segment).unwrap();
        file.write_all_at(&vec![0; bytes.len() - end], end as u64)
            .unwrap();
    }
}

/// Three nodes that have each other's heads: records 1 and 2 are an entry and its head, and 3 and 4 the next ones.
fn three() -> World {
    let world = World::new();
    for time in [TIME, TIME + 1] {
        let heads: Vec<PeerHead> = (1..=3).map(|node| world.live(node, time)).collect();
        if time == TIME + 1 {
            for node in 1..=3 {
                for head in heads.iter().filter(|head| head.node != node) {
                    world.witness(node, *head);
                }
            }
        }
    }
    world
}

#[test]
fn chains_that_have_what_their_nodes_signed_hold() {
    let world = three();
    let compared = world.compare(&[1, 2, 3], true).unwrap();
    assert!(compared.holds());
    assert_eq!((compared.heads.held, compared.heads.confirmed), (6, 6));
    let facts = compared.facts();
    assert_eq!(
        (&facts["ok"], &facts["heads"]["confirmed"]),
        (&json!(true), &json!(6))
    );
    assert_eq!((&facts["proven"], &facts["missing"]), (&json!(true), &json!([])));
}

#[test]
fn without_the_chains_of_some_members_nothing_is_proven() {
    let world = three();
    let partial = Terms {
        stopped: true,
        partial: true,
        retention_days: 90,
    };
    for nodes in [&[1, 2][..], &[2][..]] {
        let missing: Vec<u64> = (1..=3).filter(|node| !nodes.contains(node)).collect();
        let compared = world.compare(nodes, true).unwrap();
        assert!(!compared.holds(), "{nodes:?}");
        let accepted = world.compare_by(nodes, partial).unwrap();
        assert!(accepted.holds(), "{nodes:?}");
        for (compared, ok) in [(compared, false), (accepted, true)] {
            let facts = compared.facts();
            assert_eq!((&facts["ok"], &facts["proven"]), (&json!(ok), &json!(false)));
            assert_eq!(facts["missing"], json!(missing));
        }
    }
    let two = world.compare_by(&[1, 2], partial).unwrap();
    assert_eq!((two.heads.confirmed, two.heads.without_chain), (2, 2));
    // What is wrong is not accepted with it.
    world.cut(2, 2);
    assert!(!world.compare_by(&[1, 2], partial).unwrap().holds());
}

#[test]
fn results_of_nodes_whose_chains_are_not_here_are_told_as_unproven() {
    let world = three();
    let operation = OperationId {
        node: 1,
        boot: TIME,
        counter: 2,
    };
    let mut outcome = Entry::new(Kind::Outcome, TIME + 2, operation);
    (outcome.participants, outcome.verdict) = (vec![2, 3], "200".into());
    block_on(world.open(1).append(outcome)).unwrap();
    let compared = world.compare(&[1], false).unwrap();
    assert!(!compared.holds() && compared.results.wrong_count == 0);
    let facts = compared.facts();
    assert_eq!((&facts["results"], &facts["unproven"]), (&json!(1), &json!(1)));
    assert_eq!(
        (&facts["without_chain"], &facts["missing"]),
        (&json!(1), &json!([2, 3]))
    );
    // Both chains are here and end before it: as ever, that is accepted of running nodes, and proves nothing.
    let running = world.compare(&[1, 2, 3], false).unwrap();
    assert!(running.holds() && !running.is_proven());
    assert!(!world.compare(&[1, 2, 3], true).unwrap().holds());
}

#[test]
fn a_chain_whose_oldest_segments_were_removed_is_found_by_what_others_have_of_it() {
    const DAY: u64 = 86_400_000;
    let world = World::new();
    for day in [0, 10, 20, 30] {
        let head = world.live(2, TIME + day * DAY);
        world.witness_at(1, head, TIME + day * DAY);
        world.live(3, TIME + day * DAY);
    }
    let kept = |retention_days| Terms {
        stopped: true,
        partial: false,
        retention_days,
    };
    let whole = world.compare_by(&[1, 2, 3], kept(90)).unwrap();
    assert!(whole.holds());
    let facts = |compared: &Compared| compared.facts()["chains"][1].clone();
    assert_eq!(
        (&facts(&whole)["first"], &facts(&whole)["whole"]),
        (&json!(1), &json!(true))
    );

    // A segment a day, with an entry and its head.
    for first in [1, 3] {
        fs::remove_file(world.chain(2).join(format!("{first:020}.audit"))).unwrap();
    }
    let removed = world.compare_by(&[1, 2, 3], kept(90)).unwrap();
    assert!(!removed.holds());
    assert_eq!(
        removed.heads.removed,
        BTreeMap::from([(2, 1)]),
        "nobody knows how old the first head is"
    );
    let begins = facts(&removed);
    assert_eq!((&begins["first"], &begins["whole"]), (&json!(5), &json!(false)));
    assert_eq!(begins["first_ms"], json!(TIME + 20 * DAY));
    let told = beginning(&removed.reports[&2]).unwrap();
    assert_eq!(told, "record 5 of 2023-12-04T22:13:20Z");
    // Retention may have done that, if the nodes keep no more than five days, or nobody knows how many.
    for days in [5, 0] {
        let expired = world.compare_by(&[1, 2, 3], kept(days)).unwrap();
        assert!(expired.holds(), "{days}");
        assert_eq!(expired.heads.before, 2);
    }
}

#[test]
fn a_chain_whose_tail_was_cut_is_found_by_its_peers_though_it_is_consistent() {
    let world = three();
    world.cut(2, 2);
    let key = key(2).verifying_key().to_bytes();
    let alone = audit::verify(&world.chain(2), Some(&key)).unwrap();
    assert_eq!((alone.last_sequence, alone.heads_verified), (Some(2), 1));
    let compared = world.compare(&[1, 2, 3], true).unwrap();
    assert!(!compared.holds());
    let shorter = compared.heads.shorter[&2];
    assert_eq!((shorter.ends_at, shorter.signed, shorter.heads), (2, 3, 2));
    assert!([1, 3].contains(&shorter.held_by));
    assert_eq!(compared.facts()["heads"]["shorter"]["2"]["ends_at"], json!(2));
    // Of running nodes it may be an earlier copy: it is told, and is not wrong.
    let running = world.compare(&[1, 2, 3], false).unwrap();
    assert!(running.holds() && running.heads.shorter.contains_key(&2));
}

#[test]
fn a_chain_that_was_cut_and_gone_on_with_differs() {
    let world = three();
    world.cut(2, 2);
    // By the node's own hand, with its key.
    world.live(2, TIME + 2);
    let compared = world.compare(&[1, 2, 3], false).unwrap();
    assert!(!compared.holds());
    let wrong = compared.heads.wrong.iter();
    let wrong: Vec<_> = wrong
        .map(|wrong| (wrong.node, wrong.held_by, wrong.what))
        .collect();
    assert_eq!(wrong, [(2, 1, WrongHead::Differs), (2, 3, WrongHead::Differs)]);
}

#[test]
fn a_head_that_its_node_has_not_signed_names_the_chain_that_has_it() {
    let world = three();
    let mut forged = world.open(2).signed_head().unwrap();
    forged.hash[0] ^= 1;
    world.witness(3, forged);
    let compared = world.compare(&[1, 2, 3], false).unwrap();
    assert!(!compared.holds());
    let wrong = compared.heads.wrong[0];
    assert_eq!(
        (wrong.node, wrong.held_by, wrong.what),
        (2, 3, WrongHead::Unsigned)
    );
}

#[test]
fn orders_name_the_keys_of_who_joined_and_of_who_left() {
    let mut world = three();
    let joined = world.live(4, TIME);
    world.witness(1, joined);
    let unknown = world.compare(&[1, 4], true).map(|_| ()).unwrap_err();
    assert!(unknown.contains("node 4, whose key is not known"), "{unknown}");
    assert_eq!(world.compare(&[1, 2, 3], true).unwrap().heads.without_key, 1);
    world.order(&[4], &[]);
    world.order(&[], &[2]);
    let compared = world.compare(&[1, 2, 3, 4], true).unwrap();
    assert!(compared.holds());
    assert_eq!((compared.heads.confirmed, compared.heads.without_key), (7, 0));
    // Another key's chain is not the one that the operators have pinned.
    let chain = world.chain(4);
    fs::remove_dir_all(&chain).unwrap();
    let mut settings = Settings::new(world.genesis.cluster_id(), 4);
    settings.low_disk_percent = 0;
    let other = Audit::open(
        &chain,
        settings,
        |message| key(5).sign(message).to_bytes(),
        |_| {},
    )
    .unwrap();
    let operation = OperationId {
        node: 4,
        boot: 1,
        counter: 1,
    };
    block_on(other.append(Entry::new(Kind::Claimed, TIME, operation))).unwrap();
    drop(other);
    let error = world.compare(&[1, 2, 3, 4], false).map(|_| ()).unwrap_err();
    assert!(
        error.contains("node 4") && error.contains("head is not signed"),
        "{error}"
    );
}

#[test]
fn the_quorum_is_the_smallest_that_a_list_of_members_had() {
    let mut world = World::new();
    let genesis = world.folder.path().join("genesis.json");
    let quorum = |world: &World| {
        let orders = Some(world.orders_file()).filter(|file| file.exists());
        Pinned::read(&genesis, orders.as_deref()).unwrap().quorum
    };
    assert_eq!(quorum(&world), 2);
    world.order(&[4, 5], &[]);
    assert_eq!(
        quorum(&world),
        2,
        "records of the first three may be in the chains"
    );
    // Orders that do not follow from each other are none.
    world.order(&[], &[1]);
    world.orders.orders.remove(0);
    fs::write(world.orders_file(), world.orders.to_json()).unwrap();
    let error = Pinned::read(&genesis, Some(&world.orders_file()))
        .map(|_| ())
        .unwrap_err();
    assert!(error.contains("order for members 2"), "{error}");
}
