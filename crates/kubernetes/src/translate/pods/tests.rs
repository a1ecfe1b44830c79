//! Objects in, routes out: the document's examples, the original's faults mended, bad input that touches
//! nobody else.
//!
//! Routes are compared as text, one line a rule; see [`shown`]. What one annotation may say is tested
//! beside its reader.

mod bad_input;
mod conflicts;
mod document;
mod examples;
mod mended;
mod routes;
mod scale;

use std::sync::Arc;

use model::{Action, Certificate, HostPattern, PathMatch, PathRewrite, PemSource, Rule, RuleSet};

use super::PodOptions;
use crate::objects::{
    Container, ContainerAsk, ContainerProbe, Key, Meta, Namespace, Pod, PortRef, Secret,
};
use crate::store::{Changed, Object, Store};
use crate::translate::{Options, Translation, Translator};

/// A Namespace of that age (higher is younger) with a hosts annotation.
fn namespace(name: &str, created: i64, hosts: &str) -> Object {
    let meta = meta("", name, created);
    Namespace { meta, hosts: Some(hosts.into()), labels: [].into() }.into()
}

/// A Pod that serves on 10.0.0.N, N its age, with the ports 80, 443 and 3000.
fn pod(namespace: &str, name: &str, created: u8, paths: &str) -> Pod {
    let ports = [("", 80), ("https", 443), ("app", 3000)].map(|(name, port)| (name.into(), port));
    Pod {
        meta: meta(namespace, name, created.into()),
        paths: Some(paths.into()),
        labels: [].into(),
        address: Some([10, 0, 0, created].into()),
        running: true,
        ready: true,
        containers: vec![Container { ports: ports.into(), probe: None }],
    }
}

/// The Secret `routing`.
fn secret(namespace: &str, fields: &[(&str, &str)]) -> Object {
    let data = fields.iter().map(|(name, value)| ((*name).into(), value.as_bytes().into()));
    Secret { meta: meta(namespace, "routing", 0), data: data.collect() }.into()
}

fn meta(namespace: &str, name: &str, created: i64) -> Meta {
    let key = Key { namespace: namespace.into(), name: name.into() };
    Meta { key, uid: "".into(), created, deleting: false }
}

/// One path to port 3000.
fn path(base: &str) -> String {
    format!(r#"[{{"basePath": "{base}", "containerPort": "3000"}}]"#)
}

/// Options of a host: TLS from the fields `crt` and `key`, and `ca` if asked for.
fn tls_host(host: &str, client: bool) -> String {
    let field =
        |field: &str| format!(r#"{{"valueFrom": {{"secretKeyRef": {{"key": "{field}"}}}}}}"#);
    let client =
        if client { format!(r#", "clientCertificate": {}"#, field("ca")) } else { String::new() };
    format!(
        r#"{{"{host}": {{"ssl": {{"certificate": {}, "certificateKey": {}{client}}}}}}}"#,
        field("crt"),
        field("key")
    )
}

const CRT: &str = "-----BEGIN CERTIFICATE-----\nx\n";
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nSECRETKEY\n";

/// Stands for the program's check: a certificate says in its text what is wrong with it.
fn check(certificate: &Certificate) -> Result<Vec<String>, String> {
    let PemSource::Inline(text) = &certificate.chain else { return Ok(Vec::new()) };
    match String::from_utf8_lossy(text) {
        text if text.contains("MISMATCH") => Err("the key is not the certificate's".to_owned()),
        text if text.contains("EXPIRED") => Ok(vec!["it expired on 2020-01-01".to_owned()]),
        _ => Ok(Vec::new()),
    }
}

fn store(objects: impl IntoIterator<Item = Object>) -> Store {
    let mut store = Store::default();
    for object in objects {
        store.apply(object, &mut Changed::default());
    }
    store
}

fn translate_with(options: PodOptions, objects: impl IntoIterator<Item = Object>) -> Translation {
    let options =
        Options { pods: Some(options), check_certificate: Some(check), ..Options::default() };
    Translator::new(options).translate(&store(objects), Changed::everything())
}

fn translate(objects: impl IntoIterator<Item = Object>) -> Translation {
    translate_with(PodOptions { tls: true, ..PodOptions::default() }, objects)
}

/// Rules as lines, sorted: `http a.test/x* -> 10.0.0.1:3000`, without those for hosts that nobody claims.
/// `both` stands for http and https, `*` behind a path for a prefix, `=> /y` for what takes its place, `xN`
/// for a weight above 1.
fn shown(translation: &Translation) -> Vec<String> {
    let lines = |rules: &RuleSet| -> Vec<String> {
        rules.rules.iter().map(|rule| line(translation, rule)).collect()
    };
    let (plain, tls) = (lines(&translation.rules), lines(&translation.tls_rules));
    let mut all: Vec<String> = Vec::new();
    for line in &plain {
        let listeners = if tls.contains(line) { "both" } else { "http" };
        all.push(format!("{listeners} {line}"));
    }
    all.extend(tls.iter().filter(|line| !plain.contains(line)).map(|line| format!("https {line}")));
    all.retain(|line| line != "both /dispatcher/status = 200" && line != "both fallback * = close");
    all.sort();
    all
}

fn line(translation: &Translation, rule: &Rule) -> String {
    use std::fmt::Write;
    let mut line = if rule.fallback { "fallback ".to_owned() } else { String::new() };
    if let HostPattern::Exact(host) = &rule.hosts {
        line.push_str(host.as_str());
    }
    match &rule.path {
        PathMatch::Any => line.push('*'),
        PathMatch::Exact(path) => line.push_str(path),
        PathMatch::Prefix(path) => write!(line, "{path}*").unwrap(),
        other => panic!("{other:?}"),
    }
    match &rule.action {
        Action::Forward(upstreams) => {
            let upstream = translation.upstreams[upstreams[0].upstream.0].clone();
            line.push_str(" ->");
            for endpoint in &upstream.endpoints {
                write!(line, " {}", endpoint.target).unwrap();
                if endpoint.weight > 1 {
                    write!(line, "x{}", endpoint.weight).unwrap();
                }
            }
        }
        Action::Respond { status } => write!(line, " = {status}").unwrap(),
        Action::Redirect(to) => write!(line, " = {}", to.status).unwrap(),
        Action::Close => line.push_str(" = close"),
        Action::Unavailable { .. } => panic!("{rule:?}"),
    }
    if let PathRewrite::ReplaceMatch(path) | PathRewrite::ReplaceWhole(path) = &rule.rewrite {
        write!(line, " => {path}").unwrap();
    }
    if let Some(key) = &rule.api_key {
        write!(line, " if {}: {}", key.header, String::from_utf8_lossy(&key.value)).unwrap();
    }
    if let Some(bytes) = rule.request_body_max {
        write!(line, " max {bytes}").unwrap();
    }
    line
}

/// `Kind namespace/name: Reason`, sorted.
fn problems(translation: &Translation) -> Vec<String> {
    let shown = |p: &crate::translate::Problem| format!("{}: {}", p.object, p.reason);
    translation.problems.iter().map(shown).collect()
}

/// `host: client certificates asked for or not`
fn certificates(translation: &Translation) -> Vec<String> {
    let one = |certificate: &Certificate| {
        let client = if certificate.client_verification.is_some() { "client" } else { "any" };
        format!("{}: {client}", certificate.hosts[0])
    };
    translation.certificates.iter().map(one).collect()
}

/// What a request is answered by: the most specific rule, naively.
fn answer(translation: &Translation, rules: &Arc<RuleSet>, host: &str, path: &str) -> String {
    let fits = |rule: &&Rule| {
        let path = match &rule.path {
            PathMatch::Any => true,
            PathMatch::Exact(p) => p == path,
            PathMatch::Prefix(p) => path.starts_with(p.as_str()),
            _ => false,
        };
        path && rule.hosts.matches(host)
    };
    let rank = |rule: &&Rule| {
        let (exact, length) = match &rule.path {
            PathMatch::Exact(p) => (true, p.len()),
            PathMatch::Prefix(p) => (false, p.len()),
            _ => (false, 0),
        };
        (!rule.fallback, rule.hosts != HostPattern::Any, exact, length)
    };
    let best = rules.rules.iter().filter(fits).max_by_key(rank);
    best.map_or_else(|| "none".to_owned(), |rule| line(translation, rule))
}
