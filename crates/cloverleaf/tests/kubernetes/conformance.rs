//! The 25 scenarios of the Ingress conformance suite through the front door: Ingresses in a real API server, requests
//! to the program, and the status that the suite waits for.

use testkit::client::{Tls, fetch};
use testkit::kubernetes::Namespace;
use testkit::{Authority, Client, Cloverleaf, Port, wait_until};

use crate::support::{Echo, SOON, Server, control, endpoint_slice, gateway_at, headless, service};

/// What the gateway says its address is.
const PUBLISHED: &str = "192.0.2.77";

/// Follows a namespace and writes status, under a Lease of the namespace's name.
fn gateway_of(namespace: &Namespace, https: &Port) -> Option<Cloverleaf> {
    let name = namespace.name();
    let gateway = gateway_at(control()?.access(), https)
        .arg(format!("--watch-namespace={name}"))
        .arg(format!("--publish-address={PUBLISHED}"))
        .arg(format!("--lease-name={name}"));
    Some(gateway.start())
}

fn published(namespace: &Namespace, ingress: &str) -> Option<String> {
    let found = namespace.get(&["ingress", ingress]).expect("the Ingress");
    found["status"]["loadBalancer"]["ingress"][0]["ip"].as_str().map(str::to_owned)
}

fn wait_for_status(namespace: &Namespace, ingress: &str) {
    let came = wait_until(SOON, || published(namespace, ingress).as_deref() == Some(PUBLISHED));
    assert!(came, "{ingress} has no address");
}

/// An Ingress whose spec is given beside its class.
fn ingress(name: &str, class: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: {name}}}\n\
         spec: {{ingressClassName: {class}, {spec}}}\n"
    )
}

fn rule(host: &str, path_type: &str, path: &str, service: &str, port: &str) -> String {
    format!(
        "{{host: {host}, http: {{paths: [{{path: {path}, pathType: {path_type}, \
         backend: {{service: {{name: {service}, port: {port}}}}}}}]}}}}"
    )
}

#[test]
fn a_default_backend_serves_every_method_host_and_path() {
    let Some(control) = control() else { return };
    let namespace = control.access().namespace("default-backend").unwrap();
    let echo = Echo::start();
    namespace.apply(&(headless("echo") + &endpoint_slice("echo", 1, echo.address))).unwrap();
    let backend = "defaultBackend: {service: {name: echo, port: {name: web}}}";
    namespace.apply(&ingress("default", "cloverleaf", backend)).unwrap();
    let https = Port::reserve();
    let Some(gateway) = gateway_of(&namespace, &https) else { return };
    wait_for_status(&namespace, "default");
    for (method, host, path) in [
        ("GET", "", "/"),
        ("POST", "my-host", "/"),
        ("PUT", "my-host", "/resource"),
        ("DELETE", "some-host", "/resource"),
        ("PATCH", "other-host", "/resource/1"),
        ("GET", "my-host", "/sub-path?a=1"),
    ] {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: suite/1\r\nContent-Length: 0\r\n\
             Connection: close\r\n\r\n"
        );
        let response = fetch(gateway.address(), request);
        let case = format!("{method} {host}{path}");
        assert_eq!(response.status, 200, "{case}");
        for field in ["Content-Length", "Content-Type", "Date", "Server"] {
            assert!(response.header(field).is_some(), "{case}: no {field}");
        }
        let seen: serde_json::Value = serde_json::from_str(&response.text()).expect("a report");
        assert_eq!(seen["method"], method, "{case}");
        assert_eq!(seen["version"], "HTTP/1.1", "{case}");
        assert_eq!(seen["path"], path.split('?').next().unwrap_or(path), "{case}");
        let agent = seen["headers"].to_string();
        assert!(agent.contains("suite/1"), "{case}: {agent}");
    }
}

#[test]
fn hosts_lead_where_their_rules_say() {
    let Some(control) = control() else { return };
    let namespace = control.access().namespace("host-rules").unwrap();
    let _wildcard = service(&namespace, "wildcard-foo-com", "from wildcard-foo-com");
    let _exact = service(&namespace, "foo-bar-com", "from foo-bar-com");
    let authority = Authority::new();
    let certificate = authority.server(&["foo.bar.com"]);
    let secret = serde_json::json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": { "name": "conformance-tls" },
        "stringData": { "tls.crt": certificate.chain_pem, "tls.key": certificate.key_pem },
    });
    namespace.apply(&secret.to_string()).unwrap();
    let rules = format!(
        "tls: [{{hosts: [foo.bar.com], secretName: conformance-tls}}], rules: [{}, {}]",
        rule("'*.foo.com'", "Prefix", "/", "wildcard-foo-com", "{number: 80}"),
        rule("foo.bar.com", "Prefix", "/", "foo-bar-com", "{name: web}"),
    );
    namespace.apply(&ingress("hosts", "cloverleaf", &rules)).unwrap();
    let https = Port::reserve();
    let Some(gateway) = gateway_of(&namespace, &https) else { return };
    wait_for_status(&namespace, "hosts");
    let tls = Tls::trusting(authority.pem(), "foo.bar.com");
    let mut client = Client::connect_tls(https.address(), tls);
    let response = client.request("GET / HTTP/1.1\r\nHost: foo.bar.com\r\n\r\n").unwrap();
    assert_eq!(response.text(), "from foo-bar-com");
    for (host, status, body) in [
        ("foo.bar.com", 200, "from foo-bar-com"),
        ("subdomain.bar.com", 404, ""),
        ("bar.foo.com", 200, "from wildcard-foo-com"),
        ("baz.bar.foo.com", 404, ""),
        ("foo.com", 404, ""),
    ] {
        let response = gateway.get(host, "/");
        assert_eq!(response.status, status, "{host}");
        assert!(response.text().contains(body), "{host}: {}", response.text());
    }
}

#[test]
fn an_unknown_class_gets_no_status() {
    let Some(control) = control() else { return };
    let namespace = control.access().namespace("classes").unwrap();
    let _web = service(&namespace, "web", "from web");
    let rules =
        |host: &str| format!("rules: [{}]", rule(host, "Prefix", "/", "web", "{number: 80}"));
    // The unknown one first: when the other has its status, this one has been looked at.
    namespace.apply(&ingress("unknown", "some-invalid-class-name", &rules("a.test"))).unwrap();
    namespace.apply(&ingress("known", "cloverleaf", &rules("b.test"))).unwrap();
    let https = Port::reserve();
    let Some(gateway) = gateway_of(&namespace, &https) else { return };
    wait_for_status(&namespace, "known");
    assert_eq!(published(&namespace, "unknown"), None);
    assert_eq!((gateway.get("a.test", "/").status, gateway.get("b.test", "/").status), (404, 200));
}

#[test]
fn a_hundred_requests_reach_all_ten_pods() {
    const PODS: usize = 10;
    let Some(control) = control() else { return };
    let namespace = control.access().namespace("balancing").unwrap();
    let pods: Vec<Server> = (0..PODS).map(|at| Server::start(&format!("pod-{at}."))).collect();
    let slices = pods.iter().enumerate().map(|(at, pod)| endpoint_slice("echo", at, pod.address()));
    namespace.apply(&(headless("echo") + &slices.collect::<String>())).unwrap();
    let rules = format!("rules: [{}]", rule("lb.test", "Prefix", "/", "echo", "{name: web}"));
    namespace.apply(&ingress("balanced", "cloverleaf", &rules)).unwrap();
    let https = Port::reserve();
    let Some(gateway) = gateway_of(&namespace, &https) else { return };
    wait_for_status(&namespace, "balanced");
    let answers: std::collections::HashSet<String> =
        (0..100).map(|_| gateway.get("lb.test", "/").text()).collect();
    assert_eq!(answers.len(), PODS, "{answers:?}");
}

#[test]
fn paths_lead_where_their_rules_say() {
    let Some(control) = control() else { return };
    let namespace = control.access().namespace("path-rules").unwrap();
    let names = ["foo-exact", "foo-prefix", "aaa-bbb", "aaa", "aaa-bbb-slash", "foo-slash-exact"];
    let _servers: Vec<Server> =
        names.iter().map(|name| service(&namespace, name, &format!("from {name}."))).collect();
    let rules: Vec<String> = [
        ("exact.test", "Exact", "/foo", "foo-exact"),
        ("prefix.test", "Prefix", "/foo", "foo-prefix"),
        ("prefix.test", "Prefix", "/aaa/bbb", "aaa-bbb"),
        ("prefix.test", "Prefix", "/aaa", "aaa"),
        ("mixed.test", "Prefix", "/foo", "foo-prefix"),
        ("mixed.test", "Exact", "/foo", "foo-exact"),
        ("slash.test", "Prefix", "/aaa/bbb/", "aaa-bbb-slash"),
        ("slash.test", "Exact", "/foo/", "foo-slash-exact"),
    ]
    .iter()
    .map(|(host, path_type, path, service)| rule(host, path_type, path, service, "{number: 80}"))
    .collect();
    let rules = format!("rules: [{}]", rules.join(", "));
    namespace.apply(&ingress("paths", "cloverleaf", &rules)).unwrap();
    let https = Port::reserve();
    let Some(gateway) = gateway_of(&namespace, &https) else { return };
    wait_for_status(&namespace, "paths");
    for (host, path, wanted) in [
        ("exact.test", "/foo", "foo-exact"),
        ("exact.test", "/foo/", "404"),
        ("exact.test", "/FOO", "404"),
        ("exact.test", "/bar", "404"),
        ("prefix.test", "/foo", "foo-prefix"),
        ("prefix.test", "/foo/", "foo-prefix"),
        ("prefix.test", "/FOO", "404"),
        ("prefix.test", "/aaa/bbb", "aaa-bbb"),
        ("prefix.test", "/aaa/bbb/ccc", "aaa-bbb"),
        ("prefix.test", "/aaa", "aaa"),
        ("prefix.test", "/aaa/ccc", "aaa"),
        ("prefix.test", "/aaaccc", "404"),
        ("mixed.test", "/foo", "foo-exact"),
        ("mixed.test", "/foo/", "foo-prefix"),
        ("slash.test", "/aaa/bbb", "aaa-bbb-slash"),
        ("slash.test", "/aaa/bbb/", "aaa-bbb-slash"),
        ("slash.test", "/foo", "404"),
        ("slash.test", "/foo/", "foo-slash-exact"),
    ] {
        let response = gateway.get(host, path);
        let (status, body) = match wanted {
            "404" => (404, String::new()),
            name => (200, format!("from {name}.")),
        };
        assert_eq!(response.status, status, "{host}{path}");
        assert!(response.text().contains(&body), "{host}{path}: {}", response.text());
    }
}
