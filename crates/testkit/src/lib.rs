//! For tests only: what surrounds the program, made so that a test reads as what happens.
//!
//! The real program as a process ([`process`], [`running`]), certificates ([`certs`]), raw clients that send and see
//! every byte ([`client`]), steady load ([`load`]), upstreams that misbehave on command ([`upstream`]), a load
//! balancer for TCP ([`balancer`]), a server that answers what was asked ([`answering`]), a real Kubernetes
//! ([`kubernetes`]) with Helm ([`helm`]), and what fuzzing has found ([`corpus`]). Plain threads and blocking
//! sockets, no runtime:
//! nothing here is shared with what is tested, and nothing of the data plane may be used here. Everything
//! waits for a bounded time and panics with what it saw, since a panic is how a test fails.

pub mod answering;
pub mod balancer;
pub mod certs;
pub mod client;
pub mod command;
pub mod corpus;
pub mod deaf;
pub mod helm;
pub mod konnectivity;
pub mod kubernetes;
pub mod load;
pub mod metrics;
pub mod netns;
pub mod ports;
pub mod process;
pub mod running;
pub mod upstream;
pub mod wait;
mod wire;

pub use answering::answer_https;
pub use balancer::Balancer;
pub use certs::{Authority, Issued};
pub use client::{Client, Response};
pub use deaf::Deaf;
pub use helm::Helm;
pub use konnectivity::Konnectivity;
pub use load::{Load, Target, Work};
pub use netns::{Isolated, Network};
pub use ports::Port;
pub use process::{Cloverleaf, ConfigBy, Gateway};
pub use running::Running;
pub use upstream::{Step, Upstream};
pub use wait::wait_until;
