//! Response heads of upstreams: parsed and checked as strictly as requests; what is wrong here is a 502.
//!
//! Must not know sockets, rules or clients.

use super::fields::tokens;
use super::lines::{FIELDS_MAX, assert_clean, refused, span_in, table};
use super::request::parse_length;
use super::{Fields, Framing, HeadError, Known, Span};

/// A response's head, checked.
#[derive(Debug, Clone, Default)]
pub struct ResponseHead {
    /// The header fields as they came.
    pub fields: Fields,
    /// The status, from 100 to 999.
    pub status: u16,
    reason: Span,
    /// How its body ends.
    pub framing: Framing,
    /// The server will not take another request on this connection.
    pub closes: bool,
}

impl ResponseHead {
    /// A head of our own.
    #[must_use]
    pub fn own(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// The reason phrase as it came; may be empty.
    #[must_use]
    pub fn reason(&self) -> &[u8] {
        self.fields.text(self.reason)
    }

    /// Whether it comes before the real answer (RFC 9110 section 15.2). 101 does not: it is the last.
    #[must_use]
    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }

    /// Parses a complete head, empty line included, in place of what stood here before. `to_head` says that it
    /// answers a HEAD request.
    ///
    /// # Errors
    /// [`HeadError`]: what is wrong with it; then nothing may be made of the contents.
    pub fn parse(
        &mut self,
        text: &[u8],
        fields_max: usize,
        to_head: bool,
    ) -> Result<(), HeadError> {
        *self = Self { fields: std::mem::take(&mut self.fields), ..Self::default() };
        let mut table = table();
        let limit = fields_max.min(FIELDS_MAX);
        let mut parsed = httparse::Response::new(&mut []);
        let table = table.get_mut(..limit).unwrap_or_default();
        let config = httparse::ParserConfig::default();
        match config.parse_response_with_uninit_headers(&mut parsed, text, table) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => return Err(HeadError::StartLine),
            Err(error) => return Err(refused(error)),
        }
        let (Some(minor), Some(status)) = (parsed.version, parsed.code) else {
            return Err(HeadError::StartLine);
        };
        if status < 100 {
            return Err(HeadError::StartLine);
        }
        self.status = status;
        self.fields.reset(text);
        self.reason = span_in(text, parsed.reason.unwrap_or_default().as_bytes());
        let mut length = None;
        let mut coding: Option<bool> = None;
        let mut keeps = minor == 1;
        for header in parsed.headers.iter() {
            assert_clean(header.value);
            let value = header.value;
            match self.fields.index(span_in(text, header.name.as_bytes()), span_in(text, value)) {
                Known::ContentLength => {
                    if note_length(&mut length, value)? {
                        self.fields.drop_last();
                    }
                }
                Known::TransferEncoding => {
                    if coding.replace(value.eq_ignore_ascii_case(b"chunked")).is_some() {
                        return Err(HeadError::Length);
                    }
                }
                Known::Connection => {
                    for token in tokens(value) {
                        self.closes |= token.eq_ignore_ascii_case(b"close");
                        keeps |= token.eq_ignore_ascii_case(b"keep-alive");
                    }
                }
                _ => {}
            }
        }
        self.closes |= !keeps;
        self.framing = self.body_framing(minor, to_head, coding, length)?;
        Ok(())
    }

    /// RFC 9112 section 6.3, without its leniency: a length beside a coding is refused.
    fn body_framing(
        &mut self,
        minor: u8,
        to_head: bool,
        coding: Option<bool>,
        length: Option<u64>,
    ) -> Result<Framing, HeadError> {
        if coding.is_some() && (length.is_some() || minor == 0) {
            return Err(HeadError::Length);
        }
        if to_head || self.status < 200 || self.status == 204 || self.status == 304 {
            return Ok(Framing::None);
        }
        Ok(match (coding, length) {
            (Some(true), _) => Framing::Chunked,
            (Some(false), _) => return Err(HeadError::TransferCoding),
            (None, Some(0)) => Framing::None,
            (None, Some(length)) => Framing::Length(length),
            (None, None) => {
                self.closes = true;
                Framing::UntilClose
            }
        })
    }
}

/// One length, or several that agree: whether it repeats one.
fn note_length(length: &mut Option<u64>, value: &[u8]) -> Result<bool, HeadError> {
    let new = parse_length(value)?;
    match length.replace(new) {
        Some(old) if old != new => Err(HeadError::Length),
        old => Ok(old.is_some()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, to_head: bool) -> Result<ResponseHead, HeadError> {
        let mut head = ResponseHead::default();
        head.parse(text.as_bytes(), 100, to_head).map(|()| head)
    }

    #[test]
    fn bodies_end_as_rfc_9112_says() {
        for (text, to_head, framing, closes) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", false, Framing::Length(5), false),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true, Framing::None, false),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                false,
                Framing::Chunked,
                false,
            ),
            ("HTTP/1.1 200\r\n\r\n", false, Framing::UntilClose, true),
            ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", false, Framing::Length(5), true),
            (
                "HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n",
                false,
                Framing::None,
                false,
            ),
            ("HTTP/1.1 204 No\r\nConnection: Close\r\n\r\n", false, Framing::None, true),
            ("HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n", false, Framing::None, false),
            ("HTTP/1.1 101 Go\r\nUpgrade: x\r\n\r\n", false, Framing::None, false),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
                false,
                Framing::Length(5),
                false,
            ),
        ] {
            let head = parse(text, to_head).unwrap();
            assert_eq!((head.framing, head.closes), (framing, closes), "{text:?}");
        }
    }

    #[test]
    fn garbage_is_refused() {
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 99 OK\r\n\r\n",
            "HTTP/2 200 OK\r\n\r\n",
            "ICY 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
        ] {
            assert!(parse(text, false).is_err(), "{text:?}");
        }
    }
}
