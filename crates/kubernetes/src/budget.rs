//! How often the API server is asked: so many requests a second, so many at once (client-go's QPS and burst).
//!
//! [`Pace`] decides, with the time as an argument; [`Budget`] waits. Must not know what is asked.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// client-go's defaults, which hold where 0 is given.
const QPS_DEFAULT: f64 = 5.0;
const BURST_DEFAULT: u32 = 10;

/// A number of requests a second that makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("{0} requests a second, expected a number above 0, or 0 for {QPS_DEFAULT}")]
pub struct InvalidQps(pub f64);

/// Requests that may be sent. Shared by all who send them.
#[derive(Debug)]
pub struct Budget(Mutex<Pace>);

#[derive(Debug)]
struct Pace {
    /// Between two requests when there are many.
    interval: Duration,
    /// So far ahead of that one may be.
    slack: Duration,
    /// When the next one would be due if all before had come one by one.
    due: Option<Instant>,
}

impl Budget {
    /// So many requests a second, and so many at once; 0 for client-go's 5 and 10.
    ///
    /// # Errors
    /// Where `qps` is negative or no number.
    pub fn new(qps: f64, burst: u32) -> Result<Self, InvalidQps> {
        let qps_or_default = if qps == 0.0 { QPS_DEFAULT } else { qps };
        let burst = if burst == 0 { BURST_DEFAULT } else { burst };
        let interval = Duration::try_from_secs_f64(1.0 / qps_or_default).ok();
        let interval = interval.filter(|_| qps_or_default > 0.0).ok_or(InvalidQps(qps))?;
        let slack = interval.saturating_mul(burst - 1);
        Ok(Self(Mutex::new(Pace { interval, slack, due: None })))
    }

    /// Waits until one more request may be sent; whether that was within `most`. Where it would not be, it says so at
    /// once. Dropped while waiting, the request counts as sent.
    pub(crate) async fn take(&self, most: Duration) -> bool {
        let now = Instant::now();
        let wait = self.0.lock().unwrap_or_else(PoisonError::into_inner).reserve(now, most);
        match wait {
            None => false,
            Some(wait) => {
                tokio::time::sleep(wait).await;
                true
            }
        }
    }
}

impl Pace {
    /// How long until one more may be sent, which is noted; `None` if that is too long, and nothing is noted.
    fn reserve(&mut self, now: Instant, most: Duration) -> Option<Duration> {
        let due = self.due.map_or(now, |due| due.max(now));
        let wait = due.duration_since(now).saturating_sub(self.slack);
        if wait > most {
            return None;
        }
        self.due = due.checked_add(self.interval);
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_at_once_and_then_so_many_a_second() {
        let start = Instant::now();
        let budget = Budget::new(2.0, 3).unwrap();
        let mut pace = budget.0.lock().unwrap();
        let mut wait = |at, most| {
            let now = start + Duration::from_millis(at);
            pace.reserve(now, Duration::from_millis(most)).map(|wait| wait.as_millis())
        };
        assert_eq!([wait(0, 0), wait(0, 0), wait(0, 0)], [Some(0); 3]);
        assert_eq!(wait(0, 499), None);
        assert_eq!(wait(0, 500), Some(500));
        assert_eq!(wait(0, 2000), Some(1000));
        // Idle for long, it begins anew.
        assert_eq!([wait(9000, 0), wait(9000, 0), wait(9000, 0)], [Some(0); 3]);
        assert_eq!(wait(9000, 0), None);
    }

    #[test]
    fn what_is_no_number_of_requests_is_refused() {
        for qps in [-1.0, f64::NAN, f64::NEG_INFINITY, 1e-300] {
            assert!(Budget::new(qps, 1).is_err(), "{qps}");
        }
        for (qps, burst) in [(0.0, 0), (0.001, 1), (1e9, u32::MAX)] {
            assert!(Budget::new(qps, burst).is_ok(), "{qps}");
        }
    }
}
