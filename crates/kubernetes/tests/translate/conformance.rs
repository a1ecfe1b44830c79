//! The 25 scenarios of the Ingress conformance suite, as far as routes decide them. Methods and headers are
//! the data plane's.

use crate::world::*;

/// Host and path of a request, and what it gets.
type Cases<'c> = &'c [(&'c str, &'c str, &'c str)];

#[track_caller]
fn all(manifests: &str, cases: Cases<'_>) {
    let translation = translate(manifests);
    no_problems(&translation);
    for (host, path, wanted) in cases {
        assert_eq!(route(&translation, host, path), *wanted, "{host:?} {path}");
    }
}

fn services(names: &[&str]) -> String {
    names.iter().map(|name| service(name)).collect()
}

#[test]
fn default_backend_serves_every_host_and_path() {
    let manifests = services(&["web"])
        + &ingress("a", 1, "", "defaultBackend: {service: {name: web, port: {name: http}}}");
    all(
        &manifests,
        &[
            ("", "/", "service/default/web/80"),
            ("my-host", "/", "service/default/web/80"),
            ("my-host", "/sub-path", "service/default/web/80"),
            ("some-host", "/resources/1", "service/default/web/80"),
            ("other-host", "/resources/1?x", "service/default/web/80"),
            ("10.0.0.1", "/x/y/z", "service/default/web/80"),
        ],
    );
}

#[test]
fn host_rules() {
    let rules = format!(
        "rules: [{}, {}], tls: [{{hosts: [foo.bar.com], secretName: cert}}]",
        one_rule("*.foo.com", "Prefix", "/", "wildcard-foo-com:80"),
        one_rule("foo.bar.com", "Prefix", "/", "foo-bar-com:http")
    );
    let manifests = services(&["wildcard-foo-com", "foo-bar-com"])
        + &secret("cert", "good")
        + &ingress("a", 1, "", &rules);
    all(
        &manifests,
        &[
            ("foo.bar.com", "/", "service/default/foo-bar-com/80"),
            ("subdomain.bar.com", "/", "404"),
            ("bar.foo.com", "/", "service/default/wildcard-foo-com/80"),
            ("baz.bar.foo.com", "/", "404"),
            ("foo.com", "/", "404"),
        ],
    );
    let translation = translate(&manifests);
    let certificate = &translation.certificates[0];
    assert_eq!(certificate.hosts[0].to_string(), "foo.bar.com");
    assert_eq!(translation.certificates.len(), 1);
}

#[test]
fn an_ingress_of_an_unknown_class_is_not_ours() {
    let manifests = services(&["web"])
        + &ingress("a", 1, "", &one_path("", "Prefix", "/", "web"))
            .replace("ingressClassName: cloverleaf", "ingressClassName: some-invalid-class-name");
    all(&manifests, &[("", "/", "404")]);
    assert!(translate(&manifests).ours.is_empty());
}

#[test]
fn all_ten_endpoints_are_reached() {
    let pods: Vec<String> = (1..=10).map(|n| format!("10.1.0.{n}")).collect();
    let endpoints: Vec<(&str, &str)> = pods.iter().map(|pod| (&**pod, "ready: true")).collect();
    let manifests = service_with("echo", "ports: [{port: 8080}]")
        + &slice("echo", "", 3000, &endpoints)
        + &ingress("a", 1, "", &one_path("", "Prefix", "/", "echo:8080"));
    let translation = translate(&manifests);
    let wanted: Vec<String> = pods.iter().map(|pod| format!("{pod}:3000")).collect();
    let mut found = addresses(&translation, "service/default/echo/8080");
    found
        .sort_by_key(|address| pods.iter().position(|pod| address.starts_with(&format!("{pod}:"))));
    assert_eq!(found, wanted);
}

#[test]
fn path_rules() {
    let rules = [
        ("exact", "Exact", "/foo", "foo-exact"),
        ("prefix", "Prefix", "/foo", "foo-prefix"),
        ("prefix", "Prefix", "/aaa/bbb", "aaa-slash-bbb-prefix"),
        ("prefix", "Prefix", "/aaa", "aaa-prefix"),
        ("mixed", "Prefix", "/foo", "foo-prefix"),
        ("mixed", "Exact", "/foo", "foo-exact"),
        ("slash", "Prefix", "/aaa/bbb/", "aaa-slash-bbb-slash-prefix"),
        ("slash", "Exact", "/foo/", "foo-slash-exact"),
    ];
    let list: Vec<String> = rules
        .iter()
        .map(|(host, path_type, path, service)| {
            one_rule(&format!("{host}-path-rules"), path_type, path, service)
        })
        .collect();
    let manifests = services(&[
        "foo-exact",
        "foo-prefix",
        "aaa-slash-bbb-prefix",
        "aaa-prefix",
        "aaa-slash-bbb-slash-prefix",
        "foo-slash-exact",
    ]) + &ingress("a", 1, "", &format!("rules: [{}]", list.join(", ")));
    all(
        &manifests,
        &[
            ("exact-path-rules", "/foo", "service/default/foo-exact/80"),
            ("exact-path-rules", "/foo/", "404"),
            ("exact-path-rules", "/FOO", "404"),
            ("exact-path-rules", "/bar", "404"),
            ("prefix-path-rules", "/foo", "service/default/foo-prefix/80"),
            ("prefix-path-rules", "/foo/", "service/default/foo-prefix/80"),
            ("prefix-path-rules", "/FOO", "404"),
            ("prefix-path-rules", "/aaa/bbb", "service/default/aaa-slash-bbb-prefix/80"),
            ("prefix-path-rules", "/aaa/bbb/ccc", "service/default/aaa-slash-bbb-prefix/80"),
            ("prefix-path-rules", "/aaa", "service/default/aaa-prefix/80"),
            ("prefix-path-rules", "/aaa/ccc", "service/default/aaa-prefix/80"),
            ("prefix-path-rules", "/aaaccc", "404"),
            ("mixed-path-rules", "/foo", "service/default/foo-exact/80"),
            ("mixed-path-rules", "/foo/", "service/default/foo-prefix/80"),
            ("slash-path-rules", "/aaa/bbb", "service/default/aaa-slash-bbb-slash-prefix/80"),
            ("slash-path-rules", "/aaa/bbb/", "service/default/aaa-slash-bbb-slash-prefix/80"),
            ("slash-path-rules", "/foo", "404"),
            ("slash-path-rules", "/foo/", "service/default/foo-slash-exact/80"),
        ],
    );
}
