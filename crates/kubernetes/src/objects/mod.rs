//! The parts of Kubernetes objects that decide about routes, checked for shape and stripped of all else.
//!
//! Made from API objects by [`from_api`]; kept in [`crate::store::Store`], written to disk as the last
//! known state, read from manifests by the dry run. What cannot be used of an object is kept in words (its
//! `flaws`), so that its owner hears of it and the rest of it is served. Must not know the model.

pub mod from_api;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A short text that many objects share.
pub type Text = Arc<str>;

/// The kinds that are watched or written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// `networking.k8s.io/v1`
    Ingress,
    /// `networking.k8s.io/v1`
    IngressClass,
    /// `v1`
    Service,
    /// `discovery.k8s.io/v1`
    EndpointSlice,
    /// `v1`
    Secret,
    /// `v1`
    Namespace,
    /// `v1`
    Pod,
}

impl Kind {
    /// As in manifests.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "Ingress",
            Self::IngressClass => "IngressClass",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Secret => "Secret",
            Self::Namespace => "Namespace",
            Self::Pod => "Pod",
        }
    }
}

/// Names an object within its kind. Cluster-wide kinds have an empty namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// Namespace; empty for cluster-wide kinds.
    pub namespace: Text,
    /// Name.
    pub name: Text,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// An object that a problem is about: what an Event needs to name it. Shown as `Kind namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectRef {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub key: Key,
    /// Its unique id; empty where it was not read from an API server.
    pub uid: Text,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.key)
    }
}

/// What every object has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Namespace and name.
    pub key: Key,
    /// Unique id.
    pub uid: Text,
    /// Creation, in seconds since 1970: the oldest of several claims wins.
    pub created: i64,
    /// Being deleted.
    pub deleting: bool,
}

/// `networking.k8s.io/v1` Ingress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ingress {
    /// Its name and age.
    pub meta: Meta,
    /// `spec.ingressClassName`, or else the annotation `kubernetes.io/ingress.class`.
    pub class: Option<Text>,
    /// Those annotations alone that this program reads.
    pub annotations: BTreeMap<Text, Text>,
    /// `spec.defaultBackend`
    pub default_backend: Option<Backend>,
    /// `spec.rules`, flattened to one for each path. A rule without paths is left out (the specification
    /// gives its requests to the default backend).
    pub paths: Vec<IngressPath>,
    /// Hosts of `spec.rules` that have no paths: their requests go to the default backend.
    pub bare_hosts: Vec<Text>,
    /// `spec.tls`
    pub tls: Vec<IngressTls>,
    /// What its status says, to be compared before writing.
    pub status: IngressStatus,
    /// What was left out of it and why, one sentence each, for its owner.
    pub flaws: Vec<Text>,
}

/// `status.loadBalancer.ingress` of an Ingress.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngressStatus {
    /// The addresses (IP or host name) as they stand.
    pub addresses: Vec<Text>,
    /// The field managers that the API server knows to have written them so.
    pub writers: Vec<Text>,
}

/// One path of an Ingress rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngressPath {
    /// Index of its rule and of the path in it, for messages: `spec.rules[1].http.paths[0]`.
    pub at: (usize, usize),
    /// Empty: every host.
    pub host: Text,
    /// As it stands; may be empty.
    pub path: Text,
    /// How it matches.
    pub path_type: PathType,
    /// Where it leads.
    pub backend: Backend,
}

/// `pathType`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PathType {
    /// The whole path.
    Exact,
    /// Whole segments.
    Prefix,
    /// Up to us: as `NanoProxy` had it, a prefix; by segments.
    ImplementationSpecific,
    /// None of them, as it stands; empty where there is none. Reported, not served.
    Unknown(Text),
}

/// Where an Ingress path leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Backend {
    /// A Service of the same namespace.
    Service {
        /// Its name.
        name: Text,
        /// Which of its ports; none is a mistake that is reported.
        port: Option<PortRef>,
    },
    /// Something that nothing here serves (a resource of another kind, or nothing): reported, 503.
    Unusable {
        /// What stands there, for the message: `backend.resource: StorageBucket "a" is no Service`.
        why: Text,
    },
}

/// A port by number or name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PortRef {
    /// By number.
    Number(u16),
    /// By name.
    Name(Text),
}

/// `spec.tls[]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngressTls {
    /// Names that the certificate is for; none: those in the certificate.
    pub hosts: Vec<Text>,
    /// A Secret of the same namespace; `None`: the default certificate.
    pub secret: Option<Text>,
}

/// `networking.k8s.io/v1` IngressClass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngressClass {
    /// Its name and age.
    pub meta: Meta,
    /// `spec.controller`
    pub controller: Text,
    /// Annotated as the class of Ingresses that name none.
    pub is_default: bool,
}

/// `v1` Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its name and age.
    pub meta: Meta,
    /// `spec.externalName` of a Service of type ExternalName.
    pub external_name: Option<Text>,
    /// Its ports with protocol TCP.
    pub ports: Vec<ServicePort>,
    /// `spec.sessionAffinity: ClientIP`
    pub client_affinity: bool,
    /// `spec.ipFamilies`: the first, which is preferred where its endpoints have addresses of both.
    pub family: Option<Family>,
    /// `status.loadBalancer.ingress`, or `spec.externalIPs`: what a publish-service hands on.
    pub addresses: Vec<Text>,
    /// What was left out of it and why, one sentence each, for its owner.
    pub flaws: Vec<Text>,
}

/// A version of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

impl Family {
    /// That of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// One port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePort {
    /// Empty where the Service has only one.
    pub name: Text,
    /// Its number.
    pub port: u16,
    /// `appProtocol`
    pub app_protocol: Option<Text>,
}

/// `discovery.k8s.io/v1` EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointSlice {
    /// Its name and age.
    pub meta: Meta,
    /// The Service that it belongs to (label `kubernetes.io/service-name`), of the same namespace.
    pub service: Text,
    /// TCP ports by the name that the Service's port has; a port without number is left out.
    pub ports: Vec<(Text, u16)>,
    /// Its endpoints with addresses of IPv4 or IPv6; names (type FQDN) are left out, as nobody makes them.
    pub endpoints: Vec<SliceEndpoint>,
    /// What was left out of it and why, one sentence each, for its owner.
    pub flaws: Vec<Text>,
}

/// One endpoint of a slice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SliceEndpoint {
    /// The first address: all of them lead to the same pod.
    pub address: IpAddr,
    /// Conditions; unknown counts as the specification says (ready and serving: true; terminating: false).
    pub ready: bool,
    /// See [`Self::ready`].
    pub serving: bool,
    /// See [`Self::ready`].
    pub terminating: bool,
    /// Which zones and nodes it is meant for; endpoints of a slice with the same hints share them.
    pub hints: Option<Arc<Hints>>,
}

/// `hints` of an endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hints {
    /// `forZones`
    pub zones: Vec<Text>,
    /// `forNodes`
    pub nodes: Vec<Text>,
}

/// `v1` Secret: the fields that something here reads.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// Its name and age.
    pub meta: Meta,
    /// Field by field, decoded.
    pub data: BTreeMap<Text, Arc<[u8]>>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields: Vec<_> = self.data.keys().collect();
        f.debug_struct("Secret").field("key", &self.meta.key).field("fields", &fields).finish()
    }
}

/// What is kept of Namespaces and Pods: the names of annotations and labels, which the operator chooses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnnotationNames {
    /// The Namespace's annotation that holds its hosts.
    pub hosts: Text,
    /// The Pod's annotation that holds its paths.
    pub paths: Text,
    /// Labels of Namespaces (organization, environment).
    pub namespace_labels: Vec<Text>,
    /// Labels of Pods (application's name and revision).
    pub pod_labels: Vec<Text>,
}

impl Default for AnnotationNames {
    fn default() -> Self {
        let name = |last: &str| Text::from(format!("github.com/30x.dispatcher.{last}"));
        Self {
            hosts: name("hosts"),
            paths: name("paths"),
            namespace_labels: vec![name("org"), name("env")],
            pod_labels: vec![name("app.name"), name("app.rev")],
        }
    }
}

/// `v1` Namespace, of those that the label selector takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// Its name and age.
    pub meta: Meta,
    /// The hosts annotation as it stands.
    pub hosts: Option<Text>,
    /// The organization and environment labels.
    pub labels: BTreeMap<Text, Text>,
}

/// `v1` Pod, of those that the label selector takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// Its name and age.
    pub meta: Meta,
    /// The paths annotation as it stands.
    pub paths: Option<Text>,
    /// The application's name and revision labels.
    pub labels: BTreeMap<Text, Text>,
    /// `status.podIP`, once it has one.
    pub address: Option<IpAddr>,
    /// Phase Running.
    pub running: bool,
    /// Condition Ready.
    pub ready: bool,
    /// Its containers' declared ports and probes.
    pub containers: Vec<Container>,
}

/// One container of a Pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Declared TCP ports with their names.
    pub ports: Vec<(Text, u16)>,
    /// The readiness probe, else the liveness probe; numbers as the kubelet takes them where none are given.
    pub probe: Option<ContainerProbe>,
}

/// A probe as the kubelet runs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerProbe {
    /// What it asks.
    pub ask: ContainerAsk,
    /// Seconds between two.
    pub period_s: u32,
    /// Seconds that one may take.
    pub timeout_s: u32,
    /// Successes to be up again.
    pub rise: u32,
    /// Failures to be down.
    pub fall: u32,
}

/// What a probe asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerAsk {
    /// A GET.
    Http {
        /// Path and query.
        path: Text,
        /// Port by number or name.
        port: PortRef,
        /// Over TLS.
        tls: bool,
        /// A `Host` of its own.
        host: Option<Text>,
    },
    /// A connection.
    Tcp {
        /// Port by number or name.
        port: PortRef,
    },
    /// Something that only the kubelet can ask (exec, gRPC): a connection to the port that serves.
    Other,
}
