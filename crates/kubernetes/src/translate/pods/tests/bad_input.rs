//! Whatever one tenant writes, the others are served, and it hears what was wrong.

use super::*;

/// What a tenant writes, and what it hears.
struct Case {
    hosts: String,
    paths: String,
    secret: Vec<(&'static str, &'static str)>,
    told: &'static [&'static str],
    /// Its own rules.
    rules: &'static [&'static str],
}

fn case(hosts: &str, paths: &str, told: &'static [&'static str]) -> Case {
    let rules = &[];
    Case { hosts: hosts.to_owned(), paths: paths.to_owned(), secret: Vec::new(), told, rules }
}

fn tls_case(
    secret: &[(&'static str, &'static str)],
    client: bool,
    told: &'static [&'static str],
) -> Case {
    let hosts = tls_host("bad.test", client);
    Case { secret: secret.to_vec(), ..case(&hosts, &path("/"), told) }
}

fn cases() -> Vec<Case> {
    let good = path("/");
    let hosts = r#"{"bad.test": {}}"#;
    let enormous =
        format!("[{}]", vec![r#"{"basePath": "/a", "containerPort": "1"}"#; 20_000].join(","));
    let served = |case: Case, rules| Case { rules, ..case };
    const OPEN: &[&str] = &["http bad.test* = 404"];
    vec![
        case("nonsense", &good, &["Namespace bad: InvalidHosts"]),
        case("[]", &good, &["Namespace bad: InvalidHosts"]),
        case("{\u{201c}bad.test\u{201d}: {}}", &good, &["Namespace bad: InvalidHosts"]),
        case(r#"{"bad\u0000.test": {}}"#, &good, &["Namespace bad: InvalidHost"]),
        case(r#"{"bad.test\r\nX: y": {}}"#, &good, &["Namespace bad: InvalidHost"]),
        case(r#"{"*.test": {}}"#, &good, &["Namespace bad: InvalidHost"]),
        case(r#"{"bad.test": 1}"#, &good, &["Namespace bad: InvalidHost"]),
        case(r#"{"bad.test": {"ssl": {}}}"#, &good, &["Namespace bad: InvalidTls"]),
        served(case(hosts, "nonsense", &["Pod bad/web: InvalidPaths"]), OPEN),
        served(case(hosts, "{}", &["Pod bad/web: InvalidPaths"]), OPEN),
        served(case(hosts, &enormous, &["Pod bad/web: InvalidPaths"]), OPEN),
        served(
            case(hosts, &path("/x { return 418; } location /y"), &["Pod bad/web: InvalidPath"]),
            OPEN,
        ),
        served(case(hosts, &path("/a\\nb"), &["Pod bad/web: InvalidPath"]), OPEN),
        served(case(hosts, &path("good"), &["Pod bad/web: InvalidPath"]), OPEN),
        served(
            case(hosts, r#"[{"path": "/", "containerPort": "80"}]"#, &["Pod bad/web: InvalidPath"]),
            OPEN,
        ),
        served(
            case(
                hosts,
                r#"[{"basePath": "/", "containerPort": "81"}]"#,
                &["Pod bad/web: UndeclaredPort"],
            ),
            OPEN,
        ),
        tls_case(&[], false, &["Namespace bad: MissingSecret"]),
        tls_case(&[("other", "x")], false, &["Namespace bad: MissingSecretField"]),
        tls_case(&[("crt", CRT)], false, &["Namespace bad: MissingSecretField"]),
        tls_case(&[("crt", CRT), ("key", " \n")], false, &["Namespace bad: MissingSecretField"]),
        tls_case(&[("crt", CRT), ("key", KEY)], true, &["Namespace bad: MissingSecretField"]),
        tls_case(&[("crt", "no PEM"), ("key", KEY)], false, &["Namespace bad: InvalidCertificate"]),
        tls_case(&[("crt", CRT), ("key", CRT)], false, &["Namespace bad: InvalidCertificate"]),
        tls_case(
            &[("crt", "-----BEGIN CERTIFICATE-----MISMATCH"), ("key", KEY)],
            false,
            &["Namespace bad: InvalidCertificate"],
        ),
        Case {
            rules: &["https bad.test/* -> 10.0.0.1:3000"],
            ..tls_case(
                &[("crt", "-----BEGIN CERTIFICATE-----EXPIRED"), ("key", KEY)],
                false,
                &["Namespace bad: CertificateWarning"],
            )
        },
        Case {
            rules: &["http bad.test/* = 403"],
            secret: vec![("api-key", "")],
            ..case(hosts, &good, &["Namespace bad: EmptyApiKey"])
        },
    ]
}

#[test]
fn one_tenant_s_mistakes_are_its_own() {
    for case in cases() {
        // The one with the mistakes is the older one, so that nothing saves the other.
        let mut objects = vec![
            namespace("bad", 1, &case.hosts),
            namespace("good", 2, r#"{"good.test": {}}"#),
            pod("bad", "web", 1, &case.paths).into(),
            pod("good", "web", 2, &path("/")).into(),
        ];
        if !case.secret.is_empty() {
            objects.push(secret("bad", &case.secret));
        }
        let translation = translate(objects);
        let shown_paths: String = case.paths.chars().take(80).collect();
        let about = format!("{} {shown_paths} {:?}", case.hosts, case.secret);
        let mut expected: Vec<&str> = case.rules.to_vec();
        expected.push("http good.test/* -> 10.0.0.2:3000");
        expected.sort_unstable();
        assert_eq!(shown(&translation), expected, "{about}");
        assert_eq!(problems(&translation), case.told, "{about}");
        for problem in translation.problems.iter() {
            let message = &problem.message;
            assert!(message.len() < 500 && !message.contains("SECRETKEY"), "{message}");
            assert!(!message.chars().any(char::is_control), "{message:?}");
        }
    }
}

#[test]
fn pods_that_nobody_routes_to_are_told_why() {
    let mut bare = pod("team", "web", 1, &path("/"));
    let without_hosts = Namespace { meta: meta("", "team", 1), hosts: None, labels: [].into() };
    for (namespace, told) in [
        (None, &["Pod team/web: NamespaceNotRoutable"][..]),
        (Some(without_hosts), &["Namespace team: NoHosts"]),
    ] {
        let objects = namespace.map(Object::from).into_iter();
        let translation = translate(objects.chain([bare.clone().into()]));
        assert_eq!(problems(&translation), told);
        assert!(shown(&translation).is_empty() && translation.upstreams.is_empty());
    }
    // A Pod without the annotation may be another router's.
    bare.paths = None;
    assert!(translate([bare.into()]).problems.is_empty());
}

#[test]
fn without_tls_hosts_that_ask_for_it_are_left_out() {
    let objects = [
        namespace("team", 1, &tls_host("a.test", false)),
        secret("team", &[("crt", CRT), ("key", KEY)]),
        pod("team", "web", 1, &path("/")).into(),
    ];
    let translation = translate_with(PodOptions::default(), objects);
    assert!(shown(&translation).is_empty());
    assert_eq!(problems(&translation), ["Namespace team: TlsDisabled"]);
}

#[test]
fn one_namespace_makes_a_bounded_number_of_rules() {
    let hosts: Vec<String> = (0..200).map(|i| format!(r#""h{i:03}.test": {{}}"#)).collect();
    let entry = |i| format!(r#"{{"basePath": "/{i:03}", "containerPort": "80"}}"#);
    let paths: Vec<String> = (0..100).map(entry).collect();
    let translation = translate([
        namespace("many", 1, &format!("{{{}}}", hosts.join(","))),
        namespace("good", 2, r#"{"zzz.test": {}}"#),
        pod("many", "web", 1, &format!("[{}]", paths.join(","))).into(),
        pod("good", "web", 2, &path("/")).into(),
    ]);
    let lines = shown(&translation);
    let forwarding = lines.iter().filter(|line| line.contains("10.0.0.1")).count();
    assert_eq!(forwarding, 10_000);
    assert!(lines.contains(&"http zzz.test/* -> 10.0.0.2:3000".to_owned()));
    assert_eq!(problems(&translation), ["Namespace many: TooManyRoutes"]);
}

#[test]
fn secrets_are_in_no_debug_output() {
    let translation = translate([
        namespace("team", 1, &tls_host("a.test", false)),
        secret("team", &[("crt", CRT), ("key", KEY), ("api-key", "supersecret")]),
        pod("team", "web", 1, &path("/")).into(),
    ]);
    let debug = format!("{translation:?}");
    for secret in ["SECRETKEY", "supersecret", "c3VwZXJzZWNyZXQ"] {
        assert!(!debug.contains(secret), "{secret}");
    }
}

/// Annotations with random damage: nothing panics, the other tenant's route is the same, and no host that asks
/// for TLS is served without.
#[test]
fn damage_of_any_kind_stays_at_home() {
    const DAMAGE: &[u8] = b"{}[]\",:\\/ %;$*.\n\x00\x7f019eunltrsAZ-_";
    let tls = tls_host("h3.bad", true);
    let hosts = format!(r#"{{"h1.bad": {{}}, "H2.bad": null, {}"#, &tls[1..]);
    let paths = r#"[{"basePath": "/a%20b", "containerPort": "80", "targetPath": "/", "weight": 3},
        {"basePath": "/", "containerPort": 3000}]"#;
    let mut seed = 0x5EED_u64;
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap() % below
    };
    let mut damaged = |text: &str| {
        let mut bytes = text.as_bytes().to_vec();
        for _ in 0..random(4) {
            let at = random(bytes.len());
            match random(3) {
                0 => bytes[at] = DAMAGE[random(DAMAGE.len())],
                1 => bytes.insert(at, DAMAGE[random(DAMAGE.len())]),
                _ => drop(bytes.remove(at)),
            }
        }
        String::from_utf8(bytes).unwrap()
    };
    let mut served = 0;
    for _ in 0..2_000 {
        let (hosts, paths) = (damaged(&hosts), damaged(paths));
        let translation = translate([
            namespace("bad", 1, &hosts),
            namespace("good", 2, r#"{"good.test": {}}"#),
            secret("bad", &[("crt", CRT), ("key", KEY), ("ca", CRT)]),
            pod("bad", "web", 1, &paths).into(),
            pod("good", "web", 2, &path("/")).into(),
        ]);
        let (good, bad): (Vec<_>, Vec<_>) =
            shown(&translation).into_iter().partition(|line| line.contains("good"));
        assert_eq!(good, ["http good.test/* -> 10.0.0.2:3000"], "{hosts} {paths}");
        assert!(bad.iter().all(|line| !line.contains(char::is_control)), "{bad:?}");
        let plain_h3 = bad.iter().any(|line| line.starts_with("http h3.bad"));
        assert!(!plain_h3 || !hosts.contains("\"ssl\""), "{hosts}: {bad:?}");
        let intact = |p: &crate::translate::Problem| &*p.object.key.name != "good";
        assert!(translation.problems.iter().all(intact));
        served += usize::from(!bad.is_empty());
    }
    assert!(served > 500, "{served}");
}
