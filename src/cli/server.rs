//! `conclave server`: one node.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::check::check;
use crate::config::Config;
use crate::node::{self, NodeError};

/// Runs one node, until SIGINT or SIGTERM.
///
/// Prints `ready` on standard output when the node can serve. With a passphrase seal it waits, sealed, for
/// `conclave unseal`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  conclave server --config /etc/conclave/node.toml
  conclave server --config node.toml --check     (validates the configuration and the files that it names)")]
pub struct ServerArguments {
    /// The node's configuration; every key is explained in deploy/node.example.toml.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Validate, print what was found, and stop.
    #[arg(long)]
    check: bool,
    /// Stop when standard input ends: a parent process that is gone takes its nodes with it.
    #[arg(long, hide = true)]
    exit_with_stdin: bool,
}

/// Runs the node.
///
/// # Errors
/// [`NodeError`].
pub fn run(arguments: &ServerArguments) -> Result<ExitCode, NodeError> {
    let config = Config::load(&arguments.config)?;
    if !arguments.check {
        return node::run(config, arguments.exit_with_stdin);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    match runtime.block_on(check(&config, rustls_pki_types::UnixTime::now())) {
        Ok(report) => {
            for passed in &report.passed {
                println!("ok: {passed}");
            }
            for warning in &report.warnings {
                println!("warning: {warning}");
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(problems) => {
            eprintln!("{problems}");
            Ok(ExitCode::FAILURE)
        }
    }
}
