//! What hosts say to each other on port 32767, to the byte as deployed: sans-io, both sides.
//!
//! The asking host sends `PROXY TCP4 1.2.3.4 1.2.3.4 123 <clusterPort>` CRLF, where only the last field means anything.
//! The asked one answers `SENDPROXY=true` or `SENDPROXY=false` CRLF and is a tunnel to a pod from then on, or `BUSY`
//! CRLF and closes, or closes: no such pod here. `SENDPROXY` says whether the pod wants every connection to begin with
//! a header; that it does is the asking host's work.
//!
//! A host of our kind asks with 124 for 123, which means nothing to an original, and is answered by another of our kind
//! with `SENDPROXY=true FRAMES` or `SENDPROXY=false FRAMES`: the tunnel is in [`crate::frames`], and the connection can
//! be asked for the next pod when both its directions have ended. Such a one answers `NONE` CRLF, and goes on, where
//! there is no such pod.

/// The longest request, its CRLF included.
pub const REQUEST_BYTES_MAX: usize = 56;
/// The longest answer, its CRLF included.
pub const REPLY_BYTES_MAX: usize = 64;
/// What a host says in plain that gives pods only over TLS, before it closes: a fatal alert, insufficient_security (RFC
/// 8446 section 6). To an original it is the beginning of a line that never ends, so that it asks the next host.
pub const DEMANDS_TLS: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x47];
/// All pods of the cluster port have as many connections as they may.
pub const BUSY: &[u8] = b"BUSY\r\n";

const PREFIX: &[u8] = b"PROXY TCP4 ";
/// How a request begins whose asker knows frames.
const KEEPS: &[u8] = b"PROXY TCP4 1.2.3.4 1.2.3.4 124 ";

/// What the other side sent is none of this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the protocol of peers: {0}")]
pub struct NotAPeer(&'static str);

/// What a peer asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// A pod of this.
    pub cluster_port: u16,
    /// It knows frames, and would keep the connection.
    pub keeps: bool,
}

impl Request {
    /// As it is sent.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        let mark = if self.keeps { 124 } else { 123 };
        format!("PROXY TCP4 1.2.3.4 1.2.3.4 {mark} {}\r\n", self.cluster_port).into_bytes()
    }
}

/// Reads a request from the beginning of what a peer sent, and how many bytes it has. `None` while it is not complete.
///
/// # Errors
/// [`NotAPeer`]: close the connection.
pub fn read_request(bytes: &[u8]) -> Result<Option<(Request, usize)>, NotAPeer> {
    let known = bytes.len().min(PREFIX.len());
    if bytes[..known] != PREFIX[..known] {
        return Err(NotAPeer("it does not begin with PROXY TCP4"));
    }
    let Some((line, length)) = line(bytes, REQUEST_BYTES_MAX) else {
        return match bytes.len() < REQUEST_BYTES_MAX {
            true => Ok(None),
            false => Err(NotAPeer("no end of the line within 56 bytes")),
        };
    };
    let last = line.rsplit(|b| *b == b' ').next().unwrap_or_default();
    let port = std::str::from_utf8(last).ok().filter(|t| t.bytes().all(|b| b.is_ascii_digit()));
    let port = port.and_then(|text| text.parse().ok()).filter(|port| *port > 0);
    let cluster_port = port.ok_or(NotAPeer("its last field is no port"))?;
    Ok(Some((Request { cluster_port, keeps: line.starts_with(KEEPS) }, length)))
}

/// A peer's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// What follows is the pod's.
    Tunnel {
        /// Whether the pod wants a PROXY protocol header first.
        wants_header: bool,
        /// It is in frames, and the connection can be kept.
        framed: bool,
    },
    /// It has no such pod, and the connection can be kept. Who does not know frames is told so by the end of it.
    None,
    /// Its pods are full.
    Busy,
    /// It wants to be asked over TLS.
    DemandsTls,
}

impl Reply {
    /// As it is sent.
    #[must_use]
    pub fn encode(self) -> &'static [u8] {
        match self {
            Self::Tunnel { wants_header: true, framed: false } => b"SENDPROXY=true\r\n",
            Self::Tunnel { wants_header: false, framed: false } => b"SENDPROXY=false\r\n",
            Self::Tunnel { wants_header: true, framed: true } => b"SENDPROXY=true FRAMES\r\n",
            Self::Tunnel { wants_header: false, framed: true } => b"SENDPROXY=false FRAMES\r\n",
            Self::None => b"NONE\r\n",
            Self::Busy => BUSY,
            Self::DemandsTls => &DEMANDS_TLS,
        }
    }
}

/// Reads an answer from the beginning of what a peer sent, and how many bytes it has; what follows is the pod's. `None`
/// while it is not complete.
///
/// Stricter than the original, which takes every line but `BUSY` for a tunnel: whoever else listens there would get
/// the client's connection.
///
/// # Errors
/// [`NotAPeer`]: ask another.
pub fn read_reply(bytes: &[u8]) -> Result<Option<(Reply, usize)>, NotAPeer> {
    match bytes.get(..DEMANDS_TLS.len()) {
        Some(bytes) if bytes == DEMANDS_TLS => {
            return Ok(Some((Reply::DemandsTls, DEMANDS_TLS.len())));
        }
        Some(_) => {}
        None if !bytes.is_empty() && DEMANDS_TLS.starts_with(bytes) => return Ok(None),
        None => {}
    }
    let Some((line, length)) = line(bytes, REPLY_BYTES_MAX) else {
        return match bytes.len() < REPLY_BYTES_MAX {
            true => Ok(None),
            false => Err(NotAPeer("no end of the line within 64 bytes")),
        };
    };
    let reply = match line {
        b"SENDPROXY=true" => Reply::Tunnel { wants_header: true, framed: false },
        b"SENDPROXY=false" => Reply::Tunnel { wants_header: false, framed: false },
        b"SENDPROXY=true FRAMES" => Reply::Tunnel { wants_header: true, framed: true },
        b"SENDPROXY=false FRAMES" => Reply::Tunnel { wants_header: false, framed: true },
        b"NONE" => Reply::None,
        b"BUSY" => Reply::Busy,
        _ => return Err(NotAPeer("an answer that is none")),
    };
    Ok(Some((reply, length)))
}

/// The first line without its CRLF, if it ends within `most` bytes, and how long it is with it.
fn line(bytes: &[u8], most: usize) -> Option<(&[u8], usize)> {
    let within = &bytes[..bytes.len().min(most)];
    let end = within.windows(2).position(|pair| pair == b"\r\n")?;
    Some((&bytes[..end], end + 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests() {
        let asks = |cluster_port, keeps| Request { cluster_port, keeps };
        for (request, sent) in [
            (asks(61_000, false), "PROXY TCP4 1.2.3.4 1.2.3.4 123 61000\r\n"),
            (asks(61_000, true), "PROXY TCP4 1.2.3.4 1.2.3.4 124 61000\r\n"),
        ] {
            assert_eq!(request.encode(), sent.as_bytes());
            assert_eq!(read_request(sent.as_bytes()), Ok(Some((request, sent.len()))));
        }
        let longest = "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n";
        assert_eq!(longest.len(), REQUEST_BYTES_MAX);
        for (sent, expected) in [
            ("PROXY TCP4 1.2.3.4 1.2.3.4 123 61000\r\n", Ok(Some((asks(61_000, false), 38)))),
            (
                "PROXY TCP4 1.2.3.4 1.2.3.4 123 61000\r\nmore\r\n",
                Ok(Some((asks(61_000, false), 38))),
            ),
            (longest, Ok(Some((asks(65_535, false), 56)))),
            ("PROXY TCP4 1\r\n", Ok(Some((asks(1, false), 14)))),
            ("", Ok(None)),
            ("PROXY TC", Ok(None)),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 123 61000\r", Ok(None)),
            ("PROXY TCP6 ::1 ::1 1 61000\r\n", Err("begin")),
            ("PROXY UNKNOWN\r\n", Err("begin")),
            ("GET / HTTP/1.1\r\n", Err("begin")),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 123 0\r\n", Err("no port")),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 123 70000\r\n", Err("no port")),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 123 +1\r\n", Err("no port")),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 123 \r\n", Err("no port")),
            (
                "PROXY TCP4 1.2.3.4 1.2.3.4 123 1\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n",
                Err("56"),
            ),
        ] {
            match (read_request(sent.as_bytes()), expected) {
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{sent:?}"),
                (found, expected) => assert_eq!(found.ok(), expected.ok(), "{sent:?}"),
            }
        }
    }

    #[test]
    fn replies() {
        let tunnels = [(true, true), (true, false), (false, true), (false, false)];
        let tunnels = tunnels.map(|(wants_header, framed)| Reply::Tunnel { wants_header, framed });
        for reply in tunnels.into_iter().chain([Reply::Busy, Reply::None, Reply::DemandsTls]) {
            let whole = reply.encode();
            for cut in 0..whole.len() {
                assert_eq!(read_reply(&whole[..cut]), Ok(None));
            }
            let followed = [whole, b"SSH-2.0-x\r\n"].concat();
            assert_eq!(read_reply(&followed), Ok(Some((reply, whole.len()))));
        }
        for other in ["HTTP/1.1 400 Bad Request\r\n", "go ahead\r\n", "SENDPROXY=\r\n", "\r\n"] {
            assert!(read_reply(other.as_bytes()).is_err(), "{other}");
        }
        assert_eq!(read_reply(&[b'x'; REPLY_BYTES_MAX - 1]), Ok(None));
        assert!(read_reply(&[b'x'; REPLY_BYTES_MAX]).is_err());
    }
}
