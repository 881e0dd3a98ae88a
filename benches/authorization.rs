//! What a request's verification costs, for chains of 0 to 9 delegations, beside the floor: one strict Ed25519
//! verification for the request and one for each proof. `cold` verifies every proof, `warm` finds the chain in the
//! cache. Then the canonical form that a proof signs, beside what hashing it costs.

use std::hint::black_box;

use conclave::authorization::capability::Delegated;
use conclave::authorization::issue::{Capability, Delegation, Invocation};
use conclave::authorization::{
    ChainCache, DidKey, Expectation, ExpectedRoot, Policy, RawRequest, Suite, authenticate, authorize,
};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

const KEYSTORE: &str = "https://kms.example/kms/keystores/z1A";
const PATH: &str = "/kms/keystores/z1A/keys/z1B";
const NOW: u64 = 1_780_315_200;

fn key(index: u8) -> SigningKey {
    SigningKey::from_bytes(&[index + 1; 32])
}

fn did(index: u8) -> String {
    DidKey::of(&key(index).verifying_key()).did
}

fn delegated(depth: u8) -> Option<Value> {
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
    capability
}

fn request(depth: u8) -> RawRequest {
    let capability = delegated(depth);
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
    let authenticated = authenticate(request, policy, cache, NOW * 1_000).expect("authentic");
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

fn canonical_form(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("canonical form (RDFC-1.0)");
    for depth in [1_u8, 3] {
        let capability = delegated(depth).expect("a delegation");
        let chain = Delegated::from_json(&capability, [0; 32], 10).expect("a well-formed chain");
        let level = chain.links().len() - 1;
        group.bench_with_input(
            BenchmarkId::new("of the last link", depth),
            &chain,
            |bencher, chain| {
                bencher.iter(|| black_box(chain).canonical_forms(level));
            },
        );
        let forms = chain.canonical_forms(level).expect("a canonical form");
        group.bench_with_input(
            BenchmarkId::new("floor: SHA-256 of it", depth),
            &forms,
            |bencher, forms| {
                bencher.iter(|| black_box(forms).each_ref().map(Sha256::digest));
            },
        );
    }
    group.finish();
}

criterion_group!(benches, authorization, canonical_form);
criterion_main!(benches);
