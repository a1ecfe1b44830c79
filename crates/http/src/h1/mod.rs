//! HTTP/1 on a wire, the same for both sides of the proxy: reading heads and bodies, writing them.
//!
//! [`chunked`] is sans-io; [`buffer`], [`scratch`] and [`wire`] are memory and socket; [`body`] joins them. Must
//! not know rules, upstreams, or which side it is on beyond what a caller says.

pub(crate) mod body;
pub(crate) mod buffer;
pub(crate) mod chunked;
pub(crate) mod scratch;
pub(crate) mod wire;
pub(crate) mod write;

use crate::head::HeadError;
use crate::head::scan::Scan;
use buffer::Buffer;
use wire::Wire;

/// Why no head came.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadHeadError {
    /// What came is not one.
    #[error("malformed head")]
    Head(#[from] HeadError),
    /// The other side closed before its first byte.
    #[error("closed")]
    Closed,
    /// The other side closed within the head, or the socket failed.
    #[error("reading a head")]
    Io(#[from] std::io::Error),
}

/// Waits until a complete head stands in the buffer and gives its length. Empty lines before it are skipped
/// (RFC 9112 section 2.2), a few. Dropped, what has arrived stays in the buffer.
pub(crate) async fn read_head(
    wire: &Wire,
    input: &mut Buffer,
    limit: usize,
) -> Result<usize, ReadHeadError> {
    const EMPTY_LINES_MAX: usize = 2;
    let mut scan = Scan::default();
    let mut empty_lines = 0;
    loop {
        while input.filled().starts_with(b"\r\n") && empty_lines < EMPTY_LINES_MAX {
            input.consume(2);
            empty_lines += 1;
        }
        let filled = input.filled();
        // What begins otherwise will never be a head, however long one waits: a TLS greeting, say.
        if filled.first().is_some_and(|b| !b.is_ascii_graphic() && *b != b'\r') {
            return Err(HeadError::StartLine.into());
        }
        if filled != b"\r"
            && let Some(len) = scan.find_end(filled, limit)?
        {
            return Ok(len);
        }
        let had = !filled.is_empty();
        if wire.read(input).await? == 0 {
            let error = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
            return Err(if had { error.into() } else { ReadHeadError::Closed });
        }
    }
}
