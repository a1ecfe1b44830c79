//! The admin port of every role: health, metrics, the configuration served, live state, a dashboard.
//!
//! It only shows: no request changes anything, and what it shows comes from the role through
//! [`Provider`]. It must not know any role, and it runs on the control runtime, so that a scrape
//! never delays traffic.
//!
//! Start at [`Server`] for the port, at [`state`] for the shape of `/state`, at [`metrics`] for `/metrics`.

mod answer;
mod error;
mod guard;
pub mod metrics;
pub mod process;
mod server;
pub mod state;

use metrics::Family;

pub use error::Error;
pub use server::Server;
pub use state::State;

/// What a role shows on its admin port. The methods are called on threads of the runtime's blocking
/// pool, one call a request; they may take milliseconds, and should not wait for anything that the
/// data plane holds for long.
pub trait Provider: Send + Sync + 'static {
    /// Whether traffic should be sent here: `/readyz`.
    fn readiness(&self) -> Readiness;

    /// The metric families of the role: `/metrics`. Those of the process are added by the server.
    fn metrics(&self) -> Vec<Family>;

    /// The configuration that is served, without secrets: `/config`.
    fn config(&self) -> serde_json::Value;

    /// What is going on: `/state`, as [`State::to_json`] gives it.
    fn state(&self) -> serde_json::Value;
}

/// Whether traffic should be sent here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Yes.
    Ready,
    /// No, for these reasons, one sentence each without a full stop.
    NotReady(Vec<String>),
}
