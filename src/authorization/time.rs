//! xsd:dateTime as capabilities use it: `YYYY-MM-DDTHH:MM:SS[.fraction]Z`, years 1970 to 9999, nothing lenient.
//! No offset, no 24:00:00, no leap second, no day that the month does not have.

/// A point in time, to the nanosecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Seconds since 1970-01-01T00:00:00Z.
    pub seconds: u64,
    /// Nanoseconds beyond them.
    pub nanos: u32,
}

/// 9999-12-31T23:59:59Z in Unix seconds.
const LAST: u64 = 253_402_300_799;

impl Timestamp {
    /// Reads the strict form; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (date_time, fraction) = text.strip_suffix('Z')?.split_at_checked(19)?;
        let bytes = date_time.as_bytes();
        let punctuation = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
        if punctuation.iter().any(|(at, mark)| bytes[*at] != *mark) {
            return None;
        }
        let number = |from: usize, to: usize| digits(&bytes[from..to]);
        let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
        let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
        if year < 1970 || !(1..=12).contains(&month) || day < 1 || day > days_in(year, month) {
            return None;
        }
        if hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let nanos = match fraction.as_bytes() {
            [] => 0,
            [b'.', places @ ..] if (1..=9).contains(&places.len()) => {
                digits(places)? * 10u64.pow(9 - places.len() as u32)
            }
            _ => return None,
        };
        let days = days_before_year(year) - days_before_year(1970)
            + (1..month).map(|month| days_in(year, month)).sum::<u64>()
            + (day - 1);
        Some(Self {
            seconds: days * 86_400 + hour * 3_600 + minute * 60 + second,
            nanos: nanos as u32,
        })
    }

    /// Writes Unix seconds in the form that [`Timestamp::parse`] reads; `None` after the year 9999.
    pub fn format(seconds: u64) -> Option<String> {
        if seconds > LAST {
            return None;
        }
        let (mut days, rest) = (seconds / 86_400, seconds % 86_400);
        let mut year = 1970 + days / 366;
        while days_before_year(year + 1) - days_before_year(1970) <= days {
            year += 1;
        }
        days -= days_before_year(year) - days_before_year(1970);
        let mut month = 1;
        while days >= days_in(year, month) {
            days -= days_in(year, month);
            month += 1;
        }
        let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
        Some(format!(
            "{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z",
            days + 1
        ))
    }

    /// Milliseconds since 1970, rounded down.
    pub fn millis(self) -> u64 {
        self.seconds * 1_000 + u64::from(self.nanos / 1_000_000)
    }
}

fn digits(bytes: &[u8]) -> Option<u64> {
    bytes.iter().try_fold(0, |value, byte| {
        byte.is_ascii_digit().then(|| value * 10 + u64::from(byte - b'0'))
    })
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_in(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days of the proleptic Gregorian calendar from the year 1 to the beginning of a year.
fn days_before_year(year: u64) -> u64 {
    let past = year - 1;
    past * 365 + past / 4 - past / 100 + past / 400
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_known_times() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T23:59:59Z", 951_868_799),
            ("2026-06-01T12:00:00Z", 1_780_315_200),
            ("9999-12-31T23:59:59Z", LAST),
        ] {
            assert_eq!(
                Timestamp::parse(text),
                Some(Timestamp { seconds, nanos: 0 }),
                "{text}"
            );
            assert_eq!(Timestamp::format(seconds).as_deref(), Some(text));
        }
        assert_eq!(Timestamp::format(LAST + 1), None);
        assert_eq!(
            Timestamp::parse("1970-01-01T00:00:01.25Z").map(Timestamp::millis),
            Some(1_250)
        );
    }

    #[test]
    fn formats_what_it_parses_for_every_day_of_four_centuries() {
        for day in 0..146_097u64 {
            let seconds = day * 86_400 + day % 86_400;
            let text = Timestamp::format(seconds).unwrap();
            assert_eq!(
                Timestamp::parse(&text),
                Some(Timestamp { seconds, nanos: 0 }),
                "{text}"
            );
        }
    }

    #[test]
    fn refuses_lenient_times() {
        for text in [
            "2035",
            "2035-01-01",
            "2035-01-01T00:00:00",
            "2035-01-01T00:00:00+00:00",
            "2035-01-01T00:00:00z",
            "2035-01-01t00:00:00Z",
            "2035-01-01 00:00:00Z",
            "2035-01-01T24:00:00Z",
            "2035-02-30T00:00:00Z",
            "2035-02-29T00:00:00Z",
            "2035-13-01T00:00:00Z",
            "2035-00-01T00:00:00Z",
            "2035-01-00T00:00:00Z",
            "2035-06-30T23:59:60Z",
            "2035-01-01T00:00:00.Z",
            "2035-01-01T00:00:00.1234567890Z",
            "2035-01-01T00:00:00,5Z",
            "+2035-01-01T00:00:00Z",
            "12035-01-01T00:00:00Z",
            "1969-12-31T23:59:59Z",
            " 2035-01-01T00:00:00Z",
            "2035-01-01T00:00:00Z ",
            "2035-01-0\u{661}T00:00:00Z",
            "",
            "Z",
        ] {
            assert_eq!(Timestamp::parse(text), None, "{text:?}");
        }
    }
}
