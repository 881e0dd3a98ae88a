//! The holder's clock: it never runs back, and it says so when the system's clock did.

use thiserror::Error;

/// How far, in milliseconds, the system's clock may stand below the last record.
const BELOW_RECORDED_MS: u64 = 5_000;
/// How far, in milliseconds, the holder's clock may stand below the applied time of a group.
const BELOW_GROUP_MS: u64 = 60_000;

/// Why a holder contributes nothing.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ClockError {
    /// The system's clock stands far below what was recorded.
    #[error("the system clock is {behind_ms} ms behind the last audit record; set it right")]
    RanBack {
        /// By how much.
        behind_ms: u64,
    },
    /// The holder's clock stands far below the group's.
    #[error("the clock is {behind_ms} ms behind its group's time; set it right")]
    BehindGroup {
        /// By how much.
        behind_ms: u64,
    },
}

/// max(system, last recorded), milliseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub struct HolderClock {
    recorded_ms: u64,
}

impl HolderClock {
    /// A clock that starts from the last audit record's time, 0 if there is none.
    pub fn new(recorded_ms: u64) -> HolderClock {
        HolderClock { recorded_ms }
    }

    /// A record of this time is on disk.
    pub fn recorded(&mut self, time_ms: u64) {
        self.recorded_ms = self.recorded_ms.max(time_ms);
    }

    /// The holder's time when the system's clock shows `system_ms`.
    pub fn now(&self, system_ms: u64) -> Result<u64, ClockError> {
        let behind_ms = self.recorded_ms.saturating_sub(system_ms);
        if behind_ms > BELOW_RECORDED_MS {
            return Err(ClockError::RanBack { behind_ms });
        }
        Ok(system_ms.max(self.recorded_ms))
    }

    /// The same for a use in a group whose applied time is `applied_ms`.
    pub fn now_in_group(&self, system_ms: u64, applied_ms: u64) -> Result<u64, ClockError> {
        let now = self.now(system_ms)?;
        let behind_ms = applied_ms.saturating_sub(now);
        if behind_ms > BELOW_GROUP_MS {
            return Err(ClockError::BehindGroup { behind_ms });
        }
        Ok(now)
    }
}

#[cfg(test)]
mod tests {
    use super::{ClockError, HolderClock};

    #[test]
    fn it_never_runs_back() {
        let mut clock = HolderClock::new(100_000);
        assert_eq!(clock.now(99_000), Ok(100_000));
        assert_eq!(clock.now(95_000), Ok(100_000));
        assert_eq!(clock.now(101_000), Ok(101_000));
        clock.recorded(110_000);
        clock.recorded(105_000);
        assert_eq!(clock.now(106_000), Ok(110_000));
        assert_eq!(clock.now(104_999), Err(ClockError::RanBack { behind_ms: 5_001 }));
    }

    #[test]
    fn a_clock_a_minute_behind_its_group_contributes_nothing() {
        let clock = HolderClock::new(0);
        assert_eq!(clock.now_in_group(100_000, 160_000), Ok(100_000));
        assert_eq!(
            clock.now_in_group(100_000, 160_001),
            Err(ClockError::BehindGroup { behind_ms: 60_001 })
        );
    }
}
