//! The ports of this host: where peers connect, and the cluster ports, steered to one socket a worker or bound one by
//! one.
//!
//! Steered, a cluster port on which somebody else listens is left to them, and so is the host port of a pod: what is
//! to reach a pod must not come back to us. Must not know what is served.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr, TcpListener};

use anyhow::Context;
use mesh::files::settings::Steering as Wanted;
use mesh::{Sockets, State};
use net::listening::{self, Listening};
use net::ports::PortSet;
use net::steer::Steering;

/// Cluster ports that are tried for the socket to which the others are steered.
const SEATS_TRIED_MAX: usize = 256;
/// Up to so many cluster ports are bound with a socket for each worker; beyond it, with one for each.
const BOUND_FOR_ALL_MAX: usize = 256;

/// The sockets of each worker, and what keeps the ports in order.
pub(super) struct Opened {
    pub(super) workers: Vec<Sockets>,
    pub(super) ports: Ports,
}

/// How the cluster ports are listened on.
#[derive(Debug)]
pub(super) enum Ports {
    /// The kernel steers them.
    Steered(Steered),
    /// Each is bound.
    Bound {
        /// How many of them.
        ports: usize,
        /// How many could not be.
        missing: usize,
        sockets: usize,
    },
}

#[derive(Debug)]
pub(super) struct Steered {
    steering: Steering,
    listen: IpAddr,
    /// The numbers of our own sockets.
    own: HashSet<u64>,
    /// Ports that are left to others.
    left: PortSet,
    /// What is steered now.
    ports: PortSet,
}

/// What can be shown of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct View {
    pub(super) steered: bool,
    pub(super) ports: usize,
    /// Cluster ports that are left to others, or could not be bound.
    pub(super) left: usize,
}

/// Opens all sockets. `limit` is how many descriptors there may be.
pub(super) fn open(
    state: &State,
    listen: IpAddr,
    workers: usize,
    limit: u64,
) -> anyhow::Result<Opened> {
    let address = SocketAddr::new(listen, state.settings.port);
    let peers = net::listen::bind(address, workers).context("the port of peers (key PORT)")?;
    let steered = match state.settings.steering {
        Wanted::Bind => None,
        wanted => match steer(state, listen, workers) {
            Ok(opened) => Some(opened),
            Err(error) if wanted == Wanted::Bpf => return Err(error),
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(error, "cluster ports cannot be steered and are bound one by one");
                None
            }
        },
    };
    let mut opened = match steered {
        Some(opened) => opened,
        None => bind(state, listen, workers, limit)?,
    };
    for (worker, peers) in opened.workers.iter_mut().zip(peers) {
        worker.peers.push(peers);
    }
    Ok(opened)
}

/// One socket a worker, on a cluster port of their own, and the others steered to it.
fn steer(state: &State, listen: IpAddr, workers: usize) -> anyhow::Result<Opened> {
    let wanted = &state.settings.cluster_ports;
    let mut group: Option<Vec<TcpListener>> = None;
    for port in wanted.iter().filter(|p| !is_host_port(state, *p)).take(SEATS_TRIED_MAX) {
        group = net::listen::bind(SocketAddr::new(listen, port), workers).ok();
        if group.is_some() {
            break;
        }
    }
    let group = group.context("no cluster port is free (key CLUSTERPORTS)")?;
    let own = group.iter().map(listening::inode).collect::<Result<_, _>>()?;
    let address = (!listen.is_unspecified()).then_some(listen);
    let first = group.first().context("no worker")?;
    let steering = Steering::attach(first, address, &PortSet::default())?;
    let mut steered =
        Steered { steering, listen, own, left: PortSet::default(), ports: PortSet::default() };
    steered.update(state)?;
    let one = |socket| Sockets { clients: vec![socket], peers: Vec::new() };
    Ok(Opened { workers: group.into_iter().map(one).collect(), ports: Ports::Steered(steered) })
}

fn is_host_port(state: &State, port: u16) -> bool {
    state.pods.all().any(|pod| pod.mapping().host_port == port)
}

/// A socket for each cluster port, in turn for one worker after the other.
fn bind(state: &State, listen: IpAddr, workers: usize, limit: u64) -> anyhow::Result<Opened> {
    let wanted = &state.settings.cluster_ports;
    let each = if wanted.len() <= BOUND_FOR_ALL_MAX { workers } else { 1 };
    let room = usize::try_from(limit / 2).unwrap_or(usize::MAX) / each.max(1);
    let mut sockets: Vec<Sockets> = (0..workers).map(|_| Sockets::default()).collect();
    let (mut bound, mut missing) = (PortSet::default(), 0);
    for port in wanted.iter().filter(|port| !is_host_port(state, *port)) {
        let group = match bound.len() < room {
            true => net::listen::bind(SocketAddr::new(listen, port), each).ok(),
            false => None,
        };
        let Some(group) = group else {
            missing += 1;
            continue;
        };
        for (offset, socket) in group.into_iter().enumerate() {
            let worker = (bound.len() + offset) % workers;
            if let Some(worker) = sockets.get_mut(worker) {
                worker.clients.push(socket);
            }
        }
        bound.insert(port);
    }
    if bound.is_empty() {
        anyhow::bail!("no cluster port can be listened on (key CLUSTERPORTS)");
    }
    warn_of_binding(&bound, missing);
    let (ports, sockets_bound) = (bound.len(), bound.len() * each);
    let ports = Ports::Bound { ports, missing, sockets: sockets_bound };
    Ok(Opened { workers: sockets, ports })
}

/// Says what binding costs.
fn warn_of_binding(bound: &PortSet, missing: usize) {
    let (first, last) = ephemeral_range().unwrap_or((32_768, 60_999));
    let taken = (first..=last).filter(|port| bound.contains(*port)).count();
    let all = usize::from(last - first) + 1;
    if taken > all / 2 {
        tracing::warn!(
            taken,
            of = all,
            "cluster ports take most ports that this host connects from: its outgoing connections may fail with \
             \"cannot assign requested address\"; allow steering (CAP_BPF and CAP_NET_ADMIN), or narrow CLUSTERPORTS"
        );
    }
    if missing > 0 {
        tracing::warn!(
            missing,
            "cluster ports that cannot be listened on: somebody else does, or there are too few file descriptors"
        );
    }
}

fn ephemeral_range() -> Option<(u16, u16)> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut numbers = text.split_whitespace().map(str::parse);
    let (first, last) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    (first <= last).then_some((first, last))
}

impl Ports {
    /// Leaves ports to those who listen on them now. What cannot be found out stays as it was.
    pub(super) fn update(&mut self, state: &State) {
        if let Self::Steered(steered) = self
            && let Err(error) = steered.update(state)
        {
            tracing::warn!(error = format!("{error:#}"), "steering cluster ports");
        }
    }

    pub(super) fn view(&self) -> View {
        match self {
            Self::Steered(steered) => {
                View { steered: true, ports: steered.ports.len(), left: steered.left.len() }
            }
            Self::Bound { ports, missing, .. } => {
                View { steered: false, ports: *ports, left: *missing }
            }
        }
    }

    pub(super) fn is_steered(&self) -> bool {
        matches!(self, Self::Steered(_))
    }

    /// Listening sockets for clients.
    pub(super) fn sockets(&self) -> usize {
        match self {
            Self::Steered(steered) => steered.own.len(),
            Self::Bound { sockets, .. } => *sockets,
        }
    }

    pub(super) fn describe(&self) -> String {
        match self {
            Self::Steered(steered) => match steered.left.is_empty() {
                true => "steered".to_owned(),
                false => format!("steered, but {}, which others have", steered.left),
            },
            Self::Bound { ports, missing: 0, .. } => format!("{ports} bound"),
            Self::Bound { ports, missing, .. } => format!("{ports} bound, {missing} missing"),
        }
    }
}

impl Steered {
    fn update(&mut self, state: &State) -> anyhow::Result<()> {
        let wanted = &state.settings.cluster_ports;
        let others = listening::all().context("asking who listens")?;
        let others = others.iter().filter(|other| is_in_the_way(other, self.listen, &self.own));
        let host_ports = state.pods.all().map(|pod| pod.mapping().host_port);
        let left = others.map(|other| other.address.port()).chain(host_ports);
        let left: PortSet = left.filter(|port| wanted.contains(*port)).collect();
        let mut ports = wanted.clone();
        left.iter().for_each(|port| ports.remove(port));
        if ports != self.ports {
            self.steering.set_ports(&ports)?;
            tracing::debug!(%ports, "cluster ports");
            self.ports = ports;
        }
        self.left = left;
        Ok(())
    }
}

/// Whether somebody else's socket would lose connections to us.
fn is_in_the_way(other: &Listening, listen: IpAddr, own: &HashSet<u64>) -> bool {
    let ip = other.address.ip();
    let same_family = ip.is_ipv4() == listen.is_ipv4();
    let meets = match (ip.is_unspecified(), listen.is_unspecified()) {
        // An IPv6 socket on every address mostly takes IPv4 too.
        (true, _) => same_family || ip.is_ipv6() || listen.is_unspecified(),
        (false, true) => same_family || listen.is_ipv6(),
        (false, false) => ip.to_canonical() == listen.to_canonical(),
    };
    meets && !own.contains(&other.inode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_connections_would_be_taken() {
        let own = HashSet::from([7]);
        for (other, inode, listen, expected) in [
            ("10.0.0.1:80", 1, "10.0.0.1", true),
            ("10.0.0.1:80", 7, "10.0.0.1", false),
            ("10.0.0.2:80", 1, "10.0.0.1", false),
            ("0.0.0.0:80", 1, "10.0.0.1", true),
            ("[::]:80", 1, "10.0.0.1", true),
            ("127.0.0.1:80", 1, "0.0.0.0", true),
            ("[::1]:80", 1, "0.0.0.0", false),
            ("127.0.0.1:80", 1, "::", true),
            ("0.0.0.0:80", 1, "fd00::1", false),
            ("[fd00::1]:80", 1, "fd00::1", true),
        ] {
            let other = Listening { address: other.parse().unwrap(), inode };
            let found = is_in_the_way(&other, listen.parse().unwrap(), &own);
            assert_eq!(found, expected, "{other:?} {listen}");
        }
    }
}
