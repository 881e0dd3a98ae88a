//! Headers, requests and surveys of backups that are made here by hand: each way in which they can be wrong.

mod changed;

use std::fs;
use std::path::PathBuf;

use conclave_threshold::envelope::EnvelopeKey;
use rand::rngs::OsRng;
use tempfile::TempDir;

use super::files::Officer;
use super::header::{FORMAT, GroupHead, Header, VerifiedHeader};
use super::officers::{BackupKey, OfficerError, OfficerKeys, OfficerShare, deal};
use super::records::StateRecord;
use super::request::{Answer, Keys, Request};
use super::sections::{Section, SectionWriter};
use super::survey::{Backup, survey};
use super::{Recovery, RecoveryError};
use crate::config::Hex32;
use crate::identifier::LocalId;
use crate::keystore::layout;
use crate::keystore::record::{KeyRecord, KeyType, Material, Sharing};
use crate::membership::Pinned;
use crate::provision::genesis::Body;
use crate::provision::introduction::Orders;
use crate::provision::{Genesis, Identity, OperatorKey};

/// A cluster of nodes with these numbers, two groups.
struct Cluster {
    genesis: Genesis,
    identities: Vec<Identity>,
    nodes: Vec<u64>,
}

impl Cluster {
    fn new(nodes: &[u64], operator: &OperatorKey) -> Self {
        let identities: Vec<Identity> = nodes.iter().map(|_| Identity::generate(&mut OsRng)).collect();
        let members = nodes.iter().zip(&identities);
        let members = members.map(|(node, identity)| Pinned {
            node: *node,
            peer: format!("node-{node}:1"),
            identity: Hex32(identity.public()),
            envelope: Hex32(identity.envelope_public()),
        });
        let body = Body {
            format: 1,
            nonce: Hex32(rand::random()),
            groups: 2,
            members: members.collect(),
            operators: vec![Hex32(operator.public())],
            threshold: 1,
            placement: None,
        };
        Self {
            genesis: Genesis::sign(body, operator).unwrap(),
            identities,
            nodes: nodes.to_vec(),
        }
    }

    fn identity(&self, node: u64) -> &Identity {
        let at = self.nodes.iter().position(|other| *other == node).unwrap();
        &self.identities[at]
    }

    fn envelope_key(&self, node: u64) -> EnvelopeKey {
        EnvelopeKey::from_bytes(&self.identity(node).envelope_secret().to_bytes())
    }
}

/// An old cluster and a new one, officers, and a folder for backups.
struct World {
    operator: OperatorKey,
    old: Cluster,
    /// What has changed the old one's members.
    orders: Orders,
    new: Cluster,
    keys: OfficerKeys,
    shares: Vec<OfficerShare>,
    folder: TempDir,
}

/// One group's state as a backup has it: how far, and its pairs.
type Group<'a> = (u64, &'a [(Vec<u8>, Vec<u8>)]);

impl World {
    fn new() -> Self {
        let operator = OperatorKey::generate(&mut OsRng);
        let (keys, shares) = deal(5, 3, &mut OsRng).unwrap();
        Self {
            old: Cluster::new(&[1, 2, 3], &operator),
            orders: Orders::default(),
            new: Cluster::new(&[1, 2, 3], &operator),
            operator,
            keys,
            shares,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// A header of an old node, and its keys.
    fn header(&self, node: u64, officers: &OfficerKeys, applied: [u64; 2]) -> (VerifiedHeader, Keys) {
        let (state, sealed_state) = officers.seal_new(&mut OsRng);
        let (shares, sealed_shares) = officers.seal_new(&mut OsRng);
        let head = |applied| GroupHead {
            applied,
            time: 5,
            keystores: 1,
            keys: 2,
        };
        let header = Header {
            format: FORMAT,
            version: "0.1.0".into(),
            cluster: self.old.genesis.cluster_id(),
            public_url: "https://kms.example".into(),
            node,
            made: 1_800_000_000_000,
            genesis: self.old.genesis.to_json(),
            officers: officers.to_bytes(),
            state_key: sealed_state.to_bytes(),
            shares_key: sealed_shares.to_bytes(),
            groups: applied.map(head).to_vec(),
            orders: match self.orders.orders.is_empty() {
                true => Vec::new(),
                false => self.orders.to_json(),
            },
        };
        let keys = Keys {
            state,
            shares: Some(shares),
        };
        let identity = self.old.identity(node);
        (header.sign(|message| identity.sign(message)).unwrap(), keys)
    }

    /// A backup of an old node with the shares of these keys' first sessions.
    fn backup(&self, node: u64, groups: [Group<'_>; 2], holdings: &[LocalId]) -> Backup {
        let of_first: Vec<_> = holdings.iter().map(|key| (*key, SESSION)).collect();
        self.backup_of(node, groups, &of_first)
    }

    /// A backup of an old node with the shares of these sessions.
    fn backup_of(&self, node: u64, groups: [Group<'_>; 2], holdings: &[(LocalId, [u8; 32])]) -> Backup {
        let (header, keys) = self.header(node, &self.keys, groups.map(|(applied, _)| applied));
        let mut bytes = header.bytes().to_vec();
        let mut section = SectionWriter::new(&mut bytes, &keys.state, header.hash(), Section::State);
        for (number, (_, pairs)) in (0..).zip(groups) {
            section.record(&StateRecord::Group(number)).unwrap();
            for (key, value) in pairs {
                section.record(&StateRecord::Pair { key, value }).unwrap();
            }
        }
        for (key, session) in holdings {
            let holding = StateRecord::Holding {
                keystore: KS.0,
                key: key.0,
                session: *session,
            };
            section.record(&holding).unwrap();
        }
        section.finish().unwrap();
        let shares = keys.shares.as_ref().unwrap();
        let section = SectionWriter::new(&mut bytes, shares, header.hash(), Section::Shares);
        section.finish().unwrap();
        let path = self.folder.path().join(format!("{node}.backup"));
        fs::write(&path, bytes).unwrap();
        Backup { path, header, keys }
    }

    fn request(&self, node: u64, of: &[u64]) -> Request {
        let headers = of.iter().map(|node| self.header(*node, &self.keys, [3, 3]).0);
        Request::new(self.new.genesis.clone(), node, headers.collect()).unwrap()
    }

    fn officer(&self, number: usize) -> Officer {
        let share = &self.shares[number - 1];
        Officer {
            cluster: self.old.genesis.cluster_id(),
            keys: self.keys.clone(),
            share: OfficerShare::from_bytes(share.officer(), &share.to_bytes(), &self.keys).unwrap(),
        }
    }

    fn answers(&self, request: &Request, officers: &[usize]) -> Vec<Answer> {
        let answer = |number: &usize| request.answer(&self.officer(*number), &mut OsRng).unwrap();
        officers
            .iter()
            .map(answer)
            .map(|answer| Answer::parse(&answer.to_json()).unwrap())
            .collect()
    }
}

const KS: LocalId = LocalId([1; 16]);
const SESSION: [u8; 32] = [9; 32];

/// The state's pair of a symmetric key with these holders, as it was born.
fn symmetric(key: u8, holders: &[u64]) -> (Vec<u8>, Vec<u8>) {
    shared(key, holders, (0, SESSION))
}

/// The same in this epoch, which this session made.
fn shared(key: u8, holders: &[u64], (epoch, session): (u64, [u8; 32])) -> (Vec<u8>, Vec<u8>) {
    let sharing = Sharing {
        holders: holders.to_vec(),
        pieces: vec![session; holders.len()],
        correction: [0; 32],
        inner: None,
        check: [0; 16],
    };
    let record = KeyRecord {
        key_type: KeyType::AesKeyWrappingKey2019,
        epoch,
        session,
        material: Material::Pieces(sharing),
        committee: 1,
        away: Vec::new(),
        alias: None,
        max_chain_length: None,
        created: 0,
        origin: None,
    };
    let at = layout::of_key(&KS, &LocalId([key; 16]));
    (at, postcard::to_stdvec(&record).unwrap())
}

fn told<T>(result: Result<T, RecoveryError>) -> String {
    super::keeper::text(&result.err().expect("this is wrong"))
}

#[test]
fn a_header_is_its_nodes_and_unchanged() {
    let world = World::new();
    let (header, _) = world.header(2, &world.keys, [3, 4]);
    let again = VerifiedHeader::read(&mut header.bytes()).unwrap();
    assert_eq!((&again.header, again.hash()), (&header.header, header.hash()));
    assert!(
        again.describe().contains("2 keystores, 4 keys"),
        "{}",
        again.describe()
    );
    for at in 0..header.bytes().len() {
        let mut changed = header.bytes().to_vec();
        changed[at] ^= 1;
        assert!(VerifiedHeader::parse(&changed).is_err(), "byte {at}");
    }
    for length in [0, 19, 20, 100, header.bytes().len() - 1] {
        assert!(VerifiedHeader::read(&mut &header.bytes()[..length]).is_err());
    }
    let forged = |change: fn(&mut Header), signer: u64| {
        let mut changed = header.header.clone();
        change(&mut changed);
        told(changed.sign(|message| world.old.identity(signer).sign(message)))
    };
    assert!(forged(|_| {}, 1).contains("not signed by the node"));
    assert!(forged(|header| header.node = 9, 2).contains("no member"));
    assert!(forged(|header| header.cluster = [0; 32], 2).contains("not of the cluster"));
    assert!(forged(|header| header.format = FORMAT + 1, 2).contains("format"));
    assert!(forged(|header| header.groups.truncate(1), 2).contains("not of the cluster"));
    assert!(forged(|header| header.state_key[60] ^= 1, 2).contains("not a key that is sealed"));
}

#[test]
fn three_officers_give_a_node_all_state_and_its_own_shares_alone() {
    let world = World::new();
    let request = world.request(2, &[1, 2, 3]);
    let request = Request::parse(&request.to_json()).unwrap();
    assert!(request.is_by_an_operator());
    let told = request.describe().join("\n");
    assert_eq!(told.matches("THIS NODE'S SHARES").count(), 1, "{told}");
    let answers = world.answers(&request, &[5, 1, 3]);
    let keys = request.open(&answers, &world.new.envelope_key(2)).unwrap();
    let shares: Vec<bool> = keys.iter().map(|keys| keys.shares.is_some()).collect();
    assert_eq!(shares, [false, true, false]);
    // The keys are those of the headers, which the nodes threw away.
    let other = world.request(1, &[1, 2]);
    let keys = other
        .open(&world.answers(&other, &[1, 2, 3]), &world.new.envelope_key(1))
        .unwrap();
    let distinct: std::collections::BTreeSet<[u8; 32]> = keys.iter().map(|keys| *keys.state).collect();
    assert_eq!(distinct.len(), 2);
}

#[test]
fn fewer_than_three_answers_or_those_of_others_open_nothing() {
    let world = World::new();
    let request = world.request(2, &[1, 2]);
    let key = world.new.envelope_key(2);
    let two = request.open(&world.answers(&request, &[1, 2]), &key);
    assert_eq!(
        told(two),
        OfficerError::TooFew { given: 2, quorum: 3 }.to_string()
    );
    let twice = request.open(&world.answers(&request, &[1, 2, 1]), &key);
    assert_eq!(told(twice), OfficerError::Twice(1).to_string());
    let answers = world.answers(&request, &[1, 2, 3]);
    let elsewhere = request.open(&answers, &world.new.envelope_key(1));
    assert!(told(elsewhere).contains("does not open with this node's key"));
    // The very same backups asked for by another node, and other backups of the same nodes.
    for other in [
        Request::new(world.new.genesis.clone(), 1, request.backups().to_vec()).unwrap(),
        world.request(2, &[1, 2]),
    ] {
        assert!(told(request.open(&world.answers(&other, &[1, 2, 3]), &key)).contains("another request"));
    }
    // An answer in another officer's name.
    let text = String::from_utf8(answers[0].to_json()).unwrap();
    let renamed = text.replace("\"officer\": 1", "\"officer\": 4");
    assert_ne!(renamed, text);
    let renamed = [Answer::parse(renamed.as_bytes()).unwrap()];
    assert!(told(request.open(&renamed, &key)).contains("officer 4"));
}

#[test]
fn what_does_not_belong_together_is_no_request() {
    let world = World::new();
    let header = |node| world.header(node, &world.keys, [3, 3]).0;
    let request = |target: &Genesis, node, headers| told(Request::new(target.clone(), node, headers));
    let target = &world.new.genesis;
    assert!(request(target, 1, vec![]).contains("no backup"));
    assert!(request(target, 1, vec![header(1), header(1)]).contains("two backups are of node 1"));
    assert!(request(target, 9, vec![header(1)]).contains("no member"));
    assert!(request(&world.old.genesis, 1, vec![header(1)]).contains("not into the old one"));
    let stranger = OperatorKey::generate(&mut OsRng);
    let numbers = Cluster::new(&[1, 2, 4], &stranger);
    assert!(request(&numbers.genesis, 1, vec![header(1)]).contains("node numbers"));
    let other = World::new();
    let foreign = other.header(2, &world.keys, [3, 3]).0;
    assert!(request(target, 1, vec![header(1), foreign]).contains("different clusters"));
    let others = world.header(2, &other.keys, [3, 3]).0;
    assert!(request(target, 1, vec![header(1), others]).contains("different recovery officers"));
    // Officers are shown, and refuse by default, what no operator of theirs has signed.
    let unsigned = Cluster::new(&[1, 2, 3], &stranger);
    let unsigned = Request::new(unsigned.genesis, 1, vec![header(1)]).unwrap();
    assert!(!unsigned.is_by_an_operator());
    assert!(unsigned.describe().join("\n").contains("NO OPERATOR"));
    // Neither of another cluster nor of other officers.
    let request = world.request(1, &[1, 2]);
    assert!(told(request.answer(&other.officer(1), &mut OsRng)).contains("another cluster"));
    assert!(Request::parse(b"{}").is_err() && Answer::parse(b"{}").is_err());
}

#[test]
fn the_newest_state_counts_group_by_group_and_lost_keys_are_named() {
    let world = World::new();
    // Key 1 is held by all three, key 2 by node 1 alone, key 3 is only in an older state.
    let (one, two, three) = (
        symmetric(1, &[1, 2, 3]),
        symmetric(2, &[1, 2, 3]),
        symmetric(3, &[1, 2, 3]),
    );
    let older = [one.clone(), three];
    let newer = [one, two];
    let id = |key: u8| LocalId([key; 16]);
    let backups = [
        world.backup(1, [(9, &[]), (6, &newer)], &[id(1), id(2)]),
        world.backup(2, [(8, &[]), (5, &older)], &[id(1), id(3)]),
        world.backup(3, [(10, &[]), (4, &older)], &[id(1)]),
    ];
    let mut read = Vec::new();
    let survey = survey(&backups, &[1, 2, 3], |node| read.push(node)).unwrap();
    assert_eq!((survey.chosen.as_slice(), read), (&[2, 0][..], vec![1, 2, 3]));
    assert_eq!(survey.keys[&(KS, id(1))].holders, [1, 2, 3]);
    assert!(survey.keys[&(KS, id(1))].bereft().is_empty());
    assert_eq!(survey.keys[&(KS, id(2))].bereft(), [2, 3]);
    assert_eq!(survey.lost(), [(KS, id(2))]);
    assert_eq!(survey.vanished, [(KS, id(3))]);
}

#[test]
fn nodes_that_contradict_each_other_are_named() {
    let world = World::new();
    let (one, other) = ([symmetric(1, &[1, 2, 3])], [symmetric(1, &[1, 2])]);
    let surveyed = |groups: [Group<'_>; 2]| {
        let first = world.backup(1, [(9, &[]), (6, &one)], &[]);
        told(survey(&[first, world.backup(2, groups, &[])], &[1, 2, 3], |_| {}))
    };
    assert!(surveyed([(9, &[]), (5, &other)]).contains("node 2 has another public part of key"));
    let pair = [(b"t".to_vec(), vec![1])];
    let text = surveyed([(9, &pair), (5, &one)]);
    assert!(
        text.contains("group 0: node 2 has another state at index 9"),
        "{text}"
    );
}

#[test]
fn a_backup_that_was_cut_or_exchanged_is_not_surveyed() {
    let world = World::new();
    let backup = |node| world.backup(node, [(9, &[]), (6, &[])], &[]);
    let first = backup(1);
    let whole = fs::read(&first.path).unwrap();
    for length in (0..whole.len()).rev().step_by(7) {
        fs::write(&first.path, &whole[..length]).unwrap();
        assert!(
            survey(std::slice::from_ref(&first), &[1, 2, 3], |_| {}).is_err(),
            "{length} bytes"
        );
    }
    fs::write(&first.path, [whole.as_slice(), &[0]].concat()).unwrap();
    assert!(told(survey(std::slice::from_ref(&first), &[1, 2, 3], |_| {})).contains("something follows"));
    let second: PathBuf = backup(2).path;
    fs::copy(second, &first.path).unwrap();
    assert!(told(survey(std::slice::from_ref(&first), &[1, 2, 3], |_| {})).contains("exchanged"));
    fs::write(&first.path, &whole).unwrap();
    survey(std::slice::from_ref(&first), &[1, 2, 3], |_| {}).unwrap();
    let wrong = Backup {
        keys: Keys {
            state: BackupKey::new([7; 32]),
            shares: None,
        },
        ..first
    };
    assert!(survey(&[wrong], &[1, 2, 3], |_| {}).is_err());
}

#[test]
fn officers_of_another_cluster_are_not_configured() {
    let world = World::new();
    let path = world.folder.path().join("recovery.json");
    let recovery = Recovery {
        cluster: [1; 32],
        officers: 5,
        keys: world.keys.clone(),
    };
    recovery.create(&path).unwrap();
    let settings = crate::config::Backup {
        folder: PathBuf::new(),
        recovery: path,
        every_hours: 24,
        keep: 7,
    };
    assert!(super::keeper::officers(&settings, &[1; 32]).is_ok());
    assert!(told(super::keeper::officers(&settings, &[2; 32])).contains("recovery init"));
}
