//! Tunnels through the front door: a server and agents as processes, clients that speak the wire, targets that behave
//! as the test says.

mod agents;
mod certificates;
mod dead;
mod example;
mod file;
mod flags;
mod forward;
mod forward_ends;
mod forward_hostile;
mod gateway;
mod grpc;
mod hostile;
mod http_connect;
mod leases;
mod official;
mod policy;
mod servers;
mod support;
mod tokens;
mod udp;
mod unread;
