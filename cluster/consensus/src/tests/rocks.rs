//! The whole crate on RocksDB, with threads: three nodes in one process.

use super::harness::{G, Hand, Words, settings};
use crate::inbox::{Inbox, Item};
use crate::store_loop::StoreLoop;
use crate::*;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Hands frames to the other nodes of this process.
#[derive(Clone, Default)]
struct Hub(Arc<Mutex<BTreeMap<NodeId, Consensus>>>);

struct Port(NodeId, Hub);

impl Outbound for Port {
    fn send(&self, to: NodeId, frame: Vec<u8>) {
        let peer = self.1.0.lock().get(&to).cloned();
        if let Some(peer) = peer {
            peer.receive(self.0, &frame);
        }
    }
}

fn start(hub: &Hub, node: NodeId, folder: &Path) -> Consensus {
    let port = Arc::new(Port(node, hub.clone()));
    let path = folder.join(node.to_string());
    let on_fatal: OnFatal = Box::new(|reason| panic!("fatal: {reason}"));
    let consensus = Consensus::open_with(
        test_settings(node),
        &path,
        Arc::new(Words::default()),
        Hand::of(node),
        port,
        on_fatal,
    )
    .unwrap();
    hub.0.lock().insert(node, consensus.clone());
    for peer in hub.0.lock().values() {
        peer.link(node, true);
    }
    consensus
}

fn test_settings(node: NodeId) -> Settings {
    let mut settings = settings(node);
    settings.groups = 3;
    settings
}

fn cluster(folder: &Path) -> (Hub, Vec<Consensus>) {
    let hub = Hub::default();
    for node in 1..=3 {
        std::fs::create_dir_all(folder.join(node.to_string())).unwrap();
        Consensus::bootstrap(&folder.join(node.to_string()), &test_settings(node)).unwrap();
    }
    let nodes = (1..=3).map(|node| start(&hub, node, folder)).collect();
    (hub, nodes)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_write_read_restart_and_hand_over() {
    let folder = tempfile::tempdir().unwrap();
    let (hub, nodes) = cluster(folder.path());
    // Through every node, in every group.
    let mut indexes = BTreeMap::new();
    for (position, node) in nodes.iter().enumerate() {
        for group in (0..3).map(GroupId) {
            let applied = node
                .propose(group, format!("k{position}=v").into_bytes(), soon())
                .await
                .unwrap();
            assert_eq!(applied.result, applied.index.to_string().into_bytes());
            assert!(node.applied_index(group) >= applied.index);
            indexes.insert(group, applied.index);
        }
    }
    for node in &nodes {
        for (group, index) in &indexes {
            assert!(node.read_index(*group, soon()).await.unwrap() >= *index);
            node.wait_applied(*group, *index, soon()).await.unwrap();
            let view = node
                .freshness()
                .settled(*group, Scope([b'k'; 16]), soon())
                .await
                .unwrap();
            assert_eq!(view.scan(b"k", None, 9).unwrap().len(), 3);
            assert_eq!(view.scan(b"k", Some(b"k0"), 1).unwrap()[0].0, b"k1");
            assert_eq!(node.configuration_index(*group), 1);
            assert!(node.freshness().may_contribute(*group).is_ok());
        }
    }
    // Whoever leads group 0 stops in order; the others have a leader at once.
    let leader = nodes[0].status()[0].leader.unwrap();
    let at = usize::try_from(leader - 1).unwrap();
    nodes[at].shutdown().await;
    hub.0.lock().remove(&leader);
    let left: Vec<&Consensus> = nodes
        .iter()
        .enumerate()
        .filter(|(position, _)| *position != at)
        .map(|(_, node)| node)
        .collect();
    for node in &left {
        node.propose(G, b"after=stop".to_vec(), soon()).await.unwrap();
    }
    assert!(left.iter().all(|node| node.status()[0].leader != Some(leader)));
    // It starts again from its disk and catches up.
    drop(left);
    let mut nodes = nodes;
    nodes.remove(at);
    let again = start(&hub, leader, folder.path());
    assert!(
        again.view(GroupId(1)).unwrap().get(b"k2").unwrap().is_some(),
        "from its own disk"
    );
    again.read_index(G, soon()).await.unwrap();
    assert_eq!(again.view(G).unwrap().get(b"after").unwrap().unwrap(), b"stop");
    nodes.push(again);
    for node in &nodes {
        node.shutdown().await;
        assert!(node.propose(G, b"x=1".to_vec(), soon()).await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_inbox_drops_and_says_busy() {
    let folder = tempfile::tempdir().unwrap();
    let mut small = test_settings(1);
    small.inbox = 0;
    Consensus::bootstrap(folder.path(), &small).unwrap();
    let port = Arc::new(Port(1, Hub::default()));
    let node = Consensus::open_with(
        small,
        folder.path(),
        Arc::new(Words::default()),
        Hand::of(1),
        port,
        Box::new(|_| {}),
    )
    .unwrap();
    node.receive(2, b"frame");
    node.receive(2, &vec![0; MAX_FRAME + 1]);
    assert_eq!(node.counters().inbox_full.get(), 2);
    let refused = node.propose(G, b"a=1".to_vec(), soon()).await;
    assert_eq!(refused, Err(ProposeError::Busy(G)));
    assert_eq!(node.read_index(G, soon()).await, Err(NoLeader(G)));
    // One process a directory.
    let port = Arc::new(Port(1, Hub::default()));
    let second = Consensus::open(
        test_settings(1),
        folder.path(),
        Arc::new(Words::default()),
        Hand::of(1),
        port,
    );
    assert!(matches!(second.err(), Some(OpenError::Store(_))));
    node.shutdown().await;
}

#[tokio::test]
async fn a_panic_of_the_store_thread_ends_the_process_by_the_hook() {
    let folder = tempfile::tempdir().unwrap();
    Consensus::bootstrap(folder.path(), &test_settings(1)).unwrap();
    let (told, fatal) = oneshot::channel();
    let port = Arc::new(Port(1, Hub::default()));
    let on_fatal: OnFatal = Box::new(move |reason| drop(told.send(reason.to_owned())));
    let node = Consensus::open_with(
        test_settings(1),
        folder.path(),
        Arc::new(Words::default()),
        Hand::of(1),
        port,
        on_fatal,
    )
    .unwrap();
    node.panic_store_thread();
    assert_eq!(fatal.await.unwrap(), "the store thread panicked");
    assert!(
        node.propose(G, b"a=1".to_vec(), soon()).await.is_err(),
        "nothing is acknowledged any more"
    );
}

/// Fails its next synced write (F12).
struct Failing(super::harness::Memory);

impl Reading for Failing {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.get(key)
    }
    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError> {
        self.0.scan(from, to, limit)
    }
}

impl Store for Failing {
    fn write(&self, batch: &Batch, sync: bool) -> Result<(), StoreError> {
        // The bootstrap and the creation of the groups pass.
        if sync && self.0.batches.lock().len() >= 2 {
            return Err(StoreError::message("input/output error"));
        }
        self.0.write(batch, sync)
    }
    fn snapshot(&self) -> Arc<dyn Reading> {
        self.0.snapshot()
    }
}

struct Nowhere;

impl Outbound for Nowhere {
    fn send(&self, to: NodeId, frame: Vec<u8>) {
        panic!("nothing may leave: to {to}, {} bytes", frame.len());
    }
}

#[test]
fn a_failed_sync_ends_the_process_and_nothing_is_answered() {
    let store = Arc::new(Failing(super::harness::Memory::default()));
    // Alone, so that its own vote makes it leader, if only the disk took it.
    let mut alone = Settings::new([7; 32], 1, vec![1]);
    alone.groups = 1;
    Driver::bootstrap(&*store, &alone).unwrap();
    let clock: Arc<dyn Clock> = Arc::new(MonotonicClock::start());
    let driver = Driver::open(
        alone,
        store.clone(),
        Arc::new(Words::default()),
        Hand::of(1),
        clock.clone(),
        [1; 32],
    )
    .unwrap();
    let inbox = Arc::new(Inbox::new(100, 100_000));
    let (answer, answered) = oneshot::channel();
    let put = inbox.put(Item::Propose {
        group: G,
        entry: b"a=1".to_vec(),
        deadline: u64::MAX,
        answer,
    });
    assert!(put.is_ok());
    let (jobs, _reads) = mpsc::channel();
    let (tick, status) = (Duration::from_millis(1), Arc::default());
    let store_loop = StoreLoop::new(
        driver,
        store,
        inbox.clone(),
        Arc::new(Nowhere),
        clock,
        tick,
        status,
        jobs,
    );
    let (told, fatal) = mpsc::channel();
    store_loop.run(Box::new(move |reason| told.send(reason.to_owned()).unwrap()));
    assert_eq!(fatal.recv().unwrap(), "the store failed: input/output error");
    assert!(answered.blocking_recv().is_err());
    assert!(inbox.put(Item::Link(1, true)).is_err(), "nothing more is taken");
}

/// A copy of the folder is what a power cut leaves that the operating system survives; a cut WAL is what one
/// leaves that it does not (F14).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_wal_starts_with_a_prefix() {
    let folder = tempfile::tempdir().unwrap();
    let mut alone = Settings::new([7; 32], 1, vec![1]);
    alone.groups = 1;
    let home = folder.path().join("home");
    Consensus::bootstrap(&home, &alone).unwrap();
    let open = |path: &Path| {
        Consensus::open_with(
            alone.clone(),
            path,
            Arc::new(Words::default()),
            Hand::of(1),
            Arc::new(Nowhere),
            Box::new(|_| {}),
        )
    };
    let node = open(&home).unwrap();
    for round in 0..30 {
        node.propose(G, format!("k{round:02}=v").into_bytes(), soon())
            .await
            .unwrap();
    }
    let wal = |path: &Path| {
        let files = std::fs::read_dir(path).unwrap().map(|file| file.unwrap().path());
        files
            .filter(|file| file.extension().is_some_and(|extension| extension == "log"))
            .max()
            .unwrap()
    };
    let length = std::fs::metadata(wal(&home)).unwrap().len();
    let mut seen = Vec::new();
    for cut in (0..length).step_by(usize::try_from(length / 12).unwrap()) {
        let copy = folder.path().join(format!("cut{cut}"));
        std::fs::create_dir(&copy).unwrap();
        for file in std::fs::read_dir(&home).unwrap().map(|file| file.unwrap().path()) {
            if file.file_name().is_some_and(|name| name != "LOCK") {
                std::fs::copy(&file, copy.join(file.file_name().unwrap())).unwrap();
            }
        }
        let torn = std::fs::OpenOptions::new().write(true).open(wal(&copy)).unwrap();
        torn.set_len(length - cut).unwrap();
        drop(torn);
        // Early cuts may take the bootstrap itself: then it says so.
        match open(&copy) {
            Ok(again) => {
                let keys = again.view(G).unwrap().scan(b"k", None, 99).unwrap();
                let expected = (0..keys.len()).map(|round| format!("k{round:02}").into_bytes());
                assert!(keys.iter().map(|(key, _)| key.clone()).eq(expected), "a prefix");
                seen.push(keys.len());
                again.shutdown().await;
            }
            Err(OpenError::Joining | OpenError::GroupMissing(_)) => seen.push(0),
            Err(error) => panic!("{error:?}"),
        }
    }
    assert!(
        seen.is_sorted_by(|earlier, later| earlier >= later) && seen[0] == 30 && seen.len() > 10,
        "{seen:?}"
    );
    node.shutdown().await;
}
