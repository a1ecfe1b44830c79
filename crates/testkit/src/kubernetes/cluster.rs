//! The cluster with nodes: one a machine, used by `cargo xtask cluster` and by tests. Here is the order of
//! starting and stopping, and who may use whose cluster; the parts are in the files beside.
//!
//! Start with [`Cluster::for_test`].

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::ports::Port;

use super::access::{Access, Namespace};
use super::binaries::{Binaries, left_out, variable};
use super::command::run;
use super::control::{ApiServer, Core, Options, Place, admin, memory_bytes};
use super::error::{Error, make_folder};
use super::image::Image;
use super::network;
use super::node;
use super::pki::Pki;
use super::service::{Running, Service, Tie};
use super::state::{Lock, State, folder, is_root};

/// Names the kubeconfig of a cluster that the tests are to use instead of starting one. Not `KUBECONFIG`:
/// that may well name a cluster on which no test should ever run.
pub const KUBECONFIG_VARIABLE: &str = "CLOVERLEAF_TEST_KUBECONFIG";
/// The command that loads an image archive into that cluster, such as `kind load image-archive`; the
/// archive is its last argument.
pub const LOAD_VARIABLE: &str = "CLOVERLEAF_TEST_LOAD";
/// `true`: pods and Services of that cluster can be reached from this host by their addresses, and its nodes'
/// processes are processes of this host.
pub const REACHABLE_VARIABLE: &str = "CLOVERLEAF_TEST_REACHABLE";

/// From the API server being ready to nodes that are.
pub const NODES_READY_WITHIN: Duration = Duration::from_secs(60);
/// How long a test waits for another test's cluster to go away.
pub const MACHINE_FREE_WITHIN: Duration = Duration::from_secs(300);
/// What loading an image may take.
const LOADED_WITHIN: Duration = Duration::from_secs(120);
/// Between two looks at whether the machine is free.
const LOOK_EVERY: Duration = Duration::from_millis(200);

const COREDNS_IMAGE: &str = "localhost/cloverleaf-coredns:test";
const COREDNS: &str = include_str!("../../../../tests/cluster/coredns/manifest.yaml");

/// A cluster with nodes: the machine's own, or one that somebody named.
#[derive(Debug)]
pub struct Cluster {
    access: Access,
    /// `None` for one that is not ours.
    folder: Option<PathBuf>,
}

/// What `cargo xtask cluster status` shows.
#[derive(Debug, Clone)]
pub struct Status {
    /// The administrator's kubeconfig.
    pub kubeconfig: PathBuf,
    /// The programs and nodes, and whether each runs.
    pub running: Vec<(String, bool)>,
    /// The process that it dies with; none for one that stays until `down`.
    pub owner: Option<i32>,
    /// The memory of the control plane in bytes.
    pub memory_bytes: u64,
}

impl Cluster {
    /// The cluster for the tests of this process: the one that [`KUBECONFIG_VARIABLE`] names; else the one
    /// that `cargo xtask cluster up` started; else a new one of two nodes that ends with this process.
    /// `None` if the test is to be left out, which it says: the programs are not built, or we are not root.
    ///
    /// # Panics
    /// If there is none and `CI` is `true`; if one cannot be started, or another test's cluster does not go
    /// away within [`MACHINE_FREE_WITHIN`].
    #[must_use]
    pub fn for_test() -> Option<&'static Self> {
        static CLUSTER: OnceLock<Result<Option<Cluster>, Error>> = OnceLock::new();
        match CLUSTER.get_or_init(Self::find_or_start) {
            Ok(cluster) => cluster.as_ref(),
            Err(error) => panic!("no test cluster: {}", with_sources(error)),
        }
    }

    fn find_or_start() -> Result<Option<Self>, Error> {
        if let Some(kubeconfig) = variable(KUBECONFIG_VARIABLE) {
            return Self::named(Path::new(&kubeconfig)).map(Some);
        }
        let Some(binaries) = Binaries::for_test() else { return Ok(None) };
        if !is_root() {
            left_out("a cluster with nodes needs root");
            return Ok(None);
        }
        let deadline = Instant::now() + MACHINE_FREE_WITHIN;
        loop {
            match Self::start(&binaries, 2, Tie::Process)? {
                Started::Now(cluster) => return Ok(Some(cluster)),
                // It stays: ours to use.
                Started::Before(cluster, None) => return Ok(Some(cluster)),
                Started::Before(_, Some(owner)) if Instant::now() >= deadline => {
                    return Err(in_use(owner));
                }
                Started::Before(_, Some(_)) => std::thread::sleep(LOOK_EVERY),
            }
        }
    }

    /// Whether [`KUBECONFIG_VARIABLE`] names a cluster for the tests.
    #[must_use]
    pub fn is_named() -> bool {
        variable(KUBECONFIG_VARIABLE).is_some()
    }

    /// Somebody's own cluster, by its kubeconfig.
    ///
    /// # Errors
    /// If there is no folder for temporary files.
    pub fn named(kubeconfig: &Path) -> Result<Self, Error> {
        let kubectl = match Binaries::find()? {
            Some(binaries) => binaries.program("kubectl"),
            None => PathBuf::from("kubectl"),
        };
        let folder = tempfile::tempdir().map_err(Error::io("make a temporary folder"))?.keep();
        let access = Access::new(kubectl, kubeconfig.to_owned(), &folder);
        Ok(Self { access, folder: None })
    }

    /// Starts the machine's cluster, to stay until [`Self::down`]. Without nodes it is a control plane on
    /// the loopback address, for which root is not needed. One that is up already, with as many nodes or
    /// more, is left as it is.
    ///
    /// # Errors
    /// If this user or this machine cannot, a program does not start, one with fewer nodes is up, or a test
    /// is using the machine.
    pub fn up(binaries: &Binaries, nodes: u8) -> Result<Self, Error> {
        match Self::start(binaries, nodes, Tie::None)? {
            Started::Now(cluster) | Started::Before(cluster, None) => Ok(cluster),
            Started::Before(_, Some(owner)) => Err(in_use(owner)),
        }
    }

    fn start(binaries: &Binaries, nodes: u8, tie: Tie) -> Result<Started, Error> {
        if nodes > 0 && !is_root() {
            return Err(Error::Unable("a cluster with nodes needs root".to_owned()));
        }
        if nodes > network::NODES_MAX {
            return Err(Error::Unable(format!("at most {} nodes", network::NODES_MAX)));
        }
        let folder = folder()?;
        let _lock = Lock::take(&folder)?;
        if let Some(state) = State::load(&folder)? {
            if state.alive() {
                if state.owner.is_none() && state.nodes.len() < usize::from(nodes) {
                    return Err(Error::Unable(format!(
                        "the test cluster is up with {} nodes, {nodes} are wanted: `cargo xtask cluster \
                         down` ends it",
                        state.nodes.len()
                    )));
                }
                let cluster = Self::in_folder(&folder, &state)?;
                return Ok(Started::Before(cluster, state.owner));
            }
            // Its owner or its start was killed, or the machine was switched off.
            remove(&folder, Some(state))?;
        } else {
            remove(&folder, None)?;
        }
        let mut state = prepare(binaries, &folder, nodes, tie)?;
        let cluster = Self::in_folder(&folder, &state)?;
        let started = cluster.start_parts(&folder, &mut state).and_then(|()| {
            state.complete = true;
            state.save(&folder)
        });
        match started {
            Ok(()) => Ok(Started::Now(cluster)),
            Err(error) => {
                kill(&mut state);
                Err(error)
            }
        }
    }

    fn in_folder(folder: &Path, state: &State) -> Result<Self, Error> {
        let kubectl = state.binaries()?.program("kubectl");
        let kubeconfig = folder.join("admin.kubeconfig");
        let access = Access::new(kubectl, kubeconfig, &folder.join("access"));
        Ok(Self { access, folder: Some(folder.to_owned()) })
    }

    fn start_parts(&self, folder: &Path, state: &mut State) -> Result<(), Error> {
        let mut saved = state.clone();
        state.core.start(&self.access, |core| {
            saved.core = core.clone();
            saved.save(folder)
        })?;
        if state.nodes.is_empty() {
            return Ok(());
        }
        for (number, index) in (1..).zip(0..state.nodes.len()) {
            node::start(&mut state.nodes[index], number)?;
            state.save(folder)?;
        }
        self.access.apply(COREDNS)?;
        let names =
            (1..).zip(&state.nodes).map(|(number, _)| format!("node/{}", node::name(number)));
        let names: Vec<String> = names.collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.access.wait("condition=Ready", &names, NODES_READY_WITHIN)?;
        let dns = ["-n", "kube-system", "deployment/coredns"];
        self.access.wait("condition=Available", &dns, NODES_READY_WITHIN)
    }

    /// The machine's cluster, if it is up.
    ///
    /// # Errors
    /// If its state cannot be read.
    pub fn running() -> Result<Option<Self>, Error> {
        let folder = folder()?;
        match State::load(&folder)? {
            Some(state) if state.alive() => Self::in_folder(&folder, &state).map(Some),
            _ => Ok(None),
        }
    }

    /// Ends the machine's cluster and removes all that it left. Whether there was one.
    ///
    /// # Errors
    /// If a running test owns it, or something cannot be removed.
    pub fn down() -> Result<bool, Error> {
        let folder = folder()?;
        let _lock = Lock::take(&folder)?;
        let state = State::load(&folder)?;
        let owner = state.as_ref().and_then(|state| state.owner);
        if let Some(owner) = owner.filter(|owner| owner.alive()) {
            return Err(in_use(owner));
        }
        let was = state.is_some();
        remove(&folder, state)?;
        Ok(was)
    }

    /// What runs of the machine's cluster; `None` if nothing was started.
    ///
    /// # Errors
    /// If its state cannot be read.
    pub fn status() -> Result<Option<Status>, Error> {
        let folder = folder()?;
        let Some(state) = State::load(&folder)? else { return Ok(None) };
        let all = state.core.services.iter().chain(&state.nodes);
        Ok(Some(Status {
            kubeconfig: folder.join("admin.kubeconfig"),
            running: all.map(|service| (service.name.clone(), service.alive())).collect(),
            owner: state.owner.filter(|owner| owner.alive()).map(|owner| owner.pid),
            memory_bytes: state.core.memory_bytes(),
        }))
    }

    /// The administrator's access.
    #[must_use]
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// Whether the nodes are ours: they and the API server can be stopped.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.folder.is_some()
    }

    /// Whether pods and Services are reached from this host by their addresses: ours always, somebody's own if
    /// [`REACHABLE_VARIABLE`] says so.
    #[must_use]
    pub fn is_reachable(&self) -> bool {
        self.is_ours() || variable(REACHABLE_VARIABLE).is_some_and(|value| value == "true")
    }

    /// A namespace for one test, in which pods can be made at once.
    ///
    /// # Errors
    /// As [`Access::kubectl`].
    pub fn namespace(&self, prefix: &str) -> Result<Namespace, Error> {
        let namespace = self.access.namespace(prefix)?;
        let made = "jsonpath={.metadata.name}=default";
        namespace.wait(made, &["serviceaccount/default"], NODES_READY_WITHIN)?;
        Ok(namespace)
    }

    /// Makes an image and loads it into every node.
    ///
    /// # Errors
    /// As [`Image::write`] and [`Self::load`].
    pub fn load_image(&self, image: &Image) -> Result<(), Error> {
        let folder = tempfile::tempdir().map_err(Error::io("make a temporary folder"))?;
        let archive = folder.path().join("image.tar");
        image.write(&archive)?;
        self.load(&archive)
    }

    /// Loads an image archive into every node. Pods that run keep the image that they began with.
    ///
    /// # Errors
    /// If a node does not take it; for a cluster that is not ours if [`LOAD_VARIABLE`] is not set.
    pub fn load(&self, archive: &Path) -> Result<(), Error> {
        let Some(folder) = &self.folder else { return load_elsewhere(archive) };
        let state = running_state(folder)?;
        let import = |service: &Service| {
            let Some(node) = service.running() else { return Ok(()) };
            let mut command = Command::new("nsenter");
            command.args(["--target", &node.pid.to_string(), "--mount", "--", "ctr"]);
            command.args(["--namespace", "k8s.io", "images", "import"]).arg(archive);
            run(&mut command, None, LOADED_WITHIN).map(|_| ())
        };
        std::thread::scope(|scope| {
            let nodes: Vec<_> =
                state.nodes.iter().map(|n| scope.spawn(move || import(n))).collect();
            nodes.into_iter().try_for_each(|node| {
                node.join()
                    .unwrap_or_else(|_| Err(Error::Unable("a node's import panicked".to_owned())))
            })
        })
    }

    /// Kills the API server: for everybody who uses this cluster. The data and the nodes stay.
    ///
    /// # Errors
    /// If the cluster is not ours, or the process does not end.
    pub fn stop_api_server(&self) -> Result<(), Error> {
        self.change(|state| state.core.stop_api_server())
    }

    /// Starts it again where it was, and waits until it is ready.
    ///
    /// # Errors
    /// If the cluster is not ours, or it does not get ready.
    pub fn start_api_server(&self) -> Result<(), Error> {
        self.change(|state| state.core.start_api_server(&self.access))
    }

    /// Kills a node, counted from 1, with everything on it, as when a machine loses power.
    ///
    /// # Errors
    /// If the cluster is not ours or has no such node.
    pub fn stop_node(&self, number: u8) -> Result<(), Error> {
        self.change(|state| node::kill(node_of(state, number)?, number))
    }

    /// Starts a node again. It may take a while until the cluster sees what has become of its pods.
    ///
    /// # Errors
    /// If the cluster is not ours or has no such node.
    pub fn start_node(&self, number: u8) -> Result<(), Error> {
        self.change(|state| node::start(node_of(state, number)?, number))
    }

    fn change(&self, change: impl FnOnce(&mut State) -> Result<(), Error>) -> Result<(), Error> {
        let Some(folder) = &self.folder else {
            return Err(Error::Unable(
                "only the test cluster's own parts can be stopped".to_owned(),
            ));
        };
        let _lock = Lock::take(folder)?;
        let mut state = running_state(folder)?;
        let changed = change(&mut state);
        state.save(folder)?;
        changed
    }

    /// Starts one more API server of this cluster, on the same etcd, at another port: for flags of its own. It is ready
    /// afterwards, and killed when it is dropped.
    ///
    /// # Errors
    /// If the cluster is not ours or has no nodes, or the API server does not get ready.
    pub fn another_api_server(&self, port: u16, flags: &[String]) -> Result<ApiServer, Error> {
        let Some(folder) = &self.folder else {
            return Err(Error::Unable("only the test cluster gets another API server".to_owned()));
        };
        let state = running_state(folder)?;
        if state.nodes.is_empty() {
            return Err(Error::Unable("the test cluster has no nodes".to_owned()));
        }
        let place = Place { api: (network::CONTROL_ADDRESS, port).into(), ..in_namespace() };
        let pki = Pki::open(&folder.join("pki"));
        ApiServer::start(&state.binaries()?, folder, &pki, &place, &self.access, flags)
    }

    /// A certificate of the cluster's authority for a server under these names and addresses, and its key: two files,
    /// named after `name`.
    ///
    /// # Errors
    /// If the cluster is not ours, or the files cannot be written.
    pub fn server_certificate(
        &self,
        name: &str,
        names: &[&str],
    ) -> Result<(PathBuf, PathBuf), Error> {
        let Some(folder) = &self.folder else {
            return Err(Error::Unable("only the test cluster's authority is at hand".to_owned()));
        };
        let pki = Pki::open(&folder.join("pki"));
        pki.server(name, name, names)?;
        Ok((pki.certificate_file(name), pki.key_file(name)))
    }

    /// The host's own address, at which nodes and pods reach what listens here. Only of a cluster with nodes that is
    /// ours.
    #[must_use]
    pub fn host_address() -> std::net::Ipv4Addr {
        network::HOST_ADDRESS
    }

    /// The memory of the whole cluster in bytes, what processes share counted once (PSS); 0 for one that is
    /// not ours.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        let Some(state) = self.folder.as_deref().and_then(|folder| running_state(folder).ok())
        else {
            return 0;
        };
        let roots: Vec<i32> =
            state.nodes.iter().filter_map(Service::running).map(|r| r.pid).collect();
        state.core.memory_bytes() + below(&roots).into_iter().map(memory_bytes).sum::<u64>()
    }
}

enum Started {
    Now(Cluster),
    /// With the process that it dies with, if there is one.
    Before(Cluster, Option<Running>),
}

fn in_use(owner: Running) -> Error {
    Error::Unable(format!(
        "a test (process {}) is using the one test cluster of this machine: wait for its end",
        owner.pid
    ))
}

fn running_state(folder: &Path) -> Result<State, Error> {
    State::load(folder)?.ok_or_else(|| Error::Unable("the test cluster is down".to_owned()))
}

fn node_of(state: &mut State, number: u8) -> Result<&mut Service, Error> {
    let nodes = state.nodes.len();
    let index = usize::from(number).wrapping_sub(1);
    let missing = || Error::Unable(format!("node {number} of {nodes} does not exist"));
    state.nodes.get_mut(index).ok_or_else(missing)
}

/// Files, certificates and, with nodes, the network and the images; nothing runs yet.
fn prepare(binaries: &Binaries, folder: &Path, nodes: u8, tie: Tie) -> Result<State, Error> {
    make_folder(folder)?;
    let pki = Pki::create(&folder.join("pki"))?;
    let place = if nodes == 0 {
        Place::loopback(&[Port::reserve(), Port::reserve(), Port::reserve()])
    } else {
        network::up(nodes)?;
        base_images(binaries, &node::images(folder))?;
        in_namespace()
    };
    let options = Options { controller_manager: true, scheduler: nodes > 0, ..Options::default() };
    let core = Core::new(binaries, folder, &pki, &place, &options, tie)?;
    admin(binaries, folder, &pki, &place)?;
    let shared = node::Shared { binaries, folder, pki: &pki, place: &place, tie };
    let nodes = (1..=nodes).map(|number| node::prepare(&shared, number));
    let owner = if tie == Tie::Process { Running::myself() } else { None };
    Ok(State {
        core,
        nodes: nodes.collect::<Result<_, _>>()?,
        owner,
        binaries: binaries.folder().to_owned(),
        complete: false,
    })
}

/// A namespace of its own has the usual ports free.
fn in_namespace() -> Place {
    Place {
        enter: network::enter_control(),
        api: (network::CONTROL_ADDRESS, 6443).into(),
        advertised: network::CONTROL_ADDRESS.to_string(),
        etcd: ([127, 0, 0, 1], 2379).into(),
        etcd_peer: ([127, 0, 0, 1], 2380).into(),
    }
}

/// What every pod needs, and DNS.
fn base_images(binaries: &Binaries, folder: &Path) -> Result<(), Error> {
    make_folder(folder)?;
    for (name, image) in [("pause", node::PAUSE_IMAGE), ("coredns", COREDNS_IMAGE)] {
        let command = format!("/{name}");
        Image::new(image)
            .program(&binaries.program(name), name)?
            .entrypoint(&[&command])
            .write(&folder.join(format!("{name}.tar")))?;
    }
    Ok(())
}

fn kill(state: &mut State) {
    for (number, service) in (1..).zip(&mut state.nodes) {
        if let Err(error) = node::kill(service, number) {
            eprintln!("{error}");
        }
    }
    state.core.kill();
}

fn remove(folder: &Path, state: Option<State>) -> Result<(), Error> {
    if let Some(mut state) = state {
        kill(&mut state);
    }
    if is_root() {
        network::down();
    }
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", folder.display()))(error))
        }
        _ => Ok(()),
    }
}

fn load_elsewhere(archive: &Path) -> Result<(), Error> {
    let Some(command) = variable(LOAD_VARIABLE) else {
        return Err(Error::Unable(format!(
            "{LOAD_VARIABLE} does not say how an image gets into this cluster, for example \
             `kind load image-archive`; say `true` if it is there already"
        )));
    };
    let command = command.to_string_lossy().into_owned();
    let mut words = command.split_whitespace();
    let mut load = Command::new(words.next().unwrap_or("true"));
    run(load.args(words).arg(archive), None, LOADED_WITHIN).map(|_| ())
}

/// These processes and all that came from them.
fn below(roots: &[i32]) -> Vec<i32> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_string_lossy().parse::<i32>();
        let stat = fs::read_to_string(entry.path().join("stat"));
        let (Ok(pid), Ok(stat)) = (pid, stat) else { continue };
        let parent =
            stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
        parents.extend(parent.map(|parent: i32| (pid, parent)));
    }
    let mut found = roots.to_vec();
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        found.extend(parents.iter().filter(|(_, p)| *p == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found
}

/// An error with all that caused it, on one line.
pub(super) fn with_sources(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        text = format!("{text}: {source}");
        cause = source.source();
    }
    text
}
