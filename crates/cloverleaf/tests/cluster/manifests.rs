//! What the chart renders, and the plain manifests made from it, are taken by a real API server as they are.
//! Nothing runs: it needs no nodes and no root.

use std::path::{Path, PathBuf};

use testkit::Helm;
use testkit::kubernetes::{Access, Binaries, ControlPlane, Options};

use crate::support::file;

/// Namespaces that values files name. They enforce nothing and warn of what the strictest of the Pod
/// Security Standards does not allow.
const NAMESPACES: [&str; 4] = ["cloverleaf", "team-a", "team-b", "certificates"];
/// A port of a node is what these standards are there to notice.
const NOT_RESTRICTED: [&str; 4] = ["daemonset", "host-network", "server", "agent"];

fn control_plane() -> Option<ControlPlane> {
    let control = ControlPlane::start(&Binaries::for_test()?, &Options::default()).unwrap();
    for name in NAMESPACES {
        let manifest = format!(
            r#"{{"apiVersion":"v1","kind":"Namespace","metadata":{{"name":"{name}","labels":
               {{"pod-security.kubernetes.io/warn":"restricted"}}}}}}"#
        );
        control.access().apply(&manifest).unwrap();
    }
    // Without a controller manager nobody else makes it; a Pod wants it.
    let account = ["-n", "kube-system", "create", "serviceaccount", "default"];
    control.kubectl(&account, None).unwrap();
    Some(control)
}

fn yaml_files(folder: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(file(folder)).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|end| end == "yaml")).collect();
    files.sort();
    assert!(files.len() > 2, "{files:?}");
    files
}

/// Has the API server check everything, with a warning counted as an error.
fn taken(access: &Access, name: &str, manifest: &str) {
    let mut arguments = vec!["apply", "--dry-run=server", "--validate=strict", "-f", "-"];
    if !NOT_RESTRICTED.contains(&name) {
        arguments.insert(0, "--warnings-as-errors");
    }
    access.kubectl(&arguments, Some(manifest)).unwrap_or_else(|error| panic!("{name}: {error}"));
}

fn stem(file: &Path) -> &str {
    file.file_stem().unwrap().to_str().unwrap()
}

#[test]
fn the_api_server_takes_every_way_to_install() {
    let Some(helm) = Helm::for_test() else { return };
    let Some(control) = control_plane() else { return };
    let chart = file("deploy/helm/cloverleaf");
    for values in yaml_files("deploy/helm/values") {
        let [chart, values_file] = [&chart, &values].map(|path| path.to_str().unwrap());
        let arguments =
            ["template", "cloverleaf", chart, "-n", "cloverleaf", "--values", values_file];
        let rendered = helm.run(control.access(), &arguments).unwrap();
        taken(control.access(), stem(&values), &rendered);
    }
    for manifest in [yaml_files("deploy/kubernetes"), yaml_files("deploy/konnectivity")].concat() {
        let text = std::fs::read_to_string(&manifest).unwrap();
        // A file of kube-apiserver's own, and no object.
        if !text.contains("kind: EgressSelectorConfiguration") {
            taken(control.access(), stem(&manifest), &text);
        }
    }
}

#[test]
fn the_chart_refuses_what_would_not_work() {
    let Some(helm) = Helm::for_test() else { return };
    let Some(control) = control_plane() else { return };
    let chart = file("deploy/helm/cloverleaf");
    for (set, why) in [
        ("service.typ=ClusterIP", "additional properties 'typ' not allowed"),
        ("kind=StatefulSet", "kind"),
        ("ports.http=70000", "maximum"),
        ("sources.ingress=false", "at least one of ingress and pods"),
        ("pods.env.PORT=80,sources.pods=true", "the ports are `ports.http`"),
        ("pods.env.DEFAULT_LOCATION_RETURN=404", "there is no pod source"),
        ("tls.enabled=true", "tls.enabled needs tls.secretName"),
        ("mode=sidecar,config.timeouts.connect=1s", "use mode integrated"),
        ("mode=sidecar,hostNetwork=true,ports.http=80", "below 1024"),
        ("config.rules[0].path=/", "config.rules"),
        ("watchNamespaces={Not_A_Name}", "watchNamespaces"),
    ] {
        let arguments = ["template", "x", chart.to_str().unwrap(), "--set", set];
        let refused = helm.run(control.access(), &arguments).unwrap_err();
        assert!(refused.contains(why), "{set}: {refused}");
    }
}
