//! The way to a server: its public URL names it, the addresses say where the bytes go.
//!
//! Addresses are used in turn and one that takes no connection is skipped. A request is sent a second time only
//! if it certainly was not read the first time, or if it is a GET: a POST is never done twice.

use crate::client::error::ClientError;
use crate::client::origin::{Origin, OriginError};
use crate::client::pool::{Endpoint, Refused, Sender};
use crate::client::reply::Reply;
use crate::client::signer::SignedRequest;
use crate::receipt;
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
        let name = origin
            .server_name()
            .ok_or_else(|| malformed(origin.authority()))?;
        let mut endpoints = Vec::new();
        for address in addresses {
            let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
            port.and_then(|(_, port)| port.parse::<u16>().ok())
                .ok_or_else(|| malformed(address))?;
            endpoints.push(Endpoint::new(address.clone()));
        }
        if endpoints.is_empty() {
            endpoints.push(Endpoint::new(origin.address()));
        }
        Ok(Self {
            origin,
            name,
            endpoints,
            tls: TlsConnector::from(tls),
            next: AtomicUsize::new(0),
            limits,
        })
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
        timeout(patience, self.send_in_turn(request))
            .await
            .unwrap_or(Err(ClientError::Timeout(patience)))
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
                    let (endpoint, host) =
                        (endpoint.address().to_owned(), self.origin.authority().to_owned());
                    return Err(ClientError::Tls {
                        endpoint,
                        host,
                        source,
                    });
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
        debug_assert!(
            request.headers.contains_key(HOST),
            "a signed request names its host"
        );
        let lost = |source| ClientError::Lost {
            endpoint: endpoint.address().to_owned(),
            source,
        };
        let response = match sender.try_send_request(outgoing).await {
            Ok(response) => response,
            Err(mut error) => {
                let unsent = error.take_message().is_some() || request.method == Method::GET;
                let error = lost(error.into_error());
                return Err(if unsent {
                    Failure::Again(error)
                } else {
                    Failure::Final(error)
                });
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
                    Ok(source) => ClientError::Lost {
                        endpoint,
                        source: *source,
                    },
                    Err(error) if error.is::<LengthLimitError>() => ClientError::TooLong { endpoint, limit },
                    Err(error) => ClientError::Unexpected(error.to_string()),
                });
            }
        };
        Ok(Reply {
            status: head.status,
            location: header(&head.headers, &LOCATION).map(str::to_owned),
            retry_after: header(&head.headers, &RETRY_AFTER).and_then(|text| text.parse().ok()),
            request_id: header(&head.headers, &HeaderName::from_static("x-request-id")).map(str::to_owned),
            notice: header(&head.headers, &HeaderName::from_static("conclave-notice")).map(str::to_owned),
            receipt: receipt(&head.headers),
            body,
            endpoint: endpoint.address().to_owned(),
        })
    }
}

/// The receipt in a reply. Several are as good as one that cannot be read.
fn receipt(headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all(receipt::HEADER).iter();
    let first = values.next()?.to_str().unwrap_or_default();
    Some(values.next().map_or(first, |_| "").to_owned())
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use super::{Connection, Limits};
    use crate::client::testing::{Answer, Server};
    use crate::client::{Call, ClientError, Identity, Origin, SignedRequest, Window, signer, tls};
    use std::sync::atomic::Ordering;
    use std::time::Duration;
    use tokio::net::TcpListener;

    const KEY: &str = "https://kms.test:8443/kms/keystores/z/keys/k";

    fn connection(server: &Server, addresses: &[String], limits: Limits) -> Connection {
        let origin = Origin::parse("https://kms.test:8443").unwrap();
        Connection::new(
            origin,
            addresses,
            tls::config(Some(&server.ca())).unwrap(),
            limits,
        )
        .unwrap()
    }

    fn request(call: &Call) -> SignedRequest {
        let origin = Origin::parse("https://kms.test:8443").unwrap();
        signer::sign(
            &origin,
            &Identity::from_seed(&[1; 32]),
            call,
            None,
            Window::starting_now(),
        )
        .unwrap()
    }

    fn fine() -> Answer {
        Answer::Json(200, "{}".to_owned())
    }

    /// An address on which nobody listens.
    async fn dead() -> String {
        TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap()
            .to_string()
    }

    #[tokio::test]
    async fn bytes_go_elsewhere_while_host_and_name_stay() {
        let server = Server::start("kms.test", |request| {
            let host = request.headers.iter().find(|(name, _)| name == "host").unwrap();
            Answer::Json(200, format!("{:?}", String::from_utf8_lossy(&host.1)))
        })
        .await;
        let connection = connection(&server, &[server.address()], Limits::default());
        for _ in 0..3 {
            let reply = connection.send(&request(&Call::sign(KEY, b"x"))).await.unwrap();
            assert_eq!(&reply.body[..], b"\"kms.test:8443\"");
            assert_eq!(reply.endpoint, server.address());
        }
        assert_eq!(
            server.connections.load(Ordering::SeqCst),
            1,
            "the connection is kept"
        );
    }

    #[tokio::test]
    async fn a_dead_address_is_skipped_and_live_ones_are_used_in_turn() {
        let one = Server::start("kms.test", |_| fine()).await;
        let addresses = [dead().await, one.address(), one.address()];
        let connection = connection(&one, &addresses, Limits::default());
        for _ in 0..6 {
            connection.send(&request(&Call::sign(KEY, b"x"))).await.unwrap();
        }
        assert_eq!(one.connections.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn nobody_anywhere_is_unreachable() {
        let server = Server::start("kms.test", |_| fine()).await;
        let connection = connection(&server, &[dead().await, dead().await], Limits::default());
        match connection.send(&request(&Call::sign(KEY, b"x"))).await {
            Err(ClientError::Unreachable(reasons)) => assert_eq!(reasons.len(), 2),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_server_that_dies_is_replaced_by_the_next() {
        let mut first = Server::start("kms.test", |_| fine()).await;
        let ca = tls::config(Some(&first.ca())).unwrap();
        let origin = Origin::parse("https://kms.test:8443").unwrap();
        let connection = Connection::new(origin, &[first.address()], ca, Limits::default()).unwrap();
        connection.send(&request(&Call::sign(KEY, b"x"))).await.unwrap();
        first.stop().await;
        // The kept connection is closed by now or will be: either way no answer is made up.
        let error = connection
            .send(&request(&Call::sign(KEY, b"x")))
            .await
            .unwrap_err();
        assert!(
            matches!(error, ClientError::Unreachable(_) | ClientError::Lost { .. }),
            "{error:?}"
        );
    }

    #[tokio::test]
    async fn another_authority_or_name_is_refused_before_a_request() {
        let server = Server::start("kms.test", |_| fine()).await;
        let other = Server::start("kms.test", |_| fine()).await;
        let named = Server::start("other.test", |_| fine()).await;
        for (trusted, reached) in [(&other, &server), (&named, &named)] {
            let connection = connection(trusted, &[reached.address()], Limits::default());
            let error = connection
                .send(&request(&Call::sign(KEY, b"x")))
                .await
                .unwrap_err();
            assert!(matches!(error, ClientError::Tls { .. }), "{error:?}");
            assert_eq!(reached.requests.load(Ordering::SeqCst), 0);
        }
    }

    #[tokio::test]
    async fn an_oversize_reply_is_refused() {
        let limits = Limits {
            reply: 1000,
            ..Limits::default()
        };
        let server = Server::start("kms.test", |_| Answer::Json(200, " ".repeat(1001))).await;
        let bounded = connection(&server, &[server.address()], limits.clone());
        let error = bounded.send(&request(&Call::sign(KEY, b"x"))).await.unwrap_err();
        assert!(
            matches!(error, ClientError::TooLong { limit: 1000, .. }),
            "{error:?}"
        );
        let endless = format!("HTTP/1.1 200 OK\r\n\r\n{}", " ".repeat(5000)).into_bytes();
        let server = Server::start("kms.test", move |_| Answer::Raw(endless.clone())).await;
        let bounded = connection(&server, &[server.address()], limits);
        let error = bounded.send(&request(&Call::sign(KEY, b"x"))).await.unwrap_err();
        assert!(matches!(error, ClientError::TooLong { .. }), "{error:?}");
    }

    #[tokio::test]
    async fn a_post_is_never_sent_twice_and_a_get_may_be() {
        let server = Server::start("kms.test", |_| Answer::Hangup).await;
        let addresses = [server.address(), server.address()];
        let hung = connection(&server, &addresses, Limits::default());
        let error = hung.send(&request(&Call::sign(KEY, b"x"))).await.unwrap_err();
        assert!(matches!(error, ClientError::Lost { .. }), "{error:?}");
        assert_eq!(server.requests.load(Ordering::SeqCst), 1);
        hung.send(&request(&Call::get_key(KEY))).await.unwrap_err();
        assert_eq!(server.requests.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn silence_ends_in_a_timeout() {
        let server = Server::start("kms.test", |_| Answer::Silence).await;
        let limits = Limits {
            request: Duration::from_millis(100),
            ..Limits::default()
        };
        let silent = connection(&server, &[server.address()], limits);
        let error = silent.send(&request(&Call::sign(KEY, b"x"))).await.unwrap_err();
        assert!(matches!(error, ClientError::Timeout(_)), "{error:?}");
    }

    #[test]
    fn addresses_are_host_and_port() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(Vec::new())
            .unwrap()
            .self_signed(&key)
            .unwrap();
        std::fs::write(&path, certificate.pem()).unwrap();
        let trusted = tls::config(Some(&path)).unwrap();
        let origin = Origin::parse("https://kms.test").unwrap();
        for address in ["kms.test", ":1", "a:b", "a:99999", ""] {
            let made = Connection::new(
                origin.clone(),
                &[address.to_owned()],
                trusted.clone(),
                Limits::default(),
            );
            assert!(made.is_err(), "{address}");
        }
    }
}
