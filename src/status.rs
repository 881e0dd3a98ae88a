//! What a node tells about itself: whether it can serve now, and `/status`.

mod gauges;
mod symmetric;

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
use crate::keystore::{Stage, members, query};
use crate::membership::Membership;
use crate::problem::Problem;
use crate::provision::introduction::Orders;
use crate::recovery::Keeper;
use crate::recovery::keeper::text;
use crate::telemetry::NotReady;
use crate::telemetry::admin::Orders as OrdersDoor;
use crate::telemetry::health::{Facts, Health};
use crate::telemetry::stalls::Stalls;
use crate::telemetry::status::{
    FormatStatus, GroupStatus, LinkStatus, MAX_OPEN_LISTED, MembersStatus, MoveStatus, NodeState, NodeStatus,
    OpenEnvelope, ShareStatus,
};

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
            let status = parts
                .map(|parts| symmetric::symmetric(&parts))
                .unwrap_or_default();
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
        // Nothing is gone as long as it can be read on the disk.
        holds_any: parts.holds_any_share() || !parts.renewals.lock().is_erased(),
        open_envelopes: parts.shares.open_envelopes(),
        open,
    };
    status.members = members(parts).unwrap_or_default();
    let orders = parts.consensus.view(GROUP_ZERO).ok();
    let orders = orders.and_then(|view| query::orders(&view).ok());
    status.last_order = orders.unwrap_or_default().sequence;
    status.due_for_renewal = due_for_renewal(parts);
}
