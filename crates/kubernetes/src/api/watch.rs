//! Follows one kind: lists it page by page, then watches it for ever, and says what came, went, and when all was
//! there once.
//!
//! Objects become their compact form one page at a time; only their names are kept here, to know after a new list
//! what has vanished. Must not know what becomes of them.

use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use kube::api::{Api, ListParams, Resource, WatchEvent, WatchParams};
use rustc_hash::FxHashSet;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::backoff::{Backoff, chance};
use super::{Failure, FailureKind, bounded};
use crate::health::WatchHealth;
use crate::objects::{Key, Kind};
use crate::source::hold::Message;
use crate::store::Object;

/// Objects in one page of a list.
const PAGE_OBJECTS: u32 = 500;
/// The API server is asked to end a watch after this time; it then goes on where it was.
const WATCH_SECONDS: u32 = 110;
/// A watch on which nothing came in all that time, not even its end, is dead.
const WATCH_SILENT_MAX: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 10);
/// A watch that ends sooner than this counts as a failure, so that the next one waits.
const WATCH_LIVED_MIN: Duration = Duration::from_secs(1);

/// What is followed and who hears of it.
pub(crate) struct Follow<K> {
    /// Where the objects are.
    pub(crate) api: Api<K>,
    /// Label selector; empty takes all.
    pub(crate) labels: String,
    /// Field selector; empty takes all.
    pub(crate) fields: String,
    /// Which of the source's watches this is.
    pub(crate) index: usize,
    /// Its kind.
    pub(crate) kind: Kind,
    /// The compact form; `None` for what does not matter after all.
    pub(crate) convert: Box<dyn Fn(K) -> Option<Object> + Send + Sync>,
    /// Who hears.
    pub(crate) out: mpsc::Sender<Message>,
    /// How it goes.
    pub(crate) health: Arc<WatchHealth>,
}

/// Nobody listens any more.
struct Over;

/// Why a watch came to its end.
enum End {
    /// Go on from the last version.
    Resume,
    /// List again.
    Relist,
}

impl<K> Follow<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    /// Until nobody listens any more. Dropped, it has said what it has said.
    pub(crate) async fn run(self) {
        let mut known = FxHashSet::default();
        let mut backoff = Backoff::default();
        loop {
            let version = match self.list(&mut known).await {
                Ok(Ok(version)) => version,
                Ok(Err(failure)) => {
                    self.wait(&mut backoff, &failure).await;
                    continue;
                }
                Err(Over) => return,
            };
            let begun = Instant::now();
            if self.watch(version, &mut known, &mut backoff).await.is_err() {
                return;
            }
            self.health.relisted();
            // A server whose lists are too old for its watches is not asked in a circle.
            if begun.elapsed() < WATCH_LIVED_MIN {
                tokio::time::sleep(backoff.next(chance())).await;
            } else {
                backoff.reset();
            }
        }
    }

    /// Lists once. Dropped, it has said what it has said.
    pub(crate) async fn once(self) -> Result<(), Failure> {
        match self.list(&mut FxHashSet::default()).await {
            Ok(listed) => listed.map(drop),
            Err(Over) => Err(Failure::other("nobody listens")),
        }
    }

    async fn wait(&self, backoff: &mut Backoff, failure: &Failure) {
        self.health.failed(failure);
        tokio::time::sleep(backoff.next(chance())).await;
    }

    /// All of it; gives the version that the list is of.
    async fn list(&self, known: &mut FxHashSet<Key>) -> Result<Result<String, Failure>, Over> {
        let mut seen = FxHashSet::default();
        let mut params = ListParams::default().limit(PAGE_OBJECTS);
        params.label_selector = Some(self.labels.clone()).filter(|s| !s.is_empty());
        params.field_selector = Some(self.fields.clone()).filter(|s| !s.is_empty());
        loop {
            let page = match bounded("a list", self.api.list(&params)).await {
                Ok(page) => page,
                Err(failure) => return Ok(Err(failure)),
            };
            for object in page.items {
                seen.extend(self.apply(object, known).await?);
            }
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_some() {
                continue;
            }
            let vanished: Vec<Key> = known.difference(&seen).cloned().collect();
            for key in vanished {
                self.gone(key, known).await?;
            }
            self.health.connected(known.len());
            self.health.listed();
            self.tell(Message::Listed(self.index)).await?;
            return Ok(Ok(page.metadata.resource_version.unwrap_or_default()));
        }
    }

    /// From a version on, until it has to be listed again.
    async fn watch(
        &self,
        mut version: String,
        known: &mut FxHashSet<Key>,
        backoff: &mut Backoff,
    ) -> Result<(), Over> {
        let mut params = WatchParams::default().timeout(WATCH_SECONDS);
        params.label_selector = Some(self.labels.clone()).filter(|s| !s.is_empty());
        params.field_selector = Some(self.fields.clone()).filter(|s| !s.is_empty());
        loop {
            let begun = Instant::now();
            let end = match bounded("a watch", self.api.watch(&params, &version)).await {
                Ok(stream) => {
                    self.health.connected(known.len());
                    self.read(stream, &mut version, known).await?
                }
                Err(failure) => Err(failure),
            };
            let failure = match end {
                Ok(End::Relist) => return Ok(()),
                Ok(End::Resume) if begun.elapsed() >= WATCH_LIVED_MIN => {
                    backoff.reset();
                    continue;
                }
                Ok(End::Resume) => Failure::other("the watch ended at once"),
                Err(failure) if failure.kind == FailureKind::Gone => return Ok(()),
                Err(failure) => failure,
            };
            if begun.elapsed() >= WATCH_LIVED_MIN {
                backoff.reset();
            }
            self.health.restarted();
            self.wait(backoff, &failure).await;
        }
    }

    /// One watch to its end.
    async fn read(
        &self,
        stream: impl futures_util::Stream<Item = kube::Result<WatchEvent<K>>>,
        version: &mut String,
        known: &mut FxHashSet<Key>,
    ) -> Result<Result<End, Failure>, Over> {
        let mut stream = pin!(stream);
        loop {
            let event = match tokio::time::timeout(WATCH_SILENT_MAX, stream.next()).await {
                Err(_) => return Ok(Err(Failure::other("a watch fell silent"))),
                Ok(None) => return Ok(Ok(End::Resume)),
                Ok(Some(Err(error))) => return Ok(Err(Failure::of(&error))),
                Ok(Some(Ok(event))) => event,
            };
            match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    advance(version, &object);
                    self.apply(object, known).await?;
                }
                WatchEvent::Deleted(object) => {
                    advance(version, &object);
                    self.gone(key_of(&object), known).await?;
                }
                WatchEvent::Bookmark(bookmark) => *version = bookmark.metadata.resource_version,
                WatchEvent::Error(status) => {
                    let failure = Failure::of_status(&status);
                    let gone = failure.kind == FailureKind::Gone;
                    return Ok(if gone { Ok(End::Relist) } else { Err(failure) });
                }
            }
            self.health.objects(known.len());
        }
    }

    /// Passes an object on; gives its key if it matters.
    async fn apply(&self, object: K, known: &mut FxHashSet<Key>) -> Result<Option<Key>, Over> {
        let key = key_of(&object);
        let Some(object) = (self.convert)(object) else {
            self.gone(key, known).await?;
            return Ok(None);
        };
        known.insert(key.clone());
        self.tell(Message::Object(object)).await?;
        Ok(Some(key))
    }

    async fn gone(&self, key: Key, known: &mut FxHashSet<Key>) -> Result<(), Over> {
        if known.remove(&key) {
            self.tell(Message::Gone(self.kind, key)).await?;
        }
        Ok(())
    }

    async fn tell(&self, message: Message) -> Result<(), Over> {
        self.out.send(message).await.map_err(|_| Over)
    }
}

fn advance<K: Resource>(version: &mut String, object: &K) {
    if let Some(newer) = object.meta().resource_version.as_ref().filter(|v| !v.is_empty()) {
        version.clone_from(newer);
    }
}

fn key_of<K: Resource>(object: &K) -> Key {
    let meta = object.meta();
    Key {
        namespace: meta.namespace.as_deref().unwrap_or_default().into(),
        name: meta.name.as_deref().unwrap_or_default().into(),
    }
}
