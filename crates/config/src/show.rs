//! A running snapshot as text: in `NanoProxy`'s shape for its config path, and whole as JSON for the admin
//! port.
//!
//! Secrets are never in it: PEM text that came from an object is `<inline>`, files are only named, and an
//! API key is `<hidden>`.

use std::fmt::Write as _;

use model::{
    AccessLog, Action, Algorithm, Certificate, Endpoint, HealthCheck, HostHeader, HostPattern,
    HttpVersions, Listener, ListenerProtocol, MatchOrder, PathMatch, PathRewrite, PemSource, Probe,
    Redirect, Rule, RuleSet, Snapshot, Target, TlsVersion, Tunnel, Upstream, UpstreamTls,
    Verification,
};
use serde_json::{Map, Value, json};

use crate::scalar::{duration_text, size_text};

/// What stands in place of a secret.
const HIDDEN: &str = "<hidden>";

/// Upstreams and rules as YAML, as `NanoProxy` dumps them: upstreams first, indented by 4, all of its keys,
/// the default port filled in, the default scheme and match mode not. What `NanoProxy` cannot say (several
/// endpoints, several upstreams, segments) is said with our keys. A rule that is in several listeners' sets
/// is shown once.
#[must_use]
pub fn nanoproxy_yaml(snapshot: &Snapshot) -> String {
    let mut out = String::new();
    out.push_str(if snapshot.upstreams.is_empty() { "upstreams: []\n" } else { "upstreams:\n" });
    for upstream in &snapshot.upstreams {
        write_upstream(&mut out, upstream);
    }
    let rules = all_rules(snapshot);
    out.push_str(if rules.is_empty() { "rules: []\n" } else { "rules:\n" });
    for rule in rules {
        write_rule(&mut out, snapshot, rule);
    }
    if !snapshot.tunnels.is_empty() {
        out.push_str("tunnels:\n");
    }
    for tunnel in &snapshot.tunnels {
        write_tunnel(&mut out, tunnel);
    }
    out
}

/// The rules of all listeners, each once, in the order of the file.
fn all_rules(snapshot: &Snapshot) -> Vec<&Rule> {
    let sets = rule_sets(snapshot);
    let mut rules: Vec<&Rule> = sets.iter().flat_map(|set| &set.rules).collect();
    if sets.len() > 1 {
        rules.sort_by(|a, b| a.place.cmp(&b.place));
        rules.dedup_by(|a, b| a.place == b.place && a.name == b.name);
    }
    rules
}

/// Every set of rules once: listeners share them.
fn rule_sets(snapshot: &Snapshot) -> Vec<&RuleSet> {
    let mut sets: Vec<&RuleSet> = Vec::new();
    for scope in snapshot.listeners.iter().flat_map(|listener| &listener.scopes) {
        let set: &RuleSet = &scope.rules;
        if !sets.iter().any(|known| std::ptr::eq(*known, set)) {
            sets.push(set);
        }
    }
    sets
}

fn write_upstream(out: &mut String, upstream: &Upstream) {
    let _ = writeln!(out, "    - name: {}", yaml(&upstream.name));
    match upstream.endpoints.as_slice() {
        [Endpoint { target, .. }] => {
            write_target(out, "      ", "      ", target);
        }
        endpoints => {
            out.push_str(if endpoints.is_empty() {
                "      endpoints: []\n"
            } else {
                "      endpoints:\n"
            });
            for Endpoint { target, weight } in endpoints {
                write_target(out, "        - ", "          ", target);
                let _ = writeln!(out, "          weight: {weight}");
            }
        }
    }
    let scheme = if upstream.tls.is_some() { "https" } else { "" };
    let no_host_rewrite = upstream.host_header == HostHeader::Endpoint;
    let _ = writeln!(out, "      scheme: {}", yaml(scheme));
    let _ = writeln!(out, "      noHostRewrite: {no_host_rewrite}");
    if let Some(check) = &upstream.health_check {
        out.push_str("      healthCheck:\n");
        write_health_check(out, check);
    }
}

fn write_tunnel(out: &mut String, tunnel: &Tunnel) {
    let Tunnel { name, servers, mode, tls, .. } = tunnel;
    let _ = writeln!(out, "    - name: {}", yaml(name));
    let _ = writeln!(out, "      server: {}", yaml(&servers.to_string()));
    let _ = writeln!(out, "      mode: {}", mode.as_str());
    let authorities = match &tls.verification {
        Verification::Authorities(source) => Some(source),
        Verification::System | Verification::Skip => None,
    };
    let own = tls.certificate.as_ref();
    let files = [
        ("authorities", authorities),
        ("certificate", own.map(|own| &own.chain)),
        ("key", own.map(|own| &own.key)),
    ];
    let mut lines: Vec<(&str, String)> = Vec::new();
    for (key, source) in files {
        lines.extend(source.map(|source| (key, pem_text(source))));
    }
    lines.extend(tls.server_name.as_ref().map(|name| ("serverName", name.to_string())));
    if !lines.is_empty() {
        out.push_str("      tls:\n");
    }
    for (key, value) in lines {
        let _ = writeln!(out, "        {key}: {}", yaml(&value));
    }
}

/// The keys that say where a target is; the first line begins as it is told.
fn write_target(out: &mut String, first: &str, indent: &str, target: &Target) {
    let host = match target {
        Target::ClusterPort(_) => "via: mesh".to_owned(),
        target => format!("host: {}", yaml(&target.host())),
    };
    let _ = writeln!(out, "{first}{host}");
    let _ = writeln!(out, "{indent}port: {}", target.port());
    if let Target::Tunnelled(there) = target {
        let _ = writeln!(out, "{indent}via:");
        let _ = writeln!(out, "{indent}  tunnel: {}", yaml(&there.tunnel));
        if let Some(cluster) = &there.cluster {
            let _ = writeln!(out, "{indent}  cluster: {}", yaml(cluster));
        }
    }
}

fn write_health_check(out: &mut String, check: &HealthCheck) {
    if let Probe::Http { path, host, tls, statuses: (low, high) } = &check.probe {
        let _ = writeln!(out, "        path: {}", yaml(path));
        let _ = writeln!(out, "        scheme: {}", if *tls { "https" } else { "http" });
        let _ = writeln!(out, "        statuses: {low}-{high}");
        if let Some(host) = host {
            let _ = writeln!(out, "        host: {}", yaml(host.as_str()));
        }
    }
    if let Some(port) = check.port {
        let _ = writeln!(out, "        port: {port}");
    }
    let _ = writeln!(out, "        interval: {}", duration_text(check.interval));
    let _ = writeln!(out, "        timeout: {}", duration_text(check.timeout));
    let _ = writeln!(out, "        rise: {}", check.rise);
    let _ = writeln!(out, "        fall: {}", check.fall);
}

fn write_rule(out: &mut String, snapshot: &Snapshot, rule: &Rule) {
    let name = |reference: &model::UpstreamRef| {
        snapshot.upstream(reference.upstream).map(|u| u.name.to_string()).unwrap_or_default()
    };
    match &rule.action {
        Action::Unavailable { upstream } => {
            let _ = writeln!(out, "    - upstream: {}", yaml(upstream));
        }
        Action::Respond { status } => {
            let _ = writeln!(out, "    - respond: {status}");
        }
        Action::Redirect(redirect) => {
            let _ = writeln!(out, "    - redirect: {}", redirect_json(redirect));
        }
        Action::Close => out.push_str("    - close: true\n"),
        Action::Forward(references) => match references.as_slice() {
            [single] => {
                let _ = writeln!(out, "    - upstream: {}", yaml(&name(single)));
            }
            several => {
                out.push_str("    - upstreams:\n");
                for reference in several {
                    let _ = writeln!(out, "        - upstream: {}", yaml(&name(reference)));
                    let _ = writeln!(out, "          weight: {}", reference.weight);
                }
            }
        },
    }
    let host = match &rule.hosts {
        HostPattern::Any => String::new(),
        pattern => pattern.to_string(),
    };
    let (path, mode) = path_and_mode(&rule.path);
    let _ = writeln!(out, "      path: {}", yaml(path));
    let _ = writeln!(out, "      host: {}", yaml(&host));
    let _ = writeln!(out, "      matchMode: {}", yaml(written_mode(mode)));
    let _ = writeln!(out, "      stripPath: {}", rule.rewrite == PathRewrite::StripMatch);
    write_own_keys(out, rule);
}

/// What `NanoProxy` does not have, where it is there.
fn write_own_keys(out: &mut String, rule: &Rule) {
    match &rule.rewrite {
        PathRewrite::Keep | PathRewrite::StripMatch => {}
        PathRewrite::ReplaceMatch(with) => {
            let _ = writeln!(out, "      replacePath: {}", yaml(with));
        }
        PathRewrite::ReplaceWhole(with) => {
            let _ = writeln!(out, "      setPath: {}", yaml(with));
        }
    }
    if rule.fallback {
        out.push_str("      fallback: true\n");
    }
    if let Some(bytes) = rule.request_body_max {
        let _ = writeln!(out, "      maxRequestBody: {}", size_text(bytes));
    }
    if let Some(key) = &rule.api_key {
        let _ = writeln!(out, "      apiKey:");
        let _ = writeln!(out, "        header: {}", yaml(&key.header));
        let _ = writeln!(out, "        value: {}", yaml(HIDDEN));
    }
}

/// The default is not filled in.
fn written_mode(mode: &'static str) -> &'static str {
    if matches!(mode, "any" | "prefix") { "" } else { mode }
}

fn path_and_mode(path: &PathMatch) -> (&str, &'static str) {
    match path {
        PathMatch::Any => ("", "any"),
        PathMatch::Exact(path) => (path, "exact"),
        PathMatch::Prefix(path) => (path, "prefix"),
        PathMatch::Segments(path) => (path, "segments"),
        PathMatch::Never => ("", "never"),
    }
}

/// A text as a YAML scalar: bare where nothing could take it for something else, in double quotes otherwise.
pub(crate) fn yaml(text: &str) -> String {
    let bare_char =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '/' | '[' | ']');
    let bare_start = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    let is_ipv4 = text.parse::<std::net::Ipv4Addr>().is_ok();
    let is_word = matches!(
        text.to_ascii_lowercase().as_str(),
        "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n"
    );
    if is_ipv4 || (bare_start && !is_word && text.chars().all(bare_char)) {
        return text.into();
    }
    // JSON's strings are YAML's double-quoted ones.
    Value::from(text).to_string()
}

/// The whole of a snapshot as JSON. Listeners name their rule sets by index, because they share them;
/// durations are texts as in the file.
#[must_use]
pub fn snapshot_json(snapshot: &Snapshot) -> Value {
    let sets = rule_sets(snapshot);
    let (limits, timeouts) = (snapshot.limits, snapshot.timeouts);
    let listeners: Vec<Value> =
        snapshot.listeners.iter().map(|l| listener_json(l, &sets)).collect();
    let rule_sets: Vec<Value> = sets
        .iter()
        .map(|set| {
            let rules: Vec<Value> =
                set.rules.iter().map(|rule| rule_json(snapshot, rule)).collect();
            json!({ "order": order(set.order), "rules": rules })
        })
        .collect();
    json!({
        "listeners": listeners,
        "ruleSets": rule_sets,
        "upstreams": snapshot.upstreams.iter().map(|u| upstream_json(u)).collect::<Vec<_>>(),
        "tunnels": snapshot.tunnels.iter().map(|t| tunnel_json(t)).collect::<Vec<_>>(),
        "limits": {
            "headBytes": limits.head_bytes,
            "headFields": limits.head_fields,
            "connections": limits.connections,
            "h2Streams": limits.h2_streams,
            "requestsPerConnection": limits.requests_per_connection,
            "requestBody": limits.request_body.map(size_text),
            "retries": limits.retries,
        },
        "timeouts": {
            "head": duration_text(timeouts.head),
            "idle": duration_text(timeouts.idle),
            "connect": duration_text(timeouts.connect),
            "response": duration_text(timeouts.response),
            "streamIdle": duration_text(timeouts.stream_idle),
        },
        "manners": manners_json(snapshot),
        "shutdown": {
            "grace": duration_text(snapshot.shutdown.grace),
            "drain": duration_text(snapshot.shutdown.drain),
        },
    })
}

fn order(order: MatchOrder) -> &'static str {
    match order {
        MatchOrder::First => "first",
        MatchOrder::LongestPath => "longestPath",
        MatchOrder::MostSpecific => "mostSpecific",
    }
}

fn manners_json(snapshot: &Snapshot) -> Value {
    let manners = &snapshot.manners;
    json!({
        "healthPath": manners.health_path,
        "configPath": manners.config_path,
        "serverHeader": manners.server_header,
        "proxyHeaders": manners.proxy_headers,
        "redirectUncleanPaths": manners.redirect_unclean_paths,
        "abortOnClose": manners.abort_on_close,
        "accessLog": match &manners.access_log {
            None => Value::Null,
            Some(AccessLog::Stdout) => json!("stdout"),
            Some(AccessLog::File(path)) => json!(path.display().to_string()),
        },
    })
}

fn tunnel_json(tunnel: &Tunnel) -> Value {
    let tls = &tunnel.tls;
    json!({
        "name": &*tunnel.name,
        "server": tunnel.servers.to_string(),
        "mode": tunnel.mode.as_str(),
        "authorities": match &tls.verification {
            Verification::Authorities(pem) => pem_json(pem),
            Verification::System | Verification::Skip => Value::Null,
        },
        "certificate": tls.certificate.as_ref().map(|own| pem_json(&own.chain)),
        "serverName": tls.server_name.as_ref().map(ToString::to_string),
    })
}

fn pem_json(pem: &PemSource) -> Value {
    json!(pem_text(pem))
}

/// A file's name, never its content.
fn pem_text(pem: &PemSource) -> String {
    match pem {
        PemSource::File(path) => path.display().to_string(),
        PemSource::Inline(_) => "<inline>".to_owned(),
    }
}

fn listener_json(listener: &Listener, sets: &[&RuleSet]) -> Value {
    let scopes: Vec<Value> = listener
        .scopes
        .iter()
        .map(|scope| {
            let set = sets.iter().position(|set| std::ptr::eq(*set, &raw const *scope.rules));
            json!({ "hosts": scope.hosts.to_string(), "ruleSet": set })
        })
        .collect();
    let mut json = json!({
        "name": &*listener.name,
        "address": listener.address.to_string(),
        "protocol": listener.protocol.scheme(),
        "protocols": match listener.protocols {
            HttpVersions::All => json!(["http/1.1", "h2"]),
            HttpVersions::Http1 => json!(["http/1.1"]),
            HttpVersions::Http2 => json!(["h2"]),
        },
        "scopes": scopes,
        "trustedHops": listener.trusted_hops.0.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "place": listener.place.to_string(),
    });
    if let ListenerProtocol::Https(tls) = &listener.protocol {
        json["tls"] = json!({
            "certificates": tls.certificates.iter().map(certificate_json).collect::<Vec<_>>(),
            "defaultCertificate": if tls.first_is_default { "first" } else { "none" },
            "minVersion": match tls.min_version {
                TlsVersion::V1_2 => "1.2",
                TlsVersion::V1_3 => "1.3",
            },
        });
    }
    json
}

fn certificate_json(certificate: &Certificate) -> Value {
    let (chain, key) = (pem_json(&certificate.chain), pem_json(&certificate.key));
    let mut json = json!({ "certificate": chain, "key": key });
    if !certificate.hosts.is_empty() {
        json["hosts"] = certificate.hosts.iter().map(ToString::to_string).collect();
    }
    if let Some(verification) = &certificate.client_verification {
        json["clientCertificates"] = json!({
            "authorities": pem_json(&verification.authorities),
            "optional": verification.optional,
        });
    }
    json
}

fn upstream_json(upstream: &Upstream) -> Value {
    let endpoint = |e: &Endpoint| json!({ "address": e.target.to_string(), "weight": e.weight });
    let mut json = json!({
        "name": &*upstream.name,
        "endpoints": upstream.endpoints.iter().map(endpoint).collect::<Vec<_>>(),
        "balance": match upstream.algorithm {
            Algorithm::RoundRobin => "roundRobin",
            Algorithm::LeastRequests => "leastRequests",
            Algorithm::ClientAddress => "clientAddress",
        },
        "scheme": if upstream.tls.is_some() { "https" } else { "http" },
        "hostHeader": match upstream.host_header {
            HostHeader::Preserve => "preserve",
            HostHeader::Endpoint => "endpoint",
        },
        "idleConnections": upstream.pool.idle_connections,
        "idleTimeout": duration_text(upstream.pool.idle_timeout),
        "place": upstream.place.to_string(),
    });
    if let Some(check) = &upstream.health_check {
        json["healthCheck"] = health_check_json(check);
    }
    if let Some(tls) = &upstream.tls {
        json["tls"] = upstream_tls_json(tls);
    }
    for (key, timeout) in [
        ("connectTimeout", upstream.connect_timeout),
        ("responseTimeout", upstream.response_timeout),
    ] {
        if let Some(timeout) = timeout {
            json[key] = json!(duration_text(timeout));
        }
    }
    json
}

fn health_check_json(check: &HealthCheck) -> Value {
    let mut json = json!({
        "interval": duration_text(check.interval),
        "timeout": duration_text(check.timeout),
        "rise": check.rise,
        "fall": check.fall,
    });
    if let Some(port) = check.port {
        json["port"] = json!(port);
    }
    if let Probe::Http { path, host, tls, statuses: (low, high) } = &check.probe {
        json["path"] = json!(&**path);
        json["scheme"] = json!(if *tls { "https" } else { "http" });
        json["statuses"] = json!(format!("{low}-{high}"));
        if let Some(host) = host {
            json["host"] = json!(host.as_str());
        }
    }
    json
}

fn upstream_tls_json(tls: &UpstreamTls) -> Value {
    let mut json = match &tls.verification {
        Verification::System => json!({ "verify": "system" }),
        Verification::Authorities(pem) => {
            json!({ "verify": "authorities", "authorities": pem_json(pem) })
        }
        Verification::Skip => json!({ "verify": "skip" }),
    };
    if let Some(name) = &tls.server_name {
        json["serverName"] = json!(name.as_str());
    }
    json
}

/// As the file has it; in YAML, too, where JSON is a way to write it.
fn redirect_json(redirect: &Redirect) -> Value {
    let mut json = json!({ "status": redirect.status });
    if let Some(scheme) = redirect.scheme {
        json["scheme"] = json!(scheme.as_str());
    }
    if let Some(host) = &redirect.host {
        json["host"] = json!(host.as_str());
    }
    if let Some(port) = redirect.port {
        json["port"] = json!(port);
    }
    json
}

fn rule_json(snapshot: &Snapshot, rule: &Rule) -> Value {
    let (path, mode) = path_and_mode(&rule.path);
    let mut json = Map::new();
    json.insert("name".into(), json!(&*rule.name));
    json.insert("host".into(), json!(rule.hosts.to_string()));
    json.insert("matchMode".into(), json!(mode));
    if !path.is_empty() {
        json.insert("path".into(), json!(path));
    }
    json.insert("stripPath".into(), json!(rule.rewrite == PathRewrite::StripMatch));
    match &rule.action {
        Action::Forward(references) => {
            let shares = references.iter().map(|r| {
                let upstream = snapshot.upstream(r.upstream).map(|u| &*u.name);
                json!({ "upstream": upstream, "weight": r.weight })
            });
            json.insert("upstreams".into(), shares.collect());
        }
        Action::Unavailable { upstream } => {
            json.insert("unavailable".into(), json!(&**upstream));
        }
        Action::Respond { status } => {
            json.insert("respond".into(), json!(status));
        }
        Action::Redirect(redirect) => {
            json.insert("redirect".into(), redirect_json(redirect));
        }
        Action::Close => {
            json.insert("close".into(), json!(true));
        }
    }
    match &rule.rewrite {
        PathRewrite::Keep | PathRewrite::StripMatch => {}
        PathRewrite::ReplaceMatch(with) => {
            json.insert("replacePath".into(), json!(&**with));
        }
        PathRewrite::ReplaceWhole(with) => {
            json.insert("setPath".into(), json!(&**with));
        }
    }
    if rule.fallback {
        json.insert("fallback".into(), json!(true));
    }
    if let Some(key) = &rule.api_key {
        json.insert("apiKey".into(), json!({ "header": &*key.header }));
    }
    if let Some(bytes) = rule.request_body_max {
        json.insert("maxRequestBody".into(), json!(size_text(bytes)));
    }
    if let Some(timeout) = rule.response_timeout {
        json.insert("responseTimeout".into(), json!(duration_text(timeout)));
    }
    json.insert("place".into(), json!(rule.place.to_string()));
    Value::Object(json)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{Overrides, parse};

    const FILE: &str = "\
upstreams:
  - name: a
    host: 127.0.0.1
  - name: \"no\"
    host: secure.test
    scheme: https
    noHostRewrite: true
  - name: many
    endpoints:
      - address: 10.0.0.1:3000
        weight: 3
      - address: \"[::1]:3000\"
rules:
  - upstream: a
    path: /api
    stripPath: true
  - upstream: gone
    host: \"*.x.test\"
    path: /b c
    matchMode: exact
  - upstreams:
      - upstream: a
        weight: 2
      - upstream: many
    path: /seg
    matchMode: segments
";

    fn snapshot(text: &str) -> Snapshot {
        let (config, diagnostics) = parse(text, "f", Path::new(""), &Overrides::default());
        config.unwrap_or_else(|| panic!("{diagnostics}")).snapshot
    }

    #[test]
    fn the_dump_has_nanoproxys_shape_and_reads_back() {
        let dump = nanoproxy_yaml(&snapshot(FILE));
        let begin = "\
upstreams:
    - name: a
      host: 127.0.0.1
      port: 80
      scheme: \"\"
      noHostRewrite: false
    - name: \"no\"
      host: secure.test
      port: 443
      scheme: https
      noHostRewrite: true
    - name: many
      endpoints:
";
        assert!(dump.starts_with(begin), "{dump}");
        let rules = "\
rules:
    - upstream: a
      path: /api
      host: \"\"
      matchMode: \"\"
      stripPath: true
    - upstream: gone
      path: \"/b c\"
      host: \"*.x.test\"
      matchMode: exact
      stripPath: false
";
        assert!(dump.contains(rules), "{dump}");
        assert_eq!(nanoproxy_yaml(&snapshot(&dump)), dump);
        assert_eq!(nanoproxy_yaml(&Snapshot::default()), "upstreams: []\nrules: []\n");
    }

    #[test]
    fn a_rule_of_several_listeners_is_dumped_once() {
        let text = "\
listeners: [{name: a, address: 1}, {name: b, address: 2}]
upstreams: [{name: u, host: h}]
rules:
  - {upstream: u, path: /1}
  - {upstream: u, path: /2, listeners: [b]}
  - {upstream: u, path: /3}
";
        let dump = nanoproxy_yaml(&snapshot(text));
        let paths: Vec<&str> =
            dump.lines().filter(|l| l.contains("path: ")).map(str::trim).collect();
        assert_eq!(paths, ["path: /1", "path: /2", "path: /3"]);
        let json = snapshot_json(&snapshot(text));
        assert_eq!(json["ruleSets"].as_array().map(Vec::len), Some(2));
        assert_eq!(json["listeners"][1]["scopes"][0]["ruleSet"], 1);
    }

    #[test]
    fn inline_pem_is_not_shown() {
        assert_eq!(pem_json(&PemSource::Inline(b"secret".as_slice().into())), "<inline>");
    }
}
