//! What lives on a node: a keystore actor for each keystore that is used, the registry that keeps them, the holder
//! that answers other nodes, the crypto pool, the adapter of consensus' application trait.
//!
//! The traps of actix, as rules: `do_send` is forbidden (it ignores the mailbox's bound), a handler never computes
//! or blocks (the pool does), work in flight is in an explicit map, and an actor that panicked is made anew.

pub mod answers;
pub mod application;
pub mod attestor;
pub mod census;
pub mod ceremonies;
pub mod conduct;
pub mod coordinator;
pub mod crypto_pool;
pub mod decide;
pub mod denials;
pub mod directory;
pub mod doors;
pub mod examined;
pub mod formats;
pub mod heads;
pub mod heard;
pub mod holder;
pub mod keystore;
pub mod metrics;
pub mod parts;
pub mod proposals;
pub mod receipts;
pub mod recheck;
pub mod registry;
pub mod renewals;
pub mod stages;
pub mod symmetric;
pub mod views;
pub mod wire;

#[cfg(test)]
mod testing;
