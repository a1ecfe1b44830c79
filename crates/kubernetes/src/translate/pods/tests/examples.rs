//! The examples of the repository (`examples/dispatcher`), each with exactly the routes that its README
//! promises.

use std::path::Path;

use testkit::Authority;

use super::*;
use crate::manifests::{Reading, read_manifests};

/// Reads an example as the dry run does; `None` where it cannot be read.
fn objects(example: &str, options: &PodOptions) -> Store {
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/dispatcher").join(example);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_some_and(|extension| extension == "yaml") {
            files.push((file.display().to_string(), std::fs::read_to_string(&file).unwrap()));
        }
    }
    files.sort();
    let reading = Reading {
        routable: &|labels| options.selector.matches(labels),
        names: &options.names,
        secret: Some(&options.secret_name),
    };
    let texts = files.iter().map(|(name, text)| (name.as_str(), text.as_str()));
    let (store, diagnostics) = read_manifests(texts, reading);
    let errors: Vec<_> =
        diagnostics.iter().filter(|d| d.severity == model::Severity::Error).collect();
    assert!(errors.is_empty(), "{example}: {errors:?}");
    store
}

fn options(environment: &[(&str, &str)]) -> PodOptions {
    let get = |name: &str| {
        let of_name = |(n, _): &&(&str, &str)| *n == name;
        environment.iter().find(of_name).map(|(_, value)| (*value).to_owned())
    };
    PodOptions { tls: true, ..PodOptions::from_environment(get).unwrap() }
}

fn serve(options: PodOptions, store: &Store) -> Translation {
    let options = Options { pods: Some(options), ..Options::default() };
    Translator::new(options).translate(store, Changed::everything())
}

#[test]
fn each_example_has_its_routes() {
    let router = |which: &str| {
        [
            ("API_KEY_SECRET_FIELD", format!("{which}-api-key")),
            ("HOSTS_ANNOTATION", format!("github.com/30x.dispatcher.hosts.{which}")),
            ("PATHS_ANNOTATION", format!("github.com/30x.dispatcher.paths.{which}")),
            ("PORT", "81".to_owned()),
        ]
    };
    let (public, private) = (router("public"), router("private"));
    let key = "if x-routing-api-key: c3VwZXJzZWNyZXQ=";
    for (example, environment, expected) in [
        (
            "one-pod",
            None,
            vec![
                "http test.k8s.local* = 404".to_owned(),
                "http test.k8s.local/nodejs* -> 198.18.0.1:3000".into(),
            ],
        ),
        (
            "several-pods",
            None,
            vec!["http shop.k8s.local/* -> 198.18.0.2:3000 198.18.0.1:3000x3".into()],
        ),
        (
            "paths-and-hosts",
            None,
            ["jeremy-test.example.net", "thoughtspark.example.org"]
                .into_iter()
                .flat_map(|host| {
                    [
                        format!("http {host}/* -> 198.18.0.1:8080 {key}"),
                        format!("http {host}/nodejs* -> 198.18.0.1:3000 {key}"),
                        format!("http {host}/v1/items* -> 198.18.0.1:3000 => /items {key}"),
                    ]
                })
                .collect(),
        ),
        (
            "public-and-private",
            Some(&public),
            vec![
                "http test.k8s.com* = 404".into(),
                format!("http test.k8s.com/public* -> 198.18.0.1:3000 {key}"),
            ],
        ),
        (
            "public-and-private",
            Some(&private),
            vec![
                "http test.k8s.local* = 404".into(),
                "http test.k8s.local/internal* -> 198.18.0.1:3000".into(),
            ],
        ),
    ] {
        let environment: Vec<(&str, &str)> = environment
            .into_iter()
            .flatten()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let options = options(&environment);
        let store = objects(example, &options);
        let translation = serve(options, &store);
        assert_eq!(shown(&translation), expected, "{example}");
        assert!(translation.problems.is_empty(), "{example}: {:?}", translation.problems);
    }
}

#[test]
fn the_probe_of_the_example_is_the_document_s() {
    let options = options(&[("NGINX_ENABLE_HEALTH_CHECKS", "true")]);
    let store = objects("paths-and-hosts", &options);
    let translation = serve(options, &store);
    let checks: Vec<_> = translation.upstreams.iter().map(|u| u.health_check.is_some()).collect();
    // The container of port 8080, which serves `/`, has none.
    assert_eq!(checks, [false, true, true]);
    assert!(translation.problems.is_empty(), "{:?}", translation.problems);
}

#[test]
fn tls_is_served_once_its_secret_is_there() {
    let options = options(&[]);
    let mut store = objects("tls", &options);
    let before = serve(options.clone(), &store);
    assert_eq!(shown(&before), ["http plain.dev/* -> 198.18.0.1:3000"]);
    let told = ["Namespace tls: MissingSecret", "Namespace tls: MissingSecret"];
    assert_eq!(problems(&before), told);

    let authority = Authority::new();
    let issued = authority.server(&["secure.dev", "members.dev"]);
    let fields = [
        ("ssl.crt", issued.chain_pem.as_str()),
        ("ssl.key", issued.key_pem.as_str()),
        ("client.crt", authority.pem()),
    ];
    store.apply(secret("tls", &fields), &mut Changed::default());
    let after = serve(options, &store);
    assert_eq!(
        shown(&after),
        [
            "http plain.dev/* -> 198.18.0.1:3000",
            "https members.dev/* -> 198.18.0.1:3000",
            "https secure.dev/* -> 198.18.0.1:3000",
        ]
    );
    assert_eq!(certificates(&after), ["members.dev: client", "secure.dev: any"]);
    assert!(after.problems.is_empty(), "{:?}", after.problems);
}
