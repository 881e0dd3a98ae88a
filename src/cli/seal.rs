//! How a new node is to get its key when it starts.

use clap::{Args, ValueEnum};
use zeroize::Zeroizing;

use super::unseal::{PromptError, read_passphrase};
use crate::config::SealMethod;
use crate::provision::cluster::SealPlan;
use crate::seal::passphrase::Cost;

/// `--seal` and what belongs to it.
#[derive(Debug, Args)]
pub(super) struct SealArguments {
    /// How a node gets its key when it starts.
    #[arg(long, value_enum, default_value_t = SealArgument::Passphrase)]
    seal: SealArgument,
    /// With `--seal credential`: the systemd credential's name.
    #[arg(long, value_name = "NAME", default_value = "conclave-node-key")]
    credential: String,
    /// With `--seal command`: the program and its arguments, one option for each word.
    #[arg(long = "seal-command", value_name = "WORD", allow_hyphen_values = true)]
    seal_command: Vec<String>,
}

/// Where the node key comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SealArgument {
    /// A file beside what it opens: for trials.
    File,
    /// A passphrase, asked for now, and given after each start by `conclave unseal`.
    Passphrase,
    /// A systemd credential.
    Credential,
    /// A command that prints it.
    Command,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// `--seal command` without a command, or the other way round.
    #[error("--seal command and --seal-command belong together")]
    Command,
    /// The passphrase.
    #[error("cannot read the passphrase")]
    Passphrase(#[from] PromptError),
}

impl SealArguments {
    /// What they say; asks for a passphrase if that is the way.
    ///
    /// # Errors
    /// [`SealError`].
    pub(super) fn plan(&self) -> Result<SealPlan, SealError> {
        if (self.seal == SealArgument::Command) == self.seal_command.is_empty() {
            return Err(SealError::Command);
        }
        Ok(match self.seal {
            SealArgument::File => SealPlan::File,
            SealArgument::Passphrase => SealPlan::Passphrase(ask_for_passphrase()?, Cost::default()),
            SealArgument::Credential => SealPlan::Credential(self.credential.clone()),
            SealArgument::Command => SealPlan::Command(self.seal_command.clone()),
        })
    }
}

/// How a further node gets its key: as a node does that there is.
///
/// # Errors
/// If a passphrase is to be asked for and none is given.
pub(super) fn seal_plan(like: &SealMethod) -> Result<SealPlan, SealError> {
    Ok(match like {
        SealMethod::File { .. } => SealPlan::File,
        SealMethod::Passphrase { .. } => SealPlan::Passphrase(ask_for_passphrase()?, Cost::default()),
        SealMethod::Credential { name } => SealPlan::Credential(name.clone()),
        SealMethod::Command { command, .. } => SealPlan::Command(command.clone()),
    })
}

fn ask_for_passphrase() -> Result<Zeroizing<Vec<u8>>, PromptError> {
    read_passphrase("A passphrase for the node keys (12 bytes or more): ", true)
}
