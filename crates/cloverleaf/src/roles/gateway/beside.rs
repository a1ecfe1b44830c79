//! The mesh beside a gateway: what its upstreams with `via: mesh` are dialled through, and if the file says so, the
//! cluster ports themselves.
//!
//! Follows its own files on a task of its own. Must not know rules or upstreams.

use std::sync::Arc;

use anyhow::Context;
use config::{Config, MeshConfig};
use mesh::{ClusterPorts, Shared, StandIn, StandIns};
use model::{Endpoint, Target, UpstreamId};
use net::dial::Dialer;
use net::worker::Workers;
use tokio::sync::{Notify, watch};

use super::super::mesh::member::{Member, Reading, seed};
use super::provider::Provider;

/// A mesh that runs. Dropped, it closes.
#[derive(Debug)]
pub(super) struct Beside {
    /// As it was started.
    config: MeshConfig,
    shared: Arc<Shared>,
    reload: Arc<Notify>,
    closing: watch::Sender<bool>,
}

impl Beside {
    /// Joins, and reaches cluster ports through it from then on.
    ///
    /// # Errors
    /// Where it cannot be found out which host this is, or a port cannot be had.
    pub(super) async fn start(
        config: &MeshConfig,
        reading: Reading,
        dialer: &Dialer,
        workers: &Workers,
        provider: &Provider,
    ) -> anyhow::Result<Self> {
        let count = config.serve.then(|| workers.count());
        let mut member =
            Member::join(reading, dialer.clone(), count).await.context("joining the mesh")?;
        member.serve(workers).await.context("joining the mesh")?;
        let shared = member.shared.clone();
        dialer.add_way_to_cluster_ports(Arc::new(ClusterPorts::new(shared.clone(), seed(0))));
        provider.set_mesh(member.provider.clone());
        if config.serve {
            member.announce();
        }
        let reload = Arc::new(Notify::new());
        let (closing, closed) = watch::channel(false);
        net::task::spawn("mesh", follow(member, reload.clone(), closed));
        Ok(Self { config: config.clone(), shared, reload, closing })
    }

    /// Whether it would have to be started anew to be as a file says.
    pub(super) fn differs(&self, config: Option<&MeshConfig>) -> bool {
        let same = |new: &MeshConfig| {
            new.proxy_conf == self.config.proxy_conf && new.serve == self.config.serve
        };
        !config.is_some_and(same)
    }

    /// Has upstreams take connections to cluster ports from now on. Those that are open go on.
    pub(super) fn set_ports(&self, config: &Config) {
        let ports = config.mesh.iter().flat_map(|mesh| &mesh.ports);
        let stand_in = |(port, id): &(u16, UpstreamId)| {
            let upstream = config.snapshot.upstream(*id)?;
            let is_mesh = |endpoint: &Endpoint| matches!(endpoint.target, Target::ClusterPort(_));
            let ends_here = !upstream.endpoints.iter().any(is_mesh);
            let target = Target::Upstream(upstream.name.clone());
            Some((*port, StandIn { target, ends_here }))
        };
        let stand_ins: StandIns = ports.filter_map(stand_in).collect();
        let listened = self.shared.state().settings.cluster_ports.clone();
        for port in stand_ins.keys().filter(|port| !listened.contains(**port)) {
            tracing::warn!(port, "no cluster port: it is not among CLUSTERPORTS in proxy.conf");
        }
        self.shared.set_stand_ins(stand_ins);
    }

    /// Has the files read again now.
    pub(super) fn reload(&self) {
        self.reload.notify_one();
    }

    /// Takes no more connections; those that are open go on.
    pub(super) fn close(&self) {
        let _ = self.closing.send(true);
    }

    /// Connections of clients and other hosts now.
    pub(super) fn open_connections(&self) -> usize {
        self.shared.open_connections()
    }
}

async fn follow(mut member: Member, reload: Arc<Notify>, mut closed: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = member.run() => {}
            () = reload.notified() => member.reload().await,
            _ = closed.changed() => break,
        }
    }
    member.close();
}
