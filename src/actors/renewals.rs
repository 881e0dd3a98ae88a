//! Renewals of key shares: when they are due, and those that this node takes part in, bounded in number and in time. Pure.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use conclave_consensus::GroupId;
use conclave_threshold::Session;
use conclave_threshold::dkg::Participant;

use super::symmetric::refreshing::Refreshing;
use super::symmetric::resharing::Resharing;
use super::wire::Beginning;
use crate::identifier::{LocalId, OperationId};
use crate::keystore::KeyRecord;
use crate::keystore::command::MAX_RENEWED;
use crate::membership::Membership;

/// Longest life of a renewal.
const LIFE: Duration = Duration::from_secs(LIFE_SECONDS as u64);
const LIFE_SECONDS: usize = 10;
/// How long an ended one is remembered: a proposal is taken within 5 s of its start.
const MEMORY: Duration = Duration::from_secs(30);
/// Most at once for one coordinator, which runs them one after the other.
const MAX: usize = 4;
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
    /// Backups are made at each multiple of this, ms; 0: never.
    pub backups: u64,
}

/// Nodes make their backups within this time, ms: what is renewed between two of them is in none as its quorum has it.
const BACKUPS: u64 = 15 * 60_000;

impl Policy {
    /// Whether nothing is renewed now but what is pressing, since backups are made.
    pub fn rests(&self, now: u64) -> bool {
        now.checked_rem(self.backups).is_some_and(|since| since < BACKUPS)
    }

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
    /// Who will hold the new shares.
    pub committee: Arc<Membership>,
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

impl OfKey {
    /// The protocol of a symmetric key that moves.
    pub(crate) fn moved(&self) -> Option<&Resharing> {
        match &self.protocol {
            Protocol::Moved(resharing) => Some(resharing),
            _ => None,
        }
    }

    /// The same, to go on with it.
    pub(crate) fn moved_mut(&mut self) -> Option<&mut Resharing> {
        match &mut self.protocol {
            Protocol::Moved(resharing) => Some(resharing),
            _ => None,
        }
    }
}

/// The protocol that makes a key's next shares.
pub enum Protocol {
    /// Of a key pair.
    Pair(Box<Participant>),
    /// Of a symmetric key, for the same holders.
    Pieces(Box<Refreshing>),
    /// Of a symmetric key that moves to other holders.
    Moved(Box<Resharing>),
}

/// All of them.
pub struct Renewals {
    /// When shares are due.
    pub policy: Policy,
    /// Groups that are being looked through for keys that have not moved.
    pub looks: HashSet<GroupId>,
    /// Of each group whose members change, the keys that its conductor has found with the old ones.
    pub unmoved: HashMap<GroupId, u64>,
    /// Of each group whose last renewal came to nothing, why: it names the peer that it waits for.
    pub waits: HashMap<GroupId, String>,
    slots: HashMap<Id, Slot>,
    /// The first and the last removal of an old share that can still be read on the disk.
    removed: Option<(Instant, Instant)>,
}

/// One that began, whatever became of it.
struct Slot {
    coordinator: u64,
    begun: Instant,
    keys: usize,
    /// Between two rounds; none while one is worked on, and when it is over.
    renewing: Option<Renewing>,
    over: bool,
}

impl Renewals {
    /// None yet. What was removed before this start may still be readable.
    pub fn new(policy: Policy) -> Self {
        let now = Instant::now();
        Self {
            policy,
            looks: HashSet::new(),
            unmoved: HashMap::new(),
            waits: HashMap::new(),
            slots: HashMap::new(),
            removed: Some((now, now)),
        }
    }

    /// Takes a place for one of so many keys, before anything is computed for it. `false` if it began before, if too many of
    /// its coordinator's are under way, or if the coordinator has begun with more keys lately than it renews in that time:
    /// whatever ends without an entry leaves shares on every disk for a while.
    pub fn reserve(&mut self, id: Id, coordinator: u64, keys: usize, now: Instant) -> bool {
        let age = |slot: &Slot| now.saturating_duration_since(slot.begun);
        self.slots.retain(|_, slot| age(slot) < MEMORY);
        let own = || self.slots.values().filter(|slot| slot.coordinator == coordinator);
        let under_way = own().filter(|slot| !slot.over && age(slot) < LIFE).count();
        let lately: usize = own().filter(|slot| age(slot) < LIFE).map(|slot| slot.keys).sum();
        let pace = usize::try_from(self.policy.keys_per_second).unwrap_or(usize::MAX);
        let budget = pace
            .saturating_mul(2 * LIFE_SECONDS)
            .saturating_add(MAX * MAX_RENEWED);
        if under_way >= MAX || lately + keys > budget || self.slots.contains_key(&id) {
            return false;
        }
        let slot = Slot {
            coordinator,
            begun: now,
            keys,
            renewing: None,
            over: false,
        };
        self.slots.insert(id, slot);
        true
    }

    /// Keeps one between rounds.
    pub fn keep(&mut self, id: &Id, renewing: Renewing) {
        if let Some(slot) = self.slots.get_mut(id).filter(|slot| !slot.over) {
            slot.renewing = Some(renewing);
        }
    }

    /// Takes one out for a round; it is kept again after it, or is over.
    pub fn take(&mut self, id: &Id, coordinator: u64) -> Option<Renewing> {
        let slot = self.slots.get_mut(id)?;
        let ours = slot.coordinator == coordinator && slot.begun.elapsed() < LIFE;
        slot.renewing.take_if(|_| ours)
    }

    /// It is over: its place is free.
    pub fn end(&mut self, id: &Id) {
        if let Some(slot) = self.slots.get_mut(id) {
            slot.over = true;
            slot.renewing = None;
        }
    }

    /// The same, for who says that it is the coordinator's.
    pub fn end_of(&mut self, id: &Id, coordinator: u64) {
        if self
            .slots
            .get(id)
            .is_some_and(|slot| slot.coordinator == coordinator)
        {
            self.end(id);
        }
    }

    /// One that this coordinator has under way, while it is kept between two rounds.
    pub(crate) fn kept(&self, id: &Id, coordinator: u64) -> Option<&Renewing> {
        let slot = self
            .slots
            .get(id)
            .filter(|slot| slot.coordinator == coordinator)?;
        slot.renewing.as_ref()
    }

    /// The same, to tell it what the coordinator has heard.
    pub(crate) fn kept_mut(&mut self, id: &Id, coordinator: u64) -> Option<&mut Renewing> {
        let slot = self
            .slots
            .get_mut(id)
            .filter(|slot| slot.coordinator == coordinator)?;
        slot.renewing.as_mut()
    }

    /// The ceremonies of its key pairs, in the order of its keys, while it is kept here.
    pub fn sessions(&self, id: &Id) -> Vec<Option<Arc<Session>>> {
        let renewing = self.slots.get(id).and_then(|slot| slot.renewing.as_ref());
        let keys = renewing.map_or(&[][..], |renewing| &renewing.keys);
        let sessions = keys.iter().map(|of_key| match &of_key.protocol {
            Protocol::Pair(participant) => Some(participant.session().clone()),
            Protocol::Pieces(_) | Protocol::Moved(_) => None,
        });
        sessions.collect()
    }

    /// Old shares were removed; their bytes are still on the disk.
    pub fn removed(&mut self, now: Instant) {
        let first = self.removed.map_or(now, |(first, _)| first);
        self.removed = Some((first, now));
    }

    /// Whether what was removed may still be readable.
    pub fn is_erased(&self) -> bool {
        self.removed.is_none()
    }

    /// Whether it is time to make unreadable what was removed, at once if there is no share left at all; asked once.
    pub fn take_erasure(&mut self, now: Instant, none_left: bool) -> bool {
        let due = self.removed.is_some_and(|(first, last)| {
            none_left
                || now.saturating_duration_since(last) >= QUIET
                || now.saturating_duration_since(first) >= LATEST
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
            backups: 0,
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
            backups: 0,
        };
        let mut renewals = Renewals::new(policy);
        let start = Instant::now() + QUIET;
        assert!(
            renewals.take_erasure(start, false),
            "what was removed before this start"
        );
        assert!(
            !renewals.take_erasure(start + LATEST, false),
            "nothing was removed"
        );
        renewals.removed(start);
        assert!(!renewals.take_erasure(start + QUIET / 2, false));
        assert!(renewals.take_erasure(start + QUIET, false));
        assert!(!renewals.take_erasure(start + QUIET, false), "asked once");
        let mut last = start;
        while last < start + LATEST {
            renewals.removed(last);
            last += QUIET / 2;
        }
        assert!(renewals.take_erasure(last, false), "never quiet");
        assert!(renewals.is_erased() && !renewals.take_erasure(last, true));
        renewals.removed(last);
        assert!(
            !renewals.is_erased() && renewals.take_erasure(last, true),
            "nothing is left"
        );
    }

    #[test]
    fn nothing_is_renewed_by_the_period_while_backups_are_made() {
        let policy = Policy {
            period: 1,
            keys_per_second: 1,
            backups: 3_600_000,
        };
        assert!(policy.rests(7_200_000) && policy.rests(7_200_000 + BACKUPS - 1));
        assert!(!policy.rests(7_200_000 + BACKUPS) && !policy.rests(7_199_999));
        let never = Policy { backups: 0, ..policy };
        assert!(!never.rests(7_200_000));
    }

    #[test]
    fn a_coordinator_begins_with_as_much_as_it_renews_and_with_nothing_twice() {
        let policy = Policy {
            period: 1,
            keys_per_second: 1,
            backups: 0,
        };
        let mut renewals = Renewals::new(policy);
        let now = Instant::now();
        let id = |number: u8| [number; 32];
        for number in 0..MAX as u8 {
            assert!(renewals.reserve(id(number), 1, 1, now));
        }
        assert!(!renewals.reserve(id(99), 1, 1, now), "too many under way");
        assert!(renewals.reserve(id(98), 2, 1, now), "another coordinator's");
        for number in 0..MAX as u8 {
            renewals.end(&id(number));
            assert!(
                !renewals.reserve(id(number), 1, 1, now),
                "one that is over begins again"
            );
        }
        let mut begun = MAX;
        for number in 100..200 {
            if !renewals.reserve(id(number), 1, MAX_RENEWED, now) {
                break;
            }
            renewals.end(&id(number));
            begun += MAX_RENEWED;
        }
        assert!(
            (2 * LIFE_SECONDS..=2 * LIFE_SECONDS + MAX * MAX_RENEWED).contains(&begun),
            "{begun}"
        );
        assert!(
            renewals.reserve(id(97), 1, MAX_RENEWED, now + LIFE),
            "time passes"
        );
    }
}
