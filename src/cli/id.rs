//! `conclave id`: identities of controllers, did:key files that never leave this machine.

use crate::cli::output::{EXIT_CODES, Facts, Failure, finish};
use crate::client::Identity;
use clap::{Args, Subcommand};
use rand::rngs::OsRng;
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  conclave id new alice.json
  conclave id show alice.json --json";

/// Make and show identities (did:key files)
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct IdCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a new identity in a new file of mode 0600 and print its DID
    #[command(after_help = "Example:\n  conclave id new alice.json")]
    New(FileArguments),
    /// Print the DID of an identity file; the secret key is never shown
    #[command(after_help = "Example:\n  conclave id show alice.json --json")]
    Show(FileArguments),
}

#[derive(Args, Debug)]
struct FileArguments {
    /// Identity file
    file: PathBuf,
    /// Print JSON: {"did", "keyId"}
    #[arg(long)]
    json: bool,
}

impl IdCommand {
    /// Runs the command.
    pub async fn run(self) -> ExitCode {
        finish(self.execute())
    }

    pub(crate) fn execute(self) -> Result<Facts, Failure> {
        let (identity, json) = match self.action {
            Action::New(arguments) => {
                let identity = Identity::generate(&mut OsRng);
                identity.save(&arguments.file).map_err(Failure::local)?;
                (identity, arguments.json)
            }
            Action::Show(arguments) => (
                Identity::load(&arguments.file).map_err(Failure::local)?,
                arguments.json,
            ),
        };
        let facts = json!({"did": identity.did(), "keyId": identity.key_id()});
        Ok(Facts::new(json, facts, identity.did()))
    }
}
