//! What all HTTP/2 connections of a tunnel have in common: windows, and asking whether the other side still lives.
//!
//! Must not know gRPC or packets.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ::http2::{Limits, Pings};
use h2::{Ping, PingPong};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::packet::Message;

/// What may arrive on the one stream between a server and an agent before it is read. With credit it is read at once.
pub(crate) const CARRIER_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// What a client may send on a stream, that is on a connection, before it is passed on.
pub(crate) const CLIENT_WINDOW_BYTES: u32 = 512 * 1024;
/// The same for all streams of a client's connection.
pub(crate) const CLIENT_CONNECTION_WINDOW_BYTES: u32 = 64 * 1024 * 1024;
/// What the kernel takes of a connection beyond what the network does: what waits elsewhere can still be overtaken.
pub(crate) const UNSENT_BYTES: u32 = 128 * 1024;
/// Handed to HTTP/2 for a stream and not yet on its way: beyond it senders wait. What is in there cannot be overtaken:
/// with more, credit for the other direction comes too late where a slow link is full both ways.
pub(crate) const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// What `h2` holds against a connection with small frames that wait, 256 bytes for each less its payload, before it
/// ends the whole connection. Beside a stall of [`crate::link::STALL_MAX`] much that is small may wait, as of
/// terminals.
pub(crate) const SMALL_FRAMES_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Frames from a peer of ours; an original never makes them longer than 16 KiB.
pub(crate) const FRAME_BYTES_MAX: u32 = 128 * 1024;
/// Streams of one client's connection at a time: each is a connection through the tunnel.
pub(crate) const STREAMS_MAX: u32 = 65_536;
/// Streams that were reset and are still remembered, and resets that may wait unseen (rapid reset, CVE-2023-44487).
/// A client that gives up thousands of dials at once is no attacker.
pub(crate) const RESET_STREAMS_MAX: usize = 4096;
/// What a client that speaks gRPC may make a server keep.
pub(crate) const CLIENT_LIMITS: Limits = Limits {
    stream_window_bytes: CLIENT_WINDOW_BYTES,
    connection_window_bytes: CLIENT_CONNECTION_WINDOW_BYTES,
    frame_bytes_max: FRAME_BYTES_MAX,
    send_buffer_bytes: SEND_BUFFER_BYTES,
    streams_max: STREAMS_MAX,
    header_bytes_max: crate::grpc::HEADER_BYTES_MAX,
    header_table_bytes: 0,
    reset_streams_max: RESET_STREAMS_MAX,
};
/// How long the preface and a TLS handshake may take.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the answer to a question may take before the other side counts as dead (gRPC's default).
pub(crate) const PONG_TIMEOUT: Duration = Duration::from_secs(20);

/// Keeps most of what waits to be sent in this program, where payload of other connections can still go before it.
pub(crate) fn keep_queue_short(stream: &TcpStream) {
    // Where the kernel does not take it there is only more in the queue.
    let _ = SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_BYTES);
}

/// How often a round trip is measured, and how many at once when a connection is new.
const ROUND_TRIP_EVERY: Duration = Duration::from_secs(10);
const FIRST_ROUND_TRIPS: usize = 3;
/// The shortest of so many round trips counts: what waits in queues makes the others longer.
const ROUND_TRIPS: usize = 30;

/// How long it takes to the other side and back, when nothing else is under way. Cloned, it is the same one.
#[derive(Debug, Clone, Default)]
pub(crate) struct RoundTrip(Arc<AtomicU64>);

impl RoundTrip {
    /// Zero where it is not known.
    pub(crate) fn get(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }

    fn set(&self, to: Duration) {
        self.0.store(u64::try_from(to.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// What can be asked whether it lives.
pub(crate) trait Ask {
    /// Ready when it has answered; whether it has, and not ended. Dropped, the answer is passed over.
    async fn ask(&mut self) -> bool;
}

impl Ask for PingPong {
    async fn ask(&mut self) -> bool {
        self.send_ping(Ping::opaque()).is_ok() && poll_fn(|cx| self.poll_pong(cx)).await.is_ok()
    }
}

impl Ask for Pings<Message> {
    async fn ask(&mut self) -> bool {
        self.ping().await.is_ok()
    }
}

/// What one connection is asked, and when.
pub(crate) struct Watch {
    /// After so long it is asked whether it lives.
    pub(crate) keepalive: Duration,
    /// Where round trips are told, if they are measured.
    pub(crate) round_trip: Option<RoundTrip>,
}

impl Watch {
    /// Ready when the other side has not answered in time, or the connection is over. Dropped, nothing more is asked.
    pub(crate) async fn run(self, asked: Option<impl Ask>) {
        let Some(mut other) = asked else { return std::future::pending().await };
        let every = self
            .round_trip
            .as_ref()
            .map_or(self.keepalive, |_| self.keepalive.min(ROUND_TRIP_EVERY));
        let mut seen = VecDeque::new();
        loop {
            if self.round_trip.is_none() || seen.len() >= FIRST_ROUND_TRIPS {
                tokio::time::sleep(every).await;
            }
            let asked = Instant::now();
            // Who never asks whether the other side lives never gives it up.
            let within = if self.keepalive == Duration::MAX { Duration::MAX } else { PONG_TIMEOUT };
            if !tokio::time::timeout(within, other.ask()).await.unwrap_or(false) {
                return;
            }
            if let Some(round_trip) = &self.round_trip {
                if seen.len() == ROUND_TRIPS {
                    seen.pop_front();
                }
                seen.push_back(asked.elapsed());
                round_trip.set(seen.iter().min().copied().unwrap_or_default());
            }
        }
    }
}
