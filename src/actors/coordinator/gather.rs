//! Asking holders: as many as the quorum needs beside this node, in turn, one more for each that is silent, behind
//! or lying, at most three quorums. What comes back was judged by the holder that gave it.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;

use super::Work;
use super::change::no_quorum;
use crate::actors::wire::{Answer, Call};
use crate::identifier::LocalId;
use crate::keystore::KeyRecord;
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
/// Attempts that one holder accepts of one operation.
const MAX_ATTEMPTS: u8 = 4;

/// The key that is used.
pub(super) struct Target {
    pub(super) keystore: LocalId,
    pub(super) key: LocalId,
    pub(super) record: Box<KeyRecord>,
}

/// Holders that were asked, and what is left to ask.
pub(super) struct Holders {
    left: Vec<u64>,
    /// Questions that each holder has got: a holder counts its own attempts.
    attempts: BTreeMap<u64, u8>,
    refusals: Vec<Problem>,
    /// Those that lied, refused or did not answer: not asked again for this request.
    excluded: BTreeSet<u64>,
    tolerated: usize,
    /// Pauses taken so far.
    paused: usize,
}

impl Holders {
    /// The members with a live link, beginning with another one each time.
    pub(super) fn new(work: &Work) -> Self {
        let parts = &work.parts;
        let members = &parts.membership.members;
        let mut left: Vec<u64> = members
            .iter()
            .map(|member| member.node)
            .filter(|node| *node != parts.node && parts.network.connected(*node))
            .collect();
        if !left.is_empty() {
            let offset = usize::try_from(work.operation.counter).unwrap_or(0) % left.len();
            left.rotate_left(offset);
        }
        let tolerated = members.len() - parts.membership.quorum();
        Self {
            left,
            attempts: BTreeMap::new(),
            refusals: Vec::new(),
            excluded: BTreeSet::new(),
            tolerated,
            paused: 0,
        }
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

    /// Those that contributed to an earlier try may be needed for the next one: they come last.
    fn refill(&mut self, work: &Work) {
        let parts = &work.parts;
        for member in &parts.membership.members {
            let node = member.node;
            let asked = node == parts.node || self.left.contains(&node) || self.excluded.contains(&node);
            if !asked && parts.network.connected(node) {
                self.left.push(node);
            }
        }
    }

    /// Gathers contributions of `count` holders. `ask` makes the question for a node and an attempt, with what the
    /// asker needs to understand the answer; each question is made afresh. An answer that is not what `fits` wants
    /// names its holder.
    pub(super) async fn gather<T, F>(
        &mut self,
        work: &Work,
        count: usize,
        fits: fn(&Answer) -> bool,
        ask: impl Fn(u64, u8) -> F,
    ) -> Result<Vec<(u64, T, Answer)>, Problem>
    where
        F: Future<Output = Result<(T, Call), Problem>>,
    {
        self.refill(work);
        let mut gathered: Vec<(u64, T, Answer)> = Vec::new();
        let mut asked = FuturesUnordered::new();
        loop {
            while gathered.len() + asked.len() < count {
                let Some((node, attempt)) = self.next() else { break };
                asked.push(send(work, node, ask(node, attempt)));
            }
            if asked.is_empty() {
                if !self.pause(work).await {
                    return Err(self.failure());
                }
                self.refill(work);
                self.left
                    .retain(|node| gathered.iter().all(|(other, ..)| other != node));
                continue;
            }
            let next = match tokio::time::timeout(IMPATIENCE, asked.next()).await {
                Ok(next) => next,
                Err(_) => {
                    if let Some((node, attempt)) = self.next() {
                        asked.push(send(work, node, ask(node, attempt)));
                        continue;
                    }
                    asked.next().await
                }
            };
            match next {
                Some((node, Ok((context, answer)))) => match answer {
                    Answer::Refused(problem) => {
                        self.exclude(node);
                        self.refusals.push(*problem);
                        if self.refusals.len() > self.tolerated {
                            return Err(self.failure());
                        }
                    }
                    Answer::Abstained(reason) => tracing::debug!(node, %reason, "a holder abstained"),
                    Answer::Misfit(reason) => {
                        self.exclude(node);
                        tracing::warn!(node, reason, "a holder did not understand");
                    }
                    answer if !fits(&answer) => self.name(work, node, "an answer to another question"),
                    answer => {
                        gathered.push((node, context, answer));
                        if gathered.len() == count {
                            return Ok(gathered);
                        }
                    }
                },
                Some((node, Err(error))) => {
                    self.exclude(node);
                    tracing::debug!(node, error, "a holder did not answer");
                }
                None => {}
            }
            if work.left().is_zero() {
                return Err(self.failure());
            }
        }
    }

    /// Nobody is left to ask. Around a node's death or return the rest may only be able in a moment: a link comes up,
    /// a fence falls, a share arrives. `false` when enough time was given.
    async fn pause(&mut self, work: &Work) -> bool {
        match PAUSES.get(self.paused) {
            Some(pause) if work.left() > *pause + PATIENCE => {
                self.paused += 1;
                tokio::time::sleep(*pause).await;
                true
            }
            _ => false,
        }
    }

    /// The next holder to ask, and which of its attempts that is.
    fn next(&mut self) -> Option<(u64, u8)> {
        while !self.left.is_empty() {
            let node = self.left.remove(0);
            let attempt = self.attempts.entry(node).or_default();
            if *attempt < MAX_ATTEMPTS {
                *attempt += 1;
                return Some((node, *attempt));
            }
        }
        None
    }

    fn failure(&mut self) -> Problem {
        // More holders than may be wrong have refused: that is the answer. Fewer say nothing yet.
        if self.refusals.len() > self.tolerated
            && let Some(problem) = self.refusals.pop()
        {
            return problem;
        }
        no_quorum("use this key")
    }
}

/// Asks one holder what `question` makes.
async fn send<T>(
    work: &Work,
    node: u64,
    question: impl Future<Output = Result<(T, Call), Problem>>,
) -> (u64, Result<(T, Answer), String>) {
    let (context, call) = match question.await {
        Ok(question) => question,
        Err(problem) => return (node, Err(problem.message)),
    };
    let answer = work.parts.ask(node, &call, PATIENCE.min(work.left())).await;
    (
        node,
        answer
            .map(|answer| (context, answer))
            .map_err(|error| error.to_string()),
    )
}
