//! Objects become routes, and changes of them other routes.

use std::time::{Duration, Instant};

use testkit::client::Tls;
use testkit::{Authority, Client, wait_until};

use crate::support::{
    BINARY, SOON, command, control, endpoints, expect_answer, gateway_at, ingress, reader, service,
};

#[test]
fn an_ingress_is_served_from_when_it_is_there_until_it_is_not() {
    let Some(control) = control() else { return };
    let namespace = control.access().namespace("served").unwrap();
    let _one = service(&namespace, "one", "from one");
    let _two = service(&namespace, "two", "from two");
    namespace.apply(&ingress("web", "web.test", "/", "one")).unwrap();
    let gateway = reader(control.access(), namespace.name());
    // Ready means that everything is there: no waiting.
    assert_eq!(gateway.get("web.test", "/").text(), "from one");
    assert_eq!(gateway.get("other.test", "/").status, 404);
    namespace.apply(&ingress("api", "web.test", "/api", "two")).unwrap();
    expect_answer(&gateway, "web.test", "/api/x", (200, "from two"));
    assert_eq!(gateway.get("web.test", "/apis").text(), "from one");
    // One that leads nowhere is 503 and says so; the others go on.
    namespace.apply(&ingress("lost", "lost.test", "/", "nobody")).unwrap();
    expect_answer(&gateway, "lost.test", "/", (503, ""));
    let (_, state) = gateway.admin_get("/state");
    assert!(state.contains("nobody") && state.contains("MissingService"), "{state}");
    assert_eq!(gateway.metric("cloverleaf_kubernetes_problems"), Some(1.0));
    namespace.kubectl(&["delete", "ingress", "api", "lost"], None).unwrap();
    expect_answer(&gateway, "web.test", "/api/x", (200, "from one"));
    expect_answer(&gateway, "lost.test", "/", (404, ""));
    assert_eq!(gateway.metric("cloverleaf_kubernetes_problems"), Some(0.0));
}

#[test]
fn a_change_of_endpoints_is_served_soon_and_rebuilds_nothing() {
    const CHANGES: u32 = 20;
    let Some(control) = control() else { return };
    let namespace = control.access().namespace("endpoints").unwrap();
    namespace.apply(&endpoints("web", &["192.0.2.1".to_owned()])).unwrap();
    namespace.apply(&ingress("web", "web.test", "/", "web")).unwrap();
    let gateway = reader(control.access(), namespace.name());
    let mut waits = Vec::new();
    for number in 2..2 + CHANGES {
        let address = format!("192.0.2.{number}");
        namespace.apply(&endpoints("web", std::slice::from_ref(&address))).unwrap();
        let applied = Instant::now();
        let came = wait_until(SOON, || gateway.admin_get("/config").1.contains(&address));
        assert!(came, "{address} is not served");
        waits.push(applied.elapsed());
    }
    waits.sort_unstable();
    // Figures for people: what decides is that it came. The request itself is not in it.
    eprintln!("from the API's answer to being served: median {:?}", waits[waits.len() / 2]);
    let update = |metric: &str| gateway.metric(metric).unwrap();
    assert!(update("cloverleaf_kubernetes_updates_total{result=\"ok\"}") > f64::from(CHANGES));
    assert_eq!(gateway.stderr().matches("\"listening\"").count(), 2, "{}", gateway.stderr());
    assert!(update("cloverleaf_kubernetes_translations_total") >= f64::from(CHANGES));
}

/// The others are compared in the tests of the gateway.
#[test]
fn metrics_of_a_cluster_are_those_that_are_documented() {
    const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
    let Some(control) = control() else { return };
    let namespace = control.access().namespace("metrics").unwrap();
    let gateway = reader(control.access(), namespace.name());
    let (_, scraped) = gateway.admin_get("/metrics");
    let page = std::fs::read_to_string(PAGE).unwrap();
    let families = testkit::metrics::documented(&page).into_iter();
    let documented: Vec<_> =
        families.filter(|f| f.name.starts_with("cloverleaf_kubernetes_")).collect();
    let typed: Vec<(&str, &str)> =
        scraped.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    for family in &documented {
        let (name, kind) = (&family.name, &family.kind);
        let served = typed.iter().any(|(other, found)| family.is(other) && found == kind);
        assert!(served, "{name} {kind}: {scraped}");
        for label in &family.labels {
            assert!(scraped.contains(&format!("{name}{{{label}=\"")), "{name}: {scraped}");
        }
    }
    assert_eq!(documented.len(), 12, "the table of {PAGE} is not understood");
    let status = command(&["status", "--admin-address", &gateway.admin_address().to_string()]).1;
    assert!(status.contains("KUBERNETES") && status.contains("EndpointSlice"), "{status}");
}

#[test]
fn certificates_come_from_secrets_and_a_broken_one_stops_nobody() {
    let Some(control) = control() else { return };
    let namespace = control.access().namespace("tls").unwrap();
    let _one = service(&namespace, "one", "from one");
    let authority = Authority::new();
    let good = authority.server(&["good.test"]);
    let other = authority.server(&["bad.test"]);
    for (name, chain, key) in
        [("good", &good.chain_pem, &good.key_pem), ("mismatched", &other.chain_pem, &good.key_pem)]
    {
        let secret = serde_json::json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": { "name": name }, "stringData": { "tls.crt": chain, "tls.key": key },
        });
        namespace.apply(&secret.to_string()).unwrap();
    }
    let tls = |name: &str, host: &str| {
        let plain = ingress(name, host, "/", "one");
        plain.replace(
            "  rules:",
            &format!("  tls: [{{hosts: [{host}], secretName: {name}}}]\n  rules:"),
        )
    };
    namespace.apply(&tls("good", "good.test")).unwrap();
    namespace.apply(&tls("mismatched", "bad.test")).unwrap();
    let https = testkit::Port::reserve();
    let gateway = gateway_at(control.access(), &https)
        .arg(format!("--watch-namespace={}", namespace.name()))
        .arg("--read-only")
        .start();
    let connect =
        |name| Client::try_connect_tls(https.address(), Tls::trusting(authority.pem(), name));
    let request = "GET / HTTP/1.1\r\nHost: good.test\r\n\r\n";
    assert_eq!(connect("good.test").unwrap().request(request).unwrap().text(), "from one");
    assert!(connect("bad.test").is_err(), "no certificate can be shown for it");
    let (_, state) = gateway.admin_get("/state");
    assert!(state.contains("mismatched"), "{state}");
    let (_, config) = gateway.admin_get("/config");
    assert!(config.contains("good.test") && !config.contains("BEGIN"), "{config}");
    assert_eq!(gateway.get("good.test", "/").status, 200);
    assert_eq!(gateway.get("bad.test", "/").status, 200);
}

#[test]
fn commands_explain_the_cluster_as_it_is() {
    let Some(control) = control() else { return };
    let namespace = control.access().namespace("explained").unwrap();
    namespace.apply(&endpoints("web", &["192.0.2.77".to_owned()])).unwrap();
    namespace.apply(&ingress("web", "web.test", "/", "web")).unwrap();
    namespace.apply(&ingress("lost", "lost.test", "/", "nobody")).unwrap();
    let kubeconfig = format!("--kubeconfig={}", control.kubeconfig().display());
    let watched = format!("--watch-namespace={}", namespace.name());
    let (code, said) =
        command(&["explain", "--kubernetes", &kubeconfig, &watched, "GET http://web.test/a"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("192.0.2.77:8080") && said.contains("Ingress explained"), "{said}");
    let (code, said) = command(&["controller", "--dry-run", &kubeconfig, &watched]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("192.0.2.77:8080") && said.contains("MissingService"), "{said}");
    let (code, said) = command(&["explain", &kubeconfig, "GET http://web.test/"]);
    assert!(code == Some(2) && said.contains("--kubernetes"), "{said}");
    let (code, said) = command(&["controller", "--dry-run", "--kubeconfig=/nowhere"]);
    assert!(code == Some(1) && said.contains("/nowhere"), "{said}");
}

#[test]
fn the_file_has_listeners_and_settings_and_no_routes() {
    let Some(control) = control() else { return };
    let namespace = control.access().namespace("beside").unwrap();
    let _one = service(&namespace, "one", "from one");
    namespace.apply(&ingress("web", "web.test", "/", "one")).unwrap();
    let port = testkit::Port::reserve();
    let file = format!(
        "serverHeader: false\nlisteners:\n  - {{name: own, address: '127.0.0.1:{port}'}}\n"
    );
    let start = |file: &str| {
        testkit::Gateway::new(BINARY, file)
            .without_port()
            .arg("--kubernetes")
            .arg("--read-only")
            .arg(format!("--kubeconfig={}", control.kubeconfig().display()))
            .arg(format!("--watch-namespace={}", namespace.name()))
    };
    let gateway = start(&file).start();
    let asked = || testkit::client::get(port.address(), "web.test", "/");
    assert_eq!(asked().text(), "from one");
    assert_eq!(asked().header("server"), None);
    gateway.rewrite_by_rename(&file.replace("serverHeader: false", "serverHeader: true"));
    assert!(wait_until(SOON, || asked().header("server") == Some("cloverleaf")));
    // A mistake changes nothing, and routes go on changing.
    gateway.rewrite_by_rename("rules: [{path: /, respond: 204}]");
    gateway.expect_stderr("routes come from the cluster", SOON);
    namespace.kubectl(&["delete", "ingress", "web"], None).unwrap();
    assert!(wait_until(SOON, || asked().status == 404));
    let mut refused = start("rules: [{path: /, respond: 204}]").start_unready();
    assert_eq!(refused.wait_exit(Duration::from_secs(10)), Some(2));
    refused.expect_stderr("routes come from the cluster", Duration::ZERO);
}
