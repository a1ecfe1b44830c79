//! What the ends of a tunnel say to each other: the packets of Konnectivity's wire, and two of our own that only
//! those get who have asked for them.
//!
//! [`Decoder`] makes packets of the bytes of a gRPC stream, [`Message`] makes such bytes of packets; payload is
//! copied by neither. Must not know who sends what when, nor do any IO. Start at [`Packet`].

mod decode;
mod fields;
mod message;

use bytes::Bytes;

pub use decode::{DecodeError, Decoder};
pub use fields::Malformed;
pub use message::Message;

/// One packet. Numbers of connections are the agent's to give, from 1; numbers of dials are the dialling side's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// Connect to an address.
    DialRequest {
        /// `tcp`; nothing else is defined.
        protocol: String,
        /// `host:port`.
        address: String,
        /// The dial's number.
        dial: i64,
    },
    /// What became of a dial: a connection's number, or an error.
    DialResponse {
        /// Empty where there is a connection.
        error: String,
        /// 0 where there is none.
        connection: i64,
        /// The dial's number.
        dial: i64,
    },
    /// The dialling side wants a connection closed.
    CloseRequest {
        /// Which.
        connection: i64,
    },
    /// A connection is closed: in answer, or because the target has.
    CloseResponse {
        /// Empty for an orderly end.
        error: String,
        /// Which.
        connection: i64,
    },
    /// Payload, in either direction. A long one arrives in several pieces.
    Data {
        /// Which connection.
        connection: i64,
        /// Never empty when decoded.
        bytes: Bytes,
    },
    /// A dial is not wanted any more.
    CloseDial {
        /// The dial's number.
        dial: i64,
    },
    /// The agent is about to go: no new connections through it where there is another.
    Drain,
    /// Ours: the receiver of a connection's payload takes so many bytes more.
    Credit {
        /// Which connection.
        connection: i64,
        /// How many.
        bytes: u64,
    },
    /// Ours: nothing more comes in this direction of a connection; the other goes on.
    Finish {
        /// Which connection.
        connection: i64,
    },
}

impl Packet {
    /// The name of its type, as metrics have it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::DialRequest { .. } => "DIAL_REQ",
            Self::DialResponse { .. } => "DIAL_RSP",
            Self::CloseRequest { .. } => "CLOSE_REQ",
            Self::CloseResponse { .. } => "CLOSE_RSP",
            Self::Data { .. } => "DATA",
            Self::CloseDial { .. } => "DIAL_CLS",
            Self::Drain => "DRAIN",
            Self::Credit { .. } => "CREDIT",
            Self::Finish { .. } => "FINISH",
        }
    }
}

/// The numbers of the wire: of a packet's type, and of the field that its content is in.
mod number {
    pub(super) const TYPE: u32 = 1;

    pub(super) const DIAL_REQUEST: (u64, u32) = (0, 2);
    pub(super) const DIAL_RESPONSE: (u64, u32) = (1, 3);
    pub(super) const CLOSE_REQUEST: (u64, u32) = (2, 5);
    pub(super) const CLOSE_RESPONSE: (u64, u32) = (3, 6);
    pub(super) const DATA: (u64, u32) = (4, 4);
    pub(super) const CLOSE_DIAL: (u64, u32) = (5, 7);
    pub(super) const DRAIN: (u64, u32) = (6, 8);
    /// Far beyond what the original is likely to reach.
    pub(super) const CREDIT: (u64, u32) = (1000, 1000);
    pub(super) const FINISH: (u64, u32) = (1001, 1001);
}

#[cfg(test)]
mod tests;
