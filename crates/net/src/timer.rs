//! A deadline that moves with every request and costs next to nothing to move.
//!
//! The runtime's timer is armed seldom: while the armed moment lies before the deadline it is left alone, and when
//! it comes it is armed again for what is left. The clock is read only when somebody really waits. So setting a
//! deadline is a store. Must not know what is waited for.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// One waiting task's deadline.
#[derive(Debug)]
pub struct Timer(RefCell<Inner>);

#[derive(Debug)]
struct Inner {
    deadline: Deadline,
    sleep: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug, Clone, Copy)]
enum Deadline {
    Never,
    /// That long after the first wait.
    After(Duration),
    At(Instant),
}

impl Default for Timer {
    fn default() -> Self {
        Self::new()
    }
}

impl Timer {
    /// A timer without deadline.
    #[must_use]
    pub fn new() -> Self {
        Self(RefCell::new(Inner { deadline: Deadline::Never, sleep: None }))
    }

    /// Sets the deadline to that long from now; "now" is when somebody first waits for it, at the latest the end of
    /// the poll under way.
    pub fn set(&self, after: Duration) {
        self.0.borrow_mut().deadline = Deadline::After(after);
    }

    /// Takes the deadline away: the timer never fires.
    pub fn clear(&self) {
        self.0.borrow_mut().deadline = Deadline::Never;
    }

    /// Ready when the deadline has passed. The task is woken then, if it still waits.
    pub fn poll_expired(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.0.borrow_mut();
        let deadline = match inner.deadline {
            Deadline::Never => return Poll::Pending,
            Deadline::At(deadline) => deadline,
            Deadline::After(after) => {
                let deadline = Instant::now() + after;
                inner.deadline = Deadline::At(deadline);
                deadline
            }
        };
        loop {
            let sleep =
                inner.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
            if sleep.deadline() > deadline {
                sleep.as_mut().reset(deadline);
            }
            std::task::ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }

    /// Runs a future until it is ready or the deadline passes, whichever is first; the future goes first where both
    /// are. Dropped, it drops the future and keeps the deadline.
    ///
    /// # Errors
    /// [`Expired`] when the deadline has passed.
    pub async fn guard<F: Future>(&self, future: F) -> Result<F::Output, Expired> {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            self.poll_expired(cx).map(|()| Err(Expired))
        })
        .await
    }
}

/// How often a [`Beat`] wakes a busy worker: more often than any deadline of a connection's beginning passes.
const BEAT_EVERY: Duration = Duration::from_millis(100);

/// Keeps the next wake-up of a busy worker near.
///
/// A deadline that comes before all others makes the runtime interrupt its own wait for events, by a system call. With
/// one deadline for each new connection and none else that is one for each; with a beat it is one for each beat.
#[derive(Debug, Clone, Default)]
pub struct Beat(Rc<Beating>);

#[derive(Debug, Default)]
struct Beating {
    /// Somebody was busy since the last one.
    wanted: Cell<bool>,
    running: Cell<bool>,
}

impl Beat {
    /// Says that this worker is busy: to be called for each connection, within its runtime. Ends by itself.
    pub fn go_on(&self) {
        self.0.wanted.set(true);
        if self.0.running.replace(true) {
            return;
        }
        let beating = self.0.clone();
        crate::task::spawn_local("beat", async move {
            while beating.wanted.replace(false) {
                tokio::time::sleep(BEAT_EVERY).await;
            }
            beating.running.set(false);
        });
    }
}

/// The deadline has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the deadline has passed")]
pub struct Expired;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_moved_forward_fires_at_its_new_moment() {
        let timer = Timer::new();
        let start = Instant::now();
        timer.set(Duration::from_secs(1));
        // Arms the runtime's timer for one second.
        let early = tokio::time::timeout(
            Duration::from_millis(10),
            timer.guard(std::future::pending::<()>()),
        );
        assert!(early.await.is_err());
        timer.set(Duration::from_secs(5));
        assert_eq!(timer.guard(std::future::pending::<()>()).await, Err(Expired));
        assert_eq!(start.elapsed().as_millis() / 10, 501);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_moved_back_fires_early() {
        let timer = Timer::new();
        timer.set(Duration::from_secs(60));
        let _ =
            tokio::time::timeout(Duration::ZERO, timer.guard(std::future::pending::<()>())).await;
        let start = Instant::now();
        timer.set(Duration::from_secs(2));
        assert_eq!(timer.guard(std::future::pending::<()>()).await, Err(Expired));
        assert_eq!(start.elapsed().as_secs(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_beat_ends_when_nobody_is_busy_and_begins_again() {
        let local = tokio::task::LocalSet::new();
        let test = async {
            let beat = Beat::default();
            for _ in 0..2 {
                beat.go_on();
                tokio::time::sleep(BEAT_EVERY / 2).await;
                beat.go_on();
                tokio::time::sleep(BEAT_EVERY).await;
                assert!(beat.0.running.get());
                tokio::time::sleep(BEAT_EVERY).await;
                assert!(!beat.0.running.get());
            }
        };
        local.run_until(test).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_cleared_deadline_never_fires() {
        let timer = Timer::new();
        timer.set(Duration::from_secs(1));
        timer.clear();
        let wait =
            tokio::time::timeout(Duration::from_secs(9), timer.guard(std::future::pending::<()>()));
        assert!(wait.await.is_err());
    }
}
