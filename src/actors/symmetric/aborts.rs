//! What this node has seen of aborts as the evaluator. Nothing leaks by an abort, and one flipped bit on a line is no
//! outage: after the first one another attempt follows at once. A trio that goes on aborting one key waits longer and longer,
//! and one that aborts again and again is stopped until this node is restarted, by somebody who has looked at why.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

/// Pause of a trio and a key after its second abort in a row; doubles with each further one.
const FIRST: Duration = Duration::from_secs(1);
/// Longest pause.
const LONGEST: Duration = Duration::from_secs(60);
/// So many aborts of one trio within [`WITHIN`] stop it.
const STOPS: usize = 10;
const WITHIN: Duration = Duration::from_secs(600);
/// Trios and keys that are remembered.
const MAX: usize = 4_096;

/// Three nodes, ascending.
pub(crate) type Trio = [u64; 3];

/// Why a trio is not asked now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Barred {
    /// It has aborted too often.
    Stopped,
    /// For so long.
    Paused(Duration),
}

/// The memory.
#[derive(Default)]
pub(crate) struct Aborts {
    lately: HashMap<Trio, VecDeque<Instant>>,
    stopped: HashSet<Trio>,
    /// Aborts in a row of a trio and a key, and the last one.
    in_a_row: HashMap<(Trio, Vec<u8>), (u32, Instant)>,
}

impl Aborts {
    /// Takes an abort; says whether it stops the trio.
    pub(crate) fn aborted(&mut self, trio: Trio, key: &[u8], now: Instant) -> bool {
        let lately = self.lately.entry(trio).or_default();
        lately.retain(|at| now.duration_since(*at) < WITHIN);
        lately.push_back(now);
        let stops = lately.len() >= STOPS && self.stopped.insert(trio);
        if self.in_a_row.len() >= MAX {
            self.in_a_row
                .retain(|_, (_, last)| now.duration_since(*last) < LONGEST);
        }
        if self.in_a_row.len() >= MAX {
            self.in_a_row.clear();
        }
        let (count, last) = self.in_a_row.entry((trio, key.to_vec())).or_insert((0, now));
        (*count, *last) = (*count + 1, now);
        stops
    }

    /// A trio has computed with a key.
    pub(crate) fn succeeded(&mut self, trio: Trio, key: &[u8]) {
        if !self.in_a_row.is_empty() {
            self.in_a_row.remove(&(trio, key.to_vec()));
        }
    }

    /// Whether a trio may be asked about a key.
    ///
    /// # Errors
    /// [`Barred`].
    pub(crate) fn check(&self, trio: Trio, key: &[u8], now: Instant) -> Result<(), Barred> {
        if self.stopped.contains(&trio) {
            return Err(Barred::Stopped);
        }
        if self.in_a_row.is_empty() {
            return Ok(());
        }
        let Some((count, last)) = self.in_a_row.get(&(trio, key.to_vec())) else {
            return Ok(());
        };
        let Some(doubled) = count.checked_sub(2) else {
            return Ok(());
        };
        let pause = (FIRST * 2_u32.saturating_pow(doubled.min(6))).min(LONGEST);
        match pause.checked_sub(now.duration_since(*last)) {
            None | Some(Duration::ZERO) => Ok(()),
            Some(left) => Err(Barred::Paused(left)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIO: Trio = [1, 2, 3];

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_trio_and_a_key_wait_longer_with_each_abort_in_a_row() {
        let (mut aborts, mut now) = (Aborts::default(), Instant::now());
        aborts.aborted(TRIO, b"key", now);
        assert_eq!(aborts.check(TRIO, b"key", now), Ok(()), "once more at once");
        for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
            aborts.aborted(TRIO, b"key", now);
            assert_eq!(
                aborts.check(TRIO, b"key", now),
                Err(Barred::Paused(seconds(pause)))
            );
            assert_eq!(aborts.check(TRIO, b"other", now), Ok(()));
            assert_eq!(aborts.check([1, 2, 4], b"key", now), Ok(()));
            now += seconds(pause);
            assert_eq!(aborts.check(TRIO, b"key", now), Ok(()));
        }
        aborts.succeeded(TRIO, b"key");
        aborts.aborted([1, 2, 4], b"key", now);
        assert_eq!(aborts.check([1, 2, 4], b"key", now), Ok(()), "forgotten");
    }

    #[test]
    fn ten_aborts_within_ten_minutes_stop_a_trio() {
        let (mut aborts, mut now) = (Aborts::default(), Instant::now());
        // Nine within ten minutes, for as long as one likes.
        for at in 0..30_u8 {
            assert!(!aborts.aborted(TRIO, &[at], now));
            aborts.succeeded(TRIO, &[at]);
            now += seconds(70);
        }
        let stopped = (0..10_u8).filter(|at| aborts.aborted(TRIO, &[*at], now)).count();
        assert_eq!(stopped, 1, "said once");
        now += seconds(86_400);
        assert_eq!(aborts.check(TRIO, b"any", now), Err(Barred::Stopped));
        assert_eq!(aborts.check([1, 2, 4], b"any", now), Ok(()));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut aborts, now) = (Aborts::default(), Instant::now());
        for key in 0..2 * MAX as u32 {
            aborts.aborted([1, 2, u64::from(key)], &key.to_be_bytes(), now);
        }
        assert!(aborts.in_a_row.len() <= MAX);
    }
}
