//! Annotated Pods and Namespaces, as the 30x dispatcher has them, on a real API server.

use std::path::Path;
use std::time::Duration;

use testkit::client::{Failure, Tls};
use testkit::kubernetes::Namespace;
use testkit::{
    Authority, Client, Cloverleaf, ConfigBy, Gateway, Load, Port, Target, Upstream, Work,
    wait_until,
};

use crate::support::{BINARY, Echo, SOON, Server, control, expect_answer, gateway, ok, pod, ready};

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
    let hosts = r#"{"api.test": {}, "not a host": {}}"#;
    let label = tenant(&namespace, "dispatcher.hosts", hosts);
    let (one, two) = (Server::start("from one"), Server::start("from two"));
    pod(
        &namespace,
        &label,
        "one",
        r#"[{"basePath": "/one", "containerPort": "PORT"}]"#,
        one.address(),
    );
    pod(
        &namespace,
        &label,
        "two",
        r#"[{"basePath": "/two", "containerPort": "PORT"}]"#,
        two.address(),
    );
    pod(&namespace, &label, "broken", "this is not JSON", two.address());
    let Some(gateway) = router(&namespace) else { return };
    assert_eq!(gateway.get("api.test", "/one/x").text(), "from one");
    assert_eq!(gateway.get("api.test", "/two").text(), "from two");
    assert_eq!(gateway.get("api.test", "/three").status, 404);
    // Nobody's host: as if nobody was there.
    let answer = gateway.connect().request("GET / HTTP/1.1\r\nHost: other.test\r\n\r\n");
    assert!(answer.is_err(), "{answer:?}");
    let status = gateway.get("other.test", "/dispatcher/status");
    assert_eq!(status.status, 200);
    ready(&namespace, "one", one.address().ip(), false);
    expect_answer(&gateway, "api.test", "/one/x", (503, ""));
    assert_eq!(gateway.get("api.test", "/two").text(), "from two");
    ready(&namespace, "one", one.address().ip(), true);
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

/// How long there is load.
const LOADED: Duration = Duration::from_secs(2);

#[test]
fn websockets_and_streams_reach_pods() {
    let Some(control) = control() else { return };
    let namespace = control.access().namespace("pod-streams").unwrap();
    let label = tenant(&namespace, "dispatcher.hosts", r#"{"live.test": {}}"#);
    let echo = Echo::start();
    let paths = r#"[{"basePath": "/", "containerPort": "PORT"}]"#;
    pod(&namespace, &label, "echo", paths, echo.address);
    let Some(gateway) = router(&namespace) else { return };
    let target = Target { address: gateway.address(), host: "live.test".to_owned() };
    let works = [("WebSockets", Work::WebSocket(3)), ("streams", Work::Stream(3))];
    let loads = works.map(|(name, work)| Load::start(name, &target, 2, work));
    std::thread::sleep(LOADED);
    for report in loads.map(Load::stop) {
        assert!(report.failed == 0 && report.done > 0, "{report}");
    }
}

/// A namespace that is routable, with these hosts in an annotation; its label.
fn tenant(namespace: &Namespace, annotation: &str, hosts: &str) -> String {
    let name = namespace.name();
    // Made by the controller manager elsewhere; there is none here.
    namespace.kubectl(&["create", "serviceaccount", "default"], None).unwrap();
    let label = format!("test.cloverleaf/routable={name}");
    let annotation = format!("github.com/30x.{annotation}={hosts}");
    namespace.kubectl(&["annotate", "namespace", name, &annotation], None).unwrap();
    namespace.kubectl(&["label", "namespace", name, &label], None).unwrap();
    label
}

/// A Pod whose paths are in an annotation of another name, with a probe.
fn other_pod(namespace: &Namespace, label: &str, server: &Server) {
    let (label, value) = label.split_once('=').unwrap();
    let port = server.address().port();
    let paths = format!(r#"[{{"basePath": "/app", "containerPort": "{port}"}}]"#);
    let probe = serde_json::json!({ "httpGet": { "path": "/ready", "port": port } });
    let manifest = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "app", "labels": { label: value },
            "annotations": { "github.com/30x.other.paths": paths },
        },
        "spec": { "containers": [{
            "name": "web", "image": "none", "ports": [{ "containerPort": port }],
            "readinessProbe": probe,
        }] },
    });
    namespace.apply(&manifest.to_string()).unwrap();
    ready(namespace, "app", server.address().ip(), true);
}

#[test]
fn every_variable_does_under_its_name_what_it_did() {
    let Some(control) = control() else { return };
    let namespace = control.access().namespace("variables").unwrap();
    let label = tenant(&namespace, "other.hosts", r#"{"app.test": {}}"#);
    let keys = "apiVersion: v1\nkind: Secret\nmetadata: {name: keys}\nstringData: {own: secret}\n";
    namespace.apply(keys).unwrap();
    let (server, default) = (Server::start("from the Pod"), Upstream::answering(ok("default")));
    other_pod(&namespace, &label, &server);
    let (https, authority) = (Port::reserve(), Authority::new());
    let rest = authority.server(&["rest.test"]);
    let gateway = Gateway::new(BINARY, "")
        .config_by(ConfigBy::WorkingDirectory)
        .without_file()
        .arg("--kubernetes")
        .arg("--kubernetes-sources=pods")
        .arg("--read-only")
        .arg(format!("--kubeconfig={}", control.kubeconfig().display()))
        .arg(format!("--watch-namespace={}", namespace.name()))
        .env("ROUTABLE_LABEL_SELECTOR", &label)
        .env("HOSTS_ANNOTATION", "github.com/30x.other.hosts")
        .env("PATHS_ANNOTATION", "github.com/30x.other.paths")
        .env("API_KEY_SECRET_NAME", "keys")
        .env("API_KEY_SECRET_FIELD", "own")
        .env("API_KEY_HEADER", "X-Own-Key")
        .env("DEFAULT_LOCATION_RETURN", format!("http://{}/base", default.address()))
        .env("NGINX_ENABLE_HEALTH_CHECKS", "true")
        .env("NGINX_MAX_CLIENT_BODY_SIZE", "1k")
        .env("NGINX_STATUS_PATH", "/own/status")
        .env("SSL_PORT", https.to_string())
        .env("SSL_CERT", rest.chain_file.display().to_string())
        .env("SSL_KEY", rest.key_file.display().to_string())
        .start();
    let ask = |head: &str, body: &str| {
        let length = body.len();
        gateway.connect().request(format!("{head}Content-Length: {length}\r\n\r\n{body}"))
    };
    let key = "X-Own-Key: c2VjcmV0\r\n";
    let post = |key: &str, body: &str| {
        ask(&format!("POST /app HTTP/1.1\r\nHost: app.test\r\n{key}"), body).unwrap()
    };
    assert_eq!(post(key, "").text(), "from the Pod");
    assert_eq!(post("X-ROUTING-API-KEY: c2VjcmV0\r\n", "").status, 403);
    assert_eq!(post(key, &"x".repeat(1025)).status, 413);
    assert_eq!(gateway.get("app.test", "/nowhere?a=b").text(), "default");
    let defaulted = default.requests();
    assert!(defaulted[0].starts_with("GET /base/nowhere?a=b HTTP/1.1\r\n"), "{defaulted:?}");
    // Hosts that nobody named, in plain and with the certificate for them.
    let tls = || Client::connect_tls(https.address(), Tls::trusting(authority.pem(), "rest.test"));
    for mut client in [gateway.connect(), tls()] {
        let status = "GET /own/status HTTP/1.1\r\nHost: rest.test\r\n\r\n";
        assert_eq!(client.request(status).unwrap().status, 200);
        let answer = client.request(status.replace("own", "dispatcher"));
        assert!(matches!(answer, Err(Failure::Closed)), "{answer:?}");
    }
    let (_, state) = gateway.admin_get("/state");
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    let app = state["upstreams"].as_array().unwrap().iter();
    let app = app.flat_map(|upstream| upstream["endpoints"].as_array().unwrap());
    let own = server.address().to_string();
    let mut health =
        app.filter(|endpoint| endpoint["target"] == own.as_str()).map(|e| &e["health"]);
    assert_eq!(health.next().map(|health| &health["up"]), Some(&true.into()), "{state}");
}

/// All at once, and before anything else: there is no cluster at hand.
#[test]
fn variables_that_cannot_be_used_are_all_named() {
    let wrong = [
        ("ROUTABLE_LABEL_SELECTOR", "(("),
        ("API_KEY_HEADER", "a b"),
        ("DEFAULT_LOCATION_RETURN", "99"),
        ("NGINX_ENABLE_HEALTH_CHECKS", "maybe"),
        ("NGINX_MAX_CLIENT_BODY_SIZE", "lots"),
        ("NGINX_STATUS_PATH", "status"),
        ("HOSTS_ANNOTATION", "not/a/name"),
        ("PATHS_ANNOTATION", "-"),
        ("API_KEY_SECRET_NAME", "No_Name"),
        ("API_KEY_SECRET_FIELD", "no field"),
        ("SSL_PORT", "65536"),
    ];
    let start = |environment: &[(&str, &str)]| {
        let arguments =
            ["gateway", "--kubernetes", "--kubernetes-sources=pods", "--kubeconfig=/nowhere"];
        let ran = testkit::command::run(BINARY, &arguments, Path::new("/"), environment);
        assert_eq!(ran.code, Some(2), "{}", ran.stderr);
        ran.stderr
    };
    // PORT is every gateway's, and looked at before.
    for wrong in [&wrong[..], &[("PORT", "eighty")]] {
        let said = start(wrong);
        for (name, value) in wrong {
            let named = said.lines().any(|line| line.contains(name) && line.contains(value));
            assert!(named, "{name}: {said}");
        }
    }
}
