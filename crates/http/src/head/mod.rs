//! Heads of messages, sans-io: parsed strictly, kept in one buffer, written out in one form.
//!
//! A head that could be read in two ways is refused here, before anything acts on it (RFC 9112 section 11.2). Must
//! not know sockets, rules or upstreams. Start at [`RequestHead`] and [`ResponseHead`]; [`scan`] finds where a head
//! ends.

mod fields;
mod lines;
mod request;
mod response;
pub(crate) mod scan;

pub(crate) use fields::Field;
pub(crate) use fields::tokens;
pub use fields::{Fields, Known, Span};
pub(crate) use lines::parse_fields;
pub use request::{RequestHead, Version};
pub use response::ResponseHead;

/// How the length of a body is known (RFC 9112 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Framing {
    /// There is no body.
    #[default]
    None,
    /// That many bytes.
    Length(u64),
    /// In chunks (HTTP/1.1), or frames until the stream ends (HTTP/2) without a length said before.
    Chunked,
    /// Until the connection closes: responses to HTTP/1.0 clients or of such servers, and upgraded connections.
    UntilClose,
}

/// Why a request head is refused. Each has one status; the connection closes after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// The request line, or a status line, is not one.
    #[error("malformed start line")]
    StartLine,
    /// A version other than 1.0 and 1.1.
    #[error("unsupported HTTP version")]
    Version,
    /// A field line is malformed: no name, spaces around the name, a control character, a folded line.
    #[error("malformed header field")]
    Field,
    /// A line ends in LF without CR.
    #[error("line ends without CR")]
    BareLineFeed,
    /// More fields than the limit.
    #[error("too many header fields")]
    TooManyFields,
    /// More bytes than the limit.
    #[error("head too large")]
    TooLarge,
    /// The request target is none of the four forms, or has characters that no URI has.
    #[error("malformed request target")]
    Target,
    /// None, several, or a malformed one.
    #[error("missing, repeated or malformed Host")]
    Host,
    /// Length and transfer coding both, several lengths, or a length that is no number.
    #[error("ambiguous or malformed message length")]
    Length,
    /// A transfer coding other than `chunked`.
    #[error("unsupported transfer coding")]
    TransferCoding,
    /// An expectation other than `100-continue`.
    #[error("unsupported expectation")]
    Expectation,
}

impl HeadError {
    /// The status that answers it.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::TooManyFields | Self::TooLarge => 431,
            Self::Version => 505,
            Self::TransferCoding => 501,
            Self::Expectation => 417,
            _ => 400,
        }
    }

    /// The metric label.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::TooManyFields | Self::TooLarge => "head_too_large",
            Self::Version => "version",
            Self::TransferCoding => "transfer_coding",
            Self::Expectation => "expectation",
            _ => "bad_request",
        }
    }
}
