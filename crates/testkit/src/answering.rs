//! An HTTPS server that answers each request with what a function makes of it: where an answer depends on what was
//! asked, as an admission webhook's does. HTTP/1.1 with Content-Length, one thread a connection.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;

use crate::certs::Issued;
use crate::wire::{self, Wire};

/// A connection on which nothing moves ends after this.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// Of one request.
const HEAD_BYTES_MAX: usize = 64 * 1024;
const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Who asked.
    pub peer: SocketAddr,
    /// Such as `GET`.
    pub method: String,
    /// With the query.
    pub path: String,
    /// Its content.
    pub body: Vec<u8>,
}

type Answer = dyn Fn(&Asked) -> (u16, String) + Send + Sync;

/// Listens on any port of this address, until the test's process ends; where. Answers are JSON, each with its status.
///
/// # Panics
/// If it cannot.
pub fn answer_https(
    ip: IpAddr,
    certificate: &Issued,
    answer: impl Fn(&Asked) -> (u16, String) + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind((ip, 0)).expect("a free port");
    let address = listener.local_addr().expect("its address");
    let config = wire::server_config(certificate, &["http/1.1"]);
    let answer: Arc<Answer> = Arc::new(answer);
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let (config, answer) = (config.clone(), answer.clone());
            // Who goes in the middle needs no word.
            std::thread::spawn(move || drop(serve(socket, config, &*answer)));
        }
    });
    address
}

fn serve(socket: TcpStream, config: Arc<ServerConfig>, answer: &Answer) -> io::Result<()> {
    socket.set_read_timeout(Some(IDLE_MAX))?;
    socket.set_write_timeout(Some(IDLE_MAX))?;
    let peer = socket.peer_addr()?;
    let mut wire = wire::accept(config, socket)?;
    let mut read = Vec::new();
    while let Some(asked) = request(&mut wire, &mut read, peer)? {
        let (status, body) = answer(&asked);
        let head = format!(
            "HTTP/1.1 {status} Answer\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        wire.write_all(head.as_bytes())?;
        wire.write_all(body.as_bytes())?;
        wire.flush()?;
    }
    Ok(())
}

/// The next one; `None` at the end.
fn request(wire: &mut Wire, read: &mut Vec<u8>, peer: SocketAddr) -> io::Result<Option<Asked>> {
    let wrong = |what: &str| io::Error::other(what.to_owned());
    let head_end = loop {
        if let Some(at) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if read.len() > HEAD_BYTES_MAX {
            return Err(wrong("the head is too long"));
        }
        if !more(wire, read)? {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&read[..head_end]).into_owned();
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let (method, path) = (first.next().unwrap_or_default(), first.next().unwrap_or_default());
    let length = lines.filter_map(|line| line.split_once(':')).find_map(|(name, value)| {
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    let length: usize = length.unwrap_or(0);
    if length > BODY_BYTES_MAX {
        return Err(wrong("the body is too long"));
    }
    while read.len() < head_end + length {
        if !more(wire, read)? {
            return Err(wrong("the body is cut off"));
        }
    }
    let body = read[head_end..head_end + length].to_vec();
    read.drain(..head_end + length);
    Ok(Some(Asked { peer, method: method.to_owned(), path: path.to_owned(), body }))
}

fn more(wire: &mut Wire, read: &mut Vec<u8>) -> io::Result<bool> {
    let mut buffer = [0; 16 * 1024];
    let count = wire.read(&mut buffer)?;
    read.extend_from_slice(&buffer[..count]);
    Ok(count > 0)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::Authority;
    use crate::client::{Client, Tls};

    #[test]
    fn each_request_gets_its_own_answer() {
        let authority = Authority::new();
        let address =
            answer_https(Ipv4Addr::LOCALHOST.into(), &authority.server(&["hook.test"]), |asked| {
                let body = String::from_utf8_lossy(&asked.body);
                (200, format!("{} {} {body}", asked.method, asked.path))
            });
        let tls = Tls::trusting(authority.pem(), "hook.test");
        let mut client = Client::connect_tls(address, tls);
        let asked = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
        for _ in 0..2 {
            assert_eq!(client.request(asked).unwrap().text(), "POST /a hello");
        }
        let asked = "GET /b HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(client.request(asked).unwrap().text(), "GET /b ");
    }
}
