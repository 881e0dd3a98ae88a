//! Conclave: what is true on one node. The binary is a thin shell around this library.

pub mod authorization;
pub mod cli;
pub mod client;
