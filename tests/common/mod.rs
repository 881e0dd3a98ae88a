//! A real cluster for tests: `conclave dev` as its own processes, a relay on its public port, and hands to kill,
//! restart and ask single nodes. Each test binary uses a part of it.
#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(clippy::unwrap_used, reason = "a test's own helpers may fail loudly")]

pub(crate) mod cluster;
pub(crate) mod disks;
pub(crate) mod files;
pub(crate) mod https;
pub(crate) mod ledger;
pub(crate) mod links;
pub(crate) mod load;
pub(crate) mod machines;
pub(crate) mod namespace;
pub(crate) mod network;
pub(crate) mod npm;
pub(crate) mod planted;
pub(crate) mod process;
pub(crate) mod relay;
pub(crate) mod strace;
pub(crate) mod world;
