//! `conclave audit`: checks nodes' audit folders, alone and against each other, without any other part of a node.

mod compared;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use self::compared::{Pinned, Terms, compare};
use crate::audit::{self, Content, Kind, Record, Report};
use crate::config;
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
                      conclave audit verify --genesis genesis.json --orders orders.json --stopped node-*/audit\n  \
                      conclave audit verify --genesis genesis.json --partial node-1/audit"
    )]
    Verify(VerifyArguments),
    /// Prints the records, a JSON document a line, and checks the chain meanwhile.
    #[command(
        after_help = "Example:\n  conclave audit export .conclave/node-1/data/audit | jq 'select(.kind == \"refused\")'"
    )]
    Export {
        /// The audit folder, or a copy of it.
        folder: PathBuf,
    },
}

#[derive(Debug, Args)]
struct VerifyArguments {
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
    /// Chains of some members are missing: say what can be said. Without it that is exit 1, since nothing is proven for
    /// the results in which they took part.
    #[arg(long, requires = "genesis")]
    partial: bool,
    /// The days for which the nodes keep their chains for certain: a chain that begins later, though others have results
    /// and heads of its node from before, is wrong. Less if `retention_days` is, or if `retention_bytes` takes more; 0 if
    /// nobody knows.
    #[arg(long, value_name = "DAYS", default_value_t = config::Audit::default().retention_days, requires = "genesis")]
    retention_days: u32,
    /// Print facts as JSON.
    #[arg(long)]
    json: bool,
}

impl AuditCommand {
    /// Runs it: exit 0 if everything holds.
    pub fn run(self) -> ExitCode {
        let ran = match self.command {
            AuditSubcommand::Export { folder } => export(&folder),
            AuditSubcommand::Verify(arguments) => verify(&arguments),
        };
        ran.unwrap_or_else(|error| {
            eprintln!("conclave: {error}");
            ExitCode::FAILURE
        })
    }
}

fn verify(arguments: &VerifyArguments) -> Result<ExitCode, String> {
    match (&arguments.genesis, &arguments.folders[..]) {
        (Some(genesis), _) => all(genesis, arguments),
        (None, [folder]) => alone(folder, arguments),
        (None, _) => Err("several folders are held against each other by --genesis FILE".into()),
    }
}

fn alone(folder: &Path, arguments: &VerifyArguments) -> Result<ExitCode, String> {
    let key = arguments.key.as_deref().map(|text| {
        let key = decode_hex(text).and_then(|key| <[u8; 32]>::try_from(key).ok());
        key.ok_or("--key wants 64 hexadecimal digits")
    });
    let report = audit::verify(folder, key.transpose()?.as_ref()).map_err(|error| error.to_string())?;
    let holds = !(arguments.stopped && report.ends_sealed);
    match arguments.json {
        true => {
            let mut facts = facts(&report);
            facts["ok"] = json!(holds);
            println!("{facts}");
        }
        false => tell(&report),
    }
    Ok(exit(holds))
}

fn all(genesis: &Path, arguments: &VerifyArguments) -> Result<ExitCode, String> {
    let pinned = Pinned::read(genesis, arguments.orders.as_deref())?;
    let terms = Terms {
        stopped: arguments.stopped,
        partial: arguments.partial,
        retention_days: arguments.retention_days,
    };
    let compared = compare(&arguments.folders, pinned, terms)?;
    match arguments.json {
        true => println!("{}", compared.facts()),
        false => compared.tell(),
    }
    compared.complain();
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
        "first": report.first_sequence, "first_ms": report.first_ms, "whole": report.first_sequence.is_none_or(|first| first == 1),
        "last": report.last_sequence, "ends_sealed": report.ends_sealed,
    })
}

/// Where a chain begins whose oldest segments are not here.
fn beginning(report: &Report) -> Option<String> {
    let first = report.first_sequence.filter(|first| *first > 1)?;
    let seconds = i64::try_from(report.first_ms? / 1_000).ok()?;
    let time = OffsetDateTime::from_unix_timestamp(seconds).ok()?;
    Some(format!("record {first} of {}", time.format(&Rfc3339).ok()?))
}

fn tell(report: &Report) {
    println!(
        "{} records in {} segments, {} signed heads: the chain holds",
        report.records, report.segments, report.heads_verified
    );
    for (kind, count) in &report.by_kind {
        println!("  {kind}: {count}");
    }
    if let Some(beginning) = beginning(report) {
        println!("  the chain begins at {beginning}: what was before is not here");
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
