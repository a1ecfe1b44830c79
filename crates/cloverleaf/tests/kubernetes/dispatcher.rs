//! Annotated Pods and Namespaces, as the 30x dispatcher has them, on a real API server.

use testkit::kubernetes::Namespace;
use testkit::{Cloverleaf, wait_until};

use crate::support::{SOON, Server, control, expect_answer, gateway, pod, ready};

fn router(namespace: &Namespace) -> Option<Cloverleaf> {
    let gateway = gateway(control()?.access())
        .arg("--kubernetes-sources=pods")
        .arg(format!("--watch-namespace={}", namespace.name()))
        .arg("--publish-address=192.0.2.1")
        .env("POD_NAMESPACE", namespace.name())
        .env("ROUTABLE_LABEL_SELECTOR", format!("test.cloverleaf/routable={}", namespace.name()));
    Some(gateway.start())
}

#[test]
fn pods_are_routed_to_while_they_are_ready() {
    let Some(control) = control() else { return };
    let namespace = control.access().namespace("pods").unwrap();
    let name = namespace.name();
    // Made by the controller manager elsewhere; there is none here.
    namespace.kubectl(&["create", "serviceaccount", "default"], None).unwrap();
    let hosts = r#"{"api.test": {}, "not a host": {}}"#;
    let label = format!("test.cloverleaf/routable={name}");
    control.access().kubectl(&["label", "namespace", name, &label], None).unwrap();
    let annotation = format!("github.com/30x.dispatcher.hosts={hosts}");
    control.access().kubectl(&["annotate", "namespace", name, &annotation], None).unwrap();
    let (one, two) = (Server::start("from one"), Server::start("from two"));
    pod(&namespace, &label, "one", r#"[{"basePath": "/one", "containerPort": "PORT"}]"#, &one);
    pod(&namespace, &label, "two", r#"[{"basePath": "/two", "containerPort": "PORT"}]"#, &two);
    pod(&namespace, &label, "broken", "this is not JSON", &two);
    let Some(gateway) = router(&namespace) else { return };
    assert_eq!(gateway.get("api.test", "/one/x").text(), "from one");
    assert_eq!(gateway.get("api.test", "/two").text(), "from two");
    assert_eq!(gateway.get("api.test", "/three").status, 404);
    // Nobody's host: as if nobody was there.
    let answer = gateway.connect().request("GET / HTTP/1.1\r\nHost: other.test\r\n\r\n");
    assert!(answer.is_err(), "{answer:?}");
    let status = gateway.get("other.test", "/dispatcher/status");
    assert_eq!(status.status, 200);
    ready(&namespace, "one", &one, false);
    expect_answer(&gateway, "api.test", "/one/x", (503, ""));
    assert_eq!(gateway.get("api.test", "/two").text(), "from two");
    ready(&namespace, "one", &one, true);
    expect_answer(&gateway, "api.test", "/one/x", (200, "from one"));
    // What is wrong is said to whom it concerns.
    let reasons = || {
        let events = namespace.get(&["events.events.k8s.io"]).unwrap();
        let events = events["items"].as_array().cloned().unwrap_or_default();
        events.iter().any(|e| {
            e["regarding"]["kind"] == "Pod"
                && e["regarding"]["name"] == "broken"
                && e["reportingController"] == "cloverleaf/gateway"
        })
    };
    assert!(wait_until(SOON, reasons), "no Event on the Pod: {}", gateway.stderr());
    // The key that all requests need from now on.
    let secret =
        "apiVersion: v1\nkind: Secret\nmetadata: {name: routing}\nstringData: {api-key: secret}\n";
    namespace.apply(secret).unwrap();
    expect_answer(&gateway, "api.test", "/two", (403, ""));
    // Base64 of it, as the field's value.
    let request = "GET /two HTTP/1.1\r\nHost: api.test\r\nX-Routing-Api-Key: c2VjcmV0\r\n\r\n";
    assert_eq!(gateway.connect().request(request).unwrap().text(), "from two");
    assert!(!gateway.stderr().contains("secret\""), "{}", gateway.stderr());
}
