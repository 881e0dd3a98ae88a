//! What nodes that are down, or copies of their folders, have on disk: opened with the library and their node keys.

use std::path::Path;

use conclave::identifier::LocalId;
use conclave::keystore::{KeyRecord, layout};
use conclave_consensus::{Reading as _, RocksStore};
use conclave_shares::{NodeKey, ShareStore};
use rand::rngs::OsRng;

use super::world::Key;

/// The keystore and the key.
pub(crate) fn ids(key: &Key) -> (LocalId, LocalId) {
    let (keystore, key) = key.id.rsplit_once("/keys/").unwrap();
    let keystore = keystore.rsplit_once('/').unwrap().1;
    (LocalId::parse(keystore).unwrap(), LocalId::parse(key).unwrap())
}

fn bytes(hex: &str) -> [u8; 32] {
    std::array::from_fn(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
}

/// The cluster's id, from a node's configuration.
pub(crate) fn cluster(root: &Path, node: u64) -> [u8; 32] {
    let toml = std::fs::read_to_string(root.join(format!("node-{node}/node.toml"))).unwrap();
    let id = toml.lines().find_map(|line| line.strip_prefix("cluster = \""));
    bytes(id.unwrap())
}

/// A node's share store, with the node key of `key_of`.
pub(crate) fn shares(root: &Path, node: u64, key_of: u64) -> Result<ShareStore, conclave_shares::Error> {
    let home = root.join(format!("node-{node}"));
    let hex = std::fs::read_to_string(root.join(format!("node-{key_of}/node.key"))).unwrap();
    ShareStore::open(
        &home.join("data/shares"),
        &home.join("data/epochs.sealed"),
        NodeKey::new(Box::new(bytes(hex.trim()))),
        cluster(root, node),
        node,
        OsRng,
    )
}

/// A node's database of Raft groups.
pub(crate) fn raft(root: &Path, node: u64) -> RocksStore {
    RocksStore::open(&root.join(format!("node-{node}/data/raft"))).unwrap()
}

/// A key's record in a node's replicated state, and where it is.
pub(crate) fn record(store: &RocksStore, key: &Key) -> (Vec<u8>, KeyRecord) {
    let (keystore, id) = ids(key);
    let ending = layout::of_key(&keystore, &id);
    let all = store.scan(&[0], &[0xff], usize::MAX).unwrap();
    let mut found = all.into_iter().filter(|(at, _)| at.ends_with(&ending));
    let (at, value) = found.next().expect("the key is in the state");
    (at, postcard::from_bytes(&value).unwrap())
}
