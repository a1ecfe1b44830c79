//! Several Namespaces that claim the same: the oldest wins, always, and the others hear of it.

use super::*;

const PLAIN: &str = r#"{"a.test": {}}"#;

#[test]
fn one_host_may_be_several_namespaces() {
    let translation = translate([
        namespace("one", 1, PLAIN),
        namespace("two", 2, PLAIN),
        pod("one", "web", 1, &path("/one")).into(),
        pod("two", "web", 2, &path("/two")).into(),
    ]);
    let expected = [
        "http a.test* = 404",
        "http a.test/one* -> 10.0.0.1:3000",
        "http a.test/two* -> 10.0.0.2:3000",
    ];
    assert_eq!(shown(&translation), expected);
    assert!(translation.problems.is_empty());
}

#[test]
fn the_oldest_namespace_gets_the_path() {
    // Of the same age, the name decides.
    for (ages, winner) in [([1, 2], "10.0.0.9"), ([2, 1], "10.0.0.3"), ([1, 1], "10.0.0.9")] {
        let translation = translate([
            namespace("alpha", ages[0], PLAIN),
            namespace("beta", ages[1], PLAIN),
            pod("beta", "web", 3, &path("/")).into(),
            pod("beta", "web2", 4, &path("/")).into(),
            pod("alpha", "web", 9, &path("/")).into(),
            secret("beta", &[("api-key", "k")]),
        ]);
        let lines = shown(&translation);
        assert!(lines.len() == 1 && lines[0].contains(winner), "{ages:?}: {lines:?}");
        // The key is the winner's as well.
        assert_eq!(lines[0].contains(" if "), winner == "10.0.0.3", "{lines:?}");
        assert_eq!(translation.problems.len(), 1);
        let problem = &translation.problems[0];
        assert_eq!(problem.reason, "PathConflict");
        assert_ne!(
            &*problem.object.key.namespace,
            if winner == "10.0.0.9" { "alpha" } else { "beta" }
        );
    }
}

#[test]
fn a_winner_without_ready_pods_is_the_winner_still() {
    let mut unready = pod("one", "web", 1, &path("/"));
    unready.ready = false;
    let translation = translate([
        namespace("one", 1, PLAIN),
        namespace("two", 2, PLAIN),
        unready.into(),
        pod("two", "web", 2, &path("/")).into(),
    ]);
    assert_eq!(shown(&translation), ["http a.test/* ->"]);
}

#[test]
fn two_hundred_claims_of_one_path_touch_nobody_else() {
    let mut objects = vec![
        namespace("good", 999, r#"{"good.test": {}}"#),
        pod("good", "web", 250, &path("/")).into(),
    ];
    for index in 0..200u8 {
        let name = format!("n{index:03}");
        objects.push(namespace(&name, index.into(), PLAIN));
        objects.push(pod(&name, "web", index, &path("/")).into());
    }
    let translation = translate(objects);
    let expected = ["http a.test/* -> 10.0.0.0:3000", "http good.test/* -> 10.0.0.250:3000"];
    assert_eq!(shown(&translation), expected);
    assert_eq!(translation.problems.len(), 199);
    assert!(translation.problems.iter().all(|p| p.message.contains("Namespace n000")));
}

/// Each case: the options of the older and of the younger Namespace; what the host's rules are; who hears
/// what.
#[test]
fn a_host_is_served_with_the_older_s_options_unless_they_protect_less() {
    let (tls, client) = (tls_host("a.test", false), tls_host("a.test", true));
    let older = "a.test/old* -> 10.0.0.1:3000";
    let younger = "a.test/new* -> 10.0.0.2:3000";
    let refused = "a.test/new* = 503";
    for (first, second, listener, of_second, certificate) in [
        (PLAIN, PLAIN, "http", younger, None),
        (&tls, PLAIN, "https", younger, Some("a.test: any")),
        (PLAIN, &tls, "http", refused, None),
        (&tls, &client, "https", refused, Some("a.test: any")),
        (&client, &tls, "https", younger, Some("a.test: client")),
    ] {
        let fields = [("crt", CRT), ("key", KEY), ("ca", CRT)];
        let translation = translate([
            namespace("old", 1, first),
            namespace("new", 2, second),
            secret("old", &fields),
            secret("new", &fields),
            pod("old", "web", 1, &path("/old")).into(),
            pod("new", "web", 2, &path("/new")).into(),
        ]);
        let mut expected = ["a.test* = 404", older, of_second].map(|l| format!("{listener} {l}"));
        expected.sort();
        assert_eq!(shown(&translation), expected, "{first} {second}");
        assert_eq!(certificates(&translation), certificate.into_iter().collect::<Vec<_>>());
        let told: &[&str] = if first == second { &[] } else { &["Namespace new: HostConflict"] };
        assert_eq!(problems(&translation), told, "{first} {second}");
    }
}

#[test]
fn a_broken_certificate_does_not_give_its_paths_away() {
    let translation = translate([
        namespace("old", 1, &tls_host("a.test", false)),
        namespace("new", 2, PLAIN),
        pod("old", "web", 1, &path("/old")).into(),
        pod("new", "web", 2, &path("/old")).into(),
        pod("new", "web2", 3, &path("/new")).into(),
    ]);
    let expected =
        ["http a.test* = 404", "http a.test/new* -> 10.0.0.3:3000", "http a.test/old* = 503"];
    assert_eq!(shown(&translation), expected);
    assert_eq!(
        problems(&translation),
        ["Namespace old: MissingSecret", "Pod new/web: PathConflict"]
    );
}
