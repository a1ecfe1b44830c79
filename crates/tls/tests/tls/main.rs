//! Both ends of TLS against each other in memory, and against rustls clients and servers of other making.

mod client_certificates;
mod common;
mod figures;
mod mutual;
mod peer;
mod pieces;
mod records;
mod streams;
mod terminations;
mod upstreams;
