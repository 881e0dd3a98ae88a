//! What targets share: reading structure out of bytes, signed requests, RDF as text, ceremonies to disturb.

pub(crate) mod ceremony;
pub(crate) mod cluster;
pub(crate) mod input;
pub(crate) mod key;
pub(crate) mod quads;
pub(crate) mod raft;
pub(crate) mod request;
pub(crate) mod vectors;
