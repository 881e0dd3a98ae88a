//! Tests of the driver as a whole: one rule of consensus.md a test. Each was seen to fail with its rule left out.

mod bootstrap;
mod configuration;
mod departed;
mod fence;
mod harness;
mod hostile;
mod joining;
mod order;
mod pending;
mod placed;
mod proposals;
mod reads;
mod reconfigured;
mod restore;
mod rocks;
mod rolled_back;
mod snapshots;
mod vouched;
