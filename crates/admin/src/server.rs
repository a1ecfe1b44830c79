//! The socket of the admin port: few connections, short heads, no patience.
//!
//! Must not know the pages: see `answer.rs`.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use crate::guard::Hosts;
use crate::{Error, Provider, answer};

/// Connections at a time; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;
/// Bytes of a request head; beyond it 431.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// How long a head may take, and how long a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may live at all, so that clients who do not read cannot hold one for ever.
const CONNECTION_LIFETIME_MAX: Duration = Duration::from_secs(300);
/// How long answers under way may take once the port closes.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause after a failed accept, as when file descriptors are short.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The admin port: bound by [`Server::bind`], served by [`Server::run`]. Dropping it closes the socket.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Listens on an address; connections wait in the kernel's queue until [`Server::run`]. Needs
    /// no runtime.
    ///
    /// # Errors
    /// [`Error::InUse`] where another program has the address, [`Error::Bind`] where it cannot be had
    /// otherwise. Both name `--admin-address`.
    pub fn bind(address: SocketAddr) -> Result<Self, Error> {
        let bound = TcpListener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok(Self { listener, address })
        });
        bound.map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => Error::InUse { address, source },
            _ => Error::Bind { address, source },
        })
    }

    /// Where it listens, with the port that the system chose if 0 was asked for.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` completes; then closes the socket, lets answers under way end for up
    /// to 2 s, and returns. To be run on a tokio runtime with IO and time.
    ///
    /// Dropping the future closes the socket at once; answers under way still end in the
    /// background, and their connections close after them.
    ///
    /// # Errors
    /// [`Error::Serve`] where the runtime does not take the socket.
    pub async fn run(
        self,
        provider: Arc<dyn Provider>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), Error> {
        let address = self.address;
        let hosts = Hosts::of(address);
        let listener = tokio::net::TcpListener::from_std(self.listener)
            .map_err(|source| Error::Serve { address, source })?;
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let graceful = GracefulShutdown::new();
        let mut shutdown = pin!(shutdown);
        loop {
            let (stream, place) = tokio::select! {
                () = &mut shutdown => break,
                next = next(&listener, &places) => next,
            };
            let connection =
                connection(stream, Arc::clone(&provider), hosts, graceful.watcher(), place);
            drop(net::task::spawn("admin connection", connection));
        }
        drop(listener);
        if timeout(DRAIN_TIMEOUT, graceful.shutdown()).await.is_err() {
            tracing::debug!("admin connections were still open when the admin port closed");
        }
        Ok(())
    }
}

/// The next connection, once there is a place for it. Never fails for good: a failed accept is tried again.
async fn next(
    listener: &tokio::net::TcpListener,
    places: &Arc<Semaphore>,
) -> (TcpStream, Option<OwnedSemaphorePermit>) {
    // None only if the semaphore is closed, which nobody does.
    let place = Arc::clone(places).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, place),
            Err(error) => {
                tracing::warn!(%error, "cannot accept on the admin port");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    provider: Arc<dyn Provider>,
    hosts: Hosts,
    watcher: Watcher,
    place: Option<OwnedSemaphorePermit>,
) {
    let service = service_fn(move |request| {
        let provider = Arc::clone(&provider);
        async move { Ok::<_, Infallible>(answer::answer(request, provider, hosts).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_LIFETIME_MAX, watcher.watch(serving)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an admin connection failed"),
        Err(_) => tracing::debug!("an admin connection reached its greatest age"),
    }
    drop(place);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Readiness;
    use crate::metrics::{Family, Kind, Value};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::oneshot;

    const WAIT_MAX: Duration = Duration::from_secs(20);

    struct Fake;

    impl Provider for Fake {
        fn readiness(&self) -> Readiness {
            Readiness::NotReady(vec!["no configuration yet".to_owned(), "draining".to_owned()])
        }
        fn metrics(&self) -> Vec<Family> {
            vec![Family::single("cloverleaf_x_total", "X.", Kind::Counter, Value::Int(3))]
        }
        fn config(&self) -> serde_json::Value {
            panic!("a bug in the provider")
        }
        fn state(&self) -> serde_json::Value {
            serde_json::json!({"version": "<b>"})
        }
    }

    fn start() -> (SocketAddr, oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
        start_at("127.0.0.1:0")
    }

    fn start_at(address: &str) -> (SocketAddr, oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
        let server = Server::bind(address.parse().unwrap()).unwrap();
        let address = server.local_addr();
        let (stop, stopped) = oneshot::channel();
        let task = net::task::spawn("admin", async move {
            let shutdown = async { drop(stopped.await) };
            server.run(Arc::new(Fake), shutdown).await.unwrap();
        });
        (address, stop, task)
    }

    async fn exchange(address: SocketAddr, request: &str) -> String {
        let exchange = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut reply = Vec::new();
            // A reset after the reply is no concern here.
            let _ = stream.read_to_end(&mut reply).await;
            String::from_utf8(reply).unwrap()
        };
        timeout(WAIT_MAX, exchange).await.unwrap()
    }

    async fn get(address: SocketAddr, path: &str, more: &str) -> String {
        let head =
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{more}\r\n");
        exchange(address, &head).await
    }

    #[tokio::test]
    async fn every_page_answers() {
        let (address, _stop, _task) = start();
        for (path, more, status, parts) in [
            ("/healthz", "", "200 OK", &["ok\n"][..]),
            ("/readyz", "", "503 Service", &["not ready\nno configuration yet\ndraining\n"]),
            (
                "/metrics",
                "",
                "200 OK",
                &["text/plain; version=0.0.4", "\ncloverleaf_x_total 3\n", "\nprocess_open_fds "],
            ),
            (
                "/metrics",
                "Accept: application/openmetrics-text\r\n",
                "200 OK",
                &["application/openmetrics-text; version=1.0.0", "# EOF\n"],
            ),
            ("/state", "", "200 OK", &["application/json", "\"version\": \"<b>\"", "nosniff"]),
            ("/config", "", "500 Internal", &["making this page failed\n"]),
            ("/", "", "200 OK", &["text/html", "default-src 'none'", "<!doctype html>"]),
            ("/dashboard.css", "", "200 OK", &["text/css"]),
            ("/dashboard.js", "", "200 OK", &["text/javascript", "textContent"]),
            ("/x", "", "404 Not Found", &["no such page"]),
            ("/state", "Content-Length: 1\r\n", "400 Bad", &["connection: close"]),
            ("/state", "Transfer-Encoding: chunked\r\n", "400 Bad", &["connection: close"]),
        ] {
            let reply = get(address, path, more).await;
            assert!(reply.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {reply}");
            for part in parts {
                assert!(reply.contains(part), "{path} lacks {part}: {reply}");
            }
        }
    }

    #[tokio::test]
    async fn foreign_hosts_other_methods_and_huge_heads_are_refused() {
        let (address, _stop, _task) = start();
        let huge = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(20_000));
        for (request, status) in [
            ("GET /state HTTP/1.1\r\nHost: rebound.example\r\nConnection: close\r\n\r\n", "403"),
            ("POST /state HTTP/1.0\r\n\r\n", "405"),
            ("GET /state HTTP/1.1\r\nConnection: close\r\n\r\n", "400"),
            ("nonsense\r\n\r\n", "400"),
            (huge.as_str(), "431"),
        ] {
            let reply = exchange(address, request).await;
            let seen = reply.split(' ').nth(1);
            assert_eq!(seen, Some(status), "{reply}");
        }
    }

    #[tokio::test]
    async fn a_port_that_others_can_reach_answers_to_names() {
        let (address, _stop, _task) = start_at("0.0.0.0:0");
        let local = SocketAddr::from(([127, 0, 0, 1], address.port()));
        for (host, status) in
            [("gateway.prod.svc:9180", "200"), ("127.0.0.1", "200"), ("a b", "400")]
        {
            let head =
                format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            let reply = exchange(local, &head).await;
            assert_eq!(reply.split(' ').nth(1), Some(status), "{host}: {reply}");
        }
    }

    #[tokio::test]
    async fn head_has_the_length_and_no_body() {
        let (address, _stop, _task) = start();
        let reply = exchange(address, "HEAD /healthz HTTP/1.0\r\n\r\n").await;
        assert!(reply.contains("content-length: 3\r\n") && reply.ends_with("\r\n\r\n"), "{reply}");
    }

    #[tokio::test]
    async fn shutdown_ends_idle_connections_and_frees_the_address() {
        let (address, stop, task) = start();
        let mut idle = TcpStream::connect(address).await.unwrap();
        idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut first = [0; 12];
        idle.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        stop.send(()).unwrap();
        timeout(WAIT_MAX, task).await.unwrap().unwrap();
        Server::bind(address).unwrap();
    }

    #[tokio::test]
    async fn further_connections_wait_for_a_place() {
        let (address, _stop, _task) = start();
        let mut held = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            held.push(TcpStream::connect(address).await.unwrap());
        }
        // The kernel takes the connection, but nobody answers until another has gone.
        let waiting = net::task::spawn("waiting", async move {
            let reply = get(address, "/healthz", "").await;
            assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!waiting.is_finished());
        held.pop();
        timeout(WAIT_MAX, waiting).await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_head_is_cut() {
        let (client, server) = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .map(|l| async move {
                let address = l.local_addr().unwrap();
                let client = TcpStream::connect(address).await.unwrap();
                (client, l.accept().await.unwrap().0)
            })
            .unwrap()
            .await;
        let graceful = GracefulShutdown::new();
        let served = connection(server, Arc::new(Fake), Hosts::Local, graceful.watcher(), None);
        let began = tokio::time::Instant::now();
        served.await;
        assert_eq!(began.elapsed().as_secs(), HEAD_TIMEOUT.as_secs());
        drop(client);
    }

    #[test]
    fn an_address_in_use_names_the_flag() {
        let first = Server::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let error = Server::bind(first.local_addr()).unwrap_err().to_string();
        assert!(error.contains("--admin-address"), "{error}");
        assert!(error.contains(&first.local_addr().to_string()), "{error}");
    }
}
