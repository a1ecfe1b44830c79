//! What the fuzz targets call: each function reads arbitrary bytes as one parser of this crate does and
//! holds the result against another implementation, hyper (in [`peer`]) or a naive one (in [`naive`]).
//!
//! Whatever we accept, hyper must accept and read in the same way: a message that two proxies read
//! differently is how requests are smuggled (RFC 9112 section 11.2). That we refuse more is fine. Built
//! for tests and with the feature `fuzzing` alone. The corpus is replayed by the tests in [`replay`].

mod naive;
mod peer;
#[cfg(test)]
mod replay;

use crate::forward::trace::TraceParent;
use crate::h1::chunked::{ChunkError, Chunked, Step};
use crate::head::scan::Scan;
use crate::head::{Fields, Framing, HeadError, Known, RequestHead, ResponseHead, parse_fields};
use crate::routing::normalize_host;
use naive::Chunks;
use peer::{Length, Message};

pub use crate::routing::fuzz_compare as router;

/// Bytes of one input that are looked at. Below hyper's own bounds on heads, extensions and trailers (16
/// KiB each), so that these need not be told apart from disagreements.
const INPUT_BYTES_MAX: usize = 12 * 1024;
/// Bytes that a head or a trailer section may have here.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Fields that a head may have here; hyper's default.
const HEAD_FIELDS_MAX: usize = 100;
/// Requests of one connection that are compared.
const REQUESTS_MAX: usize = 64;

/// Reads the bytes as a request head, and, if we take it, lets hyper's server read the same head.
///
/// Acceptable differences, besides our being stricter:
/// - hyper refuses `<` and `>` in targets, a backtick in paths and `"` in queries; we pass them on, as other
///   proxies do. They delimit nothing. See [`hyper_takes_target`].
/// - `http://host?query` is `/?query` for us and an empty path for hyper; compared as the former (RFC
///   9110 section 4.2.3 says that they are equivalent).
///
/// # Panics
/// Where the two disagree: that is its purpose. So do the other functions here.
pub fn request_head(data: &[u8]) {
    let data = bounded(data);
    let Ok(Some((head, len))) = take_request(data) else { return };
    if !hyper_takes_target(&head) {
        return;
    }
    let seen = peer::serve(&data[..len]);
    let context = || format!("{} against {seen:#?}", data[..len].escape_ascii());
    let [theirs] = seen.as_slice() else { panic!("hyper refuses: {}", context()) };
    same_request(&head, theirs, &context);
}

/// Reads the bytes as all that a client sends on one connection, bodies between heads, and holds the
/// messages that come out against those that hyper's server sees. Where it stops (what is malformed,
/// incomplete, or asks to close or to upgrade), the comparison ends.
///
/// # Panics
/// Where hyper sees other messages, or the same with other bodies.
pub fn connection(data: &[u8]) {
    let data = bounded(data);
    let ours = take_requests(data);
    if ours.is_empty() || ours.iter().any(|(head, _)| !hyper_takes_target(head)) {
        return;
    }
    let seen = peer::serve(data);
    let context = || format!("{} against {seen:#?}", data.escape_ascii());
    for (index, (head, body)) in ours.iter().enumerate() {
        let Some(theirs) = seen.get(index) else {
            panic!("hyper misses request {index}: {}", context())
        };
        same_request(head, theirs, &context);
        match body {
            Ok(body) => {
                assert!(theirs.complete, "incomplete body {index}: {}", context());
                assert_eq!(theirs.body, body.data, "body {index}: {}", context());
                assert_eq!(theirs.trailers, body.trailers, "trailers {index}: {}", context());
            }
            Err(NoBody::Incomplete) => {
                assert!(!theirs.complete, "hyper knows where body {index} ends: {}", context());
            }
            Err(NoBody::Refused) => {}
        }
    }
}

/// Reads the bytes as a response head, to GET and to HEAD, and, if we take it, lets hyper's client read
/// the same.
///
/// Acceptable differences, besides our being stricter: interim responses, which hyper takes off by
/// itself, and 101, which it takes for the end of HTTP, are not compared. Of lengths that agree we keep
/// one and hyper keeps all: they are compared as the framing, not as fields.
///
/// # Panics
/// Where the two disagree.
pub fn response_head(data: &[u8]) {
    let data = bounded(data);
    let Ok(Some(len)) = Scan::default().find_end(data, HEAD_BYTES_MAX) else { return };
    for to_head in [false, true] {
        let mut head = ResponseHead::default();
        if head.parse(&data[..len], HEAD_FIELDS_MAX, to_head).is_err() || head.status < 200 {
            continue;
        }
        // The body tells coding by chunks apart from reading to the end.
        let mut input = data[..len].to_vec();
        input.extend_from_slice(b"0\r\n\r\n");
        let theirs = peer::ask(to_head, &input);
        let context = || format!("{} against {theirs:#?}", data[..len].escape_ascii());
        let Some(theirs) = &theirs else { panic!("hyper refuses: {}", context()) };
        assert_eq!(theirs.status, head.status, "{}", context());
        head.fields.remove(Known::ContentLength);
        let mut fields = theirs.fields.clone();
        fields.retain(|(name, _)| name != b"content-length");
        same_fields(&head.fields, &fields, &context);
        let framing = match theirs.length {
            Length::Known(0) => Framing::None,
            Length::Known(length) => Framing::Length(length),
            Length::Unknown if theirs.body == b"0\r\n\r\n" => Framing::UntilClose,
            Length::Unknown => Framing::Chunked,
        };
        assert_eq!(head.framing, framing, "{}", context());
    }
}

/// Decodes the bytes as a chunked body: in pieces of several sizes as in one piece; as the naive decoder
/// does; and, where the body is complete, as hyper does, which must then find the next request behind it.
///
/// # Panics
/// Where any of these differ.
pub fn chunked(data: &[u8]) {
    let data = bounded(data);
    let whole = decode(data, data.len().max(1));
    for piece in [1, 2, 3, 7, 64] {
        assert_eq!(decode(data, piece), whole, "pieces of {piece}: {}", data.escape_ascii());
    }
    let ours = match whole {
        Decoded { end: Ok(Some(used)), data, section } => Some(Chunks { data, section, used }),
        _ => None,
    };
    assert_eq!(ours, naive::chunks(data, HEAD_BYTES_MAX), "{}", data.escape_ascii());
    let Some(ours) = ours else { return };
    let Ok(trailers) = parse_fields(&ours.section, HEAD_FIELDS_MAX) else { return };
    let mut input = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    input.extend_from_slice(&data[..ours.used]);
    input.extend_from_slice(b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
    let seen = peer::serve(&input);
    let context = || format!("{} against {seen:#?}", data.escape_ascii());
    let [first, next] = seen.as_slice() else { panic!("hyper sees other messages: {}", context()) };
    assert!(first.complete && next.target == b"/next", "{}", context());
    assert_eq!(first.body, ours.data, "{}", context());
    same_fields(&trailers, &first.trailers, &context);
}

/// Takes the bytes for a client's `traceparent`. What goes on is always valid, and is the client's if
/// that was.
///
/// # Panics
/// Where it is not.
pub fn traceparent(data: &[u8]) {
    let trace = TraceParent::of(Some(data), &mut balance::Rng::new(1));
    let sent = trace.as_bytes();
    assert!(trace.begun || data.starts_with(sent), "changed: {}", data.escape_ascii());
    assert_eq!(trace.begun, !naive::is_traceparent(data), "{}", data.escape_ascii());
    assert!(naive::is_traceparent(sent), "sent: {}", sent.escape_ascii());
    assert_eq!(trace.trace_id().as_bytes(), &sent[3..35]);
}

fn bounded(data: &[u8]) -> &[u8] {
    data.get(..INPUT_BYTES_MAX).unwrap_or(data)
}

/// The head at the beginning, and its length with the empty lines before it. As a connection takes it:
/// its host must be one, too.
fn take_request(data: &[u8]) -> Result<Option<(RequestHead, usize)>, HeadError> {
    let mut rest = data;
    for _ in 0..2 {
        rest = rest.strip_prefix(b"\r\n").unwrap_or(rest);
    }
    let Some(len) = Scan::default().find_end(rest, HEAD_BYTES_MAX)? else { return Ok(None) };
    let mut head = RequestHead::default();
    head.parse(&rest[..len], HEAD_FIELDS_MAX)?;
    normalize_host(head.authority()).map_err(|_| HeadError::Host)?;
    Ok(Some((head, data.len() - rest.len() + len)))
}

/// A body that has arrived whole.
struct Body {
    data: Vec<u8>,
    trailers: Vec<(Vec<u8>, Vec<u8>)>,
    used: usize,
}

/// Why there is no body.
#[derive(Clone, Copy)]
enum NoBody {
    Refused,
    Incomplete,
}

/// The requests of a connection, up to the first one without a body.
fn take_requests(mut data: &[u8]) -> Vec<(RequestHead, Result<Body, NoBody>)> {
    let mut requests = Vec::new();
    while requests.len() < REQUESTS_MAX {
        let Ok(Some((head, len))) = take_request(data) else { break };
        data = &data[len..];
        let body = take_body(head.framing, data);
        let used = body.as_ref().map(|body| body.used).map_err(|why| *why);
        let last = head.closes || head.upgrade().is_some() || head.method() == b"CONNECT";
        requests.push((head, body));
        let (Ok(used), false) = (used, last) else { break };
        data = &data[used..];
    }
    requests
}

fn take_body(framing: Framing, data: &[u8]) -> Result<Body, NoBody> {
    let none = Body { data: Vec::new(), trailers: Vec::new(), used: 0 };
    match framing {
        Framing::None => Ok(none),
        Framing::Length(length) => {
            let length = usize::try_from(length).map_err(|_| NoBody::Incomplete)?;
            let body = data.get(..length).ok_or(NoBody::Incomplete)?;
            Ok(Body { data: body.to_vec(), used: length, ..none })
        }
        Framing::Chunked => {
            let decoded = decode(data, data.len().max(1));
            let used = decoded.end.map_err(|_| NoBody::Refused)?.ok_or(NoBody::Incomplete)?;
            let trailers =
                parse_fields(&decoded.section, HEAD_FIELDS_MAX).map_err(|_| NoBody::Refused)?;
            Ok(Body { data: decoded.data, trailers: sorted(&trailers), used })
        }
        Framing::UntilClose => unreachable!("no request's body ends so"),
    }
}

/// What the decoder made of an input.
#[derive(Debug, PartialEq, Eq)]
struct Decoded {
    data: Vec<u8>,
    section: Vec<u8>,
    /// The bytes of the coding, where it is complete.
    end: Result<Option<usize>, ChunkError>,
}

/// Decodes an input that arrives in pieces of that size.
fn decode(input: &[u8], piece: usize) -> Decoded {
    let mut decoder = Chunked::new(HEAD_BYTES_MAX);
    let (mut data, mut section) = (Vec::new(), Vec::new());
    let (mut at, mut arrived) = (0, 0);
    let end = loop {
        match decoder.step(&input[at..arrived]) {
            Ok(Step::Data { skip, len }) => {
                assert!(len > 0, "an empty piece says nothing");
                data.extend_from_slice(&input[at + skip..at + skip + len]);
                at += skip + len;
            }
            Ok(Step::More { skip }) => {
                at += skip;
                if arrived == input.len() {
                    break Ok(None);
                }
                arrived = (arrived + piece).min(input.len());
            }
            Ok(Step::End { skip, len }) => {
                section.extend_from_slice(&input[at + skip..at + skip + len]);
                break Ok(Some(at + skip + len));
            }
            Err(error) => break Err(error),
        }
    };
    Decoded { data, section, end }
}

/// Whether hyper's parser of targets takes these characters (the crate `http`, `uri/path.rs`).
fn hyper_takes_target(head: &RequestHead) -> bool {
    let (path, query) = head.target().split_at(head.path().len());
    let in_path = |b: &u8| matches!(b, 0x21..=0x3b | b'=' | 0x40..=0x5f | 0x61..=0x7e);
    let in_query = |b: &u8| matches!(b, 0x21 | 0x24..=0x3b | b'=' | 0x3f..=0x7e);
    path.iter().all(in_path) && query.iter().all(in_query)
}

fn same_request(ours: &RequestHead, theirs: &Message, context: &dyn Fn() -> String) {
    assert_eq!(theirs.method, ours.method(), "method: {}", context());
    assert_eq!(theirs.target, ours.target(), "target: {}", context());
    assert_eq!(theirs.authority, ours.authority(), "authority: {}", context());
    let length = match ours.framing {
        Framing::None => Length::Known(0),
        Framing::Length(length) => Length::Known(length),
        Framing::Chunked => Length::Unknown,
        Framing::UntilClose => panic!("no request ends so: {}", context()),
    };
    assert_eq!(theirs.length, length, "framing: {}", context());
    same_fields(&ours.fields, &theirs.fields, context);
}

fn same_fields(ours: &Fields, theirs: &[(Vec<u8>, Vec<u8>)], context: &dyn Fn() -> String) {
    assert_eq!(sorted(ours), theirs, "fields: {}", context());
}

/// Names in lower case and values, in an order that does not depend on how they are kept.
fn sorted(fields: &Fields) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut all: Vec<_> =
        fields.iter().map(|f| (f.name.to_ascii_lowercase(), f.value.to_vec())).collect();
    all.sort();
    all
}
