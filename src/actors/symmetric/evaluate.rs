//! This node as the evaluator: it asks both garblers, takes what streams in, and compares everything before it decodes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use conclave_garbled::session::{Abort, Context, Evaluation, Outputs, Tail, Task};
use conclave_garbled::sharing::EvaluatorParts;
use conclave_transport::CallError;
use futures::StreamExt;
use futures::stream::FuturesUnordered;

use super::pairing;
use super::stream::{Arrivals, SEGMENT, Segment, WINDOW};
use crate::actors::parts::Parts;
use crate::actors::wire::{Abstention, Answer, Call};
use crate::overload::Turn;
use crate::problem::Problem;

/// Longest time for a small computation; large ones get a second more for each [`GATES`].
const PATIENCE: Duration = Duration::from_millis(1_500);
/// AND gates that the slowest garbler does in a second.
const GATES: usize = 1_000_000;

/// One computation, as this node has derived it.
pub(crate) struct Computation {
    pub(crate) context: Context,
    pub(crate) task: Task,
    /// This node's parts of the secret inputs.
    pub(crate) secret: EvaluatorParts,
}

/// Why nothing came of it.
#[derive(Debug)]
pub(crate) enum Fallen {
    /// Garblers refuse, in their own judgement; each once.
    Refused(Vec<(u64, Box<Problem>)>),
    /// A garbler cannot now, or says nothing.
    Silent(u64),
    /// A garbler has too much to do.
    Busy(u64),
    /// A garbler knows another epoch of the key.
    Ahead(u64),
    /// What the garblers sent does not fit: one of them is corrupt, or the line was.
    Aborted,
    /// This node itself cannot.
    Own(Abstention),
}

/// Asks both garblers the same and evaluates.
///
/// # Errors
/// [`Fallen`].
pub(crate) async fn evaluate(
    parts: &Arc<Parts>,
    computation: Computation,
    call: &Call,
    left: Duration,
) -> Result<Outputs, Fallen> {
    let turn = super::garble::turn(&computation.context);
    turn.scope(evaluate_in_turn(parts, computation, call, left)).await
}

async fn evaluate_in_turn(
    parts: &Arc<Parts>,
    computation: Computation,
    call: &Call,
    left: Duration,
) -> Result<Outputs, Fallen> {
    let large = u32::try_from(computation.task.program.ands() / GATES).unwrap_or(u32::MAX);
    let patience = PATIENCE + Duration::from_secs(1).saturating_mul(large);
    // Waiting to be admitted is part of what is left.
    let latest = Instant::now() + left;
    let admitted = parts.symmetric.streams.admit().await;
    let _admitted = admitted.map_err(|why| {
        parts.metrics.shed.count_pool(why, Turn::current().class);
        Fallen::Own(Abstention::Busy)
    })?;
    let [first, second, _] = computation.context.roles;
    let secret = |node| async move { pairing::with(parts, node).await.map_err(|_| Fallen::Silent(node)) };
    let (with_first, with_second) = (secret(first).await?, secret(second).await?);
    let arrivals = Arrivals::open(parts, computation.context.number, [first, second]);
    let Computation {
        context,
        task,
        secret,
    } = computation;
    let begin = move || Evaluation::begin(&context, task, (&with_first, &with_second), secret);
    let evaluating = Evaluating {
        parts,
        garblers: [first, second],
        evaluation: in_pool(parts, begin).await?,
        arrivals,
        owed: 0,
        tail: None,
        awaited: vec![first, second],
        refused: Vec::new(),
        deadline: (Instant::now() + patience).min(latest),
    };
    let evaluation = evaluating.gather(call).await?;
    let finished = in_pool(parts, move || evaluation.finish()).await?;
    finished.map_err(|Abort| Fallen::Aborted)
}

/// A computation while its messages come in.
struct Evaluating<'a> {
    parts: &'a Arc<Parts>,
    garblers: [u64; 2],
    evaluation: Evaluation,
    arrivals: Arrivals<'a>,
    /// Segments that were taken and not yet said to be.
    owed: u8,
    /// The first garbler's last message, until the tables before it are here: they come on another lane.
    tail: Option<Tail>,
    /// Garblers whose answer is not here yet.
    awaited: Vec<u64>,
    refused: Vec<(u64, Box<Problem>)>,
    deadline: Instant,
}

impl Evaluating<'_> {
    /// Until everything has come.
    async fn gather(mut self, call: &Call) -> Result<Evaluation, Fallen> {
        let (parts, deadline) = (self.parts, self.deadline);
        let left = deadline.saturating_duration_since(Instant::now());
        let asked = self.garblers.map(|node| async move {
            let answer = parts.ask(node, call, left).await;
            (node, answer.map(|answer| parts.alone(node, answer)))
        });
        let mut answers: FuturesUnordered<_> = asked.into_iter().collect();
        while !(answers.is_empty() && self.evaluation.is_complete()) {
            tokio::select! {
                Some((node, answer)) = answers.next() => self.answered(node, answer)?,
                arrived = self.arrivals.next() => {
                    self = self.take(arrived.ok_or(Fallen::Aborted)?).await?;
                }
                () = tokio::time::sleep_until(deadline.into()) => return Err(self.late()),
            }
            if !self.refused.is_empty() && self.awaited.is_empty() {
                return Err(Fallen::Refused(self.refused));
            }
            if self.evaluation.has_all_tables()
                && let Some(tail) = self.tail.take()
            {
                self.evaluation.tail(&tail).map_err(|Abort| Fallen::Aborted)?;
            }
        }
        Ok(self.evaluation)
    }

    /// Who has not done its part in time.
    fn late(self) -> Fallen {
        match (self.refused.is_empty(), self.awaited.first()) {
            (false, _) => Fallen::Refused(self.refused),
            (true, Some(node)) => Fallen::Silent(*node),
            // Both have answered, and not all that they said they sent is here.
            (true, None) => Fallen::Silent(self.garblers[0]),
        }
    }

    fn answered(&mut self, node: u64, answer: Result<Answer, CallError>) -> Result<(), Fallen> {
        let [first, second] = self.garblers;
        self.awaited.retain(|awaited| *awaited != node);
        match answer {
            Ok(Answer::Garbled(tail)) if node == first => self.tail = Some(tail),
            Ok(Answer::Vouched(mac)) if node == second => {
                self.evaluation.vouch(mac).map_err(|Abort| Fallen::Aborted)?;
            }
            // The other one may refuse as well: then it is so.
            Ok(Answer::Refused(problem)) => self.refused.push((node, problem)),
            Ok(Answer::Misfit(reason)) => {
                tracing::warn!(node, reason, "a garbler did not understand");
                return Err(Fallen::Silent(node));
            }
            Ok(Answer::Abstained(Abstention::Busy)) => return Err(Fallen::Busy(node)),
            Ok(Answer::Abstained(Abstention::Epoch)) => return Err(Fallen::Ahead(node)),
            answer => {
                if let Ok(Answer::Abstained(reason)) = answer {
                    tracing::debug!(node, %reason, "a garbler abstained");
                }
                return Err(Fallen::Silent(node));
            }
        }
        Ok(())
    }

    /// Takes a segment, and with it whatever else has come.
    async fn take(mut self, arrived: (u64, Segment)) -> Result<Self, Fallen> {
        let [first, _] = self.garblers;
        let mut segments = vec![arrived];
        segments.extend(std::iter::from_fn(|| self.arrivals.next_now()).take(WINDOW));
        let tables = segments
            .iter()
            .filter(|(_, segment)| matches!(segment, Segment::Tables(_)));
        self.owed = self
            .owed
            .saturating_add(u8::try_from(tables.count()).unwrap_or(u8::MAX));
        let mut evaluation = self.evaluation;
        let take = move || {
            let taken = segments
                .into_iter()
                .try_for_each(|(from, segment)| match segment {
                    Segment::Head(head) if from == first => evaluation.head(&head),
                    Segment::Tables(tables) if from == first => evaluation.tables(&tables),
                    Segment::Openings(openings) if from != first => evaluation.openings(&openings),
                    _ => Err(Abort),
                });
            (evaluation, taken)
        };
        let (evaluation, taken) = in_pool(self.parts, take).await?;
        taken.map_err(|Abort| Fallen::Aborted)?;
        self.evaluation = evaluation;
        // What cannot be evaluated yet, because the other garbler is late, is bounded by the window. After the last tables
        // nobody waits for room.
        let has_room = self.evaluation.waiting() < SEGMENT && !self.evaluation.has_all_tables();
        if has_room && self.owed > 0 {
            self.arrivals.taken(first, std::mem::take(&mut self.owed)).await;
        }
        if self.evaluation.waiting() > 2 * WINDOW * SEGMENT {
            return Err(Fallen::Aborted);
        }
        Ok(self)
    }
}

async fn in_pool<T: Send + 'static>(
    parts: &Parts,
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Fallen> {
    parts
        .pool
        .run(job)
        .await
        .map_err(|_| Fallen::Own(Abstention::Busy))
}
