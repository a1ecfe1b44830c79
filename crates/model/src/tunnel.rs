//! Tunnels: servers through which endpoints in networks that let nobody in are reached.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::{Certificate, HostName, Name, Place, Target, Verification};

/// Servers of Konnectivity's that lead to the same agents, and how they are spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// Unique in a snapshot; a metric label. Targets refer to it by this.
    pub name: Name,
    /// Where the servers are.
    pub servers: TunnelServers,
    /// How they are spoken to.
    pub mode: TunnelMode,
    /// What is shown and believed; of no meaning on a Unix socket.
    pub tls: TunnelTls,
    /// Where it was declared.
    pub place: Place,
}

/// Where a tunnel's servers are: at least one, at most [`TunnelServers::MAX`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelServers(Vec<TunnelServer>);

impl TunnelServers {
    /// Of one tunnel. All of them may be tried for one connection.
    pub const MAX: usize = 8;
    /// What [`TunnelServers::parse`] expects, for a person.
    pub const EXPECTED: &'static str =
        "host:port, or unix: and the path of a socket; several, up to 8, between commas";

    /// Servers between commas, each as [`TunnelServer::parse`] has it and given once.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut servers = Vec::new();
        for text in text.split(',') {
            let server = TunnelServer::parse(text.trim())?;
            if servers.len() == Self::MAX || servers.contains(&server) {
                return None;
            }
            servers.push(server);
        }
        Some(Self(servers))
    }

    /// The same, with relative paths of Unix sockets as they are seen from this directory.
    #[must_use]
    pub fn from_directory(self, directory: &Path) -> Self {
        let seen = |server| match server {
            TunnelServer::Unix(path) => TunnelServer::Unix(directory.join(path)),
            TunnelServer::Tcp(_) => server,
        };
        Self(self.0.into_iter().map(seen).collect())
    }

    /// All of them, in the order in which they were given.
    #[must_use]
    pub fn all(&self) -> &[TunnelServer] {
        &self.0
    }

    /// Whether any of them is reached over TLS.
    #[must_use]
    pub fn have_tls(&self) -> bool {
        self.0.iter().any(|server| matches!(server, TunnelServer::Tcp(_)))
    }
}

impl std::fmt::Display for TunnelServers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, server) in self.0.iter().enumerate() {
            write!(f, "{}{server}", if index > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

/// Where one of a tunnel's servers is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TunnelServer {
    /// An address or a name, over TLS.
    Tcp(Target),
    /// A Unix socket, without TLS.
    Unix(PathBuf),
}

impl TunnelServer {
    /// `host:port`, or `unix:` and a path, before which there may be two slashes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return (!path.is_empty()).then(|| Self::Unix(path.into()));
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return (address.port() > 0).then_some(Self::Tcp(Target::Address(address)));
        }
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok().filter(|port| *port > 0)?;
        let host = HostName::parse(host).ok().filter(|host| !host.as_str().contains(':'))?;
        Some(Self::Tcp(Target::Named(host, port)))
    }
}

impl std::fmt::Display for TunnelServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(target) => write!(f, "{target}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// How a tunnel's servers are spoken to: their `--mode`.
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

/// TLS with a tunnel's servers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TunnelTls {
    /// Against what its certificate is verified.
    pub verification: Verification,
    /// The name sent as SNI and looked for in the certificate, in place of each server's own host.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read() {
        let nine: Vec<String> = (1..=9).map(|n| format!("h{n}:1")).collect();
        for (text, expected) in [
            ("hub.test:8090", Some("hub.test:8090")),
            ("10.0.0.1:8090", Some("10.0.0.1:8090")),
            ("[::1]:8090", Some("[::1]:8090")),
            ("unix:/run/tunnel.sock", Some("unix:/run/tunnel.sock")),
            ("unix:///run/tunnel.sock", Some("unix:/run/tunnel.sock")),
            ("a.test:1, unix:/b,[::1]:3", Some("a.test:1,unix:/b,[::1]:3")),
            (&nine[..8].join(","), Some(&nine[..8].join(","))),
            (&nine.join(","), None),
            ("a.test:1,a.test:1", None),
            ("a.test:1,", None),
            ("", None),
            ("unix:", None),
            ("hub.test", None),
            ("hub.test:0", None),
            ("::1:8090", None),
        ] {
            let found = TunnelServers::parse(text).map(|servers| servers.to_string());
            assert_eq!(found.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn relative_paths_are_seen_from_a_directory() {
        let servers = TunnelServers::parse("unix:a.sock,unix:/b.sock,hub:1").unwrap();
        let seen = servers.from_directory(Path::new("/etc/it")).to_string();
        assert_eq!(seen, "unix:/etc/it/a.sock,unix:/b.sock,hub:1");
    }
}
