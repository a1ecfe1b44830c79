//! Sets of addresses: who may ask for pods here, and who is believed about whose connection it is. Pure.

use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::IpNet;

/// Who, as a setting says it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Senders {
    any: bool,
    hosts: bool,
    networks: Vec<IpNet>,
}

impl Senders {
    /// Everybody.
    #[must_use]
    pub fn any() -> Self {
        Self { any: true, ..Self::default() }
    }

    /// The hosts of the cluster.
    #[must_use]
    pub fn hosts() -> Self {
        Self { hosts: true, ..Self::default() }
    }

    /// `any`, `none`, `hosts`, addresses and networks, between commas. `None` where it is none of that.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut senders = Self::default();
        for item in text.split(',').map(str::trim) {
            match item {
                "any" => senders.any = true,
                "hosts" => senders.hosts = true,
                "none" => {}
                item => senders.networks.push(network(item)?),
            }
        }
        Some(senders)
    }

    /// Whether an address is among them; `hosts` are the addresses of the cluster's.
    #[must_use]
    pub fn contain(&self, address: IpAddr, hosts: &HashSet<IpAddr>) -> bool {
        let address = address.to_canonical();
        self.any
            || (self.hosts && hosts.contains(&address))
            || self.networks.iter().any(|network| network.contains(&address))
    }
}

fn network(text: &str) -> Option<IpNet> {
    let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network.ok().map(|network: IpNet| network.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_among_whom() {
        let hosts: HashSet<IpAddr> = ["10.0.0.1", "fd00::1"].map(|a| a.parse().unwrap()).into();
        for (setting, among, not_among) in [
            ("any", &["1.2.3.4", "::1"][..], &[][..]),
            ("none", &[], &["1.2.3.4", "10.0.0.1"]),
            ("hosts", &["10.0.0.1", "::ffff:10.0.0.1", "fd00::1"], &["10.0.0.2", "::1"]),
            ("hosts, 192.168.1.7/24,::1", &["10.0.0.1", "192.168.1.200", "::1"], &["192.168.2.1"]),
        ] {
            let senders = Senders::parse(setting).unwrap();
            for (addresses, expected) in [(among, true), (not_among, false)] {
                for address in addresses {
                    let found = senders.contain(address.parse().unwrap(), &hosts);
                    assert_eq!(found, expected, "{setting}: {address}");
                }
            }
        }
        assert_eq!(Senders::parse("10.0.0.0/33"), None);
        assert_eq!(Senders::parse(""), None);
    }
}
