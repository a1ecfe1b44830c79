//! Broken Ingresses, and broken objects that they refer to.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::certs::Wanted;
use testkit::client::Tls;
use testkit::kubernetes::Namespace;
use testkit::{Authority, Client, wait_until};

use super::{ALL_SAID_WITHIN, Answer, Broken, Neighbours, events, of_class};
use crate::support::{SOON, Server, control, expect_answer, headless, ingress, service};

/// The API tells ages in whole seconds.
const OLDER: Duration = Duration::from_millis(1100);

/// Ingresses: name, annotations, `spec` beside its class (without: one path `/` to the good Service), reason, part
/// of the message, path asked for on the host `NAME.bad.test`, status.
type IngressCase = (&'static str, Value, Value, &'static str, &'static str, &'static str, u16);

fn to(service: &str, port: Value) -> Value {
    json!({ "service": { "name": service, "port": port } })
}

/// One rule for the case's own host.
fn rule(path: &str, path_type: &str, backend: Value) -> Value {
    let path = json!({ "path": path, "pathType": path_type, "backend": backend });
    json!({ "rules": [{ "http": { "paths": [path] } }] })
}

fn with_annotations() -> Vec<IngressCase> {
    let long = "x".repeat(100 * 1024);
    let mut cases = Vec::new();
    for (name, annotation, value, reason, says) in [
        ("size", "max-request-body", "lots", "InvalidAnnotation", "lots"),
        ("chosen", "balance", "fastest", "InvalidAnnotation", "fastest"),
        ("late", "response-timeout", "25h", "InvalidAnnotation", "25h"),
        ("split", "health-check-path", "/a\r\nX: y", "InvalidAnnotation", "health-check-path"),
        ("misspelt", "strip-paht", "true", "UnknownAnnotation", "strip-paht"),
        ("long", "backend-server-name", &long, "UnusableField", "backend-server-name"),
    ] {
        let annotations = json!({ format!("cloverleaf/{annotation}"): value });
        cases.push((name, annotations, Value::Null, reason, says, "/", 200));
    }
    let unknown =
        json!({ "cloverleaf/backend-protocol": "https", "cloverleaf/backend-ca": "nobody" });
    cases.push(("unknown", unknown, Value::Null, "MissingAuthorities", "nobody", "/", 503));
    let both = json!({ "cloverleaf/strip-path": "true", "nanoproxy/strip-path": "false" });
    cases.push(("both", both, Value::Null, "ConflictingAnnotations", "strip-path", "/", 200));
    cases
}

fn with_specs() -> Vec<IngressCase> {
    let (web, good) = (|| json!({ "name": "web" }), || to("good", json!({ "name": "web" })));
    let paths: Vec<Value> = (0..3000)
        .map(|n| json!({ "path": format!("/{n}"), "pathType": "Exact", "backend": good() }))
        .collect();
    let bucket = json!({ "resource": { "apiGroup": "x.test", "kind": "Bucket", "name": "b" } });
    [
        ("nobody", rule("/", "Prefix", to("nobody", web())), "MissingService", "nobody", "/", 503),
        (
            "port",
            rule("/", "Prefix", to("good", json!({ "number": 81 }))),
            "MissingPort",
            "81",
            "/",
            503,
        ),
        ("bucket", rule("/", "Prefix", bucket), "UnusableBackend", "Bucket", "/", 503),
        ("udp", rule("/", "Prefix", to("udp", web())), "MissingPort", "which has none", "/", 503),
        ("self", rule("/", "Prefix", to("self", web())), "ExternalName", "localhost", "/", 503),
        ("lines", rule("/a\nb", "Prefix", good()), "InvalidPath", "control characters", "/a", 404),
        (
            "regex",
            rule("/a(/|$)(.*)", "ImplementationSpecific", good()),
            "UnlikelyPath",
            "no patterns",
            "/a",
            404,
        ),
        (
            "enormous",
            json!({ "rules": [{ "http": { "paths": paths } }] }),
            "UnusableField",
            "expected at most 2000",
            "/1999",
            200,
        ),
    ]
    .map(|(name, spec, reason, says, path, status)| {
        (name, Value::Null, spec, reason, says, path, status)
    })
    .into()
}

fn with_secrets() -> Vec<IngressCase> {
    [
        ("unkept", "UnusableCertificate", "unkept"),
        ("mismatched", "UnusableCertificate", "mismatched"),
        ("garbage", "UnusableCertificate", "garbage"),
        ("expired", "DoubtfulCertificate", "expired"),
    ]
    .map(|(name, reason, says)| {
        let host = format!("{name}.bad.test");
        let mut spec = rule("/", "Prefix", to("good", json!({ "name": "web" })));
        spec["tls"] = json!([{ "hosts": [host], "secretName": name }]);
        (name, Value::Null, spec, reason, says, "/", 200)
    })
    .into()
}

fn manifest(case: &IngressCase, class: &str) -> Value {
    let (name, annotations, spec, ..) = case;
    let mut spec = match spec {
        Value::Null => rule("/", "Prefix", to("good", json!({ "name": "web" }))),
        spec => spec.clone(),
    };
    spec["rules"][0]["host"] = format!("{name}.bad.test").into();
    spec["ingressClassName"] = class.into();
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": { "name": name, "annotations": annotations }, "spec": spec,
    })
}

fn tls_secret(name: &str, chain: &str, key: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": { "name": name }, "stringData": { "tls.crt": chain, "tls.key": key },
    })
}

/// What the Ingresses refer to.
fn referred(namespace: &Namespace, authority: &Authority) -> Server {
    let expired = authority.issue(&Wanted::server(&["expired.bad.test"]).expired());
    let other = authority.server(&["mismatched.bad.test"]);
    let udp =
        headless("udp").replace("{name: web, port: 80}", "{name: web, port: 80, protocol: UDP}");
    let own = "apiVersion: v1\nkind: Service\nmetadata: {name: self}\n\
               spec: {type: ExternalName, externalName: localhost, ports: [{name: web, port: 80}]}\n";
    let secrets = [
        tls_secret("expired", &expired.chain_pem, &expired.key_pem),
        tls_secret("mismatched", &other.chain_pem, &expired.key_pem),
        tls_secret("garbage", "no certificate", "{}"),
    ];
    let secrets: String = secrets.iter().map(|secret| format!("---\n{secret}\n")).collect();
    namespace.apply(&format!("{udp}---\n{own}{secrets}")).unwrap();
    service(namespace, "good", "from the good one")
}

#[test]
fn a_broken_ingress_hears_of_it_and_its_neighbours_do_not() {
    let Some(control) = control() else { return };
    let access = control.access();
    let neighbours = Neighbours::start(access, "ingresses", &["ingress"]);
    let namespace = access.namespace("bad").unwrap();
    let authority = Authority::new();
    let _good = referred(&namespace, &authority);
    let cases = [with_annotations(), with_specs(), with_secrets()].concat();
    let manifests: Vec<Value> =
        cases.iter().map(|case| manifest(case, &neighbours.class)).collect();
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": manifests });
    // `apply` would keep the whole object in an annotation, which has no room for the enormous one.
    namespace.kubectl(&["create", "-f", "-"], Some(&list.to_string())).unwrap();
    let broken = |(name, _, _, reason, says, path, status): &IngressCase| Broken {
        object: format!("Ingress {}/{name}", namespace.name()),
        reason,
        says,
        asked: Some((format!("{name}.bad.test"), path, Answer::Status(*status))),
    };
    let all: Vec<Broken> = cases.iter().map(broken).collect();
    neighbours.all_are_said(access, &all);
    neighbours.all_answer(&all);
    // A certificate that cannot be used is no reason for somebody else's, nor for plain text.
    for (name, served) in
        [("unkept", false), ("mismatched", false), ("garbage", false), ("expired", true)]
    {
        let host = format!("{name}.bad.test");
        let anybody = Tls { authority_pem: None, ..Tls::trusting("", &host) };
        let connected = Client::try_connect_tls(neighbours.https.address(), anybody);
        assert_eq!(connected.is_ok(), served, "{host}");
    }
    namespace.kubectl(&["delete", "ingress", "--all"], None).unwrap();
    neighbours.all_is_mended();
    neighbours.were_served();
}

/// What would be syntax in another proxy's configuration is text here.
#[test]
fn the_path_of_an_ingress_configures_nothing() {
    let Some(control) = control() else { return };
    let namespace = control.access().namespace("syntax").unwrap();
    let neighbours = Neighbours::start(control.access(), "syntax-beside", &["ingress", "pods"]);
    let _one = service(&namespace, "one", "from one");
    let path = "/x { return 418; } location /y; #";
    let case = (
        "x",
        Value::Null,
        rule(path, "ImplementationSpecific", to("one", json!({ "name": "web" }))),
        "",
        "",
        "",
        0,
    );
    namespace.apply(&manifest(&case, &neighbours.class).to_string()).unwrap();
    let asked = "/x%20%7B%20return%20418;%20%7D%20location%20/y;%20%23";
    let served = || neighbours.answer("x.bad.test", asked) == Answer::Status(200);
    assert!(wait_until(SOON, served), "{}", neighbours.gateway.stderr());
    for path in ["/x", "/y", "/x%20"] {
        assert_eq!(neighbours.answer("x.bad.test", path), Answer::Status(404), "{path}");
    }
    // These do not even get into the cluster.
    for (host, path, path_type, port) in [
        ("x\u{1}.test", "/", "Prefix", 80),
        ("x.test\r\nX: y", "/", "Prefix", 80),
        ("x.test:80", "/", "Prefix", 80),
        ("x.test", "/", "Regex", 80),
        ("x.test", "a", "Exact", 80),
        ("x.test", "/", "Prefix", 65536),
    ] {
        let mut spec = rule(path, path_type, to("one", json!({ "number": port })));
        spec["rules"][0]["host"] = host.into();
        let mut refused = manifest(&case, &neighbours.class);
        refused["spec"]["rules"] = spec["rules"].take();
        assert!(
            namespace.apply(&refused.to_string()).is_err(),
            "{host:?} {path} {path_type} {port}"
        );
    }
    assert_eq!(neighbours.gateway.metric("cloverleaf_kubernetes_problems"), Some(0.0));
    neighbours.were_served();
}

/// Two hundred that want the same path: the oldest has it, and each of the others hears who.
#[test]
fn two_hundred_conflicts_are_one_winner_and_an_event_each() {
    const CLAIMS: usize = 200;
    let Some(control) = control() else { return };
    let access = control.access();
    let neighbours = Neighbours::start(access, "conflicts", &["ingress"]);
    let namespace = access.namespace("claims").unwrap();
    let _first = service(&namespace, "first", "from the first");
    let _later = service(&namespace, "later", "from a later one");
    let claim = |name: &str, service: &str| {
        of_class(&ingress(name, "wanted.test", "/", service), &neighbours.class)
    };
    // Names in the other order than ages: neither wins by its name.
    namespace.apply(&claim("z", "first")).unwrap();
    let served = || neighbours.answer("wanted.test", "/") == Answer::Status(200);
    assert!(wait_until(SOON, served), "{}", neighbours.gateway.stderr());
    std::thread::sleep(OLDER);
    let claims: Vec<String> = (1..CLAIMS).map(|n| claim(&format!("c{n}"), "later")).collect();
    namespace.apply(&claims.join("---\n")).unwrap();
    let losers: Vec<Broken> = (1..CLAIMS)
        .map(|n| Broken {
            object: format!("Ingress {}/c{n}", namespace.name()),
            reason: "PathTaken",
            says: "/z",
            asked: None,
        })
        .collect();
    let problems = "cloverleaf_kubernetes_problems";
    let known = wait_until(SOON, || neighbours.gateway.metric(problems) == Some(199.0));
    assert!(known, "{:?}", neighbours.gateway.metric(problems));
    assert_eq!(neighbours.gateway.get("wanted.test", "/").text(), "from the first");
    let mut missing = 0;
    let said = wait_until(ALL_SAID_WITHIN, || {
        let events = events(access);
        missing = losers.iter().filter(|loser| !loser.has_event(&events)).count();
        missing == 0
    });
    assert!(said, "{missing} have heard nothing");
    // The next oldest, by age and then by name, is heir.
    namespace.kubectl(&["delete", "ingress", "z"], None).unwrap();
    expect_answer(&neighbours.gateway, "wanted.test", "/", (200, "from a later one"));
    namespace.kubectl(&["delete", "ingress", "--all", "--wait=false"], None).unwrap();
    neighbours.all_is_mended();
    neighbours.were_served();
}
