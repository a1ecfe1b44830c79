//! The network of a cluster with nodes: one network namespace for the control plane and one a node, and the
//! host's routes to pods and Services.
//!
//! ```text
//! host 10.200.0.1 (clover0) ── bridge in clover-control 10.200.0.2 ── eth0 in clover-node1 10.200.0.11
//!                                                                  └─ eth0 in clover-node2 10.200.0.12
//! ```
//! There is no way out of the machine, and the host's firewall is not touched.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::command::run;
use super::control::SERVICES;
use super::error::Error;

/// What one command of these may take.
const COMMAND_WITHIN: Duration = Duration::from_secs(20);
/// More nodes than anybody has asked for.
pub(super) const NODES_MAX: u8 = 3;

pub(super) const CONTROL_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 2);
pub(super) const PODS: &str = "10.244.0.0/16";
const CONTROL: &str = "clover-control";
/// The host's end.
const HOST_LINK: &str = "clover0";
pub(super) const HOST_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 1);

/// The address of a node, counted from 1.
pub(super) fn node_address(node: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 200, 0, 10 + node)
}

/// The addresses of a node's pods.
pub(super) fn node_pods(node: u8) -> String {
    format!("10.244.{node}.0/24")
}

fn node_namespace(node: u8) -> String {
    format!("clover-node{node}")
}

/// A command that enters the control plane's namespace. Only the network: `ip netns exec` would also hide
/// the cgroups.
pub(super) fn enter_control() -> Vec<String> {
    enter(CONTROL)
}

/// A command that enters a node's namespace.
pub(super) fn enter_node(node: u8) -> Vec<String> {
    enter(&node_namespace(node))
}

fn enter(namespace: &str) -> Vec<String> {
    vec!["nsenter".to_owned(), format!("--net=/run/netns/{namespace}"), "--".to_owned()]
}

/// Makes the namespaces, the links and the routes.
pub(super) fn up(nodes: u8) -> Result<(), Error> {
    let first = node_address(1);
    ip(&format!("netns add {CONTROL}"))?;
    ip(&format!("-n {CONTROL} link set lo up"))?;
    ip(&format!("-n {CONTROL} link add br0 type bridge stp_state 0 forward_delay 0"))?;
    ip(&format!("-n {CONTROL} addr add {CONTROL_ADDRESS}/24 dev br0"))?;
    ip(&format!("-n {CONTROL} link set br0 up"))?;
    ip(&format!("link add {HOST_LINK} type veth peer name host netns {CONTROL}"))?;
    ip(&format!("-n {CONTROL} link set host master br0 up"))?;
    ip(&format!("addr add {HOST_ADDRESS}/24 dev {HOST_LINK}"))?;
    ip(&format!("link set {HOST_LINK} up"))?;
    // Services are answered by the first node's kube-proxy.
    ip(&format!("route add {SERVICES} via {first}"))?;
    sysctl(CONTROL, "ipv4/ip_forward", "1")?;
    ip(&format!("-n {CONTROL} route add {SERVICES} via {first}"))?;
    // Where bridged packets pass the firewall, its rules would meet the nodes' packets twice.
    let _ = sysctl(CONTROL, "bridge/bridge-nf-call-iptables", "0");
    (1..=nodes).try_for_each(|node| node_up(node, nodes))
}

fn node_up(node: u8, nodes: u8) -> Result<(), Error> {
    let (namespace, address) = (node_namespace(node), node_address(node));
    let pods = node_pods(node);
    ip(&format!("netns add {namespace}"))?;
    ip(&format!("-n {namespace} link set lo up"))?;
    ip(&format!("link add eth0 netns {namespace} type veth peer name node{node} netns {CONTROL}"))?;
    ip(&format!("-n {CONTROL} link set node{node} master br0 up"))?;
    ip(&format!("-n {namespace} addr add {address}/24 dev eth0"))?;
    ip(&format!("-n {namespace} link set eth0 up"))?;
    // The kubelet and kube-proxy want a default route; it leads nowhere, as the host does not forward.
    ip(&format!("-n {namespace} route add default via {CONTROL_ADDRESS}"))?;
    sysctl(&namespace, "ipv4/ip_forward", "1")?;
    sysctl(&namespace, "ipv4/conf/all/route_localnet", "1")?;
    ip(&format!("route add {pods} via {address}"))?;
    ip(&format!("-n {CONTROL} route add {pods} via {address}"))?;
    for other in (1..=nodes).filter(|other| *other != node) {
        let (pods, address) = (node_pods(other), node_address(other));
        ip(&format!("-n {namespace} route add {pods} via {address}"))?;
    }
    Ok(())
}

/// Removes what [`up`] made, as far as it is there; the routes go with the link.
pub(super) fn down() {
    for node in 1..=NODES_MAX {
        remove_namespace(&node_namespace(node));
    }
    if Path::new("/sys/class/net").join(HOST_LINK).exists() {
        report(ip(&format!("link del {HOST_LINK}")));
    }
    remove_namespace(CONTROL);
}

fn remove_namespace(name: &str) {
    if Path::new("/run/netns").join(name).exists() {
        report(ip(&format!("netns del {name}")));
    }
}

fn report(result: Result<(), Error>) {
    if let Err(error) = result {
        eprintln!("{error}");
    }
}

fn ip(arguments: &str) -> Result<(), Error> {
    run(Command::new("ip").args(arguments.split(' ')), None, COMMAND_WITHIN).map(|_| ())
}

fn sysctl(namespace: &str, name: &str, value: &str) -> Result<(), Error> {
    let write = format!("echo {value} > /proc/sys/net/{name}");
    let mut enter = enter(namespace).into_iter();
    let mut command = Command::new(enter.next().unwrap_or_default());
    command.args(enter).args(["sh", "-c", &write]);
    run(&mut command, None, COMMAND_WITHIN).map(|_| ())
}
