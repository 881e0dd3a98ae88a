//! Groups of which this node has no part, in a cluster of more nodes than a committee has: a client's request about one is handed
//! to a member of it, which serves it as if the client had come there. Who the members are group 0 knows, which every node has.
//!
//! What a member is handed it does not hand on: only who was reached by the client does. (A use of a symmetric key may still go
//! from a member without a part to one that has it, `relay.rs`.)

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conclave_consensus::{GroupId, Standing};
use futures::future::join_all;

use super::{DEADLINE, Work, busy};

pub(crate) use super::confirm_group as confirm;

use crate::actors::decide::group_of;
use crate::actors::examined::Examined;
use crate::actors::parts::Parts;
use crate::actors::views::{GROUP_ZERO, believed};
use crate::actors::wire::{Abstention, Answer, Call, Forwarded, Progress, Relay, Relayed};
use crate::authorization::RawRequest;
use crate::identifier::{LocalId, OperationId};
use crate::keystore::{KeystoreRecord, Stage};
use crate::membership::{FIRST, Membership, quorum_of};
use crate::operation::route::Route;
use crate::overload::{Class, Turn};
use crate::problem::Problem;
use crate::reply::Reply;

/// Longest wait for one member's answer to what another one can be asked for as well.
const PATIENCE: Duration = Duration::from_secs(4);
/// Longest wait for a member's word how far its group is.
const MOMENT: Duration = Duration::from_secs(2);
/// Most keystores in a list.
pub(crate) const MAX_LIST: usize = 100;

impl Parts {
    /// Whether this node has a part in a group: it votes there, and holds shares of its keys.
    pub fn is_in(&self, group: GroupId) -> bool {
        self.consensus.freshness().standing(group) == Some(Standing::Voter)
    }

    /// Whether what clients ask about a group is for others to serve. A node that is no member of the cluster either serves
    /// nothing and hands on nothing.
    pub fn is_outside(&self, group: GroupId) -> bool {
        !self.is_in(group) && self.is_in(GROUP_ZERO)
    }

    /// The lists of the cluster's members by which a group may have its own now, the likeliest first, as group 0 knows them.
    fn lists(&self, group: GroupId) -> Vec<Arc<Membership>> {
        let Ok(zero) = self.consensus.view(GROUP_ZERO) else {
            return Vec::new();
        };
        let Ok(roster) = self.roster_in(&zero) else {
            return Vec::new();
        };
        match &roster.next {
            Some((next, Stage::Announced)) => return vec![roster.current.clone(), next.clone()],
            Some((next, _)) => return vec![next.clone(), roster.current.clone()],
            None => {}
        }
        let last = roster.current.index;
        let known = self.elsewhere.lock().get(&group).copied();
        if known.is_some_and(|known| known.current == last && known.next.is_none()) {
            return vec![roster.current.clone()];
        }
        // Where its own nodes stay the same, group 0 is with an order at once, and the others may be on their way; one of the two
        // lists before may have been taken back.
        let before = (last.saturating_sub(2).max(FIRST)..last).rev();
        let before = before.filter_map(|number| self.numbered_in(&zero, number).ok());
        std::iter::once(roster.current.clone()).chain(before).collect()
    }

    /// Others that are members of a group as far as group 0 knows, and linked to: the likeliest first, those of one list in turn.
    pub(crate) fn members_elsewhere(&self, group: GroupId, turn: u64) -> Vec<u64> {
        let mut found: Vec<u64> = Vec::new();
        for list in self.lists(group) {
            let mut nodes = list.nodes_of(group.0);
            nodes.retain(|node| *node != self.node && !found.contains(node) && self.network.connected(*node));
            let turns = usize::try_from(turn).unwrap_or(0) % nodes.len().max(1);
            nodes.rotate_left(turns);
            found.extend(nodes);
        }
        found
    }
}

/// The group of a request, if this node has no part of it.
pub(crate) fn group_outside(parts: &Parts, request: &Examined, operation: &OperationId) -> Option<GroupId> {
    let group = group_of(parts, request, operation);
    parts.is_outside(group).then_some(group)
}

/// Has a member of the group serve a client's request, which is authenticated here.
///
/// # Errors
/// What the member refused it for, or 503.
pub(crate) async fn serve(
    parts: &Arc<Parts>,
    (group, operation): (GroupId, OperationId),
    request: &Examined,
    (addresses, receipt): (&[IpAddr], bool),
) -> Result<Reply, Problem> {
    let relay = relay(parts, operation, request.encoded.clone(), (addresses, receipt));
    let deadline = Instant::now() + DEADLINE;
    let turn = Turn::default().of_class(request.class()).until(deadline);
    let turn = match request.route.keystore().and_then(|named| named.id) {
        Some(keystore) => turn.of_keystore(keystore),
        None => turn,
    };
    // Whoever asks for a change again must look first; a secret result is the first one's that was shown the request.
    let again =
        request.route.reads() || matches!(request.route, Route::UseKey(..)) && !request.has_secret_result();
    let asked = ask(parts, group, Call::Relay(Box::new(relay)), (deadline, again));
    turn.scope(asked).await
}

/// Has a member of the group describe a key, which needs no authorization.
///
/// # Errors
/// As [`serve`].
pub(crate) async fn describe(
    parts: &Arc<Parts>,
    (group, operation): (GroupId, OperationId),
    request: &RawRequest,
    (addresses, receipt): (&[IpAddr], bool),
) -> Result<Reply, Problem> {
    // Nothing that the client has not signed travels, and it has signed nothing.
    let bare = RawRequest {
        method: request.method.clone(),
        target: request.target.clone(),
        headers: Vec::new(),
        body: Vec::new(),
    };
    let relay = relay(parts, operation, bare.encode(), (addresses, receipt));
    let deadline = Instant::now() + DEADLINE;
    let turn = Turn::default().of_class(Class::Signatures).until(deadline);
    let asked = ask(parts, group, Call::Relay(Box::new(relay)), (deadline, true));
    turn.scope(asked).await
}

fn relay(
    parts: &Parts,
    operation: OperationId,
    request: Vec<u8>,
    (addresses, receipt): (&[IpAddr], bool),
) -> Relay {
    let forwarded = Forwarded {
        operation,
        attempt: 1,
        request,
        needs: vec![(GROUP_ZERO.0, parts.consensus.applied_index(GROUP_ZERO))],
        participants: Vec::new(),
        epoch: None,
    };
    Relay {
        forwarded,
        addresses: addresses.to_vec(),
        receipt,
    }
}

/// Asks the members in turn, until one has served.
async fn ask(
    parts: &Arc<Parts>,
    group: GroupId,
    call: Call,
    (deadline, again): (Instant, bool),
) -> Result<Reply, Problem> {
    let turn = call.operation().map_or(0, |operation| operation.counter);
    for node in parts.members_elsewhere(group, turn) {
        let left = deadline.saturating_duration_since(Instant::now());
        let patience = if again { left.min(PATIENCE) } else { left };
        match parts.ask(node, &call, patience).await {
            Ok(Answer::Relayed(relayed)) => return reply(*relayed),
            Ok(Answer::Refused(problem)) => return Err(*problem),
            Ok(Answer::Abstained(reason)) => {
                tracing::debug!(node, %group, %reason, "a member cannot serve now");
            }
            Ok(_) => tracing::warn!(node, %group, "a member did not understand"),
            Err(error) => {
                tracing::debug!(node, %group, %error, "a member does not answer");
                if !again {
                    return Err(Problem::unavailable(
                        "The node that holds a part of this keystore did not answer in time; the outcome is unknown. Look before \
                         you repeat it.",
                    ));
                }
            }
        }
    }
    Err(Problem::unavailable(format!(
        "This node has no part of this keystore, and none of the nodes that have ({}) could serve now; try again, or another node.",
        names(parts, group)
    )))
}

fn names(parts: &Parts, group: GroupId) -> String {
    let nodes = parts.lists(group).first().map(|list| list.nodes_of(group.0));
    let nodes: Vec<String> = nodes.unwrap_or_default().iter().map(u64::to_string).collect();
    nodes.join(", ")
}

fn reply(relayed: Relayed) -> Result<Reply, Problem> {
    let Relayed { served, receipt } = relayed;
    match served {
        Ok(served) => {
            let body = served.body.map(|body| serde_json::from_slice(&body));
            Ok(Reply {
                status: served.status,
                location: served.location,
                body: body.transpose().map_err(|_| busy())?,
                notice: None,
                receipt,
            })
        }
        Err(problem) => Err(Problem { receipt, ..problem }),
    }
}

/// The keystores of a controller in a group of which this node has no part, by the client's own request.
///
/// # Errors
/// 503 if no member answers.
pub(super) async fn list(
    work: &Work,
    group: GroupId,
    controller: &str,
) -> Result<Vec<(LocalId, KeystoreRecord)>, Problem> {
    let parts = &work.parts;
    let forwarded = work.forwarded(1, GROUP_ZERO, Vec::new());
    let call = Call::List(Box::new(forwarded), group.0);
    for node in parts.members_elsewhere(group, work.turn()) {
        match parts.ask(node, &call, work.left().min(PATIENCE)).await {
            Ok(Answer::Listed(mut found)) => {
                // What a member makes up must not keep the client from what is true.
                found.truncate(MAX_LIST);
                found.retain(|(id, record)| {
                    parts.group_of(id) == group
                        && record.config.controllers.iter().any(|one| one == controller)
                });
                return Ok(found);
            }
            Ok(Answer::Refused(problem)) => return Err(*problem),
            _ => tracing::debug!(node, %group, "a member does not list"),
        }
    }
    Err(Problem::unavailable(format!(
        "Of the nodes that have some of these keystores ({}) none could be reached; try again, or another node.",
        names(parts, group)
    )))
}

/// How far groups are, by the word of members that this node is linked to; of those that say different things the one that is least
/// far.
pub(crate) async fn progress(parts: &Arc<Parts>, groups: &[GroupId]) -> BTreeMap<GroupId, Progress> {
    let asked = groups.iter().map(|group| async {
        let said = said(parts, *group, parts.members_elsewhere(*group, 0)).await;
        // Who leads knows more.
        let least = said
            .into_iter()
            .min_by_key(|said| (said.current, said.unmoved.is_none()));
        Some((*group, least?))
    });
    join_all(asked).await.into_iter().flatten().collect()
}

/// Keeps what members say of the groups of which this node has no part, while they change.
pub(crate) async fn look(parts: &Arc<Parts>) {
    let Ok(zero) = parts.roster(GROUP_ZERO) else {
        return;
    };
    let outside = (1..parts.rules.groups).map(GroupId);
    let outside: Vec<GroupId> = outside.filter(|group| parts.is_outside(*group)).collect();
    let is_known = |group: &GroupId| {
        let known = parts.elsewhere.lock().get(group).copied();
        known.is_some_and(|known| known.current == zero.current.index && known.next.is_none())
    };
    if zero.next.is_none() && outside.iter().all(is_known) {
        return;
    }
    let said = progress(parts, &outside).await;
    *parts.elsewhere.lock() = said;
}

async fn said(parts: &Arc<Parts>, group: GroupId, nodes: Vec<u64>) -> Vec<Progress> {
    let call = Call::Progress(group.0);
    let asked = nodes.into_iter().map(|node| parts.ask(node, &call, MOMENT));
    let answers = join_all(asked).await.into_iter();
    answers
        .filter_map(|answer| match answer {
            Ok(Answer::Progress(said)) => Some(said),
            _ => None,
        })
        .collect()
}

/// Whether a group of which this node has no part is with the members of this list, by the word of a quorum of them.
pub(crate) async fn has_come(parts: &Arc<Parts>, group: GroupId, list: &Membership) -> bool {
    let mut nodes = list.nodes_of(group.0);
    let quorum = quorum_of(nodes.len());
    nodes.retain(|node| *node != parts.node && parts.network.connected(*node));
    let said = said(parts, group, nodes).await;
    let there = |said: &&Progress| said.current >= list.index && said.next.is_none();
    said.iter().filter(there).count() >= quorum
}

impl Progress {
    /// How far this node is in a group, if it has a part in it.
    pub(crate) fn of(parts: &Parts, group: GroupId) -> Result<Self, Abstention> {
        // A newcomer has nothing to say before others vouch for its state.
        let speaks =
            believed(parts, group).is_ok() && parts.consensus.freshness().may_contribute(group).is_ok();
        if !parts.is_in(group) || !speaks {
            return Err(Abstention::Behind);
        }
        Self::of_state(parts, group)
    }

    /// How far a group is in this node's state of it.
    pub(crate) fn of_state(parts: &Parts, group: GroupId) -> Result<Self, Abstention> {
        let roster = parts.roster(group)?;
        Ok(Self {
            current: roster.current.index,
            next: roster.next.as_ref().map(|(next, stage)| (next.index, *stage)),
            unmoved: parts.renewals.lock().unmoved.get(&group).copied(),
        })
    }
}
