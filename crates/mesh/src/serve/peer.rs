//! A connection from another host, which asks for a pod of this one.

use std::net::SocketAddr;
use std::rc::Rc;

use net::dial::Stream;
use stream::pump;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Counted, Worker};
use crate::ask::{NoPod, own_pod};
use crate::peer::{REQUEST_BYTES_MAX, Reply, read_request};
use crate::pods::Place;
use crate::search::{NotReached, Searcher, stand_in};
use crate::shared::State;
use crate::stats::{Open, PEER_RESULTS};

/// Serves one peer to its end. Dropped, it closes all that belongs to it.
pub(super) async fn serve(
    worker: Rc<Worker>,
    mut stream: TcpStream,
    from: SocketAddr,
    _counted: Counted,
) {
    let state = worker.shared.state();
    let answered = Box::pin(answer(&worker, &state, &mut stream, from)).await;
    let (cluster_port, result) = match &answered {
        Ok(tunnel) => (tunnel.cluster_port, "ok"),
        Err((cluster_port, result)) => (*cluster_port, *result),
    };
    let cells = worker.peer_cells(cluster_port);
    cells.result(&PEER_RESULTS, result);
    let Ok(Tunnel { pod, place, .. }) = answered else { return };
    let idle = state.settings.times.idle;
    drop(state);
    let _open = Open::count(&cells);
    let end = pump(stream, pod, None, Vec::new(), idle, cells.as_ref()).await;
    tracing::trace!(cluster_port, %from, end = end.as_str(), "ended");
    drop(place);
}

/// What a peer gets.
struct Tunnel {
    cluster_port: u16,
    pod: Stream,
    /// Held while the connection lives; none where something else stands in for a pod.
    place: Option<Place>,
}

/// Reads the request, connects to a pod and answers; or says for which port, as far as it is known, and in a word of
/// [`PEER_RESULTS`] why not.
async fn answer(
    worker: &Worker,
    state: &State,
    stream: &mut TcpStream,
    from: SocketAddr,
) -> Result<Tunnel, (u16, &'static str)> {
    if !state.settings.peers.contain(from.ip(), &state.addresses) {
        tracing::debug!(%from, "asked by somebody who is no host of the cluster");
        return Err((0, "denied"));
    }
    let within = state.settings.times.peer_request;
    let (cluster_port, more) = match tokio::time::timeout(within, request(stream)).await {
        Ok(Some(request)) => request,
        Ok(None) => return Err((0, "malformed")),
        Err(_) => return Err((0, "timeout")),
    };
    let pod_time = u64::try_from(state.settings.times.pod.as_millis()).unwrap_or(u64::MAX);
    let deadline = worker.shared.now().saturating_add(pod_time);
    let mut rng = worker.rng();
    let own = own_pod((&worker.shared, state), cluster_port, deadline, &mut rng).await;
    let (mut pod, place) = match own {
        Ok((pod, place)) => (Stream::Tcp(pod), Some(place)),
        Err(reason) => {
            let searcher = Searcher { port: cluster_port, client: None, is_inner: true };
            match (stand_in(&worker.shared, searcher, deadline).await, reason) {
                (Some(Ok(pod)), _) => (pod, None),
                (Some(Err(NotReached::Busy)), _) | (_, NoPod::Busy) => {
                    // A peer that is gone already hears nothing.
                    let _ = stream.write_all(Reply::Busy.encode()).await;
                    return Err((cluster_port, "busy"));
                }
                (Some(Err(_)), _) | (None, NoPod::Unreachable) => {
                    return Err((cluster_port, "unreachable"));
                }
                // No word is the protocol's word for it. What was asked for is not counted by its name where it is
                // not known here: anybody could ask for anything.
                (None, NoPod::None) => return Err((0, "none")),
            }
        }
    };
    let wants_header = place.as_ref().is_some_and(|place| place.mapping().wants_header);
    let reply = Reply::Tunnel { wants_header };
    // What came behind the request is little, and fits into the pod's empty socket.
    let sent = async {
        pod.write_all(&more).await?;
        pod.flush().await?;
        stream.write_all(reply.encode()).await
    };
    match sent.await {
        Ok(()) => Ok(Tunnel { cluster_port, pod, place }),
        Err(_) => Err((cluster_port, "unreachable")),
    }
}

/// The cluster port, and what follows the request. `None` where it is none.
async fn request(stream: &mut TcpStream) -> Option<(u16, Vec<u8>)> {
    const AT_A_TIME_BYTES: usize = 1024;
    let mut seen = Vec::with_capacity(REQUEST_BYTES_MAX);
    loop {
        match read_request(&seen) {
            Ok(Some((port, length))) => return Some((port, seen.split_off(length))),
            Ok(None) => {}
            Err(_) => return None,
        }
        seen.reserve(AT_A_TIME_BYTES);
        if stream.read_buf(&mut seen).await.ok()? == 0 {
            return None;
        }
    }
}
