//! The rules by which a holder tells a retry and a twin from a replay (trust.md, section 5).
//!
//! Ask after signature and digest are checked and before the capability chain is. Only uses of a key come here:
//! state changes are judged when they are applied, GET and HEAD never are.
//! One holder's refusal stops nothing; the coordinator counts them.

use std::collections::{HashMap, VecDeque};

use super::memory::Memory;
use crate::audit::{self, OperationId, Record};

/// Seconds that a name is remembered past the request's `expires`: the clock skew that verifiers allow.
const SKEW_S: u64 = 300;
/// Furthest `expires` ahead of the holder's clock, in seconds: the client's 600 and the skew. So no name has to
/// be remembered longer than 20 minutes.
const AHEAD_S: u64 = 900;
/// Milliseconds after the first sight in which the same operation may come again.
const RETRY_MS: u64 = 10_000;
/// Attempts of one operation, the first included.
const ATTEMPTS: usize = 4;
/// Milliseconds after the first sight in which another operation may bring the same bytes.
const TWIN_MS: u64 = 2_000;
/// Operations with the same bytes, the first included.
const TWINS: usize = 16;

/// Whether the result of the operation is secret: from another coordinator such a twin is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// derive, unwrap.
    Secret,
    /// sign, verify, HMAC, wrap.
    Plain,
}

/// Whether twins are served at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Twins {
    /// Two identical requests within two seconds are two requests.
    Allow,
    /// Every request is good for one use.
    None,
}

/// Now, by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Milliseconds of the monotonic clock, from any start.
    pub mono_ms: u64,
    /// Milliseconds since 1970 by the holder's clock ([`super::HolderClock`]).
    pub wall_ms: u64,
}

/// How a guard judges and how much it remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whether twins are served.
    pub twins: Twins,
    /// Most names remembered; at the bound new ones are refused and none is forgotten (8 million).
    pub bound: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            twins: Twins::Allow,
            bound: 8_000_000,
        }
    }
}

/// A request as a holder sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// SHA-256(keyId, 0, signing string).
    pub name: [u8; 32],
    /// The operation that brings it.
    pub operation: OperationId,
    /// The sender by its TLS identity, or the relay whose signature was checked.
    pub coordinator: u64,
    /// The coordinator's attempt number.
    pub attempt: u8,
    /// Whether its result is secret.
    pub kind: Kind,
    /// The request's `created`, seconds since 1970.
    pub created: u64,
    /// The request's `expires`, seconds since 1970.
    pub expires: u64,
}

/// What the holder does with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Never seen: check everything, record, contribute.
    Fresh,
    /// The same operation again: check everything afresh, with fresh nonces.
    Retry,
    /// The same attempt of the same operation: send the bytes of then again, compute nothing. If they are gone
    /// (a restart), answer that, and the coordinator comes with another attempt.
    Repeat,
    /// The same bytes by another operation, soon enough: check and record it as a request of its own.
    Twin,
    /// Refused; 409 at the client if enough holders say so.
    Refused(Refusal),
    /// No room to remember it: 503.
    Full,
    /// What was seen before the restart is not read back yet: another holder may know.
    Abstain,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its bytes were used before.
    Replayed,
    /// It is past its time, so nothing says any more whether it was used.
    Expired,
    /// Its `expires` is further ahead than a name is remembered.
    ExpiresTooLate,
}

/// One operation that brought a name.
struct Sight {
    operation: OperationId,
    coordinator: u64,
    attempts: Vec<u8>,
}

/// What is known of a name in its first ten seconds.
struct Seen {
    /// Monotonic milliseconds until which the operations below may come again.
    retry_until: u64,
    /// Until which others may bring the same bytes; `None` for a name that was read back.
    twins_until: Option<u64>,
    /// Second until which the name must be known.
    known_until: u64,
    sights: Vec<Sight>,
}

/// What a holder remembers of the requests that it has seen.
pub struct ReplayGuard {
    settings: Settings,
    start: Moment,
    restored: bool,
    /// Never runs back, or a name that was dropped could come again.
    wall_s: u64,
    recent: HashMap<[u8; 32], Seen>,
    /// The names of `recent` by the end of their retry time, roughly: a name is looked at when it comes up.
    order: VecDeque<(u64, [u8; 32])>,
    old: Memory,
}

impl ReplayGuard {
    /// An empty guard of a holder that starts at `start`; `key` is 32 random bytes. Hand it the records that
    /// were read back with [`ReplayGuard::restore`], then say [`ReplayGuard::restored`]: until then it abstains
    /// from what was created up to the second of its start.
    pub fn new(settings: Settings, key: [u8; 32], start: Moment) -> ReplayGuard {
        ReplayGuard {
            settings,
            start,
            restored: false,
            wall_s: start.wall_ms / 1000,
            recent: HashMap::new(),
            order: VecDeque::new(),
            old: Memory::new(key),
        }
    }

    /// Takes in one audit record of before the start; records that remember nothing are passed over.
    pub fn restore(&mut self, record: &Record) {
        let Some(entry) = record.entry() else { return };
        if !matches!(entry.kind, audit::Kind::Contributed | audit::Kind::Refused) {
            return;
        }
        let known_until = entry.expires.saturating_add(SKEW_S);
        if known_until <= self.wall_s {
            return;
        }
        let age = self.start.wall_ms.saturating_sub(record.time_ms);
        let contributed = entry.kind == audit::Kind::Contributed;
        if let Some(seen) = self.recent.get_mut(&entry.name) {
            // What was refused gives its operation no right to come again.
            if contributed {
                note(
                    &mut seen.sights,
                    entry.operation,
                    entry.operation.node,
                    entry.attempt,
                );
            }
            return;
        }
        if age > RETRY_MS || self.old.contains(&entry.name, known_until) {
            self.old.insert(&entry.name, known_until);
            return;
        }
        let retry_until = self.start.mono_ms.saturating_add(RETRY_MS - age);
        let mut sights = Vec::new();
        if contributed {
            note(&mut sights, entry.operation, entry.operation.node, entry.attempt);
        }
        self.recent.insert(
            entry.name,
            Seen {
                retry_until,
                twins_until: None,
                known_until,
                sights,
            },
        );
        self.order.push_back((retry_until, entry.name));
    }

    /// Every record of before the start has been taken in.
    pub fn restored(&mut self) {
        self.restored = true;
    }

    /// Whether [`ReplayGuard::restored`] was said.
    pub fn is_restored(&self) -> bool {
        self.restored
    }

    /// Names remembered.
    pub fn len(&self) -> usize {
        self.recent.len() + self.old.len()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Judges a request and remembers it.
    pub fn judge(&mut self, sighting: &Sighting, now: Moment) -> Verdict {
        self.advance(now);
        let known_until = sighting.expires.saturating_add(SKEW_S);
        if known_until <= self.wall_s {
            return Verdict::Refused(Refusal::Expired);
        }
        if sighting.expires > self.wall_s.saturating_add(AHEAD_S) {
            return Verdict::Refused(Refusal::ExpiresTooLate);
        }
        if let Some(seen) = self.recent.get_mut(&sighting.name) {
            return judge_seen(seen, sighting, now.mono_ms, self.settings.twins);
        }
        if self.old.contains(&sighting.name, known_until) {
            return Verdict::Refused(Refusal::Replayed);
        }
        // `created` has whole seconds: within the second of the start it may have been before it.
        if !self.restored && sighting.created <= self.start.wall_ms / 1000 {
            return Verdict::Abstain;
        }
        if self.len() >= self.settings.bound {
            return Verdict::Full;
        }
        let retry_until = now.mono_ms.saturating_add(RETRY_MS);
        let mut sights = Vec::with_capacity(1);
        note(
            &mut sights,
            sighting.operation,
            sighting.coordinator,
            sighting.attempt,
        );
        let twins_until = Some(now.mono_ms.saturating_add(TWIN_MS));
        self.recent.insert(
            sighting.name,
            Seen {
                retry_until,
                twins_until,
                known_until,
                sights,
            },
        );
        self.order.push_back((retry_until, sighting.name));
        Verdict::Fresh
    }

    /// Lets time pass: what is ten seconds old becomes a fingerprint, what is past its time is dropped. `judge`
    /// does it too; call it now and then while nothing comes.
    pub fn advance(&mut self, now: Moment) {
        self.wall_s = self.wall_s.max(now.wall_ms / 1000);
        while let Some((retry_until, name)) = self.order.front()
            && *retry_until < now.mono_ms
        {
            if let Some(seen) = self.recent.remove(name)
                && seen.known_until > self.wall_s
            {
                self.old.insert(name, seen.known_until);
            }
            self.order.pop_front();
        }
        self.old.advance(self.wall_s);
    }
}

fn judge_seen(seen: &mut Seen, sighting: &Sighting, mono_ms: u64, twins: Twins) -> Verdict {
    const REPLAYED: Verdict = Verdict::Refused(Refusal::Replayed);
    if let Some(sight) = seen
        .sights
        .iter_mut()
        .find(|sight| sight.operation == sighting.operation)
    {
        if sight.coordinator != sighting.coordinator || mono_ms > seen.retry_until {
            return REPLAYED;
        }
        if sight.attempts.contains(&sighting.attempt) {
            return Verdict::Repeat;
        }
        if sight.attempts.len() >= ATTEMPTS {
            return REPLAYED;
        }
        sight.attempts.push(sighting.attempt);
        return Verdict::Retry;
    }
    let in_time = seen.twins_until.is_some_and(|until| mono_ms <= until);
    if twins == Twins::None || !in_time || seen.sights.len() >= TWINS {
        return REPLAYED;
    }
    // Whoever saw the bytes of a secret result could bring them from another node to learn it.
    let foreign = seen
        .sights
        .iter()
        .any(|sight| sight.coordinator != sighting.coordinator);
    if sighting.kind == Kind::Secret && foreign {
        return REPLAYED;
    }
    note(
        &mut seen.sights,
        sighting.operation,
        sighting.coordinator,
        sighting.attempt,
    );
    Verdict::Twin
}

fn note(sights: &mut Vec<Sight>, operation: OperationId, coordinator: u64, attempt: u8) {
    match sights.iter_mut().find(|sight| sight.operation == operation) {
        Some(sight) if sight.attempts.contains(&attempt) => {}
        Some(sight) => sight.attempts.push(attempt),
        None => sights.push(Sight {
            operation,
            coordinator,
            attempts: vec![attempt],
        }),
    }
}
