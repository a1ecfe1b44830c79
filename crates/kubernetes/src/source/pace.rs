//! When changes are translated: soon after the last of a burst, never long after the first of it, and never so often
//! that translating is all that is done. Pure: the time is an argument.

use std::time::{Duration, Instant};

/// A burst is over when nothing came for this long.
pub(crate) const QUIET: Duration = Duration::from_millis(10);
/// The first change of a burst waits no longer than this, if it is of endpoints or pods.
pub(crate) const ENDPOINTS_WAIT_MAX: Duration = Duration::from_millis(100);
/// The same for everything else.
pub(crate) const CONFIG_WAIT_MAX: Duration = Duration::from_millis(500);
/// After a translation of everything, the next waits for this many times what it took.
const REST_FACTOR: u32 = 4;
/// But no longer than this.
pub(crate) const REST_MAX: Duration = Duration::from_secs(2);

/// What has changed and waits.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    first: Option<Instant>,
    first_config: Option<Instant>,
    last: Option<Instant>,
    rest_until: Option<Instant>,
}

impl Pace {
    /// Something changed; `config` if it is more than endpoints.
    pub(crate) fn changed(&mut self, config: bool, now: Instant) {
        self.first.get_or_insert(now);
        if config {
            self.first_config.get_or_insert(now);
        }
        self.last = Some(now);
    }

    /// When what waits is to be translated; `None` if nothing waits.
    pub(crate) fn due(&self) -> Option<Instant> {
        let (first, last) = (self.first?, self.last?);
        let longest =
            if self.first_config == Some(first) { CONFIG_WAIT_MAX } else { ENDPOINTS_WAIT_MAX };
        let soon = (last + QUIET).min(first + longest);
        match (self.first_config, self.rest_until) {
            (Some(_), Some(rest)) => Some(soon.max(rest)),
            _ => Some(soon),
        }
    }

    /// Since when the oldest change has waited.
    pub(crate) fn waiting_since(&self) -> Option<Instant> {
        self.first
    }

    /// All that waited is translated.
    pub(crate) fn done(&mut self, took: Duration, now: Instant) {
        if self.first_config.is_some() {
            self.rest_until = Some(now + (took * REST_FACTOR).min(REST_MAX));
        }
        (self.first, self.first_config, self.last) = (None, None, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_single_change_waits_for_quiet_alone() {
        let now = Instant::now();
        for config in [false, true] {
            let mut pace = Pace::default();
            assert_eq!(pace.due(), None);
            pace.changed(config, now);
            assert_eq!(pace.due(), Some(now + QUIET));
            pace.done(MS, now);
            assert_eq!(pace.due(), None);
        }
    }

    #[test]
    fn a_burst_is_bounded() {
        let begin = Instant::now();
        for (config, bound) in [(false, ENDPOINTS_WAIT_MAX), (true, CONFIG_WAIT_MAX)] {
            let mut pace = Pace::default();
            for at in 0..200 {
                pace.changed(config, begin + 5 * MS * at);
            }
            assert_eq!(pace.due(), Some(begin + bound));
            assert_eq!(pace.waiting_since(), Some(begin));
        }
    }

    #[test]
    fn translating_everything_is_not_all_that_is_done() {
        let now = Instant::now();
        let mut pace = Pace::default();
        pace.changed(true, now);
        pace.done(100 * MS, now);
        pace.changed(false, now + MS);
        assert_eq!(pace.due(), Some(now + MS + QUIET), "endpoints do not wait");
        pace.changed(true, now + MS);
        assert_eq!(pace.due(), Some(now + 400 * MS));
        pace.done(3600 * 1000 * MS, now);
        pace.changed(true, now + MS);
        assert_eq!(pace.due(), Some(now + REST_MAX));
    }
}
