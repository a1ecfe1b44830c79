//! Request heads: parsed, checked, and their meaning for the connection worked out.
//!
//! Whatever could be read in two ways is an error here. Must not know rules, upstreams or sockets.

use super::fields::tokens;
use super::lines::{FIELDS_MAX, assert_clean, refused, span_in, table};
use super::{Fields, Framing, HeadError, Known, Span};

/// The version that a message came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    #[default]
    Http11,
    /// HTTP/2
    Http2,
}

impl Version {
    /// As in the start line and the access log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2.0",
        }
    }
}

/// A request's head, checked.
#[derive(Debug, Clone, Default)]
pub struct RequestHead {
    /// The header fields as they came. `Host` stands among them only where the client sent it as a field.
    pub fields: Fields,
    method: Span,
    target: Span,
    authority: Span,
    /// The version that the client spoke.
    pub version: Version,
    /// How its body ends.
    pub framing: Framing,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// The client will not send another request on this connection (RFC 9112 section 9.3).
    pub closes: bool,
    /// The protocol that the client wants to change to; never `h2c`, which is not passed on.
    upgrade: Span,
    /// HTTP/2 extended CONNECT (RFC 8441): the upgrade came as a pseudo-header.
    pub extended_connect: bool,
}

impl RequestHead {
    /// The method, a token.
    #[must_use]
    pub fn method(&self) -> &[u8] {
        self.fields.text(self.method)
    }

    /// Path and query as the client sent them, beginning with `/`; or `*` for `OPTIONS *`, or empty for CONNECT.
    #[must_use]
    pub fn target(&self) -> &[u8] {
        self.fields.text(self.target)
    }

    /// The path alone.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        let target = self.target();
        memchr::memchr(b'?', target).and_then(|at| target.get(..at)).unwrap_or(target)
    }

    /// Host and perhaps port, as sent: of an absolute target, else of `Host` or `:authority`. Empty where an
    /// HTTP/1.0 client sent none.
    #[must_use]
    pub fn authority(&self) -> &[u8] {
        self.fields.text(self.authority)
    }

    /// The protocol to upgrade to, if the client asks for one.
    #[must_use]
    pub fn upgrade(&self) -> Option<&[u8]> {
        (!self.upgrade.is_empty()).then(|| self.fields.text(self.upgrade))
    }

    /// Whether the answer has no body whatever its head says.
    #[must_use]
    pub fn is_head(&self) -> bool {
        self.method() == b"HEAD"
    }

    /// Whether sending it twice does no more than sending it once (RFC 9110 section 9.2.2), so that it may be
    /// retried when it is not known whether an upstream acted on it.
    #[must_use]
    pub fn is_idempotent(&self) -> bool {
        matches!(self.method(), b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"PUT" | b"DELETE")
            && self.upgrade.is_empty()
    }

    /// Keeps the memory for another head, unless this one was unusually large.
    pub(crate) fn recycle(&mut self) {
        *self = Self { fields: std::mem::take(&mut self.fields).recycled(), ..Self::default() };
    }

    /// Parses a complete head, empty line included, in place of what stood here before.
    ///
    /// # Errors
    /// [`HeadError`]: what is wrong with it; then nothing may be made of the contents.
    pub fn parse(&mut self, text: &[u8], fields_max: usize) -> Result<(), HeadError> {
        *self = Self { fields: std::mem::take(&mut self.fields), ..Self::default() };
        let mut table = table();
        let limit = fields_max.min(FIELDS_MAX);
        let mut parsed = httparse::Request::new(&mut []);
        let table = table.get_mut(..limit).unwrap_or_default();
        match parsed.parse_with_uninit_headers(text, table) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => return Err(HeadError::StartLine),
            Err(error) => return Err(refused(error)),
        }
        let (Some(method), Some(target), Some(minor)) =
            (parsed.method, parsed.path, parsed.version)
        else {
            return Err(HeadError::StartLine);
        };
        self.version = if minor == 0 { Version::Http10 } else { Version::Http11 };
        self.closes = minor == 0;
        self.fields.reset(text);
        self.method = span_in(text, method.as_bytes());
        let mut seen = Seen::default();
        for header in parsed.headers.iter() {
            assert_clean(header.value);
            let value = span_in(text, header.value);
            let known = self.fields.index(span_in(text, header.name.as_bytes()), value);
            if known != Known::Other {
                self.note(known, value, header.value, &mut seen)?;
            }
        }
        self.conclude(&seen)?;
        self.set_target(text, target.as_bytes())
    }

    /// What one field means for the message or the connection.
    fn note(
        &mut self,
        known: Known,
        span: Span,
        value: &[u8],
        seen: &mut Seen,
    ) -> Result<(), HeadError> {
        match known {
            Known::Host => {
                seen.hosts += 1;
                self.authority = span;
                check_authority(value)
            }
            Known::ContentLength => {
                if seen.length.replace(parse_length(value)?).is_some() {
                    return Err(HeadError::Length);
                }
                Ok(())
            }
            Known::TransferEncoding => {
                if std::mem::replace(&mut seen.coded, true) {
                    return Err(HeadError::Length);
                }
                let chunked = value.eq_ignore_ascii_case(b"chunked");
                if chunked { Ok(()) } else { Err(HeadError::TransferCoding) }
            }
            Known::Connection => {
                for token in tokens(value) {
                    self.closes |= token.eq_ignore_ascii_case(b"close");
                    seen.keeps |= token.eq_ignore_ascii_case(b"keep-alive");
                    seen.upgrades |= token.eq_ignore_ascii_case(b"upgrade");
                    seen.close |= token.eq_ignore_ascii_case(b"close");
                }
                Ok(())
            }
            Known::Upgrade => {
                // Several protocols on offer, or h2c, are not worth the ambiguity: the request goes on without.
                let single = !value.contains(&b',') && !value.eq_ignore_ascii_case(b"h2c");
                self.upgrade = if single { span } else { Span::default() };
                Ok(())
            }
            Known::Expect => {
                self.expects_continue = value.eq_ignore_ascii_case(b"100-continue");
                if self.expects_continue { Ok(()) } else { Err(HeadError::Expectation) }
            }
            _ => Ok(()),
        }
    }

    /// What all fields together mean.
    fn conclude(&mut self, seen: &Seen) -> Result<(), HeadError> {
        self.framing = match (seen.coded, seen.length) {
            (true, Some(_)) => return Err(HeadError::Length),
            // RFC 9112 section 6.1: HTTP/1.0 has no transfer codings; what claims so has been tampered with.
            (true, None) if self.version == Version::Http10 => return Err(HeadError::Length),
            (true, None) => Framing::Chunked,
            (false, None | Some(0)) => Framing::None,
            (false, Some(length)) => Framing::Length(length),
        };
        if self.version == Version::Http10 {
            self.closes = !seen.keeps || seen.close;
            self.expects_continue = false;
        }
        // With a body it is an ordinary request: what follows it could be taken for the body or for the protocol.
        if !seen.upgrades || self.version == Version::Http10 || self.framing != Framing::None {
            self.upgrade = Span::default();
        }
        match (self.version, seen.hosts) {
            (_, 1) | (Version::Http10, 0) => Ok(()),
            _ => Err(HeadError::Host),
        }
    }

    /// Works out target and authority (RFC 9112 section 3.2). An absolute target's authority wins over `Host`.
    fn set_target(&mut self, text: &[u8], target: &[u8]) -> Result<(), HeadError> {
        if !is_target_text(target) {
            return Err(HeadError::Target);
        }
        if self.method() == b"CONNECT" {
            check_authority(target).map_err(|_| HeadError::Target)?;
            self.authority = span_in(text, target);
            return Ok(());
        }
        if target.first() == Some(&b'/') {
            self.target = span_in(text, target);
            return Ok(());
        }
        if target == b"*" && self.method() == b"OPTIONS" {
            self.target = span_in(text, target);
            return Ok(());
        }
        let rest = strip_scheme(target).ok_or(HeadError::Target)?;
        let end = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        check_authority(authority).map_err(|_| HeadError::Target)?;
        if authority.is_empty() {
            return Err(HeadError::Target);
        }
        self.authority = span_in(text, authority);
        self.target = match path.first() {
            Some(b'/') => span_in(text, path),
            Some(_) => {
                let with_slash = [b"/", path].concat();
                self.fields.keep(&with_slash)
            }
            None => self.fields.keep(b"/"),
        };
        Ok(())
    }

    /// Builds a head from parts that another codec has parsed and checked (HTTP/2). The fields are added by the
    /// caller.
    pub(crate) fn from_parts(
        method: &[u8],
        target: &[u8],
        authority: &[u8],
    ) -> Result<Self, HeadError> {
        let mut head = Self { version: Version::Http2, ..Self::default() };
        head.method = head.fields.keep(method);
        head.target = head.fields.keep(target);
        head.authority = head.fields.keep(authority);
        check_authority(authority)?;
        if !is_target_text(target) {
            return Err(HeadError::Target);
        }
        Ok(head)
    }

    /// Says that the request wants another protocol (extended CONNECT). The name comes as the client sent it: the
    /// HTTP/2 library checks only that it is text, and on HTTP/1 it becomes a field.
    pub(crate) fn set_extended_connect(&mut self, protocol: &[u8]) -> Result<(), HeadError> {
        const PROTOCOL_BYTES_MAX: usize = 64;
        let token = |b: &u8| {
            b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b'+' | b'!' | b'/')
        };
        let fine = (1..=PROTOCOL_BYTES_MAX).contains(&protocol.len())
            && protocol.iter().all(token)
            && !protocol.eq_ignore_ascii_case(b"h2c");
        if !fine {
            return Err(HeadError::Field);
        }
        self.upgrade = self.fields.keep(protocol);
        self.extended_connect = true;
        Ok(())
    }
}

/// What has been seen of the fields that may stand once.
#[derive(Debug, Default)]
struct Seen {
    hosts: u32,
    length: Option<u64>,
    coded: bool,
    keeps: bool,
    close: bool,
    upgrades: bool,
}

/// Digits alone, in range (RFC 9110 section 8.6). `5, 5` and `+5` are not.
pub(super) fn parse_length(value: &[u8]) -> Result<u64, HeadError> {
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return Err(HeadError::Length);
    }
    Ok(value.iter().fold(0_u64, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

/// Host and port as RFC 3986 section 3.2 has them, without user information. Empty is fine (RFC 9112 section 3.2).
fn check_authority(authority: &[u8]) -> Result<(), HeadError> {
    const AUTHORITY_BYTES_MAX: usize = 300;
    let fine = |b: &u8| {
        b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b':' | b'[' | b']')
    };
    if authority.len() <= AUTHORITY_BYTES_MAX && authority.iter().all(fine) {
        Ok(())
    } else {
        Err(HeadError::Host)
    }
}

/// Visible ASCII without `#`. Looks at all of it, so that it is done many bytes at a time.
fn is_target_text(target: &[u8]) -> bool {
    target.iter().fold(true, |fine, b| fine & matches!(b, 0x21..=0x7e) & (*b != b'#'))
}

fn strip_scheme(target: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = target.split_at_checked(target.iter().position(|b| *b == b':')?)?;
    let known = scheme.eq_ignore_ascii_case(b"http") || scheme.eq_ignore_ascii_case(b"https");
    if known { rest.strip_prefix(b"://") } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<RequestHead, HeadError> {
        let mut head = RequestHead::default();
        head.parse(text.as_bytes(), 100).map(|()| head)
    }

    #[test]
    fn ordinary_heads() {
        let head =
            parse("GET /a%20b?c=d HTTP/1.1\r\nHost: x.test:8080\r\nConnection: close\r\n\r\n")
                .unwrap();
        assert_eq!(head.method(), b"GET");
        assert_eq!(head.target(), b"/a%20b?c=d");
        assert_eq!(head.path(), b"/a%20b");
        assert_eq!(head.authority(), b"x.test:8080");
        assert!(head.closes && head.framing == Framing::None && head.is_idempotent());

        let head =
            parse("POST / HTTP/1.1\r\nhost: x\r\nTransfer-Encoding: Chunked\r\n\r\n").unwrap();
        assert_eq!(head.framing, Framing::Chunked);
        let head = parse("POST / HTTP/1.0\r\nContent-Length: 12\r\n\r\n").unwrap();
        assert_eq!(
            (head.framing, head.closes, head.authority()),
            (Framing::Length(12), true, &b""[..])
        );
        let head = parse("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").unwrap();
        assert!(!head.closes);
        let head =
            parse("GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n")
                .unwrap();
        assert_eq!(head.upgrade(), Some(&b"websocket"[..]));
        for without in ["Upgrade: websocket\r\n", "Upgrade: h2c\r\nConnection: Upgrade\r\n"] {
            let head = parse(&format!("GET / HTTP/1.1\r\nHost: x\r\n{without}\r\n")).unwrap();
            assert_eq!(head.upgrade(), None, "{without}");
        }
    }

    #[test]
    fn absolute_targets_win_over_host() {
        for (target, path) in
            [("http://a.test/x?y", "/x?y"), ("HTTPS://a.test", "/"), ("http://a.test?q", "/?q")]
        {
            let head = parse(&format!("GET {target} HTTP/1.1\r\nHost: b.test\r\n\r\n")).unwrap();
            assert_eq!(head.authority(), b"a.test");
            assert_eq!(head.target(), path.as_bytes());
        }
        let head = parse("OPTIONS * HTTP/1.1\r\nHost: b\r\n\r\n").unwrap();
        assert_eq!(head.target(), b"*");
        let head = parse("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n").unwrap();
        assert_eq!((head.authority(), head.target()), (&b"a.test:443"[..], &b""[..]));
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        use HeadError as E;
        let with = |fields: &str| format!("POST / HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
        for (text, error) in [
            (with("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"), E::Length),
            (with("Content-Length: 3\r\nContent-Length: 3\r\n"), E::Length),
            (with("Content-Length: 3, 3\r\n"), E::Length),
            (with("Content-Length: +3\r\n"), E::Length),
            (with("Content-Length: 0x3\r\n"), E::Length),
            (with("Content-Length: 99999999999999999999\r\n"), E::Length),
            (with("Content-Length:\r\n"), E::Length),
            (with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), E::Length),
            (with("Transfer-Encoding: gzip, chunked\r\n"), E::TransferCoding),
            (with("Transfer-Encoding: chunked, identity\r\n"), E::TransferCoding),
            (with("Transfer-Encoding: xchunked\r\n"), E::TransferCoding),
            (with("Transfer-Encoding : chunked\r\n"), E::Field),
            (with("X: a\r\n folded\r\n"), E::Field),
            (with(" X: a\r\n"), E::Field),
            (with("X: a\u{0}b\r\n"), E::Field),
            (with("X: a\u{7f}b\r\n"), E::Field),
            (with("X: a\rb\r\n"), E::Field),
            (with("X\u{b}: a\r\n"), E::Field),
            (with(": a\r\n"), E::Field),
            (with("Host: y\r\n"), E::Host),
            (with("Expect: 200-ok\r\n"), E::Expectation),
            ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".into(), E::Length),
            ("GET / HTTP/1.1\r\n\r\n".into(), E::Host),
            ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n".into(), E::Host),
            ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n".into(), E::Host),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n".into(), E::Version),
            ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n".into(), E::StartLine),
            ("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n".into(), E::Target),
            ("GET a/b HTTP/1.1\r\nHost: a\r\n\r\n".into(), E::Target),
            ("GET * HTTP/1.1\r\nHost: a\r\n\r\n".into(), E::Target),
            ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n".into(), E::Target),
            ("GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n".into(), E::Target),
            ("GET http://u@a/x HTTP/1.1\r\nHost: a\r\n\r\n".into(), E::Target),
            ("CONNECT /x HTTP/1.1\r\nHost: a\r\n\r\n".into(), E::Target),
        ] {
            assert_eq!(parse(&text).map(|h| h.framing), Err(error), "{text:?}");
        }
    }
}
