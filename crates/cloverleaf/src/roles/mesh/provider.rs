//! What the admin port shows of a mesh. Reads what is counted; must not change anything of it.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use admin::Readiness;
use admin::metrics::Family;
use admin::state::{ConfigState, EndpointState, HealthState, ListenerState, State, UpstreamState};
use mesh::Shared;
use mesh::files::security::{Identities, Mode, Security};
use mesh::hosts::{Host, Speaks};
use mesh::security::Secured;
use mesh::stats::Cells;
use model::Diagnostics;
use serde_json::json;

use super::metrics;
use super::sockets::View;

/// A mesh, for the admin port.
#[derive(Debug)]
pub(crate) struct Provider {
    shared: Arc<Shared>,
    listen: IpAddr,
    ready: AtomicBool,
    started: SystemTime,
    changing: Mutex<Changing>,
}

/// What the control side says now and then.
#[derive(Debug, Clone, Default)]
pub(super) struct Changing {
    pub(super) config: ConfigState,
    pub(super) reloads_ok: u64,
    pub(super) reloads_invalid: u64,
    pub(super) took: Duration,
    /// What is listened on; nothing where the mesh is only dialled.
    pub(super) ports: Option<View>,
}

impl Provider {
    pub(super) fn new(
        shared: Arc<Shared>,
        source: String,
        listen: IpAddr,
        found: Diagnostics,
        ports: Option<View>,
    ) -> Arc<Self> {
        let mut config =
            ConfigState { source, valid: !found.has_errors(), ..ConfigState::default() };
        config.set_problems(&found);
        let changing = Mutex::new(Changing { config, ports, ..Changing::default() });
        let ready = AtomicBool::new(false);
        Arc::new(Self { shared, listen, ready, started: SystemTime::now(), changing })
    }

    pub(crate) fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    pub(super) fn set_ports(&self, ports: Option<View>) {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner).ports = ports;
    }

    /// Notes the outcome of a reload.
    pub(super) fn reloaded(&self, took: Duration, found: Diagnostics) {
        let mut changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let valid = !found.has_errors();
        if valid {
            changing.reloads_ok += 1;
        } else {
            changing.reloads_invalid += 1;
        }
        changing.took = took;
        changing.config.valid = valid;
        changing.config.last_reload_unix_seconds = Some(unix_seconds(SystemTime::now()));
        changing.config.last_reload_result = if valid { "ok" } else { "invalid" }.to_owned();
        changing.config.set_problems(&found);
    }

    fn changing(&self) -> Changing {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl admin::Provider for Provider {
    fn readiness(&self) -> Readiness {
        if self.ready.load(Ordering::Acquire) {
            return self.insecure().map_or(Readiness::Ready, |why| Readiness::NotReady(vec![why]));
        }
        let draining = self.shared.is_draining();
        let reason = if draining { "draining" } else { "not serving yet" };
        Readiness::NotReady(vec![reason.to_owned()])
    }

    fn metrics(&self) -> Vec<Family> {
        let mut all = self.own_families();
        all.extend(metrics::of_the_role(&self.changing()));
        all
    }

    fn config(&self) -> serde_json::Value {
        let state = self.shared.state();
        let settings = &state.settings;
        json!({
            "hostsConf": settings.hosts_file.display().to_string(),
            "portsConf": settings.mappings_file.display().to_string(),
            "listen": self.listen.to_string(),
            "port": settings.port,
            "podHost": state.pod_host.as_str(),
            "clusterPorts": settings.cluster_ports.to_string(),
            "security": security_config(&settings.security, &state.secured),
            "hosts": state.hosts.iter().map(|host| &*host.name).collect::<Vec<_>>(),
            "mappings": state.pods.all().map(|pod| {
                let mapping = pod.mapping();
                json!({
                    "clusterPort": mapping.cluster_port, "hostPort": mapping.host_port,
                    "maxConn": mapping.connections_max, "sendProxy": mapping.wants_header,
                })
            }).collect::<Vec<_>>(),
        })
    }

    fn state(&self) -> serde_json::Value {
        let changing = self.changing();
        let state = self.shared.state();
        let ready = admin::Provider::readiness(self);
        let mut shown = State {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_unix_seconds: unix_seconds(self.started),
            uptime_seconds: self.started.elapsed().unwrap_or_default().as_secs(),
            generation: state.generation,
            ready: ready == Readiness::Ready,
            not_ready_reasons: match ready {
                Readiness::Ready => Vec::new(),
                Readiness::NotReady(reasons) => reasons,
            },
            config: changing.config,
            listeners: self.listeners(),
            ..State::default()
        };
        shown.set_upstreams(self.upstreams());
        shown.to_json()
    }
}

impl Provider {
    /// Why no other host can be reached, or reach a pod here, although all is well otherwise.
    fn insecure(&self) -> Option<String> {
        let secured = &self.shared.state().secured;
        let expired = secured.mutual().is_some_and(|mutual| mutual.expires() < SystemTime::now());
        (secured.mode() == Mode::Required && expired)
            .then(|| "the certificate for connections between hosts has expired".to_owned())
    }

    /// The metrics that are of the mesh alone, whichever role it is in.
    pub(crate) fn own_families(&self) -> Vec<Family> {
        metrics::of_the_mesh(&self.shared, &self.changing())
    }

    /// What is known of the files, for a role that has others beside them.
    pub(crate) fn files(&self) -> ConfigState {
        self.changing().config
    }

    /// Where connections are taken, if they are.
    pub(crate) fn listeners(&self) -> Vec<ListenerState> {
        if self.changing().ports.is_none() {
            return Vec::new();
        }
        let settings = self.shared.state().settings.clone();
        let clients = self.shared.clients.read();
        let peers = self.shared.peers.read();
        let sum = |name: &str, address: String, all: Vec<Arc<Cells>>| {
            let total = |cell: fn(&Cells) -> u64| all.iter().map(|cells| cell(cells)).sum();
            ListenerState {
                name: name.to_owned(),
                address,
                protocol: "tcp".to_owned(),
                state: "serving".to_owned(),
                connections_open: total(|cells| cells.open.get()),
                connections_total: total(|c| c.results.iter().map(mesh::stats::Cell::get).sum()),
                received_bytes: total(|cells| cells.received.get()),
                sent_bytes: total(|cells| cells.sent.get()),
                ..ListenerState::default()
            }
        };
        let ports = format!("{} {}", self.listen, settings.cluster_ports);
        let peer_address = SocketAddr::new(self.listen, settings.port).to_string();
        vec![
            sum("cluster ports", ports, clients.into_iter().map(|(_, cells)| cells).collect()),
            sum("peers", peer_address, peers.into_iter().map(|(_, cells)| cells).collect()),
        ]
    }

    /// The other hosts, and for each cluster port the pods of this one.
    pub(crate) fn upstreams(&self) -> Vec<UpstreamState> {
        let state = self.shared.state();
        let (now, began) = (self.shared.now(), self.started);
        let host = |host: &Arc<Host>| {
            let answers: Vec<(&str, u64)> = host.answers().collect();
            let count = |words: &[&str]| {
                answers.iter().filter(|(w, _)| words.contains(w)).map(|(_, n)| n).sum()
            };
            EndpointState {
                target: host.name.to_string(),
                weight: 1,
                health: Some(HealthState {
                    up: host.is_up(now),
                    since_unix_seconds: unix_seconds(began + Duration::from_millis(host.changed())),
                    last_error: String::new(),
                }),
                requests: answers.iter().map(|(_, n)| n).sum(),
                in_flight: host.tunnels().into(),
                connect_failures: count(&["refused", "silent", "not_a_peer", "insecure"]),
                security: security(host, state.secured.mode()),
                ..EndpointState::default()
            }
        };
        let hosts = UpstreamState {
            name: "other hosts".to_owned(),
            algorithm: "least connections of two".to_owned(),
            endpoints: state.hosts.iter().map(host).collect(),
            ..UpstreamState::default()
        };
        let mut by_port: std::collections::BTreeMap<u16, UpstreamState> =
            std::collections::BTreeMap::new();
        for pod in state.pods.all() {
            let mapping = pod.mapping();
            let port = mapping.cluster_port;
            let upstream = by_port.entry(port).or_insert_with(|| cluster_port(port));
            upstream.endpoints.push(EndpointState {
                target: state.pod_target(mapping.host_port).to_string(),
                weight: mapping.connections_max,
                in_flight: pod.connections().into(),
                ..EndpointState::default()
            });
        }
        for (port, stand_in) in self.shared.stand_ins().iter() {
            let upstream = by_port.entry(*port).or_insert_with(|| cluster_port(*port));
            let target = stand_in.target.to_string();
            upstream.endpoints.push(EndpointState {
                target,
                weight: 1,
                ..EndpointState::default()
            });
        }
        std::iter::once(hosts).chain(by_port.into_values()).collect()
    }
}

/// What secures connections between hosts, without the key.
fn security_config(settings: &Security, secured: &Secured) -> serde_json::Value {
    let identities = match &settings.identities {
        Identities::Hosts => vec!["hosts".to_owned()],
        Identities::Ids(ids) => ids.iter().map(ToString::to_string).collect(),
    };
    json!({
        "mode": secured.mode().as_str(),
        "certificate": settings.certificate.display().to_string(),
        "authorities": settings.authorities.display().to_string(),
        "identities": identities,
        "ownNames": secured.mutual().map(tls::Mutual::names),
        "expiresUnixSeconds": secured.mutual().map(|mutual| unix_seconds(mutual.expires())),
    })
}

/// How a host is spoken to, and why not in TLS.
fn security(host: &Host, mode: Mode) -> String {
    match (mode, host.speaks(), host.why_not_tls()) {
        (Mode::Off, ..) => "plain".to_owned(),
        (_, Speaks::Tls, _) => "tls".to_owned(),
        (_, Speaks::Unknown, _) => "unknown".to_owned(),
        (Mode::Offered, Speaks::Plain, why) => format!("plain: {}", why.unwrap_or("no tls")),
        (Mode::Required, Speaks::Plain, why) => format!("none: {}", why.unwrap_or("no tls")),
    }
}

fn cluster_port(port: u16) -> UpstreamState {
    UpstreamState {
        name: format!("cluster port {port}"),
        algorithm: "own pods first".to_owned(),
        ..UpstreamState::default()
    }
}

fn unix_seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
