//! What a node counts about requests and ceremonies.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use super::stages::Stages;
use crate::overload::Shed;
use crate::telemetry;

/// The node that something was counted about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfNode {
    /// Its id.
    pub node: u64,
}

/// Counters and histograms; cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    /// Requests served.
    pub served: Counter,
    /// Requests refused to clients.
    pub refused: Counter,
    /// Validly signed requests that this node refused as holder or endorser.
    pub refusals: Counter,
    /// Requests refused as replays.
    pub replays: Counter,
    /// Requests with a secret result that came from another node than the one that claimed them.
    pub foreign_claims: Counter,
    /// Holders that were to see a request and have not confirmed the claim on it.
    pub unconfirmed_claims: Counter,
    /// Questions under another node's operation id.
    pub foreign_operations: Counter,
    /// Frames that could not be read, or did not fit a ceremony, by sender.
    pub misfits: Family<OfNode, Counter>,
    /// Calls that this build cannot read, by sender: another version's, or garbage.
    pub unread: Family<OfNode, Counter>,
    /// Proven lies in ceremonies, by liar.
    pub liars: Family<OfNode, Counter>,
    /// Computations of symmetric keys that were aborted.
    pub aborts: Counter,
    /// Applied changes that this node's own verifier would have refused.
    pub verdict_alarms: Counter,
    /// Entries that a leader brought and too few members endorsed.
    pub unendorsed: Counter,
    /// Keys generated.
    pub generated: Counter,
    /// Shares that arrived by envelope.
    pub delivered: Counter,
    /// Keys whose shares this node renewed as a leader.
    pub renewed: Counter,
    /// Renewals that came to nothing.
    pub failed_renewals: Counter,
    /// Those for which a member was not there, by member.
    pub awaited: Family<OfNode, Counter>,
    /// Keys whose shares are older than they are to be, in the groups that this node leads.
    pub due: Gauge,
    /// Seconds from a client's request to the answer.
    pub seconds: Histogram,
    /// The same, by stage.
    pub stages: Stages,
    /// Questions that were answered *busy* because their sender had too many under way, by sender.
    pub busy: Family<OfNode, Counter>,
    /// What was refused for load.
    pub shed: Arc<Shed>,
}

impl Metrics {
    /// Registers everything under `conclave_`.
    pub fn register(registry: &telemetry::Metrics) -> Self {
        let metrics = Self {
            served: Counter::default(),
            refused: Counter::default(),
            refusals: Counter::default(),
            replays: Counter::default(),
            foreign_claims: Counter::default(),
            unconfirmed_claims: Counter::default(),
            foreign_operations: Counter::default(),
            misfits: Family::default(),
            unread: Family::default(),
            liars: Family::default(),
            aborts: Counter::default(),
            verdict_alarms: Counter::default(),
            unendorsed: Counter::default(),
            generated: Counter::default(),
            delivered: Counter::default(),
            renewed: Counter::default(),
            failed_renewals: Counter::default(),
            awaited: Family::default(),
            due: Gauge::default(),
            seconds: Histogram::new(exponential_buckets(0.000_25, 2.0, 16)),
            stages: Stages::register(registry),
            busy: Family::default(),
            shed: Arc::default(),
        };
        metrics.shed.register(registry);
        let all = metrics.clone();
        registry.register(|registry| {
            registry.register(
                "requests_served",
                "Client requests answered with success",
                all.served,
            );
            registry.register(
                "requests_refused",
                "Client requests refused or failed",
                all.refused,
            );
            registry.register(
                "holder_refusals",
                "Signed requests this node refused as a holder",
                all.refusals,
            );
            registry.register(
                "verdict_alarms",
                "Applied changes this node would have refused: corrupt endorsers, or another build",
                all.verdict_alarms,
            );
            registry.register(
                "unendorsed_entries",
                "Entries refused at apply because too few members endorsed them",
                all.unendorsed,
            );
            registry.register("replays", "Requests refused as replays", all.replays);
            registry.register(
                "foreign_claims",
                "Requests with a secret result from another node than the one that claimed them",
                all.foreign_claims,
            );
            registry.register(
                "unconfirmed_claims",
                "Holders that have not confirmed the claim on a request with a secret result",
                all.unconfirmed_claims,
            );
            registry.register(
                "foreign_operations",
                "Questions under another node's operation",
                all.foreign_operations,
            );
            registry.register("misfits", "Frames that did not fit, by sender", all.misfits);
            registry.register(
                "busy_answered",
                "Questions answered busy because their sender had too many under way",
                all.busy,
            );
            registry.register(
                "calls_not_understood",
                "Calls that this version cannot read, by sender",
                all.unread,
            );
            registry.register("liars", "Proven lies in ceremonies, by node", all.liars);
            registry.register(
                "aborted_computations",
                "Computations of symmetric keys whose parts did not fit: a garbler is corrupt",
                all.aborts,
            );
            registry.register(
                "keys_generated",
                "Keys generated through this node",
                all.generated,
            );
            registry.register(
                "shares_delivered",
                "Shares that arrived by envelope",
                all.delivered,
            );
            registry.register(
                "keys_renewed",
                "Keys whose shares this node has renewed, as a leader",
                all.renewed,
            );
            registry.register(
                "renewals_failed",
                "Renewals of shares that came to nothing and will be tried again",
                all.failed_renewals,
            );
            registry.register(
                "renewals_awaited",
                "Renewals and moves of shares that came to nothing since a member was not there, by member",
                all.awaited,
            );
            registry.register(
                "keys_due_for_renewal",
                "Keys with shares older than the renewal period, in the groups that this node leads",
                all.due,
            );
            registry.register(
                "request_seconds",
                "Time from a client's request to its answer",
                all.seconds,
            );
        });
        metrics
    }
}
