//! Says when the content of watched files has changed, however it was changed.
//!
//! In-place writes, renames over the file, swapped symbolic links, files and directories that go and come
//! back: all show as events in a directory. Events only say when to look; what counts is the content,
//! compared by hash. A slow poll finds what events missed (network file systems, a directory renamed far up
//! the path) and does the whole work where there are none. Knows nothing of what is in the files. Start at
//! [`Watcher`].

mod survey;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use survey::{Content, Survey};

/// Files watched at once.
pub const WATCHED_FILES_MAX: usize = 10_000;
/// Quiet time after an event before the files are looked at: a writer mostly makes several.
const SETTLE: Duration = Duration::from_millis(20);
/// The same after a rename or the close of a written file, which come last.
const SETTLE_COMPLETE: Duration = Duration::from_millis(5);
/// The longest time that events may put off a look.
const SETTLE_MAX: Duration = Duration::from_millis(60);
/// Between looks without an event.
const POLL: Duration = Duration::from_secs(2);
/// The same where there are no events at all.
const POLL_ALONE: Duration = Duration::from_millis(500);
/// Looks in a row while directories come and go; what is still moving then is left to the poll.
const LOOKS_MAX: usize = 8;

/// Why files cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// More files than [`WATCHED_FILES_MAX`].
    #[error("cannot watch {0} files: the most is {WATCHED_FILES_MAX}")]
    TooManyFiles(usize),
    /// A relative path in a process whose working directory is gone.
    #[error("cannot make {0} an absolute path")]
    NoWorkingDirectory(PathBuf, #[source] std::io::Error),
}

/// Watches files and announces that the content of at least one has changed.
///
/// Must live on a tokio runtime with time enabled. Dropping it ends the watching.
pub struct Watcher {
    paths: Vec<PathBuf>,
    events: Option<Events>,
    poll: Duration,
    /// What was in the files when a change was last announced, or at the start.
    known: Vec<Content>,
    /// When the next look is due although nothing happened.
    next_poll: Instant,
    /// The first event that has not been looked into yet.
    stirred: Option<Instant>,
}

/// Notifications of the kernel.
struct Events {
    watcher: RecommendedWatcher,
    /// One permit however many events: the queue cannot grow.
    stirred: Arc<Notify>,
    /// Whether the last event was one that comes when a writer is done.
    complete: Arc<AtomicBool>,
    /// The paths whose events count.
    names: Arc<Mutex<BTreeSet<PathBuf>>>,
    /// What is watched, as in [`Survey::directories`].
    directories: BTreeMap<PathBuf, (u64, u64)>,
}

impl Watcher {
    /// Begins to watch; a change after this call is announced. Make it before the files are read for the
    /// first time, so that no change between the two is missed. Blocks on the file system. Files need not
    /// exist.
    ///
    /// Where the kernel gives no notifications there is a log line, and polling alone.
    ///
    /// # Errors
    /// [`WatchError`]
    pub fn new(paths: Vec<PathBuf>) -> Result<Self, WatchError> {
        let events = match Events::new() {
            Ok(events) => Some(events),
            Err(e) => {
                tracing::warn!(error = %e, "no file notifications: changes are found by polling");
                None
            }
        };
        let poll = if events.is_some() { POLL } else { POLL_ALONE };
        Self::with(paths, events, poll)
    }

    /// Watches without notifications, for file systems that have none.
    ///
    /// # Errors
    /// [`WatchError`]
    pub fn polling(paths: Vec<PathBuf>, interval: Duration) -> Result<Self, WatchError> {
        Self::with(paths, None, interval)
    }

    fn with(
        paths: Vec<PathBuf>,
        events: Option<Events>,
        poll: Duration,
    ) -> Result<Self, WatchError> {
        let mut watcher = Self {
            paths: Vec::new(),
            events,
            poll,
            known: Vec::new(),
            next_poll: Instant::now() + poll,
            stirred: None,
        };
        watcher.set_paths(paths)?;
        Ok(watcher)
    }

    /// Watches these files from now on. What is known of those that were watched before is kept, so that a
    /// change of theirs is still announced; a new one's content now is where its changes begin. Blocks on
    /// the file system.
    ///
    /// # Errors
    /// [`WatchError`]; the files watched are those of before then.
    pub fn set_paths(&mut self, mut paths: Vec<PathBuf>) -> Result<(), WatchError> {
        for path in &mut paths {
            if path.is_relative() {
                *path = std::path::absolute(&*path)
                    .map_err(|e| WatchError::NoWorkingDirectory(path.clone(), e))?;
            }
        }
        paths.sort();
        paths.dedup();
        if paths.len() > WATCHED_FILES_MAX {
            return Err(WatchError::TooManyFiles(paths.len()));
        }
        let mut survey = Survey::take(&paths);
        for _ in 1..LOOKS_MAX {
            if !self.events.as_mut().is_some_and(|events| events.follow(&survey)) {
                break;
            }
            survey = Survey::take(&paths);
        }
        let before: BTreeMap<&PathBuf, &Content> = self.paths.iter().zip(&self.known).collect();
        let known = paths.iter().zip(survey.contents);
        self.known = known.map(|(p, now)| before.get(p).map_or(now, |c| (*c).clone())).collect();
        self.paths = paths;
        Ok(())
    }

    /// Returns when the content of a watched file is another than when this last returned (or when the
    /// watching of it began): also when a file goes or comes. With notifications that is some 20 ms after a
    /// write (5 ms after a rename or a close), and at the latest about 60 ms after it while events go on.
    ///
    /// A file that is written in place may be seen half written; the rest of the writing is announced again.
    ///
    /// When dropped before it returns, nothing is lost: the next call announces what this one would have.
    pub async fn changed(&mut self) {
        loop {
            self.wait().await;
            let survey = self.look().await;
            self.stirred = None;
            self.next_poll = Instant::now() + self.poll;
            if let Some(survey) = survey
                && survey.contents != self.known
            {
                self.known = survey.contents;
                return;
            }
        }
    }

    /// Until a look is due: a while after an event, or at the next poll.
    async fn wait(&mut self) {
        if self.stirred.is_none() {
            let stirred = self.events.as_ref().map(|events| events.stirred.clone());
            tokio::select! {
                () = stirring(stirred.as_deref()) => self.stirred = Some(Instant::now()),
                () = sleep_until(self.next_poll) => return,
            }
        }
        let latest = self.stirred.map_or_else(Instant::now, |first| first + SETTLE_MAX);
        loop {
            let stirred = self.events.as_ref().map(|events| events.stirred.clone());
            let complete = self.events.as_ref().is_some_and(|events| events.complete.load(Relaxed));
            let settle = if complete { SETTLE_COMPLETE } else { SETTLE };
            let quiet = (Instant::now() + settle).min(latest);
            tokio::select! {
                biased;
                () = sleep_until(quiet) => return,
                () = stirring(stirred.as_deref()) => {}
            }
        }
    }

    /// Looks at the files, and follows their directories. `None` if the look itself failed.
    async fn look(&mut self) -> Option<Survey> {
        let mut last = None;
        for _ in 0..LOOKS_MAX {
            let paths = self.paths.clone();
            // Off this thread: a file system may be slow.
            let looked = tokio::task::spawn_blocking(move || Survey::take(&paths)).await;
            let survey =
                looked.inspect_err(|e| tracing::warn!(error = %e, "cannot look at files")).ok()?;
            let moved = self.events.as_mut().is_some_and(|events| events.follow(&survey));
            last = Some(survey);
            if !moved {
                break;
            }
        }
        last
    }
}

/// The next event; never, if there are none.
async fn stirring(stirred: Option<&Notify>) {
    match stirred {
        Some(stirred) => stirred.notified().await,
        None => std::future::pending().await,
    }
}

impl Events {
    fn new() -> notify::Result<Self> {
        let stirred = Arc::new(Notify::new());
        let complete = Arc::new(AtomicBool::new(false));
        let names: Arc<Mutex<BTreeSet<PathBuf>>> = Arc::default();
        let handler = {
            let (stirred, complete, names) = (stirred.clone(), complete.clone(), names.clone());
            move |event: notify::Result<notify::Event>| {
                let names = names.lock().unwrap_or_else(PoisonError::into_inner);
                if event.as_ref().map_or(true, |event| matters(event, &names)) {
                    complete.store(event.is_ok_and(|event| completes(&event)), Relaxed);
                    stirred.notify_one();
                }
            }
        };
        let watcher = notify::recommended_watcher(handler)?;
        Ok(Self { watcher, stirred, complete, names, directories: BTreeMap::new() })
    }

    /// Watches the directories of a survey and no others. Whether that changed anything: then files may
    /// have changed before the watching began, and need another look.
    fn follow(&mut self, survey: &Survey) -> bool {
        let mut moved = false;
        let gone: Vec<PathBuf> = self
            .directories
            .iter()
            .filter(|(path, id)| survey.directories.get(*path) != Some(*id))
            .map(|(path, _)| path.clone())
            .collect();
        for path in gone {
            // The kernel has mostly dropped it by itself.
            let _ = self.watcher.unwatch(&path);
            self.directories.remove(&path);
        }
        {
            let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
            if *names != survey.names {
                names.clone_from(&survey.names);
            }
        }
        for (path, id) in &survey.directories {
            if !self.directories.contains_key(path) && self.watch(path) {
                self.directories.insert(path.clone(), *id);
                moved = true;
            }
        }
        moved
    }

    fn watch(&mut self, path: &Path) -> bool {
        match self.watcher.watch(path, RecursiveMode::NonRecursive) {
            Ok(()) => true,
            Err(e) => {
                // It may be gone again, or there are no watches left: the poll goes on.
                tracing::debug!(path = %path.display(), error = %e, "directory is not watched");
                false
            }
        }
    }
}

/// Whether an event comes when a writer is done: a rename, or the close of a file that was written.
fn completes(event: &notify::Event) -> bool {
    matches!(
        event.kind,
        EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Modify(ModifyKind::Name(_))
    )
}

/// Whether an event can mean another content: not that a file was opened or read (we do that ourselves),
/// and not what happens to other files in the directory.
fn matters(event: &notify::Event, names: &BTreeSet<PathBuf>) -> bool {
    let changing = match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    };
    let known = event.paths.is_empty() || event.paths.iter().any(|path| names.contains(path));
    event.need_rescan() || (changing && known)
}
