//! Where clients connect: an address, a protocol, and the scopes served there.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;

use crate::{HostPattern, Name, Place, RuleSet};

/// One socket to accept on. The address is part of it: two listeners may share a port on two addresses and
/// answer differently.
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// Unique in a snapshot; a metric label.
    pub name: Name,
    /// Address and port. `[::]` accepts IPv4 as well, where the kernel allows it.
    pub address: SocketAddr,
    /// What is spoken there.
    pub protocol: ListenerProtocol,
    /// Which versions of HTTP.
    pub protocols: HttpVersions,
    /// What is served there. A request belongs to the scope with the most specific host pattern that fits
    /// its host, and only that scope's rules are tried (Gateway API: listener isolation). A file's listener
    /// has one scope for every host.
    pub scopes: Vec<Scope>,
    /// Whose forwarding headers are believed.
    pub trusted_hops: TrustedHops,
    /// Where it was declared.
    pub place: Place,
}

/// What a listener speaks.
#[derive(Debug, Clone, PartialEq)]
pub enum ListenerProtocol {
    /// HTTP/1.0, HTTP/1.1, and HTTP/2 by prior knowledge.
    Http,
    /// The same over TLS, HTTP/2 by ALPN. Arc: shared by all connections and compared by value on a reload.
    Https(Arc<TlsTermination>),
}

impl ListenerProtocol {
    /// `http` or `https`: as in the file, in metrics, and in `X-Forwarded-Proto`.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https(_) => "https",
        }
    }
}

/// Which versions of HTTP a listener speaks; over TLS, which it offers by ALPN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HttpVersions {
    /// HTTP/1.0, HTTP/1.1 and HTTP/2.
    #[default]
    All,
    /// HTTP/1.0 and HTTP/1.1.
    Http1,
    /// HTTP/2 alone: without ALPN by prior knowledge (RFC 9113 section 3.3).
    Http2,
}

/// How TLS ends at a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsTermination {
    /// Chosen by SNI: exact names before wildcards, of those the longest, and of several with the same name
    /// the first.
    pub certificates: Vec<Certificate>,
    /// The first certificate is used where none fits or no SNI was sent. Otherwise such a handshake is
    /// refused with the alert `unrecognized_name`; so is every one while there are no certificates.
    pub first_is_default: bool,
    /// Lowest version accepted.
    pub min_version: TlsVersion,
}

/// TLS 1.0 and 1.1 do not exist here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2
    V1_2,
    /// TLS 1.3
    V1_3,
}

/// A certificate chain with its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The chain, PEM, leaf first.
    pub chain: PemSource,
    /// The private key, PEM (PKCS#8, PKCS#1 or SEC1).
    pub key: PemSource,
    /// The names that it is used for; empty: those that stand in it. Where tenants bring certificates, the
    /// name that one stands for is not the certificate's to say.
    pub hosts: Vec<HostPattern>,
    /// Whether clients of these names must show a certificate. A request for a host whose verification
    /// differs from that of the connection's SNI is answered with 421.
    pub client_verification: Option<Arc<ClientVerification>>,
    /// Where it was declared.
    pub place: Place,
}

/// Which certificates clients must show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientVerification {
    /// The authorities, PEM, one of which must have issued it.
    pub authorities: PemSource,
    /// A client that shows none is let in; one that shows a bad one is not.
    pub optional: bool,
}

/// Where PEM text comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum PemSource {
    /// A file, read when the snapshot is built and again when it changes.
    File(PathBuf),
    /// Text from an object.
    Inline(Arc<[u8]>),
}

impl std::fmt::Debug for PemSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "File({})", path.display()),
            // May be a private key.
            Self::Inline(bytes) => write!(f, "Inline({} bytes)", bytes.len()),
        }
    }
}

/// The hosts of a listener that share a set of rules.
#[derive(Debug, Clone, PartialEq)]
pub struct Scope {
    /// Which hosts.
    pub hosts: HostPattern,
    /// What happens to their requests. Arc: the listeners of a file share one set.
    pub rules: Arc<RuleSet>,
}

/// Networks whose `X-Forwarded-*` and `Forwarded` headers are kept and appended to. Everybody else's are
/// dropped and set anew.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedHops(pub Vec<IpNet>);

impl TrustedHops {
    /// Whether a peer is one of them. An IPv4 address mapped into IPv6 counts as IPv4.
    #[must_use]
    pub fn contains(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.0.iter().any(|net| net.contains(&peer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_addresses_are_trusted_as_ipv4() {
        let hops = TrustedHops(vec!["10.0.0.0/8".parse().unwrap()]);
        assert!(hops.contains("10.1.2.3".parse().unwrap()));
        assert!(hops.contains("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!hops.contains("::1".parse().unwrap()));
        assert!(!TrustedHops::default().contains("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn inline_pem_is_never_shown() {
        let pem = PemSource::Inline(b"-----BEGIN PRIVATE KEY-----".as_slice().into());
        assert_eq!(format!("{pem:?}"), "Inline(27 bytes)");
    }
}
