//! The public entry: watches, keeps, translates, and gives each translation to whoever serves it.
//!
//! One task a kind fills a bounded channel; one task owns the objects, coalesces changes by [`pace`] and publishes.
//! Must not know what is done with a translation, nor what objects mean.

pub(crate) mod hold;
mod log;
mod owner;
mod pace;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::api::kinds::{Mode, Wiring};
pub use crate::api::kinds::{PodSelection, Selection};
use crate::api::{Cluster, Error};
use crate::health::Health;
use crate::report;
use crate::store::Store;
use crate::translate::{self, Translation, Translator};
use hold::{Held, Message};

/// Objects on their way from the watches to the owner.
const INBOX_OBJECTS: usize = 1024;
/// How long the end may take: the Lease given back, the state saved.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// What is watched and what is made of it.
#[derive(Debug)]
pub struct Options {
    /// What of the cluster is looked at.
    pub selection: Selection,
    /// What is made of it.
    pub translate: translate::Options,
    /// Where the last known objects are kept; `None`: nowhere.
    pub state: Option<PathBuf>,
    /// What objects hear of it; `None`: nothing is written to the API.
    pub report: Option<report::Options>,
}

/// What the objects come to, and whence.
#[derive(Debug)]
pub struct Output {
    /// What to serve.
    pub translation: Translation,
    /// Made of the state on disk: the API server was not to be had.
    pub from_state: bool,
    /// When the oldest change in it was seen.
    pub changed_at: Instant,
}

/// A running source. Dropped, everything stops where it is.
#[derive(Debug)]
pub struct Source {
    /// The latest output. The first comes when everything has been listed once, or from the state on disk.
    pub output: watch::Receiver<Option<Arc<Output>>>,
    /// How it goes.
    pub health: Arc<Health>,
    stop: watch::Sender<bool>,
    resign: watch::Sender<bool>,
    watches: Vec<JoinHandle<()>>,
    orderly: Vec<JoinHandle<()>>,
}

/// What the owner and the reporter both look at.
#[derive(Debug)]
pub(crate) struct Shared {
    held: Mutex<Held>,
    translator: Mutex<Translator>,
}

impl Shared {
    /// A lock that a panic has poisoned holds objects all the same.
    pub(crate) fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When it is time to end. Dropped, nothing is missed.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

impl Source {
    /// Starts watching. Must be called within a runtime; nothing blocks.
    #[must_use]
    pub fn start(cluster: &Cluster, options: Options) -> Self {
        let plans = options.selection.plan();
        let health = Health::new(plans.iter().map(|p| (p.kind, p.namespace.clone())));
        let (out, inbox) = mpsc::channel(INBOX_OBJECTS);
        let (publish, output) = watch::channel(None);
        let (stop, stopped) = watch::channel(false);
        let (resign, resigned) = watch::channel(false);
        let shared = Arc::new(Shared {
            held: Mutex::default(),
            translator: Mutex::new(Translator::new(options.translate.clone())),
        });
        let wiring = Arc::new(Wiring {
            cluster: cluster.clone(),
            selection: Arc::new(options.selection),
            out,
        });
        let watches: Vec<_> = plans
            .into_iter()
            .zip(health.watches.clone())
            .enumerate()
            .map(|(index, (plan, health))| {
                let wiring = wiring.clone();
                net::task::spawn("kubernetes watch", async move {
                    let _ = wiring.run(Mode::Follow, (index, &plan), &health).await;
                })
            })
            .collect();
        let owner = owner::Owner::new(
            owner::Parts {
                shared: shared.clone(),
                health: health.clone(),
                publish,
                translate: options.translate,
                state: options.state,
            },
            watches.len(),
        );
        let mut orderly = vec![net::task::spawn("kubernetes objects", owner.run(inbox, stopped))];
        if let Some(report) = options.report {
            let reporter = report::Reporter::new(cluster, report, shared, health.clone());
            let task = reporter.run(output.clone(), resigned);
            orderly.push(net::task::spawn("kubernetes report", task));
        }
        Self { output, health, stop, resign, watches, orderly }
    }

    /// Writes nothing to the cluster any more, and lets others do so; goes on following it.
    pub fn resign(&self) {
        self.resign.send_replace(true);
    }

    /// Stops in an orderly way: the Lease is given back, the state saved. Dropped, it stops as it is.
    pub async fn stop(mut self) {
        self.resign();
        self.stop.send_replace(true);
        let end = async {
            for task in &mut self.orderly {
                let _ = task.await;
            }
        };
        if tokio::time::timeout(STOP_TIMEOUT, end).await.is_err() {
            tracing::warn!("the Kubernetes source did not end in time");
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.watches.iter().chain(&self.orderly).for_each(JoinHandle::abort);
    }
}

/// All objects, listed once: for a dry run. Dropped, nothing has happened.
///
/// # Errors
/// The first kind that cannot be listed.
pub async fn list_once(cluster: &Cluster, selection: &Selection) -> Result<Store, Error> {
    let plans = selection.plan();
    let health = Health::new(plans.iter().map(|p| (p.kind, p.namespace.clone())));
    let (out, mut inbox) = mpsc::channel(INBOX_OBJECTS);
    let wiring = Wiring { cluster: cluster.clone(), selection: Arc::new(selection.clone()), out };
    let listing = async move {
        for (index, (plan, health)) in plans.iter().zip(&health.watches).enumerate() {
            wiring.run(Mode::Once, (index, plan), health).await.map_err(|failure| {
                let what = format!("listing {} objects", plan.kind.as_str());
                Error::Request { what, reason: failure.reason }
            })?;
        }
        Ok(())
    };
    let holding = async {
        let mut held = Held::default();
        while let Some(message) = inbox.recv().await {
            match message {
                Message::Object(object) => drop(held.put(object)),
                Message::Gone(kind, key) => drop(held.remove(kind, &key)),
                Message::Listed(_) => {}
            }
        }
        held.store
    };
    let (listed, store) = tokio::join!(listing, holding);
    listed.map(|()| store)
}
