//! What can go wrong between a call and its answer.
//!
//! The kinds matter to callers: what was refused by the server, what never reached it, and what may or may not
//! have been done.

use crate::client::origin::OriginError;
use crate::client::reply::Refusal;
use crate::client::signer::SignError;
use std::time::Duration;
use thiserror::Error;

/// Why a call has no good answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// No address took a connection; nothing was sent.
    #[error("cannot connect: {}", .0.join("; "))]
    Unreachable(Vec<String>),
    /// The other end did not prove that it is the server; nothing was sent.
    #[error("{endpoint} is not {host}, or its certificate is not signed by the authority given (--ca)")]
    Tls {
        /// Address.
        endpoint: String,
        /// Name that the certificate had to carry.
        host: String,
        /// What TLS said.
        #[source]
        source: rustls::Error,
    },
    /// No answer in time: whether the call was carried out is unknown.
    #[error("no answer within {} s; the call may have been carried out", .0.as_secs())]
    Timeout(Duration),
    /// The connection ended after the request was sent: whether the call was carried out is unknown.
    #[error("{endpoint} ended the connection before it answered; the call may have been carried out")]
    Lost {
        /// Address.
        endpoint: String,
        /// What HTTP said.
        #[source]
        source: hyper::Error,
    },
    /// A longer reply than the client takes.
    #[error("the reply of {endpoint} is longer than {limit} bytes")]
    TooLong {
        /// Address.
        endpoint: String,
        /// Bytes.
        limit: usize,
    },
    /// The server said no.
    #[error("refused by {}: {}", .0.endpoint, .0)]
    Refused(Box<Refusal>),
    /// The server said yes, in a way that the protocol does not have.
    #[error("the server's answer is not what the protocol says: {0}")]
    Unexpected(String),
    /// A URL that cannot be used.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// The call could not be signed.
    #[error("cannot sign the request")]
    Sign(#[from] SignError),
}

impl ClientError {
    /// The refusal, if it is one.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// A short name, for counting.
    #[must_use]
    pub fn kind(&self) -> String {
        match self {
            Self::Unreachable(_) => "unreachable".to_owned(),
            Self::Tls { .. } => "tls".to_owned(),
            Self::Timeout(_) => "timeout".to_owned(),
            Self::Lost { .. } => "lost".to_owned(),
            Self::TooLong { .. } => "too_long".to_owned(),
            Self::Refused(refusal) => refusal.kind(),
            Self::Unexpected(_) => "unexpected".to_owned(),
            Self::Origin(_) | Self::Sign(_) => "local".to_owned(),
        }
    }
}
