//! Shared by the modules: the gateway started with a configuration, and what reached its upstream.
//!
//! Start at [`in_front_of`] and [`Tap`]; [`message`] reads HTTP/1 strictly, [`frames`] speaks HTTP/2 byte
//! by byte.

pub(crate) mod frames;
pub(crate) mod message;

use std::net::SocketAddr;
use std::time::Duration;

pub(crate) use testkit::running::resident_bytes;
use testkit::{Authority, Cloverleaf, Gateway, Upstream};

/// The program.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_cloverleaf");

/// For what comes at once on an idle machine: long, because machines are busy.
pub(crate) const SOON: Duration = Duration::from_secs(15);

/// What may be under way when one end does not read: what this kernel lets a socket hold of what arrived and
/// of what is to be sent, and room for the gateway's own buffers and its peers'.
pub(crate) fn under_way_bytes_max() -> usize {
    const OWN_BYTES: usize = 12 * 1024 * 1024;
    let largest = |name: &str| -> usize {
        let sizes =
            std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).expect("a setting");
        let largest = sizes.split_whitespace().nth(2).expect("least, default and largest");
        largest.parse().expect("bytes")
    };
    largest("tcp_rmem") + largest("tcp_wmem") + OWN_BYTES
}

/// A gateway with one worker, one rule for everything and one upstream.
pub(crate) fn in_front_of(upstream: &Upstream) -> Cloverleaf {
    with("", &[upstream.address()])
}

/// As [`in_front_of`], over TLS with a certificate for 127.0.0.1; and whose it is.
pub(crate) fn over_tls(upstream: &Upstream) -> (Cloverleaf, Authority) {
    let authority = Authority::new();
    let certificate = authority.server(&["127.0.0.1"]);
    let gateway = Gateway::new(BINARY, &yaml("", &[upstream.address()]));
    for (pem, name) in [(&certificate.chain_pem, "cert.pem"), (&certificate.key_pem, "key.pem")] {
        std::fs::write(gateway.dir().join(name), pem).expect("a file");
    }
    let directory = gateway.dir().to_str().expect("a path").to_owned();
    (gateway.env("CERT_PATH", directory).start(), authority)
}

/// As [`in_front_of`], with several endpoints and more keys at the top of the file.
pub(crate) fn with(keys: &str, endpoints: &[SocketAddr]) -> Cloverleaf {
    Cloverleaf::gateway(BINARY, &yaml(keys, endpoints))
}

/// The configuration of [`with`]. One worker: pools and turns are each worker's own.
pub(crate) fn yaml(keys: &str, endpoints: &[SocketAddr]) -> String {
    let endpoints: String =
        endpoints.iter().map(|address| format!("      - address: {address}\n")).collect();
    format!(
        "workers: 1\n{keys}\nupstreams:\n  - name: up\n    endpoints:\n{endpoints}\
         rules:\n  - upstream: up\n    path: /\n"
    )
}

/// A gateway with one worker and for each path a rule and an upstream with these endpoints (`host:port`).
pub(crate) fn by_path(keys: &str, paths: &[(&str, &[String])]) -> Cloverleaf {
    let mut upstreams = String::new();
    let mut rules = String::new();
    for (number, (path, endpoints)) in paths.iter().enumerate() {
        upstreams += &format!("  - name: up{number}\n    endpoints:\n");
        for endpoint in *endpoints {
            upstreams += &format!("      - address: {endpoint}\n");
        }
        rules += &format!("  - upstream: up{number}\n    path: {path}\n");
    }
    let yaml = format!("workers: 1\n{keys}\nupstreams:\n{upstreams}rules:\n{rules}");
    Cloverleaf::gateway(BINARY, &yaml)
}

/// An answer with a length.
pub(crate) fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// What an upstream received since it was last asked, connection by connection.
pub(crate) struct Tap<'u> {
    upstream: &'u Upstream,
    seen: Vec<usize>,
}

impl<'u> Tap<'u> {
    /// From the beginning.
    pub(crate) fn new(upstream: &'u Upstream) -> Self {
        Self { upstream, seen: Vec::new() }
    }

    /// What is new, without connections that received nothing.
    pub(crate) fn fresh(&mut self) -> Vec<Vec<u8>> {
        let mut fresh = Vec::new();
        for connection in 0..self.upstream.connections() {
            let received = self.upstream.received(connection);
            if self.seen.len() <= connection {
                self.seen.push(0);
            }
            if received.len() > self.seen[connection] {
                fresh.push(received[self.seen[connection]..].to_vec());
                self.seen[connection] = received.len();
            }
        }
        fresh
    }
}
