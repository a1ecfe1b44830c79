//! Cluster ports: one port number for a service, on every host of a cluster, wherever its pods are.
//!
//! A client connects to the port on its own host. There a pod of the host takes it, or another host is asked for one,
//! in the protocol of [`peer`]. [`files`] and [`source`] say which hosts and pods there are, [`pods`] counts and
//! chooses those of this host, [`hosts`] and [`race`] say who else is asked and when; all of that does no IO.
//! [`serve()`] is the part that does, for clients and peers; [`ClusterPorts`] is the same for whoever dials in this
//! process; [`security`] is what secures connections between hosts. Must not know HTTP, nor how the program is started.
//! Start at [`Maker`] and [`serve()`].

mod ask;
mod asking;
mod dial;
pub mod files;
mod framed;
pub mod frames;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod hosts;
mod kept;
pub mod knock;
pub mod peer;
pub mod pods;
pub mod probe;
pub mod race;
mod sealed;
mod search;
pub mod security;
pub mod senders;
mod serve;
mod shared;
#[cfg(test)]
mod simulation;
pub mod source;
pub mod stats;

pub use dial::ClusterPorts;
pub use serve::{Serving, Sockets, serve};
pub use shared::{Maker, Resolved, Shared, StandIn, StandIns, State};

/// Milliseconds since the process began; never 0.
pub type Millis = u64;
