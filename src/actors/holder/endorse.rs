//! Endorsements: this member's signature over what a client's request changes, given after its own judgement is on
//! its own record. From that moment it also refuses uses by what it has endorsed to deny.

use std::sync::Arc;

use conclave_consensus::GroupId;
use futures::future::join_all;
use sha2::{Digest, Sha256};

use super::{asked, examine};
use crate::actors::coordinator::outside;
use crate::actors::decide::{Decided, Purpose, decide};
use crate::actors::denials::Life;
use crate::actors::examined::Examined;
use crate::actors::parts::Parts;
use crate::actors::views::{GROUP_ZERO, believed, keys};
use crate::actors::wire::{Abstention, Answer, Forwarded};
use crate::audit::{Entry, Kind};
use crate::identifier::OperationId;
use crate::keystore::apply::request_hash;
use crate::keystore::{Command, Endorsement, ReadState as _, Stage, Statement, layout};
use crate::operation::judge::Intent;
use crate::operator::{Change, SignedOrder};

/// The group's time must lie within this of our clock for an endorsement of time, ms.
const CLOCK_SPREAD: u64 = 5_000;

/// Endorses a change.
pub(super) async fn change(parts: &Arc<Parts>, from: u64, forwarded: Forwarded) -> Answer {
    let request = match examine(parts, from, &forwarded).await {
        Ok(request) => request,
        Err(answer) => return answer,
    };
    let decided = match decide(parts, &request, asked(Purpose::Endorse, from, &forwarded)).await {
        Ok(decided) => decided,
        Err(declined) => return declined.into(),
    };
    match statement(parts, &request, &decided, forwarded.operation) {
        Some(statement) => Answer::Endorsed(sign(parts, &request, &decided, &statement)),
        None => Answer::Misfit("an endorsement of what changes nothing".into()),
    }
}

/// What is endorsed for a decided change; `None` if the request changes nothing by itself.
pub(crate) fn statement(
    parts: &Parts,
    request: &Examined,
    decided: &Decided,
    operation: OperationId,
) -> Option<Statement> {
    let Intent::Change(command) = &decided.judgement.intent else {
        return None;
    };
    Some(Statement {
        cluster: *parts.cluster(),
        group: decided.group.0,
        operation,
        request: request.hash,
        name: request.authenticated.name,
        expires: request.authenticated.expires.saturating_mul(1_000),
        command: command.clone(),
        state_version: decided.judgement.state_version,
        chain: decided.judgement.chain.clone(),
    })
}

/// Signs it, and denies from now on what it denies.
pub(crate) fn sign(
    parts: &Parts,
    request: &Arc<Examined>,
    decided: &Decided,
    statement: &Statement,
) -> Endorsement {
    let life = Life {
        since: decided.now,
        until: request.dead_after(),
    };
    parts.denials.lock().endorsed(
        statement.operation,
        &statement.command,
        decided.judgement.state_version,
        request.clone(),
        life,
    );
    statement.endorse(parts.node, &parts.signing_key, decided.now)
}

/// Endorses that time passes in an idle group: only this member's own clock stands behind it.
pub(super) async fn time(parts: &Arc<Parts>, from: u64, group: u32, operation: OperationId) -> Answer {
    if operation.node != from || group >= parts.rules.groups {
        return Answer::Misfit("a time entry of another node's, or of no group".into());
    }
    match parts.now() {
        Ok(now) => Answer::Endorsed(time_statement(parts, group, operation).endorse(
            parts.node,
            &parts.signing_key,
            now,
        )),
        Err(_) => Answer::Abstained(Abstention::Clock),
    }
}

/// Endorses an order of the operators: their signatures stand behind it, and this member's clock and record.
pub(super) async fn order(
    parts: &Arc<Parts>,
    from: u64,
    order: &SignedOrder,
    (group, operation): (u32, OperationId),
) -> Answer {
    if operation.node != from || group >= parts.rules.groups {
        return Answer::Misfit("an order under another node's operation, or for no group".into());
    }
    if let Err(error) = order.verify(parts.rosters.genesis()) {
        return Answer::Misfit(error.to_string());
    }
    // Group 0 takes an order first.
    if group != GROUP_ZERO.0 && !is_taken(parts, order) {
        return Abstention::Behind.into();
    }
    let statement = order_statement(parts, GroupId(group), order, operation);
    match endorse_order(parts, order, &statement).await {
        Ok(endorsement) => Answer::Endorsed(endorsement),
        Err(abstention) => abstention.into(),
    }
}

/// Whether group 0 has taken this order for other members, as far as this node has applied.
fn is_taken(parts: &Parts, order: &SignedOrder) -> bool {
    let Change::Members(new) = &order.order.change else {
        return false;
    };
    let zero = believed(parts, GROUP_ZERO).ok();
    let taken = zero.and_then(|view| view.record::<SignedOrder>(&layout::members(new.number)).ok());
    taken.flatten().as_ref() == Some(order)
}

/// Endorses that every key of a group is with its new members: this member has applied that, and has the shares that it
/// should have on its disk.
pub(super) async fn moved(
    parts: &Arc<Parts>,
    from: u64,
    (group, number): (u32, u64),
    operation: OperationId,
) -> Answer {
    if operation.node != from || group >= parts.rules.groups {
        return Answer::Misfit("a move under another node's operation, or of no group".into());
    }
    let group = GroupId(group);
    let statement = move_statement(parts, group, number, operation);
    match endorse_move(parts, group, number, &statement).await {
        Ok(endorsement) => Answer::Endorsed(endorsement),
        Err(abstention) => abstention.into(),
    }
}

/// Looks, puts it on this node's record, and signs the statement of the move's entry.
pub(crate) async fn endorse_move(
    parts: &Arc<Parts>,
    group: GroupId,
    number: u64,
    statement: &Statement,
) -> Result<Endorsement, Abstention> {
    parts
        .consensus
        .freshness()
        .may_contribute(group)
        .map_err(|_| Abstention::Fenced)?;
    if group == GROUP_ZERO && !have_others_come(parts, number).await? {
        return Err(Abstention::Behind);
    }
    // One look at a time: it reads every key of the group.
    if !parts.renewals.lock().looks.insert(group) {
        return Err(Abstention::Busy);
    }
    let looked = tokio::task::spawn_blocking({
        let parts = parts.clone();
        move || {
            let moved = has_moved(&parts, group, number);
            parts.renewals.lock().looks.remove(&group);
            moved
        }
    });
    match looked.await {
        Ok(Ok(true)) => {}
        Ok(Ok(false)) => return Err(Abstention::Behind),
        _ => return Err(Abstention::Busy),
    }
    seen(parts, (group, number), statement, (b"conclave move 1", "moved")).await
}

/// Puts on this node's record what it has seen for itself of a group's move, by this name and verdict, and signs the statement of
/// the entry.
pub(super) async fn seen(
    parts: &Parts,
    (group, number): (GroupId, u64),
    statement: &Statement,
    (name, verdict): (&[u8], &str),
) -> Result<Endorsement, Abstention> {
    let now = parts.now().map_err(|_| Abstention::Clock)?;
    let mut entry = Entry::new(Kind::Ordered, now, statement.operation);
    entry.group = group.0;
    entry.request = Sha256::digest([name, &number.to_be_bytes()].concat()).into();
    entry.verdict = verdict.into();
    parts.record(entry).await?;
    Ok(statement.endorse(parts.node, &parts.signing_key, now))
}

/// Whether every group but group 0 is with its new members: group 0 comes to them last, so that it takes no other order before. Of a
/// group on other nodes a quorum of those says so.
pub(crate) async fn have_others_come(parts: &Arc<Parts>, number: u64) -> Result<bool, Abstention> {
    let is_here = |group: &GroupId| {
        let view = believed(parts, *group).ok();
        let roster = view.and_then(|view| parts.roster_in(&view).ok());
        roster.is_some_and(|roster| roster.next.is_none() && roster.current.index >= number)
    };
    let groups = (1..parts.rules.groups).map(GroupId);
    let left: Vec<GroupId> = groups.filter(|group| !is_here(group)).collect();
    if left.iter().any(|group| parts.is_in(*group)) {
        return Ok(false);
    }
    let zero = parts.roster(GROUP_ZERO)?;
    let Some(list) = zero.numbered(number) else {
        return Ok(false);
    };
    let come = left.iter().map(|group| outside::has_come(parts, *group, list));
    Ok(join_all(come).await.into_iter().all(|come| come))
}

/// Whether every key of the group is with the members of this number, and this node, if it is one of them, has its shares;
/// blocks on the disk.
fn has_moved(parts: &Parts, group: GroupId, number: u64) -> Result<bool, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let view = parts.consensus.view(group).map_err(|error| text(&error))?;
    let roster = parts.roster_in(&view).map_err(|error| text(&error))?;
    let is_member = match &roster.next {
        Some((next, Stage::Joint)) if next.index == number => next.member(parts.node).is_some(),
        _ => return Ok(false),
    };
    // Group 0 has no keys; the others have been looked at.
    if group == GROUP_ZERO {
        return Ok(true);
    }
    // No group is further than group 0, whose order may still be taken back.
    let zero = believed(parts, GROUP_ZERO).map_err(|error| text(&error))?;
    let zero = parts.roster_in(&zero).map_err(|error| text(&error))?;
    if zero.births().index < number {
        return Ok(false);
    }
    for stored in keys(&view) {
        let stored = stored.map_err(|error| text(&error))?;
        if stored.record.committee != number {
            return Ok(false);
        }
        let lacks = parts.lacks_share(&stored, is_member);
        if lacks.map_err(|error| text(&error))? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Puts a verified order on this node's record, then signs the statement of its entry. Group 0 takes none while groups are on their way
/// by the one before, also where that one has left its own nodes as they were.
pub(crate) async fn endorse_order(
    parts: &Arc<Parts>,
    order: &SignedOrder,
    statement: &Statement,
) -> Result<Endorsement, Abstention> {
    parts
        .consensus
        .freshness()
        .may_contribute(GroupId(statement.group))
        .map_err(|_| Abstention::Fenced)?;
    if statement.group == GROUP_ZERO.0 && matches!(order.order.change, Change::Members(_)) {
        let zero = parts.roster(GROUP_ZERO)?;
        if zero.next.is_none() && !have_others_come(parts, zero.current.index).await? {
            return Err(Abstention::Behind);
        }
    }
    let now = parts.now().map_err(|_| Abstention::Clock)?;
    let mut entry = Entry::new(Kind::Ordered, now, statement.operation);
    entry.request = Sha256::digest(order.order.signed_bytes()).into();
    entry.verdict = "ok".into();
    parts.record(entry).await?;
    Ok(statement.endorse(parts.node, &parts.signing_key, now))
}

/// The statement of a time entry.
pub(crate) fn time_statement(parts: &Parts, group: u32, operation: OperationId) -> Statement {
    Statement {
        request: [0; 32],
        ..unasked(parts, group, operation, Command::Time)
    }
}

/// The statement of an order's entry in a group.
pub(crate) fn order_statement(
    parts: &Parts,
    group: GroupId,
    order: &SignedOrder,
    operation: OperationId,
) -> Statement {
    let command = Command::Order(Box::new(order.clone()));
    unasked(parts, group.0, operation, command)
}

/// The statement that a group's keys are with the members of this number.
pub(crate) fn move_statement(
    parts: &Parts,
    group: GroupId,
    number: u64,
    operation: OperationId,
) -> Statement {
    unasked(parts, group.0, operation, Command::CompleteMove(number))
}

/// The statement of what no client asks for, and that rests on no keystore's state.
pub(super) fn unasked(parts: &Parts, group: u32, operation: OperationId, command: Command) -> Statement {
    Statement {
        cluster: *parts.cluster(),
        group,
        operation,
        request: request_hash(&[]),
        name: [0; 32],
        expires: 0,
        command,
        state_version: 0,
        chain: Vec::new(),
    }
}

/// Whether two clocks are close enough for one entry.
pub(crate) fn close(a: u64, b: u64) -> bool {
    a.abs_diff(b) <= CLOCK_SPREAD
}

/// Whether two clocks are so close that a third, as close to one of them, is close enough to the other.
pub(crate) fn near(a: u64, b: u64) -> bool {
    2 * a.abs_diff(b) <= CLOCK_SPREAD
}
