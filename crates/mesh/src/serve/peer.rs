//! A connection from another host, which asks for a pod of this one.

use std::net::SocketAddr;
use std::rc::Rc;

use net::at_once;
use net::dial::Stream;
use stream::pump;
use tls::{Mutual, MutualError, looks_like_tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Counted, Worker};
use crate::Millis;
use crate::ask::{NoPod, own_pod};
use crate::files::security::Mode;
use crate::peer::{Reply, read_request};
use crate::pods::Place;
use crate::sealed::{is_sealed, sealed};
use crate::search::{NotReached, Searcher, stand_in};
use crate::security::{Counts, Direction, Secured};
use crate::shared::{Shared, State};
use crate::stats::{Open, PEER_RESULTS};

/// Serves one peer to its end. Dropped, it closes all that belongs to it.
pub(super) async fn serve(
    worker: Rc<Worker>,
    stream: TcpStream,
    from: SocketAddr,
    _counted: Counted,
) {
    let state = worker.shared.state();
    let answered = Box::pin(answer(&worker, &state, stream, from)).await;
    let (cluster_port, result) = match &answered {
        Ok(tunnel) => (tunnel.cluster_port, "ok"),
        Err((cluster_port, result)) => (*cluster_port, *result),
    };
    let cells = worker.peer_cells(cluster_port);
    cells.result(&PEER_RESULTS, result);
    let Ok(Tunnel { peer, pod, place, .. }) = answered else { return };
    worker.shared.security.tunnel(Direction::In, is_sealed(&peer));
    let idle = state.settings.times.idle;
    drop(state);
    let _open = Open::count(&cells);
    let end = pump(peer, pod, None, Vec::new(), idle, cells.as_ref()).await;
    tracing::trace!(cluster_port, %from, end = end.as_str(), "ended");
    drop(place);
}

/// What a peer gets.
struct Tunnel {
    cluster_port: u16,
    peer: Stream,
    pod: Stream,
    /// Held while the connection lives; none where something else stands in for a pod.
    place: Option<Place>,
}

/// Reads the request, connects to a pod and answers; or says for which port, as far as it is known, and in a word of
/// [`PEER_RESULTS`] why not.
async fn answer(
    worker: &Worker,
    state: &State,
    stream: TcpStream,
    from: SocketAddr,
) -> Result<Tunnel, (u16, &'static str)> {
    if !state.settings.peers.contain(from.ip(), &state.addresses) {
        tracing::debug!(%from, "asked by somebody who is no host of the cluster");
        return Err((0, "denied"));
    }
    let within = state.settings.times.peer_request;
    let hears = hear(&worker.shared, &state.secured, stream, from);
    let Asked { mut peer, cluster_port, more } = match tokio::time::timeout(within, hears).await {
        Ok(asked) => asked.map_err(|result| (0, result))?,
        Err(_) => return Err((0, "timeout")),
    };
    let pod_time = u64::try_from(state.settings.times.pod.as_millis()).unwrap_or(u64::MAX);
    let deadline = worker.shared.now().saturating_add(pod_time);
    let (mut pod, place) = match pod(worker, state, cluster_port, deadline).await {
        Ok(reached) => reached,
        Err(no) => {
            if no == "busy" {
                // A peer that is gone already hears nothing.
                let _ = peer.write_all(Reply::Busy.encode()).await;
            }
            // Else no word is the protocol's word for it; the end of a secured connection says that it is meant so.
            let _ = peer.shutdown().await;
            // What was asked for is not counted by its name where it is not known here: anybody could ask for anything.
            return Err(if no == "none" { (0, no) } else { (cluster_port, no) });
        }
    };
    let wants_header = place.as_ref().is_some_and(|place| place.mapping().wants_header);
    let reply = Reply::Tunnel { wants_header };
    // What came behind the request is little, and fits into the pod's empty socket.
    let sent = async {
        if !more.is_empty() {
            at_once::write_all(&mut pod, &more).await?;
        }
        at_once::write_all(&mut peer, reply.encode()).await
    };
    match sent.await {
        Ok(()) => Ok(Tunnel { cluster_port, peer, pod, place }),
        Err(_) => Err((cluster_port, "unreachable")),
    }
}

/// A connection to a pod of this host, or to what stands in for one; or a word of [`PEER_RESULTS`] why there is none.
async fn pod(
    worker: &Worker,
    state: &State,
    cluster_port: u16,
    deadline: Millis,
) -> Result<(Stream, Option<Place>), &'static str> {
    let mut rng = worker.rng();
    let own = own_pod((&worker.shared, state), cluster_port, deadline, &mut rng).await;
    let reason = match own {
        Ok((pod, place)) => return Ok((Stream::Tcp(pod), Some(place))),
        Err(reason) => reason,
    };
    let searcher = Searcher { port: cluster_port, client: None, is_inner: true };
    match (stand_in(&worker.shared, searcher, deadline).await, reason) {
        (Some(Ok(pod)), _) => Ok((pod, None)),
        (Some(Err(NotReached::Busy)), _) | (_, NoPod::Busy) => Err("busy"),
        (Some(Err(_)), _) | (None, NoPod::Unreachable) => Err("unreachable"),
        (None, NoPod::None) => Err("none"),
    }
}

/// What a peer wants.
struct Asked {
    /// A socket, or sealed.
    peer: Stream,
    cluster_port: u16,
    /// What followed the request.
    more: Vec<u8>,
}

const AT_A_TIME_BYTES: usize = 1024;
/// Of what is there already when the connection is accepted: more than a question.
const AT_ONCE_BYTES: usize = 128;

/// Hears what a peer wants, over a connection that is as secure as it has to be; or says in a word of [`PEER_RESULTS`]
/// why that cannot be, [`PROBE`] among them. Its first byte tells whether it speaks TLS.
async fn hear(
    shared: &Shared,
    secured: &Secured,
    mut stream: TcpStream,
    from: SocketAddr,
) -> Result<Asked, &'static str> {
    let mut seen = Vec::with_capacity(AT_A_TIME_BYTES);
    let mut room = [0; AT_ONCE_BYTES];
    // The question comes with the packet that completes the connection, where a host of our kind asks.
    match at_once::read(&stream, &mut room) {
        Some(bytes) => seen.extend_from_slice(bytes),
        None if stream.read_buf(&mut seen).await.is_ok_and(|count| count > 0) => {}
        None => return Err("malformed"),
    }
    let complain = |what: &'static str| {
        if shared.security.may_complain(shared.now()) {
            tracing::warn!(%from, "{what}");
        }
    };
    if !looks_like_tls(&seen) {
        if secured.mode() != Mode::Required {
            return request(Stream::Tcp(stream), seen).await;
        }
        complain("a host asks in plain where SECURITY is required");
        // One that is gone already hears nothing.
        let _ = stream.write_all(Reply::DemandsTls.encode()).await;
        return Err("insecure");
    }
    let Some(mutual) = secured.mutual() else {
        tracing::debug!(%from, "a host asks in TLS where SECURITY is off");
        return Err("tls");
    };
    // It needs much memory, which those that ask plain shall not pay for.
    Box::pin(hear_in_tls(shared, mutual, stream, seen, from)).await
}

/// The same in TLS, of which the beginning was seen.
async fn hear_in_tls(
    shared: &Shared,
    mutual: &Mutual,
    stream: TcpStream,
    seen: Vec<u8>,
    from: SocketAddr,
) -> Result<Asked, &'static str> {
    let handshake = Handshake::begin(&shared.security);
    match mutual.accept(stream, &seen).await {
        Ok(stream) => {
            handshake.complete(stream.resumed());
            request(sealed(stream), Vec::new()).await
        }
        Err(error) => {
            if shared.security.may_complain(shared.now()) {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(%from, error, "a secured connection of a host failed");
            }
            handshake.failed(&error);
            Err("handshake")
        }
    }
}

/// What a peer wants that closes a secured connection without a word: to know that it can have one.
const PROBE: &str = "probe";

/// The request, after what was seen already.
async fn request(mut peer: Stream, mut seen: Vec<u8>) -> Result<Asked, &'static str> {
    loop {
        match read_request(&seen) {
            Ok(Some((cluster_port, length))) => {
                return Ok(Asked { peer, cluster_port, more: seen.split_off(length) });
            }
            Ok(None) => {}
            Err(_) => return Err("malformed"),
        }
        seen.reserve(AT_A_TIME_BYTES);
        match peer.read_buf(&mut seen).await {
            Ok(0) if seen.is_empty() && is_sealed(&peer) => {
                let _ = peer.shutdown().await;
                return Err(PROBE);
            }
            Ok(0) | Err(_) => return Err("malformed"),
            Ok(_) => {}
        }
    }
}

/// A handshake under way. Dropped before its end, it was too slow.
struct Handshake<'c>(Option<&'c Counts>);

impl<'c> Handshake<'c> {
    fn begin(counts: &'c Counts) -> Self {
        Self(Some(counts))
    }

    fn complete(mut self, resumed: bool) {
        if let Some(counts) = self.0.take() {
            counts.complete(Direction::In, resumed);
        }
    }

    fn failed(mut self, error: &MutualError) {
        if let Some(counts) = self.0.take() {
            counts.failed(Direction::In, error);
        }
    }
}

impl Drop for Handshake<'_> {
    fn drop(&mut self) {
        if let Some(counts) = self.0.take() {
            counts.handshake(Direction::In, "timeout");
        }
    }
}
