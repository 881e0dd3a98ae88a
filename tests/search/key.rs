//! The key itself, put together in this process from what k nodes have on disk, with their node keys.

use std::collections::BTreeMap;
use std::path::Path;

use conclave_shares::ShareStore;
use curve25519_dalek::Scalar;
use curve25519_dalek::constants::ED25519_BASEPOINT_POINT;

use crate::common::disks::{ids, shares};
use crate::common::world::{Key, World};

/// Bytes before the scalar in an opened share: version, purpose, index, epoch.
const HEADER: usize = 12;

/// Everything that must be nowhere, and what may be everywhere.
pub(crate) struct Whole {
    secret: Scalar,
    /// By node.
    pub(crate) shares: BTreeMap<u64, [u8; 32]>,
    /// Compressed.
    pub(crate) public: [u8; 32],
}

impl Whole {
    /// Scalars by which the key could be kept: itself and its negative, and both times and by the cofactor.
    pub(crate) fn forms(&self) -> Vec<(&'static str, [u8; 32])> {
        let (key, eight) = (self.secret, Scalar::from(8_u64));
        let by_eight = key * eight.invert();
        vec![
            ("scalar", key.to_bytes()),
            ("negative", (-key).to_bytes()),
            ("times 8", (key * eight).to_bytes()),
            ("by 8", by_eight.to_bytes()),
            ("negative by 8", (-by_eight).to_bytes()),
        ]
    }
}

fn share(store: &ShareStore, key: &Key) -> (u16, [u8; 32]) {
    let (keystore, key) = ids(key);
    let sessions = store.sessions(&keystore.0, &key.0).unwrap();
    let share = store.get(&sessions[0].id).unwrap().unwrap();
    let bytes = share.expose();
    let index = u16::from_be_bytes(bytes[2..4].try_into().unwrap());
    (index, bytes[HEADER..].try_into().unwrap())
}

/// Opens all stores and interpolates from two of them; what comes out has the key's public point.
pub(crate) fn put_together(copied: &Path, key: &Key) -> Whole {
    let mut found = BTreeMap::new();
    for node in 1..=3 {
        let (index, share) = share(&shares(copied, node, node).unwrap(), key);
        assert_eq!(u64::from(index), node);
        found.insert(node, share);
    }
    let scalar = |node: u64| Scalar::from_canonical_bytes(found[&node]).unwrap();
    // f(0) from f(1) and f(2), and the same from f(2) and f(3).
    let secret = scalar(1) * Scalar::from(2_u64) - scalar(2);
    let again = scalar(2) * Scalar::from(3_u64) - scalar(3) * Scalar::from(2_u64);
    assert_eq!(secret, again, "any two shares give the key");
    let point = ED25519_BASEPOINT_POINT * secret;
    let multibase = key.description["publicKeyMultibase"].as_str().unwrap();
    let public = bs58::decode(&multibase[1..]).into_vec().unwrap();
    let edwards = point.compress().to_bytes();
    let montgomery = point.to_montgomery().to_bytes();
    assert!(
        public[2..] == edwards || public[2..] == montgomery,
        "this is the key"
    );
    Whole {
        secret,
        shares: found,
        public: edwards,
    }
}

/// With one node's disk and key there is one share, and it is not the key; another node's disk does not open.
pub(crate) fn nothing_opens_with_fewer(copied: &Path, key: &Key) {
    let whole = put_together(copied, key);
    for node in 1..=3 {
        let (_, share) = share(&shares(copied, node, node).unwrap(), key);
        assert!(whole.forms().iter().all(|(_, form)| *form != share));
        for other in (1..=3).filter(|other| *other != node) {
            assert!(
                shares(copied, other, node).is_err(),
                "node {node}'s key opens node {other}'s store"
            );
        }
    }
}

/// A refused request at every node; their names, which the logs have.
pub(crate) async fn refused(world: &World, key: &Key) -> Vec<String> {
    let call = conclave::client::Call::sign(&key.id, b"no");
    let mut told = Vec::new();
    for node in 0..world.clients.len() {
        let origin = world.clients[node].connection().origin();
        let window = conclave::client::Window::starting_now();
        let request = conclave::client::signer::sign(origin, &world.bob, &call, None, window).unwrap();
        let reply = world.send(node, &request).await;
        assert_eq!(reply.status, 403);
        told.push(reply.request_id.unwrap());
    }
    told
}
