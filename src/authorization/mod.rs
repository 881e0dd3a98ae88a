//! From a client's raw request to the verdict that its signer was entitled to make it: draft-cavage signature, digest,
//! capability invocation, delegation chain. Pure: no network, no clock of its own (`now` is given, in Unix
//! milliseconds), no state but a cache of verified signatures. Every holder runs this for itself.
//!
//! Call [`authenticate()`], judge replays by [`Authenticated::name`], then call [`authorize()`] with what the route
//! expects. The profile is strict: closed JSON shapes, two suites, Ed25519 did:key only, and no JSON-LD processor; a
//! document that could mean two things is refused. `issue` is the way back, for clients.

pub mod authenticate;
pub mod authorize;
pub mod cache;
mod canonical;
pub mod capability;
pub mod chain;
pub mod did_key;
pub mod digest;
pub mod error;
mod http_signature;
pub mod invocation;
pub mod issue;
pub mod json;
mod parameters;
pub mod policy;
mod proof;
mod rdfc;
pub mod request;
pub mod target;
pub mod time;

#[cfg(test)]
mod second_opinion;
#[cfg(test)]
mod vectors;

pub(crate) use authenticate::authenticate_head;
pub use authenticate::{Authenticated, authenticate, name_of, name_of_signed};
pub use authorize::{Authorized, VerifiedDelegation, authorize, verify_delegation};
pub use cache::ChainCache;
pub use capability::Suite;
pub use chain::ChainLink;
pub use did_key::DidKey;
pub use error::{ChainFault, Refusal};
pub use invocation::Invoked;
pub use policy::{Expectation, ExpectedRoot, Policy, Revoked, encode_component, root_id};
pub use request::RawRequest;
