//! Ambiguous and malformed requests: refused and the connection closed, or forwarded in one unambiguous form.
//!
//! Every case is followed by a request for `/smuggled` that a receiver with another idea of where the first
//! ends would see. What reaches the upstream is read by the strictest parser there is
//! ([`super::support::message`]).

use testkit::client::Failure;
use testkit::{Client, Cloverleaf, Upstream};

use super::support::frames::{self, Outcome, Raw};
use super::support::message::{self, Message};
use super::support::{SOON, Tap, in_front_of, ok, with};

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";

/// What has to become of a case.
#[derive(Debug, Clone, Copy)]
enum Want {
    /// This status, the connection closed, not a byte at the upstream.
    Refused(u16),
    /// This status, the connection closed; the upstream may have seen a beginning, never a whole request.
    Cut(u16),
    /// The first request with this body, and `/smuggled` behind it as what it is: a request of its own.
    Both(&'static str),
    /// The first request with this body, then the connection is closed.
    First(&'static str),
}

use Want::{Both, Cut, First, Refused};

/// `POST /first` for host `x` with these field lines and this body.
#[rustfmt::skip]
const POSTS: &[(&[u8], &str, Want)] = &[
    // Lengths.
    (b"Content-Length: 3\r\n", "abc", Both("abc")),
    (b"Content-Length:   3\t \r\n", "abc", Both("abc")),
    (b"content-length: 003\r\n", "abc", Both("abc")),
    (b"Content-Length: 0\r\n", "", Both("")),
    (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n", Refused(400)),
    (b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n", Refused(400)),
    (b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", "0\r\n\r\n", Refused(400)),
    (b"Content-Length: 3\r\nContent-Length: 3\r\n", "abc", Refused(400)),
    (b"Content-Length: 0\r\nContent-Length: 3\r\n", "abc", Refused(400)),
    (b"Content-Length: 3\r\ncontent-length: 0\r\n", "abc", Refused(400)),
    (b"Content-Length: 3, 3\r\n", "abc", Refused(400)),
    (b"Content-Length: 0,3\r\n", "abc", Refused(400)),
    (b"Content-Length: +3\r\n", "abc", Refused(400)),
    (b"Content-Length: -3\r\n", "abc", Refused(400)),
    (b"Content-Length: -0\r\n", "", Refused(400)),
    (b"Content-Length: 0x3\r\n", "abc", Refused(400)),
    (b"Content-Length: 3.0\r\n", "abc", Refused(400)),
    (b"Content-Length: 3e0\r\n", "abc", Refused(400)),
    (b"Content-Length: 3 0\r\n", "abc", Refused(400)),
    (b"Content-Length: \"3\"\r\n", "abc", Refused(400)),
    (b"Content-Length: 3;a\r\n", "abc", Refused(400)),
    (b"Content-Length: \xd9\xa3\r\n", "abc", Refused(400)),
    (b"Content-Length:\r\n", "abc", Refused(400)),
    (b"Content-Length: 18446744073709551619\r\n", "abc", Refused(400)),
    (b"Content-Length: 9999999999999999999999999\r\n", "abc", Refused(400)),
    (b"Content-Length : 3\r\n", "abc", Refused(400)),
    (b"Content-Length\t: 3\r\n", "abc", Refused(400)),
    (b"Content-Length: 3\x00\r\n", "abc", Refused(400)),
    (b"Content-Length:\r\n 3\r\n", "abc", Refused(400)),
    // Transfer codings.
    (b"Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n", Both("abc")),
    (b"transfer-encoding:\tCHUNKED \r\n", "3\r\nabc\r\n0\r\n\r\n", Both("abc")),
    (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n", Refused(400)),
    (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n", "0\r\n\r\n", Refused(400)),
    (b"Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n", Refused(501)),
    (b"Transfer-Encoding: identity, chunked\r\n", "0\r\n\r\n", Refused(501)),
    (b"Transfer-Encoding: identity\r\n", "0\r\n\r\n", Refused(501)),
    (b"Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n", Refused(501)),
    (b"Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n", Refused(501)),
    (b"Transfer-Encoding: chunked,\r\n", "0\r\n\r\n", Refused(501)),
    (b"Transfer-Encoding: ,chunked\r\n", "0\r\n\r\n", Refused(501)),
    (b"Transfer-Encoding: xchunked\r\n", "0\r\n\r\n", Refused(501)),
    (b"Transfer-Encoding: chunkedx\r\n", "0\r\n\r\n", Refused(501)),
    (b"Transfer-Encoding: \"chunked\"\r\n", "0\r\n\r\n", Refused(501)),
    (b"Transfer-Encoding: chunked;q=1\r\n", "0\r\n\r\n", Refused(501)),
    (b"Transfer-Encoding: \xa0chunked\r\n", "0\r\n\r\n", Refused(501)),
    (b"Transfer-Encoding:\r\n", "0\r\n\r\n", Refused(501)),
    (b"Transfer-Encoding: \x0bchunked\r\n", "0\r\n\r\n", Refused(400)),
    (b"Transfer-Encoding: chunked\x0b\r\n", "0\r\n\r\n", Refused(400)),
    (b"Transfer-Encoding: chunked\x00\r\n", "0\r\n\r\n", Refused(400)),
    (b"Transfer-Encoding : chunked\r\n", "0\r\n\r\n", Refused(400)),
    (b"Transfer-Encoding\t: chunked\r\n", "0\r\n\r\n", Refused(400)),
    (b"Transfer-Encoding\x0b: chunked\r\n", "0\r\n\r\n", Refused(400)),
    (b" Transfer-Encoding: chunked\r\n", "0\r\n\r\n", Refused(400)),
    (b"Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n", Refused(400)),
    (b"Transfer-Encoding: x,\r\n chunked\r\n", "0\r\n\r\n", Refused(400)),
    (b"X: y\rTransfer-Encoding: chunked\r\n", "0\r\n\r\n", Refused(400)),
    (b"X: y\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n", Refused(400)),
    (b"X: y\n\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n", Refused(400)),
    // Chunks.
    (b"Transfer-Encoding: chunked\r\n", "0003;a=\"b\"\r\nabc\r\n000;x\r\n\r\n", Both("abc")),
    (b"Transfer-Encoding: chunked\r\n", "3 ;a\r\nabc\r\n0\r\nX-T: 1\r\n\r\n", Both("abc")),
    (b"Transfer-Encoding: chunked\r\n",
     "0\r\nContent-Length: 9\r\nHost: y\r\nTransfer-Encoding: gzip\r\n\r\n", Both("")),
    (b"Transfer-Encoding: chunked\r\n", "0x3\r\nabc\r\n0\r\n\r\n", Cut(400)),
    (b"Transfer-Encoding: chunked\r\n", "+3\r\nabc\r\n0\r\n\r\n", Cut(400)),
    (b"Transfer-Encoding: chunked\r\n", "-3\r\nabc\r\n0\r\n\r\n", Cut(400)),
    (b"Transfer-Encoding: chunked\r\n", " 3\r\nabc\r\n0\r\n\r\n", Cut(400)),
    (b"Transfer-Encoding: chunked\r\n", "\r\n3\r\nabc\r\n0\r\n\r\n", Cut(400)),
    (b"Transfer-Encoding: chunked\r\n", "3g\r\nabc\r\n0\r\n\r\n", Cut(400)),
    (b"Transfer-Encoding: chunked\r\n", "\"3\"\r\nabc\r\n0\r\n\r\n", Cut(400)),
    (b"Transfer-Encoding: chunked\r\n", "3_0\r\nabc\r\n0\r\n\r\n", Cut(400)),
    (b"Transfer-Encoding: chunked\r\n", "10000000000000003\r\nabc\r\n0\r\n\r\n", Cut(400)),
    (b"Transfer-Encoding: chunked\r\n", "3\nabc\r\n0\r\n\r\n", Cut(400)),
    (b"Transfer-Encoding: chunked\r\n", "3\rabc\r\n0\r\n\r\n", Cut(400)),
    (b"Transfer-Encoding: chunked\r\n", "3\r\nabc\n0\r\n\r\n", Cut(400)),
    (b"Transfer-Encoding: chunked\r\n", "3\r\nabc\r0\r\n\r\n", Cut(400)),
    (b"Transfer-Encoding: chunked\r\n", "3\r\nabc0\r\n\r\n", Cut(400)),
    (b"Transfer-Encoding: chunked\r\n", "3\r\nabcXX0\r\n\r\n", Cut(400)),
    (b"Transfer-Encoding: chunked\r\n", "3;a\nbc\r\n0\r\n\r\n", Cut(400)),
    (b"Transfer-Encoding: chunked\r\n", "3;a\x00\r\nabc\r\n0\r\n\r\n", Cut(400)),
    (b"Transfer-Encoding: chunked\r\n", "3;\rabc\r\n0\r\n\r\n", Cut(400)),
    (b"Transfer-Encoding: chunked\r\n", "0\n\r\n", Cut(400)),
    (b"Transfer-Encoding: chunked\r\n", "0\r\nX: y\n\r\n", Cut(400)),
    (b"Transfer-Encoding: chunked\r\n", "0\r\n X: y\r\n\r\n", Cut(400)),
    (b"Transfer-Encoding: chunked\r\n", "0\r\nX : y\r\n\r\n", Cut(400)),
    (b"Transfer-Encoding: chunked\r\n", "0\r\nX: \x01\r\n\r\n", Cut(400)),
    // Names and values.
    (b": v\r\n", "", Refused(400)),
    (b"v\r\n", "", Refused(400)),
    (b"Na me: v\r\n", "", Refused(400)),
    (b"Name : v\r\n", "", Refused(400)),
    (b"Na(me: v\r\n", "", Refused(400)),
    (b"Name\xff: v\r\n", "", Refused(400)),
    (b"Name\x00: v\r\n", "", Refused(400)),
    (b"X: a\x00b\r\n", "", Refused(400)),
    (b"X: a\x01b\r\n", "", Refused(400)),
    (b"X: a\x7fb\r\n", "", Refused(400)),
    (b"X: a\r b\r\n", "", Refused(400)),
    (b"X: a\r\n b\r\n", "", Refused(400)),
    (b"X: a\r\n\tb\r\n", "", Refused(400)),
    (b"X: a\n", "", Refused(400)),
    (b"Host: x\r\n", "", Refused(400)),
    (b"Host: y\r\n", "", Refused(400)),
    (b"Expect: 100-continue, x\r\n", "", Refused(417)),
    // What `Connection` must not take away, and upgrades that are none.
    (b"Connection: content-length\r\nContent-Length: 3\r\n", "abc", Both("abc")),
    (b"Connection: host, Content-Length\r\nContent-Length: 3\r\n", "abc", Both("abc")),
    (b"Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n",
     "3\r\nabc\r\n0\r\n\r\n", Both("abc")),
    (b"Connection: close\r\nContent-Length: 3\r\n", "abc", First("abc")),
    (b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n", "abc", Both("abc")),
    (b"Connection: Upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n",
     "3\r\nabc\r\n0\r\n\r\n", Both("abc")),
    (b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
     "", Both("")),
    (b"Connection: Upgrade\r\nUpgrade: H2C, websocket\r\n", "", Both("")),
    (b"Upgrade: websocket\r\n", "", Both("")),
];

/// Whole heads.
#[rustfmt::skip]
const RAW: &[(&[u8], Want)] = &[
    (b"POST /first HTTP/1.1\r\nHost: x\r\n\r\n", Both("")),
    (b"\r\n\r\nPOST /first HTTP/1.1\r\nHost: x\r\n\r\n", Both("")),
    (b"POST http://x/first HTTP/1.1\r\nHost: evil\r\n\r\n", Both("")),
    (b"POST HTTP://x/first HTTP/1.1\r\nHost: x\r\n\r\n", Both("")),
    // Request lines.
    (b"\r\n\r\n\r\nPOST /first HTTP/1.1\r\nHost: x\r\n\r\n", Refused(400)),
    (b"\nPOST /first HTTP/1.1\r\nHost: x\r\n\r\n", Refused(400)),
    (b"\rPOST /first HTTP/1.1\r\nHost: x\r\n\r\n", Refused(400)),
    (b" POST /first HTTP/1.1\r\nHost: x\r\n\r\n", Refused(400)),
    (b"\x00POST /first HTTP/1.1\r\nHost: x\r\n\r\n", Refused(400)),
    (b"POST  /first HTTP/1.1\r\nHost: x\r\n\r\n", Refused(400)),
    (b"POST\t/first HTTP/1.1\r\nHost: x\r\n\r\n", Refused(400)),
    (b"POST /first\tHTTP/1.1\r\nHost: x\r\n\r\n", Refused(400)),
    (b"POST /first  HTTP/1.1\r\nHost: x\r\n\r\n", Refused(505)),
    (b"POST /first HTTP/1.1 \r\nHost: x\r\n\r\n", Refused(400)),
    (b"POST /fi rst HTTP/1.1\r\nHost: x\r\n\r\n", Refused(505)),
    (b"POST /first HTTP/1.1\nHost: x\n\n", Refused(400)),
    (b"POST /first HTTP/1.1\rHost: x\r\r", Refused(400)),
    (b"POST /first HTTP/1.1\r\n Host: x\r\nHost: x\r\n\r\n", Refused(400)),
    (b"PO<ST /first HTTP/1.1\r\nHost: x\r\n\r\n", Refused(400)),
    (b"PO\x00ST /first HTTP/1.1\r\nHost: x\r\n\r\n", Refused(400)),
    (b"/first HTTP/1.1\r\nHost: x\r\n\r\n", Refused(400)),
    // Versions.
    (b"POST /first\r\n\r\n", Refused(400)),
    (b"POST /first\r\nHost: x\r\n\r\n", Refused(400)),
    (b"POST /first HTTP/0.9\r\nHost: x\r\n\r\n", Refused(505)),
    (b"POST /first HTTP/1.2\r\nHost: x\r\n\r\n", Refused(505)),
    (b"POST /first HTTP/2.0\r\nHost: x\r\n\r\n", Refused(505)),
    (b"POST /first HTTP/1.10\r\nHost: x\r\n\r\n", Refused(400)),
    (b"POST /first HTTP/01.1\r\nHost: x\r\n\r\n", Refused(505)),
    (b"POST /first HTTP/1,1\r\nHost: x\r\n\r\n", Refused(505)),
    (b"POST /first http/1.1\r\nHost: x\r\n\r\n", Refused(505)),
    (b"POST /first FTP/1.1\r\nHost: x\r\n\r\n", Refused(505)),
    // Targets.
    (b"POST first HTTP/1.1\r\nHost: x\r\n\r\n", Refused(400)),
    (b"POST \\first HTTP/1.1\r\nHost: x\r\n\r\n", Refused(400)),
    (b"POST * HTTP/1.1\r\nHost: x\r\n\r\n", Refused(400)),
    (b"POST /first#f HTTP/1.1\r\nHost: x\r\n\r\n", Refused(400)),
    (b"POST /first\x00 HTTP/1.1\r\nHost: x\r\n\r\n", Refused(400)),
    (b"POST /first\x7f HTTP/1.1\r\nHost: x\r\n\r\n", Refused(400)),
    (b"POST /\xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n", Refused(400)),
    (b"POST http://u@x/first HTTP/1.1\r\nHost: x\r\n\r\n", Refused(400)),
    (b"POST http://x:80:80@y/first HTTP/1.1\r\nHost: x\r\n\r\n", Refused(400)),
    (b"POST http:///first HTTP/1.1\r\nHost: x\r\n\r\n", Refused(400)),
    (b"POST http:/x/first HTTP/1.1\r\nHost: x\r\n\r\n", Refused(400)),
    (b"POST ftp://x/first HTTP/1.1\r\nHost: x\r\n\r\n", Refused(400)),
    (b"POST http://x/first HTTP/1.1\r\n\r\n", Refused(400)),
    (b"CONNECT /first HTTP/1.1\r\nHost: x\r\n\r\n", Refused(400)),
    // Hosts.
    (b"POST /first HTTP/1.1\r\n\r\n", Refused(400)),
    (b"POST /first HTTP/1.1\r\nHost: x\r\nhost: y\r\n\r\n", Refused(400)),
    (b"POST /first HTTP/1.1\r\nHost: x, y\r\n\r\n", Refused(400)),
    (b"POST /first HTTP/1.1\r\nHost: x y\r\n\r\n", Refused(400)),
    (b"POST /first HTTP/1.1\r\nHost: u@x\r\n\r\n", Refused(400)),
    (b"POST /first HTTP/1.1\r\nHost: x/y\r\n\r\n", Refused(400)),
    (b"POST /first HTTP/1.1\r\nHost: x?y\r\n\r\n", Refused(400)),
    (b"POST /first HTTP/1.1\r\nHost: x#y\r\n\r\n", Refused(400)),
    (b"POST /first HTTP/1.1\r\nHost: x\\y\r\n\r\n", Refused(400)),
    (b"POST /first HTTP/1.1\r\nHost: http://x\r\n\r\n", Refused(400)),
    (b"POST /first HTTP/1.1\r\nHost: x\xc3\xa9\r\n\r\n", Refused(400)),
    (b"POST /first HTTP/1.1\r\nHost : x\r\n\r\n", Refused(400)),
    (b"POST /first HTTP/1.1\r\n\r\nHost: x\r\n\r\n", Refused(400)),
    // HTTP/1.0.
    (b"POST /first HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc", First("abc")),
    (b"POST /first HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc", Both("abc")),
    (b"POST /first HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    (b"POST /first HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
     Refused(400)),
    (b"POST /first HTTP/1.0\r\nHost: x\r\nHost: x\r\n\r\n", Refused(400)),
];

#[test]
fn bodies_and_fields() {
    let cases = POSTS.iter().map(|(fields, body, want)| {
        let head = [b"POST /first HTTP/1.1\r\nHost: x\r\n", *fields, b"\r\n"].concat();
        ([&head, body.as_bytes()].concat(), *want)
    });
    hold(cases);
}

#[test]
fn request_lines_and_hosts() {
    hold(RAW.iter().map(|(bytes, want)| (bytes.to_vec(), *want)));
}

/// Runs every case and reports all that fail.
fn hold(cases: impl Iterator<Item = (Vec<u8>, Want)>) {
    let upstream = Upstream::answering(ok("fine"));
    // Cases end by the client closing its side: what it has sent is answered all the same.
    let gateway = with("abortOnClose: false", &[upstream.address()]);
    let mut tap = Tap::new(&upstream);
    let mut wrong = Vec::new();
    for (bytes, want) in cases {
        let sent = [&bytes, SMUGGLED.as_bytes()].concat();
        if let Err(why) = case(&gateway, &mut tap, &sent, want) {
            wrong.push(format!("{:?} ({want:?}): {why}", String::from_utf8_lossy(&bytes)));
        }
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}

fn case(gateway: &Cloverleaf, tap: &mut Tap<'_>, sent: &[u8], want: Want) -> Result<(), String> {
    let mut client = gateway.connect();
    client.send(sent);
    // Refusals have to close the connection without our doing.
    let forwarded = matches!(want, Both(_) | First(_));
    if matches!(want, Both(_)) {
        client.finish();
    }
    let mut statuses = Vec::new();
    let end = loop {
        match client.read_response() {
            Ok(response) => {
                let refusal = response.status >= 400;
                if refusal
                    && response.header("connection") != Some("close")
                    && !matches!(want, Cut(_))
                {
                    return Err(format!("{} without Connection: close", response.status));
                }
                statuses.push(response.status);
            }
            Err(failure) => break failure,
        }
    };
    let upstream = tap.fresh();
    if !matches!(end, Failure::Closed | Failure::Reset) {
        return Err(format!("answers {statuses:?}, then {end}"));
    }
    let wanted = match want {
        Refused(status) | Cut(status) => vec![status],
        First(_) => vec![200],
        Both(_) => vec![200, 200],
    };
    if statuses != wanted {
        return Err(format!("answers {statuses:?}"));
    }
    if matches!(want, Refused(_)) && !upstream.is_empty() {
        let shown: Vec<_> = upstream.iter().map(|b| String::from_utf8_lossy(b)).collect();
        return Err(format!("the upstream got {shown:?}"));
    }
    let mut requests = Vec::new();
    for bytes in &upstream {
        let (whole, incomplete) = message::requests(bytes)?;
        if incomplete && forwarded {
            return Err("the upstream got an incomplete request".to_owned());
        }
        requests.extend(whole);
    }
    judge(&requests, want)
}

fn judge(requests: &[Message], want: Want) -> Result<(), String> {
    let seen: Vec<_> = requests.iter().map(|r| (r.line.clone(), r.text())).collect();
    let first = |body: &str| ("POST /first HTTP/1.1".to_owned(), body.to_owned());
    let wanted = match want {
        Refused(_) | Cut(_) => vec![],
        First(body) => vec![first(body)],
        Both(body) => vec![first(body), ("GET /smuggled HTTP/1.1".to_owned(), String::new())],
    };
    if seen != wanted {
        return Err(format!("the upstream got {seen:?}"));
    }
    for request in requests {
        for name in ["connection", "upgrade", "http2-settings", "keep-alive", "te"] {
            if !request.all(name).is_empty() {
                return Err(format!("the upstream got {name}: {:?}", request.all(name)));
            }
        }
        let framing = [&["host"][..], &["content-length", "transfer-encoding"]].concat();
        if request.trailers.iter().any(|(n, _)| framing.iter().any(|f| n.eq_ignore_ascii_case(f))) {
            return Err(format!("trailers {:?}", request.trailers));
        }
        let host = request.one("host").unwrap_or_default();
        if host != "x" && !host.starts_with("127.0.0.1:") {
            return Err(format!("host {host:?}"));
        }
    }
    Ok(())
}

/// Fields behind the pseudo-fields of a `GET` over HTTP/2 that cannot be put into HTTP/1, or must not be.
const H2_FIELDS: &[(&[u8], &[u8])] = &[
    (b"x", b"a\r\nb: c"),
    (b"x", b"a\nb: c"),
    (b"x", b"a\rb"),
    (b"x", b"a\0b"),
    (b"x", b"a\x01b"),
    (b"x", b"a\x7fb"),
    (b"x\r\ny", b"v"),
    (b"x\n", b"v"),
    (b"x\0", b"v"),
    (b"x: y\r\nz", b"v"),
    (b"x y", b"v"),
    (b"x ", b"v"),
    (b"x:", b"v"),
    (b"", b"v"),
    (b"X", b"v"),
    (b"x\xff", b"v"),
    (b"transfer-encoding", b"chunked"),
    (b"transfer-encoding", b"identity"),
    (b"connection", b"close"),
    (b"connection", b"x-forwarded-for"),
    (b"keep-alive", b"timeout=5"),
    (b"proxy-connection", b"keep-alive"),
    (b"upgrade", b"websocket"),
    (b"te", b"gzip"),
    (b":path", b"/second"),
    (b":method", b"POST"),
    (b":status", b"200"),
    (b":unknown", b"v"),
    (b"content-length", b"5"),
    (b"content-length", b"x"),
    (b"content-length", b"+0"),
    (b"content-length", b"0, 0"),
];

/// Whole lists of pseudo-fields of a bad request over HTTP/2: method, scheme, path, authority.
const H2_PSEUDO: &[[&str; 4]] = &[
    ["GET / HTTP/1.1\r\nHost: x\r\n\r\nGET", "http", "/", "x"],
    ["GE T", "http", "/", "x"],
    ["", "http", "/", "x"],
    ["GET", "http", "/ HTTP/1.1\r\nHost: x\r\n\r\nGET /smuggled", "x"],
    ["GET", "http", "/a b", "x"],
    ["GET", "http", "/a\tb", "x"],
    ["GET", "http", "/a\0b", "x"],
    ["GET", "http", "/\u{e9}", "x"],
    ["GET", "http", "", "x"],
    ["GET", "http", "a", "x"],
    ["GET", "http", "?a", "x"],
    ["GET", "http", "http://evil/", "x"],
    ["GET", "http", "@evil/", "x"],
    ["GET", "http", "/", "u@x"],
    ["GET", "http", "/", "x y"],
    ["GET", "http", "/", "x\r\ny: z"],
    ["GET", "http", "/", "x/y"],
    ["GET", "http", "/", "x?y"],
    ["GET", "http", "/", "x\0"],
];

/// Nothing of a request reached the upstream, and the client was told.
fn refused(outcome: Outcome, upstream: &[Vec<u8>]) -> Result<(), String> {
    let told = match outcome {
        Outcome::Status(status) => (400..500).contains(&status),
        Outcome::Reset(_) | Outcome::GoAway(_) | Outcome::Closed => true,
    };
    if !told {
        return Err(format!("{outcome:?}"));
    }
    if upstream.is_empty() {
        return Ok(());
    }
    let shown: Vec<_> = upstream.iter().map(|b| String::from_utf8_lossy(b)).collect();
    Err(format!("{outcome:?}, but the upstream got {shown:?}"))
}

#[test]
fn http2_cannot_put_anything_into_http1() {
    let upstream = Upstream::answering(ok("fine"));
    let gateway = in_front_of(&upstream);
    let mut tap = Tap::new(&upstream);
    let mut wrong = Vec::new();
    let pseudo = [":method", ":scheme", ":path", ":authority"];
    let mut lists: Vec<Vec<(&[u8], &[u8])>> = Vec::new();
    for (name, value) in H2_FIELDS {
        let mut fields: Vec<_> =
            frames::get(&[]).iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
        fields.push((name, value));
        lists.push(fields);
    }
    for values in H2_PSEUDO {
        let fields = pseudo.iter().zip(values).map(|(n, v)| (n.as_bytes(), v.as_bytes()));
        lists.push(fields.collect());
    }
    for fields in lists {
        let mut client = Raw::connect(gateway.address());
        client.headers(1, &fields, true);
        let outcome = client.outcome(1);
        if let Err(why) = refused(outcome, &tap.fresh()) {
            let text = |(n, v): &(&[u8], &[u8])| [n, v].map(|b| b.escape_ascii().to_string());
            let shown: Vec<_> = fields.iter().map(text).collect();
            wrong.push(format!("{shown:?}: {why}"));
        }
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn http2_fields_arrive_as_one_line_each() {
    let upstream = Upstream::answering(ok("fine"));
    let gateway = in_front_of(&upstream);
    let mut tap = Tap::new(&upstream);
    let mut client = Raw::connect(gateway.address());
    let mut fields = frames::request("GET", "/a#fragment");
    fields.extend([
        ("host", "evil"),
        ("cookie", "a=1"),
        ("x", "tab\tand \u{e9}"),
        ("cookie", "b=2"),
        ("te", "trailers"),
    ]);
    client.headers(1, &fields, true);
    assert_eq!(client.outcome(1), Outcome::Status(200));
    let fresh = tap.fresh();
    let request = message::only(&fresh[0]);
    assert_eq!(request.line, "GET /a HTTP/1.1");
    assert_eq!(request.all("host"), ["x"]);
    assert_eq!(request.all("cookie"), ["a=1; b=2"]);
    assert_eq!(request.all("x"), ["tab\tand \u{e9}"]);
    assert_eq!(request.all("te"), ["trailers"]);
}

/// Lengths that a body over HTTP/2 does not have, or that are given twice.
#[test]
fn http2_lengths_have_to_be_true() {
    let upstream = Upstream::answering(ok("fine"));
    let gateway = in_front_of(&upstream);
    let mut tap = Tap::new(&upstream);
    let mut wrong = Vec::new();
    for (lengths, body) in [
        (&["5"][..], "abc"),
        (&["3"], "abcde"),
        (&["0"], "abc"),
        (&["3", "5"], "abc"),
        (&["5", "3"], "abc"),
        (&["5", "3"], "abcde"),
        (&["3", "3"], "abc"),
    ] {
        let mut fields = frames::request("POST", "/");
        fields.extend(lengths.iter().map(|length| ("content-length", *length)));
        let mut client = Raw::connect(gateway.address());
        client.headers(1, &fields, false);
        client.data(1, body.as_bytes(), true);
        let outcome = client.outcome(1);
        let told = !matches!(outcome, Outcome::Status(..400));
        let whole = tap
            .fresh()
            .iter()
            .map(|bytes| message::requests(bytes))
            .find(|parsed| !matches!(parsed, Ok((whole, _)) if whole.is_empty()));
        if !told || whole.is_some() {
            wrong.push(format!("{lengths:?} with {body:?}: {outcome:?}, upstream {whole:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// An extended CONNECT has no body in HTTP/1; a length in it would make an upstream that does not upgrade
/// take the next request for one.
#[test]
fn an_upgrade_over_http2_brings_no_length() {
    let upstream = Upstream::answering(ok("no upgrade"));
    let gateway = in_front_of(&upstream);
    let mut tap = Tap::new(&upstream);
    let mut client = Raw::connect(gateway.address());
    let mut fields = frames::request("CONNECT", "/ws");
    fields.insert(1, (":protocol", "websocket"));
    fields.push(("content-length", "40"));
    client.headers(1, &fields, false);
    let outcome = client.outcome(1);
    for bytes in tap.fresh() {
        let (whole, incomplete) = message::requests(&bytes).expect("unambiguous requests");
        assert!(
            !incomplete && whole.iter().all(|r| r.all("content-length").is_empty()),
            "{whole:?}"
        );
    }
    assert!(outcome != Outcome::Closed, "{outcome:?}");
}

/// `:protocol` becomes `Upgrade`: nothing may ride on it.
#[test]
fn an_upgrade_over_http2_names_one_protocol_and_nothing_else() {
    let upstream = Upstream::answering(ok("no upgrade"));
    let gateway = in_front_of(&upstream);
    for protocol in [
        "x\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\nX: y",
        "x\r\nX-Injected: y",
        "x\ny",
        "a, b",
        "a b",
        "h2c",
        "H2C",
        "",
    ] {
        let mut client = Raw::connect(gateway.address());
        let mut fields = frames::request("CONNECT", "/ws");
        fields.insert(1, (":protocol", protocol));
        client.headers(1, &fields, false);
        let outcome = client.outcome(1);
        assert!(outcome != Outcome::Status(200), "{protocol:?}: {outcome:?}");
    }
    assert_eq!(upstream.connections(), 0);
}

/// An endpoint that does not upgrade has not opened a tunnel, whatever it says.
#[test]
fn an_upgrade_over_http2_that_is_not_one_is_no_success() {
    let upstream = Upstream::answering(ok("no upgrade"));
    let gateway = in_front_of(&upstream);
    let mut client = Raw::connect(gateway.address());
    let mut fields = frames::request("CONNECT", "/ws");
    fields.insert(1, (":protocol", "websocket"));
    client.headers(1, &fields, false);
    assert_eq!(client.outcome(1), Outcome::Status(502));
}

/// Whatever the method: some servers ignore the bodies of these.
#[test]
fn a_body_that_looks_like_a_request_stays_a_body() {
    let upstream = Upstream::answering("HTTP/1.1 204 No Content\r\n\r\n");
    let gateway = in_front_of(&upstream);
    let mut tap = Tap::new(&upstream);
    let length = SMUGGLED.len();
    for method in ["GET", "HEAD", "DELETE", "OPTIONS", "TRACE", "PURGE"] {
        for framing in [
            format!("Content-Length: {length}\r\n\r\n{SMUGGLED}"),
            format!("Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{SMUGGLED}\r\n0\r\n\r\n"),
        ] {
            let mut client = gateway.connect();
            client.send(format!("{method} /first HTTP/1.1\r\nHost: x\r\n{framing}"));
            assert_eq!(client.read_response_to(method).expect("an answer").status, 204);
            let request = message::only(&tap.fresh()[0]);
            assert_eq!(request.line, format!("{method} /first HTTP/1.1"));
            assert_eq!(request.text(), SMUGGLED);
            client.finish();
            assert!(client.closes_within(SOON), "{method}: another answer");
        }
        // And over HTTP/2.
        let mut client = Raw::connect(gateway.address());
        client.headers(1, &frames::request(method, "/first"), false);
        client.data(1, SMUGGLED.as_bytes(), true);
        assert_eq!(client.outcome(1), Outcome::Status(204));
        assert_eq!(message::only(&tap.fresh()[0]).text(), SMUGGLED);
    }
}

/// An expectation that is not understood is refused over both protocols.
#[test]
fn unknown_expectations_are_refused_over_http2() {
    let upstream = Upstream::answering(ok("fine"));
    let gateway = in_front_of(&upstream);
    let mut client = Raw::connect(gateway.address());
    client.headers(1, &frames::get(&[("expect", "200-ok")]), true);
    assert_eq!(client.outcome(1), Outcome::Status(417));
    assert_eq!(upstream.connections(), 0);
}

/// A client that goes away in its body leaves no whole request behind.
#[test]
fn a_body_that_is_cut_off_is_never_complete() {
    let upstream = Upstream::answering(ok("fine"));
    let gateway = in_front_of(&upstream);
    for framing in
        ["Content-Length: 10\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"]
    {
        let before = upstream.connections();
        let mut client = gateway.connect();
        client.send(format!("POST /first HTTP/1.1\r\nHost: x\r\n{framing}"));
        let begun = || {
            upstream.connections() > before && upstream.received(before).ends_with(b"abc")
                || upstream.received(before).ends_with(b"abc\r\n")
        };
        assert!(testkit::wait_until(SOON, begun), "the upload does not begin");
        client.finish();
        let end = client.read_response();
        assert!(end.as_ref().is_err() || end.as_ref().is_ok_and(|r| r.status == 400), "{end:?}");
        assert!(
            testkit::wait_until(SOON, || upstream.open_connections() == 0),
            "upstream stays open"
        );
        let (whole, _) = message::requests(&upstream.received(before)).expect("one form");
        assert_eq!(whole, []);
    }
    let mut last = Client::connect(gateway.address());
    assert_eq!(last.request(SMUGGLED).expect("an answer").status, 200);
}
