//! A raw HTTP/1 client: sends the bytes it is given and reads answers strictly.
//!
//! It corrects nothing and forgives nothing: bare LF, folded lines, bad lengths, a body cut short are
//! errors, so that a test sees what a strict peer would. Every wait is bounded by [`Client::timeout`].

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::certs::Issued;
use crate::wire::{self, Wire};

/// Unless a test says otherwise.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// Of one answer, head and body: a test that gets more has gone wrong.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Of one head or chunk line.
const HEAD_BYTES_MAX: usize = 1024 * 1024;

/// Why no answer could be read.
#[derive(Debug)]
pub enum Failure {
    /// The connection was closed in an orderly way before the first byte of an answer.
    Closed,
    /// Nothing more came within the time; what had come of this answer.
    TimedOut(String),
    /// The connection ended within an answer, or (TLS) without `close_notify`; what was missing.
    Cut(String),
    /// The connection was reset.
    Reset,
    /// The answer breaks HTTP/1; how.
    Malformed(String),
    /// Another error of the connection.
    Io(io::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for Failure {}

/// How the end of a body was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none, by status or method.
    None,
    /// `Content-Length`.
    Length,
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// Until the connection closed.
    Close,
}

/// Header or trailer fields in their order, names as they came.
pub type Fields = Vec<(String, String)>;

/// An interim answer (1xx).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interim {
    /// As 100 or 103.
    pub status: u16,
    /// Its fields.
    pub headers: Fields,
}

/// An answer, complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// `HTTP/1.1` or `HTTP/1.0`.
    pub version: String,
    /// The status code.
    pub status: u16,
    /// The words behind it.
    pub reason: String,
    /// Its fields.
    pub headers: Fields,
    /// Its body, without chunk framing.
    pub body: Vec<u8>,
    /// The sizes of its chunks, in order, without the last.
    pub chunks: Vec<usize>,
    /// Fields behind a chunked body.
    pub trailers: Fields,
    /// What came before it.
    pub interim: Vec<Interim>,
    /// How the end was found.
    pub framing: Framing,
}

impl Response {
    /// The value of a header, if there is exactly one.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut named = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        match (named.next(), named.next()) {
            (Some((_, value)), None) => Some(value),
            _ => None,
        }
    }

    /// All values of a header.
    pub fn headers_named(&self, name: &str) -> impl Iterator<Item = &str> {
        self.headers.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| &**v)
    }

    /// The body as text, whatever it is.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// TLS for a client.
#[derive(Debug, Clone, Copy)]
pub struct Tls<'a> {
    /// Sent as SNI (unless it is an address) and verified.
    pub name: &'a str,
    /// The authority trusted, PEM; `None` trusts anybody.
    pub authority_pem: Option<&'a str>,
    /// ALPN names offered, preferred first.
    pub alpn: &'a [&'a str],
    /// TLS 1.2 alone.
    pub only_1_2: bool,
    /// The certificate shown where the server asks for one.
    pub identity: Option<&'a Issued>,
}

impl<'a> Tls<'a> {
    /// Trusts one authority and offers `http/1.1`.
    #[must_use]
    pub fn trusting(authority_pem: &'a str, name: &'a str) -> Self {
        let authority_pem = Some(authority_pem);
        Self { name, authority_pem, alpn: &["http/1.1"], only_1_2: false, identity: None }
    }
}

/// A connection that sends bytes and reads answers.
pub struct Client {
    wire: Wire,
    /// Read and not used yet.
    ahead: Vec<u8>,
    timeout: Duration,
}

impl Client {
    /// Connects.
    ///
    /// # Panics
    /// If nobody listens; [`Self::try_connect`] does not.
    #[must_use]
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap_or_else(|e| panic!("cannot connect to {address}: {e}"))
    }

    /// Connects, or says why not.
    ///
    /// # Errors
    /// As [`TcpStream::connect_timeout`].
    pub fn try_connect(address: SocketAddr) -> io::Result<Self> {
        Ok(Self::over(Wire::Plain(Self::socket(address)?)))
    }

    /// Connects and handshakes, or says why not. The error is an [`io::Error`] with the TLS error's words.
    ///
    /// # Errors
    /// Of the connection or of the handshake.
    pub fn try_connect_tls(address: SocketAddr, tls: Tls<'_>) -> io::Result<Self> {
        let versions: &[_] = if tls.only_1_2 {
            &[&rustls::version::TLS12]
        } else {
            &[&rustls::version::TLS13, &rustls::version::TLS12]
        };
        let config = wire::client_config(tls.authority_pem, tls.identity, tls.alpn, versions);
        Ok(Self::over(wire::connect(config, tls.name, Self::socket(address)?)?))
    }

    /// Connects and handshakes.
    ///
    /// # Panics
    /// If that fails.
    #[must_use]
    pub fn connect_tls(address: SocketAddr, tls: Tls<'_>) -> Self {
        Self::try_connect_tls(address, tls)
            .unwrap_or_else(|e| panic!("cannot connect to {address} with TLS: {e}"))
    }

    fn socket(address: SocketAddr) -> io::Result<TcpStream> {
        let socket = TcpStream::connect_timeout(&address, TIMEOUT_DEFAULT)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(TIMEOUT_DEFAULT))?;
        socket.set_write_timeout(Some(TIMEOUT_DEFAULT))?;
        Ok(socket)
    }

    fn over(wire: Wire) -> Self {
        Self { wire, ahead: Vec::new(), timeout: TIMEOUT_DEFAULT }
    }

    /// How long each answer or read may take, in place of ten seconds.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Our side's address.
    ///
    /// # Panics
    /// If the socket has none.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.wire.socket().local_addr().expect("a connected socket")
    }

    /// The ALPN name that was agreed on.
    #[must_use]
    pub fn alpn(&self) -> Option<String> {
        match &self.wire {
            Wire::TlsClient(stream) => {
                stream.conn.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned())
            }
            _ => None,
        }
    }

    /// The DER of the server's leaf certificate.
    #[must_use]
    pub fn peer_certificate(&self) -> Option<Vec<u8>> {
        match &self.wire {
            Wire::TlsClient(stream) => Some(stream.conn.peer_certificates()?.first()?.to_vec()),
            _ => None,
        }
    }

    /// Sends bytes.
    ///
    /// # Panics
    /// If the connection does not take them; [`Self::try_send`] does not.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("the connection to take what is sent");
    }

    /// Sends bytes, or says why not.
    ///
    /// # Errors
    /// Of the connection, also when it takes nothing for ten seconds.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.wire.write_all(bytes.as_ref())?;
        self.wire.flush()
    }

    /// Sends no more: `close_notify` with TLS, then FIN. Answers can still be read.
    pub fn finish(&mut self) {
        let _ = self.wire.finish();
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        let _ = self.wire.reset_on_close();
    }

    /// Sends a request and reads its answer.
    ///
    /// # Errors
    /// As [`Self::read_response`].
    pub fn request(&mut self, bytes: impl AsRef<[u8]>) -> Result<Response, Failure> {
        let bytes = bytes.as_ref();
        self.try_send(bytes).map_err(Failure::Io)?;
        let method = bytes.split(|b| *b == b' ').next().unwrap_or_default();
        self.read_response_to(&String::from_utf8_lossy(method))
    }

    /// Reads one answer to a request that was not HEAD or CONNECT, with all interim ones before it.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn read_response(&mut self) -> Result<Response, Failure> {
        self.read_response_to("GET")
    }

    /// Reads one answer to a request of this method.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn read_response_to(&mut self, method: &str) -> Result<Response, Failure> {
        let deadline = Instant::now() + self.timeout;
        let mut interim = Vec::new();
        loop {
            let mut response = self.read_head(deadline, interim.is_empty())?;
            if (100..200).contains(&response.status) && response.status != 101 {
                interim.push(Interim { status: response.status, headers: response.headers });
                continue;
            }
            response.interim = std::mem::take(&mut interim);
            self.read_body(&mut response, method, deadline)?;
            return Ok(response);
        }
    }

    /// Reads at least one byte: whatever is there. Empty at the orderly end.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn read_some(&mut self) -> Result<Vec<u8>, Failure> {
        if self.ahead.is_empty() {
            let deadline = Instant::now() + self.timeout;
            self.read_more(deadline)?;
        }
        Ok(std::mem::take(&mut self.ahead))
    }

    /// Reads exactly so many bytes.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn read_exactly(&mut self, count: usize) -> Result<Vec<u8>, Failure> {
        let deadline = Instant::now() + self.timeout;
        self.take(count, deadline, "bytes")
    }

    /// Reads until the peer closes in an orderly way.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn read_to_close(&mut self) -> Result<Vec<u8>, Failure> {
        let deadline = Instant::now() + self.timeout;
        while self.read_more(deadline)? > 0 {}
        Ok(std::mem::take(&mut self.ahead))
    }

    /// Whether the peer closes or resets the connection within the time, without another byte.
    pub fn closes_within(&mut self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        self.ahead.is_empty()
            && matches!(
                self.read_more(deadline),
                Ok(0) | Err(Failure::Reset | Failure::Cut(_) | Failure::Io(_))
            )
    }

    /// Whether the connection stays open for the time and nothing comes.
    pub fn stays_silent_for(&mut self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        self.ahead.is_empty() && matches!(self.read_more(deadline), Err(Failure::TimedOut(_)))
    }

    /// Takes in more bytes; 0 at the orderly end.
    fn read_more(&mut self, deadline: Instant) -> Result<usize, Failure> {
        let so_far = |ahead: &[u8]| String::from_utf8_lossy(ahead).chars().take(500).collect();
        if self.ahead.len() > ANSWER_BYTES_MAX {
            return Err(Failure::Malformed("more bytes than any test wants".to_owned()));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Failure::TimedOut(so_far(&self.ahead)));
        }
        self.wire.socket().set_read_timeout(Some(left)).map_err(Failure::Io)?;
        let mut buf = [0; 64 * 1024];
        match self.wire.read(&mut buf) {
            Ok(count) => {
                self.ahead.extend_from_slice(&buf[..count]);
                Ok(count)
            }
            Err(error) => Err(match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                    Failure::TimedOut(so_far(&self.ahead))
                }
                io::ErrorKind::Interrupted => return self.read_more(deadline),
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Failure::Reset,
                io::ErrorKind::UnexpectedEof => Failure::Cut("close_notify".to_owned()),
                _ => Failure::Io(error),
            }),
        }
    }

    fn take(&mut self, count: usize, deadline: Instant, what: &str) -> Result<Vec<u8>, Failure> {
        while self.ahead.len() < count {
            if self.read_more(deadline)? == 0 {
                let missing = format!("{} of {count} {what}", count - self.ahead.len());
                return Err(Failure::Cut(missing));
            }
        }
        let rest = self.ahead.split_off(count);
        Ok(std::mem::replace(&mut self.ahead, rest))
    }

    /// A line that ends with CRLF, without it.
    fn line(&mut self, deadline: Instant) -> Result<String, Failure> {
        let end = loop {
            if let Some(end) = self.ahead.iter().position(|b| *b == b'\n') {
                break end;
            }
            if self.ahead.len() > HEAD_BYTES_MAX {
                return Err(Failure::Malformed("a line without end".to_owned()));
            }
            if self.read_more(deadline)? == 0 {
                return Err(Failure::Cut("the end of a line".to_owned()));
            }
        };
        let line = self.take(end + 1, deadline, "bytes")?;
        let text = line.strip_suffix(b"\r\n").and_then(|l| std::str::from_utf8(l).ok());
        match text {
            Some(text) if !text.contains('\r') => Ok(text.to_owned()),
            _ => Err(Failure::Malformed(format!("line {:?}", String::from_utf8_lossy(&line)))),
        }
    }

    fn read_head(&mut self, deadline: Instant, first: bool) -> Result<Response, Failure> {
        if first && self.ahead.is_empty() && self.read_more(deadline)? == 0 {
            return Err(Failure::Closed);
        }
        let line = self.line(deadline)?;
        let (version, status, reason) =
            status_line(&line).ok_or_else(|| Failure::Malformed(format!("line {line:?}")))?;
        Ok(Response {
            version,
            status,
            reason,
            headers: self.fields(deadline)?,
            body: Vec::new(),
            chunks: Vec::new(),
            trailers: Vec::new(),
            interim: Vec::new(),
            framing: Framing::None,
        })
    }

    fn fields(&mut self, deadline: Instant) -> Result<Fields, Failure> {
        let mut fields = Vec::new();
        loop {
            let line = self.line(deadline)?;
            if line.is_empty() {
                return Ok(fields);
            }
            let field =
                field(&line).ok_or_else(|| Failure::Malformed(format!("field {line:?}")))?;
            fields.push(field);
        }
    }

    fn read_body(
        &mut self,
        response: &mut Response,
        method: &str,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let status = response.status;
        let tunnel = method == "CONNECT" && (200..300).contains(&status);
        if method == "HEAD" || matches!(status, 101 | 204 | 304) || tunnel {
            return Ok(());
        }
        let codings: Vec<_> = response.headers_named("transfer-encoding").collect();
        let lengths: Vec<_> = response.headers_named("content-length").collect();
        match (codings.as_slice(), lengths.as_slice()) {
            ([], []) => {
                response.framing = Framing::Close;
                response.body = self.read_to_close()?;
            }
            ([], [length]) => {
                let digits = length.bytes().all(|b| b.is_ascii_digit());
                let length = length.parse().ok().filter(|_| digits);
                let length = length
                    .ok_or_else(|| Failure::Malformed(format!("content-length {lengths:?}")))?;
                response.framing = Framing::Length;
                response.body = self.take(length, deadline, "bytes of the body")?;
            }
            ([coding], []) if coding.eq_ignore_ascii_case("chunked") => {
                response.framing = Framing::Chunked;
                self.read_chunks(response, deadline)?;
            }
            _ => {
                let words = format!("transfer-encoding {codings:?}, content-length {lengths:?}");
                return Err(Failure::Malformed(words));
            }
        }
        Ok(())
    }

    fn read_chunks(&mut self, response: &mut Response, deadline: Instant) -> Result<(), Failure> {
        loop {
            let line = self.line(deadline)?;
            let size = line.split(';').next().unwrap_or_default();
            let hex = !size.is_empty() && size.bytes().all(|b| b.is_ascii_hexdigit());
            let size = usize::from_str_radix(size, 16).ok().filter(|_| hex);
            let size = size.ok_or_else(|| Failure::Malformed(format!("chunk size {line:?}")))?;
            if size == 0 {
                response.trailers = self.fields(deadline)?;
                return Ok(());
            }
            response.chunks.push(size);
            let chunk = self.take(size, deadline, "bytes of a chunk")?;
            response.body.extend_from_slice(&chunk);
            if self.take(2, deadline, "bytes behind a chunk")? != b"\r\n" {
                return Err(Failure::Malformed("no CRLF behind a chunk".to_owned()));
            }
        }
    }
}

/// `HTTP/1.1 200 OK`; the reason may be empty, its space not missing (RFC 9112 section 4).
fn status_line(line: &str) -> Option<(String, u16, String)> {
    let (version, rest) = line.split_once(' ')?;
    let (status, reason) = rest.split_once(' ')?;
    let fine = matches!(version, "HTTP/1.1" | "HTTP/1.0")
        && status.len() == 3
        && status.bytes().all(|b| b.is_ascii_digit());
    let status = status.parse().ok().filter(|s| fine && *s >= 100)?;
    Some((version.to_owned(), status, reason.to_owned()))
}

/// `name: value`, the name a token (RFC 9110 section 5.6.2), no folding.
fn field(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(':')?;
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(token) {
        return None;
    }
    Some((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()))
}

/// One request on a connection of its own.
///
/// # Panics
/// If there is no good answer.
#[must_use]
pub fn fetch(address: SocketAddr, request: impl AsRef<[u8]>) -> Response {
    let request = request.as_ref();
    Client::connect(address).request(request).unwrap_or_else(|failure| {
        panic!("no answer to {:?}: {failure}", String::from_utf8_lossy(request))
    })
}

/// `GET` of a path for a host, on a connection of its own that is closed after the answer.
///
/// # Panics
/// If there is no good answer.
#[must_use]
pub fn get(address: SocketAddr, host: &str, path: &str) -> Response {
    fetch(address, format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))
}
