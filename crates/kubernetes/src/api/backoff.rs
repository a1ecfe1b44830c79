//! How soon one asks again after a failure: twice as late each time, up to a bound, never in step with others.
//!
//! Pure but for the chance, which is an argument.

use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

/// After the first failure.
const DELAY_MIN: Duration = Duration::from_millis(250);
/// After many. Short enough that an API server which is back is noticed soon.
const DELAY_MAX: Duration = Duration::from_secs(8);

/// Counts failures in a row.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// All is well again.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// How long to wait after one more failure: between half of the step and all of it, by `chance`.
    pub(crate) fn next(&mut self, chance: u64) -> Duration {
        let step = DELAY_MIN.saturating_mul(1 << self.failures.min(10)).min(DELAY_MAX);
        self.failures = self.failures.saturating_add(1);
        spread(step, chance)
    }
}

/// Between half of a time and all of it.
fn spread(step: Duration, chance: u64) -> Duration {
    const STEPS: u64 = 1024;
    let part = u32::try_from(chance % STEPS).unwrap_or(0);
    let half = step / 2;
    half + half * part / 1024
}

/// A number that nobody can foresee, as good as it need be to spread retries.
pub(crate) fn chance() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_to_a_bound_and_begins_anew() {
        let mut backoff = Backoff::default();
        let waits: Vec<Duration> = (0..100).map(|_| backoff.next(u64::MAX)).collect();
        assert!(waits[0] <= DELAY_MIN && waits[0] >= DELAY_MIN / 2);
        assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]));
        assert!(waits[99] <= DELAY_MAX && waits[99] >= DELAY_MAX / 2);
        backoff.reset();
        assert_eq!(backoff.next(0), DELAY_MIN / 2);
    }
}
