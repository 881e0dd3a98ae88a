//! What a node tells about itself: logs to standard error, metrics, health and status on the admin listener.
//!
//! The caller starts [`logs::start`] once, before anything that logs, and [`admin::serve`] before it asks for the
//! node key: a sealed node must be able to say that it is sealed.

pub mod admin;
pub mod client;
pub mod hardening;
pub mod health;
pub mod logs;
pub mod metrics;
pub mod stalls;
pub mod status;

pub use admin::{Admin, NotReady};
pub use metrics::Metrics;
pub use status::NodeStatus;
