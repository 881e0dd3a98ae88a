//! `conclave audit verify`: checks one node's audit folder without any other part of the node.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::audit::verify;
use crate::config::fields::decode_hex;

/// Reads a node's audit record.
#[derive(Debug, Args)]
pub struct AuditCommand {
    #[command(subcommand)]
    command: AuditSubcommand,
}

#[derive(Debug, Subcommand)]
enum AuditSubcommand {
    /// Checks every record, its place in the chain, and the node's signatures on the chain's heads.
    #[command(after_help = "Example:\n  conclave audit verify .conclave/node-1/data/audit --json")]
    Verify {
        /// The audit folder, or a copy of it.
        folder: PathBuf,
        /// The node's Ed25519 public key in hexadecimal; without it signatures on heads are not checked.
        #[arg(long, value_name = "HEX")]
        key: Option<String>,
        /// Print facts as JSON.
        #[arg(long)]
        json: bool,
    },
}

impl AuditCommand {
    /// Runs it: exit 0 if the chain holds.
    pub fn run(self) -> ExitCode {
        let AuditSubcommand::Verify { folder, key, json } = self.command;
        let key = match key.map(|text| decode_hex(&text).and_then(|key| <[u8; 32]>::try_from(key).ok())) {
            None => None,
            Some(Some(key)) => Some(key),
            Some(None) => {
                eprintln!("conclave: --key wants 64 hexadecimal digits");
                return ExitCode::FAILURE;
            }
        };
        match verify(&folder, key.as_ref()) {
            Ok(report) if json => println!(
                "{}",
                json!({ "ok": true, "records": report.records,
                "segments": report.segments, "heads_verified": report.heads_verified })
            ),
            Ok(report) => {
                println!(
                    "{} records in {} segments, {} signed heads: the chain holds",
                    report.records, report.segments, report.heads_verified
                );
                for (kind, count) in report.by_kind {
                    println!("  {kind}: {count}");
                }
            }
            Err(error) => {
                eprintln!("conclave: {error}");
                return ExitCode::FAILURE;
            }
        }
        ExitCode::SUCCESS
    }
}
