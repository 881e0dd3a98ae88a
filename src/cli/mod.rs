//! The command line: one file for each subcommand, its arguments (clap) and a `run` that does it.

pub mod audit;
pub mod backup;
pub mod bench;
mod cluster;
pub mod connection;
pub mod demo;
pub mod dev;
mod duration;
pub mod id;
pub mod init;
pub mod key;
pub mod keystore;
pub mod meter;
pub mod node;
pub mod operator;
pub mod output;
pub mod receipts;
pub mod recovery;
pub mod restore;
mod seal;
pub mod server;
pub mod status;
#[cfg(test)]
mod story;
pub mod unseal;
mod vault;
pub mod zcap;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::node::bootstrap;

/// Reads the arguments and does what they say: all that the binary is.
pub fn main() -> ExitCode {
    match Arguments::try_parse() {
        Ok(arguments) => arguments.run(),
        Err(error) => {
            let code = if error.use_stderr() { output::USAGE } else { 0 };
            // Nothing is left to do when even the message cannot be written.
            let _ = error.print();
            ExitCode::from(code)
        }
    }
}

/// A key management cluster that speaks WebKMS; no node ever holds a whole key
#[derive(Debug, Parser)]
#[command(name = "conclave", version, about, after_help = output::EXIT_CODES)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Dev(dev::DevArguments),
    Init(init::InitArguments),
    Server(server::ServerArguments),
    Unseal(unseal::UnsealArguments),
    Status(status::StatusArguments),
    Audit(audit::AuditCommand),
    Node(node::NodeCommand),
    Operator(operator::OperatorCommand),
    Backup(backup::BackupArguments),
    Recovery(recovery::RecoveryCommand),
    Restore(restore::RestoreCommand),
    Id(id::IdCommand),
    Meter(meter::MeterCommand),
    Keystore(keystore::KeystoreCommand),
    Key(key::KeyCommand),
    Zcap(zcap::ZcapCommand),
    Bench(bench::BenchCommand),
    Demo(demo::DemoCommand),
}

impl Arguments {
    /// Runs the command. `server` and `dev` make their own runtimes; the others get a small one.
    pub fn run(self) -> ExitCode {
        match self.command {
            Command::Server(arguments) => report(server::run(&arguments)),
            Command::Init(arguments) => report(init::run(arguments, bootstrap)),
            Command::Audit(command) => command.run(),
            Command::Recovery(command) => report(command.run()),
            other => match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
                Ok(runtime) => runtime.block_on(other.run_async()),
                Err(error) => report::<std::io::Error>(Err(error)),
            },
        }
    }
}

impl Command {
    async fn run_async(self) -> ExitCode {
        match self {
            Command::Dev(arguments) => report(dev::run(arguments, bootstrap).await),
            Command::Node(command) => report(command.run().await),
            Command::Operator(command) => report(command.run().await),
            Command::Unseal(arguments) => report(unseal::run(arguments).await),
            Command::Status(arguments) => report(status::run(arguments).await),
            Command::Backup(arguments) => report(backup::run(arguments).await),
            Command::Restore(command) => report(command.run().await),
            Command::Id(command) => command.run().await,
            Command::Meter(command) => command.run().await,
            Command::Keystore(command) => command.run().await,
            Command::Key(command) => command.run().await,
            Command::Zcap(command) => command.run().await,
            Command::Bench(command) => command.run().await,
            Command::Demo(command) => command.run().await,
            Command::Server(_) | Command::Init(_) | Command::Audit(_) | Command::Recovery(_) => {
                ExitCode::FAILURE
            }
        }
    }
}

/// Prints an error with everything behind it.
fn report<E: std::error::Error>(result: Result<ExitCode, E>) -> ExitCode {
    let error = match result {
        Ok(code) => return code,
        Err(error) => error,
    };
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    eprintln!("conclave: {text}");
    ExitCode::FAILURE
}
