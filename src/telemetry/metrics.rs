//! Metrics in the OpenMetrics text format, which Prometheus reads.
//!
//! Parts register their own metrics, or hand over a closure that reads the counters that they keep anyway
//! ([`Metrics::sample`]): the crates of `cluster/` know nothing of this registry.

use std::{fmt, sync::Arc};

use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _, MetricEncoder},
    metrics::{
        counter::ConstCounter,
        gauge::{ConstGauge, Gauge},
        info::Info,
    },
    registry::Registry,
};

/// The content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A node's metrics. Cloned freely; every name begins with `conclave_`.
#[derive(Clone)]
pub struct Metrics(Arc<Mutex<Registry>>);

/// Whether a sampled metric only rises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Rises only; `_total` is appended to its name.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// One value of a sampled metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Names and values; the same names in every sample of a metric, and few values.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: u64,
}

impl Sample {
    /// A value without labels.
    pub fn plain(value: u64) -> Self {
        Self {
            labels: Vec::new(),
            value,
        }
    }

    /// A value with one label.
    pub fn labelled(name: &'static str, label: impl fmt::Display, value: u64) -> Self {
        Self {
            labels: vec![(name, label.to_string())],
            value,
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// A registry that knows the version and the time of its start.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("conclave");
        let version = vec![("version", env!("CARGO_PKG_VERSION"))];
        registry.register("build", "The version that runs", Info::new(version));
        let started: Gauge = Gauge::default();
        started.set(time::OffsetDateTime::now_utc().unix_timestamp());
        registry.register(
            "start_time_seconds",
            "When the process started, seconds since 1970",
            started,
        );
        Self(Arc::new(Mutex::new(registry)))
    }

    /// Registers what a part counts itself: `register(|registry| registry.register(name, help, metric))`.
    pub fn register<T>(&self, register: impl FnOnce(&mut Registry) -> T) -> T {
        register(&mut self.0.lock())
    }

    /// A metric whose values `read` gives at each scrape. `read` must neither block nor use this registry.
    pub fn sample(
        &self,
        name: &'static str,
        help: &'static str,
        kind: Kind,
        read: impl Fn() -> Vec<Sample> + Send + Sync + 'static,
    ) {
        self.0.lock().register_collector(Box::new(Sampled {
            name,
            help,
            kind,
            read: Box::new(read),
        }));
    }

    /// All metrics as text.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.0.lock())?;
        Ok(text)
    }
}

struct Sampled {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    read: Box<dyn Fn() -> Vec<Sample> + Send + Sync>,
}

impl fmt::Debug for Sampled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sampled")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Collector for Sampled {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let samples = (self.read)();
        let kind = match self.kind {
            Kind::Counter => prometheus_client::metrics::MetricType::Counter,
            Kind::Gauge => prometheus_client::metrics::MetricType::Gauge,
        };
        // A text of OpenMetrics ends its help by a full stop, as the registry itself appends to the others.
        let mut metric = encoder.encode_descriptor(self.name, &format!("{}.", self.help), None, kind)?;
        for Sample { labels, value } in &samples {
            if labels.is_empty() {
                // Without labels there is one value.
                return encode_value(self.kind, *value, metric);
            }
            encode_value(self.kind, *value, metric.encode_family(labels)?)?;
        }
        Ok(())
    }
}

fn encode_value(kind: Kind, value: u64, encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
    match kind {
        Kind::Counter => ConstCounter::new(value).encode(encoder),
        // The text format has no unsigned gauges; what we count stays far below the largest signed number.
        Kind::Gauge => ConstGauge::new(signed(value)).encode(encoder),
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sampled_and_registered_metrics_are_written_under_one_prefix() {
        let metrics = Metrics::new();
        let leaders: Gauge = Gauge::default();
        leaders.set(3);
        metrics.register(|registry| registry.register("leaders", "Groups led", leaders.clone()));
        metrics.sample("frames_dropped", "Frames dropped", Kind::Counter, || {
            vec![
                Sample::labelled("reason", "full", 2),
                Sample::labelled("reason", "in\"valid", 1),
            ]
        });
        metrics.sample("links_up", "Links that stand", Kind::Gauge, || {
            vec![Sample::plain(2)]
        });
        let text = metrics.encode().unwrap();
        for line in [
            "conclave_leaders 3",
            "conclave_frames_dropped_total{reason=\"full\"} 2",
            "conclave_frames_dropped_total{reason=\"in\\\"valid\"} 1",
            "conclave_links_up 2",
            "# TYPE conclave_frames_dropped counter",
            "# EOF",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
        leaders.set(4);
        assert!(metrics.encode().unwrap().contains("conclave_leaders 4\n"));
    }
}
