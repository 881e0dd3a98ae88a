//! A holder's decision: may this request have what it asks for, by this node's own clock and state, and is it on
//! this node's record? Nothing is contributed or endorsed but by a [`Decided`]; the coordinator's own part of a use
//! comes after `Use::gather`, which records as well.
//!
//! The order: clock, replay, fence, what the coordinator had applied, pending entries, judgement, audit record.

use std::sync::Arc;
use std::time::{Duration, Instant};

use conclave_consensus::{GroupId, View};

use super::examined::Examined;
use super::parts::Parts;
use super::stages::Stage;
use super::views::{GROUP_ZERO, Views, believed};
use super::wire::Abstention;
use crate::audit::{Entry, Health, Kind};
use crate::identifier::{LocalId, OperationId};
use crate::keystore::query;
use crate::operation::judge::{Case, Intent, Judgement, NotAllowed, Using};
use crate::operation::route::Route;
use crate::overload::Turn;
use crate::problem::Problem;
use crate::replay::{Kind as ReplayKind, Sighting, Verdict};
use crate::reply::Reply;

/// Longest wait for entries that a decision needs.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// The verdict of a record that stands for refusals beyond the rate of the record, of whatever requests.
const HELD_BACK: &str = "held back";

/// What a decision is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A change of the state: judged for repeats when it is applied.
    Endorse,
    /// A use of a key: judged for replays here.
    Contribute,
}

/// Who asks for what.
#[derive(Clone)]
pub struct Asked {
    /// For what.
    pub purpose: Purpose,
    /// The operation.
    pub operation: OperationId,
    /// Its attempt.
    pub attempt: u8,
    /// The coordinator, by its TLS identity.
    pub coordinator: u64,
    /// (group, index) that the coordinator had applied.
    pub needs: Vec<(u32, u64)>,
    /// The nodes that take part, as far as they are known, for the record.
    pub participants: Vec<u64>,
    /// The epoch of the key that it is to be used in, if the coordinator has said one.
    pub epoch: Option<u64>,
}

/// A judgement that allows, not yet on record.
pub struct Weighed {
    parts: Arc<Parts>,
    request: Arc<Examined>,
    asked: Asked,
    /// What was judged.
    pub judgement: Judgement,
    /// The group of the keystore.
    pub group: GroupId,
    /// Its applied index that the judgement rests on.
    pub applied: u64,
    /// This node's time when it judged, ms.
    pub now: u64,
    at: Instant,
}

/// A decision to contribute or to endorse, on record: the only thing that a contribution is made from.
pub struct Decided(Weighed);

impl std::ops::Deref for Decided {
    type Target = Weighed;

    fn deref(&self) -> &Weighed {
        &self.0
    }
}

/// A decision not to.
#[derive(Debug)]
pub enum Declined {
    /// The request does not authorize this.
    Refused(Box<Problem>),
    /// Another node may be able to decide.
    Abstained(Abstention),
    /// The same attempt again: the same bytes are the answer, if they are still here.
    Repeat,
}

impl From<Abstention> for Declined {
    fn from(abstention: Abstention) -> Self {
        Self::Abstained(abstention)
    }
}

impl From<Problem> for Declined {
    fn from(problem: Problem) -> Self {
        Self::Refused(Box::new(problem))
    }
}

/// Waits until this node's state is fresh enough, judges and records.
///
/// # Errors
/// [`Declined`].
pub async fn decide(parts: &Arc<Parts>, request: &Arc<Examined>, asked: Asked) -> Result<Decided, Declined> {
    Ok(weigh(parts, request, asked).await?.record().await?)
}

/// Everything of a decision but the record: the coordinator's record and the holders' run side by side.
///
/// # Errors
/// [`Declined`].
pub async fn weigh(parts: &Arc<Parts>, request: &Arc<Examined>, asked: Asked) -> Result<Weighed, Declined> {
    let now = parts.now().map_err(|_| Abstention::Clock)?;
    if asked.operation.node != asked.coordinator {
        parts.metrics.foreign_operations.inc();
        let problem = Problem::malformed("The operation is another node's.");
        return Err(refuse(parts, request, &asked, now, problem));
    }
    if asked.purpose == Purpose::Contribute {
        if let Health::DiskLow { .. } | Health::Failed = parts.audit.health() {
            return Err(Abstention::Audit.into());
        }
        sight(parts, request, &asked, now)?;
    }
    let group = group_of(parts, request, &asked.operation);
    let stages = &parts.metrics.stages;
    let settled = settled(parts, request, group, &asked, now);
    let views = stages.time(Stage::freshness, settled).await?;
    let applied = views.own.applied_index();
    let last = query::last_time(&views.own).map_err(|_| Abstention::Behind)?;
    if parts.clock.lock().now_in_group(Parts::system_ms(), last).is_err() {
        return Err(Abstention::Clock.into());
    }
    let judged = judge(parts, request, views, asked.operation, now);
    match stages.time(Stage::authorize, judged).await? {
        Ok(Judgement {
            intent: Intent::Use { record, .. },
            ..
        }) if asked.epoch.is_some_and(|epoch| epoch != record.epoch) => Err(Abstention::Epoch.into()),
        Ok(judgement) => {
            let (parts, request) = (parts.clone(), request.clone());
            Ok(Weighed {
                parts,
                request,
                asked,
                judgement,
                group,
                applied,
                now,
                at: Instant::now(),
            })
        }
        Err(problem) => Err(refuse(parts, request, &asked, now, problem)),
    }
}

impl Weighed {
    /// Refuses after all, for what this member knows beside the judgement.
    pub fn refuse(self, problem: Problem) -> Declined {
        refuse(&self.parts, &self.request, &self.asked, self.now, problem)
    }

    /// The present task's turn, for the keystore that this is about: later questions about it do not name it.
    pub fn turn(&self) -> Turn {
        let keystore = match &self.judgement.intent {
            Intent::Use { keystore, .. } => Some(*keystore),
            Intent::Generate(terms) => Some(terms.keystore),
            Intent::Change(command) => command.keystore(),
            _ => None,
        };
        let turn = Turn::current();
        keystore.map_or(turn, |keystore| turn.of_keystore(keystore))
    }

    /// Whether it may still be acted on: 5 s.
    pub fn is_fresh(&self) -> bool {
        self.at.elapsed() < Duration::from_secs(5)
    }

    /// Puts it on this node's record; durable when this returns.
    ///
    /// # Errors
    /// [`Abstention::Audit`] or [`Abstention::Busy`]: then nothing may be contributed.
    pub async fn record(self) -> Result<Decided, Abstention> {
        self.append(self.asked.attempt, self.asked.participants.clone())
            .await?;
        Ok(Decided(self))
    }

    /// The same with another attempt and participants: what a coordinator knows only when it asks.
    ///
    /// # Errors
    /// As [`Weighed::record`].
    pub async fn append(&self, attempt: u8, participants: Vec<u64>) -> Result<(), Abstention> {
        let kind = match self.asked.purpose {
            Purpose::Endorse => Kind::Endorsed,
            Purpose::Contribute => Kind::Contributed,
        };
        let entry = self.entry(kind, attempt, participants);
        let recorded = self.parts.record(entry);
        self.parts.metrics.stages.time(Stage::audit, recorded).await
    }

    /// The coordinator's record of how it ended, for which nobody waits: `participants` brought the answer. What the
    /// client signed is on the records before it.
    pub fn conclude(&self, attempt: u8, participants: Vec<u64>, answer: &Result<Reply, Problem>) {
        let mut entry = self.entry(Kind::Outcome, attempt, participants);
        entry.evidence = None;
        entry.verdict = match answer {
            Ok(reply) => reply.status.to_string(),
            Err(problem) => verdict_of(problem),
        };
        if let Err(error) = self.parts.audit.append_unsynced(entry) {
            tracing::warn!(%error, "an outcome could not be recorded");
        }
    }

    fn entry(&self, kind: Kind, attempt: u8, participants: Vec<u64>) -> Entry {
        let mut entry = self.request.record(kind, self.now, self.asked.operation, attempt);
        entry.group = self.group.0;
        entry.applied = self.applied;
        entry.participants = participants;
        entry.verdict = "ok".into();
        match &self.judgement.intent {
            Intent::Use {
                keystore,
                key,
                record,
                using,
            } => {
                entry.keystore = keystore.0;
                entry.key = Some(key.0);
                entry.epoch = record.epoch;
                entry.verdict = match using {
                    Using::Sign(_) => "sign".into(),
                    Using::DeriveSecret(_) => "deriveSecret".into(),
                    Using::Authenticate(_) => "sign".into(),
                    Using::Verify(..) => "verify".into(),
                    Using::Wrap(_) => "wrapKey".into(),
                    Using::Unwrap(_) => "unwrapKey".into(),
                };
            }
            Intent::Generate(terms) => {
                entry.keystore = terms.keystore.0;
                entry.key = Some(terms.key.0);
            }
            Intent::Change(command) => entry.keystore = command.keystore().map_or([0; 16], |id| id.0),
            _ => {}
        }
        entry
    }
}

/// The group that a request belongs to.
pub fn group_of(parts: &Parts, request: &Examined, operation: &OperationId) -> GroupId {
    match &request.route {
        Route::CreateKeystore => {
            let (cluster, name) = (parts.cluster(), &request.authenticated.name);
            parts.group_of(&LocalId::of_new_keystore(
                cluster,
                operation,
                name,
                parts.rules.groups,
            ))
        }
        route => match route.keystore().and_then(|named| named.id) {
            Some(keystore) => parts.group_of(&keystore),
            None => GROUP_ZERO,
        },
    }
}

fn sight(parts: &Parts, request: &Examined, asked: &Asked, now: u64) -> Result<(), Declined> {
    let authenticated = &request.authenticated;
    let sighting = Sighting {
        name: authenticated.name,
        operation: asked.operation,
        coordinator: asked.coordinator,
        attempt: asked.attempt,
        kind: if request.has_secret_result() {
            ReplayKind::Secret
        } else {
            ReplayKind::Plain
        },
        created: authenticated.created,
        expires: authenticated.expires,
    };
    let claimed = request.has_secret_result()
        && !parts
            .claims
            .lock()
            .allows(asked.coordinator, &authenticated.name, &authenticated.signature);
    if claimed {
        parts.metrics.foreign_claims.inc();
        tracing::warn!(from = asked.coordinator, "a request that another node claimed");
        return Err(refuse(parts, request, asked, now, Problem::replayed()));
    }
    match parts.replays.lock().judge(&sighting, parts.moment(now)) {
        Verdict::Fresh | Verdict::Retry | Verdict::Twin => Ok(()),
        Verdict::Repeat => Err(Declined::Repeat),
        Verdict::Refused(_) => {
            parts.metrics.replays.inc();
            Err(refuse(parts, request, asked, now, Problem::replayed()))
        }
        Verdict::Full | Verdict::Abstain => Err(Abstention::Memory.into()),
    }
}

async fn settled(
    parts: &Arc<Parts>,
    request: &Examined,
    group: GroupId,
    asked: &Asked,
    now: u64,
) -> Result<Views, Abstention> {
    parts
        .consensus
        .freshness()
        .may_contribute(group)
        .map_err(|_| Abstention::Fenced)?;
    let deadline = Instant::now() + PATIENCE;
    for (number, index) in asked.needs.iter().take(4) {
        let needed = GroupId(*number);
        if number >= &parts.rules.groups {
            return Err(Abstention::Behind);
        }
        parts
            .consensus
            .wait_applied(needed, *index, deadline)
            .await
            .map_err(|_| Abstention::Behind)?;
    }
    let own = match request.route.keystore().and_then(|named| named.id) {
        Some(keystore) => {
            parts
                .consensus
                .freshness()
                .settled(group, Parts::scope_of(&keystore), deadline)
                .await
        }
        None => {
            let view = parts.consensus.view(group).map_err(|_| Abstention::Behind)?;
            return Ok(Views {
                zero: zero(parts)?,
                own: view,
                denials: None,
            });
        }
    };
    let own = own.map_err(|_| Abstention::Behind)?;
    // The wait may have outlasted the leader: asked again, or a cut-off holder would decide by what it last saw.
    parts
        .consensus
        .freshness()
        .may_contribute(group)
        .map_err(|_| Abstention::Fenced)?;
    let denials = (asked.purpose == Purpose::Contribute).then(|| (parts.clone(), now));
    Ok(Views {
        zero: zero(parts)?,
        own,
        denials,
    })
}

fn zero(parts: &Parts) -> Result<View, Abstention> {
    believed(parts, GROUP_ZERO).map_err(Abstention::from)
}

/// Judges on `views`: the outer error is overload or a broken store, the inner one the refusal.
///
/// # Errors
/// [`Abstention`].
pub async fn judge(
    parts: &Arc<Parts>,
    request: &Arc<Examined>,
    views: Views,
    operation: OperationId,
    now: u64,
) -> Result<Result<Judgement, Problem>, Abstention> {
    let judge = {
        let (parts, request) = (parts.clone(), request.clone());
        move || {
            let case = Case {
                rules: &parts.rules,
                facts: &views,
                request: &request.authenticated,
                route: &request.route,
                operation,
                now,
            };
            case.judge()
        }
    };
    let verdict = match request.is_dear(&parts.rules) {
        true => parts.pool.run(judge).await.map_err(|_| Abstention::Busy)?,
        false => judge(),
    };
    match verdict {
        Ok(judgement) => Ok(Ok(judgement)),
        Err(NotAllowed::Problem(problem)) => Ok(Err(*problem)),
        Err(NotAllowed::State(error)) => {
            tracing::error!(%error, "the replicated state cannot be read");
            Err(Abstention::Behind)
        }
    }
}

/// A refusal of a validly signed request: counted, and on the record.
fn refuse(parts: &Parts, request: &Examined, asked: &Asked, now: u64, problem: Problem) -> Declined {
    let mut entry = request.record(Kind::Refused, now, asked.operation, asked.attempt);
    entry.group = group_of(parts, request, &asked.operation).0;
    entry.keystore = request
        .route
        .keystore()
        .and_then(|named| named.id)
        .map_or([0; 16], |id| id.0);
    record_refusal(parts, entry, asked.coordinator, &problem);
    problem.into()
}

/// Refusals are on the record too, up to a rate, and nobody waits for them. `asker` stands as the participant: the
/// operation may name another node.
pub(crate) fn record_refusal(parts: &Parts, mut entry: Entry, asker: u64, problem: &Problem) {
    parts.metrics.refusals.inc();
    let Some(count) = parts.refusals.lock().refused(entry.time_ms) else {
        return;
    };
    entry.count = count;
    entry.participants = vec![asker];
    entry.verdict = verdict_of(problem);
    tracing::info!(
        from = asker,
        verdict = entry.verdict,
        count,
        "a signed request is refused"
    );
    append_refusals(parts, entry);
}

/// Puts on record how many refusals the rate has held back: after a flood there may be no other that carries their count.
pub(crate) fn record_held_back(parts: &Parts, now: u64) {
    let Some(count) = parts.refusals.lock().due(now) else {
        return;
    };
    let mut entry = Entry::new(Kind::Refused, now, parts.next_operation());
    entry.count = count;
    entry.verdict = HELD_BACK.into();
    tracing::info!(
        count,
        "signed requests were refused beyond the rate of the record"
    );
    append_refusals(parts, entry);
}

/// Appends without waiting; what cannot be recorded now is counted by a later record.
fn append_refusals(parts: &Parts, entry: Entry) {
    let count = entry.count;
    if let Err(error) = parts.audit.append_unsynced(entry) {
        tracing::warn!(%error, count, "refusals could not be recorded");
        parts.refusals.lock().hold_back(count);
    }
}

/// A short code for the record: status and the name of the reason.
fn verdict_of(problem: &Problem) -> String {
    let reason = problem.cause.as_ref().map_or(&problem.name, |cause| &cause.name);
    let code = format!("{} {reason}", problem.status);
    code.chars().filter(char::is_ascii).take(64).collect()
}
