//! HTTP/2 (RFC 9113) as a server of few long calls, in little memory and few writes.
//!
//! [`Core`] is the protocol without IO, tasks or a clock: bytes in, calls and payload out, and the other way round.
//! [`Connection`] drives one over a byte stream and gives each call's ends to whoever serves it. [`hpack`] reads and
//! writes header fields. Everything that a client can make grow has a bound, in [`Limits`] or beside what it bounds.
//! Must not know what calls say, nor TLS. Start at [`Connection`], or at [`Core`] for the protocol.

mod core;
mod driver;
mod ends;
mod flow;
mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod head;
pub mod hpack;
mod output;
#[cfg(test)]
mod simulation;
mod streams;

pub use core::{Core, Limits, Read, Urgency};
pub use driver::{Call, Connection};
pub use ends::{Answer, Body, Pings};
pub use frame::Reason;
pub use head::{Block, Head};
pub use streams::Ends;

use bytes::{Buf, Bytes};

/// What is sent as a call's payload: handed over whole, and cut where a frame ends.
pub trait Payload: Buf + Sized {
    /// Cuts off the first bytes, at most as many as there are.
    #[must_use]
    fn split_to(&mut self, bytes: usize) -> Self;
}

impl Payload for Bytes {
    fn split_to(&mut self, bytes: usize) -> Self {
        Self::split_to(self, bytes.min(self.len()))
    }
}

/// Why a call or a connection is over before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The client has cancelled the call.
    #[error("the client reset the stream ({0})")]
    Reset(Reason),
    /// We have, since the client broke the protocol in it or we were told to.
    #[error("the stream was reset ({0})")]
    Refused(Reason),
    /// The client has broken the protocol.
    #[error("the client broke the protocol of HTTP/2: {1} ({0})")]
    Broken(Reason, &'static str),
    /// The connection is over.
    #[error("the connection is closed")]
    Closed,
    /// The stream below has failed.
    #[error("the connection has failed: {0}")]
    Io(std::io::ErrorKind),
    /// An answer is a head, payload and an end, in this order.
    #[error("the answer has ended, or not begun")]
    Order,
}
