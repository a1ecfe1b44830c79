//! Tunnels: servers through which endpoints in networks that let nobody in are reached.

use std::path::PathBuf;

use crate::{Certificate, HostName, Name, Place, Target, Verification};

/// A server of Konnectivity's, and how it is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// Unique in a snapshot; a metric label. Targets refer to it by this.
    pub name: Name,
    /// Where the server is.
    pub server: TunnelServer,
    /// How it is spoken to.
    pub mode: TunnelMode,
    /// What is shown and believed; of no meaning on a Unix socket.
    pub tls: TunnelTls,
    /// Where it was declared.
    pub place: Place,
}

/// Where a tunnel's server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TunnelServer {
    /// An address or a name, over TLS.
    Tcp(Target),
    /// A Unix socket, without TLS.
    Unix(PathBuf),
}

impl std::fmt::Display for TunnelServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(target) => write!(f, "{target}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// How a tunnel's server is spoken to: its `--mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TunnelMode {
    /// gRPC: many connections share one to the server.
    #[default]
    Grpc,
    /// HTTP/1.1 CONNECT: each has its own.
    HttpConnect,
}

impl TunnelMode {
    /// As in the file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::HttpConnect => "httpConnect",
        }
    }
}

/// TLS with a tunnel's server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TunnelTls {
    /// Against what its certificate is verified.
    pub verification: Verification,
    /// The name sent as SNI and looked for in the certificate, in place of the server's own host.
    pub server_name: Option<HostName>,
    /// What it is shown.
    pub certificate: Option<Certificate>,
}

/// An endpoint behind a tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tunnelled {
    /// The tunnel's name.
    pub tunnel: Name,
    /// The agents that may be taken: those that have this as their identifier `host`. `None`: as the server decides.
    pub cluster: Option<Name>,
    /// An address or a name as it is seen from the agent.
    pub to: Target,
}

impl std::fmt::Display for Tunnelled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { tunnel, cluster, to } = self;
        match cluster {
            None => write!(f, "tunnel:{tunnel}/{to}"),
            Some(cluster) => write!(f, "tunnel:{tunnel}/{cluster}/{to}"),
        }
    }
}
