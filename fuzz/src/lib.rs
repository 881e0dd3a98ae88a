//! Fuzz targets for everything that reads bytes from outside: clients, other nodes, files.
//!
//! A target takes any bytes. It panics when the parser behind it breaks a promise: a panic of the parser itself, two
//! spellings of what is to have one, an honest node blamed, a wrong result believed. It says whether the bytes were
//! taken, so that a test can tell that a corpus still gets past the first check.
//!
//! What a signature or a checksum covers is signed anew by the target where an attacker could sign it too: otherwise
//! nothing behind the signature would ever be reached. Every target is deterministic.
//!
//! `make fuzz` runs all of them under libFuzzer, `cargo test -p conclave-fuzz` the corpora with some mutations.

pub mod mutation;
mod support;
pub mod targets;

pub use targets::{ALL, Target};
