//! How many servers of a tunnel there are, by their Leases (coordination.k8s.io/v1): each server keeps one of its own
//! (`keep`), agents count those that are renewed (`count`). As Konnectivity has them, so that both can be mixed.
//!
//! Whether a Lease is alive is decided by [`Renewals`], pure. Must not know what a tunnel is.

mod calls;
mod count;
mod keep;

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

pub use calls::{BOUNDS_SECONDS, Calls, Latency};
pub use count::{CountOptions, CountStats, Counter};
pub use keep::{KeepOptions, KeepStats, Keeper, NAME_PREFIX};

/// A Lease that does not say how long it lasts counts as this one would.
const LEASE_DURATION: Duration = Duration::from_secs(30);
/// Leases that are looked at: more servers than any cluster has.
const LEASES_MAX: u32 = 500;

/// Leases as they were last seen, and since when they have been so.
#[derive(Debug, Default)]
struct Renewals(BTreeMap<String, Renewal>);

#[derive(Debug)]
struct Renewal {
    renewed: Option<Timestamp>,
    /// Since when that is known, by one's own clock.
    since: Instant,
    /// Whether the renewal itself has been seen, and not only its trace.
    witnessed: bool,
    duration: Duration,
}

impl Renewals {
    /// Takes in what a Lease says now.
    fn see(&mut self, name: &str, spec: &LeaseSpec, now: Instant) {
        let renewed = spec.renew_time.as_ref().or(spec.acquire_time.as_ref()).map(|time| time.0);
        let seconds = spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok());
        let duration = seconds.map_or(LEASE_DURATION, Duration::from_secs);
        match self.0.get_mut(name) {
            Some(known) if known.renewed == renewed => known.duration = duration,
            known => {
                let witnessed = known.is_some();
                let renewal = Renewal { renewed, since: now, witnessed, duration };
                self.0.insert(name.to_owned(), renewal);
            }
        }
    }

    fn forget(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Those that are alive: a renewal that has been seen counts by one's own clock, one that was there before by what
    /// it says. So a clock that is wrong, here or there, makes no server vanish.
    fn alive(&self, now: Instant, time: Timestamp) -> usize {
        self.0.values().filter(|renewal| renewal.is_alive(now, time)).count()
    }

    /// Those that have not been alive for as long as they last, by one's own clock as well as by what they say.
    fn dead(&self, now: Instant, time: Timestamp) -> Vec<String> {
        let dead = self.0.iter().filter(|(_, renewal)| {
            now.duration_since(renewal.since) >= renewal.duration && !renewal.is_current(time)
        });
        dead.map(|(name, _)| name.clone()).collect()
    }
}

impl Renewal {
    fn is_alive(&self, now: Instant, time: Timestamp) -> bool {
        let lately = now.duration_since(self.since) < self.duration;
        lately && (self.witnessed || self.is_current(time))
    }

    /// By what it says.
    fn is_current(&self, time: Timestamp) -> bool {
        let duration = SignedDuration::try_from(self.duration).unwrap_or(SignedDuration::MAX);
        let until = self.renewed.map(|renewed| renewed.saturating_add(duration));
        until.is_some_and(|until| until.is_ok_and(|until| until > time))
    }
}

fn name_of(lease: &Lease) -> &str {
    lease.metadata.name.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

    fn spec(renewed: i64) -> LeaseSpec {
        LeaseSpec {
            lease_duration_seconds: Some(30),
            renew_time: Timestamp::from_second(renewed).ok().map(MicroTime),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn a_lease_is_alive_while_it_is_renewed() {
        let begin = Instant::now();
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let time = |seconds: i64| Timestamp::from_second(seconds).unwrap();
        let mut renewals = Renewals::default();
        renewals.see("current", &spec(1000), at(0));
        renewals.see("expired", &spec(900), at(0));
        renewals.see("blank", &LeaseSpec::default(), at(0));
        assert_eq!(renewals.alive(at(0), time(1000)), 1);
        assert_eq!(renewals.alive(at(29), time(1029)), 1);
        assert_eq!(renewals.alive(at(30), time(1030)), 0);
        assert_eq!(renewals.dead(at(29), time(1029)), [""; 0]);
        assert_eq!(renewals.dead(at(30), time(1030)), ["blank", "current", "expired"]);
        renewals.see("expired", &spec(1020), at(20));
        assert_eq!(renewals.alive(at(21), time(1021)), 2);
        renewals.forget("current");
        renewals.forget("blank");
        assert_eq!(renewals.alive(at(49), time(1049)), 1);
        assert_eq!(renewals.alive(at(50), time(1050)), 0);
    }

    /// The server's clock is an hour behind, or an hour ahead.
    #[test]
    fn a_clock_that_is_wrong_makes_no_server_vanish_and_none_stay() {
        let begin = Instant::now();
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let time = |seconds: i64| Timestamp::from_second(10_000 + seconds).unwrap();
        for skew in [-3600, 3600] {
            let mut renewals = Renewals::default();
            renewals.see("a", &spec(10_000 + skew), at(0));
            // Behind, it counts from the first renewal on that is seen.
            assert_eq!(renewals.alive(at(1), time(1)), usize::from(skew > 0));
            renewals.see("a", &spec(10_015 + skew), at(15));
            assert_eq!(renewals.alive(at(40), time(40)), 1);
            assert_eq!(renewals.alive(at(45), time(45)), 0);
            assert_eq!(renewals.dead(at(44), time(44)).len(), 0);
            // Ahead, nobody removes it before its own time is over as well.
            assert_eq!(renewals.dead(at(45), time(45)).len(), usize::from(skew < 0));
        }
    }

    #[test]
    fn what_makes_no_sense_is_not_alive() {
        let now = Instant::now();
        let mut renewals = Renewals::default();
        let odd = LeaseSpec { lease_duration_seconds: Some(i32::MAX), ..spec(i64::from(u32::MAX)) };
        renewals.see("far", &odd, now);
        let negative = LeaseSpec { lease_duration_seconds: Some(-5), ..spec(0) };
        renewals.see("negative", &negative, now);
        assert_eq!(renewals.alive(now, Timestamp::from_second(1000).unwrap()), 1);
    }
}
