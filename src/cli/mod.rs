//! One file for each subcommand: its arguments (clap) and a `run` that does it.

pub mod dev;
pub mod init;
pub mod status;
pub mod unseal;
//! The command line: one file per subcommand.

pub mod bench;
mod cluster;
pub mod connection;
pub mod demo;
mod duration;
pub mod id;
pub mod key;
pub mod keystore;
pub mod meter;
pub mod output;
#[cfg(test)]
mod story;
pub mod zcap;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// A key management cluster that speaks WebKMS; no node ever holds a whole key
#[derive(Debug, Parser)]
#[command(name = "conclave", version, about, after_help = output::EXIT_CODES)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Id(id::IdCommand),
    Meter(meter::MeterCommand),
    Keystore(keystore::KeystoreCommand),
    Key(key::KeyCommand),
    Zcap(zcap::ZcapCommand),
    Bench(bench::BenchCommand),
    Demo(demo::DemoCommand),
}

impl Arguments {
    /// Runs the command.
    pub async fn run(self) -> ExitCode {
        match self.command {
            Command::Id(command) => command.run().await,
            Command::Meter(command) => command.run().await,
            Command::Keystore(command) => command.run().await,
            Command::Key(command) => command.run().await,
            Command::Zcap(command) => command.run().await,
            Command::Bench(command) => command.run().await,
            Command::Demo(command) => command.run().await,
        }
    }
}
