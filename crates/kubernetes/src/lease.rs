//! Which of several replicas writes status and Events: the one that holds a Lease (coordination.k8s.io/v1).
//!
//! The usual protocol: take it when it is free or has not been renewed for its duration, measured by one's own clock
//! from when the renewal was seen; renew it often; stop writing before others may take it; give it back at the end.
//! [`Watched::decide`] is that, pure; [`Elector`] asks and writes. Must not know what the leader does.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::api::backoff::chance;
use crate::api::{Cluster, Failure, FailureKind, bounded};
use crate::source::stopped;

/// Without renewal for this long, the Lease is anybody's.
pub(crate) const LEASE_DURATION: Duration = Duration::from_secs(15);
/// Who has not been able to renew for this long stops writing: before others may begin.
pub(crate) const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// How often it is renewed, or looked at.
pub(crate) const RENEW_EVERY: Duration = Duration::from_secs(3);
/// How long giving it back may take at the end.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// Whose Lease, and who wants it.
#[derive(Debug, Clone)]
pub struct LeaseOptions {
    /// Where it is: the pod's own namespace.
    pub namespace: String,
    /// Its name: one for each set of replicas.
    pub name: String,
    /// Who this is, different for every process: the pod's name.
    pub identity: String,
}

/// The Lease as it was last seen, and since when it has been so.
#[derive(Debug, Default)]
struct Watched {
    seen: Option<(String, Option<MicroTime>)>,
    since: Option<Instant>,
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Move {
    /// Ours: renew.
    Renew,
    /// Nobody's: take.
    Take,
    /// Somebody else's.
    Wait,
}

impl Watched {
    fn decide(&mut self, spec: &LeaseSpec, me: &str, now: Instant) -> Move {
        let holder = spec.holder_identity.clone().unwrap_or_default();
        let seen = (holder, spec.renew_time.clone());
        if self.seen.as_ref() != Some(&seen) {
            self.seen = Some(seen.clone());
            self.since = Some(now);
        }
        if seen.0 == me {
            return Move::Renew;
        }
        let seconds = spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok());
        let duration = seconds.map_or(LEASE_DURATION, Duration::from_secs);
        let expired = self.since.is_some_and(|since| now.duration_since(since) >= duration);
        if seen.0.is_empty() || expired { Move::Take } else { Move::Wait }
    }
}

/// Takes part in the election.
pub(crate) struct Elector {
    api: Api<Lease>,
    options: LeaseOptions,
    watched: Watched,
    /// When it was last renewed, as begun.
    renewed: Option<Instant>,
    complained: Option<FailureKind>,
}

impl Elector {
    pub(crate) fn new(cluster: &Cluster, options: LeaseOptions) -> Self {
        let api = Api::namespaced(cluster.client(), &options.namespace);
        Self { api, options, watched: Watched::default(), renewed: None, complained: None }
    }

    /// Says who leads until `stop`, then gives the Lease back. Dropped, it is left to run out.
    pub(crate) async fn run(mut self, leads: watch::Sender<bool>, mut stop: watch::Receiver<bool>) {
        loop {
            let begun = Instant::now();
            let (leading, renewed) = (*leads.borrow(), self.renewed.unwrap_or(begun));
            let held = tokio::select! {
                held = self.step() => held,
                // Renewing takes too long: others may begin to write.
                () = tokio::time::sleep_until(renewed + RENEW_DEADLINE), if leading => false,
                () = stopped(&mut stop) => break,
            };
            if leads.send_if_modified(|now| std::mem::replace(now, held) != held) {
                let (identity, lease) = (&*self.options.identity, &*self.options.name);
                tracing::info!(identity, lease, leader = held, "leader election");
            }
            let spread = Duration::from_millis(chance() % 500);
            tokio::select! {
                () = tokio::time::sleep_until(begun + RENEW_EVERY + spread) => {}
                () = stopped(&mut stop) => break,
            }
        }
        if leads.send_replace(false) {
            let _ = tokio::time::timeout(RELEASE_TIMEOUT, self.release()).await;
        }
    }

    /// One look, and what follows from it; whether this one leads.
    async fn step(&mut self) -> bool {
        let begun = Instant::now();
        match self.attempt().await {
            Ok(held) => {
                self.complained = None;
                if held {
                    self.renewed = Some(begun);
                }
                held
            }
            Err(failure) => {
                // Once for each kind of trouble: it is tried again for ever.
                if failure.kind == FailureKind::Forbidden && self.complained != Some(failure.kind) {
                    let lease = format!("{}/{}", self.options.namespace, self.options.name);
                    let reason = failure.reason;
                    tracing::warn!(
                        lease,
                        reason,
                        "no leader election: status and Events stay unwritten"
                    );
                }
                self.complained = Some(failure.kind);
                self.renewed.is_some_and(|at| at.elapsed() < RENEW_DEADLINE)
            }
        }
    }

    async fn attempt(&mut self) -> Result<bool, Failure> {
        let name = self.options.name.clone();
        let found = match bounded("the Lease", self.api.get_opt(&name)).await? {
            Some(found) => found,
            None => return self.create().await,
        };
        let spec = found.spec.clone().unwrap_or_default();
        let now = Instant::now();
        let (taken, transitions) = match self.watched.decide(&spec, &self.options.identity, now) {
            Move::Wait => {
                self.renewed = None;
                return Ok(false);
            }
            Move::Renew => (spec.acquire_time, spec.lease_transitions),
            Move::Take => (None, Some(spec.lease_transitions.unwrap_or(0).saturating_add(1))),
        };
        let lease = Lease { metadata: found.metadata, spec: Some(self.spec(taken, transitions)) };
        let params = PostParams::default();
        let replaced = self.api.replace(&name, &params, &lease);
        won(bounded("renewing the Lease", replaced).await)
    }

    async fn create(&mut self) -> Result<bool, Failure> {
        let metadata =
            ObjectMeta { name: Some(self.options.name.clone()), ..ObjectMeta::default() };
        let lease = Lease { metadata, spec: Some(self.spec(None, Some(0))) };
        let params = PostParams::default();
        let created = self.api.create(&params, &lease);
        won(bounded("creating the Lease", created).await)
    }

    fn spec(&self, acquired: Option<MicroTime>, transitions: Option<i32>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        LeaseSpec {
            acquire_time: Some(acquired.unwrap_or_else(|| now.clone())),
            holder_identity: Some(self.options.identity.clone()),
            lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
            lease_transitions: transitions,
            renew_time: Some(now),
            ..LeaseSpec::default()
        }
    }

    /// Nobody's from now on, if it is ours still.
    async fn release(&mut self) -> Result<(), Failure> {
        let name = self.options.name.clone();
        let Some(found) = bounded("the Lease", self.api.get_opt(&name)).await? else {
            return Ok(());
        };
        let mut spec = found.spec.unwrap_or_default();
        if spec.holder_identity.as_deref() != Some(&*self.options.identity) {
            return Ok(());
        }
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        let lease = Lease { metadata: found.metadata, spec: Some(spec) };
        let params = PostParams::default();
        let replaced = self.api.replace(&name, &params, &lease);
        bounded("giving the Lease back", replaced).await.map(drop)
    }
}

/// Somebody who was faster is no failure.
fn won<T>(outcome: Result<T, Failure>) -> Result<bool, Failure> {
    match outcome {
        Ok(_) => Ok(true),
        Err(failure) if failure.kind == FailureKind::Conflict => Ok(false),
        Err(failure) => Err(failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(by: &str, renewed: i64) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(by.to_owned()),
            lease_duration_seconds: Some(15),
            renew_time: Timestamp::from_second(renewed).ok().map(MicroTime),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn it_is_taken_when_nobody_renews_it() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut watched = Watched::default();
        assert_eq!(watched.decide(&held("other", 1), "me", at(0)), Move::Wait);
        assert_eq!(watched.decide(&held("other", 1), "me", at(14)), Move::Wait);
        // Renewed in between: from then on.
        assert_eq!(watched.decide(&held("other", 2), "me", at(16)), Move::Wait);
        assert_eq!(watched.decide(&held("other", 2), "me", at(30)), Move::Wait);
        assert_eq!(watched.decide(&held("other", 2), "me", at(31)), Move::Take);
        assert_eq!(watched.decide(&held("me", 3), "me", at(32)), Move::Renew);
        assert_eq!(watched.decide(&held("", 3), "me", at(33)), Move::Take);
    }

    /// A clock that is wrong, here or there, takes nobody's Lease: only one's own measure of time counts.
    #[test]
    fn what_the_renewal_says_is_not_believed() {
        let mut watched = Watched::default();
        for renewed in [0, i64::from(u32::MAX)] {
            assert_eq!(watched.decide(&held("other", renewed), "me", Instant::now()), Move::Wait);
        }
    }
}
