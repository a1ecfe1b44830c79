//! The program on a real control plane: an API server and etcd of this test's own, no nodes.
//!
//! One control plane for all tests, each with a namespace of its own; those that stop it have their own. All of it runs
//! in a network namespace that ends with the tests. Start at [`support`].

mod bad_input;
mod conformance;
mod controller;
mod dispatcher;
mod outage;
mod replicas;
mod reports;
mod routes;
mod support;
