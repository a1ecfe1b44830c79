//! The Helm chart on a real cluster of two nodes, with exactly the rights that it gives: what is routed, who
//! may do what, and that nothing is lost while everything around it changes. And the tunnel between an API server and
//! the nodes (`egress`).
//!
//! What needs the programs of a cluster, helm or root is left out where they are missing, and says so; with
//! `CI=true` it fails. Start with [`support::Stage`].

mod dispatcher;
mod document;
mod egress;
mod manifests;
mod rights;
mod rollouts;
mod routes;
mod support;
