//! What nodes say to each other in full ceremonies, in the clear as the in-memory network delivers it: no share and no
//! whole key is in any frame, and what is known to be there is found by the same search.

use std::collections::BTreeMap;
use std::sync::Arc;

use conclave_transport::memory::Recorded;
use curve25519_dalek::Scalar;
use parking_lot::Mutex;

use super::client::{ED25519, Key, X25519, derive_well, furnished_in, sign_well};
use super::cluster::{Cluster, run};
use crate::actors::parts::Parts;

#[path = "../../../tests/search/needle.rs"]
mod needle;

/// Bytes before the scalar in an opened share: version, purpose, index, epoch.
const HEADER: usize = 12;

fn shares(cluster: &Cluster, keystore: &crate::identifier::LocalId, key: &Key) -> BTreeMap<u64, [u8; 32]> {
    let mut shares = BTreeMap::new();
    for node in cluster.nodes() {
        let record = node.key_record(keystore, &key.id).unwrap();
        let id = Parts::share_id(keystore, &key.id, &record);
        let share = node.parts.shares.get(&id).unwrap().unwrap();
        shares.insert(node.parts.node, share.expose()[HEADER..].try_into().unwrap());
    }
    shares
}

#[test]
fn no_frame_of_any_ceremony_has_a_share_or_a_key() {
    run(async {
        let frames: Arc<Mutex<Vec<u8>>> = Arc::default();
        let recorder = {
            let frames = frames.clone();
            Arc::new(move |recorded: &Recorded| frames.lock().extend_from_slice(&recorded.payload))
        };
        let (cluster, client, keystore, signing, agreement) =
            furnished_in(Cluster::start_with(3, Some(recorder)).await).await;
        // One that is away while keys are made, and gets its shares by envelope.
        cluster.isolate(3);
        cluster.settle(&[cluster.node(1), cluster.node(2)]).await;
        let (late_signing, late_agreement) = (
            client.key(cluster.node(1), &keystore, ED25519).await,
            client.key(cluster.node(1), &keystore, X25519).await,
        );
        cluster.rejoin(3);
        let delivered = &cluster.node(3).parts.metrics.delivered;
        super::cluster::until("both shares arrive", || delivered.get() == 2).await;
        let keys = [&signing, &agreement, &late_signing, &late_agreement];
        for node in cluster.nodes() {
            for signing in [&signing, &late_signing] {
                sign_well(node, &client, &keystore, signing, b"recorded").await;
            }
            for agreement in [&agreement, &late_agreement] {
                derive_well(node, &client, &keystore, agreement).await;
            }
        }
        cluster.catch_up(&keystore.id).await;
        let mut needles = needle::Needles::default();
        for (number, key) in keys.into_iter().enumerate() {
            let shares = shares(&cluster, &keystore.id, key);
            let scalar = |node: u64| Scalar::from_canonical_bytes(shares[&node]).unwrap();
            let whole = scalar(1) * Scalar::from(2_u64) - scalar(2);
            assert_eq!(
                whole,
                scalar(2) * Scalar::from(3_u64) - scalar(3) * Scalar::from(2_u64)
            );
            needles.secret(&format!("key {number}"), &whole.to_bytes());
            needles.secret(&format!("negative of key {number}"), &(-whole).to_bytes());
            for (node, share) in &shares {
                needles.secret(&format!("share {number} of node {node}"), share);
            }
            let record = cluster.node(1).key_record(&keystore.id, &key.id).unwrap();
            let (commitment, _) = record.material.pair().unwrap();
            needles.exactly(&format!("canary {number}"), commitment.to_vec());
        }
        let search = needles.search();
        let frames = std::mem::take(&mut *frames.lock());
        let (canaries, others): (Vec<_>, Vec<_>) = search
            .found(&frames)
            .into_iter()
            .partition(|name| name.starts_with("canary"));
        assert_eq!(others, Vec::<&String>::new(), "in {} bytes", frames.len());
        assert_eq!(canaries.len(), 4);
        cluster.stop().await;
    });
}
