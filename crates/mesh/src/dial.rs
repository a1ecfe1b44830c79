//! The way to cluster ports for whoever dials in this process: the same search as for a client that connects to one,
//! without the hop.
//!
//! What it gives counts as a connection of a client until it is closed, and holds the pod's place. Must not know who
//! dials. Start at [`ClusterPorts`].

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use balance::Rng;
use model::Target;
use net::dial::{Connecting, DialError, Duplex, Refusal, Stream, Way};
use net::proxy_protocol::encode_v1;
use stream::Meter;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::Millis;
use crate::search::{Held, NotReached, Reached, Searcher, millis, search};
use crate::shared::Shared;
use crate::stats::{CLIENT_RESULTS, Cells, Key, Open};

/// How old a connection to another host may be when something new is begun on it. Only that host knows whether its pod
/// is still in its file, and says so only to who asks anew.
const TUNNEL_CURRENT_MILLIS: u64 = 5_000;

/// The way to cluster ports. Give it to a [`net::dial::Dialer`].
#[derive(Debug)]
pub struct ClusterPorts {
    shared: Arc<Shared>,
    /// Another number for each connection: near seeds give unrelated chance.
    seed: AtomicU64,
}

impl ClusterPorts {
    /// By what a mesh knows. `seed` should differ between processes.
    #[must_use]
    pub fn new(shared: Arc<Shared>, seed: u64) -> Self {
        Self { shared, seed: AtomicU64::new(seed) }
    }

    /// Searches for a pod; what the pod must hear first is sent.
    async fn open(
        &self,
        port: u16,
        client: Option<SocketAddr>,
        within: Duration,
    ) -> Result<Stream, NotReached> {
        let shared = &self.shared;
        let state = shared.state();
        let within = within.min(state.settings.times.total);
        let deadline = shared.now().saturating_add(millis(within));
        let mut rng = Rng::new(self.seed.fetch_add(1, Ordering::Relaxed));
        let searcher = Searcher { port, client, is_inner: true };
        let found = search((shared, &state), searcher, deadline, &mut rng).await;
        let (host, result) = match &found {
            Ok(found) => (found.host.clone(), "ok"),
            Err(reason) => ("-".into(), reason.as_str()),
        };
        let cells = shared.clients.cells(&Key { cluster_port: port, host });
        cells.result(&CLIENT_RESULTS, result);
        let mut found = found?;
        if let Some(socket) = found.stream.socket() {
            let _ = stream::keep_alive(socket);
            // Nobody knows who of the two speaks first.
            net::dial::acknowledge(socket);
        }
        if found.wants_header {
            let header = header(&found.stream, client, port);
            // It fits into an empty socket.
            found.stream.write_all(&header).await.map_err(|_| NotReached::None)?;
        }
        Ok(Stream::Way(Box::new(ToPod::new(found, port, shared.clone(), cells))))
    }
}

impl Way for ClusterPorts {
    fn connect<'w>(
        &'w self,
        target: &'w Target,
        client: Option<SocketAddr>,
        within: Duration,
    ) -> Connecting<'w> {
        Box::pin(async move {
            let refused = |reason| DialError::refused(target, reason);
            let Target::ClusterPort(port) = target else { return Err(refused(Refusal::NoWay)) };
            match timeout(within, self.open(*port, client, within)).await {
                Ok(Ok(stream)) => Ok(stream),
                Ok(Err(NotReached::Busy)) => Err(refused(Refusal::Busy)),
                Ok(Err(NotReached::None)) => Err(refused(Refusal::Nobody)),
                Ok(Err(NotReached::NotAClusterPort)) => Err(refused(Refusal::NoWay)),
                Err(_) | Ok(Err(NotReached::Timeout)) => {
                    Err(DialError::Timeout { target: target.to_string(), waited: within })
                }
            }
        })
    }
}

/// Whose connection it is: the client's, or where it is nobody's alone, our own.
fn header(stream: &Stream, client: Option<SocketAddr>, port: u16) -> Vec<u8> {
    let mut header = Vec::new();
    if let Some(own) = stream.local_addr() {
        encode_v1(&mut header, client.unwrap_or(own), SocketAddr::new(own.ip(), port));
    }
    header
}

/// A connection to a pod, counted.
#[derive(Debug)]
struct ToPod {
    stream: Stream,
    /// What the pod had said when it was found, and how much of it has been read.
    first: Vec<u8>,
    read: usize,
    port: u16,
    held: Held,
    since: Millis,
    shared: Arc<Shared>,
    cells: Arc<Cells>,
    _open: Open,
}

impl ToPod {
    fn new(found: Reached, port: u16, shared: Arc<Shared>, cells: Arc<Cells>) -> Self {
        let Reached { stream, first, held, .. } = found;
        let (since, open) = (shared.now(), Open::count(&cells));
        Self { stream, first, read: 0, port, held, since, shared, cells, _open: open }
    }
}

impl Duplex for ToPod {
    /// The pod of this host is still in the file; or the host still is, was asked lately, and this one has no pod with
    /// room.
    fn is_current(&self) -> bool {
        let (state, now) = (self.shared.state(), self.shared.now());
        match &self.held {
            Held::Place(place) => state.pods.have(place.mapping()),
            Held::Tunnel(tunnel) => {
                now.saturating_sub(self.since) < TUNNEL_CURRENT_MILLIS
                    && state.hosts.iter().any(|host| tunnel.goes_to(host))
                    && !state.pods.have_room(self.port, now)
            }
            Held::StandIn => self.shared.stand_in(self.port).is_some() && self.stream.is_current(),
        }
    }

    /// Of a pod of this host it is known when it is full.
    fn may_rest(&self) -> bool {
        match &self.held {
            Held::Place(place) => place.has_another(),
            Held::Tunnel(_) => true,
            Held::StandIn => self.stream.may_rest(),
        }
    }

    fn reset_on_close(&self) {
        self.stream.reset_on_close();
    }

    fn socket(&self) -> Option<&TcpStream> {
        self.stream.socket()
    }
}

impl AsyncRead for ToPod {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let first = this.first.get(this.read..).unwrap_or_default();
        let result = if first.is_empty() {
            Pin::new(&mut this.stream).poll_read(cx, buf)
        } else {
            let count = first.len().min(buf.remaining());
            buf.put_slice(first.get(..count).unwrap_or_default());
            this.read += count;
            Poll::Ready(Ok(()))
        };
        this.cells.down(buf.filled().len() - before);
        result
    }
}

impl AsyncWrite for ToPod {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.count(result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.count(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

impl ToPod {
    fn count(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = written {
            self.cells.up(count);
        }
        written
    }
}
