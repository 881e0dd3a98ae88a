//! A symmetric key, put together in this process from what two holders have on disk, with their node keys, and what the
//! replicated state says of it.

use std::collections::BTreeMap;
use std::path::Path;

use conclave_garbled::held::Held;
use conclave_garbled::operations;

use crate::common::disks::{ids, raft, record, shares};
use crate::common::world::{Key, World};

/// What of it may be where.
pub(crate) struct Whole {
    /// Nowhere. Of an HMAC key, the outer state: there is nothing else that makes tags.
    pub(crate) secret: [u8; 32],
    /// By number: everywhere but with the holder of that number.
    pub(crate) pieces: BTreeMap<u8, [u8; 32]>,
    /// An HMAC key's inner state: with every holder.
    pub(crate) inner: Option<[u8; 32]>,
}

/// Opens all stores; any two rebuild the key, and its check value says that it is the key.
pub(crate) fn put_together(copied: &Path, key: &Key) -> Whole {
    let (_, record) = record(&raft(copied, 1), key);
    let sharing = record.material.sharing().unwrap();
    let (keystore, id) = ids(key);
    let mut pieces = BTreeMap::new();
    let mut inner = None;
    for node in 1..=3 {
        let store = shares(copied, node, node).unwrap();
        let sessions = store.sessions(&keystore.0, &id.0).unwrap();
        let sealed = store.get(&sessions[0].id).unwrap().unwrap();
        let held = Held::from_bytes(sealed.expose()).unwrap();
        let numbers: Vec<u8> = held.share.pieces().map(|(number, _)| number).collect();
        assert!(
            !numbers.contains(&u8::try_from(node).unwrap()),
            "each lacks its own"
        );
        for (number, piece) in held.share.pieces() {
            assert_eq!(*pieces.entry(number).or_insert(piece.value), piece.value);
        }
        inner = held.inner.map(|inner| *inner);
    }
    let mut secret = sharing.correction;
    for piece in pieces.values() {
        secret
            .iter_mut()
            .zip(piece)
            .for_each(|(byte, piece)| *byte ^= piece);
    }
    let name = [keystore.0, id.0].concat();
    assert_eq!(
        operations::check_of(&name, &secret),
        sharing.check,
        "this is the key"
    );
    Whole {
        secret,
        pieces,
        inner,
    }
}

/// Tags and wraps through all nodes.
pub(crate) async fn use_keys(world: &World, hmac: &Key, kek: &Key) {
    let alice = &world.alice;
    for client in &world.clients {
        let tag = client.sign(alice, &hmac.id, b"message", None).await.unwrap();
        let is_it = client.verify(alice, &hmac.id, (b"message", &tag), None).await;
        assert!(is_it.unwrap());
        let payload = rand::random::<[u8; 32]>();
        let wrapped = client.wrap_key(alice, &kek.id, &payload, None).await.unwrap();
        let opened = client.unwrap_key(alice, &kek.id, &wrapped, None).await.unwrap();
        assert_eq!(opened.as_deref().map(|opened| &opened[..]), Some(&payload[..]));
    }
}
