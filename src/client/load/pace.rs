//! Requests at a steady rate, whoever sends them.

use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// The turns of all senders.
pub(super) struct Pace {
    /// Between two turns; `None` when there is no limit.
    interval: Option<Duration>,
    next: Mutex<Instant>,
}

impl Pace {
    /// `rate` turns a second from `start` on.
    pub(super) fn new(start: Instant, rate: Option<u32>) -> Self {
        Self {
            interval: rate.map(|rate| Duration::from_secs(1) / rate.max(1)),
            next: Mutex::new(start),
        }
    }

    /// Waits for the next turn. Turns that nobody was free to take are lost.
    pub(super) async fn turn(&self) {
        let Some(interval) = self.interval else { return };
        let turn = self.take(interval, Instant::now());
        tokio::time::sleep_until(turn.into()).await;
    }

    fn take(&self, interval: Duration, now: Instant) -> Instant {
        let mut next = self.next.lock();
        let turn = (*next).max(now);
        *next = turn + interval;
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::Pace;
    use std::time::{Duration, Instant};

    #[test]
    fn turns_are_an_interval_apart_and_never_in_a_burst() {
        let start = Instant::now();
        let pace = Pace::new(start, Some(100));
        let interval = pace.interval.unwrap();
        assert_eq!(interval, Duration::from_millis(10));
        assert_eq!(pace.take(interval, start), start);
        assert_eq!(pace.take(interval, start), start + interval);
        let late = start + Duration::from_secs(1);
        assert_eq!(pace.take(interval, late), late);
        assert_eq!(pace.take(interval, late), late + interval);
    }
}
