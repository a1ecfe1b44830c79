//! The server: clients on one port, agents on another, and the [`Hub`] in which they meet.
//!
//! [`listen`] serves the sockets of a worker thread; `registry` chooses an agent, `hub` dials through it, `agents` has
//! the agents' streams, `proxy` and `connect` the two ways in which clients speak. Must not know flags or files. Start
//! at [`Hub`] and [`listen::serve`].

mod agents;
mod connect;
mod hub;
pub mod listen;
mod proxy;
mod registry;

use std::time::Duration;

pub use hub::{Agent, Hub};
pub use registry::Strategy;

use crate::stats::{Counter, Durations, Gauge, Packets};
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
    pub dial_duration: Durations,
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
    /// TLS handshakes that failed.
    pub failed_handshakes: Counter,
    /// Dials for which there was no agent.
    pub no_agent: Counter,
    /// Dials that the agent could not make.
    pub refused: Counter,
    /// Answers to dials that nobody waited for.
    pub unrecognized_responses: Counter,
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
    fn dial_failed(&self, error: &DialError) {
        let counter = match error {
            DialError::NoAgent => &self.no_agent,
            DialError::Refused(_) | DialError::Address(_) => &self.refused,
            DialError::AgentGone => &self.agent_gone,
            DialError::Timeout(_) => &self.dial_timeouts,
        };
        counter.add(1);
    }
}
