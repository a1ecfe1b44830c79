//! Services that Ingresses name, as upstreams: one for each Service, port, and way of speaking to it.
//!
//! A backend that cannot be served becomes a 503 ([`Action::Unavailable`]) and a problem of the Ingress: a
//! missing Service is no reason to fall through to another's route. Start at [`Backends::action`].

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use model::{
    Action, Algorithm, Endpoint, HealthCheck, HostHeader, HostName, Name, PemSource, Place,
    PoolLimits, Probe, Target, Upstream, UpstreamId, UpstreamRef, UpstreamTls, Verification,
};
use rustc_hash::FxHashMap;

use super::super::Draft;
use super::super::endpoints::SlicePort;
use super::IngressOptions;
use super::annotations::{BackendSettings, Settings};
use crate::objects::from_api::shown;
use crate::objects::{Backend, Ingress, Key, Kind, PortRef, Service, ServicePort, Text};
use crate::store::Store;

/// How a health check that an annotation asks for goes about it.
const HEALTH_INTERVAL: Duration = Duration::from_secs(10);
const HEALTH_TIMEOUT: Duration = Duration::from_secs(3);
const HEALTH_RISE: u32 = 1;
const HEALTH_FALL: u32 = 3;
const HEALTH_STATUSES: (u16, u16) = (200, 399);
/// Bytes of a health check's path that a name of an upstream shows.
const NAME_PATH_BYTES_MAX: usize = 48;
/// Ports of a Service that a message lists.
const PORTS_SHOWN_MAX: usize = 8;

/// Where in an Ingress a backend stands.
#[derive(Debug, Clone, Copy)]
pub(super) enum Field {
    /// Index of rule and path.
    Path((usize, usize)),
    DefaultBackend,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path((rule, path)) => {
                write!(f, "spec.rules[{rule}].http.paths[{path}].backend")
            }
            Self::DefaultBackend => f.write_str("spec.defaultBackend"),
        }
    }
}

/// A reason and a message for the owner of the Ingress.
type Refusal = (&'static str, String);

/// Upstreams so far.
pub(super) struct Backends<'s> {
    options: &'s IngressOptions,
    store: &'s Store,
    made: FxHashMap<(Key, u16, BackendSettings), Result<UpstreamId, Refusal>>,
}

impl<'s> Backends<'s> {
    pub(super) fn new(options: &'s IngressOptions, store: &'s Store) -> Self {
        Self { options, store, made: FxHashMap::default() }
    }

    /// What becomes of requests for a backend.
    pub(super) fn action(
        &mut self,
        ingress: &Ingress,
        settings: &Settings,
        backend: &Backend,
        field: Field,
        draft: &mut Draft,
    ) -> Action {
        let namespace = &ingress.meta.key.namespace;
        match self.find(namespace, &settings.backend, backend, draft) {
            Ok(upstream) => Action::Forward(vec![UpstreamRef { upstream, weight: 1 }]),
            Err((reason, message)) => {
                let message = format!("{field}: {message}; its requests get 503");
                draft.problem(Kind::Ingress, &ingress.meta, reason, message);
                Action::Unavailable { upstream: given_name(namespace, backend) }
            }
        }
    }

    fn find(
        &mut self,
        namespace: &Text,
        settings: &BackendSettings,
        backend: &Backend,
        draft: &mut Draft,
    ) -> Result<UpstreamId, Refusal> {
        let (name, wanted) = match backend {
            Backend::Service { name, port } => (name, port.as_ref()),
            Backend::Unusable { why } => return Err(("UnusableBackend", why.to_string())),
        };
        let key = Key { namespace: namespace.clone(), name: name.clone() };
        let Some(service) = self.store.services.get(&key) else {
            let message = format!(
                "service.name is {}, expected a Service of namespace {namespace}, where none has that name",
                shown(name)
            );
            return Err(("MissingService", message));
        };
        let port = service_port(service, wanted)?;
        let made = (key, port.port, settings.clone());
        if let Some(known) = self.made.get(&made) {
            return known.clone();
        }
        let result = self.make(service, &port, settings, draft);
        self.made.insert(made, result.clone());
        result
    }

    fn make(
        &self,
        service: &Service,
        port: &ServicePort,
        settings: &BackendSettings,
        draft: &mut Draft,
    ) -> Result<UpstreamId, Refusal> {
        let key = &service.meta.key;
        for flaw in &service.flaws {
            draft.problem(Kind::Service, &service.meta, "UnusableField", &**flaw);
        }
        let external = match &service.external_name {
            Some(name) => Some(self.external_name(name)?),
            None => None,
        };
        let tls = match settings.tls {
            Some(tls) => tls,
            None => speaks_tls(service, port, draft),
        };
        let affinity = service.client_affinity.then_some(Algorithm::ClientAddress);
        let algorithm = settings.balance.map(|b| b.algorithm()).or(affinity).unwrap_or_default();
        let tls =
            if tls { Some(Arc::new(self.tls(key, settings, external.as_ref())?)) } else { None };
        let health_check = settings.health_check_path.as_ref();
        let upstream = Upstream {
            name: upstream_name(key, port.port, settings),
            endpoints: external.iter().map(|name| named(name, port.port)).collect(),
            algorithm,
            health_check: health_check.map(|path| health_check_of(path, tls.is_some())),
            tls,
            host_header: HostHeader::Preserve,
            pool: PoolLimits::default(),
            connect_timeout: None,
            response_timeout: None,
            place: Place::whole(format!("Service {key}")),
        };
        let id = draft.upstream(upstream);
        if external.is_none() {
            let slices =
                SlicePort { service: key.clone(), name: port.name.clone(), family: service.family };
            draft.sliced.push((id, slices));
        }
        Ok(id)
    }

    /// The name that a Service of type ExternalName stands for. What leads back to this machine is refused:
    /// behind it are ports that trust whoever reaches them.
    fn external_name(&self, text: &str) -> Result<HostName, Refusal> {
        let refuse = |expected: &str| {
            let message =
                format!("spec.externalName of its Service is {}, {expected}", shown(text));
            Err(("ExternalName", message))
        };
        if !self.options.external_names {
            return refuse("but Services of type ExternalName are switched off here");
        }
        let Ok(name) = HostName::parse(text) else { return refuse("expected a host name") };
        let local_name = name.as_str() == "localhost" || name.as_str().ends_with(".localhost");
        let local_address = name.as_str().parse::<IpAddr>().is_ok_and(is_local);
        if local_name || local_address {
            return refuse("expected a name that does not lead to this machine");
        }
        Ok(name)
    }

    fn tls(
        &self,
        service: &Key,
        settings: &BackendSettings,
        external: Option<&HostName>,
    ) -> Result<UpstreamTls, Refusal> {
        let skip = !settings.verify.unwrap_or(!self.options.backend_tls_skip_verify);
        let verification = match &settings.authorities {
            _ if skip => Verification::Skip,
            Some(secret) => {
                Verification::Authorities(self.authorities(&service.namespace, secret)?)
            }
            None => Verification::System,
        };
        let own_name = match external {
            Some(_) => None,
            None => HostName::parse(&format!("{}.{}.svc", service.name, service.namespace)).ok(),
        };
        let server_name = settings.server_name.clone().or(own_name);
        Ok(UpstreamTls { verification, server_name })
    }

    fn authorities(&self, namespace: &Text, secret: &Text) -> Result<PemSource, Refusal> {
        let key = Key { namespace: namespace.clone(), name: secret.clone() };
        let found = self.store.secrets.get(&key).and_then(|secret| secret.data.get("ca.crt"));
        match found.filter(|pem| !pem.iter().all(u8::is_ascii_whitespace)) {
            Some(pem) => Ok(PemSource::Inline(Arc::clone(pem))),
            None => Err((
                "MissingAuthorities",
                format!(
                    "metadata.annotations[\"cloverleaf/backend-ca\"] is {}, expected a Secret of type \
                     kubernetes.io/tls of namespace {namespace} with the field ca.crt",
                    shown(secret)
                ),
            )),
        }
    }
}

/// Addresses of this machine and those of its link, where cloud providers keep credentials.
fn is_local(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_unspecified() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified() || v6.is_unicast_link_local(),
    }
}

fn named(name: &HostName, port: u16) -> Endpoint {
    Endpoint { target: Target::Named(name.clone(), port), weight: 1 }
}

fn health_check_of(path: &Text, tls: bool) -> HealthCheck {
    HealthCheck {
        probe: Probe::Http { path: path.clone(), host: None, tls, statuses: HEALTH_STATUSES },
        port: None,
        interval: HEALTH_INTERVAL,
        timeout: HEALTH_TIMEOUT,
        rise: HEALTH_RISE,
        fall: HEALTH_FALL,
    }
}

/// The port that a backend names. One of type ExternalName need not declare the ones that it is reached by.
fn service_port(service: &Service, wanted: Option<&PortRef>) -> Result<ServicePort, Refusal> {
    let declared = &service.ports;
    let (found, value) = match wanted {
        Some(PortRef::Number(number)) => {
            let undeclared =
                ServicePort { name: Text::default(), port: *number, app_protocol: None };
            let external = service.external_name.is_some().then_some(undeclared);
            let found = declared.iter().find(|port| port.port == *number).cloned().or(external);
            (found, format!("service.port.number is {number}"))
        }
        Some(PortRef::Name(name)) => {
            let found = declared.iter().find(|port| port.name == *name).cloned();
            (found, format!("service.port.name is {}", shown(name)))
        }
        None => (None, "service.port is missing".to_owned()),
    };
    found.ok_or_else(|| {
        let shown_ports: Vec<String> =
            declared.iter().take(PORTS_SHOWN_MAX).map(port_text).collect();
        let more = if declared.len() > PORTS_SHOWN_MAX { ", …" } else { "" };
        let message = format!(
            "{value}, expected a TCP port of Service {}, which has {}{more}",
            service.meta.key,
            if declared.is_empty() { "none".to_owned() } else { shown_ports.join(", ") }
        );
        ("MissingPort", message)
    })
}

fn port_text(port: &ServicePort) -> String {
    match &*port.name {
        "" => port.port.to_string(),
        name => format!("{} ({name})", port.port),
    }
}

/// What `appProtocol` says of TLS. Protocols that are not HTTP/1 are reported and spoken to in HTTP/1 all
/// the same: a server may know both.
fn speaks_tls(service: &Service, port: &ServicePort, draft: &mut Draft) -> bool {
    match port.app_protocol.as_deref() {
        Some("https" | "HTTPS" | "kubernetes.io/wss") => true,
        Some(protocol @ ("kubernetes.io/h2c" | "h2c" | "grpc" | "http2")) => {
            let message = format!(
                "spec.ports has appProtocol {protocol:?} for port {}, expected http, https, \
                 kubernetes.io/ws or kubernetes.io/wss; it is spoken to in HTTP/1.1",
                port.port
            );
            draft.problem(Kind::Service, &service.meta, "UnsupportedProtocol", message);
            false
        }
        _ => false,
    }
}

/// The name for a backend that has no upstream.
fn given_name(namespace: &str, backend: &Backend) -> Name {
    match backend {
        Backend::Service { name, port } => {
            let port = match port {
                Some(PortRef::Number(number)) => number.to_string(),
                Some(PortRef::Name(name)) => name.to_string(),
                None => "?".to_owned(),
            };
            format!("service/{namespace}/{name}/{port}").into()
        }
        Backend::Unusable { .. } => format!("resource/{namespace}").into(),
    }
}

/// `service/NAMESPACE/NAME/PORT`, and behind a `+` each whatever sets it apart from how the Service is
/// spoken to by itself. Where that is cut, [`Draft::upstream`] keeps names unique.
fn upstream_name(key: &Key, port: u16, settings: &BackendSettings) -> Name {
    let BackendSettings { tls, verify, authorities, server_name, balance, health_check_path } =
        settings;
    let mut name = format!("service/{key}/{port}");
    let mut add = |part: &str| {
        name.push('+');
        name.push_str(part);
    };
    match tls {
        Some(true) => add("https"),
        Some(false) => add("http"),
        None => {}
    }
    match verify {
        Some(true) => add("verify"),
        Some(false) => add("no-verify"),
        None => {}
    }
    if let Some(secret) = authorities {
        add(&format!("ca={secret}"));
    }
    if let Some(server_name) = server_name {
        add(&format!("name={server_name}"));
    }
    if let Some(balance) = balance {
        add(match balance.algorithm() {
            Algorithm::RoundRobin => "round-robin",
            Algorithm::LeastRequests => "least-requests",
            Algorithm::ClientAddress => "client-address",
        });
    }
    if let Some(path) = health_check_path {
        add(&format!("health={}", path.get(..NAME_PATH_BYTES_MAX).unwrap_or(path)));
    }
    name.into()
}
