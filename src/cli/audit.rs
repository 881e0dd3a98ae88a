//! `conclave audit`: checks nodes' audit folders, alone and against each other, without any other part of a node.

mod compared;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use self::compared::{Pinned, compare};
use crate::audit::{self, Content, Kind, Record, Report};
use crate::config::fields::{decode_hex, encode_hex};
use crate::identifier::LocalId;

/// Reads nodes' audit records.
#[derive(Debug, Args)]
pub struct AuditCommand {
    #[command(subcommand)]
    command: AuditSubcommand,
}

#[derive(Debug, Subcommand)]
enum AuditSubcommand {
    /// Checks every record, its place in the chain, and the node's signatures on the chain's heads; of several nodes also
    /// that everybody who took part in a result has recorded the same signed request, and that each chain has what its node has
    /// signed of it, as the others have it on record.
    #[command(
        after_help = "Examples:\n  conclave audit verify .conclave/node-1/data/audit --json\n  \
                      conclave audit verify --genesis .conclave/genesis.json .conclave/node-*/data/audit\n  \
                      conclave audit verify --genesis genesis.json --orders orders.json --stopped node-*/audit"
    )]
    Verify {
        /// The audit folders, or copies of them, of a node each.
        #[arg(required = true)]
        folders: Vec<PathBuf>,
        /// The cluster's genesis statement: whose chains these are, the nodes' public keys, and the quorum.
        #[arg(long, value_name = "FILE")]
        genesis: Option<PathBuf>,
        /// The orders that changed the members, as `conclave node orders` writes them: the keys of nodes that joined later.
        #[arg(long, value_name = "FILE", requires = "genesis")]
        orders: Option<PathBuf>,
        /// The node's Ed25519 public key in hexadecimal, of one folder; without it and without a genesis statement signatures
        /// on heads are not checked.
        #[arg(long, value_name = "HEX", conflicts_with = "genesis")]
        key: Option<String>,
        /// The nodes were stopped before the folders were copied: whatever is later than the end of a chain is wrong as well,
        /// a result in which its node took part or a head that the node has signed.
        #[arg(long)]
        stopped: bool,
        /// Print facts as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Prints the records, a JSON document a line, and checks the chain meanwhile.
    #[command(
        after_help = "Example:\n  conclave audit export .conclave/node-1/data/audit | jq 'select(.kind == \"refused\")'"
    )]
    Export {
        /// The audit folder, or a copy of it.
        folder: PathBuf,
    },
}

impl AuditCommand {
    /// Runs it: exit 0 if everything holds.
    pub fn run(self) -> ExitCode {
        let ran = match self.command {
            AuditSubcommand::Export { folder } => export(&folder),
            AuditSubcommand::Verify {
                folders,
                genesis: Some(genesis),
                orders,
                stopped,
                json,
                ..
            } => all(&folders, (&genesis, orders.as_deref()), stopped, json),
            AuditSubcommand::Verify {
                folders,
                key,
                stopped,
                json,
                ..
            } => match &folders[..] {
                [folder] => alone(folder, key.as_deref(), stopped, json),
                _ => Err("several folders are held against each other by --genesis FILE".into()),
            },
        };
        ran.unwrap_or_else(|error| {
            eprintln!("conclave: {error}");
            ExitCode::FAILURE
        })
    }
}

fn alone(folder: &Path, key: Option<&str>, stopped: bool, as_json: bool) -> Result<ExitCode, String> {
    let key = key.map(|text| {
        let key = decode_hex(text).and_then(|key| <[u8; 32]>::try_from(key).ok());
        key.ok_or("--key wants 64 hexadecimal digits")
    });
    let report = audit::verify(folder, key.transpose()?.as_ref()).map_err(|error| error.to_string())?;
    let holds = !(stopped && report.ends_sealed);
    match as_json {
        true => {
            let mut facts = facts(&report);
            facts["ok"] = json!(holds);
            println!("{facts}");
        }
        false => tell(&report),
    }
    Ok(exit(holds))
}

fn all(
    folders: &[PathBuf],
    (genesis, orders): (&Path, Option<&Path>),
    stopped: bool,
    as_json: bool,
) -> Result<ExitCode, String> {
    let compared = compare(folders, Pinned::read(genesis, orders)?, stopped)?;
    match as_json {
        true => println!("{}", compared.facts()),
        false => compared.tell(),
    }
    Ok(exit(compared.holds()))
}

fn exit(holds: bool) -> ExitCode {
    match holds {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn facts(report: &Report) -> Value {
    json!({
        "ok": true, "records": report.records, "segments": report.segments, "heads_verified": report.heads_verified,
        "last": report.last_sequence, "ends_sealed": report.ends_sealed,
    })
}

fn tell(report: &Report) {
    println!(
        "{} records in {} segments, {} signed heads: the chain holds",
        report.records, report.segments, report.heads_verified
    );
    for (kind, count) in &report.by_kind {
        println!("  {kind}: {count}");
    }
    if report.ends_sealed {
        println!("  the last segment is a sealed one: what followed it was not copied, or was removed");
    }
}

fn export(folder: &Path) -> Result<ExitCode, String> {
    use std::io::Write;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut written = Ok(());
    let print = |record: &Record| {
        if written.is_ok() {
            written = writeln!(out, "{}", line(record));
        }
    };
    let verified = audit::verify_each(folder, None, print);
    match written.and_then(|()| out.flush()) {
        Ok(()) => {}
        // Whoever reads has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
        Err(error) => return Err(error.to_string()),
    }
    verified
        .map(|_| ExitCode::SUCCESS)
        .map_err(|error| error.to_string())
}

fn line(record: &Record) -> Value {
    let mut line = json!({
        "sequence": record.sequence, "time_ms": record.time_ms, "kind": record.kind().as_str(),
        "hash": encode_hex(&record.hash),
    });
    let entry = match &record.content {
        Content::Operation(entry) => entry,
        Content::Head(signature) => {
            line["signature"] = json!(encode_hex(&signature.0));
            return line;
        }
        Content::Witnessed(head) => {
            line["head"] = json!({
                "node": head.node, "sequence": head.sequence, "hash": encode_hex(&head.hash),
                "signature": encode_hex(&head.signature.0),
            });
            return line;
        }
    };
    line["request"] = json!(entry.operation.request_id());
    line["coordinator"] = json!(entry.operation.node);
    line["attempt"] = json!(entry.attempt);
    line["name"] = json!(encode_hex(&entry.name));
    line["request_sha256"] = json!(encode_hex(&entry.request));
    line["group"] = json!(entry.group);
    if entry.keystore != [0; 16] {
        line["keystore"] = json!(LocalId(entry.keystore).to_string());
    }
    if let Some(key) = entry.key {
        line["key"] = json!(LocalId(key).to_string());
        line["epoch"] = json!(entry.epoch);
    }
    line["participants"] = json!(entry.participants);
    line["applied"] = json!(entry.applied);
    line["verdict"] = json!(entry.verdict);
    if entry.kind == Kind::Refused {
        line["count"] = json!(entry.count);
    }
    if let Some(evidence) = &entry.evidence {
        line["evidence"] = json!({
            "key_id": evidence.key_id, "signing_string": evidence.signing_string,
            "signature": encode_hex(&evidence.signature.0),
        });
    }
    line
}
