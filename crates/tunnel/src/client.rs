//! The client: connections to `host:port` as it is seen from behind an agent, through a server of Konnectivity's, ours
//! or an original.
//!
//! In the mode gRPC the connections of a thread share HTTP/2 connections to the server (`server`), each a stream
//! (`call`); in the mode HTTP CONNECT each has its own (`connect`). `stream` is what a connection is for whoever has
//! asked for it, [`way`] gives them to a dialer. Must not know files or flags. Start at [`Client::connect`].

mod call;
mod connect;
mod io;
mod server;
mod servers;
mod stream;
pub mod way;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use model::TunnelServers;
use net::dial::Dialer;
use tls::ClientTls;

use crate::server::Mode;
use crate::stats::{Counter, Dials, Durations, Gauge};
use server::Pool;
use servers::Servers;

pub use stream::Connection;

/// The longest error of a server or an agent that is passed on.
const TEXT_BYTES_MAX: usize = 1024;

/// What a client is told.
#[derive(Debug)]
pub struct Settings {
    /// Where the servers are; one that can be reached is used.
    pub servers: TunnelServers,
    /// How they are spoken to.
    pub mode: Mode,
    /// Our own certificate and the servers' authorities, changed while connections go on; needed for those that are
    /// reached by TCP.
    pub tls: Option<Arc<ArcSwap<ClientTls>>>,
    /// Whether to say that this end is ours. Without it the wire is as an original's.
    pub extensions: bool,
}

/// What is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Protocol {
    /// A stream of bytes.
    #[default]
    Tcp,
    /// Datagrams; only with a server and an agent of ours, and in the mode gRPC.
    Udp,
}

/// Where a connection is to go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct To {
    /// What is carried.
    pub protocol: Protocol,
    /// `host:port`, resolved where the agent is.
    pub address: String,
    /// Through an agent that has this identifier (`host`), whatever the server's strategies say. Only servers of ours
    /// know how; others refuse.
    pub cluster: Option<String>,
}

impl std::fmt::Display for To {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.cluster {
            None => f.write_str(&self.address),
            Some(cluster) => write!(f, "{cluster}/{}", self.address),
        }
    }
}

/// Why a connection did not come about. Nothing has been sent on it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    /// The server cannot be reached, or is none.
    #[error("the tunnel's server {server}")]
    Server {
        /// Where it should be, or all of them.
        server: String,
        /// What is wrong.
        #[source]
        source: Arc<server::ServerError>,
    },
    /// The server or the agent said no, in these words.
    #[error("{0}")]
    Refused(String),
    /// Nobody answered in time.
    #[error("no answer through the tunnel within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// There are as many connections as there may be.
    #[error("the tunnel's client has as many connections as it may")]
    Busy,
}

/// The words of [`ClientError::as_str`].
pub const ERRORS: [&str; 8] =
    ["server", "no_agent", "timeout", "refused", "unreachable", "resolve", "busy", "other"];

impl ClientError {
    /// A short word for metrics: `server` (not reached, or gone), `no_agent`, and of what the agent found `timeout`,
    /// `refused`, `unreachable`, `resolve` and `other`; `busy`.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Server { .. } => "server",
            Self::Timeout(_) => "timeout",
            Self::Busy => "busy",
            Self::Refused(text) => word_of(text),
        }
    }
}

/// What an agent's text is about: ours and the original's are the operating system's with a few words before.
fn word_of(text: &str) -> &'static str {
    let text = text.to_ascii_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
    if has(&["no agent available", "currently no tunnels", "agent disconnected"]) {
        "no_agent"
    } else if has(&["timeout", "deadline exceeded", "timed out"]) {
        "timeout"
    } else if has(&["connection refused"]) {
        "refused"
    } else if has(&["unreachable", "no route to host"]) {
        "unreachable"
    } else if has(&["lookup ", "no such host"]) {
        "resolve"
    } else {
        "other"
    }
}

/// At most [`TEXT_BYTES_MAX`] of what the other side says, without what a terminal would obey.
fn printable(text: &str) -> String {
    let text: String = text.trim().chars().filter(|c| !c.is_control()).collect();
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// What a client counts.
#[derive(Debug, Default)]
pub struct Stats {
    /// From the wish for a connection to the answer.
    pub dial_duration: Durations<Dials>,
    /// Connections now.
    pub established: Gauge,
    /// Connections to the server that carry others, now.
    pub server_connections: Gauge,
    /// Connections that did not come about, by [`ERRORS`].
    pub failures: [Counter; ERRORS.len()],
}

impl Stats {
    fn failed(&self, error: &ClientError) {
        let word = error.as_str();
        if let Some(at) = ERRORS.iter().position(|known| *known == word) {
            self.failures[at].add(1);
        }
    }
}

/// Connects through one server, or one of several. Shared by all threads.
#[derive(Debug)]
pub struct Client {
    servers: Servers,
    mode: Mode,
    tls: Option<Arc<ArcSwap<ClientTls>>>,
    extensions: bool,
    dialer: Dialer,
    pool: Pool,
    last_dial: AtomicI64,
    /// What is counted.
    pub stats: Arc<Stats>,
}

impl Client {
    /// Connects to nothing yet. Servers are reached with this dialer.
    #[must_use]
    pub fn new(settings: Settings, dialer: Dialer) -> Arc<Self> {
        Self::counting(settings, dialer, Arc::default())
    }

    /// The same, which goes on counting where another one has.
    #[must_use]
    pub fn counting(settings: Settings, dialer: Dialer, stats: Arc<Stats>) -> Arc<Self> {
        let Settings { servers, mode, tls, extensions } = settings;
        let (pool, last_dial) = (Pool::default(), AtomicI64::new(0));
        let servers = Servers::new(servers);
        Arc::new(Self { servers, mode, tls, extensions, dialer, pool, last_dial, stats })
    }

    /// Where the servers are.
    #[must_use]
    pub fn servers(&self) -> &TunnelServers {
        self.servers.all()
    }

    /// How they are spoken to.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Connects within a time. Dropped, the server is told that nobody waits any more.
    ///
    /// # Errors
    /// [`ClientError`]; nothing has been sent on the connection then.
    pub async fn connect(
        self: &Arc<Self>,
        to: &To,
        within: Duration,
    ) -> Result<Connection, ClientError> {
        let start = Instant::now();
        let opened = async {
            match self.mode {
                Mode::Grpc => call::open(self, to).await.map(Connection::of_call),
                Mode::HttpConnect => connect::open(self, to).await.map(Connection::of_connect),
            }
        };
        let opened = tokio::time::timeout(within, opened).await;
        let opened = opened.unwrap_or(Err(ClientError::Timeout(within)));
        self.stats.dial_duration.observe(start.elapsed());
        match opened {
            Ok(connection) => Ok(connection.counted(&self.stats)),
            Err(error) => {
                self.stats.failed(&error);
                Err(error)
            }
        }
    }

    /// Whether a server is there and takes us: has it answer, on the connection that others use where there is one.
    /// Dropped, nothing has happened.
    ///
    /// # Errors
    /// [`ClientError::Server`] and [`ClientError::Timeout`].
    pub async fn check(self: &Arc<Self>, within: Duration) -> Result<(), ClientError> {
        let checked = async {
            match self.mode {
                Mode::Grpc => server::take(self).await.map(drop),
                Mode::HttpConnect => connect::check(self).await.map_err(|e| self.failed(e)),
            }
        };
        let checked = tokio::time::timeout(within, checked).await;
        checked.unwrap_or(Err(ClientError::Timeout(within)))
    }

    fn failed(&self, error: server::ServerError) -> ClientError {
        self.failed_as(Arc::new(error))
    }

    fn failed_as(&self, source: Arc<server::ServerError>) -> ClientError {
        ClientError::Server { server: self.servers.all().to_string(), source }
    }

    /// The number of one more dial.
    fn next_dial(&self) -> i64 {
        self.last_dial.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }
}

pub use server::ServerError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_agent_says_is_told_apart() {
        for (text, word) in [
            ("No agent available", "no_agent"),
            ("currently no tunnels available: No agent available", "no_agent"),
            ("dial tcp 10.0.0.1:1: connect: Connection refused (os error 111)", "refused"),
            ("dial tcp 10.0.0.1:1: connect: connection refused", "refused"),
            ("dial tcp 10.0.0.1:1: i/o timeout", "timeout"),
            ("context deadline exceeded", "timeout"),
            ("dial tcp: lookup a.test on 10.0.0.10:53: no such host", "resolve"),
            ("dial tcp 10.0.0.1:1: connect: no route to host", "unreachable"),
            ("dial tcp@one 10.0.0.1:1: unknown network", "other"),
        ] {
            assert_eq!(ClientError::Refused(text.to_owned()).as_str(), word, "{text}");
            assert!(ERRORS.contains(&word));
        }
    }

    #[test]
    fn what_the_other_side_says_is_bounded_and_printable() {
        assert_eq!(printable(" a\x1b[31mb\r\n"), "a[31mb");
        let long = printable(&"é".repeat(TEXT_BYTES_MAX));
        assert!(long.len() <= TEXT_BYTES_MAX && long.len() > TEXT_BYTES_MAX - 2);
    }
}
