//! The way to a server: its public URL names it, the addresses say where the bytes go.
//!
//! Addresses are used in turn and one that takes no connection is skipped. A request is sent a second time only
//! if it certainly was not read the first time, or if it is a GET: a POST is never done twice.

use crate::client::error::ClientError;
use crate::client::origin::{Origin, OriginError};
use crate::client::pool::{Endpoint, Refused, Sender};
use crate::client::reply::Reply;
use crate::client::signer::SignedRequest;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{HOST, HeaderMap, HeaderName, LOCATION, RETRY_AFTER};
use hyper::{Method, Request, Response};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// How long a client waits and how much it takes.
#[derive(Clone, Debug)]
pub struct Limits {
    /// For a connection to one address, TLS included.
    pub connect: Duration,
    /// For a whole call, from looking for a connection to the last byte of the reply.
    pub request: Duration,
    /// How long an address that took no connection is tried last.
    pub retry: Duration,
    /// Longest body of a reply, in bytes.
    pub reply: usize,
    /// Idle connections kept for an address.
    pub idle: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            request: Duration::from_secs(10),
            retry: Duration::from_secs(1),
            reply: 1024 * 1024,
            idle: 1024,
        }
    }
}

/// The addresses of one server, with the connections to them. Needs a tokio runtime with I/O and time.
pub struct Connection {
    origin: Origin,
    name: ServerName<'static>,
    endpoints: Vec<Endpoint>,
    tls: TlsConnector,
    next: AtomicUsize,
    limits: Limits,
}

enum Failure {
    /// The request came back unsent, or was a GET: another connection may do.
    Again(ClientError),
    Final(ClientError),
}

impl Connection {
    /// A way to `origin` through `addresses` (`HOST:PORT` each), or through the origin's own when there are none.
    /// Nothing is opened yet.
    ///
    /// # Errors
    /// [`OriginError`] when an address is not `HOST:PORT`.
    pub fn new(
        origin: Origin,
        addresses: &[String],
        tls: Arc<ClientConfig>,
        limits: Limits,
    ) -> Result<Self, OriginError> {
        let malformed = |text: &str| OriginError::Malformed(text.to_owned());
        let name = origin.server_name().ok_or_else(|| malformed(origin.authority()))?;
        let mut endpoints = Vec::new();
        for address in addresses {
            let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
            port.and_then(|(_, port)| port.parse::<u16>().ok()).ok_or_else(|| malformed(address))?;
            endpoints.push(Endpoint::new(address.clone()));
        }
        if endpoints.is_empty() {
            endpoints.push(Endpoint::new(origin.address()));
        }
        Ok(Self { origin, name, endpoints, tls: TlsConnector::from(tls), next: AtomicUsize::new(0), limits })
    }

    /// The server's public URL.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Sends a signed request and reads its reply, whatever the status.
    ///
    /// # Errors
    /// [`ClientError`]: unreachable, not the server, no answer in time, a lost connection, an oversize reply.
    pub async fn send(&self, request: &SignedRequest) -> Result<Reply, ClientError> {
        let patience = self.limits.request;
        timeout(patience, self.send_in_turn(request)).await.unwrap_or(Err(ClientError::Timeout(patience)))
    }

    async fn send_in_turn(&self, request: &SignedRequest) -> Result<Reply, ClientError> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let count = self.endpoints.len();
        let mut order: Vec<&Endpoint> = (0..count).map(|i| &self.endpoints[(first + i) % count]).collect();
        order.sort_by_key(|endpoint| endpoint.is_down(&self.limits));
        let mut dead = Vec::new();
        let mut lost = None;
        for endpoint in order {
            while let Some(sender) = endpoint.reuse().await {
                match self.exchange(endpoint, sender, request).await {
                    Ok(reply) => return Ok(reply),
                    Err(Failure::Final(error)) => return Err(error),
                    Err(Failure::Again(_)) => {}
                }
            }
            let sender = match endpoint.connect(&self.tls, &self.name, &self.limits).await {
                Ok(sender) => sender,
                Err(Refused::Dead(reason)) => {
                    endpoint.mark_down();
                    dead.push(reason);
                    continue;
                }
                Err(Refused::Tls(source)) => {
                    let (endpoint, host) = (endpoint.address().to_owned(), self.origin.authority().to_owned());
                    return Err(ClientError::Tls { endpoint, host, source });
                }
            };
            match self.exchange(endpoint, sender, request).await {
                Ok(reply) => return Ok(reply),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Again(error)) => lost = Some(error),
            }
        }
        Err(lost.unwrap_or(ClientError::Unreachable(dead)))
    }

    async fn exchange(
        &self,
        endpoint: &Endpoint,
        mut sender: Sender,
        request: &SignedRequest,
    ) -> Result<Reply, Failure> {
        let mut outgoing = Request::new(Full::new(request.body.clone().unwrap_or_default()));
        *outgoing.method_mut() = request.method.clone();
        *outgoing.uri_mut() = request.target.clone();
        *outgoing.headers_mut() = request.headers.clone();
        debug_assert!(request.headers.contains_key(HOST), "a signed request names its host");
        let lost = |source| ClientError::Lost { endpoint: endpoint.address().to_owned(), source };
        let response = match sender.try_send_request(outgoing).await {
            Ok(response) => response,
            Err(mut error) => {
                let unsent = error.take_message().is_some() || request.method == Method::GET;
                let error = lost(error.into_error());
                return Err(if unsent { Failure::Again(error) } else { Failure::Final(error) });
            }
        };
        let reply = self.read(endpoint, response).await.map_err(Failure::Final)?;
        endpoint.keep(sender, &self.limits);
        Ok(reply)
    }

    async fn read(&self, endpoint: &Endpoint, response: Response<Incoming>) -> Result<Reply, ClientError> {
        let limit = self.limits.reply;
        let (head, body) = response.into_parts();
        let body: Bytes = match Limited::new(body, limit).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => {
                let endpoint = endpoint.address().to_owned();
                return Err(match error.downcast::<hyper::Error>() {
                    Ok(source) => ClientError::Lost { endpoint, source: *source },
                    Err(error) if error.is::<LengthLimitError>() => ClientError::TooLong { endpoint, limit },
                    Err(error) => ClientError::Unexpected(error.to_string()),
                });
            }
        };
        Ok(Reply {
            status: head.status,
            location: header(&head.headers, &LOCATION).map(str::to_owned),
            retry_after: header(&head.headers, &RETRY_AFTER).and_then(|text| text.parse().ok()),
            body,
            endpoint: endpoint.address().to_owned(),
        })
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
