//! The stage of a test: a namespace of the cluster with the chart installed in it and backends beside it.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{OnceLock, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use testkit::client::{self, Response};
use testkit::kubernetes::{
    Access, CLOVERLEAF_IMAGE, Cluster, Image, Namespace, REACHABLE_VARIABLE,
};
use testkit::{Helm, Target, wait_until};

/// From an applied object to pods that are ready, on a machine that does other things as well.
pub(crate) const PODS_WITHIN: Duration = Duration::from_secs(90);
/// From an applied object to a gateway that goes by it, kube-proxy included. It takes a second, but for the
/// minute that kubelets and kube-proxy pause after the API server was away.
pub(crate) const SERVED_WITHIN: Duration = Duration::from_secs(90);
/// The name of the release and of what it makes.
pub(crate) const NAME: &str = "cloverleaf";
/// Where echo pods listen.
const ECHO_PORT: u16 = 8000;

/// Read by tests that only look after themselves, written by one that stops parts of the cluster or
/// measures what every request comes to.
static MACHINE: RwLock<()> = RwLock::new(());

/// Who else may use the cluster at the same time.
pub(crate) enum Use {
    Shared {
        _guard: RwLockReadGuard<'static, ()>,
    },
    Alone {
        _guard: RwLockWriteGuard<'static, ()>,
    },
    /// Beside another stage of the same test.
    Beside,
}

impl Use {
    pub(crate) fn shared() -> Self {
        Self::Shared { _guard: MACHINE.read().unwrap_or_else(std::sync::PoisonError::into_inner) }
    }

    pub(crate) fn alone() -> Self {
        Self::Alone { _guard: MACHINE.write().unwrap_or_else(std::sync::PoisonError::into_inner) }
    }
}

/// A file of this repository.
pub(crate) fn file(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

pub(crate) fn read(path: &str) -> String {
    std::fs::read_to_string(file(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Has the program in the cluster, as [`CLOVERLEAF_IMAGE`].
pub(crate) fn load_program(cluster: &Cluster) {
    static LOADED: OnceLock<Result<(), String>> = OnceLock::new();
    let loaded = LOADED.get_or_init(|| {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_cloverleaf"));
        let load = || cluster.load_image(&Image::cloverleaf(&program)?);
        load().map_err(|error| format!("{error}"))
    });
    loaded.as_ref().expect("an image in the cluster");
}

/// The addresses of all nodes.
pub(crate) fn nodes(access: &Access) -> Vec<IpAddr> {
    let nodes = access.get(&["nodes"]).unwrap();
    let nodes = nodes["items"].as_array().unwrap();
    let addresses = nodes.iter().flat_map(|node| node["status"]["addresses"].as_array().unwrap());
    let internal = addresses.filter(|address| address["type"] == "InternalIP");
    internal.map(|address| address["address"].as_str().unwrap().parse().unwrap()).collect()
}

/// A namespace with a release of the chart. Both end with it.
pub(crate) struct Stage {
    pub(crate) cluster: &'static Cluster,
    pub(crate) namespace: Namespace,
    helm: Helm,
    installed: bool,
    _use: Use,
}

impl Stage {
    /// Without the release yet. `None` if the test is to be left out: there is no cluster, or it is
    /// somebody's own, whose Services cannot be reached from here.
    pub(crate) fn set(name: &str, usage: impl FnOnce() -> Use) -> Option<Self> {
        let helm = Helm::for_test()?;
        let cluster = Cluster::for_test()?;
        if !cluster.is_reachable() {
            eprintln!(
                "skipped: it needs a cluster whose Services can be reached from this host; say \
                 {REACHABLE_VARIABLE}=true if they can"
            );
            return None;
        }
        let usage = usage();
        load_program(cluster);
        let namespace = cluster.namespace(name).unwrap();
        Some(Self { cluster, namespace, helm, installed: false, _use: usage })
    }

    pub(crate) fn access(&self) -> &Access {
        self.cluster.access()
    }

    /// The name of the IngressClass and, behind `test.cloverleaf/`, of its controller: this test's alone.
    pub(crate) fn class(&self) -> &str {
        self.namespace.name()
    }

    /// Installs the release, or changes it, and waits until it is ready. `values` is YAML that wins over
    /// what all tests have in common.
    pub(crate) fn install(&mut self, values: &str) {
        let common = format!(
            "fullnameOverride: {NAME}\n\
             image: {{ repository: localhost/cloverleaf, tag: test, pullPolicy: Never }}\n\
             ingressClass: {{ name: {class}, controller: test.cloverleaf/{class} }}\n\
             service: {{ type: ClusterIP }}\n",
            class = self.class()
        );
        let folder = tempfile::tempdir().unwrap();
        let (first, second) =
            (folder.path().join("common.yaml"), folder.path().join("values.yaml"));
        std::fs::write(&first, common).unwrap();
        std::fs::write(&second, values).unwrap();
        let chart = file("deploy/helm/cloverleaf");
        let [chart, first, second] = [&chart, &first, &second].map(|path| path.to_str().unwrap());
        self.installed = true;
        let namespace = self.namespace.name();
        let timeout = format!("{}s", PODS_WITHIN.as_secs());
        let arguments = [
            "upgrade",
            "--install",
            NAME,
            chart,
            "--namespace",
            namespace,
            "--values",
            first,
            "--values",
            second,
            "--wait",
            "--timeout",
            &timeout,
        ];
        let start = Instant::now();
        if let Err(error) = self.helm.run(self.access(), &arguments) {
            panic!("{error}\n{}", self.story());
        }
        eprintln!("{namespace}: installed in {:.1?}", start.elapsed());
    }

    /// Runs helm in a way of the test's own; what it installs is [`NAME`].
    pub(crate) fn helm(&mut self, arguments: &[&str]) {
        self.installed = true;
        if let Err(error) = self.helm.run(self.access(), arguments) {
            panic!("{error}\n{}", self.story());
        }
    }

    /// What the pods of the release have to say, for whoever has to find out why.
    pub(crate) fn story(&self) -> String {
        let ask = |arguments: &[&str]| self.namespace.kubectl(arguments, None).unwrap_or_default();
        let logs =
            ["logs", "-l", "app.kubernetes.io/name=cloverleaf", "--all-containers", "--tail=40"];
        [
            ask(&["get", "pods", "-o", "wide"]),
            ask(&["get", "events", "--sort-by=.lastTimestamp"]),
            ask(&[&logs[..], &["--prefix"]].concat()),
        ]
        .join("\n")
    }

    /// All that the pods of the release have logged.
    pub(crate) fn logs(&self) -> String {
        let arguments =
            ["logs", "-l", "app.kubernetes.io/name=cloverleaf", "--all-containers", "--tail=-1"];
        self.namespace.kubectl(&arguments, None).unwrap()
    }

    /// A Deployment of the echo with a Service of the same name on port 80, waited for. `more` are further
    /// lines of its container.
    pub(crate) fn echo(&self, name: &str, replicas: u32, more: &str) {
        let manifest = format!(
            r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{ name: {name} }}
spec:
  replicas: {replicas}
  selector: {{ matchLabels: {{ app: {name} }} }}
  strategy: {{ rollingUpdate: {{ maxUnavailable: 0, maxSurge: 1 }} }}
  template:
    metadata: {{ labels: {{ app: {name} }} }}
    spec:
      terminationGracePeriodSeconds: 15
      containers:
        - name: echo
          image: {CLOVERLEAF_IMAGE}
          args: [echo, --listen, "0.0.0.0:{ECHO_PORT}"]
          ports: [{{ name: web, containerPort: {ECHO_PORT} }}]
          readinessProbe: {{ httpGet: {{ path: /, port: web }}, periodSeconds: 1 }}
          {more}
---
apiVersion: v1
kind: Service
metadata: {{ name: {name} }}
spec:
  selector: {{ app: {name} }}
  ports: [{{ name: web, port: 80, targetPort: web }}]
"#
        );
        self.namespace.apply(&manifest).unwrap();
        self.rolled_out(name);
    }

    /// Waits until a Deployment is what it should be.
    pub(crate) fn rolled_out(&self, name: &str) {
        let timeout = format!("--timeout={}s", PODS_WITHIN.as_secs());
        let name = format!("deployment/{name}");
        if let Err(error) = self.namespace.kubectl(&["rollout", "status", &name, &timeout], None) {
            panic!("{error}\n{}", self.story());
        }
    }

    /// An Ingress of this test's class, from a host to the Service of the same first name.
    pub(crate) fn ingress(&self, host: &str) {
        let name = host.split('.').next().unwrap();
        let rule = format!("--rule={host}/*={name}:web");
        let class = format!("--class={}", self.class());
        self.namespace.kubectl(&["create", "ingress", name, &class, &rule], None).unwrap();
    }

    /// The gateway's Service: reached from this host through kube-proxy.
    pub(crate) fn address(&self) -> SocketAddr {
        (self.service(NAME), 80).into()
    }

    /// The address of a Service.
    pub(crate) fn service(&self, name: &str) -> IpAddr {
        let service = self.namespace.get(&["service", name]).unwrap();
        service["spec"]["clusterIP"].as_str().unwrap().parse().unwrap()
    }

    pub(crate) fn target(&self, host: &str) -> Target {
        Target { address: self.address(), host: host.to_owned() }
    }

    /// Asks until the answer has this status, on a new connection each time.
    pub(crate) fn expect(
        &self,
        address: SocketAddr,
        host: &str,
        path: &str,
        status: u16,
    ) -> Response {
        let mut last = None;
        let came = wait_until(SERVED_WITHIN, || {
            let request =
                format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            last =
                client::Client::try_connect(address).ok().and_then(|mut c| c.request(request).ok());
            last.as_ref().is_some_and(|response| response.status == status)
        });
        match last {
            Some(response) if came => response,
            last => panic!("{host}{path}: {last:?} instead of {status}\n{}", self.story()),
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if std::thread::panicking() && self.installed {
            eprintln!("{}", self.story());
        }
        if self.installed {
            let arguments = ["uninstall", NAME, "--namespace", self.namespace.name()];
            if let Err(error) = self.helm.run(self.cluster.access(), &arguments) {
                eprintln!("{error}");
            }
        }
    }
}
