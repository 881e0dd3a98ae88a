//! Conclave: what is true on one node. The binary is a thin shell around this library.

pub mod actors;
pub mod api;
pub mod audit;
pub mod authorization;
pub mod check;
pub mod cli;
pub mod client;
pub mod config;
pub mod counted;
pub mod format;
pub mod identifier;
pub mod keystore;
pub mod membership;
pub mod node;
pub mod operation;
pub mod operator;
pub mod overload;
pub mod problem;
pub mod provision;
pub mod receipt;
pub mod recovery;
pub mod replay;
pub mod reply;
pub mod seal;
pub mod status;
pub mod telemetry;
