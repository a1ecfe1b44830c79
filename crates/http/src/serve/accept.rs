//! Takes connections off a listening socket: limits, TLS, and which protocol comes.
//!
//! Must not know requests.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use model::HttpVersions;
use net::timer::Timer;
use tls::Protocol;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::{h1, h2};
use crate::client::Client;
use crate::h1::buffer::Buffer;
use crate::h1::wire::Wire;
use crate::io::Io;
use crate::shared::Shared;
use crate::stats::ListenerCells;
use crate::worker::Worker;

/// How long accepting pauses when the process has no descriptor or memory left for another connection.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);
/// How long accepting pauses when the limit of connections is reached.
const FULL_PAUSE: Duration = Duration::from_millis(5);

/// A listening socket that a worker serves. Dropped, it goes on; see [`Listening::close`].
#[derive(Debug)]
pub struct Listening {
    close: oneshot::Sender<()>,
    /// Completes when the socket is closed; that it does so with an error means nothing.
    closed: oneshot::Receiver<()>,
}

impl Listening {
    /// Stops accepting: what has been queued by the kernel is still taken, then the socket closes, and
    /// connections end after the request under way. What is returned completes when that is done (with an
    /// error that means nothing): only then can the address be had again.
    pub fn close(self) -> oneshot::Receiver<()> {
        let _ = self.close.send(());
        self.closed
    }
}

/// Serves a socket on a worker thread; to be called within that thread's runtime. `address` is the
/// listener's in the configuration, by which it is found in each program.
///
/// # Errors
/// The kernel's, where the socket cannot be watched.
pub fn listen(
    index: usize,
    shared: &Arc<Shared>,
    address: SocketAddr,
    socket: std::net::TcpListener,
) -> io::Result<Listening> {
    let worker = Worker::on_this_thread(index, shared);
    let socket = TcpListener::from_std(socket)?;
    let (close, mut closing) = oneshot::channel();
    let (has_closed, closed) = oneshot::channel::<()>();
    net::task::spawn_local("accept", async move {
        let mut kept = true;
        while kept {
            let full = is_full(&worker);
            tokio::select! {
                biased;
                // An `Err` says that nobody can close it any more: it is served for ever.
                Ok(()) = &mut closing => kept = false,
                () = tokio::time::sleep(FULL_PAUSE), if full => {}
                result = socket.accept(), if !full => {
                    if !accepted(&worker, address, result) {
                        tokio::time::sleep(EXHAUSTED_PAUSE).await;
                    }
                }
            }
        }
        // Idle connections first: they may be what the limit is reached by.
        worker.close_connections(Some(address));
        drain_queue(&worker, address, &socket).await;
        drop(socket);
        worker.close_connections(Some(address));
        drop(has_closed);
    });
    Ok(Listening { close, closed })
}

fn is_full(worker: &Worker) -> bool {
    worker.shared.open_connections() >= worker.local().program.snapshot.limits.connections
}

/// Takes what the kernel had already queued, so that closing the socket does not reset it. The limit of
/// connections may be passed by that much, once.
async fn drain_queue(worker: &Rc<Worker>, address: SocketAddr, socket: &TcpListener) {
    const QUEUED_MAX: usize = 4096;
    for _ in 0..QUEUED_MAX {
        let queued = tokio::time::timeout(Duration::ZERO, socket.accept()).await;
        let Ok(result) = queued else { return };
        if !accepted(worker, address, result) {
            return;
        }
    }
}

/// Starts a connection's task. `false` where the process has no room for more of them.
fn accepted(
    worker: &Rc<Worker>,
    address: SocketAddr,
    result: io::Result<(TcpStream, SocketAddr)>,
) -> bool {
    let (stream, peer) = match result {
        Ok(accepted) => accepted,
        // It concerns one connection that is gone; anything else is exhaustion.
        Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => return true,
        Err(error) => {
            tracing::warn!(%error, %address, "accepting a connection");
            return false;
        }
    };
    // Counted here and not by its task, which runs later: a burst must not get past the limit.
    let open = OpenConnection::count(worker);
    net::task::spawn_local("connection", connection(open, address, stream, peer));
    true
}

/// Counts a connection against the limit of connections until dropped.
struct OpenConnection(Rc<Worker>);

impl OpenConnection {
    fn count(worker: &Rc<Worker>) -> Self {
        worker.shared.connection_opened();
        Self(worker.clone())
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.shared.connection_closed();
    }
}

/// One client's connection. What belongs only to its beginning is gone before the protocol begins: an idle
/// connection keeps little.
async fn connection(
    open: OpenConnection,
    address: SocketAddr,
    stream: TcpStream,
    peer: SocketAddr,
) {
    let worker = &open.0;
    let local = worker.local();
    // One that the kernel had queued when its listener was removed is served as those that came before it.
    let here = local.program.listener_at(address).map(|index| (local, index));
    let Some((local, index)) = here.or_else(|| worker.last_with(address)) else { return };
    let Some((model, listener)) = local.program.listener(index) else { return };
    let cells = worker.shared.stats.listeners.cells(&model.name, worker.index);
    let mut client = Client::new(worker.clone(), peer, address, listener.scheme, cells);
    let timer = Timer::new();
    timer.set(local.program.snapshot.timeouts.head);
    let (termination, versions) = (listener.termination.clone(), model.protocols);
    // From here on the connection holds on to no program: it may live for days.
    drop(local);
    let (io, protocol) = match termination {
        None => (stream.into(), None),
        Some(termination) => {
            let shaken = Box::pin(handshake(&termination, stream, &client.cells, &timer)).await;
            let Some(stream) = shaken else { return };
            let protocol = stream.alpn();
            client.domain = stream.domain().clone();
            (Io::Accepted(Box::new(stream)), Some(protocol))
        }
    };
    if protocol == Some(Protocol::Http2) || versions == HttpVersions::Http2 {
        return Box::pin(h2::serve(io, Buffer::default(), client)).await;
    }
    // Without TLS the first bytes tell whether it is HTTP/2 by prior knowledge.
    let sniff = protocol.is_none() && versions == HttpVersions::All;
    match h1::serve(Wire::new(io), client, timer, sniff).await {
        h1::Served::Over => {}
        h1::Served::Http2 { io, input, client } => Box::pin(h2::serve(io, input, client)).await,
    }
}

/// TLS with a client, within the head timeout. A client that speaks plain HTTP to it is told so.
async fn handshake(
    termination: &tls::Termination,
    stream: TcpStream,
    cells: &ListenerCells,
    timer: &Timer,
) -> Option<tls::ServerStream<TcpStream>> {
    let result = timer.guard(termination.accept(stream)).await;
    match result {
        Ok(Ok(stream)) => {
            cells.handshakes.add("ok");
            Some(stream)
        }
        Ok(Err(refused)) => {
            cells.handshakes.add(refused.error.as_str());
            tracing::debug!(error = %refused.error, "TLS handshake");
            if refused.error.kind() == tls::AcceptErrorKind::PlainHttp {
                cells.refused.add("plain_http_on_tls");
                let _ = timer.guard(h1::tell_plain_http(refused.io)).await;
            }
            None
        }
        Err(_) => {
            cells.handshakes.add("timeout");
            None
        }
    }
}
