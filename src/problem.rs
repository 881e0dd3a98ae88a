//! What a client is told when its request is not served: the error bodies of the WebKMS wire contract.
//!
//! Clients read `name`, `type`, `message` and `cause`; `stack` is never sent. An authorization failure is always
//! 403 `NotAllowedError` "Authorization error." with the true reason as its cause.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// A refusal or failure as the client sees it. Serializable, since a node may have to hand on another's answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "Chain", try_from = "Chain")]
pub struct Problem {
    /// HTTP status.
    pub status: u16,
    /// Error name; sent as `name` and as `type`.
    pub name: String,
    /// One sentence for a person.
    pub message: String,
    /// Further members of `details`, as JSON text of an object (`httpStatusCode` is added).
    pub details: String,
    /// The reason underneath.
    pub cause: Option<Box<Problem>>,
    /// Seconds for `Retry-After`, when a retry may help.
    pub retry_after: Option<u32>,
    /// Of a revocation that was made before, for a client that asked; stays on the node that it asked: [`crate::receipt`].
    pub receipt: Option<String>,
}

/// Most problems that lie one under the other when they come from another node.
const MAX_CHAIN: usize = 8;

/// A problem as it travels, outermost first: a list, since what is nested in bytes has no end but the stack's.
#[derive(Serialize, Deserialize)]
struct Chain(Vec<Link>);

#[derive(Serialize, Deserialize)]
struct Link {
    status: u16,
    name: String,
    message: String,
    details: String,
    retry_after: Option<u32>,
}

impl From<Problem> for Chain {
    fn from(problem: Problem) -> Self {
        let mut links = Vec::new();
        let mut next = Some(Box::new(problem));
        while let Some(problem) = next {
            links.push(Link {
                status: problem.status,
                name: problem.name,
                message: problem.message,
                details: problem.details,
                retry_after: problem.retry_after,
            });
            next = problem.cause;
        }
        Self(links)
    }
}

impl TryFrom<Chain> for Problem {
    type Error = &'static str;

    fn try_from(Chain(links): Chain) -> Result<Self, Self::Error> {
        if links.len() > MAX_CHAIN {
            return Err("too many causes");
        }
        let under = |cause: Option<Box<Problem>>, link: Link| {
            Some(Box::new(Problem {
                status: link.status,
                name: link.name,
                message: link.message,
                details: link.details,
                cause,
                retry_after: link.retry_after,
                receipt: None,
            }))
        };
        let whole = links.into_iter().rev().fold(None, under);
        whole.map(|problem| *problem).ok_or("no problem")
    }
}

impl Problem {
    /// A problem without details or cause.
    pub fn new(status: u16, name: &str, message: impl Into<String>) -> Self {
        let (name, message) = (name.to_owned(), message.into());
        Self {
            status,
            name,
            message,
            details: String::new(),
            cause: None,
            retry_after: None,
            receipt: None,
        }
    }

    /// 400: the request cannot be read or is ambiguous.
    pub fn malformed(message: impl Into<String>) -> Self {
        Self::new(400, "DataError", message)
    }

    /// 403 "Authorization error." with `name` and `message` as the cause: how every failure after routing reads.
    pub fn not_authorized(name: &str, message: impl Into<String>) -> Self {
        Self::new(403, "NotAllowedError", "Authorization error.").caused_by(Self::new(403, name, message))
    }

    /// 403 without a cause.
    pub fn denied(message: impl Into<String>) -> Self {
        Self::new(403, "NotAllowedError", message)
    }

    /// 409 for bytes that were served before.
    pub fn replayed() -> Self {
        Self::new(409, "NotAllowedError", "Authorization error.").caused_by(Self::new(
            409,
            "ConstraintError",
            "The request was already served; sign it afresh to repeat it.",
        ))
    }

    /// 429: whoever asks has its share; a later try may succeed.
    pub fn too_many(message: impl Into<String>) -> Self {
        let mut problem = Self::new(429, "QuotaExceededError", message);
        problem.retry_after = Some(1);
        problem
    }

    /// 503: a later try, perhaps elsewhere, may succeed.
    pub fn unavailable(message: impl Into<String>) -> Self {
        let mut problem = Self::new(503, "NotReadableError", message);
        problem.retry_after = Some(1);
        problem
    }

    /// 404 for a keystore, with its URL in the details.
    pub fn keystore_not_found(url: &str) -> Self {
        Self::new(404, "NotFoundError", "Keystore configuration not found.")
            .with_details(json!({ "keystoreId": url }))
    }

    /// 404 for a key, with its URL in the details.
    pub fn key_not_found(url: &str) -> Self {
        Self::new(404, "NotFoundError", "Key not found.").with_details(json!({ "key": url }))
    }

    /// Adds members to `details`; `details` must be a JSON object.
    pub fn with_details(mut self, details: Value) -> Self {
        self.details = details.to_string();
        self
    }

    /// Sets the reason underneath.
    pub fn caused_by(mut self, cause: Problem) -> Self {
        self.cause = Some(Box::new(cause));
        self
    }

    /// Whether it may refuse a revocation because the capability is revoked already: the wire has one text for that and for
    /// every other delegation that does not hold.
    pub fn may_mean_revoked(&self) -> bool {
        let invalid = "The provided capability delegation is invalid.";
        let cause = self.cause.as_ref();
        self.status == 403 && cause.is_some_and(|cause| cause.message == invalid)
    }

    /// The JSON body.
    pub fn body(&self) -> Value {
        let mut details: Map<String, Value> = serde_json::from_str(&self.details).unwrap_or_default();
        details.insert("httpStatusCode".into(), self.status.into());
        json!({
            "name": self.name,
            "message": self.message,
            "details": details,
            "cause": self.cause.as_ref().map(|cause| cause.body_as_cause()),
            "type": self.name,
        })
    }

    /// As a cause: only what was not found keeps its status; below every other reason the existing server shows
    /// its generic error, which clients' tests expect to be there.
    fn body_as_cause(&self) -> Value {
        if self.status == 404 {
            return self.body();
        }
        let details: Map<String, Value> = serde_json::from_str(&self.details).unwrap_or_default();
        json!({
            "name": self.name,
            "message": self.message,
            "details": details,
            "cause": {
                "message": "An unspecified error occurred.",
                "name": "OperationError",
                "type": "OperationError",
            },
            "type": self.name,
        })
    }
}
