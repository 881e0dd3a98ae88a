//! One file for each subcommand: its arguments (clap) and a `run` that does it.

pub mod dev;
pub mod init;
pub mod status;
pub mod unseal;
