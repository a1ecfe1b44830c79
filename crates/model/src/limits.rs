//! Bounds on what a peer can make grow, and on waiting. Every one has a name, a unit and a default.

use std::time::Duration;

/// Bounds on memory and number. All are upper bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request head, from the first byte of the request line to the empty line; also of a response
    /// head, a trailer section, and an HTTP/2 header list. Beyond it 431 (request) or 502 (response).
    pub head_bytes: usize,
    /// Fields in one head. Beyond it 431 or 502.
    pub head_fields: usize,
    /// Client connections over all listeners. Beyond it new ones wait in the kernel's queue.
    pub connections: usize,
    /// Concurrent streams of one HTTP/2 connection (`SETTINGS_MAX_CONCURRENT_STREAMS`).
    pub h2_streams: u32,
    /// Requests on one connection before it is closed in an orderly way; 0 is unbounded.
    pub requests_per_connection: u64,
    /// Bytes of a request's body, where its rule sets no other bound; `None` is unbounded. Beyond it 413.
    pub request_body: Option<u64>,
    /// How many times a request may be sent again, to another endpoint or on a fresh connection, where that is
    /// safe. Unless it is 0, refused connections go beyond it.
    pub retries: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: 64 * 1024,
            head_fields: 128,
            connections: 100_000,
            h2_streams: 128,
            requests_per_connection: 0,
            request_body: None,
            retries: 2,
        }
    }
}

/// Bounds on waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// From a connection's first byte of a request until its head is complete; also a TLS handshake.
    pub head: Duration,
    /// A client connection without a request.
    pub idle: Duration,
    /// Until an upstream connection is up, TLS included, for each attempt.
    pub connect: Duration,
    /// From the request being sent until the upstream's response head: 504 beyond it.
    pub response: Duration,
    /// A body, stream or upgraded connection on which nothing moves in either direction.
    pub stream_idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            connect: Duration::from_secs(5),
            response: Duration::from_secs(60),
            stream_idle: Duration::from_secs(300),
        }
    }
}
