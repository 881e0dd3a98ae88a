//! The floor under a signature by two nodes: what no program can do without, in CPU time, so that the sum can be held
//! against the CPU column of `make bench`: the curve's arithmetic, a client's request over TLS, a question between two
//! nodes over mutual TLS, and a record on disk.

#![allow(clippy::unwrap_used, reason = "a benchmark may panic")]

mod clock;
mod curve;
mod disk;
mod wire;

use criterion::{criterion_group, criterion_main};

criterion_group!(benches, curve::primitives, wire::exchanges, disk::record);
criterion_main!(benches);
