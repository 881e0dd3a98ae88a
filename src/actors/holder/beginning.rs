//! Endorsements of the moment from which there is no way back: that a group begins to move to other members. Each member looks
//! for itself, and believes neither the group's leader nor whoever asks.

use std::sync::Arc;

use conclave_consensus::GroupId;

use super::endorse::{seen, unasked};
use crate::actors::parts::Parts;
use crate::actors::views::{GROUP_ZERO, believed};
use crate::actors::wire::{Abstention, Answer};
use crate::identifier::OperationId;
use crate::keystore::beginning::may_begin;
use crate::keystore::{Command, Endorsement, Roster, Statement};

/// Endorses that a group begins to move.
pub(super) async fn answer(
    parts: &Parts,
    from: u64,
    (group, number): (u32, u64),
    operation: OperationId,
) -> Answer {
    if operation.node != from || group >= parts.rules.groups {
        return Answer::Misfit("a move under another node's operation, or of no group".into());
    }
    let group = GroupId(group);
    let statement = beginning_statement(parts, group, number, operation);
    match endorse_beginning(parts, group, number, &statement).await {
        Ok(endorsement) => Answer::Endorsed(endorsement),
        Err(abstention) => abstention.into(),
    }
}

/// Looks, puts it on this node's record, and signs the statement of the entry.
pub(crate) async fn endorse_beginning(
    parts: &Parts,
    group: GroupId,
    number: u64,
    statement: &Statement,
) -> Result<Endorsement, Abstention> {
    parts
        .consensus
        .freshness()
        .may_contribute(group)
        .map_err(|_| Abstention::Fenced)?;
    look(parts, group, number)?;
    seen(
        parts,
        (group, number),
        statement,
        (b"conclave beginning 1", "begun"),
    )
    .await
}

/// Whether it may begin, as far as this node knows: by its own states of the group and of group 0, by its own links, and by what
/// the new members have said to it of themselves.
fn look(parts: &Parts, group: GroupId, number: u64) -> Result<(), Abstention> {
    let own = roster(parts, group)?;
    let zero = match group {
        GROUP_ZERO => None,
        _ => Some(roster(parts, GROUP_ZERO)?),
    };
    let status = parts.consensus.status();
    let status = status.iter().find(|status| status.group == group);
    let is_there = |node| {
        let has_caught_up = status.is_some_and(|status| status.caught_up.contains(&node));
        has_caught_up && parts.network.connected(node)
    };
    let zero = zero.as_deref().map(|zero| (zero, group.0));
    may_begin(&own, number, zero, is_there).map_err(|early| {
        tracing::debug!(%group, number, reason = %early, "a change of members does not begin yet");
        Abstention::Behind
    })
}

/// A group's roster, by a state that is more than one node's word.
fn roster(parts: &Parts, group: GroupId) -> Result<Arc<Roster>, Abstention> {
    let view = believed(parts, group)?;
    parts.roster_in(&view).map_err(|_| Abstention::Busy)
}

/// The statement that a group begins to move to the members of this number.
pub(crate) fn beginning_statement(
    parts: &Parts,
    group: GroupId,
    number: u64,
    operation: OperationId,
) -> Statement {
    unasked(parts, group.0, operation, Command::BeginMove(number))
}
