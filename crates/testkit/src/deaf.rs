//! A server that never gets to accept: its queue is full, so that connecting to it takes for ever.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// Connections that may fit into a queue of length 0 before it is full; Linux takes one more than asked for.
const QUEUED_MAX: usize = 16;

/// How long a connection is waited for before the queue counts as full.
const FULL_AFTER: Duration = Duration::from_millis(300);

/// A port of 127.0.0.1 on which connecting hangs.
#[derive(Debug)]
pub struct Deaf {
    address: SocketAddr,
    _listener: Socket,
    _queued: Vec<TcpStream>,
}

impl Deaf {
    /// Listens, and fills the queue.
    ///
    /// # Panics
    /// If it does not get full.
    #[must_use]
    pub fn listen() -> Self {
        let listening = || -> std::io::Result<(Socket, SocketAddr)> {
            let listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
            listener.listen(0)?;
            let address = listener.local_addr()?.as_socket();
            Ok((listener, address.ok_or_else(|| std::io::Error::other("not an IP address"))?))
        };
        let (listener, address) = listening().expect("a free port of 127.0.0.1");
        let mut queued = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, FULL_AFTER) {
            queued.push(stream);
            assert!(queued.len() < QUEUED_MAX, "the queue does not get full");
        }
        Self { address, _listener: listener, _queued: queued }
    }

    /// Address and port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connecting_hangs() {
        let deaf = Deaf::listen();
        let result = TcpStream::connect_timeout(&deaf.address(), FULL_AFTER);
        assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    }
}
