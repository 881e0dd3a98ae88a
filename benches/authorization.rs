//! What a request's verification costs, for chains of 0 to 9 delegations, beside the floor: one strict Ed25519
//! verification for the request and one for each proof. `cold` verifies every proof, `warm` finds the chain in the
//! cache.

use std::hint::black_box;

use conclave::authorization::issue::{Capability, Delegation, Invocation};
use conclave::authorization::{
    ChainCache, DidKey, Expectation, ExpectedRoot, Policy, RawRequest, Suite, authenticate, authorize,
};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::Value;

const KEYSTORE: &str = "https://kms.example/kms/keystores/z1A";
const PATH: &str = "/kms/keystores/z1A/keys/z1B";
const NOW: u64 = 1_780_315_200;

fn key(index: u8) -> SigningKey {
    SigningKey::from_bytes(&[index + 1; 32])
}

fn did(index: u8) -> String {
    DidKey::of(&key(index).verifying_key()).did
}

fn request(depth: u8) -> RawRequest {
    let mut capability: Option<Value> = None;
    for index in 0..depth {
        let made = Delegation {
            key: &key(index),
            parent: capability
                .as_ref()
                .map_or(Capability::Root(KEYSTORE), Capability::Delegated),
            id: &format!("urn:uuid:00000000-0000-4000-8000-00000000000{index}"),
            controllers: &[&did(index + 1)],
            target: KEYSTORE,
            actions: Some(&["read", "sign"]),
            created: NOW - 60,
            expires: NOW + 86_400,
            suite: Suite::Ed25519Signature2020,
        };
        capability = Some(made.sign().expect("a well-formed delegation"));
    }
    Invocation {
        key: &key(depth),
        method: "POST",
        authority: "kms.example",
        target: PATH,
        capability: capability
            .as_ref()
            .map_or(Capability::Root(KEYSTORE), Capability::Delegated),
        action: "sign",
        created: NOW,
        expires: NOW + 600,
        body: Some(b"{\"type\":\"SignOperation\",\"verifyData\":\"aGVsbG8\"}"),
    }
    .sign()
    .expect("a well-formed invocation")
}

fn verify(request: &RawRequest, policy: &Policy, roots: &[ExpectedRoot], cache: &ChainCache) -> usize {
    let authenticated = authenticate(request, policy, NOW * 1_000).expect("authentic");
    let expectation = Expectation {
        roots,
        target: &format!("https://kms.example{PATH}"),
        action: "sign",
        max_delegation_ttl: None,
        revoked: &|_, _| false,
    };
    authorize(&authenticated, &expectation, policy, cache, NOW * 1_000)
        .expect("authorized")
        .chain_length
}

fn authorization(criterion: &mut Criterion) {
    let policy = Policy::new("kms.example");
    let roots = [ExpectedRoot::new(KEYSTORE, vec![did(0)])];
    let mut group = criterion.benchmark_group("authorization");
    for depth in [0u8, 1, 3, 9] {
        let request = request(depth);
        let (none, cache) = (ChainCache::new(0), ChainCache::new(16));
        group.bench_with_input(BenchmarkId::new("cold", depth), &request, |bencher, request| {
            bencher.iter(|| verify(black_box(request), &policy, &roots, &none));
        });
        group.bench_with_input(BenchmarkId::new("warm", depth), &request, |bencher, request| {
            bencher.iter(|| verify(black_box(request), &policy, &roots, &cache));
        });
        let (signer, message) = (key(0), [7u8; 64]);
        let (verifier, signature) = (signer.verifying_key(), signer.sign(&message));
        group.bench_with_input(BenchmarkId::new("floor", depth), &depth, |bencher, depth| {
            bencher.iter(|| {
                (0..=*depth).all(|_| verifier.verify_strict(black_box(&message), &signature).is_ok())
            });
        });
    }
    group.finish();
}

criterion_group!(benches, authorization);
criterion_main!(benches);
