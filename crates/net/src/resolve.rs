//! Names to addresses: the machine's resolver, asked once for all who wait, its answers kept a short time and, when
//! it fails, used on for longer.
//!
//! getaddrinfo gives no time to live, so a fixed one stands in. Must not know who asks or why.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// How long an answer is taken without asking again.
const FRESH: Duration = Duration::from_secs(5);
/// How long the last good answer is used while asking again fails.
const STALE: Duration = Duration::from_secs(3600);
/// How long a failure is believed before asking again.
const FAILED: Duration = Duration::from_secs(1);
/// Names kept; beyond it the cache is emptied and fills again.
const NAMES_MAX: usize = 10_000;

type Answer = Result<Arc<[IpAddr]>, Arc<str>>;

/// A resolver shared by all threads. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Resolver {
    cache: Arc<Mutex<HashMap<Arc<str>, Entry>>>,
}

#[derive(Debug)]
struct Entry {
    asked: Instant,
    answer: watch::Receiver<Option<Answer>>,
    /// The last addresses that were found, and when.
    good: Option<(Instant, Arc<[IpAddr]>)>,
}

/// A name has no address, or none can be found out now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("resolving {name}: {reason}")]
pub struct ResolveError {
    /// The name.
    pub name: String,
    /// What the machine's resolver said.
    pub reason: String,
}

impl Resolver {
    /// The addresses of a name, in the resolver's order; never empty. An answer younger than [`FRESH`] comes from
    /// the cache; an older good one comes at once too, while a new one is asked for. Dropped while waiting, the
    /// question goes on and its answer is kept.
    ///
    /// # Errors
    /// [`ResolveError`] where there is none and never was one lately.
    pub async fn resolve(&self, name: &str) -> Result<Arc<[IpAddr]>, ResolveError> {
        let mut pending = match self.look_up(name) {
            Lookup::Known(addresses) => return Ok(addresses),
            Lookup::Wait(receiver) => receiver,
        };
        let answer = match pending.wait_for(Option::is_some).await {
            Ok(answer) => answer.clone(),
            Err(_) => None,
        };
        match answer {
            Some(Ok(addresses)) => Ok(addresses),
            Some(Err(reason)) => self
                .last_good(name)
                .ok_or_else(|| ResolveError { name: name.to_owned(), reason: reason.to_string() }),
            None => Err(ResolveError { name: name.to_owned(), reason: "interrupted".to_owned() }),
        }
    }

    /// Decides under the lock what to do; starts a question where one is due.
    fn look_up(&self, name: &str) -> Lookup {
        let now = Instant::now();
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = cache.get_mut(name) {
            let settled = entry.answer.borrow().clone();
            if let Some(Ok(addresses)) = &settled {
                entry.good = Some((entry.asked, addresses.clone()));
            }
            let due = match &settled {
                None => false,
                Some(Ok(_)) => now - entry.asked > FRESH,
                Some(Err(_)) => now - entry.asked > FAILED,
            };
            if due {
                entry.asked = now;
                entry.answer = ask(name);
            }
            let good = entry.good.as_ref().filter(|(since, _)| now - *since < STALE);
            return match good {
                Some((_, addresses)) => Lookup::Known(addresses.clone()),
                None => Lookup::Wait(entry.answer.clone()),
            };
        }
        if cache.len() >= NAMES_MAX {
            cache.clear();
        }
        let answer = ask(name);
        cache.insert(name.into(), Entry { asked: now, answer: answer.clone(), good: None });
        Lookup::Wait(answer)
    }

    fn last_good(&self, name: &str) -> Option<Arc<[IpAddr]>> {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, addresses) = cache.get(name)?.good.clone()?;
        (since.elapsed() < STALE).then_some(addresses)
    }
}

enum Lookup {
    Known(Arc<[IpAddr]>),
    Wait(watch::Receiver<Option<Answer>>),
}

/// Asks the machine's resolver in a task of its own, which outlives whoever asked first.
fn ask(name: &str) -> watch::Receiver<Option<Answer>> {
    let (sender, receiver) = watch::channel(None);
    let name = name.to_owned();
    crate::task::spawn("resolve", async move {
        let answer = match tokio::net::lookup_host((name.as_str(), 0)).await {
            Ok(found) => {
                let mut addresses: Vec<IpAddr> = found.map(|a: SocketAddr| a.ip()).collect();
                addresses.dedup();
                if addresses.is_empty() { Err("no address".into()) } else { Ok(addresses.into()) }
            }
            Err(error) => Err(error.to_string().into()),
        };
        let _ = sender.send(Some(answer));
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn localhost_resolves_and_is_remembered() {
        let resolver = Resolver::default();
        let first = resolver.resolve("localhost").await.unwrap();
        assert!(first.iter().all(IpAddr::is_loopback) && !first.is_empty());
        let second = resolver.resolve("localhost").await.unwrap();
        assert!(Arc::ptr_eq(&first, &second));
    }

    #[tokio::test]
    async fn a_name_that_cannot_exist_is_an_error_that_names_it() {
        let error = Resolver::default().resolve("nothing.invalid").await.unwrap_err();
        assert_eq!(error.name, "nothing.invalid");
    }
}
