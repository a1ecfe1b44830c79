//! Hosts with the program on them, pods, and a peer whose every byte the test says.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use testkit::certs::Wanted;
use testkit::metrics::value;
use testkit::{Authority, Network, Running, wait_until};

/// From start to ready, on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// For every read and write of a test.
pub(crate) const WITHIN: Duration = Duration::from_secs(15);
pub(crate) const PEER_PORT: u16 = 32_767;
/// What the original sends for cluster port 61000.
pub(crate) const REQUEST: &[u8] = b"PROXY TCP4 1.2.3.4 1.2.3.4 123 61000\r\n";
/// What a host of our kind sends: the field that differs means nothing to the original.
pub(crate) const KEEPING_REQUEST: &[u8] = b"PROXY TCP4 1.2.3.4 1.2.3.4 124 61000\r\n";

/// The program on a host.
pub(crate) struct Mesh<'n> {
    network: &'n Network,
    host: u8,
    running: Running,
    dir: tempfile::TempDir,
}

impl Deref for Mesh<'_> {
    type Target = Running;

    fn deref(&self) -> &Running {
        &self.running
    }
}

impl DerefMut for Mesh<'_> {
    fn deref_mut(&mut self) -> &mut Running {
        &mut self.running
    }
}

/// One to be started.
pub(crate) struct Start<'n> {
    network: &'n Network,
    host: u8,
    dir: tempfile::TempDir,
    wrapper: Vec<&'static str>,
    /// What is to be run, and with which of the files.
    role: [&'static str; 2],
}

/// `hosts.conf` with these hosts of a network.
pub(crate) fn hosts_conf(network: &Network, hosts: impl IntoIterator<Item = u8>) -> String {
    hosts.into_iter().map(|host| format!("{}:{PEER_PORT}\n", network.address(host))).collect()
}

impl<'n> Start<'n> {
    /// On a host, listening on its address; with these mappings, and all hosts of the network in `hosts.conf`.
    pub(crate) fn new(network: &'n Network, host: u8, mappings: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let role = ["mesh", "proxy.conf"];
        let start = Self { network, host, dir, wrapper: Vec::new(), role };
        let address = network.address(host);
        start
            .file("proxy.conf", &format!("HOST {address}\n"))
            .file("hosts.conf", &hosts_conf(network, 1..=network.hosts()))
            .file("portmappings.conf", mappings)
    }

    pub(crate) fn file(self, name: &str, text: &str) -> Self {
        std::fs::write(self.dir.path().join(name), text).unwrap();
        self
    }

    /// With more lines in `proxy.conf`.
    pub(crate) fn settings(self, lines: &str) -> Self {
        let before = std::fs::read_to_string(self.dir.path().join("proxy.conf")).unwrap();
        self.file("proxy.conf", &format!("{before}{lines}\n"))
    }

    /// A gateway in its place, with this file. It may say `@` for the host's address.
    pub(crate) fn gateway(mut self, yaml: &str) -> Self {
        self.role = ["gateway", "gateway.yaml"];
        let address = self.network.address(self.host).to_string();
        self.file("gateway.yaml", &yaml.replace('@', &address))
    }

    /// With a certificate of this authority, under the names that `proxy.conf` has if it says nothing else.
    pub(crate) fn certified(self, authority: &Authority, wanted: &Wanted) -> Self {
        let issued = authority.issue(wanted);
        self.file("svid.pem", &issued.chain_pem)
            .file("svid_key.pem", &issued.key_pem)
            .file("bundle.pem", authority.pem())
    }

    /// Run by another program, which becomes this one.
    pub(crate) fn by(mut self, wrapper: &[&'static str]) -> Self {
        self.wrapper = wrapper.to_vec();
        self
    }

    pub(crate) fn unready(self) -> Mesh<'n> {
        let log = self.dir.path().join("log");
        let words: Vec<&str> =
            self.wrapper.iter().copied().chain([env!("CARGO_BIN_EXE_cloverleaf")]).collect();
        let mut command = self.network.command(self.host, words[0]);
        let [role, file] = self.role;
        command.args(&words[1..]).arg(role);
        if role == "gateway" {
            command.arg("--debug").arg("--config");
        }
        command.arg(self.dir.path().join(file));
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LOG_LEVEL", "debug");
        let running = Running::start(command, log);
        Mesh { network: self.network, host: self.host, running, dir: self.dir }
    }

    pub(crate) fn start(self) -> Mesh<'n> {
        let mut mesh = self.unready();
        let ready = wait_until(READY_WITHIN, || {
            mesh.try_exit().is_some()
                || mesh.get("/readyz").is_some_and(|page| page.contains(" 200 "))
        });
        assert!(ready && mesh.try_exit().is_none(), "the mesh did not get ready");
        mesh
    }
}

impl Mesh<'_> {
    /// Replaces a file as the daemon does: written beside it and renamed.
    pub(crate) fn replace(&self, name: &str, text: &str) {
        let beside = self.dir.path().join("new");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(beside, self.dir.path().join(name)).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A page of the admin port, head and all.
    pub(crate) fn get(&self, path: &str) -> Option<String> {
        let page = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect("127.0.0.1:9180")?;
            stream.set_read_timeout(Some(WITHIN))?;
            let head =
                format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            stream.write_all(head.as_bytes())?;
            let mut page = String::new();
            stream.read_to_string(&mut page)?;
            Ok(page)
        };
        self.network.on(self.host, page).ok()
    }

    /// A metric's value; 0 where it is not there.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let page = self.get("/metrics").expect("the admin port answers");
        value(&page, name).unwrap_or_default()
    }

    /// Waits until a metric has a value.
    pub(crate) fn wait_metric(&self, name: &str, value: f64) {
        let mut last = 0.0;
        let reached = wait_until(WITHIN, || {
            last = self.metric(name);
            (last - value).abs() < 0.5
        });
        assert!(reached, "{name} is {last}, not {value}");
    }
}

/// A connection from one host to an address, with bounds on every wait.
pub(crate) fn connect(network: &Network, from: u8, to: (IpAddr, u16)) -> TcpStream {
    try_connect(network, from, to).expect("a connection")
}

pub(crate) fn try_connect(
    network: &Network,
    from: u8,
    to: (IpAddr, u16),
) -> std::io::Result<TcpStream> {
    let stream = network.on(from, || TcpStream::connect_timeout(&to.into(), WITHIN))?;
    stream.set_read_timeout(Some(WITHIN))?;
    stream.set_write_timeout(Some(WITHIN))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A connection to cluster port 61000 of a host, from that host.
pub(crate) fn client(network: &Network, host: u8) -> TcpStream {
    connect(network, host, (network.address(host), 61_000))
}

/// Host 2 asks host 1 for a pod.
pub(crate) fn ask(network: &Network, request: &[u8]) -> TcpStream {
    let mut stream = connect(network, 2, (network.address(1), PEER_PORT));
    stream.write_all(request).unwrap();
    stream
}

/// Sends and says that this was all.
pub(crate) fn send_all(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
}

/// So many bytes.
pub(crate) fn read(stream: &mut TcpStream, count: usize) -> String {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).unwrap_or_else(|error| panic!("{count} bytes: {error}"));
    String::from_utf8(bytes).unwrap()
}

/// All until the end; a reset is one too.
pub(crate) fn read_all(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut buf = [0; 4096];
    loop {
        match stream.read(&mut buf) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&buf[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => panic!("no end after {:?}: {error}", String::from_utf8_lossy(&bytes)),
        }
    }
    String::from_utf8(bytes).unwrap()
}

/// Which pod takes a new connection from a client on a host: its greeting. `None` where none does.
pub(crate) fn greeting(network: &Network, host: u8) -> Option<String> {
    let mut stream = client(network, host);
    let mut greeting = [0; 2];
    stream.read_exact(&mut greeting).ok()?;
    Some(String::from_utf8(greeting.to_vec()).unwrap())
}

/// What does something with each connection to a port of a host, until dropped.
pub(crate) struct Server {
    closed: Arc<Mutex<bool>>,
}

impl Server {
    pub(crate) fn new(
        network: &Network,
        host: u8,
        port: u16,
        serve: impl Fn(TcpStream) + Send + Sync + 'static,
    ) -> Self {
        Self::at(network, host, (network.address(host), port).into(), serve)
    }

    pub(crate) fn at(
        network: &Network,
        host: u8,
        address: SocketAddr,
        serve: impl Fn(TcpStream) + Send + Sync + 'static,
    ) -> Self {
        let listener =
            network.on(host, || TcpListener::bind(address)).expect("a port for a server");
        listener.set_nonblocking(true).unwrap();
        let closed = Arc::new(Mutex::new(false));
        let (closes, serve) = (closed.clone(), Arc::new(serve));
        std::thread::spawn(move || {
            loop {
                if *closes.lock().unwrap_or_else(PoisonError::into_inner) {
                    return;
                }
                let Ok((stream, _)) = listener.accept() else {
                    std::thread::sleep(Duration::from_millis(1));
                    continue;
                };
                stream.set_nonblocking(false).unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
                let serve = serve.clone();
                std::thread::spawn(move || serve(stream));
            }
        });
        Self { closed }
    }

    /// A pod: greets with two characters if it has them, then sends back what it gets, to the end.
    pub(crate) fn pod(network: &Network, host: u8, port: u16, greeting: &'static str) -> Self {
        Self::new(network, host, port, move |stream| echo(stream, greeting))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        *self.closed.lock().unwrap_or_else(PoisonError::into_inner) = true;
        // The thread may be asleep with the socket open for a moment.
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn echo(mut stream: TcpStream, greeting: &str) {
    if stream.write_all(greeting.as_bytes()).is_err() {
        return;
    }
    let mut buf = [0; 16 * 1024];
    while let Ok(count @ 1..) = stream.read(&mut buf) {
        if stream.write_all(&buf[..count]).is_err() {
            return;
        }
    }
}

/// An original proxy on a host, as far as asking it goes: reads the request, notes it, and answers these bytes. What
/// can be no request it notes as far as it has come, and closes.
pub(crate) struct Original {
    pub(crate) requests: Arc<Mutex<Vec<Vec<u8>>>>,
    _server: Server,
}

/// What it does after its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// It is a tunnel to a pod that sends back what it gets.
    Echo,
    Close,
    /// It says nothing more for a minute.
    Silence,
}

impl Original {
    pub(crate) fn new(network: &Network, host: u8, answer: &'static [u8], then: Then) -> Self {
        Self::where_pods_are(network, host, b"\r\n", answer, then)
    }

    /// One with pods for requests that end so; at others it closes.
    pub(crate) fn where_pods_are(
        network: &Network,
        host: u8,
        end: &'static [u8],
        answer: &'static [u8],
        then: Then,
    ) -> Self {
        let requests: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let noted = requests.clone();
        let server = Server::new(network, host, PEER_PORT, move |mut stream| {
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n")
                && REQUEST.starts_with(&request[..request.len().min(11)])
                && stream.read(&mut byte).is_ok_and(|n| n == 1)
            {
                request.push(byte[0]);
            }
            // Somebody has looked whether there is anybody.
            if request.is_empty() {
                return;
            }
            let has_pod = request.ends_with(end);
            noted.lock().unwrap().push(request);
            if !has_pod {
                return;
            }
            if stream.write_all(answer).is_err() {
                return;
            }
            match then {
                Then::Echo => echo(stream, ""),
                Then::Close => {}
                Then::Silence => {
                    let _ = stream.read(&mut byte);
                }
            }
        });
        Self { requests, _server: server }
    }

    pub(crate) fn asked(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

/// How long something took.
pub(crate) fn timed<T>(what: impl FnOnce() -> T) -> (T, Duration) {
    let began = Instant::now();
    let result = what();
    (result, began.elapsed())
}
