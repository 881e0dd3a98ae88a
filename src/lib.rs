//! Conclave: what is true on one node. The binary is a thin shell around this library.

pub mod cli;
pub mod config;
pub mod provision;
pub mod seal;
pub mod telemetry;
