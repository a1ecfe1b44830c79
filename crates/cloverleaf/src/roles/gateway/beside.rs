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
use tokio::sync::{mpsc, oneshot};

use super::super::mesh::member::{Member, Reading, seed};
use super::provider::Provider;

/// Orders that may wait; one more of a kind that waits would say nothing new.
const ORDERS_MAX: usize = 4;

/// What is to be done now.
#[derive(Debug)]
enum Order {
    /// Read the files again.
    Reload,
    /// See who listens on this host, and say when it is done.
    Steer(oneshot::Sender<()>),
}

/// A mesh that runs. Dropped, it closes.
#[derive(Debug)]
pub(super) struct Beside {
    /// As it was started.
    config: MeshConfig,
    shared: Arc<Shared>,
    /// None once it takes no more connections.
    orders: Option<mpsc::Sender<Order>>,
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
        let (orders, ordered) = mpsc::channel(ORDERS_MAX);
        net::task::spawn("mesh", follow(member, ordered));
        Ok(Self { config: config.clone(), shared, orders: Some(orders) })
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
        self.warn_of(&stand_ins, config);
        self.shared.set_stand_ins(stand_ins);
    }

    /// Says which of them nobody will reach, or might lead back here for ever.
    fn warn_of(&self, stand_ins: &StandIns, config: &Config) {
        let state = self.shared.state();
        let listened = &state.settings.cluster_ports;
        for port in stand_ins.keys().filter(|port| !listened.contains(**port)) {
            tracing::warn!(port, "no cluster port: it is not among CLUSTERPORTS in proxy.conf");
        }
        let ids = config.mesh.iter().flat_map(|mesh| &mesh.ports).map(|(_, id)| *id);
        let upstreams = ids.filter_map(|id| config.snapshot.upstream(id));
        for endpoint in upstreams.flat_map(|upstream| &upstream.endpoints) {
            if let Target::Address(address) = endpoint.target
                && stand_ins.contains_key(&address.port())
                && state.addresses.contains(&address.ip().to_canonical())
            {
                tracing::warn!(
                    endpoint = %address,
                    "a cluster port by its address, which may lead back to itself; via: mesh cannot"
                );
            }
        }
    }

    /// Has the files read again now.
    pub(super) fn reload(&self) {
        // Where there is no room, one waits already.
        let _ = self.orders.as_ref().map(|orders| orders.try_send(Order::Reload));
    }

    /// Leaves ports to those who listen on them now. Dropped, it may still happen.
    pub(super) async fn steer(&self) {
        let (done, is_done) = oneshot::channel();
        let Some(orders) = &self.orders else { return };
        if orders.send(Order::Steer(done)).await.is_ok() {
            let _ = is_done.await;
        }
    }

    /// Takes no more connections; those that are open go on.
    pub(super) fn close(&mut self) {
        self.orders = None;
    }

    /// Connections of clients and other hosts now.
    pub(super) fn open_connections(&self) -> usize {
        self.shared.open_connections()
    }
}

/// Until nobody has orders any more.
async fn follow(mut member: Member, mut orders: mpsc::Receiver<Order>) {
    loop {
        let order = tokio::select! {
            () = member.run() => continue,
            order = orders.recv() => order,
        };
        match order {
            Some(Order::Reload) => member.reload().await,
            Some(Order::Steer(done)) => {
                member.steer();
                let _ = done.send(());
                // What was just being brought in is lost.
                member.reload().await;
            }
            None => break,
        }
    }
    member.close();
}
