//! A connection to a cluster port: to a pod of this host where there is one with room, else to one of another host.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Waker};

use stream::{Client, Opening, Pod, pump};
use tokio::net::TcpStream;

use super::{Counted, Worker};
use crate::search::{Held, Searcher, millis, search};
use crate::shared::State;
use crate::stats::{CLIENT_RESULTS, Open};

/// Serves one client to its end. Dropped, it closes all that belongs to it.
pub(super) async fn serve(
    worker: Rc<Worker>,
    stream: TcpStream,
    from: SocketAddr,
    _counted: Counted,
) {
    let Ok(dialled) = stream.local_addr() else { return };
    let state = worker.shared.state();
    // The search needs far more memory than what follows it.
    let now = worker.shared.now();
    let deadline = now.saturating_add(millis(state.settings.times.total));
    let mut rng = worker.rng();
    let client = Some(canonical(from));
    let searcher = Searcher { port: dialled.port(), client, is_inner: false };
    let search = search((&worker.shared, &state), searcher, deadline, &mut rng);
    let found = Box::pin(search).await;
    let (host, result) = match &found {
        Ok(found) => (found.host.clone(), "ok"),
        Err(reason) => ("-".into(), reason.as_str()),
    };
    let cells = worker.client_cells(dialled.port(), &host);
    cells.result(&CLIENT_RESULTS, result);
    let Ok(found) = found else {
        tracing::debug!(cluster_port = dialled.port(), %from, reason = result, "no pod");
        return;
    };
    // The client waits for the pod's first words, which the other host's socket may hold back.
    if let (Held::Tunnel(_), Some(tunnel)) = (&found.held, found.stream.socket())
        && !is_readable(&stream)
    {
        net::dial::acknowledge(tunnel);
    }
    let pod = if found.wants_header { Pod::WantsHeader } else { Pod::WantsNone };
    let client = believed(&state, dialled.port(), from);
    let times = state.settings.times;
    // Not kept for as long as the connection lives.
    drop(state);
    let opening = Opening::new(pod, client, canonical(from), canonical(dialled));
    let _open = Open::count(&cells);
    let opening = Some((opening, times.header_wait));
    let end = pump(stream, found.stream, opening, found.first, times.idle, cells.as_ref()).await;
    tracing::trace!(cluster_port = dialled.port(), %from, end = end.as_str(), "ended");
    drop(found.held);
}

/// Whether there is something to read, as far as it is known already.
fn is_readable(stream: &TcpStream) -> bool {
    let mut readable = pin!(stream.readable());
    readable.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

fn believed(state: &State, port: u16, from: SocketAddr) -> Client {
    if state.settings.no_header.contains(port) {
        Client::SendsNone
    } else if state.settings.trusted.contain(from.ip(), &state.addresses) {
        Client::MaySendHeader
    } else {
        Client::IsNotBelieved
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
