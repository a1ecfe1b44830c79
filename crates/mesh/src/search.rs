//! The search for a pod of a cluster port, on whichever host: this host's first, then what this host has in place of
//! one, then the others'.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use balance::Rng;
use net::dial::{DialError, Refusal, Stream};

use crate::Millis;
use crate::ask::{NoHost, NoPod, other_hosts, own_pod};
use crate::asking::Found;
use crate::hosts::Tunnel;
use crate::pods::Place;
use crate::shared::{Shared, StandIn, State};
use crate::stats::Key;

/// A connection to a pod.
#[derive(Debug)]
pub(crate) struct Reached {
    pub(crate) stream: Stream,
    /// It must begin with a PROXY protocol header.
    pub(crate) wants_header: bool,
    /// What the pod has said already.
    pub(crate) first: Vec<u8>,
    /// As in [`crate::stats::Key::host`].
    pub(crate) host: Arc<str>,
    pub(crate) held: Held,
}

/// What is counted while the connection lives.
#[derive(Debug)]
pub(crate) enum Held {
    Place(Place),
    Tunnel(Tunnel),
    /// What stands in counts by itself.
    StandIn,
}

/// Who searches.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Searcher {
    pub(crate) port: u16,
    /// Whose connection it is, where it is one client's.
    pub(crate) client: Option<SocketAddr>,
    /// It came from within this process or from another host: it may not go on to a cluster port, or it might come
    /// back for ever.
    pub(crate) is_inner: bool,
}

/// Why there is no pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotReached {
    /// All have as many connections as they may.
    Busy,
    /// No host has one that answers.
    None,
    /// Time was over before all had answered.
    Timeout,
    /// It is none of `CLUSTERPORTS`.
    NotAClusterPort,
}

impl NotReached {
    /// Its word in [`crate::stats::CLIENT_RESULTS`].
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::None => "none",
            Self::Timeout => "timeout",
            Self::NotAClusterPort => "not_a_cluster_port",
        }
    }
}

/// Finds a pod. Dropped, it closes all connections under way and gives places back.
pub(crate) async fn search(
    (shared, state): (&Shared, &State),
    searcher: Searcher,
    deadline: Millis,
    rng: &mut Rng,
) -> Result<Reached, NotReached> {
    let port = searcher.port;
    if !state.settings.cluster_ports.contains(port) {
        return Err(NotReached::NotAClusterPort);
    }
    let mut is_busy = match own_pod((shared, state), port, deadline, rng).await {
        Ok((stream, place)) => {
            let wants_header = place.mapping().wants_header;
            let (host, held) = ("own".into(), Held::Place(place));
            let stream = Stream::Tcp(stream);
            return Ok(Reached { stream, wants_header, first: Vec::new(), host, held });
        }
        Err(reason) => reason == NoPod::Busy,
    };
    // Where it is not there, the other hosts want to be asked in time.
    let now = shared.now();
    let share = if state.hosts.is_empty() { 1 } else { 2 };
    let until = now + deadline.saturating_sub(now) / share;
    match stand_in(shared, searcher, until).await {
        Some(Ok(stream)) => {
            let (host, held) = (Key::UPSTREAM.into(), Held::StandIn);
            return Ok(Reached { stream, wants_header: false, first: Vec::new(), host, held });
        }
        Some(Err(NotReached::Busy)) => is_busy = true,
        Some(Err(_)) | None => {}
    }
    match other_hosts((shared, state), port, deadline, rng).await {
        Ok(Found { stream, wants_header, first, host, tunnel }) => {
            Ok(Reached { stream, wants_header, first, host, held: Held::Tunnel(tunnel) })
        }
        Err(NoHost::Busy) => Err(NotReached::Busy),
        Err(NoHost::None) if is_busy => Err(NotReached::Busy),
        Err(NoHost::None) => Err(NotReached::None),
        Err(NoHost::Timeout) => Err(NotReached::Timeout),
    }
}

/// A connection to what this host has in place of a pod; `None` where it has nothing for this searcher.
pub(crate) async fn stand_in(
    shared: &Shared,
    searcher: Searcher,
    deadline: Millis,
) -> Option<Result<Stream, NotReached>> {
    let StandIn { target, ends_here } = shared.stand_in(searcher.port)?;
    if searcher.is_inner && !ends_here {
        return None;
    }
    let left = Duration::from_millis(deadline.saturating_sub(shared.now()));
    let connected = shared.dialer.connect(&target, searcher.client, left).await;
    Some(connected.map_err(|error| {
        tracing::debug!(error = &error as &dyn std::error::Error, "an upstream is not reached");
        match error {
            DialError::Refused { reason: Refusal::Busy, .. } => NotReached::Busy,
            _ => NotReached::None,
        }
    }))
}

/// In whole milliseconds.
pub(crate) fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}
