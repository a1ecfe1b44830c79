//! Tunnels through the front door: a server and agents as processes, clients that speak the wire, targets that behave
//! as the test says.

mod agents;
mod certificates;
mod dead;
mod file;
mod flags;
mod grpc;
mod hostile;
mod http_connect;
mod leases;
mod official;
mod policy;
mod servers;
mod support;
mod tokens;
mod unread;
