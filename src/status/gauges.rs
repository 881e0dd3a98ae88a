//! Gauges of what an operator is to be woken for.

use std::sync::Arc;
use std::time::Instant;

use super::{StatusSource, differing, members};
use crate::actors::parts::Parts;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{Kind, Sample};

impl StatusSource {
    /// Registers what `/status` tells of moves, and of what an operator is to be woken for.
    pub fn register(self: &Arc<Self>, metrics: &Metrics) {
        type Read = fn(&StatusSource, &Parts) -> u64;
        let gauges: [(&str, &str, Read); 7] = [
            (
                "moves_under_way",
                "Groups on their way to other members",
                |_, parts| members(parts).map_or(0, |members| members.under_way.len() as u64),
            ),
            (
                "keys_to_move",
                "Keys that are with the old members of such groups, as far as this node knows",
                |_, parts| {
                    let moves = members(parts)
                        .map(|members| members.under_way)
                        .unwrap_or_default();
                    moves.iter().filter_map(|one| one.keys).sum()
                },
            ),
            (
                "moves_stalled",
                "Such groups that have come no further for ten minutes",
                |source, _| source.stalls.lock().stalled(Instant::now()).len() as u64,
            ),
            (
                "shares_missing",
                "Keys of which this node should have a share and has none",
                |_, parts| parts.census.lock().missing,
            ),
            (
                "peers_unfit",
                "Peers that say that they take no part",
                |_, parts| parts.heard.lock().unfit.len() as u64,
            ),
            (
                "peers_differing",
                "Peers with another state of a group at the same index",
                |_, parts| differing(parts).len() as u64,
            ),
            (
                "peers_contradicted",
                "Peers whose audit heads contradict each other, since the start",
                |_, parts| parts.heard.lock().contradicted.len() as u64,
            ),
        ];
        for (name, help, read) in gauges {
            let this = self.clone();
            metrics.sample(name, help, Kind::Gauge, move || {
                let parts = this.parts.read().clone();
                let value = parts.map(|parts| Sample::plain(read(&this, &parts)));
                value.into_iter().collect()
            });
        }
    }
}
