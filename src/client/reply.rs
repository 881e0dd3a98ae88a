//! What a server answers: the reply as it came, and the body of a refusal in the words of the protocol.

use bytes::Bytes;
use hyper::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fmt;

/// Deepest chain of causes that is kept.
const MAX_CAUSES: usize = 4;

/// Longest text of a server that is shown, in characters.
const MAX_SHOWN: usize = 400;

/// A complete reply. Its body is at most as long as [`crate::client::Limits::reply`] says.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Status.
    pub status: StatusCode,
    /// `Location`, when there is one.
    pub location: Option<String>,
    /// `Retry-After` in seconds, when there is one.
    pub retry_after: Option<u64>,
    /// `X-Request-Id`: what the server's logs call the request.
    pub request_id: Option<String>,
    /// `Conclave-Notice`: something that people should know.
    pub notice: Option<String>,
    /// `Conclave-Receipt`, unread: see [`crate::receipt`].
    pub receipt: Option<String>,
    /// Body, unread.
    pub body: Bytes,
    /// The address that answered, `HOST:PORT`.
    pub endpoint: String,
}

impl Reply {
    /// The body as JSON of the shape `T`; `Err` says what is wrong with it.
    ///
    /// # Errors
    /// The parser's, or [`Refusal`]'s absence: callers look at the status first.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.body)
    }

    /// Whether the server did what it was asked: 200 to 299.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.status.is_success()
    }

    /// The refusal that this reply is; call it for other statuses than 2xx only.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        let problem: Problem = self.json().unwrap_or_default();
        let mut causes = Vec::new();
        let mut next = problem.cause.as_deref();
        while let Some(cause) = next.filter(|_| causes.len() < MAX_CAUSES) {
            causes.push(Reason {
                name: shown(&cause.name),
                message: shown(&cause.message),
            });
            next = cause.cause.as_deref();
        }
        let text = String::from_utf8_lossy(&self.body);
        let plain = problem.name.is_empty() && problem.message.is_empty();
        Refusal {
            status: self.status.as_u16(),
            reason: Reason {
                name: shown(&problem.name),
                message: if plain {
                    shown(&text)
                } else {
                    shown(&problem.message)
                },
            },
            causes,
            retry_after: self.retry_after,
            receipt: self.receipt.clone(),
            endpoint: self.endpoint.clone(),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Problem {
    #[serde(deserialize_with = "text")]
    name: String,
    #[serde(deserialize_with = "text")]
    message: String,
    cause: Option<Box<Problem>>,
}

fn text<'de, D: serde::Deserializer<'de>>(input: D) -> Result<String, D::Error> {
    Ok(Value::deserialize(input)?.as_str().unwrap_or_default().to_owned())
}

/// The text of a server goes to a terminal: no control characters, and not without end.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_SHOWN).collect()
}

/// `name` and `message` of an error body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// Such as `NotAllowedError`; empty when the server gave none.
    pub name: String,
    /// In the server's words.
    pub message: String,
}

/// A reply that is not a success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// The error itself.
    pub reason: Reason,
    /// Its causes, outermost first; the true reason of an authorization error is the first.
    pub causes: Vec<Reason>,
    /// Seconds after which the server suggests to try again.
    pub retry_after: Option<u64>,
    /// As in [`Reply`]: of a revocation that was made before.
    pub receipt: Option<String>,
    /// The address that answered.
    pub endpoint: String,
}

impl Refusal {
    /// Whether the server cannot serve now (503: sealed, or no quorum).
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        self.status == 503
    }

    /// Whether a revocation was refused because the capability is revoked already. Servers say that the
    /// delegation is invalid, or revoked; one that lost a race says that it is a duplicate.
    #[must_use]
    pub fn is_already_revoked(&self) -> bool {
        let invalid = |cause: &Reason| cause.message.contains("capability delegation is invalid");
        self.says_revoked() || (self.status == 403 && self.causes.iter().any(invalid))
    }

    /// The same, but only if the server says it in words that mean nothing else.
    #[must_use]
    pub fn says_revoked(&self) -> bool {
        match self.status {
            403 => self.causes.iter().any(|cause| cause.message.contains("revoked")),
            409 => self.reason.name == "DuplicateError",
            _ => false,
        }
    }

    /// The status and the innermost useful name, for counting: `403 DataError`.
    #[must_use]
    pub fn kind(&self) -> String {
        let name = self.causes.first().map_or(&self.reason.name, |cause| &cause.name);
        if name.is_empty() {
            self.status.to_string()
        } else {
            format!("{} {name}", self.status)
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        for (index, reason) in std::iter::once(&self.reason).chain(&self.causes).enumerate() {
            // The generic innermost cause says nothing that the status does not.
            if index > 0 && reason.name == "OperationError" {
                continue;
            }
            let lead = if index == 0 { " " } else { "; cause: " };
            match (reason.name.as_str(), reason.message.as_str()) {
                ("", "") => {}
                ("", message) => write!(f, "{lead}{message}")?,
                (name, "") => write!(f, "{lead}{name}")?,
                (name, message) => write!(f, "{lead}{name}: {message}")?,
            }
        }
        if let Some(seconds) = self.retry_after {
            write!(f, " (try again in {seconds} s)")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Reply;
    use bytes::Bytes;
    use hyper::StatusCode;

    fn reply(status: u16, body: &str) -> Reply {
        Reply {
            status: StatusCode::from_u16(status).unwrap(),
            location: None,
            retry_after: None,
            request_id: None,
            notice: None,
            receipt: None,
            body: Bytes::copy_from_slice(body.as_bytes()),
            endpoint: "a:1".to_owned(),
        }
    }

    #[test]
    fn shows_name_message_and_cause() {
        let body = r#"{"name":"NotAllowedError","message":"Authorization error.","details":{"httpStatusCode":403},
            "cause":{"name":"DataError","message":"The provided capability delegation is invalid.","details":{},
            "cause":{"message":"An unspecified error occurred.","name":"OperationError"}},"type":"NotAllowedError"}"#;
        let refusal = reply(403, body).refusal();
        assert_eq!(
            refusal.to_string(),
            "403 NotAllowedError: Authorization error.; cause: DataError: The provided capability delegation is invalid."
        );
        assert_eq!(refusal.kind(), "403 DataError");
        assert!(refusal.is_already_revoked());
        assert!(!refusal.is_unavailable());
    }

    #[test]
    fn other_refusals_are_not_taken_for_a_revocation() {
        let signature = r#"{"name":"NotAllowedError","message":"Authorization error.",
            "cause":{"name":"DataError","message":"Signature not verified."}}"#;
        assert!(!reply(403, signature).refusal().is_already_revoked());
        assert!(
            !reply(409, r#"{"name":"InvalidStateError","message":"x"}"#)
                .refusal()
                .is_already_revoked()
        );
        assert!(
            reply(409, r#"{"name":"DuplicateError","message":"x"}"#)
                .refusal()
                .is_already_revoked()
        );
        assert!(
            reply(
                403,
                &signature.replace(
                    "Signature not verified.",
                    "One or more capabilities in the chain have been revoked."
                )
            )
            .refusal()
            .is_already_revoked()
        );
    }

    #[test]
    fn survives_any_body() {
        assert_eq!(
            reply(500, "Internal Server Error").refusal().to_string(),
            "500 Internal Server Error"
        );
        assert_eq!(reply(503, "").refusal().to_string(), "503");
        assert_eq!(reply(400, "\u{1b}[31mred").refusal().reason.message, "[31mred");
        assert_eq!(
            reply(400, r#"{"name":7,"message":[],"cause":null}"#)
                .refusal()
                .kind(),
            "400"
        );
        let deep = format!(
            "{}{}",
            r#"{"name":"E","cause":"#.repeat(100),
            "null".to_owned() + &"}".repeat(100)
        );
        assert_eq!(reply(400, &deep).refusal().causes.len(), 4);
        assert_eq!(reply(400, &"x".repeat(5000)).refusal().reason.message.len(), 400);
    }
}
