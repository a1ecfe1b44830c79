//! The server: clients on one port, agents on another, and the [`Hub`] in which they meet.
//!
//! [`listen`] serves the sockets of a worker thread; [`admission`] says who may be an agent, `agents` has the agents'
//! streams, `registry` chooses one, `hub` dials through it, `proxy` and `connect` are the two ways in which clients
//! speak. Must not know flags or files. Start at [`Hub`] and [`listen::serve`].

pub mod admission;
mod agents;
pub(crate) mod connect;
mod hub;
pub mod listen;
mod proxy;
mod registry;

use std::time::Duration;

pub use admission::Admission;
pub use hub::{Agent, Hub};
pub use registry::Strategy;

use crate::grpc::StreamError;
use crate::packet::Packet;
use crate::stats::{
    Counter, Dials, Durations, Gauge, Life, Lives, NO_PACKET, Named, Packets, StreamErrors, Writes,
};
use admission::Refusals;
use hub::DialError;

/// How clients speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// gRPC, a stream for each connection.
    Grpc,
    /// HTTP/1.1 CONNECT.
    HttpConnect,
}

/// What a server is told when it starts.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How clients speak.
    pub mode: Mode,
    /// Its name, which agents tell servers apart by.
    pub server_id: String,
    /// How many servers there are.
    pub server_count: u32,
    /// How agents are chosen, in this order.
    pub strategies: Vec<Strategy>,
    /// How long an agent may take to answer a dial; `None`: as long as the client waits.
    pub backend_dial_timeout: Option<Duration>,
    /// How often a silent agent is asked whether it lives.
    pub keepalive: Duration,
    /// The same for clients.
    pub frontend_keepalive: Duration,
}

/// What a server counts.
#[derive(Debug, Default)]
pub struct Stats {
    /// From a client's wish to the answer.
    pub dial_duration: Durations<Dials>,
    /// What clients that speak gRPC make payload for them wait.
    pub frontend_write: Durations<Writes>,
    /// Connections through the tunnel that have ended.
    pub connection_duration: Durations<Lives>,
    /// Dials that agents have not answered.
    pub pending_dials: Gauge,
    /// Connections through the tunnel.
    pub established: Gauge,
    /// Calls of clients now.
    pub proxy_streams: Gauge,
    /// Calls of agents now.
    pub connect_streams: Gauge,
    /// Clients that speak HTTP CONNECT, from their request on.
    pub http_connections: Gauge,
    /// Clients' calls of which nothing is taken now: their connection takes no more.
    pub full_calls: Gauge,
    /// TLS handshakes that failed: port and reason.
    pub failed_handshakes: Named<2>,
    /// Streams of packets that failed.
    pub stream_errors: StreamErrors,
    /// Agents that were refused.
    pub refused_agents: Refusals,
    /// Dials for which there was no agent.
    pub no_agent: Counter,
    /// Dials that the agent could not make.
    pub refused: Counter,
    /// Answers to dials that nobody waited for.
    pub unrecognized_responses: Counter,
    /// Connections whose client was gone when it should have been told.
    pub unsent_responses: Counter,
    /// Dials whose agent went.
    pub agent_gone: Counter,
    /// Dials that the agent did not answer in time.
    pub dial_timeouts: Counter,
    /// Dials that the client gave up.
    pub dials_closed: Counter,
    /// Packets by direction.
    pub from_client: Packets,
    /// Packets by direction.
    pub to_client: Packets,
    /// Packets by direction.
    pub from_agent: Packets,
    /// Packets by direction.
    pub to_agent: Packets,
}

impl Stats {
    /// A connection through the tunnel begins.
    fn establish(&self) -> Life<'_> {
        Life::begin(&self.established, &self.connection_duration)
    }

    fn stream_failed(&self, segment: &'static str, error: &StreamError, packet: Option<&Packet>) {
        let packet = packet.map_or(NO_PACKET, Packet::name);
        self.stream_errors.add([segment, error.code(), packet]);
    }

    fn dial_failed(&self, error: &DialError) {
        let counter = match error {
            DialError::NoAgent | DialError::NoCluster(_) => &self.no_agent,
            DialError::Refused(_) | DialError::Address(_) => &self.refused,
            DialError::AgentGone => &self.agent_gone,
            DialError::Timeout(_) => &self.dial_timeouts,
        };
        counter.add(1);
    }
}
