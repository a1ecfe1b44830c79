//! A server's own Lease: made, renewed, deleted at the end. Those of servers that have gone without deleting theirs are
//! deleted as well.
//!
//! An API server that is away changes nothing: it is tried again, and the Lease runs out meanwhile if it must.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, ListParams, PostParams, Preconditions};
use tokio::sync::watch;
use tokio::time::Instant;

use super::calls::Calls;
use super::{LEASE_DURATION, LEASES_MAX, Renewals, name_of};
use crate::api::backoff::{Backoff, chance};
use crate::api::{Cluster, Failure, FailureKind, bounded};
use crate::budget::Budget;
use crate::source::stopped;

/// Before a server's name in the name of its Lease.
pub const NAME_PREFIX: &str = "konnectivity-proxy-server-";
/// How often it is renewed, and others are looked after.
const RENEW_EVERY: Duration = Duration::from_secs(15);
/// How long deleting it may take at the end.
const DELETE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long one waits for one's turn: longer, and the Lease runs out.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);

/// Whose Lease, and where.
#[derive(Debug, Clone)]
pub struct KeepOptions {
    /// Its namespace.
    pub namespace: String,
    /// The server's name.
    pub server: String,
    /// The label by which agents and other servers find it.
    pub label: (String, String),
}

/// Keeps a Lease.
pub struct Keeper {
    api: Api<Lease>,
    options: KeepOptions,
    name: String,
    budget: Arc<Budget>,
    /// As it was last written.
    version: Option<String>,
    others: Renewals,
    complained: Option<FailureKind>,
    stats: Arc<KeepStats>,
}

/// What a keeper counts.
#[derive(Debug, Default)]
pub struct KeepStats {
    /// Lists of Leases.
    pub lists: Calls,
    /// Deletions of others' Leases.
    pub deletes: Calls,
    culled: AtomicU64,
}

impl KeepStats {
    /// Others' Leases that were deleted.
    #[must_use]
    pub fn culled(&self) -> u64 {
        self.culled.load(Ordering::Relaxed)
    }
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Keeper {
    /// One that has written nothing yet.
    #[must_use]
    pub fn new(cluster: &Cluster, options: KeepOptions, budget: Arc<Budget>) -> Self {
        Self {
            api: Api::namespaced(cluster.client(), &options.namespace),
            name: format!("{NAME_PREFIX}{}", options.server),
            options,
            budget,
            version: None,
            others: Renewals::default(),
            complained: None,
            stats: Arc::default(),
        }
    }

    /// What it counts.
    #[must_use]
    pub fn stats(&self) -> Arc<KeepStats> {
        self.stats.clone()
    }

    /// Keeps it until `stop`, then deletes it. Dropped, it is left to run out.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut backoff = Backoff::default();
        loop {
            let begun = Instant::now();
            let step = async {
                match self.renew().await {
                    Ok(()) => self.collect().await,
                    Err(failure) => Err(failure),
                }
            };
            let outcome = tokio::select! {
                outcome = step => outcome,
                () = stopped(&mut stop) => break,
            };
            let next = match outcome {
                Ok(()) => {
                    backoff.reset();
                    self.complained = None;
                    begun + RENEW_EVERY
                }
                Err(failure) => {
                    self.complain(&failure);
                    Instant::now() + backoff.next(chance())
                }
            };
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                () = stopped(&mut stop) => break,
            }
        }
        let _ = tokio::time::timeout(DELETE_TIMEOUT, self.delete()).await;
    }

    /// Once for each kind of trouble: it is tried again for ever.
    fn complain(&mut self, failure: &Failure) {
        if self.complained.replace(failure.kind) != Some(failure.kind) {
            let lease = format!("{}/{}", self.options.namespace, self.name);
            tracing::warn!(lease, reason = failure.reason, "the server's Lease or those of others");
        }
    }

    async fn turn(&self) -> Result<(), Failure> {
        if self.budget.take(TURN_TIMEOUT).await {
            return Ok(());
        }
        Err(Failure::other("more requests than --kubeconfig-qps allows"))
    }

    async fn renew(&mut self) -> Result<(), Failure> {
        self.turn().await?;
        let found = bounded("the Lease", self.api.get_opt(&self.name)).await?;
        self.turn().await?;
        let params = PostParams::default();
        let written = match found {
            None => {
                let lease = self.lease(ObjectMeta::default(), None);
                bounded("creating the Lease", self.api.create(&params, &lease)).await?
            }
            Some(found) => {
                let acquired = found.spec.and_then(|spec| spec.acquire_time);
                let lease = self.lease(found.metadata, acquired);
                let replaced = self.api.replace(&self.name, &params, &lease);
                bounded("renewing the Lease", replaced).await?
            }
        };
        self.version = written.metadata.resource_version;
        Ok(())
    }

    fn lease(&self, mut metadata: ObjectMeta, acquired: Option<MicroTime>) -> Lease {
        let (key, value) = self.options.label.clone();
        metadata.name = Some(self.name.clone());
        metadata.labels.get_or_insert_with(BTreeMap::new).insert(key, value);
        let now = MicroTime(Timestamp::now());
        let spec = LeaseSpec {
            holder_identity: Some(self.options.server.clone()),
            lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
            acquire_time: Some(acquired.unwrap_or_else(|| now.clone())),
            renew_time: Some(now),
            ..LeaseSpec::default()
        };
        Lease { metadata, spec: Some(spec) }
    }

    /// Deletes those that nobody has renewed for as long as they last.
    async fn collect(&mut self) -> Result<(), Failure> {
        self.turn().await?;
        let (key, value) = &self.options.label;
        let params = ListParams::default().labels(&format!("{key}={value}")).limit(LEASES_MAX);
        let begun = Instant::now();
        let listed = bounded_result(self.api.list(&params)).await;
        self.stats.lists.note(listed.as_ref(), begun.elapsed());
        let leases = outcome(listed, "listing Leases")?.items;
        let mut others = std::mem::take(&mut self.others);
        let is_server =
            |lease: &&Lease| name_of(lease).starts_with(NAME_PREFIX) && name_of(lease) != self.name;
        let leases: Vec<&Lease> = leases.iter().filter(is_server).collect();
        others.0.retain(|name, _| leases.iter().any(|lease| name_of(lease) == name));
        let now = Instant::now();
        for lease in &leases {
            others.see(name_of(lease), &lease.spec.clone().unwrap_or_default(), now);
        }
        let dead = others.dead(now, Timestamp::now());
        self.others = others;
        for lease in leases.into_iter().filter(|lease| dead.iter().any(|d| d == name_of(lease))) {
            self.turn().await?;
            let begun = Instant::now();
            let params = only_this(lease.metadata.resource_version.clone());
            let deleted = bounded_result(self.api.delete(name_of(lease), &params)).await;
            self.stats.deletes.note(deleted.as_ref(), begun.elapsed());
            match outcome(deleted, "deleting a Lease") {
                Ok(_) => {
                    self.stats.culled.fetch_add(1, Ordering::Relaxed);
                    tracing::info!(
                        lease = name_of(lease),
                        "deleted: its server has not renewed it"
                    );
                }
                // Another server was faster, or it has been renewed after all.
                Err(failure)
                    if matches!(failure.kind, FailureKind::NotFound | FailureKind::Conflict) => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    /// Its own, if nobody of the same name has written it since.
    async fn delete(&self) {
        let Some(version) = self.version.clone() else { return };
        let params = only_this(Some(version));
        if let Err(error) = self.api.delete(&self.name, &params).await {
            let reason = Failure::of(&error).reason;
            tracing::warn!(lease = self.name, reason, "the server's Lease is left to run out");
        }
    }
}

fn only_this(version: Option<String>) -> DeleteParams {
    let preconditions = Preconditions { resource_version: version, uid: None };
    DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() }
}

/// A request under the usual bound; `None` where that is over.
pub(super) async fn bounded_result<T>(
    request: impl Future<Output = kube::Result<T>>,
) -> Option<kube::Result<T>> {
    tokio::time::timeout(crate::api::REQUEST_TIMEOUT, request).await.ok()
}

pub(super) fn outcome<T>(answer: Option<kube::Result<T>>, what: &str) -> Result<T, Failure> {
    let answer = answer.ok_or_else(|| Failure::slow(what))?;
    answer.map_err(|error| Failure::of(&error))
}
