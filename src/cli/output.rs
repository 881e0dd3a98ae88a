//! How commands end: facts on stdout, messages on stderr, an exit code that scripts can use.

use crate::client::ClientError;
use serde_json::Value;
use std::error::Error;
use std::fmt::{self, Display};
use std::io::{self, Write as _};
use std::process::ExitCode;

/// Exit code: something local failed, or an answer was wrong.
pub const FAILED: u8 = 1;
/// Exit code: the server is sealed or has no quorum (503).
pub const UNAVAILABLE: u8 = 2;
/// Exit code: the server refused (any other status that is not 2xx).
pub const REFUSED: u8 = 3;
/// Exit code: no connection, no proof of identity, or no answer in time.
pub const UNREACHABLE: u8 = 4;
/// Exit code: the members do not vouch for the answer, where a receipt was asked for (--genesis).
pub const UNVOUCHED: u8 = 5;
/// Exit code: the command line is wrong (EX_USAGE; clap's own 2 means sealed here).
pub const USAGE: u8 = 64;

/// The text about exit codes that help pages end with.
pub const EXIT_CODES: &str = "\
Exit codes:
  0   done
  1   something here failed, or an answer was wrong
  2   the server is sealed or has no quorum (503): try again later
  3   the server refused
  4   no connection, no valid certificate, or no answer in time
  5   the members do not vouch for the answer (--genesis, --require-receipt)
  64  wrong command line";

/// Why a command failed, and the code that it ends with.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    /// Something on this side: code 1.
    pub(crate) fn local(error: impl Error) -> Self {
        Self {
            code: FAILED,
            text: chain(&error),
        }
    }

    /// The same, from a text.
    pub(crate) fn because(text: impl Into<String>) -> Self {
        Self {
            code: FAILED,
            text: text.into(),
        }
    }

    /// An answer that the members do not vouch for: code 5.
    pub(crate) fn unvouched(text: impl Into<String>) -> Self {
        Self {
            code: UNVOUCHED,
            text: text.into(),
        }
    }

    /// The exit code.
    #[must_use]
    pub fn code(&self) -> u8 {
        self.code
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let code = match &error {
            ClientError::Refused(refusal) if refusal.is_unavailable() => UNAVAILABLE,
            ClientError::Refused(_) => REFUSED,
            ClientError::Unreachable(_)
            | ClientError::Tls { .. }
            | ClientError::Timeout(_)
            | ClientError::Lost { .. } => UNREACHABLE,
            ClientError::TooLong { .. }
            | ClientError::Unexpected(_)
            | ClientError::Origin(_)
            | ClientError::Sign(_) => FAILED,
        };
        Self {
            code,
            text: chain(&error),
        }
    }
}

/// An error with what caused it, each text once.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// What a command found out.
#[derive(Debug)]
pub(crate) struct Facts {
    value: Value,
    text: String,
    json: bool,
}

impl Facts {
    /// `text` for people, or `value` as one JSON document when `json` is asked for.
    pub(crate) fn new(json: bool, value: Value, text: impl Display) -> Self {
        Self {
            value,
            text: text.to_string(),
            json,
        }
    }

    /// Nothing to print.
    pub(crate) fn none() -> Self {
        Self {
            value: Value::Null,
            text: String::new(),
            json: false,
        }
    }

    /// The JSON document.
    #[cfg(test)]
    pub(crate) fn value(&self) -> &Value {
        &self.value
    }
}

/// Ends a command: facts go to stdout, a failure to stderr.
pub(crate) fn finish(outcome: Result<Facts, Failure>) -> ExitCode {
    match outcome {
        Ok(facts) if facts.json => print(format_args!("{:#}", facts.value)),
        Ok(facts) if facts.text.is_empty() => {}
        Ok(facts) => print(facts.text),
        Err(failure) => {
            note(&failure);
            return ExitCode::from(failure.code);
        }
    }
    ExitCode::SUCCESS
}

/// Prints a line on stdout. A reader that has gone away is no error: `conclave … | head` ends well.
pub(crate) fn print(line: impl Display) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// Prints a message for people.
pub(crate) fn note(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "conclave: {text}");
}

#[cfg(test)]
mod tests {
    use super::{FAILED, Failure, REFUSED, UNAVAILABLE, UNREACHABLE};
    use crate::client::reply::Reply;
    use crate::client::{ClientError, Origin};
    use bytes::Bytes;
    use hyper::StatusCode;

    fn refused(status: u16) -> Failure {
        let reply = Reply {
            status: StatusCode::from_u16(status).unwrap(),
            location: None,
            retry_after: Some(3),
            request_id: None,
            notice: None,
            receipt: None,
            body: Bytes::from_static(br#"{"name":"SealedError","message":"The node is sealed."}"#),
            endpoint: "a:1".to_owned(),
        };
        ClientError::Refused(Box::new(reply.refusal())).into()
    }

    #[test]
    fn codes_tell_the_kinds_apart() {
        assert_eq!(refused(503).code(), UNAVAILABLE);
        assert_eq!(refused(403).code(), REFUSED);
        assert_eq!(
            Failure::from(ClientError::Unreachable(vec!["a:1: refused".into()])).code(),
            UNREACHABLE
        );
        assert_eq!(Failure::local(Origin::parse("x").unwrap_err()).code(), FAILED);
        assert_eq!(
            refused(503).to_string(),
            "refused by a:1: 503 SealedError: The node is sealed. (try again in 3 s)"
        );
    }
}
