//! The local ports that flags ask for: checked, and bound.
//!
//! Must not know what is done with them.

use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use model::HostName;
use tunnel::client::{Protocol, To};
use tunnel::forward::{Credentials, Port};
use tunnel::is_cluster;

use crate::UsageError;
use crate::cli::ForwardArgs;

/// A name and a password of 255 bytes each.
const CREDENTIALS_BYTES_MAX: u64 = 1024;

/// One local port that flags ask for.
pub(super) struct LocalPort {
    flag: &'static str,
    address: SocketAddr,
    pub(super) serves: Serves,
}

/// What a local port does.
#[derive(Clone)]
pub(super) enum Serves {
    Tcp(Arc<Port>),
    /// Datagrams to a target, and after which silence a sender is forgotten.
    Udp(To, Duration),
}

impl std::fmt::Display for Serves {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Udp(to, _) => write!(f, "leads to {to}, for datagrams"),
            Self::Tcp(port) => match &**port {
                Port::Direct(to) => write!(f, "leads to {to}"),
                Port::Socks5 { .. } => f.write_str("speaks SOCKS5"),
                Port::HttpConnect { .. } => f.write_str("speaks HTTP CONNECT"),
            },
        }
    }
}

/// A socket that is bound.
pub(super) enum Socket {
    Tcp(std::net::TcpListener),
    Udp(std::net::UdpSocket),
}

impl Socket {
    pub(super) fn address(&self) -> std::io::Result<SocketAddr> {
        match self {
            Self::Tcp(socket) => socket.local_addr(),
            Self::Udp(socket) => socket.local_addr(),
        }
    }
}

impl LocalPort {
    fn new(flag: &'static str, address: SocketAddr, port: Port) -> Self {
        Self { flag, address, serves: Serves::Tcp(Arc::new(port)) }
    }

    /// A socket for each of so many workers.
    pub(super) fn bind(&self, count: usize) -> anyhow::Result<Vec<Socket>> {
        let bound = match self.serves {
            Serves::Tcp(_) => net::listen::bind(self.address, count)
                .map(|sockets| sockets.into_iter().map(Socket::Tcp).collect()),
            Serves::Udp(..) => net::listen::bind_datagrams(self.address, count)
                .map(|sockets| sockets.into_iter().map(Socket::Udp).collect()),
        };
        bound.with_context(|| format!("flag {}", self.flag))
    }
}

/// All of them, at least one.
pub(super) fn ports(args: &ForwardArgs) -> Result<Vec<LocalPort>, UsageError> {
    let cluster = args.cluster.as_deref().map(|name| cluster("--cluster", name)).transpose()?;
    if args.listen.len() != args.to.len() {
        let (listen, to) = (args.listen.len(), args.to.len());
        return Err(UsageError(format!(
            "flags --listen and --to: found {listen} and {to}, expected as many of one as of the \
             other"
        )));
    }
    let mut ports = Vec::new();
    for (listen, to) in args.listen.iter().zip(&args.to) {
        let (flag, address, idle) = ("--listen", listen.address, args.udp_idle_timeout);
        let mut to = target(to)?;
        to.cluster = to.cluster.or_else(|| cluster.clone());
        ports.push(if listen.udp {
            to.protocol = Protocol::Udp;
            LocalPort { flag, address, serves: Serves::Udp(to, idle) }
        } else {
            LocalPort::new(flag, address, Port::Direct(to))
        });
    }
    let credentials = args.socks5_credentials.as_deref().map(credentials).transpose()?;
    for address in &args.socks5 {
        let (credentials, cluster) = (credentials.clone(), cluster.clone());
        let port = Port::Socks5 { credentials, cluster };
        ports.push(LocalPort::new("--socks5", *address, port));
    }
    for address in &args.http_connect {
        let port = Port::HttpConnect { cluster: cluster.clone() };
        ports.push(LocalPort::new("--http-connect", *address, port));
    }
    if ports.is_empty() {
        let text = "no local port: expected --listen with --to, --socks5 or --http-connect";
        return Err(UsageError(text.to_owned()));
    }
    Ok(ports)
}

fn cluster(flag: &str, name: &str) -> Result<String, UsageError> {
    if is_cluster(name) {
        return Ok(name.to_owned());
    }
    Err(UsageError(format!("flag {flag}: found {name:?}, expected the name of a cluster")))
}

/// `[cluster/]host:port`
fn target(text: &str) -> Result<To, UsageError> {
    let (named, address) = match text.split_once('/') {
        None => (None, text),
        Some((name, address)) => (Some(cluster("--to", name)?), address),
    };
    let wrong = || {
        let text = format!("flag --to: found {text:?}, expected host:port or cluster/host:port");
        UsageError(text)
    };
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
    let is_bare_v6 = host.contains(':') && !host.starts_with('[');
    let host = HostName::parse(host).ok().filter(|_| !is_bare_v6).ok_or_else(wrong)?;
    let address = match host.as_str().parse() {
        Ok(ip) => SocketAddr::new(ip, port).to_string(),
        Err(_) => format!("{host}:{port}"),
    };
    Ok(To { protocol: Protocol::Tcp, address, cluster: named })
}

/// What SOCKS5 asks for. Nothing of the file's content is said.
fn credentials(path: &Path) -> Result<Credentials, UsageError> {
    let wrong =
        |what: &str| UsageError(format!("flag --socks5-credentials: {}: {what}", path.display()));
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(CREDENTIALS_BYTES_MAX).read_to_string(&mut text))
        .map_err(|error| wrong(&error.to_string()))?;
    let expected = "expected name:password in one line, each of 1 to 255 bytes";
    let (name, password) = text.trim_end().split_once(':').ok_or_else(|| wrong(expected))?;
    Credentials::new(name, password)
        .filter(|_| !password.contains('\n'))
        .ok_or_else(|| wrong(expected))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read() {
        for (text, expected) in [
            ("web.default:80", Some("web.default:80")),
            ("one/web.default:80", Some("one/web.default:80")),
            ("[fd00::1]:80", Some("[fd00::1]:80")),
            ("fd00::1:80", None),
            ("/web:80", None),
            ("one/web", None),
            ("a b:80", None),
            ("web:0", None),
        ] {
            let found = target(text).ok().map(|to| to.to_string());
            assert_eq!(found.as_deref(), expected, "{text}");
        }
    }
}
