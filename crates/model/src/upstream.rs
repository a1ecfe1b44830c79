//! Where traffic goes: groups of endpoints, how one is chosen, how it is spoken to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::{HostName, Name, PemSource, Place, Tunnelled};

/// An upstream's index in its snapshot. Means nothing in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UpstreamId(pub usize);

/// A group of endpoints that serve the same thing.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    /// Unique in a snapshot; a metric label. State that outlives a change (pools, counters) is kept under it.
    pub name: Name,
    /// Who serves it. May be empty: 503.
    pub endpoints: Vec<Endpoint>,
    /// How one of them is chosen.
    pub algorithm: Algorithm,
    /// TLS to the endpoints; `None` is plain TCP.
    pub tls: Option<Arc<UpstreamTls>>,
    /// Which Host header they get.
    pub host_header: HostHeader,
    /// Bounds on its connections.
    pub pool: PoolLimits,
    /// How its endpoints are asked whether they can serve; `None`: they are believed to.
    pub health_check: Option<HealthCheck>,
    /// In place of the snapshot's connect timeout.
    pub connect_timeout: Option<Duration>,
    /// In place of the snapshot's response timeout; a rule's own goes before it.
    pub response_timeout: Option<Duration>,
    /// Where it was declared.
    pub place: Place,
}

/// One server of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it is.
    pub target: Target,
    /// Its share beside the others' of the upstream, from 1.
    pub weight: u32,
}

/// What a dialer is given.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// An address.
    Address(SocketAddr),
    /// A name, resolved when a connection is needed and again when the answer has grown old.
    Named(HostName, u16),
    /// A pod that serves this cluster port, on this or another host of the cluster.
    ClusterPort(u16),
    /// An endpoint of the upstream of that name, as the upstream has it chosen. Never itself an endpoint.
    Upstream(Name),
    /// An address or a name in a network that is reached through a tunnel.
    Tunnelled(Arc<Tunnelled>),
}

impl Target {
    /// The host of a target that has none, or is on every host.
    const HERE: &'static str = "localhost";

    /// The port; 0 where it is an upstream, whose endpoints have theirs.
    #[must_use]
    pub fn port(&self) -> u16 {
        match self {
            Self::Address(address) => address.port(),
            Self::Named(_, port) | Self::ClusterPort(port) => *port,
            Self::Upstream(_) => 0,
            Self::Tunnelled(there) => there.to.port(),
        }
    }

    /// The host without port: what a certificate must name, unless told otherwise. A cluster port is every host's own.
    #[must_use]
    pub fn host(&self) -> String {
        match self {
            Self::Address(address) => address.ip().to_string(),
            Self::Named(name, _) => name.to_string(),
            Self::ClusterPort(_) | Self::Upstream(_) => Self::HERE.to_owned(),
            Self::Tunnelled(there) => there.to.host(),
        }
    }

    /// Host and port as a Host header has them, without the port where it is the scheme's default and the host a name.
    #[must_use]
    pub fn authority(&self, default_port: u16) -> String {
        match self {
            Self::Address(address) => address.to_string(),
            Self::Tunnelled(there) => there.to.authority(default_port),
            target if target.port() == default_port => target.host(),
            target => format!("{}:{}", target.host(), target.port()),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Named(name, port) => write!(f, "{name}:{port}"),
            Self::ClusterPort(port) => write!(f, "mesh:{port}"),
            Self::Upstream(name) => write!(f, "upstream:{name}"),
            Self::Tunnelled(there) => write!(f, "{there}"),
        }
    }
}

/// How an endpoint is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Algorithm {
    /// In turn, by weight, interleaved smoothly (weights 3 and 1: A A B A).
    #[default]
    RoundRobin,
    /// Of two chosen at random by weight, the one with fewer requests under way.
    LeastRequests,
    /// The same one for the same client address, while it is there; by weight over many clients. A change of the
    /// endpoints moves only the clients that it must (rendezvous hashing; a Service's `sessionAffinity: ClientIP`).
    ClientAddress,
}

/// How an endpoint is asked whether it can serve. Endpoints that cannot get no requests; where none can: 503.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked.
    pub probe: Probe,
    /// In place of the endpoint's port.
    pub port: Option<u16>,
    /// From the beginning of one probe to that of the next; moved by up to a tenth, so that many do not beat together.
    pub interval: Duration,
    /// How long a probe may take in all.
    pub timeout: Duration,
    /// Successes in a row after which an endpoint that could not serve can, from 1.
    pub rise: u32,
    /// Failures in a row after which one that could cannot, from 1.
    pub fall: u32,
}

/// What a health check asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// A connection comes about.
    Tcp,
    /// A GET is answered with a status in this range.
    Http {
        /// Path and query.
        path: Arc<str>,
        /// In place of the endpoint's own host.
        host: Option<HostName>,
        /// TLS, which is not verified: a probe carries no secret (as the kubelet's).
        tls: bool,
        /// Lowest and highest status of an endpoint that can serve.
        statuses: (u16, u16),
    },
}

/// TLS to the endpoints of an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UpstreamTls {
    /// Whether and against what their certificates are verified.
    pub verification: Verification,
    /// The name sent as SNI and looked for in the certificate, in place of the endpoint's own host.
    pub server_name: Option<HostName>,
}

/// Against what an upstream's certificate is verified.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Verification {
    /// The machine's certificate authorities.
    #[default]
    System,
    /// These authorities alone.
    Authorities(PemSource),
    /// Nothing: encrypted, but anybody may answer. Only on the user's word.
    Skip,
}

/// Which Host header an upstream gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HostHeader {
    /// The client's.
    #[default]
    Preserve,
    /// The endpoint's host, with its port unless it is the scheme's default (`noHostRewrite` in `NanoProxy` files,
    /// whose name says the opposite of what it does).
    Endpoint,
}

/// Bounds on the connections to one endpoint, for each worker thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolLimits {
    /// Idle connections kept.
    pub idle_connections: usize,
    /// How long an idle one is kept. Below what common servers keep theirs, so that we close first.
    pub idle_timeout: Duration,
}

impl Default for PoolLimits {
    fn default() -> Self {
        Self { idle_connections: 256, idle_timeout: Duration::from_secs(30) }
    }
}
