//! Bringing an operators' order into the replicated state: verified here, by every member that endorses it and by every
//! replica that applies it. Whoever brings it needs no rights: the signatures on it are what counts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::change::no_quorum;
use super::endorsements::{Gathered, Gathering, Question};
use super::using::cannot_contribute;
use super::{busy, confirm_group, propose_problem};
use crate::actors::holder::{endorse_order, have_others_come, order_statement};
use crate::actors::parts::Parts;
use crate::actors::views::GROUP_ZERO;
use crate::actors::wire::Call;
use crate::keystore::members;
use crate::keystore::{Entry, Outcome, Rejection, Stage, query};
use crate::operator::{Change, SignedOrder};
use crate::problem::Problem;

const DEADLINE: Duration = Duration::from_secs(8);

/// Brings it in; answers once this node has applied it. One that is in force already is out of sequence.
///
/// # Errors
/// What is wrong with it, or 503.
pub async fn submit(parts: &Arc<Parts>, order: SignedOrder) -> Result<(), Problem> {
    order
        .verify(parts.rosters.genesis())
        .map_err(|error| Problem::new(403, "NotAllowedError", error.to_string()))?;
    confirm_group(parts, GROUP_ZERO).await?;
    let view = parts.consensus.view(GROUP_ZERO).map_err(|_| busy())?;
    let last = query::orders(&view).map_err(|_| busy())?.sequence;
    if order.order.sequence != last + 1 {
        return Err(out_of_sequence(last));
    }
    let roster = parts.roster_in(&view).map_err(|_| busy())?;
    if let Change::Members(new) = &order.order.change {
        let lineage =
            members::lineage(&parts.rosters.of_group(GROUP_ZERO.0), &roster, &view).map_err(|_| busy())?;
        let fits = match (&roster.next, lineage.takes_back(new)) {
            (None, false) | (Some((_, Stage::Announced)), true) => lineage.next(new).map(drop),
            (None, true) => Err("the order that this one takes back is carried out"),
            (Some((_, Stage::Announced)), false) => Err(
                "they are being changed already; conclave node wait shows how far that is, and conclave node withdraw takes it \
                 back as long as it has not begun",
            ),
            (Some(_), _) => Err("they are being changed already; conclave node wait shows how far that is"),
        };
        let fits = match fits {
            Ok(()) if roster.next.is_none() => {
                let come = have_others_come(parts, roster.current.index).await;
                let come = come.map_err(cannot_contribute)?;
                come.then_some(()).ok_or(
                    "groups are on their way by the last order; conclave node wait shows how far that is",
                )
            }
            fits => fits,
        };
        fits.map_err(|reason| {
            let message = format!("The members cannot be changed so: {reason}.");
            Problem::new(409, "InvalidStateError", message)
        })?;
    }
    let operation = parts.next_operation();
    let statement = order_statement(parts, GROUP_ZERO, &order, operation);
    let own = endorse_order(parts, &order, &statement).await;
    let own = own.map_err(cannot_contribute)?;
    let question = Arc::new(Question {
        call: Call::EndorseOrder(Box::new(order), GROUP_ZERO.0, operation),
        statement,
        deadline: Instant::now() + DEADLINE,
    });
    let gathered = Gathering::start(parts, roster, &question).quorum(own).await;
    let Gathered::Quorum(endorsements) = gathered else {
        return Err(no_quorum("endorse the order"));
    };
    let entry = Entry {
        statement: question.statement.clone(),
        request: Vec::new(),
        endorsements,
    };
    let encoded = parts.encode_entry(GROUP_ZERO, &entry)?;
    let proposed = parts.consensus.propose(GROUP_ZERO, encoded, question.deadline);
    let applied = proposed.await.map_err(propose_problem)?;
    match postcard::from_bytes(&applied.result) {
        Ok(Outcome::Applied(_)) => Ok(()),
        Ok(Outcome::Refused(Rejection::Sequence)) => Err(out_of_sequence(last + 1)),
        Ok(Outcome::Refused(rejection @ Rejection::Members(_))) => {
            Err(Problem::new(409, "InvalidStateError", format!("{rejection}.")))
        }
        _ => Err(busy()),
    }
}

fn out_of_sequence(last: u64) -> Problem {
    let next = last + 1;
    let message = format!("The last order was number {last}: the next one is signed with --sequence {next}.");
    Problem::new(409, "InvalidStateError", message)
}
