//! Files in place of an API server.

use std::collections::BTreeMap;

use cloverleaf_kubernetes::manifests::{MANIFEST_BYTES_MAX, Reading, read_manifests};
use cloverleaf_kubernetes::objects::AnnotationNames;
use cloverleaf_kubernetes::store::Store;
use model::{Diagnostic, Severity};

fn read(text: &str) -> (Store, Vec<Diagnostic>) {
    let routable = |labels: &BTreeMap<String, String>| labels.contains_key("routable");
    let names = AnnotationNames::default();
    let reading = Reading { routable: &routable, names: &names, secret: Some("routing") };
    read_manifests([("file.yaml", text)], reading)
}

#[test]
fn documents_lists_and_what_does_not_matter() {
    let (store, diagnostics) = read(
        "
# nothing
---
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ports: [{port: 80}]}}
- apiVersion: v1
  kind: ServiceList
  items:
  - {apiVersion: v1, kind: Service, metadata: {name: b, namespace: x}}
- {apiVersion: v1, kind: ConfigMap, metadata: {name: c}, data: {a: b}}
---
apiVersion: traefik.io/v1
kind: Ingress
spec: 7
---
{\"apiVersion\": \"v1\", \"kind\": \"Secret\", \"metadata\": {\"name\": \"routing\"},
 \"data\": {\"api-key\": \"QUJD\"}}
---
apiVersion: v1
kind: Secret
metadata: {name: other}
",
    );
    assert_eq!(diagnostics, []);
    let mut services: Vec<String> = store.services.keys().map(ToString::to_string).collect();
    services.sort();
    assert_eq!(services, ["default/a", "x/b"]);
    assert_eq!(store.secrets.len(), 1, "a Secret of another type is none that is watched");
    let secret = store.secrets.values().next().unwrap();
    assert_eq!(secret.data.get("api-key").map(|v| &**v), Some(&b"ABC"[..]));
    assert_eq!(store.len(), 3);
}

#[test]
fn pods_and_what_makes_them_stand_in_for_running_ones() {
    let (store, diagnostics) = read("
apiVersion: v1
kind: Namespace
metadata: {name: ns, labels: {routable: 'true'}, annotations: {github.com/30x.dispatcher.hosts: '{}'}}
---
apiVersion: v1
kind: Namespace
metadata: {name: other}
---
apiVersion: v1
kind: ReplicationController
metadata: {name: web, namespace: ns}
spec:
  template:
    metadata: {labels: {routable: 'true'}, annotations: {github.com/30x.dispatcher.paths: '[]'}}
    spec:
      containers: [{name: c, ports: [{containerPort: 3000}], readinessProbe: {httpGet: {port: 3000}}}]
---
apiVersion: v1
kind: Pod
metadata: {name: seen, namespace: ns, labels: {routable: 'true'}}
spec: {containers: []}
status: {phase: Pending}
---
{apiVersion: v1, kind: Pod, metadata: {name: not, namespace: ns}, spec: {containers: []}}
");
    assert_eq!(store.namespaces.len(), 1);
    assert_eq!(store.pods.len(), 2);
    let pod = |name: &str| store.pods.values().find(|pod| &*pod.meta.key.name == name).unwrap();
    let web = pod("web");
    assert!(web.running && web.ready && web.address.is_some());
    assert_eq!(web.paths.as_deref(), Some("[]"));
    assert_eq!(web.containers[0].ports[0].1, 3000);
    assert!(web.containers[0].probe.is_some());
    assert!(!pod("seen").running);
    assert_eq!(diagnostics.len(), 1);
    assert_eq!(diagnostics[0].severity, Severity::Warning);
}

#[test]
fn what_is_wrong_is_an_error_with_its_place() {
    let long = "a".repeat(MANIFEST_BYTES_MAX + 1);
    let deep = "[".repeat(10_000);
    let cases = [
        ("a: [", "file.yaml:", "not YAML"),
        (&*long, "file.yaml: error: the file is too long", "at most"),
        (&*deep, "file.yaml", "not YAML"),
        ("just: this", "file.yaml document 1", "no object of Kubernetes"),
        ("7", "file.yaml document 1", "no object of Kubernetes"),
        (
            "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ports: 80}}",
            "file.yaml document 1 (Service a)",
            "invalid type",
        ),
        (
            "{apiVersion: v1, kind: Service, metadata: 7}",
            "file.yaml document 1 (Service )",
            "invalid type",
        ),
        (
            "{apiVersion: apps/v1, kind: Deployment, spec: {template: {spec: 7}}, metadata: x}",
            "(Deployment )",
            "",
        ),
    ];
    for (text, place, says) in cases {
        let (store, diagnostics) = read(text);
        assert!(store.is_empty());
        assert_eq!(diagnostics.len(), 1, "{:?}", &text[..text.len().min(80)]);
        let said = diagnostics[0].to_string();
        assert_eq!(diagnostics[0].severity, Severity::Error);
        assert!(said.contains(place) && said.contains(says), "{said}");
        assert!(said.len() < 400, "{said}");
    }
    let (store, diagnostics) = read(
        "
{apiVersion: apps/v1, kind: Deployment, spec: 7, metadata: x}
---
{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ports: 80}}
---
{apiVersion: v1, kind: Service, metadata: {name: b}}
",
    );
    assert_eq!((store.services.len(), diagnostics.len()), (1, 1), "the rest is read");
    let (_, diagnostics) =
        read("{apiVersion: v1, kind: Secret, metadata: {name: routing}, data: {k: 'hunter2!'}}");
    assert_eq!(diagnostics.len(), 1);
    assert!(!diagnostics[0].to_string().contains("hunter2"), "{}", diagnostics[0]);
}
