//! Ports of the loopback address that nobody else is given while a test runs.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

/// A port of 127.0.0.1, kept for its owner until it is dropped.
///
/// A socket is bound to it, but does not listen: the kernel gives the port to nobody who asks for any port,
/// neither to listen nor to connect from, while a program that names it can listen on it (both with
/// `SO_REUSEADDR`, or both with `SO_REUSEPORT`). Until one does, connections to it are refused.
#[derive(Debug)]
pub struct Port {
    address: SocketAddr,
    _kept: Socket,
}

impl Port {
    /// Any free port.
    ///
    /// # Panics
    /// If the machine has none.
    #[must_use]
    pub fn reserve() -> Self {
        let bound = || -> std::io::Result<Self> {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.set_reuse_port(true)?;
            socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
            let address = socket.local_addr()?.as_socket();
            let address = address.ok_or_else(|| std::io::Error::other("not an IP address"))?;
            Ok(Self { address, _kept: socket })
        };
        bound().expect("a free port of 127.0.0.1")
    }

    /// Address and port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port alone.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.address.port()
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address.port())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn ports_are_distinct_refuse_and_can_be_listened_on() {
        let ports: Vec<_> = (0..64).map(|_| Port::reserve()).collect();
        let numbers: HashSet<_> = ports.iter().map(Port::number).collect();
        assert_eq!(numbers.len(), ports.len());
        let port = &ports[0];
        assert!(TcpStream::connect(port.address()).is_err());
        // As the standard library and tokio do: with SO_REUSEADDR.
        let listener = TcpListener::bind(port.address()).unwrap();
        let _client = TcpStream::connect(port.address()).unwrap();
        listener.accept().unwrap();
    }
}
