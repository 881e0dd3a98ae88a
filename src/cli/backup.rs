//! `conclave backup`: has running nodes write their backups.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use bytes::Bytes;
use serde_json::{Value, json};

use crate::{
    provision::{ClusterFile, ProvisionError},
    telemetry::{admin::Refusal, client},
};

/// Has nodes of this machine write a backup each, now, into the folder that their configuration names.
///
/// A backup holds the node's shares, its groups' state and its audit chain, sealed to the recovery officers. Make one on
/// every node, at about the same time, and copy them to where a fire does not reach them.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  conclave backup                                  (the node at 127.0.0.1:9600)
  conclave backup --dir .conclave --json           (all nodes of a cluster that `conclave dev` runs)

Exit status: 0 every backup was made, 1 one was not.")]
pub struct BackupArguments {
    /// A node's admin address on this machine (repeatable).
    #[arg(
        long = "admin",
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:9600",
        conflicts_with = "dir"
    )]
    admins: Vec<String>,
    /// Where `conclave dev` keeps its cluster: all its nodes.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print facts as JSON.
    #[arg(long)]
    json: bool,
}

/// Why no node could be asked.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// No such cluster on this machine.
    #[error("there is no cluster in the folder")]
    NoCluster(#[from] ProvisionError),
}

/// Millions of keys take minutes.
const TIMEOUT: Duration = Duration::from_secs(6 * 3_600);

/// Asks one after the other: they may share a disk.
///
/// # Errors
/// [`BackupError`].
pub async fn run(arguments: BackupArguments) -> Result<ExitCode, BackupError> {
    let admins = match &arguments.dir {
        Some(dir) => ClusterFile::read(dir)?
            .nodes
            .into_iter()
            .map(|node| node.admin)
            .collect(),
        None => arguments.admins,
    };
    let mut answers = Vec::new();
    let mut failed = false;
    for admin in admins {
        eprintln!("Backing up the node at {admin} ...");
        let answer = ask(&admin).await;
        match (&answer, arguments.json) {
            (Ok(told), false) => println!("{}", line(told)),
            (Ok(_), true) => {}
            (Err(reason), _) => eprintln!("conclave: {admin}: {reason}"),
        }
        failed |= answer.is_err();
        answers.push(match answer {
            Ok(mut told) => {
                told["admin"] = json!(admin);
                told
            }
            Err(error) => json!({ "admin": admin, "error": error }),
        });
    }
    if arguments.json {
        println!("{}", json!({ "backups": answers }));
    }
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

async fn ask(admin: &str) -> Result<Value, String> {
    let answer = client::post(admin, "/backup", Bytes::new(), TIMEOUT).await;
    let answer = answer.map_err(|error| error.to_string())?;
    if !answer.status.is_success() {
        let refusal = serde_json::from_slice::<Refusal>(&answer.body);
        return Err(refusal.map_or_else(|_| answer.status.to_string(), |refusal| refusal.error));
    }
    serde_json::from_slice(&answer.body).map_err(|error| error.to_string())
}

fn line(told: &Value) -> String {
    format!(
        "node {}: {} ({} bytes: {} keystores, {} keys, {} shares)",
        told["node"],
        told["file"].as_str().unwrap_or_default(),
        told["bytes"],
        told["keystores"],
        told["keys"],
        told["shares"]
    )
}
