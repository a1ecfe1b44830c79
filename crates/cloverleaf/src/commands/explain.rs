//! `cloverleaf explain`: which listener, rule, upstream and endpoint a request takes, and why not the others.
//!
//! Looks at the file alone; nothing is sent.

use std::fmt::Write;
use std::process::ExitCode;

use config::Config;
use http_proxy::routing::{decode_path, explain, normalize_host, strip_match};
use model::{Action, Listener, PathRewrite, Rule, Snapshot};
use serde_json::{Value, json};

use super::check::{goes_to, matches};
use super::{diagnostics_json, print};
use crate::UsageError;
use crate::cli::{ExplainArgs, Output};
use crate::source::Source;

/// Explains one request; exit code 1 where no rule takes it, 2 where the file is not valid.
pub(crate) fn run(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let source = Source::resolve(&args.source)?;
    let (config, found) = source.load();
    let Some(config) = config else {
        match args.output {
            Output::Json => print(&format!("{:#}\n", json!({ "problems": diagnostics_json(&found) }))),
            Output::Text => eprintln!("{found}"),
        }
        return Ok(ExitCode::from(crate::EXIT_USAGE));
    };
    let request = Request::parse(&args.request, &args.headers)?;
    let listener = request.listener(&config, args.listener.as_deref())?;
    let answer = Answer::find(&config.snapshot, listener, &request)?;
    match args.output {
        Output::Text => print(&answer.text(&config.snapshot, &request)),
        Output::Json => print(&format!("{:#}\n", answer.json(&config.snapshot, &request))),
    }
    Ok(if answer.rule.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A request as the user wrote it.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    method: String,
    scheme: Option<String>,
    /// Host and perhaps port.
    authority: String,
    /// Where the URL had a port, or its scheme has one.
    port: Option<u16>,
    path: String,
    query: String,
}

impl Request {
    fn parse(text: &str, headers: &[String]) -> Result<Self, UsageError> {
        let bad = |what: &str| UsageError(format!("request {text:?}: {what}; expected 'GET http://host:port/path'"));
        let (method, url) = match text.trim().split_once(' ') {
            Some((method, url)) => (method.to_ascii_uppercase(), url.trim()),
            None => ("GET".to_owned(), text.trim()),
        };
        let (scheme, rest) = match url.split_once("://") {
            Some((scheme @ ("http" | "https"), rest)) => (Some(scheme.to_owned()), rest),
            Some(_) => return Err(bad("the scheme is neither http nor https")),
            None => (None, url),
        };
        let cut = rest.find(['/', '?']).unwrap_or(rest.len());
        let (mut authority, target) = (rest[..cut].to_owned(), &rest[cut..]);
        let (path, query) = target.split_once('?').map_or((target, ""), |(path, query)| (path, query));
        let explicit = authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        let usual = match scheme.as_deref() {
            Some("https") => Some(443),
            Some(_) => Some(80),
            None => None,
        };
        for header in headers {
            let (name, value) =
                header.split_once(':').ok_or_else(|| UsageError(format!("header {header:?}: expected 'Name: value'")))?;
            if name.trim().eq_ignore_ascii_case("host") {
                value.trim().clone_into(&mut authority);
            }
        }
        let path = if path.is_empty() { "/" } else { path };
        Ok(Self { method, scheme, authority, port: explicit.or(usual), path: path.to_owned(), query: query.to_owned() })
    }

    /// The listener it comes in at: the one named, else by scheme and port, else the first of that scheme.
    fn listener<'c>(&self, config: &'c Config, named: Option<&str>) -> Result<&'c Listener, UsageError> {
        let listeners = &config.snapshot.listeners;
        if let Some(name) = named {
            let names: Vec<&str> = listeners.iter().map(|l| &*l.name).collect();
            return listeners.iter().find(|l| &*l.name == name).ok_or_else(|| {
                UsageError(format!("--listener {name:?}: no such listener, expected one of {}", names.join(", ")))
            });
        }
        let fits = |l: &&Listener| self.scheme.as_deref().is_none_or(|s| s == l.protocol.scheme());
        let by_port = listeners.iter().filter(fits).find(|l| Some(l.address.port()) == self.port);
        by_port
            .or_else(|| listeners.iter().find(fits))
            .ok_or_else(|| UsageError(format!("no listener serves {}", self.scheme.as_deref().unwrap_or("this"))))
    }
}

/// What was found.
struct Answer<'a> {
    listener: &'a Listener,
    rule: Option<&'a Rule>,
    passed_over: Vec<(&'a Rule, String)>,
    /// Path and query as the upstream gets them.
    target: String,
}

impl<'a> Answer<'a> {
    fn find(_snapshot: &Snapshot, listener: &'a Listener, request: &Request) -> Result<Self, UsageError> {
        let host = normalize_host(request.authority.as_bytes())
            .map_err(|e| UsageError(format!("host {:?}: {e}", request.authority)))?;
        let mut scratch = Vec::new();
        let decoded = decode_path(request.path.as_bytes(), &mut scratch)
            .map_err(|e| UsageError(format!("path {:?}: {e}", request.path)))?;
        let explanation = explain(listener, &host, decoded);
        let rules = explanation.scope.and_then(|s| listener.scopes.get(s)).map(|s| &s.rules.rules);
        let rule_at = |index: usize| rules.and_then(|r| r.get(index));
        let passed_over = explanation
            .passed_over
            .iter()
            .filter_map(|(index, verdict)| Some((rule_at(*index)?, verdict.to_string())))
            .collect();
        let rule = explanation.rule.and_then(rule_at);
        let path = match rule {
            Some(rule) if rule.rewrite == PathRewrite::StripMatch => {
                String::from_utf8_lossy(&strip_match(request.path.as_bytes(), &rule.path)).into_owned()
            }
            _ => request.path.clone(),
        };
        let target = if request.query.is_empty() { path } else { format!("{path}?{}", request.query) };
        Ok(Self { listener, rule, passed_over, target })
    }

    fn text(&self, snapshot: &Snapshot, request: &Request) -> String {
        let mut out = String::new();
        let l = self.listener;
        let _ = writeln!(out, "{} {}{}", request.method, request.authority, request.path);
        let _ = writeln!(out, "listener {}: {}://{}", l.name, l.protocol.scheme(), l.address);
        for (rule, why) in &self.passed_over {
            let _ = writeln!(out, "  not {} ({}): {why}", rule.name, rule.place);
        }
        let Some(rule) = self.rule else {
            let _ = writeln!(out, "no rule matches: 404");
            return out;
        };
        let _ = writeln!(out, "rule {} ({}): {} -> {}", rule.name, rule.place, matches(rule), goes_to(rule, snapshot));
        for upstream in self.upstreams(snapshot) {
            let tls = if upstream.tls.is_some() { ", TLS" } else { "" };
            let _ = writeln!(out, "upstream {} ({}{tls}): gets {}", upstream.name, algorithm(upstream), self.target);
            for endpoint in &upstream.endpoints {
                let _ = writeln!(out, "  endpoint {} weight {}", endpoint.target, endpoint.weight);
            }
        }
        out
    }

    fn json(&self, snapshot: &Snapshot, request: &Request) -> Value {
        let place = |rule: &Rule| rule.place.to_string();
        json!({
            "request": { "method": request.method, "host": request.authority, "path": request.path },
            "listener": &*self.listener.name,
            "passed_over": self.passed_over.iter().map(|(rule, why)| {
                json!({ "rule": &*rule.name, "place": place(rule), "because": why })
            }).collect::<Vec<_>>(),
            "rule": self.rule.map(|rule| json!({ "name": &*rule.name, "place": place(rule) })),
            "status": match self.rule.map(|r| &r.action) {
                None => json!(404),
                Some(Action::Unavailable { .. }) => json!(503),
                Some(Action::Forward(_)) => Value::Null,
            },
            "target": self.target,
            "upstreams": self.upstreams(snapshot).map(|u| json!({
                "name": &*u.name,
                "algorithm": algorithm(u),
                "tls": u.tls.is_some(),
                "endpoints": u.endpoints.iter().map(|e| {
                    json!({ "target": e.target.to_string(), "weight": e.weight })
                }).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
        })
    }

    fn upstreams<'s>(&self, snapshot: &'s Snapshot) -> impl Iterator<Item = &'s model::Upstream> {
        let refs = match self.rule.map(|r| &r.action) {
            Some(Action::Forward(upstreams)) => upstreams.clone(),
            _ => Vec::new(),
        };
        refs.into_iter().filter_map(|r| snapshot.upstream(r.upstream))
    }
}

/// An algorithm's name, as the file has it.
pub(crate) fn algorithm(upstream: &model::Upstream) -> &'static str {
    match upstream.algorithm {
        model::Algorithm::RoundRobin => "roundRobin",
        model::Algorithm::LeastRequests => "leastRequests",
    }
}
