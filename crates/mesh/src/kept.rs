//! Connections to other hosts that have carried a client's and wait for the next one: each worker has its own, and only
//! threads on which a mesh is served have any.
//!
//! One is taken as long as it is fresh, nothing has come on it (the other side closes what rests for too long there),
//! and it is secured, or not, as a new one would be. Must not know what is said.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use net::dial::Stream;
use rustc_hash::FxHashMap;

use crate::Millis;
use crate::framed::Home;
use crate::hosts::Host;
use crate::sealed::is_sealed;
use crate::security::Secured;
use crate::shared::Clock;

/// How long one rests. Shorter than the other side waits, so that it is seldom closed just when it is taken.
const RESTS_MILLIS: Millis = 5_000;
/// How old one may become, so that the kernel spreads them over the other side's workers again and again.
const USED_MILLIS: Millis = 60_000;
/// Those of one worker to one host.
const PER_HOST_MAX: usize = 32;
/// Those of one worker.
const ALL_MAX: usize = 256;
/// How often is looked for what has rested for too long.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

thread_local! {
    static POOL: RefCell<Option<Pool>> = const { RefCell::new(None) };
}

#[derive(Debug, Default)]
struct Pool {
    /// By the address of the host, which its connections hold.
    hosts: FxHashMap<usize, Vec<Resting>>,
    count: usize,
    is_swept: bool,
}

#[derive(Debug)]
struct Resting {
    stream: Stream,
    since: Millis,
    origin: Origin,
}

/// Where a connection leads, and since when.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) host: Arc<Host>,
    /// How connections were secured when it was made.
    pub(crate) secured: Secured,
    pub(crate) made_at: Millis,
    pub(crate) clock: Clock,
}

/// This thread keeps connections from now on.
pub(crate) fn begin() {
    POOL.with_borrow_mut(|pool| {
        pool.get_or_insert_default();
    });
}

/// Whether this thread does.
pub(crate) fn is_begun() -> bool {
    POOL.with_borrow(Option::is_some)
}

/// One to this host, `sealed` by what secures connections now, or plain.
pub(crate) fn take(
    host: &Arc<Host>,
    secured: &Secured,
    sealed: bool,
    now: Millis,
) -> Option<(Stream, Origin)> {
    POOL.with_borrow_mut(|pool| {
        let Pool { hosts, count, .. } = pool.as_mut()?;
        let resting = hosts.get_mut(&address(host))?;
        // The one that has rested the shortest.
        while let Some(Resting { stream, since, origin }) = resting.pop() {
            *count -= 1;
            let fits = origin.secured.is(secured) && is_sealed(&stream) == sealed;
            if fits && now < since + RESTS_MILLIS && is_quiet(&stream) {
                return Some((stream, origin));
            }
        }
        None
    })
}

/// Keeps one, unless it is old or there are enough of them.
pub(crate) fn keep(stream: Stream, origin: Origin) {
    let now = origin.clock.now();
    if now >= origin.made_at + USED_MILLIS {
        return;
    }
    // It can be another thread's, or that of one that ends.
    let _ = POOL.try_with(|pool| {
        let mut pool = pool.borrow_mut();
        let Some(pool) = pool.as_mut() else { return };
        let resting = pool.hosts.entry(address(&origin.host)).or_default();
        if resting.len() < PER_HOST_MAX && pool.count < ALL_MAX {
            let clock = origin.clock;
            resting.push(Resting { stream, since: now, origin });
            pool.count += 1;
            if !std::mem::replace(&mut pool.is_swept, true) {
                net::task::spawn_local("kept connections", sweep(clock));
            }
        }
    });
}

/// Closes what rests for too long, until nothing rests.
async fn sweep(clock: Clock) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        let now = clock.now();
        let is_empty = POOL.with_borrow_mut(|pool| {
            let Some(pool) = pool.as_mut() else { return true };
            pool.hosts.retain(|_, resting| {
                resting.retain(|one| now < one.since + RESTS_MILLIS && is_quiet(&one.stream));
                !resting.is_empty()
            });
            pool.count = pool.hosts.values().map(Vec::len).sum();
            pool.is_swept = !pool.hosts.is_empty();
            !pool.is_swept
        });
        if is_empty {
            return;
        }
    }
}

/// Whether the other side has said nothing, its end included.
fn is_quiet(stream: &Stream) -> bool {
    let read = stream.socket().map(|socket| socket.try_read(&mut [0]));
    matches!(read, Some(Err(error)) if error.kind() == std::io::ErrorKind::WouldBlock)
}

fn address(host: &Arc<Host>) -> usize {
    Arc::as_ptr(host).addr()
}

/// The way back of one that carries a client's.
#[derive(Debug)]
pub(crate) struct Back {
    origin: Origin,
    thread: std::thread::ThreadId,
}

impl Back {
    /// To this thread.
    pub(crate) fn to_this_thread(origin: Origin) -> Self {
        Self { origin, thread: std::thread::current().id() }
    }
}

impl Home for Back {
    fn take_back(&mut self, stream: Stream, behind: Vec<u8>) {
        // Who is asked says nothing behind the end.
        if self.thread == std::thread::current().id() && behind.is_empty() {
            keep(stream, self.origin.clone());
        }
    }
}
