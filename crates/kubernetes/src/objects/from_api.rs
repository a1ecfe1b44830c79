//! The compact objects, made from those of the API.
//!
//! Nothing here fails: what cannot be used (an unknown word, a port out of range, more paths than the
//! bound) is left out and said in the object's `flaws`. One function `from_api` for each kind; start at
//! [`Ingress::from_api`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{
    AnnotationNames, Backend, Container, ContainerAsk, ContainerProbe, EndpointSlice, Family,
    Hints, Ingress, IngressClass, IngressPath, IngressStatus, IngressTls, Key, Meta, Namespace,
    PathType, Pod, PortRef, Secret, Service, ServicePort, SliceEndpoint, Text,
};

/// Paths of one Ingress; the rest is left out. An object of the API can hold about ten thousand.
pub const INGRESS_PATHS_MAX: usize = 2_000;
/// Hosts in `spec.tls` of one Ingress, and entries there; the rest is left out.
pub const INGRESS_TLS_HOSTS_MAX: usize = 2_000;
/// Bytes of one annotation of an Ingress; a longer one is left out.
pub const ANNOTATION_BYTES_MAX: usize = 4 * 1024;
/// Ports of one Service or EndpointSlice.
pub const PORTS_MAX: usize = 1_000;
/// Flaws said of one object; the rest is only counted.
pub const FLAWS_MAX: usize = 16;

/// Annotations of an Ingress that begin so are read.
const ANNOTATION_PREFIXES: [&str; 2] = ["nanoproxy/", "cloverleaf/"];
const LEGACY_CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const DEFAULT_CLASS_ANNOTATION: &str = "ingressclass.kubernetes.io/is-default-class";
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
const TLS_SECRET_TYPE: &str = "kubernetes.io/tls";
const TLS_SECRET_FIELDS: [&str; 3] = ["tls.crt", "tls.key", "ca.crt"];

/// What was left out of an object, bounded.
#[derive(Debug, Default)]
struct Flaws {
    said: Vec<Text>,
    unsaid: usize,
}

impl Flaws {
    fn push(&mut self, flaw: String) {
        if self.said.len() < FLAWS_MAX {
            self.said.push(flaw.into());
        } else {
            self.unsaid += 1;
        }
    }

    fn into_texts(mut self) -> Vec<Text> {
        if self.unsaid > 0 {
            self.said.push(format!("and {} more of that kind", self.unsaid).into());
        }
        self.said
    }
}

/// A value for a message: quoted, cut at a bound.
pub(crate) fn shown(value: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 80;
    match value.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((cut, _)) => format!("{:?}…", &value[..cut]),
        None => format!("{value:?}"),
    }
}

fn text(value: Option<String>) -> Text {
    value.unwrap_or_default().into()
}

/// A number from 1 to 65535.
fn port(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|&port| port > 0)
}

fn is_tcp(protocol: Option<&str>) -> bool {
    matches!(protocol, None | Some("" | "TCP"))
}

impl Meta {
    fn from_api(meta: &mut ObjectMeta) -> Self {
        Self {
            key: Key { namespace: text(meta.namespace.take()), name: text(meta.name.take()) },
            uid: text(meta.uid.take()),
            created: meta.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
            deleting: meta.deletion_timestamp.is_some(),
        }
    }
}

impl Ingress {
    /// See the fields.
    #[must_use]
    pub fn from_api(mut api: networking::Ingress) -> Self {
        let mut flaws = Flaws::default();
        let meta = Meta::from_api(&mut api.metadata);
        let managed = api.metadata.managed_fields.unwrap_or_default();
        let spec = api.spec.unwrap_or_default();
        let mut annotations = api.metadata.annotations.unwrap_or_default();
        let legacy = annotations.remove(LEGACY_CLASS_ANNOTATION);
        let class = spec.ingress_class_name.or(legacy).filter(|class| !class.is_empty());
        let (paths, bare_hosts) = ingress_paths(spec.rules.unwrap_or_default(), &mut flaws);
        Self {
            meta,
            class: class.map(Text::from),
            annotations: own_annotations(annotations, &mut flaws),
            default_backend: spec.default_backend.map(Backend::from_api),
            paths,
            bare_hosts,
            tls: ingress_tls(spec.tls.unwrap_or_default(), &mut flaws),
            status: ingress_status(api.status, managed),
            flaws: flaws.into_texts(),
        }
    }
}

fn own_annotations(all: BTreeMap<String, String>, flaws: &mut Flaws) -> BTreeMap<Text, Text> {
    let ours = |name: &str| ANNOTATION_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    let mut kept = BTreeMap::new();
    for (name, value) in all.into_iter().filter(|(name, _)| ours(name)) {
        if value.len() <= ANNOTATION_BYTES_MAX {
            kept.insert(name.into(), value.into());
        } else {
            flaws.push(format!(
                "metadata.annotations[{}] has {} bytes, expected at most {ANNOTATION_BYTES_MAX}; \
                 it is ignored",
                shown(&name),
                value.len()
            ));
        }
    }
    kept
}

/// Paths and hosts without paths.
fn ingress_paths(
    rules: Vec<networking::IngressRule>,
    flaws: &mut Flaws,
) -> (Vec<IngressPath>, Vec<Text>) {
    let mut flat = Vec::new();
    let mut bare = Vec::new();
    let mut left_out = 0;
    for (rule_index, rule) in rules.into_iter().enumerate() {
        let host = text(rule.host);
        let paths = rule.http.map(|http| http.paths).unwrap_or_default();
        if paths.is_empty() && bare.len() < INGRESS_PATHS_MAX {
            bare.push(host.clone());
        }
        for (path_index, path) in paths.into_iter().enumerate() {
            if flat.len() == INGRESS_PATHS_MAX {
                left_out += 1;
                continue;
            }
            flat.push(IngressPath {
                at: (rule_index, path_index),
                host: host.clone(),
                path: text(path.path),
                path_type: PathType::from_api(path.path_type),
                backend: Backend::from_api(path.backend),
            });
        }
    }
    if left_out > 0 {
        flaws.push(format!(
            "spec.rules has {} paths, expected at most {INGRESS_PATHS_MAX}; \
             the last {left_out} are not served",
            flat.len() + left_out
        ));
    }
    (flat, bare)
}

impl PathType {
    fn from_api(word: String) -> Self {
        match word.as_str() {
            "Exact" => Self::Exact,
            "Prefix" => Self::Prefix,
            "ImplementationSpecific" => Self::ImplementationSpecific,
            _ => Self::Unknown(word.into()),
        }
    }
}

impl Backend {
    fn from_api(api: networking::IngressBackend) -> Self {
        if let Some(service) = api.service {
            let reference = service.port.unwrap_or_default();
            let named = reference.name.filter(|name| !name.is_empty());
            let port = match (named, reference.number.filter(|&number| number != 0)) {
                (Some(name), _) => Some(PortRef::Name(name.into())),
                (None, Some(number)) => match port(number) {
                    Some(port) => Some(PortRef::Number(port)),
                    None => {
                        let why = format!("service.port.number is {number}, expected 1 to 65535");
                        return Self::Unusable { why: why.into() };
                    }
                },
                (None, None) => None,
            };
            return Self::Service { name: service.name.into(), port };
        }
        let why = match api.resource {
            Some(resource) => {
                format!(
                    "resource is {} {}, expected a Service",
                    resource.kind,
                    shown(&resource.name)
                )
            }
            None => "it names nothing, expected a Service".to_owned(),
        };
        Self::Unusable { why: why.into() }
    }
}

fn ingress_tls(entries: Vec<networking::IngressTLS>, flaws: &mut Flaws) -> Vec<IngressTls> {
    let mut room = INGRESS_TLS_HOSTS_MAX;
    let mut kept = Vec::new();
    let all = entries.len();
    for (index, entry) in entries.into_iter().take(INGRESS_TLS_HOSTS_MAX).enumerate() {
        let hosts = entry.hosts.unwrap_or_default();
        if hosts.len() > room {
            flaws.push(format!(
                "spec.tls[{index}].hosts goes beyond {INGRESS_TLS_HOSTS_MAX} hosts in all; \
                 the rest has no certificate"
            ));
        }
        let taken = hosts.len().min(room);
        room -= taken;
        kept.push(IngressTls {
            hosts: hosts.into_iter().take(taken).map(Text::from).collect(),
            secret: entry.secret_name.filter(|name| !name.is_empty()).map(Text::from),
        });
        if room == 0 {
            break;
        }
    }
    if kept.len() < all {
        flaws.push(format!("spec.tls has {all} entries; only {} are used", kept.len()));
    }
    kept
}

fn ingress_status(
    status: Option<networking::IngressStatus>,
    managed: Vec<ManagedFieldsEntry>,
) -> IngressStatus {
    const ADDRESSES: &str = "/f:status/f:loadBalancer/f:ingress";
    let entries = status.and_then(|s| s.load_balancer).and_then(|b| b.ingress).unwrap_or_default();
    let addresses = entries.into_iter().filter_map(|entry| entry.ip.or(entry.hostname));
    let wrote = |entry: &ManagedFieldsEntry| {
        entry.fields_v1.as_ref().is_some_and(|fields| fields.0.pointer(ADDRESSES).is_some())
    };
    let writers = managed.into_iter().filter(wrote).filter_map(|entry| entry.manager);
    IngressStatus {
        addresses: addresses.map(Text::from).collect(),
        writers: writers.map(Text::from).collect(),
    }
}

impl IngressClass {
    /// See the fields.
    #[must_use]
    pub fn from_api(mut api: networking::IngressClass) -> Self {
        let meta = Meta::from_api(&mut api.metadata);
        let annotations = api.metadata.annotations.unwrap_or_default();
        Self {
            meta,
            controller: text(api.spec.and_then(|spec| spec.controller)),
            is_default: annotations.get(DEFAULT_CLASS_ANNOTATION).is_some_and(|v| v == "true"),
        }
    }
}

impl Service {
    /// See the fields.
    #[must_use]
    pub fn from_api(mut api: core::Service) -> Self {
        let mut flaws = Flaws::default();
        let meta = Meta::from_api(&mut api.metadata);
        let spec = api.spec.unwrap_or_default();
        let external = spec.type_.as_deref() == Some("ExternalName");
        let balancer = api.status.and_then(|s| s.load_balancer).and_then(|b| b.ingress);
        let mut addresses: Vec<Text> = balancer
            .unwrap_or_default()
            .into_iter()
            .filter_map(|entry| entry.ip.or(entry.hostname))
            .map(Text::from)
            .collect();
        if addresses.is_empty() {
            addresses.extend(spec.external_ips.unwrap_or_default().into_iter().map(Text::from));
        }
        let families = spec.ip_families.unwrap_or_default();
        Self {
            meta,
            external_name: external.then(|| text(spec.external_name)),
            ports: service_ports(spec.ports.unwrap_or_default(), &mut flaws),
            client_affinity: spec.session_affinity.as_deref() == Some("ClientIP"),
            family: families.first().and_then(|family| match family.as_str() {
                "IPv4" => Some(Family::V4),
                "IPv6" => Some(Family::V6),
                _ => None,
            }),
            addresses,
            flaws: flaws.into_texts(),
        }
    }
}

fn service_ports(ports: Vec<core::ServicePort>, flaws: &mut Flaws) -> Vec<ServicePort> {
    let mut kept = Vec::new();
    let tcp = |port: &core::ServicePort| is_tcp(port.protocol.as_deref());
    for (index, api) in ports.into_iter().enumerate().filter(|(_, p)| tcp(p)).take(PORTS_MAX) {
        let Some(port) = port(api.port) else {
            flaws.push(format!(
                "spec.ports[{index}].port is {}, expected 1 to 65535; it is not served",
                api.port
            ));
            continue;
        };
        let app_protocol = api.app_protocol.filter(|protocol| !protocol.is_empty());
        kept.push(ServicePort {
            name: text(api.name),
            port,
            app_protocol: app_protocol.map(Text::from),
        });
    }
    kept
}

impl EndpointSlice {
    /// See the fields. `None` where it belongs to no Service.
    #[must_use]
    pub fn from_api(mut api: discovery::EndpointSlice) -> Option<Self> {
        let mut flaws = Flaws::default();
        let meta = Meta::from_api(&mut api.metadata);
        let service = api.metadata.labels.unwrap_or_default().remove(SERVICE_NAME_LABEL)?;
        let names = api.address_type == "FQDN";
        let endpoints = if names {
            flaws.push(
                "addressType is FQDN, expected IPv4 or IPv6; none of it is served".to_owned(),
            );
            Vec::new()
        } else {
            slice_endpoints(api.endpoints, &mut flaws)
        };
        Some(Self {
            meta,
            service: service.into(),
            ports: slice_ports(api.ports.unwrap_or_default(), &mut flaws),
            endpoints,
            flaws: flaws.into_texts(),
        })
    }
}

fn slice_ports(ports: Vec<discovery::EndpointPort>, flaws: &mut Flaws) -> Vec<(Text, u16)> {
    let mut kept = Vec::new();
    for (index, api) in ports.into_iter().enumerate().take(PORTS_MAX) {
        let Some(number) = api.port.filter(|_| is_tcp(api.protocol.as_deref())) else {
            continue;
        };
        match port(number) {
            Some(port) => kept.push((text(api.name), port)),
            None => {
                flaws.push(format!("ports[{index}].port is {number}, expected 1 to 65535"));
            }
        }
    }
    kept
}

fn slice_endpoints(endpoints: Vec<discovery::Endpoint>, flaws: &mut Flaws) -> Vec<SliceEndpoint> {
    let mut kept: Vec<SliceEndpoint> = Vec::with_capacity(endpoints.len());
    for (index, api) in endpoints.into_iter().enumerate() {
        let Some(first) = api.addresses.first() else {
            flaws.push(format!("endpoints[{index}].addresses is empty; it is not served"));
            continue;
        };
        let Ok(address) = first.parse::<IpAddr>() else {
            flaws.push(format!(
                "endpoints[{index}].addresses[0] is {}, expected an IP address; it is not served",
                shown(first)
            ));
            continue;
        };
        let hints = api.hints.map(hints_from_api).filter(|hints| *hints != Hints::default());
        let same = kept.last().and_then(|last| last.hints.clone());
        let hints = hints.map(|hints| match same {
            Some(same) if *same == hints => same,
            _ => Arc::new(hints),
        });
        let conditions = api.conditions.unwrap_or_default();
        let ready = conditions.ready.unwrap_or(true);
        kept.push(SliceEndpoint {
            address,
            ready,
            serving: conditions.serving.unwrap_or(ready),
            terminating: conditions.terminating.unwrap_or(false),
            hints,
        });
    }
    kept
}

fn hints_from_api(api: discovery::EndpointHints) -> Hints {
    let zones = api.for_zones.unwrap_or_default();
    let nodes = api.for_nodes.unwrap_or_default();
    Hints {
        zones: zones.into_iter().map(|zone| zone.name.into()).collect(),
        nodes: nodes.into_iter().map(|node| node.name.into()).collect(),
    }
}

impl Secret {
    /// See the fields. Of one of type `kubernetes.io/tls` only the certificate, its key and the authority
    /// are kept.
    #[must_use]
    pub fn from_api(mut api: core::Secret) -> Self {
        let meta = Meta::from_api(&mut api.metadata);
        let tls = api.type_.as_deref() == Some(TLS_SECRET_TYPE);
        let wanted = |field: &str| !tls || TLS_SECRET_FIELDS.contains(&field);
        let mut data: BTreeMap<Text, Arc<[u8]>> = BTreeMap::new();
        for (field, value) in api.data.unwrap_or_default() {
            if wanted(&field) {
                data.insert(field.into(), value.0.into());
            }
        }
        // In manifests only: the API server merges it into `data`, where it goes before what stands there.
        for (field, value) in api.string_data.unwrap_or_default() {
            if wanted(&field) {
                data.insert(field.into(), value.into_bytes().into());
            }
        }
        Self { meta, data }
    }
}

impl Namespace {
    /// See the fields.
    #[must_use]
    pub fn from_api(mut api: core::Namespace, names: &AnnotationNames) -> Self {
        let meta = Meta::from_api(&mut api.metadata);
        let mut annotations = api.metadata.annotations.unwrap_or_default();
        Self {
            meta,
            hosts: annotations.remove(&*names.hosts).map(Text::from),
            labels: labels(api.metadata.labels, &names.namespace_labels),
        }
    }
}

fn labels(all: Option<BTreeMap<String, String>>, wanted: &[Text]) -> BTreeMap<Text, Text> {
    let mut all = all.unwrap_or_default();
    wanted.iter().filter_map(|name| Some((name.clone(), all.remove(&**name)?.into()))).collect()
}

impl Pod {
    /// See the fields.
    #[must_use]
    pub fn from_api(mut api: core::Pod, names: &AnnotationNames) -> Self {
        let meta = Meta::from_api(&mut api.metadata);
        let mut annotations = api.metadata.annotations.unwrap_or_default();
        let status = api.status.unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let containers = api.spec.map(|spec| spec.containers).unwrap_or_default();
        Self {
            meta,
            paths: annotations.remove(&*names.paths).map(Text::from),
            labels: labels(api.metadata.labels, &names.pod_labels),
            address: status.pod_ip.and_then(|ip| ip.parse().ok()),
            running: status.phase.as_deref() == Some("Running"),
            ready: conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True"),
            containers: containers.into_iter().map(Container::from_api).collect(),
        }
    }
}

impl Container {
    fn from_api(api: core::Container) -> Self {
        let declared = api.ports.unwrap_or_default().into_iter();
        let ports = declared
            .filter(|declared| is_tcp(declared.protocol.as_deref()))
            .filter_map(|declared| Some((text(declared.name), port(declared.container_port)?)))
            .take(PORTS_MAX)
            .collect();
        let probe = api.readiness_probe.or(api.liveness_probe).map(ContainerProbe::from_api);
        Self { ports, probe }
    }
}

impl ContainerProbe {
    fn from_api(api: core::Probe) -> Self {
        let positive = |value: Option<i32>, default: u32| {
            value.and_then(|v| u32::try_from(v).ok()).filter(|&v| v > 0).unwrap_or(default)
        };
        Self {
            period_s: positive(api.period_seconds, 10),
            timeout_s: positive(api.timeout_seconds, 1),
            rise: positive(api.success_threshold, 1),
            fall: positive(api.failure_threshold, 3),
            ask: ContainerAsk::from_api(api.http_get, api.tcp_socket),
        }
    }
}

impl ContainerAsk {
    fn from_api(http: Option<core::HTTPGetAction>, tcp: Option<core::TCPSocketAction>) -> Self {
        if let Some(get) = http {
            let Some(port) = port_ref(get.port) else { return Self::Other };
            return Self::Http {
                path: get.path.filter(|path| !path.is_empty()).unwrap_or_else(|| "/".into()).into(),
                port,
                tls: get.scheme.as_deref() == Some("HTTPS"),
                host: get.host.filter(|host| !host.is_empty()).map(Text::from),
            };
        }
        tcp.and_then(|tcp| port_ref(tcp.port)).map_or(Self::Other, |port| Self::Tcp { port })
    }
}

fn port_ref(api: IntOrString) -> Option<PortRef> {
    match api {
        IntOrString::Int(number) => port(number).map(PortRef::Number),
        IntOrString::String(name) => Some(PortRef::Name(name.into())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn pod(container: Value, status: Value) -> Pod {
        let api = json!({
            "metadata": {
                "name": "web", "namespace": "n", "uid": "u", "creationTimestamp": "2026-01-01T00:00:01Z",
                "annotations": {"github.com/30x.dispatcher.paths": "[]", "other": "x"},
                "labels": {"github.com/30x.dispatcher.app.name": "a", "other": "x"},
            },
            "spec": {"containers": [container]},
            "status": status,
        });
        Pod::from_api(from_value(api).unwrap(), &AnnotationNames::default())
    }

    #[test]
    fn what_is_kept_of_a_pod() {
        let status = json!({
            "phase": "Running", "podIP": "10.0.0.1",
            "conditions": [{"type": "Ready", "status": "True"}],
        });
        let ports = json!([
            {"containerPort": 3000, "name": "http"},
            {"containerPort": 53, "protocol": "UDP"},
            {"containerPort": 70000},
        ]);
        let pod = pod(json!({"name": "c", "ports": ports}), status);
        assert_eq!(pod.meta.key.to_string(), "n/web");
        assert_eq!(pod.meta.created, 1_767_225_601);
        assert_eq!(pod.paths.as_deref(), Some("[]"));
        assert_eq!(pod.labels.len(), 1);
        assert!(pod.running && pod.ready && pod.address.is_some());
        assert_eq!(pod.containers[0].ports, [("http".into(), 3000)]);
        assert_eq!(pod.containers[0].probe, None);
    }

    #[test]
    fn probes() {
        let probe = |container: Value| pod(container, json!({})).containers[0].probe.clone();
        let http = json!({"httpGet": {"port": "http", "scheme": "HTTPS"}, "periodSeconds": 5});
        let tcp = json!({"tcpSocket": {"port": 3000}, "failureThreshold": 0});
        let both = json!({"name": "c", "readinessProbe": http, "livenessProbe": tcp});
        let readiness = probe(both).unwrap();
        assert_eq!((readiness.period_s, readiness.timeout_s), (5, 1));
        assert_eq!((readiness.rise, readiness.fall), (1, 3));
        let wanted = ContainerAsk::Http {
            path: "/".into(),
            port: PortRef::Name("http".into()),
            tls: true,
            host: None,
        };
        assert_eq!(readiness.ask, wanted);
        let liveness = probe(json!({"name": "c", "livenessProbe": tcp})).unwrap();
        assert_eq!(liveness.ask, ContainerAsk::Tcp { port: PortRef::Number(3000) });
        assert_eq!(liveness.fall, 3, "as the API server defaults it");
        for other in [
            json!({"exec": {"command": ["true"]}}),
            json!({"grpc": {"port": 1}}),
            json!({"tcpSocket": {"port": 0}}),
            json!({"httpGet": {"port": 65536}}),
        ] {
            let asked = probe(json!({"name": "c", "livenessProbe": other})).unwrap();
            assert_eq!(asked.ask, ContainerAsk::Other);
        }
    }

    #[test]
    fn endpoints_with_the_same_hints_share_them() {
        let endpoint = |address: &str, zone: &str| {
            let hints = json!({"forZones": [{"name": zone}]});
            json!({"addresses": [address], "hints": hints})
        };
        let api = json!({
            "metadata": {"name": "s", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "endpoints": [
                endpoint("10.0.0.1", "a"), endpoint("10.0.0.2", "a"), endpoint("10.0.0.3", "b"),
            ],
            "ports": [{"port": 80}, {"name": "none"}, {"name": "udp", "port": 53, "protocol": "UDP"}],
        });
        let slice = EndpointSlice::from_api(from_value(api).unwrap()).unwrap();
        let hints = |index: usize| slice.endpoints[index].hints.clone().unwrap();
        assert!(Arc::ptr_eq(&hints(0), &hints(1)) && !Arc::ptr_eq(&hints(1), &hints(2)));
        assert_eq!(slice.ports, [("".into(), 80)]);
        let stray = json!({"metadata": {"name": "s"}, "addressType": "IPv4", "endpoints": []});
        assert!(EndpointSlice::from_api(from_value(stray).unwrap()).is_none());
    }

    #[test]
    fn of_a_secret_with_a_certificate_nothing_else_is_kept() {
        let api = |kind: &str| {
            json!({
                "metadata": {"name": "s"}, "type": kind,
                "data": {"tls.crt": "QQ==", "tls.key": "Qg==", "password": "Qw=="},
            })
        };
        let kept = |kind| Secret::from_api(from_value(api(kind)).unwrap());
        assert_eq!(kept("kubernetes.io/tls").data.len(), 2);
        assert_eq!(kept("Opaque").data.len(), 3);
        let shown = format!("{:?}", kept("Opaque"));
        assert!(shown.contains("password") && !shown.contains("67"), "{shown}");
    }

    #[test]
    fn services() {
        let api = json!({
            "metadata": {"name": "web"},
            "spec": {
                "ipFamilies": ["IPv6", "IPv4"], "externalIPs": ["1.2.3.4"], "sessionAffinity": "ClientIP",
                "ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}, {"port": 0}],
            },
            "status": {"loadBalancer": {"ingress": [{"hostname": "lb.test"}, {"ip": "5.6.7.8"}]}},
        });
        let service = Service::from_api(from_value(api).unwrap());
        assert_eq!(service.family, Some(Family::V6));
        assert!(service.client_affinity && service.external_name.is_none());
        assert_eq!(service.addresses, ["lb.test".into(), "5.6.7.8".into()]);
        assert_eq!((service.ports.len(), service.flaws.len()), (1, 1));
    }
}
