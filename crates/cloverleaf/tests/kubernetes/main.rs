//! The program on a real control plane: an API server and etcd of this test's own, no nodes.
//!
//! One control plane for all tests, each with a namespace of its own; those that stop it have their own. The API takes
//! no loopback address for an endpoint: what is answered is on an address of the machine. Start at [`support`].

mod conformance;
mod controller;
mod dispatcher;
mod outage;
mod replicas;
mod reports;
mod routes;
mod support;
