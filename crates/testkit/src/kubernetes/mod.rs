//! A real Kubernetes for tests: etcd, the API server and, where a test needs them, nodes that run pods.
//!
//! Two things to start with. [`ControlPlane::start`] gives a test an API server of its own in two seconds,
//! several side by side, without privileges. [`Cluster::for_test`] gives all tests of a process one cluster
//! with two nodes, DNS and Services, which needs root; or the cluster that somebody names. Both give
//! [`Access`]: kubectl and a kubeconfig, as the administrator or as somebody with fewer rights.
//!
//! ```no_run
//! use cloverleaf_testkit::kubernetes::{Binaries, ControlPlane, Options};
//!
//! let Some(binaries) = Binaries::for_test() else { return };
//! let control = ControlPlane::start(&binaries, &Options::default()).unwrap();
//! control.kubectl(&["create", "configmap", "a"], None).unwrap();
//! ```
//!
//! Unlike the rest of this crate it answers with errors, since `cargo xtask cluster` uses it too. The
//! programs are built by that from the sources in `tests/cluster`; the document is `docs/test-cluster.md`.
//! From the outside in: `cluster` and `control` hold the order of things, `node`, `network`, `pki`, `image`
//! and `access` each one subject, `service` the processes, `state` what is remembered between programs.

mod access;
mod binaries;
mod cluster;
mod command;
mod control;
mod error;
mod image;
mod network;
mod node;
mod pki;
mod service;
mod state;

pub use access::{Access, KUBECTL_WITHIN, Namespace};
pub use binaries::{Binaries, COMPONENTS, FOLDER_VARIABLE, cache_folder, complete};
pub use cluster::{
    Cluster, KUBECONFIG_VARIABLE, LOAD_VARIABLE, MACHINE_FREE_WITHIN, NODES_READY_WITHIN,
    REACHABLE_VARIABLE, Status,
};
pub use control::{ApiServer, CONTROL_PLANE_READY_WITHIN, ControlPlane, Options};
pub use error::Error;
pub use image::{CLOVERLEAF_IMAGE, Image, TOOLS_IMAGE};
