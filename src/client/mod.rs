//! A plain WebKMS client: what a controller needs to use any WebKMS server over HTTPS.
//!
//! An [`Identity`] signs a [`Call`] into a [`SignedRequest`]; a [`Connection`] carries it to one of the server's
//! addresses; [`Client`] puts the three together, one method per call of the protocol. Nothing here knows how
//! the server keeps its keys.

pub mod call;
pub mod capability;
pub mod connection;
pub mod delegation;
#[cfg(test)]
pub(crate) mod double;
pub mod error;
pub mod identity;
pub mod load;
pub mod multikey;
pub mod origin;
mod pool;
pub mod reply;
pub mod signer;
#[cfg(test)]
pub(crate) mod testing;
pub mod tls;
pub mod webkms;

pub use call::Call;
pub use capability::Capability;
pub use connection::{Connection, Limits};
pub use error::ClientError;
pub use identity::Identity;
pub use origin::Origin;
pub use reply::{Refusal, Reply};
pub use signer::{SignedRequest, Window};
pub use webkms::Client;
