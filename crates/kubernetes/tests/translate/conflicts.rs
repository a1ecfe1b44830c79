//! Who wins what two Ingresses claim, classes, and default backends.

use crate::world::*;

#[test]
fn the_oldest_wins_a_host_and_path_and_the_other_hears_of_it() {
    let manifests = service("old/web")
        + &service("new/web")
        + &ingress("new/b", 2, "", &one_path("x.test", "Prefix", "/a/", "web"))
        + &ingress("old/a", 1, "", &one_path("X.test", "ImplementationSpecific", "/a", "web"));
    let translation = translate(&manifests);
    assert_eq!(route(&translation, "x.test", "/a/b"), "service/old/web/80");
    has_problem(
        &translation,
        "Ingress new/b",
        "PathTaken",
        "spec.rules[0].http.paths[0].path is \"/a/\" for host \"x.test\", which is served by Ingress old/a, \
         which is older; this one is not",
    );
    assert_eq!(translation.problems.len(), 1);
    assert_eq!(translation.ours.len(), 2, "the loser is still ours");
}

#[test]
fn of_the_same_age_the_name_decides() {
    let one = |name: &str| {
        service(&format!("{name}/web"))
            + &ingress(&format!("{name}/x"), 1, "", &one_path("x.test", "Exact", "/", "web"))
    };
    let there = translate(&(one("a") + &one("b")));
    let back = translate(&(one("b") + &one("a")));
    assert_eq!(route(&there, "x.test", "/"), "service/a/web/80");
    assert_eq!(there, back);
}

#[test]
fn exact_and_prefix_of_one_path_are_no_conflict_but_a_path_twice_is() {
    let list = [
        one_rule("x.test", "Exact", "/a", "web"),
        one_rule("x.test", "Prefix", "/a", "web"),
        one_rule("x.test", "Prefix", "/a/", "web"),
    ];
    let manifests = service("web") + &ingress("a", 1, "", &format!("rules: [{}]", list.join(", ")));
    let translation = translate(&manifests);
    assert_eq!(translation.rules.rules.len(), 2);
    has_problem(
        &translation,
        "Ingress default/a",
        "DuplicatePath",
        "spec.rules[2].http.paths[0].path",
    );
}

#[test]
fn two_hundred_conflicting_ingresses_touch_nobody_else() {
    let mut manifests =
        service("web") + &ingress("fine", 9, "", &one_path("fine.test", "Prefix", "/", "web"));
    for n in 0..200 {
        let spec = one_path("x.test", "Prefix", "/", "web")
            + ", tls: [{hosts: [x.test], secretName: cert}]";
        manifests += &service(&format!("team-{n:03}/web"));
        manifests += &secret(&format!("team-{n:03}/cert"), "good");
        manifests += &ingress(&format!("team-{n:03}/x"), 5, "", &spec);
    }
    let translation = translate(&manifests);
    assert_eq!(route(&translation, "x.test", "/"), "service/team-000/web/80");
    assert_eq!(route(&translation, "fine.test", "/"), "service/default/web/80");
    assert_eq!(translation.rules.rules.len(), 2);
    assert_eq!(translation.certificates.len(), 1);
    let said = problems(&translation);
    assert_eq!(translation.problems.len(), 2 * 199);
    assert_eq!(said.matches("Ingress team-000/x, which is older").count(), 2 * 199);
    assert!(said.len() < 200 * 1024);
}

#[test]
fn one_ingress_has_a_bounded_number_of_problems() {
    let rules: Vec<String> =
        (0..500).map(|n| one_rule("x.test", "Prefix", "relative", &format!("s{n}"))).collect();
    let manifests = ingress("a", 1, "", &format!("rules: [{}]", rules.join(", ")));
    let translation = translate(&manifests);
    assert_eq!(translation.problems.len(), 11);
    has_problem(&translation, "Ingress default/a", "MoreProblems", "and 490 more");
}

#[test]
fn classes() {
    let class = |name: &str, controller: &str, default: bool, day: u32| {
        format!(
            "---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata:
  name: {name}
  creationTimestamp: 2026-01-{day:02}T00:00:00Z
  annotations: {{ingressclass.kubernetes.io/is-default-class: '{default}'}}
spec: {{controller: {controller}}}
"
        )
    };
    let ingress_of = |class: &str| {
        ingress("a", 1, "", &one_path("", "Prefix", "/", "web"))
            .replace("ingressClassName: cloverleaf, ", class)
    };
    let legacy = ingress("a", 1, "kubernetes.io/ingress.class: cloverleaf", "x: y")
        .replace("ingressClassName: cloverleaf, x: y", &one_path("", "Prefix", "/", "web"));
    let nano = "benc-uk/nanoproxy";
    let ours = |default, day| class("ours", "cloverleaf/gateway", default, day);
    let other = |default, day| class("other", "k8s.io/ingress-nginx", default, day);
    let cases = [
        ("named", String::new(), ingress_of("ingressClassName: cloverleaf, "), true),
        ("the seed's", class("nano", nano, false, 1), ingress_of("ingressClassName: nano, "), true),
        ("another's", other(false, 1), ingress_of("ingressClassName: other, "), false),
        ("no such class", String::new(), ingress_of("ingressClassName: none, "), false),
        ("legacy annotation", String::new(), legacy.clone(), true),
        (
            "legacy annotation of another",
            other(false, 1),
            legacy.replace(": cloverleaf", ": other"),
            false,
        ),
        ("none, no default", ours(false, 1), ingress_of(""), false),
        ("none, our default", ours(true, 1), ingress_of(""), true),
        ("none, another's default", other(true, 1), ingress_of(""), false),
        ("none, ours the newest default", ours(true, 2) + &other(true, 1), ingress_of(""), true),
        (
            "none, another's the newest default",
            ours(true, 1) + &other(true, 2),
            ingress_of(""),
            false,
        ),
    ];
    for (case, classes, ingress, ours) in cases {
        let translation = translate(&(service("web") + &classes + &ingress));
        assert_eq!(translation.ours.len(), usize::from(ours), "{case}");
        assert_eq!(route(&translation, "", "/") != "404", ours, "{case}");
    }
    let translation = translate(&(ours(true, 1) + &other(true, 2)));
    has_problem(
        &translation,
        "IngressClass ours",
        "SeveralDefaultClasses",
        "on 2 classes, expected one",
    );
}

fn default_backend(service: &str) -> String {
    format!("defaultBackend: {}", backend(service))
}

#[test]
fn a_default_backend_stands_behind_all_rules() {
    let spec = format!(
        "{}, rules: [{}, {{host: bare.test}}]",
        default_backend("fallback"),
        one_rule("x.test", "Prefix", "/a", "web")
    );
    let manifests = service("web")
        + &service("fallback")
        + &ingress("a", 1, "cloverleaf/strip-path: 'true'", &spec)
        + &ingress("b", 2, "", &one_path("", "Prefix", "/any", "web"));
    let translation = translate(&manifests);
    no_problems(&translation);
    for (host, path, wanted) in [
        ("x.test", "/a/b", "web"),
        ("x.test", "/b", "fallback"),
        ("bare.test", "/", "fallback"),
        ("y.test", "/any", "web"),
        ("x.test", "/any", "web"),
        ("bare.test", "/any/x", "web"),
        ("y.test", "/", "fallback"),
        ("", "/", "fallback"),
    ] {
        let wanted = format!("service/default/{wanted}/80");
        assert_eq!(route(&translation, host, path), wanted, "{host:?} {path}");
    }
    assert_eq!(rule(&translation, "", "/").expect("a rule").rewrite, model::PathRewrite::Keep);
}

#[test]
fn of_two_default_backends_the_oldest_has_all_hosts_and_each_its_own() {
    let manifests = service("old")
        + &service("new")
        + &service("late")
        + &ingress("b", 2, "", &format!("{}, rules: [{{host: new.test}}]", default_backend("new")))
        + &ingress("a", 1, "", &default_backend("old"))
        + &ingress("c", 3, "", &default_backend("late"));
    let translation = translate(&manifests);
    assert_eq!(route(&translation, "x.test", "/"), "service/default/old/80");
    assert_eq!(route(&translation, "new.test", "/"), "service/default/new/80");
    has_problem(
        &translation,
        "Ingress default/c",
        "DefaultBackendTaken",
        "Ingress default/a, which is older",
    );
    assert_eq!(translation.problems.len(), 1);
}

#[test]
fn a_host_without_paths_and_default_is_reported() {
    let translation = translate(&ingress("a", 1, "", "rules: [{host: bare.test}]"));
    has_problem(
        &translation,
        "Ingress default/a",
        "HostWithoutPaths",
        "\"bare.test\" without paths",
    );
    assert_eq!(route(&translation, "bare.test", "/"), "404");
}
