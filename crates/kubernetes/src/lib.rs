//! Kubernetes as a source: Ingresses and annotated Pods become rules and upstreams of the model, and the objects
//! hear what became of them (status, Events).
//!
//! [`objects`] are the parts of API objects that matter here, small enough to keep fifty thousand of. [`store`]
//! holds them, [`translate`] makes model out of them without any IO, `api` watches and writes. Must not know how a
//! request is matched or served. The only crate that names kube.

mod api;
mod budget;
pub mod health;
mod lease;
pub mod manifests;
pub mod objects;
pub mod persist;
mod report;
pub mod servers;
mod source;
pub mod store;
pub mod tokens;
pub mod translate;

pub use api::{Cluster, Error};
pub use budget::{Budget, InvalidQps};
pub use lease::LeaseOptions;
pub use report::{Options as ReportOptions, Publish};
pub use source::{Options, Output, PodSelection, Selection, Source, list_once};
