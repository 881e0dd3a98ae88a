//! Bytes that were answered to an attempt, for a frame that comes again: a nonce pair answers once, whatever the
//! network does. Forgotten after 10 s, when the replay rule no longer lets the operation come again.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::wire::Answer;
use crate::identifier::OperationId;

const LIFE: Duration = Duration::from_secs(10);
const MAX: usize = 16_384;

/// Which answer: operation and attempt.
pub type Attempt = (OperationId, u8);

/// Remembered answers.
#[derive(Default)]
pub struct Answers {
    answers: HashMap<Attempt, Answer>,
    order: VecDeque<(Instant, Attempt)>,
}

impl Answers {
    /// Remembers an answer.
    pub fn keep(&mut self, attempt: Attempt, answer: Answer, now: Instant) {
        while self
            .order
            .front()
            .is_some_and(|(at, _)| now.duration_since(*at) > LIFE)
            || self.order.len() >= MAX
        {
            if let Some((_, old)) = self.order.pop_front() {
                self.answers.remove(&old);
            }
        }
        if self.answers.insert(attempt, answer).is_none() {
            self.order.push_back((now, attempt));
        }
    }

    /// The answer of this attempt, if it is still known.
    pub fn of(&self, attempt: &Attempt) -> Option<Answer> {
        self.answers.get(attempt).cloned()
    }
}
