//! What this node answers to other nodes, and to itself where it coordinates: each answer follows from its own
//! judgement of the client's request. A coordinator that asks for anything else is refused, and it is counted.

mod batch;
mod beginning;
pub(crate) mod births;
mod claim;
mod contribute;
mod deliver;
mod endorse;
mod garble;
mod generate;
pub mod nonces;
mod relay;
pub(crate) mod renew;
mod serve;
mod vouch;
mod witness;

use std::sync::Arc;

use conclave_consensus::GroupId;
use sha2::{Digest, Sha256};
use tracing::Instrument;

use super::decide::{Asked, Declined, Purpose, record_refusal};
use super::examined::Examined;
use super::heard::is_fit;
use super::metrics::OfNode;
use super::parts::Parts;
use super::stages::Stage;
use super::symmetric::pairing;
use super::wire::{Abstention, Answer, Call, Forwarded, Progress};
use crate::audit::{Entry, Kind};
use crate::overload::Turn;
use crate::problem::Problem;
use crate::telemetry::logs::request_span;

pub(crate) use beginning::{beginning_statement, endorse_beginning};
pub(crate) use claim::register as register_claim;
pub(crate) use contribute::key_name;
pub(crate) use endorse::{
    close, endorse_move, endorse_order, have_others_come, move_statement, near, order_statement,
    sign as sign_statement, statement as statement_of, time_statement,
};
pub(crate) use generate::ceremony_id;
pub use generate::{Sealed, session_of};
pub(crate) use renew::id_of as renewal_id;
pub(crate) use serve::decides;
#[cfg(test)]
pub(crate) use witness::digest;
pub(crate) use witness::{convicted, says};

/// Answers one call of `from`, whose identity TLS has proven. What is logged meanwhile carries the operation that the
/// node which the client reached calls it by.
pub async fn answer(parts: &Arc<Parts>, from: u64, call: Call) -> Answer {
    let of_ceremony = |call: &Call| match call {
        Call::Continue(id, ..) => parts.ceremonies.lock().operation(id),
        _ => None,
    };
    let operation = call.operation().or_else(|| of_ceremony(&call));
    let turn = Turn::current().of_class(call.class());
    let answer = turn.scope(within(parts, from, call));
    match operation {
        Some(operation) => answer.instrument(request_span(&operation.request_id())).await,
        None => answer.await,
    }
}

async fn within(parts: &Arc<Parts>, from: u64, call: Call) -> Answer {
    let answer = match call {
        Call::Endorse(forwarded) => endorse::change(parts, from, forwarded).await,
        Call::EndorseOrder(order, group, operation) => {
            endorse::order(parts, from, &order, (group, operation)).await
        }
        Call::EndorseMove {
            group,
            number,
            operation,
        } => endorse::moved(parts, from, (group, number), operation).await,
        Call::EndorseBeginning {
            group,
            number,
            operation,
        } => beginning::answer(parts, from, (group, number), operation).await,
        Call::EndorseTime { group, operation } => endorse::time(parts, from, group, operation).await,
        Call::Cosign(..) | Call::Commit(_) | Call::Derive(_) => contribute::to_use(parts, from, call).await,
        Call::Batch(forwarded, items) => batch::answer(parts, from, forwarded, items).await,
        Call::SignShare(operation, attempt, list) => {
            contribute::second_round(parts, from, (operation, attempt), list).await
        }
        Call::Begin(..) | Call::Continue(..) => generate::round(parts, from, call).await,
        Call::Witness(call, node) => match Call::decode(&call) {
            Some(call) => witness::ask(parts, from, call, node).await,
            None => Answer::Misfit("a question to relay that cannot be read".into()),
        },
        Call::Relayed(call) => match Call::decode(&call) {
            Some(call) => witness::relayed(parts, from, call).await,
            None => Answer::Misfit("a relayed question that cannot be read".into()),
        },
        Call::Standing(operation, group) => {
            // A node that has just started is linked before it may endorse anything: it takes part in no ceremony.
            let touch = parts.consensus.freshness().may_contribute(GroupId(group));
            let refused = touch.is_err() || parts.ceremonies.lock().conduct.declined(&operation);
            Answer::Standing { refused }
        }
        Call::Envelopes(after) => deliver::envelopes(parts, from, after).await,
        Call::Confirm(name) => deliver::confirm(parts, from, name).await,
        Call::Claim(operation, claims) => claim::register(parts, from, operation, &claims),
        Call::Pair(half) => pairing::answer(parts, from, half),
        Call::Garble(forwarded, roles) => garble::answer(parts, from, forwarded, &roles).await,
        Call::Birth(forwarded, beginning) => births::begin(parts, from, forwarded, beginning).await,
        Call::BirthStep(id, step) => births::step(parts, from, id, step).await,
        Call::Renew(proposal) => renew::begin(parts, from, proposal).await,
        Call::RenewStep(id, round, messages) => renew::step(parts, from, id, round, messages).await,
        Call::RenewCompute(id, place, step) => Box::pin(renew::compute(parts, from, id, place, step)).await,
        Call::EndRenewal(id) => {
            parts.renewals.lock().end_of(&id, from);
            Answer::Confirmed
        }
        Call::Portion(name) => deliver::portion(parts, from, name).await,
        Call::Serve(forwarded) => serve::answer(parts, from, forwarded).await,
        Call::AuditHead => Answer::AuditHead(parts.audit.signed_head(), is_fit(parts)),
        Call::Vouch(vouch) => vouch::answer(parts, from, *vouch).await,
        Call::Relay(relay) => relay::answer(parts, from, *relay).await,
        Call::List(forwarded, group) => Box::pin(relay::list(parts, from, &forwarded, group)).await,
        Call::Progress(group) => match Progress::of(parts, GroupId(group)) {
            Ok(progress) => Answer::Progress(progress),
            Err(abstention) => abstention.into(),
        },
    };
    if let Answer::Misfit(reason) = &answer {
        parts.metrics.misfits.get_or_create(&OfNode { node: from }).inc();
        tracing::warn!(from, reason, "a call did not fit");
    }
    answer
}

/// Authenticates a forwarded request as if the client had sent it here. A member that shows what no client signed
/// goes on the record: an honest one would have refused it itself.
async fn examine(parts: &Arc<Parts>, from: u64, forwarded: &Forwarded) -> Result<Arc<Examined>, Answer> {
    let now = parts.now().map_err(|_| Answer::Abstained(Abstention::Clock))?;
    let (pool, request) = (parts.clone(), forwarded.request.clone());
    let examine = parts
        .pool
        .run(move || Examined::of_node(request, &pool.rules, now));
    let examined = parts.metrics.stages.time(Stage::verify, examine).await;
    match examined {
        Err(_) => Err(Answer::Abstained(Abstention::Busy)),
        Ok(Err(problem)) => {
            let mut entry = Entry::new(Kind::Refused, now, forwarded.operation);
            entry.attempt = forwarded.attempt;
            entry.request = Sha256::digest(&forwarded.request).into();
            record_refusal(parts, entry, from, &problem);
            Err(refused(problem))
        }
        Ok(Ok(examined)) => Ok(Arc::new(examined)),
    }
}

fn asked(purpose: Purpose, from: u64, forwarded: &Forwarded) -> Asked {
    Asked {
        purpose,
        operation: forwarded.operation,
        attempt: forwarded.attempt,
        coordinator: from,
        needs: forwarded.needs.clone(),
        participants: forwarded.participants.clone(),
        epoch: forwarded.epoch,
    }
}

fn refused(problem: Problem) -> Answer {
    Answer::Refused(Box::new(problem))
}

impl From<Declined> for Answer {
    fn from(declined: Declined) -> Self {
        match declined {
            Declined::Refused(problem) => Answer::Refused(problem),
            Declined::Abstained(abstention) => Answer::Abstained(abstention),
            Declined::Repeat => Answer::Misfit("a repeated attempt whose answer is gone".into()),
        }
    }
}

impl From<Abstention> for Answer {
    fn from(abstention: Abstention) -> Self {
        Answer::Abstained(abstention)
    }
}
