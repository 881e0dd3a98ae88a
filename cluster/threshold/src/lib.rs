//! Threshold ceremonies, sans-IO: key generation, FROST, Diffie-Hellman.
//!
//! Nothing here opens a socket, reads a clock or owns randomness: the caller hands in each round's messages and an
//! `rng`, and carries what comes back. A coordinator gathers one signed message of each participant per round and
//! hands the whole set to everybody; it is never trusted, because each message is signed by its node.
//!
//! A key's life: every participant agrees on a [`Session`], runs a [`dkg::Participant`] and ends with a [`KeyShare`]
//! and the public [`Commitment`]; members that were away open what is kept for them with [`envelope::open`]. A share
//! then signs by [`frost`] or agrees by [`diffie_hellman`], never both: its [`Purpose`] is part of it.

pub mod commitment;
pub mod diffie_hellman;
pub mod dkg;
mod dleq;
pub mod edwards25519;
pub mod envelope;
pub mod fault;
pub mod frost;
pub mod group;
mod hash;
pub mod letter;
mod message;
mod package;
mod polynomial;
pub mod session;
pub mod share;

pub use commitment::Commitment;
pub use edwards25519::Edwards25519;
pub use fault::{Culprits, Evidence, Fault, Reason};
pub use group::Group;
pub use message::{SignatureBytes, Statement};
pub use package::PackageError;
pub use session::{Member, Purpose, Session, SessionError, SessionTerms};
pub use share::KeyShare;

#[cfg(test)]
mod dealer;
#[cfg(test)]
mod ristretto;
