//! Curve arithmetic: one thread's, so that wall time is CPU time.

use std::hint::black_box;

use criterion::Criterion;
use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::VartimeMultiscalarMul as _;
use ed25519_dalek::{Signer, SigningKey};
use rand::rngs::OsRng;

pub(crate) fn primitives(criterion: &mut Criterion) {
    let key = SigningKey::generate(&mut OsRng);
    let (signature, asked) = (key.sign(b"message"), key.sign(b"request"));
    let verifying = key.verifying_key();
    let mut group = criterion.benchmark_group("primitives");
    group.bench_function("ed25519 sign", |bench| {
        bench.iter(|| key.sign(black_box(b"message")))
    });
    group.bench_function("ed25519 verify strictly", |bench| {
        bench.iter(|| verifying.verify_strict(black_box(b"message"), &signature))
    });
    group.bench_function("x25519", |bench| {
        bench.iter(|| x25519_dalek::x25519(black_box([9; 32]), x25519_dalek::X25519_BASEPOINT_BYTES))
    });
    let scalar = Scalar::from_bytes_mod_order([7; 32]);
    let points = [3_u64, 5].map(|factor| EdwardsPoint::mul_base(&(scalar * Scalar::from(factor))));
    let encoded = points.map(|point| point.compress());
    group.bench_function("multiple of the base point, encoded", |bench| {
        bench.iter(|| EdwardsPoint::mul_base(black_box(&scalar)).compress())
    });
    group.bench_function("point decoded, its subgroup checked", |bench| {
        bench.iter(|| decode(black_box(&encoded[0])))
    });
    group.bench_function("commitment of two signers", |bench| {
        bench.iter(|| group_commitment(black_box(&points)))
    });
    // What two holders cannot do without for a signature that a client asked for: RFC 9591 and the client's own
    // signature, checked by each.
    group.bench_function("all of a signature by two holders", |bench| {
        bench.iter(|| {
            for _ in 0..2 {
                assert!(verifying.verify_strict(black_box(b"request"), &asked).is_ok());
                black_box(group_commitment(black_box(&points)));
            }
            for _ in 0..4 {
                black_box(EdwardsPoint::mul_base(black_box(&scalar)).compress());
            }
            for point in &encoded {
                black_box(decode(black_box(point)));
            }
            verifying.verify_strict(black_box(b"message"), &signature)
        })
    });
    group.finish();
}

fn decode(point: &CompressedEdwardsY) -> (Option<EdwardsPoint>, bool) {
    let point = point.decompress();
    let multiple =
        |point| EdwardsPoint::vartime_double_scalar_mul_basepoint(&-Scalar::ONE, &point, &Scalar::ZERO);
    (point, point.is_some_and(|point| multiple(point) == -point))
}

fn group_commitment(points: &[EdwardsPoint; 2]) -> CompressedEdwardsY {
    let factors = [[11; 32], [13; 32]].map(Scalar::from_bytes_mod_order);
    let sum: EdwardsPoint = points.iter().sum();
    (sum + EdwardsPoint::vartime_multiscalar_mul(&factors, points)).compress()
}
