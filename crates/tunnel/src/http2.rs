//! What all HTTP/2 connections of a tunnel have in common: windows, and asking whether the other side still lives.
//!
//! Must not know gRPC or packets.

use std::future::poll_fn;
use std::time::Duration;

use h2::{Ping, PingPong};

/// What may arrive on the one stream between a server and an agent before it is read. With credit it is read at once.
pub(crate) const CARRIER_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// What a client may send on a stream, that is on a connection, before it is passed on.
pub(crate) const CLIENT_WINDOW_BYTES: u32 = 512 * 1024;
/// The same for all streams of a client's connection.
pub(crate) const CLIENT_CONNECTION_WINDOW_BYTES: u32 = 64 * 1024 * 1024;
/// Handed to `h2` for a stream and not yet on its way: beyond it senders wait.
pub(crate) const SEND_BUFFER_BYTES: usize = 256 * 1024;
/// Frames from a peer of ours; an original never makes them longer than 16 KiB.
pub(crate) const FRAME_BYTES_MAX: u32 = 128 * 1024;
/// Streams of one client's connection at a time: each is a connection through the tunnel.
pub(crate) const STREAMS_MAX: u32 = 65_536;
/// Streams that were reset and are still remembered, and resets that may wait unseen (rapid reset, CVE-2023-44487).
/// A client that gives up thousands of dials at once is no attacker.
pub(crate) const RESET_STREAMS_MAX: usize = 4096;
/// How long the preface and a TLS handshake may take.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the answer to a question may take before the other side counts as dead (gRPC's default).
const PONG_TIMEOUT: Duration = Duration::from_secs(20);

/// Ready when the other side has not answered in time, or the connection is over. Dropped, nothing more is asked.
pub(crate) async fn watch(pings: Option<PingPong>, every: Duration) {
    let Some(mut pings) = pings else { return std::future::pending().await };
    loop {
        tokio::time::sleep(every).await;
        if pings.send_ping(Ping::opaque()).is_err() {
            return;
        }
        match tokio::time::timeout(PONG_TIMEOUT, poll_fn(|cx| pings.poll_pong(cx))).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}
