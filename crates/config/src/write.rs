//! A configuration as a file that [`crate::load`] takes: what a controller writes for a gateway beside it.
//!
//! Secrets (keys, API keys) and everything else that came from objects as text go to files of their own, named by
//! their content. Rules come in an order in which the first match is the one that their source's precedence chooses.
//! Must not touch the file system.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use model::{
    Action, Algorithm, Certificate, HealthCheck, HostHeader, HostPattern, HttpVersions, Listener,
    ListenerProtocol, Manners, MatchOrder, PathMatch, PathRewrite, PemSource, PoolLimits, Probe,
    Redirect, Rule, Snapshot, Target, TlsTermination, TlsVersion, Tunnel, Upstream, UpstreamTls,
    Verification,
};

use crate::scalar::duration_text;
use crate::show::yaml;

/// A configuration in writing.
#[derive(Clone, PartialEq, Eq)]
pub struct Written {
    /// The file.
    pub yaml: String,
    /// Files that it names, in the folder that was given: name and content. They may be secret.
    pub files: Vec<(String, Arc<[u8]>)>,
}

impl std::fmt::Debug for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&String> = self.files.iter().map(|(name, _)| name).collect();
        f.debug_struct("Written").field("yaml", &self.yaml).field("files", &names).finish()
    }
}

/// Writes rules and upstreams, settings that are not the default, and, with `listeners`, the listeners with their
/// certificates. Without them all rules are those of the gateway's only listener, whatever it is. `folder` is where the
/// other files will be, as seen from the file's.
#[must_use]
pub fn write(snapshot: &Snapshot, listeners: bool, folder: &str) -> Written {
    let mut writer = Writer { folder, names: HashMap::new(), files: Vec::new() };
    let mut top = manners(&snapshot.manners);
    if listeners {
        let all = snapshot.listeners.iter().map(|listener| writer.listener(listener));
        top.push(("listeners", Node::List(all.collect())));
    }
    if !snapshot.tunnels.is_empty() {
        let tunnels = snapshot.tunnels.iter().map(|tunnel| writer.tunnel(tunnel));
        top.push(("tunnels", Node::List(tunnels.collect())));
    }
    let upstreams = snapshot.upstreams.iter().filter(|upstream| !upstream.endpoints.is_empty());
    let upstreams = upstreams.map(|upstream| writer.upstream(upstream)).collect();
    top.push(("upstreams", Node::List(upstreams)));
    let mut names = HashSet::new();
    let mut rules = Vec::new();
    for (rule, at) in in_order(snapshot, listeners) {
        rules.extend(writer.rule(snapshot, rule, &at, &mut names));
    }
    top.push(("rules", Node::List(rules)));
    let mut yaml = String::from("# Written by cloverleaf controller: changes are lost.\n");
    emit(&mut yaml, &Node::Map(top), 0);
    Written { yaml, files: writer.files }
}

/// YAML in the making. Scalars are in writing already.
enum Node {
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<(&'static str, Node)>),
}

fn text(text: impl AsRef<str>) -> Node {
    Node::Scalar(yaml(text.as_ref()))
}

fn number(number: impl std::fmt::Display) -> Node {
    Node::Scalar(number.to_string())
}

fn time(duration: Duration) -> Node {
    text(duration_text(duration))
}

/// In block style; where a line begins, `depth` spaces are there already.
fn emit(out: &mut String, node: &Node, depth: usize) {
    match node {
        Node::Scalar(scalar) => {
            let _ = writeln!(out, "{scalar}");
        }
        Node::List(items) => {
            for (at, item) in items.iter().enumerate() {
                indent(out, if at == 0 { 0 } else { depth });
                out.push_str("- ");
                emit(out, item, depth + 2);
            }
        }
        Node::Map(entries) => {
            for (at, (key, value)) in entries.iter().enumerate() {
                indent(out, if at == 0 { 0 } else { depth });
                out.push_str(key);
                match value {
                    Node::Scalar(_) => out.push_str(": "),
                    Node::List(items) if items.is_empty() => {
                        out.push_str(": []\n");
                        continue;
                    }
                    Node::List(_) | Node::Map(_) => {
                        out.push_str(":\n");
                        indent(out, depth + 2);
                    }
                }
                emit(out, value, depth + 2);
            }
        }
    }
}

fn indent(out: &mut String, depth: usize) {
    out.extend(std::iter::repeat_n(' ', depth));
}

fn manners(manners: &Manners) -> Vec<(&'static str, Node)> {
    let usual = Manners::default();
    let keys = [
        ("healthPath", manners.health_path, usual.health_path),
        ("configPath", manners.config_path, usual.config_path),
        ("serverHeader", manners.server_header, usual.server_header),
        ("proxyHeaders", manners.proxy_headers, usual.proxy_headers),
        ("redirectUncleanPaths", manners.redirect_unclean_paths, usual.redirect_unclean_paths),
        ("abortOnClose", manners.abort_on_close, usual.abort_on_close),
    ];
    let differ = keys.into_iter().filter(|(_, is, usual)| is != usual);
    differ.map(|(key, is, _)| (key, number(is))).collect()
}

/// A rule with the listeners that it is limited to; none: all.
type Limited<'s> = (&'s Rule, Vec<&'s str>);

/// Each rule once, in an order in which the first match is the right one. Without `listeners`: those of the first.
fn in_order(snapshot: &Snapshot, listeners: bool) -> Vec<Limited<'_>> {
    let taken = if listeners { snapshot.listeners.len() } else { 1 };
    let mut all: Vec<Limited<'_>> = Vec::new();
    let mut known: HashMap<&str, Vec<usize>> = HashMap::new();
    let mut order = MatchOrder::First;
    for listener in snapshot.listeners.iter().take(taken) {
        for set in listener.scopes.iter().map(|scope| &scope.rules) {
            order = set.order;
            for rule in &set.rules {
                let of_name = known.entry(&rule.name).or_default();
                let same = of_name.iter().filter_map(|at| Some((*at, all.get(*at)?)));
                let same = same.into_iter().find(|(_, (other, _))| *other == rule);
                let at = same.map_or(all.len(), |(at, _)| at);
                match all.get_mut(at) {
                    Some((_, names)) => names.push(&listener.name),
                    None => {
                        of_name.push(at);
                        all.push((rule, vec![&listener.name]));
                    }
                }
            }
        }
    }
    match order {
        MatchOrder::First => all.sort_by(|(a, _), (b, _)| a.place.cmp(&b.place)),
        MatchOrder::LongestPath => all.sort_by_key(|(rule, _)| Reverse(length(&rule.path))),
        MatchOrder::MostSpecific => {
            all.sort_by_key(|(rule, _)| (host_rank(&rule.hosts), path_rank(&rule.path)));
        }
    }
    for (_, names) in all.iter_mut().filter(|(_, names)| names.len() == taken) {
        names.clear();
    }
    all
}

fn host_rank(hosts: &HostPattern) -> (u8, Reverse<usize>, u8) {
    match hosts {
        HostPattern::Exact(_) => (0, Reverse(0), 0),
        HostPattern::OneLabel(name) => (1, Reverse(name.as_str().len()), 0),
        HostPattern::ManyLabels(name) => (1, Reverse(name.as_str().len()), 1),
        HostPattern::Any => (2, Reverse(0), 0),
    }
}

fn path_rank(path: &PathMatch) -> (u8, Reverse<usize>) {
    let exact = matches!(path, PathMatch::Exact(_));
    (u8::from(!exact), Reverse(length(path)))
}

fn length(path: &PathMatch) -> usize {
    match path {
        PathMatch::Exact(path) | PathMatch::Prefix(path) => path.len(),
        // `/api` and `/api/` are the same here.
        PathMatch::Segments(path) => path.trim_end_matches('/').len(),
        PathMatch::Any | PathMatch::Never => 0,
    }
}

struct Writer<'f> {
    folder: &'f str,
    names: HashMap<Arc<[u8]>, String>,
    files: Vec<(String, Arc<[u8]>)>,
}

impl Writer<'_> {
    /// The path of a file with this content. Equal contents share one; different ones never do.
    fn file(&mut self, content: &Arc<[u8]>, kind: &str) -> Node {
        if let Some(name) = self.names.get(content) {
            return text(format!("{}/{name}", self.folder));
        }
        let mut hasher = DefaultHasher::new();
        hasher.write(content);
        let hash = hasher.finish();
        let mut name = format!("{hash:016x}.{kind}");
        let mut more = 1;
        while self.files.iter().any(|(known, _)| *known == name) {
            more += 1;
            name = format!("{hash:016x}-{more}.{kind}");
        }
        self.names.insert(content.clone(), name.clone());
        let path = text(format!("{}/{name}", self.folder));
        self.files.push((name, content.clone()));
        path
    }

    fn pem(&mut self, source: &PemSource) -> Node {
        match source {
            PemSource::File(path) => text(path.display().to_string()),
            PemSource::Inline(content) => self.file(content, "pem"),
        }
    }

    fn listener(&mut self, listener: &Listener) -> Node {
        let mut keys =
            vec![("name", text(&listener.name)), ("address", text(listener.address.to_string()))];
        match listener.protocols {
            HttpVersions::All => {}
            HttpVersions::Http1 => keys.push(("protocols", Node::List(vec![text("http/1.1")]))),
            HttpVersions::Http2 => keys.push(("protocols", Node::List(vec![text("h2")]))),
        }
        if let ListenerProtocol::Https(tls) = &listener.protocol {
            keys.push(("protocol", text("https")));
            keys.push(("tls", self.termination(tls)));
        }
        if !listener.trusted_hops.0.is_empty() {
            let nets = listener.trusted_hops.0.iter().map(|net| text(net.to_string()));
            keys.push(("trustedHops", Node::List(nets.collect())));
        }
        Node::Map(keys)
    }

    fn termination(&mut self, tls: &TlsTermination) -> Node {
        let mut keys = Vec::new();
        if !tls.first_is_default {
            keys.push(("defaultCertificate", text("none")));
        }
        if tls.min_version == TlsVersion::V1_3 {
            keys.push(("minVersion", text("1.3")));
        }
        let certificates = tls.certificates.iter().map(|c| self.certificate(c)).collect();
        keys.push(("certificates", Node::List(certificates)));
        Node::Map(keys)
    }

    fn certificate(&mut self, certificate: &Certificate) -> Node {
        let mut keys = vec![
            ("certificate", self.pem(&certificate.chain)),
            ("key", self.pem(&certificate.key)),
        ];
        if !certificate.hosts.is_empty() {
            let hosts = certificate.hosts.iter().map(|host| text(host.to_string()));
            keys.push(("hosts", Node::List(hosts.collect())));
        }
        if let Some(clients) = &certificate.client_verification {
            let authorities = self.pem(&clients.authorities);
            let keys_of_clients =
                vec![("authorities", authorities), ("optional", number(clients.optional))];
            keys.push(("clientCertificates", Node::Map(keys_of_clients)));
        }
        Node::Map(keys)
    }

    fn upstream(&mut self, upstream: &Upstream) -> Node {
        let mut keys = vec![("name", text(&upstream.name))];
        if upstream.tls.is_some() {
            keys.push(("scheme", text("https")));
        }
        match upstream.algorithm {
            Algorithm::RoundRobin => {}
            Algorithm::LeastRequests => keys.push(("balance", text("leastRequests"))),
            Algorithm::ClientAddress => keys.push(("balance", text("clientAddress"))),
        }
        if upstream.host_header == HostHeader::Endpoint {
            keys.push(("noHostRewrite", number(true)));
        }
        if let Some(tls) = upstream.tls.as_ref().filter(|tls| ***tls != UpstreamTls::default()) {
            keys.push(("tls", self.upstream_tls(tls)));
        }
        let times = [
            ("connectTimeout", upstream.connect_timeout),
            ("responseTimeout", upstream.response_timeout),
        ];
        keys.extend(times.into_iter().filter_map(|(key, value)| Some((key, time(value?)))));
        let usual = PoolLimits::default();
        if upstream.pool.idle_connections != usual.idle_connections {
            keys.push(("idleConnections", number(upstream.pool.idle_connections)));
        }
        if upstream.pool.idle_timeout != usual.idle_timeout {
            keys.push(("idleTimeout", time(upstream.pool.idle_timeout)));
        }
        if let Some(check) = &upstream.health_check {
            keys.push(("healthCheck", health_check(check)));
        }
        let endpoints = upstream.endpoints.iter().map(|endpoint| {
            let target = &endpoint.target;
            let mut keys = match target {
                Target::ClusterPort(_) => vec![("via", text("mesh"))],
                _ => vec![("host", text(target.host()))],
            };
            keys.push(("port", number(target.port())));
            if let Target::Tunnelled(there) = target {
                let tunnel = ("tunnel", text(&there.tunnel));
                let cluster = there.cluster.iter().map(|cluster| ("cluster", text(cluster)));
                keys.push(("via", Node::Map([tunnel].into_iter().chain(cluster).collect())));
            }
            if endpoint.weight != 1 {
                keys.push(("weight", number(endpoint.weight)));
            }
            Node::Map(keys)
        });
        keys.push(("endpoints", Node::List(endpoints.collect())));
        Node::Map(keys)
    }

    fn tunnel(&mut self, tunnel: &Tunnel) -> Node {
        let mut keys = vec![
            ("name", text(&tunnel.name)),
            ("server", text(tunnel.servers.to_string())),
            ("mode", text(tunnel.mode.as_str())),
        ];
        let mut tls = Vec::new();
        if let Verification::Authorities(pem) = &tunnel.tls.verification {
            tls.push(("authorities", self.pem(pem)));
        }
        if let Some(own) = &tunnel.tls.certificate {
            tls.push(("certificate", self.pem(&own.chain)));
            tls.push(("key", self.pem(&own.key)));
        }
        let server_name = tunnel.tls.server_name.as_ref();
        tls.extend(server_name.map(|name| ("serverName", text(name.as_str()))));
        if !tls.is_empty() {
            keys.push(("tls", Node::Map(tls)));
        }
        Node::Map(keys)
    }

    fn upstream_tls(&mut self, tls: &UpstreamTls) -> Node {
        let mut keys = Vec::new();
        match &tls.verification {
            Verification::System => {}
            Verification::Skip => keys.push(("skipVerify", number(true))),
            Verification::Authorities(pem) => keys.push(("authorities", self.pem(pem))),
        }
        keys.extend(tls.server_name.as_ref().map(|name| ("serverName", text(name.as_str()))));
        Node::Map(keys)
    }

    /// `None` for one that can never match. A name that is taken already gets a number.
    fn rule(
        &mut self,
        snapshot: &Snapshot,
        rule: &Rule,
        listeners: &[&str],
        names: &mut HashSet<String>,
    ) -> Option<Node> {
        let (path, mode) = match &rule.path {
            PathMatch::Any => (None, None),
            PathMatch::Exact(path) => (Some(path), Some("exact")),
            PathMatch::Prefix(path) => (Some(path), None),
            PathMatch::Segments(path) => (Some(path), Some("segments")),
            PathMatch::Never => return None,
        };
        let mut name = rule.name.to_string();
        let mut more = 1;
        while !names.insert(name.clone()) {
            more += 1;
            name = format!("{}/{more}", rule.name);
        }
        let mut keys = vec![("name", text(&name))];
        if rule.hosts != HostPattern::Any {
            keys.push(("host", text(rule.hosts.to_string())));
        }
        keys.extend(path.map(|path| ("path", text(path))));
        keys.extend(mode.map(|mode| ("matchMode", text(mode))));
        keys.push(action(snapshot, &rule.action));
        match &rule.rewrite {
            PathRewrite::Keep => {}
            PathRewrite::StripMatch => keys.push(("stripPath", number(true))),
            PathRewrite::ReplaceMatch(with) => keys.push(("replacePath", text(with))),
            PathRewrite::ReplaceWhole(with) => keys.push(("setPath", text(with))),
        }
        if rule.fallback {
            keys.push(("fallback", number(true)));
        }
        if let Some(key) = &rule.api_key {
            let value = self.file(&key.value, "key");
            let keys_of_key = vec![("header", text(&key.header)), ("valueFile", value)];
            keys.push(("apiKey", Node::Map(keys_of_key)));
        }
        // A file has no bound of nothing at all.
        let body_max = rule.request_body_max.map(|bytes| bytes.max(1));
        keys.extend(body_max.map(|bytes| ("maxRequestBody", number(bytes))));
        keys.extend(rule.response_timeout.map(|t| ("responseTimeout", time(t))));
        if !listeners.is_empty() {
            keys.push(("listeners", Node::List(listeners.iter().map(text).collect())));
        }
        Some(Node::Map(keys))
    }
}

/// Upstreams without endpoints are not in the file: what they cannot answer is said here.
fn action(snapshot: &Snapshot, action: &Action) -> (&'static str, Node) {
    const NOBODY: u16 = 503;
    let references = match action {
        Action::Respond { status } => return ("respond", number(status)),
        Action::Redirect(to) => return ("redirect", redirect(to)),
        Action::Close => return ("close", number(true)),
        // Behind all others, where a file says so; but here its place is its own.
        Action::Unavailable { .. } => return ("respond", number(NOBODY)),
        Action::Forward(references) => references,
    };
    let known = references.iter().filter_map(|reference| {
        let upstream = snapshot.upstream(reference.upstream)?;
        let serves = !upstream.endpoints.is_empty() && reference.weight > 0;
        serves.then_some((&upstream.name, reference.weight))
    });
    let known: Vec<_> = known.collect();
    match &known[..] {
        [] => ("respond", number(NOBODY)),
        [(name, _)] => ("upstream", text(name)),
        several => {
            let one = |(name, weight): &(&model::Name, u32)| {
                Node::Map(vec![("upstream", text(name)), ("weight", number(weight))])
            };
            ("upstreams", Node::List(several.iter().map(one).collect()))
        }
    }
}

fn redirect(to: &Redirect) -> Node {
    let mut keys = vec![("status", number(to.status))];
    keys.extend(to.scheme.map(|scheme| ("scheme", text(scheme.as_str()))));
    keys.extend(to.host.as_ref().map(|host| ("host", text(host.as_str()))));
    keys.extend(to.port.map(|port| ("port", number(port))));
    Node::Map(keys)
}

fn health_check(check: &HealthCheck) -> Node {
    let mut keys = Vec::new();
    if let Probe::Http { path, host, tls, statuses: (low, high) } = &check.probe {
        keys.push(("path", text(path)));
        keys.push(("scheme", text(if *tls { "https" } else { "http" })));
        keys.push(("statuses", text(format!("{low}-{high}"))));
        keys.extend(host.as_ref().map(|host| ("host", text(host.as_str()))));
    }
    keys.extend(check.port.map(|port| ("port", number(port))));
    keys.push(("interval", time(check.interval)));
    keys.push(("timeout", time(check.timeout)));
    keys.push(("rise", number(check.rise)));
    keys.push(("fall", number(check.fall)));
    Node::Map(keys)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use model::RuleSet;

    use super::*;
    use crate::{Config, Overrides, parse};

    const FILE: &str = "\
serverHeader: true
healthPath: false
listeners:
  - {name: plain, address: '127.0.0.1:80', trustedHops: [10.0.0.0/8]}
  - name: secure
    address: '[::]:443'
    protocol: https
    tls:
      defaultCertificate: none
      minVersion: '1.3'
      certificates:
        - certificate: c.pem
          key: k.pem
          hosts: [a.test, '*.b.test']
          clientCertificates: {authorities: ca.pem, optional: true}
tunnels:
  - {name: near, server: 'unix:/run/s.sock', mode: httpConnect}
  - {name: hub, server: 'hub.test:8090', tls: {authorities: ca.pem, certificate: c.pem, key: k.pem, serverName: h.test}}
upstreams:
  - {name: one, host: a.internal, port: 81}
  - name: far
    via: {tunnel: hub, cluster: one}
    endpoints: [{address: 'w.x:80'}, {address: 'w.x:80', via: {tunnel: near}}]
  - name: two/x
    scheme: https
    balance: clientAddress
    noHostRewrite: true
    tls: {authorities: ca.pem, serverName: two.test}
    connectTimeout: 1500ms
    responseTimeout: 2m
    idleConnections: 3
    idleTimeout: 5s
    healthCheck: {path: /up?x=1, host: h.test, port: 9, scheme: http, interval: 3s, timeout: 1s, rise: 2,
      fall: 4, statuses: 200-204}
    endpoints:
      - {host: 10.0.0.1, port: 8080}
      - {host: '::1', port: 8080, weight: 3}
rules:
  - {name: 'a: b', host: a.test, path: '/x # {y}', upstream: one, stripPath: true, listeners: [plain]}
  - {name: b, host: '*.b.test', path: /y, matchMode: segments, replacePath: /z, maxRequestBody: 5KiB,
     upstreams: [{upstream: one, weight: 9}, {upstream: two/x}]}
  - {name: c, path: /e, matchMode: exact, upstream: two/x, responseTimeout: 7s}
  - {name: d, fallback: true, close: true}
  - {name: e, path: /no, respond: 404}
  - {name: f, path: /g, setPath: /h, redirect: {scheme: https, host: '::1', port: 8443, status: 308}}
  - {name: g, path: /i, setPath: /j, upstream: one}
";

    fn config(text: &str) -> Config {
        let (config, found) = parse(text, "f", Path::new("/etc"), &Overrides::default());
        assert_eq!(found.to_string(), "");
        config.unwrap()
    }

    /// Without the places, which are others in a file that was written.
    fn placeless(text: &str) -> String {
        let shown = crate::snapshot_json(&config(text).snapshot).to_string();
        let parts = shown.split("\"place\":\"").map(|part| match part.split_once('"') {
            Some((place, rest)) if place.starts_with("f:") => rest,
            _ => part,
        });
        parts.collect()
    }

    #[test]
    fn what_is_written_means_what_was_read() {
        let written = write(&config(FILE).snapshot, true, "x");
        assert_eq!(written.files, []);
        assert_eq!(placeless(&written.yaml), placeless(FILE), "{}", written.yaml);
        let again = write(&config(&written.yaml).snapshot, true, "x");
        assert_eq!(again.yaml, written.yaml);
    }

    #[test]
    fn text_of_objects_goes_to_files_of_its_own() {
        let mut snapshot = config(FILE).snapshot;
        let ListenerProtocol::Https(tls) = &mut snapshot.listeners[1].protocol else { panic!() };
        let inline = |text: &str| PemSource::Inline(text.as_bytes().into());
        let certificate = &mut Arc::make_mut(tls).certificates[0];
        certificate.chain = inline("CHAIN");
        certificate.key = inline("KEY");
        let rules = Arc::make_mut(&mut snapshot.listeners[0].scopes[0].rules);
        let value = b"KEY".as_slice().into();
        let key = model::ApiKey { header: "x-key".into(), value };
        rules.rules[0].api_key = Some(Arc::new(key));
        let written = write(&snapshot, true, "beside");
        let contents: Vec<&[u8]> = written.files.iter().map(|(_, content)| &**content).collect();
        assert_eq!(contents, [b"CHAIN".as_slice(), b"KEY"], "equal ones share a file");
        for (name, _) in &written.files {
            assert!(written.yaml.contains(&format!("beside/{name}")), "{}", written.yaml);
        }
        let shown = format!("{written:?}");
        assert!(!shown.contains("KEY") && !shown.contains("CHAIN"), "{shown}");
    }

    #[test]
    fn the_first_match_is_the_most_specific() {
        let host = |text: &str| model::HostName::parse(text).unwrap();
        let mut snapshot = config(FILE).snapshot;
        let mut rule = snapshot.listeners[0].scopes[0].rules.rules[0].clone();
        rule.rewrite = PathRewrite::Keep;
        let mut make = |name: &str, hosts: HostPattern, path: PathMatch, action: Action| {
            rule.name = name.into();
            Rule { hosts, path, action, ..rule.clone() }
        };
        let segments = |path: &str| PathMatch::Segments(path.into());
        let gone = || Action::Unavailable { upstream: "gone".into() };
        let closed = || Action::Close;
        let rules = vec![
            make("any", HostPattern::Any, segments("/long/path"), closed()),
            make("short", HostPattern::OneLabel(host("t")), segments("/"), closed()),
            make("wide", HostPattern::OneLabel(host("b.t")), segments("/"), closed()),
            make("prefix", HostPattern::Exact(host("a.b.t")), segments("/x/"), closed()),
            make("longer", HostPattern::Exact(host("a.b.t")), segments("/x/y"), gone()),
            make(
                "exact",
                HostPattern::Exact(host("a.b.t")),
                PathMatch::Exact("/x".into()),
                closed(),
            ),
        ];
        let set = RuleSet { order: MatchOrder::MostSpecific, rules };
        let scopes = &mut snapshot.listeners[0].scopes;
        scopes[0].rules = Arc::new(set);
        snapshot.listeners.truncate(1);
        let written = write(&snapshot, false, "x");
        let read = config(&written.yaml).snapshot;
        let rules = &read.listeners[0].scopes[0].rules.rules;
        let names: Vec<&str> = rules.iter().map(|rule| &*rule.name).collect();
        assert_eq!(names, ["exact", "longer", "prefix", "wide", "short", "any"]);
        assert_eq!(rules[1].action, Action::Respond { status: 503 });
    }
}
