//! Reverse tunnels on the wire of Konnectivity (apiserver-network-proxy): a server that clients and agents connect to,
//! and an agent that connects to targets where the server cannot reach them.
//!
//! [`packet`] and [`link`] are the protocol, without IO; a carrier runs a link over gRPC. [`server`] has clients on one
//! port and agents on another, [`agent`] keeps streams to as many servers as there are. Must not know flags, files or
//! metrics' names. Start at [`server::Hub`] and [`agent::Agent`].

pub mod agent;
mod buffered;
mod carrier;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod grpc;
mod http2;
pub mod identifiers;
pub mod link;
pub mod packet;
pub mod server;
#[cfg(test)]
mod simulation;
mod splice;
pub mod stats;

/// By this field of a call's head, and of the answer's, two ends of ours know each other. An original passes over it.
const FEATURES_FIELD: &str = "cloverleaf-tunnel";
/// What they can do then: credit for each connection, and half-close.
const FEATURES: &str = "1";
/// By this field, a number of the agent's own, a server of ours knows which streams are carriers of the same agent.
const AGENT_FIELD: &str = "cloverleaf-agent";
