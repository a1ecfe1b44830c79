//! Counting the servers: their Leases listed once and watched from then on.
//!
//! Where the API server is away, or has none that are alive, the last number stays: [`Known`] decides, pure.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use tokio::sync::watch;
use tokio::time::Instant;

use super::calls::Calls;
use super::keep::{bounded_result, outcome};
use super::{LEASE_DURATION, LEASES_MAX, Renewals, name_of};
use crate::api::backoff::{Backoff, chance};
use crate::api::{Cluster, Failure, FailureKind};

/// The API server is asked to end a watch after this time; it then goes on where it was.
const WATCH_SECONDS: u32 = 110;
/// A watch on which nothing came in all that time, not even its end, is dead.
const WATCH_SILENT_MAX: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 10);
/// A watch that ends sooner counts as a failure, so that the next one waits.
const WATCH_LIVED_MIN: Duration = Duration::from_secs(1);
/// How often one looks whether a Lease has run out.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A server renews its Lease every 15 s: without a word for longer, it is the API server that is away.
const QUIET_MAX: Duration = Duration::from_secs(20);

/// Which Leases.
#[derive(Debug, Clone)]
pub struct CountOptions {
    /// Their namespace.
    pub namespace: String,
    /// Their labels, as a selector.
    pub selector: String,
}

/// Counts servers by their Leases.
pub struct Counter {
    api: Api<Lease>,
    options: CountOptions,
    renewals: Renewals,
    stats: Arc<CountStats>,
    known: Known,
    counts: watch::Sender<usize>,
    complained: Option<FailureKind>,
}

/// How many servers are known, and from when on there may be fewer.
#[derive(Debug)]
struct Known {
    count: usize,
    heard: Instant,
    fewer_from: Instant,
}

impl Known {
    fn new(now: Instant) -> Self {
        Self { count: 1, heard: now, fewer_from: now }
    }

    /// Something has come from the API server.
    fn heard(&mut self, now: Instant) {
        if now.duration_since(self.heard) > QUIET_MAX {
            self.interrupted(now);
        }
        self.heard = now;
    }

    /// For some time nothing was or is heard: servers could not renew either, and have to do so first.
    fn interrupted(&mut self, now: Instant) {
        self.fewer_from = now + LEASE_DURATION;
    }

    /// So many Leases are alive; the number to go by where it changes. None alive says nothing.
    fn take(&mut self, alive: usize, now: Instant) -> Option<usize> {
        let quiet = now.duration_since(self.heard) > QUIET_MAX;
        let fewer = alive < self.count;
        if alive == 0 || alive == self.count || fewer && (quiet || now < self.fewer_from) {
            return None;
        }
        self.count = alive;
        Some(alive)
    }
}

/// What a counter counts beside servers.
#[derive(Debug, Default)]
pub struct CountStats {
    /// Lists of Leases.
    pub lists: Calls,
    /// Watches of them.
    pub watches: Calls,
}

impl std::fmt::Debug for Counter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Counter").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Counter {
    /// One that has asked nothing yet, and where its numbers go: 1 until there is another.
    #[must_use]
    pub fn new(cluster: &Cluster, options: CountOptions) -> (Self, watch::Receiver<usize>) {
        let (counts, counted) = watch::channel(1);
        let counter = Self {
            api: Api::namespaced(cluster.client(), &options.namespace),
            options,
            renewals: Renewals::default(),
            stats: Arc::default(),
            known: Known::new(Instant::now()),
            counts,
            complained: None,
        };
        (counter, counted)
    }

    /// What it counts beside servers.
    #[must_use]
    pub fn stats(&self) -> Arc<CountStats> {
        self.stats.clone()
    }

    /// Counts for ever. Dropped, the last number stays.
    pub async fn run(mut self) {
        let mut backoff = Backoff::default();
        loop {
            let begun = Instant::now();
            let failure = match self.list().await {
                Ok(version) => self.watch(version).await,
                Err(failure) => failure,
            };
            if begun.elapsed() >= WATCH_LIVED_MIN {
                backoff.reset();
            }
            if failure.kind != FailureKind::Gone {
                self.complain(&failure);
            }
            self.known.interrupted(Instant::now());
            tokio::time::sleep(backoff.next(chance())).await;
        }
    }

    /// Once for each kind of trouble: it is tried again for ever.
    fn complain(&mut self, failure: &Failure) {
        if self.complained.replace(failure.kind) != Some(failure.kind) {
            let (namespace, reason) = (&*self.options.namespace, &*failure.reason);
            tracing::warn!(namespace, reason, "the servers' Leases; their last number stays");
        }
    }

    /// Says how many there are, if that has changed.
    fn publish(&mut self) {
        let now = Instant::now();
        if let Some(count) = self.known.take(self.renewals.alive(now, Timestamp::now()), now) {
            tracing::info!(count, "servers, by their Leases");
            self.counts.send_replace(count);
        }
    }

    async fn list(&mut self) -> Result<String, Failure> {
        let params = ListParams::default().labels(&self.options.selector).limit(LEASES_MAX);
        let begun = Instant::now();
        let listed = bounded_result(self.api.list(&params)).await;
        self.stats.lists.note(listed.as_ref(), begun.elapsed());
        let listed = outcome(listed, "listing Leases")?;
        let now = Instant::now();
        self.known.heard(now);
        self.renewals.0.retain(|name, _| listed.items.iter().any(|lease| name_of(lease) == name));
        for lease in &listed.items {
            self.see(lease, now);
        }
        self.complained = None;
        self.publish();
        Ok(listed.metadata.resource_version.unwrap_or_default())
    }

    fn see(&mut self, lease: &Lease, now: Instant) {
        self.renewals.see(name_of(lease), &lease.spec.clone().unwrap_or_default(), now);
    }

    /// From a version on, until it has to be listed again; why.
    async fn watch(&mut self, mut version: String) -> Failure {
        let mut params = WatchParams::default().timeout(WATCH_SECONDS);
        params.label_selector = Some(self.options.selector.clone());
        loop {
            let begun = Instant::now();
            let api = self.api.clone();
            let opened = bounded_result(api.watch(&params, &version)).await;
            self.stats.watches.note(opened.as_ref(), begun.elapsed());
            let stream = match outcome(opened, "watching Leases") {
                Ok(stream) => stream,
                Err(failure) => return failure,
            };
            if let Err(failure) = self.follow(pin!(stream), &mut version).await {
                return failure;
            }
            if begun.elapsed() < WATCH_LIVED_MIN {
                return Failure::other("the watch ended at once");
            }
        }
    }

    /// One watch to its end.
    async fn follow(
        &mut self,
        mut stream: impl futures_util::Stream<Item = kube::Result<WatchEvent<Lease>>> + Unpin,
        version: &mut String,
    ) -> Result<(), Failure> {
        let mut silent_until = Instant::now() + WATCH_SILENT_MAX;
        loop {
            let event = tokio::select! {
                event = stream.next() => event,
                () = tokio::time::sleep(LOOK_EVERY) => {
                    if Instant::now() >= silent_until {
                        return Err(Failure::other("a watch fell silent"));
                    }
                    self.publish();
                    continue;
                }
            };
            silent_until = Instant::now() + WATCH_SILENT_MAX;
            self.known.heard(Instant::now());
            match event {
                None => return Ok(()),
                Some(Err(error)) => return Err(Failure::of(&error)),
                Some(Ok(WatchEvent::Added(lease) | WatchEvent::Modified(lease))) => {
                    advance(version, &lease);
                    self.see(&lease, Instant::now());
                }
                Some(Ok(WatchEvent::Deleted(lease))) => {
                    advance(version, &lease);
                    self.renewals.forget(name_of(&lease));
                }
                Some(Ok(WatchEvent::Bookmark(mark))) => *version = mark.metadata.resource_version,
                Some(Ok(WatchEvent::Error(status))) => return Err(Failure::of_status(&status)),
            }
            self.publish();
        }
    }
}

fn advance(version: &mut String, lease: &Lease) {
    if let Some(newer) = &lease.metadata.resource_version {
        version.clone_from(newer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_fewer_only_while_the_api_server_speaks() {
        let begin = Instant::now();
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let mut known = Known::new(at(0));
        assert_eq!(known.take(0, at(0)), None);
        assert_eq!(known.take(3, at(0)), Some(3));
        assert_eq!(known.take(3, at(1)), None);
        known.heard(at(10));
        assert_eq!(known.take(2, at(12)), Some(2));
        // Nothing is heard any more, and Leases run out.
        assert_eq!(known.take(1, at(31)), None);
        assert_eq!(known.take(0, at(60)), None);
        // It is back. Those that have renewed come one by one.
        known.heard(at(70));
        assert_eq!(known.take(1, at(70)), None);
        known.heard(at(85));
        assert_eq!(known.take(3, at(85)), Some(3));
        known.heard(at(95));
        assert_eq!(known.take(1, at(99)), None);
        assert_eq!(known.take(1, at(100)), Some(1));
        known.interrupted(at(101));
        assert_eq!(known.take(2, at(102)), Some(2));
        assert_eq!(known.take(1, at(103)), None);
    }
}
