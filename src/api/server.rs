//! The listener: TLS, connection limits, time-outs.

use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::http::KeepAlive;
use actix_web::{App, HttpServer, web};
use rustls::server::ServerSessionMemoryCache;

use super::connections::Connections;
use super::{Api, handler};
use crate::config::Config;
use crate::provision::ProvisionError;
use crate::provision::start::read_https;

/// A client has this long to send its head, and again for its body.
pub(super) const CLIENT_PATIENCE: Duration = Duration::from_secs(10);
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// Requests that are still under way when the node stops have this long, seconds.
const SHUTDOWN: u64 = 10;
const SESSIONS: usize = 16_384;

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Certificate or key.
    #[error(transparent)]
    Files(#[from] ProvisionError),
    /// TLS does not take them.
    #[error("the certificate and key cannot be used")]
    Tls(#[from] rustls::Error),
    /// The address cannot be listened on.
    #[error("cannot listen")]
    Listen(#[from] std::io::Error),
}

/// Binds and serves; the caller spawns the returned server and stops it by its handle.
///
/// # Errors
/// [`ApiError`].
pub fn serve(config: &Config, api: Api) -> Result<Server, ApiError> {
    let (chain, key) = read_https(config)?;
    let mut tls = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    tls.session_storage = ServerSessionMemoryCache::new(SESSIONS);
    let connections = api.connections.clone();
    tokio::spawn(Connections::watch(Arc::downgrade(&connections)));
    let api = web::Data::new(api);
    let workers = match config.limits.http_workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        workers => workers,
    };
    let server = HttpServer::new(move || {
        App::new()
            .app_data(api.clone())
            .default_service(web::to(handler::handle))
    })
    .workers(workers)
    .max_connections(config.limits.connections.div_ceil(workers))
    .client_request_timeout(CLIENT_PATIENCE)
    .keep_alive(KeepAlive::Timeout(KEEP_ALIVE))
    .on_connect(move |io, data| connections.accept(io, data))
    .shutdown_timeout(SHUTDOWN)
    .tcp_nodelay(true)
    .disable_signals()
    .bind_rustls_0_23(config.listen.https, tls)?;
    Ok(server.run())
}
