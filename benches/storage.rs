//! What disks cost: sealed shares and the audit record, beside what they cannot go below on the same disk. Run it where
//! the nodes' data is: `TMPDIR=/data cargo bench --bench storage`.

#![allow(clippy::unwrap_used, reason = "a benchmark may panic")]

use std::fs::File;
use std::hint::black_box;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use conclave::audit::{Audit, Entry, Evidence, Kind, OperationId, Settings, Signature};
use conclave_shares::{NodeKey, ShareId, ShareStore};
use criterion::{Criterion, criterion_group, criterion_main};
use rand::rngs::OsRng;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

/// An opened share: version, purpose, index, epoch, scalar.
const SHARE: usize = 44;
/// A record of a use by a root capability, roughly.
const RECORD: usize = 900;

fn id(counter: u64) -> ShareId {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&counter.to_be_bytes());
    ShareId {
        keystore: [1; 16],
        key,
        session: [2; 32],
        key_type: "Ed25519VerificationKey2020".into(),
        epoch: 0,
    }
}

fn shares(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let (shares, epochs) = (folder.path().join("shares"), folder.path().join("epochs"));
    let store = ShareStore::open(
        &shares,
        &epochs,
        NodeKey::new(Box::new([3; 32])),
        [4; 32],
        1,
        OsRng,
    )
    .unwrap();
    store.put(&id(0), &[5; SHARE], &[], 1).unwrap();
    let mut group = criterion.benchmark_group("shares");
    let counter = AtomicU64::new(1);
    group.bench_function("put: sealed and on disk", |bench| {
        bench.iter(|| {
            let next = counter.fetch_add(1, Ordering::Relaxed);
            store.put(&id(next), &[5; SHARE], &[], 1).unwrap();
        })
    });
    group.bench_function("get: read and opened", |bench| {
        bench.iter(|| black_box(store.get(&id(0)).unwrap().unwrap().expose().len()))
    });
    group.bench_function("floor: AES-256-GCM over 44 bytes", |bench| {
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[6; 32]).unwrap());
        bench.iter(|| {
            let mut bytes = [7; SHARE].to_vec();
            let nonce = Nonce::assume_unique_for_key([8; 12]);
            key.seal_in_place_append_tag(nonce, Aad::empty(), &mut bytes)
                .unwrap();
            black_box(bytes)
        })
    });
    group.finish();
}

fn entry(counter: u64) -> Entry {
    let operation = OperationId {
        node: 1,
        boot: 2,
        counter,
    };
    let mut entry = Entry::new(Kind::Contributed, 1_800_000_000_000, operation);
    entry.participants = vec![1, 2];
    entry.evidence = Some(Evidence {
        key_id: "did:key:z6Mk".into(),
        signing_string: "x".repeat(RECORD - 300),
        signature: Signature([9; 64]),
        capabilities: Vec::new(),
    });
    entry
}

fn audit(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = Settings::new([4; 32], 1);
    settings.low_disk_percent = 0;
    let audit = Audit::open(&folder.path().join("audit"), settings, |_: &[u8]| [0; 64], |_| {}).unwrap();
    let audit = Arc::new(audit);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let counter = AtomicU64::new(0);
    let mut group = criterion.benchmark_group("audit record");
    for together in [1_usize, 32] {
        group.throughput(criterion::Throughput::Elements(together as u64));
        group.bench_function(format!("{together} at once, until on disk"), |bench| {
            bench.iter(|| {
                let appends = (0..together).map(|_| {
                    let (audit, next) = (audit.clone(), counter.fetch_add(1, Ordering::Relaxed));
                    async move { audit.append(entry(next)).await.unwrap() }
                });
                runtime.block_on(futures::future::join_all(appends));
            })
        });
    }
    group.throughput(criterion::Throughput::Elements(1));
    group.bench_function("floor: a write of 900 bytes and fdatasync", |bench| {
        let mut file = File::create(folder.path().join("floor")).unwrap();
        file.set_len(64 << 20).unwrap();
        bench.iter(|| {
            file.write_all(&[0; RECORD]).unwrap();
            file.sync_data().unwrap();
        })
    });
    group.finish();
}

criterion_group!(benches, shares, audit);
criterion_main!(benches);
