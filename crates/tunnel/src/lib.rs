//! Reverse tunnels on the wire of Konnectivity (apiserver-network-proxy): a server that clients and agents connect to,
//! an agent that connects to targets where the server cannot reach them, and a client that gets there through both.
//!
//! [`packet`] and [`link`] are the protocol, without IO; a carrier runs a link over gRPC. [`server`] has clients on one
//! port and agents on another, [`agent`] keeps streams to as many servers as there are, [`client`] makes connections
//! through a server, and [`forward`] gives local ports to programs that cannot. Must not know flags, files or metrics'
//! names. Start at [`server::Hub`], [`agent::Agent`] and [`client::Client`].

pub mod agent;
mod buffered;
mod carrier;
pub mod client;
pub mod datagrams;
pub mod forward;
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
/// By this field of a CONNECT a client of ours says whose agent is meant.
const CLUSTER_FIELD: &str = "cloverleaf-cluster";
/// Behind the protocol of a dial the same is said so: a server that is not ours passes it on to an agent that knows no
/// such protocol, so that nobody connects in the wrong place.
const CLUSTER_MARK: char = '@';
/// The longest name of a cluster: as a host name's.
const CLUSTER_BYTES_MAX: usize = 253;

/// Whether a text can be a cluster's name, which agents have as the identifier `host`.
#[must_use]
pub fn is_cluster(text: &str) -> bool {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    !text.is_empty() && text.len() <= CLUSTER_BYTES_MAX && text.bytes().all(fine)
}
