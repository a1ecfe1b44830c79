//! A store from manifests, its translation, and the rule that a request would take, found naively.

use std::fmt::Write as _;

use cloverleaf_kubernetes::manifests::{Reading, read_manifests};
use cloverleaf_kubernetes::objects::AnnotationNames;
use cloverleaf_kubernetes::store::Store;
use cloverleaf_kubernetes::translate::{Changed, IngressOptions, Options, Translation, Translator};
use model::{Action, Certificate, HostPattern, PathMatch, PemSource, Rule, Severity, Upstream};

/// The class of all cases that do not say otherwise.
pub(crate) const CLASS: &str = "
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: cloverleaf}
spec: {controller: cloverleaf/gateway}
";

/// The store that manifests come to; they must be right.
pub(crate) fn store(manifests: &str) -> Store {
    let reading = Reading { routable: &|_| true, names: &AnnotationNames::default(), secret: None };
    let (store, diagnostics) =
        read_manifests([("class.yaml", CLASS), ("case.yaml", manifests)], reading);
    let errors: Vec<String> = diagnostics
        .iter()
        .filter(|d| d.severity == Severity::Error)
        .map(ToString::to_string)
        .collect();
    assert!(errors.is_empty(), "{errors:#?}\n{manifests}");
    store
}

pub(crate) fn options() -> Options {
    Options {
        ingress: Some(IngressOptions::default()),
        check_certificate: Some(check),
        ..Options::default()
    }
}

/// A certificate whose text says so is bad or odd.
fn check(certificate: &Certificate) -> Result<Vec<String>, String> {
    let PemSource::Inline(chain) = &certificate.chain else { return Err("no text".into()) };
    let chain = String::from_utf8_lossy(chain);
    if chain.contains("mismatched") {
        return Err("the key does not belong to the certificate".into());
    }
    if chain.contains("expired") {
        return Ok(vec!["it expired on 2001-01-01".into()]);
    }
    Ok(Vec::new())
}

pub(crate) fn translate(manifests: &str) -> Translation {
    translate_with(options(), manifests)
}

pub(crate) fn translate_with(options: Options, manifests: &str) -> Translation {
    let translation = Translator::new(options).translate(&store(manifests), Changed::everything());
    sound(&translation);
    translation
}

/// What holds for every translation.
pub(crate) fn sound(translation: &Translation) {
    for rules in [&translation.rules, &translation.tls_rules] {
        let mut names: Vec<&str> = rules.rules.iter().map(|rule| &*rule.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "names of rules: {names:?}");
    }
    let mut names: Vec<&str> = translation.upstreams.iter().map(|u| &*u.name).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "names of upstreams: {names:?}");
    for rule in translation.rules.rules.iter().chain(&translation.tls_rules.rules) {
        if let Action::Forward(targets) = &rule.action {
            assert!(!targets.is_empty());
            for target in targets {
                assert!(target.upstream.0 < translation.upstreams.len(), "{}", rule.name);
            }
        }
    }
    assert!(translation.certificates.iter().all(|c| !c.hosts.is_empty()));
    assert!(translation.problems.is_sorted());
    assert!(translation.problems.iter().all(|p| p.message.len() < 1500), "a message too long");
    assert!(translation.ours.is_sorted());
}

/// The rule that a request takes.
pub(crate) fn rule<'t>(translation: &'t Translation, host: &str, path: &str) -> Option<&'t Rule> {
    let fits = |rule: &&Rule| {
        rule.hosts.matches(host)
            && match &rule.path {
                PathMatch::Any => true,
                PathMatch::Exact(exact) => exact == path,
                PathMatch::Prefix(prefix) => path.starts_with(prefix.as_str()),
                PathMatch::Segments(segments) => {
                    let key = segments.trim_end_matches('/');
                    let rest = path.strip_prefix(key);
                    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                }
                PathMatch::Never => false,
            }
    };
    let rank = |rule: &&Rule| {
        let host = match &rule.hosts {
            HostPattern::Exact(_) => 0,
            HostPattern::OneLabel(_) | HostPattern::ManyLabels(_) => 1,
            HostPattern::Any => 2,
        };
        let (inexact, length) = match &rule.path {
            PathMatch::Exact(text) => (false, text.len()),
            PathMatch::Prefix(text) | PathMatch::Segments(text) => (true, text.len()),
            PathMatch::Any | PathMatch::Never => (true, 0),
        };
        (rule.fallback, host, inexact, std::cmp::Reverse(length))
    };
    translation.rules.rules.iter().filter(fits).min_by_key(rank)
}

/// What a request gets: the name of an upstream, `503 NAME`, or `404`.
pub(crate) fn route(translation: &Translation, host: &str, path: &str) -> String {
    match rule(translation, host, path).map(|rule| &rule.action) {
        None => "404".to_owned(),
        Some(Action::Forward(targets)) => {
            translation.upstreams[targets[0].upstream.0].name.to_string()
        }
        Some(Action::Unavailable { upstream }) => format!("503 {upstream}"),
        Some(other) => format!("{other:?}"),
    }
}

pub(crate) fn upstream<'t>(translation: &'t Translation, name: &str) -> &'t Upstream {
    let names: Vec<&str> = translation.upstreams.iter().map(|u| &*u.name).collect();
    let found = translation.upstreams.iter().find(|u| &*u.name == name);
    found.unwrap_or_else(|| panic!("no upstream {name} among {names:?}"))
}

/// Addresses of an upstream's endpoints.
pub(crate) fn addresses(translation: &Translation, name: &str) -> Vec<String> {
    upstream(translation, name).endpoints.iter().map(|e| e.target.to_string()).collect()
}

/// `Kind namespace/name Reason: message`, one a line.
pub(crate) fn problems(translation: &Translation) -> String {
    let mut text = String::new();
    for problem in translation.problems.iter() {
        let _ = writeln!(text, "{} {}: {}", problem.object, problem.reason, problem.message);
    }
    text
}

#[track_caller]
pub(crate) fn no_problems(translation: &Translation) {
    assert_eq!(problems(translation), "");
}

/// There is a problem with this object, of this reason, that says this.
#[track_caller]
pub(crate) fn has_problem(translation: &Translation, object: &str, reason: &str, says: &str) {
    let found = translation.problems.iter().any(|problem| {
        problem.object.to_string() == object
            && problem.reason == reason
            && problem.message.contains(says)
    });
    assert!(found, "no {reason} of {object} with {says:?} in:\n{}", problems(translation));
}

/// An Ingress of our class; `created` is a day of January 2026, `annotations` and `spec` are YAML flow
/// mappings without their braces.
pub(crate) fn ingress(name: &str, created: u32, annotations: &str, spec: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    format!(
        "---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: {name}
  namespace: {namespace}
  creationTimestamp: 2026-01-{created:02}T00:00:00Z
  annotations: {{{annotations}}}
spec: {{ingressClassName: cloverleaf, {spec}}}
"
    )
}

/// `spec.rules` with one rule and path.
pub(crate) fn one_path(host: &str, path_type: &str, path: &str, service: &str) -> String {
    format!("rules: [{}]", one_rule(host, path_type, path, service))
}

/// One of `spec.rules`.
pub(crate) fn one_rule(host: &str, path_type: &str, path: &str, service: &str) -> String {
    let host = if host.is_empty() { String::new() } else { format!("host: {host:?}, ") };
    format!(
        "{{{host}http: {{paths: [{{path: {path:?}, pathType: {path_type}, backend: {}}}]}}}}",
        backend(service)
    )
}

/// `service:port`, the port by number or name.
pub(crate) fn backend(service: &str) -> String {
    let (name, port) = service.split_once(':').unwrap_or((service, "80"));
    let by = if port.bytes().all(|b| b.is_ascii_digit()) { "number" } else { "name" };
    format!("{{service: {{name: {name}, port: {{{by}: {port}}}}}}}")
}

/// A Service with port 80 named http, and one ready endpoint.
pub(crate) fn service(name: &str) -> String {
    service_with(name, "ports: [{name: http, port: 80, targetPort: 8080}]")
        + &slice(name, "http", 8080, &[("10.1.0.1", "ready: true")])
}

pub(crate) fn service_with(name: &str, spec: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    format!(
        "---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{{spec}}}
"
    )
}

/// An EndpointSlice of a Service, with addresses and their conditions.
pub(crate) fn slice(service: &str, port: &str, number: u16, endpoints: &[(&str, &str)]) -> String {
    let (namespace, name) = service.split_once('/').unwrap_or(("default", service));
    let family = match endpoints.first() {
        Some((address, _)) if address.contains(':') => "IPv6",
        _ => "IPv4",
    };
    let mut text = format!(
        "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {name}-{port}-{family}
  namespace: {namespace}
  labels: {{kubernetes.io/service-name: {name}}}
addressType: {family}
ports: [{{name: {port:?}, port: {number}, protocol: TCP}}]
endpoints:
"
    );
    for (address, rest) in endpoints {
        let (conditions, hints) = rest.split_once(';').unwrap_or((rest, ""));
        let _ = writeln!(
            text,
            "- {{addresses: [\"{address}\"], conditions: {{{conditions}}}, hints: {{{hints}}}}}"
        );
    }
    text
}

/// A Secret of type kubernetes.io/tls whose certificate says this of itself.
pub(crate) fn secret(name: &str, says: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    format!(
        "---
apiVersion: v1
kind: Secret
metadata: {{name: {name}, namespace: {namespace}}}
type: kubernetes.io/tls
stringData:
  tls.crt: '-----BEGIN CERTIFICATE----- {says}'
  tls.key: '-----BEGIN PRIVATE KEY----- hidden'
  ca.crt: '-----BEGIN CERTIFICATE----- authority'
"
    )
}
