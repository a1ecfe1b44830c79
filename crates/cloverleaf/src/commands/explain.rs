//! `cloverleaf explain`: which listener, rule, upstream and endpoint a request takes, and why not the others.
//!
//! Looks at the file, or at a cluster's objects, alone; nothing is sent.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::process::ExitCode;

use config::Config;
use http_proxy::routing::{
    Asked, clean_path, decode_path, explain, location, normalize_host, rewritten,
};
use mesh::files::mappings::Mapping;
use mesh::source::{Files, read_file};
use model::{Action, Diagnostics, Endpoint, Listener, Place, Rule, Scheme, Snapshot, Target};
use serde_json::{Value, json};

use super::check::{goes_to, guards, matches};
use super::{diagnostics_json, print};
use crate::UsageError;
use crate::cli::{ExplainArgs, Output};
use crate::cluster::{ClusterSetup, once};
use crate::source::Source;

/// Explains one request; exit code 1 where nobody takes it, 2 where the file is not valid.
pub(crate) fn run(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let (config, found) = load(args)?;
    let Some(config) = config else {
        match args.output {
            Output::Json => {
                print(&format!("{:#}\n", json!({ "problems": diagnostics_json(&found) })))
            }
            Output::Text => eprintln!("{found}"),
        }
        return Ok(ExitCode::from(crate::EXIT_USAGE));
    };
    let request = Request::parse(&args.request, &args.headers)?;
    let listener = request.listener(&config, args.listener.as_deref())?;
    let mut answer = Answer::find(&config.snapshot, listener, &request)?;
    answer.mesh = config.mesh.as_ref().map(|m| Files::read(&m.proxy_conf, None, &read_file).0);
    match args.output {
        Output::Text => print(&answer.text(&config.snapshot, &request)),
        Output::Json => print(&format!("{:#}\n", answer.json(&config.snapshot, &request))),
    }
    let taken = answer.rule.is_some() || answer.own.is_some();
    Ok(if taken { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The file, or what the cluster comes to with it.
fn load(args: &ExplainArgs) -> anyhow::Result<(Option<Config>, Diagnostics)> {
    let source = Source::resolve(&args.source)?;
    if !args.kubernetes {
        if args.cluster.is_given() {
            return Err(UsageError("flags about Kubernetes without --kubernetes".to_owned()).into());
        }
        return Ok(source.load());
    }
    let setup = ClusterSetup::resolve(&args.cluster, source.overrides.tls_skip_verify)?;
    let (base, found) = source.with_cluster(&args.source, &setup, None)?.load();
    let Some(base) = base else { return Ok((None, found)) };
    let looked = once::look(setup, base)?;
    Ok((Some(looked.config).filter(|_| !looked.found.has_errors()), looked.found))
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
        let bad = |what: &str| {
            UsageError(format!("request {text:?}: {what}; expected 'GET http://host:port/path'"))
        };
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
        let (path, query) =
            target.split_once('?').map_or((target, ""), |(path, query)| (path, query));
        let explicit = authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        let usual = match scheme.as_deref() {
            Some("https") => Some(443),
            Some(_) => Some(80),
            None => None,
        };
        for header in headers {
            let (name, value) = header
                .split_once(':')
                .ok_or_else(|| UsageError(format!("header {header:?}: expected 'Name: value'")))?;
            if name.trim().eq_ignore_ascii_case("host") {
                value.trim().clone_into(&mut authority);
            }
        }
        let path = if path.is_empty() { "/" } else { path };
        Ok(Self {
            method,
            scheme,
            authority,
            port: explicit.or(usual),
            path: path.to_owned(),
            query: query.to_owned(),
        })
    }

    /// Where a rule sends the client, if it does.
    fn location(
        &self,
        rule: &Rule,
        target: &str,
        snapshot: &Snapshot,
        listener: &Listener,
    ) -> Option<String> {
        let Action::Redirect(to) = &rule.action else { return None };
        let asked = Asked {
            scheme: Scheme::parse(listener.protocol.scheme().as_bytes())?,
            authority: self.authority.as_bytes(),
            target: target.as_bytes(),
        };
        let location = location(rule, to, &asked, snapshot.manners.redirect_unclean_paths)?;
        Some(String::from_utf8_lossy(&location).into_owned())
    }

    /// The listener it comes in at: the one named, else by scheme and port, else the first of that scheme.
    fn listener<'c>(
        &self,
        config: &'c Config,
        named: Option<&str>,
    ) -> Result<&'c Listener, UsageError> {
        let listeners = &config.snapshot.listeners;
        if let Some(name) = named {
            let names: Vec<&str> = listeners.iter().map(|l| &*l.name).collect();
            return listeners.iter().find(|l| &*l.name == name).ok_or_else(|| {
                UsageError(format!(
                    "--listener {name:?}: no such listener, expected one of {}",
                    names.join(", ")
                ))
            });
        }
        let fits = |l: &&Listener| self.scheme.as_deref().is_none_or(|s| s == l.protocol.scheme());
        let by_port = listeners.iter().filter(fits).find(|l| Some(l.address.port()) == self.port);
        by_port.or_else(|| listeners.iter().find(fits)).ok_or_else(|| {
            UsageError(format!("no listener serves {}", self.scheme.as_deref().unwrap_or("this")))
        })
    }
}

/// What was found.
struct Answer<'a> {
    listener: &'a Listener,
    /// What the gateway says by itself, before any rule: status and what it is.
    own: Option<(u16, String)>,
    rule: Option<&'a Rule>,
    passed_over: Vec<(&'a Rule, String)>,
    /// Path and query as the upstream gets them.
    target: String,
    /// Where the client is sent.
    location: Option<String>,
    /// Where cluster ports lead, if there is a mesh.
    mesh: Option<Files>,
}

impl<'a> Answer<'a> {
    fn find(
        snapshot: &'a Snapshot,
        listener: &'a Listener,
        request: &Request,
    ) -> Result<Self, UsageError> {
        let query =
            if request.query.is_empty() { String::new() } else { format!("?{}", request.query) };
        if let Some(own) = own_answer(snapshot, request, &query) {
            let target = request.path.clone() + &query;
            return Ok(Self {
                listener,
                own: Some(own),
                rule: None,
                passed_over: Vec::new(),
                target,
                location: None,
                mesh: None,
            });
        }
        let host = normalize_host(request.authority.as_bytes())
            .map_err(|e| UsageError(format!("host {:?}: {e}", request.authority)))?;
        let mut scratch = Vec::new();
        let decoded = decode_path(request.path.as_bytes(), &mut scratch)
            .map_err(|e| UsageError(format!("path {:?}: {e}", request.path)))?;
        let explanation = explain(listener, &host, decoded);
        let rules = explanation.scope.and_then(|s| listener.scopes.get(s)).map(|s| &s.rules.rules);
        let rule_at = |index: usize| rules.and_then(|r| r.get(index));
        let rule = explanation.rule.and_then(rule_at);
        let verdicts = explanation.passed_over.iter();
        let mut passed_over: Vec<(&Rule, String)> = verdicts
            .filter_map(|(at, verdict)| Some((rule_at(*at)?, verdict.to_string())))
            .collect();
        passed_over.extend(elsewhere(snapshot, listener, rule.map(|r| &r.place)));
        // The order of the file, which an explanation of one listener keeps already.
        passed_over.sort_by(|(one, _), (other, _)| one.place.cmp(&other.place));
        let mut target = request.path.clone() + &query;
        let location = rule.and_then(|rule| request.location(rule, &target, snapshot, listener));
        if let Some(rule) = rule {
            let cleans = snapshot.manners.redirect_unclean_paths;
            let changed = rewritten(target.as_bytes(), rule, cleans);
            target = String::from_utf8_lossy(&changed).into_owned();
        }
        Ok(Self { listener, own: None, rule, passed_over, target, location, mesh: None })
    }

    fn text(&self, snapshot: &Snapshot, request: &Request) -> String {
        let mut out = String::new();
        let l = self.listener;
        let _ = writeln!(out, "{} {}{}", request.method, request.authority, request.path);
        let _ = writeln!(out, "listener {}: {}://{}", l.name, l.protocol.scheme(), l.address);
        for (rule, why) in &self.passed_over {
            let _ = writeln!(out, "  not {} ({}): {why}", rule.name, rule.place);
        }
        if let Some((status, what)) = &self.own {
            let _ = writeln!(out, "the gateway itself answers {status}: {what}");
            return out;
        }
        let Some(rule) = self.rule else {
            let _ = writeln!(out, "no rule matches: 404");
            return out;
        };
        let _ = writeln!(
            out,
            "rule {} ({}): {} -> {}",
            rule.name,
            rule.place,
            matches(rule),
            goes_to(rule, snapshot)
        );
        for guard in guards(rule, snapshot) {
            let _ = writeln!(out, "  needs {guard}");
        }
        if let Some(location) = &self.location {
            let _ = writeln!(out, "  Location: {location}");
        }
        for upstream in self.upstreams(snapshot) {
            let tls = if upstream.tls.is_some() { ", TLS" } else { "" };
            let _ = writeln!(
                out,
                "upstream {} ({}{tls}): gets {}",
                upstream.name,
                algorithm(upstream),
                self.target
            );
            for endpoint in &upstream.endpoints {
                let _ = writeln!(out, "  endpoint {} weight {}", endpoint.target, endpoint.weight);
                if let Some((there, tunnel)) = tunnel(snapshot, &endpoint.target) {
                    let (mode, server) = (tunnel.mode.as_str(), &tunnel.servers);
                    let of = there.cluster.as_ref().map(|c| format!(" of cluster {c}"));
                    let of = of.unwrap_or_else(|| " that the server chooses".to_owned());
                    let _ = writeln!(out, "    {} from an agent{of}", there.to);
                    let _ = writeln!(out, "    through {server}, mode {mode}");
                }
                if let Some((own, hosts)) = self.pods(&endpoint.target) {
                    for pod in own {
                        let (port, most) = (pod.host_port, pod.connections_max);
                        let _ = writeln!(out, "    pod at host port {port}, {most} connections");
                    }
                    let _ = writeln!(out, "    then a pod of another of {hosts} hosts");
                }
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
            "status": match (&self.own, self.rule.map(|r| &r.action)) {
                (Some((status, _)), _) => json!(status),
                (None, None) => json!(404),
                (None, Some(Action::Unavailable { .. })) => json!(503),
                (None, Some(Action::Respond { status })) => json!(status),
                (None, Some(Action::Redirect(redirect))) => json!(redirect.status),
                (None, Some(Action::Forward(_) | Action::Close)) => Value::Null,
            },
            "needs": self.rule.map(|rule| guards(rule, snapshot)).unwrap_or_default(),
            "location": self.location,
            "closes": self.rule.is_some_and(|rule| rule.action == Action::Close),
            "own": self.own.as_ref().map(|(_, what)| what),
            "target": self.target,
            "upstreams": self.upstreams(snapshot).map(|u| json!({
                "name": &*u.name,
                "algorithm": algorithm(u),
                "tls": u.tls.is_some(),
                "endpoints": u.endpoints.iter().map(|e| self.endpoint_json(snapshot, e)).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
        })
    }

    fn endpoint_json(&self, snapshot: &Snapshot, endpoint: &Endpoint) -> Value {
        let mut shown = json!({ "target": endpoint.target.to_string(), "weight": endpoint.weight });
        if let Some((own, hosts)) = self.pods(&endpoint.target) {
            let pod =
                |m: &Mapping| json!({ "hostPort": m.host_port, "maxConn": m.connections_max });
            shown["pods"] = own.iter().map(pod).collect();
            shown["hosts"] = json!(hosts);
        }
        if let Some((there, tunnel)) = tunnel(snapshot, &endpoint.target) {
            shown["tunnel"] = json!({
                "name": &*tunnel.name,
                "server": tunnel.servers.to_string(),
                "mode": tunnel.mode.as_str(),
                "cluster": there.cluster.as_deref(),
                "address": there.to.to_string(),
            });
        }
        shown
    }

    /// Of a cluster port, the pods of this host, which come first, and how many hosts the mesh has.
    fn pods(&self, target: &Target) -> Option<(Vec<Mapping>, usize)> {
        let (Target::ClusterPort(port), Some(mesh)) = (target, &self.mesh) else { return None };
        let own = mesh.mappings.iter().filter(|mapping| mapping.cluster_port == *port).copied();
        Some((own.collect(), mesh.hosts.len()))
    }

    fn upstreams<'s>(&self, snapshot: &'s Snapshot) -> impl Iterator<Item = &'s model::Upstream> {
        let refs = match self.rule.map(|r| &r.action) {
            Some(Action::Forward(upstreams)) => upstreams.clone(),
            _ => Vec::new(),
        };
        refs.into_iter().filter_map(|r| snapshot.upstream(r.upstream))
    }
}

/// What an endpoint behind a tunnel is reached through.
fn tunnel<'s>(
    snapshot: &'s Snapshot,
    target: &'s Target,
) -> Option<(&'s model::Tunnelled, &'s model::Tunnel)> {
    let Target::Tunnelled(there) = target else { return None };
    let tunnel = snapshot.tunnels.iter().find(|tunnel| tunnel.name == there.tunnel)?;
    Some((there, tunnel))
}

/// What the gateway answers without asking any rule.
fn own_answer(snapshot: &Snapshot, request: &Request, query: &str) -> Option<(u16, String)> {
    let manners = &snapshot.manners;
    match request.path.as_str() {
        "/.nanoproxy/health" if manners.health_path => {
            return Some((200, "its health path".to_owned()));
        }
        "/.nanoproxy/config" if manners.config_path => {
            return Some((200, "its configuration path".to_owned()));
        }
        _ => {}
    }
    let clean = clean_path(request.path.as_bytes()).filter(|_| manners.redirect_unclean_paths)?;
    Some((307, format!("a redirect to {clean}{query}")))
}

/// Rules of other listeners alone that stand before a place, or all of them.
fn elsewhere<'a>(
    snapshot: &'a Snapshot,
    listener: &Listener,
    before: Option<&Place>,
) -> Vec<(&'a Rule, String)> {
    let rules = |l: &'a Listener| l.scopes.iter().flat_map(|s| &s.rules.rules);
    let here: HashSet<&str> =
        listener.scopes.iter().flat_map(|s| &s.rules.rules).map(|r| &*r.name).collect();
    let mut found: Vec<(&Rule, Vec<&str>)> = Vec::new();
    let mut known: HashMap<&str, usize> = HashMap::new();
    for other in &snapshot.listeners {
        let before = |r: &&Rule| before.is_none_or(|place| r.place < *place);
        for rule in rules(other).filter(|r| !here.contains(&*r.name)).filter(before) {
            let at = *known.entry(&rule.name).or_insert(found.len());
            match found.get_mut(at) {
                Some((_, names)) => names.push(&other.name),
                None => found.push((rule, vec![&other.name])),
            }
        }
    }
    found
        .into_iter()
        .map(|(rule, names)| (rule, format!("is for listener {}", names.join(", "))))
        .collect()
}

/// An algorithm's name, as the file has it.
pub(crate) fn algorithm(upstream: &model::Upstream) -> &'static str {
    match upstream.algorithm {
        model::Algorithm::RoundRobin => "roundRobin",
        model::Algorithm::LeastRequests => "leastRequests",
        model::Algorithm::ClientAddress => "clientAddress",
    }
}
