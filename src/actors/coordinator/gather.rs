//! Asking holders: as many as the quorum needs beside this node, in waves. All of a wave are told the same attempt and
//! the same participants, so that their records agree; when one of several falls out, the next wave asks them all
//! anew. What comes back was judged by the holder that gave it.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use conclave_transport::CallError;
use futures::StreamExt;
use futures::stream::FuturesUnordered;

use super::Work;
use super::change::no_quorum;
use crate::actors::wire::{Abstention, Answer, Call};
use crate::membership::Membership;
use crate::problem::Problem;

/// Silence after which another holder is asked as well.
const IMPATIENCE: Duration = Duration::from_millis(400);
/// Longest wait for one holder.
const PATIENCE: Duration = Duration::from_secs(2);
/// Waits before those that could not contribute are asked again, together less than a nonce pair lives.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(50),
    Duration::from_millis(150),
    Duration::from_millis(400),
    Duration::from_millis(1_000),
];
/// Quorums that are asked while holders say that they have too much to do: to ask on and on only adds to it.
const BUSY_QUORUMS: usize = 3;
/// Attempts that one holder accepts of one operation.
const MAX_ATTEMPTS: u8 = 4;

/// Who takes part in one attempt, the same on everybody's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wave {
    pub(super) attempt: u8,
    /// Ascending, this node among them if it contributes.
    pub(super) participants: Vec<u64>,
}

/// One holder's answer, with what the asker needs to understand it.
pub(super) struct Contribution<T> {
    pub(super) node: u64,
    pub(super) context: T,
    pub(super) answer: Answer,
}

/// Holders that were asked, and what is left to ask.
#[derive(Default)]
pub(super) struct Holders {
    /// Who hold the key's shares in this epoch.
    committee: Option<Arc<Membership>>,
    left: Vec<u64>,
    /// The last attempt of each: a holder counts its own.
    attempts: BTreeMap<u64, u8>,
    refusals: Vec<Problem>,
    /// Those that lied, refused or kept silent: not asked again for this request.
    excluded: BTreeSet<u64>,
    /// Holders that are needed.
    count: usize,
    /// This node, if it contributes as well.
    own: Option<u64>,
    /// Pauses taken so far.
    paused: usize,
    /// A holder that knows another epoch of the key: this node's state is behind, or it lies.
    ahead: Option<u64>,
    /// Answers that a holder has too much to do.
    busy: usize,
}

impl Holders {
    /// Who hold the key's shares in this epoch.
    pub(super) fn committee(&self) -> &Membership {
        // Set by whoever makes a use of this, before anything is asked.
        static NOBODY: std::sync::LazyLock<Membership> = std::sync::LazyLock::new(Membership::default);
        self.committee.as_deref().unwrap_or(&NOBODY)
    }

    /// Those of the committee with a live link, beginning with another one each time.
    fn begin(&mut self, work: &Work) {
        let parts = &work.parts;
        let nodes = self.committee().nodes().into_iter();
        let there = |node: &u64| *node != parts.node && parts.network.connected(*node);
        let mut left: Vec<u64> = nodes
            .filter(|node| there(node) && !self.excluded.contains(node))
            .collect();
        if !left.is_empty() {
            let offset = usize::try_from(work.turn()).unwrap_or(0) % left.len();
            left.rotate_left(offset);
        }
        self.left = left;
    }

    /// A holder that knows another epoch of the key, if one said so; asked once.
    pub(super) fn take_ahead(&mut self) -> Option<u64> {
        self.ahead.take()
    }

    /// Begins, or goes on in another epoch, with those who hold the shares; this node has one, or has none.
    pub(super) fn contribute(&mut self, work: &Work, committee: Arc<Membership>, contributes: bool) {
        self.count = committee.quorum() - usize::from(contributes);
        self.own = contributes.then_some(work.parts.node);
        let others = self.committee().index != committee.index;
        self.committee = Some(committee);
        if others {
            self.begin(work);
        }
    }

    /// So many may be wrong or away.
    fn tolerated(&self) -> usize {
        let committee = self.committee();
        committee.members.len() - committee.quorum()
    }

    /// Never asks this node again for this request.
    pub(super) fn exclude(&mut self, node: u64) {
        self.excluded.insert(node);
        self.left.retain(|other| *other != node);
    }

    /// Names a liar, and never asks it again for this request.
    pub(super) fn name(&mut self, work: &Work, node: u64, what: &str) {
        work.parts.name_liar(node, what);
        self.exclude(node);
    }

    /// The wave that comes next, if there are enough to ask.
    pub(super) fn next_wave(&self) -> Option<Wave> {
        self.plan().map(|(wave, _)| wave)
    }

    fn plan(&self) -> Option<(Wave, Vec<u64>)> {
        let attempts = |node: &u64| self.attempts.get(node).copied().unwrap_or(0);
        let able = self
            .left
            .iter()
            .copied()
            .filter(|node| attempts(node) < MAX_ATTEMPTS);
        let nodes: Vec<u64> = able.take(self.count).collect();
        if nodes.len() < self.count {
            return None;
        }
        let attempt = 1 + nodes.iter().map(attempts).max().unwrap_or(0);
        let mut participants: Vec<u64> = nodes.iter().copied().chain(self.own).collect();
        participants.sort_unstable();
        let wave = Wave {
            attempt,
            participants,
        };
        Some((wave, nodes))
    }

    /// Those that were asked before may be needed again: they come last.
    fn refill(&mut self, work: &Work) {
        let parts = &work.parts;
        for node in self.committee().nodes() {
            let known = node == parts.node || self.left.contains(&node) || self.excluded.contains(&node);
            if !known && parts.network.connected(node) {
                self.left.push(node);
            }
        }
    }

    /// Gathers contributions of as many holders as are needed. `ask` makes the question for a node in a wave, with
    /// what the asker needs to understand the answer; each question is made afresh. An answer that is not what `fits`
    /// wants names its holder.
    pub(super) async fn gather<T, F>(
        &mut self,
        work: &Work,
        fits: fn(&Answer) -> bool,
        ask: impl Fn(u64, Wave) -> F,
    ) -> Result<(Wave, Vec<Contribution<T>>), Problem>
    where
        F: Future<Output = Result<(T, Call), Problem>>,
    {
        self.refill(work);
        let mut gathered: Vec<Contribution<T>> = Vec::new();
        let mut asked = FuturesUnordered::new();
        // Asked in the last wave and neither failed nor here yet.
        let mut awaited: Vec<u64> = Vec::new();
        loop {
            if asked.is_empty() {
                let Some((wave, nodes)) = self.plan() else {
                    if !self.pause(work).await {
                        return Err(self.failure());
                    }
                    self.refill(work);
                    continue;
                };
                asked.extend(
                    self.start(&wave, &nodes)
                        .map(|node| send(work, node, wave.clone(), ask(node, wave.clone()))),
                );
                awaited = nodes;
            }
            let next = tokio::time::timeout(IMPATIENCE, asked.next()).await;
            let Ok(next) = next else {
                // One more beside the silent one; or, of several, everybody but the silent ones anew.
                let here = gathered.iter().map(|contribution| contribution.node);
                let able: Vec<u64> = here.chain(self.left.iter().copied()).collect();
                if able.len() < self.count {
                    continue;
                }
                self.left = able;
                if self.count > 1 {
                    self.left.append(&mut awaited);
                    gathered.clear();
                    asked.clear();
                } else if let Some((wave, nodes)) = self.plan() {
                    asked.extend(
                        self.start(&wave, &nodes)
                            .map(|node| send(work, node, wave.clone(), ask(node, wave.clone()))),
                    );
                }
                continue;
            };
            let Some((node, wave, answer)) = next else {
                continue;
            };
            awaited.retain(|other| *other != node);
            match self.take(work, node, answer, fits) {
                Some((context, answer)) => {
                    gathered.push(Contribution {
                        node,
                        context,
                        answer,
                    });
                    if gathered.len() == self.count {
                        return Ok((wave, gathered));
                    }
                }
                None if self.count > 1 => {
                    let again: Vec<u64> = gathered.drain(..).map(|contribution| contribution.node).collect();
                    let rest = std::mem::take(&mut self.left);
                    self.left = again.into_iter().chain(awaited.drain(..)).chain(rest).collect();
                    asked.clear();
                }
                None => {}
            }
            let overloaded = self.is_overloaded() && asked.is_empty();
            if overloaded || work.left().is_zero() || self.refusals.len() > self.tolerated() {
                return Err(self.failure());
            }
        }
    }

    /// Takes those of a wave off the list; they are to be asked.
    fn start<'a>(&mut self, wave: &Wave, nodes: &'a [u64]) -> impl Iterator<Item = u64> + use<'a> {
        self.left.retain(|node| !nodes.contains(node));
        self.attempts
            .extend(nodes.iter().map(|node| (*node, wave.attempt)));
        nodes.iter().copied()
    }

    /// A contribution, or what to make of the lack of one.
    fn take<T>(
        &mut self,
        work: &Work,
        node: u64,
        answer: Result<(T, Answer), Unanswered>,
        fits: fn(&Answer) -> bool,
    ) -> Option<(T, Answer)> {
        match answer {
            Ok((_, Answer::Refused(problem))) => {
                self.exclude(node);
                self.refusals.push(*problem);
            }
            Ok((_, Answer::Abstained(Abstention::Epoch))) => self.ahead = Some(node),
            Ok((_, Answer::Abstained(Abstention::Busy))) => self.busy += 1,
            Ok((_, Answer::Abstained(reason))) => tracing::debug!(node, %reason, "a holder abstained"),
            Ok((_, Answer::Misfit(reason))) => {
                self.exclude(node);
                tracing::warn!(node, reason, "a holder did not understand");
            }
            Ok((_, answer)) if !fits(&answer) => self.name(work, node, "an answer to another question"),
            Ok((context, answer)) => return Some((context, answer)),
            // It may be back in a moment: a node that stood still finds all its links broken at once.
            Err(Unanswered::Lost) => tracing::debug!(node, "the link with a holder broke"),
            Err(Unanswered::Silent(error)) => {
                self.exclude(node);
                tracing::debug!(node, error, "a holder did not answer");
            }
        }
        None
    }

    /// Nobody is left to ask. Around a node's death or return the rest may only be able in a moment: a link comes up,
    /// a fence falls, a share arrives. `false` when enough time was given.
    async fn pause(&mut self, work: &Work) -> bool {
        match PAUSES.get(self.paused) {
            // The others may know the epoch that this node knows; if nobody is left, it is this node that has to look again.
            Some(_) if self.ahead.is_some() => false,
            Some(pause) if work.left() > *pause + PATIENCE => {
                self.paused += 1;
                tokio::time::sleep(*pause).await;
                true
            }
            _ => false,
        }
    }

    fn is_overloaded(&self) -> bool {
        self.busy >= BUSY_QUORUMS * self.count.max(1)
    }

    fn failure(&mut self) -> Problem {
        // More holders than may be wrong have refused: that is the answer. Fewer say nothing yet.
        if self.refusals.len() > self.tolerated()
            && let Some(problem) = self.refusals.pop()
        {
            return problem;
        }
        if self.is_overloaded() {
            return Problem::unavailable(
                "The nodes that hold this key have more to do than they can; try again in a moment.",
            );
        }
        no_quorum("use this key")
    }
}

/// Asks one holder what `question` makes.
async fn send<T>(
    work: &Work,
    node: u64,
    wave: Wave,
    question: impl Future<Output = Result<(T, Call), Problem>>,
) -> (u64, Wave, Result<(T, Answer), Unanswered>) {
    let (context, call) = match question.await {
        Ok(question) => question,
        Err(problem) => return (node, wave, Err(Unanswered::Silent(problem.message))),
    };
    let answer = work.ask(node, &call, PATIENCE.min(work.left())).await;
    let answer = answer
        .map(|answer| (context, answer))
        .map_err(|error| match error {
            CallError::NotConnected | CallError::Closed => Unanswered::Lost,
            error => Unanswered::Silent(error.to_string()),
        });
    (node, wave, answer)
}

/// Why there is no answer of a holder.
enum Unanswered {
    /// The link with it broke.
    Lost,
    /// It did not say anything in time, or could not be asked.
    Silent(String),
}
