//! What a node tells about itself: whether it can serve now, and `/status`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conclave_consensus::{GroupId, Reason, RolledBack};
use conclave_transport::Formats;
use parking_lot::{Mutex, RwLock};

use crate::actors::coordinator::order;
use crate::actors::parts::Parts;
use crate::actors::views::GROUP_ZERO;
use crate::actors::wire::Progress;
use crate::audit::Health as AuditHealth;
use crate::config::Config;
use crate::format::{NEWEST, OLDEST};
use crate::identifier::LocalId;
use crate::keystore::state::decode;
use crate::keystore::{KeyRecord, Stage, layout, members, query};
use crate::membership::{Membership, SYMMETRIC_NEEDED};
use crate::problem::Problem;
use crate::provision::introduction::Orders;
use crate::recovery::Keeper;
use crate::recovery::keeper::text;
use crate::telemetry::admin::Orders as OrdersDoor;
use crate::telemetry::health::{Facts, Health};
use crate::telemetry::metrics::{Kind, Sample};
use crate::telemetry::stalls::Stalls;
use crate::telemetry::status::{
    FormatStatus, GroupStatus, LinkStatus, MAX_OPEN_LISTED, MembersStatus, MoveStatus, NodeState, NodeStatus,
    OpenEnvelope, ShareStatus, SymmetricStatus,
};
use crate::telemetry::{Metrics, NotReady};

/// Made before the node is unsealed; knows more once it is.
pub struct StatusSource {
    base: NodeStatus,
    parts: RwLock<Option<Arc<Parts>>>,
    keeper: RwLock<Option<Arc<Keeper>>>,
    stalls: Mutex<Stalls>,
}

/// How often it is looked whether moves go on.
const LOOK: Duration = Duration::from_secs(10);

impl StatusSource {
    /// A sealed node's.
    pub fn new(config: &Config) -> Self {
        let base = NodeStatus {
            node: config.node,
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            formats: FormatStatus {
                oldest: OLDEST,
                newest: NEWEST,
                ..FormatStatus::default()
            },
            cluster: config.cluster.to_string(),
            public_url: config.public_url.to_string(),
            ..NodeStatus::default()
        };
        Self {
            base,
            parts: RwLock::new(None),
            keeper: RwLock::new(None),
            stalls: Mutex::default(),
        }
    }

    /// Looks whether moves of groups go on, for as long as the node runs.
    pub async fn watch(self: Arc<Self>) {
        loop {
            let parts = self.parts.read().clone();
            if let Some(members) = parts.and_then(|parts| members(&parts)) {
                self.stalls.lock().look(&members.under_way, Instant::now());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

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

    fn health_of(&self, parts: &Parts) -> Health {
        let backup = self
            .keeper
            .read()
            .as_ref()
            .and_then(|keeper| keeper.status().concern());
        let stalled = self.stalls.lock().stalled(Instant::now());
        health(parts, stalled, backup)
    }

    /// The node is open, and makes backups if that is configured.
    pub fn opened(&self, parts: Arc<Parts>, keeper: Option<Arc<Keeper>>) {
        *self.keeper.write() = keeper;
        *self.parts.write() = Some(parts);
    }

    /// For `/backup`.
    pub fn backup(self: &Arc<Self>) -> Arc<dyn Fn() -> Result<serde_json::Value, NotReady> + Send + Sync> {
        let this = self.clone();
        Arc::new(move || {
            if this.parts.read().is_none() {
                return Err(NotReady::sealed());
            }
            let keeper = this.keeper.read().clone();
            let keeper = keeper.ok_or_else(|| {
                NotReady::new(
                    "no backups are configured",
                    "run `conclave recovery init` and put [backup] into the node's configuration",
                )
            })?;
            let made = keeper.make();
            let (file, written) = made.map_err(|error| {
                NotReady::new(
                    text(&error),
                    "look at the folder of backups and at the node's log",
                )
            })?;
            Ok(serde_json::json!({
                "node": this.base.node,
                "file": file,
                "bytes": written.bytes,
                "keystores": written.header.keystores(),
                "keys": written.header.keys(),
                "shares": written.shares,
            }))
        })
    }

    /// For `/health/ready`.
    pub fn readiness(self: &Arc<Self>) -> Arc<dyn Fn() -> Result<(), NotReady> + Send + Sync> {
        let this = self.clone();
        Arc::new(move || match this.parts.read().as_ref() {
            None => Err(NotReady::sealed()),
            Some(parts) => ready(parts),
        })
    }

    /// For `/health`.
    pub fn health(self: &Arc<Self>) -> Arc<dyn Fn() -> Health + Send + Sync> {
        let this = self.clone();
        Arc::new(move || match this.parts.read().as_ref() {
            None => Health::sealed(),
            Some(parts) => this.health_of(parts),
        })
    }

    /// For `/status/symmetric`.
    pub fn symmetric(self: &Arc<Self>) -> Arc<dyn Fn() -> serde_json::Value + Send + Sync> {
        let this = self.clone();
        Arc::new(move || {
            let parts = this.parts.read().clone();
            let status = parts.map(|parts| symmetric(&parts)).unwrap_or_default();
            serde_json::to_value(status).unwrap_or_default()
        })
    }

    /// For `/orders`.
    pub fn orders(self: &Arc<Self>) -> OrdersDoor {
        let this = self.clone();
        Arc::new(move |order| {
            let parts = this.parts.read().clone();
            Box::pin(async move {
                let parts = parts.ok_or_else(|| Problem::unavailable("The node is sealed."))?;
                order::submit(&parts, order).await
            })
        })
    }

    /// For `/orders`, read.
    pub fn orders_so_far(self: &Arc<Self>) -> Arc<dyn Fn() -> Option<serde_json::Value> + Send + Sync> {
        let this = self.clone();
        Arc::new(move || {
            let parts = this.parts.read().clone()?;
            serde_json::to_value(orders_so_far(&parts)?).ok()
        })
    }

    /// For `/status`.
    pub fn report(self: &Arc<Self>) -> Arc<dyn Fn() -> serde_json::Value + Send + Sync> {
        let this = self.clone();
        Arc::new(move || {
            let parts = this.parts.read().clone();
            let mut status = this.base.clone();
            let verdict = match &parts {
                None => {
                    status.health = Health::sealed();
                    Err(NotReady::sealed())
                }
                Some(parts) => {
                    status.health = this.health_of(parts);
                    describe(&mut status, parts);
                    status.backup = this.keeper.read().as_ref().map(|keeper| keeper.status());
                    ready(parts)
                }
            };
            serde_json::to_value(status.with_readiness(verdict)).unwrap_or_default()
        })
    }
}

/// Keys that are looked at before `/status/symmetric` answers with what it has.
const MAX_KEYS: usize = 1_000_000;
/// Keys of one read.
const PAGE: usize = 1_024;

/// Which keystores would stop with one more node down, as this node sees the others. A use of a symmetric key needs three
/// of its holders.
fn symmetric(parts: &Parts) -> SymmetricStatus {
    let is_there = |node: &&u64| **node == parts.node || parts.network.connected(**node);
    let mut status = SymmetricStatus {
        complete: true,
        ..SymmetricStatus::default()
    };
    let mut looked = 0;
    // What is on other nodes those tell.
    let here = (1..parts.rules.groups).map(GroupId);
    for group in here.filter(|group| !parts.is_outside(*group)) {
        let Ok(view) = parts.consensus.view(group) else {
            status.complete = false;
            continue;
        };
        // Keys of one keystore follow each other: the one with the fewest holders counts.
        let mut worst: Option<(LocalId, usize)> = None;
        let mut after: Option<Vec<u8>> = None;
        while let Ok(page) = view.scan(layout::KEYS, after.as_deref(), PAGE) {
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            for (at, record) in &page {
                let record = decode::<KeyRecord>(record).ok();
                let sharing = record.as_ref().and_then(|record| record.material.sharing());
                let (Some(keystore), Some(sharing)) = (layout::keystore_of(at), sharing) else {
                    continue;
                };
                status.keys += 1;
                let there = sharing.holders.iter().filter(is_there).count();
                match &mut worst {
                    Some((same, fewest)) if *same == keystore => *fewest = there.min(*fewest),
                    other => status.count(other.replace((keystore, there))),
                }
            }
            looked += page.len();
            if looked >= MAX_KEYS {
                status.complete = false;
                break;
            }
        }
        status.count(worst);
    }
    status
}

impl SymmetricStatus {
    /// Takes a keystore with the holders of its worst key that are there.
    fn count(&mut self, keystore: Option<(LocalId, usize)>) {
        let Some((keystore, there)) = keystore.filter(|(_, there)| *there <= SYMMETRIC_NEEDED) else {
            return;
        };
        match there < SYMMETRIC_NEEDED {
            true => self.stopped += 1,
            false => self.at_risk += 1,
        }
        if self.keystores.len() < MAX_OPEN_LISTED {
            self.keystores.push(keystore.to_string());
        }
    }
}

/// Whether this node can serve now.
pub(crate) fn ready(parts: &Parts) -> Result<(), NotReady> {
    if let Some(found) = parts.consensus.rolled_back() {
        return Err(NotReady::new(found.to_string(), RolledBack::ADVICE));
    }
    let stopped = parts.consensus.status().into_iter();
    let mut stopped = stopped.filter_map(|status| Some((status.group, status.halted?)));
    if let Some((group, reason)) = stopped.next() {
        return Err(NotReady::new(
            format!("{group} has stopped: {reason}"),
            "the node's data stay as they are; the other nodes go on",
        ));
    }
    match parts.audit.health() {
        AuditHealth::Ok => {}
        AuditHealth::DiskLow { free_percent } => {
            let reason =
                format!("{free_percent} % of the disk are free: uses of keys are refused, reads go on");
            return Err(NotReady::new(
                reason,
                "free disk space; nothing has to be repaired",
            ));
        }
        AuditHealth::Failed => {
            return Err(NotReady::new(
                "the audit record could not be written",
                "look at the disk, then restart the node",
            ));
        }
    }
    if let Err(error) = parts.now() {
        return Err(NotReady::new(error.to_string(), "set the system clock right"));
    }
    let Some(list) = list(parts) else {
        return Err(NotReady::new(
            "the state cannot be read",
            "wait until the node has its first snapshot, or look at its log",
        ));
    };
    let (members, quorum) = (list.nodes(), list.quorum());
    if !members.contains(&parts.node) {
        return Err(NotReady::new(
            "this node is none of the members",
            "wait until it has joined; if it was removed, stop it and wipe its disk",
        ));
    }
    let linked = members.iter().filter(|node| is_there(parts, **node)).count();
    if linked < quorum {
        let reason = format!(
            "linked with {linked} of {} members, a quorum is {quorum}",
            members.len()
        );
        return Err(NotReady::new(
            reason,
            "start the other nodes, or look at the network between them",
        ));
    }
    let has = |status: &conclave_consensus::GroupStatus| list.nodes_of(status.group.0).contains(&parts.node);
    for status in parts.consensus.status().into_iter().filter(has) {
        if status.leader.is_none() {
            return Err(NotReady::new(
                format!("{} has no leader", status.group),
                "wait for an election; a majority of the nodes must be up",
            ));
        }
        if let Err(abstain) = parts.consensus.freshness().may_contribute(status.group) {
            let advice = match abstain.reason {
                _ if status.unvouched.is_some() => {
                    "bring the other members back, who vouch for it within seconds; \
                     if they are lost for good, see believe_leaders in the documented configuration"
                }
                Reason::Diverged => {
                    "stop the node that it got its state from, or this one, and replace it: one of them is not to be trusted"
                }
                _ => "wait until the node has caught up",
            };
            return Err(NotReady::new(abstain.to_string(), advice));
        }
    }
    Ok(())
}

/// Who the members are, and which groups have not come to them yet.
fn members(parts: &Parts) -> Option<MembersStatus> {
    let zero = parts.roster(GROUP_ZERO).ok()?;
    let last = zero.next.as_ref().map_or(&zero.current, |(next, _)| next);
    let mut under_way = Vec::new();
    for group in (0..parts.rules.groups).map(GroupId) {
        let progress = match parts.is_outside(group) {
            true => parts.elsewhere.lock().get(&group).copied(),
            false => Some(Progress::of_state(parts, group).ok()?),
        };
        if progress.is_some_and(|progress| progress.current == last.index) {
            continue;
        }
        let stage = match progress.map(|progress| progress.next.map(|(_, stage)| stage)) {
            None => "unknown",
            Some(None) => "waiting",
            Some(Some(Stage::Announced)) => "announced",
            Some(Some(Stage::Begun)) => "begun",
            Some(Some(Stage::Joint)) => "joint",
            Some(Some(Stage::Complete)) => "complete",
        };
        let from = progress.and_then(|progress| zero.numbered(progress.current));
        under_way.push(MoveStatus {
            group: group.0,
            from: from.map(|from| from.nodes_of(group.0)).unwrap_or_default(),
            to: last.nodes_of(group.0),
            stage: stage.into(),
            keys: progress.and_then(|progress| progress.unmoved),
            waits: parts.renewals.lock().waits.get(&group).cloned(),
        });
    }
    Some(MembersStatus {
        number: last.index,
        nodes: last.nodes(),
        under_way,
    })
}

/// The orders that changed the members, one after the other.
fn orders_so_far(parts: &Parts) -> Option<Orders> {
    let view = parts.consensus.view(GROUP_ZERO).ok()?;
    let orders = members::orders(&view).ok()?;
    Some(Orders { orders })
}

/// The members: while they change, those that will be.
fn list(parts: &Parts) -> Option<Arc<Membership>> {
    let roster = parts.roster(GROUP_ZERO).ok()?;
    Some(roster.births().clone())
}

fn is_there(parts: &Parts, node: u64) -> bool {
    node == parts.node || parts.network.connected(node)
}

fn health(parts: &Parts, stalled: Vec<u32>, backup: Option<String>) -> Health {
    let list = list(parts).unwrap_or_default();
    let committees = (0..parts.rules.groups).map(|group| list.nodes_of(group));
    let (away, linked): (Vec<u64>, Vec<u64>) =
        (list.nodes().into_iter()).partition(|node| !is_there(parts, *node));
    let heard = parts.heard.lock().clone();
    let census = *parts.census.lock();
    Health::of(&Facts {
        unready: ready(parts).err(),
        committees: committees.collect(),
        away,
        unfit: linked
            .into_iter()
            .filter(|node| heard.unfit.contains(node))
            .collect(),
        differing: differing(parts),
        contradicted: heard.contradicted.into_iter().collect(),
        missing_shares: census.missing,
        unspared_keys: census.unspared,
        stalled,
        backup,
        open_envelopes: parts.shares.open_envelopes(),
        due_for_renewal: due_for_renewal(parts),
    })
}

/// Peers that have another state of some group at the same index.
fn differing(parts: &Parts) -> Vec<u64> {
    let groups = parts.consensus.status().into_iter();
    let nodes: BTreeSet<u64> = groups.flat_map(|group| group.differing_peers).collect();
    nodes.into_iter().collect()
}

/// Keys that are due, in the groups that this node leads.
fn due_for_renewal(parts: &Parts) -> u64 {
    u64::try_from(parts.metrics.due.get()).unwrap_or(0)
}

fn describe(status: &mut NodeStatus, parts: &Parts) {
    status.state = match parts.consensus.rolled_back() {
        None => NodeState::Serving,
        Some(_) => NodeState::Quarantined,
    };
    let list = list(parts).unwrap_or_default();
    (status.formats.agreed, status.formats.written) = parts.formats().unwrap_or_default();
    let groups = parts.consensus.status();
    status.groups = groups
        .into_iter()
        .map(|group| {
            let formats = parts.formats_in(group.group);
            (group, formats.unwrap_or_default())
        })
        .map(|(group, (agreed, written))| GroupStatus {
            group: group.group.0,
            role: match group.halted {
                Some(_) => "halted".to_owned(),
                None if parts.is_outside(group.group) => "elsewhere".to_owned(),
                None => format!("{:?}", group.role).to_lowercase(),
            },
            agreed,
            written,
            halted: group.halted,
            leader: group.leader,
            term: group.term,
            last: group.last_index,
            committed: group.committed,
            applied: group.applied,
            voters: group.configuration.voters,
            holders: if group.group.0 == 0 {
                Vec::new()
            } else if parts.is_outside(group.group) {
                list.nodes_of(group.group.0)
            } else {
                let roster = parts.roster(group.group);
                roster.map_or_else(|_| Vec::new(), |roster| roster.births().nodes())
            },
        })
        .collect();
    let everybody = parts.directory.all();
    status.links = everybody
        .iter()
        .filter(|member| member.node != parts.node)
        .map(|member| LinkStatus {
            node: member.node,
            address: member.address.clone(),
            up: parts.network.connected(member.node),
            newest: parts.stated_by(member.node).map(Formats::highest),
        })
        .collect();
    let mut open = Vec::new();
    for member in &everybody {
        let left = MAX_OPEN_LISTED.saturating_sub(open.len());
        for envelope in parts
            .shares
            .envelopes_for(member.index, None, left)
            .unwrap_or_default()
        {
            open.push(OpenEnvelope {
                keystore: LocalId(envelope.id.keystore).to_string(),
                key: LocalId(envelope.id.key).to_string(),
                member: member.node,
            });
        }
    }
    status.shares = ShareStatus {
        // A store that cannot be read is not an empty one, nor one whose removed shares can still be read on the disk.
        holds_any: !parts.renewals.lock().is_erased()
            || (parts.shares.places(None, 1)).map_or(true, |found| !found.is_empty()),
        open_envelopes: parts.shares.open_envelopes(),
        open,
    };
    status.members = members(parts).unwrap_or_default();
    let orders = parts.consensus.view(GROUP_ZERO).ok();
    let orders = orders.and_then(|view| query::orders(&view).ok());
    status.last_order = orders.unwrap_or_default().sequence;
    status.due_for_renewal = due_for_renewal(parts);
}
