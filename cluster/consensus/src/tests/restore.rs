//! Groups that begin with a state from a backup.

use super::harness::*;
use crate::store::Reading as _;
use crate::{keys, *};
use std::sync::Arc;

fn open(disk: &Arc<Memory>) -> Result<Driver<Memory>, OpenError> {
    let (words, clock) = (Arc::new(Words::default()), Arc::new(HandClock::default()));
    Driver::open(settings(1), disk.clone(), words, Hand::of(1), clock, [1; 32])
}

/// A disk that `init` made.
fn made() -> Arc<Memory> {
    let disk = Arc::new(Memory::default());
    Driver::bootstrap(&*disk, &settings(1)).unwrap();
    disk
}

fn restore(disk: &Arc<Memory>, pairs: &[(&[u8], &[u8])]) -> [u8; 32] {
    let mut restoration = Restoration::begin_on(disk.clone(), settings(1)).unwrap();
    for (key, value) in pairs {
        restoration.put(G, key, value).unwrap();
    }
    restoration.finish().unwrap()
}

fn value(driver: &Driver<Memory>, key: &[u8]) -> Option<Vec<u8>> {
    driver.freshness().view(G).unwrap().get(key).unwrap()
}

#[test]
fn the_first_start_has_the_state_and_the_second_no_permission() {
    let disk = made();
    restore(&disk, &[(b"a", b"1"), (b"b", b"2")]);
    let driver = open(&disk).unwrap();
    assert_eq!(value(&driver, b"a").unwrap(), b"1");
    assert_eq!(value(&driver, b"b").unwrap(), b"2");
    assert_eq!(driver.freshness().view(G).unwrap().applied_index(), 1);
    drop(driver);
    assert_eq!(disk.get(&keys::restore()).unwrap(), None);
    assert_eq!(value(&open(&disk).unwrap(), b"a").unwrap(), b"1");
    // Neither over a node that has started, nor on a disk that `init` has not made.
    let again = Restoration::begin_on(disk, settings(1)).err();
    assert!(matches!(again, Some(OpenError::AlreadyInitialized)));
    let empty = Restoration::begin_on(Arc::new(Memory::default()), settings(1)).err();
    assert!(matches!(empty, Some(OpenError::Joining)));
}

#[test]
fn a_restore_that_was_broken_off_starts_nothing_and_begins_anew() {
    let disk = made();
    let mut restoration = Restoration::begin_on(disk.clone(), settings(1)).unwrap();
    restoration.put(G, b"left over", &[0; 1024 * 1024 - 100]).unwrap();
    drop(restoration);
    assert!(matches!(open(&disk), Err(OpenError::RestoreUnderWay)));
    restore(&disk, &[(b"a", b"1")]);
    let driver = open(&disk).unwrap();
    assert_eq!(value(&driver, b"left over"), None);
    assert_eq!(value(&driver, b"a").unwrap(), b"1");
}

#[test]
fn the_hash_tells_states_apart_and_nodes_with_the_same_alike() {
    let hash = |pairs: &[(&[u8], &[u8])]| {
        let disk = made();
        let all = restore(&disk, pairs);
        (all, open(&disk).unwrap().status()[0].chain)
    };
    let one = hash(&[(b"a", b"1"), (b"b", b"2")]);
    assert_eq!(one, hash(&[(b"a", b"1"), (b"b", b"2")]));
    for other in [
        hash(&[(b"a", b"1")]),
        hash(&[(b"a", b"1"), (b"b", b"3")]),
        hash(&[(b"a1", b""), (b"b", b"2")]),
    ] {
        assert!(one.0 != other.0 && one.1 != other.1);
    }
}

#[test]
fn other_groups_or_voters_are_refused() {
    let disk = made();
    let mut other = settings(1);
    other.voters.push(9);
    let refused = Restoration::begin_on(disk.clone(), other).err();
    assert!(matches!(refused, Some(OpenError::Bootstrap)));
    let mut restoration = Restoration::begin_on(disk, settings(1)).unwrap();
    assert!(restoration.put(GroupId(4_000), b"a", b"1").is_err());
    assert!(restoration.put(G, b"a", &vec![0; MAX_PAIR]).is_err());
}

/// Three nodes, each restored with these pairs or not at all, after their first statements.
fn together(states: [Option<&[u8]>; 3]) -> Nodes {
    let mut nodes = Nodes::none();
    for (node, state) in (1..).zip(states) {
        let disk = Arc::new(Memory::default());
        Driver::bootstrap(&*disk, &settings(node)).unwrap();
        if let Some(value) = state {
            let mut restoration = Restoration::begin_on(disk.clone(), settings(node)).unwrap();
            restoration.put(G, b"a", value).unwrap();
            restoration.finish().unwrap();
        }
        nodes.start(settings(node), disk, Words::default());
    }
    nodes.elect();
    nodes.run(settings(1).statement_ms + 100);
    nodes
}

#[test]
fn nodes_that_were_restored_alike_go_on_together() {
    let mut nodes = together([Some(b"1"); 3]);
    nodes.apply(2, "b=2");
    for node in 1..=3 {
        nodes.run(200);
        assert_eq!(nodes.value(node, "a").as_deref(), Some("1"));
        assert_eq!(nodes.value(node, "b").as_deref(), Some("2"));
        assert!(nodes.status(node).differing_peers.is_empty());
        assert!(nodes.freshness(node).may_contribute(G).is_ok());
    }
}

#[test]
fn a_node_that_was_restored_otherwise_or_not_at_all_takes_no_part() {
    for odd in [Some(&b"2"[..]), None] {
        let nodes = together([Some(b"1"), Some(b"1"), odd]);
        for node in [1, 2] {
            assert_eq!(nodes.status(node).differing_peers, [3]);
            assert!(nodes.freshness(node).may_contribute(G).is_ok());
        }
        assert_eq!(nodes.status(3).differing_peers, [1, 2]);
        assert!(nodes.freshness(3).may_contribute(G).is_err());
    }
    // Of three, two were forgotten: nothing goes on without the state that is known to be there.
    let nodes = together([None, Some(b"1"), None]);
    for node in 1..=3 {
        assert!(nodes.freshness(node).may_contribute(G).is_err());
    }
}
