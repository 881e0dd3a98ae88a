//! The audit record: an append-only, hash-chained folder of segment files, one per node (trust.md, section 7).
//!
//! A holder appends what it is about to do and waits for the answer; only then does it contribute or endorse.
//! One writer thread takes all that waits, writes it, makes one `fdatasync` and releases every waiter.
//! Never a body: the types have no place for one, the signed digest inside the signing string stands for it.

mod chain;
mod compression;
mod contents;
mod corroboration;
mod error;
mod frame;
mod heads;
mod journal;
mod record;
mod recovery;
mod refusals;
mod retention;
mod segment;
mod settings;
mod space;
mod span;
mod verification;
mod writer;

pub use corroboration::{Corroboration, Expected, Finding, Findings, IsSigned, Wrong};
pub use error::{AppendError, OpenError, VerifyError};
pub use heads::{HeadFinding, HeadFindings, Heads, Shorter, WrongHead};
pub use journal::{Audit, Counters, Health, Sighting, SignedHead};
pub use record::{Capability, Content, Entry, Evidence, Kind, OperationId, PeerHead, Record, Signature};
pub use refusals::RefusalRate;
pub use settings::{Retention, Settings};
pub use verification::{Report, owner, verify, verify_each};

pub use chain::head_message;

#[cfg(test)]
mod tests;
