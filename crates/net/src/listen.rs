//! Binding: one socket a worker for each address, so that the kernel spreads connections and no lock is shared.
//!
//! Must not know what is served.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Connections that the kernel holds for us before they are accepted, for each socket.
const BACKLOG_CONNECTIONS: i32 = 4096;

/// A listening socket could not be had.
#[derive(Debug, thiserror::Error)]
#[error("listening on {address}")]
pub struct ListenError {
    /// The address asked for.
    pub address: SocketAddr,
    /// Why not.
    #[source]
    pub source: std::io::Error,
}

/// Binds `count` sockets to one address. They accept at once; the kernel spreads new connections over them.
///
/// An address on which another process listens is an error, also where that process would share it: two proxies
/// that took each other's connections in turn would be worse than one that does not start. `[::]` accepts IPv4 as
/// well; where the kernel has no IPv6 it becomes `0.0.0.0`. Port 0 takes a free one, the same for all.
///
/// # Errors
/// [`ListenError`] with the kernel's reason.
pub fn bind(address: SocketAddr, count: usize) -> Result<Vec<TcpListener>, ListenError> {
    bind_as(address, count, Neighbours::None)
}

/// As [`bind`], for an address that [overlaps](overlap) one on which this process listens already: a listener that
/// moves from every address to one of them, or the other way round. The more exact address gets the connections.
///
/// Another process that would share the address is not noticed, one that would not share it is.
///
/// # Errors
/// [`ListenError`] with the kernel's reason.
pub fn bind_beside_own(address: SocketAddr, count: usize) -> Result<Vec<TcpListener>, ListenError> {
    bind_as(address, count, Neighbours::Own)
}

/// For a listener on which whoever connects asks at once and is answered: what the kernel has to acknowledge of the
/// question travels with the answer, which saves a packet. A question in several pieces, of one who waits for each to
/// be acknowledged (Nagle's algorithm), takes some 40 ms longer.
pub fn answer_soon(listener: &TcpListener) {
    // Accepted sockets inherit it. Where it fails there is one packet more.
    let _ = SockRef::from(listener).set_tcp_quickack(false);
}

/// Whether sockets on both would be in each other's way: the same port, and one of them on every address or both on
/// the same.
#[must_use]
pub fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() == other.port()
        && one.port() != 0
        && (one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified())
}

/// Who may already listen on an overlapping address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Neighbours {
    None,
    Own,
}

fn bind_as(
    address: SocketAddr,
    count: usize,
    neighbours: Neighbours,
) -> Result<Vec<TcpListener>, ListenError> {
    let failed = |source| ListenError { address, source };
    match try_bind(address, count, neighbours) {
        Err(error) if no_ipv6(&error) && address.ip().is_unspecified() && address.is_ipv6() => {
            let v4 = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
            try_bind(v4, count, neighbours).map_err(failed)
        }
        result => result.map_err(failed),
    }
}

fn no_ipv6(error: &std::io::Error) -> bool {
    const EAFNOSUPPORT: i32 = 97;
    error.raw_os_error() == Some(EAFNOSUPPORT)
        || error.kind() == std::io::ErrorKind::AddrNotAvailable
}

fn try_bind(
    mut address: SocketAddr,
    count: usize,
    neighbours: Neighbours,
) -> std::io::Result<Vec<TcpListener>> {
    if neighbours == Neighbours::None {
        // Without SO_REUSEPORT the kernel tells whether anybody else is there.
        let probe = socket(address, false)?;
        address.set_port(local(&probe)?.port());
    }
    let bind_one = |_| socket(address, true).map(TcpListener::from);
    (0..count.max(1)).map(bind_one).collect()
}

/// As [`bind`], for datagrams: whose they are is the kernel's choice, the same for one sender's.
///
/// # Errors
/// [`ListenError`] with the kernel's reason.
pub fn bind_datagrams(address: SocketAddr, count: usize) -> Result<Vec<UdpSocket>, ListenError> {
    let bound = || -> std::io::Result<Vec<UdpSocket>> {
        let probe = datagram_socket(address, false)?;
        let port = local(&probe)?.port();
        drop(probe);
        let address = SocketAddr::new(address.ip(), port);
        (0..count.max(1)).map(|_| datagram_socket(address, true).map(UdpSocket::from)).collect()
    };
    bound().map_err(|source| ListenError { address, source })
}

fn datagram_socket(address: SocketAddr, shared: bool) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn local(socket: &Socket) -> std::io::Result<SocketAddr> {
    socket.local_addr()?.as_socket().ok_or_else(|| std::io::Error::other("not an IP socket"))
}

fn socket(address: SocketAddr, shared: bool) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // Accepted sockets inherit it: no system call for each connection.
    socket.set_tcp_nodelay(true)?;
    socket.set_keepalive(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG_CONNECTIONS)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_shares_its_port_and_nobody_else_gets_in() {
        let group = bind("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        let address = group[0].local_addr().unwrap();
        assert!(group.iter().all(|l| l.local_addr().unwrap() == address));
        let again = bind(address, 1).unwrap_err();
        assert_eq!(again.source.kind(), std::io::ErrorKind::AddrInUse);
        assert!(again.to_string().contains(&address.to_string()));
    }

    #[test]
    fn an_address_of_our_own_on_every_address_is_shared_and_a_strangers_is_not() {
        let every = bind("0.0.0.0:0".parse().unwrap(), 2).unwrap();
        let port = every[0].local_addr().unwrap().port();
        let one = SocketAddr::from(([127, 0, 0, 1], port));
        assert!(overlap(every[0].local_addr().unwrap(), one));
        assert!(bind(one, 1).is_err());
        let group = bind_beside_own(one, 2).unwrap();
        assert_eq!(group[1].local_addr().unwrap(), one);
        let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(bind_beside_own(stranger.local_addr().unwrap(), 1).is_err());
    }

    #[test]
    fn accepted_sockets_acknowledge_late_where_the_listener_answers_soon() {
        let listener = bind("127.0.0.1:0".parse().unwrap(), 1).unwrap().remove(0);
        for late in [false, true] {
            if late {
                answer_soon(&listener);
            }
            let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            // The connection is in the queue once it is there for the client.
            let accepted = loop {
                match listener.accept() {
                    Ok((accepted, _)) => break accepted,
                    Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
                }
            };
            assert_eq!(SockRef::from(&accepted).tcp_quickack().unwrap(), !late);
        }
    }

    #[test]
    fn ports_and_addresses_overlap() {
        for (one, other, expected) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("[::]:80", "127.0.0.1:80", true),
            ("[::1]:80", "[::]:80", true),
            ("[::]:0", "[::]:0", false),
        ] {
            assert_eq!(
                overlap(one.parse().unwrap(), other.parse().unwrap()),
                expected,
                "{one} {other}"
            );
        }
    }
}
