//! When to connect to a server again. Chance is an argument; no clock.

use std::time::Duration;

use balance::Rng;

/// What a wait grows by after each failure, in hundredths.
const GROWTH_PERCENT: u32 = 150;
/// How much longer a wait may be by chance, in hundredths.
const JITTER_PERCENT: u64 = 10;

/// The waits between connections, as the original has them.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    cap: Duration,
    next: Duration,
    rng: Rng,
}

impl Pace {
    pub(super) fn new(interval: Duration, cap: Duration, rng: Rng) -> Self {
        Self { interval, cap: cap.max(interval), next: interval, rng }
    }

    /// The wait after a connection to a new server.
    pub(super) fn succeeded(&mut self) -> Duration {
        self.next = self.interval;
        // The next server need not wait: it is another one, and most likely there.
        Duration::ZERO
    }

    /// The wait after a connection that did not come about, or that there was already.
    pub(super) fn failed(&mut self) -> Duration {
        let wait = self.next;
        self.next = (self.next * GROWTH_PERCENT / 100).min(self.cap);
        let jitter = u32::try_from(self.rng.below(JITTER_PERCENT + 1)).unwrap_or(0);
        wait + wait * jitter / 100
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_bound_and_begin_anew() {
        let second = Duration::from_secs(1);
        let mut pace = Pace::new(second, 10 * second, Rng::new(1));
        let mut least = second;
        for _ in 0..20 {
            let wait = pace.failed();
            assert!(wait >= least && wait <= least * 11 / 10, "{wait:?} for {least:?}");
            least = (least * 3 / 2).min(10 * second);
        }
        assert_eq!(pace.succeeded(), Duration::ZERO);
        assert!(pace.failed() <= second * 11 / 10);
    }
}
