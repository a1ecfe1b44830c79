//! Services as upstreams: ports, endpoints, families, hints, names outside the cluster.

use cloverleaf_kubernetes::translate::{IngressOptions, Options};
use model::Algorithm;

use crate::world::*;

const WEB: &str = "service/default/web/80";

fn web(service_spec: &str, slices: &str) -> String {
    service_with("web", service_spec)
        + slices
        + &ingress("a", 1, "", &one_path("", "Prefix", "/", "web:80"))
}

const PORTS: &str = "ports: [{name: http, port: 80}]";

#[test]
fn which_endpoints_get_requests() {
    type Case<'c> = (&'c str, &'c [(&'c str, &'c str)], &'c [&'c str]);
    let cases: [Case<'_>; 7] = [
        ("unknown counts as ready", &[("10.0.0.1", "")], &["10.0.0.1:8080"]),
        (
            "ready ones go before all others",
            &[
                ("10.0.0.1", "ready: true"),
                ("10.0.0.2", "ready: false"),
                ("10.0.0.3", "ready: false, serving: true, terminating: true"),
            ],
            &["10.0.0.1:8080"],
        ),
        (
            "none ready: those that terminate and still serve",
            &[
                ("10.0.0.2", "ready: false, serving: false, terminating: true"),
                ("10.0.0.3", "ready: false, serving: true, terminating: true"),
            ],
            &["10.0.0.3:8080"],
        ),
        ("none at all", &[("10.0.0.2", "ready: false")], &[]),
        (
            "terminating ones that are published although not ready",
            &[("10.0.0.1", "ready: true, serving: false, terminating: true")],
            &["10.0.0.1:8080"],
        ),
        (
            "each once",
            &[("10.0.0.1", "ready: true"), ("10.0.0.1", "ready: true")],
            &["10.0.0.1:8080"],
        ),
        (
            "in the order of addresses",
            &[("10.0.0.10", ""), ("10.0.0.9", ""), ("10.0.0.1", "")],
            &["10.0.0.1:8080", "10.0.0.9:8080", "10.0.0.10:8080"],
        ),
    ];
    for (case, endpoints, wanted) in cases {
        let translation = translate(&web(PORTS, &slice("web", "http", 8080, endpoints)));
        no_problems(&translation);
        assert_eq!(addresses(&translation, WEB), wanted, "{case}");
        assert_eq!(
            route(&translation, "", "/"),
            WEB,
            "{case}: a Service without endpoints is still there"
        );
    }
}

#[test]
fn hints_are_followed_when_every_endpoint_has_them() {
    let zone = |zone: &str| format!("ready: true; forZones: [{{name: {zone}}}]");
    let node = |zone: &str, node: &str| {
        format!("ready: true; forZones: [{{name: {zone}}}], forNodes: [{{name: {node}}}]")
    };
    let (a, b, none) = (zone("a"), zone("b"), "ready: true".to_owned());
    let cases: [(&str, [&String; 3], &[u8]); 6] = [
        ("our zone", [&a, &b, &b], &[1]),
        ("one without hints: all", [&a, &b, &none], &[1, 2, 3]),
        ("none for our zone: all", [&b, &b, &b], &[1, 2, 3]),
        (
            "our node before our zone",
            [&node("a", "other"), &node("a", "here"), &node("b", "n3")],
            &[2],
        ),
        (
            "nobody means our node: our zone",
            [&node("a", "n1"), &node("a", "n2"), &node("b", "n3")],
            &[1, 2],
        ),
        ("not all name nodes: our zone", [&node("a", "here"), &a, &b], &[1, 2]),
    ];
    let here = || Options { zone: Some("a".into()), node: Some("here".into()), ..options() };
    for (case, [first, second, third], wanted) in cases {
        let endpoints = [("10.0.0.1", &**first), ("10.0.0.2", &**second), ("10.0.0.3", &**third)];
        let manifests = web(PORTS, &slice("web", "http", 8080, &endpoints));
        let wanted: Vec<String> = wanted.iter().map(|n| format!("10.0.0.{n}:8080")).collect();
        assert_eq!(addresses(&translate_with(here(), &manifests), WEB), wanted, "{case}");
        assert_eq!(
            addresses(&translate(&manifests), WEB).len(),
            3,
            "{case}: nowhere in particular"
        );
    }
}

#[test]
fn of_two_families_the_services_first_is_used_while_it_has_endpoints() {
    let v4 = slice("web", "http", 8080, &[("10.0.0.1", "ready: true")]);
    let v6 = slice("web", "http", 8080, &[("fd00::1", "ready: true")]);
    let v4_down = slice("web", "http", 8080, &[("10.0.0.1", "ready: false")]);
    let prefers = |family: &str| format!("{PORTS}, ipFamilies: [{family}]");
    let cases = [
        (prefers("IPv4"), format!("{v4}{v6}"), "10.0.0.1:8080"),
        (prefers("IPv6"), format!("{v4}{v6}"), "[fd00::1]:8080"),
        (prefers("IPv4"), format!("{v4_down}{v6}"), "[fd00::1]:8080"),
        (prefers("IPv6"), v4.clone(), "10.0.0.1:8080"),
        (PORTS.to_owned(), format!("{v4}{v6}"), "10.0.0.1:8080"),
    ];
    for (spec, slices, wanted) in cases {
        assert_eq!(addresses(&translate(&web(&spec, &slices)), WEB), [wanted], "{spec}");
    }
}

#[test]
fn ports_by_number_and_name_are_one_upstream_and_find_their_slices() {
    let manifests = service_with(
        "web",
        "clusterIP: None, ports: [{name: http, port: 80}, {name: admin, port: 81}, \
         {name: dns, port: 53, protocol: UDP}]",
    ) + &slice("web", "http", 8080, &[("10.0.0.1", "")])
        + &slice("web", "admin", 9090, &[("10.0.0.1", "")])
        + &ingress(
            "a",
            1,
            "",
            &format!(
                "rules: [{}, {}, {}, {}]",
                one_rule("", "Prefix", "/number", "web:80"),
                one_rule("", "Prefix", "/name", "web:http"),
                one_rule("", "Prefix", "/admin", "web:admin"),
                one_rule("", "Prefix", "/udp", "web:53"),
            ),
        );
    let translation = translate(&manifests);
    assert_eq!(route(&translation, "", "/number"), WEB);
    assert_eq!(route(&translation, "", "/name"), WEB);
    assert_eq!(addresses(&translation, WEB), ["10.0.0.1:8080"]);
    assert_eq!(addresses(&translation, "service/default/web/81"), ["10.0.0.1:9090"]);
    assert_eq!(route(&translation, "", "/udp"), "503 service/default/web/53");
    has_problem(
        &translation,
        "Ingress default/a",
        "MissingPort",
        "service.port.number is 53, expected a TCP port of Service default/web, \
         which has 80 (http), 81 (admin)",
    );
}

#[test]
fn external_names() {
    let manifest = |name: &str, ports: &str, port: &str| {
        service_with("web", &format!("type: ExternalName, externalName: {name:?}{ports}"))
            + &ingress("a", 1, "", &one_path("", "Prefix", "/", &format!("web:{port}")))
    };
    let translation = translate(&manifest("api.example.com", "", "443"));
    assert_eq!(addresses(&translation, "service/default/web/443"), ["api.example.com:443"]);
    let named = translate(&manifest("Api.Example.com.", ", ports: [{name: x, port: 8000}]", "x"));
    assert_eq!(addresses(&named, "service/default/web/8000"), ["api.example.com:8000"]);
    for local in
        ["localhost", "a.localhost", "127.0.0.1", "127.1.2.3", "0.0.0.0", "169.254.169.254", "::1"]
    {
        let translation = translate(&manifest(local, "", "80"));
        assert_eq!(route(&translation, "", "/"), "503 service/default/web/80", "{local}");
        has_problem(
            &translation,
            "Ingress default/a",
            "ExternalName",
            "does not lead to this machine",
        );
    }
    let refused = translate(&manifest("a b", "", "80"));
    has_problem(&refused, "Ingress default/a", "ExternalName", "expected a host name");
    let off = Options {
        ingress: Some(IngressOptions { external_names: false, ..IngressOptions::default() }),
        ..options()
    };
    let translation = translate_with(off, &manifest("api.example.com", "", "443"));
    has_problem(&translation, "Ingress default/a", "ExternalName", "switched off");
}

#[test]
fn affinity_and_protocol_of_the_port() {
    let sticky = translate(&web(&format!("{PORTS}, sessionAffinity: ClientIP"), ""));
    assert_eq!(upstream(&sticky, WEB).algorithm, Algorithm::ClientAddress);
    for (protocol, tls) in [
        ("https", true),
        ("HTTPS", true),
        ("kubernetes.io/wss", true),
        ("http", false),
        ("kubernetes.io/ws", false),
    ] {
        let spec = format!("ports: [{{name: http, port: 80, appProtocol: {protocol}}}]");
        let translation = translate(&web(&spec, ""));
        no_problems(&translation);
        assert_eq!(upstream(&translation, WEB).tls.is_some(), tls, "{protocol}");
    }
    let spec = "ports: [{name: http, port: 80, appProtocol: kubernetes.io/h2c}]";
    let translation = translate(&web(spec, ""));
    has_problem(&translation, "Service default/web", "UnsupportedProtocol", "kubernetes.io/h2c");
}

#[test]
fn services_of_two_namespaces_with_one_name_are_two() {
    let manifests = service("a/web")
        + &service("b/web")
        + &ingress("a/x", 1, "", &one_path("a.test", "Prefix", "/", "web"))
        + &ingress("b/x", 1, "", &one_path("b.test", "Prefix", "/", "web"));
    let translation = translate(&manifests);
    assert_eq!(route(&translation, "a.test", "/"), "service/a/web/80");
    assert_eq!(route(&translation, "b.test", "/"), "service/b/web/80");
}
