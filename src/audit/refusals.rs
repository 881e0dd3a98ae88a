//! Refusals after a valid signature are recorded up to a rate, then one record a second with the count
//! (trust.md, section 7), so that a flood of bad requests does not fill the disk. Pure: the caller gives the time.

/// Says which refusals get a record of their own.
#[derive(Debug)]
pub struct RefusalRate {
    per_second: u32,
    second: u64,
    recorded: u32,
    held_back: u32,
}

impl RefusalRate {
    /// At most `per_second` records a second, and one more for what was held back.
    pub fn new(per_second: u32) -> RefusalRate {
        RefusalRate {
            per_second,
            second: 0,
            recorded: 0,
            held_back: 0,
        }
    }

    /// A refusal at `now_ms` (monotonic). `Some(n)`: record it, with `count` = n, its own and those held back
    /// before it; `None`: it is held back.
    pub fn refused(&mut self, now_ms: u64) -> Option<u32> {
        let second = now_ms / 1000;
        if second > self.second {
            self.second = second;
            self.recorded = 0;
        }
        if self.recorded < self.per_second {
            self.recorded += 1;
            return Some(std::mem::take(&mut self.held_back).saturating_add(1));
        }
        self.held_back = self.held_back.saturating_add(1);
        None
    }

    /// What is still held back once its second is over: the caller records one entry with it, since no later refusal may
    /// come to carry the count.
    pub fn due(&mut self, now_ms: u64) -> Option<u32> {
        (now_ms / 1000 > self.second && self.held_back > 0).then(|| std::mem::take(&mut self.held_back))
    }

    /// So many could not be put on record after all: the next record counts them.
    pub fn hold_back(&mut self, count: u32) {
        self.held_back = self.held_back.saturating_add(count);
    }
}

#[cfg(test)]
mod tests {
    use super::RefusalRate;

    #[test]
    fn the_rate_is_kept_and_nothing_is_lost_from_the_count() {
        let mut rate = RefusalRate::new(3);
        let mut sum = 0;
        let mut records = 0;
        for at in 0..1000 {
            if let Some(count) = rate.refused(5000 + at % 900) {
                sum += count;
                records += 1;
            }
        }
        assert_eq!(records, 3);
        assert_eq!(rate.due(5999), None);
        sum += rate.due(6000).unwrap();
        assert_eq!(sum, 1000);
        assert_eq!(rate.due(7000), None);
        assert_eq!(rate.refused(7000), Some(1));
    }

    #[test]
    fn what_could_not_be_recorded_is_counted_by_the_next_record() {
        let mut rate = RefusalRate::new(1);
        assert_eq!(rate.refused(5000), Some(1));
        assert_eq!(rate.refused(5000), None);
        let lost = rate.due(6000).unwrap();
        rate.hold_back(lost);
        assert_eq!(rate.due(6000), Some(1));
        rate.hold_back(3);
        assert_eq!(rate.refused(7000), Some(4));
    }
}
