//! `conclave audit`: checks nodes' audit folders, alone and against each other, without any other part of a node.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::audit::{self, Content, Corroboration, Evidence, Findings, Kind, Record, Report};
use crate::authorization::name_of_signed;
use crate::config::fields::{decode_hex, encode_hex};
use crate::identifier::LocalId;
use crate::membership::quorum_of;
use crate::operation::batch;
use crate::provision::Genesis;
use crate::provision::genesis::MAX_GENESIS;
use crate::seal::secret_file;

/// Reads nodes' audit records.
#[derive(Debug, Args)]
pub struct AuditCommand {
    #[command(subcommand)]
    command: AuditSubcommand,
}

#[derive(Debug, Subcommand)]
enum AuditSubcommand {
    /// Checks every record, its place in the chain, and the node's signatures on the chain's heads; of several nodes also
    /// that everybody who took part in a result has recorded the same signed request.
    #[command(
        after_help = "Examples:\n  conclave audit verify .conclave/node-1/data/audit --json\n  \
                      conclave audit verify --genesis .conclave/genesis.json .conclave/node-*/data/audit"
    )]
    Verify {
        /// The audit folders, or copies of them, of a node each.
        #[arg(required = true)]
        folders: Vec<PathBuf>,
        /// The cluster's genesis statement: whose chains these are, the nodes' public keys, and the quorum.
        #[arg(long, value_name = "FILE")]
        genesis: Option<PathBuf>,
        /// The node's Ed25519 public key in hexadecimal, of one folder; without it and without a genesis statement signatures
        /// on heads are not checked.
        #[arg(long, value_name = "HEX", conflicts_with = "genesis")]
        key: Option<String>,
        /// The nodes were stopped before the folders were copied: a result that is later than the end of a participant's
        /// chain is wrong as well.
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
                stopped,
                json,
                ..
            } => compare(&folders, &genesis, stopped, json),
            AuditSubcommand::Verify {
                folders, key, json, ..
            } => match &folders[..] {
                [folder] => alone(folder, key.as_deref(), json),
                _ => Err("several folders are held against each other by --genesis FILE".into()),
            },
        };
        ran.unwrap_or_else(|error| {
            eprintln!("conclave: {error}");
            ExitCode::FAILURE
        })
    }
}

fn alone(folder: &Path, key: Option<&str>, as_json: bool) -> Result<ExitCode, String> {
    let key = key.map(|text| {
        let key = decode_hex(text).and_then(|key| <[u8; 32]>::try_from(key).ok());
        key.ok_or("--key wants 64 hexadecimal digits")
    });
    let report = audit::verify(folder, key.transpose()?.as_ref()).map_err(|error| error.to_string())?;
    match as_json {
        true => println!("{}", facts(&report)),
        false => tell(&report),
    }
    Ok(ExitCode::SUCCESS)
}

fn facts(report: &Report) -> Value {
    json!({
        "ok": true, "records": report.records, "segments": report.segments, "heads_verified": report.heads_verified,
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
}

/// Each chain by itself, then all of them against each other.
fn compare(folders: &[PathBuf], genesis: &Path, stopped: bool, as_json: bool) -> Result<ExitCode, String> {
    let bytes = secret_file::read_public(genesis, MAX_GENESIS).map_err(|error| error.to_string())?;
    let genesis = Genesis::parse(&bytes).map_err(|error| error.to_string())?;
    let quorum = quorum_of(genesis.body().members.len());
    let mut corroboration = Corroboration::new(quorum, is_signed);
    let mut reports: BTreeMap<u64, Report> = BTreeMap::new();
    for folder in folders {
        let owner = audit::owner(folder).map_err(|error| error.to_string())?;
        let member = genesis
            .member(owner.1)
            .filter(|_| owner.0 == genesis.cluster_id());
        let member = member.ok_or_else(|| format!("{} is of another cluster", folder.display()))?;
        if reports.contains_key(&member.node) {
            return Err(format!("two folders are of node {}", member.node));
        }
        eprintln!("Reading the chain of node {} ...", member.node);
        let show = |record: &Record| corroboration.record(member.node, record);
        let report = audit::verify_each(folder, Some(&member.identity.0), show);
        let report = report.map_err(|error| format!("node {}: {error}", member.node))?;
        corroboration.end(member.node, &report);
        reports.insert(member.node, report);
    }
    let found = corroboration.findings();
    let unseen: u64 = found.after_end.values().sum();
    let holds = found.wrong_count == 0 && !(stopped && unseen > 0);
    match as_json {
        true => println!("{}", facts_of_all(&reports, &found, holds)),
        false => tell_all(&reports, &found, stopped),
    }
    Ok(if holds {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn facts_of_all(reports: &BTreeMap<u64, Report>, found: &Findings, holds: bool) -> Value {
    let chains: Vec<Value> = reports
        .iter()
        .map(|(node, report)| {
            let mut facts = facts(report);
            facts["node"] = json!(node);
            facts
        })
        .collect();
    let wrong: Vec<Value> = found
        .wrong
        .iter()
        .map(|wrong| {
            json!({ "node": wrong.node, "request": wrong.operation.request_id(), "what": wrong.what.to_string() })
        })
        .collect();
    json!({
        "ok": holds, "chains": chains, "results": found.results, "corroborated": found.corroborated,
        "without_key": found.without_key, "before": found.before, "after_end": found.after_end,
        "wrong": wrong, "wrong_count": found.wrong_count,
    })
}

fn tell_all(reports: &BTreeMap<u64, Report>, found: &Findings, stopped: bool) {
    for (node, report) in reports {
        print!("Node {node}: ");
        tell(report);
    }
    println!(
        "{} results, {} with a record of every participant about the same signed request",
        found.results, found.corroborated
    );
    if found.without_key > 0 {
        println!(
            "  {} of them follow from lengths alone, without the key",
            found.without_key
        );
    }
    if found.before > 0 {
        println!(
            "  {} more are older than a chain that retention has shortened",
            found.before
        );
    }
    for (node, count) in &found.after_end {
        let why = match stopped {
            true => "its chain was cut",
            false => "its folder was copied before the others, or its chain was cut",
        };
        println!("  {count} are later than the end of node {node}'s chain: {why}");
    }
    for wrong in &found.wrong {
        eprintln!(
            "conclave: node {} {} (request {})",
            wrong.node,
            wrong.what,
            wrong.operation.request_id()
        );
    }
    if found.wrong_count > found.wrong.len() as u64 {
        eprintln!("conclave: {} findings in all", found.wrong_count);
    }
}

/// Whether the client's signature on record is of the request with this name, or of the batch whose item has it.
fn is_signed(evidence: &Evidence, name: &[u8; 32]) -> bool {
    let Evidence {
        key_id,
        signing_string,
        signature,
        ..
    } = evidence;
    let Some(signed) = name_of_signed(key_id, signing_string, &signature.0) else {
        return false;
    };
    let mut items = 0..u32::try_from(batch::MAX_ITEMS).unwrap_or(0);
    signed == *name || items.any(|place| batch::name_of_item(&signed, place) == *name)
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
