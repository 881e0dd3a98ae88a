//! Groups that begin with a state from a backup.

use super::harness::*;
use crate::store::Reading as _;
use crate::{keys, *};
use std::sync::Arc;

fn open(disk: &Arc<Memory>) -> Result<Driver<Memory>, OpenError> {
    let (words, clock) = (Arc::new(Words::default()), Arc::new(HandClock::default()));
    Driver::open(settings(1), disk.clone(), words, clock, [1; 32])
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
