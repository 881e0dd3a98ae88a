//! Keys that a test knows, in the place of keys that were born: written into the stores of nodes that are down, with the
//! library and the node keys. A running node takes shares from nowhere but a birth.

use std::path::Path;

use conclave::actors::parts::Parts;
use conclave::keystore::record::Material;
use conclave_consensus::{Batch, Store as _};
use conclave_garbled::circuits::sha256::{INITIAL_STATE, compress};
use conclave_garbled::held::{Held, inner_digest};
use conclave_garbled::operations::check_of;
use conclave_garbled::sharing::{Name, deal, share_of};
use rand::rngs::OsRng;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::disks;
use super::world::Key;

/// A symmetric key as the cluster keeps it.
pub(crate) struct Planted {
    /// Of an HMAC key, its outer state.
    secret: [u8; 32],
    inner: Option<[u8; 32]>,
}

impl Planted {
    /// An HMAC key of any length (RFC 2104).
    pub(crate) fn hmac(key: &[u8]) -> Self {
        let mut block = [0; 64];
        if key.len() > block.len() {
            block[..32].copy_from_slice(&Sha256::digest(key));
        } else {
            block[..key.len()].copy_from_slice(key);
        }
        let state = |pad: u8| compress(INITIAL_STATE, &block.map(|byte| byte ^ pad));
        Self {
            secret: state(0x5c),
            inner: Some(state(0x36)),
        }
    }

    /// A key that wraps.
    pub(crate) fn kek(secret: [u8; 32]) -> Self {
        Self { secret, inner: None }
    }

    /// Takes the place of `key` on all its holders' disks and in the state of all `nodes`.
    pub(crate) fn replace(&self, root: &Path, nodes: u64, key: &Key) {
        let (keystore, id) = disks::ids(key);
        let cluster = disks::cluster(root, 1);
        let key_name = [keystore.0, id.0].concat();
        let stores: Vec<_> = (1..=nodes).map(|node| disks::raft(root, node)).collect();
        let (_, mut record) = disks::record(&stores[0], key);
        // The old parts become those of a ceremony that made nothing.
        record.session = rand::random();
        let share_id = Parts::share_id(&keystore, &id, &record);
        let Material::Pieces(sharing) = &mut record.material else {
            panic!("no symmetric key");
        };
        let name = Name {
            cluster: &cluster,
            key: &key_name,
            epoch: record.epoch,
            sharing: 0,
        };
        let mut shared = self.secret;
        shared
            .iter_mut()
            .zip(sharing.correction)
            .for_each(|(byte, correction)| *byte ^= correction);
        let holders = u8::try_from(sharing.holders.len()).unwrap();
        let pieces = deal(&shared, holders, &mut OsRng);
        let commitments = (1..)
            .zip(&pieces)
            .map(|(number, piece)| piece.commitment(&name, number));
        sharing.pieces = commitments.collect();
        sharing.inner = self.inner.map(|inner| inner_digest(&name, &inner));
        sharing.check = check_of(&key_name, &self.secret);
        for (number, node) in (1..).zip(&sharing.holders) {
            let held = Held {
                share: share_of(&pieces, number).unwrap(),
                inner: self.inner.map(Zeroizing::new),
            };
            let shares = disks::shares(root, *node, *node).unwrap();
            shares
                .put(&share_id, &held.to_bytes(), &[], record.created)
                .unwrap();
        }
        let value = postcard::to_stdvec(&record).unwrap();
        for store in &stores {
            let (at, _) = disks::record(store, key);
            let mut batch = Batch::default();
            batch.put(at, value.clone());
            store.write(&batch, true).unwrap();
        }
    }
}
