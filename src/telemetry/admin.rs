//! The admin listener: health, metrics, status and unseal over plain HTTP, on loopback unless configured otherwise.
//!
//! It answers before the node has its key and has no way to anything that is sealed. `/unseal`, `/backup` and invitations are
//! answered to this machine only.

pub mod reception;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer, dev::Server, error::PayloadError, http::StatusCode, web,
};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use self::reception::Reception;
use super::health::{Health, Word};
use super::metrics::{CONTENT_TYPE, Metrics};
use crate::operator::{MAX_ORDER, SignedOrder};
use crate::problem::Problem;
use crate::seal::{
    passphrase::{MAX_PASSPHRASE, without_line_end},
    unseal::{Door, UnsealReply},
};

/// Why a node cannot serve now, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotReady {
    /// Why.
    pub reason: String,
    /// What to do.
    pub hint: String,
}

impl NotReady {
    /// Both texts.
    pub fn new(reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            hint: hint.into(),
        }
    }

    /// A node that waits for its node key.
    pub fn sealed() -> Self {
        Self::new(
            "the node is sealed",
            "run: conclave unseal --admin HOST:PORT; or see its log for what its seal waits for",
        )
    }
}

/// Brings an operators' order into the replicated state, or says why not.
pub type Orders = Arc<dyn Fn(SignedOrder) -> BoxFuture<'static, Result<(), Problem>> + Send + Sync>;

/// What the listener asks; every closure but one answers at once, from what is in memory.
#[derive(Clone)]
pub struct Admin {
    /// This node's number.
    pub node: u64,
    /// Whether the node can serve now.
    pub ready: Arc<dyn Fn() -> Result<(), NotReady> + Send + Sync>,
    /// How well the cluster is, as this node sees it.
    pub health: Arc<dyn Fn() -> Health + Send + Sync>,
    /// A [`super::NodeStatus`] as JSON.
    pub status: Arc<dyn Fn() -> serde_json::Value + Send + Sync>,
    /// A [`super::status::SymmetricStatus`] as JSON, of an open node: reads the state, so it is called off the listener's thread.
    pub symmetric: Arc<dyn Fn() -> serde_json::Value + Send + Sync>,
    /// Where operators' orders go.
    pub orders: Orders,
    /// The orders that changed the members, as JSON; none while they cannot be read.
    pub orders_so_far: Arc<dyn Fn() -> Option<serde_json::Value> + Send + Sync>,
    /// Makes a backup in the configured folder and tells about it as JSON: takes long, so it is called off the listener's
    /// thread.
    pub backup: Arc<dyn Fn() -> Result<serde_json::Value, NotReady> + Send + Sync>,
    /// The node's metrics.
    pub metrics: Metrics,
    /// Where passphrases go.
    pub door: Door,
    /// Where machines that are to become members show themselves.
    pub reception: Reception,
}

/// The answer of `/health/live`: which node and which process answers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Live {
    /// Always true.
    pub live: bool,
    /// The node's number.
    pub node: u64,
    /// The process.
    pub pid: u32,
}

/// The answer of `/health/ready`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Readiness {
    /// Whether the node can serve now.
    pub ready: bool,
    /// If not: why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// If not: what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// The answer of `/unseal` when it is not 204, and of `/backup` when it is not 200.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Refusal {
    /// Why.
    pub error: String,
}

/// Binds `address` and answers from now on; await or spawn the returned server. Needs a running actix or tokio
/// runtime. Signals are the caller's business. Port 0 takes a free port: the address is returned.
pub fn serve(address: SocketAddr, admin: Admin) -> io::Result<(Server, SocketAddr)> {
    let admin = web::Data::new(admin);
    let application = move || {
        App::new()
            .app_data(admin.clone())
            .route("/health", web::get().to(health))
            .route("/health/live", web::get().to(live))
            .route("/health/ready", web::get().to(ready))
            .route("/metrics", web::get().to(metrics))
            .route("/status", web::get().to(status))
            .route("/status/symmetric", web::get().to(symmetric))
            .app_data(web::PayloadConfig::new(MAX_ORDER))
            .route("/orders", web::post().to(order))
            .route("/orders", web::get().to(orders))
            .route("/backup", web::post().to(backup))
            .route("/unseal", web::post().to(unseal))
            .configure(reception::routes)
    };
    let server = HttpServer::new(application)
        .workers(1)
        .max_connections(64)
        .backlog(64)
        .client_request_timeout(Duration::from_secs(5))
        .client_disconnect_timeout(Duration::from_secs(1))
        .keep_alive(Duration::from_secs(15))
        .shutdown_timeout(1)
        .disable_signals()
        .bind(address)?;
    let address = server.addrs().first().copied().unwrap_or(address);
    Ok((server.run(), address))
}

async fn live(admin: web::Data<Admin>) -> HttpResponse {
    HttpResponse::Ok().json(Live {
        live: true,
        node: admin.node,
        pid: std::process::id(),
    })
}

async fn ready(admin: web::Data<Admin>) -> HttpResponse {
    match (admin.ready)() {
        Ok(()) => HttpResponse::Ok().json(Readiness {
            ready: true,
            reason: None,
            hint: None,
        }),
        Err(NotReady { reason, hint }) => HttpResponse::ServiceUnavailable().json(Readiness {
            ready: false,
            reason: Some(reason),
            hint: Some(hint),
        }),
    }
}

async fn health(admin: web::Data<Admin>) -> HttpResponse {
    let health = (admin.health)();
    match health.health {
        Word::Unhealthy => HttpResponse::ServiceUnavailable().json(health),
        _ => HttpResponse::Ok().json(health),
    }
}

async fn metrics(admin: web::Data<Admin>) -> HttpResponse {
    match admin.metrics.encode() {
        Ok(text) => HttpResponse::Ok().content_type(CONTENT_TYPE).body(text),
        Err(_) => HttpResponse::InternalServerError().finish(),
    }
}

async fn status(admin: web::Data<Admin>) -> HttpResponse {
    HttpResponse::Ok().json((admin.status)())
}

async fn symmetric(admin: web::Data<Admin>) -> HttpResponse {
    match web::block(move || (admin.symmetric)()).await {
        Ok(status) => HttpResponse::Ok().json(status),
        Err(_) => HttpResponse::ServiceUnavailable().finish(),
    }
}

/// The orders that changed the members: public, since each is signed.
async fn orders(admin: web::Data<Admin>) -> HttpResponse {
    match (admin.orders_so_far)() {
        Some(orders) => HttpResponse::Ok().json(orders),
        None => refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            "the node cannot tell the members now",
        ),
    }
}

/// An order is believed for its signatures, whoever brings it.
async fn order(body: web::Bytes, admin: web::Data<Admin>) -> HttpResponse {
    let Ok(order) = serde_json::from_slice::<SignedOrder>(&body) else {
        return refuse(
            StatusCode::BAD_REQUEST,
            "the body is no operators' order of this version",
        );
    };
    match (admin.orders)(order).await {
        Ok(()) => HttpResponse::NoContent().finish(),
        Err(problem) => {
            let status = StatusCode::from_u16(problem.status);
            refuse(
                status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
                &problem.message,
            )
        }
    }
}

/// What is asked from elsewhere than a program on this machine is refused.
fn from_elsewhere(request: &HttpRequest, what: &str) -> Option<HttpResponse> {
    let here = request
        .peer_addr()
        .is_some_and(|peer| peer.ip().to_canonical().is_loopback());
    if !here {
        return Some(refuse(
            StatusCode::FORBIDDEN,
            &format!("{what} is taken from this machine only"),
        ));
    }
    // A page in a browser on this machine can post here too, but it cannot leave out its origin.
    let browser = request.headers().contains_key("origin");
    browser.then(|| {
        refuse(
            StatusCode::FORBIDDEN,
            &format!("{what} is not taken from a browser"),
        )
    })
}

async fn backup(request: HttpRequest, admin: web::Data<Admin>) -> HttpResponse {
    if let Some(refused) = from_elsewhere(&request, "an order for a backup") {
        return refused;
    }
    match web::block(move || (admin.backup)()).await {
        Ok(Ok(told)) => HttpResponse::Ok().json(told),
        Ok(Err(NotReady { reason, hint })) => {
            refuse(StatusCode::SERVICE_UNAVAILABLE, &format!("{reason}; {hint}"))
        }
        Err(_) => refuse(StatusCode::SERVICE_UNAVAILABLE, "the backup was interrupted"),
    }
}

async fn unseal(request: HttpRequest, body: web::Payload, admin: web::Data<Admin>) -> HttpResponse {
    if let Some(refused) = from_elsewhere(&request, "a passphrase") {
        return refused;
    }
    let body = match read_passphrase(body).await {
        Ok(Some(body)) => body,
        Ok(None) => {
            return refuse(
                StatusCode::PAYLOAD_TOO_LARGE,
                "a passphrase has at most 1024 bytes",
            );
        }
        Err(_) => return refuse(StatusCode::BAD_REQUEST, "the body could not be read"),
    };
    let passphrase = Zeroizing::new(without_line_end(&body).to_vec());
    if passphrase.is_empty() {
        return refuse(
            StatusCode::BAD_REQUEST,
            "the passphrase is the body of the request",
        );
    }
    match admin.door.attempt(passphrase).await {
        UnsealReply::Opened => HttpResponse::NoContent().finish(),
        UnsealReply::Wrong => refuse(StatusCode::FORBIDDEN, "the passphrase is wrong"),
        UnsealReply::TooSoon { seconds } => HttpResponse::TooManyRequests()
            .insert_header(("Retry-After", seconds.to_string()))
            .json(Refusal {
                error: format!("too many wrong passphrases; wait {seconds} s"),
            }),
        UnsealReply::Busy => HttpResponse::TooManyRequests()
            .insert_header(("Retry-After", "1"))
            .json(Refusal {
                error: "another passphrase is being tried".to_owned(),
            }),
        UnsealReply::NotSealed => refuse(
            StatusCode::CONFLICT,
            "the node waits for no passphrase: it has its key or gets it in another way",
        ),
        UnsealReply::Unusable { reason } => refuse(StatusCode::INTERNAL_SERVER_ERROR, &reason),
    }
}

/// `None`: too long.
async fn read_passphrase(mut body: web::Payload) -> Result<Option<Zeroizing<Vec<u8>>>, PayloadError> {
    // One line end more than a passphrase may have; room for all, so that nothing is copied about.
    let limit = MAX_PASSPHRASE + 2;
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit));
    while let Some(chunk) = body.next().await {
        let chunk = chunk?;
        if bytes.len() + chunk.len() > limit {
            return Ok(None);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Some(bytes))
}

fn refuse(status: StatusCode, error: &str) -> HttpResponse {
    HttpResponse::build(status).json(Refusal {
        error: error.to_owned(),
    })
}

#[cfg(test)]
mod tests;
