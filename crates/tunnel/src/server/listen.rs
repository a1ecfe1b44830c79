//! The sockets of a server on one worker thread: accepting, TLS, HTTP/2.
//!
//! Must not know what the calls say.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ::http2::Call;
use arc_swap::ArcSwap;
use h2::RecvStream;
use h2::server::{Connection, SendResponse};
use http::Request;
use tls::{ServerStream, Termination};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};

use super::admission::Peer;
use super::{Hub, Mode, agents, connect, proxy};
use crate::buffered::Buffered;
use crate::grpc;
use crate::http2;
use crate::packet::Message;

/// Pause after a failed accept, as when file descriptors are short.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Certificates, changed while connections go on.
pub type Certificates = Arc<ArcSwap<Termination>>;

/// Where clients come in.
#[derive(Debug)]
pub enum Clients {
    /// Over TLS.
    Tcp(std::net::TcpListener, Certificates),
    /// Without TLS: the file's rights say who may.
    Unix(std::os::unix::net::UnixListener),
}

/// What accepts; dropped, it accepts no more. Connections go on.
#[derive(Debug)]
pub struct Accepting(Vec<tokio::task::JoinHandle<()>>);

impl Accepting {
    /// Of tasks that accept.
    pub(crate) fn new(tasks: Vec<tokio::task::JoinHandle<()>>) -> Self {
        Self(tasks)
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        self.0.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// Serves clients and agents on this worker thread until what it returns is dropped.
///
/// # Errors
/// Where the runtime does not take a socket.
pub fn serve(
    hub: &Arc<Hub>,
    clients: Option<Clients>,
    agents: (std::net::TcpListener, Certificates),
) -> io::Result<Accepting> {
    let mut tasks = Vec::new();
    match clients {
        None => {}
        Some(Clients::Tcp(listener, certificates)) => {
            let listener = TcpListener::from_std(listener)?;
            let hub = hub.clone();
            tasks.push(net::task::spawn_local("clients", async move {
                accept_tcp(listener, certificates, hub, Port::Clients).await;
            }));
        }
        Some(Clients::Unix(listener)) => {
            let listener = UnixListener::from_std(listener)?;
            let hub = hub.clone();
            tasks.push(net::task::spawn_local("clients", accept_unix(listener, hub)));
        }
    }
    let (listener, certificates) = agents;
    let listener = TcpListener::from_std(listener)?;
    let hub = hub.clone();
    tasks.push(net::task::spawn_local("agents", async move {
        accept_tcp(listener, certificates, hub, Port::Agents).await;
    }));
    Ok(Accepting(tasks))
}

/// Whom a connection is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Port {
    Clients,
    Agents,
}

impl Port {
    fn name(self) -> &'static str {
        match self {
            Self::Clients => "clients",
            Self::Agents => "agents",
        }
    }
}

async fn accept_tcp(listener: TcpListener, certificates: Certificates, hub: Arc<Hub>, port: Port) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                http2::keep_queue_short(&stream);
                let connection = over_tls(stream, peer, certificates.load_full(), &hub, port);
                drop(net::task::spawn_local("tunnel connection", connection));
            }
            Err(error) => pause(&error).await,
        }
    }
}

/// TLS, and what is spoken over it. Each phase is an allocation of its own that goes with it: a client that is idle
/// needs little.
fn over_tls(
    stream: TcpStream,
    peer: SocketAddr,
    certificates: Arc<Termination>,
    hub: &Arc<Hub>,
    port: Port,
) -> impl Future<Output = ()> + use<> {
    let hub = hub.clone();
    let handshake = Box::pin(handshake(stream, peer, certificates, hub.clone(), port));
    async move {
        if let Some(stream) = handshake.await {
            if !speaks_grpc(&hub, port) {
                stream.io().bundle_writes();
            }
            // Nobody asks who a client is.
            let names = if port == Port::Agents { stream.client_names() } else { None };
            let from = Peer { address: Some(peer), names };
            connection(stream, hub, port, from).await;
        }
    }
}

async fn handshake(
    stream: TcpStream,
    peer: SocketAddr,
    certificates: Arc<Termination>,
    hub: Arc<Hub>,
    port: Port,
) -> Option<Box<ServerStream<Buffered<TcpStream>>>> {
    let handshake = certificates.accept(Buffered::new(stream));
    match tokio::time::timeout(http2::HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Ok(stream)) => return Some(Box::new(stream)),
        Ok(Err(refused)) => {
            let reason = refused.error.as_str();
            hub.stats.failed_handshakes.add([port.name(), reason]);
            tracing::warn!(%peer, ?port, reason, "a TLS handshake failed");
        }
        Err(_) => {
            hub.stats.failed_handshakes.add([port.name(), "timeout"]);
            tracing::debug!(%peer, ?port, "a TLS handshake took too long");
        }
    }
    None
}

async fn accept_unix(listener: UnixListener, hub: Arc<Hub>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let stream = Buffered::new(stream);
                if !speaks_grpc(&hub, Port::Clients) {
                    stream.bundle_writes();
                }
                let served = connection(stream, hub.clone(), Port::Clients, Peer::default());
                drop(net::task::spawn_local("tunnel connection", served));
            }
            Err(error) => pause(&error).await,
        }
    }
}

/// After an accept that failed.
pub(crate) async fn pause(error: &io::Error) {
    tracing::warn!(%error, "a connection cannot be accepted");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// Serves a connection until it ends. Dropped, all its calls are over.
pub(crate) fn connection<S>(
    io: S,
    hub: Arc<Hub>,
    port: Port,
    peer: Peer,
) -> impl Future<Output = ()>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let served: Pin<Box<dyn Future<Output = ()>>> = match (port, hub.settings.mode) {
        (Port::Clients, Mode::Grpc) => Box::pin(serve_clients(io, hub)),
        (Port::Clients, Mode::HttpConnect) => {
            Box::pin(async move { connect::serve(&hub, io).await })
        }
        (Port::Agents, _) => {
            let opened = Box::pin(open_http2(io));
            let peer = Box::new(peer);
            Box::pin(async move {
                match opened.await {
                    Some(opened) => serve_agents(opened, hub, peer).await,
                    None => tracing::debug!(?port, "no HTTP/2 was spoken"),
                }
            })
        }
    };
    served
}

/// Whether it is a connection that writes what belongs together in one piece by itself.
fn speaks_grpc(hub: &Hub, port: Port) -> bool {
    port == Port::Clients && hub.settings.mode == Mode::Grpc
}

/// Serves clients' calls, each in a task of its own.
async fn serve_clients<S>(io: S, hub: Arc<Hub>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut connection = ::http2::Connection::new(io, http2::CLIENT_LIMITS);
    let opened = tokio::time::timeout(http2::HANDSHAKE_TIMEOUT, connection.ready()).await;
    if !matches!(opened, Ok(Ok(()))) {
        return tracing::debug!("no HTTP/2 was spoken by a client");
    }
    let pings = connection.pings();
    let watch = http2::Watch { keepalive: hub.settings.frontend_keepalive, round_trip: None };
    let serve = async {
        while let Some(call) = connection.accept().await {
            match call {
                Ok(call) => start_client(&hub, call),
                Err(error) => {
                    tracing::debug!(%error, "a client's HTTP/2 connection has failed");
                    return;
                }
            }
        }
    };
    tokio::select! {
        () = serve => {}
        () = watch.run(Some(pings)) => unanswered(Port::Clients),
    }
}

fn start_client(hub: &Arc<Hub>, mut call: Call<Message>) {
    if call.head.path() != grpc::PROXY.as_bytes() {
        let message = format!("unknown method {}", String::from_utf8_lossy(call.head.path()));
        return grpc::refuse_client(&mut call.answer, grpc::UNIMPLEMENTED, &message);
    }
    if let Some(client) = proxy::begin(hub.clone(), call) {
        // An idle one holds as much as its task does.
        spawn("client", client.serve());
    }
}

fn unanswered(port: Port) {
    tracing::warn!(?port, "closed: the other side does not answer any more");
}

async fn open_http2<S>(io: S) -> Option<Box<Connection<S, Message>>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(http2::CARRIER_WINDOW_BYTES)
        .initial_connection_window_size(http2::CARRIER_WINDOW_BYTES)
        .max_frame_size(http2::FRAME_BYTES_MAX)
        .max_send_buffer_size(http2::SEND_BUFFER_BYTES)
        .data_frame_budget(http2::SMALL_FRAMES_BYTES_MAX)
        .max_concurrent_streams(http2::STREAMS_MAX)
        .max_header_list_size(grpc::HEADER_BYTES_MAX)
        .max_concurrent_reset_streams(http2::RESET_STREAMS_MAX)
        .max_pending_accept_reset_streams(http2::RESET_STREAMS_MAX);
    let handshake = tokio::time::timeout(http2::HANDSHAKE_TIMEOUT, builder.handshake(io));
    handshake.await.ok()?.ok().map(Box::new)
}

async fn serve_agents<S>(
    mut connection: Box<Connection<S, Message>>,
    hub: Arc<Hub>,
    peer: Box<Peer>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let pings = connection.ping_pong();
    let round_trip = http2::RoundTrip::default();
    let (keepalive, measured) = (hub.settings.keepalive, Some(round_trip.clone()));
    let watch = http2::Watch { keepalive, round_trip: measured };
    let serve = async {
        while let Some(call) = connection.accept().await {
            match call {
                Ok(call) => start_agent(&hub, &peer, call, &round_trip),
                Err(error) => {
                    tracing::debug!(%error, "an agent's HTTP/2 connection has failed");
                    return;
                }
            }
        }
    };
    tokio::select! {
        () = serve => {}
        () = watch.run(pings) => unanswered(Port::Agents),
    }
}

/// Serves one call in a task of its own.
fn start_agent(
    hub: &Arc<Hub>,
    peer: &Peer,
    (request, mut respond): (Request<RecvStream>, SendResponse<Message>),
    round_trip: &http2::RoundTrip,
) {
    if request.uri().path() != grpc::CONNECT {
        let message = format!("unknown method {}", request.uri().path());
        return grpc::refuse(&mut respond, grpc::UNIMPLEMENTED, &message);
    }
    let (hub, peer, round_trip) = (hub.clone(), peer.clone(), round_trip.clone());
    spawn("agent", async move {
        let _open = hub.stats.connect_streams.count();
        agents::serve(hub.clone(), peer, (request, respond), round_trip).await;
    });
}

fn spawn(name: &'static str, future: impl Future<Output = ()> + 'static) {
    drop(net::task::spawn_local(name, future));
}
