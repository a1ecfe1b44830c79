//! Servers that keep Leases, and agents that count them, with a real API server.

use std::net::Ipv4Addr;
use std::time::Duration;

use testkit::kubernetes::{Access, Binaries, ControlPlane, Options};
use testkit::{Balancer, wait_until};

use crate::support::{Tunnel, WITHIN, echo, round_trip};

const KNOWN: &str = "konnectivity_network_proxy_agent_known_server_count";
const OPEN: &str = "konnectivity_network_proxy_agent_open_server_connections";
/// The Lease of the first server.
const ONE: &str = "konnectivity-proxy-server-one";
/// A server looks after the Leases of others every 15 s.
const CULLED_WITHIN: Duration = Duration::from_secs(60);

const OBJECTS: &str = "
apiVersion: v1
kind: Namespace
metadata: { name: tunnel }
---
apiVersion: v1
kind: ServiceAccount
metadata: { name: server, namespace: tunnel }
---
apiVersion: v1
kind: ServiceAccount
metadata: { name: agent, namespace: tunnel }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: { name: server, namespace: tunnel }
rules:
  - apiGroups: [coordination.k8s.io]
    resources: [leases]
    verbs: [get, list, create, update, delete]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: { name: agent, namespace: tunnel }
rules:
  - apiGroups: [coordination.k8s.io]
    resources: [leases]
    verbs: [list, watch]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: { name: server, namespace: tunnel }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: Role, name: server }
subjects: [{ kind: ServiceAccount, name: server, namespace: tunnel }]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: { name: agent, namespace: tunnel }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: Role, name: agent }
subjects: [{ kind: ServiceAccount, name: agent, namespace: tunnel }]
---
# Of a server that was killed long ago.
apiVersion: coordination.k8s.io/v1
kind: Lease
metadata:
  name: konnectivity-proxy-server-gone
  namespace: tunnel
  labels: { k8s-app: konnectivity-server }
spec: { holderIdentity: gone, leaseDurationSeconds: 1, renewTime: '2020-01-01T00:00:00.000000Z' }
---
# Nobody's business, whatever its label.
apiVersion: coordination.k8s.io/v1
kind: Lease
metadata:
  name: other
  namespace: tunnel
  labels: { k8s-app: konnectivity-server }
spec: { holderIdentity: other, leaseDurationSeconds: 1, renewTime: '2020-01-01T00:00:00.000000Z' }
";

fn leases(access: &Access) -> Vec<String> {
    let names = ["get", "leases", "-n", "tunnel", "-o", "name"];
    let names = access.kubectl(&names, None).unwrap();
    names.lines().filter_map(|name| Some(name.split_once('/')?.1.to_owned())).collect()
}

/// What both kinds of servers and agents go by.
fn is_as_the_originals(access: &Access) {
    let lease = access.get(&["lease", ONE, "-n", "tunnel"]).unwrap();
    assert_eq!(lease["spec"]["holderIdentity"], "one");
    assert_eq!(lease["spec"]["leaseDurationSeconds"], 30);
    assert_eq!(lease["metadata"]["labels"]["k8s-app"], "konnectivity-server");
}

/// One deletion, and the lists before it.
fn is_counted(server: &Tunnel) {
    let prefix = "konnectivity_network_proxy_server_lease";
    let ok = "{http_response_code=\"200\",reason=\"\"}";
    assert!(server.metric(&format!("{prefix}_list_total{ok}")) >= 2.0);
    assert_eq!(server.metric(&format!("{prefix}_delete_total{ok}")), 1.0);
    let took = "{http_response_code=\"200\"}";
    assert_eq!(server.metric(&format!("{prefix}_delete_latency_seconds_count{took}")), 1.0);
}

#[test]
fn servers_keep_leases_and_agents_count_them() {
    let Some(binaries) = Binaries::for_test() else { return };
    let mut control = ControlPlane::start(&binaries, &Options::default()).unwrap();
    let access = control.access().clone();
    access.apply(OBJECTS).unwrap();
    let of = |account| access.as_service_account("tunnel", account).unwrap();
    let (for_servers, for_agents) = (of("server"), of("agent"));
    let kubeconfig = format!("--kubeconfig={}", for_servers.kubeconfig().display());
    let keep = ["--enable-lease-controller", "--lease-namespace=tunnel", &kubeconfig];
    let mode = "http-connect";
    let say = |id| [id, "--server-count=3"];
    let first = Tunnel::server(mode, &[&keep[..], &say("--server-id=one")].concat());
    assert!(wait_until(WITHIN, || leases(&access).iter().any(|name| name == ONE)));
    is_as_the_originals(&access);

    let kubeconfig = format!("--kubeconfig={}", for_agents.kubeconfig().display());
    let balancer = Balancer::listen(Ipv4Addr::LOCALHOST.into(), &[first.agent_port.address()]);
    let address = format!("--proxy-server-port={}", balancer.address().port());
    let count = ["--count-server-leases", "--lease-namespace=tunnel", &kubeconfig, &address];
    let agent = first.agent(&count);
    // What servers say is more than there are Leases.
    let larger = first.agent(&[&count[..], &["--server-count-source=max"]].concat());
    assert!(wait_until(WITHIN, || (agent.metric(KNOWN), agent.metric(OPEN)) == (1.0, 1.0)));
    let more = [&keep[..], &say("--server-id=two")].concat();
    let mut second = Tunnel::server_of(first.authority.clone(), mode, &more);
    balancer.set(&[first.agent_port.address(), second.agent_port.address()]);
    // It is looked for as soon as its Lease is there, and found by trying.
    assert!(wait_until(WITHIN, || (agent.metric(KNOWN), agent.metric(OPEN)) == (2.0, 2.0)));
    assert!(wait_until(WITHIN, || larger.metric(OPEN) == 2.0));
    assert!(wait_until(WITHIN, || larger.metric(KNOWN) == 3.0));
    let lists = "konnectivity_network_proxy_agent_lease_lists_total";
    assert_eq!(agent.metric(&format!("{lists}{{http_response_code=\"200\",reason=\"\"}}")), 1.0);

    // With the API server away nothing changes; connections go on.
    let echo = echo();
    let mut open = first.connected(echo);
    control.stop_api_server().unwrap();
    assert!(agent.process.wait_log("their last number stays"));
    assert_eq!((agent.metric(KNOWN), agent.metric(OPEN)), (2.0, 2.0));
    round_trip(&mut open).unwrap();
    control.start_api_server().unwrap();

    // One that ends takes its Lease with it.
    second.server.signal("TERM");
    assert_eq!(second.server.wait_exit(), Some(0));
    assert!(!leases(&access).iter().any(|name| name.ends_with("-two")));
    assert!(wait_until(WITHIN, || agent.metric(OPEN) == 1.0));
    // What a killed one has left is removed; what is no server's is not.
    let is_culled = || {
        round_trip(&mut open).unwrap();
        first.metric("konnectivity_network_proxy_server_culled_leases_count") == 1.0
    };
    assert!(wait_until(CULLED_WITHIN, is_culled));
    assert_eq!(leases(&access), [ONE, "other"]);
    is_counted(&first);
    // Fewer servers are believed when all that are left had the time to renew.
    let mut go_on = || {
        round_trip(&mut open).unwrap();
        agent.metric(KNOWN) == 1.0
    };
    assert!(wait_until(CULLED_WITHIN, &mut go_on));
    // What was not needed was given back in order.
    assert!(!first.server.log().contains("without sending TLS close_notify"));
}
