//! Routing as its sources define it: the observed cases of `NanoProxy` (P01 to P50, with the deliberate
//! departures) and the rows of the Ingress conformance suite; the compiled tables against the naive loop;
//! and large sets.

use std::sync::Arc;

use model::{
    Action, HostName, HostPattern, HttpVersions, Listener, ListenerProtocol, MatchOrder, PathMatch,
    PathRewrite, Place, Rule, RuleSet, Scope, TrustedHops,
};

use super::*;

/// What a test file would say: `HOST KIND PATH`, where kind is `prefix`, `exact`, `segments`, `any`,
/// `never`. With `behind` before it, it is a fallback.
fn rule(text: &str, available: bool) -> Rule {
    let (fallback, text) = match text.strip_prefix("behind ") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut words = text.split_whitespace();
    let (host, kind) = (words.next().unwrap(), words.next().unwrap());
    let path = words.next().unwrap_or_default().to_owned();
    let action = if available {
        Action::Forward(Vec::new())
    } else {
        Action::Unavailable { upstream: "missing".into() }
    };
    Rule {
        name: text.into(),
        hosts: pattern(host),
        path: match kind {
            "prefix" => PathMatch::Prefix(path),
            "exact" => PathMatch::Exact(path),
            "segments" => PathMatch::Segments(path),
            "any" => PathMatch::Any,
            _ => PathMatch::Never,
        },
        rewrite: PathRewrite::Keep,
        fallback,
        api_key: None,
        request_body_max: None,
        action,
        response_timeout: None,
        place: Place::whole("test"),
    }
}

fn pattern(host: &str) -> HostPattern {
    let name = |text: &str| HostName::parse(text).unwrap();
    if host == "*" {
        HostPattern::Any
    } else if let Some(rest) = host.strip_prefix("**.") {
        HostPattern::ManyLabels(name(rest))
    } else if let Some(rest) = host.strip_prefix("*.") {
        HostPattern::OneLabel(name(rest))
    } else {
        HostPattern::Exact(name(host))
    }
}

fn set(order: MatchOrder, rules: &[&str]) -> Arc<RuleSet> {
    let rules = rules.iter().map(|text| match text.strip_prefix('!') {
        Some(rest) => rule(rest, false),
        None => rule(text, true),
    });
    Arc::new(RuleSet { order, rules: rules.collect() })
}

fn listener(scopes: Vec<(&str, Arc<RuleSet>)>) -> Listener {
    let scope = |(hosts, rules): (&str, _)| Scope { hosts: pattern(hosts), rules };
    Listener {
        name: "test".into(),
        address: ([127, 0, 0, 1], 0).into(),
        protocol: ListenerProtocol::Http,
        protocols: HttpVersions::default(),
        scopes: scopes.into_iter().map(scope).collect(),
        trusted_hops: TrustedHops::default(),
        place: Place::whole("test"),
    }
}

/// The name of the rule for a request as it comes from the wire: `None` is a 404.
fn routed(router: &Router, host: &str, raw_path: &str) -> Option<String> {
    let host = normalize_host(host.as_bytes()).unwrap();
    let mut scratch = Vec::new();
    let path = decode_path(raw_path.as_bytes(), &mut scratch).unwrap();
    router.find(&host, path).map(|found| found.rule.name.to_string())
}

#[test]
fn nanoproxy_files_are_routed_as_observed() {
    const ALL: [&str; 15] = [
        "* prefix /plain",
        "api.test prefix /v1",
        "*.wild.test any",
        "* prefix /strip",
        "* prefix /s2/",
        "* exact /exact",
        "* prefix /slash/",
        "* prefix /first",
        "* prefix /first/longer",
        "* prefix /Case",
        "!* prefix /gone",
        "!* prefix /later",
        "* prefix /later",
        "* never",
        "blank.test any",
    ];
    let router = Router::compile(&listener(vec![("*", set(MatchOrder::First, &ALL))]));
    let cases = [
        ("P01", "x.test", "/plain", Some(ALL[0])),
        ("P02", "x.test", "/plainfoo/bar", Some(ALL[0])),
        ("P05", "x.test", "/nope", None),
        ("P06", "x.test", "/", None),
        ("P11", "api.test", "/v1/a", Some(ALL[1])),
        ("P12", "api.test:8080", "/v1/a", Some(ALL[1])),
        ("P13", "other.test", "/v1/a", None),
        ("P14, departure: hosts without regard to case", "API.test", "/v1/a", Some(ALL[1])),
        ("P17, departure: wildcard hosts", "a.wild.test", "/x", Some(ALL[2])),
        ("P17, one label only", "b.a.wild.test", "/x", None),
        ("P17, at least one", "wild.test", "/x", None),
        ("P20, departure: trailing dot", "api.test.", "/v1/a", Some(ALL[1])),
        ("P22, P23", "blank.test", "/whatever", Some(ALL[14])),
        ("P24", "x.test", "/strip", Some(ALL[3])),
        ("P27", "x.test", "/stripfoo", Some(ALL[3])),
        ("P29", "x.test", "/s2/a", Some(ALL[4])),
        ("P30", "x.test", "/s2", None),
        ("P32", "x.test", "/plain/a%2Fb%20c", Some(ALL[0])),
        ("P33", "x.test", "/pl%61in/x", Some(ALL[0])),
        ("P34", "x.test", "/str%69p/x%2Fy", Some(ALL[3])),
        ("P35", "x.test", "/exact", Some(ALL[5])),
        ("P36", "x.test", "/exact/", None),
        ("P39", "x.test", "/slash", None),
        ("P40", "x.test", "/slash/", Some(ALL[6])),
        ("P41", "x.test", "/first/longer/x", Some(ALL[7])),
        ("P42", "x.test", "/case", None),
        ("P42", "x.test", "/Case", Some(ALL[9])),
        ("P45, departure: 503", "x.test", "/gone", Some("* prefix /gone")),
        ("P46", "x.test", "/later", Some(ALL[12])),
        ("P68, no host", "", "/plain", Some(ALL[0])),
        ("P68, no host, rule with one", "", "/v1", None),
    ];
    for (case, host, path, wanted) in cases {
        assert_eq!(routed(&router, host, path).as_deref(), wanted, "{case}: {host} {path}");
    }
    let later = router.find("x.test", b"/later").unwrap();
    assert_eq!((later.scope, later.rule_index), (0, 12));
}

#[test]
fn ingress_rules_are_routed_as_the_conformance_suite_wants() {
    let hosts = ["foo.bar.com segments /", "*.foo.com segments /"];
    let cases: [(&[&str], &str, &str, Option<usize>); 30] = [
        (&hosts, "foo.bar.com", "/", Some(0)),
        (&hosts, "other.bar.com", "/", None),
        (&hosts, "bar.foo.com", "/x", Some(1)),
        (&hosts, "baz.bar.foo.com", "/", None),
        (&hosts, "foo.com", "/", None),
        (&["* exact /foo"], "h", "/foo", Some(0)),
        (&["* exact /foo"], "h", "/foo/", None),
        (&["* exact /foo"], "h", "/FOO", None),
        (&["* exact /foo"], "h", "/bar", None),
        (&["* segments /foo"], "h", "/foo", Some(0)),
        (&["* segments /foo"], "h", "/foo/", Some(0)),
        (&["* segments /foo"], "h", "/FOO", None),
        (&["* segments /aaa", "* segments /aaa/bbb"], "h", "/aaa/bbb", Some(1)),
        (&["* segments /aaa", "* segments /aaa/bbb"], "h", "/aaa/bbb/ccc", Some(1)),
        (&["* segments /aaa", "* segments /aaa/bbb"], "h", "/aaa/ccc", Some(0)),
        (&["* segments /aaa"], "h", "/aaaccc", None),
        (&["* segments /foo", "* exact /foo"], "h", "/foo", Some(1)),
        (&["* segments /foo", "* exact /foo"], "h", "/foo/x", Some(0)),
        (&["* segments /aaa/bbb/"], "h", "/aaa/bbb", Some(0)),
        (&["* segments /aaa/bbb/"], "h", "/aaa/bbb/", Some(0)),
        (&["* exact /foo/"], "h", "/foo", None),
        (&["* segments /foo/x", "h segments /"], "h", "/foo/x", Some(1)),
        (&["*.b.c segments /foo", "a.b.c segments /"], "a.b.c", "/foo", Some(1)),
        (&["*.b.c segments /foo", "a.b.c segments /bar"], "a.b.c", "/foo", Some(0)),
        (&["* exact /foo", "*.b.c segments /"], "a.b.c", "/foo", Some(1)),
        (&["**.c exact /foo", "**.b.c segments /"], "a.b.c", "/foo", Some(1)),
        (&["**.b.c exact /foo", "*.b.c segments /"], "a.b.c", "/foo", Some(1)),
        (&["* segments /foo", "* segments /foo"], "h", "/foo", Some(0)),
        (&["!* segments /foo/bar", "* segments /foo"], "h", "/foo/bar", Some(0)),
        (&["* any", "* segments /"], "h", "/x", Some(1)),
    ];
    for (rules, host, path, wanted) in cases {
        let router = Router::compile(&listener(vec![("*", set(MatchOrder::MostSpecific, rules))]));
        let found = router.find(host, path.as_bytes()).map(|found| found.rule_index);
        assert_eq!(found, wanted, "{rules:?} {host} {path}");
    }
}

/// As nginx chooses among prefix locations (D05, D06, D27 of the observed cases).
#[test]
fn the_longest_path_wins_where_the_source_says_so() {
    let rules = ["* prefix /a", "* prefix /a/b", "* prefix /", "h prefix /a/b", "h prefix /c"];
    let router = Router::compile(&listener(vec![("*", set(MatchOrder::LongestPath, &rules))]));
    let cases = [("/a/bx", 1), ("/ax", 0), ("/x", 2), ("/A", 2), ("/cc", 4)];
    for (path, wanted) in cases {
        let found = router.find("h", path.as_bytes()).map(|found| found.rule_index);
        assert_eq!(found, Some(wanted), "{path}");
    }
}

#[test]
fn only_the_most_specific_scope_is_tried() {
    let all = set(MatchOrder::MostSpecific, &["* segments /"]);
    let a = set(MatchOrder::MostSpecific, &["* segments /a"]);
    let scopes = || vec![("*.test", a.clone()), ("x.test", a.clone()), ("**.b.test", a.clone())];
    let closed = Router::compile(&listener(scopes()));
    let mut with_any = scopes();
    with_any.push(("*", all.clone()));
    let open = Router::compile(&listener(with_any));
    let cases = [
        ("x.test", "/a", Some(1), Some(1)),
        ("x.test", "/b", None, None),
        ("y.test", "/a", Some(0), Some(0)),
        ("y.test", "/b", None, None),
        ("q.b.test", "/a", Some(2), Some(2)),
        ("other", "/a", None, Some(3)),
        ("", "/a", None, Some(3)),
    ];
    for (host, path, in_closed, in_open) in cases {
        let scope = |router: &Router| router.find(host, path.as_bytes()).map(|found| found.scope);
        assert_eq!((scope(&closed), scope(&open)), (in_closed, in_open), "{host} {path}");
    }
    assert_eq!((closed.scope("other"), open.scope("y.test")), (None, Some(0)));
    assert!(Arc::ptr_eq(open.rules(0).unwrap(), open.rules(1).unwrap()), "compiled once");
}

#[test]
fn the_cache_compiles_each_set_once_and_forgets() {
    let mut cache = RulesCache::default();
    let rules = set(MatchOrder::First, &["* any"]);
    let first = Router::compile_with(&listener(vec![("*", rules.clone())]), &mut cache);
    let second = Router::compile_with(&listener(vec![("*", rules.clone())]), &mut cache);
    assert!(Arc::ptr_eq(first.rules(0).unwrap(), second.rules(0).unwrap()));
    drop((first, second));
    cache.forget_unused();
    assert_eq!(Arc::strong_count(&rules), 1, "the compiled form is gone");
}

#[test]
fn explain_says_why_not() {
    let rules = ["* never", "api.test any", "* exact /b", "!* prefix /a", "* prefix /a", "* any"];
    let first = listener(vec![("*", set(MatchOrder::First, &rules))]);
    let explained = explain(&first, "h", b"/a");
    let words: Vec<String> = explained.passed_over.iter().map(|(_, v)| v.to_string()).collect();
    assert_eq!((explained.scope, explained.rule), (Some(0), Some(4)));
    let wanted = [
        "can never match",
        "is for host api.test",
        "is for the path /b alone",
        "fits, but upstream missing does not exist and a later rule answers",
    ];
    assert_eq!(words, wanted);

    let rules = ["* segments /a", "h segments /", "* prefix /x", "h exact /a/b", "h any"];
    let specific = listener(vec![("*", set(MatchOrder::MostSpecific, &rules))]);
    let explained = explain(&specific, "h", b"/a/b");
    assert_eq!(explained.rule, Some(3));
    let lower = |because| Verdict::LowerPrecedence { because };
    let wanted = [
        (0, lower(Reason::CloserHost)),
        (1, lower(Reason::ExactPath)),
        (2, Verdict::PathDiffers { wanted: PathMatch::Prefix("/x".into()) }),
    ];
    assert_eq!(explained.passed_over, wanted);
    assert_eq!(explain(&specific, "h", b"*").rule, Some(4));
    assert_eq!(explain(&listener(vec![]), "h", b"/").scope, None);
}

/// Bytes that depend on the seed alone (xorshift64).
fn bytes(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..count).map(|_| next()).collect()
}

#[test]
fn the_tables_say_what_the_naive_loop_says() {
    const CASES: u64 = 3_000;
    for seed in 0..CASES {
        fuzz_compare(&bytes(seed, 40 + seed as usize % 900));
    }
    fuzz_compare(&[]);
}

/// A set with many hosts, and one with many paths of one host, are found whole.
#[test]
fn large_sets_are_compiled_and_found() {
    const RULES: usize = 100_000;
    let mut any = rule("* any", true);
    let hosts = (0..RULES).map(|n| {
        any.hosts = pattern(&format!("h{n}.test"));
        any.clone()
    });
    let hosts = Arc::new(RuleSet { order: MatchOrder::First, rules: hosts.collect() });
    let paths = (0..RULES).map(|n| rule(&format!("* segments /p{n}/x"), true));
    let paths = Arc::new(RuleSet { order: MatchOrder::MostSpecific, rules: paths.collect() });
    let (hosts, paths) = (CompiledRules::compile(&hosts), CompiledRules::compile(&paths));
    for n in (0..RULES).step_by(97) {
        assert_eq!(hosts.find(&format!("h{n}.test"), b"/x"), Some(n));
        assert_eq!(paths.find("h", format!("/p{n}/x/y").as_bytes()), Some(n));
        assert_eq!(paths.find("h", format!("/p{n}/xy").as_bytes()), None);
    }
    assert_eq!(hosts.find("h.test", b"/x"), None);
}

/// Whatever the order, and also behind rules whose upstream does not exist.
#[test]
fn fallbacks_stand_behind_all_others() {
    let rules =
        ["behind h exact /a/b", "behind * any", "!* prefix /gone", "* prefix /a", "* exact /z"];
    for order in [MatchOrder::First, MatchOrder::LongestPath, MatchOrder::MostSpecific] {
        let listener = listener(vec![("*", set(order, &rules))]);
        let router = Router::compile(&listener);
        let cases = [
            ("h", "/a/b", 3),
            ("h", "/z", 4),
            ("h", "/gone", 2),
            ("h", "/other", 1),
            ("x", "/a/b", 3),
            ("x", "/other", 1),
        ];
        for (host, path, wanted) in cases {
            let found = router.find(host, path.as_bytes()).map(|found| found.rule_index);
            assert_eq!(found, Some(wanted), "{order:?} {host} {path}");
        }
        let only = CompiledRules::compile(&set(order, &["behind * any", "behind h exact /a/b"]));
        let by_order = usize::from(order != MatchOrder::First);
        assert_eq!(only.find("h", b"/a/b"), Some(by_order), "{order:?}: among fallbacks");
        let explained = explain(&listener, "h", b"/a/b");
        let words: Vec<String> = explained.passed_over.iter().map(|(_, v)| v.to_string()).collect();
        let behind = "fits, but it is a fallback, which stands behind all others";
        assert_eq!(words, [behind, behind, "is for paths that begin with /gone"], "{order:?}");
    }
}
