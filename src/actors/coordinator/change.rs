//! Changes of the replicated state: gather k endorsements, propose, answer when this node has applied the entry.

use std::sync::Arc;
use std::time::{Duration, Instant};

use conclave_consensus::GroupId;
use serde_json::json;

use super::endorsements::{Gathered, Gathering, Question};
use super::using::cannot_contribute;
use super::{Work, busy, confirm_group, presence, propose_problem};
use crate::actors::decide::{Purpose, group_of};
use crate::actors::holder::{sign_statement, statement_of};
use crate::actors::parts::Parts;
use crate::actors::stages::Stage;
use crate::actors::wire::Call;
use crate::identifier::OperationId;
use crate::keystore::{Command, Endorsement, Entry, Outcome, Rejection, Reply as Applied, Statement, query};
use crate::membership::symmetric_notice;
use crate::operation::judge::sequence_mismatch;
use crate::problem::Problem;
use crate::reply::Reply;

/// Times that endorsements are gathered for one change. Each time but the last, another change of the same keystore was
/// made meanwhile.
const ROUNDS: u8 = 5;
/// How long an acknowledged denial waits for members with a live link.
const DENIAL_WAIT: Duration = Duration::from_secs(1);
/// How long an entry of time may take.
const TIME_DEADLINE: Duration = Duration::from_secs(8);

/// What one round of a change came to.
enum Committed {
    /// This node applied it, with the endorsements of these nodes.
    Here(Outcome, Vec<u64>),
    /// Too few agree, and some say no or something else: they may have applied what this node has not.
    Overtaken,
}

/// Creates or updates a meter or a keystore, or revokes.
pub(super) async fn apply(work: &Work) -> Result<Reply, Problem> {
    let mut judged_on = None;
    let group = group_of(&work.parts, &work.request, &work.operation);
    for round in 1..=ROUNDS {
        if let Ok(roster) = work.parts.roster(group) {
            presence::wait_for(work, &roster.deciders(), |there| roster.is_quorum(there)).await;
        }
        let weighed = work.weigh(Purpose::Endorse).await?;
        let (group, version) = (weighed.group, weighed.judgement.state_version);
        if judged_on == Some(version) || work.left().is_zero() {
            // Nothing changed that would explain why the others do not agree.
            return Err(no_quorum("endorse this change"));
        }
        let decided = weighed.record().await.map_err(|_| busy())?;
        let statement = statement_of(&work.parts, &work.request, &decided, work.operation)
            .ok_or_else(|| Problem::malformed("This request changes nothing."))?;
        let own = sign_statement(&work.parts, &work.request, &decided, &statement);
        let question = Question {
            call: Call::Endorse(work.forwarded(round, group, Vec::new())),
            statement: statement.clone(),
            deadline: work.deadline,
        };
        let Committed::Here(outcome, endorsers) = commit(work, group, own, question).await? else {
            decided.conclude(round, Vec::new(), &Err(no_quorum("endorse this change")));
            // Whatever was acknowledged before now is applied here before this node judges again.
            confirm_group(&work.parts, group).await?;
            judged_on = Some(version);
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

/// Gathers endorsements beside our own, proposes, and answers the outcome that this node applied.
async fn commit(
    work: &Work,
    group: GroupId,
    own: Endorsement,
    question: Question,
) -> Result<Committed, Problem> {
    let parts = &work.parts;
    let question = Arc::new(question);
    let roster = parts.roster(group).map_err(cannot_contribute)?;
    let mut gathering = Gathering::start(parts, roster, &question);
    let endorsements = match gathering.quorum(own).await {
        Gathered::Quorum(endorsements) => endorsements,
        Gathered::Refused(problem) => return Err(*problem),
        Gathered::Overtaken => return Ok(Committed::Overtaken),
        Gathered::TooFew => return Err(no_quorum("endorse this change")),
    };
    let Question { statement, .. } = &*question;
    let request = work.request.encoded.clone();
    let denies = statement.command.restricts();
    let mut endorsers: Vec<u64> = endorsements.iter().map(|endorsement| endorsement.node).collect();
    endorsers.sort_unstable();
    let entry = Entry {
        statement: statement.clone(),
        request,
        endorsements,
    };
    let encoded = parts.encode_entry(group, &entry)?;
    let proposed = parts.propose(group, encoded, work.deadline);
    let proposed = parts.metrics.stages.time(Stage::commit, proposed).await;
    if denies {
        // A denial binds every member with a live link before it is acknowledged.
        let _ = tokio::time::timeout(DENIAL_WAIT, gathering.rest()).await;
    }
    let applied = proposed.map_err(propose_problem)?;
    let outcome = postcard::from_bytes(&applied.result).map_err(|_| busy())?;
    Ok(Committed::Here(outcome, endorsers))
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
        Rejection::Stale | Rejection::ConfigurationChanged | Rejection::EpochPassed => busy(),
        // Of no client's request.
        Rejection::Members(_) => busy(),
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
                let roster = parts.roster_of(id).map_err(cannot_contribute)?;
                let notice = symmetric_notice(roster.births().members.len());
                return Ok(Reply::ok(config).with_status(201).located(url).noticed(notice));
            }
            Ok(Reply::ok(json!({ "config": config })))
        }
        Applied::Revoked => Ok(Reply::no_content()),
        Applied::Key(..)
        | Applied::Time
        | Applied::Renewed(_)
        | Applied::Ordered(_)
        | Applied::Begun(_)
        | Applied::Moved(_) => Err(busy()),
    }
}

/// Proposes an entry of time for an idle group that this node leads.
pub(super) async fn pass_time(parts: &Arc<Parts>, group: GroupId) -> Result<(), Problem> {
    let operation: OperationId = parts.next_operation();
    let statement = crate::actors::holder::time_statement(parts, group.0, operation);
    let now = parts.now().map_err(|_| busy())?;
    let own = statement.endorse(parts.node, &parts.signing_key, now);
    let question = Question {
        call: Call::EndorseTime {
            group: group.0,
            operation,
        },
        statement,
        deadline: Instant::now() + TIME_DEADLINE,
    };
    let question = Arc::new(question);
    let roster = parts.roster(group).map_err(cannot_contribute)?;
    let gathered = Gathering::start(parts, roster, &question).quorum(own).await;
    let Gathered::Quorum(endorsements) = gathered else {
        return Err(no_quorum("endorse the time"));
    };
    let entry = Entry {
        statement: question.statement.clone(),
        request: Vec::new(),
        endorsements,
    };
    let encoded = parts.encode_entry(group, &entry)?;
    parts
        .consensus
        .propose(group, encoded, question.deadline)
        .await
        .map_err(propose_problem)?;
    Ok(())
}
