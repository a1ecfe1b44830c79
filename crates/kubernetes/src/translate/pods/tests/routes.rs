//! What the document promises, rule by rule, and the options that change it.

use model::{HealthCheck, HostHeader, Probe};

use super::*;
use crate::translate::pods::DefaultReturn;

#[test]
fn nothing_is_served_but_the_status_path() {
    let translation = translate([]);
    for rules in [&translation.rules, &translation.tls_rules] {
        assert_eq!(answer(&translation, rules, "any.test", "/"), "fallback * = close");
        let status = answer(&translation, rules, "any.test", "/dispatcher/status");
        assert_eq!(status, "/dispatcher/status = 200");
    }
    assert!(Arc::ptr_eq(&translation.rules, &translation.tls_rules));
    assert!(translation.problems.is_empty() && translation.upstreams.is_empty());
}

#[test]
fn every_path_is_served_on_every_host() {
    let paths = r#"[{"basePath": "/", "containerPort": "80"},
        {"basePath": "/nodejs", "containerPort": "3000"}]"#;
    let translation = translate([
        namespace("team", 1, r#"{"host1": {}, "host2": {}}"#),
        pod("team", "web", 1, paths).into(),
    ]);
    assert_eq!(
        shown(&translation),
        [
            "http host1/* -> 10.0.0.1:80",
            "http host1/nodejs* -> 10.0.0.1:3000",
            "http host2/* -> 10.0.0.1:80",
            "http host2/nodejs* -> 10.0.0.1:3000",
        ]
    );
    let names: Vec<_> = translation.upstreams.iter().map(|u| &*u.name).collect();
    assert_eq!(names, ["pods/team/", "pods/team/nodejs"]);
    assert_eq!(translation.upstreams[0].host_header, HostHeader::Preserve);
}

/// The observed cases D01 to D27 of the original, as far as a rule decides them.
#[test]
fn requests_find_their_rule_as_under_nginx() {
    let paths = r#"[{"basePath": "/app", "containerPort": "3000"},
        {"basePath": "/app/v2", "containerPort": "80"},
        {"basePath": "/tp", "containerPort": "80", "targetPath": "/bar"},
        {"basePath": "/tproot", "containerPort": "80", "targetPath": "/"},
        {"basePath": "/slash/", "containerPort": "80"},
        {"basePath": "/both", "containerPort": "80"}, {"basePath": "/both/", "containerPort": "3000"},
        {"basePath": "/100%25%3F/", "containerPort": "80"}]"#;
    let translation =
        translate([namespace("team", 1, r#"{"a.test": {}}"#), pod("team", "web", 1, paths).into()]);
    for (host, path, expected) in [
        ("other.test", "/app", "fallback * = close"),
        ("other.test", "/dispatcher/status", "/dispatcher/status = 200"),
        ("a.test", "/dispatcher/status", "a.test* = 404"),
        ("a.test", "/", "a.test* = 404"),
        ("a.test", "/app", "a.test/app* -> 10.0.0.1:3000"),
        ("a.test", "/apple", "a.test/app* -> 10.0.0.1:3000"),
        ("a.test", "/app/v1", "a.test/app* -> 10.0.0.1:3000"),
        ("a.test", "/app/v2/x", "a.test/app/v2* -> 10.0.0.1:80"),
        ("a.test", "/App", "a.test* = 404"),
        ("a.test", "/tp/1", "a.test/tp* -> 10.0.0.1:80 => /bar"),
        ("a.test", "/tproot/1", "a.test/tproot* -> 10.0.0.1:80 => /"),
        ("a.test", "/slash/x", "a.test/slash/* -> 10.0.0.1:80"),
        ("a.test", "/slash", "a.test/slash = 301 => /slash/"),
        ("a.test", "/slashes", "a.test* = 404"),
        ("a.test", "/both", "a.test/both* -> 10.0.0.1:80"),
        ("a.test", "/both/x", "a.test/both/* -> 10.0.0.1:3000"),
        ("a.test", "/100%?", "a.test/100%? = 301 => /100%25?/"),
    ] {
        let found = answer(&translation, &translation.rules, host, path);
        assert_eq!(found, expected, "{host}{path}");
    }
    // On the TLS port, hosts without TLS are hosts that nobody knows.
    let found = answer(&translation, &translation.tls_rules, "a.test", "/app");
    assert_eq!(found, "fallback * = close");
}

#[test]
fn weights_are_the_endpoints() {
    let weighted =
        |weight: &str| format!(r#"[{{"basePath": "/", "containerPort": "3000"{weight}}}]"#);
    let translation = translate([
        namespace("team", 1, r#"{"a.test": {}}"#),
        pod("team", "one", 1, &weighted(r#", "weight": 2"#)).into(),
        pod("team", "two", 2, &weighted(r#", "weight": 5"#)).into(),
        pod("team", "three", 3, &weighted("")).into(),
    ]);
    let expected = ["http a.test/* -> 10.0.0.1:3000x2 10.0.0.2:3000x5 10.0.0.3:3000"];
    assert_eq!(shown(&translation), expected);
}

#[test]
fn the_api_key_is_the_secret_in_base64() {
    let options = PodOptions {
        api_key_field: "public-api-key".into(),
        api_key_header: "x-key".into(),
        ..PodOptions::default()
    };
    let objects = || {
        [
            namespace("locked", 1, r#"{"a.test": {}}"#),
            namespace("open", 2, r#"{"a.test": {}}"#),
            secret("locked", &[("api-key", "supersecret"), ("public-api-key", "\u{0}\n")]),
            secret("elsewhere", &[("api-key", "x")]),
            pod("locked", "web", 1, &path("/locked")).into(),
            pod("open", "web", 2, &path("/open")).into(),
        ]
    };
    assert_eq!(
        shown(&translate(objects())),
        [
            "http a.test* = 404",
            "http a.test/locked* -> 10.0.0.1:3000 if x-routing-api-key: c3VwZXJzZWNyZXQ=",
            "http a.test/open* -> 10.0.0.2:3000",
        ]
    );
    let with = shown(&translate_with(options, objects()));
    assert_eq!(with[1], "http a.test/locked* -> 10.0.0.1:3000 if x-key: AAo=");
}

#[test]
fn unclaimed_paths_give_what_the_operator_says() {
    let objects =
        || [namespace("team", 1, r#"{"a.test": {}}"#), pod("team", "web", 1, &path("/x")).into()];
    let target = || model::Target::Address(([10, 9, 9, 9], 80).into());
    let forward = |tls, path: Option<&str>| DefaultReturn::Forward {
        tls,
        target: target(),
        path: path.map(Into::into),
    };
    for (default_return, expected) in [
        (DefaultReturn::Status(200), "http a.test* = 200"),
        (DefaultReturn::Close, "http a.test* = close"),
        (forward(false, None), "http a.test* -> 10.9.9.9:80 max 7"),
        (forward(true, Some("/e")), "http a.test* -> 10.9.9.9:80 => /e max 7"),
    ] {
        let tls = matches!(default_return, DefaultReturn::Forward { tls: true, .. });
        let options =
            PodOptions { default_return, request_body_max: Some(7), ..PodOptions::default() };
        let translation = translate_with(options, objects());
        let lines = shown(&translation);
        assert_eq!(lines, [expected, "http a.test/x* -> 10.0.0.1:3000 max 7"]);
        assert_eq!(translation.upstreams.iter().any(|u| u.tls.is_some()), tls);
    }
}

#[test]
fn the_status_path_is_the_operator_s() {
    let options = PodOptions { status_path: "/alive".to_owned(), ..PodOptions::default() };
    let translation = translate_with(options, []);
    let found = answer(&translation, &translation.rules, "", "/alive");
    assert_eq!(found, "/alive = 200");
}

#[test]
fn hosts_with_tls_are_served_on_tls_alone() {
    let hosts = tls_host("secure.test", true);
    let translation = translate([
        namespace("plain", 1, r#"{"plain.test": {}}"#),
        namespace("team", 2, &hosts),
        secret("team", &[("crt", CRT), ("key", KEY), ("ca", CRT)]),
        pod("team", "web", 1, &path("/")).into(),
        pod("plain", "web", 2, &path("/x")).into(),
    ]);
    assert_eq!(
        shown(&translation),
        [
            "http plain.test* = 404",
            "http plain.test/x* -> 10.0.0.2:3000",
            "https secure.test/* -> 10.0.0.1:3000",
        ]
    );
    assert_eq!(certificates(&translation), ["secure.test: client"]);
    let verification = translation.certificates[0].client_verification.as_ref().unwrap();
    assert!(!verification.optional);
    assert_eq!(verification.authorities, PemSource::Inline(CRT.as_bytes().into()));
}

#[test]
fn the_default_certificate_is_the_operator_s() {
    let options = PodOptions::from_environment(|name| match name {
        "SSL_CERT" => Some("/tls/crt".to_owned()),
        "SSL_KEY" => Some("/tls/key".to_owned()),
        _ => None,
    });
    let translation = translate_with(options.unwrap(), []);
    let certificate = translation.default_certificate.unwrap();
    assert_eq!(certificate.chain, PemSource::File("/tls/crt".into()));
    assert!(certificate.hosts.is_empty());
}

fn probed(mut pod: Pod, path: &str) -> Object {
    let ask = ContainerAsk::Http {
        path: path.into(),
        port: PortRef::Name("app".into()),
        tls: false,
        host: None,
    };
    let probe = ContainerProbe { ask, period_s: 10, timeout_s: 5, rise: 2, fall: 3 };
    pod.containers[0].probe = Some(probe);
    pod.into()
}

#[test]
fn probes_are_health_checks_if_asked_for() {
    let checked = || {
        [
            namespace("team", 1, r#"{"a.test": {}}"#),
            probed(pod("team", "one", 1, &path("/")), "/status"),
            probed(pod("team", "two", 2, &path("/")), "/status"),
        ]
    };
    let options = PodOptions { health_checks: true, ..PodOptions::default() };
    let translation = translate_with(options.clone(), checked());
    let Some(HealthCheck { probe, port: None, rise: 2, fall: 3, .. }) =
        &translation.upstreams[0].health_check
    else {
        panic!("{:?}", translation.upstreams)
    };
    assert!(matches!(probe, Probe::Http { statuses: (200, 299), .. }));
    assert!(translation.problems.is_empty());
    assert!(translate(checked()).upstreams[0].health_check.is_none());

    // While a new revision with another probe rolls out, neither probe is asked.
    let rolling =
        checked().into_iter().chain([probed(pod("team", "three", 3, &path("/")), "/new")]);
    let translation = translate_with(options, rolling);
    assert!(translation.upstreams[0].health_check.is_none());
    assert_eq!(translation.upstreams[0].endpoints.len(), 3);
    assert_eq!(problems(&translation), ["Pod team/three: ProbeDiffers"]);
}

/// Rules and upstreams must not depend on the order in which objects came, nor rules on who serves them.
#[test]
fn the_same_objects_give_the_same_whatever_their_order() {
    let objects = || -> Vec<Object> {
        let mut objects = Vec::new();
        for tenant in 0..6u8 {
            let name = format!("team{tenant}");
            let hosts = r#"{"shared.test": {}, "other.test": {}}"#;
            objects.push(namespace(&name, i64::from(tenant / 2), hosts));
            for index in 0..4 {
                let paths = path(if index % 2 == 0 { "/same" } else { "/else" });
                objects.push(
                    pod(&name, &format!("web{index}"), tenant * 4 + index / 2, &paths).into(),
                );
            }
        }
        objects
    };
    let expected = translate(objects());
    assert!(!expected.problems.is_empty());
    let mut seed = 7u64;
    for _ in 0..50 {
        let mut shuffled = objects();
        for index in (1..shuffled.len()).rev() {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let other = usize::try_from(seed >> 33).unwrap() % (index + 1);
            shuffled.swap(index, other);
        }
        assert_eq!(translate(shuffled), expected);
    }
}

#[test]
fn pods_that_come_and_go_leave_the_rules_alone() {
    let options = Options { pods: Some(PodOptions::default()), ..Options::default() };
    let mut translator = Translator::new(options);
    let mut changed = Changed::everything();
    let mut store = Store::default();
    store.apply(namespace("team", 1, r#"{"a.test": {}}"#), &mut changed);
    store.apply(pod("team", "one", 1, &path("/")).into(), &mut changed);
    let before = translator.translate(&store, changed);
    let mut changed = Changed::default();
    store.apply(pod("team", "two", 2, &path("/")).into(), &mut changed);
    store.remove(crate::objects::Kind::Pod, &pod("team", "one", 1, "").meta.key, &mut changed);
    let after = translator.translate(&store, changed);
    assert!(Arc::ptr_eq(&before.rules, &after.rules));
    assert!(Arc::ptr_eq(&before.tls_rules, &after.tls_rules));
    assert_eq!(shown(&after), ["http a.test/* -> 10.0.0.2:3000"]);
}
