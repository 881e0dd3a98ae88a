//! Asks an admin listener: one request, one connection, bounded in size and time.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// No answer of an admin listener is larger.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there, or not in time.
    #[error("cannot reach {admin}")]
    Connect {
        /// Who was asked.
        admin: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not HTTP, or cut off.
    #[error("{admin} does not answer as an admin listener")]
    Protocol {
        /// Who was asked.
        admin: String,
        /// What was wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No answer in time.
    #[error("{admin} did not answer within {seconds} s")]
    TimedOut {
        /// Who was asked.
        admin: String,
        /// How long it was waited for.
        seconds: u64,
    },
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// Seconds of `Retry-After`, if it has one.
    pub retry_after: Option<u64>,
    /// The body.
    pub body: Bytes,
}

/// GET `path` from `admin` (host:port).
pub async fn get(admin: &str, path: &str, timeout: Duration) -> Result<Answer, ClientError> {
    within(admin, timeout, ask(admin, "GET", path, Bytes::new())).await
}

/// POST `body` to `path` of `admin` (host:port).
pub async fn post(admin: &str, path: &str, body: Bytes, timeout: Duration) -> Result<Answer, ClientError> {
    within(admin, timeout, ask(admin, "POST", path, body)).await
}

async fn within(
    admin: &str,
    timeout: Duration,
    ask: impl Future<Output = Result<Answer, ClientError>>,
) -> Result<Answer, ClientError> {
    let late = |_| ClientError::TimedOut {
        admin: admin.to_owned(),
        seconds: timeout.as_secs(),
    };
    tokio::time::timeout(timeout, ask).await.map_err(late)?
}

async fn ask(admin: &str, method: &str, path: &str, body: Bytes) -> Result<Answer, ClientError> {
    let connect = |source| ClientError::Connect {
        admin: admin.to_owned(),
        source,
    };
    let protocol = |source: Box<dyn std::error::Error + Send + Sync>| ClientError::Protocol {
        admin: admin.to_owned(),
        source,
    };
    let stream = TcpStream::connect(admin).await.map_err(connect)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| protocol(error.into()))?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, admin)
        .header(header::CONNECTION, "close")
        .body(Full::new(body))
        .map_err(|error| protocol(error.into()))?;
    let exchange = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| protocol(error.into()))?;
        let status = response.status();
        let retry_after = response
            .headers()
            .get(header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        let body = Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(protocol)?
            .to_bytes();
        Ok(Answer {
            status,
            retry_after,
            body,
        })
    };
    let mut connection = std::pin::pin!(connection);
    let mut exchange = std::pin::pin!(exchange);
    // The connection makes the exchange move; when it ends first, the exchange knows why.
    tokio::select! {
        answer = &mut exchange => answer,
        _ = &mut connection => exchange.await,
    }
}
