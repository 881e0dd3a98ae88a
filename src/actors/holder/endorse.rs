//! Endorsements: this member's signature over what a client's request changes, given after its own judgement is on
//! its own record. From that moment it also refuses uses by what it has endorsed to deny.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::{asked, examine};
use crate::actors::decide::{Decided, Purpose, decide};
use crate::actors::denials::Life;
use crate::actors::examined::Examined;
use crate::actors::parts::Parts;
use crate::actors::views::GROUP_ZERO;
use crate::actors::wire::{Abstention, Answer, Forwarded};
use crate::audit::{Entry, Kind};
use crate::identifier::OperationId;
use crate::keystore::apply::request_hash;
use crate::keystore::{Command, Endorsement, Statement};
use crate::operation::judge::Intent;
use crate::operator::SignedOrder;

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
        cluster: parts.membership.cluster,
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
pub(super) async fn order(parts: &Parts, from: u64, order: &SignedOrder, operation: OperationId) -> Answer {
    if operation.node != from {
        return Answer::Misfit("an order under another node's operation".into());
    }
    if let Err(error) = order.verify(&parts.membership) {
        return Answer::Misfit(error.to_string());
    }
    let statement = order_statement(parts, order, operation);
    match endorse_order(parts, order, &statement).await {
        Ok(endorsement) => Answer::Endorsed(endorsement),
        Err(abstention) => abstention.into(),
    }
}

/// Puts a verified order on this node's record, then signs the statement of its entry.
pub(crate) async fn endorse_order(
    parts: &Parts,
    order: &SignedOrder,
    statement: &Statement,
) -> Result<Endorsement, Abstention> {
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

/// The statement of an order's entry.
pub(crate) fn order_statement(parts: &Parts, order: &SignedOrder, operation: OperationId) -> Statement {
    let command = Command::Order(Box::new(order.clone()));
    unasked(parts, GROUP_ZERO.0, operation, command)
}

/// The statement of what no client asks for, and that rests on no keystore's state.
pub(super) fn unasked(parts: &Parts, group: u32, operation: OperationId, command: Command) -> Statement {
    Statement {
        cluster: parts.membership.cluster,
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
