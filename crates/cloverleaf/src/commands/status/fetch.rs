//! One GET over HTTP/1.0, which has no chunks and no second answer: all that an admin port needs.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};

/// Longest answer, head and body.
const REPLY_BYTES_MAX: usize = 16 << 20;
/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the whole answer may take.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);
/// How much of an unexpected answer is shown.
const SHOWN_CHARS_MAX: usize = 200;

/// The body of `/state` at an address. Blocks for at most 15 s.
pub(super) fn state(address: SocketAddr) -> anyhow::Result<String> {
    let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT).map_err(|error| {
        let nobody = format!(
            "no gateway answers at {address}; is it running, with --admin-address {address}?"
        );
        match error.kind() {
            // The system's words would add nothing.
            ErrorKind::ConnectionRefused => anyhow!(nobody),
            ErrorKind::TimedOut => anyhow!(error).context(nobody),
            _ => anyhow!(error).context(format!("cannot connect to the admin port at {address}")),
        }
    })?;
    let reply = exchange(stream, address, Instant::now() + REPLY_TIMEOUT)
        .with_context(|| format!("no answer from the admin port at {address}"))?;
    body(&reply).with_context(|| format!("what answers at {address} is no Cloverleaf admin port"))
}

fn exchange(mut stream: TcpStream, host: SocketAddr, deadline: Instant) -> io::Result<Vec<u8>> {
    stream.set_write_timeout(Some(CONNECT_TIMEOUT))?;
    write!(stream, "GET /state HTTP/1.0\r\nHost: {host}\r\nAccept: application/json\r\n\r\n")?;
    let mut reply = Vec::new();
    let mut piece = vec![0; 64 * 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // A timeout of zero would mean none at all.
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        match stream.read(&mut piece) {
            Ok(0) => return Ok(reply),
            Ok(n) => reply.extend(&piece[..n]),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        if reply.len() > REPLY_BYTES_MAX {
            let problem = format!("the answer is longer than {} MiB", REPLY_BYTES_MAX >> 20);
            return Err(io::Error::new(ErrorKind::InvalidData, problem));
        }
        if Instant::now() >= deadline {
            return Err(ErrorKind::TimedOut.into());
        }
    }
}

/// The body of a whole 200 answer.
fn body(reply: &[u8]) -> anyhow::Result<String> {
    let end = reply.windows(4).position(|w| w == b"\r\n\r\n").context("it does not speak HTTP")?;
    let head = std::str::from_utf8(&reply[..end]).context("its head is not text")?;
    let body = std::str::from_utf8(&reply[end + 4..]).context("its answer is not text")?;
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    if !status.starts_with("HTTP/1.") {
        bail!("it does not speak HTTP");
    }
    if status.split(' ').nth(1) != Some("200") {
        let said: String =
            body.lines().next().unwrap_or_default().chars().take(SHOWN_CHARS_MAX).collect();
        bail!(
            "it answered {:?}: {said:?}",
            status.chars().take(SHOWN_CHARS_MAX).collect::<String>()
        );
    }
    let length = lines.filter_map(|line| line.split_once(':')).find_map(|(name, value)| {
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse::<usize>().ok())?
    });
    if length.is_some_and(|length| length != body.len()) {
        bail!("its answer was cut short");
    }
    Ok(body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    /// Answers one connection with these bytes and gives back what it received.
    fn server(reply: &'static [u8]) -> (SocketAddr, thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let task = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            stream.write_all(reply).unwrap();
            String::from_utf8(request).unwrap()
        });
        (address, task)
    }

    #[test]
    fn a_good_answer_is_its_body() {
        let (address, task) = server(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}");
        assert_eq!(state(address).unwrap(), "{}");
        let request = task.join().unwrap();
        let expected = format!("GET /state HTTP/1.0\r\nHost: {address}\r\n");
        assert!(request.starts_with(&expected), "{request}");
    }

    #[test]
    fn other_answers_are_told() {
        for (reply, part) in [
            (&b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n{}"[..], "cut short"),
            (b"HTTP/1.1 403 Forbidden\r\n\r\nnot \x1b here\n", "\"not \\u{1b} here\""),
            (b"SSH-2.0-x\r\n", "does not speak HTTP"),
            (b"220 mail\r\n\r\n", "does not speak HTTP"),
            (b"", "does not speak HTTP"),
        ] {
            let (address, task) = server(reply);
            let error = format!("{:#}", state(address).unwrap_err());
            assert!(error.contains(part), "{error}");
            assert!(error.contains(&address.to_string()), "{error}");
            task.join().unwrap();
        }
    }

    #[test]
    fn nobody_there_is_said_plainly() {
        let address = {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap()
        };
        let error = format!("{:#}", state(address).unwrap_err());
        let expected = format!(
            "no gateway answers at {address}; is it running, with --admin-address {address}?"
        );
        assert_eq!(error, expected);
    }

    #[test]
    fn a_slow_answer_ends_at_its_deadline() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stream = TcpStream::connect(address).unwrap();
        let error = exchange(stream, address, Instant::now()).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    }
}
