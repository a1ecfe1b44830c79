//! A connection to a cluster port: to a pod of this host where there is one with room, else to one of another host.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use stream::{Client, Opening, Pod, pump};
use tokio::net::TcpStream;

use super::ask::{self, NoHost, NoPod};
use super::{Counted, Worker};
use crate::hosts::Tunnel;
use crate::pods::Place;
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
    let found = Box::pin(search(&worker, &state, dialled.port())).await;
    let (host, result) = match &found {
        Ok(found) => (found.host.clone(), "ok"),
        Err(reason) => ("-".into(), *reason),
    };
    let cells = worker.client_cells(dialled.port(), &host);
    cells.result(&CLIENT_RESULTS, result);
    let Ok(found) = found else {
        tracing::debug!(cluster_port = dialled.port(), %from, reason = result, "no pod");
        return;
    };
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

/// A connection to a pod, on whichever host.
struct Reached {
    stream: TcpStream,
    wants_header: bool,
    first: Vec<u8>,
    host: Arc<str>,
    held: Held,
}

/// What is counted while the connection lives.
enum Held {
    #[allow(dead_code, reason = "held until dropped")]
    Place(Place),
    #[allow(dead_code, reason = "held until dropped")]
    Tunnel(Tunnel),
}

/// Finds a pod, or says in a word of [`CLIENT_RESULTS`] why there is none.
async fn search(worker: &Worker, state: &State, port: u16) -> Result<Reached, &'static str> {
    if !state.settings.cluster_ports.contains(port) {
        return Err("not_a_cluster_port");
    }
    let total = state.settings.times.total.as_millis();
    let deadline = worker.shared.now().saturating_add(u64::try_from(total).unwrap_or(u64::MAX));
    let own = ask::own_pod(worker, state, port, deadline).await;
    let own_is_busy = match own {
        Ok((stream, place)) => {
            let wants_header = place.mapping().wants_header;
            let (host, held) = ("own".into(), Held::Place(place));
            return Ok(Reached { stream, wants_header, first: Vec::new(), host, held });
        }
        Err(reason) => reason == NoPod::Busy,
    };
    match ask::other_hosts(worker, state, port, deadline).await {
        Ok(ask::Found { stream, wants_header, first, host, tunnel }) => {
            Ok(Reached { stream, wants_header, first, host, held: Held::Tunnel(tunnel) })
        }
        Err(NoHost::Busy) => Err("busy"),
        Err(NoHost::None) if own_is_busy => Err("busy"),
        Err(NoHost::None) => Err("none"),
        Err(NoHost::Timeout) => Err("timeout"),
    }
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
