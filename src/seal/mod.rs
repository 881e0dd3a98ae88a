//! The seal: where a node's 32-byte node key comes from, and what is sealed under it.
//!
//! A node starts sealed. The caller opens a [`unseal::door`], gives the door to the admin listener, and awaits
//! [`obtain`]; nothing that needs a secret may start before that returns.

pub mod node_key;
pub mod passphrase;
pub mod sealed;
pub mod secret_file;
mod source;
pub mod unseal;

use std::{path::PathBuf, time::Instant};

pub use node_key::NodeKey;
use unseal::{AttemptLimit, Attempts, UnsealReply};

use crate::config::SealMethod;

/// Why the node key could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The key file, or the file that holds the sealed node key.
    #[error(transparent)]
    File(#[from] secret_file::SecretFileError),
    /// What the source gave is not a key.
    #[error("{origin} does not hold a node key: 32 raw bytes, 64 hexadecimal digits or base64 of 32 bytes")]
    NotAKey {
        /// The file, credential or command.
        origin: String,
    },
    /// The service was not started by systemd with a credential.
    #[error(
        "$CREDENTIALS_DIRECTORY is not set: start the node by systemd with LoadCredentialEncrypted={name}:FILE"
    )]
    NoCredentials {
        /// The credential's name.
        name: String,
    },
    /// The command could not be run.
    #[error("cannot run the seal command {program}")]
    Command {
        /// The program.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The command ended badly.
    #[error("the seal command {program} {outcome}")]
    CommandFailed {
        /// The program.
        program: String,
        /// Its exit status, or that it took too long.
        outcome: String,
    },
    /// The file with the node key sealed under a passphrase cannot be used.
    #[error("{path}")]
    Passphrase {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: passphrase::PassphraseError,
    },
    /// The admin listener ended while the node waited for a passphrase.
    #[error("nobody is left who could give the passphrase: the admin listener has ended")]
    DoorClosed,
}

/// Gets the node key by `method`; with a passphrase it waits, for as long as it takes, for `conclave unseal`.
///
/// `cluster` and `node` are bound into what a passphrase seals. A wrong passphrase is answered through the door
/// and the wait goes on; every other failure is returned. With the other methods the door is closed at once.
pub async fn obtain(
    method: &SealMethod,
    cluster: &[u8; 32],
    node: u64,
    mut attempts: Attempts,
) -> Result<NodeKey, SealError> {
    let path = match method {
        SealMethod::File { path } => return source::from_file(path),
        SealMethod::Credential { name } => {
            return source::from_credential(name, std::env::var_os("CREDENTIALS_DIRECTORY"));
        }
        SealMethod::Command {
            command,
            timeout_seconds,
        } => {
            return source::from_command(command, std::time::Duration::from_secs(*timeout_seconds)).await;
        }
        SealMethod::Passphrase { path } => path,
    };
    let fail = |source| SealError::Passphrase {
        path: path.clone(),
        source,
    };
    let sealed = passphrase::SealedNodeKey::read(path).map_err(fail)?;
    let mut limit = AttemptLimit::default();
    while let Some(attempt) = attempts.receive().await {
        if let Err(seconds) = limit.admit(Instant::now()) {
            attempt.answer(UnsealReply::TooSoon { seconds });
            continue;
        }
        let (sealed, cluster) = (sealed.clone(), *cluster);
        let (passphrase, answer) = attempt.split();
        let opened = tokio::task::spawn_blocking(move || sealed.open(&passphrase, &cluster, node)).await;
        match opened {
            Ok(Ok(key)) => {
                answer.send(UnsealReply::Opened);
                return Ok(key);
            }
            Ok(Err(passphrase::PassphraseError::Wrong)) => {
                limit.failed(Instant::now());
                tracing::warn!("a wrong passphrase was given");
                answer.send(UnsealReply::Wrong);
            }
            Ok(Err(error)) => {
                answer.send(UnsealReply::Unusable {
                    reason: error.to_string(),
                });
                return Err(fail(error));
            }
            Err(_) => answer.send(UnsealReply::Unusable {
                reason: "the attempt was interrupted".to_owned(),
            }),
        }
    }
    Err(SealError::DoorClosed)
}

#[cfg(test)]
mod tests;
