//! What it costs to write and read the question and the answer of a signature between nodes, beside the floor: copying
//! as many bytes. What a link adds is in `cluster/transport/benches/call.rs`.

use std::hint::black_box;

use conclave::actors::wire::{Answer, Call, Forwarded};
use conclave::authorization::issue::{Capability, Invocation};
use conclave::identifier::OperationId;
use criterion::{Criterion, criterion_group, criterion_main};
use ed25519_dalek::SigningKey;

fn question() -> Call {
    let request = Invocation {
        key: &SigningKey::from_bytes(&[1; 32]),
        method: "POST",
        authority: "kms.example",
        target: "/kms/keystores/z1A/keys/z1B",
        capability: Capability::Root("https://kms.example/kms/keystores/z1A"),
        action: "sign",
        created: 1_780_315_200,
        expires: 1_780_315_800,
        body: Some(b"{\"type\":\"SignOperation\",\"verifyData\":\"aGVsbG8\"}"),
    };
    let request = request.sign().expect("a well-formed invocation");
    let forwarded = Forwarded {
        operation: OperationId {
            node: 1,
            boot: u64::MAX,
            counter: 1 << 40,
        },
        attempt: 1,
        request: request.signed_part().expect("a signed request").encode(),
        needs: vec![(3, 1 << 20)],
        participants: vec![1, 2],
        epoch: Some(0),
    };
    Call::Cosign(forwarded, vec![7; 64])
}

fn frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frames");
    let (question, answer) = (question(), Answer::Cosigned(vec![7; 64], vec![7; 32]));
    let (asked, answered) = (question.encode(), answer.encode());
    group.bench_function("question: write", |bencher| {
        bencher.iter(|| black_box(&question).encode())
    });
    group.bench_function("question: read", |bencher| {
        bencher.iter(|| Call::decode(black_box(&asked)))
    });
    group.bench_function("answer: write", |bencher| {
        bencher.iter(|| black_box(&answer).encode())
    });
    group.bench_function("answer: read", |bencher| {
        bencher.iter(|| Answer::decode(black_box(&answered)))
    });
    group.bench_function("floor: a copy of the question", |bencher| {
        bencher.iter(|| black_box(&asked).clone());
    });
    group.finish();
}

criterion_group!(benches, frames);
criterion_main!(benches);
