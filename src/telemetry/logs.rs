//! Logs: tracing to standard error, for people or as JSON, with the request's id on every record of a request.

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::config::{Log, LogFormat};

/// Why logs could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter of the configuration.
    #[error("log.filter is not a tracing filter")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Something else logs already.
    #[error("logs were started twice")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Starts logging for the whole process. The environment's `CONCLAVE_LOG`, if it is set, goes before the filter.
pub fn start(log: &Log) -> Result<(), LogError> {
    let text = std::env::var("CONCLAVE_LOG").unwrap_or_else(|_| log.filter.clone());
    let filter = EnvFilter::builder().parse(text)?;
    let registry = tracing_subscriber::registry().with(filter);
    let records = fmt::layer().with_writer(std::io::stderr);
    match log.format {
        LogFormat::Human => registry.with(records.with_ansi(false)).try_init()?,
        LogFormat::Json => registry
            .with(
                records
                    .json()
                    .flatten_event(true)
                    .with_current_span(true)
                    .with_span_list(false),
            )
            .try_init()?,
    }
    Ok(())
}

/// The span of one request, on the node that the client reached and on every holder: `id` is what its client was told
/// in `X-Request-Id`.
///
/// Everything that works for the request runs inside it (`.instrument(span)`).
pub fn request_span(id: &impl std::fmt::Display) -> tracing::Span {
    tracing::info_span!("request", request = %id)
}

/// Reads back what a node of ours wrote in JSON; for tests and tools that follow a request through all nodes.
///
/// `None`: the line is not a record, or belongs to no request.
pub fn request_of_line(line: &str) -> Option<String> {
    let record: serde_json::Value = serde_json::from_str(line).ok()?;
    Some(record.get("span")?.get("request")?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_json_record_carries_the_request_of_its_span() {
        let lines = Lines::default();
        let writer = lines.clone();
        let records = fmt::layer().with_writer(move || writer.clone());
        let records = records
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false);
        let subscriber = tracing_subscriber::registry().with(records);
        tracing::subscriber::with_default(subscriber, || {
            request_span(&"1-2-3").in_scope(|| tracing::info!(answer = 42, "inside"));
            tracing::info!("outside");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let requests: Vec<_> = text.lines().map(request_of_line).collect();
        assert_eq!(requests, [Some("1-2-3".to_owned()), None]);
    }
}
