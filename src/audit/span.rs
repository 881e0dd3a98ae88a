//! The part of a node's chain that is here: where it begins and ends, and what retention by age would have left of it.

use super::verification::Report;

/// By how much nodes' clocks differ at most, and how long after its decision a result is on record, ms.
pub(super) const SKEW: u64 = 10_000;
/// What retention may still take while a folder is copied, ms.
const COPYING: u64 = 3_600_000;

/// Where a chain begins and ends.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Span {
    /// Number of the first record.
    pub(super) first: u64,
    /// Number of the last record; 0 if there is none.
    pub(super) last: u64,
    first_ms: u64,
    /// Time of the last record, ms.
    pub(super) last_ms: u64,
}

impl Span {
    pub(super) fn of(report: &Report) -> Self {
        Self {
            first: report.first_sequence.unwrap_or(1),
            last: report.last_sequence.unwrap_or(0),
            first_ms: report.first_ms.unwrap_or(0),
            last_ms: report.last_ms.unwrap_or(0),
        }
    }

    /// Whether what the node recorded of a result of this time may have stood before the chain's beginning.
    pub(super) fn may_begin_after(&self, time_ms: u64) -> bool {
        self.first > 1 && time_ms < self.first_ms.saturating_add(SKEW)
    }

    /// The same, and it cannot be otherwise.
    pub(super) fn begins_after(&self, time_ms: u64) -> bool {
        self.first > 1 && time_ms.saturating_add(SKEW) < self.first_ms
    }

    /// Whether retention that removes nothing younger than `retention_ms` would have left a record of this time: it is
    /// judged by the node's own records, of which none is younger than the last one here.
    pub(super) fn would_keep(&self, time_ms: u64, retention_ms: u64) -> bool {
        let removed = self.last_ms.saturating_sub(retention_ms);
        retention_ms > 0 && time_ms > removed.saturating_add(COPYING)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400_000;

    /// A chain that begins on day 50 with record 500, and ends on day 100.
    fn span() -> Span {
        Span::of(&Report {
            first_sequence: Some(500),
            last_sequence: Some(900),
            first_ms: Some(50 * DAY),
            last_ms: Some(100 * DAY),
            ..Report::default()
        })
    }

    #[test]
    fn around_a_beginning_clocks_decide_nothing() {
        let (span, begin) = (span(), 50 * DAY);
        for (time, may, does) in [
            (begin - SKEW - 1, true, true),
            (begin - SKEW, true, false),
            (begin + SKEW - 1, true, false),
            (begin + SKEW, false, false),
        ] {
            assert_eq!((span.may_begin_after(time), span.begins_after(time)), (may, does));
        }
        let whole = Span { first: 1, ..span };
        assert!(!whole.may_begin_after(0) && !whole.begins_after(0));
    }

    #[test]
    fn retention_takes_what_is_older_than_its_days_at_the_last_record() {
        let span = span();
        assert!(span.would_keep(41 * DAY, 60 * DAY));
        assert!(
            !span.would_keep(40 * DAY + COPYING, 60 * DAY),
            "while it was copied"
        );
        assert!(!span.would_keep(39 * DAY, 60 * DAY));
        // Nothing was promised.
        assert!(!span.would_keep(99 * DAY, 0));
        // Of a chain that is younger than its retention nothing was removed.
        assert!(span.would_keep(DAY, 200 * DAY));
    }
}
