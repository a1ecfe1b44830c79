//! A server and its agents as processes, targets, and clients of both kinds over the server's Unix socket.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use testkit::certs::Wanted;
use testkit::metrics::value;
use testkit::{Authority, Issued, Port, Running, wait_until};

/// For everything that a test waits for, on a busy machine.
pub(crate) const WITHIN: Duration = Duration::from_secs(30);

/// The program with some arguments, its log in a folder under a name.
fn start(dir: &Path, name: &str, arguments: &[String]) -> Running {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cloverleaf"));
    command.arg("tunnel").args(arguments).env_clear().env("PATH", "/usr/bin:/bin");
    Running::start(command, dir.join(format!("{name}.log")))
}

/// A server with what agents need to find it.
pub(crate) struct Tunnel {
    pub(crate) server: Running,
    pub(crate) authority: Arc<Authority>,
    pub(crate) certificate: Issued,
    pub(crate) agent_port: Port,
    arguments: Vec<String>,
    front: Front,
    health: Port,
    _admin: Port,
    dir: tempfile::TempDir,
    agents: AtomicUsize,
}

/// `tunnel forward` that runs.
pub(crate) struct Forward {
    pub(crate) process: Running,
    pub(crate) health: Port,
}

impl Forward {
    /// A metric without labels.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        metric(self.health.address(), name)
    }

    pub(crate) fn metrics(&self) -> String {
        get(self.health.address(), "/metrics").unwrap().1
    }

    /// Status and text of the readiness.
    pub(crate) fn ready(&self) -> (u16, String) {
        get(self.health.address(), "/readyz").unwrap_or_default()
    }
}

/// A local connection, with bounds on its waits.
pub(crate) fn local(port: &Port) -> TcpStream {
    let stream = TcpStream::connect(port.address()).unwrap();
    stream.set_read_timeout(Some(WITHIN)).unwrap();
    stream.set_write_timeout(Some(WITHIN)).unwrap();
    stream
}

/// Where clients come in.
enum Front {
    Unix(PathBuf),
    /// Over TLS, with a certificate of the tunnel's authority; clients show one of another.
    Tcp {
        port: Port,
        clients: Box<Authority>,
    },
}

impl Front {
    fn arguments(&self, shown: &Issued) -> Vec<String> {
        match self {
            Self::Unix(socket) => {
                vec![format!("--uds-name={}", socket.display()), "--server-port=0".to_owned()]
            }
            Self::Tcp { port, clients } => vec![
                format!("--server-port={port}"),
                "--server-bind-address=127.0.0.1".to_owned(),
                format!("--server-cert={}", shown.chain_file.display()),
                format!("--server-key={}", shown.key_file.display()),
                format!("--server-ca-cert={}", clients.file().display()),
            ],
        }
    }
}

/// Adds flags. Where a file is among them, what it is to say is not said on the command line, which goes before it.
fn extend(arguments: &mut Vec<String>, more: &[&str]) {
    const OF_THE_FILE: [&str; 6] =
        ["--mode=", "--cluster-", "--agent-cert=", "--agent-key=", "--ca-cert=", "--sync-"];
    if more.iter().any(|flag| flag.starts_with("--config=")) {
        arguments.retain(|flag| !OF_THE_FILE.iter().any(|name| flag.starts_with(name)));
    }
    arguments.extend(more.iter().map(|flag| (*flag).to_owned()));
}

/// An agent that runs.
pub(crate) struct Agent {
    pub(crate) process: Running,
    pub(crate) health: Port,
    _admin: Port,
}

impl Tunnel {
    /// A server for clients that speak `mode` on a Unix socket, with more flags.
    pub(crate) fn server(mode: &str, more: &[&str]) -> Self {
        Self::server_of(Arc::new(Authority::new()), mode, more)
    }

    /// The same, with a certificate of this authority, which agents have to be of as well.
    pub(crate) fn server_of(authority: Arc<Authority>, mode: &str, more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let front = Front::Unix(dir.path().join("clients.sock"));
        Self::start(dir, authority, front, mode, more)
    }

    /// A server for clients over TLS.
    pub(crate) fn over_tls(mode: &str, more: &[&str]) -> Self {
        let front = Front::Tcp { port: Port::reserve(), clients: Box::new(Authority::new()) };
        let dir = tempfile::tempdir().unwrap();
        Self::start(dir, Arc::new(Authority::new()), front, mode, more)
    }

    fn start(
        dir: tempfile::TempDir,
        authority: Arc<Authority>,
        front: Front,
        mode: &str,
        more: &[&str],
    ) -> Self {
        let certificate = authority.server(&["127.0.0.1", "localhost"]);
        let (agent_port, health, admin) = (Port::reserve(), Port::reserve(), Port::reserve());
        let mut arguments: Vec<String> = vec!["server".into()];
        arguments.extend(front.arguments(&certificate));
        let mut flag = |name: &str, value: &dyn std::fmt::Display| {
            arguments.push(format!("--{name}={value}"));
        };
        flag("mode", &mode);
        flag("cluster-cert", &certificate.chain_file.display());
        flag("cluster-key", &certificate.key_file.display());
        flag("cluster-ca-cert", &authority.file().display());
        flag("agent-port", &agent_port);
        flag("agent-bind-address", &"127.0.0.1");
        flag("health-port", &health);
        flag("health-bind-address", &"127.0.0.1");
        flag("admin-port", &admin);
        flag("v", &5);
        extend(&mut arguments, more);
        let server = start(dir.path(), "server", &arguments);
        let tunnel = Self {
            server,
            authority,
            certificate,
            arguments,
            front,
            agent_port,
            health,
            _admin: admin,
            dir,
            agents: AtomicUsize::new(0),
        };
        tunnel.wait_for_server();
        tunnel
    }

    fn wait_for_server(&self) {
        let up = || get(self.health.address(), "/healthz").is_some_and(|(status, _)| status == 200);
        assert!(wait_until(WITHIN, up), "the server did not start");
    }

    /// A server with one agent, ready.
    pub(crate) fn with_agent(mode: &str, agent: &[&str]) -> (Self, Agent) {
        let tunnel = Self::server(mode, &[]);
        let agent = tunnel.agent(agent);
        tunnel.wait_ready();
        (tunnel, agent)
    }

    /// Starts the server again, with the same flags, after it has ended.
    pub(crate) fn restart(&mut self) {
        self.server = start(self.dir.path(), "server", &self.arguments);
        self.wait_for_server();
    }

    /// The same with more flags.
    pub(crate) fn restart_with(&mut self, more: &[&str]) {
        self.arguments.extend(more.iter().map(|flag| (*flag).to_owned()));
        self.restart();
    }

    pub(crate) fn wait_ready(&self) {
        let ready = || self.ready().0 == 200;
        assert!(wait_until(WITHIN, ready), "no agent has come");
    }

    pub(crate) fn ready(&self) -> (u16, String) {
        get(self.health.address(), "/readyz").unwrap_or_default()
    }

    /// One more agent, with a certificate of the authority and these flags.
    pub(crate) fn agent(&self, more: &[&str]) -> Agent {
        let shown = self.authority.issue(&Wanted::client("agent"));
        self.agent_showing(&shown, more)
    }

    pub(crate) fn agent_showing(&self, shown: &Issued, more: &[&str]) -> Agent {
        let (health, admin) = (Port::reserve(), Port::reserve());
        let mut arguments: Vec<String> = vec!["agent".into()];
        let mut flag = |name: &str, value: &dyn std::fmt::Display| {
            arguments.push(format!("--{name}={value}"));
        };
        flag("agent-cert", &shown.chain_file.display());
        flag("agent-key", &shown.key_file.display());
        flag("ca-cert", &self.authority.file().display());
        flag("proxy-server-port", &self.agent_port);
        flag("health-server-port", &health);
        flag("health-server-host", &"127.0.0.1");
        flag("admin-server-port", &admin);
        flag("sync-interval", &"100ms");
        flag("sync-interval-cap", &"200ms");
        flag("v", &5);
        extend(&mut arguments, more);
        let number = self.agents.fetch_add(1, Ordering::Relaxed);
        let process = start(self.dir.path(), &format!("agent{number}"), &arguments);
        Agent { process, health, _admin: admin }
    }

    /// `tunnel forward` to this server with these flags, whose local ports are there. `mode` is the server's.
    pub(crate) fn forward(&self, mode: &str, more: &[&str]) -> Forward {
        let health = Port::reserve();
        let mut arguments: Vec<String> = vec!["forward".into()];
        arguments.push(format!("--server={}", self.grpc_address()));
        arguments.push(format!("--mode={mode}"));
        arguments.extend(more.iter().map(|flag| (*flag).to_owned()));
        self.forward_with(arguments, health)
    }

    /// The same with all flags but that of the health port given.
    pub(crate) fn forward_with(&self, mut arguments: Vec<String>, health: Port) -> Forward {
        arguments.push(format!("--health-port={health}"));
        arguments.push("--v=5".into());
        let number = self.agents.fetch_add(1, Ordering::Relaxed);
        let process = start(self.dir.path(), &format!("forward{number}"), &arguments);
        let forward = Forward { process, health };
        let up = || get(forward.health.address(), "/healthz").is_some_and(|(s, _)| s == 200);
        assert!(wait_until(WITHIN, up), "forward did not start");
        forward
    }

    /// Where clients connect, as gRPC's library writes it.
    pub(crate) fn grpc_address(&self) -> String {
        match &self.front {
            Front::Unix(socket) => format!("unix:{}", socket.display()),
            Front::Tcp { port, .. } => port.address().to_string(),
        }
    }

    /// What clients over TLS show.
    pub(crate) fn clients(&self) -> &Authority {
        match &self.front {
            Front::Unix(_) => panic!("clients show nothing on a Unix socket"),
            Front::Tcp { clients, .. } => clients,
        }
    }

    pub(crate) fn socket(&self) -> UnixStream {
        let Front::Unix(socket) = &self.front else { panic!("not on a Unix socket") };
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(WITHIN)).unwrap();
        stream.set_write_timeout(Some(WITHIN)).unwrap();
        stream
    }

    /// CONNECT; the answer's status, and the connection after the head.
    pub(crate) fn connect(&self, to: impl std::fmt::Display) -> (u16, UnixStream) {
        let mut stream = self.socket();
        write!(stream, "CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n").unwrap();
        let head = head(&mut stream);
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.unwrap_or_else(|| panic!("no status in {head:?}")), stream)
    }

    /// CONNECT that works.
    pub(crate) fn connected(&self, to: impl std::fmt::Display) -> UnixStream {
        let (status, mut stream) = self.connect(to);
        if status != 200 {
            let mut text = String::new();
            let _ = stream.read_to_string(&mut text);
            panic!("{status}: {text}");
        }
        stream
    }

    pub(crate) fn metric(&self, name: &str) -> f64 {
        metric(self.health.address(), name)
    }

    pub(crate) fn metrics(&self) -> String {
        get(self.health.address(), "/metrics").unwrap().1
    }
}

impl Agent {
    pub(crate) fn health(&self) -> SocketAddr {
        self.health.address()
    }

    pub(crate) fn metric(&self, name: &str) -> f64 {
        metric(self.health.address(), name)
    }

    pub(crate) fn metrics(&self) -> String {
        get(self.health.address(), "/metrics").unwrap().1
    }
}

/// A head, up to its empty line and no further.
pub(crate) fn head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            other => panic!("{other:?} after {:?}", String::from_utf8_lossy(&head)),
        }
    }
    String::from_utf8(head).unwrap()
}

/// Status and body of a page.
pub(crate) fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(WITHIN)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut page = String::new();
    stream.read_to_string(&mut page).ok()?;
    let (head, body) = page.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

fn metric(address: SocketAddr, name: &str) -> f64 {
    let mut page = None;
    assert!(wait_until(WITHIN, || {
        page = get(address, "/metrics");
        page.is_some()
    }));
    let (_, page) = page.unwrap();
    value(&page, name).unwrap_or_else(|| panic!("no {name} in {page}"))
}

/// A target on the loopback address: what it does with each connection, on a thread of its own.
pub(crate) fn target(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = std::sync::Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(stream), serve) = (stream, serve.clone()) else { return };
            let _ = stream.set_read_timeout(Some(WITHIN));
            let _ = stream.set_write_timeout(Some(WITHIN));
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

/// Gives back what it gets.
pub(crate) fn echo() -> SocketAddr {
    target(|mut stream| {
        let mut buffer = vec![0; 65_536];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            if stream.write_all(&buffer[..count]).is_err() {
                return;
            }
        }
        let _ = stream.shutdown(Shutdown::Write);
    })
}

/// Writes as long as it can, as soon as it has heard a byte.
pub(crate) fn source() -> SocketAddr {
    target(|mut stream| {
        let buffer = vec![7; 65_536];
        if stream.read(&mut [0]).is_ok() {
            while stream.write_all(&buffer).is_ok() {}
        }
    })
}

/// Bytes that tell their place.
pub(crate) fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at % 251) as u8 ^ (at >> 13) as u8).collect()
}

/// One byte there and back.
pub(crate) fn round_trip(stream: &mut (impl Read + Write)) -> std::io::Result<()> {
    stream.write_all(b"x")?;
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    assert_eq!(&byte, b"x");
    Ok(())
}
