//! What objects hear of us: status of Ingresses, Events about what is wrong. Written by one of several replicas, the
//! one that [`crate::lease`] names; never in the way of what is served.
//!
//! [`status`] and [`events`] decide what is written, pure; here it is sent, bounded in number and time. What RBAC
//! forbids is said once in the log and left.

mod events;
mod status;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::api::networking::v1::Ingress;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams, PostParams};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::api::{Cluster, Failure, FailureKind, bounded};
use crate::health::Health;
use crate::lease::{Elector, LeaseOptions};
use crate::source::{Output, Shared, stopped};
pub use status::Publish;

/// Writes under way at the same time.
const WRITES_AT_ONCE: usize = 4;
/// Events that fail before the rest waits for the next time.
const FAILURES_MAX: u32 = 5;
/// What is written is compared with what is wanted this often, whatever happens: somebody else may have written.
const COMPARE_EVERY: Duration = Duration::from_secs(30);
/// Changes are collected for this long before they are written.
const COLLECT: Duration = Duration::from_millis(500);

/// What objects hear, and from whom.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which of several replicas writes; `None`: this one, always.
    pub lease: Option<LeaseOptions>,
    /// Which addresses Ingresses are given.
    pub publish: Publish,
    /// The controller's name, as Events show it: `cloverleaf/gateway`.
    pub controller: String,
    /// This process, as Events show it: the pod's name.
    pub instance: String,
}

/// The task that writes.
pub(crate) struct Reporter {
    cluster: Cluster,
    options: Options,
    shared: Arc<Shared>,
    health: Arc<Health>,
    events: events::Said,
    status: status::Written,
    /// What RBAC was found to forbid: said once.
    forbidden: Vec<&'static str>,
}

/// When this one does not lead any more.
async fn not(leading: &mut watch::Receiver<bool>) {
    let _ = leading.wait_for(|leads| !*leads).await;
}

impl Reporter {
    pub(crate) fn new(
        cluster: &Cluster,
        options: Options,
        shared: Arc<Shared>,
        health: Arc<Health>,
    ) -> Self {
        Self {
            cluster: cluster.clone(),
            options,
            shared,
            health,
            events: events::Said::default(),
            status: status::Written::default(),
            forbidden: Vec::new(),
        }
    }

    /// Until told to stop; then the Lease is given back. Dropped, the Lease runs out by itself.
    pub(crate) async fn run(
        mut self,
        mut output: watch::Receiver<Option<Arc<Output>>>,
        mut stop: watch::Receiver<bool>,
    ) {
        let (leads, mut leading) = watch::channel(self.options.lease.is_none());
        let elector = self.options.lease.clone().map(|lease| {
            let elector = Elector::new(&self.cluster, lease).run(leads, stop.clone());
            net::task::spawn("kubernetes lease", elector)
        });
        let mut compare = tokio::time::interval(COMPARE_EVERY);
        compare.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                changed = output.changed() => if changed.is_err() { break },
                Ok(()) = leading.changed() => {}
                _ = compare.tick() => {}
                () = stopped(&mut stop) => break,
            }
            let leader = *leading.borrow_and_update();
            if leader && !self.health.leader.load(Ordering::Relaxed) {
                // What was begun when this one led before may not have been sent.
                self.events = events::Said::default();
            }
            self.health.leader.store(leader, Ordering::Relaxed);
            tokio::select! {
                () = tokio::time::sleep(COLLECT) => {}
                () = stopped(&mut stop) => break,
            }
            let latest = output.borrow_and_update().clone();
            let Some(latest) = latest.filter(|output| leader && !output.from_state) else {
                continue;
            };
            tokio::select! {
                () = self.write(&latest) => {}
                // Whoever leads next writes the rest.
                () = not(&mut leading) => {}
                () = stopped(&mut stop) => break,
            }
        }
        if let Some(elector) = elector {
            let _ = elector.await;
        }
        self.health.leader.store(false, Ordering::Relaxed);
    }

    /// Everything that is due.
    async fn write(&mut self, output: &Arc<Output>) {
        // Few, and people wait for them; statuses may be thousands.
        self.write_events(output).await;
        self.write_statuses(output).await;
    }

    async fn write_statuses(&mut self, output: &Arc<Output>) {
        let now = Instant::now();
        let (shared, ours) = (self.shared.clone(), output.translation.ours.clone());
        let publish = self.options.publish.clone();
        let mut written = std::mem::take(&mut self.status);
        let me = status::writer(self.options.lease.as_ref());
        // By force: addresses that somebody else wrote are of no use on an Ingress of ours.
        let params = PatchParams::apply(&me).force();
        // The lock may be held for as long as a translation takes.
        let job = move || {
            let due = written.due(&shared.held().store, &ours, (&publish, &me), now);
            (written, due)
        };
        let Ok((written, due)) = tokio::task::spawn_blocking(job).await else { return };
        self.status = written;
        let client = self.cluster.client();
        let mut outcomes = futures_util::stream::iter(due)
            .map(|wanted| {
                let (client, params) = (client.clone(), &params);
                async move {
                    let api: Api<Ingress> = Api::namespaced(client, &wanted.key.namespace);
                    let patch = Patch::Apply(wanted.applied());
                    let sent = api.patch_status(&wanted.key.name, params, &patch);
                    let outcome = bounded("a status", sent).await;
                    (wanted, outcome)
                }
            })
            .buffer_unordered(WRITES_AT_ONCE);
        let mut failures = Vec::new();
        while let Some((wanted, outcome)) = outcomes.next().await {
            match outcome {
                Ok(_) => {
                    self.health.statuses.fetch_add(1, Ordering::Relaxed);
                    self.status.done(wanted, Instant::now());
                }
                // Deleted meanwhile: nobody is left to hear of it.
                Err(failure) if failure.kind == FailureKind::NotFound => {}
                Err(failure) => failures.push(failure),
            }
        }
        drop(outcomes);
        failures.iter().for_each(|failure| self.failed("status of Ingresses", failure));
    }

    async fn write_events(&mut self, output: &Arc<Output>) {
        let due = self.events.due(&output.translation.problems, Instant::now());
        let mut due = due.into_iter();
        let mut failures = 0;
        while let Some(problem) = due.next() {
            let event = events::event(
                &problem,
                &self.options.controller,
                &self.options.instance,
                MicroTime(Timestamp::now()),
            );
            match self.send_event(&event).await {
                Ok(()) => {
                    self.health.events.fetch_add(1, Ordering::Relaxed);
                }
                Err(failure) => {
                    // Tried again when it is compared next; one that the API server does not take stops no others.
                    self.events.unsaid(&problem);
                    self.failed("Events", &failure);
                    failures += 1;
                    if failures >= FAILURES_MAX || failure.kind == FailureKind::Forbidden {
                        due.for_each(|problem| self.events.unsaid(&problem));
                        return;
                    }
                }
            }
        }
    }

    /// A new one, or one more of a series, if it was said before by whomever.
    async fn send_event(&self, event: &Event) -> Result<(), Failure> {
        let namespace = event.metadata.namespace.as_deref().unwrap_or("default");
        let api: Api<Event> = Api::namespaced(self.cluster.client(), namespace);
        let created = bounded("an Event", api.create(&PostParams::default(), event)).await;
        match created {
            Err(failure) if failure.kind == FailureKind::Conflict => {}
            // Its namespace is being deleted, or is gone.
            Err(failure) if failure.kind == FailureKind::NotFound => return Ok(()),
            other => return other.map(drop),
        }
        let name = event.metadata.name.as_deref().unwrap_or_default();
        let Some(before) = bounded("an Event", api.get_opt(name)).await? else { return Ok(()) };
        let count = before.series.map_or(1, |series| series.count).saturating_add(1);
        let series = EventSeries { count, last_observed_time: MicroTime(Timestamp::now()) };
        let patch = Patch::Merge(serde_json::json!({ "series": series }));
        bounded("an Event", api.patch(name, &PatchParams::default(), &patch)).await.map(drop)
    }

    fn failed(&mut self, what: &'static str, failure: &Failure) {
        self.health.write_failures.fetch_add(1, Ordering::Relaxed);
        let reason = &*failure.reason;
        if failure.kind != FailureKind::Forbidden {
            tracing::debug!(what, reason, "not written; tried again");
        } else if !self.forbidden.contains(&what) {
            self.forbidden.push(what);
            tracing::warn!(what, reason, "may not be written: a matter of RBAC");
        }
    }
}
