//! `conclave unseal`: gives a sealed node its passphrase, from the terminal or from standard input.

use std::{
    io::{self, IsTerminal as _, Read as _},
    process::ExitCode,
    time::Duration,
};

use bytes::Bytes;
use hyper::StatusCode;
use zeroize::Zeroizing;

use crate::{
    seal::passphrase::{MAX_PASSPHRASE, without_line_end},
    telemetry::{
        admin::Refusal,
        client::{self, ClientError},
    },
};

/// Gives a sealed node its passphrase.
///
/// The passphrase is asked for on the terminal; when standard input is not a terminal it is read from there.
/// A node takes a passphrase only from its own machine.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  conclave unseal --admin 127.0.0.1:9600
  systemd-ask-password | conclave unseal --admin 127.0.0.1:9600

Exit status: 0 the node has its key, 1 it could not be asked, 2 it is still sealed.")]
pub struct UnsealArguments {
    /// The node's admin address.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9600")]
    admin: String,
}

/// Why a passphrase could not be given.
#[derive(Debug, thiserror::Error)]
pub enum UnsealError {
    /// It could not be read.
    #[error("cannot read the passphrase")]
    Read(#[from] PromptError),
    /// The node did not answer.
    #[error(transparent)]
    Ask(#[from] ClientError),
    /// The node answered in a way that this version does not know.
    #[error("{admin} answered {status}: {reason}")]
    Answer {
        /// Who was asked.
        admin: String,
        /// The HTTP status.
        status: StatusCode,
        /// What it said.
        reason: String,
    },
}

/// argon2id on a small machine, behind other attempts.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Asks for the passphrase and gives it to the node.
pub async fn run(arguments: UnsealArguments) -> Result<ExitCode, UnsealError> {
    let admin = arguments.admin;
    let passphrase = read_passphrase(&format!("Passphrase of the node at {admin}: "), false)?;
    // The owner wipes its bytes when the last reference to them is gone.
    let answer = client::post(&admin, "/unseal", Bytes::from_owner(passphrase), TIMEOUT).await?;
    let reason = serde_json::from_slice::<Refusal>(&answer.body)
        .map(|refusal| refusal.error)
        .unwrap_or_default();
    match answer.status {
        StatusCode::NO_CONTENT => {
            println!("unsealed");
            Ok(ExitCode::SUCCESS)
        }
        StatusCode::CONFLICT => {
            println!("{reason}");
            Ok(ExitCode::SUCCESS)
        }
        StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS | StatusCode::BAD_REQUEST => {
            eprintln!("still sealed: {reason}");
            Ok(ExitCode::from(2))
        }
        status => Err(UnsealError::Answer {
            admin,
            status,
            reason,
        }),
    }
}

/// Why a passphrase could not be read.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// Neither terminal nor standard input gave one.
    #[error("neither the terminal nor standard input gave a passphrase")]
    Io(#[from] io::Error),
    /// Nothing was given.
    #[error("the passphrase is empty")]
    Empty,
    /// Too long.
    #[error("a passphrase has at most {MAX_PASSPHRASE} bytes")]
    TooLong,
    /// Typed twice, and not alike.
    #[error("the two passphrases differ")]
    Differ,
}

/// Reads a passphrase: hidden, from the terminal (twice if `confirm`), else all of standard input without its last
/// line end.
pub fn read_passphrase(prompt: &str, confirm: bool) -> Result<Zeroizing<Vec<u8>>, PromptError> {
    let text = if io::stdin().is_terminal() {
        let once = Zeroizing::new(rpassword::prompt_password(prompt)?);
        if confirm && *Zeroizing::new(rpassword::prompt_password("Once more: ")?) != *once {
            return Err(PromptError::Differ);
        }
        Zeroizing::new(once.as_bytes().to_vec())
    } else {
        let mut text = Zeroizing::new(Vec::with_capacity(MAX_PASSPHRASE + 3));
        io::stdin()
            .lock()
            .take(MAX_PASSPHRASE as u64 + 3)
            .read_to_end(&mut text)?;
        Zeroizing::new(without_line_end(&text).to_vec())
    };
    match text.len() {
        0 => Err(PromptError::Empty),
        length if length > MAX_PASSPHRASE => Err(PromptError::TooLong),
        _ => Ok(text),
    }
}
