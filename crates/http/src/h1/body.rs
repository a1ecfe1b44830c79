//! Bodies on an HTTP/1 wire: [`BodyReader`] takes one off, [`BodyWriter`] puts one on.
//!
//! Must not know where the other end of the body is: that is `stream::pump`'s.

use super::buffer::Buffer;
use super::chunked::{Chunked, Step};
use super::wire::Wire;
use super::write;
use crate::head::{Fields, Framing, parse_fields};
use crate::stream::{BodyError, Piece, Sink, Source};

/// Below this much, data is copied behind what waits to be written instead of being written on its own.
const COALESCE_BYTES_MAX: usize = 16 * 1024;

/// Bounds on a trailer section.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TrailerLimits {
    pub(crate) bytes: usize,
    pub(crate) fields: usize,
}

/// A body that arrives.
#[derive(Debug)]
pub(crate) struct BodyReader<'c> {
    wire: &'c Wire,
    input: &'c mut Buffer,
    state: Reading,
    limits: TrailerLimits,
    /// Bytes of the last piece, still in the buffer.
    given: usize,
    closed: bool,
}

#[derive(Debug)]
enum Reading {
    Length(u64),
    Chunked(Chunked),
    UntilClose,
    Done,
}

impl<'c> BodyReader<'c> {
    pub(crate) fn new(
        wire: &'c Wire,
        input: &'c mut Buffer,
        framing: Framing,
        limits: TrailerLimits,
    ) -> Self {
        let state = match framing {
            Framing::None => Reading::Done,
            Framing::Length(length) => Reading::Length(length),
            Framing::Chunked => Reading::Chunked(Chunked::new(limits.bytes)),
            Framing::UntilClose => Reading::UntilClose,
        };
        Self { wire, input, state, limits, given: 0, closed: false }
    }

    /// Whether the body has been read to its end, so that the next message may follow.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.state, Reading::Done)
    }

    /// The next piece's place in the buffer: bytes to skip, bytes of data.
    fn locate(&mut self) -> Result<Located, BodyError> {
        let available = self.input.len();
        match &mut self.state {
            Reading::Done => Ok(Located::End(None)),
            Reading::Length(left) => {
                let len = usize::try_from(*left).unwrap_or(usize::MAX).min(available);
                *left -= len as u64;
                if *left == 0 && len == 0 {
                    self.state = Reading::Done;
                    return Ok(Located::End(None));
                }
                Ok(if len > 0 { Located::Data { skip: 0, len } } else { Located::Nothing })
            }
            Reading::UntilClose if available > 0 => Ok(Located::Data { skip: 0, len: available }),
            Reading::UntilClose if self.closed => {
                self.state = Reading::Done;
                Ok(Located::End(None))
            }
            Reading::UntilClose => Ok(Located::Nothing),
            Reading::Chunked(decoder) => match decoder.step(self.input.filled())? {
                Step::Data { skip, len } => Ok(Located::Data { skip, len }),
                Step::More { skip } => {
                    self.input.consume(skip);
                    Ok(Located::Nothing)
                }
                Step::End { skip, len } => {
                    self.input.consume(skip);
                    let section = self.input.filled().get(..len).unwrap_or_default();
                    let trailers = if len > 2 {
                        Some(Box::new(
                            parse_fields(section, self.limits.fields)
                                .map_err(|_| BodyError::Malformed)?,
                        ))
                    } else {
                        None
                    };
                    self.input.consume(len);
                    self.state = Reading::Done;
                    Ok(Located::End(trailers))
                }
            },
        }
    }
}

enum Located {
    Data { skip: usize, len: usize },
    End(Option<Box<Fields>>),
    Nothing,
}

impl Source for BodyReader<'_> {
    fn try_next(&mut self) -> Result<Option<Piece<'_>>, BodyError> {
        self.input.consume(std::mem::take(&mut self.given));
        match self.locate()? {
            Located::Data { skip, len } => {
                self.input.consume(skip);
                self.given = len;
                Ok(Some(Piece::Data(self.input.filled().get(..len).unwrap_or_default())))
            }
            Located::End(trailers) => Ok(Some(Piece::End(trailers))),
            Located::Nothing if self.closed => Err(BodyError::Cut),
            Located::Nothing => Ok(None),
        }
    }

    async fn wait(&mut self) -> Result<(), BodyError> {
        let count = self.wire.read(self.input).await.map_err(BodyError::Io)?;
        self.closed = count == 0;
        Ok(())
    }

    fn switch_to_raw(&mut self) {
        self.state = Reading::UntilClose;
    }
}

impl Drop for BodyReader<'_> {
    fn drop(&mut self) {
        self.input.consume(std::mem::take(&mut self.given));
    }
}

/// A body that leaves, behind whatever already waits in the output.
#[derive(Debug)]
pub(crate) struct BodyWriter<'c> {
    wire: &'c Wire,
    output: &'c mut Vec<u8>,
    framing: Framing,
}

impl<'c> BodyWriter<'c> {
    pub(crate) fn new(wire: &'c Wire, output: &'c mut Vec<u8>, framing: Framing) -> Self {
        Self { wire, output, framing }
    }

    /// What waits to be written; a head is put here.
    pub(crate) fn output(&mut self) -> &mut Vec<u8> {
        self.output
    }

    /// How the body that follows ends.
    pub(crate) fn set_framing(&mut self, framing: Framing) {
        self.framing = framing;
    }
}

impl Sink for BodyWriter<'_> {
    async fn data(&mut self, data: &[u8]) -> Result<(), BodyError> {
        match &mut self.framing {
            Framing::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(BodyError::Malformed)?;
            }
            Framing::Chunked => write::chunk_size(self.output, data.len()),
            Framing::UntilClose => {}
            Framing::None => {
                return if data.is_empty() { Ok(()) } else { Err(BodyError::Malformed) };
            }
        }
        if self.output.len() + data.len() <= COALESCE_BYTES_MAX {
            self.output.extend_from_slice(data);
        } else {
            self.wire.write_all(self.output, data).await.map_err(BodyError::Io)?;
            self.output.clear();
        }
        if self.framing == Framing::Chunked {
            self.output.extend_from_slice(b"\r\n");
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), BodyError> {
        if !self.output.is_empty() {
            self.wire.write_all(self.output, &[]).await.map_err(BodyError::Io)?;
            self.output.clear();
        }
        Ok(())
    }

    async fn end(&mut self, trailers: Option<&Fields>) -> Result<(), BodyError> {
        match self.framing {
            Framing::Length(left) if left > 0 => return Err(BodyError::Cut),
            Framing::Chunked => {
                self.output.extend_from_slice(b"0\r\n");
                for f in trailers.iter().flat_map(|t| t.iter()).filter(|f| is_trailer(f.known)) {
                    write::field(self.output, f.name, f.value);
                }
                self.output.extend_from_slice(b"\r\n");
            }
            _ => {}
        }
        self.flush().await?;
        if self.framing == Framing::UntilClose {
            self.wire.shutdown().await.map_err(BodyError::Io)?;
        }
        Ok(())
    }

    fn switch_to_raw(&mut self) {
        self.framing = Framing::UntilClose;
    }
}

/// Whether a field may stand behind a body: not what frames or routes the message (RFC 9110 section 6.5.1).
pub(crate) fn is_trailer(known: crate::head::Known) -> bool {
    known == crate::head::Known::Other
}
