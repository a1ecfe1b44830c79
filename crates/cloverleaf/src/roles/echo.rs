//! The role `echo`: a test upstream that answers with what it received, slowly, in pieces or not at
//! all if asked to.
//!
//! HTTP/1.1 and HTTP/2 by prior knowledge on one plain port. `echo/knobs.rs` says what a query can
//! ask for, `echo/report.rs` what the answer tells, `echo/upgrade.rs` has WebSockets and raw
//! upgrades. Must not know the gateway, which starts one of these beside itself for the first
//! steps.

mod knobs;
mod report;
mod stream;
#[cfg(test)]
mod tests;
mod upgrade;

use std::convert::Infallible;
use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};

use knobs::{Knobs, Reply};
use stream::EchoBody;

/// Connections at a time, upgraded ones included; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 1_024;
/// Bytes of a request head.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// How long a connection may be without a request. Longer than proxies keep theirs idle.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// Streams of one HTTP/2 connection at a time.
const H2_STREAMS_MAX: u32 = 128;
/// How often a silent HTTP/2 client is asked whether it still is there.
const H2_PING_INTERVAL: Duration = Duration::from_secs(30);
/// How long answers under way may take once the role ends.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after a failed accept, as when file descriptors are short.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens; connections wait in the kernel's queue until [`serve`]. Needs no runtime.
///
/// # Errors
/// Where the address cannot be had; the text names it.
pub(crate) fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))
}

/// Answers on a listener until `shutdown` completes; then closes it, lets answers under way end for
/// up to 5 s, cuts what is left, upgraded connections at once, and returns. Runs on a tokio runtime
/// with IO and time.
///
/// Dropping the future closes the listener and cuts all connections.
///
/// # Errors
/// Where the runtime does not take the listener.
pub(crate) async fn serve(
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    listener.set_nonblocking(true).context("cannot use the listener")?;
    let listener =
        tokio::net::TcpListener::from_std(listener).context("cannot use the listener")?;
    let instance = instance();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    // Nothing is ever sent: the receivers see the sender go.
    let (alive, gone) = watch::channel(());
    let mut shutdown = pin!(shutdown);
    loop {
        let (stream, remote, place) = tokio::select! {
            () = &mut shutdown => break,
            next = next(&listener, &places) => next?,
        };
        let Ok(local) = stream.local_addr() else { continue };
        let peer = Peer {
            remote,
            local,
            instance: Arc::clone(&instance),
            gone: gone.clone(),
            place: Arc::new(place),
        };
        drop(net::task::spawn("echo connection", connection(stream, peer, graceful.watcher())));
    }
    drop(listener);
    if timeout(DRAIN_TIMEOUT, graceful.shutdown()).await.is_err() {
        tracing::debug!("echo connections were still busy at the end and are cut");
    }
    drop(alive);
    Ok(())
}

/// What answers know of their connection.
#[derive(Debug, Clone)]
struct Peer {
    remote: SocketAddr,
    local: SocketAddr,
    /// The machine's name.
    instance: Arc<str>,
    /// Closed when the role has ended.
    gone: watch::Receiver<()>,
    /// Held by the connection and by what it was upgraded to.
    place: Arc<OwnedSemaphorePermit>,
}

impl Peer {
    /// Completes when the role has ended.
    async fn gone(&self) {
        let mut gone = self.gone.clone();
        while gone.changed().await.is_ok() {}
    }
}

fn instance() -> Arc<str> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "echo".into(),
        name => name.into(),
    }
}

/// The next connection, once there is a place for it. A failed accept is tried again.
async fn next(
    listener: &tokio::net::TcpListener,
    places: &Arc<Semaphore>,
) -> anyhow::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await?;
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => return Ok((stream, remote, place)),
            Err(error) => {
                tracing::warn!(%error, "the echo role cannot accept");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Starts the tasks of HTTP/2 streams, supervised.
#[derive(Debug, Clone, Copy)]
struct Executor;

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        drop(net::task::spawn("echo stream", future));
    }
}

async fn connection(stream: TcpStream, peer: Peer, watcher: Watcher) {
    // Small answers go out at once. Where that cannot be set they are only slower.
    let _ = stream.set_nodelay(true);
    let mut server = auto::Builder::new(Executor);
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX);
    server
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(H2_STREAMS_MAX)
        .keep_alive_interval(H2_PING_INTERVAL);
    let for_requests = peer.clone();
    let service = service_fn(move |request| {
        let peer = for_requests.clone();
        async move { Ok::<_, Infallible>(answer(request, peer).await) }
    });
    // The server below waits without a bound for its first byte, which tells HTTP/1 from HTTP/2.
    if timeout(IDLE_TIMEOUT, stream.readable()).await.is_err() {
        return;
    }
    let serving = server.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::select! {
        served = watcher.watch(serving) => {
            if let Err(error) = served {
                tracing::debug!(%error, "an echo connection failed");
            }
        }
        () = peer.gone() => {}
    }
}

async fn answer(mut request: Request<Incoming>, peer: Peer) -> Response<EchoBody> {
    let knobs = match Knobs::parse(request.uri().query().unwrap_or_default()) {
        Ok(knobs) => knobs,
        Err(problem) => return text(StatusCode::BAD_REQUEST, format!("{problem}\n")),
    };
    let mut response = if let (None, Some(kind)) = (knobs.status, upgrade::wanted(&request)) {
        sleep(knobs.delay).await;
        upgrade::answer(&mut request, kind, peer)
    } else {
        let (head, body) = request.into_parts();
        let seen = match report::read(body).await {
            Ok(seen) => seen,
            Err(problem) => return text(StatusCode::BAD_REQUEST, format!("{problem}\n")),
        };
        sleep(knobs.delay).await;
        let mut response = plain(&knobs.reply, || report::report(&head, &seen, &peer));
        *response.status_mut() = knobs.status.unwrap_or(StatusCode::OK);
        response
    };
    for (name, value) in knobs.headers {
        response.headers_mut().append(name, value);
    }
    response
}

fn plain(reply: &Reply, report: impl FnOnce() -> serde_json::Value) -> Response<EchoBody> {
    let (kind, body) = match *reply {
        Reply::Report => ("application/json", EchoBody::text(format!("{:#}\n", report()))),
        Reply::Size(bytes) => ("application/octet-stream", EchoBody::pattern(bytes)),
        Reply::Events { count, every } => ("text/event-stream", EchoBody::events(count, every)),
    };
    typed(kind, body)
}

fn text(status: StatusCode, text: String) -> Response<EchoBody> {
    let mut response = typed("text/plain; charset=utf-8", EchoBody::text(text));
    *response.status_mut() = status;
    response
}

fn typed(kind: &'static str, body: EchoBody) -> Response<EchoBody> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
