//! Broken annotations and Secrets of the dispatcher's Namespaces and Pods.

use serde_json::{Value, json};
use testkit::certs::Wanted;
use testkit::{Authority, Issued};

use super::{Answer, Broken, Neighbours, routable};
use crate::support::{Server, control, pod};

/// Namespaces: a name, the hosts, the Secret `routing`, the reason, part of the message, and what a request for
/// the host `NAME.bad.test` comes to.
type NamespaceCase = (&'static str, String, Option<Value>, &'static str, &'static str, Answer);

fn ssl(host: &str) -> String {
    let field = |key: &str| json!({ "valueFrom": { "secretKeyRef": { "key": key } } });
    let ssl = json!({ "certificate": field("crt"), "certificateKey": field("key") });
    json!({ host: { "ssl": ssl } }).to_string()
}

fn pair(chain: &Issued, key: &Issued) -> Option<Value> {
    Some(json!({ "crt": chain.chain_pem, "key": key.key_pem }))
}

fn with_hosts() -> Vec<NamespaceCase> {
    let crowd: serde_json::Map<String, Value> =
        (0..1001).map(|n| (format!("h{n:04}.bad.test"), json!({}))).collect();
    let (crowd, deep) = (Value::Object(crowd).to_string(), "[".repeat(100_000));
    // The other host of it is known, though nobody is there.
    let control = "{\"control\\u0001.bad.test\": {}, \"control.bad.test\": {}}";
    let misspelt = r#"{"ssl.bad.test": {"ssl": {"certficate": {}}}}"#;
    [
        ("text", "this is not JSON", "InvalidHosts", "no host", Answer::Nothing),
        ("list", r#"["list.bad.test"]"#, "InvalidHosts", "an array", Answer::Nothing),
        ("deep", &deep, "InvalidHosts", "no host", Answer::Nothing),
        ("control", control, "InvalidHost", "control\\u{1}.bad.test", Answer::Status(404)),
        ("options", r#"{"options.bad.test": "tls"}"#, "InvalidHost", "options", Answer::Nothing),
        ("h0999", &crowd, "TooManyHosts", "1000", Answer::Status(404)),
        ("ssl", misspelt, "InvalidTls", "certficate", Answer::Nothing),
    ]
    .map(|(name, hosts, reason, says, answer)| (name, hosts.to_owned(), None, reason, says, answer))
    .into()
}

fn with_secrets(authority: &Authority) -> Vec<NamespaceCase> {
    let [one, other] = [(); 2].map(|()| authority.server(&["pair.bad.test"]));
    let old = authority.issue(&Wanted::server(&["old.bad.test"]).expired());
    let tls = |name, secret, reason, says| {
        (name, ssl(&format!("{name}.bad.test")), secret, reason, says, Answer::Nothing)
    };
    let key = r#"{"key.bad.test": {}}"#.to_owned();
    let empty = Some(json!({ "api-key": "" }));
    vec![
        tls("unkept", None, "MissingSecret", "unkept.bad.test"),
        tls("field", Some(json!({ "crt": "x" })), "MissingSecretField", "key"),
        tls("pair", pair(&one, &other), "InvalidCertificate", "pair.bad.test"),
        tls("old", pair(&old, &old), "CertificateWarning", "old.bad.test"),
        ("key", key, empty, "EmptyApiKey", "api-key", Answer::Status(403)),
    ]
}

#[test]
fn a_broken_namespace_hears_of_it_and_its_neighbours_do_not() {
    let Some(control) = control() else { return };
    let access = control.access();
    let neighbours = Neighbours::start(access, "namespaces", &["ingress", "pods"]);
    let authority = Authority::new();
    let mut all = Vec::new();
    let mut namespaces = Vec::new();
    let cases = with_hosts().into_iter().chain(with_secrets(&authority));
    for (name, hosts, secret, reason, says, answer) in cases {
        let namespace = access.namespace(name).unwrap();
        if let Some(fields) = secret {
            let secret = json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "routing" },
                "stringData": fields,
            });
            namespace.apply(&secret.to_string()).unwrap();
        }
        routable(access, &namespace, &neighbours.label, &hosts);
        let object = format!("Namespace {}", namespace.name());
        let asked = Some((format!("{name}.bad.test"), "/", answer));
        all.push(Broken { object, reason, says, asked });
        namespaces.push(namespace);
    }
    // Its key is looked for once there is somebody to be protected by it.
    let server = Server::start("from the last one");
    let paths = r#"[{"basePath": "/", "containerPort": "PORT"}]"#;
    pod(namespaces.last().unwrap(), &neighbours.label, "app", paths, server.address());
    neighbours.all_are_said(access, &all);
    neighbours.all_answer(&all);
    assert!(!neighbours.gateway.stderr().contains("PRIVATE KEY"));
    let delete = ["delete", "pod", "app", "--grace-period=0", "--force"];
    namespaces.last().unwrap().kubectl(&delete, None).unwrap();
    for namespace in &namespaces {
        let label = "test.cloverleaf/routable-";
        access.kubectl(&["label", "namespace", namespace.name(), label], None).unwrap();
    }
    neighbours.all_is_mended();
    neighbours.were_served();
}

/// Pods: a name, the paths (`PORT` is one that it declares), reason and part of the message.
const PODS: [(&str, &str, &str, &str); 10] = [
    ("text", "this is not JSON", "InvalidPaths", "paths"),
    ("object", r#"{"basePath": "/object", "containerPort": "PORT"}"#, "InvalidPaths", "an array"),
    ("number", r#"[{"basePath": 7, "containerPort": "PORT"}]"#, "InvalidPath", "basePath"),
    (
        "braces",
        r#"[{"basePath": "/x { return 418; } location /y", "containerPort": "PORT"}]"#,
        "InvalidPath",
        "basePath",
    ),
    ("lines", r#"[{"basePath": "/lines\nx", "containerPort": "PORT"}]"#, "InvalidPath", "basePath"),
    (
        "target",
        r#"[{"basePath": "/target", "targetPath": "/a\r\nX: y", "containerPort": "PORT"}]"#,
        "InvalidPath",
        "targetPath",
    ),
    ("port", r#"[{"basePath": "/port", "containerPort": "http"}]"#, "InvalidPort", "http"),
    ("undeclared", r#"[{"basePath": "/undeclared", "containerPort": "1"}]"#, "UndeclaredPort", "1"),
    (
        "weight",
        r#"[{"basePath": "/weight", "containerPort": "PORT", "weight": 0}]"#,
        "InvalidWeight",
        "0",
    ),
    (
        "unknown",
        r#"[{"basePath": "/unknown", "containerPort": "PORT", "tagetPath": "/"}]"#,
        "UnknownOption",
        "tagetPath",
    ),
];

#[test]
fn a_broken_pod_hears_of_it_and_its_neighbours_do_not() {
    let Some(control) = control() else { return };
    let access = control.access();
    let neighbours = Neighbours::start(access, "pods-beside", &["ingress", "pods"]);
    let namespace = access.namespace("bad-pods").unwrap();
    routable(access, &namespace, &neighbours.label, r#"{"tenant.bad.test": {}}"#);
    let server = Server::start("from a bad Pod");
    let label = &neighbours.label;
    // Of the same Namespace, and of one with too much.
    pod(
        &namespace,
        label,
        "good",
        r#"[{"basePath": "/good", "containerPort": "PORT"}]"#,
        server.address(),
    );
    let many: Vec<Value> = (0..201)
        .map(|n| json!({ "basePath": format!("/many/{n:03}"), "containerPort": "PORT" }))
        .collect();
    let many = Value::from(many).to_string();
    let long =
        json!([{ "basePath": format!("/{}", "l".repeat(100_000)), "containerPort": "PORT" }]);
    let long = long.to_string();
    let mut all = Vec::new();
    let more = [("many", &*many, "TooManyPaths", "200"), ("long", &long, "InvalidPath", "1024")];
    for (name, paths, reason, says) in PODS.into_iter().chain(more) {
        pod(&namespace, label, name, paths, server.address());
        let object = format!("Pod {}/{name}", namespace.name());
        all.push(Broken { object, reason, says, asked: None });
    }
    neighbours.all_are_said(access, &all);
    for (path, status) in [
        ("/good", 200),
        ("/many/199", 200),
        ("/many/200", 404),
        ("/unknown", 200),
        ("/x", 404),
        ("/y", 404),
        ("/lines", 404),
        ("/target", 404),
        ("/port", 404),
        ("/undeclared", 404),
        ("/weight", 404),
        ("/object", 404),
    ] {
        assert_eq!(neighbours.gateway.get("tenant.bad.test", path).status, status, "{path}");
    }
    namespace.kubectl(&["delete", "pods", "--all", "--grace-period=0", "--force"], None).unwrap();
    neighbours.all_is_mended();
    neighbours.were_served();
}
