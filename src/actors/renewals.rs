//! Renewals of key shares: when they are due, and those that this node takes part in, bounded in number and in time. Pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use conclave_threshold::dkg::Participant;

use super::symmetric::refreshing::Refreshing;
use super::wire::Beginning;
use crate::identifier::{LocalId, OperationId};
use crate::keystore::KeyRecord;

/// Longest life of a renewal.
const LIFE: Duration = Duration::from_secs(10);
/// How long an ended one is remembered: a proposal is taken within 5 s of its start.
const MEMORY: Duration = Duration::from_secs(30);
/// Most at once for one coordinator.
const MAX: usize = 8;
/// Old shares are made unreadable together, once none has been removed for so long ...
const QUIET: Duration = Duration::from_secs(60);
/// ... or this long after the first one.
const LATEST: Duration = Duration::from_secs(3_600);

/// Names one: a hash of everything that its participants agree on.
pub type Id = [u8; 32];

/// When shares are renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Shares are renewed at this age, ms; 0: never.
    pub period: u64,
    /// Keys that this node renews in a second, as a leader.
    pub keys_per_second: u32,
}

impl Policy {
    /// When shares of this time are due, ms: those from before the operators' order at once.
    pub fn due(&self, shared_at: u64, ordered: u64) -> Option<u64> {
        if shared_at < ordered {
            return Some(ordered);
        }
        (self.period > 0).then(|| shared_at.saturating_add(self.period))
    }

    /// Whether this node takes part for a leader whose clock or period differs a little; never so often that a corrupt one
    /// could keep everybody busy.
    pub fn allows(&self, shared_at: u64, ordered: u64, now: u64) -> bool {
        let old = self.period > 0 && now >= shared_at.saturating_add(self.period / 2);
        shared_at < ordered || old
    }
}

/// One renewal as its participant sees it.
pub struct Renewing {
    /// The coordinator, by its TLS identity.
    pub coordinator: u64,
    /// The operation.
    pub operation: OperationId,
    /// What the coordinator proposed, as it was checked.
    pub beginning: Beginning,
    /// The keystore.
    pub keystore: LocalId,
    /// Its state version.
    pub version: u64,
    /// The applied index that this node's decision rests on.
    pub applied: u64,
    /// This node's time when it decided, ms.
    pub now: u64,
    /// The keys, in the proposal's order.
    pub keys: Vec<OfKey>,
    /// When it began here.
    pub begun: Instant,
}

/// One of its keys.
pub struct OfKey {
    /// The key.
    pub key: LocalId,
    /// As it is.
    pub record: KeyRecord,
    /// The ceremony that makes its next shares.
    pub session: [u8; 32],
    /// The protocol's state.
    pub protocol: Protocol,
}

/// The protocol that makes a key's next shares.
pub enum Protocol {
    /// Of a key pair.
    Pair(Participant),
    /// Of a symmetric key.
    Pieces(Box<Refreshing>),
}

/// All of them.
pub struct Renewals {
    /// When shares are due.
    pub policy: Policy,
    under_way: HashMap<Id, Renewing>,
    begun: HashMap<Id, Instant>,
    /// The first and the last removal of an old share that can still be read on the disk.
    removed: Option<(Instant, Instant)>,
}

impl Renewals {
    /// None yet.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            under_way: HashMap::new(),
            begun: HashMap::new(),
            removed: None,
        }
    }

    /// Begins one; `false` if there are too many of its coordinator's, or it began before.
    pub fn begin(&mut self, id: Id, renewing: Renewing) -> bool {
        self.under_way.retain(|_, one| one.begun.elapsed() < LIFE);
        self.begun.retain(|_, begun| begun.elapsed() < MEMORY);
        let coordinator = renewing.coordinator;
        let of_coordinator = self
            .under_way
            .values()
            .filter(|one| one.coordinator == coordinator);
        if of_coordinator.count() >= MAX || self.begun.contains_key(&id) {
            return false;
        }
        self.begun.insert(id, renewing.begun);
        self.under_way.insert(id, renewing);
        true
    }

    /// Takes one out for a round; it is put back after it, or is over.
    pub fn take(&mut self, id: &Id, coordinator: u64) -> Option<Renewing> {
        let ours = self
            .under_way
            .get(id)
            .is_some_and(|one| one.coordinator == coordinator);
        let taken = ours.then(|| self.under_way.remove(id)).flatten();
        taken.filter(|one| one.begun.elapsed() < LIFE)
    }

    /// Puts one back between rounds.
    pub fn put_back(&mut self, id: Id, renewing: Renewing) {
        self.under_way.insert(id, renewing);
    }

    /// Old shares were removed; their bytes are still on the disk.
    pub fn removed(&mut self, now: Instant) {
        let first = self.removed.map_or(now, |(first, _)| first);
        self.removed = Some((first, now));
    }

    /// Whether it is time to make unreadable what was removed; asked once.
    pub fn take_erasure(&mut self, now: Instant) -> bool {
        let due = self.removed.is_some_and(|(first, last)| {
            now.saturating_duration_since(last) >= QUIET || now.saturating_duration_since(first) >= LATEST
        });
        if due {
            self.removed = None;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_part_long_before_shares_are_due() {
        let policy = Policy {
            period: 1_000,
            keys_per_second: 1,
        };
        assert_eq!(policy.due(5_000, 5_000), Some(6_000));
        assert!(!policy.allows(5_000, 0, 5_499));
        assert!(policy.allows(5_000, 0, 5_500));
        let never = Policy { period: 0, ..policy };
        assert_eq!(never.due(5_000, 0), None);
        assert!(!never.allows(0, 0, u64::MAX));
        assert_eq!(never.due(5_000, 5_001), Some(5_001), "ordered");
        assert!(never.allows(5_000, 5_001, 0) && !never.allows(5_000, 5_000, u64::MAX));
    }

    #[test]
    fn erasure_waits_for_quiet_but_not_for_ever() {
        let policy = Policy {
            period: 0,
            keys_per_second: 1,
        };
        let mut renewals = Renewals::new(policy);
        let start = Instant::now();
        assert!(!renewals.take_erasure(start + LATEST), "nothing was removed");
        renewals.removed(start);
        assert!(!renewals.take_erasure(start + QUIET / 2));
        assert!(renewals.take_erasure(start + QUIET));
        assert!(!renewals.take_erasure(start + QUIET), "asked once");
        let mut last = start;
        while last < start + LATEST {
            renewals.removed(last);
            last += QUIET / 2;
        }
        assert!(renewals.take_erasure(last), "never quiet");
    }
}
