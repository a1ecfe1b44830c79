//! What tenants get wrong: each is said of its object, becomes what the message says, and touches nobody
//! else.

use cloverleaf_kubernetes::manifests::{Reading, read_manifests};
use cloverleaf_kubernetes::translate::{Changed, Translator};

use crate::world::*;

/// An Ingress's spec (in braces: the backend of x.test alone), what requests for x.test then get, the reason,
/// and a part of the message.
const CASES: [(&str, &str, &str, &str); 21] = [
    (
        "rules: [{host: \"x\\u0000.test\", http: {paths: [{path: /, pathType: Prefix, backend: B}]}}]",
        "404",
        "InvalidHost",
        "spec.rules[0].host is \"x\\0.test\", expected a host name, or one behind \"*.\"; the rule \
         is not served",
    ),
    (
        "rules: [{host: \"x.test\\r\\nX: y\", http: {paths: [{path: /, pathType: Prefix, backend: B}]}}]",
        "404",
        "InvalidHost",
        "spec.rules[0].host is \"x.test\\r\\nX: y\"",
    ),
    (
        "rules: [{host: 'x.test:8080', http: {paths: [{path: /, pathType: Prefix, backend: B}]}}]",
        "404",
        "InvalidHost",
        "expected a host name without port",
    ),
    (
        "rules: [{host: '*', http: {paths: [{path: /, pathType: Prefix, backend: B}]}}]",
        "404",
        "InvalidHost",
        "spec.rules[0].host is \"*\"",
    ),
    (
        "rules: [{host: 'a.*.test', http: {paths: [{path: /, pathType: Prefix, backend: B}]}}]",
        "404",
        "InvalidHost",
        "spec.rules[0].host is \"a.*.test\"",
    ),
    (
        "rules: [{host: 10.0.0.1, http: {paths: [{path: /, pathType: Prefix, backend: B}]}}]",
        "404",
        "InvalidHost",
        "not an address",
    ),
    (
        "rules: [{host: x.test, http: {paths: [{path: \"/a\\nb\", pathType: Prefix, backend: B}]}}]",
        "404",
        "InvalidPath",
        "spec.rules[0].http.paths[0].path is \"/a\\nb\", expected a path without control \
         characters; the path is not served",
    ),
    (
        "rules: [{host: x.test, http: {paths: [{path: a, pathType: Prefix, backend: B}]}}]",
        "404",
        "InvalidPath",
        "expected a path that begins with a slash",
    ),
    (
        "rules: [{host: x.test, http: {paths: [{path: /, pathType: Regex, backend: B}]}}]",
        "404",
        "InvalidPath",
        "spec.rules[0].http.paths[0].pathType is \"Regex\", expected Exact, Prefix or ImplementationSpecific",
    ),
    (
        "rules: [{host: x.test, http: {paths: [{path: /, backend: B}]}}]",
        "404",
        "InvalidPath",
        "pathType is \"\"",
    ),
    (
        "rules: [{host: x.test, http: {paths: [{path: '/a(/|$)(.*)', pathType: Prefix, backend: B}]}}]",
        "404",
        "UnlikelyPath",
        "paths are no patterns",
    ),
    (
        "{service: {name: none, port: {number: 80}}}",
        "503 service/bad/none/80",
        "MissingService",
        "spec.rules[0].http.paths[0].backend: service.name is \"none\", expected a Service \
         of namespace bad, where none has that name; its requests get 503",
    ),
    (
        "{service: {name: fine, port: {number: 80}}}",
        "503 service/bad/fine/80",
        "MissingService",
        "namespace bad",
    ),
    (
        "{service: {name: web, port: {number: 81}}}",
        "503 service/bad/web/81",
        "MissingPort",
        "service.port.number is 81, expected a TCP port of Service bad/web, which has 80 (http)",
    ),
    (
        "{service: {name: web, port: {name: htpp}}}",
        "503 service/bad/web/htpp",
        "MissingPort",
        "service.port.name is \"htpp\"",
    ),
    ("{service: {name: web}}", "503 service/bad/web/?", "MissingPort", "service.port is missing"),
    (
        "{service: {name: web, port: {number: 65536}}}",
        "503 resource/bad",
        "UnusableBackend",
        "service.port.number is 65536, expected 1 to 65535",
    ),
    (
        "{service: {name: web, port: {number: -80}}}",
        "503 resource/bad",
        "UnusableBackend",
        "service.port.number is -80",
    ),
    (
        "{resource: {kind: StorageBucket, name: b}}",
        "503 resource/bad",
        "UnusableBackend",
        "resource is StorageBucket \"b\", expected a Service",
    ),
    ("{}", "503 resource/bad", "UnusableBackend", "it names nothing"),
    (
        "defaultBackend: {service: {name: none, port: {number: 80}}}",
        "503 service/bad/none/80",
        "MissingService",
        "spec.defaultBackend: service.name is \"none\"",
    ),
];

#[test]
fn each_is_reported_and_touches_nobody_else() {
    for (spec, wanted, reason, says) in CASES {
        let spec = if spec.starts_with('{') {
            format!(
                "rules: [{{host: x.test, http: {{paths: [{{path: /, pathType: Prefix, backend: {spec}}}]}}}}]"
            )
        } else {
            spec.replace("backend: B", &format!("backend: {}", backend("web")))
        };
        let fine = service("good/fine")
            + &service("bad/web")
            + &secret("good/cert", "good")
            + &ingress(
                "good/fine",
                2,
                "",
                &(one_path("fine.test", "Prefix", "/", "fine") + ", tls: [{secretName: cert}]"),
            );
        let translation = translate(&(fine + &ingress("bad/x", 1, "", &spec)));
        assert_eq!(route(&translation, "x.test", "/"), wanted, "{spec}");
        has_problem(&translation, "Ingress bad/x", reason, says);
        assert_eq!(translation.problems.len(), 1, "{spec}: {}", problems(&translation));
        assert_eq!(route(&translation, "fine.test", "/x"), "service/good/fine/80", "{spec}");
        assert_eq!(addresses(&translation, "service/good/fine/80"), ["10.1.0.1:8080"], "{spec}");
        assert_eq!(translation.certificates.len(), 1, "{spec}");
    }
}

#[test]
fn one_bad_path_leaves_the_ingresss_others() {
    let rules = format!(
        "rules: [{}, {}, {}]",
        one_rule("x.test", "Prefix", "/a", "web"),
        one_rule("x.test", "Prefix", "b", "web"),
        one_rule("x.test", "Prefix", "/c", "none"),
    );
    let translation = translate(&(service("web") + &ingress("a", 1, "", &rules)));
    assert_eq!(route(&translation, "x.test", "/a"), "service/default/web/80");
    assert_eq!(route(&translation, "x.test", "/c"), "503 service/default/none/80");
    assert_eq!(translation.problems.len(), 2);
}

#[test]
fn what_would_be_syntax_elsewhere_is_only_text() {
    for path in ["/a{b}", "/a;b", "/x { return 418; } location /y", "/a b", "/$(id)", "/é", "/a\"b"]
    {
        let manifests =
            service("web") + &ingress("a", 1, "", &one_path("x.test", "Prefix", path, "web"));
        let translation = translate(&manifests);
        no_problems(&translation);
        assert_eq!(route(&translation, "x.test", path), "service/default/web/80", "{path}");
        assert_eq!(
            route(&translation, "x.test", &format!("{path}/more")),
            "service/default/web/80"
        );
        assert_eq!(route(&translation, "x.test", "/y"), "404", "{path}");
    }
}

#[test]
fn an_enormous_ingress_is_cut_and_said_to_be() {
    let paths: Vec<String> = (0..3000)
        .map(|n| format!("{{path: /{n}, pathType: Exact, backend: {}}}", backend("web")))
        .collect();
    let hosts: Vec<String> = (0..3000).map(|n| format!("h{n}.test")).collect();
    let spec = format!(
        "rules: [{{host: x.test, http: {{paths: [{}]}}}}], tls: [{{secretName: cert, hosts: [{}]}}]",
        paths.join(", "),
        hosts.join(", ")
    );
    let manifests = service("web") + &secret("cert", "good") + &ingress("a", 1, "", &spec);
    let translation = translate(&manifests);
    assert_eq!(route(&translation, "x.test", "/1999"), "service/default/web/80");
    assert_eq!(route(&translation, "x.test", "/2000"), "404");
    has_problem(
        &translation,
        "Ingress default/a",
        "UnusableField",
        "spec.rules has 3000 paths, expected at most 2000; the last 1000 are not served",
    );
    has_problem(&translation, "Ingress default/a", "UnusableField", "beyond 2000 hosts");
    assert_eq!(translation.certificates[0].hosts.len(), 2000);
}

#[test]
fn long_values_are_shortened_in_messages() {
    let long = "y".repeat(3000);
    let manifests = ingress("a", 1, "", &one_path(&long, "Prefix", "/", "web"));
    let translation = translate(&manifests);
    has_problem(&translation, "Ingress default/a", "InvalidHost", "…");
    assert!(problems(&translation).len() < 400);
}

#[test]
fn slices_and_services_with_flaws_are_reported_on_themselves() {
    let manifests = service_with("web", "ports: [{name: http, port: 80}, {name: x, port: 70000}]")
        + &slice("web", "http", 8080, &[("10.0.0.1", ""), ("pod.example", "")])
        + &ingress("a", 1, "", &one_path("", "Prefix", "/", "web"));
    let translation = translate(&manifests);
    assert_eq!(addresses(&translation, "service/default/web/80"), ["10.0.0.1:8080"]);
    has_problem(
        &translation,
        "Service default/web",
        "UnusableField",
        "spec.ports[1].port is 70000",
    );
    has_problem(
        &translation,
        "EndpointSlice default/web-http-IPv4",
        "UnusableEndpoint",
        "endpoints[1].addresses[0] is \"pod.example\", expected an IP address; it is not served",
    );
}

#[test]
fn garbled_manifests_end_in_words() {
    let whole = service("web")
        + &secret("cert", "good")
        + &ingress(
            "a",
            1,
            "cloverleaf/max-request-body: 10m, nanoproxy/backend-protocol: https",
            &(one_path("x.test", "Prefix", "/a", "web")
                + ", tls: [{hosts: [x.test], secretName: cert}]"),
        );
    let mut seed = 1_u32;
    let mut below = |bound: usize| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        usize::try_from(seed >> 8).unwrap() % bound
    };
    let bits = [
        "0", "-1", "\"", "{", "}", "[", "]", ": ", ", ", "null", "é", "\u{0}", "\n", "- ", "&a ",
        "*a", "99999",
    ];
    for _ in 0..3_000 {
        let mut text = whole.clone();
        for _ in 0..=below(4) {
            let from = below(text.len());
            let to = (from + below(12)).min(text.len());
            if text.is_char_boundary(from) && text.is_char_boundary(to) {
                text.replace_range(from..to, bits[below(bits.len())]);
            }
        }
        let names = cloverleaf_kubernetes::objects::AnnotationNames::default();
        let reading = Reading { routable: &|_| true, names: &names, secret: None };
        let (store, _) = read_manifests([("class", CLASS), ("garbled", &*text)], reading);
        sound(&Translator::new(options()).translate(&store, Changed::everything()));
    }
}
