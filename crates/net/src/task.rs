//! The one way to start a task: named, and a panic in it is logged and counted instead of vanishing.
//!
//! Must not know what the tasks do.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::task::JoinHandle;

static PANICS: AtomicU64 = AtomicU64::new(0);

/// How many tasks have panicked since the process began.
#[must_use]
pub fn panics() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

/// Says on unwinding which task it was.
struct Watch(&'static str);

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            PANICS.fetch_add(1, Ordering::Relaxed);
            tracing::error!(task = self.0, "a task panicked; this is a bug");
        }
    }
}

async fn watched<F: Future>(name: &'static str, future: F) -> F::Output {
    let _watch = Watch(name);
    future.await
}

/// Starts a task on the current runtime. Dropping the handle leaves the task running.
#[allow(clippy::disallowed_methods, reason = "the supervised helper itself")]
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::task::spawn(watched(name, future))
}

/// Starts a task on the current worker thread, where it stays. Dropping the handle leaves the task running.
#[allow(clippy::disallowed_methods, reason = "the supervised helper itself")]
pub fn spawn_local<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    tokio::task::spawn_local(watched(name, future))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_counted_and_stays_in_its_task() {
        let before = panics();
        let failed = spawn("test", async { panic!("on purpose") }).await;
        assert!(failed.is_err());
        assert!(panics() > before);
    }
}
