//! The door through which a passphrase reaches a sealed node: from the admin listener to [`super::obtain`].
//!
//! One attempt is worked on at a time, and a wrong one makes the next wait: [`AttemptLimit`].

use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnsealReply {
    /// The node has its key and goes on starting.
    Opened,
    /// Another passphrase is needed.
    Wrong,
    /// Too many wrong ones: wait.
    TooSoon {
        /// How long, in seconds.
        seconds: u64,
    },
    /// Another attempt is being worked on.
    Busy,
    /// The node has its key, or gets it in another way.
    NotSealed,
    /// The sealed key itself cannot be used.
    Unusable {
        /// What is wrong with it.
        reason: String,
    },
}

/// The outer side, for the admin listener. Cloned freely.
#[derive(Clone)]
pub struct Door(mpsc::Sender<Attempt>);

/// The inner side, for [`super::obtain`].
pub struct Attempts(mpsc::Receiver<Attempt>);

/// One passphrase, and where its answer goes.
pub struct Attempt {
    passphrase: Zeroizing<Vec<u8>>,
    reply: oneshot::Sender<UnsealReply>,
}

/// Where the answer to an attempt goes.
pub struct Answer(oneshot::Sender<UnsealReply>);

/// A new door.
pub fn door() -> (Door, Attempts) {
    let (outer, inner) = mpsc::channel(1);
    (Door(outer), Attempts(inner))
}

impl Door {
    /// Tries a passphrase and waits for the outcome.
    pub async fn attempt(&self, passphrase: Zeroizing<Vec<u8>>) -> UnsealReply {
        let (reply, outcome) = oneshot::channel();
        match self.0.try_send(Attempt { passphrase, reply }) {
            Ok(()) => outcome.await.unwrap_or(UnsealReply::NotSealed),
            Err(mpsc::error::TrySendError::Full(_)) => UnsealReply::Busy,
            Err(mpsc::error::TrySendError::Closed(_)) => UnsealReply::NotSealed,
        }
    }
}

impl Attempts {
    /// The next attempt; `None` when every [`Door`] is gone.
    pub async fn receive(&mut self) -> Option<Attempt> {
        self.0.recv().await
    }
}

impl Attempt {
    /// Answers without a look at the passphrase.
    pub fn answer(self, reply: UnsealReply) {
        Answer(self.reply).send(reply);
    }

    /// The passphrase, and where the answer goes.
    pub fn split(self) -> (Zeroizing<Vec<u8>>, Answer) {
        (self.passphrase, Answer(self.reply))
    }
}

impl Answer {
    /// Answers; that nobody waits any more is no error.
    pub fn send(self, reply: UnsealReply) {
        let _ = self.0.send(reply);
    }
}

/// Slows guessing: after the third wrong passphrase each next one waits, 1 s, 2 s, 4 s and so on up to a minute.
#[derive(Debug, Default)]
pub struct AttemptLimit {
    failures: u32,
    not_before: Option<Instant>,
}

impl AttemptLimit {
    const FREE: u32 = 3;
    const LONGEST: Duration = Duration::from_secs(60);

    /// Whether an attempt may be worked on at `now`; else the seconds to wait, rounded up.
    pub fn admit(&self, now: Instant) -> Result<(), u64> {
        match self.not_before {
            Some(at) if now < at => Err((at - now).as_millis().div_ceil(1000) as u64),
            _ => Ok(()),
        }
    }

    /// Counts a wrong passphrase.
    pub fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        if let Some(beyond) = self.failures.checked_sub(Self::FREE) {
            let wait = Duration::from_secs(1 << beyond.min(6)).min(Self::LONGEST);
            self.not_before = Some(now + wait);
        }
    }
}
