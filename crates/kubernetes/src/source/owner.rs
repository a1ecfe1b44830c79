//! The task that owns the objects: takes in what the watches say, and translates when a burst is over.
//!
//! Translating and saving happen on blocking threads; what is published is always whole. Must not know the API.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::hold::{Effect, Message};
use super::log::ProblemLog;
use super::pace::Pace;
use super::{Output, Shared, stopped};
use crate::health::Health;
use crate::persist;
use crate::translate::{self, Changed, Translation, Translator};

/// How long a start waits for the API server before it serves the state on disk.
pub(super) const STATE_WAIT: Duration = Duration::from_secs(3);
/// The state is saved this long after a change, with all that came meanwhile.
const SAVE_AFTER: Duration = Duration::from_secs(2);
/// After a save, the next waits for at least this long, and for [`SAVE_REST_FACTOR`] times what it took.
const SAVE_REST_MIN: Duration = Duration::from_secs(5);
const SAVE_REST_FACTOR: u32 = 30;
/// Certificates grow old without any change: everything is translated anew this often.
const RECHECK_EVERY: Duration = Duration::from_secs(3600);
/// Messages taken in at one go.
const BATCH_MESSAGES: usize = 512;

/// What an owner works with.
pub(super) struct Parts {
    pub(super) shared: Arc<Shared>,
    pub(super) health: Arc<Health>,
    pub(super) publish: watch::Sender<Option<Arc<Output>>>,
    pub(super) translate: translate::Options,
    pub(super) state: Option<PathBuf>,
}

/// The owner.
pub(super) struct Owner {
    parts: Parts,
    /// Which watches have said everything once.
    listed: Vec<bool>,
    /// Whether everything has been translated once.
    complete: bool,
    /// When everything is looked at again though nothing changed.
    recheck: Option<Instant>,
    pace: Pace,
    problems: ProblemLog,
    /// When the state on disk is served in place of the API server's.
    fall_back: Option<Instant>,
    save_at: Option<Instant>,
    saving: Option<JoinHandle<Duration>>,
    not_before: Option<Instant>,
}

impl Owner {
    pub(super) fn new(parts: Parts, watches: usize) -> Self {
        let fall_back = parts.state.is_some().then(|| Instant::now() + STATE_WAIT);
        Self {
            parts,
            listed: vec![false; watches],
            complete: false,
            recheck: None,
            pace: Pace::default(),
            problems: ProblemLog::default(),
            fall_back,
            save_at: None,
            saving: None,
            not_before: None,
        }
    }

    /// Until told to stop. Dropped, it stops where it is; a save under way is finished.
    pub(super) async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Message>,
        mut stop: watch::Receiver<bool>,
    ) {
        loop {
            let all_listed = self.listed.iter().all(|listed| *listed);
            let due = self.pace.due().filter(|_| all_listed);
            tokio::select! {
                message = inbox.recv() => match message {
                    Some(first) => self.take(first, &mut inbox),
                    None => break,
                },
                () = at(due.or(self.recheck)) => self.translate().await,
                () = at(self.fall_back) => self.serve_state().await,
                () = at(self.save_at), if self.saving.is_none() => self.save(),
                took = done(&mut self.saving) => self.saved(took),
                () = stopped(&mut stop) => break,
            }
        }
        if let Some(saving) = self.saving.take() {
            let _ = saving.await;
        }
        if self.save_at.is_some() {
            self.save();
            let _ = done(&mut self.saving).await;
        }
    }

    /// Takes in what waits, up to a bound.
    fn take(&mut self, first: Message, inbox: &mut mpsc::Receiver<Message>) {
        let shared = self.parts.shared.clone();
        let mut held = shared.held();
        let now = Instant::now();
        let mut next = Some(first);
        let mut left = BATCH_MESSAGES;
        while let Some(message) = next {
            let effect = match message {
                Message::Object(object) => held.put(object),
                Message::Gone(kind, key) => held.remove(kind, &key),
                Message::Listed(index) => {
                    let listed = self.listed.get_mut(index);
                    let first = listed.is_some_and(|listed| !std::mem::replace(listed, true));
                    if first { Effect::Config } else { Effect::None }
                }
            };
            if effect != Effect::None {
                self.pace.changed(effect == Effect::Config, now);
            }
            left -= 1;
            next = if left > 0 { inbox.try_recv().ok() } else { None };
        }
    }

    /// Makes model of what has changed and publishes it.
    async fn translate(&mut self) {
        let begun = Instant::now();
        let changed_at = self.pace.waiting_since().unwrap_or(begun);
        let shared = self.parts.shared.clone();
        let recheck = self.recheck.is_some_and(|at| begun >= at);
        let everything = !self.complete || recheck;
        let job = move || {
            let mut held = shared.held();
            let mut changed = std::mem::take(&mut held.changed);
            if everything {
                changed = Changed::everything();
            }
            let mut translator = shared.translator.lock().unwrap_or_else(PoisonError::into_inner);
            translator.translate(&held.store, changed)
        };
        let translation = tokio::task::spawn_blocking(job).await;
        let took = begun.elapsed();
        self.pace.done(took, Instant::now());
        match translation {
            Ok(translation) => {
                self.complete = true;
                if everything {
                    self.recheck = Some(begun + RECHECK_EVERY);
                }
                self.fall_back = None;
                self.problems.say(&translation.problems);
                self.parts.health.translated(took, translation.problems.len());
                self.publish(translation, false, changed_at);
                self.save_soon();
            }
            Err(error) => {
                // A bug. What was served goes on, and the next change begins with a fresh translator.
                tracing::error!(error = &error as &dyn std::error::Error, "translating objects");
                *self.parts.shared.translator.lock().unwrap_or_else(PoisonError::into_inner) =
                    Translator::new(self.parts.translate.clone());
                self.complete = false;
            }
        }
    }

    fn publish(&self, translation: Translation, from_state: bool, changed_at: Instant) {
        let output = Output { translation, from_state, changed_at };
        self.parts.publish.send_replace(Some(Arc::new(output)));
    }

    /// Serves what was known when the state was saved.
    async fn serve_state(&mut self) {
        self.fall_back = None;
        let Some(path) = self.parts.state.clone().filter(|_| !self.complete) else { return };
        let options = self.parts.translate.clone();
        let job = move || translated_state(&path, options);
        match tokio::task::spawn_blocking(job).await {
            Ok(Ok(Some(translation))) if !self.complete => {
                tracing::warn!("API server not to be had: the state on disk is served");
                self.publish(translation, true, Instant::now());
            }
            Ok(Ok(Some(_))) => {}
            Ok(Ok(None)) => {
                tracing::warn!("API server not to be had, and no state on disk yet: waiting");
            }
            Ok(Err(error)) => {
                let source = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(source, "{error}: waiting for the API server");
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "reading the state");
            }
        }
    }

    fn save_soon(&mut self) {
        if self.parts.state.is_some() && self.save_at.is_none() {
            let soon = Instant::now() + SAVE_AFTER;
            self.save_at = Some(self.not_before.map_or(soon, |at| at.max(soon)));
        }
    }

    fn save(&mut self) {
        self.save_at = None;
        let Some(path) = self.parts.state.clone() else { return };
        let shared = self.parts.shared.clone();
        let health = self.parts.health.clone();
        self.saving = Some(tokio::task::spawn_blocking(move || {
            let begun = Instant::now();
            let store = shared.held().store.clone();
            match persist::save(&path, &store) {
                Ok(()) => {
                    health.saves.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
                Err(error) => {
                    let source = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(source, "{error}");
                }
            }
            begun.elapsed()
        }));
    }

    fn saved(&mut self, took: Duration) {
        let rest = (took * SAVE_REST_FACTOR).max(SAVE_REST_MIN);
        self.not_before = Some(Instant::now() + rest);
        self.save_at = self.save_at.map(|at| at.max(Instant::now() + rest));
    }
}

/// The state on disk, translated.
fn translated_state(
    path: &Path,
    options: translate::Options,
) -> Result<Option<Translation>, persist::StateError> {
    let store = persist::load(path)?;
    Ok(store.map(|store| Translator::new(options).translate(&store, Changed::everything())))
}

/// At a time, or never.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

/// When a save is done, how long it took; without one never.
async fn done(saving: &mut Option<JoinHandle<Duration>>) -> Duration {
    let Some(task) = saving else { return std::future::pending().await };
    let took = task.await.unwrap_or_default();
    *saving = None;
    took
}
