//! One node: containerd, kubelet and kube-proxy in a process, mount and network namespace of their own, all
//! of them gone when its first process is killed, as when a machine loses power. Its configuration is made
//! from the templates in `tests/cluster/node`; cgroups are made and removed here.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::wait::wait_until;

use super::access::kubeconfig;
use super::binaries::Binaries;
use super::control::Place;
use super::error::{Error, make_folder, write};
use super::network;
use super::pki::{Pki, write_secret};
use super::service::{Service, Tie};

/// The image of the process that holds a pod's namespaces.
pub(super) const PAUSE_IMAGE: &str = "localhost/cloverleaf-pause:test";

const INIT: &str = include_str!("../../../../tests/cluster/node/init.sh");
const CONTAINERD: &str = include_str!("../../../../tests/cluster/node/containerd.toml");
const CNI: &str = include_str!("../../../../tests/cluster/node/cni.json");
const KUBELET: &str = include_str!("../../../../tests/cluster/node/kubelet.yaml");
const KUBE_PROXY: &str = include_str!("../../../../tests/cluster/node/kube-proxy.yaml");

/// Where Debian keeps containerd, runc and iptables, whatever the caller has.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const CGROUPS: &str = "/sys/fs/cgroup";
/// From the end of a node's processes until the kernel lets its cgroups be removed.
const CGROUPS_EMPTY_WITHIN: Duration = Duration::from_secs(10);
/// Of a tree of cgroups; the kubelet's has six levels.
const CGROUP_DEPTH_MAX: usize = 16;

/// What all nodes of a cluster share.
pub(super) struct Shared<'a> {
    pub(super) binaries: &'a Binaries,
    pub(super) folder: &'a Path,
    pub(super) pki: &'a Pki,
    pub(super) place: &'a Place,
    pub(super) tie: Tie,
}

/// Its name in the cluster, counted from 1.
pub(super) fn name(node: u8) -> String {
    format!("node{node}")
}

/// The folder of a node.
fn folder(cluster: &Path, node: u8) -> PathBuf {
    cluster.join(name(node))
}

/// Its cgroup, below each controller's root.
fn cgroup(node: u8) -> String {
    format!("/cloverleaf-{}", name(node))
}

/// Writes the node's configuration; the service that runs it is not started.
pub(super) fn prepare(shared: &Shared<'_>, node: u8) -> Result<Service, Error> {
    let (name, folder) = (name(node), folder(shared.folder, node));
    for part in ["containerd", "kubelet", "etc/cni", "log/pods", "log/containers"] {
        make_folder(&folder.join(part))?;
    }
    let address = network::node_address(node).to_string();
    let etc = folder.join("etc");
    let user = format!("system:node:{name}");
    shared.pki.server(&format!("{name}-server"), &user, &[&name, &address, "127.0.0.1"])?;
    let server = format!("https://{}", shared.place.api);
    let configs = [
        ("kubelet", user.as_str(), Some("system:nodes")),
        ("kube-proxy", "system:kube-proxy", None),
    ];
    for (program, user, group) in configs {
        let signed = shared.pki.client(&format!("{name}-{program}"), user, group)?;
        let config = kubeconfig(&server, &shared.pki.authority_pem()?, &signed);
        write_secret(&etc.join(format!("{program}.kubeconfig")), &config.to_string())?;
    }
    let values = [
        ("@ADDRESS@", address.clone()),
        ("@CGROUP@", cgroup(node)),
        ("@FOLDER@", folder.display().to_string()),
        ("@NODE@", name.clone()),
        ("@NODE_PODS@", network::node_pods(node)),
        ("@PAUSE_IMAGE@", PAUSE_IMAGE.to_owned()),
        ("@PKI@", shared.pki.folder().display().to_string()),
        ("@PODS@", network::PODS.to_owned()),
        ("@SNAPSHOTTER@", snapshotter(&folder).to_owned()),
    ];
    let files = [
        ("containerd.toml", CONTAINERD),
        ("cni/10-cluster.conflist", CNI),
        ("kubelet.yaml", KUBELET),
        ("kube-proxy.yaml", KUBE_PROXY),
        ("init.sh", INIT),
    ];
    for (file, template) in files {
        let filled = values
            .iter()
            .fold(template.to_owned(), |text, (place, value)| text.replace(place, value));
        write(&etc.join(file), filled)?;
    }
    let mut command = network::enter_node(node);
    let unshare = "unshare --mount --propagation private --uts --ipc --pid --fork --kill-child \
                   --mount-proc bash";
    command.extend(unshare.split_whitespace().map(str::to_owned));
    command.push(etc.join("init.sh").display().to_string());
    Ok(Service::new(&name, command, &shared.folder.join("log"), shared.tie)
        .env("PATH", SYSTEM_PATH)
        .env("NODE", &name)
        .env("ADDRESS", address)
        .env("FOLDER", folder.display().to_string())
        .env("IMAGES", images(shared.folder).display().to_string())
        .env("PROGRAMS", shared.binaries.folder().display().to_string()))
}

/// The folder of the images that every node has from its start.
pub(super) fn images(cluster: &Path) -> PathBuf {
    cluster.join("images")
}

/// Starts it, after removing what an earlier one left: stale cgroups would delay the kubelet by half a
/// minute.
pub(super) fn start(service: &mut Service, node: u8) -> Result<(), Error> {
    if service.alive() {
        return Ok(());
    }
    remove_cgroups(node)?;
    make_cgroups(node)?;
    service.start()
}

/// Kills it, with everything that runs on it.
pub(super) fn kill(service: &mut Service, node: u8) -> Result<(), Error> {
    service.stop(Duration::ZERO)?;
    remove_cgroups(node)
}

/// The way containerd lays image layers over each other: not with overlayfs where the disk itself is one,
/// as in a container.
fn snapshotter(folder: &Path) -> &'static str {
    const OVERLAYFS: i64 = 0x794c_7630;
    let kind = rustix::fs::statfs(folder).map(|stat| stat.f_type);
    if kind.is_ok_and(|kind| kind == OVERLAYFS) { "native" } else { "overlayfs" }
}

/// Where a node's cgroups are: one a controller (version 1), or one (version 2).
fn cgroups(node: u8) -> Vec<PathBuf> {
    let below = cgroup(node);
    let below = below.trim_start_matches('/');
    let root = Path::new(CGROUPS);
    if root.join("cgroup.controllers").exists() {
        return vec![root.join(below)];
    }
    let controllers = fs::read_dir(root).into_iter().flatten().flatten();
    // `cpu` is often a link to `cpu,cpuacct`: the same folder twice does no harm.
    controllers
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .map(|c| c.join(below))
        .collect()
}

fn make_cgroups(node: u8) -> Result<(), Error> {
    let unified = Path::new(CGROUPS).join("cgroup.controllers").exists();
    for group in cgroups(node) {
        make_folder(&group)?;
        let Some(above) = group.parent() else { continue };
        if unified {
            for folder in [above, &group] {
                let file = folder.join("cgroup.subtree_control");
                write(&file, "+cpu +cpuset +io +memory +pids")?;
            }
        }
        // A cpuset is empty at first, and nothing could be put into it.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if !unified && let Ok(inherited) = fs::read(above.join(file)) {
                write(&group.join(file), inherited)?;
            }
        }
    }
    Ok(())
}

fn remove_cgroups(node: u8) -> Result<(), Error> {
    let removed = wait_until(CGROUPS_EMPTY_WITHIN, || {
        let groups = cgroups(node);
        groups.iter().filter(|group| group.exists()).all(|group| remove_tree(group, 0))
    });
    if removed {
        return Ok(());
    }
    let what = format!("end of the cgroups of {}", name(node));
    Err(Error::Late { what, within: CGROUPS_EMPTY_WITHIN, log: String::new() })
}

/// Removes a cgroup and those below; its files go with it. Whether it is gone.
fn remove_tree(group: &Path, depth: usize) -> bool {
    if depth > CGROUP_DEPTH_MAX {
        return false;
    }
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path(), depth + 1);
        }
    }
    match fs::remove_dir(group) {
        Ok(()) => true,
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}
