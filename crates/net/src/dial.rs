//! The way out: a connection to a target, within a bound.
//!
//! Every role connects through here; what a target may be is `model::Target`. An address or a name is connected to by
//! TCP; for any other kind of target somebody must have said how ([`way`]), which is the program's wiring. Must not
//! know TLS or HTTP.

pub mod way;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use model::{HostName, Target};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::Instant;

use crate::resolve::{ResolveError, Resolver};
pub use way::{Connecting, Duplex, Stream, Way};

/// Connects to targets. Cheap to clone; clones share names that were resolved, and ways.
#[derive(Debug, Clone, Default)]
pub struct Dialer {
    resolver: Resolver,
    ways: Arc<Ways>,
}

/// How targets are reached that are no address, as far as somebody has said.
#[derive(Debug, Default)]
struct Ways {
    cluster_ports: OnceLock<Arc<dyn Way>>,
    upstreams: OnceLock<Arc<dyn Way>>,
    tunnels: OnceLock<Arc<dyn Way>>,
}

/// Why whoever was asked to connect further did not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// All who could take the connection have as many as they may.
    #[error("all have as many connections as they may")]
    Busy,
    /// There is nobody who takes it.
    #[error("nobody takes it")]
    Nobody,
    /// Nobody in this process knows the way.
    #[error("there is no way to it")]
    NoWay,
}

/// Why a connection did not come about.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name has no address.
    #[error("connecting to {target}")]
    Resolve {
        /// Where to.
        target: String,
        /// Why not.
        #[source]
        source: ResolveError,
    },
    /// The kernel or the other side said no.
    #[error("connecting to {target}")]
    Connect {
        /// Where to.
        target: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Nobody answered in time.
    #[error("connecting to {target}: no answer within {} ms", waited.as_millis())]
    Timeout {
        /// Where to.
        target: String,
        /// How long was waited.
        waited: Duration,
    },
    /// There is a connection, and it cannot be made a secure one.
    #[error("TLS with {target}")]
    Tls {
        /// With whom.
        target: String,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Whoever was to connect further did not.
    #[error("connecting to {target}")]
    Refused {
        /// Where to.
        target: String,
        /// Why not.
        #[source]
        reason: Refusal,
    },
    /// The way there did not lead there.
    #[error("connecting to {target}")]
    Way {
        /// Where to.
        target: String,
        /// One of the words of [`DialError::as_str`].
        word: &'static str,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl DialError {
    /// Of one who connects further, and did not.
    #[must_use]
    pub fn refused(target: &Target, reason: Refusal) -> Self {
        Self::Refused { target: target.to_string(), reason }
    }

    /// A short word for metrics: `resolve`, `refused`, `unreachable`, `timeout`, `tls`, `busy`, `nobody`, `tunnel`,
    /// `other`. Of all of them nothing was sent, so that another target may be tried.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        use std::io::ErrorKind;
        match self {
            Self::Resolve { .. } => "resolve",
            Self::Timeout { .. } => "timeout",
            Self::Tls { .. } => "tls",
            Self::Connect { source, .. } => match source.kind() {
                ErrorKind::ConnectionRefused => "refused",
                ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => "unreachable",
                ErrorKind::TimedOut => "timeout",
                _ => "other",
            },
            Self::Refused { reason, .. } => match reason {
                Refusal::Busy => "busy",
                Refusal::Nobody => "nobody",
                Refusal::NoWay => "other",
            },
            Self::Way { word, .. } => word,
        }
    }
}

impl Dialer {
    /// Reaches cluster ports by this from now on, in all clones. `false` where there is a way already, which stays.
    pub fn add_way_to_cluster_ports(&self, way: Arc<dyn Way>) -> bool {
        self.ways.cluster_ports.set(way).is_ok()
    }

    /// Reaches upstreams by this from now on, in all clones. `false` where there is a way already, which stays.
    pub fn add_way_to_upstreams(&self, way: Arc<dyn Way>) -> bool {
        self.ways.upstreams.set(way).is_ok()
    }

    /// Reaches what is behind tunnels by this from now on, in all clones. `false` where there is a way already, which
    /// stays.
    pub fn add_way_through_tunnels(&self, way: Arc<dyn Way>) -> bool {
        self.ways.tunnels.set(way).is_ok()
    }

    /// Connects to a target of any kind within `timeout`. `client` is whose connection it is, for ways that can tell
    /// the other side; `None` where it may carry what several clients say. Dropped, all that belongs to it is closed.
    ///
    /// # Errors
    /// [`DialError`], also where nobody knows the way.
    pub async fn connect(
        &self,
        target: &Target,
        client: Option<SocketAddr>,
        timeout: Duration,
    ) -> Result<Stream, DialError> {
        let way = match target {
            Target::Address(_) | Target::Named(..) => {
                return self.connect_tcp(target, timeout).await.map(Stream::Tcp);
            }
            Target::ClusterPort(_) => self.ways.cluster_ports.get(),
            Target::Upstream(_) => self.ways.upstreams.get(),
            Target::Tunnelled(_) => self.ways.tunnels.get(),
        };
        match way {
            Some(way) => way.connect(target, client, timeout).await,
            None => Err(DialError::refused(target, Refusal::NoWay)),
        }
    }

    /// Connects to an address or a name within `timeout`, name resolution included. Of several addresses of a name each
    /// is tried in turn, with an equal share of what is left of the time. Nagle's algorithm is off. Dropped, it closes
    /// the socket.
    ///
    /// # Errors
    /// [`DialError`]; of several addresses that of the last. There is no way to any other kind of target.
    pub async fn connect_tcp(
        &self,
        target: &Target,
        timeout: Duration,
    ) -> Result<TcpStream, DialError> {
        self.connect_as(target, timeout, First::Anybody).await
    }

    /// As [`Dialer::connect_tcp`], for one who then speaks at once: what the kernel has to acknowledge travels with
    /// those words, which saves two packets. Until we have spoken again, what the other side says is acknowledged late;
    /// see [`acknowledge`]. Dropped, it closes the socket.
    ///
    /// # Errors
    /// As for [`Dialer::connect_tcp`].
    pub async fn connect_to_speak(
        &self,
        target: &Target,
        timeout: Duration,
    ) -> Result<TcpStream, DialError> {
        self.connect_as(target, timeout, First::We).await
    }

    /// A socket for datagrams to and from an address, or the first address of a name, alone. Nobody is asked whether
    /// there is somebody there. Dropped, it is closed.
    ///
    /// # Errors
    /// [`DialError`]. There is no way to any other kind of target.
    pub async fn connect_udp(
        &self,
        target: &Target,
        timeout: Duration,
    ) -> Result<UdpSocket, DialError> {
        let failed = |source| DialError::Connect { target: target.to_string(), source };
        let address = match target {
            Target::Address(address) => *address,
            Target::Named(name, port) => {
                let deadline = Instant::now() + timeout;
                let addresses = self.resolve(target, name, (deadline, timeout)).await?;
                let none = || failed(std::io::ErrorKind::AddrNotAvailable.into());
                SocketAddr::new(*addresses.first().ok_or_else(none)?, *port)
            }
            _ => return Err(DialError::refused(target, Refusal::NoWay)),
        };
        let any: SocketAddr = match address {
            SocketAddr::V4(_) => (std::net::Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).await.map_err(failed)?;
        socket.connect(address).await.map_err(failed)?;
        Ok(socket)
    }

    /// The addresses of a name, until a deadline.
    async fn resolve(
        &self,
        target: &Target,
        name: &HostName,
        (deadline, waited): (Instant, Duration),
    ) -> Result<Arc<[std::net::IpAddr]>, DialError> {
        let resolved = tokio::time::timeout_at(deadline, self.resolver.resolve(name.as_str()));
        resolved
            .await
            .map_err(|_| DialError::Timeout { target: target.to_string(), waited })?
            .map_err(|source| DialError::Resolve { target: target.to_string(), source })
    }

    async fn connect_as(
        &self,
        target: &Target,
        timeout: Duration,
        first: First,
    ) -> Result<TcpStream, DialError> {
        let deadline = Instant::now() + timeout;
        let (name, port) = match target {
            Target::Address(address) => return connect_one(target, *address, timeout, first).await,
            Target::Named(name, port) => (name, *port),
            Target::ClusterPort(_) | Target::Upstream(_) | Target::Tunnelled(_) => {
                return Err(DialError::refused(target, Refusal::NoWay));
            }
        };
        let addresses = self.resolve(target, name, (deadline, timeout)).await?;
        let mut last = None;
        for (tried, ip) in addresses.iter().enumerate() {
            let left = deadline.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
            match connect_one(target, SocketAddr::new(*ip, port), share, first).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or(DialError::Timeout { target: target.to_string(), waited: timeout }))
    }
}

/// Who has the first word on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    We,
    Anybody,
}

/// Acknowledges now what has come on a connection of [`Dialer::connect_to_speak`]. Called where we have nothing to say
/// for a while: one whose socket waits for that before it sends the next small packet (Nagle's algorithm) would wait
/// some 40 ms.
pub fn acknowledge(stream: &TcpStream) {
    // Where that fails the connection does, and whoever uses it hears of it.
    let _ = SockRef::from(stream).set_tcp_quickack(true);
}

async fn connect_one(
    target: &Target,
    address: SocketAddr,
    timeout: Duration,
    first: First,
) -> Result<TcpStream, DialError> {
    let failed = |source| DialError::Connect { target: target.to_string(), source };
    match tokio::time::timeout(timeout, open(address, first)).await {
        Ok(result) => result.map_err(failed),
        Err(_) => Err(DialError::Timeout { target: target.to_string(), waited: timeout }),
    }
}

async fn open(address: SocketAddr, first: First) -> std::io::Result<TcpStream> {
    let kind = Type::STREAM.nonblocking();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if first == First::We {
        socket.set_tcp_quickack(false)?;
    }
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    let stream = TcpStream::from_std(socket.into())?;
    // To this very machine it is there by now, and there is nothing to wait for.
    if stream.peer_addr().is_err() {
        stream.writable().await?;
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
    }
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::HostName;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn a_name_with_a_listener_on_one_of_its_addresses_connects() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let target = Target::Named(HostName::parse("localhost").unwrap(), port);
        Dialer::default().connect(&target, None, SECOND).await.unwrap();
    }

    /// A socket that waits for an acknowledgement before its next small packet gets it. Unless asked, the kernel takes
    /// 40 ms for it, each time.
    #[tokio::test]
    async fn one_that_speaks_first_can_listen_too() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target::Address(listener.local_addr().unwrap());
        let dialer = Dialer::default();
        let mut quickest = SECOND;
        for _ in 0..20 {
            let dialled = dialer.connect_to_speak(&target, SECOND).await.unwrap();
            dialled.writable().await.unwrap();
            dialled.try_write(b"question").unwrap();
            let accepted = listener.accept().await.unwrap().0;
            accepted.readable().await.unwrap();
            let begun = Instant::now();
            accepted.try_write(b"an").unwrap();
            accepted.try_write(b"swer").unwrap();
            let mut got = Vec::new();
            while got.len() < 6 {
                dialled.readable().await.unwrap();
                let _ = dialled.try_read_buf(&mut got);
                acknowledge(&dialled);
            }
            assert_eq!(got, b"answer");
            quickest = quickest.min(begun.elapsed());
        }
        assert!(quickest < Duration::from_millis(30), "held back for {quickest:?}");
    }

    /// Its queue is full at first: then the kernel tries again after a second.
    #[tokio::test]
    async fn one_who_takes_the_connection_later_is_waited_for() {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let _first = std::net::TcpStream::connect(address).unwrap();
        let target = Target::Address(address);
        let dialer = Dialer::default();
        let short = Duration::from_millis(50);
        let error = dialer.connect_tcp(&target, short).await.unwrap_err();
        assert_eq!(error.as_str(), "timeout");
        let (dialled, _) = tokio::join!(dialer.connect_tcp(&target, SECOND * 20), async {
            tokio::time::sleep(short).await;
            listener.accept().unwrap()
        });
        let dialled = dialled.unwrap();
        assert_eq!(dialled.peer_addr().unwrap(), address);
        dialled.try_write(b"x").unwrap();
    }

    #[tokio::test]
    async fn nobody_there_is_refused() {
        let address = {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap()
        };
        let target = Target::Address(address);
        let error = Dialer::default().connect(&target, None, SECOND).await.unwrap_err();
        assert_eq!(error.as_str(), "refused");
        assert!(error.to_string().contains(&address.to_string()));
    }

    /// Says which target it was asked for, and is always busy.
    #[derive(Debug, Default)]
    struct Busy;

    impl Way for Busy {
        fn connect<'w>(
            &'w self,
            target: &'w Target,
            _: Option<SocketAddr>,
            _: Duration,
        ) -> Connecting<'w> {
            let busy = DialError::refused(target, Refusal::Busy);
            Box::pin(async { Err(busy) })
        }
    }

    #[tokio::test]
    async fn a_way_is_there_for_every_clone_from_when_it_was_added_and_the_first_one_stays() {
        let dialer = Dialer::default();
        let clone = dialer.clone();
        let target = Target::ClusterPort(61_000);
        let error = clone.connect(&target, None, SECOND).await.unwrap_err();
        assert!(matches!(error, DialError::Refused { reason: Refusal::NoWay, .. }), "{error}");
        assert!(dialer.add_way_to_cluster_ports(Arc::new(Busy)));
        assert!(!clone.add_way_to_cluster_ports(Arc::new(Busy)));
        let error = clone.connect(&target, None, SECOND).await.unwrap_err();
        assert_eq!((error.as_str(), &*error.to_string()), ("busy", "connecting to mesh:61000"));
        let error = clone.connect_tcp(&target, SECOND).await.unwrap_err();
        assert_eq!(error.as_str(), "other");
    }
}
