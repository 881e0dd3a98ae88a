//! The replicated state machine: meters, keystores, the public parts of keys, revocations.
//!
//! Pure and deterministic: it reads no clock, no network and no other group; two replicas that apply the same
//! entries hold the same bytes. An [`Entry`] carries what a client signed, the [`Command`] that its endorsers
//! derived from it and their signatures; [`apply`](apply::apply) checks the signatures and the state's version,
//! never the request again.

pub mod apply;
#[cfg(test)]
mod apply_properties;
#[cfg(test)]
mod apply_tests;
pub mod beginning;
pub mod command;
pub mod config;
pub mod entry;
pub mod layout;
pub mod members;
#[cfg(test)]
mod members_tests;
#[cfg(test)]
mod memory_tests;
#[cfg(test)]
mod order_tests;
pub mod outcome;
#[cfg(test)]
mod placement_tests;
pub mod query;
pub mod record;
mod renewal;
#[cfg(test)]
mod renewal_tests;
pub mod roster;
pub mod state;
pub mod unknown;
pub mod written;

pub use command::Command;
pub use config::KeystoreConfig;
pub use entry::{Endorsement, Entry, Statement};
pub use outcome::{Outcome, Rejection, Reply};
pub use record::{KeyRecord, KeyType, KeystoreRecord, Meter, RevocationRecord};
pub use roster::{Lists, Roster, Rosters, Stage};
pub use state::{ReadState, StateError, WriteState};
