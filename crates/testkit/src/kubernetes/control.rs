//! The control plane: etcd and the API server, and on request the controller manager and the scheduler.
//! Here are the programs' flags and the order of starting; where they listen is a [`Place`].

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::ports::Port;
use crate::wait::wait_until;

use super::access::{Access, kubeconfig};
use super::binaries::Binaries;
use super::error::{Error, make_folder};
use super::pki::{ACCOUNTS, AUTHORITY, FRONT_PROXY_AUTHORITY, Pki, write_secret};
use super::service::{Service, Tie};

/// From start to an API server that says that it is ready.
pub const CONTROL_PLANE_READY_WITHIN: Duration = Duration::from_secs(60);

/// The addresses of Services, outside of every real network that a test may meet.
pub(super) const SERVICES: &str = "10.96.0.0/16";
const API_SERVER: &str = "kube-apiserver";
/// Keeps what a test writes from filling a disk.
const ETCD_BYTES_MAX: u64 = 1 << 30;

/// What is wanted of a control plane beyond etcd and an API server.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// With the controller manager: garbage collection, EndpointSlices, service accounts of namespaces.
    pub controller_manager: bool,
    /// With the scheduler, which has nothing to do without nodes.
    pub scheduler: bool,
    /// More flags for the API server.
    pub api_server_flags: Vec<String>,
}

/// A control plane alone on the loopback address, with data of its own. Several stand side by side. It is
/// killed when it is dropped, and when the test's process ends in any other way.
#[derive(Debug)]
pub struct ControlPlane {
    core: Core,
    access: Access,
    address: SocketAddr,
    /// Kept, so that the API server comes back where it was.
    _ports: [Port; 3],
    _folder: TempDir,
}

impl ControlPlane {
    /// Starts one and waits until it is ready, which takes about two seconds.
    ///
    /// # Errors
    /// If a program does not start or is not ready within [`CONTROL_PLANE_READY_WITHIN`].
    pub fn start(binaries: &Binaries, options: &Options) -> Result<Self, Error> {
        let folder = tempfile::tempdir().map_err(Error::io("make a temporary folder"))?;
        let ports = [Port::reserve(), Port::reserve(), Port::reserve()];
        let place = Place::loopback(&ports);
        let pki = Pki::create(&folder.path().join("pki"))?;
        let mut core = Core::new(binaries, folder.path(), &pki, &place, options, Tie::Process)?;
        let access = admin(binaries, folder.path(), &pki, &place)?;
        core.start(&access, |_| Ok(()))?;
        let address = ports[0].address();
        Ok(Self { core, access, address, _ports: ports, _folder: folder })
    }

    /// The administrator's access, who may do everything.
    #[must_use]
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// The administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        self.access.kubeconfig()
    }

    /// Where the API server listens, with TLS.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// As [`Access::kubectl`].
    ///
    /// # Errors
    /// As [`Access::kubectl`].
    pub fn kubectl(&self, arguments: &[&str], stdin: Option<&str>) -> Result<String, Error> {
        self.access.kubectl(arguments, stdin)
    }

    /// Access for a user of this name, and of this group if one is named, with the rights that RBAC gives
    /// them: at first none.
    ///
    /// # Errors
    /// If the certificate or the kubeconfig cannot be written.
    pub fn as_user(&self, user: &str, group: Option<&str>) -> Result<Access, Error> {
        let pki = Pki::open(&self._folder.path().join("pki"));
        let signed = pki.client(&format!("user-{user}"), user, group)?;
        let server = format!("https://{}", self.address);
        self.access.with_kubeconfig(user, &kubeconfig(&server, &pki.authority_pem()?, &signed))
    }

    /// Kills the API server: connections break, new ones are refused. The data stays.
    ///
    /// # Errors
    /// If it does not end.
    pub fn stop_api_server(&mut self) -> Result<(), Error> {
        self.core.stop_api_server()
    }

    /// Starts it again where it was, and waits until it is ready.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_api_server(&mut self) -> Result<(), Error> {
        self.core.start_api_server(&self.access)
    }

    /// The memory of all its processes in bytes, what they share counted once (PSS).
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.core.memory_bytes()
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.core.api_server_log());
        }
        self.core.kill();
    }
}

/// One more API server of a cluster, with flags of its own. Killed when dropped, and when the test's process ends.
#[derive(Debug)]
pub struct ApiServer {
    service: Service,
    access: Access,
}

impl ApiServer {
    /// Starts it and waits until it is ready.
    pub(super) fn start(
        binaries: &Binaries,
        folder: &Path,
        pki: &Pki,
        place: &Place,
        like: &Access,
        flags: &[String],
    ) -> Result<Self, Error> {
        let name = format!("{API_SERVER}-{}", place.api.port());
        let program = binaries.program(API_SERVER).display().to_string();
        let mut all = api_server_flags(pki, place);
        // The Service of API servers leads to the first one alone.
        all.push("--endpoint-reconciler-type=none".to_owned());
        all.extend(flags.iter().cloned());
        let command = [place.enter.clone(), vec![program], all].concat();
        let mut service = Service::new(&name, command, &folder.join("log"), Tie::Process);
        let signed = pki.client(&format!("admin-{name}"), "admin", Some("system:masters"))?;
        let server = format!("https://{}", place.api);
        let config = kubeconfig(&server, &pki.authority_pem()?, &signed);
        let access = like.with_kubeconfig(&name, &config)?;
        service.start()?;
        let started = Self { service, access };
        ready(&started.service, &started.access)?;
        Ok(started)
    }

    /// The administrator's access to the cluster by way of this one.
    #[must_use]
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// The end of its log.
    #[must_use]
    pub fn log(&self) -> String {
        self.service.late("success", Duration::ZERO).to_string()
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        if let Err(error) = self.service.stop(Duration::ZERO) {
            eprintln!("{error}");
        }
    }
}

/// Where a control plane listens.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// Put before each command: enters a network namespace, or nothing.
    pub(super) enter: Vec<String>,
    pub(super) api: SocketAddr,
    /// What EndpointSlices say of the API server; loopback addresses are refused there.
    pub(super) advertised: String,
    pub(super) etcd: SocketAddr,
    pub(super) etcd_peer: SocketAddr,
}

impl Place {
    /// On the loopback address.
    pub(super) fn loopback(ports: &[Port; 3]) -> Self {
        Self {
            enter: Vec::new(),
            api: ports[0].address(),
            // An address for documentation: nobody asks for it without nodes.
            advertised: "192.0.2.1".to_owned(),
            etcd: ports[1].address(),
            etcd_peer: ports[2].address(),
        }
    }
}

/// The administrator's kubeconfig and access.
pub(super) fn admin(
    binaries: &Binaries,
    folder: &Path,
    pki: &Pki,
    place: &Place,
) -> Result<Access, Error> {
    let file = folder.join("admin.kubeconfig");
    let signed = pki.client("admin", "admin", Some("system:masters"))?;
    let server = format!("https://{}", place.api);
    write_secret(&file, &kubeconfig(&server, &pki.authority_pem()?, &signed).to_string())?;
    Ok(Access::new(binaries.program("kubectl"), file, &folder.join("access")))
}

/// The programs of a control plane, started in this order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Core {
    pub(super) services: Vec<Service>,
}

impl Core {
    /// The programs with their flags and certificates; nothing is started.
    pub(super) fn new(
        binaries: &Binaries,
        folder: &Path,
        pki: &Pki,
        place: &Place,
        options: &Options,
        tie: Tie,
    ) -> Result<Self, Error> {
        let logs = folder.join("log");
        make_folder(&logs)?;
        certificates(pki, place)?;
        let service = |name: &str, flags: Vec<String>| {
            let program = binaries.program(name).display().to_string();
            let command = [place.enter.clone(), vec![program], flags].concat();
            Service::new(name, command, &logs, tie)
        };
        let mut flags = api_server_flags(pki, place);
        flags.extend(options.api_server_flags.iter().cloned());
        let mut services = vec![
            service("etcd", etcd_flags(&folder.join("etcd"), place)),
            service(API_SERVER, flags),
        ];
        let wanted = [
            ("kube-controller-manager", options.controller_manager),
            ("kube-scheduler", options.scheduler),
        ];
        for (name, _) in wanted.into_iter().filter(|(_, wanted)| *wanted) {
            let config = client_config(folder, pki, place, name)?;
            let mut flags = controller_flags(&config);
            if name == "kube-controller-manager" {
                flags.extend(manager_flags(pki));
            }
            services.push(service(name, flags));
        }
        Ok(Self { services })
    }

    /// Starts all of them; the API server is ready afterwards. After each start `started` hears of it, so
    /// that whoever comes after a sudden end knows what runs.
    pub(super) fn start(
        &mut self,
        access: &Access,
        mut started: impl FnMut(&Self) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for index in 0..self.services.len() {
            self.services[index].start()?;
            started(self)?;
            if self.services[index].name == API_SERVER {
                ready(&self.services[index], access)?;
            }
        }
        Ok(())
    }

    /// With those that would give up when they cannot renew their leases, if they had any. Left running they
    /// would come back from their pauses after up to a minute and believe until then what they last saw, such
    /// as nodes that are not ready.
    pub(super) fn stop_api_server(&mut self) -> Result<(), Error> {
        self.services[1..].iter_mut().rev().try_for_each(|service| service.stop(Duration::ZERO))
    }

    pub(super) fn start_api_server(&mut self, access: &Access) -> Result<(), Error> {
        let service = self.api_server();
        service.start()?;
        ready(service, access)?;
        self.services[2..].iter_mut().try_for_each(Service::start)
    }

    /// Whether etcd runs, without which nothing does.
    pub(super) fn alive(&self) -> bool {
        self.services.first().is_some_and(Service::alive)
    }

    /// Ends all of them at once: there is nothing to save.
    pub(super) fn kill(&mut self) {
        for service in self.services.iter_mut().rev() {
            if let Err(error) = service.stop(Duration::ZERO) {
                eprintln!("{error}");
            }
        }
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        let pids = self.services.iter().filter_map(Service::running);
        pids.map(|running| memory_bytes(running.pid)).sum()
    }

    fn api_server_log(&self) -> Error {
        self.services[1].late("success", Duration::ZERO)
    }

    /// The second service, always.
    fn api_server(&mut self) -> &mut Service {
        &mut self.services[1]
    }
}

/// The proportional set size of a process; 0 if it has ended.
pub(super) fn memory_bytes(pid: i32) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let kib = rollup.lines().find_map(|line| line.strip_prefix("Pss:")?.split_whitespace().next());
    kib.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}

fn ready(service: &Service, access: &Access) -> Result<(), Error> {
    let mut ended = false;
    let ready = wait_until(CONTROL_PLANE_READY_WITHIN, || {
        ended = !service.alive();
        ended || access.ready()
    });
    if ready && !ended {
        return Ok(());
    }
    Err(service.late("readiness", CONTROL_PLANE_READY_WITHIN))
}

fn certificates(pki: &Pki, place: &Place) -> Result<(), Error> {
    let address = place.api.ip().to_string();
    let names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
        "127.0.0.1",
        // The first address of SERVICES, which pods know the API server by.
        "10.96.0.1",
        &address,
    ];
    pki.server("apiserver", "kube-apiserver", &names)?;
    pki.client("apiserver-kubelet", "kube-apiserver", Some("system:masters"))?;
    pki.client_of(FRONT_PROXY_AUTHORITY, "front-proxy", "front-proxy", None)?;
    Ok(())
}

fn etcd_flags(data: &Path, place: &Place) -> Vec<String> {
    let client = format!("http://{}", place.etcd);
    let peer = format!("http://{}", place.etcd_peer);
    vec![
        "--name=default".to_owned(),
        format!("--data-dir={}", data.display()),
        // A machine that loses power loses the test as well.
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
        format!("--quota-backend-bytes={ETCD_BYTES_MAX}"),
    ]
}

fn api_server_flags(pki: &Pki, place: &Place) -> Vec<String> {
    let (crt, key) = (
        |name: &str| pki.certificate_file(name).display().to_string(),
        |name: &str| pki.key_file(name).display().to_string(),
    );
    let accounts = pki.folder().join(format!("{ACCOUNTS}.pub"));
    vec![
        format!("--etcd-servers=http://{}", place.etcd),
        format!("--bind-address={}", place.api.ip()),
        format!("--secure-port={}", place.api.port()),
        format!("--advertise-address={}", place.advertised),
        format!("--tls-cert-file={}", crt("apiserver")),
        format!("--tls-private-key-file={}", key("apiserver")),
        format!("--client-ca-file={}", crt(AUTHORITY)),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
        format!("--service-account-key-file={}", accounts.display()),
        format!("--service-account-signing-key-file={}", key(ACCOUNTS)),
        format!("--service-cluster-ip-range={SERVICES}"),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--allow-privileged=true".to_owned(),
        format!("--kubelet-client-certificate={}", crt("apiserver-kubelet")),
        format!("--kubelet-client-key={}", key("apiserver-kubelet")),
        format!("--kubelet-certificate-authority={}", crt(AUTHORITY)),
        "--kubelet-preferred-address-types=InternalIP,Hostname".to_owned(),
        format!("--requestheader-client-ca-file={}", crt(FRONT_PROXY_AUTHORITY)),
        "--requestheader-allowed-names=front-proxy".to_owned(),
        "--requestheader-username-headers=X-Remote-User".to_owned(),
        "--requestheader-group-headers=X-Remote-Group".to_owned(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
        format!("--proxy-client-cert-file={}", crt("front-proxy")),
        format!("--proxy-client-key-file={}", key("front-proxy")),
        "--profiling=false".to_owned(),
        "--shutdown-delay-duration=0s".to_owned(),
    ]
}

/// What the controller manager and the scheduler have in common. They serve nothing themselves.
fn controller_flags(config: &Path) -> Vec<String> {
    let config = config.display();
    vec![
        format!("--kubeconfig={config}"),
        format!("--authentication-kubeconfig={config}"),
        format!("--authorization-kubeconfig={config}"),
        "--secure-port=0".to_owned(),
        "--leader-elect=false".to_owned(),
    ]
}

fn manager_flags(pki: &Pki) -> Vec<String> {
    let authority = pki.certificate_file(AUTHORITY).display().to_string();
    vec![
        "--use-service-account-credentials=true".to_owned(),
        format!("--service-account-private-key-file={}", pki.key_file(ACCOUNTS).display()),
        format!("--root-ca-file={authority}"),
        format!("--cluster-signing-cert-file={authority}"),
        format!("--cluster-signing-key-file={}", pki.key_file(AUTHORITY).display()),
        // A node that is gone is noticed in 20 s instead of 50.
        "--node-monitor-grace-period=20s".to_owned(),
        "--node-monitor-period=2s".to_owned(),
    ]
}

/// A kubeconfig for one of Kubernetes' own programs, known as `system:NAME`.
pub(super) fn client_config(
    folder: &Path,
    pki: &Pki,
    place: &Place,
    name: &str,
) -> Result<PathBuf, Error> {
    let signed = pki.client(name, &format!("system:{name}"), None)?;
    let file = folder.join(format!("{name}.kubeconfig"));
    let server = format!("https://{}", place.api);
    write_secret(&file, &kubeconfig(&server, &pki.authority_pem()?, &signed).to_string())?;
    Ok(file)
}
