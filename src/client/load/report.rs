//! What a run of load came to: one JSON object, or a table for people.

use super::Scenario;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// The kind under which wrong answers are counted.
const WRONG: &str = "wrong_answer";

/// The result of a run. Latencies are of successful requests, from before the send to the last byte of the reply.
#[derive(Clone, Debug)]
pub struct Report {
    scenario: Scenario,
    in_flight: usize,
    elapsed: Duration,
    succeeded: u64,
    percentiles: [f64; 3],
    errors: BTreeMap<String, u64>,
}

impl Report {
    /// `latencies` in microseconds; `wrong` answers are among the successful ones and are taken out of them.
    pub(super) fn new(
        scenario: Scenario,
        in_flight: usize,
        elapsed: Duration,
        mut latencies: Vec<u32>,
        mut errors: BTreeMap<String, u64>,
        wrong: u64,
    ) -> Self {
        latencies.sort_unstable();
        let percentiles = [500, 990, 999].map(|mille| percentile(&latencies, mille));
        if wrong > 0 {
            errors.insert(WRONG.to_owned(), wrong);
        }
        let succeeded = (latencies.len() as u64).saturating_sub(wrong);
        Self {
            scenario,
            in_flight,
            elapsed,
            succeeded,
            percentiles,
            errors,
        }
    }

    /// Whether every request was answered, and rightly.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.errors.is_empty()
    }

    /// Successful operations a second: those of a batch count one by one.
    #[must_use]
    pub fn rate(&self) -> f64 {
        (self.succeeded * self.scenario.operations()) as f64
            / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// `requests` counts those that ended, errors included; `rate` the operations that succeeded, by second.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let [p50, p99, p999] = self.percentiles;
        json!({
            "scenario": self.scenario.name(),
            "in_flight": self.in_flight,
            "seconds": round(self.elapsed.as_secs_f64(), 1000.0),
            "requests": self.requests(),
            "rate": round(self.rate(), 10.0),
            "p50_ms": p50,
            "p99_ms": p99,
            "p999_ms": p999,
            "errors": self.errors,
        })
    }

    fn requests(&self) -> u64 {
        self.succeeded + self.errors.values().sum::<u64>()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99, p999] = self.percentiles;
        writeln!(f, "scenario    {}", self.scenario.name())?;
        writeln!(f, "in flight   {}", self.in_flight)?;
        writeln!(f, "seconds     {:.1}", self.elapsed.as_secs_f64())?;
        writeln!(f, "requests    {}", self.requests())?;
        writeln!(f, "rate        {:.1} a second", self.rate())?;
        writeln!(
            f,
            "latency     p50 {p50:.2} ms   p99 {p99:.2} ms   p99.9 {p999:.2} ms"
        )?;
        write!(f, "errors      ")?;
        if self.errors.is_empty() {
            return write!(f, "none");
        }
        let errors: Vec<String> = self
            .errors
            .iter()
            .map(|(kind, count)| format!("{kind}: {count}"))
            .collect();
        write!(f, "{}", errors.join(", "))
    }
}

/// The nearest rank, in milliseconds; zero of nothing.
fn percentile(sorted: &[u32], mille: usize) -> f64 {
    let rank = (sorted.len() * mille).div_ceil(1000).max(1);
    sorted
        .get(rank - 1)
        .map_or(0.0, |micros| f64::from(*micros) / 1000.0)
}

fn round(value: f64, steps: f64) -> f64 {
    (value * steps).round() / steps
}

#[cfg(test)]
mod tests {
    use super::{Report, Scenario, percentile};
    use serde_json::json;
    use std::collections::BTreeMap;
    use std::time::Duration;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let latencies: Vec<u32> = (1..=1000).map(|n| n * 1000).collect();
        assert_eq!(
            [500, 990, 999].map(|m| percentile(&latencies, m)),
            [500.0, 990.0, 999.0]
        );
        assert_eq!(percentile(&[7000], 999), 7.0);
        assert_eq!(percentile(&[], 500), 0.0);
    }

    #[test]
    fn has_the_members_that_scripts_read() {
        let report = Report::new(
            Scenario::SignRoot,
            32,
            Duration::from_secs(2),
            vec![3000, 1000, 2000],
            BTreeMap::new(),
            0,
        );
        assert!(report.is_clean());
        assert_eq!(
            report.to_json().to_string(),
            json!({"scenario": "sign-root", "in_flight": 32, "seconds": 2.0, "requests": 3, "rate": 1.5,
                "p50_ms": 2.0, "p99_ms": 3.0, "p999_ms": 3.0, "errors": {}})
            .to_string()
        );
    }

    #[test]
    fn a_wrong_answer_is_an_error_and_no_success() {
        let errors = BTreeMap::from([("timeout".to_owned(), 2)]);
        let report = Report::new(
            Scenario::Derive,
            1,
            Duration::from_secs(1),
            vec![1000; 4],
            errors,
            1,
        );
        let json = report.to_json();
        assert!(!report.is_clean());
        assert_eq!(json["errors"], json!({"timeout": 2, "wrong_answer": 1}));
        assert_eq!(
            (json["requests"].as_u64(), json["rate"].as_f64()),
            (Some(6), Some(3.0))
        );
    }
}
