//! Annotations: NanoProxy's, ours, both at once, and what they make of upstreams and rules.

use std::time::Duration;

use model::{Action, Algorithm, PathRewrite, Probe, Scheme, Verification};

use crate::world::*;

const WEB: &str = "service/default/web/80";

fn with(annotations: &str) -> model::Rule {
    let translation = translate(&manifests(annotations));
    no_problems(&translation);
    rule(&translation, "", "/api/x").cloned().expect("a rule")
}

fn manifests(annotations: &str) -> String {
    service("web") + &ingress("a", 1, annotations, &one_path("", "Prefix", "/api", "web"))
}

fn upstream_with(annotations: &str) -> model::Upstream {
    let translation = translate(&(manifests(annotations) + &secret("ca", "good")));
    no_problems(&translation);
    (*translation.upstreams[0]).clone()
}

#[test]
fn strip_path() {
    assert_eq!(with("").rewrite, PathRewrite::Keep);
    for name in ["nanoproxy/strip-path", "cloverleaf/strip-path"] {
        assert_eq!(with(&format!("{name}: 'true'")).rewrite, PathRewrite::StripMatch);
        assert_eq!(with(&format!("{name}: 'false'")).rewrite, PathRewrite::Keep);
    }
}

#[test]
fn https_redirect() {
    let annotations = "cloverleaf/https-redirect: 'true', cloverleaf/strip-path: 'true'";
    let other = service("shop") + &ingress("b", 2, "", &one_path("", "Prefix", "/shop", "shop"));
    let translation = translate(&(manifests(annotations) + &other));
    no_problems(&translation);
    let plain = rule(&translation, "", "/api/x").expect("a rule");
    let Action::Redirect(to) = &plain.action else { panic!("{plain:?}") };
    assert_eq!((to.status, to.scheme, &to.host, to.port), (308, Some(Scheme::Https), &None, None));
    assert_eq!(plain.rewrite, PathRewrite::Keep);
    let of_api = |rule: &&model::Rule| rule.name == plain.name;
    let tls = translation.tls_rules.rules.iter().find(of_api).expect("the same over TLS");
    assert!(matches!(tls.action, Action::Forward(_)) && tls.rewrite == PathRewrite::StripMatch);
    // Nobody else's is touched.
    let shop = |set: &model::RuleSet| {
        let is_shop = |rule: &&model::Rule| rule.name.contains("default/b/");
        set.rules.iter().find(is_shop).cloned().expect("a rule")
    };
    assert_eq!(shop(&translation.rules), shop(&translation.tls_rules));
    let off = translate(&manifests("cloverleaf/https-redirect: 'false'"));
    assert!(std::sync::Arc::ptr_eq(&off.rules, &off.tls_rules));
}

#[test]
fn backend_protocol() {
    assert!(upstream_with("").tls.is_none());
    for name in ["nanoproxy/backend-protocol", "cloverleaf/backend-protocol"] {
        let upstream = upstream_with(&format!("{name}: https"));
        let tls = upstream.tls.expect("TLS");
        assert_eq!(tls.verification, Verification::System);
        assert_eq!(tls.server_name.as_ref().map(|n| n.as_str()), Some("web.default.svc"));
        assert_eq!(&*upstream.name, "service/default/web/80+https");
        assert_eq!(upstream.endpoints.len(), 1, "its endpoints are those of the Service");
        assert!(upstream_with(&format!("{name}: http")).tls.is_none());
    }
}

#[test]
fn what_is_verified_of_a_backend() {
    let https = "cloverleaf/backend-protocol: https";
    let off = upstream_with(&format!("{https}, cloverleaf/backend-tls-verify: 'off'"));
    assert_eq!(off.tls.expect("TLS").verification, Verification::Skip);
    let own = upstream_with(&format!("{https}, cloverleaf/backend-ca: ca"));
    assert!(matches!(own.tls.expect("TLS").verification, Verification::Authorities(_)));
    let named = upstream_with(&format!("{https}, cloverleaf/backend-server-name: Backend.test"));
    let name = named.tls.expect("TLS").server_name.clone().expect("a name");
    assert_eq!(name.as_str(), "backend.test");
    // An authority that is not there is no reason to trust everybody.
    let missing = translate(&manifests(&format!("{https}, cloverleaf/backend-ca: none")));
    assert_eq!(route(&missing, "", "/api"), "503 service/default/web/80");
    has_problem(
        &missing,
        "Ingress default/a",
        "MissingAuthorities",
        "is \"none\", expected a Secret",
    );
}

#[test]
fn the_rest() {
    assert_eq!(with("cloverleaf/max-request-body: 10m").request_body_max, Some(10 << 20));
    let rule = with("cloverleaf/response-timeout: 90s");
    assert_eq!(rule.response_timeout, Some(Duration::from_secs(90)));
    let balance = |word: &str| upstream_with(&format!("cloverleaf/balance: {word}")).algorithm;
    assert_eq!(balance("least-requests"), Algorithm::LeastRequests);
    assert_eq!(balance("client-address"), Algorithm::ClientAddress);
    assert_eq!(balance("round-robin"), Algorithm::RoundRobin);
    let check = upstream_with("cloverleaf/health-check-path: '/healthz?x=1'").health_check;
    let probe = check.expect("a health check").probe;
    assert!(matches!(probe, Probe::Http { path, tls: false, .. } if &*path == "/healthz?x=1"));
}

#[test]
fn ours_go_before_the_seeds_and_conflicts_are_reported() {
    let translation =
        translate(&manifests("nanoproxy/strip-path: 'true', cloverleaf/strip-path: 'false'"));
    assert_eq!(rule(&translation, "", "/api").expect("a rule").rewrite, PathRewrite::Keep);
    has_problem(
        &translation,
        "Ingress default/a",
        "ConflictingAnnotations",
        "metadata.annotations[\"nanoproxy/strip-path\"] is \"true\" but \
         \"cloverleaf/strip-path\" is \"false\"; the latter is used",
    );
    no_problems(&translate(&manifests(
        "nanoproxy/strip-path: 'true', cloverleaf/strip-path: 'true'",
    )));
}

#[test]
fn what_is_no_value_is_reported_and_changes_nothing() {
    let bad = [
        ("nanoproxy/backend-protocol: grpc", "is \"grpc\", expected http or https; it is ignored"),
        ("nanoproxy/strip-path: 'yes'", "is \"yes\", expected true or false"),
        ("cloverleaf/balance: random", "expected round-robin, least-requests or client-address"),
        ("cloverleaf/max-request-body: much", "expected bytes such as"),
        ("cloverleaf/response-timeout: soon", "expected a time from 1ms to 24h"),
        ("cloverleaf/backend-tls-verify: 'no'", "expected on or off"),
        ("cloverleaf/backend-ca: other/ca", "expected the name of a Secret"),
        ("cloverleaf/health-check-path: x", "expected a path that begins with a slash"),
    ];
    let plain = translate(&manifests(""));
    for (annotation, says) in bad {
        let translation = translate(&manifests(annotation));
        has_problem(&translation, "Ingress default/a", "InvalidAnnotation", says);
        assert_eq!(translation.rules, plain.rules, "{annotation}");
        assert_eq!(translation.upstreams, plain.upstreams, "{annotation}");
    }
    for unknown in ["cloverleaf/strip-paths: 'true'", "nanoproxy/balance: round-robin"] {
        let translation = translate(&manifests(unknown));
        has_problem(&translation, "Ingress default/a", "UnknownAnnotation", "is not known here");
        assert_eq!(translation.rules, plain.rules, "{unknown}");
    }
    no_problems(&translate(&manifests("nginx.ingress.kubernetes.io/rewrite-target: /")));
    let long = format!("cloverleaf/balance: '{}'", "x".repeat(5000));
    has_problem(
        &translate(&manifests(&long)),
        "Ingress default/a",
        "UnusableField",
        "has 5000 bytes",
    );
}

#[test]
fn two_ways_to_speak_to_one_service_are_two_upstreams() {
    let manifests = service("web")
        + &ingress(
            "a",
            1,
            "nanoproxy/backend-protocol: https",
            &one_path("a.test", "Prefix", "/", "web"),
        )
        + &ingress("b", 2, "", &one_path("b.test", "Prefix", "/", "web"))
        + &ingress(
            "c",
            3,
            "cloverleaf/strip-path: 'true'",
            &one_path("c.test", "Prefix", "/", "web"),
        );
    let translation = translate(&manifests);
    assert_eq!(route(&translation, "a.test", "/"), "service/default/web/80+https");
    assert_eq!(route(&translation, "b.test", "/"), WEB);
    assert_eq!(route(&translation, "c.test", "/"), WEB);
    assert_eq!(
        addresses(&translation, WEB),
        addresses(&translation, "service/default/web/80+https")
    );
}

#[test]
fn names_that_are_cut_stay_unique() {
    let path = |end: &str| format!("cloverleaf/health-check-path: '/{}{end}'", "x".repeat(60));
    let manifests = service("web")
        + &ingress("a", 1, &path("a"), &one_path("a.test", "Prefix", "/", "web"))
        + &ingress("b", 2, &path("b"), &one_path("b.test", "Prefix", "/", "web"));
    let translation = translate(&manifests);
    assert_eq!(translation.upstreams.len(), 2);
    assert!(route(&translation, "b.test", "/").ends_with("~2"));
}
