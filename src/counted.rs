//! What the parts of a node and the cluster crates count by themselves, told in `/metrics`.

use std::sync::Arc;

use conclave_transport::{PeerCounters, Refusal};

use crate::actors::parts::Parts;
use crate::actors::registry::Registry;
use crate::format::NEWEST;
use crate::overload::Class;
use crate::telemetry;
use crate::telemetry::metrics::{Kind, Sample};

type Plain = (&'static str, &'static str, Kind, fn(&Parts) -> u64);
type OfPeer = (&'static str, &'static str, Kind, fn(&PeerCounters) -> u64);

const PLAIN: [Plain; 22] = [
    ("audit_records", "Audit records written", Kind::Counter, |p| {
        p.audit.counters().records
    }),
    ("audit_syncs", "Syncs of the audit record", Kind::Counter, |p| {
        p.audit.counters().syncs
    }),
    (
        "crypto_waiting",
        "Jobs waiting for the crypto pool",
        Kind::Gauge,
        |p| p.pool.waiting() as u64,
    ),
    (
        "loaded",
        "1 while there is more to do than can be done: background work waits",
        Kind::Gauge,
        |p| u64::from(p.pool.is_loaded()),
    ),
    (
        "open_envelopes",
        "Shares kept for members that were away",
        Kind::Gauge,
        |p| p.shares.open_envelopes(),
    ),
    (
        "open_keys",
        "Keys whose share is open in memory",
        Kind::Gauge,
        |p| p.open_keys.lock().len() as u64,
    ),
    (
        "replay_names",
        "Requests that are remembered against replays",
        Kind::Gauge,
        |p| p.replays.lock().len() as u64,
    ),
    (
        "claims",
        "Claims of requests that are remembered",
        Kind::Gauge,
        |p| p.claims.lock().len() as u64,
    ),
    (
        "raft_elections",
        "Campaigns that this node started",
        Kind::Counter,
        |p| p.consensus.counters().elections.get(),
    ),
    (
        "raft_leaderships",
        "Times that this node became leader of a group",
        Kind::Counter,
        |p| p.consensus.counters().leaderships.get(),
    ),
    ("raft_entries_applied", "Entries applied", Kind::Counter, |p| {
        p.consensus.counters().applied.get()
    }),
    ("raft_syncs", "Synced writes of the store", Kind::Counter, |p| {
        p.consensus.counters().syncs.get()
    }),
    (
        "raft_proposals_busy",
        "Proposals refused at a bound",
        Kind::Counter,
        |p| p.consensus.counters().proposals_busy.get(),
    ),
    (
        "raft_frames_dropped",
        "Frames that the guard dropped",
        Kind::Counter,
        |p| p.consensus.counters().dropped_total(),
    ),
    (
        "raft_lies",
        "Statements of peers without the entry behind them",
        Kind::Counter,
        |p| p.consensus.counters().lies.get(),
    ),
    (
        "raft_snapshots_installed",
        "Snapshots installed",
        Kind::Counter,
        |p| p.consensus.counters().snapshots_installed.get(),
    ),
    (
        "raft_snapshots_sent",
        "Snapshots sent whole",
        Kind::Counter,
        |p| p.consensus.counters().snapshots_sent.get(),
    ),
    (
        "rolled_back",
        "1 when this node's disk is an older copy",
        Kind::Gauge,
        |p| u64::from(p.consensus.rolled_back().is_some()),
    ),
    (
        "behind",
        "Decisions that were answered behind",
        Kind::Counter,
        |p| p.consensus.counters().behind.get(),
    ),
    (
        "format_newest",
        "The newest format of calls and entries that this version speaks",
        Kind::Gauge,
        |_| u64::from(NEWEST),
    ),
    (
        "format_agreed",
        "The format that every member of every group speaks, as far as this node has heard",
        Kind::Gauge,
        |p| u64::from(p.formats().unwrap_or_default().0),
    ),
    (
        "format_written",
        "The newest format in any group's state: versions that do not read it cannot come back",
        Kind::Gauge,
        |p| u64::from(p.formats().unwrap_or_default().1),
    ),
];

const OF_PEER: [OfPeer; 7] = [
    (
        "link_sent_bytes",
        "Payload bytes sent to a peer",
        Kind::Counter,
        |c| all(&c.sent_bytes),
    ),
    (
        "link_received_bytes",
        "Payload bytes received from a peer",
        Kind::Counter,
        |c| all(&c.received_bytes),
    ),
    ("link_sent_frames", "Frames sent to a peer", Kind::Counter, |c| {
        all(&c.sent_frames)
    }),
    (
        "link_lost_frames",
        "Frames accepted and lost with their connection",
        Kind::Counter,
        |c| all(&c.lost),
    ),
    (
        "link_connects",
        "Connections made to a peer",
        Kind::Counter,
        |c| all(&c.connected),
    ),
    (
        "link_connects_failed",
        "Attempts to connect to a peer that failed",
        Kind::Counter,
        |c| all(&c.connect_failed),
    ),
    (
        "link_calls_timed_out",
        "Questions to a peer without an answer in time",
        Kind::Counter,
        |c| c.timed_out.get(),
    ),
];

fn all(lanes: &[conclave_transport::counters::Count; 3]) -> u64 {
    lanes.iter().map(conclave_transport::counters::Count::get).sum()
}

/// Registers everything.
pub fn register(metrics: &telemetry::Metrics, parts: &Arc<Parts>, registry: &Arc<Registry>) {
    for (name, help, kind, read) in PLAIN {
        let parts = parts.clone();
        metrics.sample(name, help, kind, move || vec![Sample::plain(read(&parts))]);
    }
    for (name, help, kind, read) in OF_PEER {
        let parts = parts.clone();
        metrics.sample(name, help, kind, move || {
            let peers = parts.network.counters().peers();
            peers
                .map(|(node, counters)| Sample::labelled("node", node, read(counters)))
                .collect()
        });
    }
    let pool = parts.clone();
    metrics.sample(
        "crypto_queue",
        "Jobs waiting for the crypto pool, by class",
        Kind::Gauge,
        move || {
            let waiting = |class: Class| pool.pool.waiting_of(class) as u64;
            let each = Class::ALL.map(|class| Sample::labelled("class", class.name(), waiting(class)));
            each.into()
        },
    );
    let links = parts.clone();
    metrics.sample(
        "link_up",
        "Whether the link to a peer is up",
        Kind::Gauge,
        move || {
            let peers = links.network.counters().peers();
            let up = |node| u64::from(links.network.connected(node));
            peers
                .map(|(node, _)| Sample::labelled("node", node, up(node)))
                .collect()
        },
    );
    let refusals = parts.clone();
    metrics.sample(
        "link_refused",
        "Connections from or to strangers and misbehaving peers that were refused, by reason",
        Kind::Counter,
        move || {
            let counters = refusals.network.counters();
            let sample =
                |reason: &Refusal| Sample::labelled("reason", reason.label(), counters.refused(*reason));
            Refusal::ALL.iter().map(sample).collect()
        },
    );
    let groups = parts.clone();
    metrics.sample(
        "raft_applied_index",
        "Applied index by group",
        Kind::Gauge,
        move || {
            let status = groups.consensus.status();
            let sample = |group: &conclave_consensus::GroupStatus| {
                Sample::labelled("group", group.group.0, group.applied)
            };
            status.iter().map(sample).collect()
        },
    );
    let actors = Arc::downgrade(registry);
    metrics.sample(
        "keystore_actors",
        "Active keystore actors",
        Kind::Gauge,
        move || {
            vec![Sample::plain(
                actors.upgrade().map_or(0, |registry| registry.len() as u64),
            )]
        },
    );
}
