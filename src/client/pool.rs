//! Kept-alive connections to one address: HTTP/1.1 over TLS, one request at a time on each.

use crate::client::connection::Limits;
use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls_pki_types::ServerName;
use std::io;
use std::net::SocketAddr;
use std::time::Instant;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Most header bytes of a reply.
const MAX_HEAD: usize = 64 * 1024;

/// What sends requests on one connection.
pub(super) type Sender = SendRequest<Full<Bytes>>;

/// Why there is no connection.
pub(super) enum Refused {
    /// Nobody there, or nobody who answers: another address may do.
    Dead(String),
    /// Somebody is there who is not the server.
    Tls(rustls::Error),
}

/// One address and its idle connections.
pub(super) struct Endpoint {
    address: String,
    idle: Mutex<Vec<Sender>>,
    down_since: Mutex<Option<Instant>>,
}

impl Endpoint {
    pub(super) fn new(address: String) -> Self {
        Self {
            address,
            idle: Mutex::new(Vec::new()),
            down_since: Mutex::new(None),
        }
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Whether a connection failed within the last `Limits::retry`.
    pub(super) fn is_down(&self, limits: &Limits) -> bool {
        self.down_since
            .lock()
            .is_some_and(|since| since.elapsed() < limits.retry)
    }

    pub(super) fn mark_down(&self) {
        *self.down_since.lock() = Some(Instant::now());
        self.idle.lock().clear();
    }

    /// An idle connection that is still open.
    pub(super) async fn reuse(&self) -> Option<Sender> {
        loop {
            let mut sender = self.idle.lock().pop()?;
            if sender.ready().await.is_ok() {
                return Some(sender);
            }
        }
    }

    /// Takes a connection back when its reply was read to the end.
    pub(super) fn keep(&self, sender: Sender, limits: &Limits) {
        let mut idle = self.idle.lock();
        if !sender.is_closed() && idle.len() < limits.idle {
            idle.push(sender);
        }
    }

    /// A new connection. A name with several addresses is tried in their order.
    pub(super) async fn connect(
        &self,
        tls: &TlsConnector,
        name: &ServerName<'static>,
        limits: &Limits,
    ) -> Result<Sender, Refused> {
        let dead = |error: io::Error| Refused::Dead(format!("{}: {error}", self.address));
        let resolved = timeout(limits.connect, lookup_host(self.address.as_str()))
            .await
            .map_err(|_| Refused::Dead(format!("{}: its name was not resolved in time", self.address)))?
            .map_err(dead)?;
        let mut last = Refused::Dead(format!("{}: the name has no address", self.address));
        for address in resolved {
            match timeout(limits.connect, open(address, tls, name)).await {
                Ok(Ok(sender)) => {
                    *self.down_since.lock() = None;
                    return Ok(sender);
                }
                Ok(Err(error)) => match tls_error(error) {
                    Ok(error) => return Err(Refused::Tls(error)),
                    Err(error) => last = dead(error),
                },
                Err(_) => last = Refused::Dead(format!("{}: no connection in time", self.address)),
            }
        }
        Err(last)
    }
}

async fn open(address: SocketAddr, tls: &TlsConnector, name: &ServerName<'static>) -> io::Result<Sender> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let stream = tls.connect(name.clone(), socket).await?;
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    // Its errors also reach whoever waits for a reply on it.
    tokio::spawn(connection);
    Ok(sender)
}

/// The TLS error inside an I/O error; the error itself when there is none.
fn tls_error(error: io::Error) -> Result<rustls::Error, io::Error> {
    match error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
    {
        Some(inner) => Ok(inner.clone()),
        None => Err(error),
    }
}
