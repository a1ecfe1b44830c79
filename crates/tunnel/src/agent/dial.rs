//! One connection that a server asked for: dialled, answered, then bytes both ways.
//!
//! Must not know the stream of packets beyond its own connection.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::{HostName, Target};
use net::dial::{DialError, Dialer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UdpSocket};

use super::Agent;
use crate::carrier::{Carrier, Tunnelled};
use crate::datagrams;
use crate::packet::Packet;
use crate::splice::{Cut, LINGER, Manners, splice};

/// As the original has it.
pub(crate) const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long no datagram may come or go. Who asked for them may give up earlier, and says so.
const UDP_IDLE: Duration = Duration::from_secs(300);

/// What the server asked for.
pub(super) struct Asked {
    pub(super) protocol: String,
    pub(super) address: String,
    pub(super) dial: i64,
}

/// What an agent connects to: the network that it is in, but for simulations.
pub(crate) trait Targets: Clone + 'static {
    /// A connection to one.
    type Stream: AsyncRead + AsyncWrite + Unpin;

    /// Connects within [`DIAL_TIMEOUT`]; else an error in the original's form, by which clients tell what happened.
    fn connect(
        &self,
        protocol: &str,
        address: &str,
    ) -> impl Future<Output = Result<Self::Stream, String>>;

    /// A socket for datagrams to and from an address; else an error as above. Not every network has them.
    fn datagrams(&self, address: &str) -> impl Future<Output = Result<UdpSocket, String>> {
        let error = format!("dial {} {address}: unknown network", datagrams::PROTOCOL);
        async { Err(error) }
    }

    /// Makes the close of a connection a reset.
    fn reset(stream: &Self::Stream);
}

/// A target.
enum Connected<S> {
    Stream(S),
    Datagrams(UdpSocket),
}

/// Serves it until it ends. Dropped, both connections are closed.
pub(super) async fn serve<T: Targets>(
    agent: Arc<Agent>,
    targets: T,
    (carrier, tunnelled): (Arc<Carrier>, Tunnelled),
    asked: Asked,
) {
    let Asked { protocol, address, dial } = asked;
    let stats = &agent.stats;
    let start = Instant::now();
    // What is over goes with its memory: there may be thousands of these.
    let connected = if protocol == datagrams::PROTOCOL && agent.settings.extensions {
        Box::pin(targets.datagrams(&address)).await.map(Connected::Datagrams)
    } else {
        Box::pin(targets.connect(&protocol, &address)).await.map(Connected::Stream)
    };
    stats.dial_duration.observe(start.elapsed());
    let target = match connected {
        Ok(target) => target,
        Err(error) => {
            let late = error.contains("timeout");
            if late {
                stats.dial_timeouts.add(1)
            } else {
                stats.dial_failures.add(1)
            }
            tracing::debug!(address, error, "a target could not be connected to");
            // Nobody will ever hear of its number.
            tunnelled.forget();
            let _ = carrier.send(Packet::DialResponse { error, connection: 0, dial });
            return;
        }
    };
    let connection = tunnelled.number();
    let answer = Packet::DialResponse { error: String::new(), connection, dial };
    if carrier.send(answer).is_err() {
        return;
    }
    let _open = stats.open_endpoints.count();
    match target {
        Connected::Stream(stream) => {
            let manners = Manners { linger: Some(LINGER), reset: T::reset, cut: Cut::BreaksOff };
            let end = splice(tunnelled, stream, Bytes::new(), manners).await;
            tracing::debug!(address, ?end, "a connection has ended");
        }
        Connected::Datagrams(socket) => {
            let dropped = &stats.datagrams_dropped;
            Box::pin(datagrams::carry(tunnelled, socket, UDP_IDLE, dropped)).await;
            tracing::debug!(address, "datagrams have ended");
        }
    }
}

impl Targets for Dialer {
    type Stream = TcpStream;

    fn reset(stream: &TcpStream) {
        // It would only be closed in order.
        let _ = stream.set_zero_linger();
    }

    async fn connect(&self, protocol: &str, address: &str) -> Result<TcpStream, String> {
        let failed = |what: &str| format!("dial {protocol} {address}: {what}");
        if protocol != "tcp" {
            return Err(failed("unknown network"));
        }
        let target = target(address).ok_or_else(|| failed("expected host:port"))?;
        let connected = self.connect_tcp(&target, DIAL_TIMEOUT).await;
        connected.map_err(|error| text(protocol, address, error))
    }

    async fn datagrams(&self, address: &str) -> Result<UdpSocket, String> {
        let protocol = datagrams::PROTOCOL;
        let none = || format!("dial {protocol} {address}: expected host:port");
        let target = target(address).ok_or_else(none)?;
        let connected = self.connect_udp(&target, DIAL_TIMEOUT).await;
        connected.map_err(|error| text(protocol, address, error))
    }
}

/// In the original's form.
fn text(protocol: &str, address: &str, error: DialError) -> String {
    let failed = |what: &str| format!("dial {protocol} {address}: {what}");
    match error {
        DialError::Timeout { .. } => failed("i/o timeout"),
        DialError::Resolve { source, .. } => format!("dial {protocol}: lookup {address}: {source}"),
        DialError::Refused { reason, .. } => failed(&reason.to_string()),
        DialError::Connect { source, .. } => failed(&format!("connect: {source}")),
        DialError::Tls { source, .. } => failed(&format!("tls: {source}")),
        DialError::Way { source, .. } => failed(&source.to_string()),
    }
}

fn target(address: &str) -> Option<Target> {
    if let Ok(address) = address.parse() {
        return Some(Target::Address(address));
    }
    let (host, port) = address.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    Some(Target::Named(HostName::parse(host).ok()?, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_names_or_numbers_with_a_port() {
        for (address, expected) in [
            ("127.0.0.1:80", Some("127.0.0.1:80")),
            ("[::1]:80", Some("[::1]:80")),
            ("a.test:443", Some("a.test:443")),
            ("a.test", None),
            ("a.test:0", None),
            ("a.test:x", None),
            ("a b:1", None),
            (":1", None),
        ] {
            assert_eq!(target(address).map(|t| t.to_string()).as_deref(), expected, "{address}");
        }
    }
}
