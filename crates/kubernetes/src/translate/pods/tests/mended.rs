//! What the original did otherwise than its document said, done as said.

use super::*;

fn team(pods: impl IntoIterator<Item = Pod>) -> Translation {
    let hosts = [namespace("team", 1, r#"{"a.test": {}}"#)];
    translate(hosts.into_iter().chain(pods.into_iter().map(Object::from)))
}

/// Unready and terminating Pods got requests until their phase changed.
#[test]
fn only_pods_that_can_serve_get_requests() {
    let good = || pod("team", "good", 9, &path("/"));
    let change = |change: fn(&mut Pod)| {
        let mut bad = pod("team", "bad", 1, &path("/"));
        change(&mut bad);
        bad
    };
    for bad in [
        change(|pod| pod.ready = false),
        change(|pod| pod.running = false),
        change(|pod| pod.meta.deleting = true),
        change(|pod| pod.address = None),
    ] {
        assert_eq!(shown(&team([bad.clone(), good()])), ["http a.test/* -> 10.0.0.9:3000"]);
        // Nobody is left: 503, for the path is known.
        assert_eq!(shown(&team([bad])), ["http a.test/* ->"]);
    }
}

/// Pods were kept by name alone, so that two of one name took each other's place.
#[test]
fn pods_of_one_name_in_two_namespaces_are_two() {
    let translation = translate([
        namespace("one", 1, r#"{"one.test": {}}"#),
        namespace("two", 2, r#"{"two.test": {}}"#),
        pod("one", "web-0", 1, &path("/")).into(),
        pod("two", "web-0", 2, &path("/")).into(),
    ]);
    let expected = ["http one.test/* -> 10.0.0.1:3000", "http two.test/* -> 10.0.0.2:3000"];
    assert_eq!(shown(&translation), expected);
}

/// Any event of another Secret of the Namespace switched the API key off.
#[test]
fn other_secrets_do_not_touch_the_api_key() {
    let mut translator =
        Translator::new(Options { pods: Some(PodOptions::default()), ..Options::default() });
    let mut store = store([
        namespace("team", 1, r#"{"a.test": {}}"#),
        secret("team", &[("api-key", "supersecret")]),
        pod("team", "web", 1, &path("/")).into(),
    ]);
    let locked = ["http a.test/* -> 10.0.0.1:3000 if x-routing-api-key: c3VwZXJzZWNyZXQ="];
    let before = translator.translate(&store, Changed::everything());
    assert_eq!(shown(&before), locked);
    let mut other = meta("team", "other", 5);
    for created in [5, 6] {
        other.created = created;
        let mut changed = Changed::default();
        store.apply(Secret { meta: other.clone(), data: [].into() }.into(), &mut changed);
        assert_eq!(shown(&translator.translate(&store, changed)), locked);
    }
    let mut changed = Changed::default();
    store.remove(crate::objects::Kind::Secret, &other.key, &mut changed);
    assert_eq!(shown(&translator.translate(&store, changed)), locked);
}

/// Ports 80 and 443 were left out of the target, so that 443 was dialled as 80.
#[test]
fn every_port_is_dialled_as_declared() {
    let paths = r#"[{"basePath": "/a", "containerPort": "80"}, {"basePath": "/b", "containerPort": "443"}]"#;
    let expected =
        ["http a.test* = 404", "http a.test/a* -> 10.0.0.1:80", "http a.test/b* -> 10.0.0.1:443"];
    let translation = team([pod("team", "web", 1, paths)]);
    assert_eq!(shown(&translation), expected);
    // As there, plain http is spoken to it.
    assert!(translation.upstreams.iter().all(|upstream| upstream.tls.is_none()));
}

/// basePath was written into nginx's configuration, so that one tenant could configure, or break,
/// everybody's.
#[test]
fn a_base_path_is_a_path_and_nothing_else() {
    let good =
        [namespace("good", 1, r#"{"good.test": {}}"#), pod("good", "web", 9, &path("/")).into()];
    for (base, served) in [
        ("/x { return 418; } location /y", None),
        ("= /exact", None),
        ("~ ^/re", None),
        ("/a b", None),
        ("/a{2}", None),
        ("/a\\nserver {}", None),
        ("/a;b", Some("http evil.test/a;b* -> 10.0.0.1:3000")),
        ("/a$host", Some("http evil.test/a$host* -> 10.0.0.1:3000")),
    ] {
        let translation = translate(good.clone().into_iter().chain([
            namespace("evil", 2, r#"{"evil.test": {}}"#),
            pod("evil", "web", 1, &path(base)).into(),
        ]));
        let expected: Vec<&str> = ["http evil.test* = 404"]
            .into_iter()
            .chain(served)
            .chain(["http good.test/* -> 10.0.0.9:3000"])
            .collect();
        assert_eq!(shown(&translation), expected, "{base}");
        let said: &[&str] = if served.is_some() { &[] } else { &["Pod evil/web: InvalidPath"] };
        assert_eq!(problems(&translation), said, "{base}");
    }
}

/// A target path of `/` made two slashes of one; what is sent has one, as the model's rewrite says.
#[test]
fn the_target_path_takes_the_place_of_the_base_path() {
    let paths = r#"[{"basePath": "/tproot", "containerPort": "80", "targetPath": "/"}]"#;
    let translation = team([pod("team", "web", 1, paths)]);
    assert_eq!(shown(&translation)[1], "http a.test/tproot* -> 10.0.0.1:80 => /");
}

/// The first in the order of a hash table decided. The oldest that serves does, and the others wait for its
/// end.
#[test]
fn pods_that_disagree_on_the_target_path_wait_for_the_older() {
    let with = |target: &str| format!(r#"[{{"basePath": "/x", "containerPort": "3000"{target}}}]"#);
    let new = with(r#", "targetPath": "/new""#);
    let mut pods = vec![
        pod("team", "one", 1, &with("")),
        pod("team", "two", 2, &with("")),
        pod("team", "three", 3, &new),
        pod("team", "four", 4, &new),
    ];
    let translation = team(pods.clone());
    assert_eq!(shown(&translation)[1], "http a.test/x* -> 10.0.0.1:3000 10.0.0.2:3000");
    let told = ["Pod team/four: TargetPathDiffers", "Pod team/three: TargetPathDiffers"];
    assert_eq!(problems(&translation), told);
    pods[0].meta.deleting = true;
    pods[1].ready = false;
    let translation = team(pods);
    assert_eq!(shown(&translation)[1], "http a.test/x* -> 10.0.0.3:3000 10.0.0.4:3000 => /new");
    assert!(translation.problems.is_empty());
}

/// Incomplete TLS options ended the process.
#[test]
fn incomplete_tls_leaves_one_host_out() {
    let hosts = r#"{"a.test": {"ssl": {"certificate": {}}}, "b.test": {}}"#;
    let translation =
        translate([namespace("team", 1, hosts), pod("team", "web", 1, &path("/")).into()]);
    assert_eq!(shown(&translation), ["http b.test/* -> 10.0.0.1:3000"]);
    assert_eq!(problems(&translation), ["Namespace team: InvalidTls"]);
}

/// Upstreams were named by a hash of 32 bits.
#[test]
fn names_are_not_hashes() {
    let translation = team([pod("team", "web", 1, &path("/nodejs"))]);
    let rules: Vec<&str> = translation.rules.rules.iter().map(|rule| &*rule.name).collect();
    assert_eq!(rules, ["pods/a.test/nodejs", "pods/a.test", "pods-status", "pods-unknown-host"]);
    assert_eq!(&*translation.upstreams[0].name, "pods/team/nodejs");
}
