//! Groups come into being once, by permission, as a snapshot.

use super::harness::*;
use crate::store::Store;
use crate::*;
use raft::Storage as _;
use std::sync::Arc;

fn open(settings: Settings, disk: &Arc<Memory>) -> Result<Driver<Memory>, OpenError> {
    Driver::open(
        settings,
        disk.clone(),
        Arc::new(Words::default()),
        Hand::of(1),
        Arc::new(HandClock::default()),
        [1; 32],
    )
}

#[test]
fn an_empty_disk_joins_and_creates_nothing() {
    let disk = Arc::new(Memory::default());
    assert!(matches!(open(settings(1), &disk), Err(OpenError::Joining)));
    assert!(disk.batches.lock().is_empty());
}

#[test]
fn the_permission_is_used_once() {
    let disk = Arc::new(Memory::default());
    Driver::bootstrap(&*disk, &settings(1)).unwrap();
    assert!(matches!(
        Driver::bootstrap(&*disk, &settings(1)),
        Err(OpenError::AlreadyInitialized)
    ));
    drop(open(settings(1), &disk).unwrap());
    assert_eq!(disk.get(&keys::bootstrap()).unwrap(), None);
    drop(open(settings(1), &disk).unwrap());
    // Whoever loses a group does not get it back empty.
    let mut batch = Batch::default();
    batch.delete(keys::group(G));
    disk.write(&batch, true).unwrap();
    assert!(matches!(
        open(settings(1), &disk),
        Err(OpenError::GroupMissing(G))
    ));
    let mut more = settings(1);
    more.groups = 2;
    assert!(open(more, &disk).is_err());
}

#[test]
fn a_group_starts_as_a_snapshot_with_its_configuration() {
    let disk = Arc::new(Memory::default());
    Driver::bootstrap(&*disk, &settings(1)).unwrap();
    drop(open(settings(1), &disk).unwrap());
    let log = crate::log::GroupLog::open(disk, G).unwrap().unwrap();
    assert_eq!(
        (
            log.first_index().unwrap(),
            log.last_index().unwrap(),
            log.term(1).unwrap()
        ),
        (2, 1, 1)
    );
    let state = log.initial_state().unwrap();
    assert_eq!(state.conf_state.voters, [1, 2, 3]);
    assert_eq!((state.hard_state.term, state.hard_state.commit), (1, 1));
}

#[test]
fn a_disk_of_another_cluster_or_node_is_refused() {
    let disk = Arc::new(Memory::default());
    Driver::bootstrap(&*disk, &settings(1)).unwrap();
    assert!(matches!(
        open(settings(2), &disk),
        Err(OpenError::Mismatch { node: 1, .. })
    ));
    let mut other = settings(1);
    other.cluster = [8; 32];
    assert!(matches!(open(other, &disk), Err(OpenError::Mismatch { .. })));
    let mut voters = settings(1);
    voters.voters = vec![1, 2, 4];
    assert!(matches!(open(voters, &disk), Err(OpenError::Bootstrap)));
    assert!(open(settings(1), &disk).is_ok());
}

#[test]
fn a_disk_of_another_format_is_refused_by_name_whatever_else_it_says() {
    let disk = Arc::new(Memory::default());
    Driver::bootstrap(&*disk, &settings(1)).unwrap();
    let record = disk.get(&keys::identity()).unwrap().unwrap();
    let (mut identity, known) = (records::identity_of(&record).unwrap(), records::FORMAT);
    identity.format = known + 1;
    let mut later = records::encode(&identity).unwrap();
    later.extend_from_slice(b"what a later version adds");
    let mut batch = Batch::default();
    batch.put(keys::identity(), later);
    disk.write(&batch, true).unwrap();
    let before = disk.batches.lock().len();
    match open(settings(1), &disk) {
        Err(OpenError::Format { found, known: ours }) => assert_eq!((found, ours), (known + 1, known)),
        other => panic!("{:?}", other.err()),
    }
    assert_eq!(disk.batches.lock().len(), before, "nothing is written to it");
}

#[test]
fn settings_that_cannot_be_are_refused() {
    let disk = Arc::new(Memory::default());
    let wrong = |adjust: fn(&mut Settings)| {
        let mut settings = settings(1);
        adjust(&mut settings);
        assert!(matches!(
            Driver::bootstrap(&*disk, &settings),
            Err(OpenError::Settings(_))
        ));
    };
    wrong(|settings| settings.node = 9);
    wrong(|settings| settings.voters = vec![1, 1, 2]);
    wrong(|settings| settings.voters = vec![0, 1, 2]);
    wrong(|settings| settings.groups = 0);
    wrong(|settings| settings.election_ticks = 2);
    wrong(|settings| settings.tick_ms = 0);
}
