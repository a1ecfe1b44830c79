//! The mesh beside a gateway: what its upstreams with `via: mesh` are dialled through, and if the file says so, the
//! cluster ports themselves.
//!
//! Follows its own files on a task of its own. Must not know rules or upstreams.

use std::sync::Arc;

use anyhow::Context;
use config::MeshConfig;
use mesh::{ClusterPorts, Shared};
use net::dial::Dialer;
use net::worker::Workers;
use tokio::sync::{Notify, watch};

use super::super::mesh::member::{Member, Reading, seed};
use super::provider::Provider;

/// A mesh that runs. Dropped, it closes.
#[derive(Debug)]
pub(super) struct Beside {
    /// As it was started.
    pub(super) config: MeshConfig,
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
