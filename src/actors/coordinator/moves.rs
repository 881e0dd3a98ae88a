//! Carrying out orders that change the members: what group 0 has taken is written into each other group; once the new members
//! are there, a quorum of the old ones says that it begins, in group 0 first; once every key of a group is with its new members,
//! quorums of both lists say so. Keys move by [`super::renewal`], votes by consensus.
//!
//! Whoever leads a group does it; what is left undone is found again by whoever leads then.

use std::sync::Arc;
use std::time::{Duration, Instant};

use conclave_consensus::{GroupId, GroupStatus};

use super::endorsements::{Gathered, Gathering, Question};
use crate::actors::holder::{
    beginning_statement, endorse_beginning, endorse_move, endorse_order, move_statement, order_statement,
};
use crate::actors::parts::Parts;
use crate::actors::views::GROUP_ZERO;
use crate::actors::wire::Call;
use crate::keystore::{Endorsement, Entry, Outcome, ReadState, Stage, Statement, layout};
use crate::operator::SignedOrder;

/// How often it looks.
const LOOK: Duration = Duration::from_millis(500);
/// How long one entry may take.
const DEADLINE: Duration = Duration::from_secs(8);

/// Looks again and again.
pub async fn run(parts: Arc<Parts>) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        pass(&parts).await;
    }
}

/// Does what is to be done now, in each group that this node conducts.
pub(crate) async fn pass(parts: &Arc<Parts>) {
    for status in parts.consensus.status() {
        let done = match conducts(parts, &status) {
            true => conduct(parts, status.group).await,
            false => Ok(()),
        };
        if let Err(reason) = done {
            tracing::debug!(group = %status.group, reason, "a change of members waits");
        }
    }
}

/// Whether it is this node that carries out what is to be done in a group: its leader, or, while that one is on its way out,
/// the first of the new members that is there.
pub(crate) fn conducts(parts: &Parts, status: &GroupStatus) -> bool {
    let Ok(roster) = parts.roster(status.group) else {
        return false;
    };
    let leads = status.leader == Some(parts.node);
    let members = roster.births();
    match status.leader {
        None => false,
        Some(leader) if members.member(leader).is_some() => leads,
        Some(_) => {
            let is_there = |node: &u64| *node == parts.node || parts.network.connected(*node);
            members.nodes().into_iter().find(is_there) == Some(parts.node)
        }
    }
}

async fn conduct(parts: &Arc<Parts>, group: GroupId) -> Result<(), String> {
    let roster = parts.roster(group).map_err(text)?;
    match &roster.next {
        None if group != GROUP_ZERO => match next_order(parts, roster.current.index)? {
            Some(order) => announce(parts, group, order).await,
            None => Ok(()),
        },
        Some((next, Stage::Announced)) => match group {
            GROUP_ZERO => begin(parts, group, next.index).await,
            // Group 0 may have taken an order back.
            _ => match next_order(parts, next.index)? {
                Some(order) => announce(parts, group, order).await,
                None => begin(parts, group, next.index).await,
            },
        },
        Some((next, Stage::Joint)) => {
            // Whoever conducts has looked already; group 0 has no keys.
            let unmoved = parts.renewals.lock().unmoved.get(&group).copied();
            match unmoved {
                Some(0) => complete(parts, group, next.index).await,
                _ if group == GROUP_ZERO => complete(parts, group, next.index).await,
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// The order that group 0 has taken after the list of this number, if there is one.
fn next_order(parts: &Parts, number: u64) -> Result<Option<SignedOrder>, String> {
    let zero = parts.consensus.view(GROUP_ZERO).map_err(text)?;
    zero.record(&layout::members(number + 1)).map_err(text)
}

async fn announce(parts: &Arc<Parts>, group: GroupId, order: SignedOrder) -> Result<(), String> {
    let operation = parts.next_operation();
    let statement = order_statement(parts, group, &order, operation);
    let own = endorse_order(parts, &order, &statement).await.map_err(text)?;
    let call = Call::EndorseOrder(Box::new(order), group.0, operation);
    agree(parts, group, (statement, own), call).await?;
    tracing::info!(%group, "the group's members are being changed");
    Ok(())
}

async fn begin(parts: &Arc<Parts>, group: GroupId, number: u64) -> Result<(), String> {
    let operation = parts.next_operation();
    let statement = beginning_statement(parts, group, number, operation);
    let own = endorse_beginning(parts, group, number, &statement)
        .await
        .map_err(text)?;
    let call = Call::EndorseBeginning {
        group: group.0,
        number,
        operation,
    };
    agree(parts, group, (statement, own), call).await?;
    tracing::info!(%group, "the new members are there: the group begins to move to them");
    Ok(())
}

async fn complete(parts: &Arc<Parts>, group: GroupId, number: u64) -> Result<(), String> {
    let operation = parts.next_operation();
    let statement = move_statement(parts, group, number, operation);
    let own = endorse_move(parts, group, number, &statement)
        .await
        .map_err(text)?;
    let call = Call::EndorseMove {
        group: group.0,
        number,
        operation,
    };
    agree(parts, group, (statement, own), call).await?;
    tracing::info!(%group, "all keys of the group are with its new members");
    Ok(())
}

/// Gathers endorsements beside this node's own and has the entry applied.
async fn agree(
    parts: &Arc<Parts>,
    group: GroupId,
    (statement, own): (Statement, Endorsement),
    call: Call,
) -> Result<(), String> {
    let question = Arc::new(Question {
        call,
        statement,
        deadline: Instant::now() + DEADLINE,
    });
    let roster = parts.roster(group).map_err(text)?;
    let gathered = Gathering::start(parts, roster, &question).quorum(own).await;
    let Gathered::Quorum(endorsements) = gathered else {
        return Err("too few members agree yet".into());
    };
    let entry = Entry {
        statement: question.statement.clone(),
        request: Vec::new(),
        endorsements,
    };
    let encoded = parts
        .encode_entry(group, &entry)
        .map_err(|problem| problem.message)?;
    let proposed = parts.consensus.propose(group, encoded, question.deadline);
    let applied = proposed.await.map_err(text)?;
    parts.directory.look();
    match postcard::from_bytes(&applied.result) {
        Ok(Outcome::Applied(_)) => Ok(()),
        Ok(Outcome::Refused(rejection)) => Err(rejection.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

fn text(error: impl ToString) -> String {
    error.to_string()
}
