//! HTTP/2 connections to a server, which the connections of a thread share.
//!
//! Each carries so few that those that nobody reads never use up what all of them together may have on their way. One
//! that has nothing to carry is closed after a while, one that was made with old certificates as soon as it has
//! nothing. Must not know what the streams say. Start at [`take`].

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::ThreadId;
use std::time::Duration;

use h2::client::SendRequest;
use h2::{Ping, PingPong};
use model::TunnelServer;
use net::dial::DialError;
use rustc_hash::FxHashMap;
use tls::ClientTls;
use tokio::sync::watch;
use tokio::time::Instant;

use super::io::{self, Io};
use super::{Client, ClientError};
use crate::packet::Message;
use crate::{grpc, http2};

/// Connections that one HTTP/2 connection carries. As many windows of single streams fit into that of all, here and at
/// a server of ours.
const STREAMS_MAX: usize =
    (http2::CLIENT_CONNECTION_WINDOW_BYTES / http2::CLIENT_WINDOW_BYTES) as usize - 1;
/// HTTP/2 connections of one client.
const SERVER_CONNECTIONS_MAX: usize = 1024;
/// How long one is kept that carries nothing.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// How often it is looked whether one carries nothing.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// After which silence a server of ours is asked whether it lives.
const PING_EVERY: Duration = Duration::from_secs(30);
/// The same for others, which end connections that ask more often than every five minutes, or while there is no call.
const PING_OTHERS_EVERY: Duration = Duration::from_secs(330);

/// What is wrong with a server.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// It cannot be reached.
    #[error("cannot be reached")]
    Dial(#[from] DialError),
    /// Its Unix socket cannot be connected to.
    #[error("cannot be reached")]
    Unix(#[source] std::io::Error),
    /// No TLS.
    #[error("TLS with it failed")]
    Tls(#[from] tls::ConnectError),
    /// There is no TLS to reach it with.
    #[error("over TCP it is spoken to by TLS alone")]
    NoTls,
    /// It took too long.
    #[error("did not answer within {} s", io::CONNECT_TIMEOUT.as_secs())]
    Timeout,
    /// No HTTP/2, or it failed.
    #[error("HTTP/2 with it failed")]
    Http2(#[from] h2::Error),
    /// The connection failed.
    #[error("the connection to it failed")]
    Io(#[from] std::io::Error),
    /// It has closed the connection.
    #[error("has closed the connection")]
    Closed,
    /// It is something else.
    #[error("answers as no Konnectivity server does: {0}")]
    Answer(String),
}

/// What whoever connects waits for.
type Opened = Option<Result<SendRequest<Message>, Arc<ServerError>>>;

/// The HTTP/2 connections of each thread.
#[derive(Debug, Default)]
pub(super) struct Pool {
    threads: Mutex<FxHashMap<ThreadId, Vec<Arc<ServerConnection>>>>,
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, FxHashMap<ThreadId, Vec<Arc<ServerConnection>>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One HTTP/2 connection.
#[derive(Debug)]
pub(super) struct ServerConnection {
    opened: watch::Receiver<Opened>,
    streams: AtomicUsize,
    gone: AtomicBool,
    /// Made with certificates that are not the current ones any more.
    old: AtomicBool,
    /// The certificates that it was made with.
    tls: Option<Arc<ClientTls>>,
    /// Whether the server is ours, once it has said.
    server: AtomicU8,
}

const UNKNOWN: u8 = 0;
const OURS: u8 = 1;
const OTHER: u8 = 2;

impl ServerConnection {
    /// Notes what a server is.
    pub(super) fn set_ours(&self, ours: bool) {
        self.server.store(if ours { OURS } else { OTHER }, Ordering::Relaxed);
    }

    /// Nothing new goes this way: it was of no use, as where the server is about to end it.
    pub(super) fn take_no_more(&self) {
        self.gone.store(true, Ordering::Relaxed);
    }

    /// Whether a new connection would go this way.
    pub(super) fn is_current(&self) -> bool {
        !self.gone.load(Ordering::Relaxed) && !self.old.load(Ordering::Relaxed)
    }

    fn is_of(&self, tls: Option<&Arc<ClientTls>>) -> bool {
        match (&self.tls, tls) {
            (None, None) => true,
            (Some(own), Some(tls)) => Arc::ptr_eq(own, tls),
            _ => false,
        }
    }
}

/// A place on an HTTP/2 connection, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) connection: Arc<ServerConnection>,
    pub(super) send: SendRequest<Message>,
    _taken: Taken,
}

#[derive(Debug)]
struct Taken(Arc<ServerConnection>);

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A place on an HTTP/2 connection of this thread, on a new one if there is no room on those that there are. Dropped,
/// a connection that was begun comes about all the same, for the next.
pub(super) async fn take(client: &Arc<Client>) -> Result<Place, ClientError> {
    let taken = choose(client)?;
    let mut opened = taken.0.opened.clone();
    let opened = opened.wait_for(Option::is_some).await.map(|opened| opened.clone());
    match opened {
        Ok(Some(Ok(send))) => Ok(Place { connection: taken.0.clone(), send, _taken: taken }),
        Ok(Some(Err(error))) => Err(client.failed_as(error)),
        Ok(None) | Err(_) => Err(client.failed(ServerError::Closed)),
    }
}

fn choose(client: &Arc<Client>) -> Result<Taken, ClientError> {
    let tls = client.tls.as_ref().map(|tls| tls.load_full());
    let mut threads = client.pool.lock();
    let all: usize = threads.values().map(Vec::len).sum();
    let own = threads.entry(std::thread::current().id()).or_default();
    for connection in own.iter().filter(|connection| !connection.is_of(tls.as_ref())) {
        connection.old.store(true, Ordering::Relaxed);
    }
    let has_room = |c: &&Arc<ServerConnection>| {
        c.is_current() && c.streams.load(Ordering::Relaxed) < STREAMS_MAX
    };
    let connection = match own.iter().find(has_room) {
        Some(found) => found.clone(),
        None if all >= SERVER_CONNECTIONS_MAX => return Err(ClientError::Busy),
        None => {
            let (done, opened) = watch::channel(None);
            let new = Arc::new(ServerConnection {
                opened,
                streams: AtomicUsize::new(0),
                gone: AtomicBool::new(false),
                old: AtomicBool::new(false),
                tls,
                server: AtomicU8::new(UNKNOWN),
            });
            own.push(new.clone());
            let present = Present { client: Arc::downgrade(client), connection: new.clone() };
            let running = run(client.clone(), present, done);
            drop(net::task::spawn("tunnel client", running));
            new
        }
    };
    connection.streams.fetch_add(1, Ordering::Relaxed);
    Ok(Taken(connection))
}

/// Takes a connection out of the pool when it is over, however that came.
struct Present {
    client: Weak<Client>,
    connection: Arc<ServerConnection>,
}

impl Present {
    /// Whether it is of no more use; nobody gets it then.
    fn retires(&self, since: Option<Instant>) -> bool {
        let Some(client) = self.client.upgrade() else { return self.is_idle() };
        let _nobody_takes_it = client.pool.lock();
        let connection = &self.connection;
        let old = connection.old.load(Ordering::Relaxed);
        let long = since.is_some_and(|since| since.elapsed() >= IDLE_MAX);
        let gone = connection.gone.load(Ordering::Relaxed);
        let retires = self.is_idle() && (old || gone || long);
        if retires {
            connection.gone.store(true, Ordering::Relaxed);
        }
        retires
    }

    fn is_idle(&self) -> bool {
        self.connection.streams.load(Ordering::Relaxed) == 0
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.connection.gone.store(true, Ordering::Relaxed);
        let Some(client) = self.client.upgrade() else { return };
        let mut threads = client.pool.lock();
        threads.retain(|_, own| {
            own.retain(|connection| !Arc::ptr_eq(connection, &self.connection));
            !own.is_empty()
        });
    }
}

/// Opens a connection and keeps it going until it fails or is of no more use.
async fn run(client: Arc<Client>, present: Present, done: watch::Sender<Opened>) {
    let opened = client.servers.first_of_use(|server| open(&client, server));
    let opened = tokio::time::timeout(io::CONNECT_TIMEOUT, opened).await;
    let ((send, connection, pings), server) = match opened.unwrap_or(Err(ServerError::Timeout)) {
        Ok((opened, server)) => (opened, server.to_string()),
        Err(error) => {
            present.connection.gone.store(true, Ordering::Relaxed);
            done.send_replace(Some(Err(Arc::new(error))));
            return;
        }
    };
    let stats = client.stats.clone();
    let _open = stats.server_connections.count();
    // A client that nobody has any more is not kept by its connections.
    drop(client);
    done.send_replace(Some(Ok(send)));
    tokio::select! {
        ended = connection => match ended {
            Ok(()) => tracing::debug!(server, "the server has closed a connection"),
            Err(error) => tracing::debug!(server, %error, "a connection to the server has failed"),
        },
        () = silent(pings, &present.connection) => {
            tracing::warn!(server, "closed: the tunnel's server does not answer any more");
        }
        () = unused(&present) => {}
    }
}

/// Runs an HTTP/2 connection; nothing moves without it.
type Running = h2::client::Connection<Io, Message>;

/// Connects, and hears from the server: only then it is known that it accepts our certificate (RFC 8446 section 4.4.2.4
/// has it say so after the handshake is over for us).
async fn open(
    client: &Client,
    server: &TunnelServer,
) -> Result<(SendRequest<Message>, Running, Option<PingPong>), ServerError> {
    let stream = io::open(client, server).await?;
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(http2::CLIENT_WINDOW_BYTES)
        .initial_connection_window_size(http2::CLIENT_CONNECTION_WINDOW_BYTES)
        .max_frame_size(http2::FRAME_BYTES_MAX)
        .max_send_buffer_size(http2::SEND_BUFFER_BYTES)
        .data_frame_budget(http2::SMALL_FRAMES_BYTES_MAX)
        .max_header_list_size(grpc::HEADER_BYTES_MAX)
        .enable_push(false);
    let (send, mut connection) = builder.handshake(stream).await?;
    let mut pings = connection.ping_pong();
    if let Some(pings) = &mut pings {
        pings.send_ping(Ping::opaque())?;
        tokio::select! {
            answered = poll_fn(|cx| pings.poll_pong(cx)) => {
                answered?;
            }
            ended = &mut connection => {
                ended?;
                return Err(ServerError::Closed);
            }
        }
    }
    Ok((send, connection, pings))
}

/// Ready when the server has not answered in time.
async fn silent(pings: Option<PingPong>, connection: &ServerConnection) {
    let Some(mut pings) = pings else { return std::future::pending().await };
    let mut asked = Instant::now();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let every = match connection.server.load(Ordering::Relaxed) {
            OURS => PING_EVERY,
            _ => PING_OTHERS_EVERY,
        };
        if asked.elapsed() < every || connection.streams.load(Ordering::Relaxed) == 0 {
            continue;
        }
        asked = Instant::now();
        // Where the connection is over, it says so itself.
        if pings.send_ping(Ping::opaque()).is_err() {
            return std::future::pending().await;
        }
        let answered = poll_fn(|cx| pings.poll_pong(cx));
        match tokio::time::timeout(http2::PONG_TIMEOUT, answered).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return std::future::pending().await,
            Err(_) => return,
        }
    }
}

/// Ready when it has carried nothing for a while, and will never again.
async fn unused(present: &Present) {
    let mut since = None;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        since = if present.is_idle() { since.or(Some(Instant::now())) } else { None };
        if present.retires(since) {
            return;
        }
    }
}
