//! What objects hear: status and Events, with exactly the rights that the manifests grant.

use testkit::kubernetes::{Access, Namespace};
use testkit::{Cloverleaf, wait_until};

use crate::support::{SOON, control, expect_answer, gateway, ingress, own_class, service};

/// The rights of the plain manifests, without what runs with them.
const DEPLOYMENT: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/kubernetes/deployment.yaml");

/// What is published.
const OWN_ADDRESS: &str = "192.0.2.5";

/// What of the manifests is about rights, for a service account in this namespace and with names of its own.
fn rights(namespace: &str) -> String {
    let all = std::fs::read_to_string(DEPLOYMENT).unwrap();
    let kinds = ["ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"];
    let documents = all.split("\n---\n").filter(|document| {
        kinds.iter().any(|kind| document.lines().any(|line| line == format!("kind: {kind}")))
    });
    let documents: Vec<String> = documents
        .map(|d| {
            d.replace("namespace: cloverleaf", &format!("namespace: {namespace}"))
                .replace("cloverleaf-cloverleaf", &format!("cloverleaf-{namespace}"))
        })
        .collect();
    assert!(documents.len() >= 5, "{all}");
    documents.join("\n---\n")
}

/// An Ingress of the namespace's own class.
fn own_ingress(namespace: &Namespace, name: &str, service: &str) -> String {
    let host = format!("{name}.{}.test", namespace.name());
    let class = format!("ingressClassName: {}", namespace.name());
    ingress(name, &host, "/", service).replace("ingressClassName: cloverleaf", &class)
}

fn reporting(access: &Access, namespace: &Namespace) -> Cloverleaf {
    gateway(access)
        .arg(format!("--controller-name=test/{}", namespace.name()))
        .arg(format!("--publish-address={OWN_ADDRESS}"))
        .arg("--lease-name=cloverleaf")
        .env("POD_NAME", "reporter")
        .env("POD_NAMESPACE", namespace.name())
        .start()
}

fn address(namespace: &Namespace, name: &str) -> Option<String> {
    let found = namespace.get(&["ingress", name]).unwrap();
    found["status"]["loadBalancer"]["ingress"][0]["ip"].as_str().map(str::to_owned)
}

#[test]
fn ingresses_hear_their_address_and_what_is_wrong() {
    let Some(control) = control() else { return };
    let namespace = control.access().namespace("reports").unwrap();
    namespace.apply(&rights(namespace.name())).unwrap();
    let account = control.access().as_service_account(namespace.name(), "cloverleaf").unwrap();
    let _one = service(&namespace, "one", "from one");
    own_class(&namespace);
    namespace.apply(&own_ingress(&namespace, "web", "one")).unwrap();
    namespace.apply(&own_ingress(&namespace, "lost", "nobody")).unwrap();
    let foreign = own_ingress(&namespace, "foreign", "one");
    let foreign = foreign.replace("ingressClassName: ", "ingressClassName: other-");
    namespace.apply(&foreign).unwrap();
    let gateway = reporting(&account, &namespace);
    assert!(wait_until(SOON, || address(&namespace, "web").as_deref() == Some(OWN_ADDRESS)));
    assert!(wait_until(SOON, || address(&namespace, "lost").is_some()));
    assert_eq!(address(&namespace, "foreign"), None);
    let events = || {
        let all = namespace.get(&["events.events.k8s.io"]).unwrap();
        let all = all["items"].as_array().cloned().unwrap_or_default();
        all.into_iter().filter(|e| e["regarding"]["kind"] == "Ingress").collect::<Vec<_>>()
    };
    assert!(wait_until(SOON, || !events().is_empty()));
    let said = events();
    assert_eq!(said.len(), 1, "{said:?}");
    let event = &said[0];
    assert_eq!(event["regarding"]["name"], "lost");
    assert_eq!(event["reason"], "MissingService");
    assert_eq!(event["type"], "Warning");
    assert_eq!(event["reportingController"], "cloverleaf/gateway");
    assert!(event["note"].as_str().unwrap().contains("nobody"), "{event}");
    // Somebody else's now: what was written goes.
    give_away(&namespace, "web");
    assert!(wait_until(SOON, || address(&namespace, "web").is_none()));
    assert_eq!(events().len(), 1, "said once: {:?}", events());
    assert_eq!(gateway.metric("cloverleaf_kubernetes_write_failures_total"), Some(0.0));
    let log = gateway.stderr();
    assert!(!log.contains("RBAC"), "the manifests grant what is needed: {log}");
}

/// Gives an Ingress to another class.
fn give_away(namespace: &Namespace, name: &str) {
    let patch = r#"{"spec":{"ingressClassName":"other"}}"#;
    namespace.kubectl(&["patch", "ingress", name, "--type=merge", "-p", patch], None).unwrap();
}

/// Writes an address as another controller does.
fn write_address(namespace: &Namespace, name: &str, address: &str) {
    let status = serde_json::json!({"status": {"loadBalancer": {"ingress": [{"ip": address}]}}});
    let patch = ["patch", "ingress", name, "--subresource=status", "--type=merge", "-p"];
    namespace.kubectl(&[&patch[..], &[&status.to_string()]].concat(), None).unwrap();
}

/// What was ours is known from the API server, not from the process that wrote it.
#[test]
fn an_ingress_that_was_given_away_while_nobody_led_loses_our_address_and_no_other() {
    let Some(control) = control() else { return };
    let namespace = control.access().namespace("given-away").unwrap();
    namespace.apply(&rights(namespace.name())).unwrap();
    let account = control.access().as_service_account(namespace.name(), "cloverleaf").unwrap();
    let _one = service(&namespace, "one", "from one");
    own_class(&namespace);
    for name in ["stays", "left", "taken"] {
        namespace.apply(&own_ingress(&namespace, name, "one")).unwrap();
    }
    // Somebody else's, with the same address as ours: a balancer in front of both.
    let foreign = own_ingress(&namespace, "foreign", "one");
    namespace.apply(&foreign.replace("ingressClassName: ", "ingressClassName: other-")).unwrap();
    write_address(&namespace, "foreign", OWN_ADDRESS);
    let own = Some(OWN_ADDRESS.to_owned());
    let mut gateway = reporting(&account, &namespace);
    let written = || ["stays", "left", "taken"].iter().all(|n| address(&namespace, n) == own);
    assert!(wait_until(SOON, written), "{}", gateway.stderr());
    gateway.interrupt();
    assert_eq!(gateway.wait_exit(SOON), Some(0));

    give_away(&namespace, "left");
    give_away(&namespace, "taken");
    write_address(&namespace, "taken", "198.51.100.9");
    namespace.apply(&own_ingress(&namespace, "new", "one")).unwrap();
    let again = reporting(&account, &namespace);
    let cleaned = || address(&namespace, "left").is_none() && address(&namespace, "new") == own;
    assert!(wait_until(SOON, cleaned), "{}", again.stderr());
    assert_eq!(address(&namespace, "stays"), own);
    assert_eq!(address(&namespace, "taken").as_deref(), Some("198.51.100.9"));
    assert_eq!(address(&namespace, "foreign"), own);
    assert_eq!(again.metric("cloverleaf_kubernetes_write_failures_total"), Some(0.0));
    // One that is new and one that is cleaned: the rest was left alone.
    assert_eq!(again.metric("cloverleaf_kubernetes_writes_total{what=\"status\"}"), Some(2.0));
}

#[test]
fn what_rbac_forbids_is_said_once_and_nothing_else_suffers() {
    let Some(control) = control() else { return };
    let namespace = control.access().namespace("forbidden").unwrap();
    let rights = rights(namespace.name());
    // Without Events and status.
    let narrow = rights
        .replace("resources: [events]", "resources: [nothing]")
        .replace("resources: [ingresses/status]", "resources: [nothing]");
    assert_ne!(narrow, rights);
    namespace.apply(&narrow).unwrap();
    let account = control.access().as_service_account(namespace.name(), "cloverleaf").unwrap();
    let _one = service(&namespace, "one", "from one");
    own_class(&namespace);
    namespace.apply(&own_ingress(&namespace, "web", "one")).unwrap();
    namespace.apply(&own_ingress(&namespace, "lost", "nobody")).unwrap();
    let gateway = reporting(&account, &namespace);
    gateway.expect_stderr("may not be written", SOON);
    let host = |name: &str| format!("{name}.{}.test", namespace.name());
    assert_eq!(gateway.get(&host("web"), "/").text(), "from one");
    namespace.apply(&own_ingress(&namespace, "more", "nobody")).unwrap();
    expect_answer(&gateway, &host("more"), "/", (503, ""));
    assert_eq!(gateway.stderr().matches("\"what\":\"status of Ingresses\"").count(), 1);
}

#[test]
fn without_the_right_to_list_it_is_not_ready_and_says_which() {
    let Some(control) = control() else { return };
    let namespace = control.access().namespace("blind").unwrap();
    let nobody = control.as_user("nobody", None).unwrap();
    let gateway = gateway(&nobody).arg("--read-only").start_unready();
    gateway.expect_stderr("a matter of RBAC", SOON);
    let (status, reasons) = gateway.admin_get("/readyz");
    assert_eq!(status, 503);
    for kind in ["Ingress ", "IngressClass ", "Service ", "Secret ", "EndpointSlice "] {
        assert!(reasons.contains(kind), "{reasons}");
    }
    // Granted meanwhile: no restart.
    control
        .access()
        .kubectl(
            &[
                "create",
                "clusterrolebinding",
                namespace.name(),
                "--clusterrole=cluster-admin",
                "--user=nobody",
            ],
            None,
        )
        .unwrap();
    assert!(wait_until(SOON, || gateway.admin_get("/readyz").0 == 200));
}
