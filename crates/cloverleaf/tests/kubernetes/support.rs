//! Shared by the modules: the control plane, manifests, a gateway that follows it.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use testkit::kubernetes::{Access, Binaries, ControlPlane, Namespace, Options};
use testkit::{Cloverleaf, ConfigBy, Gateway, Isolated, Port, wait_until};

/// The program.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_cloverleaf");

/// For what comes at once on an idle machine: long, because machines are busy.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The control plane of all tests; `None` where none can be had on this machine, which is said. The calling
/// thread is on [`network`] from then on.
pub(crate) fn control() -> Option<&'static ControlPlane> {
    static CONTROL: OnceLock<Option<ControlPlane>> = OnceLock::new();
    enter();
    CONTROL
        .get_or_init(|| {
            let control = own_control()?;
            control.access().apply(CLASS).expect("a class");
            Some(control)
        })
        .as_ref()
}

/// One for a test alone; as [`control`].
pub(crate) fn own_control() -> Option<ControlPlane> {
    enter();
    let binaries = Binaries::for_test()?;
    let control = ControlPlane::start(&binaries, &Options::default());
    Some(control.unwrap_or_else(|error| panic!("a control plane: {error}")))
}

/// Where everything of these tests runs, API servers, gateways and those who answer: Kubernetes takes no
/// loopback address for an endpoint, and nobody outside should be asked by mistake. `None`: on the machine's own
/// network, for want of root.
fn network() -> Option<&'static Isolated> {
    static NETWORK: OnceLock<Option<Isolated>> = OnceLock::new();
    NETWORK.get_or_init(Isolated::new).as_ref()
}

/// Before anything is started: threads and programs are where those are that start them.
fn enter() {
    if let Some(network) = network() {
        network.enter();
    }
}

/// The class of all Ingresses here.
pub(crate) const CLASS: &str = "\
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: cloverleaf}
spec: {controller: cloverleaf/gateway}
";

/// A class of a namespace's own, so that nobody else's Ingresses are written to.
pub(crate) fn own_class(namespace: &Namespace) {
    let name = namespace.name();
    let class = CLASS.replace("name: cloverleaf", &format!("name: {name}"));
    namespace.apply(&class.replace("cloverleaf/gateway", &format!("test/{name}"))).unwrap();
}

/// A gateway that follows a cluster, not started yet. What flags or environment say beside that comes after.
pub(crate) fn gateway(access: &Access) -> Gateway {
    gateway_at(access, &Port::reserve())
}

/// As [`gateway`], with HTTPS on this port.
pub(crate) fn gateway_at(access: &Access, https: &Port) -> Gateway {
    Gateway::new(BINARY, "")
        .config_by(ConfigBy::WorkingDirectory)
        .without_file()
        .arg("--kubernetes")
        .arg(format!("--kubeconfig={}", access.kubeconfig().display()))
        .arg(format!("--https-port={https}"))
        .env("RUST_LOG", "info,kube_client=off")
}

/// One that looks at a namespace alone and writes nothing, ready.
pub(crate) fn reader(access: &Access, namespace: &str) -> Cloverleaf {
    gateway(access).arg(format!("--watch-namespace={namespace}")).arg("--read-only").start()
}

/// A server with one answer, on an address that Kubernetes takes for an endpoint's. Ends when it is dropped.
pub(crate) struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl Server {
    pub(crate) fn start(body: &str) -> Self {
        let listener = TcpListener::bind((own_address(), 0)).expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, answer) = (stop.clone(), ok(body));
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let answer = answer.clone();
                std::thread::spawn(move || answer_all(connection, &answer));
            }
        });
        Self { address, stop }
    }

    /// Where it is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

/// The same answer to each request without a body.
fn answer_all(mut connection: TcpStream, answer: &str) {
    let _ = connection.set_read_timeout(Some(SOON));
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = connection.read(&mut buffer) {
        seen.extend_from_slice(&buffer[..count]);
        while let Some(end) = seen.windows(4).position(|w| w == b"\r\n\r\n") {
            seen.drain(..end + 4);
            if connection.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}

/// `cloverleaf echo` where Kubernetes takes an endpoint to be.
pub(crate) struct Echo {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Echo {
    pub(crate) fn start() -> Self {
        let free = TcpListener::bind((own_address(), 0)).expect("a free port");
        let address = free.local_addr().expect("a bound socket");
        drop(free);
        let mut command = Command::new(BINARY);
        command.args(["echo", "--listen", &address.to_string()]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("an echo");
        assert!(
            wait_until(SOON, || TcpStream::connect(address).is_ok()),
            "the echo does not start"
        );
        Self { child, address }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address that is not a loopback one, where this process can listen. Nothing is sent.
pub(crate) fn own_address() -> IpAddr {
    if let Some(network) = network() {
        return network.address();
    }
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a UDP socket");
    let documentation = Ipv4Addr::new(198, 51, 100, 1);
    let routed = socket.connect((documentation, 9));
    routed.expect("a route: without root this test needs a network beside loopback");
    socket.local_addr().expect("a bound socket").ip()
}

/// A server with this answer, and a Service of this name that leads to it.
pub(crate) fn service(namespace: &Namespace, name: &str, body: &str) -> Server {
    let server = Server::start(body);
    let manifest = endpoints(name, &[server.address.ip().to_string()]);
    let port = format!("port: {}, protocol", server.address.port());
    namespace.apply(&manifest.replace("port: 8080, protocol", &port)).expect("a Service");
    server
}

/// A Service without an address of its own.
pub(crate) fn headless(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n\
         spec: {{clusterIP: None, ports: [{{name: web, port: 80}}]}}\n"
    )
}

/// One of a Service's slices, with one endpoint.
pub(crate) fn endpoint_slice(service: &str, number: usize, at: SocketAddr) -> String {
    let (family, port) = (if at.is_ipv4() { "IPv4" } else { "IPv6" }, at.port());
    format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: {service}-{number}, labels: {{kubernetes.io/service-name: {service}}}}}\n\
         addressType: {family}\nports: [{{name: web, port: {port}, protocol: TCP}}]\n\
         endpoints: [{{addresses: ['{}'], conditions: {{ready: true}}}}]\n",
        at.ip()
    )
}

/// An Ingress with one rule.
pub(crate) fn ingress(name: &str, host: &str, path: &str, service: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: {name}}}\n\
         spec:\n  ingressClassName: cloverleaf\n  rules:\n  - host: {host}\n    http:\n      paths:\n      \
         - {{path: {path}, pathType: Prefix, backend: {{service: {{name: {service}, port: {{name: web}}}}}}}}\n"
    )
}

/// A Service with endpoints that nobody is at.
pub(crate) fn endpoints(name: &str, addresses: &[String]) -> String {
    let quoted: Vec<String> = addresses
        .iter()
        .map(|a| format!("{{addresses: ['{a}'], conditions: {{ready: true}}}}"))
        .collect();
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{name: web, port: 80}}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: {name}-1, labels: {{kubernetes.io/service-name: {name}}}}}\naddressType: IPv4\n\
         ports: [{{name: web, port: 8080, protocol: TCP}}]\nendpoints: [{}]\n",
        quoted.join(", ")
    )
}

/// A Pod with this label (`NAME=VALUE`) that claims paths, and says that it runs at an address: `PORT` in the
/// paths is its port.
pub(crate) fn pod(namespace: &Namespace, label: &str, name: &str, paths: &str, at: SocketAddr) {
    let (label, value) = label.split_once('=').expect("NAME=VALUE");

    let port = at.port();
    let manifest = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": { label: value },
            "annotations": { "github.com/30x.dispatcher.paths": paths.replace("PORT", &port.to_string()) },
        },
        "spec": { "containers": [{
            "name": "web", "image": "none", "ports": [{ "containerPort": port }],
        }] },
    });
    namespace.apply(&manifest.to_string()).unwrap();
    ready(namespace, name, at.ip(), true);
}

/// Says of a Pod that it runs, and whether it is ready.
pub(crate) fn ready(namespace: &Namespace, name: &str, at: IpAddr, ready: bool) {
    let ip = at.to_string();
    let status = serde_json::json!({ "status": {
        "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }],
        "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }],
    } });
    let patch = status.to_string();
    namespace
        .kubectl(
            &["patch", "pod", name, "--subresource=status", "--type=merge", "-p", &patch],
            None,
        )
        .unwrap();
}

/// An answer with a length.
pub(crate) fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Waits until a request is answered so.
pub(crate) fn expect_answer(gateway: &Cloverleaf, host: &str, path: &str, expected: (u16, &str)) {
    let mut last = (0, String::new());
    let came = wait_until(SOON, || {
        let response = gateway.get(host, path);
        last = (response.status, response.text());
        last.0 == expected.0 && last.1.contains(expected.1)
    });
    assert!(came, "{host}{path}: {last:?}, expected {expected:?}");
}

/// Runs a command of the program; exit code and standard output.
pub(crate) fn command(arguments: &[&str]) -> (Option<i32>, String) {
    let ran = testkit::command::run(BINARY, arguments, Path::new("/"), &[]);
    (ran.code, format!("{}{}", ran.stdout, ran.stderr))
}
