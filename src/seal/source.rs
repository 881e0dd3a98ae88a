//! The node key from a file, a systemd credential, or a command that prints it.

use std::{ffi::OsString, path::Path, process::Stdio, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use tokio::{io::AsyncReadExt as _, process::Command};
use zeroize::Zeroizing;

use super::{NodeKey, SealError, secret_file};
use crate::config::fields::decode_hex;

/// 64 digits and a line end leave room for some blanks; more is not a key.
const MAX_KEY_TEXT: usize = 256;

pub(super) fn from_file(path: &Path) -> Result<NodeKey, SealError> {
    let text = secret_file::read(path, MAX_KEY_TEXT)?;
    parse(&text).ok_or_else(|| SealError::NotAKey {
        origin: path.display().to_string(),
    })
}

/// `directory` is `$CREDENTIALS_DIRECTORY`, which systemd sets (systemd.exec(5), CREDENTIALS).
pub(super) fn from_credential(name: &str, directory: Option<OsString>) -> Result<NodeKey, SealError> {
    let directory = directory.ok_or_else(|| SealError::NoCredentials {
        name: name.to_owned(),
    })?;
    from_file(&Path::new(&directory).join(name))
}

pub(super) async fn from_command(command: &[String], timeout: Duration) -> Result<NodeKey, SealError> {
    let (program, arguments) = command.split_first().ok_or_else(|| SealError::NotAKey {
        origin: String::new(),
    })?;
    let fail = |source| SealError::Command {
        program: program.clone(),
        source,
    };
    let failed = |outcome| SealError::CommandFailed {
        program: program.clone(),
        outcome,
    };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(fail)?;
    let mut output = Zeroizing::new(Vec::with_capacity(MAX_KEY_TEXT + 1));
    let run = async {
        if let Some(stdout) = child.stdout.take() {
            stdout
                .take(MAX_KEY_TEXT as u64 + 1)
                .read_to_end(&mut output)
                .await?;
        }
        child.wait().await
    };
    let status = tokio::time::timeout(timeout, run)
        .await
        .map_err(|_| failed(format!("took longer than {} s", timeout.as_secs())))?
        .map_err(fail)?;
    if !status.success() {
        return Err(failed(format!("ended with {status}")));
    }
    parse(&output).ok_or_else(|| SealError::NotAKey {
        origin: format!("the output of {program}"),
    })
}

/// 32 raw bytes, or a line of 64 hexadecimal digits, or a line of standard base64 of 32 bytes.
pub(super) fn parse(text: &[u8]) -> Option<NodeKey> {
    if let Ok(raw) = <&[u8; 32]>::try_from(text) {
        return Some(NodeKey::new(raw));
    }
    let line = std::str::from_utf8(text).ok()?.trim();
    let bytes = Zeroizing::new(match line.len() {
        64 => decode_hex(line)?,
        44 => BASE64_STANDARD.decode(line).ok()?,
        _ => return None,
    });
    <&[u8; 32]>::try_from(bytes.as_slice()).ok().map(NodeKey::new)
}
