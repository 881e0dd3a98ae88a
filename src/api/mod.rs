//! The public HTTPS interface: WebKMS over actix-web, HTTP/1.1.
//!
//! This layer decides nothing about capabilities. It bounds what is read, keeps a request exactly as it was sent
//! (signatures are over raw bytes), hands it to the [`Registry`], and writes answers as clients know them. One
//! handler serves every route: the route is parsed from the raw target, by the same code as on every holder.

mod address;
mod connections;
mod edge;
mod handler;
mod problem;
mod request;
mod server;

pub use server::{ApiError, serve};

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::actors::registry::Registry;
use crate::config::Config;
use crate::telemetry;
use crate::telemetry::metrics::{Kind, Sample};

/// What the handlers share.
pub struct Api {
    /// Serves.
    pub(crate) registry: Arc<Registry>,
    /// The only accepted `Host`.
    pub(crate) authority: String,
    /// Whether `X-Forwarded-For` is believed.
    pub(crate) trust_forwarded_for: bool,
    /// Longest body, bytes.
    pub(crate) max_body: usize,
    /// Clients' connections.
    pub(crate) connections: Arc<connections::Connections>,
    /// Bounds and fair shares at the edge.
    pub(crate) edge: edge::Edge,
    /// Set before the node stops: connections end with their next answer, so that none is cut while a request is on its way.
    pub(crate) closing: Arc<AtomicBool>,
}

impl Api {
    /// From a node's configuration; what is under way is told in `metrics`.
    pub fn new(config: &Config, registry: Arc<Registry>, metrics: &telemetry::Metrics) -> Self {
        let edge = edge::Edge::new(config.limits.requests_in_flight);
        let under_way = edge.under_way();
        metrics.sample(
            "requests_in_flight",
            "Client requests under way",
            Kind::Gauge,
            move || vec![Sample::plain(under_way())],
        );
        let connections = connections::Connections::new(config.limits.connections);
        let open = connections.clone();
        metrics.sample(
            "https_connections",
            "Open connections of clients",
            Kind::Gauge,
            move || vec![Sample::plain(open.count().0)],
        );
        let open = connections.clone();
        metrics.sample(
            "https_connections_ended",
            "Connections of clients that this node ended: beyond their address's share, or without a request for 90 s",
            Kind::Counter,
            move || open.count().1.map(|(why, count)| Sample::labelled("why", why, count)).into(),
        );
        Self {
            connections,
            registry,
            authority: config.public_url.authority().to_owned(),
            trust_forwarded_for: config.trust_forwarded_for,
            max_body: config.limits.body_bytes,
            edge,
            closing: Arc::default(),
        }
    }
}
