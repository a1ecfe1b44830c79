//! A host's part in the mesh: what is known of it, and if it is wanted, the ports.
//!
//! The role `mesh` is this and nothing else; a gateway has it beside its listeners, and dials through it. Must not know
//! which of them it is in. Start at [`Reading::first`], then [`Member::join`].

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use config::Watcher;
use mesh::probe::{keep_probing, probe};
use mesh::security::Secured;
use mesh::source::{Files, read_file};
use mesh::{Maker, Serving, Shared, Sockets};
use model::{Diagnostics, HostName};
use net::dial::Dialer;
use net::worker::Workers;
use tokio::sync::oneshot;

use super::follow::{self, Follow};
use super::names::Names;
use super::provider::Provider;
use super::sockets::{self, Opened, Ports};
use crate::UsageError;

/// How long the start waits for other hosts to say whether they speak TLS.
const FIRST_PROBE_MAX: Duration = Duration::from_secs(1);
/// Descriptors that are not for connections: listening sockets, the admin port, files.
const DESCRIPTORS_RESERVED: u64 = 256;
/// Descriptors of one connection: the client's socket, the pod's, and one for a host that is just being asked.
const DESCRIPTORS_A_CONNECTION: u64 = 3;

/// The files, read for the first time.
pub(crate) struct Reading {
    proxy_conf: PathBuf,
    files: Files,
    secured: Secured,
    watcher: Watcher,
    /// All that is odd or wrong.
    pub(crate) found: Diagnostics,
}

impl Reading {
    /// Reads the files, which are watched from before that.
    ///
    /// # Errors
    /// Where they cannot be watched.
    pub(crate) fn first(proxy_conf: &Path) -> anyhow::Result<Self> {
        let mut watcher = Watcher::new(vec![proxy_conf.to_owned()])?;
        let (named, _) = Files::read(proxy_conf, None, &read_file);
        watcher.set_paths(follow::watched(proxy_conf, &named))?;
        let (files, mut found) = Files::read(proxy_conf, None, &read_file);
        let secured = Secured::first(proxy_conf, &files, &mut found);
        Ok(Self { proxy_conf: proxy_conf.to_owned(), files, secured, watcher, found })
    }

    /// Whether there is anything to begin with: `proxy.conf` is right. The other files may come later.
    pub(crate) fn is_usable(&self) -> bool {
        is_usable(&self.proxy_conf, &self.found)
    }
}

/// Whether a mesh can begin with files of which this was found.
pub(crate) fn is_usable(proxy_conf: &Path, found: &Diagnostics) -> bool {
    let name = proxy_conf.display().to_string();
    !found.errors().any(|problem| *problem.place.source == *name)
}

/// A host's part in the mesh. Dropped, what it listens on is closed.
pub(crate) struct Member {
    /// What connections are served by.
    pub(crate) shared: Arc<Shared>,
    pub(crate) provider: Arc<Provider>,
    follow: Follow,
    watcher: Watcher,
    /// Of each worker; none once they are served.
    sockets: Vec<Sockets>,
    serving: Vec<Serving>,
}

impl Member {
    /// Joins with what the files say. With a number of `workers` the ports are opened, to be served by so many; else
    /// nothing is listened on.
    ///
    /// # Errors
    /// Where it cannot be found out which host this is, or a port cannot be had.
    pub(crate) async fn join(
        reading: Reading,
        dialer: Dialer,
        workers: Option<usize>,
    ) -> anyhow::Result<Self> {
        let Reading { proxy_conf, files, secured, watcher, found } = reading;
        let names = Names::default();
        let (listen_name, listen) = listen_address(&files, &names).await?;
        let resolved = names.resolve(&files, listen).await;
        let mut maker = Maker::default();
        follow::announce(&secured);
        maker.secure(secured);
        let state = maker.make(&files, &resolved, &listen_name);
        let limit = net::descriptors::raise_limit();
        let opened =
            workers.map(|count| sockets::open(&state, listen, count, limit)).transpose()?;
        let (sockets, ports) = match opened {
            Some(Opened { workers, ports }) => (workers, Some(ports)),
            None => (Vec::new(), None),
        };
        let own = u64::try_from(ports.as_ref().map_or(0, Ports::sockets)).unwrap_or(u64::MAX);
        let left = limit.saturating_sub(own).saturating_sub(DESCRIPTORS_RESERVED);
        let most = usize::try_from(left / DESCRIPTORS_A_CONNECTION).unwrap_or(usize::MAX);
        let shared = Shared::new(state, most.max(1), dialer);
        // So that the first connections are secured too, as far as hosts answer at once.
        let _ = tokio::time::timeout(FIRST_PROBE_MAX, probe(&shared)).await;
        mesh::knock::all(&shared);
        let name = proxy_conf.display().to_string();
        let view = ports.as_ref().map(Ports::view);
        let provider = Provider::new(shared.clone(), name, listen, found, view);
        let follow = Follow {
            proxy_conf,
            files,
            names,
            resolved,
            listen_name,
            listen,
            maker,
            shared: shared.clone(),
            ports,
            provider: provider.clone(),
        };
        Ok(Self { shared, provider, follow, watcher, sockets, serving: Vec::new() })
    }

    /// Has every worker serve its sockets. By now whoever else listens in this process had better do so: the admin
    /// port, for one, may be within the range of the cluster ports.
    ///
    /// # Errors
    /// Where a worker is gone, or the kernel does not let it watch a socket.
    pub(crate) async fn serve(&mut self, workers: &Workers) -> anyhow::Result<()> {
        for (index, sockets) in std::mem::take(&mut self.sockets).into_iter().enumerate() {
            let (answer, answered) = oneshot::channel();
            let shared = self.shared.clone();
            let seed = seed(index);
            let job = Box::new(move || {
                let _ = answer.send(mesh::serve(&shared, seed, sockets));
            });
            workers.run(index, job).await?;
            let serving = answered.await.context("a worker thread is gone")?;
            self.serving.push(serving.context("serving")?);
        }
        self.follow.steer();
        Ok(())
    }

    /// Follows files and names, and what other hosts speak, for ever. Dropped, a change that was just being brought in
    /// may be lost: call [`Self::reload`], or end.
    pub(crate) async fn run(&mut self) {
        let shared = self.shared.clone();
        tokio::join!(self.follow.run(&mut self.watcher), keep_probing(shared));
    }

    /// Reads the files again and serves what they say now, as far as it can be.
    pub(crate) async fn reload(&mut self) {
        self.follow.reload(&mut self.watcher).await;
    }

    /// Leaves ports to those who listen on them now.
    pub(crate) fn steer(&mut self) {
        self.follow.steer();
    }

    /// Takes no more connections; those that are open go on.
    pub(crate) fn close(&mut self) {
        self.shared.drain();
        self.follow.ports = None;
        self.sockets.clear();
        self.serving.iter().for_each(Serving::close);
    }

    /// Says on standard error what is served and how.
    pub(crate) fn announce(&self) {
        let Follow { files, listen, ports, .. } = &self.follow;
        let (hosts, mappings) = (files.hosts.len(), files.mappings.len());
        let most = self.shared.connections_max();
        let version = env!("CARGO_PKG_VERSION");
        eprintln!(
            "cloverleaf mesh {version}: {hosts} hosts, {mappings} mappings, at most {most} connections"
        );
        let Some(ports) = ports else { return };
        eprintln!(
            "  cluster ports: {listen} {}   ({})",
            files.settings.cluster_ports,
            ports.describe()
        );
        eprintln!("  peers: {}", std::net::SocketAddr::new(*listen, files.settings.port));
    }
}

/// `HOST`, else the host of the first line of `hosts.conf`, and its address.
async fn listen_address(files: &Files, names: &Names) -> anyhow::Result<(HostName, IpAddr)> {
    let first = || files.hosts.first().and_then(|target| HostName::parse(&target.host()).ok());
    let name = files.settings.host.clone().or_else(first).ok_or_else(|| {
        UsageError("nowhere to listen: neither HOST in proxy.conf nor a host in hosts.conf".into())
    })?;
    let address = names.address(&name).await.context("finding the address of HOST")?;
    Ok((name, address))
}

/// Another one for each worker and each start, so that hosts do not all choose alike.
pub(crate) fn seed(worker: usize) -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = std::hash::RandomState::new().build_hasher();
    hasher.write_usize(worker);
    hasher.finish()
}
