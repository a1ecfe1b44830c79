//! The health port and the admin port of a tunnel's ends: a few pages in the original's words.
//!
//! Must not know what is on the pages.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue, LOCATION};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;

/// Connections at a time; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;
/// Bytes of a request head.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// How long a head may take, and how long a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may live at all.
const LIFETIME_MAX: Duration = Duration::from_secs(300);
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a page says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Page {
    /// Text.
    Text(StatusCode, String),
    /// Metrics.
    Metrics(String),
    /// Elsewhere, for good.
    Moved(String),
    /// There is no such page.
    None,
}

/// A page by its path and query.
pub(super) type Pages = Arc<dyn Fn(&str, &str) -> Page + Send + Sync>;

/// Listens; `flag` is for the error.
pub(super) fn bind(address: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    let mut sockets = net::listen::bind(address, 1).with_context(|| format!("flag {flag}"))?;
    sockets.pop().context("no socket")
}

/// Serves pages. Dropped, it accepts no more.
pub(super) async fn serve(listener: TcpListener, pages: Pages) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return Ok(()) };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection to the health port cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let pages = pages.clone();
        drop(net::task::spawn("health connection", async move {
            let service = service_fn(move |request| {
                let reply = reply(&request, &pages);
                async move { Ok::<_, Infallible>(reply) }
            });
            let serving = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_buf_size(HEAD_BYTES_MAX)
                .serve_connection(TokioIo::new(stream), service);
            // A client that went, or took too long, needs no word.
            let _ = tokio::time::timeout(LIFETIME_MAX, serving).await;
            drop(place);
        }));
    }
}

fn reply(request: &Request<Incoming>, pages: &Pages) -> Response<String> {
    let mut response = Response::new(String::new());
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        return response;
    }
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, text);
    match pages(request.uri().path(), request.uri().query().unwrap_or_default()) {
        Page::Text(status, text) => {
            *response.status_mut() = status;
            *response.body_mut() = text;
        }
        Page::Metrics(text) => {
            let kind = HeaderValue::from_static(admin::metrics::Format::Prometheus.content_type());
            response.headers_mut().insert(CONTENT_TYPE, kind);
            *response.body_mut() = text;
        }
        Page::Moved(to) => {
            *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
            if let Ok(to) = HeaderValue::from_str(&to) {
                response.headers_mut().insert(LOCATION, to);
            }
        }
        Page::None => {
            *response.status_mut() = StatusCode::NOT_FOUND;
            "404 page not found\n".clone_into(response.body_mut());
        }
    }
    response
}
