//! Who may read the admin port through a browser: nobody that came by a name of their own.
//!
//! A page of a foreign site can make its host name point at this port (DNS rebinding) and then read
//! it as its own. Such a request carries that name as its host. So where the port is on a loopback
//! address, and only the machine's own browsers can be meant, the host must be an address, which
//! cannot be rebound, or `localhost`. A port on any other address is reached by name, as a pod by
//! its Service's, and whoever put it there has opened it to the network.

use std::net::SocketAddr;

use http::uri::{Authority, Uri};
use http::{HeaderMap, Version, header};

/// The hosts by which the port may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hosts {
    /// Addresses and `localhost`: the port is on a loopback address.
    Local,
    /// Names too.
    Any,
}

impl Hosts {
    /// Those of a port on this address.
    pub(crate) fn of(bound: SocketAddr) -> Self {
        if bound.ip().to_canonical().is_loopback() { Self::Local } else { Self::Any }
    }
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No host, several, or one that is none: 400 (RFC 9112 section 3.2).
    Malformed,
    /// A name that could be somebody else's: 403.
    Foreign,
}

/// Looks at the host of the target, where it has one, and at the Host header. Only HTTP/1.0 may do
/// without both: no browser speaks it, but simple probes do.
pub(crate) fn check(
    uri: &Uri,
    headers: &HeaderMap,
    version: Version,
    hosts: Hosts,
) -> Result<(), Refusal> {
    let refused = |refusal: &Refusal| *refusal == Refusal::Malformed || hosts == Hosts::Local;
    match check_names(uri, headers, version) {
        Err(refusal) if refused(&refusal) => Err(refusal),
        _ => Ok(()),
    }
}

fn check_names(uri: &Uri, headers: &HeaderMap, version: Version) -> Result<(), Refusal> {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, None) if version == Version::HTTP_10 => {}
        (Some(host), None) => {
            let text = host.to_str().map_err(|_| Refusal::Malformed)?;
            let authority: Authority = text.parse().map_err(|_| Refusal::Malformed)?;
            ours(&authority)?;
        }
        _ => return Err(Refusal::Malformed),
    }
    uri.authority().map_or(Ok(()), ours)
}

fn ours(authority: &Authority) -> Result<(), Refusal> {
    if authority.as_str().contains('@') {
        return Err(Refusal::Malformed);
    }
    let host = authority.host();
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    let is_address = bare.parse::<std::net::IpAddr>().is_ok();
    let is_local = bare.strip_suffix('.').unwrap_or(bare).eq_ignore_ascii_case("localhost");
    if is_address || is_local { Ok(()) } else { Err(Refusal::Foreign) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_localhost_are_hosts() {
        for (host, expected) in [
            ("127.0.0.1:9180", Ok(())),
            ("10.1.2.3", Ok(())),
            ("[::1]:9180", Ok(())),
            ("[2001:db8::7]", Ok(())),
            ("localhost:9180", Ok(())),
            ("LocalHost.", Ok(())),
            ("rebound.example", Err(Refusal::Foreign)),
            ("rebound.example:9180", Err(Refusal::Foreign)),
            ("localhost.rebound.example", Err(Refusal::Foreign)),
            ("127.0.0.1.rebound.example", Err(Refusal::Foreign)),
            ("2130706433", Err(Refusal::Foreign)),
            ("0x7f.1", Err(Refusal::Foreign)),
            ("rebound.example@127.0.0.1", Err(Refusal::Malformed)),
            ("127.0.0.1/x", Err(Refusal::Malformed)),
            ("", Err(Refusal::Malformed)),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            let uri = Uri::from_static("/state");
            assert_eq!(check(&uri, &headers, Version::HTTP_11, Hosts::Local), expected, "{host}");
            let by_name = expected.or_else(|refusal| match refusal {
                Refusal::Foreign => Ok(()),
                Refusal::Malformed => Err(refusal),
            });
            assert_eq!(check(&uri, &headers, Version::HTTP_11, Hosts::Any), by_name, "{host}");
        }
    }

    #[test]
    fn exactly_one_host_unless_http_1_0() {
        let uri = Uri::from_static("/");
        let mut headers = HeaderMap::new();
        assert_eq!(check(&uri, &headers, Version::HTTP_10, Hosts::Local), Ok(()));
        assert_eq!(check(&uri, &headers, Version::HTTP_11, Hosts::Local), Err(Refusal::Malformed));
        headers.append(header::HOST, "127.0.0.1".parse().unwrap());
        headers.append(header::HOST, "127.0.0.1".parse().unwrap());
        assert_eq!(check(&uri, &headers, Version::HTTP_11, Hosts::Local), Err(Refusal::Malformed));
    }

    #[test]
    fn the_target_counts_as_well() {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "127.0.0.1".parse().unwrap());
        let foreign = Uri::from_static("http://rebound.example/state");
        assert_eq!(
            check(&foreign, &headers, Version::HTTP_11, Hosts::Local),
            Err(Refusal::Foreign)
        );
        let local = Uri::from_static("http://localhost:9180/state");
        assert_eq!(check(&local, &headers, Version::HTTP_11, Hosts::Local), Ok(()));
    }

    #[test]
    fn names_are_for_ports_that_others_can_reach() {
        for (bound, expected) in [
            ("127.0.0.1:9180", Hosts::Local),
            ("127.3.2.1:9180", Hosts::Local),
            ("[::1]:9180", Hosts::Local),
            ("[::ffff:127.0.0.1]:9180", Hosts::Local),
            ("[::]:9180", Hosts::Any),
            ("0.0.0.0:9180", Hosts::Any),
            ("10.1.2.3:9180", Hosts::Any),
        ] {
            assert_eq!(Hosts::of(bound.parse().unwrap()), expected, "{bound}");
        }
    }
}
