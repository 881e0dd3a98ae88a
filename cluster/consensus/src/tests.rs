//! Tests of the driver as a whole: one rule of consensus.md a test. Each was seen to fail with its rule left out.

mod bootstrap;
mod fence;
mod harness;
mod hostile;
mod order;
mod pending;
mod proposals;
mod reads;
mod restore;
mod rocks;
mod rolled_back;
mod snapshots;
