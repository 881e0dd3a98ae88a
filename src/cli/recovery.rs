//! `conclave recovery`: who can open backups, and what they answer when a cluster is lost.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use rand::rngs::OsRng;

use crate::config::fields::encode_hex;
use crate::provision::Genesis;
use crate::provision::genesis::MAX_GENESIS;
use crate::recovery::officers::{MAX_OFFICERS, deal};
use crate::recovery::request::{MAX_REQUEST, Request};
use crate::recovery::{Officer, Recovery, RecoveryError};
use crate::seal::secret_file;

/// Recovery officers: a quorum of them opens a backup, fewer cannot.
#[derive(Debug, Args)]
pub struct RecoveryCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Makes the officers' shares. This machine is the dealer: while it runs it could open every backup alone, so run it on
    /// one that is offline, and destroy the officers' files there once they are handed over.
    #[command(
        after_help = "Example:\n  conclave recovery init --genesis conclave/genesis.json --officers 5 --quorum 3 --out recovery"
    )]
    Init(InitArguments),
    /// Shows what a restore asks an officer for, and answers it. Only the machine that restores can read the answer.
    #[command(
        after_help = "Example:\n  conclave recovery answer --share officer-2.json request-node-1.json request-node-2.json"
    )]
    Answer(AnswerArguments),
}

#[derive(Debug, Args)]
struct InitArguments {
    /// The cluster's genesis statement: the officers are this cluster's.
    #[arg(long, value_name = "FILE")]
    genesis: PathBuf,
    /// How many officers there are, 32 at most.
    #[arg(long, value_name = "M", default_value = "5", value_parser = clap::value_parser!(u8).range(2..=i64::from(MAX_OFFICERS)))]
    officers: u8,
    /// How many of them open a backup.
    #[arg(long, value_name = "K", default_value = "3", value_parser = clap::value_parser!(u8).range(2..=i64::from(MAX_OFFICERS)))]
    quorum: u8,
    /// A new folder for recovery.json and the officers' files.
    #[arg(long, value_name = "DIR", default_value = "recovery")]
    out: PathBuf,
    /// Print facts as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct AnswerArguments {
    /// The officer's own file.
    #[arg(long, value_name = "FILE")]
    share: PathBuf,
    /// Requests, as `conclave restore request` makes them.
    #[arg(required = true, value_name = "REQUEST")]
    requests: Vec<PathBuf>,
    /// Where the answers go; beside their requests by default.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Answer without being asked.
    #[arg(long)]
    yes: bool,
    /// Answer although no operator of the old cluster has signed who the members of the new one are: the operators' keys are
    /// lost too, and you know for yourself who restores.
    #[arg(long)]
    accept_other_operators: bool,
}

impl RecoveryCommand {
    /// Runs it.
    ///
    /// # Errors
    /// [`RecoveryError`].
    pub fn run(self) -> Result<ExitCode, RecoveryError> {
        match self.action {
            Action::Init(arguments) => init(&arguments),
            Action::Answer(arguments) => answer(&arguments),
        }
    }
}

fn init(arguments: &InitArguments) -> Result<ExitCode, RecoveryError> {
    let genesis = Genesis::parse(&secret_file::read_public(&arguments.genesis, MAX_GENESIS)?)?;
    let (keys, shares) = deal(arguments.officers, arguments.quorum, &mut OsRng)?;
    let recovery = Recovery {
        cluster: genesis.cluster_id(),
        officers: arguments.officers,
        keys,
    };
    let out = &arguments.out;
    secret_file::create_folder(out)?;
    recovery.create(&out.join("recovery.json"))?;
    let mut files = Vec::new();
    for share in &shares {
        let file = out.join(format!("officer-{}.json", share.officer()));
        recovery.create_share(share, &file)?;
        files.push(file.display().to_string());
    }
    let fingerprint = encode_hex(&recovery.keys.fingerprint());
    let public = out.join("recovery.json");
    if arguments.json {
        let facts = serde_json::json!({
            "cluster": encode_hex(&recovery.cluster), "officers": files, "quorum": arguments.quorum,
            "recovery": public, "fingerprint": fingerprint,
        });
        println!("{facts}");
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "{} of {} officers open a backup. Their keys have the fingerprint {fingerprint}.",
        arguments.quorum, arguments.officers
    );
    println!(
        "\nThis machine has been the dealer: until now it could have opened every backup alone. Nobody can check that it kept \
         nothing."
    );
    println!("\nNext:");
    for file in &files {
        println!("  give {file} to its officer; each file says what to do with it");
    }
    println!("  and destroy them here.");
    println!(
        "  Copy {} to every node and add to each node.toml:",
        public.display()
    );
    println!("    [backup]\n    folder = \"backups\"\n    recovery = \"recovery.json\"");
    println!(
        "  then restart the nodes, one after the other. Backups that exist stay sealed to the officers before."
    );
    Ok(ExitCode::SUCCESS)
}

fn answer(arguments: &AnswerArguments) -> Result<ExitCode, RecoveryError> {
    let officer = Officer::read(&arguments.share)?;
    let requests = arguments.requests.iter().map(|path| {
        let request = secret_file::read_public(path, MAX_REQUEST).map_err(RecoveryError::from);
        request
            .and_then(|bytes| Request::parse(&bytes))
            .map(|request| (path, request))
            .map_err(|error| error.at(path))
    });
    let requests: Vec<(&PathBuf, Request)> = requests.collect::<Result<_, _>>()?;
    println!(
        "You are officer {} of cluster {}; a quorum is {}.",
        officer.share.officer(),
        encode_hex(&officer.cluster),
        officer.keys.quorum()
    );
    for (path, request) in &requests {
        println!("\n{}:", path.display());
        for line in request.describe() {
            println!("  {line}");
        }
        if !request.is_by_an_operator() && !arguments.accept_other_operators {
            return Err(RecoveryError::Unfit(
                "nothing was answered: no operator of the old cluster has signed the new one's members; see \
                 --accept-other-operators"
                    .to_owned(),
            )
            .at(*path));
        }
    }
    if !arguments.yes && !asked()? {
        eprintln!("Nothing was answered.");
        return Ok(ExitCode::FAILURE);
    }
    for (path, request) in &requests {
        let answer = request
            .answer(&officer, &mut OsRng)
            .map_err(|error| error.at(*path))?;
        let file = answer_path(path, arguments.out.as_deref(), answer.officer());
        secret_file::create(&file, &answer.to_json())?;
        println!("{}", file.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// `request.json` is answered in `request.officer-2.json`.
fn answer_path(request: &Path, out: Option<&Path>, officer: u8) -> PathBuf {
    let stem = request.file_stem().unwrap_or_default().to_string_lossy();
    let name = format!("{stem}.officer-{officer}.json");
    out.map_or_else(|| request.with_file_name(&name), |out| out.join(&name))
}

/// Whether the officer says so.
fn asked() -> Result<bool, RecoveryError> {
    if !io::stdin().is_terminal() {
        return Err(RecoveryError::Unfit(
            "an answer wants a person at a terminal, or --yes".to_owned(),
        ));
    }
    print!("\nHave you confirmed by another way that this restore is wanted? Type yes to answer: ");
    io::stdout().flush()?;
    let mut text = String::new();
    io::stdin().lock().read_line(&mut text)?;
    Ok(text.trim() == "yes")
}
