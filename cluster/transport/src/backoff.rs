//! How long to wait before dialling again. Pure: the caller sleeps, and gives the randomness.

use std::time::Duration;

use rand::Rng;

/// Doubling waits with jitter.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            most,
            next: first,
        }
    }

    /// The wait after one more failure: between half of the nominal time and all of it, so that nodes which lost each
    /// other at one moment do not dial at one moment.
    pub(crate) fn wait(&mut self, rng: &mut impl Rng) -> Duration {
        let nominal = self.next;
        self.next = nominal.saturating_mul(2).min(self.most);
        rng.gen_range(nominal / 2..=nominal)
    }

    /// The connection was good: begin anew.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn waits_double_up_to_the_most_and_begin_anew() {
        let (first, most) = (Duration::from_millis(20), Duration::from_millis(100));
        let mut backoff = Backoff::new(first, most);
        let mut rng = StdRng::seed_from_u64(1);
        for nominal in [20, 40, 80, 100, 100] {
            let nominal = Duration::from_millis(nominal);
            let wait = backoff.wait(&mut rng);
            assert!(nominal / 2 <= wait && wait <= nominal, "{wait:?} of {nominal:?}");
        }
        backoff.reset();
        assert!(backoff.wait(&mut rng) <= first);
    }
}
