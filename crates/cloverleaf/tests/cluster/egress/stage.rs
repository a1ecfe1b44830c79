//! What surrounds the API server under test: servers of the tunnel on this host, agents on the nodes, a pod to look at,
//! and what answers webhooks and an aggregated API.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use testkit::answering::Asked;
use testkit::certs::Wanted;
use testkit::kubernetes::{Access, ApiServer, CLOVERLEAF_IMAGE, Cluster, Namespace};
use testkit::{Authority, Balancer, Port, answer_https, wait_until};

use super::GRACE;
use crate::support::{PODS_WITHIN, Use, load_program, read};

pub(super) const AGENTS: &str = "konnectivity_network_proxy_server_ready_backend_connections";
pub(super) const AUDIENCE: &str = "system:konnectivity-server";
pub(super) const ECHO_PORT: u16 = 8000;
/// In the files of deploy/konnectivity.
const SOCKET_IN_FILE: &str = "/etc/kubernetes/konnectivity-server/konnectivity-server.socket";

/// How the API server speaks with the tunnel's server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// gRPC over a Unix socket.
    Grpc,
    /// HTTP CONNECT over TCP with certificates.
    HttpConnect,
}

pub(super) struct Stage {
    cluster: &'static Cluster,
    pub(super) namespace: Namespace,
    pub(super) hook: Hook,
    folder: tempfile::TempDir,
    /// Of the certificates between API server and server, and of webhooks.
    authority: Authority,
    balancer: Balancer,
    server_access: Access,
    servers: Mutex<Vec<SocketAddr>>,
    pod: String,
    _use: Use,
}

impl Stage {
    /// `None` if the test is to be left out: there is no cluster of our own.
    pub(super) fn set() -> Option<Self> {
        let cluster = Cluster::for_test()?;
        if !cluster.is_ours() {
            eprintln!("skipped: it needs an API server of its own, of a test cluster of ours");
            return None;
        }
        load_program(cluster);
        let usage = Use::shared();
        let namespace = cluster.namespace("egress").unwrap();
        let authority = Authority::new();
        let host = IpAddr::from(Cluster::host_address());
        let hook = Hook::start(host, &authority, namespace.name());
        let name = namespace.name();
        // Rights of the servers, as a service account here where a static Pod has a certificate.
        namespace.kubectl(&["create", "serviceaccount", "server"], None).unwrap();
        let rights = read("deploy/konnectivity/rights.yaml")
            .replace("kube-system", name)
            .replace("name: system:konnectivity-server\nroleRef", &format!("name: {name}\nroleRef"))
            .replace(
                "name: system:konnectivity-server",
                &format!("name: system:serviceaccount:{name}:server"),
            );
        cluster.access().apply(&rights).unwrap();
        let server_access = cluster.access().as_service_account(name, "server").unwrap();
        let pod = echo_pod(&namespace);
        let stage = Self {
            cluster,
            hook,
            folder: tempfile::tempdir().unwrap(),
            authority,
            balancer: Balancer::listen(host, &[]),
            server_access,
            servers: Mutex::default(),
            pod,
            namespace,
            _use: usage,
        };
        stage.register_hook();
        stage.apply_agents(false);
        Some(stage)
    }

    pub(super) fn pod(&self) -> &str {
        &self.pod
    }

    /// The group of the aggregated API.
    pub(super) fn group(&self) -> String {
        format!("{}.test", self.namespace.name())
    }

    /// The Leases of servers.
    pub(super) fn leases(&self) -> Vec<String> {
        let names = self.namespace.kubectl(&["get", "leases", "-o", "name"], None).unwrap();
        names.lines().filter_map(|name| Some(name.split_once('/')?.1.to_owned())).collect()
    }

    pub(super) fn logs(&self, access: &Access) -> Result<String, String> {
        let arguments = ["-n", self.namespace.name(), "logs", self.pod()];
        access.kubectl(&arguments, None).map_err(|error| error.to_string())
    }

    /// A server on this host, found by agents at the balancer's address from now on.
    pub(super) fn server(&self, mode: Mode, name: &str) -> Beside {
        let server = Beside::start(self, mode, name);
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers.push(server.agents);
        self.balancer.set(&servers);
        server
    }

    /// One more API server of the cluster, which goes through that server.
    pub(super) fn api_server(&self, port: u16, server: &Beside) -> ApiServer {
        let text = read("deploy/konnectivity/egress-selector-configuration.yaml");
        let socket = server.socket.display().to_string();
        let uds = format!("uds:\n          udsName: {SOCKET_IN_FILE}");
        assert!(text.contains(&uds));
        let text = match server.mode {
            Mode::Grpc => text.replace(SOCKET_IN_FILE, &socket),
            Mode::HttpConnect => {
                let client = self.authority.issue(&Wanted::client("kube-apiserver"));
                let tcp = format!(
                    "tcp:\n          url: https://{}\n          tlsConfig: {{caBundle: {}, clientCert: {}, \
                     clientKey: {}}}",
                    server.clients,
                    self.authority.file().display(),
                    client.chain_file.display(),
                    client.key_file.display()
                );
                text.replace("proxyProtocol: GRPC", "proxyProtocol: HTTPConnect")
                    .replace(&uds, &tcp)
            }
        };
        let file = self.folder.path().join(format!("egress-{port}.yaml"));
        std::fs::write(&file, text).unwrap();
        let flag = format!("--egress-selector-config-file={}", file.display());
        self.cluster.another_api_server(port, &[flag]).unwrap()
    }

    /// The manifest of agents, with rights alone or whole.
    fn apply_agents(&self, whole: bool) {
        let at = self.balancer.address();
        let name = self.namespace.name();
        let text = read("deploy/konnectivity/agent.yaml");
        for part in ["PROXY_SERVER_HOST", "--proxy-server-port=8132", "--count-server-leases"] {
            assert!(text.contains(part), "{part}");
        }
        let text = text
            .replace("namespace: kube-system", &format!("namespace: {name}"))
            .replace("localhost/cloverleaf:0.1.0", CLOVERLEAF_IMAGE)
            .replace("host=PROXY_SERVER_HOST", &format!("host={}", at.ip()))
            .replace("--proxy-server-port=8132", &format!("--proxy-server-port={}", at.port()))
            .replace(
                "- --count-server-leases",
                &format!("- --count-server-leases\n            - --lease-namespace={name}"),
            )
            // Outside of kube-system nobody is that important.
            .replace("      priorityClassName: system-cluster-critical\n", "");
        let parts: Vec<&str> = text.split("\n---\n").collect();
        let (daemon_set, rights) = parts.split_last().unwrap();
        assert!(daemon_set.contains("kind: DaemonSet"));
        let text = if whole { text.clone() } else { rights.join("\n---\n") };
        self.namespace.apply(&text).unwrap();
    }

    /// Agents on both nodes.
    pub(super) fn start_agents(&self) {
        self.apply_agents(true);
    }

    /// As when the power of one of them fails; another takes its place.
    pub(super) fn kill_an_agent(&self) {
        let pods = ["get", "pods", "-l", "k8s-app=konnectivity-agent", "-o", "name"];
        let pods = self.namespace.kubectl(&pods, None).unwrap();
        let pod = pods.lines().next().unwrap();
        let delete = ["delete", pod, "--force", "--grace-period=0", "--wait=false"];
        self.namespace.kubectl(&delete, None).unwrap();
    }

    /// An agent on this host with that token.
    pub(super) fn agent_with(&self, token: &str) -> Program {
        let file = self.folder.path().join("token");
        std::fs::write(&file, token).unwrap();
        let (health, admin) = (Port::reserve(), Port::reserve());
        let at = self.balancer.address();
        let authority = self.cluster_authority();
        let arguments = [
            "agent".to_owned(),
            format!("--ca-cert={}", authority.display()),
            format!("--proxy-server-host={}", at.ip()),
            format!("--proxy-server-port={}", at.port()),
            format!("--health-server-port={health}"),
            "--health-server-host=127.0.0.1".to_owned(),
            format!("--admin-server-port={admin}"),
            format!("--service-account-token-path={}", file.display()),
            "--sync-interval=200ms".to_owned(),
        ];
        Program::start(self.folder.path(), "agent", &arguments)
    }

    /// The cluster's authority, as every pod has it.
    fn cluster_authority(&self) -> PathBuf {
        let file = self.folder.path().join("cluster-ca.crt");
        let arguments = ["get", "configmap", "kube-root-ca.crt", "-o", r"jsonpath={.data.ca\.crt}"];
        std::fs::write(&file, self.namespace.kubectl(&arguments, None).unwrap()).unwrap();
        file
    }

    /// Has API servers ask the hook: a Service without pods that leads to this host, a webhook, and an aggregated API.
    fn register_hook(&self) {
        let (name, group) = (self.namespace.name(), self.group());
        let bundle = base64(self.authority.pem());
        let at = self.hook.address;
        let service = json!({ "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": "hook", "namespace": name },
            "spec": { "ports": [{ "port": 443, "targetPort": at.port() }] } });
        let slice = json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": { "name": "hook", "namespace": name,
                "labels": { "kubernetes.io/service-name": "hook" } },
            "addressType": "IPv4", "ports": [{ "port": at.port() }],
            "endpoints": [{ "addresses": [at.ip().to_string()] }] });
        let hook = json!({ "name": format!("hook.{group}"), "sideEffects": "None",
            "admissionReviewVersions": ["v1"], "failurePolicy": "Fail", "timeoutSeconds": 10,
            "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": name } },
            "objectSelector": { "matchExpressions": [{ "key": "egress", "operator": "Exists" }] },
            "rules": [{ "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
                "resources": ["configmaps"] }],
            "clientConfig": { "caBundle": bundle,
                "service": { "namespace": name, "name": "hook", "path": "/hook" } } });
        let webhook = json!({ "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": { "name": name }, "webhooks": [hook] });
        let api = json!({ "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": { "name": format!("v1.{group}") },
            "spec": { "group": group, "version": "v1", "caBundle": bundle,
                "groupPriorityMinimum": 10, "versionPriority": 10,
                "service": { "namespace": name, "name": "hook", "port": 443 } } });
        for object in [service, slice, webhook, api] {
            self.cluster.access().apply(&object.to_string()).unwrap();
        }
    }

    /// What servers and agents have to say, for whoever has to find out why.
    pub(super) fn story(&self, server: &Beside) -> String {
        let ask = |arguments: &[&str]| self.namespace.kubectl(arguments, None).unwrap_or_default();
        let logs = ["logs", "-l", "k8s-app=konnectivity-agent", "--tail=40", "--prefix"];
        [ask(&["get", "pods", "-o", "wide"]), ask(&logs), server.log()].join("\n")
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // What belongs to the whole cluster would trouble others.
        let (name, group) = (self.namespace.name(), self.group());
        for object in [
            format!("apiservice/v1.{group}"),
            format!("validatingwebhookconfiguration/{name}"),
            format!("clusterrolebinding/{name}"),
        ] {
            let delete = ["delete", &object, "--ignore-not-found", "--wait=false"];
            if let Err(error) = self.cluster.access().kubectl(&delete, None) {
                eprintln!("{error}");
            }
        }
    }
}

/// A pod that runs the echo; its name.
fn echo_pod(namespace: &Namespace) -> String {
    let manifest = format!(
        "apiVersion: v1
kind: Pod
metadata: {{ name: echo }}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: echo
      image: {CLOVERLEAF_IMAGE}
      args: [echo, --listen, '0.0.0.0:{ECHO_PORT}']
"
    );
    namespace.apply(&manifest).unwrap();
    namespace.wait("condition=Ready", &["pod/echo"], PODS_WITHIN).unwrap();
    "echo".to_owned()
}

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// The program as a process. Killed when dropped.
pub(super) struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    fn start(folder: &Path, name: &str, arguments: &[String]) -> Self {
        let log = folder.join(format!("{name}.log"));
        let file = std::fs::File::options().create(true).append(true).open(&log).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_cloverleaf"))
            .arg("tunnel")
            .args(arguments)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .unwrap();
        Self { child, log }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server beside the API server.
pub(super) struct Beside {
    mode: Mode,
    program: Program,
    socket: PathBuf,
    /// Where clients connect over TCP.
    clients: SocketAddr,
    /// Where agents do.
    agents: SocketAddr,
    health: Port,
    _admin: Port,
}

impl Beside {
    fn start(stage: &Stage, mode: Mode, name: &str) -> Self {
        let host = IpAddr::from(Cluster::host_address());
        let free = || SocketAddr::new(host, free_port(host));
        let (clients, agents) = (free(), free());
        let (health, admin) = (Port::reserve(), Port::reserve());
        let folder = stage.folder.path();
        let socket = folder.join(format!("{name}.sock"));
        let (certificate, key) =
            stage.cluster.server_certificate("konnectivity", &[&host.to_string()]).unwrap();
        let namespace = stage.namespace.name();
        let mut arguments = vec!["server".to_owned()];
        let mut flag = |name: &str, value: &dyn std::fmt::Display| {
            arguments.push(format!("--{name}={value}"));
        };
        match mode {
            Mode::Grpc => {
                flag("mode", &"grpc");
                flag("uds-name", &socket.display());
                flag("server-port", &0);
            }
            Mode::HttpConnect => {
                let shown = stage.authority.server(&[&host.to_string()]);
                flag("mode", &"http-connect");
                flag("server-cert", &shown.chain_file.display());
                flag("server-key", &shown.key_file.display());
                flag("server-ca-cert", &stage.authority.file().display());
                flag("server-port", &clients.port());
                flag("server-bind-address", &host);
            }
        }
        flag("cluster-cert", &certificate.display());
        flag("cluster-key", &key.display());
        flag("agent-port", &agents.port());
        flag("agent-bind-address", &host);
        flag("health-port", &health);
        flag("health-bind-address", &"127.0.0.1");
        flag("admin-port", &admin);
        flag("agent-namespace", &namespace);
        flag("agent-service-account", &"konnectivity-agent");
        flag("authentication-audience", &AUDIENCE);
        flag("kubeconfig", &stage.server_access.kubeconfig().display());
        flag("enable-lease-controller", &true);
        flag("lease-namespace", &namespace);
        flag("server-id", &name);
        flag("graceful-shutdown-timeout", &format!("{}s", GRACE.as_secs()));
        let program = Program::start(folder, name, &arguments);
        let beside = Self { mode, program, socket, clients, agents, health, _admin: admin };
        let up = || std::net::TcpStream::connect(beside.health()).is_ok();
        assert!(wait_until(PODS_WITHIN, up), "{}", beside.log());
        beside
    }

    pub(super) fn health(&self) -> SocketAddr {
        self.health.address()
    }

    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(&self.program.log).unwrap_or_default()
    }

    /// New clients come to it from now on: its socket gets the other's name.
    pub(super) fn take_the_place_of(&mut self, other: &Self) {
        std::fs::rename(&self.socket, &other.socket).unwrap();
        self.socket.clone_from(&other.socket);
    }

    pub(super) fn terminate(&self) {
        let pid = self.program.child.id().to_string();
        assert!(Command::new("kill").args(["-s", "TERM", &pid]).status().unwrap().success());
    }

    pub(super) fn wait_exit(&mut self) -> Option<i32> {
        let mut status = None;
        let ended = || {
            status = self.program.child.try_wait().unwrap();
            status.is_some()
        };
        assert!(wait_until(PODS_WITHIN, ended), "still running");
        status.and_then(|status| status.code())
    }
}

fn free_port(host: IpAddr) -> u16 {
    std::net::TcpListener::bind((host, 0)).unwrap().local_addr().unwrap().port()
}

/// What answers a webhook at /hook and an aggregated API at /apis, and notes who asked.
pub(super) struct Hook {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<(String, IpAddr)>>>,
}

impl Hook {
    fn start(host: IpAddr, authority: &Authority, namespace: &str) -> Self {
        let certificate = authority.server(&[&format!("hook.{namespace}.svc")]);
        let asked: Arc<Mutex<Vec<(String, IpAddr)>>> = Arc::default();
        let (notes, group) = (asked.clone(), format!("{namespace}.test"));
        let address = answer_https(host, &certificate, move |asked| {
            let path = asked.path.split('?').next().unwrap_or_default().to_owned();
            let mut notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
            notes.push((path.clone(), asked.peer.ip()));
            answer(&path, &group, asked)
        });
        Self { address, asked }
    }

    /// Forgets who has asked.
    pub(super) fn forget(&self) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Who has asked for this.
    pub(super) fn askers(&self, path: &str) -> Vec<IpAddr> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.iter().filter(|(at, _)| at == path).map(|(_, ip)| *ip).collect()
    }
}

fn answer(path: &str, group: &str, asked: &Asked) -> (u16, String) {
    if path == "/hook" {
        let review: Value = serde_json::from_slice(&asked.body).unwrap_or_default();
        let allowed = review["request"]["object"]["metadata"]["labels"]["egress"] == "allowed";
        let response = json!({ "uid": review["request"]["uid"], "allowed": allowed,
            "status": { "message": "refused by the test" } });
        let review = json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "response": response });
        return (200, review.to_string());
    }
    let version = format!("{group}/v1");
    let answer = if path == format!("/apis/{version}") {
        json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version,
            "resources": [{ "name": "answers", "singularName": "answer", "namespaced": false,
                "kind": "Answer", "verbs": ["get"] }] })
    } else if path == format!("/apis/{version}/answers") {
        json!({ "kind": "AnswerList", "apiVersion": version, "items": [] })
    } else {
        let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure",
            "reason": "NotFound", "code": 404 });
        return (404, status.to_string());
    };
    (200, answer.to_string())
}
