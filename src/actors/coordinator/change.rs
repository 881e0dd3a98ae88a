//! Changes of the replicated state: gather k endorsements, propose, answer when this node has applied the entry.

use std::sync::Arc;
use std::time::{Duration, Instant};

use conclave_consensus::GroupId;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde_json::json;

use super::{Work, busy, confirm_group, propose_problem};
use crate::actors::decide::Purpose;
use crate::actors::holder::{sign_statement, statement_of};
use crate::actors::parts::Parts;
use crate::actors::stages::Stage;
use crate::actors::wire::{Abstention, Answer, Call};
use crate::identifier::OperationId;
use crate::keystore::{Command, Endorsement, Entry, Outcome, Rejection, Reply as Applied, Statement, query};
use crate::operation::judge::sequence_mismatch;
use crate::problem::Problem;
use crate::reply::Reply;

/// Times that endorsements are gathered for one change. Each time but the last, another change of the same keystore was
/// made meanwhile.
const ROUNDS: u8 = 5;
/// How long an acknowledged denial waits for members with a live link.
const DENIAL_WAIT: Duration = Duration::from_secs(1);
/// Longest wait for one member's endorsement.
const ENDORSEMENT: Duration = Duration::from_secs(3);

/// What one round of a change came to.
enum Committed {
    /// This node applied it, with the endorsements of these nodes.
    Here(Outcome, Vec<u64>),
    /// Too few agree, since some have judged on another version of the keystore than this node: it changed meanwhile.
    Overtaken,
}

/// What a member made of a change.
enum Endorsed {
    Here(Endorsement),
    /// It does not allow it.
    Refused(Box<Problem>),
    /// It signed something else: most likely the same change of another version of the keystore.
    Otherwise,
    /// It gave nothing.
    Nothing,
}

/// Creates or updates a meter or a keystore, or revokes.
pub(super) async fn apply(work: &Work) -> Result<Reply, Problem> {
    for round in 1..=ROUNDS {
        let weighed = work.weigh(Purpose::Endorse).await?;
        let group = weighed.group;
        let decided = weighed.record().await.map_err(|_| busy())?;
        let statement = statement_of(&work.parts, &work.request, &decided, work.operation)
            .ok_or_else(|| Problem::malformed("This request changes nothing."))?;
        let own = sign_statement(&work.parts, &work.request, &decided, &statement);
        let call = Call::Endorse(work.forwarded(round, group, Vec::new()));
        let entry_request = work.request.encoded.clone();
        let committed = commit(work, group, statement.clone(), own, call, entry_request).await?;
        let Committed::Here(outcome, endorsers) = committed else {
            // Whatever was acknowledged before now is applied here before this node judges again.
            confirm_group(&work.parts, group).await?;
            continue;
        };
        let answer = match outcome {
            Outcome::Refused(rejection) if rejection.is_stale() && round < ROUNDS => continue,
            Outcome::Refused(rejection) => Err(rejected(work, &statement, &rejection)),
            Outcome::Applied(applied) => reply(work, &applied),
        };
        decided.conclude(round, endorsers, &answer);
        return answer;
    }
    Err(Problem::unavailable(
        "The keystore is being changed by others all the time; try again in a moment.",
    ))
}

/// Gathers endorsements of `statement` beside our own, proposes, and answers the outcome that this node applied.
async fn commit(
    work: &Work,
    group: GroupId,
    statement: Statement,
    own: Endorsement,
    call: Call,
    request: Vec<u8>,
) -> Result<Committed, Problem> {
    let parts = &work.parts;
    let quorum = parts.membership.quorum();
    let tolerated = parts.membership.members.len() - quorum;
    let statement = Arc::new(statement);
    let mut asked: FuturesUnordered<_> = others(parts)
        .map(|node| {
            let (parts, call, statement) = (parts.clone(), call.clone(), statement.clone());
            tokio::spawn(async move { endorse(&parts, node, &call, &statement).await })
        })
        .collect();
    let (mut endorsements, mut refusals, mut overtaken) = (vec![own], Vec::new(), false);
    while endorsements.len() < quorum {
        match asked.next().await {
            Some(Ok(Endorsed::Here(endorsement))) => endorsements.push(endorsement),
            Some(Ok(Endorsed::Refused(problem))) => refusals.push(problem),
            Some(Ok(Endorsed::Otherwise)) => overtaken = true,
            Some(_) => {}
            None => break,
        }
        // Quorums meet: one member's word stops nothing, more than n - k of them do.
        if refusals.len() > tolerated {
            break;
        }
    }
    if endorsements.len() < quorum {
        if overtaken && refusals.len() <= tolerated {
            return Ok(Committed::Overtaken);
        }
        let problem = refusals.pop().map(|problem| *problem);
        return Err(problem.unwrap_or_else(|| no_quorum("endorse this change")));
    }
    let denies = statement.command.restricts();
    let mut endorsers: Vec<u64> = endorsements.iter().map(|endorsement| endorsement.node).collect();
    endorsers.sort_unstable();
    let entry = Entry {
        statement: Arc::unwrap_or_clone(statement),
        request,
        endorsements,
    };
    let proposed = parts.consensus.propose(group, entry.encode(), work.deadline);
    let proposed = parts.metrics.stages.time(Stage::commit, proposed).await;
    if denies {
        // A denial binds every member with a live link before it is acknowledged.
        let all = async { while asked.next().await.is_some() {} };
        let _ = tokio::time::timeout(DENIAL_WAIT, all).await;
    }
    let applied = proposed.map_err(propose_problem)?;
    let outcome = postcard::from_bytes(&applied.result).map_err(|_| busy())?;
    Ok(Committed::Here(outcome, endorsers))
}

async fn endorse(parts: &Arc<Parts>, node: u64, call: &Call, statement: &Statement) -> Endorsed {
    for wait in [0, 50, 200] {
        if wait > 0 {
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
        match parts.ask(node, call, ENDORSEMENT).await {
            Ok(Answer::Endorsed(endorsement)) => {
                let member = parts.membership.member(node);
                let valid = endorsement.node == node
                    && member
                        .is_some_and(|member| statement.is_endorsed(&endorsement, &member.verifying_key));
                return if valid {
                    Endorsed::Here(endorsement)
                } else {
                    Endorsed::Otherwise
                };
            }
            Ok(Answer::Refused(problem)) => return Endorsed::Refused(problem),
            // It may have caught up in a moment.
            Ok(Answer::Abstained(Abstention::Behind | Abstention::Busy)) => continue,
            _ => return Endorsed::Nothing,
        }
    }
    Endorsed::Nothing
}

fn others(parts: &Parts) -> impl Iterator<Item = u64> {
    let nodes = parts.membership.members.iter().map(|member| member.node);
    nodes.filter(|node| *node != parts.node && parts.network.connected(*node))
}

pub(super) fn no_quorum(what: &str) -> Problem {
    Problem::unavailable(format!("Too few nodes can {what} now; try again in a moment."))
}

fn keystore_url(parts: &Parts, command: &Command) -> String {
    let id = command.keystore().map(|id| id.to_string()).unwrap_or_default();
    format!("{}/kms/keystores/{id}", parts.rules.public_url)
}

/// What the client is told of an entry that changed nothing.
pub(super) fn rejected(work: &Work, statement: &Statement, rejection: &Rejection) -> Problem {
    let url = keystore_url(&work.parts, &statement.command);
    match rejection {
        Rejection::ChainRevoked => Problem::not_authorized(
            "Error",
            "One or more capabilities in the chain have been revoked.",
        ),
        Rejection::Replayed => Problem::replayed(),
        Rejection::Exists => Problem::new(409, "DuplicateError", "Duplicate identifier."),
        Rejection::Missing => Problem::keystore_not_found(&url),
        Rejection::Sequence | Rejection::VersionPassed => match &statement.command {
            Command::UpdateKeystore { config, .. } => sequence_mismatch(&url, config.sequence),
            _ => Problem::new(
                409,
                "InvalidStateError",
                "The keystore changed meanwhile; try again.",
            ),
        },
        Rejection::AlreadyRevoked => {
            Problem::not_authorized("DataError", "The provided capability delegation is invalid.")
        }
        Rejection::TooManyRevocations => Problem::not_authorized(
            "QuotaExceededError",
            "This revoker has too many live revocations here.",
        ),
        Rejection::Stale | Rejection::ConfigurationChanged => busy(),
        Rejection::NotEndorsed(reason) => {
            tracing::error!(reason, "our own entry was not accepted as endorsed");
            busy()
        }
    }
}

fn reply(work: &Work, applied: &Applied) -> Result<Reply, Problem> {
    let parts = &work.parts;
    let public_url = &parts.rules.public_url;
    match applied {
        Applied::Meter(id) => {
            let view = parts.consensus.view(GroupId(0)).map_err(|_| busy())?;
            let meter = query::meter(&view, id).map_err(|_| busy())?.ok_or_else(busy)?;
            let body = json!({ "meter": super::read::meter_json(parts, id, &meter, true) });
            Ok(Reply::ok(body)
                .with_status(201)
                .located(format!("{public_url}/meters/{id}")))
        }
        Applied::Keystore(id) => {
            let view = parts.consensus.view(parts.group_of(id)).map_err(|_| busy())?;
            let record = query::keystore(&view, id).map_err(|_| busy())?.ok_or_else(busy)?;
            let config = record.config.to_json(public_url, id);
            if matches!(work.request.route, crate::operation::route::Route::CreateKeystore) {
                let url = format!("{public_url}/kms/keystores/{id}");
                return Ok(Reply::ok(config).with_status(201).located(url));
            }
            Ok(Reply::ok(json!({ "config": config })))
        }
        Applied::Revoked => Ok(Reply::no_content()),
        Applied::Key(..) | Applied::Time => Err(busy()),
    }
}

/// Proposes an entry of time for an idle group that this node leads.
pub(super) async fn pass_time(parts: &Arc<Parts>, group: GroupId) -> Result<(), Problem> {
    let operation: OperationId = parts.next_operation();
    let statement = crate::actors::holder::time_statement(parts, group.0, operation);
    let now = parts.now().map_err(|_| busy())?;
    let mut endorsements = vec![statement.endorse(parts.node, &parts.signing_key, now)];
    let call = Call::EndorseTime {
        group: group.0,
        operation,
    };
    let nodes: Vec<u64> = others(parts).collect();
    let answers = nodes.iter().map(|node| endorse(parts, *node, &call, &statement));
    let answers = futures::future::join_all(answers).await;
    endorsements.extend(answers.into_iter().filter_map(|answer| match answer {
        Endorsed::Here(endorsement) => Some(endorsement),
        _ => None,
    }));
    if endorsements.len() < parts.membership.quorum() {
        return Err(no_quorum("endorse the time"));
    }
    let entry = Entry {
        statement,
        request: Vec::new(),
        endorsements,
    };
    let deadline = Instant::now() + Duration::from_secs(5);
    parts
        .consensus
        .propose(group, entry.encode(), deadline)
        .await
        .map_err(propose_problem)?;
    Ok(())
}
