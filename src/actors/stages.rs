//! Where the time of a request goes: a histogram and a span for each stage, on the node that the client reached and on
//! every holder alike. docs/metrics.md tells what each stage is.

use std::future::Future;
use std::time::Instant;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use tracing::Instrument;

use crate::telemetry;

/// A part of a request's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "these are the values of a label")]
pub enum Stage {
    /// The request's bytes, from its head to its last.
    read,
    /// The client's own signature, the digest and the shape of everything.
    verify,
    /// Until this node's state is fresh enough to decide.
    freshness,
    /// The capability chain and the rules of the route.
    authorize,
    /// Until the decision is on disk.
    audit,
    /// One exchange of a ceremony with the other holders.
    round,
    /// Partial results to the result, verified.
    aggregate,
    /// From the proposal of a change until this node has applied it.
    commit,
}

impl Stage {
    const ALL: [Stage; 8] = [
        Stage::read,
        Stage::verify,
        Stage::freshness,
        Stage::authorize,
        Stage::audit,
        Stage::round,
        Stage::aggregate,
        Stage::commit,
    ];
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfStage {
    stage: Stage,
}

/// Upper bounds of the buckets, seconds: 0.05 ms to 10 s.
const BUCKETS: [f64; 17] = [
    0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0,
    10.0,
];

/// A histogram for each stage; cheap to clone.
#[derive(Clone)]
pub struct Stages([Histogram; 8]);

impl Stages {
    /// Registers `conclave_stage_seconds{stage}`.
    pub fn register(registry: &telemetry::Metrics) -> Self {
        let family: Family<OfStage, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(BUCKETS));
        let of = |stage| family.get_or_create(&OfStage { stage }).clone();
        let stages = Self(Stage::ALL.map(of));
        registry.register(|registry| {
            registry.register(
                "stage_seconds",
                "Time spent in each stage of requests",
                family.clone(),
            );
        });
        stages
    }

    /// Times `work`, inside a span of its own.
    pub async fn time<F: Future>(&self, stage: Stage, work: F) -> F::Output {
        let began = Instant::now();
        let output = work
            .instrument(tracing::debug_span!("stage", name = ?stage))
            .await;
        self.0[stage as usize].observe(began.elapsed().as_secs_f64());
        output
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_stage_has_its_own_histogram() {
        let registry = telemetry::Metrics::new();
        let stages = Stages::register(&registry);
        for (count, stage) in Stage::ALL.into_iter().enumerate() {
            for _ in 0..=count {
                stages.time(stage, async {}).await;
            }
        }
        let text = registry.encode().unwrap();
        for (count, stage) in Stage::ALL.into_iter().enumerate() {
            let line = format!(
                "conclave_stage_seconds_count{{stage=\"{stage:?}\"}} {}",
                count + 1
            );
            assert!(text.contains(&line), "{line} in {text}");
        }
    }
}
