//! The search for a pod of a cluster port, on whichever host: this host's first, then the others'.

use std::sync::Arc;
use std::time::Duration;

use balance::Rng;
use tokio::net::TcpStream;

use crate::Millis;
use crate::ask::{Found, NoHost, NoPod, other_hosts, own_pod};
use crate::hosts::Tunnel;
use crate::pods::Place;
use crate::shared::{Shared, State};

/// A connection to a pod.
#[derive(Debug)]
pub(crate) struct Reached {
    pub(crate) stream: TcpStream,
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
    port: u16,
    deadline: Millis,
    rng: &mut Rng,
) -> Result<Reached, NotReached> {
    if !state.settings.cluster_ports.contains(port) {
        return Err(NotReached::NotAClusterPort);
    }
    let own_is_busy = match own_pod((shared, state), port, deadline, rng).await {
        Ok((stream, place)) => {
            let wants_header = place.mapping().wants_header;
            let (host, held) = ("own".into(), Held::Place(place));
            return Ok(Reached { stream, wants_header, first: Vec::new(), host, held });
        }
        Err(reason) => reason == NoPod::Busy,
    };
    match other_hosts((shared, state), port, deadline, rng).await {
        Ok(Found { stream, wants_header, first, host, tunnel }) => {
            Ok(Reached { stream, wants_header, first, host, held: Held::Tunnel(tunnel) })
        }
        Err(NoHost::Busy) => Err(NotReached::Busy),
        Err(NoHost::None) if own_is_busy => Err(NotReached::Busy),
        Err(NoHost::None) => Err(NotReached::None),
        Err(NoHost::Timeout) => Err(NotReached::Timeout),
    }
}

/// In whole milliseconds.
pub(crate) fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}
