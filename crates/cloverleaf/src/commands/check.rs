//! `cloverleaf check FILE…`: everything that is wrong with a file, or what it would serve.
//!
//! Goes as far as a gateway does before it binds: certificates are read, matchers compiled, and so are the files of a
//! mesh that the file names. A file whose name ends in `.conf` is the `proxy.conf` of a mesh, one
//! with a section for an end of a tunnel is a tunnel's.

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

use config::{Config, Overrides};
use http_proxy::Program;
use mesh::security::Secured;
use mesh::source::{Files, read_file};
use model::{Action, Diagnostic, Diagnostics, Place, Rule, Snapshot};
use serde_json::{Value, json};
use tunnel::client::way::Loaded;

use super::{diagnostics_json, print};
use crate::cli::{CheckArgs, Cli, Command, Output, TunnelCommand, tunnel_file};
use crate::roles;

/// Checks all files; exit code 2 where one has an error.
pub(crate) fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let mut failed = false;
    let mut all = Vec::new();
    for file in &args.files {
        let checked = check(file);
        failed |= matches!(checked.serves, Serves::Nothing);
        match args.output {
            Output::Json => all.push(json!({
                "file": file.display().to_string(),
                "valid": !matches!(checked.serves, Serves::Nothing),
                "problems": diagnostics_json(&checked.found),
                "serves": checked.serves.json(),
            })),
            Output::Text => print(&describe(file, &checked)),
        }
    }
    if args.output == Output::Json {
        print(&format!("{:#}\n", Value::Array(all)));
    }
    Ok(if failed { ExitCode::from(crate::EXIT_USAGE) } else { ExitCode::SUCCESS })
}

/// What a file is good for.
enum Serves {
    Nothing,
    Gateway(Box<Config>),
    Mesh(Box<Files>),
    /// Its sections.
    Tunnel(Vec<&'static str>),
}

impl Serves {
    fn json(&self) -> Value {
        match self {
            Self::Nothing => Value::Null,
            Self::Gateway(config) => config::snapshot_json(&config.snapshot),
            Self::Tunnel(ends) => json!({ "sections": ends }),
            Self::Mesh(files) => json!({
                "hosts": files.hosts.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "clusterPorts": files.settings.cluster_ports.to_string(),
                "mappings": files.mappings.iter().map(|m| json!({
                    "clusterPort": m.cluster_port, "hostPort": m.host_port,
                    "maxConn": m.connections_max, "sendProxy": m.wants_header,
                })).collect::<Vec<_>>(),
            }),
        }
    }
}

/// A file that was looked at, and all that was found.
struct Checked {
    serves: Serves,
    found: Diagnostics,
}

fn check(file: &Path) -> Checked {
    let is_conf = file.extension().is_some_and(|e| e.eq_ignore_ascii_case("conf"));
    let (serves, found) = if is_conf {
        mesh(file)
    } else {
        match tunnel_file::check(file) {
            Some(sections) => tunnel(file, sections),
            None => gateway(file),
        }
    };
    Checked { serves: serves.unwrap_or(Serves::Nothing), found }
}

/// What a mesh makes of its files. At its start all three must be right: a host that begins without hosts or pods only
/// by mistake had better not.
fn mesh(file: &Path) -> (Option<Serves>, Diagnostics) {
    let (files, found) = mesh_files(file);
    (Some(Serves::Mesh(Box::new(files))).filter(|_| !found.has_errors()), found)
}

/// All files of a mesh, those of certificates included.
fn mesh_files(proxy_conf: &Path) -> (Files, Diagnostics) {
    let (files, mut found) = Files::read(proxy_conf, None, &read_file);
    let _ = Secured::first(proxy_conf, &files, &mut found);
    (files, found)
}

/// What a tunnel's ends make of their sections of a file, with all that they name.
fn tunnel(file: &Path, sections: Result<Vec<Cli>, Diagnostics>) -> (Option<Serves>, Diagnostics) {
    let sections = match sections {
        Ok(sections) => sections,
        Err(found) => return (None, found),
    };
    let mut found = Diagnostics::default();
    let mut ends = Vec::new();
    for section in sections {
        let (end, of_section) = match &section.command {
            Command::Tunnel(TunnelCommand::Server(args)) => {
                ("tunnelServer", roles::tunnel::check_server(args))
            }
            Command::Tunnel(TunnelCommand::Agent(args)) => {
                ("tunnelAgent", roles::tunnel::check_agent(args))
            }
            Command::Tunnel(TunnelCommand::Forward(args)) => {
                ("tunnelForward", roles::tunnel::check_forward(args))
            }
            _ => continue,
        };
        ends.push(end);
        found.0.extend(of_section.0.into_iter().map(|mut one| {
            // Flags have no place of their own.
            if one.place == Place::whole(end) {
                one.place = Place::whole(file.display().to_string());
            }
            one
        }));
    }
    (Some(Serves::Tunnel(ends)).filter(|_| !found.has_errors()), found)
}

/// The configuration of a file, if a gateway would serve it.
fn gateway(file: &Path) -> (Option<Serves>, Diagnostics) {
    let (config, mut found) = config::load(file, &Overrides::default());
    let Some(config) = config else { return (None, found) };
    if let Some(beside) = &config.mesh {
        let (files, problems) = mesh_files(&beside.proxy_conf);
        found.0.extend(problems.0);
        let listened = &files.settings.cluster_ports;
        for (port, _) in beside.ports.iter().filter(|(port, _)| !listened.contains(*port)) {
            let place = Place::whole(file.display().to_string());
            let problem = "nobody will listen on this port";
            let warning = Diagnostic::warning(place, "mesh.ports", problem);
            let expected = format!("one of CLUSTERPORTS in proxy.conf, {listened}");
            found.push(warning.value(port.to_string()).expected(expected));
        }
    }
    match Loaded::read(&config.snapshot.tunnels) {
        Ok((_, warnings)) => found.0.extend(warnings.0),
        Err(errors) => found.0.extend(errors.0),
    }
    match Program::compile(1, config.snapshot.clone(), None, "check", None) {
        Ok((_, warnings)) => found.0.extend(warnings.0),
        Err(errors) => found.0.extend(errors.0),
    }
    (Some(Serves::Gateway(Box::new(config))).filter(|_| !found.has_errors()), found)
}

fn describe(file: &Path, checked: &Checked) -> String {
    let Checked { serves, found } = checked;
    let mut out = String::new();
    if !found.0.is_empty() {
        let _ = writeln!(out, "{found}");
    }
    let name = file.display();
    if matches!(serves, Serves::Nothing) {
        let errors = count(found.errors().count(), "error");
        let _ = writeln!(out, "{name}: {errors}: it would not be served");
        return out;
    }
    let warnings = found.warnings().count();
    let _ = writeln!(
        out,
        "{name}: valid{}",
        if warnings > 0 { format!(", {}", count(warnings, "warning")) } else { String::new() }
    );
    /// Rules of one listener that are printed.
    const RULES_SHOWN_MAX: usize = 50;
    match serves {
        Serves::Nothing => {}
        Serves::Gateway(config) => self::serves(&mut out, &config.snapshot, RULES_SHOWN_MAX),
        Serves::Tunnel(ends) => {
            let _ = writeln!(out, "sections: {}", ends.join(", "));
        }
        Serves::Mesh(files) => {
            let (hosts, mappings) = (files.hosts.len(), files.mappings.len());
            let _ = writeln!(out, "mesh: {}, {}", count(hosts, "host"), count(mappings, "mapping"));
            let _ = writeln!(out, "cluster ports: {}", files.settings.cluster_ports);
        }
    }
    out
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// What would be served, in the order in which a request meets it; of each listener that many rules.
pub(crate) fn serves(out: &mut String, snapshot: &Snapshot, rules_max: usize) {
    for listener in &snapshot.listeners {
        let _ = writeln!(
            out,
            "listener {}: {}://{}",
            listener.name,
            listener.protocol.scheme(),
            listener.address
        );
        let rules: Vec<&Rule> = listener.scopes.iter().flat_map(|s| &s.rules.rules).collect();
        for rule in rules.iter().take(rules_max) {
            let _ =
                writeln!(out, "  {}: {} -> {}", rule.name, matches(rule), goes_to(rule, snapshot));
            for guard in guards(rule, snapshot) {
                let _ = writeln!(out, "    needs {guard}");
            }
        }
        if rules.len() > rules_max {
            let _ = writeln!(out, "  … and {} more", rules.len() - rules_max);
        }
    }
}

/// What a rule matches, for a person.
pub(super) fn matches(rule: &Rule) -> String {
    use model::PathMatch as P;
    let path = match &rule.path {
        P::Any => "every path".to_owned(),
        P::Exact(path) => format!("{path} alone"),
        P::Prefix(path) => format!("{path}…"),
        P::Segments(path) => format!("{path} and below"),
        P::Never => "nothing".to_owned(),
    };
    let matched = match &rule.hosts {
        model::HostPattern::Any => path,
        hosts => format!("{hosts} {path}"),
    };
    if rule.fallback { format!("{matched} (fallback)") } else { matched }
}

/// What a request must fulfil beside that to be let through, for a person; nothing of a secret.
pub(super) fn guards(rule: &Rule, snapshot: &Snapshot) -> Vec<String> {
    let key = rule.api_key.as_ref();
    let key = key.map(|key| format!("the API key in the field {}, else 403", key.header));
    let forwards = matches!(rule.action, Action::Forward(_));
    let body = rule.request_body_max.or(snapshot.limits.request_body).filter(|_| forwards);
    let body = body.map(|bytes| format!("a body of at most {bytes} bytes, else 413"));
    key.into_iter().chain(body).collect()
}

/// Where a rule's requests go, for a person.
pub(super) fn goes_to(rule: &Rule, snapshot: &Snapshot) -> String {
    match &rule.action {
        Action::Unavailable { upstream } => format!("503: upstream {upstream} does not exist"),
        Action::Respond { status } => format!("answers {status}"),
        Action::Redirect(to) => {
            let scheme = to.scheme.map(|scheme| scheme.as_str());
            let host = to.host.as_ref().map(|host| host.to_string());
            let port = to.port.map(|port| format!("port {port}"));
            let path = (to.is_relative()).then(|| "another path".to_owned());
            let parts = [scheme.map(str::to_owned), host, port, path].into_iter().flatten();
            let parts: Vec<String> = parts.collect();
            format!("redirects with {} to {}", to.status, parts.join(", "))
        }
        Action::Close => "closes the connection".to_owned(),
        Action::Forward(upstreams) => {
            let name = |u: &model::UpstreamRef| {
                let name = snapshot.upstream(u.upstream).map_or("?", |u| &*u.name);
                if upstreams.len() > 1 {
                    format!("{name} (weight {})", u.weight)
                } else {
                    name.to_owned()
                }
            };
            upstreams.iter().map(name).collect::<Vec<_>>().join(", ")
        }
    }
}
