//! One question to one endpoint: a TCP connection, or an HTTP/1.1 request on it and the answer's status.
//!
//! Every wait ends with the check's timeout, and what is read is bounded. Must not know what becomes of the result.

use std::error::Error;
use std::fmt::Write;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use model::{HealthCheck, HostName, Probe, Target, Tunnelled};
use net::dial::{DialError, Dialer, Refusal};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use crate::head::{HeadError, ResponseHead};

/// Bytes read of an answer's head; an endpoint that sends more is taken for broken.
const HEAD_MAX_BYTES: usize = 16 * 1024;
/// Fields of an answer's head.
const HEAD_FIELDS_MAX: usize = 128;
/// Interim answers before the real one.
const INTERIM_MAX: usize = 4;
/// Bytes read of an answer's body, so that the usual server sees an orderly end and no reset.
const BODY_MAX_BYTES: u64 = 10 * 1024;
/// How long that may take at most.
const BODY_MAX: Duration = Duration::from_millis(100);
/// Bytes read at once.
const PIECE_BYTES: usize = 4 * 1024;

/// Why an endpoint cannot serve.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProbeError {
    #[error("no connection")]
    Dial(#[source] DialError),
    #[error("TLS")]
    Tls(#[source] tls::ConnectError),
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    #[error("the connection ended without an answer")]
    Closed(#[source] io::Error),
    #[error("the answer is malformed")]
    Malformed(#[source] HeadError),
    #[error("the answer's head is larger than {HEAD_MAX_BYTES} bytes")]
    TooLarge,
    #[error("the answer's status is {0}")]
    Status(u16),
    #[error("the check's path is not one")]
    Path,
}

impl ProbeError {
    /// The metric label, one of `stats::HEALTH_RESULTS`.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Dial(error) => error.as_str(),
            Self::Tls(_) => "tls",
            Self::Timeout(_) => "timeout",
            Self::Closed(_) => "closed",
            Self::Malformed(_) | Self::TooLarge => "malformed",
            Self::Status(_) => "status",
            Self::Path => "other",
        }
    }

    /// With its causes.
    pub(super) fn in_one_line(&self) -> String {
        let mut line = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let _ = write!(line, ": {error}");
            cause = error.source();
        }
        line
    }
}

/// Asks once. Dropped, the connection is closed.
pub(super) async fn ask(
    dialer: &Dialer,
    tls: &tls::ClientTls,
    target: &Target,
    check: &HealthCheck,
) -> Result<(), ProbeError> {
    let deadline = Instant::now() + check.timeout;
    let moved = check.port.map(|port| with_port(target, port));
    let target = moved.as_ref().unwrap_or(target);
    let stream = match dialer.connect(target, None, check.timeout).await {
        Ok(stream) => stream,
        // Somebody is there, and has all that it can do.
        Err(DialError::Refused { reason: Refusal::Busy, .. }) => return Ok(()),
        Err(error) => return Err(ProbeError::Dial(error)),
    };
    let Probe::Http { path, host, tls: encrypted, statuses } = &check.probe else { return Ok(()) };
    let request = request(target, path, host.as_ref(), *encrypted)?;
    let answered = async {
        if *encrypted {
            let name = host.as_ref().map_or_else(|| target.host(), ToString::to_string);
            let stream = tls.connect(stream, &name).await.map_err(ProbeError::Tls)?;
            exchange(stream, &request).await
        } else {
            exchange(stream, &request).await
        }
    };
    let status = timeout_at(deadline, answered).await;
    let status = status.map_err(|_| ProbeError::Timeout(check.timeout))??;
    if (statuses.0..=statuses.1).contains(&status) {
        Ok(())
    } else {
        Err(ProbeError::Status(status))
    }
}

fn with_port(target: &Target, port: u16) -> Target {
    match target {
        Target::Address(address) => Target::Address((address.ip(), port).into()),
        Target::Named(name, _) => Target::Named(name.clone(), port),
        Target::ClusterPort(_) => Target::ClusterPort(port),
        Target::Tunnelled(there) => {
            let to = with_port(&there.to, port);
            Target::Tunnelled(Arc::new(Tunnelled { to, ..Tunnelled::clone(there) }))
        }
        Target::Upstream(_) => target.clone(),
    }
}

/// The request's bytes.
fn request(
    target: &Target,
    path: &str,
    host: Option<&HostName>,
    encrypted: bool,
) -> Result<String, ProbeError> {
    // Nothing that could end the line or the request.
    if !path.starts_with('/') || !path.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(ProbeError::Path);
    }
    let default_port = if encrypted { 443 } else { 80 };
    let host = match host {
        Some(host) if host.as_str().contains(':') => format!("[{host}]"),
        Some(host) => host.to_string(),
        None => target.authority(default_port),
    };
    Ok(format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: cloverleaf-health\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n"
    ))
}

/// Sends the request; gives the answer's status.
async fn exchange<S>(mut stream: S, request: &str) -> Result<u16, ProbeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(request.as_bytes()).await.map_err(ProbeError::Closed)?;
    stream.flush().await.map_err(ProbeError::Closed)?;
    let status = read_status(&mut stream).await?;
    let mut rest = stream.take(BODY_MAX_BYTES);
    let drained = async { tokio::io::copy(&mut rest, &mut tokio::io::sink()).await };
    // How that ends says nothing about the endpoint.
    let _ = tokio::time::timeout(BODY_MAX, drained).await;
    Ok(status)
}

async fn read_status(stream: &mut (impl AsyncRead + Unpin)) -> Result<u16, ProbeError> {
    let mut input = Vec::new();
    let mut head = ResponseHead::default();
    for _ in 0..=INTERIM_MAX {
        let end = loop {
            if let Some(at) = memchr::memmem::find(&input, b"\r\n\r\n") {
                break at + 4;
            }
            if input.len() >= HEAD_MAX_BYTES {
                return Err(ProbeError::TooLarge);
            }
            let mut piece = [0; PIECE_BYTES];
            let count = stream.read(&mut piece).await.map_err(ProbeError::Closed)?;
            if count == 0 {
                return Err(ProbeError::Closed(io::ErrorKind::UnexpectedEof.into()));
            }
            input.extend_from_slice(piece.get(..count).unwrap_or_default());
        };
        let text = input.get(..end).unwrap_or_default();
        head.parse(text, HEAD_FIELDS_MAX, false).map_err(ProbeError::Malformed)?;
        if !head.is_interim() {
            return Ok(head.status);
        }
        input.drain(..end);
    }
    Err(ProbeError::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    fn check(probe: Probe) -> HealthCheck {
        HealthCheck {
            probe,
            port: None,
            interval: Duration::from_secs(10),
            timeout: Duration::from_millis(400),
            rise: 1,
            fall: 1,
        }
    }

    fn get(path: &str) -> HealthCheck {
        check(Probe::Http { path: path.into(), host: None, tls: false, statuses: (200, 399) })
    }

    fn client() -> tls::ClientTls {
        let tls = model::UpstreamTls {
            verification: model::Verification::Skip,
            ..model::UpstreamTls::default()
        };
        tls::ClientTls::load(&tls, &model::Place::whole("test")).unwrap()
    }

    /// A server that reads a head, answers each connection with these bytes and closes, unless it is to stay open.
    async fn server(answer: &'static [u8], stays: bool) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        net::task::spawn("server", async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = vec![0; 1024];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer).await;
                if stays {
                    let _ = stream.read(&mut request).await;
                }
            }
        });
        address
    }

    async fn asked(answer: &'static [u8], stays: bool) -> String {
        let target = Target::Address(server(answer, stays).await);
        match ask(&Dialer::default(), &client(), &target, &get("/healthz")).await {
            Ok(()) => "ok".to_owned(),
            Err(error) => format!("{}: {}", error.label(), error.in_one_line()),
        }
    }

    #[tokio::test]
    async fn the_answer_decides() {
        let cases: [(&[u8], bool, &str); 10] = [
            (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false, "ok"),
            (b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", true, "ok"),
            (b"HTTP/1.0 204 No Content\r\n\r\n", false, "ok"),
            (b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", false, "ok"),
            (
                b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
                false,
                "status: the answer's status is 503",
            ),
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", false, "status: the answer's status is 400"),
            (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", true, "malformed: the answer is malformed: "),
            (b"", false, "closed: the connection ended without an answer: "),
            (b"HTTP/1.1 200 OK\r\n", true, "timeout: no answer within 400 ms"),
            (b"", true, "timeout: no answer within 400 ms"),
        ];
        for (answer, stays, wanted) in cases {
            let seen = asked(answer, stays).await;
            assert!(seen.starts_with(wanted), "{}: {seen}", String::from_utf8_lossy(answer));
        }
    }

    #[tokio::test]
    async fn an_endless_answer_is_not_read_for_ever() {
        let endless: &[u8] = vec![b'x'; 1 << 20].leak();
        let began = Instant::now();
        assert!(asked(endless, true).await.starts_with("malformed: the answer's head is larger"));
        let body = [b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), endless].concat().leak();
        assert_eq!(asked(body, true).await, "ok");
        assert!(began.elapsed() < Duration::from_secs(10));
    }

    #[tokio::test]
    async fn a_connection_is_enough_for_tcp_and_the_port_can_be_another() {
        let open = server(b"", true).await;
        let target = Target::Address(SocketAddr::new(open.ip(), 1));
        let (dialer, tls) = (Dialer::default(), client());
        let error = ask(&dialer, &tls, &target, &check(Probe::Tcp)).await.unwrap_err();
        assert_eq!(error.label(), "refused");
        let moved = HealthCheck { port: Some(open.port()), ..check(Probe::Tcp) };
        ask(&dialer, &tls, &target, &moved).await.unwrap();
        let error = ask(&dialer, &tls, &Target::Address(open), &get("/a b")).await.unwrap_err();
        assert_eq!(error.label(), "other");
    }

    #[test]
    fn the_request_names_the_endpoint_or_the_checks_host() {
        let named = |port| Target::Named(HostName::parse("app.test").unwrap(), port);
        let v6 = Target::Address("[::1]:80".parse().unwrap());
        for (target, host, encrypted, wanted) in [
            (named(80), None, false, "app.test"),
            (named(80), None, true, "app.test:80"),
            (named(443), None, true, "app.test"),
            (v6.clone(), None, false, "[::1]:80"),
            (v6.clone(), Some("fd00::1"), false, "[fd00::1]"),
            (v6, Some("other.test"), false, "other.test"),
        ] {
            let host = host.map(|host| HostName::parse(host).unwrap());
            let text = request(&target, "/x?y", host.as_ref(), encrypted).unwrap();
            assert!(text.starts_with("GET /x?y HTTP/1.1\r\nHost: "), "{text}");
            assert!(text.contains(&format!("\r\nHost: {wanted}\r\n")), "{text}");
        }
        for path in ["", "x", "/\r\nX: y", "/ HTTP/1.1", "/é"] {
            assert!(request(&named(80), path, None, false).is_err(), "{path}");
        }
    }
}
