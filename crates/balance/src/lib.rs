//! Choosing one of several by weight: an endpoint of an upstream, an upstream of a rule.
//!
//! A pick sits on the request path of every worker thread: it takes no lock, allocates nothing and asks no
//! clock; randomness is passed in as an [`Rng`], so that a seed repeats a run. This crate must not know
//! sockets, time, threads or HTTP. Start at [`Balancer`]; [`WeightedChoice`] and [`RandomChoice`] are its
//! two ways of choosing and serve alone where nothing is in flight.
//!
//! Further algorithms become variants of the balancer's `Choice`. An endpoint that must rest for a while
//! gets weight 0 by [`Balancer::rebuild`], which keeps the counts of what is in flight.

mod balancer;
mod random;
mod rng;
mod smooth;
mod tried;

#[cfg(test)]
mod simulation;

pub use balancer::{Balancer, InFlight};
pub use random::RandomChoice;
pub use rng::Rng;
pub use smooth::{SCHEDULE_SLOTS_MAX, WeightedChoice};
pub use tried::{TRIED_MAX, Tried};
