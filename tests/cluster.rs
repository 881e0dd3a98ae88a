//! Real processes, killed for real: what was acknowledged stays, what was revoked stays revoked, on every node.
//!
//! What takes long, and whatever measures time, is ignored here and run by `make test-long`.
#![allow(clippy::unwrap_used, reason = "a test's own helpers may fail loudly")]

mod common;

#[path = "cluster/acknowledged.rs"]
mod acknowledged;
#[path = "cluster/deaths.rs"]
mod deaths;
#[path = "cluster/dying_moves.rs"]
mod dying_moves;
#[path = "cluster/heads.rs"]
mod heads;
#[path = "cluster/joining.rs"]
mod joining;
#[path = "cluster/known_keys.rs"]
mod known_keys;
#[path = "cluster/logs.rs"]
mod logs;
#[path = "cluster/members.rs"]
mod members;
#[path = "cluster/migration.rs"]
mod migration;
#[path = "cluster/orders.rs"]
mod orders;
#[path = "cluster/placement.rs"]
mod placement;
#[path = "cluster/receipts.rs"]
mod receipts;
#[path = "cluster/recovery.rs"]
mod recovery;
#[path = "cluster/repeats.rs"]
mod repeats;
#[path = "cluster/rolled_back.rs"]
mod rolled_back;
#[path = "cluster/sealed.rs"]
mod sealed;
#[path = "cluster/sessions.rs"]
mod sessions;
#[path = "cluster/shares.rs"]
mod shares;
#[path = "cluster/symmetric.rs"]
mod symmetric;
