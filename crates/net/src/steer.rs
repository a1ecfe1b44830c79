//! Socket-lookup steering: the kernel hands new connections to any port of a set to one listening socket, or to the
//! SO_REUSEPORT group that it belongs to. No other port is bound, so ephemeral ports stay free.
//!
//! A BPF program of type `sk_lookup` (kernel 5.9 and later; CAP_BPF and CAP_NET_ADMIN, or CAP_SYS_ADMIN) is asked for
//! each new connection of the network namespace, before the kernel looks for listeners of its own: so ports that
//! belong to others must not be in the set, see [`crate::listening`]. Which port a client dialled is the accepted
//! socket's local address. Start at [`Steering::attach`]; [`program`] has the instructions, `bpf` the system calls.

mod bpf;
mod program;

use std::fs::File;
use std::io;
use std::net::{IpAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};

use crate::ports::PortSet;
use bpf::Map;

/// Steering in force. Dropped, it ends, and new connections find ordinary listeners alone; those that have been
/// steered are not touched.
#[derive(Debug)]
pub struct Steering {
    /// One value: a bit for each port.
    ports: Map,
    /// Keeps the program attached.
    _link: OwnedFd,
}

/// Steering cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("steering ports to a socket: {step}")]
pub struct SteerError {
    /// What was done.
    pub step: &'static str,
    /// Why it failed; "operation not permitted" for want of CAP_BPF or CAP_NET_ADMIN.
    #[source]
    pub source: io::Error,
}

impl Steering {
    /// Has new connections to `ports` accepted by a listening socket. `address` narrows that to connections to this
    /// address. An IPv6 socket that is not limited to IPv6 gets those of both families.
    ///
    /// The set may be empty at first; see [`Self::set_ports`].
    ///
    /// # Errors
    /// [`SteerError`] where the kernel is too old or does not allow it.
    pub fn attach(
        socket: &TcpListener,
        address: Option<IpAddr>,
        ports: &PortSet,
    ) -> Result<Self, SteerError> {
        let at = |step| move |source| SteerError { step, source };
        let bits = ports.bitmap();
        let sockets = Map::of_sockets().map_err(at("making a map of sockets"))?;
        sockets.set_socket(socket.as_fd()).map_err(at("putting the socket there"))?;
        let size = u32::try_from(bits.len()).unwrap_or(u32::MAX);
        let map = Map::of_bytes(size).map_err(at("making a map of ports"))?;
        map.set(&bits).map_err(at("filling the map of ports"))?;
        let program = program::assemble(address, sockets.fd(), map.fd());
        let program = bpf::load(&program).map_err(at("loading the program"))?;
        let namespace = File::open("/proc/self/ns/net").map_err(at("opening the namespace"))?;
        let link = bpf::attach(program.as_fd(), namespace.as_fd()).map_err(at("attaching it"))?;
        Ok(Self { ports: map, _link: link })
    }

    /// Steers these ports from now on.
    ///
    /// # Errors
    /// The kernel's; the ports are those of before then.
    pub fn set_ports(&self, ports: &PortSet) -> Result<(), SteerError> {
        self.ports
            .set(&ports.bitmap())
            .map_err(|source| SteerError { step: "filling the map of ports", source })
    }
}
