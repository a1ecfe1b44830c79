//! The one way to start a task: named, and a panic in it is logged and counted instead of vanishing.
//!
//! Must not know what the tasks do.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
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

pin_project! {
    /// A task's future with its name. An async function would keep the future twice, as its argument and as what it
    /// waits for, and every task would be twice as large.
    struct Watched<F> {
        name: &'static str,
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for Watched<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _watch = Watch(this.name);
        this.future.poll(cx)
    }
}

/// Starts a task on the current runtime. Dropping the handle leaves the task running.
#[allow(clippy::disallowed_methods, reason = "the supervised helper itself")]
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::task::spawn(Watched { name, future })
}

/// Starts a task on the current worker thread, where it stays. Dropping the handle leaves the task running.
#[allow(clippy::disallowed_methods, reason = "the supervised helper itself")]
pub fn spawn_local<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    tokio::task::spawn_local(Watched { name, future })
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

    #[test]
    fn a_task_is_not_much_larger_than_what_it_does() {
        let future = std::future::ready([0_u8; 4096]);
        let size = size_of_val(&Watched { name: "test", future });
        assert!(size < 4096 + 64, "{size}");
    }
}
