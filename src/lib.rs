//! Conclave: what is true on one node. The binary is a thin shell around this library.

pub mod identifier;
pub mod keystore;
pub mod membership;
pub mod operation;
pub mod problem;
pub mod authorization;
pub mod audit;
pub mod replay;
pub mod cli;
pub mod config;
pub mod provision;
pub mod seal;
pub mod telemetry;
pub mod cli;
pub mod client;
