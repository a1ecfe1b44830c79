//! Which of the hosts this one is, and which addresses they have. Names are asked of the machine's resolver.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::Context;
use futures_util::future::join_all;
use mesh::Resolved;
use mesh::source::Files;
use model::{HostName, Target};
use net::resolve::Resolver;

/// How long the machine's resolver may take.
const RESOLVE_WITHIN: Duration = Duration::from_secs(2);

/// Asks, and remembers.
#[derive(Debug, Default)]
pub(super) struct Names {
    resolver: Resolver,
}

impl Names {
    /// The address of a name; IPv4 where it has both.
    pub(super) async fn address(&self, name: &HostName) -> anyhow::Result<IpAddr> {
        let addresses = self.addresses(name.as_str()).await;
        let v4 = addresses.iter().find(|ip| ip.is_ipv4());
        v4.or(addresses.first()).copied().with_context(|| format!("{name} has no address"))
    }

    async fn addresses(&self, host: &str) -> Vec<IpAddr> {
        if let Ok(ip) = host.parse() {
            return vec![ip];
        }
        match tokio::time::timeout(RESOLVE_WITHIN, self.resolver.resolve(host)).await {
            Ok(Ok(addresses)) => addresses.to_vec(),
            Ok(Err(error)) => {
                tracing::warn!(host, error = &error as &dyn std::error::Error, "a host's name");
                Vec::new()
            }
            Err(_) => {
                tracing::warn!(host, "a host's name is not resolved in time");
                Vec::new()
            }
        }
    }

    /// What is to be known of the hosts of a file by a host that listens there. Dropped, questions under way go on.
    pub(super) async fn resolve(&self, files: &Files, listen: IpAddr) -> Resolved {
        let hosts = files.hosts.iter().map(|target| async move {
            let addresses = self.addresses(&target.host()).await;
            (target.clone(), addresses)
        });
        let mut resolved = Resolved::default();
        for (target, addresses) in join_all(hosts).await {
            let own = match &files.settings.own_host {
                Some(own) => *own == target,
                None => is_own(&target, &addresses, files.settings.port, listen),
            };
            if own {
                resolved.own.insert(target);
            }
            resolved.addresses.extend(addresses.iter().map(IpAddr::to_canonical));
        }
        if files.settings.own_host.is_some() {
            resolved.own.extend(files.settings.own_host.clone());
        }
        resolved
    }
}

/// Whether whoever connects to a host reaches the socket of this one.
fn is_own(target: &Target, addresses: &[IpAddr], port: u16, listen: IpAddr) -> bool {
    let reached = |ip: &IpAddr| match listen.is_unspecified() {
        true => is_local(*ip),
        false => ip.to_canonical() == listen.to_canonical(),
    };
    target.port() == port && addresses.iter().any(reached)
}

/// Whether an address is one of this machine's: then the kernel takes it for the source of what goes there. No packet
/// is sent.
fn is_local(ip: IpAddr) -> bool {
    const DISCARD: u16 = 9;
    let any: SocketAddr = match ip {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let source = || {
        let socket = UdpSocket::bind(any)?;
        socket.connect((ip, DISCARD))?;
        socket.local_addr()
    };
    ip.is_loopback() || source().is_ok_and(|source| source.ip() == ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_is_known_by_what_it_listens_on() {
        let target = |text: &str| Target::Address(text.parse().unwrap());
        for (listen, host, own) in [
            ("127.0.0.1", "127.0.0.1:32767", true),
            ("127.0.0.1", "127.0.0.1:32768", false),
            ("127.0.0.1", "127.0.0.2:32767", false),
            ("0.0.0.0", "127.0.0.2:32767", true),
            ("0.0.0.0", "192.0.2.1:32767", false),
            ("::", "[::1]:32767", true),
        ] {
            let target = target(host);
            let address = target.host().parse().unwrap();
            assert_eq!(is_own(&target, &[address], 32_767, listen.parse().unwrap()), own, "{host}");
        }
    }

    #[tokio::test]
    async fn names_are_resolved_and_those_that_cannot_be_are_left_out() {
        let names = Names::default();
        let localhost = HostName::parse("localhost").unwrap();
        assert!(names.address(&localhost).await.unwrap().is_loopback());
        assert!(names.address(&HostName::parse("nothing.invalid").unwrap()).await.is_err());
    }
}
