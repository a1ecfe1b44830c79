//! Asking: a pod of this host, or another host for one of its own. Only the IO; who is asked and when is decided in
//! [`crate::pods`], [`crate::hosts`] and [`crate::race`].

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use balance::Rng;
use tokio::net::TcpStream;

use crate::Millis;
use crate::asking::Found;
use crate::hosts::{Answer, Host, order};
use crate::knock;
use crate::pods::{Pick, Place};
use crate::race::{Race, Step};
use crate::shared::{Shared, State};

/// Pods of this host that are tried for one connection.
const PODS_TRIED_MAX: usize = 64;

/// Why there is no pod of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoPod {
    /// There is none of this cluster port.
    None,
    /// All have as many connections as they may.
    Busy,
    /// None of them took the connection.
    Unreachable,
}

/// Connects to a pod of this host: where one refuses, to another, until none is left. Dropped, it gives up and gives
/// the place back.
pub(crate) async fn own_pod(
    (shared, state): (&Shared, &State),
    cluster_port: u16,
    deadline: Millis,
    rng: &mut Rng,
) -> Result<(TcpStream, Place), NoPod> {
    let mut tried = Vec::new();
    while tried.len() < PODS_TRIED_MAX {
        let now = shared.now();
        let place = match state.pods.pick(cluster_port, &tried, now, rng) {
            Pick::Pod(place) => place,
            Pick::Full => return Err(NoPod::Busy),
            Pick::None if tried.is_empty() => return Err(NoPod::None),
            Pick::None => break,
        };
        let host_port = place.mapping().host_port;
        let left = Duration::from_millis(deadline.saturating_sub(now));
        let target = state.pod_target(host_port);
        let connect = shared.dialer.connect_tcp(&target, left.min(state.settings.times.pod));
        match connect.await {
            Ok(stream) => {
                place.taken();
                return Ok((stream, place));
            }
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "a pod is not there");
                place.refused(shared.now());
                tried.push(host_port);
            }
        }
    }
    Err(NoPod::Unreachable)
}

/// Why no other host has a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoHost {
    /// All said no, or nothing.
    None,
    /// At least one was full, the others said no.
    Busy,
    /// Time was over before all had answered.
    Timeout,
}

/// A host that was asked.
struct Asked {
    host: Arc<Host>,
    at: Millis,
    answer: Pin<Box<dyn Future<Output = Result<Found, Answer>> + Send>>,
}

/// Asks the other hosts, see [`Race`]. Dropped, it closes all connections under way.
pub(crate) async fn other_hosts(
    (shared, state): (&Shared, &State),
    cluster_port: u16,
    deadline: Millis,
    rng: &mut Rng,
) -> Result<Found, NoHost> {
    let times = state.settings.times;
    let (patience, host_time) = (millis(times.next_host), millis(times.host));
    let now = shared.now();
    let order = order(&state.hosts, cluster_port, now, rng);
    knock::at_unheard(shared, state, now);
    let mut race = Race::new(order, now, patience, host_time, deadline);
    let mut asked: Vec<Asked> = Vec::new();
    let mut busy = false;
    loop {
        let now = shared.now();
        let until = match race.step(now) {
            Step::Ask { host, until } => {
                let Some(host) = state.hosts.get(host).cloned() else { continue };
                let within = Duration::from_millis(until.saturating_sub(now));
                let answer = shared.asker(state).ask(host.clone(), cluster_port, within);
                asked.push(Asked { host, at: now, answer: Box::pin(answer) });
                continue;
            }
            Step::Wait(until) => until,
            Step::AllSaidNo if busy => return Err(NoHost::Busy),
            Step::AllSaidNo => return Err(NoHost::None),
            Step::TooLate => return Err(NoHost::Timeout),
        };
        let wait = Duration::from_millis(until.saturating_sub(now));
        let Ok((host, result)) = tokio::time::timeout(wait, next(&mut asked)).await else {
            continue;
        };
        let now = shared.now();
        let answer = result.as_ref().err().copied().unwrap_or(Answer::Tunnel);
        host.answered(cluster_port, answer, now);
        match result {
            Ok(found) => {
                // Those that another host was asked for in the meantime are not waited for the next time.
                let silent = asked.iter().filter(|asked| now - asked.at >= patience);
                silent.for_each(|asked| asked.host.answered(cluster_port, Answer::Silent, now));
                return Ok(found);
            }
            Err(_) => {
                busy |= answer == Answer::Busy;
                race.missed(now);
            }
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The first of them that answers; it is taken out.
async fn next(asked: &mut Vec<Asked>) -> (Arc<Host>, Result<Found, Answer>) {
    poll_fn(|cx| {
        for (at, one) in asked.iter_mut().enumerate() {
            if let Poll::Ready(result) = one.answer.as_mut().poll(cx) {
                return Poll::Ready((asked.swap_remove(at).host, result));
            }
        }
        Poll::Pending
    })
    .await
}
