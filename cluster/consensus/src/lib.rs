//! Raft groups on raft-rs: one store loop per node, log and state on RocksDB.
//!
//! [`Consensus`] is what a node runs: one thread that owns all groups. Inside it, [`Driver`] decides and does
//! nothing else: it is given time, randomness and a [`Store`], and queues what it wants sent, so that the
//! simulator runs the very same code. The meaning of entries is the caller's [`Application`].
//!
//! Rules and their reasons: the documents name them *consensus.md 1* (who may decide by which state) and
//! *consensus.md 3* (the traps of raft 0.7).

mod application;
mod attestation;
mod board;
mod configuration;
mod consensus;
mod counters;
mod digest;
mod driver;
mod fence;
mod frame;
mod freshness;
mod group;
mod guard;
mod ids;
mod inbox;
mod keys;
mod log;
mod opening;
mod output;
mod owned_snapshot;
mod proposals;
mod reads;
mod reconfiguration;
mod records;
mod remembered;
mod restoration;
mod rocks;
mod sabotage;
mod settings;
mod snapshot_read;
mod snapshots;
mod states;
mod store;
mod store_loop;
#[cfg(test)]
mod tests;
mod turn;
mod view;

pub use application::{Application, Halt, StateRead, StateTransaction};
pub use attestation::{Attestor, Lack, Mark, RolledBack};
pub use configuration::{Configuration, Move, Standing};
pub use consensus::Consensus;
pub use counters::{Counter, Counters};
pub use driver::{Driver, GroupStatus, Role, Turn};
pub use freshness::{Abstain, Behind, Clock, Freshness, MonotonicClock, Reason, Settling};
pub use guard::Violation;
pub use ids::{GroupId, Millis, NodeId, Restricts, Scope};
pub use opening::OpenError;
pub use output::{Applied, NoLeader, Output, ProposeError, Reply};
pub use restoration::Restoration;
pub use rocks::RocksStore;
pub use sabotage::Sabotage;
pub use settings::{MAX_ENTRY, MAX_FRAME, MAX_PAIR, Settings};
pub use snapshot_read::{ChunkRead, SnapshotRead};
pub use store::{Batch, Change, Pair, Reading, Store, StoreError};
pub use store_loop::{OnFatal, Outbound};
pub use view::View;
