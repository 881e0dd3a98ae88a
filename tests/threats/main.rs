//! The bad inputs of the threat list, by number: through the verifier, and through real servers.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../common/mod.rs"]
mod common;

mod chain;
mod framing;
mod http;
mod invocation;
mod json_ld;
mod node_port;
mod operations;
mod server;
mod servers;
mod stalled;
mod support;
