//! Manifests in, routes out: what Ingresses come to, case by case, without a cluster.
//!
//! [`world`] holds what the cases share. Start at `conformance`.

mod annotations;
mod bad_input;
mod both_sources;
mod conflicts;
mod conformance;
mod incremental;
mod manifests;
mod scale;
mod services;
mod tls;
mod world;
