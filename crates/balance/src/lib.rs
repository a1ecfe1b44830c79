//! Choosing one of several by weight: an endpoint of an upstream, an upstream of a rule.
//!
//! A pick sits on the request path of every worker thread: it takes no lock, allocates nothing and asks no
//! clock; randomness is passed in as an [`Rng`], so that a seed repeats a run. This crate must not know
//! sockets, time, threads or HTTP. Start at [`Balancer`]; [`WeightedChoice`] and [`RandomChoice`] are two of
//! its ways of choosing and serve alone where nothing is in flight. [`Health`] judges an endpoint by its
//! checks; a pick is told who serves.
//!
//! Further algorithms become variants of the balancer's `Choice`.

mod balancer;
mod health;
mod random;
mod rendezvous;
mod rng;
mod smooth;
mod tried;

#[cfg(test)]
mod simulation;

pub use balancer::{Balancer, Count, InFlight, Local, Member, Request, Shared};
pub use health::Health;
pub use random::RandomChoice;
pub use rendezvous::identity;
pub use rng::Rng;
pub use smooth::{SCHEDULE_SLOTS_MAX, WeightedChoice};
pub use tried::{TRIED_MAX, Tried};
